"""Train a network to predict classes or a number from images: settings, augmentation, and training that can resume."""

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Le
from numpy.typing import NDArray
from pydantic import field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from gankit import seeds
from gankit.errors import PartError, suggestion
from gankit.experiments.tables import Count, Rate, Settings, Share
from gankit.files import user_path
from gankit.images.grey_levels import rescale
from gankit.images.room import too_many
from gankit.interfaces import Dataset, ImageSpec
from gankit.nn.modes import exact
from gankit.nn.threads import torch_threads
from gankit.registry.messages import shown
from gankit.runs import checkpoint
from gankit.runs.classifiers import SMALL, TorchvisionNetwork, load_weights, make_network
from gankit.runs.run import choose_device
from gankit.seeds import Order
from gankit.studies.study import Refuse

CHECKPOINTS = "checkpoints"  # the sub-folder of a job in which `fit` keeps its state
AT_ONCE = 256  # images to which a network is applied at a time
WARM_UP_STEPS, TIMED_STEPS = 1, 4  # steps that `time_fit` does before it times, and those that it times
SPANS = 20  # a training is divided into so many equal spans, and the mean loss of each is kept
Images = NDArray[Any]


class Classical(Settings):
    """Classical augmentation: random changes that keep the label, drawn anew for each image of each batch.

    Attributes:
        flip: mirrors every second image on average, where the data set has a mirror image that keeps the label.
        shift: at most this share of the height and of the width, in any direction.
        rotate: at most these degrees either way.
        scale: at most this share larger or smaller.
        brightness: at most this share of the range brighter or darker.
        contrast: at most this share more or less contrast.
    """

    flip: bool = True
    shift: Share = 0.06
    rotate: Annotated[float, Ge(0), Le(180)] = 5.0
    scale: Share = 0.05
    brightness: Share = 0.1
    contrast: Share = 0.1


class FitSettings(Settings):
    """How a network is trained.

    Attributes:
        network: "small", gankit's own: a few convolutions for images of any size and channels; or a classification
            network of torchvision by name.
        width: channels of the small network's first layer.
        weights: a file with weights of the torchvision network to start from, as torchvision publishes them; those of
            its last layer are left out. Nothing is downloaded; without a file the first weights are drawn.
        input_size: pixels to which images are resized for a network of torchvision; their own size where None.
        steps: optimiser steps of every training, whatever the arm. The weights after the last step are tested, so that
            no step is chosen on the test part.
        batch: images of a step.
        lr: the highest learning rate of AdamW; it falls to 0 along a cosine.
        weight_decay: AdamW's.
        checkpoint_every: steps between checkpoints of a training.
        classical: the classical augmentation of the arms that have it.
    """

    table: ClassVar[str] = "classifier"  # where these settings stand in a study file, for errors

    network: str = SMALL
    width: Count = 16
    weights: str | None = None
    input_size: Annotated[int, Ge(8), Le(4096)] | None = None
    steps: Count = 1000
    batch: Annotated[int, Ge(2)] = 64
    lr: Rate = 2e-3
    weight_decay: Annotated[float, Ge(0)] = 1e-2
    checkpoint_every: Count = 500
    classical: Classical = Classical()

    @field_validator("network")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != SMALL:
            from torchvision import models

            names = models.list_models(module=models)
            if name not in names:
                raise ValueError(f"torchvision has no network {shown(name)}; {suggestion(name, [SMALL, *names])}")
        return name

    def check_weights(self, refuse: Refuse) -> None:
        """Refuse a file of weights that does not exist, or without a network of torchvision to load it into.

        Raises:
            SettingsError: made by `refuse`.
        """
        if self.weights is not None and self.network == SMALL:
            why = f"they are for networks of torchvision; name one with {self.table}.network"
            raise refuse(self.table, "weights", why)
        if self.weights is not None and not user_path(self.weights).is_file():
            raise refuse(self.table, "weights", f"there is no file {self.weights}; weights are never downloaded")

    def new_network(self, image: ImageSpec, outputs: int, seed: int | None = None) -> nn.Module:
        """A network to be trained, with its first weights.

        Weights that no file provides are drawn at random: by the seed or, without one, by torch's own state.

        Raises:
            PartError: the network cannot take these images, a batch of them does not fit into the memory, or the file
                holds no weights of this network.
        """
        if reason := too_many(self.batch, image.shape, torch.float32.itemsize):
            raise PartError(f"{self.table}.batch: {reason}")
        with seeds.own_draws():
            if seed is not None:
                seeds.seed_torch(seed, "classifier weights")
            network = make_network(image, outputs, self.network, self.width, self.input_size, self.table)
        if self.weights is not None:
            assert isinstance(network, TorchvisionNetwork)
            load_weights(network.network, user_path(self.weights), self.network, self.table)
        return network


