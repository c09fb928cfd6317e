"""Several trainings at once, each in its own folder. After a stop, run it again: it does only what is unfinished."""

import argparse
import itertools
import os
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

import gankit

# --8<-- [start:job]
VARIANTS = {
    "wgan-gp": ["augment=none"],
    "diffaugment": ["augment.name=diffaugment"],
    "weaker penalty": ["augment=none", "losses.gradient-penalty.weight=1"],
}


def job(out: Path, variant: str, seed: int, threads: int, overrides: list[str]) -> float:
    """Run one training in one process. Only a number is returned; everything else is in the training's folder."""
    folder = out / f"{variant.replace(' ', '-')}-{seed}"
    if (folder / "experiment.toml").is_file():
        run = gankit.resume(folder)  # a finished run is returned as it is
    else:
        # The seed also decides the held-out images, so all variants of a seed are evaluated on the same ones.
        settings = [f"training.seed={seed}", f"training.threads={threads}", "data.held_out=0.2"]
        run = gankit.train(gankit.load("demo", *settings, *VARIANTS[variant], *overrides), folder)
    report = gankit.evaluate(run, run, ["kid"], run.experiment.evaluation.features)
    return float(report["metrics"]["kid"]["value"])


# --8<-- [end:job]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=Path("runs/many"))
    parser.add_argument("overrides", nargs="*", help="settings of all trainings, as key.path=value")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()

    # --8<-- [start:parallel]
    # More threads than cores in total would make every training slower.
    threads = max(1, (os.cpu_count() or 1) // given.jobs)
    tasks = list(itertools.product(VARIANTS, range(given.seeds)))
    values = Parallel(n_jobs=given.jobs)(
        delayed(job)(given.out, variant, seed, threads, given.overrides) for variant, seed in tasks
    )
    # --8<-- [end:parallel]
    table = np.array(values).reshape(len(VARIANTS), given.seeds)
    print(f"{'kid, lower is better':22}{'mean':>9}{'of a seed':>11}   minus the first, seed by seed")
    for name, row in zip(VARIANTS, table, strict=True):
        spread = row.std(ddof=1) if given.seeds > 1 else float("nan")
        # Trainings of one seed share their held-out images, so differences vary less than values.
        print(f"{name:22}{row.mean():9.4f}{f'+- {spread:.4f}':>11}   {' '.join(f'{d:+.4f}' for d in row - table[0])}")


if __name__ == "__main__":
    main()
