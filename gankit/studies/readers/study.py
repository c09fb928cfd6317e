"""Do readers tell generated images from real ones? `gankit study readers`."""

import functools
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, final

from annotated_types import Ge, Le
from pydantic import Field, field_validator

from gankit.errors import RunError, first_of
from gankit.experiments.tables import Settings
from gankit.ranking.rating_files import REAL
from gankit.studies.jobs import Job, Outcome, unfinished
from gankit.studies.labelled import package_versions
from gankit.studies.readers.answers import RATINGS, read_answers
from gankit.studies.readers.blinding import export_set, flow, open_key
from gankit.studies.readers.judging import judge
from gankit.studies.readers.report import finding_rows, next_step, over_readers, write_report, write_tables
from gankit.studies.readers.sources import Place, SourceImages, open_sources
from gankit.studies.study import JOBS, Arm, Refuse, Results, Study, Work, write_metrics
from gankit.terminal.text import as_columns

SET_JOB = "set"


class ReadersSettings(Settings):
    """Which images readers see, and how many.

    Attributes:
        generated: generated images by the name of their source: whatever `gankit evaluate` takes, such as a run's
            folder, a folder of pictures, or a table such as `{name = "folder", path = "images", size = 64}`.
        real: real images, named likewise; those of a run are its held-out images, or its training images if it has
            none. By default those of the first source that is a run.
        images: how many images of each source, and how many real ones, are rated one by one; 0 for none.
        pairs: pairs of a real and a generated image of each source, of which readers choose the real one; 0 for none.
        repeats: the share of images and of pairs that are shown a second time, to see whether readers agree with
            themselves.
    """

    generated: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], Place] = Field(default_factory=dict)
    real: Place | None = None
    images: Annotated[int, Ge(0)] = 40
    pairs: Annotated[int, Ge(0)] = 20
    repeats: Annotated[float, Ge(0), Le(0.5)] = 0.1

    @field_validator("generated")
    @classmethod
    def _real_is_taken(cls, generated: dict[str, Place]) -> dict[str, Place]:
        if REAL in generated:
            raise ValueError(f"{REAL!r} is what the real images are called; choose another name")
        return generated


@final
class ReadersStudy(Study):
    """Whether readers tell generated images from real ones, and what they see in them.

    The first call writes the blinded set and its page; each call after that analyses the files of ratings that have
    come in. Nothing is trained: of the experiment's settings only `training.seed` is used, to draw images from runs.
    """

    Settings = ReadersSettings
    settings: ReadersSettings
    table = "readers"

    def check_settings(self, refuse: Refuse) -> None:
        """Refuse a study of nothing."""
        if not self.settings.generated:
            why = "no source of generated images; name one, as in --generated.gan runs/gan"
            raise refuse(self.table, "generated", why)
        if not self.settings.images + self.settings.pairs:
            raise refuse(self.table, "images", "nothing to show; images or pairs must be above 0")

    def arms(self) -> list[Arm]:
        """The sources, the real images first."""
        return [Arm(name, f"images of {name}") for name in (REAL, *self.settings.generated)]

    @cached_property
    def opened(self) -> dict[str, SourceImages]:
        """The images of every source, opened at first use."""
        return open_sources(self)

    def work(self, jobs: Path) -> list[Work]:
        """The blinded set; the sources need not be there any more once it is made."""
        job = Job(SET_JOB, functools.partial(export_set, self))
        if unfinished([job], jobs):
            _ = self.opened  # refuses unsuitable sources before anything is written
        return [Work("", [job], 1, lambda threads: 1.0)]

    def judge(self, outcomes: Mapping[str, Outcome], folder: Path) -> dict[str, Any]:
        """What `metrics.json` holds, and all answers; written with all tables.

        Raises:
            RunError: the set could not be made, or its key is missing or was changed.
            DataError: a file of ratings is not of this set.
        """
        made = outcomes[SET_JOB]
        if made.failure:
            raise RunError(f"the set could not be made ({made.failure}): delete {folder / JOBS / SET_JOB} to try again")
        (folder / RATINGS).mkdir(exist_ok=True)
        key = open_key(folder, made.result["key"])
        answers = read_answers(folder, key)
        remarks = [*made.result["notes"], *answers.notes()]
        judged = judge(answers)
        if alone := [f"{entry['what']} of {entry['source']}" for entry in judged["findings"] if entry["readers"] == 1]:
            measures = f" for {first_of(alone)}" if over_readers(judged) else ""
            remarks.append(
                f"one reader{measures}: the intervals are over images alone, and say nothing of other readers"
            )
        metrics = {
            **judged,
            "readers": {
                rater.name: {"file": rater.path.name, "answered": count}
                for rater, count in zip(answers.raters, answers.answered, strict=True)
            },
            "flow": flow(key),
            "notes": remarks,
            "protocol": {
                "key": key.digest, "sources": key.sources, "shown": len(key.images), "classes": list(key.classes),
                "images": self.settings.images, "pairs": self.settings.pairs, "repeats": self.settings.repeats,
                "versions": package_versions(), "command": self.command(folder),
            },
        }  # fmt: skip
        write_tables(metrics, answers, folder)
        write_metrics(folder, metrics)
        return metrics | {"answers": answers}

    report = write_report

    def summary(self, results: Results) -> str:
        """What was found, or what to do before anything can be."""
        metrics = results.values
        found = [next_step(results.folder)]
        if metrics["readers"]:
            found = [*metrics["verdicts"].values(), *as_columns([row[:3] for row in finding_rows(metrics)])]
        return "\n".join([*found, *(f"note: {note}" for note in metrics["notes"])])
