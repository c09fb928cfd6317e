"""Self-contained HTML pages from templates, with their pictures inside."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from gankit.terminal.text import harmless
from gankit.version import __version__ as gankit_version

_SIGNS, _BULLET = re.compile(r"([\\`*_\[\]<>&~#$])"), re.compile(r"^(\d*)([-+.)])(?=\s)")
"""What Markdown does not show as it is, anywhere and at the beginning."""


def render(package: str, template: str, **values: Any) -> str:
    """A page from a template. Templates of HTML and of Markdown escape texts; a missing value is an error.

    `package` is the folder of the template, as a module. Templates may extend `base.html.j2` of this folder, which has
    the one stylesheet of all reports.
    """
    environment = _environment(package, markdown if ".md." in template else harmless)
    return environment.get_template(template).render(gankit_version=gankit_version, **values)


@cache  # an environment keeps its templates compiled
def _environment(package: str, finalize: Callable[[str], str]) -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("gankit.report", "")]),
        autoescape=lambda name: name is None or ".html" in name,
        undefined=StrictUndefined, finalize=lambda value: finalize(value) if type(value) is str else value,
    )  # fmt: skip


def markdown(text: str) -> str:
    """A text, such as the name of a class, as Markdown that shows it as it is, on one line."""
    escaped = _SIGNS.sub(r"\\\1", " ".join(harmless(text).split()))
    return _BULLET.sub(r"\1\\\2", escaped)


def draw_png(draw: Callable[..., None], size: tuple[float, float] = (7, 3.2), panels: int = 1) -> bytes:
    """A figure of this width and height in inches as the bytes of a PNG.

    `draw` is called with the empty matplotlib axes of every panel. Panels stand side by side, each with a grid.
    """
    # Without pyplot: no display is needed, and its global state is left alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    draw(*axes)
    for panel in axes:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def draw_lines(
    lines: Mapping[str, Sequence[tuple[Any, ...]]], xlabel: str, ylabel: str, size: tuple[float, float] = (7, 3.2)
) -> bytes:
    """Curves with a legend as the bytes of a PNG; `size` is its width and height in inches.

    `lines` has, for each name in the legend, curves of one colour: the x and y of each.
    """

    def draw(axes: Any) -> None:
        for place, (name, curves) in enumerate(lines.items()):
            for number, (x, y) in enumerate(curves):
                style = {"color": f"C{place % 10}", "linestyle": "-" if place < 10 else ":", "linewidth": 1.0}
                marker = "." if len(x) < 20 else ""  # a single point has no line
                axes.plot(x, y, label=f"_{name}" if number else name, marker=marker, **style)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.legend(frameon=False, fontsize=8, ncols=1 + len(lines) // 6)

    return draw_png(draw, size)


def draw_intervals(
    rows: Sequence[tuple[str, Mapping[str, Any], Sequence[float | None]]], reference: float, xlabel: str = ""
) -> bytes:
    """Values with their intervals below each other, and a line across all rows at `reference`, as the bytes of a PNG.

    A row is a name; "value", "low" and "high" (None without an interval); and the values behind it, drawn as crosses.
    """

    def draw(axes: Any) -> None:
        for place, (_, entry, single) in enumerate(rows):
            if entry["low"] is not None:
                axes.plot([entry["low"], entry["high"]], [place, place], color="tab:blue", linewidth=2)
            known = [value for value in single if value is not None]
            axes.plot(known, [place] * len(known), "x", color="tab:gray", markersize=5)
            axes.plot(entry["value"], place, "o", color="tab:blue")
        axes.axvline(reference, color="black", linewidth=1)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=8)
        axes.set(xlabel=xlabel, ylim=(len(rows) - 0.4, -0.6))

    return draw_png(draw, (7, 0.8 + 0.35 * max(len(rows), 2)))
