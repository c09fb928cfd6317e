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
        values: what it shows.
    """
    environment = Environment(loader=PackageLoader(package, ""), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)


def png_uri(png: bytes) -> str:
    """A PNG as the address of a picture within a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def draw_png(draw: Callable[[Any], None], size: tuple[float, float]) -> bytes:
    """A figure as the bytes of a PNG.

    Args:
        draw: called with an empty matplotlib figure.
        size: its width and height in inches.
    """
    # The object interface: it needs no display and leaves pyplot's global state alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
