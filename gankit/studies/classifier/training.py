"""One training of one arm: as many optimiser steps as every other, resumable at any moment."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gankit import seeds
from gankit.evaluation.design import Floats
from gankit.files import open_atomically
from gankit.images.grey_levels import rescale
from gankit.interfaces import Dataset
from gankit.runs import checkpoint
from gankit.runs.classifiers import FILE
from gankit.runs.run import choose_device
from gankit.studies.classifier.arms import Arm, TrainingSet, training_set
from gankit.studies.classifier.data import numbers
from gankit.studies.classifier.settings import Classical, ClassifierSettings
from gankit.studies.study import JOBS
from gankit.version import __version__

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy

JUDGED = 256  # Images at a time when a classifier is applied
CURVE = 20  # Points of the curve of losses
OUTPUTS = "logits.npy"


def augment(images: Tensor, settings: Classical, draws: torch.Generator) -> Tensor:
    """(n, c, h, w) images in [-1, 1], each shifted, turned, scaled, brighter or darker by draws of its own on the CPU.

    What comes in from outside repeats the edge.
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


def to_tensor(images: NDArray[Any], dataset: Dataset, device: torch.device) -> Tensor:
    """(n, c, h, w) images in the data's type to [-1, 1]."""
    return rescale(torch.from_numpy(images.astype(np.float32)).to(device), dataset.value_range, (-1.0, 1.0))


def batch_images(data: TrainingSet, indices: NDArray[np.int64], seed: int, step: int, device: torch.device) -> Tensor:
    """(k,) places of a batch to its (k, c, h, w) images in [-1, 1], augmented where the arm has an augmentation."""
    rows = data.images[indices]
    draws = seeds.generator(seed, "classical", step)
    flip = data.classical is not None and data.classical.flip
    if flip and (mirror := data.dataset.mirror(rows)) is not None:
        flipped = (torch.rand(len(rows), generator=draws) < 0.5).numpy()
        rows = np.where(flipped[:, None, None, None], mirror, rows)
    images = to_tensor(rows, data.dataset, device)
    return images if data.classical is None else augment(images, data.classical, draws)


def fit(network: nn.Module, data: TrainingSet, settings: ClassifierSettings, seed: int, folder: Path) -> dict[str, Any]:
    """Train a network in place on its device, from the newest checkpoint in the folder where there is one.

    Gives {"steps": optimiser steps, "resumed_at": step that it went on from, "losses": means along the way}.
    """
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), settings.lr, weight_decay=settings.weight_decay)
    order, steps = data.order(seed), 0
    losses, counts = torch.zeros(2, CURVE, dtype=torch.float64)
    weights = None if data.weights is None else data.weights.to(device)
    if (restored := checkpoint.restore(folder / "checkpoints", device)) is not None:
        steps, state = restored.step, restored.state
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
            targets = data.targets[indices].to(device)
            outputs = network(batch_images(data, indices, seed, steps, device))
            numeric = targets.is_floating_point()
            loss = F.mse_loss(outputs, targets) if numeric else F.cross_entropy(outputs, targets, weights)
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
    return {"steps": steps, "resumed_at": resumed_at, "losses": (losses / counts)[counts > 0].tolist()}


@torch.no_grad()
def apply(network: nn.Module, dataset: Dataset) -> NDArray[np.float64]:
    """(n, outputs) of a network in evaluation mode for all images of a data set."""
    device, places = next(network.parameters()).device, torch.split(torch.arange(len(dataset)), JUDGED)
    pieces = [network(to_tensor(dataset.read(batch.numpy()), dataset, device)).double().cpu() for batch in places]
    return torch.cat(pieces).numpy()


def train_arm(study: ClassifierStudy, arm: Arm, seed: int, generator: Path | None, folder: Path) -> dict[str, Any]:
    """A job: train a classifier of one arm and one seed, write it and its logits of the test part."""
    train = study.split.train
    data = training_set(study, arm, seed, generator)
    facts = {"class_names": list(train.class_names), "outputs": train.image.classes, "arm": arm.name, "seed": seed}
    return _train(study, data, folder, facts)


def train_regression(study: ClassifierStudy, seed: int, folder: Path) -> dict[str, Any]:
    """A job: train a network of one seed on a number, write it and what it says of the test part, in its own units."""
    train, name = study.split.train, str(study.settings.regression)
    values = numbers(train)[name]
    mean, scale = float(values.mean()), float(values.std()) or 1.0
    data = TrainingSet(np.asarray(train.images), torch.from_numpy((values - mean) / scale).float()[:, None], train)
    facts = {"class_names": [], "outputs": 1, "number": name, "mean": mean, "scale": scale, "seed": seed}
    result = _train(study, data, folder, facts)
    _write_outputs(folder, np.load(folder / OUTPUTS) * scale + mean)
    return {**result, "mean": mean}


def _train(study: ClassifierStudy, data: TrainingSet, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    train, seed = study.split.train, facts["seed"]
    with torch.random.fork_rng():
        seeds.seed_torch(seed, "classifier weights")  # the same first weights in every arm
        network = study.new_network(facts["outputs"]).to(choose_device(study.experiment.training.device))
    progress = fit(network, data, study.settings, seed, folder)
    facts = {
        "kind": "classifier", "gankit": __version__,
        **study.settings.model_dump(include={"network", "width", "input_size"}),
        **facts, "image": list(train.image.shape), "value_range": list(train.value_range),
    }  # fmt: skip
    checkpoint.export(folder / FILE, network, facts)
    _write_outputs(folder, apply(network, study.split.test))
    for path in (folder / "checkpoints").glob("*.pt"):
        path.unlink()
    return {**progress, "real": len(train), "added": len(data.images) - len(train)}


def _write_outputs(folder: Path, outputs: NDArray[np.float64]) -> None:
    with open_atomically(folder / OUTPUTS) as file:
        np.save(file, outputs)


def load_outputs(folder: Path, name: str, seeds: list[int]) -> Floats:
    """(seeds, n, outputs) of one kind of networks for the test part."""
    return np.stack([np.load(folder / JOBS / f"{name}-{seed}" / OUTPUTS) for seed in seeds])
