"""A run folder: its experiment, its generator and critic, and samples from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gankit.runs import checkpoint
from gankit import seeds
from gankit.experiments.experiment import Experiment, load
from gankit.errors import RunError
from gankit.interfaces import Critic, Generator, ImageSpec
from gankit.nn.layers import set_influence
from gankit.images.pictures import to_pixels

SAMPLE_BATCH = 64
LAST, BEST = "generator.safetensors", "generator-best.safetensors"
PRETRAINED = Path(__file__).parent / "pretrained"
"""Runs that come with gankit: folders with an experiment and a generator, and no checkpoint."""
Labels = int | str | Sequence[int] | Sequence[str] | Sequence[float] | NDArray[Any] | Tensor | None


def choose_device(name: str) -> torch.device:
    """The device of this name; "auto" is a GPU where there is one.

    Raises:
        RunError: torch does not know the device, or the machine lacks it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"training.device: {name!r} cannot be used here ({reason}); set training.device=auto") from error
    return device


@final
class Run:
    """A training's folder.

    Attributes:
        path: the folder.
        experiment: the resolved experiment with the record of the run.
        wants_best: whether `generator` is the best one while training rather than the last.
    """

    def __init__(self, path: Path, experiment: Experiment, wants_best: bool = False) -> None:
        self.path = path
        self.experiment = experiment
        self.wants_best = wants_best

    @property
    def image(self) -> ImageSpec:
        """What the generator makes."""
        return ImageSpec(**self._record.image)

    @property
    def _record(self) -> Any:
        if self.experiment.run is None:
            raise RunError(f"{self.path}: experiment.toml has no [run] table: it was not written by a training")
        return self.experiment.run

    @property
    def dtype(self) -> str:
        """The type in which images are drawn: "uint8", "uint16" or "float32"."""
        return str(self._record.dtype)

    @property
    def value_range(self) -> tuple[float, float]:
        """Black and white of that type."""
        low, high = self._record.value_range
        return low, high

    @property
    def class_names(self) -> list[str]:
        """One a class."""
        return list(self._record.class_names)

    def check_own(self, action: str) -> None:
        """Refuse what would write to a run that comes with gankit, or needs its checkpoint.

        Args:
            action: as the error names it.

        Raises:
            RunError: the run comes with gankit.
        """
        if self.packaged:
            name = self.path.name
            raise RunError(
                f"{action}: the run {name} comes with gankit, as a generator alone; train it anew with: "
                f"gankit train {name} --out runs/{name}"
            )

    @property
    def packaged(self) -> bool:
        """Whether the run comes with gankit."""
        return self.path.parent == PRETRAINED

    @property
    def exported(self) -> Path:
        """The file of the averaged generator: the last, written with every checkpoint, or the best."""
        return self.path / (BEST if self.wants_best else LAST)

    @property
    def best(self) -> dict[str, Any] | None:
        """{"metric", "value", "step"} of the best generator that an evaluation while training found, or None."""
        path = self.path / BEST
        return dict(checkpoint.read_export(path)[1]["best"]) if path.is_file() else None

    def export_bytes(self) -> bytes:
        """The exported generator's file, for a digest.

        Raises:
            RunError: the run has none yet.
        """
        checkpoint.read_export(self.exported)  # its errors say what to do
        return self.exported.read_bytes()

    @cached_property
    def device(self) -> torch.device:
        """Where the networks are."""
        return choose_device("auto")

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of `log.jsonl`, one a tick."""
        path = self.path / "log.jsonl"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        return [row for row in map(log_row, text.splitlines()) if row is not None]

    @property
    def steps(self) -> int:
        """Generator updates done, by the newest checkpoint."""
        restored = checkpoint.restore(self.path / "checkpoints")
        return restored[0] if restored else 0

    @property
    def finished(self) -> bool:
        """Whether every step of the experiment is done."""
        return self.steps >= self.experiment.training.steps

    @cached_property
    def generator(self) -> Generator:
        """The generator with averaged weights, in evaluation mode.

        Raises:
            RunError: the run has none yet, or it does not fit experiment.toml.
        """
        tensors, config = checkpoint.read_export(self.exported)
        generator: Generator = self.experiment.generator.part.build(self.image)
        self._load(generator, tensors, "generator")
        set_influence(generator, config.get("label_influence", 1.0))
        return generator.to(self.device).eval().requires_grad_(False)

    @cached_property
    def critic(self) -> Critic:
        """The critic of the newest checkpoint, in evaluation mode.

        Raises:
            RunError: the run has no checkpoint.
        """
        restored = checkpoint.restore(self.path / "checkpoints", self.device)
        if restored is None:
            self.check_own("critic")
            raise RunError(f"{self.path}: there is no checkpoint yet: resume the run first")
        critic: Critic = self.experiment.critic.part.build(self.image)
        self._load(critic, restored[1]["critic"], "critic")
        set_influence(critic, self.experiment.training.label_influence(restored[0]))
        return critic.to(self.device).eval().requires_grad_(False)

    def _load(self, network: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"{self.path}: the {name}'s weights do not fit experiment.toml: {reason}") from error

    def sample(self, n: int, labels: Labels = None, seed: int = 0) -> NDArray[Any]:
        """Draw images; image i depends only on (seed, i, label i).

        Args:
            n: how many.
            labels: for a conditional run: one class or one a sample, by number or name; or float conditions in their
                own units, (k,) or (n, k). None draws them as they occur in the training images.
            seed: of the latents, and of labels that are not given.

        Returns:
            (n, channels, height, width) in the data's type and range, never augmented.

        Raises:
            RunError: there is no generator yet, or the labels do not fit the run.
        """
        return self.decode(*self.draw(n, labels, seed))

    def draw(self, n: int, labels: Labels = None, seed: int = 0) -> tuple[Tensor, Tensor | None]:
        """The (n, latent_dim) latents and the labels of `sample`, on the CPU."""
        return seeds.latents(seed, n, self.generator.latent_dim), self.encode_labels(n, labels, seed)

    def decode(self, z: Tensor, labels: Tensor | None) -> NDArray[Any]:
        """(n, latent_dim) latents and encoded labels to images in the data's type."""
        return generate_pixels(self.generator, z, labels, self.dtype, self.value_range)

    def encode_labels(self, n: int, labels: Labels, seed: int = 0) -> Tensor | None:
        """(n,) int64 classes or (n, k) standardised conditions, or None for a run without labels.

        Raises:
            RunError: the labels do not fit the run.
        """
        image, record = self.image, self._record
        if not image.conditional:
            if labels is not None:
                raise RunError(f"{self.path} was trained without labels: leave the label out")
            return None
        if labels is None:
            exported = checkpoint.read_export(self.exported)[1] if image.conditions else {}
            conditions = torch.tensor(exported["conditions"]) if image.conditions else None
            return draw_labels(n, image, record.label_counts, conditions, seed)
        if image.classes:
            given = [labels] * n if isinstance(labels, (int, str)) else [_plain(label) for label in labels]
            classes = [self._class(label) for label in given]
            if len(classes) != n:
                raise RunError(f"{len(classes)} labels for {n} samples: give one, or one a sample")
            return torch.tensor(classes)
        values = torch.as_tensor(np.asarray(labels, dtype=np.float64))
        if values.dim() < 2:
            values = values.reshape(1, -1).expand(n, -1)
        if tuple(values.shape) != (n, image.conditions):
            raise RunError(f"conditions have the shape {tuple(values.shape)}; {(n, image.conditions)} is needed")
        mean, scale = torch.tensor(record.condition_mean), torch.tensor(record.condition_scale)
        return ((values - mean) / scale).float()

    def decode_conditions(self, labels: Tensor) -> NDArray[np.float64]:
        """(n, k) standardised conditions to (n, k) in their own units."""
        mean, scale = np.array(self._record.condition_mean), np.array(self._record.condition_scale)
        values: NDArray[np.float64] = labels.double().numpy() * scale + mean
        return values

    def _class(self, label: object) -> int:
        names = self.class_names
        if isinstance(label, str) and label in names:
            return names.index(label)
        if str(label).isdigit() and int(str(label)) < self.image.classes:
            return int(str(label))
        known = ", ".join(f"{number} {name}" for number, name in enumerate(names))
        raise RunError(f"there is no class {label!r} in {self.path}; known: {known}")


