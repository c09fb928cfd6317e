"""A run folder: its experiment, its generator and critic, and samples from it."""

from difflib import get_close_matches
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gankit import seeds
from gankit.errors import RunError, first_of
from gankit.experiments.experiment import Experiment, load
from gankit.experiments.record import RunRecord
from gankit.files import user_path
from gankit.images.pictures import SHOWN, grid_html
from gankit.images.room import too_many
from gankit.interfaces import Critic, Generator, ImageSpec, Truncates
from gankit.nn.layers import set_influence
from gankit.registry.messages import shown
from gankit.runs import checkpoint
from gankit.runs.labels import Labels, draw_labels, encode_classes, encode_conditions
from gankit.runs.networks import build_network, generate_pixels, load_state, place, step_hooks
from gankit.runs.record import read_log

LAST, BEST = "generator.safetensors", "generator-best.safetensors"
PRETRAINED = Path(__file__).parent / "pretrained"
"""Runs that come with gankit: folders with an experiment and a generator, and no checkpoint."""


def choose_device(name: str) -> torch.device:
    """The device of this name; "auto" is an NVIDIA or AMD GPU, else an Apple one (untested on hardware), else the CPU.

    Raises:
        RunError: torch does not know the device, or the machine lacks it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # fails on "meta"
    except Exception as error:  # each backend of torch has its own for what is missing
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise RunError(
            f"training.device: {shown(name)} cannot be used here ({reason}); set training.device=auto"
        ) from error
    return device


@final
class Run:
    """A training's folder.

    Attributes:
        path: the folder.
        experiment: the resolved experiment with the record of the run.
        wants_best: whether `generator` is the one that scored best during training, not the last.
    """

    def __init__(self, path: Path, experiment: Experiment, wants_best: bool = False) -> None:
        self.path, self.experiment, self.wants_best = path, experiment, wants_best

    def __repr__(self) -> str:
        steps, reason = self.known_steps()
        state = "comes with gankit" if self.packaged else reason or f"step {steps} of {self.experiment.training.steps}"
        record, best = self.experiment.run, ", best generator" if self.wants_best else ""
        images = f", {record.images} training images of {' x '.join(map(str, self.image.shape))}" if record else ""
        return f"Run {self.path}: {state}{images}{best}"

    def _repr_html_(self) -> str:
        text = f"<p>{escape(repr(self))}</p>"
        if not self.exported.is_file():
            return text
        return text + grid_html(self.sample(SHOWN, seed=self.experiment.training.seed), self.value_range)

    @property
    def image(self) -> ImageSpec:
        """Shape, classes and conditions of the images that the generator makes."""
        return ImageSpec(**self._record.image)

    @property
    def _record(self) -> RunRecord:
        if self.experiment.run is None:
            raise RunError(f"{self.path}: experiment.toml has no [run] table: it was not written by a training")
        return self.experiment.run

    @property
    def dtype(self) -> str:
        """The type in which images are drawn: "uint8", "uint16" or "float32"."""
        return self._record.dtype

    @property
    def value_range(self) -> tuple[float, float]:
        """The pixel values of black and white in `dtype`."""
        return self._record.value_range

    @property
    def class_names(self) -> list[str]:
        """The name of each class, by number."""
        return list(self._record.class_names)

    @property
    def label_counts(self) -> list[int]:
        """The number of training images of each class."""
        return list(self._record.label_counts)

    def check_own(self, action: str) -> None:
        """Raise a RunError that names the action if the run is not the user's own but comes with gankit."""
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
        """The path of the exported `generator`: the last one, written with every checkpoint, or the best."""
        return self.path / (BEST if self.wants_best else LAST)

    @property
    def best(self) -> dict[str, Any] | None:
        """{"metric", "value", "step"} of the best generator among those evaluated while training, or None.

        Raises:
            RunError: its file does not hold these.
        """
        path = self.path / BEST
        if not path.is_file():
            return None
        best: Any = checkpoint.read_export(path)[1].get("best")
        try:
            return {"metric": str(best["metric"]), "value": float(best["value"]), "step": int(best["step"])}
        except (KeyError, TypeError, ValueError, OverflowError):
            raise RunError(f"{path} does not say how good it is; put back a copy of it, or delete it") from None

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
        """The lines of `log.jsonl`, one per tick (every `training.tick_every` steps)."""
        return read_log(self.path / "log.jsonl")

    @property
    def steps(self) -> int:
        """Generator updates done, by the newest checkpoint that can be read.

        Raises:
            RunError: there are checkpoints and none can be read, so the step is unknown.
        """
        restored = checkpoint.restore(self.path / "checkpoints", mmap=True)
        return restored.step if restored else 0

    def known_steps(self) -> tuple[int | None, str]:
        """`steps` and an empty text; or None and the reason why no checkpoint can be read, for display."""
        try:
            return self.steps, ""
        except RunError as error:
            return None, str(error)

    @property
    def finished(self) -> bool:
        """Whether every step of the experiment is done."""
        return self.steps >= self.experiment.training.steps

    @cached_property
    @seeds.plain_torch()
    def generator(self) -> Generator:
        """The generator with averaged weights, in evaluation mode.

        Raises:
            RunError: the run has none yet, or it does not fit experiment.toml.
        """
        weights, config = checkpoint.read_export(self.exported)
        record = self._record.model_dump(mode="json")
        for name in ("dtype", "value_range", "class_names"):
            if (written := config.get(name, record[name])) != record[name]:
                change = f"run.{name} was {shown(written)}, is {shown(record[name])}"
                raise RunError(f"{self.path}: experiment.toml: {change}; put it back")
        with seeds.own_draws([]):
            generator: Generator = build_network(self.experiment, "generator", self.image)
        load_state(generator, "generator", {"generator": weights}, self.path)
        if "label_influence" in config:  # in exports of format 1; later ones hold it among the weights
            set_influence(generator, config["label_influence"])
        place("the generator", generator, self.device)
        return generator.eval().requires_grad_(False)

    @cached_property
    @seeds.plain_torch()
    def critic(self) -> Critic:
        """The critic of the newest checkpoint, in evaluation mode.

        Raises:
            RunError: the run has no checkpoint.
        """
        with seeds.own_draws([]):
            critic: Critic = build_network(self.experiment, "critic", self.image)
        restored = checkpoint.restore(
            self.path / "checkpoints", load=lambda state: load_state(critic, "critic", state, self.path)
        )
        if restored is None:
            self.check_own("critic")
            raise RunError(f"{self.path}: there is no checkpoint yet: resume the run first")
        for hook in step_hooks(critic):  # they set buffers that checkpoints of format 1 lack
            hook(restored.step)
        place("the critic", critic, self.device)
        return critic.eval().requires_grad_(False)

    def sample(self, n: int, labels: Labels = None, seed: int = 0, truncation: float = 1.0) -> NDArray[Any]:
        """Draw images; image i depends only on (seed, i, label i).

        Args:
            n: how many.
            labels: for a conditional run: one class or one per sample, by name or number; or float conditions in their
                own units, (k,) or (n, k). None draws them as they occur in the training images.
            seed: of the latents, and of labels that are not given.
            truncation: 1 for samples as the generator makes them; less, down to 0, for more typical and more similar
                ones, where the generator `Truncates`.

        Returns:
            (n, channels, height, width) in the data's type and range, never augmented.

        Raises:
            RunError: there is no generator yet, the labels do not fit the run, or its generator cannot truncate.
        """
        return self.decode(*self.draw(n, labels, seed), truncation)

    @seeds.plain_torch()
    def draw(self, n: int, labels: Labels = None, seed: int = 0) -> tuple[Tensor, Tensor | None]:
        """The (n, latent_dim) latents and the labels of `sample`, on the CPU.

        Raises:
            RunError: there is no generator yet, the labels do not fit the run, or no memory would hold the images.
        """
        self.check_count(n)
        return seeds.latents(seed, n, self.generator.latent_dim), self.encode_labels(n, labels, seed)

    def check_count(self, n: int) -> None:
        """Refuse numbers of images that cannot be drawn.

        Raises:
            RunError: n is below 0, or no memory would hold so many images.
        """
        if n < 0:
            raise RunError(f"{self.path}: {n} images cannot be drawn; give 0 or more")
        if reason := too_many(n, self.image.shape, np.dtype(self.dtype).itemsize):
            raise RunError(f"{self.path}: {reason}")

    @seeds.plain_torch()
    def decode(self, z: Tensor, labels: Tensor | None, truncation: float = 1.0) -> NDArray[Any]:
        """(n, latent_dim) latents and encoded labels to images in the data's type; truncated as `sample` says.

        Raises:
            RunError: there is no generator yet, or it cannot truncate.
        """
        generator: Any = self.generator
        if truncation != 1:
            if not isinstance(generator, Truncates):
                name = self.experiment.generator.name
                raise RunError(f"{self.path}: generator {name} cannot truncate: leave truncation at 1")
            if not 0 <= truncation <= 1:
                raise RunError(f"truncation is {truncation:g}: choose a value from 0 to 1")
            generator = generator.truncated(truncation)
        return generate_pixels(generator, z, labels, self.dtype, self.value_range)

    def encode_labels(self, n: int, labels: Labels, seed: int = 0) -> Tensor | None:
        """The labels of `sample` as networks take them: (n,) int64 classes, (n, k) standardised conditions, or None.

        Raises:
            RunError: the labels do not fit the run.
        """
        if not self.image.conditional:
            if labels is not None:
                raise RunError(f"{self.path} was trained without labels: leave the label out")
            return None
        if labels is None:
            drawn_from = checkpoint.read_export(self.exported)[1]["conditions"] if self.image.conditions else None
            return draw_labels(n, self._record, None if drawn_from is None else torch.tensor(drawn_from), seed)
        if self.image.classes:
            return encode_classes(labels, n, self._record, self.path)
        return encode_conditions(labels, n, self._record)

    def decode_conditions(self, labels: Tensor) -> NDArray[np.float64]:
        """(n, k) standardised conditions to (n, k) in their own units."""
        mean, scale = np.array(self._record.condition_mean), np.array(self._record.condition_scale)
        values: NDArray[np.float64] = labels.double().numpy() * scale + mean
        return np.where(abs(values) < 1e-6 * scale, 0.0, values)  # float32 labels give almost 0 for 0


