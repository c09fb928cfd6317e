"""The report of a run: one self-contained HTML page."""

from pathlib import Path
from typing import Any

from gankit.evaluation.comparison import read_metrics
from gankit.evaluation.tables import html
from gankit.files import sole_writer, write_atomically
from gankit.images.pictures import grid_png, png_uri
from gankit.report.pages import draw_lines, render
from gankit.runs.run import Run

SHOWN = 64


def write_report(run: Run) -> Path:
    """Write `report.html` into a run's folder: samples, values with their context, curves and settings.

    Values come from the run's `metrics.json` where `gankit evaluate` has written one.

    Raises:
        RunError: the run has no generator yet, or comes with gankit.
    """
    run.check_own("report")
    with sole_writer(run.path):
        page, path = _page(run), run.path / "report.html"
        write_atomically(path, page)
    return path


def _page(run: Run) -> str:
    metrics_file = run.path / "metrics.json"
    metrics = read_metrics(metrics_file) if metrics_file.is_file() else None
    # The pictures of pairs of images that `gankit evaluate` wrote beside these values.
    entries = metrics["metrics"] if metrics else {}
    pairs = [run.path / f"{name}-pairs.png" for name, entry in entries.items() if "details" in entry]
    samples = run.sample(SHOWN, seed=run.experiment.training.seed)
    return render(
        "gankit.report", "run.html.j2", name=run.path.name, path=run.path, record=run.experiment.run, metrics=metrics,
        training=run.experiment.training, steps=run.steps, seconds=run.log[-1]["seconds"] if run.log else None,
        grid=png_uri(grid_png(samples, run.value_range, 8)), table=html(metrics) if metrics else "",
        curves=[png_uri(picture) for picture in curves(run.log)],
        pairs=[png_uri(path.read_bytes()) for path in pairs if path.is_file()],
        experiment=run.experiment.with_run(None).toml(),
        command=f"gankit train {run.path / 'experiment.toml'} --out NEW_FOLDER",
    )  # fmt: skip


def curves(log: list[dict[str, Any]]) -> list[bytes]:
    """Pictures of the losses of the critic and of the generator, and of the first metric, each over the steps."""
    plots = []
    for side in ("critic", "generator"):
        names = sorted({name for row in log for name in row if name.startswith(f"{side}/")})
        values = {name.partition("/")[2]: [(row["step"], row[name]) for row in log if name in row] for name in names}
        plots.append((f"{side}'s losses", values))
    if evaluated := [row for row in log if row.get("metrics")]:
        name = next(iter(evaluated[0]["metrics"]))
        plots.append((name, {name: [(row["step"], row["metrics"].get(name)) for row in evaluated]}))
    return [
        draw_lines({name: [tuple(zip(*points, strict=True))] for name, points in values.items()},
                   "step (generator updates)", label, (7, 2.6))
        for label, values in plots if values
    ]  # fmt: skip
