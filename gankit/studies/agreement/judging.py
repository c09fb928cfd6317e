"""Judge one generator of a study: drawn images, the best and the worst of them, and equal numbers beside all reals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from gankit import seeds
from gankit.errors import GankitError
from gankit.evaluation.extraction import extractor, part, rows
from gankit.evaluation.sources import ImageSet, dataset_set, image_set
from gankit.evaluation.uncertainty import gathered, influences, squared, standard_errors
from gankit.files import write_atomically, write_csv
from gankit.images.pictures import grid_png
from gankit.interfaces import Indices, Pool, Rows
from gankit.metrics.kid import BLOCK
from gankit.ranking import rank
from gankit.registry import Part
from gankit.runs.run import Run
from gankit.studies.agreement.arms import Arm
from gankit.studies.agreement.measuring import Estimator

if TYPE_CHECKING:
    from gankit.studies.agreement.study import Agreement

FEW, MANY = ("frechet", "kid"), ("frechet", "kid", "precision-recall")
"""Metrics of the drawn images, best and worst; and of equal numbers."""
KEPT_VALUES = ("frechet", "kid", "precision", "recall")
CHANCE_DRAWS = 100
"""Random draws that show the noise of as few images as are kept."""
REAL_DRAWS = 20
"""Draws of real images whose mean is a real-against-real value."""
REFERENCES = ("subset", "full", "held-out", "held-out-same")
"""Beside which equal numbers are judged: the arm's own training images, all training images, all held-out images, and
held-out images of at least the arm's agreement."""

Values = dict[str, dict[str, Any]]