@dataclass(frozen=True)
class TrainingSet:
    """What a network learns from."""

    images: Images  # (n, c, h, w) in the data set's type
    targets: Tensor  # (n,) classes, or (n, 1) standardised numbers
    dataset: Dataset  # where the images are from: it knows their range and their mirror images
    balanced: bool = False  # whether classes are drawn equally often
    weights: Tensor | None = None  # (classes,) by which the loss weights each class
    classical: Classical | None = None
    classes: NDArray[np.int64] | None = None  # (n,) classes, which must be given where the targets are numbers
    mean: float = 0.0  # by which numbers were standardised
    scale: float = 1.0  # likewise, a standard deviation

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) classes."""
        return self.targets.numpy() if self.classes is None else self.classes

    def restore(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, outputs) in the units of the numbers; those for classes as they are."""
        return outputs * self.scale + self.mean

    def order(self, seed: int) -> Order:
        """What decides which images each batch holds."""
        if not self.balanced:
            return Order(seed, "classifier", len(self.images))
        labels = self.labels
        chances = 1.0 / np.bincount(labels)[labels]
        return Order(seed, "classifier", len(self.images), chances / chances.sum())


def class_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    """Weights by which each class counts equally in the loss, (classes,), from (n,) classes; each must occur."""
    return torch.from_numpy(len(labels) / (classes * np.bincount(labels, minlength=classes))).float()


def noised_copies(data: Dataset, places: NDArray[np.int64], noise: float, random: np.random.Generator) -> Images:
    """Copies of the images at (k,) places, (k, c, h, w), with normal noise; its deviation is a share of the range."""
    images, (low, high) = np.asarray(data.images)[places], data.value_range
    noised = images + random.normal(0, noise * (high - low), images.shape)
    if images.dtype.kind == "u":
        noised = np.rint(noised)
    return np.clip(noised, low, high).astype(images.dtype)


