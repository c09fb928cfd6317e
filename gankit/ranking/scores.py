"""What orders generated images without a person: the critic, nearness to real images, a classifier's confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from gankit.errors import GankitError, PartError, RunError
from gankit.evaluation import extraction
from gankit.evaluation.extraction import BATCH, extractor
from gankit.evaluation.sources import TRAINING, Source, from_array, images_only, open_images, run_reference
from gankit.experiments.experiment import default_features
from gankit.interfaces import Dataset, Features
from gankit.metrics.precision_recall import realism_score
from gankit.registry import Part
from gankit.registry.messages import unknown
from gankit.runs.run import Run, batches

Scores = NDArray[np.float64]
Classifier = Callable[[Tensor], Any] | Features | str | Path | dict[str, Any] | Part
"""(n, c, h, w) float32 images in [0, 255] to (n, classes) logits, or what such a network is made of."""


def critic_scores(run: Run, z: Tensor, labels: Tensor | None) -> tuple[Scores, list[str]]:
    """What the run's critic says of images as the generator makes them: not augmented, not rounded, with labels.

    Args:
        run: with a checkpoint, whose critic it is.
        z: (n, latent_dim) latents.
        labels: None, (n,) classes, or (n, k) standardised conditions, as `Run.draw` gives them.

    Returns:
        (n,) scores, larger is more real, a score map's mean where the critic gives one; and what to know of them.

    Raises:
        RunError: there is no checkpoint, or a score is not finite.
    """
    device, made, alone = run.device, [], True
    with torch.no_grad():
        start = 0
        for images in batches(run.generator, z, labels):
            label = None if labels is None else labels[start : start + len(images)].to(device)
            scores = _score(run, images.to(device), label)
            if start == 0:
                first = _score(run, images[:1].to(device), None if label is None else label[:1])
                alone = torch.allclose(first, scores[:1], rtol=1e-3, atol=1e-5)
            made.append(scores)
            start += len(images)
    found = torch.cat(made).numpy()
    if not np.isfinite(found).all():
        raise RunError(
            f"{run.path}: the critic's score of image {np.flatnonzero(~np.isfinite(found))[0]} is not finite"
        )
    notes = [] if alone else ["the critic lets images of a batch change each other's scores: order within a batch only"]
    return found, notes


def _score(run: Run, images: Tensor, labels: Tensor | None) -> Tensor:
    return run.critic(images, labels).double().cpu().reshape(len(images), -1).mean(1)


def realism_scores(
    run: Run, images: NDArray[Any], features: str | dict[str, Any] | Part | Features | None, real: Source | None
) -> tuple[Scores, list[str]]:
    """`realism_score` of drawn images beside the run's held-out images, or its training images where it has none.

    Args:
        run: whose images they are.
        images: (n, c, h, w) in the data's type.
        features: as in `gankit.evaluate`; by default those of the run's evaluation.
        real: other real images.

    Returns:
        (n,) scores in [0, infinity], and what to know of them.

    Raises:
        GankitError: too few real images, features that refuse the images, or data that are gone.
    """
    if isinstance(real, (Run, type(None))):
        name, reals = run_reference(real or run)
    else:
        name = "real images"
        reals = images_only(open_images(real, name, window=run.value_range), name)
    chosen = run.experiment.evaluation.features if features is None else features
    _, network = extractor(chosen if chosen is not None else default_features(), reals.image.shape)
    drawn = _dataset(run, images)
    scores = realism_score(
        extraction.features(reals, network, name=name, content=reals.digest(), quiet=True),
        extraction.features(drawn, network, content=drawn.digest(), quiet=True),
    )
    notes = [f"reference: {len(reals)} {name}"]
    if name == TRAINING:
        notes.append(
            "copies of training images would come first: gankit evaluate --metrics memorisation looks for them"
        )
    return scores, notes


def _dataset(run: Run, images: NDArray[Any]) -> Dataset:
    """(n, c, h, w) images that a run drew, as features read them."""
    return from_array(images, "drawn", run.value_range)


def label_scores(run: Run, images: NDArray[Any], wanted: NDArray[np.int64], classifier: Classifier) -> Scores:
    """How sure a classifier is of the class that each image was asked to be: its softmax there.

    Args:
        run: whose images they are.
        images: (n, c, h, w) in the data's type.
        wanted: (n,) classes, places in the run's class names.
        classifier: a TorchScript file that gives class logits; features that have logits, or whose vectors are logits
            (`{"name": "torchscript", "path": ..., "size": ..., "low": ..., "high": ...}`); or a function or module of
            (n, c, h, w) float32 images in [0, 255]. Its classes are the run's, in the run's order, unless it has
            `class_names`, which are then matched.

    Returns:
        (n,) probabilities.

    Raises:
        PartError: the classifier cannot be used, or its classes are not the run's.
    """
    logits, names = _logits(run, images, classifier)
    n = len(images)
    if logits.ndim != 2 or len(logits) != n:
        raise PartError(f"the classifier gives the shape {logits.shape} for {n} images; (n, classes) is needed")
    if logits.shape[1] != len(names):
        raise PartError(
            f"the classifier gives {logits.shape[1]} logits, and there are {len(names)} classes: {', '.join(names)}"
        )
    if missing := [run.class_names[k] for k in np.unique(wanted) if run.class_names[k] not in names]:
        raise PartError(f"the classifier has no class {missing[0]!r}; {unknown(missing[0], names)}")
    if not np.isfinite(logits).all():
        raise PartError(
            f"the classifier's logits of image {np.flatnonzero(~np.isfinite(logits).all(1))[0]} are not finite"
        )
    columns = np.array([names.index(run.class_names[k]) for k in wanted], dtype=np.int64)
    chosen: Scores = softmax(logits, axis=1)[np.arange(n), columns]
    return chosen


def _logits(run: Run, images: NDArray[Any], classifier: Classifier) -> tuple[Scores, list[str]]:
    if isinstance(classifier, (str, Path)) and (Path(classifier).suffix or len(Path(classifier).parts) > 1):
        channels = {} if run.image.channels not in (1, 3) else {"channels": run.image.channels}
        classifier = {"name": "torchscript", "path": str(classifier), **channels}
    network: Any = classifier
    if isinstance(classifier, (str, dict, Part, Features)):
        _, network = extractor(classifier, run.image.shape)
        # Features with a head say so; of others the vectors themselves are the logits.
        field = "features" if type(network).logits is Features.logits else "logits"
        drawn = _dataset(run, images)
        rows = extraction.rows(drawn, network, {field}, content=drawn.digest(), quiet=True)
        found = rows.required(field)
    else:
        low, high = run.value_range
        pieces = []
        for start in range(0, len(images), BATCH):
            part = (images[start : start + BATCH].astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
            with torch.no_grad():
                made = classifier(torch.from_numpy(part).to(_device(classifier)))  # type: ignore[operator]
            pieces.append(torch.as_tensor(made).detach().cpu().double().numpy())
        found = np.concatenate(pieces)
    names: Sequence[str] | None = getattr(network, "class_names", None)
    return found.astype(np.float64), list(run.class_names if names is None else names)


def _device(classifier: Any) -> torch.device:
    tensors = [*classifier.parameters(), *classifier.buffers()] if isinstance(classifier, torch.nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")


def wanted_classes(run: Run, labels: Tensor | None, label: str | None, n: int) -> NDArray[np.int64]:
    """(n,) classes that images were asked to be: their (n,) labels, or one class for the images of a run without.

    Raises:
        GankitError: the run is conditioned on numbers, or has no class of this name, or no class is named.
    """
    if run.image.conditions:
        raise GankitError(f"by label: {run.path} is conditioned on numbers, and a classifier knows classes")
    if labels is not None:
        return labels.numpy()
    names = run.class_names
    if label is None:
        raise GankitError(
            f"by label: {run.path} was trained without labels: name the class that is asked for by --label"
        )
    if label not in names and not (label.isdecimal() and int(label) < len(names)):
        raise GankitError(f"by label: there is no class {label!r} in {run.path}; {unknown(label, names)}")
    return np.full(n, names.index(label) if label in names else int(label), dtype=np.int64)
