"""The arms of a study of augmentation: what each of them learns from, and the variants among which it chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gankit.studies import study

FILL: Literal["fill"] = "fill"  # adds as many images as bring a class up to the most frequent one
Ratio = float | Literal["fill"]

GENERATOR, COPIES, HELD_OUT = "generator", "copies", "held-out"
CONTROLS = {
    COPIES: "negative control: noised copies of training images in place of generated ones, which add no information",
    HELD_OUT: "positive control: in place of generated images real ones that no other arm sees: what more data do",
}


@dataclass(frozen=True)
class Kind(study.Arm):
    """A kind of arm: what its classifiers are trained on, and how, whatever the source of added images."""

    balanced: bool = False  # whether classes are drawn equally often
    weighted: bool = False  # whether the loss weights classes
    augmented: bool = False  # whether there is classical augmentation
    tuned: bool = False  # whether decisions are adjusted on the validation part
    remedy: bool = False  # whether it is a remedy of imbalance
    adds: bool = False  # whether images of a source are added
    real: bool = True  # whether classifiers see the real images


KINDS = {
    kind.name: kind
    for kind in (
        Kind("real", "real images as they come"),
        Kind("oversampling", "real images, classes drawn equally often", balanced=True, remedy=True),
        Kind("weights", "real images, classes weighted in the loss", weighted=True, remedy=True),
        Kind("classical", "real images with classical augmentation", augmented=True),
        Kind("classical-weights", "classical augmentation, classes weighted in the loss", weighted=True,
             augmented=True, remedy=True),
        Kind("thresholds", "classical augmentation, decisions adjusted to the frequencies of classes by as much as "
             "serves the validation part", augmented=True, tuned=True, remedy=True),
        Kind("synthetic", "real images and generated ones", adds=True),
        Kind("classical-synthetic", "real and generated images with classical augmentation", augmented=True,
             adds=True),
        Kind("synthetic-only", "as many generated images as there are real ones, and no real one", adds=True,
             real=False),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Arm(study.Arm):
    """A kind with one source of images; its ratio and strength are chosen on each fold's validation part."""

    kind: Kind
    source: str | None  # GENERATOR, a control, or another program's images by name; None where nothing is added

    @property
    def role(self) -> str:
        """ "baseline", "synthetic", or the name of the control."""
        if self.source is None:
            return "baseline"
        return self.source if self.source in CONTROLS else "synthetic"


@dataclass(frozen=True)
class Variant:
    """One setting of an arm."""

    arm: Arm
    strength: float | None = None  # of classical augmentation, as a factor of all its ranges
    ratio: Ratio | None = None  # images added to each class, divided by its real ones, or FILL

    @property
    def name(self) -> str:
        """The variant's name in tables."""
        chosen = [str(self.ratio)] if self.ratio is not None else []
        chosen += [f"x{self.strength:g}"] if self.strength not in (None, 1.0) else []
        return "-".join([self.arm.name, *chosen])

    @property
    def training_name(self) -> str:
        """What its trainings are called: an arm that only adjusts decisions shares those of `classical`."""
        return self.name.replace("thresholds", "classical", 1) if self.arm.kind.tuned else self.name


def make_arms(kinds: Sequence[str], sources: Sequence[str], controls: Sequence[str]) -> list[Arm]:
    """The arms of these kinds, each kind that adds images with every source and every control."""
    arms = []
    for kind in (KINDS[name] for name in kinds):
        if not kind.adds:
            arms.append(Arm(kind.name, kind.words, kind, None))
            continue
        for source in [*sources, *(controls if kind.real else [])]:
            name, words = kind.name, kind.words
            if source != GENERATOR:
                name += f"-{source}"
                words += f"; {CONTROLS.get(source, f'those of {source}')}"
            arms.append(Arm(name, words, kind, source))
    return arms


def variants(arm: Arm, strengths: Sequence[float], ratios: Sequence[Ratio]) -> list[Variant]:
    """Everything that an arm chooses among."""
    own_strengths: Sequence[float | None] = strengths if arm.kind.augmented else [None]
    own_ratios: Sequence[Ratio | None] = [None]
    if arm.kind.adds:
        own_ratios = ratios if arm.kind.real else [1.0]  # in place of the real images, as many as there were
    return [Variant(arm, strength, ratio) for strength in own_strengths for ratio in own_ratios]