def pretrained_names() -> list[str]:
    """The runs that come with gankit."""
    return [Path(run).name for run in _runs_in(PRETRAINED)]


def open_run(path: str | Path, *, best: bool = False) -> Run:
    """Open a run's folder, or a run that comes with gankit.

    Args:
        path: the folder; where there is no file or folder of that name, a run of `pretrained_names`.
        best: takes the generator with the best value while training, in place of the last one.

    Raises:
        RunError: the folder holds no run, or no best generator where one is asked for.
        SettingsError: its experiment is not valid, for example because a plug-in is missing.
    """
    folder = user_path(path)
    if not folder.exists() and str(path) in pretrained_names():
        folder = PRETRAINED / str(path)
    if not (folder / "experiment.toml").is_file():
        # Runs in the folder, else one of a similar name next to it or in `runs`.
        nearby = {Path(run).name: run for place in (folder.parent, Path("runs")) for run in _runs_in(place)}
        near = _runs_in(folder) or [nearby[name] for name in get_close_matches(folder.name, nearby, n=1)]
        hint = f"; did you mean {first_of(near)}?" if near else ""
        if folder.is_file():
            hint = "; a run is a folder, which gankit train makes from an experiment file"
        if str(path) in pretrained_names():  # and there is a file or folder of this name
            hint = "; a run that comes with gankit has the same name: to open that one, change to another directory"
        raise RunError(f"{folder}: there is no run here (no experiment.toml){hint}")
    if best and not (folder / BEST).is_file():
        raise RunError(
            f"{folder}: no best generator was kept: leave out best, or train with evaluation.every above 0 and with a "
            "metric that can rank generators (frechet, kid, precision-recall, ...) as the first of evaluation.metrics"
        )
    return Run(folder, load(folder / "experiment.toml"), best)


def _runs_in(folder: Path) -> list[str]:
    return [str(file.parent) for file in sorted(folder.glob("*/experiment.toml")) if file.is_file()]
