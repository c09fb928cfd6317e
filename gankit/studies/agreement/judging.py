"""Judge the generators of a study: their drawn images, the best and the worst of these, and sets of equal n."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from gankit.errors import GankitError
from gankit.evaluation.extraction import extractor, rows
from gankit.evaluation.sources import from_array
from gankit.evaluation.uncertainty import influences, standard_errors, variances_of
from gankit.experiments.selection import random_subset
from gankit.files import write_atomically, write_csv
from gankit.images.pictures import grid_png
from gankit.interfaces import Dataset, Indices, Measurement, Pool, Rows
from gankit.metrics.kid import BLOCK
from gankit.ranking import rank
from gankit.registry import build
from gankit.runs.run import Run
from gankit.studies.agreement.arms import Arm

if TYPE_CHECKING:
    from gankit.studies.agreement.study import Agreement

# The metrics of all drawn images, the best and the worst, on which conclusions rest too. The Frechet distance of few
# images has a bias, which may differ between generators; KID has none
DISTANCES = ("frechet", "kid")
EQUAL_METRICS = (*DISTANCES, "precision-recall")  # where both sides have equal n
KEPT_VALUES = ("frechet", "kid", "precision", "recall")  # one value per question: distances, quality, variety
CHANCE_DRAWS = 100  # random draws of `kept` images, which show how noisy values of so few images are
REAL_DRAWS = 20  # draws of real images, over which a value between reals is a mean
# The real images against which generated ones are judged at equal n, with their words in tables
REFERENCES = {
    "subset": "own training images", "full": "all training images", "held-out": "held-out images",
    "held-out-same": "held-out images of this SR",
}  # fmt: skip
USEFUL = 0.3  # the least sensitivity plus specificity minus 1 (Youden's index) at which a measurement is used
Values = dict[str, dict[str, Any]]


@final
class Estimator:
    """A measurement on pixels, tried on real images whose true values are known.

    An image counts as positive from the absolute value `limit` on.
    """

    def __init__(self, measurement: Measurement, limit: float, images: Dataset) -> None:
        self.measurement, self.limit = measurement, limit
        values = measurement.measure(images.read(np.arange(len(images))))
        true_values, measured = images.facts[measurement.fact], np.isfinite(values)
        negative_classes = [images.class_names.index(name) for name in measurement.negative_classes]
        truly_positive = ~np.isin(np.asarray(images.labels), negative_classes)
        called_positive = np.abs(values) >= limit
        positive, negative = measured & truly_positive, measured & ~truly_positive
        self.trial: dict[str, float] = {}  # how well it did; empty where images of either kind are missing
        if positive.any() and negative.any():
            self.trial = {
                "n": len(values),
                "median_error": float(np.median(np.abs(values - true_values)[measured])),
                "sensitivity": float(called_positive[positive].mean()),
                "specificity": float((~called_positive[negative]).mean()),
                "not_measured": float(1 - measured.mean()),  # the share of images that could not be measured
                "truly": float(truly_positive.mean()),  # the share whose label is positive
            }

    @property
    def useful(self) -> bool:
        """Whether the measurement tells positive images from others well enough at this size."""
        return bool(self.trial) and self.trial["sensitivity"] + self.trial["specificity"] - 1 >= USEFUL

    def count(self, images: NDArray[Any]) -> dict[str, int]:
        """Of (n, c, h, w) images: "n", "measured" and, by the measurement's own word, how many are positive."""
        values = self.measurement.measure(images)
        measured = np.isfinite(values)
        positive = np.abs(values[measured]) >= self.limit
        return {"n": len(values), "measured": int(measured.sum()), self.measurement.positive: int(positive.sum())}


