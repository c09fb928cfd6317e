"""Judge one generator of a study: drawn images, the best and the worst of them, and equal numbers beside all reals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from gankit import seeds
from gankit.errors import GankitError
from gankit.evaluation.extraction import extractor, part, rows
from gankit.evaluation.sources import from_array
from gankit.evaluation.uncertainty import influences, standard_errors, variances_of
from gankit.files import write_atomically, write_csv
from gankit.images.pictures import grid_png
from gankit.interfaces import Dataset, Indices, Pool, Rows
from gankit.metrics.kid import BLOCK
from gankit.ranking import rank
from gankit.registry import Part
from gankit.runs.run import Run
from gankit.studies.agreement.arms import Arm, StudyImages
from gankit.studies.agreement.deviation import Estimator
from gankit.studies.agreement.settings import AgreementStudy

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
        images: the study's images.
        name: of the features.
        dim: of the features.
    """

    def __init__(self, study: AgreementStudy, images: StudyImages) -> None:
        self.study, self.images = study, images
        self.name, self._network = extractor(study.evaluation.features, images.full.image.shape)
        self.dim = self._network.dim
        self.protocol = self._network.protocol
        self._full, self._held_out = self._rows(images.full), self._rows(images.held_out)
        self.estimator = Estimator.of(study, images)

    def _rows(self, images: Dataset) -> Rows:
        return rows(images, self._network, {"features"}, content=images.digest(), quiet=True)

    def run(self, run: Run, arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
        """Everything that is said of one generator; its pictures and its ranking are written to the folder.

        Raises:
            GankitError: its images cannot be judged.
        """
        table, images = self.study.study, self.images
        count = max(table.drawn, images.n)
        made = run.sample(count, seed=seed)  # other latents for each seed: trainings are then independent
        fakes = self._rows(from_array(made, f"run {run.path.parent.name}", run.value_range))
        ranking = rank(run, table.drawn, table.kept, "critic", seed=seed)
        kept = {"all": np.arange(table.drawn), "top": ranking.best, "bottom": ranking.worst}
        self._write(folder, run, made, ranking.order, ranking.scores, kept)
        own = self._full.take(images.chosen(arm, seed))
        drawn = {name: self._values(FEW, own, fakes.take(chosen)) for name, chosen in kept.items()}
        chance = self._chance(own, fakes.take(kept["all"]))
        equal = {
            name: self._values(MANY, reals, fakes.take(np.arange(images.n)))
            for name, reals in self._references(arm, seed).items()
        }
        deviation = (
            {name: self.estimator.shares(made[chosen]) for name, chosen in kept.items()} if self.estimator else {}
        )
        return {"drawn": drawn, "chance": chance, "equal": equal, "deviation": deviation, "n_real": own.count}

    def _references(self, arm: Arm, seed: int) -> dict[str, Rows]:
        """As many reals of each kind."""
        images, n = self.images, self.images.n
        sets = {
            "subset": (self._full, images.chosen(arm, seed)),
            "full": (self._full, np.arange(len(images.full))),
            "held-out": (self._held_out, np.arange(len(images.held_out))),
            "held-out-same": (self._held_out, images.held_out_at(arm.threshold)),
        }
        return {name: every.take(places[random_places(len(places), n, name)]) for name, (every, places) in sets.items()}

    def _values(self, names: Sequence[str], reals: Rows, fakes: Rows) -> Values:
        found: Values = {}
        for each in [part("metric", name) for name in names]:
            seen = reals.take(_block(np.arange(reals.count))) if each.name == "kid" else reals
            pool = Pool(seen, fakes)
            resampling = each.build().resampling(pool)
            values = resampling.whole().values
            real, fake = (influences(resampling, side, values, 0) for side in ("real", "fake"))
            variances = variances_of(fake)
            errors = standard_errors(resampling, values, 0, [variances_of(real), variances])
            for name, value in values.items():
                if name in KEPT_VALUES:
                    moved = real.get(name)
                    found[name] = {
                        "value": value, "standard_error": errors[name],
                        "fake_variance": variances.get(name),
                        "real_influences": None if moved is None else moved.tolist(),
                        "n_real": seen.count, "n_fake": fakes.count,
                    }  # fmt: skip
        return found

    def _chance(self, own: Rows, drawn: Rows) -> Values:
        """What as many of the drawn images as are kept give when they are chosen at random."""
        pool, kept = Pool(own, drawn), self.study.study.kept
        return _spreads(["frechet"], pool, [
            (pool.real_places, pool.fake_places[random_places(drawn.count, kept, "chance", draw)])
            for draw in range(CHANCE_DRAWS)
        ])  # fmt: skip

    def reals(self) -> dict[str, Any]:
        """Real against real at the numbers that generators are judged at, for each threshold and random subset.

        Held-out images stand for generated ones, so that the two sides have no image (and no patient) in common.
        """
        table, images = self.study.study, self.images
        found: dict[str, Any] = {}
        for arm in [arm for arm in images.arms(self.study) if not arm.scope]:
            alike = images.held_out_at(0.0 if arm.control else arm.threshold)
            own = self._full.take(images.chosen(arm, images.seeds(arm, self.study)[0]))
            held = self._held_out.take(alike)
            pool = Pool(own, held)
            entry: dict[str, Any] = {
                name: _spreads(FEW, pool, [
                    (pool.real_places, pool.fake_places[random_places(held.count, k, name, number)])
                    for number in range(draws)
                ]) | {"n": k}
                for name, k, draws in (
                    ("all", min(table.drawn, held.count), REAL_DRAWS),
                    ("kept", min(table.kept, held.count), CHANCE_DRAWS),
                )
            }  # fmt: skip
            entry["equal"] = _equal(pool, images.n)
            if not arm.control:  # what perfect generators of all images and of these get beside the other's images
                entry["all beside these"] = _equal(Pool(self._full, held), images.n)
                entry["these beside all"] = _equal(Pool(own, self._held_out), images.n)
            if self.estimator:
                entry["deviation"] = self.estimator.shares(images.held_out.read(alike))
            found[arm.name] = entry
        whole = _equal(Pool(self._full, self._held_out), images.n)
        return {
            "arms": found, "whole": whole, "features": self.name, "dim": self.dim, "protocol": self.protocol,
            "estimator": self.estimator.known if self.estimator else None,
        }  # fmt: skip

    def _write(
        self, folder: Path, run: Run, made: NDArray[Any], order: Indices, scores: NDArray[Any], kept: dict[str, Indices]
    ) -> None:
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
        draws.append((pool.real_places[places[0]], pool.fake_places[places[1]]))
    return _spreads(MANY, pool, draws)


def _spreads(names: Sequence[str], pool: Pool, draws: list[tuple[Indices, Indices]]) -> Values:
    """Mean and standard deviation of values over draws of both sides."""
    found: Values = {}
    for each in [part("metric", name) for name in names]:
        values = _each(each, pool, draws)
        for name in values[0] if values else ():
            if name in KEPT_VALUES:
                numbers = np.array([value[name] for value in values])
                found[name] = {"mean": float(numbers.mean()), "sd": float(numbers.std(ddof=1))}
    return found


def _each(metric: Part, pool: Pool, draws: list[tuple[Indices, Indices]]) -> list[dict[str, float]]:
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
    drawn = torch.randperm(count, generator=seeds.generator(0, f"study {stream}", number)).numpy()
    return np.sort(drawn[:size])