def log_row(line: str) -> dict[str, Any] | None:
    """A line of log.jsonl, or None where a killed run left half of one."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _plain(label: Any) -> int | str:
    """A class as a Python number or name, from whatever holds it."""
    value = label.item() if isinstance(label, (np.generic, Tensor)) else label
    return value if isinstance(value, str) else int(value)


def draw_labels(
    n: int, image: ImageSpec, label_counts: Sequence[int], conditions: Tensor | None, seed: int
) -> Tensor | None:
    """Labels as they occur in the training images; label i depends only on (seed, i).

    Args:
        n: how many.
        image: whether they are classes, conditions, or None.
        label_counts: training images a class.
        conditions: (m, k) conditions of training images; whole rows are drawn, so that they fit together.
        seed: of the draws.
    """
    if not image.conditional:
        return None
    draws = [torch.rand((), generator=seeds.generator(seed, "label", i), dtype=torch.float64) for i in range(n)]
    places = torch.stack(draws) if draws else torch.empty(0, dtype=torch.float64)
    if conditions is not None:
        return conditions[(places * len(conditions)).long()]
    cumulative = torch.tensor(label_counts, dtype=torch.float64).cumsum(0)
    return torch.searchsorted(cumulative, places * cumulative[-1], right=True).clamp(max=image.classes - 1)


def generate_pixels(
    generator: Generator, z: Tensor, labels: Tensor | None, dtype: str, value_range: tuple[float, float]
) -> NDArray[Any]:
    """(n, c, h, w) images in the data's type and range; no more than a batch of them is there as floats."""
    return np.concatenate([to_pixels(images, dtype, value_range) for images in batches(generator, z, labels)])


