"""The arms of a study of augmentation: what each of them learns from, and the variants among which it chooses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gankit.studies.kinds import COPIES, GENERATOR, KINDS, Arm

FILL: Literal["fill"] = "fill"  # adds as many images as bring a class up to the most frequent one
Ratio = float | Literal["fill"]

HELD_OUT = "held-out"
CONTROLS = {
    COPIES: "negative control: noised copies of training images in place of generated ones, which add no information",
    HELD_OUT: "positive control: in place of generated images real ones that no other arm sees: what more data do",
}


@dataclass(frozen=True)
class Variant:
    """One setting of an arm; its ratio and strength are chosen on each fold's validation part."""

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
    """The arms of these kinds, each kind that adds images with every source and every control.

    An arm's role is "baseline", "synthetic", or the name of the control.
    """
    arms = []
    for kind in (KINDS[name] for name in kinds):
        if not kind.adds:
            arms.append(Arm(kind.name, kind.words, kind, role="baseline"))
            continue
        for source in [*sources, *(controls if kind.real else [])]:
            name, words = kind.name, kind.words
            if source != GENERATOR:
                name += f"-{source}"
                words += f"; {CONTROLS.get(source, f'those of {source}')}"
            arms.append(Arm(name, words, kind, source, role=source if source in CONTROLS else "synthetic"))
    return arms


def variants(arm: Arm, strengths: Sequence[float], ratios: Sequence[Ratio]) -> list[Variant]:
    """Everything that an arm chooses among."""
    own_strengths: Sequence[float | None] = strengths if arm.kind.augmented else [None]
    own_ratios: Sequence[Ratio | None] = [None]
    if arm.kind.adds:
        own_ratios = ratios if arm.kind.real else [1.0]  # in place of the real images, as many as there were
    return [Variant(arm, strength, ratio) for strength in own_strengths for ratio in own_ratios]
