"""Self-contained HTML pages from templates, with their pictures inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(package: str, template: str, **values: Any) -> str:
    """A page from a template; every value is escaped, and a missing one is an error.

    Args:
        package: the folder of the template, as a module.
        template: its file.
        values: the template's variables.
    """
    environment = Environment(loader=PackageLoader(package, ""), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)


def png_uri(png: bytes) -> str:
    """A PNG as a data URI, which a page can show without a file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def draw_png(draw: Callable[[Any], None], size: tuple[float, float]) -> bytes:
    """A figure as the bytes of a PNG.

    Args:
        draw: called with an empty matplotlib figure.
        size: its width and height in inches.
    """
    # Without pyplot: no display is needed, and its global state is left alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
