"""Compare training in bf16 with float32: curves for the same seeds, and the cost of a step.

Prints the tables and draws the figure of docs/measured/bf16.md. After a stop, run it again: it does only what is
unfinished.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import matplotlib
import numpy as np
from joblib import Parallel, delayed

matplotlib.use("Agg")  # write files; open no window
import matplotlib.pyplot as plt

import gankit
from gankit.studies.trainings import train_or_resume

# --8<-- [start:settings]
PRECISIONS = {"float32": "tab:blue", "bf16": "tab:orange"}
SETTINGS = [
    "data.subset=1500", "data.held_out=0.2", "augment=none", "losses.gradient-penalty.every=1",
    "training.batch=16", "training.lr_decay=none", "training.threads=1", "training.max_minutes=1000",
    "training.sample_every=100000",
]  # fmt: skip
NETWORKS = {
    "narrow": ["generator.widths=[64, 32, 16, 16]", "critic.widths=[16, 16, 32, 64]"],
    "width 64": ["generator={name='resnet', width=64}", "critic={name='resnet', width=64}"],
}
# Evaluate the generator on the held-out images every 50 updates.
EVALUATE = [
    "training.tick_every=25",
    "evaluation.every=2",
    "evaluation.features=pixels",
    'evaluation.metrics=["frechet"]',
]
# --8<-- [end:settings]


def experiment(precision: str, *settings: str) -> gankit.Experiment:
    return gankit.load("demo", *SETTINGS, f"training.precision={precision}", *settings)


def costs(settings: list[str], rounds: int, steps: int = 5) -> dict[str, list[float]]:
    """CPU seconds per step for each precision, alternating in one process: three values per round."""
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    length = [f"training.tick_every={steps}", f"training.steps={4 * steps}", "evaluation.every=0"]
    for _ in range(rounds):
        for precision, values in seconds.items():
            ticks: list[float] = []
            with tempfile.TemporaryDirectory() as folder:
                gankit.train(
                    experiment(precision, *settings, *length),
                    folder,
                    on_tick=lambda row, ticks=ticks: ticks.append(time.process_time()),
                )
            # The first steps are left out, because they allocate memory.
            values += [(after - before) / steps for before, after in itertools.pairwise(ticks)]
    return seconds


def job(folder: Path, precision: str, settings: list[str]) -> list[dict]:
    """The log of one training."""
    return train_or_resume(experiment(precision, *settings), folder).log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/bf16"))
    parser.add_argument("overrides", nargs="*", help="settings of all trainings, as key.path=value")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the cost measurement")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, with one thread each")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    path = given.out / "costs.json"
    if not path.is_file():
        measured = {name: costs([*widths, *given.overrides], given.rounds) for name, widths in NETWORKS.items()}
        path.write_text(json.dumps(measured), encoding="utf-8")
    print("| networks | CPU s per step, float32 | bf16 | ratio |\n|---|---|---|---|")
    for name, cost in json.loads(path.read_text(encoding="utf-8")).items():
        ratios = [half / whole for whole, half in zip(cost["float32"], cost["bf16"], strict=True)]
        medians = [f"{statistics.median(cost[precision]):.3f}" for precision in PRECISIONS]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {' | '.join([name, *medians, spread])} |")

    tasks = list(itertools.product(PRECISIONS, range(given.seeds)))
    settings = [*EVALUATE, *NETWORKS["narrow"], *given.overrides, f"training.steps={given.steps}"]
    logs = Parallel(n_jobs=given.jobs)(
        delayed(job)(given.out / f"{precision}-{seed}", precision, [*settings, f"training.seed={seed}"])
        for precision, seed in tasks
    )
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    estimates: dict[str, list[np.ndarray]] = {precision: [] for precision in PRECISIONS}
    distances: dict[str, list[np.ndarray]] = {precision: [] for precision in PRECISIONS}
    for (precision, seed), log in zip(tasks, logs, strict=True):
        evaluated = [row for row in log if "metrics" in row]
        estimates[precision].append(np.array([-row["critic/wasserstein"] for row in log]))
        distances[precision].append(np.array([row["metrics"]["frechet"] for row in evaluated]))
        style = {"color": PRECISIONS[precision], "label": None if seed else precision, "alpha": 0.7}
        axes[0].plot([row["step"] for row in log], estimates[precision][-1], **style)
        axes[1].plot([row["step"] for row in evaluated], distances[precision][-1], **style)
    axes[0].set_ylabel("Wasserstein estimate of the critic")
    axes[1].set_ylabel("Frechet distance (pixels)")
    for axis in axes:
        axis.set_xlabel("generator updates")
        axis.set_yscale("log")
        axis.legend()
    figure.savefig(given.out / "curves.png", dpi=100)

    print("\n| precision | frechet at the end, mean | of each seed |\n|---|---|---|")
    for precision, curves in distances.items():
        ends = [curve[-1] for curve in curves]
        print(f"| {precision} | {np.mean(ends):.3f} | {' '.join(f'{end:.3f}' for end in ends)} |")
    ratios = np.array(estimates["bf16"]) / np.array(estimates["float32"])
    print("\nWasserstein estimate in bf16 over that of the same seed in float32, "
          f"mean +- spread: {ratios[:, 0].mean():.3f} +- {ratios[:, 0].std():.3f} at the first tick, "
          f"{ratios.mean():.3f} +- {ratios.std():.3f} at all")  # fmt: skip


if __name__ == "__main__":
    main()