def batches(generator: Generator, z: Tensor, labels: Tensor | None) -> Iterator[Tensor]:
    """Batches of (k, c, h, w) images in [-1, 1] on the CPU, made on the generator's device; at least one.

    Equal latents give equal images, also of a generator that draws from torch's own generator. Every batch is filled
    up, since another size may be rounded otherwise.
    """
    like = next(generator.parameters())
    for start in range(0, max(len(z), 1), SAMPLE_BATCH):
        count = min(len(z) - start, SAMPLE_BATCH)
        rows = (start + torch.arange(SAMPLE_BATCH)).clamp(max=max(len(z) - 1, 0))[: SAMPLE_BATCH if count else 0]
        label = None if labels is None else labels[rows].to(like.device)
        with torch.no_grad(), torch.random.fork_rng([like.device] if like.is_cuda else []):
            seeds.seed_torch(0, "sample batch", start)
            images = generator(z[rows].to(like), label)[:count].float().cpu()
        yield images


@torch.no_grad()
def settle_statistics(generator: nn.Module, latent_dim: int, labels: Tensor | None, seed: int, batches: int) -> None:
    """Estimate running statistics afresh for the generator's present weights, over `batches` of fixed latents.

    Averaged weights need statistics of their own; with them a sample does not depend on its neighbours.

    Args:
        generator: changed in place and left in evaluation mode.
        latent_dim: its latents' length.
        labels: None, or (n,) classes or (n, k) conditions to go through in turn.
        seed: of the latents.
        batches: of `SAMPLE_BATCH` latents each.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    generator.train()
    like = next(generator.parameters())
    # Whatever follows the weights in training mode: statistics, or the vectors of spectral normalisation.
    for batch in range(batches if any(True for _ in generator.buffers()) else 0):
        z = torch.randn(SAMPLE_BATCH, latent_dim, generator=seeds.generator(seed, "statistics", batch)).to(like)
        label = None
        if labels is not None:
            label = labels[(torch.arange(SAMPLE_BATCH) + batch * SAMPLE_BATCH) % len(labels)].to(like.device)
        with torch.random.fork_rng():
            seeds.seed_torch(seed, "statistics of a batch", batch)  # for generators that draw
            generator(z, label)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    generator.eval()


def pretrained_names() -> list[str]:
    """The runs that come with gankit."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/experiment.toml"))


def open_run(path: str | Path, *, best: bool = False) -> Run:
    """Open a run's folder, or a run that comes with gankit.

    Args:
        path: the folder; where there is no file or folder of that name, a run of `pretrained_names`.
        best: takes the generator with the best value while training, in place of the last one.

    Raises:
        RunError: the folder holds no run, or no best generator where one is asked for.
        SettingsError: its experiment is not valid, for example because a plug-in is missing.
    """
    folder = Path(path)
    if not folder.exists() and str(path) in pretrained_names():
        folder = PRETRAINED / folder
    if not (folder / "experiment.toml").is_file():
        hides = str(path) in pretrained_names()
        hint = f"; it hides the run {path} that comes with gankit: open that one from another folder" if hides else ""
        raise RunError(f"{folder}: there is no run here (no experiment.toml){hint}")
    if best and not (folder / BEST).is_file():
        raise RunError(
            f"{folder}: no best generator was kept: that needs evaluation.every above 0, and a first metric of which "
            "lower or higher is better (frechet, kid, precision-recall, ...); leave out best"
        )
    return Run(folder, load(folder / "experiment.toml"), best)
