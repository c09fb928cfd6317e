"""What a study of rater agreement found: every training with its values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gankit.interfaces import Measurement
from gankit.studies.agreement.arms import Arm, StudyImages
from gankit.studies.agreement.settings import AgreementSettings
from gankit.studies.jobs import Outcome

if TYPE_CHECKING:
    from gankit.studies.agreement.study import Agreement


@dataclass(frozen=True)
class Trial:
    """One training of an arm and what came of it."""

    arm: Arm  # the arm
    seed: int  # of the training
    folder: Path  # of the job; the run is in its sub-folder `run`
    outcome: Outcome  # what `Judge.run` gave, or the failure

    @property
    def result(self) -> dict[str, Any]:
        """What `Judge.run` gave; empty where the training failed."""
        return self.outcome.result


@final
@dataclass(frozen=True)
class Findings:
    """Everything that a study found."""

    study: Agreement  # the study
    trials: list[Trial]  # one for each generator
    reals: dict[str, Any]  # what `Judge.reals` gave

    @property
    def settings(self) -> AgreementSettings:
        """The study's own table."""
        return self.study.settings

    @property
    def images(self) -> StudyImages:
        """The study's images."""
        return self.study.images

    @property
    def measurement(self) -> Measurement | None:
        """What was measured on the pixels; None where the data set measures nothing or it is of no use at this size."""
        return self.study.measurement if self.reals["estimator"] else None
