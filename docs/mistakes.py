"""The page of errors: every mistake in `mistakes.toml` is really made, and what gankit says is written down."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import shlex
import shutil
import sys
import tempfile
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generate import code, described, prose, table
from PIL import Image
from typer.main import get_command

import gankit
import gankit.interfaces
import gankit.ranking
from gankit import errors
from gankit.cli import app
from gankit.testing import isolated_registry

HERE = Path(__file__).parent
PACKAGE = Path(gankit.__file__).parent
COMMAND = get_command(app)
SMALL = """\
[data]
name = "npz"
path = "arrays.npz"

[generator]
name = "resnet"
latent_dim = 4
width = 4

[critic]
name = "resnet"
width = 4

[training]
steps = 2
batch = 4
critic_steps = 1

[evaluation]
features = "pixels"
metrics = ["frechet"]
"""


@dataclass(frozen=True)
class Site:
    """A place of the code that raises an error for a user: where, which class, and what it says."""

    file: str
    first: int
    last: int
    error: str
    text: str


@dataclass
class Outcome:
    """What a mistake gave: the error's class and text, and the places that took part in it."""

    error: str
    message: str
    places: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Mistake:
    """A mistake as it stands in `mistakes.toml`: a chapter, what stands before it, and what is done."""

    chapter: str
    before: str
    do: str


def mistakes() -> list[Mistake]:
    """Every mistake of the file, in order."""
    found = []
    for chapter, content in chapters().items():
        for each in content["mistakes"]:
            if "command" in content:
                found.append(Mistake(chapter, each, content["command"]))
            elif isinstance(each, str):
                found.append(Mistake(chapter, "", each))
            else:
                found.append(Mistake(chapter, each["before"], each["do"]))
    return found


def chapters() -> dict[str, Any]:
    """The chapters of the file by name."""
    return tomllib.loads((HERE / "mistakes.toml").read_text(encoding="utf-8"))


def sites() -> list[Site]:
    """Every place in the package that raises a `GankitError` or a child of it."""
    names = {name for name, value in vars(errors).items() if isinstance(value, type)}
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if "testing" in path.parts:
            continue  # what a suite says of a part is no error of a user's
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Raise):
                continue
            call = node.exc
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in names:
                text = _template(call.args[0])
                found.append(
                    Site(path.relative_to(PACKAGE).as_posix(), node.lineno, node.end_lineno or 0, call.func.id, text)
                )
    return found


def _template(argument: ast.expr) -> str:
    """The text of a message, with what is filled in as {name}."""
    if isinstance(argument, ast.JoinedStr):
        pieces = [
            str(piece.value) if isinstance(piece, ast.Constant) else f"{{{ast.unparse(piece.value)}}}"  # type: ignore[attr-defined]
            for piece in argument.values
        ]
        return "".join(pieces)
    return str(argument.value) if isinstance(argument, ast.Constant) else f"{{{ast.unparse(argument)}}}"


def picture(name: str, mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> None:
    """Write a picture of noise, and the folder that it lies in."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(len(name))
    shape = (size[1], size[0], len(mode)) if mode in ("RGB", "RGBA") else (size[1], size[0])
    kind: Any = {"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8)
    Image.fromarray(draw.integers(0, 255, shape).astype(kind)).save(path)


def install(distribution: str, critic: str, code: str = "") -> None:
    """Put a distribution that registers a critic on Python's path."""
    module = distribution.replace("-", "_")
    folder = Path("site") / module
    information = folder / f"{module}-1.0.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[gankit.critics]\n{critic}\n")
    (folder / f"{module}.py").write_text(code)
    sys.path.insert(0, str(folder.absolute()))


def _save(**arrays: Any) -> None:
    np.savez("new.npz", **arrays)


