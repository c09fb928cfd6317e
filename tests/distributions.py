"""Small distributions that are really built and installed, into an environment of their own."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import processes

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OFFLINE = ["--no-index", "--no-deps"]

PLAIN_CRITIC = """
import torch
from gankit.interfaces import Critic

class Plain(Critic):
    def __init__(self, image, *, width: int = 4):
        super().__init__()
        self.layer = torch.nn.Linear(image.channels * image.height * image.width, width)

    def forward(self, images, labels=None):
        return self.layer(images.flatten(1)).mean(1)
"""

# Runs commands of one process one after another, the JSON of which is its argument.
SEVERAL = """
import contextlib, io, json, os, sys
from gankit.cli import main

answers = []
for arguments, environment in json.loads(sys.argv[1]):
    sys.argv = ["gankit", *arguments]
    os.environ.update(environment)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    for name in environment:
        del os.environ[name]
    answers.append([code, out.getvalue(), err.getvalue()])
json.dump(answers, sys.stdout)
"""


@dataclass(frozen=True)
class Project:
    """The source of a distribution: one module of the distribution's name, and the parts that it registers.

    Attributes:
        name: as its author spells it.
        parts: the target of each part, as "critics.plain".
        code: the module's text.
    """

    name: str
    parts: Mapping[str, str]
    code: str
    version: str = "1.0"

    @property
    def module(self) -> str:
        return self.name.lower().replace("-", "_")

    def write(self, folder: Path) -> Path:
        """Lay out pyproject.toml and the module in a new folder of this name."""
        lines = ["[build-system]", 'requires = ["hatchling"]', 'build-backend = "hatchling.build"', "", "[project]"]
        lines += [f'name = "{self.name}"', f'version = "{self.version}"', 'dependencies = ["gankit"]']
        for part, target in self.parts.items():
            kind, name = part.split(".")
            lines += [f'[project.entry-points."gankit.{kind}"]'] if f'"gankit.{kind}"]' not in "".join(lines) else []
            lines += [f'{name} = "{self.module}:{target}"']
        place = folder / self.name
        place.mkdir(parents=True)
        (place / "pyproject.toml").write_text("\n".join(lines) + "\n")
        (place / f"{self.module}.py").write_text(self.code)
        return place


def wheels(projects: Iterable[Path], folder: Path) -> list[Path]:
    """Build projects by their own build systems; the wheels in the order of their names."""
    folder.mkdir(exist_ok=True)
    for project in projects:
        backend = tomllib.loads((project / "pyproject.toml").read_text())["build-system"]["build-backend"]
        with contextlib.chdir(project):
            importlib.import_module(backend).build_wheel(str(folder))  # as pip does, in a process of its own
    return sorted(folder.glob("*.whl"))


def run(command: Sequence[object], **options: Any) -> str:
    """The output of a command that must succeed."""
    done: subprocess.CompletedProcess[str]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Answer:
    """What a command printed and its exit code."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> dict[str, str]:
        """The lines of `gankit list` by their first word."""
        return {line.split()[0]: line for line in self.out.splitlines()}

    @property
    def line(self) -> str:
        """The one line of a refusal."""
        assert self.code == 2, self
        assert len(self.err.splitlines()) == 1, self
        return self.err.removeprefix("gankit: ").rstrip()


@dataclass(frozen=True)
class Environment:
    """A Python environment that also sees what is installed beside this interpreter, gankit included.

    Attributes:
        folder: where it is made.
        variables: environment variables of every command.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        venv.create(self.folder, with_pip=False, symlinks=True)
        seen = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
        lines = [f"import site; site.addsitedir({place!r})\n" for place in seen]
        (self.site / "beside.pth").write_text("".join(lines))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GANKIT_DIS", "PYTHON"))}
        self.variables.update({**kept, "OMP_NUM_THREADS": "1"})

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    def install(self, *what: object) -> None:
        run([*PIP, "install", *OFFLINE, "--ignore-installed", "--prefix", self.folder, *what])

    def install_editable(self, project: Path) -> None:
        self.install("--no-build-isolation", "--editable", project)

    def uninstall(self, *names: str) -> None:
        run([*PIP, "--python", self.interpreter, "uninstall", "--yes", *names])

    def register(self, distribution: str, entries: bytes) -> bytes:
        """Overwrite an installed distribution's entry_points.txt, with what no build tool would write; what it was."""
        (info,) = self.site.glob(f"{distribution}-*.dist-info")
        before = (info / "entry_points.txt").read_bytes()
        (info / "entry_points.txt").write_bytes(entries)
        return before

    def python(self, code: str, *arguments: object, folder: Path | None = None, **variables: str) -> Answer:
        """Code with arguments in sys.argv in a process of its own, in a folder, by default the environment's.

        It is forked, with the environment's packages beside those here, unless Python itself must read the variables.
        """
        words, environment = [str(word) for word in arguments], {**self.variables, **variables}
        if any(name.startswith(("PYTHON", "LC_")) for name in variables):
            done: Any = subprocess.run(
                [self.interpreter, "-P", "-c", code, *words], env=environment, cwd=folder or self.folder,
                capture_output=True, text=True, encoding="utf-8",
            )  # fmt: skip
        else:
            done = processes.run(*words, code=code, site=self.site, folder=folder or self.folder, variables=environment)
        return Answer(done.returncode, done.stdout, done.stderr)

    def gankit(self, *arguments: object, **variables: str) -> Answer:
        """`gankit ...` in a process of its own."""
        return self.python(processes.GANKIT, *arguments, **variables)

    def several(self, *commands: Sequence[object], **variables: str) -> list[Answer]:
        """Several `gankit ...` in one process, which must survive; a mapping at a command's end is its variables."""
        words = [(list(command[:-1]), command[-1]) if isinstance(command[-1], dict) else (list(command), {})
                 for command in commands]  # fmt: skip
        text = json.dumps([[[str(word) for word in arguments], variables_] for arguments, variables_ in words])
        told = self.python(SEVERAL, text, **variables)
        assert told.code == 0, told
        return [Answer(*answer) for answer in json.loads(told.out)]