def augment(images: Tensor, settings: Classical, draws: torch.Generator) -> Tensor:
    """Change (n, c, h, w) images in [-1, 1]: move, turn and scale each, and change its contrast and brightness.

    The numbers are drawn on the CPU. Pixels from outside an image repeat its edge.
    """
    n, _, height, width = images.shape
    drawn = (torch.rand(n, 6, generator=draws) * 2 - 1).to(images)  # in [-1, 1], one column for each kind of change
    rotate, scale, right, down, contrast, brightness = drawn.unbind(1)
    angle = rotate * math.radians(settings.rotate)
    scale = 1 + scale * settings.scale
    sine, cosine, aspect = angle.sin() / scale, angle.cos() / scale, height / width
    # `affine_grid` takes an image as 2 wide and 2 high, so that a share of a side is twice that number
    right, down = right * 2 * settings.shift, down * 2 * settings.shift
    matrix = [torch.stack([cosine, -sine * aspect, right], 1), torch.stack([sine / aspect, cosine, down], 1)]
    grid = F.affine_grid(torch.stack(matrix, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    contrast = (1 + contrast * settings.contrast)[:, None, None, None]
    brightness = (brightness * 2 * settings.brightness)[:, None, None, None]  # 2 is the range of the pixels
    mean = moved.mean((1, 2, 3), keepdim=True)
    return ((moved - mean) * contrast + mean + brightness).clamp(-1, 1)


def to_tensor(images: NDArray[Any], dataset: Dataset, device: torch.device) -> Tensor:
    """Bring (n, c, h, w) images in the data set's type to the device, and scale them to [-1, 1]."""
    return rescale(torch.from_numpy(images.astype(np.float32)).to(device), dataset.value_range, (-1.0, 1.0))


def batch_images(data: TrainingSet, indices: NDArray[np.int64], seed: int, step: int, device: torch.device) -> Tensor:
    """The (k, c, h, w) images at (k,) indices, in [-1, 1]; augmented with this step's draws if `data.classical`."""
    rows = data.images[indices]
    draws = seeds.generator(seed, "classical", step)
    flip = data.classical is not None and data.classical.flip
    if flip and (mirror := data.dataset.mirror(rows)) is not None:
        flipped = (torch.rand(len(rows), generator=draws) < 0.5).numpy()
        rows = np.where(flipped[:, None, None, None], mirror, rows)
    images = to_tensor(rows, data.dataset, device)
    return images if data.classical is None else augment(images, data.classical, draws)


def fit(network: nn.Module, data: TrainingSet, settings: FitSettings, seed: int, folder: Path) -> dict[str, Any]:
    """Train a network in place on its device, from the newest checkpoint in the folder where there is one.

    Returns:
        {"steps": optimiser steps in all, "resumed_at": the step at which this call began, "losses": the mean loss of
        each of up to 20 equal spans of the training}.
    """
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), settings.lr, weight_decay=settings.weight_decay)
    order, step = data.order(seed), 0
    loss_sums, counts = torch.zeros(2, SPANS, dtype=torch.float64)
    if (restored := checkpoint.restore(folder / CHECKPOINTS, device)) is not None:
        step, state = restored.step, restored.state
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        loss_sums, counts = state["losses"].cpu(), state["counts"].cpu()
    resumed_at = step
    network.train()
    with seeds.own_draws(), exact(device):
        while step < settings.steps:
            seeds.seed_torch(seed, "classifier step", step)  # For networks that draw, as by dropout
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
            indices = order.batch(step, settings.batch)
            loss = _loss(network(batch_images(data, indices, seed, step, device)), data, indices)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            span = min(SPANS - 1, step * SPANS // settings.steps)
            loss_sums[span] += loss.item()
            counts[span] += 1
            step += 1
            if step % settings.checkpoint_every == 0 and step < settings.steps:
                state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
                checkpoint.save(folder / CHECKPOINTS, step, {**state, "losses": loss_sums, "counts": counts})
    network.eval()
    return {"steps": step, "resumed_at": resumed_at, "losses": (loss_sums / counts)[counts > 0].tolist()}


def _loss(outputs: Tensor, data: TrainingSet, indices: NDArray[np.int64]) -> Tensor:
    """The loss of (k, outputs) for the images at (k,) indices: cross-entropy of classes, squared error of numbers."""
    targets = data.targets[indices].to(outputs.device)
    weights = None if data.weights is None else data.weights.to(outputs.device)
    if not targets.is_floating_point():
        return F.cross_entropy(outputs, targets, weights)
    errors = (outputs - targets).square().mean(1)
    if weights is None:
        return errors.mean()
    image_weights = weights[torch.from_numpy(data.labels[indices]).to(outputs.device)]
    return (errors * image_weights).sum() / image_weights.sum()  # A weighted mean, as that of cross_entropy


def remove_checkpoints(folder: Path) -> None:
    """Remove what `fit` needs to go on, once its outcome is written."""
    for path in (folder / CHECKPOINTS).glob("*.pt"):
        path.unlink()


def fit_new(
    data: TrainingSet, settings: FitSettings, outputs: int, device: str, seed: int, folder: Path
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a new network as `fit` does; return it, and what `fit` returns. The seed decides its first weights."""
    network = settings.new_network(data.dataset.image, outputs, seed).to(choose_device(device))
    return network, fit(network, data, settings, seed, folder)


def time_fit(data: TrainingSet, settings: FitSettings, outputs: int, device: str, threads: int | None) -> float:
    """Seconds that a step of a new network's training takes, measured on a few steps in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder, seeds.own_draws():
        network = settings.new_network(data.dataset.image, outputs).to(choose_device(device))

        with torch_threads(threads):
            for steps in (WARM_UP_STEPS, TIMED_STEPS):
                start = time.perf_counter()
                fit(network, data, settings.model_copy(update={"steps": steps}), 0, Path(folder))
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
            return (time.perf_counter() - start) / TIMED_STEPS


@torch.no_grad()
def apply(network: nn.Module, dataset: Dataset) -> NDArray[np.float64]:
    """What a network in evaluation mode says of all n images of a data set, (n, outputs)."""
    device = next(network.parameters()).device
    batches = torch.split(torch.arange(len(dataset)), AT_ONCE)
    with exact(device):
        outputs = [network(to_tensor(dataset.read(batch.numpy()), dataset, device)).cpu() for batch in batches]
    return torch.cat(outputs).double().numpy()