@final
class Judge:
    """Judges generators against the real images of a study, which pass through the extractor once.

    `full` and `held_out` are the features of all training images and of all held-out ones, with their groups if known.
    """

    def __init__(self, study: "Agreement") -> None:
        self.study, self.settings, self.images = study, study.settings, study.images
        features = study.experiment.evaluation.features
        self.name, self._network = extractor(features, self.images.full.image.shape)
        self.full, self.held_out = self._rows(self.images.full), self._rows(self.images.held_out)
        self.estimator: Estimator | None = None  # None: the data set measures nothing, or too badly at this size
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
        count = max(settings.drawn, images.equal_n)
        generated = run.sample(count, seed=seed)  # Other latents for each seed, so that trainings are independent
        fakes = self._rows(from_array(generated, f"run {run.path.parent.name}", run.value_range))
        # These are the first of `generated`: each image depends on the seed and its number alone (`Run.sample`)
        ranking = rank(run, settings.drawn, settings.kept, "critic", seed=seed)
        choices = {"all": np.arange(settings.drawn), "top": ranking.best, "bottom": ranking.worst}
        for name, chosen in choices.items():
            columns = 10 if name == "all" else min(10, len(chosen))
            write_atomically(folder / f"{name}.png", grid_png(generated[chosen], run.value_range, columns))
        ranks = [[place, int(i), f"{ranking.scores[i]:.6g}"] for place, i in enumerate(ranking.order, 1)]
        write_csv(folder / "ranking.csv", [["rank", "image", "score"], *ranks])
        reals = self.full.take(images.training_of(arm, seed))
        drawn = {name: values_with_influences(DISTANCES, reals, fakes.take(chosen)) for name, chosen in choices.items()}
        pool = Pool(reals, fakes.take(choices["all"]))
        result = {
            "drawn": drawn, "chance": _by_chance(["frechet"], pool, settings.kept, "chance", CHANCE_DRAWS),
            "equal": self._equal(arm, reals, fakes), "n_real": reals.count,
        }  # fmt: skip
        if self.estimator is not None:
            counts = {name: self.estimator.count(generated[chosen]) for name, chosen in choices.items()}
            result[self.estimator.measurement.fact] = counts
        return result

    def _equal(self, arm: Arm, reals: Rows, fakes: Rows) -> dict[str, Values]:
        """The values of the first `equal_n` generated images against as many of each of `REFERENCES`."""
        n = self.images.equal_n
        first, same = fakes.take(np.arange(n)), self.held_out.take(self.images.held_out_at(arm.threshold))
        return {
            name: values_with_influences(EQUAL_METRICS, side.take(random_places(side.count, n, name)), first)
            for name, side in zip(REFERENCES, (reals, self.full, self.held_out, same), strict=True)
        }

    def reals(self) -> dict[str, Any]:
        """The values of held-out real images in the place of generated ones, of as many images.

        Held-out images have no image (and no patient) in common with the training images to which they are compared.
        """
        whole = _between_reals(Pool(self.full, self.held_out), self.images.equal_n)
        return {
            "arms": {arm.name: self._reals_of(arm) for arm in self.study.arms() if not arm.scope},
            "whole": whole, "features": self.name, "dim": self._network.dim,
            "protocol": self._network.protocol, "estimator": self.estimator.trial if self.estimator else None,
        }  # fmt: skip

    def _reals_of(self, arm: Arm) -> dict[str, Any]:
        """The values of real images for the images of one threshold or control."""
        settings, images = self.settings, self.images
        places = images.held_out_of(arm)
        trained = self.full.take(images.training_of(arm, self.study.seeds_of(arm)[0]))
        held_out = self.held_out.take(places)
        pool = Pool(trained, held_out)
        entry: dict[str, Any] = {}
        for name, wanted, count in (("all", settings.drawn, REAL_DRAWS), ("kept", settings.kept, CHANCE_DRAWS)):
            n = min(wanted, held_out.count)
            entry[name] = {**_by_chance(DISTANCES, pool, n, name, count), "n": n}
        entry["equal"] = _between_reals(pool, images.equal_n)
        if not arm.control:
            # What a perfect generator trained on all images would get beside held-out ones of this threshold, and one
            # trained on those of this threshold beside all held-out ones
            entry["all beside these"] = _between_reals(Pool(self.full, held_out), images.equal_n)
            entry["these beside all"] = _between_reals(Pool(trained, self.held_out), images.equal_n)
        if self.estimator:
            entry[self.estimator.measurement.fact] = self.estimator.count(images.held_out.read(places))
        return entry


def _by_chance(names: Sequence[str], pool: Pool, n: int, stream: str, count: int) -> Values:
    """The values of n images of a pool's generated side against all of its real side, over `count` draws of the n."""
    draws = [random_places(pool.fake.count, n, stream, number) for number in range(count)]
    return spreads(names, pool, [(pool.real_places, pool.fake_places[draw]) for draw in draws])


def _between_reals(pool: Pool, n: int) -> Values:
    """The values of n held-out images against n training images, over random draws of both."""
    return spreads(EQUAL_METRICS, pool, [
        (pool.real_places[random_places(pool.real.count, n, "reals", number)],
         pool.fake_places[random_places(pool.fake.count, n, "held-out reals", number)])
        for number in range(REAL_DRAWS)
    ])  # fmt: skip


def values_with_influences(names: Sequence[str], reals: Rows, fakes: Rows) -> Values:
    """Values of metrics from features, with standard errors and the `influences` of blocks of the real images.

    By value: `value`, `standard_error`, `fake_variance` (the generated images' part of the error's square),
    `real_influences` (their squares sum to the real images' part), `n_real`, `n_fake`; None where unknown.
    """
    entries: Values = {}
    for metric_name in names:
        used = reals.take(_one_block(np.arange(reals.count))) if metric_name == "kid" else reals
        resampling = build("metric", metric_name).resampling(Pool(used, fakes))
        values = resampling.whole().values
        real_influences = influences(resampling, "real", values)
        fake_variances = variances_of(influences(resampling, "fake", values))
        errors = standard_errors(resampling, values, [variances_of(real_influences), fake_variances])
        for name, value in values.items():
            if name in KEPT_VALUES:
                of_reals = real_influences.get(name)
                entries[name] = {
                    "value": value, "standard_error": errors[name], "fake_variance": fake_variances.get(name),
                    "real_influences": None if of_reals is None else of_reals.tolist(),
                    "n_real": used.count, "n_fake": fakes.count,
                }  # fmt: skip
    return entries


def spreads(names: Sequence[str], pool: Pool, draws: list[tuple[Indices, Indices]]) -> Values:
    """Mean and standard deviation of values over draws.

    A draw is the (k,) places in the pool of some real images and the (m,) places of some generated ones. A metric that
    cannot judge so few images is left out.
    """
    entries: Values = {}
    for metric_name in names:
        resampling = build("metric", metric_name).resampling(pool)
        used = [(_one_block(real), fake) for real, fake in draws] if metric_name == "kid" else draws
        with contextlib.suppress(GankitError):  # too few images for this metric
            values = [resampling.values(real, fake) for real, fake in used]
            for name in KEPT_VALUES:
                if name in values[0]:
                    numbers = np.array([value[name] for value in values])
                    entries[name] = {"mean": float(numbers.mean()), "sd": float(numbers.std(ddof=1))}
    return entries


def _one_block(real: Indices) -> Indices:
    """At most `BLOCK` of these images, chosen at random: KID of more takes a second for each value."""
    return real if len(real) <= BLOCK else real[random_places(len(real), BLOCK, "block of the kernel distance")]


def random_places(count: int, size: int, stream: str, number: int = 0) -> Indices:
    """(size,) different random numbers below `count`, sorted: a draw of its own for each stream and number."""
    return random_subset(count, size, 0, f"study {stream}", number)
