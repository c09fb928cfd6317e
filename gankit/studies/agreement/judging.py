"""Judge one generator of a study: drawn images, the best and the worst of them, and equal numbers beside all reals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.evaluation.draws import Values, random_places, spreads, values_with_influences
from gankit.evaluation.extraction import extractor, rows
from gankit.evaluation.sources import from_array
from gankit.files import write_atomically, write_csv
from gankit.images.pictures import grid_png
from gankit.interfaces import Dataset, Measurement, Pool, Rows
from gankit.ranking import rank
from gankit.runs.run import Run
from gankit.studies.agreement.arms import Arm

if TYPE_CHECKING:
    from gankit.studies.agreement.study import Agreement

DRAWN_METRICS = ("frechet", "kid")  # Of the drawn images, best and worst
EQUAL_METRICS = (*DRAWN_METRICS, "precision-recall")  # Of equal numbers
CHANCE_DRAWS = 100  # Random draws that show the noise of as few images as are kept
REAL_DRAWS = 20  # Draws of real images whose mean is a real-against-real value
# Beside which equal numbers are judged, with their words in tables
REFERENCES = {
    "subset": "own training images", "full": "all training images", "held-out": "held-out images",
    "held-out-same": "held-out images of this SR",
}  # fmt: skip
USEFUL = 0.3  # Sensitivity plus specificity minus 1 (Youden's index) from which a measurement is of use


@final
class Estimator:
    """A measurement, tried on real images whose values are known.

    Attributes:
        measurement: what is measured.
        limit: the absolute value from which an image counts as positive.
        trial: how it did on the real images: n, median error, sensitivity, specificity, and the shares that could not
            be measured and that truly are positive; empty where it cannot be tried.
    """

    def __init__(self, measurement: Measurement, limit: float, images: Dataset) -> None:
        self.measurement, self.limit = measurement, limit
        values = measurement.measure(images.read(np.arange(len(images))))
        truth, measured = images.facts[measurement.fact], np.isfinite(values)
        negative = [images.class_names.index(name) for name in measurement.negative_classes]
        positive = ~np.isin(np.asarray(images.labels), negative)
        sides, called = (measured & positive, measured & ~positive), np.abs(values) >= limit
        self.trial: dict[str, float] = {}
        if all(side.any() for side in sides):
            self.trial = {
                "n": len(values),
                "median_error": float(np.median(np.abs(values - truth)[measured])),
                "sensitivity": float(called[sides[0]].mean()),
                "specificity": float((~called[sides[1]]).mean()),
                "not_measured": float(1 - measured.mean()),
                "truly": float(positive.mean()),
            }

    @property
    def useful(self) -> bool:
        """Whether the measurement tells positive images from others at this size."""
        return bool(self.trial) and self.trial["sensitivity"] + self.trial["specificity"] - 1 >= USEFUL

    def count(self, images: NDArray[Any]) -> dict[str, int]:
        """Of (n, c, h, w) images: n, how many could be measured, and how many of these are positive, by its word."""
        values = self.measurement.measure(images)
        measured = np.isfinite(values)
        positive = np.abs(values[measured]) >= self.limit
        return {"n": len(values), "measured": int(measured.sum()), self.measurement.positive: int(positive.sum())}


@final
class Judge:
    """Judges generators beside the reals of a study, whose features pass once through the extractor.

    `full` and `held_out` are features, and groups where there are any, of all training and of all held-out images.
    `estimator` measures a fact on pixels; None where the data set measures nothing, or it is of no use here.
    """

    def __init__(self, study: Agreement) -> None:
        self.study, self.settings, self.images = study, study.settings, study.images
        features = study.experiment.evaluation.features
        self.name, self._network = extractor(features, self.images.full.image.shape)
        self.full, self.held_out = self._rows(self.images.full), self._rows(self.images.held_out)
        self.estimator: Estimator | None = None
        if study.measurement and self.settings.measured_limit:
            estimator = Estimator(study.measurement, self.settings.measured_limit, self.images.held_out)
            self.estimator = estimator if estimator.useful else None

    def _rows(self, images: Dataset) -> Rows:
        return rows(images, self._network, {"features"}, content=images.digest(), quiet=True)

    def run(self, run: Run, arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
        """All values of one generator; its pictures and its ranking are written to the folder.

        Raises:
            GankitError: its images cannot be judged.
        """
        settings, images = self.settings, self.images
        count = max(settings.drawn, images.n)
        generated = run.sample(count, seed=seed)  # other latents for each seed: trainings are then independent
        fakes = self._rows(from_array(generated, f"run {run.path.parent.name}", run.value_range))
        ranking = rank(run, settings.drawn, settings.kept, "critic", seed=seed)
        kept = {"all": np.arange(settings.drawn), "top": ranking.best, "bottom": ranking.worst}
        for name, chosen in kept.items():
            columns = 10 if name == "all" else min(10, len(chosen))
            write_atomically(folder / f"{name}.png", grid_png(generated[chosen], run.value_range, columns))
        order = [[place, int(i), f"{ranking.scores[i]:.6g}"] for place, i in enumerate(ranking.order, 1)]
        write_csv(folder / "ranking.csv", [["rank", "image", "score"], *order])
        reals = self.full.take(images.training_of(arm, seed))
        drawn = {
            name: values_with_influences(DRAWN_METRICS, reals, fakes.take(chosen)) for name, chosen in kept.items()
        }
        pool = Pool(reals, fakes.take(kept["all"]))
        sets = [random_places(settings.drawn, settings.kept, "chance", number) for number in range(CHANCE_DRAWS)]
        chance = spreads(["frechet"], pool, [(pool.real_places, pool.fake_places[places]) for places in sets])
        alike, first = self.held_out.take(images.held_out_at(arm.threshold)), fakes.take(np.arange(images.n))
        equal = {
            name: values_with_influences(EQUAL_METRICS, side.take(random_places(side.count, images.n, name)), first)
            for name, side in zip(REFERENCES, (reals, self.full, self.held_out, alike), strict=True)
        }
        result = {"drawn": drawn, "chance": chance, "equal": equal, "n_real": reals.count}
        if self.estimator is not None:
            counts = {name: self.estimator.count(generated[chosen]) for name, chosen in kept.items()}
            result[self.estimator.measurement.fact] = counts
        return result

    def reals(self) -> dict[str, Any]:
        """The values of real images in the place of generated ones, for the images of each threshold and control.

        These are held-out images, which have no image (and no patient) in common with the other side. There are as
        many as there are generated images where generators are judged.
        """
        settings, images = self.settings, self.images
        arms: dict[str, Any] = {}
        for arm in [arm for arm in self.study.arms() if not arm.scope]:
            alike = images.held_out_at(0.0 if arm.control else arm.threshold)
            trained = self.full.take(images.training_of(arm, self.study.seeds_of(arm)[0]))
            others = self.held_out.take(alike)
            pool = Pool(trained, others)
            entry: dict[str, Any] = {
                name: spreads(DRAWN_METRICS, pool, [
                    (pool.real_places, pool.fake_places[random_places(others.count, k, name, number)])
                    for number in range(draws)
                ]) | {"n": k}
                for name, k, draws in (
                    ("all", min(settings.drawn, others.count), REAL_DRAWS),
                    ("kept", min(settings.kept, others.count), CHANCE_DRAWS),
                )
            }  # fmt: skip
            entry["equal"] = _equal(pool, images.n)
            if not arm.control:  # what perfect generators of all images and of these get beside the other's images
                entry["all beside these"] = _equal(Pool(self.full, others), images.n)
                entry["these beside all"] = _equal(Pool(trained, self.held_out), images.n)
            if self.estimator:
                entry[self.estimator.measurement.fact] = self.estimator.count(images.held_out.read(alike))
            arms[arm.name] = entry
        whole = _equal(Pool(self.full, self.held_out), images.n)
        return {
            "arms": arms, "whole": whole, "features": self.name, "dim": self._network.dim,
            "protocol": self._network.protocol, "estimator": self.estimator.trial if self.estimator else None,
        }  # fmt: skip


def _equal(pool: Pool, n: int) -> Values:
    """The values of n held-out images beside n training images, over random draws of both."""
    return spreads(EQUAL_METRICS, pool, [
        (pool.real_places[random_places(pool.real.count, n, "reals", number)],
         pool.fake_places[random_places(pool.fake.count, n, "held-out reals", number)])
        for number in range(REAL_DRAWS)
    ])  # fmt: skip