def _table(*lines: str) -> None:
    Path("labelled/labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _namespace() -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 255, (8, 3, 16, 16), dtype=np.uint8)
    return {
        "gankit": gankit, "np": np, "torch": torch, "os": os, "shutil": shutil, "Path": Path, "picture": picture,
        "install": install, "save": _save, "table": _table, "images": images,
    }  # fmt: skip


@contextlib.contextmanager
def stage() -> Iterator[None]:
    """A temporary folder, current meanwhile, with the files that the mistakes are made with."""
    here, cache = Path.cwd(), os.environ.get("GANKIT_CACHE")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        os.environ["GANKIT_CACHE"] = f"{folder}/cache"
        warnings.simplefilter("ignore")  # torch deprecates TorchScript, by which some examples make a network
        os.chdir(folder)
        try:
            draw = np.random.default_rng(0)
            arrays: dict[str, Any] = {
                "images": draw.integers(0, 255, (24, 16, 16, 3), dtype=np.uint8),
                "severity": draw.normal(size=24),
            }
            np.savez("plain.npz", images=arrays["images"])
            np.savez("arrays.npz", labels=np.arange(24) % 2, **arrays)
            gaps = np.where(np.arange(24) == 3, np.nan, arrays["severity"])
            np.savez("gaps.npz", images=arrays["images"], severity=gaps)
            Path("small.toml").write_text(SMALL)
            for number in range(12):
                picture(f"pictures/{number}.png")
            picture("labelled/a.png")
            picture("labelled/b.png")
            with _silent():
                gankit.train(gankit.load("small.toml"), "runs/done")
                gankit.train(gankit.load("small.toml", "data.conditional=true"), "runs/classes")
            yield
        finally:
            os.chdir(here)
            os.environ.pop("GANKIT_CACHE")
            if cache is not None:
                os.environ["GANKIT_CACHE"] = cache


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _recorded(places: list[tuple[str, int]]) -> Iterator[None]:
    """Note where errors are made, those included that others replace."""
    before = errors.GankitError.__init__

    def noted(self: errors.GankitError, *arguments: object) -> None:
        frame = sys._getframe(1)
        path = Path(frame.f_code.co_filename)
        if PACKAGE in path.parents:
            places.append((path.relative_to(PACKAGE).as_posix(), frame.f_lineno))
        before(self, *arguments)

    errors.GankitError.__init__ = noted  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        errors.GankitError.__init__ = before  # type: ignore[method-assign]


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Parts, environment and path as they were before."""
    environment, path, modules = dict(os.environ), list(sys.path), set(sys.modules)
    try:
        with isolated_registry():
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if name in ("broken_nets", "nets_a", "nets_b"):
                del sys.modules[name]
        shutil.rmtree("site", ignore_errors=True)


def made(mistake: Mistake) -> Outcome:
    """Make a mistake, on the stage, and give what it led to.

    Raises:
        AssertionError: it led to nothing, or to something else than a `GankitError`.
    """
    places: list[tuple[str, int]] = []
    space = _namespace()
    with _restored(), _silent(), _recorded(places):
        exec(mistake.before, space)
        places.clear()
        try:
            if mistake.do.startswith("gankit "):
                COMMAND(shlex.split(mistake.do)[1:], standalone_mode=False)
            else:
                exec(mistake.do, space)
        except errors.GankitError as error:
            message = str(error).replace(f"{Path.cwd()}/", "").replace(str(Path.cwd()), "the current folder")
            return Outcome(type(error).__name__, message, places)
        except Exception as error:
            raise AssertionError(f"{mistake.do}: {type(error).__name__}: {error}") from error
    raise AssertionError(f"{mistake.before} {mistake.do}: nothing is wrong with it")


def page() -> str:
    """The page: the classes, then the mistakes by chapter, then the messages that have no example."""
    classes = [
        [code(name), prose(described(value.__doc__)[0])]
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.GankitError)
    ]
    text = (
        "# Errors\n\nA mistake of a user's, or a state that a user can fix, is an error of these classes from "
        "`gankit.errors`. In the terminal it is one line after `gankit:` and the exit code 2; a program catches "
        f"`gankit.GankitError`, which all of them are.\n\n{table(['class', 'what it stands for'], classes)}\n"
        "What follows is what gankit says when the mistake beside it is made: this page makes every one of them anew "
        "when it is built. Most are made with [these files](#files).\n"
    )
    reached: set[tuple[str, int]] = set()
    with stage():
        for chapter, content in chapters().items():
            entries = []
            for mistake in (each for each in mistakes() if each.chapter == chapter):
                outcome = made(mistake)
                reached |= {*outcome.places}
                shown = [mistake.before] if "command" in content else [mistake.before, mistake.do]
                lines = [line for each in shown for line in each.strip().splitlines()]
                done = "<br>".join(_indented(line) for line in lines)
                message = "<br>".join(prose(line) for line in outcome.message.splitlines())
                entries.append(f"{done}\n\n:   {code(outcome.error)}: {message}\n")
            text += f"\n## {chapter}\n\n{content['about']}\n\n"
            text += f"The command is `{content['command']}`.\n\n" if "command" in content else ""
            text += "\n".join(entries)
    rest = [site for site in sites() if not _is_reached(site, reached)]
    text += (
        "\n## Messages without an example\n\nFor these a broken file, a broken installation, or a call from a part of "
        "one's own is needed. What stands in braces is filled in.\n\n"
    )
    for site in rest:
        text += f"- {code(site.error)}: {code(site.text) if '{' in site.text else prose(site.text)}\n"
    return f"{text}\n## The files of the examples {{ #files }}\n\n{FILES}"


FILES = f"""\
`small.toml` is

```toml
{SMALL}```

`arrays.npz` holds 24 colour images of 16 x 16 in two classes, with a `severity` each; `plain.npz` the images alone,
and `gaps.npz` a `severity` that is missing once. `images` are eight pictures of 16 x 16, `pictures` is a folder of
twelve. `picture(name)` writes a picture, `install(name, critic=...)` a distribution with that entry point, for which
`code` is the module.
"""


def _indented(line: str) -> str:
    """A line of code as a span that keeps its indent."""
    bare = line.lstrip()
    return "&nbsp;" * (len(line) - len(bare)) + code(bare)


def _is_reached(site: Site, reached: set[tuple[str, int]]) -> bool:
    return any(file == site.file and site.first <= line <= site.last for file, line in reached)
