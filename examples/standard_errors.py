"""How far a printed standard error can be trusted: beside the true spread of values of known distributions.

Prints the tables of docs/measured/standard-errors.md. One core takes some minutes.
"""

import argparse
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from gankit import seeds
from gankit.evaluation.extraction import as_part
from gankit.evaluation.uncertainty import p_values, standard_errors
from gankit.interfaces import Pool, Rows
from gankit.metrics.frechet import frechet_distance_from_moments

SIZES = (25, 50, 100, 200, 400)
METRICS = ("frechet", "kid", "precision-recall", "variance-ratio", "inception-score", "memorisation")
QUICK = ("kid", "variance-ratio", "inception-score")
"""Their standard errors cost little, and are computed in every repeat."""
WITHIN = 1.96
ALIKE = 0.8
"""Share of the variance that images of one patient have in common."""


@dataclass(frozen=True)
class Case:
    """Gaussian features whose variances fall as i^-1.2 and are 1 on average.

    Attributes:
        dim: number of features.
        n: images of either side.
        scale: variance of generated features over that of real ones.
        shift: of the mean of every generated feature.
        images: of each real patient; 1 for independent images.
        told: whether gankit is told which patient each image is of.
        metrics: names.
    """

    dim: int
    n: int
    scale: float = 1.0
    shift: float = 0.0
    images: int = 1
    told: bool = True
    metrics: tuple[str, ...] = METRICS

    @property
    def variances(self) -> np.ndarray:
        """(dim,) of the real features."""
        falling = np.arange(1, self.dim + 1) ** -1.2
        return falling * self.dim / falling.sum()

    def pool(self, seed: int, repeat: int, patients_of_fakes: bool = False) -> Pool:
        """Both sides; the same features whether patients are told or not."""
        random = np.random.default_rng(
            seeds.derive_seed(seed, repr((self.dim, self.n, self.scale, self.images)), repeat)
        )
        sides = []
        for images in (self.images, self.images if patients_of_fakes else 1):
            alike = ALIKE if images > 1 else 0.0
            patients = np.repeat(random.normal(size=(self.n // images, self.dim)), images, axis=0)
            rows = np.sqrt(alike) * patients + np.sqrt(1 - alike) * random.normal(size=patients.shape)
            sides.append((rows * np.sqrt(self.variances), np.arange(self.n) // images if alike else None))
        (real, groups), (fake, fake_groups) = sides
        fake = self.shift + np.sqrt(self.scale) * fake
        return Pool(self._rows(real, groups), self._rows(fake, fake_groups))

    def _rows(self, features: np.ndarray, groups: np.ndarray | None) -> Rows:
        return Rows(
            features=features,
            logits=2 * features[:, :10],
            groups=groups if self.told else None,
            ids=np.arange(self.n),
        )

    def population(self) -> dict[str, float]:
        """Values of endlessly many images, where there is a formula."""
        zero, shift, s = np.zeros(self.dim), np.full(self.dim, self.shift), self.variances
        moments = ((zero, s), (shift, self.scale * s))
        kernels = [mean_kernel(*moments[i], *moments[j]) for i, j in ((0, 0), (1, 1), (0, 1))]
        return {
            "frechet": frechet_distance_from_moments(zero, np.diag(s), shift, np.diag(self.scale * s)),
            "kid": kernels[0] + kernels[1] - 2 * kernels[2],
            "variance-ratio": self.scale,
        }


def mean_kernel(m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray) -> float:
    """Mean of (x.y / d + 1)^3 over independent Gaussian x and y with diagonal covariances: moments of x.y."""
    d, mean = len(m1), m1 @ m2
    of_x, of_y, both = m2 @ (s1 * m2), m1 @ (s2 * m1), s1 @ s2
    second = mean**2 + of_x + of_y + both
    third = mean**3 + 3 * mean * (of_x + of_y + both) + 6 * (m2 * s1) @ (s2 * m1)
    return float(1 + 3 * mean / d + 3 * second / d**2 + third / d**3)


@dataclass(frozen=True)
class Found:
    """Of one value: all of them, and the standard errors of the first ones (nan where none is told)."""

    values: np.ndarray
    errors: np.ndarray

    @property
    def expected(self) -> float:
        """At this number of images."""
        return float(self.values.mean())

    @property
    def ratio(self) -> float:
        """Mean printed standard error over the true one."""
        spread = self.values.std(ddof=1)
        told = self.errors[np.isfinite(self.errors)]
        return float(told.mean() / spread) if spread > 1e-12 and len(told) else float("nan")

    def coverage(self, truth: float) -> float:
        """How often a value is within 1.96 of its standard errors of the truth, where it has one."""
        told = np.isfinite(self.errors)
        off = np.abs(self.values[: len(self.errors)][told] - truth)
        return float((off <= WITHIN * self.errors[told] + 1e-12).mean()) if told.any() else float("nan")


def simulate(case: Case, repeats: int, errors: int, seed: int = 0, bar: tqdm | None = None) -> dict[str, Found]:
    """All values of all metrics in so many repeats, the first of them with all standard errors."""
    values: dict[str, list[float]] = {}
    spreads: dict[str, list[float]] = {}
    for repeat in range(repeats):
        pool = case.pool(seed, repeat)
        for name in case.metrics:
            resampling = as_part("metric", name).build().resampling(pool)
            found = resampling.values(pool.real_places, pool.fake_places)
            for key, value in found.items():
                values.setdefault(key, []).append(value)
            if repeat < errors or name in QUICK:
                for key, error in standard_errors(resampling, found).items():
                    spreads.setdefault(key, []).append(np.nan if error is None else error)
        if bar is not None:
            bar.update(cost(case, repeat < errors))
    return {key: Found(np.array(values[key]), np.array(spreads[key])) for key in values}


def cost(case: Case, errors: bool) -> int:
    """Roughly, in microseconds, for the time left."""
    left_out = 2 * case.n if case.n <= 200 else 100
    value, error = (400, 1500) if "memorisation" in case.metrics else (100, 1000)
    return value * case.n + errors * error * left_out


def chances(case: Case, both: bool, repeats: int, seed: int = 0) -> dict[str, np.ndarray]:
    """p-values of permutation tests between sets of one distribution."""
    found: dict[str, list[float]] = {}
    for repeat in range(repeats):
        pool = case.pool(seed, repeat, patients_of_fakes=both)
        for name in case.metrics:
            for key, entry in p_values(as_part("metric", name), pool, "lower", 39, repeat).items():
                found.setdefault(key, []).append(entry["p_value"]["value"])
    return {key: np.array(values) for key, values in found.items()}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(head)
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def of_expected(found: Found) -> str:
    ratio = "-" if np.isnan(found.ratio) else f"{found.ratio:.2f}"
    told = np.isfinite(found.errors).mean()
    if not told:
        return "-"
    return f"{found.coverage(found.expected):.2f} ({ratio})" + (f" of {told:.0%}" if told < 1 else "")


def of_population(found: Found, truth: float) -> str:
    return f"{found.expected:.3g}: {found.coverage(truth):.2f}"


SITUATIONS = {
    "one distribution": Case(64, 0),
    "generated variance halved, mean shifted": Case(64, 0, scale=0.5, shift=0.1**0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200, help="of values, at every size")
    parser.add_argument("--errors", type=int, default=50, help="repeats with all standard errors, the first ones")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="images of either side")
    given = parser.parse_args()
    torch.set_num_threads(1)

    cases: dict[str, list[Case]] = {}
    for dim, sizes, metrics in ((64, given.sizes, METRICS), (256, given.sizes[::2], METRICS[:4])):
        for name, like in SITUATIONS.items():
            cases[f"{dim} features, {name}"] = [Case(dim, n, like.scale, like.shift, metrics=metrics) for n in sizes]
    patients = [
        Case(64, n, images=4, told=told, metrics=METRICS[:4]) for n in given.sizes[2::2] for told in (True, False)
    ]
    total = sum(
        given.errors * cost(case, True) + max(0, given.repeats - given.errors) * cost(case, False)
        for case in itertools.chain(*cases.values(), patients)
    )
    form = "{desc} {percentage:3.0f} %|{bar}| {elapsed}, {remaining} left"
    with tqdm(total=total, desc="standard errors", bar_format=form) as bar:
        found = {
            title: [simulate(case, given.repeats, given.errors, bar=bar) for case in group]
            for title, group in cases.items()
        }
        of_patients = [simulate(case, given.repeats, given.errors, bar=bar) for case in patients]

    for title, group in cases.items():
        heads = [f"n = {case.n}" for case in group]
        print(f"**{title}**: coverage of the expected value (mean printed error over true one)\n")
        names = found[title][0]
        rows = [[name, *(of_expected(each[name]) for each in found[title])] for name in names]
        print("\n".join(table(["value", *heads], rows)))
        truth = group[0].population()
        print(f"**{title}**: mean value at n: coverage of the population value\n")
        rows = [
            [name, f"{truth[name]:.3g}", *(of_population(each[name], truth[name]) for each in found[title])]
            for name in truth
        ]
        print("\n".join(table(["value", "population", *heads], rows)))

    heads = [f"n = {case.n}, {'by patient' if case.told else 'by image'}" for case in patients]
    print("**64 features, reals of four images a patient**: coverage of the expected value (errors over true ones)\n")
    names = of_patients[0] if of_patients else ()
    rows = [[name, *(of_expected(each[name]) for each in of_patients)] for name in names]
    print("\n".join(table(["value", *heads], rows)))
    print("**64 features, reals of four images a patient**: mean value at n: coverage of the population value\n")
    truth = SITUATIONS["one distribution"].population()
    rows = [
        [name, f"{truth[name]:.3g}", *(of_population(each[name], truth[name]) for each in of_patients)]
        for name in truth if name in names
    ]  # fmt: skip
    print("\n".join(table(["value", "population", *heads], rows)))

    settings = {
        "independent images": (Case(8, 40), False),
        "patients on both sides, exchanged whole": (Case(8, 40, images=4), True),
        "patients on both sides, images exchanged singly": (Case(8, 40, images=4, told=False), True),
        "real patients, one image of each": (Case(8, 40, images=4), False),
        "real patients, all their images": (Case(8, 40, images=4, told=False), False),
    }
    print("**Permutation tests of one distribution**, n = 40, 8 features: share of p-values up to 0.05\n")
    rows = []
    for title, (like, both) in tqdm(settings.items(), desc="permutation tests"):
        case = Case(like.dim, like.n, images=like.images, told=like.told, metrics=("frechet", "kid"))
        rows.append([title, *(f"{(p <= 0.05 + 1e-9).mean():.3f}" for p in chances(case, both, given.repeats).values())])
    print("\n".join(table(["exchanged", "frechet", "kid"], rows)))


if __name__ == "__main__":
    main()
