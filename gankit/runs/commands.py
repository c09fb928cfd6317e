"""The commands `gankit sample` and `gankit walk`."""

from pathlib import Path
from typing import Annotated

import typer

from gankit.experiments.options import Animation, AnyRun, Best, Label, Out, Seed, Truncation
from gankit.terminal.text import say


def sample(
    run: AnyRun,
    count: Annotated[int, typer.Option(help="How many images.", min=1)] = 64,
    label: Label = None,
    seed: Seed = 0,
    truncation: Truncation = 1.0,
    best: Best = False,
    out: Out = None,
) -> None:
    """Draw images from a run: numbered files, a grid, and labels.csv."""
    from gankit.runs.run import open_run
    from gankit.runs.sampling import write_samples

    opened = open_run(run, best=best)
    out = out or (Path() if opened.packaged else opened.path) / f"drawn-{seed}"
    say(f"{count} images, grid.png and labels.csv in {write_samples(opened, out, count, label, seed, truncation)}")


def walk(
    run: AnyRun,
    stops: Annotated[int, typer.Option(help="Latents that the walk visits.", min=2, max=1000)] = 4,
    frames: Annotated[int, typer.Option(help="Pictures from one to the next.", min=1, max=1000)] = 12,
    label: Label = None,
    seed: Seed = 0,
    truncation: Truncation = 1.0,
    animation: Annotated[Animation, typer.Option(help="The format of the animated file.")] = "gif",
    best: Best = False,
    out: Out = None,
) -> None:
    """Show what a run has learned: a walk between latents, a sweep of truncation, the course of its training."""
    from gankit.runs.run import open_run
    from gankit.runs.walk import write_walk

    opened = open_run(run, best=best)
    out = out or (Path() if opened.packaged else opened.path) / f"walk-{seed}"
    lines = write_walk(
        opened, out, stops=stops, frames=frames, label=label, seed=seed, truncation=truncation, animation=animation
    )  # fmt: skip
    say("\n".join([f"in {out}:", *lines]))
