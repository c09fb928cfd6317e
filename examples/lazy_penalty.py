"""Measure the effect of a lazy penalty (`every = k`) on quality, at equal steps and at equal time.

Trains the recipe `demo` at constant learning rates, so that a longer training begins exactly as a shorter one. Each
training is evaluated after an equal number of steps, and again after as many steps as cost the same time as those with
`every = 1`. Prints the tables of docs/measured/lazy-penalty.md. After a stop, run it again: it does only what is
unfinished.
"""

import argparse
import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from torchvision.utils import save_image

import gankit

# --8<-- [start:settings]
SETTINGS = [
    "data.held_out=0.2", "augment=none",
    "generator.widths=[64, 32, 16, 16]", "critic.widths=[16, 16, 32, 64]",
    "training.batch=16", "training.lr_decay=none", "training.threads=1", "training.max_minutes=1000",
    "training.sample_every=100000", "training.checkpoint_every=500", "evaluation.features=efficientnet-lite0",
]  # fmt: skip
# --8<-- [end:settings]
METRICS = ("kid", "frechet")


def experiment(data: list[str], every: int, *settings: str) -> gankit.Experiment:
    return gankit.load("demo", *SETTINGS, *data, f"losses.gradient-penalty.every={every}", *settings)


def costs(out: Path, data: list[str], every: list[int], rounds: int, overrides: list[str]) -> dict[int, list[float]]:
    """CPU seconds per step for each interval, alternating in one process: six per round, saved for later calls."""
    path = out / "costs.json"
    if not path.is_file():
        period = math.lcm(*every)  # steps after which every interval has completed whole cycles
        length = [f"training.tick_every={period}", f"training.steps={7 * period}"]
        seconds: dict[int, list[float]] = {k: [] for k in every}
        for _ in range(rounds):
            for k in every:
                ticks: list[float] = []
                with tempfile.TemporaryDirectory() as folder:
                    gankit.train(
                        experiment(data, k, *overrides, *length),
                        folder,
                        on_tick=lambda row, ticks=ticks: ticks.append(time.process_time()),
                    )
                # The first period is left out, because it allocates memory.
                seconds[k] += [(after - before) / period for before, after in itertools.pairwise(ticks)]
        path.write_text(json.dumps(seconds), encoding="utf-8")
    return {int(k): values for k, values in json.loads(path.read_text(encoding="utf-8")).items()}


def train_or_resume(folder: Path, wanted: gankit.Experiment) -> gankit.Run:
    """Start the run in a folder, or continue it, until it has the wanted number of steps."""
    if not (folder / "experiment.toml").is_file():
        return gankit.train(wanted, folder)
    longer = gankit.load(folder, f"training.steps={wanted.training.steps}")
    (folder / "experiment.toml").write_text(longer.toml(), encoding="utf-8")
    return gankit.resume(folder)


def job(folder: Path, data: list[str], every: int, seed: int, stops: list[int], overrides: list[str]) -> list[dict]:
    """Metrics after each number of steps, on the images that this seed held out."""
    reports = []
    for steps in sorted(set(stops)):
        file = folder / f"judged-{steps}.json"
        if not file.is_file():
            wanted = experiment(data, every, *overrides, f"training.seed={seed}", f"training.steps={steps}")
            run = train_or_resume(folder, wanted)
            report = gankit.evaluate(run, run, METRICS, wanted.evaluation.features)
            file.write_text(json.dumps(report["metrics"]), encoding="utf-8")
        reports.append(json.loads(file.read_text(encoding="utf-8")))
    return reports


def slope_error(folder: Path, steps: int) -> float:
    """Root of the mean (slope - 1)^2 at the penalty's points, over the second half of the steps."""
    rows = [row for row in gankit.open_run(folder).log if steps / 2 < row["step"] <= steps]
    return math.sqrt(np.mean([row["critic/gradient-penalty"] for row in rows]))


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""


