"""One training of one arm: as many optimiser steps as every other, resumable at any moment."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gankit import seeds
from gankit.errors import RunError
from gankit.interfaces import Dataset
from gankit.runs import checkpoint
from gankit.runs.run import choose_device, open_run
from gankit.seeds import Order
from gankit.studies.classifier.data import Parts, labels_of, numbers, parts_of
from gankit.studies.classifier.networks import FILE, new_network, save_network
from gankit.studies.classifier.settings import ArmName, Classical, ClassifierStudy, ClassifierTable
from gankit.studies.trainings import TIMED, WARMING
from gankit.training.trainer import resume, train

JUDGED = 256
"""Images at a time when a classifier is applied."""
CURVE = 20
"""Points of the curve of losses."""
LOGITS, RUN = "logits.npy", "run"
ADDING: tuple[ArmName, ...] = ("synthetic", "classical-synthetic", "copies")
"""Arms with more images than the real ones."""


@dataclass(frozen=True)
class Lesson:
    """What a training learns from.

    Attributes:
        images: (n, c, h, w) in the data's type.
        targets: (n,) classes, or (n, 1) standardised numbers.
        balanced: draws classes equally often, rather than every image once an epoch.
        weights: (classes,) of the loss, or None.
        classical: the augmentation, or None.
        dataset: knows the range and the mirror image.
    """

    images: NDArray[Any]
    targets: Tensor
    dataset: Dataset
    balanced: bool = False
    weights: Tensor | None = None
    classical: Classical | None = None

    def order(self, seed: int) -> Order:
        """Which images each batch holds."""
        if not self.balanced:
            return Order(seed, "classifier", len(self.images))
        labels = self.targets.numpy()
        chances = 1.0 / np.bincount(labels)[labels]
        return Order(seed, "classifier", len(self.images), chances / chances.sum())


def lesson_of(arm: ArmName, study: ClassifierStudy, parts: Parts, seed: int, generator: Path | None) -> Lesson:
    """The training images of an arm, with those that it adds.

    Args:
        arm: which.
        study: its settings.
        parts: its data.
        seed: of the added images.
        generator: the run of a generator that was trained on the training part, where the arm needs one.

    Raises:
        RunError: the generator is not there.
    """
    images, labels = np.asarray(parts.train.images), labels_of(parts.train)
    classes, weights, own = parts.train.image.classes, None, study.classifier
    added = added_labels(study, parts)
    if len(added) and arm in ADDING:
        if arm == "copies":
            more = _copies(images, labels, added, parts.train, own.copy_noise, seed)
        else:
            assert generator is not None
            run = open_run(generator)
            if not run.finished:
                raise RunError(f"the generator {generator.parent.name} has failed")
            more = run.sample(len(added), added, seed=seeds.derive_seed(seed, "added") % 2**62)
        images, labels = np.concatenate([images, more]), np.concatenate([labels, added])
    if arm == "classical":
        counts = np.bincount(labels, minlength=classes)
        weights = torch.from_numpy(len(labels) / (classes * counts)).float()
    classical = own.classical if "classical" in arm else None
    return Lesson(images, torch.from_numpy(labels.copy()), parts.train, arm == "oversampling", weights, classical)


def added_labels(study: ClassifierStudy, parts: Parts) -> NDArray[np.int64]:
    """(k,) classes of the images that fill up the rare classes."""
    own, names = study.classifier, parts.train.class_names
    counts = np.bincount(labels_of(parts.train), minlength=len(names))
    chosen = [names.index(name) for name in own.synthetic_classes] or [parts.rarest]
    missing = [max(0, round(own.synthetic_fill * int(counts.max())) - int(counts[label])) for label in chosen]
    return np.repeat(np.array(chosen, dtype=np.int64), missing)


def _copies(
    images: NDArray[Any], labels: NDArray[np.int64], added: NDArray[np.int64], dataset: Dataset, noise: float, seed: int
) -> NDArray[Any]:
    """(k, c, h, w) training images of the added classes, drawn again and noised: what adds no information."""
    random = np.random.default_rng(seeds.derive_seed(seed, "copies"))
    chosen = np.array([random.choice(np.flatnonzero(labels == label)) for label in added], dtype=np.int64)
    low, high = dataset.value_range
    noised = images[chosen] + random.normal(0, noise * (high - low), (len(chosen), *images.shape[1:]))
    return np.clip(np.rint(noised) if images.dtype.kind == "u" else noised, low, high).astype(images.dtype)


def augmented(images: Tensor, settings: Classical, draws: torch.Generator) -> Tensor:
    """Shifted, turned, scaled, brighter or darker images, each by draws of its own.

    Args:
        images: (n, c, h, w) in [-1, 1].
        settings: how far.
        draws: on the CPU.

    Returns:
        (n, c, h, w) in [-1, 1]; what comes in from outside repeats the edge.
    """
    n, _, height, width = images.shape
    move = (torch.rand(n, 6, generator=draws) * 2 - 1).to(images)
    angle = move[:, 0] * math.radians(settings.rotate)
    scale = 1 + move[:, 1] * settings.scale
    sine, cosine, aspect = angle.sin() / scale, angle.cos() / scale, height / width
    right, down = move[:, 2] * 2 * settings.shift, move[:, 3] * 2 * settings.shift
    rows = [torch.stack([cosine, -sine * aspect, right], 1), torch.stack([sine / aspect, cosine, down], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    contrast = (1 + move[:, 4] * settings.contrast)[:, None, None, None]
    brightness = (move[:, 5] * 2 * settings.brightness)[:, None, None, None]
    mean = moved.mean((1, 2, 3), keepdim=True)
    return ((moved - mean) * contrast + mean + brightness).clamp(-1, 1)


def scaled(images: NDArray[Any], dataset: Dataset, device: torch.device) -> Tensor:
    """(n, c, h, w) images in the data's type to [-1, 1]."""
    low, high = dataset.value_range
    return torch.from_numpy(images.astype(np.float32)).to(device).sub_(low).mul_(2 / (high - low)).sub_(1)


