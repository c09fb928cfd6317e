"""The command `gankit plan`."""

from pathlib import Path
from typing import Annotated

import typer

from gankit.terminal.text import say

Images = Annotated[str, typer.Argument(help="A folder, an npz file, a data set's name, or a table {name = ...}.")]
Minutes = Annotated[float, typer.Option(help="Minutes of training on this machine.", min=0.1, max=1e6)]
Recipe = Annotated[str | None, typer.Option("--recipe", help="A recipe that adapts its settings to the images.")]
Output = Annotated[Path | None, typer.Option(help="The file to write; experiment.toml by default.", show_default=False)]


def plan(images: Images, minutes: Minutes = 60.0, out: Output = None, recipe: Recipe = None) -> None:
    """Look at images, propose an experiment that fits them and this machine, and write it with its reasons."""
    from gankit.planning import proposal

    for line in proposal.plan(images, minutes, out or Path("experiment.toml"), recipe):
        say(line)
