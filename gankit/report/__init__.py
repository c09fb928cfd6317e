"""The report of a run: one self-contained HTML page."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import from_numpy
from torch.nn.functional import adaptive_avg_pool2d

from gankit.errors import GankitError
from gankit.evaluation.comparison import read_metrics
from gankit.evaluation.sources import run_data, run_reference
from gankit.evaluation.tables import html
from gankit.files import sole_writer, write_atomically
from gankit.images.pictures import grid_png, pairs_png, png_uri, to_8bit
from gankit.interfaces import Dataset
from gankit.report.card import CARD, card, card_html, data_name
from gankit.report.pages import draw_lines, render
from gankit.runs.run import Run

CLASSES = 20  # the most classes that are shown
NEAREST = 8  # samples that are shown above the nearest training images
LARGE = 64  # pixels of a side above which fewer images are shown
COMPARED_SIDE = 16  # pixels of a side at which `nearest_png` compares images, so that fine noise does not decide
MOST_COMPARED = 20_000  # the most training images that it looks at, evenly spread over a larger set
BATCH = 512  # training images that are read at a time


class Pictures(NamedTuple):
    """Real and generated images of a class, or of the whole set where `class_name` is None, as data URIs of grids."""

    class_name: str | None
    real: str  # "" where there are none
    generated: str


def write_report(run: Run) -> Path:
    """Write `report.html` into a run's folder: values with their context, samples beside real images, curves, settings.

    Also write `card.md`: what the generated images are, what they were made from, and what they are not for.

    Values come from the run's `metrics.json` where `gankit evaluate` has written one. Real images are the held-out
    ones, or the training images where none were held out; where the data can no longer be opened, the page says so.

    Raises:
        GankitError: the run has no generator yet, was never trained, or comes with gankit; another process writes in
            its folder; or `metrics.json`, or what a study wrote there, cannot be read.
    """
    run.check_own("report")
    with sole_writer(run.path):
        path, evaluated = run.path / "report.html", run.path / "metrics.json"
        metrics = read_metrics(evaluated) if evaluated.is_file() else None
        text = card(run, metrics)
        write_atomically(path, _page(run, metrics, text))
        write_atomically(run.path / CARD, text)
    return path


def _page(run: Run, metrics: dict[str, Any] | None, card_text: str) -> str:
    # The pictures of pairs of images that `gankit evaluate` wrote beside these values.
    entries = metrics["metrics"] if metrics else {}
    pairs = [run.path / f"{name}-pairs.png" for name, entry in entries.items() if "details" in entry]
    name, reals, missing, nearest, looked_at = "", None, "", "", 0
    try:
        name, reals = run_reference(run)
        samples = run.sample(NEAREST, seed=run.experiment.training.seed)
        png, looked_at = nearest_png(samples, run.value_range, run_data(run)[0])
        nearest = png_uri(png)
    except GankitError as error:
        missing = str(error)
    pictures = _pictures(run, reals)
    steps, unread = run.known_steps()
    return render(
        "gankit.report", "run.html.j2", name=run.path.name, path=shlex.quote(str(run.path)), metrics=metrics,
        record=run.experiment.run, training=run.experiment.training, steps=steps, unread=unread,
        data=data_name(run), seconds=run.log[-1].get("seconds") if run.log else None,
        table=html(metrics) if metrics else "",
        pictures=pictures[:CLASSES], more_classes=len(pictures[CLASSES:]),
        reals_name=name, reals_missing=missing, nearest=nearest, looked_at=looked_at,
        curves={label: png_uri(picture) for label, picture in curves(run.log).items()},
        pairs=[png_uri(path.read_bytes()) for path in pairs if path.is_file()],
        experiment=run.experiment.with_run(None).toml(), card=card_html(card_text),
        command=f"gankit train {shlex.quote(str(run.path / 'experiment.toml'))} --out NEW_FOLDER",
    )  # fmt: skip


def _pictures(run: Run, reals: Dataset | None) -> list[Pictures]:
    """Grids of real and generated images, by class where the generator was told classes."""
    columns = 8 if max(run.image.shape[1:]) <= LARGE else 4
    seed, shape = run.experiment.training.seed, run.image

    def picture(images: NDArray[Any], value_range: tuple[float, float]) -> str:
        return png_uri(grid_png(images, value_range, columns))

    def row(name: str | None, places: NDArray[np.int64], count: int) -> Pictures:
        evenly = places[np.linspace(0, len(places) - 1, min(count, len(places))).astype(np.int64)]
        real = picture(reals.read(evenly), reals.value_range) if reals is not None and len(evenly) else ""
        return Pictures(name, real, picture(run.sample(count, name, seed=seed), run.value_range))

    everywhere = np.arange(0 if reals is None else len(reals))
    if not shape.classes:
        return [row(None, everywhere, columns**2)]
    labels = everywhere if reals is None else reals.labels
    trained = [number for number, count in enumerate(run.label_counts) if count]
    return [row(run.class_names[k], np.flatnonzero(labels == k), 2 * columns) for k in trained]


def nearest_png(samples: NDArray[Any], value_range: tuple[float, float], training: Dataset) -> tuple[bytes, int]:
    """A picture of two rows, and how many training images were looked at.

    The upper row shows the (n, c, h, w) samples, whose black and white are `value_range`; the lower row the training
    image nearest to each, by the mean squared difference of both at 16 x 16 pixels.
    """
    places = np.linspace(0, len(training) - 1, min(len(training), MOST_COMPARED)).astype(int)
    batches = (places[start : start + BATCH] for start in range(0, len(places), BATCH))
    small = np.concatenate([_small(training.read(batch), training.value_range) for batch in batches])
    nearest = places[cdist(_small(samples, value_range), small, "sqeuclidean").argmin(1)]
    return pairs_png(samples, value_range, training.read(nearest), training.value_range), len(places)


def _small(images: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.float32]:
    """(n, c, h, w) images of any type as (n, c * 256) values from 0 to 255."""
    pixels = from_numpy(to_8bit(images, value_range).astype(np.float32))
    return adaptive_avg_pool2d(pixels, COMPARED_SIDE).flatten(1).numpy()


def _points(rows: list[dict[str, Any]], names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of the rows that have a value, for each name without its side; beyond float32 none can be drawn."""
    most, points = float(np.finfo(np.float32).max), {}
    for name in names:
        drawn = [(row["step"], row[name]) for row in rows if abs(row.get(name, math.nan)) <= most]
        if drawn:
            points[name.partition("/")[2] or name] = drawn
    return points


def curves(log: list[dict[str, Any]]) -> dict[str, bytes]:
    """Pictures by caption: the losses of the critic and of the generator, and the first metric, over the steps."""
    plots = {}
    for side in ("critic", "generator"):
        names = sorted({name for row in log for name in row if name.startswith(f"{side}/")})
        plots[f"The {side}'s losses"] = _points(log, names)
    if evaluated := [row for row in log if row.get("metrics")]:
        name = next(iter(evaluated[0]["metrics"]))
        plots[f"{name} while training"] = _points([{**row, **row["metrics"]} for row in evaluated], [name])
    return {
        caption: draw_lines({name: [tuple(zip(*points, strict=True))] for name, points in values.items()},
                            "step (generator updates)", f"{caption.removeprefix('The ')} (no unit)", (5, 2.8))
        for caption, values in plots.items() if values
    }  # fmt: skip
