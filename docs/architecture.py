"""What the architecture page shows of the code: the floors, computed from the imports, and the code it links to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path

import gankit
from gankit.registry.plugins import PART_KINDS, plural

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gankit"
PAGE = Path(__file__).parent / "project" / "architecture.md"
LINK = re.compile(r"\(code/([\w-]+)\.md(?:#(\w+))?\)")
PARTS = "parts"
PART_FOLDERS = sorted(plural(kind) for kind in PART_KINDS)
WIDTH, ROW, BOX, GAP = 940, 84, 40, 90


@cache
def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """(line, full name) of every import of a file, those inside functions and of `importlib.import_module` included.

    Raises:
        ValueError: an import is relative.
    """
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise ValueError(f"{path}:{node.lineno}: imports are absolute")
            for alias in node.names:
                # `from gankit import seeds` imports a module, `from gankit.seeds import Order` a name of one.
                yield node.lineno, f"gankit.{alias.name}" if node.module == "gankit" else node.module
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from ((node.lineno, name.value) for name in node.args if isinstance(name, ast.Constant))


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of every import of gankit in a file; a room is a module or a folder right below gankit."""
    for line, name in imports(path):
        package, _, rest = name.partition(".")
        if package == "gankit" and rest:
            first = rest.partition(".")[0]
            yield line, gankit._MODULES.get(first, first).partition(".")[0]  # public names stand for their modules


def room(path: Path) -> str:
    """The module or folder right below gankit that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def graph() -> dict[str, set[str]]:
    """The rooms that each room imports; the folders of parts count as one room."""
    arrows: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent == PACKAGE and path.stem in ("__init__", "__main__"):
            continue
        name = PARTS if room(path) in PART_FOLDERS else room(path)
        imports = {PARTS if other in PART_FOLDERS else other for _, other in imported_rooms(path)}
        arrows.setdefault(name, set()).update(imports - {name, "__init__"})
    return arrows


def floors(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by floor, from the ground up: each stands right above the highest room that it imports.

    Raises:
        ValueError: imports run in a circle.
    """
    heights: dict[str, int] = {}
    while left := set(arrows) - set(heights):
        ready = [name for name in left if arrows[name] <= set(heights)]
        if not ready:
            raise ValueError(f"imports run in a circle among {', '.join(sorted(left))}")
        heights |= {name: 1 + max((heights[other] for other in arrows[name]), default=-1) for name in ready}
    return [sorted(name for name in heights if heights[name] == height) for height in range(max(heights.values()) + 1)]


def reduced(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no chain of others implies."""

    def below(name: str) -> set[str]:
        return arrows[name].union(*(below(other) for other in arrows[name]))

    return {
        name: {o for o in others if not any(o in below(p) for p in others - {o})} for name, others in arrows.items()
    }


def svg() -> str:
    """The picture: the ground below, what imports it above, and an arrow to what a room stands on."""
    arrows = graph()
    rows = floors(arrows)
    labels = {name: ", ".join(PART_FOLDERS) if name == PARTS else name for name in arrows}
    widths = {name: max(70, 8.2 * len(labels[name]) + 22) for name in arrows}
    places: dict[str, tuple[float, float]] = {}
    height = ROW * len(rows) + 20
    for number, names in enumerate(rows):
        # A room stands above the middle of what it imports, as far as its neighbours let it.
        names = sorted(names, key=lambda name: sum(places[o][0] for o in arrows[name]) / max(len(arrows[name]), 1))
        boxes = sum(widths[name] for name in names)
        # Long rows take the whole width, so that arrows from high above pass beside the boxes in between.
        gap = (WIDTH - 40 - boxes) / (len(names) - 1) if len(names) > 3 else GAP
        left = (WIDTH - boxes - gap * (len(names) - 1)) / 2
        for name in names:
            places[name] = left + widths[name] / 2, height - ROW * number - ROW / 2
            left += widths[name] + gap
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="sans-serif" font-size="15">',
        "<title>The floors of gankit: every arrow points to what a module or folder imports</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#8a94a6"/></marker></defs>',
    ]
    for name, others in sorted(reduced(arrows).items()):
        for other in sorted(others):
            (x, y), (to_x, to_y) = places[name], places[other]
            y, to_y = y + BOX / 2, to_y - BOX / 2
            bend = (to_y - y) / 2
            lines.append(
                f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {to_x:.0f} {to_y - bend:.0f} {to_x:.0f} {to_y:.0f}" '
                'fill="none" stroke="#8a94a6" marker-end="url(#tip)"/>'
            )
    for name, (x, y) in sorted(places.items()):
        width = widths[name]
        lines.append(
            f'<rect x="{x - width / 2:.0f}" y="{y - BOX / 2:.0f}" width="{width:.0f}" height="{BOX}" rx="6" '
            f'fill="{"#e3ecfb" if name == PARTS else "#f4f6fa"}" stroke="#4a5a78"/>'
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{escape(labels[name])}</text>'
        )
    return "\n".join([*lines, "</svg>\n"])


def code_pages(text: str) -> dict[str, str]:
    """A page of code for each file that a text links to: its name and its Markdown, a section per class or function.

    A link to gankit/training/trainer.py is `code/training-trainer.md`, one to a function of it adds `#name`.

    Raises:
        ValueError: a link names a file or a function that is not there.
    """
    pages: dict[str, str] = {}
    for name, symbol in LINK.findall(text):
        path = PACKAGE / f"{name.replace('-', '/')}.py"
        if not path.is_file():
            raise ValueError(f"{PAGE.name} links to {path.relative_to(ROOT)}, which is not there")
        lines = path.read_text(encoding="utf-8").splitlines()
        tree = ast.parse("\n".join(lines))
        nodes = [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        if symbol and symbol not in {node.name for node in nodes}:
            raise ValueError(f"{PAGE.name} links to {symbol} of {path.relative_to(ROOT)}, which is not there")
        title = path.relative_to(ROOT).as_posix()
        sections, start = [f"# {title}\n\n{(ast.get_docstring(tree) or '').splitlines()[0]}\n"], 0
        for node in nodes:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            sections.append(_block(lines[start:first]))
            sections.append(f"## {node.name} {{ #{node.name} }}\n\n{_block(lines[first : node.end_lineno])}")
            start = node.end_lineno or first
        pages[f"{name}.md"] = "\n".join([*sections, _block(lines[start:])])
    return pages


def _block(lines: list[str]) -> str:
    text = "\n".join(lines).strip("\n")
    return f"````python\n{text}\n````\n" if text else ""


def write(folder: Path) -> None:
    """Write `floors.svg` and the pages of code into the folder of the architecture page."""
    (folder / "code").mkdir(parents=True, exist_ok=True)
    (folder / "floors.svg").write_text(svg(), encoding="utf-8")
    pages = code_pages(PAGE.read_text(encoding="utf-8"))
    for path in (folder / "code").glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (folder / "code" / name).write_text(text, encoding="utf-8")
