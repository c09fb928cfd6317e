"""Scores of generated images without a person: by the critic, by realism, by a classifier."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from gankit.errors import GankitError, PartError, RunError, suggestion
from gankit.evaluation import extraction
from gankit.evaluation.extraction import BATCH, device_of, extractor
from gankit.evaluation.sources import TRAINING, Source, from_array, notes
from gankit.images.grey_levels import rescale
from gankit.interfaces import Features
from gankit.metrics.precision_recall import realism_score
from gankit.nn.modes import exact
from gankit.ranking.shown import Opened, open_reals
from gankit.registry import Part
from gankit.runs.labels import find_class
from gankit.runs.networks import generate_batches
from gankit.runs.run import Run

Scores = NDArray[np.float64]
Classifier = Callable[[Tensor], Any] | Features | str | Path | dict[str, Any] | Part
"""A function of (n, c, h, w) float32 images in [0, 255] that gives (n, classes) logits, or what one is built from."""


def critic_scores(run: Run, z: Tensor, labels: Tensor | None) -> tuple[Scores, list[str]]:
    """The critic's scores of images as the generator makes them: not augmented, not rounded, with labels.

    From (n, latent_dim) latents and None, (n,) classes or (n, k) standardised conditions, as `Run.draw` gives them:
    (n,) scores, larger is more real, means where the critic gives score maps; and remarks on them.

    Raises:
        RunError: there is no checkpoint, or a score is not finite.
    """
    pieces: list[Tensor] = []
    independent, start = True, 0

    def score(images: Tensor) -> Tensor:
        of_these = None if labels is None else labels[start : start + len(images)].to(run.device)
        return run.critic(images.to(run.device), of_these).cpu().double().reshape(len(images), -1).mean(1)

    with torch.no_grad(), exact(run.device):
        for images in generate_batches(run.generator, z, labels):
            pieces.append(score(images))
            if start == 0:
                independent = torch.allclose(score(images[:1]), pieces[0][:1], rtol=1e-3, atol=1e-5)
            start += len(images)
    values = torch.cat(pieces).numpy()
    if not np.isfinite(values).all():
        raise RunError(
            f"{run.path}: the critic's score of image {np.flatnonzero(~np.isfinite(values))[0]} is not finite"
        )
    mixing = "the critic's score of an image depends on the other images of its batch: compare images of a batch only"
    return values, [] if independent else [mixing]


def realism_scores(
    run: Run, images: NDArray[Any], features: str | dict[str, Any] | Part | Features | None, real: Source | None
) -> tuple[Scores, list[str]]:
    """`realism_score` of a run's (n, c, h, w) images, in the data's type, with `features` and `real` as for `rank`.

    These are (n,) scores in [0, infinity], and remarks on them.

    Raises:
        GankitError: too few real images, features that cannot read the images, or data that cannot be opened.
    """
    name, reals = open_reals([Opened(run.path.name, run)], real)
    chosen = run.experiment.evaluation.features if features is None else features
    _, network = extractor(chosen, reals.image.shape)
    drawn = from_array(images, "drawn", run.value_range)
    scores = realism_score(
        extraction.features(reals, network, name=name, content=reals.digest(), quiet=True),
        extraction.features(drawn, network, content=drawn.digest(), quiet=True),
    )
    remarks = [f"reference: {len(reals)} {name}", *notes(reals, name)]
    if name == TRAINING:
        remarks.append("copies of training images may come first: see gankit evaluate --metrics memorisation")
    return scores, remarks


def label_scores(run: Run, images: NDArray[Any], wanted: NDArray[np.int64], classifier: Classifier) -> Scores:
    """A classifier's probability (softmax) of the class that each of (n, c, h, w) images was drawn with, (n,).

    The (n,) `wanted` classes are indices of the run's class names. The classifier is a TorchScript file, or a `.pt2`
    file of torch.export, that gives class logits; features that have logits, or whose vectors are logits (`{"name":
    "torch-export", "path": ..., "size": ..., "low": ..., "high": ...}`); or a function or module of (n, c, h, w)
    float32 images in [0, 255]. Its classes are the run's, in the run's order, unless it has `class_names`, which are
    then matched.

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
        raise PartError(f"the classifier has no class {missing[0]!r}; {suggestion(missing[0], names)}")
    if not np.isfinite(logits).all():
        raise PartError(
            f"the classifier's logits of image {np.flatnonzero(~np.isfinite(logits).all(1))[0]} are not finite"
        )
    columns = np.array([names.index(run.class_names[k]) for k in wanted], dtype=np.int64)
    return cast(Scores, softmax(logits, axis=1)[np.arange(n), columns])


def _logits(run: Run, images: NDArray[Any], classifier: Classifier) -> tuple[Scores, list[str]]:
    if isinstance(classifier, (str, Path)) and (Path(classifier).suffix or len(Path(classifier).parts) > 1):
        channels = {} if run.image.channels not in (1, 3) else {"channels": run.image.channels}
        name = "torch-export" if Path(classifier).suffix == ".pt2" else "torchscript"
        classifier = {"name": name, "path": str(classifier), **channels}
    network: Any = classifier
    if isinstance(classifier, (str, dict, Part, Features)):
        _, network = extractor(classifier, run.image.shape)
        # Features without a head for logits are taken to be the logits themselves.
        field = "features" if type(network).logits is Features.logits else "logits"
        drawn = from_array(images, "drawn", run.value_range)
        rows = extraction.rows(drawn, network, {field}, content=drawn.digest(), quiet=True)
        logits = rows.required(field)
    else:
        pieces = []
        for start in range(0, len(images), BATCH):
            part = rescale(images[start : start + BATCH].astype(np.float32), run.value_range, (0.0, 255.0))
            device = device_of(classifier)
            with torch.no_grad(), exact(device):
                output = classifier(torch.from_numpy(part).to(device))  # type: ignore[operator]
            pieces.append(torch.as_tensor(output).detach().cpu().double().numpy())
        logits = np.concatenate(pieces)
    names: Sequence[str] | None = getattr(network, "class_names", None)
    return logits.astype(np.float64), list(run.class_names if names is None else names)


def wanted_classes(run: Run, labels: Tensor | None, label: str | None, n: int) -> NDArray[np.int64]:
    """(n,) classes that images were drawn with; for a run without labels, the one class that is given for all.

    Raises:
        GankitError: the run is conditioned on numbers, has no class of this name, or no class is given.
    """
    if run.image.conditions:
        raise GankitError(f"by label: {run.path} is conditioned on numbers, and a classifier knows only classes")
    if labels is not None:
        return labels.numpy()
    if label is None:
        raise GankitError(f"by label: {run.path} was trained without labels: name the class with --label")
    return np.full(n, find_class(label, run.class_names, run.path), dtype=np.int64)
