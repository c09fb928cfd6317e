"""Do generated eyes show the class that was asked for? Measures deviations class by class, with intervals."""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import gankit
from gankit.datasets.eyes import Eyes, estimate_deviation
from gankit.images.pictures import grid_png
from gankit.studies.classifier.study import load_classifier

THRESHOLD = 8.0  # prism dioptres; about where the simulated raters begin to see strabismus


# --8<-- [start:measure]
def count_classes(deviation: np.ndarray) -> np.ndarray:
    """Count the deviations that are exotropic, esotropic and normal, and those that were not found."""
    counts = [(deviation > THRESHOLD).sum(), (deviation < -THRESHOLD).sum(), (abs(deviation) <= THRESHOLD).sum()]
    return np.array([*counts, np.isnan(deviation).sum()])


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    z, p = 1.96, hits / n
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


# --8<-- [end:measure]


def print_shares(name: str, deviation: np.ndarray) -> None:
    counts, n = count_classes(deviation), len(deviation)
    intervals = ["{:.2f} [{:.2f}, {:.2f}]".format(count / n, *wilson(count, n)) for count in counts]
    print(f"{name:36}{n:6}" + "".join(f"{text:>21}" for text in intervals))


def print_distances(name: str, images: np.ndarray, reals: np.ndarray, features: str) -> None:
    values = gankit.evaluate(images, reals, ["kid", "precision-recall"], features)["metrics"]
    print(f"{name:30}{len(images):6}{len(reals):6}", end="")
    for metric in ("kid", "precision", "recall"):
        value, within = values[metric], values[metric]["real_vs_real"]
        error = value["standard_error"]  # None if leaving out any single picture does not change the value
        text = f"{value['value']:.4f}" + ("" if error is None else f" +- {error:.4f}")
        print(f"{text:>18} ({within['value']:.2f})", end="")
    print(f"  {values['kid']['real_vs_real']['n']:6}")


def print_confirmed(name: str, images: dict[str, NDArray[np.uint8]], path: Path) -> None:
    """Print the share of the pictures of each class that a classifier takes for that class."""
    classifier = load_classifier(path, grey_levels=True)
    print(f"{name:36}", end="")
    for asked, pictures in images.items():
        told = classifier(torch.from_numpy(pictures)).argmax(1)
        hits = int((told == classifier.class_names.index(asked)).sum())
        print("{:.2f} [{:.2f}, {:.2f}]".format(hits / len(pictures), *wilson(hits, len(pictures))).rjust(21), end="")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="eyes", help="a run that is conditional on the classes of eyes")
    parser.add_argument("--beside", nargs="*", default=[], metavar="RUN", help="other runs, conditional or not")
    parser.add_argument(
        "--count", type=int, default=1000, help="pictures to generate, per class if the run is conditional"
    )
    parser.add_argument("--counts", type=int, nargs=3, default=[1250, 451, 999], help="real pictures of each class")
    parser.add_argument("--features", default="pixels")
    parser.add_argument("--classifier", type=Path, help="a classifier of these classes, trained on real pictures")
    parser.add_argument("--picture", type=Path, help="write rows of generated and real pictures to this file")
    given = parser.parse_args()

    run = gankit.open_run(given.run)
    # Other subjects than in the training, whose seed is 0.
    real = Eyes((run.image.height, run.image.width), counts=tuple(given.counts), seed=1)
    reals = {name: real.images[real.labels == label] for label, name in enumerate(real.class_names)}
    runs = [run, *map(gankit.open_run, given.beside)]
    samples = [
        {name: run.sample(given.count, labels=name, seed=1) for name in reals}
        if run.image.classes
        else dict.fromkeys(reals, run.sample(given.count, seed=1))
        for run in runs
    ]
    names = [run.path.name for run in runs]

    measured = estimate_deviation(real.images)
    error = abs(measured - real.deviation)
    print(f"the estimator's error on {len(error)} real pictures of {run.image.height} x {run.image.width}, in PD: "
          f"median {np.nanmedian(error):.1f}, mean {np.nanmean(error):.1f}")  # fmt: skip
    for label, name in enumerate(reals):
        print(f"  {name}: median {np.nanmedian(error[real.labels == label]):.1f}")

    columns = "".join(f"{text:>21}" for text in ("exotropic", "esotropic", "normal", "not found"))
    print(f"\n{f'measured, {THRESHOLD:g} PD':36}{'n':>6}{columns}")
    for tested, title, images in zip(runs, names, samples, strict=True):
        if tested.image.classes:
            for name in reals:
                print_shares(f"{title}, asked for {name}", estimate_deviation(images[name]))
        else:
            print_shares(f"{title}, without labels", estimate_deviation(images["normal"]))
    for label, name in enumerate(reals):
        print_shares(f"real {name}", measured[real.labels == label])
    print_shares("real, all", measured)
    for label, name in enumerate(reals):
        print_shares(f"real {name}, true deviation", real.deviation[real.labels == label])

    columns = "".join(f"{text:>25}" for text in ("kid (real)", "precision (real)", "recall (real)"))
    print(f"\n{f'on {given.features}':30}{'n':>6}{'reals':>6}{columns}{'real n':>8}")
    for name in reals:
        for title, images in zip(names, samples, strict=True):
            print_distances(f"{title}, {name}", images[name], reals[name], given.features)

    if given.classifier:
        print(f"\n{'confirmed by the classifier':36}" + "".join(f"{name:>21}" for name in reals))
        for title, images in zip(names, samples, strict=True):
            print_confirmed(title, images, given.classifier)
        print_confirmed("real", reals, given.classifier)

    if given.picture:
        # The same latents in each row of generated pictures.
        rows = [images[name][:16] for images in (samples[0], reals) for name in reals]
        given.picture.write_bytes(grid_png(np.concatenate(rows), run.value_range, len(rows[0])))


main()
