"""How values of a study of a classifier came about, and what its trainings gave."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import sklearn
import torch
import torchvision

from gankit.evaluation.classification import Floats
from gankit.evaluation.classifiers import Scorer, Values
from gankit.studies.classifier.arms import Arm, added_labels
from gankit.studies.classifier.data import data_notes
from gankit.studies.classifier.training import OUTPUTS
from gankit.studies.jobs import Outcome
from gankit.studies.study import JOBS
from gankit.version import __version__ as gankit_version

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy


def differences(scorer: Scorer, logits: Mapping[Arm, Floats], rarest: int) -> list[Values]:
    """Each arm less the baseline, and less the bar, by score."""
    baselines, bars = [arm for arm in logits if arm.baseline], [arm for arm in logits if arm.bar]
    pairs = [(arm, against) for against in baselines for arm in logits if arm != against]
    pairs += [(arm, against) for against in bars for arm in logits if arm != against and not arm.baseline]
    return [
        {"arm": arm.name, "against": against.name, "score": score, **values}
        for arm, against in pairs
        for score, values in scorer.difference(logits[arm], logits[against], rarest).items()
    ]


def load_outputs(folder: Path, name: str, seeds: list[int]) -> Floats:
    """(seeds, n, outputs) of one kind of networks for the test part."""
    return np.stack([np.load(folder / JOBS / f"{name}-{seed}" / OUTPUTS) for seed in seeds])


INTERVALS = {
    "shares": "95 % by Wilson's score, of the mean over seeds; cases of a group count by their design effect",
    "scores": "95 % by percentiles of a bootstrap over groups of test cases within classes and over seeds, which is "
    "too short where seeds are few and differ",
    "differences": "95 %, paired: t intervals of a jackknife over groups of test cases and of the spread between "
    "seeds, added in squares",
}


def protocol(study: ClassifierStudy, outcomes: Mapping[str, Outcome], folder: Path) -> Values:
    """How values came about: data, split, seeds, intervals, versions, the command."""
    settings, split = study.settings, study.split
    names, sides = split.train.class_names, {"train": split.train, "test": split.test}
    notes = data_notes(split)
    if settings.seeds == 1:
        notes.append("one seed: intervals know nothing of what another seed would change, and are too short")
    if any(arm.adds for arm in study.arms()) and not len(added_labels(study)):
        notes.append("nothing is added in any arm: the classes to fill up have images enough for synthetic_fill")
    if study.needs_generators and (settings.generators or settings.seeds) < settings.seeds:
        few = f"{settings.generators} generator{'s' if settings.generators != 1 else ''}"
        notes.append(f"{few} for {settings.seeds} seeds: intervals leave out a part of their spread")
    return {
        "data": study.experiment.data.name,
        "image": list(split.train.image.shape),
        "digest": {side: data.digest() for side, data in sides.items()},
        "split": split.words,
        "cases": {side: dict(zip(names, split.counts(data).tolist(), strict=True)) for side, data in sides.items()},
        "groups": {side: None if data.groups is None else len(np.unique(data.groups)) for side, data in sides.items()},
        "rarest": names[split.rarest],
        "seeds": study.seeds(settings.seeds),
        "steps": settings.steps,
        "intervals": INTERVALS,
        "notes": notes,
        "seconds": round(sum(outcome.seconds for outcome in outcomes.values()), 1),
        "threads": max((outcome.threads for outcome in outcomes.values()), default=0),
        "versions": {
            "gankit": gankit_version, "python": platform.python_version(), "torch": torch.__version__,
            "torchvision": torchvision.__version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__,
        },
        "command": study.command(folder),
    }  # fmt: skip