def row(label: str, steps: int, reports: list[dict], first: list[dict]) -> list[str]:
    """Mean over seeds +- their standard deviation, mean printed error, and mean difference (seed by seed)."""
    cells = [label, str(steps)]
    for name in METRICS:
        values, base = (np.array([report[name]["value"] for report in side]) for side in (reports, first))
        error = np.mean([report[name]["standard_error"] for report in reports])
        spread = values.std(ddof=1) if len(values) > 1 else math.nan
        cells += [f"{values.mean():.4g} +- {spread:.2g}", f"{error:.2g}"]
        differences = values - base
        by_seed = " ".join(f"{d:+.2g}" for d in differences)
        cells.append("" if reports is first else f"{differences.mean():+.2g} ({by_seed})")
    return cells


def pictures(path: Path, folders: list[Path]) -> None:
    """Write the first ten samples of each run, one row per run, at twice the size."""
    rows = torch.tensor(np.concatenate([gankit.open_run(folder).sample(10, seed=1) for folder in folders])) / 255
    save_image(rows.repeat_interleave(2, 2).repeat_interleave(2, 3), path, nrow=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/lazy"))
    parser.add_argument("overrides", nargs="*", help="settings of all trainings, as key.path=value")
    parser.add_argument("--npz", type=Path, help="also train on the images in this file, as squares of 32 pixels")
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 5], help="others are compared with the first")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the cost measurement")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, with one thread each")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sets = {"eyes": ["data.subset=1500"]}
    if given.npz is not None:
        sets[given.npz.stem] = ["data.name=npz", f"data.path={given.npz}", "data.size=32"]

    cost = costs(given.out, sets["eyes"], given.every, given.rounds, given.overrides)
    first, rows, stops = given.every[0], [], {}
    for k in given.every:
        ratios = [seconds / base for seconds, base in zip(cost[k], cost[first], strict=True)]
        ratio = statistics.median(ratios)
        # At least the equal steps: an interval may save no time.
        stops[k] = [given.steps, max(given.steps, round(given.steps / ratio))]
        spread = f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append([str(k), f"{statistics.median(cost[k]):.4f}", spread, str(stops[k][1])])
    print("\n".join(table(["every", "CPU s per step", f"ratio to every = {first}", "steps at equal time"], rows)))

    # Seeds are the outer loop, so that an interrupted script leaves a whole comparison with fewer seeds.
    tasks = [(name, k, seed) for seed in range(given.seeds) for name in sets for k in given.every]
    folders = {task: given.out / "{}-every-{}-{}".format(*task) for task in tasks}
    results = Parallel(n_jobs=given.jobs)(
        delayed(job)(folders[task], sets[task[0]], task[1], task[2], stops[task[1]], given.overrides) for task in tasks
    )
    reports = dict(zip(tasks, results, strict=True))
    for name in sets:
        rows = []
        base = [reports[name, first, seed][0] for seed in range(given.seeds)]
        for label, stop in (("steps", 0), ("time", -1)):
            for k in given.every:
                if k != first or stop == 0:
                    side = base if k == first else [reports[name, k, seed][stop] for seed in range(given.seeds)]
                    title = f"every = {k}" + ("" if k == first else f", equal {label}")
                    rows.append(row(title, stops[k][stop], side, base))
        counts = " or ".join(str(n) for n in sorted({report["kid"]["n_real"] for report in base}))
        print(f"{name}: {counts} held-out images, by seed, and as many generated ones\n")
        head = ["", "steps"]
        for metric in METRICS:
            head += [f"{metric}, mean +- of a seed", "printed error", f"minus every = {first}"]
        print("\n".join(table(head, rows)))
        rows = []
        for k in given.every:
            errors = [slope_error(folders[name, k, seed], given.steps) for seed in range(given.seeds)]
            rows.append([str(k), " ".join(f"{error:.3f}" for error in errors)])
        print("\n".join(table(["every", "slope off by, seed by seed"], rows)))
    pictures(given.out / "samples.png", [folders["eyes", k, 0] for k in given.every])


if __name__ == "__main__":
    main()