def _batch(lesson: Lesson, indices: NDArray[np.int64], seed: int, step: int, device: torch.device) -> Tensor:
    rows = lesson.images[indices]
    draws = seeds.generator(seed, "classical", step)
    if lesson.classical is not None and lesson.classical.flip:
        mirror = lesson.dataset.mirror(rows)
        if mirror is not None:
            flipped = (torch.rand(len(rows), generator=draws) < 0.5).numpy()
            rows = np.where(flipped[:, None, None, None], mirror, rows)
    images = scaled(rows, lesson.dataset, device)
    return images if lesson.classical is None else augmented(images, lesson.classical, draws)


def fit(network: nn.Module, lesson: Lesson, settings: ClassifierTable, seed: int, folder: Path) -> dict[str, Any]:
    """Train a network in place, from its newest checkpoint where there is one.

    Args:
        network: on its device.
        lesson: what it learns from.
        settings: steps, batch and rates.
        seed: of batches and augmentation.
        folder: of the training; its checkpoints are deleted at the end.

    Returns:
        {"steps": optimiser steps, "resumed_at": step that it went on from, "losses": means along the way}.
    """
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), settings.lr, weight_decay=settings.weight_decay)
    order, steps, losses = lesson.order(seed), 0, torch.zeros(CURVE, dtype=torch.float64)
    counts = torch.zeros(CURVE, dtype=torch.float64)
    weights = None if lesson.weights is None else lesson.weights.to(device)
    if (restored := checkpoint.restore(folder / "checkpoints", device)) is not None:
        steps, state = restored
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        losses, counts = state["losses"].cpu(), state["counts"].cpu()
    resumed_at = steps
    network.train()
    with torch.random.fork_rng():
        while steps < settings.steps:
            seeds.seed_torch(seed, "classifier step", steps)  # of dropout
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * steps / settings.steps))
            indices = order.batch(steps, settings.batch)
            images, targets = _batch(lesson, indices, seed, steps, device), lesson.targets[indices].to(device)
            outputs = network(images)
            if targets.is_floating_point():
                loss = F.mse_loss(outputs, targets)
            else:
                loss = F.cross_entropy(outputs, targets, weights)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            place = min(CURVE - 1, steps * CURVE // settings.steps)
            losses[place] += loss.item()
            counts[place] += 1
            steps += 1
            if steps % settings.checkpoint_every == 0 and steps < settings.steps:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                checkpoint.save(folder / "checkpoints", steps, {**state, "losses": losses, "counts": counts})
    network.eval()
    curve = [float(total / n) for total, n in zip(losses, counts, strict=True) if n]
    return {"steps": steps, "resumed_at": resumed_at, "losses": curve}


def seconds_a_fitting_step(study: ClassifierStudy, parts: Parts, threads: int | None) -> float:
    """How long a step of an arm's training takes, from a few with classical augmentation that are thrown away."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    device = choose_device(study.training.device)
    lesson = lesson_of("classical", study, parts, 0, None)
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
            network = new_network(parts.train.image, parts.train.image.classes, study.classifier).to(device)
            for steps in (WARMING, TIMED):
                start = time.perf_counter()
                fit(network, lesson, study.classifier.model_copy(update={"steps": steps}), 0, Path(folder))
            return (time.perf_counter() - start) / TIMED
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def outputs_of(network: nn.Module, dataset: Dataset) -> NDArray[np.float64]:
    """(n, outputs) of a network in evaluation mode for all images of a data set."""
    device = next(network.parameters()).device
    places = np.arange(len(dataset))
    pieces = [
        network(scaled(dataset.read(places[start : start + JUDGED]), dataset, device)).double().cpu().numpy()
        for start in range(0, len(places), JUDGED)
    ]
    found: NDArray[np.float64] = np.concatenate(pieces)
    return found


def train_generator(folder: Path, tables: dict[str, Any], seed: int) -> dict[str, Any]:
    """A job: train a generator of classes on the training part alone, into the sub-folder `run`.

    Raises:
        GankitError: as `gankit.train`.
    """
    study = ClassifierStudy.model_validate(tables)
    data, place = parts_of(study).train, folder / RUN
    if (place / "experiment.toml").is_file():
        run = resume(place, data=data)
    else:
        run = train(study.generator_experiment(seed), place, data=data)
    return {"steps": run.steps, "real": len(data)}


def train_arm(
    folder: Path, tables: dict[str, Any], arm: ArmName, seed: int, generator: Path | None = None
) -> dict[str, Any]:
    """A job: train a classifier of one arm and one seed, write it and its logits of the test part."""
    study = ClassifierStudy.model_validate(tables)
    parts = parts_of(study)
    lesson = lesson_of(arm, study, parts, seed, generator)
    classes = parts.train.image.classes
    facts = {"class_names": list(parts.train.class_names), "outputs": classes, "arm": arm, "seed": seed}
    found = _train(folder, study, parts, lesson, seed, facts)
    return {**found, "real": len(parts.train), "added": len(lesson.images) - len(parts.train)}


def train_regression(folder: Path, tables: dict[str, Any], seed: int) -> dict[str, Any]:
    """A job: train a network of one seed on a number, write it and what it says of the test part, in its own units."""
    study = ClassifierStudy.model_validate(tables)
    parts, name = parts_of(study), str(study.classifier.regression)
    values = numbers(parts.train)[name]
    mean, scale = float(values.mean()), float(values.std()) or 1.0
    targets = torch.from_numpy((values - mean) / scale).float()[:, None]
    lesson = Lesson(np.asarray(parts.train.images), targets, parts.train)
    facts = {"class_names": [], "outputs": 1, "number": name, "mean": mean, "scale": scale, "seed": seed}
    found = _train(folder, study, parts, lesson, seed, facts)
    np.save(folder / LOGITS, np.load(folder / LOGITS) * scale + mean)
    return {**found, "real": len(parts.train), "added": 0, "mean": mean}


def _train(
    folder: Path, study: ClassifierStudy, parts: Parts, lesson: Lesson, seed: int, facts: dict[str, Any]
) -> dict[str, Any]:
    device = choose_device(study.training.device)
    with torch.random.fork_rng():
        seeds.seed_torch(seed, "classifier weights")  # the same first weights in every arm
        network = new_network(parts.train.image, facts["outputs"], study.classifier).to(device)
    found = fit(network, lesson, study.classifier, seed, folder)
    image = {"image": list(parts.train.image.shape), "value_range": list(parts.train.value_range)}
    save_network(folder / FILE, network, study.classifier, {**facts, **image})
    np.save(folder / LOGITS, outputs_of(network, parts.test))
    for old in (folder / "checkpoints").glob("*.pt"):
        old.unlink()
    return found
