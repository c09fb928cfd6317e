"""From the outputs of all trainings to scores of the arms, differences between them, and errors of the number."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gankit.evaluation.classification import Scorer
from gankit.evaluation.design import Floats
from gankit.studies.classifier.arms import BAR, BASELINE
from gankit.studies.classifier.training import REGRESSION, load_outputs
from gankit.studies.jobs import Outcome, failures
from gankit.studies.kinds import Arm
from gankit.studies.labelled import class_labels, numeric_facts

if TYPE_CHECKING:
    from gankit.studies.classifier.study import ClassifierStudy


def judge(
    study: "ClassifierStudy", outcomes: Mapping[str, Outcome], folder: Path
) -> tuple[dict[str, Any], dict[Arm, Floats]]:
    """The findings in `metrics.json`, and the (seeds, n, classes) logits of every arm whose trainings all succeeded.

    Raises:
        RunError: what a training wrote was changed or lost since.
    """
    settings, test, seeds = study.settings, study.split.test, study.seeds(study.settings.seeds)
    scorer = Scorer(class_labels(test), test.groups, test.class_names)
    failed = failures(outcomes)

    def succeeded(name: str) -> bool:
        return not any(f"{name}-{seed}" in failed for seed in seeds)

    logits = {arm: load_outputs(folder, arm.name, seeds) for arm in study.arms() if succeeded(arm.name)}
    found: dict[str, Any] = {
        "arms": {
            arm.name: _effort([outcomes[f"{arm.name}-{seed}"] for seed in seeds])
            | scorer.scores(of_arm, settings.groupings, settings.calibration)
            for arm, of_arm in logits.items()
        },
        "differences": [
            {"arm": arm.name, "against": against.name, "score": score, **values}
            for arm, against in _compared(list(logits))
            for score, values in scorer.difference(logits[arm], logits[against], study.split.rarest).items()
        ],
        "failures": failed,
    }
    if settings.regression is not None and succeeded(REGRESSION):
        true = numeric_facts(test)[settings.regression]
        training_mean = outcomes[f"{REGRESSION}-{seeds[0]}"].result["mean"]
        found["regression"] = {
            "number": settings.regression,
            **scorer.errors(load_outputs(folder, REGRESSION, seeds)[..., 0], true),
            "mean absolute error of the training mean": float(np.abs(true - training_mean).mean()),
        }
    return found, logits


def _compared(arms: list[Arm]) -> list[tuple[Arm, Arm]]:
    """The pairs (arm, against) to compare: each arm with the baseline, then the others with the bar to beat."""
    pairs = [(arm, against) for against in arms if against.role == BASELINE for arm in arms if arm != against]
    bars = [against for against in arms if against.role == BAR]
    return pairs + [(arm, against) for against in bars for arm in arms if arm != against and arm.role != BASELINE]


def _effort(outcomes: list[Outcome]) -> dict[str, Any]:
    """From the trainings of one arm, one for each seed: numbers of images, steps, seconds, and mean losses."""
    return {
        **{key: outcomes[0].result[key] for key in ("real", "added")},
        "steps": [outcome.result["steps"] for outcome in outcomes],
        "seconds": [outcome.seconds for outcome in outcomes],
        "losses": np.mean([outcome.result["losses"] for outcome in outcomes], axis=0).tolist(),
    }
