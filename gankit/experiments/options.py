"""Arguments and options that several commands of the command line share."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gankit.experiments.values import parse_metrics, parse_value, parse_window


def _join_options(words: list[str] | None) -> list[str] | None:
    """Words with `--key value` joined to `--key=value`, so that an error can name the setting that was meant."""
    joined: list[str] = []
    for word in words or ():
        if joined and joined[-1].startswith("-") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings as key.path=value.", show_default=False, callback=_join_options)
]
Out = Annotated[Path | None, typer.Option("--out", help="The folder to write.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)]
AnyRun = Annotated[Path, typer.Argument(help="A run's folder, or 'eyes' for the included run.", show_default=False)]
Recipe = Annotated[str, typer.Argument(help="A recipe's name or an experiment file.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Seed of the latents.", min=0)]
Label = Annotated[str | None, typer.Option(help="A class by name or number, or conditions as 1.5,0.2.")]
Truncation = Annotated[float, typer.Option(help="Below 1: more typical images, where the generator can.")]
Animation = Literal["gif", "webp", "png"]
Best = Annotated[bool, typer.Option("--best", help="Take the generator that was best while training, not the last.")]
Extractor = Annotated[
    Any,
    typer.Option(
        parser=parse_value, metavar="<str>", show_default=False,
        help='The feature extractor: a name, or a TOML table {name = "...", ...}.',
    ),
]  # fmt: skip
Metrics = Annotated[
    Any,
    typer.Option(
        parser=parse_metrics, metavar="<str>", help="Metrics, separated by commas, or a TOML list.", show_default=False
    ),
]
Window = Annotated[
    Any,
    typer.Option(parser=parse_window, metavar="<str>", help="Values of black and white beyond 8 bits, such as 0,4095."),
]