@final
class Judge:
    """Judges generators beside the reals of a study, whose features pass once through the extractor.

    Attributes:
        name: of the features.
        full: features, and groups where there are any, of all training images.
        held_out: those of all held-out images.
        estimator: measures a fact on pixels; None where the data set measures nothing, or it is of no use here.
    """

    def __init__(self, study: Agreement) -> None:
        self.study, self.settings, self.images = study, study.settings, study.images
        features = study.experiment.evaluation.features
        self.name, self._network = extractor(features, self.images.full.image.shape)
        self.full = self._rows(dataset_set(self.images.full, "training images"))
        self.held_out = self._rows(dataset_set(self.images.held_out, "held-out images"))
        self.estimator: Estimator | None = None
        if study.measurement and self.settings.measured_limit:
            estimator = Estimator(study.measurement, self.settings.measured_limit, self.images.held_out)
            self.estimator = estimator if estimator.useful else None

    def _rows(self, images: ImageSet) -> Rows:
        content = rows(images, self._network, {"features"}, quiet=True)
        groups = {} if images.groups is None else {"groups": np.asarray(images.groups)}
        return Rows({**content.fields, **groups}, content.count, content.value_range)

    def run(self, run: Run, arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
        """Everything that is said of one generator; its pictures and its ranking are written to the folder.

        Raises:
            GankitError: its images cannot be judged.
        """
        settings, images = self.settings, self.images
        count = max(settings.drawn, images.n)
        made = run.sample(count, seed=seed)  # other latents for each seed: trainings are then independent
        fakes = self._rows(image_set(made, f"run {run.path.parent.name}", window=run.value_range))
        ranking = rank(run, settings.drawn, settings.kept, "critic", seed=seed)
        kept = {"all": np.arange(settings.drawn), "top": ranking.best, "bottom": ranking.worst}
        self._write(folder, run, made, ranking.order, ranking.scores, kept)
        own = self.full.take(images.training_of(arm, seed))
        drawn = {name: self._values(FEW, own, fakes.take(chosen)) for name, chosen in kept.items()}
        chance = self._chance(own, fakes.take(kept["all"]))
        equal = {
            name: self._values(MANY, reals, fakes.take(np.arange(images.n)))
            for name, reals in self._references(arm, seed).items()
        }
        found = {"drawn": drawn, "chance": chance, "equal": equal, "n_real": own.count}
        return found | self._measured({name: made[chosen] for name, chosen in kept.items()})

    def _measured(self, images: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Counts of images by the name of the measured fact; nothing where nothing is measured."""
        if self.estimator is None:
            return {}
        return {self.estimator.measurement.fact: {name: self.estimator.count(some) for name, some in images.items()}}

    def _references(self, arm: Arm, seed: int) -> dict[str, Rows]:
        """As many reals of each kind."""
        images, n = self.images, self.images.n
        sets = {
            "subset": (self.full, images.training_of(arm, seed)),
            "full": (self.full, np.arange(len(images.full))),
            "held-out": (self.held_out, np.arange(len(images.held_out))),
            "held-out-same": (self.held_out, images.held_out_at(arm.threshold)),
        }
        return {name: whole.take(places[random_places(len(places), n, name)]) for name, (whole, places) in sets.items()}

    def _values(self, names: Sequence[str], reals: Rows, fakes: Rows) -> Values:
        entries: Values = {}
        for metric_part in [part("metric", name) for name in names]:
            seen = reals.take(_block(np.arange(reals.count))) if metric_part.name == "kid" else reals
            pool = Pool(seen, fakes)
            metric, resampling = gathered(metric_part, pool), metric_part.build().resampling(pool)
            values = metric.compute()
            real, fake = (influences(resampling, side, values, metric.jackknife_groups, 0) for side in ("real", "fake"))
            variances = squared(fake)
            errors = standard_errors(metric, resampling, values, 0, [squared(real), variances])
            for name, value in values.items():
                if name in KEPT_VALUES:
                    moved = real.get(name)
                    entries[name] = {
                        "value": value, "standard_error": errors[name],
                        "fake_variance": variances.get(name),
                        "real_influences": None if moved is None else moved.tolist(),
                        "n_real": seen.count, "n_fake": fakes.count,
                    }  # fmt: skip
        return entries

    def _chance(self, own: Rows, drawn: Rows) -> Values:
        """What as many of the drawn images as are kept give when they are chosen at random."""
        pool, kept = Pool(own, drawn), self.settings.kept
        return _spreads(["frechet"], pool, [
            (pool.reals, pool.fakes[random_places(drawn.count, kept, "chance", draw)]) for draw in range(CHANCE_DRAWS)
        ])  # fmt: skip

    def reals(self) -> dict[str, Any]:
        """Real against real at the numbers that generators are judged at, for each threshold and random subset.

        Held-out images stand for generated ones, so that the two sides have no image (and no patient) in common.
        """
        settings, images = self.settings, self.images
        arms: dict[str, Any] = {}
        for arm in [arm for arm in self.study.arms() if not arm.scope]:
            alike = images.held_out_at(0.0 if arm.control else arm.threshold)
            own = self.full.take(images.training_of(arm, self.study.seeds_of(arm)[0]))
            held = self.held_out.take(alike)
            pool = Pool(own, held)
            entry: dict[str, Any] = {
                name: _spreads(FEW, pool, [
                    (pool.reals, pool.fakes[random_places(held.count, k, name, number)]) for number in range(draws)
                ]) | {"n": k}
                for name, k, draws in (
                    ("all", min(settings.drawn, held.count), REAL_DRAWS),
                    ("kept", min(settings.kept, held.count), CHANCE_DRAWS),
                )
            }  # fmt: skip
            entry["equal"] = _equal(pool, images.n)
            if not arm.control:  # what perfect generators of all images and of these get beside the other's images
                entry["all beside these"] = _equal(Pool(self.full, held), images.n)
                entry["these beside all"] = _equal(Pool(own, self.held_out), images.n)
            if self.estimator:
                entry[self.estimator.measurement.fact] = self.estimator.count(images.held_out.read(alike))
            arms[arm.name] = entry
        whole = _equal(Pool(self.full, self.held_out), images.n)
        return {
            "arms": arms, "whole": whole, "features": self.name, "dim": self._network.dim,
            "protocol": self._network.protocol, "estimator": self.estimator.trial if self.estimator else None,
        }  # fmt: skip

    def _write(
        self, folder: Path, run: Run, made: NDArray[Any], order: Indices, scores: NDArray[Any], kept: dict[str, Indices]
    ) -> None:
        """The pictures of the kept images, and every image's rank and score."""
        for name, chosen in kept.items():
            columns = 10 if name == "all" else min(10, len(chosen))
            write_atomically(folder / f"{name}.png", grid_png(made[chosen], run.value_range, columns))
        rows = [[rank, int(i), f"{scores[i]:.6g}"] for rank, i in enumerate(order, 1)]
        write_csv(folder / "ranking.csv", [["rank", "image", "score"], *rows])


def _equal(pool: Pool, n: int) -> Values:
    """Training against held-out images, n of each."""
    draws = []
    for number in range(REAL_DRAWS):
        places = (
            random_places(pool.real.count, n, "reals", number),
            random_places(pool.fake.count, n, "held-out reals", number),
        )
        draws.append((pool.reals[places[0]], pool.fakes[places[1]]))
    return _spreads(MANY, pool, draws)


def _spreads(names: Sequence[str], pool: Pool, draws: list[tuple[Indices, Indices]]) -> Values:
    """Mean and standard deviation of values over draws of both sides."""
    entries: Values = {}
    for metric in [part("metric", name) for name in names]:
        values = _values_of_draws(metric, pool, draws)
        for name in values[0] if values else ():
            if name in KEPT_VALUES:
                numbers = np.array([value[name] for value in values])
                entries[name] = {"mean": float(numbers.mean()), "sd": float(numbers.std(ddof=1))}
    return entries


def _values_of_draws(metric: Part, pool: Pool, draws: list[tuple[Indices, Indices]]) -> list[dict[str, float]]:
    resampling = metric.build().resampling(pool)
    try:
        if metric.name == "kid":
            draws = [(_block(real), fake) for real, fake in draws]
        return [dict(resampling.values(real, fake)) for real, fake in draws]
    except GankitError:  # too few images for this metric
        return []


def _block(real: Indices) -> Indices:
    """As many of these images as KID takes at once, beyond which each value would cost a second."""
    return real if len(real) <= BLOCK else real[random_places(len(real), BLOCK, "block of the kernel distance")]


def random_places(count: int, size: int, stream: str, number: int = 0) -> Indices:
    """(size,) rising places of `count`, drawn for this stream."""
    order = torch.randperm(count, generator=seeds.generator(0, f"study {stream}", number)).numpy()
    return np.sort(order[:size])
