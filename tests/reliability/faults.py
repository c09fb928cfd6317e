"""Faults on purpose: processes that are killed, or whose disk fails, at a chosen write; and runs compared with others.

Each case runs in a process forked from one that has imported everything, so that it takes about a second.
"""

from __future__ import annotations

import argparse
import builtins
import hashlib
import importlib
import io
import json
import os
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gankit
from gankit import cli
from gankit import recipes as computed
from gankit.experiments.recipe_files import fixed_recipe_names
from gankit.training import trainer

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
PLUGINS = ("gankit-adaptive-augment", "gankit-dicom", "gankit-fastgan", "gankit-stylegan2")
OF_PLUGINS = {"r3gan-ada": PLUGINS[0], "fastgan": PLUGINS[2], "stylegan2": PLUGINS[3]}  # their recipes
SIZES = {"width": 4, "widths": "[4,4,4]", "max_width": 4, "latent_dim": 8, "style_dim": 8, "group_width": 2}
TIMES = ("seconds", "images_per_second")
DEADLINE = 300.0  # Seconds of one process


@dataclass
class Fault:
    """What happens at the write, sync, rename, new folder or deletion number `at` below `folder`."""

    folder: Path
    at: int
    error: int | None = None  # the number of the error; None kills the process
    for_good: bool = False  # whether later ones fail too
    half: bool = False  # whether half of a write is done first
    events: int = 0

    def __call__(self, path: object, halve: Callable[[], object] = lambda: None, named: bool = True) -> None:
        text = os.path.abspath(os.fsdecode(path)) if isinstance(path, (str, bytes, os.PathLike)) else ""
        if not text.startswith(str(self.folder)):
            return
        self.events += 1
        if self.events == self.at or (self.for_good and self.events > self.at > 0):
            if self.half:
                halve()
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            # As from the system: of a file that is open already, the error names nothing.
            raise OSError(self.error, os.strerror(self.error), *([text] if named else []))


@dataclass
class States(Fault):
    """Keeps what a kill before each change of `folder` would leave there, each different state once.

    Writes are done in two halves, so that a kill between them is among the states.
    """

    kept: Path = Path()  # for a folder of each state, named by the number of the change
    last: str = ""  # digest of the newest state

    def __call__(self, path: object, halve: Callable[[], object] = lambda: None, named: bool = True) -> None:
        before = self.events
        super().__call__(path, halve, named)
        if self.events > before and (state := digest(self.folder)) != self.last:
            self.last = state
            if self.folder.exists():
                shutil.copytree(self.folder, self.kept / f"{self.events}", symlinks=True)


def digest(folder: Path) -> str:
    """The SHA-256 of the names and contents of all that is in a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found.update(f"{path.relative_to(folder)} {path.is_file()} {len(content)} ".encode() + content)
    return found.hexdigest()


@contextmanager
def injected(fault: Fault) -> Iterator[None]:
    """Let the fault see every change of a file system that Python code asks for."""
    real = {name: getattr(os, name) for name in ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir")}
    real_open, names = builtins.open, dict[int, str]()

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:  # type: ignore[override]
            half = memoryview(data).cast("B")[: len(data) // 2]
            fault(self.name, lambda: io.FileIO.write(self, half), named=False)
            if not isinstance(fault, States):
                return io.FileIO.write(self, data)
            io.FileIO.write(self, half)
            fault(self.name)
            return len(half) + io.FileIO.write(self, memoryview(data).cast("B")[len(half) :])

    def opened(file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
               newline: Any = None, closefd: bool = True, opener: Any = None) -> Any:  # fmt: skip
        if isinstance(file, int) or not set("wax+") & set(mode):
            return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        fault(file)
        raw = Raw(os.fspath(file), mode.replace("b", "").replace("t", ""))
        names[raw.fileno()] = os.fspath(file)
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def changed(name: str) -> Callable[..., Any]:
        def change(first: Any, *more: Any, **options: Any) -> Any:
            fault(names.get(first, "") if name == "fsync" else first, named=name != "fsync")
            return real[name](first, *more, **options)

        return change

    try:
        builtins.open = io.open = opened  # type: ignore[assignment]
        for name in real:
            setattr(os, name, changed(name))
        yield
    finally:
        builtins.open = io.open = real_open
        for name, function in real.items():
            setattr(os, name, function)


@dataclass
class Ended:
    """How a process ended."""

    code: int  # its exit code; minus the signal that killed it
    said: str  # on both streams
    events: int  # that its fault saw, where it lived to tell
    seconds: float


def gankit_process(words: list[str], place: Path, fault: Fault | None = None, send: tuple[int, float] | None = None,
                   processes: int = 1) -> Ended:  # fmt: skip
    """Run a command of gankit in a forked process, or in several that train together.

    Args:
        words: of the command.
        place: for what it says.
        fault: of the first process.
        send: a signal, and after how many seconds all processes get it.
        processes: how many.
    """
    start, port = time.monotonic(), 20000 + random.randrange(20000)
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            _child(words, place, fault if rank == 0 else None, rank, processes, port)
        children.append(child)
    if send is not None:
        time.sleep(send[1])
        for child in children:
            os.kill(child, send[0])
    codes: dict[int, int] = {}
    while len(codes) < processes:
        for child in set(children) - set(codes):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                codes[child] = os.waitstatus_to_exitcode(status)
                if codes[child] < 0 or time.monotonic() - start > DEADLINE:  # as torchrun does
                    for other in set(children) - set(codes):
                        os.kill(other, signal.SIGKILL)
        if time.monotonic() - start > DEADLINE:
            for other in set(children) - set(codes):
                os.kill(other, signal.SIGKILL)
        time.sleep(0.01)
    counted = place / "events"
    events = int(counted.read_text()) if counted.exists() else 0
    counted.unlink(missing_ok=True)
    said = (place / "said").read_text(errors="replace")
    return Ended(codes[children[0]], said, events, time.monotonic() - start)


def _child(words: list[str], place: Path, fault: Fault | None, rank: int, processes: int, port: int) -> None:
    code = 1
    try:
        target = os.open(place / ("said" if rank == 0 else "said-others"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if processes > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                           "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
        sys.argv = ["gankit", *words]
        if fault is not None:  # The rehearsal takes half of the time of a small run, and writes nothing.
            trainer.rehearse = lambda *_: []  # type: ignore[assignment]
        with injected(fault or Fault(place, 0)):
            try:
                cli.main()
                code = 0
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if fault is not None:
            (place / "events").write_text(str(fault.events))
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def differences(one: Path, other: Path) -> list[str]:
    """What two finished runs of the same experiment do not have in common, but for times."""
    files = [{str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} for run in (one, other)]
    found = [f"{name} is in one alone" for name in sorted(files[0] ^ files[1])]
    for name in sorted(files[0] & files[1]):
        a, b = ((run / name).read_bytes() for run in (one, other))
        if name == "log.jsonl":
            a, b = (repr(_rows(content)).encode() for content in (a, b))
        if a != b and not (name.endswith(".pt") and _equal(*(torch.load(run / name) for run in (one, other)))):
            found.append(f"{name} differs")
    return found


def _equal(a: Any, b: Any) -> bool:
    """Whether two checkpoints hold the same, bit by bit; what their tensors share on the disk may differ."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)


def _rows(content: bytes) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in content.decode().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def small(recipe: str, place: Path) -> list[str]:
    """The words of a training of a second, whose images stand in `place`; of a recipe, or of the file of a plug-in."""
    plugin = recipe if recipe in PLUGINS else OF_PLUGINS.get(recipe)
    example = register(plugin) if plugin else recipe
    source = recipe if recipe in OF_PLUGINS else example
    images = place / ("scans" if recipe == "gankit-dicom" else "images.npz")
    if not images.exists():
        draw_images(images)
    tables = gankit.load(source).tables()
    large = recipe == "gankit-fastgan" or recipe in computed.names()  # which make no images of 16 pixels
    sizes = [f"{table}.{name}={size}" for table in ("generator", "critic") for name, size in SIZES.items()
             if tables[table].get(name)]  # fmt: skip
    sizes += [f"{table}.widths={[4] * len(tables[table]['widths'])}" for table in ("generator", "critic")
              if recipe in computed.names() and "widths" in tables[table]]  # fmt: skip
    data = [f"data.size={32 if large else 16}", f"data.path={images}"]
    if recipe != "gankit-dicom":  # another data set than the file's loses its settings
        kept = [f"data.{name}={json.dumps(tables['data'][name])}" for name in ("conditional", "held_out", "balance")
                if tables["data"].get(name)]  # fmt: skip
        data += ["data.name=npz", *kept]
    return [
        source, *data, *sizes, "training.steps=6", "training.batch=4",
        "training.generator_batch=4", "training.critic_steps=1", "training.tick_every=3", "training.sample_every=3",
        "training.checkpoint_every=2", "training.threads=1", "training.device=cpu", "evaluation.features=pixels",
        'evaluation.metrics=["frechet"]', "evaluation.every=1", "evaluation.subset=none",
    ]  # fmt: skip


@cache
def register(plugin: str) -> str:
    """Let this process have the parts of a plug-in; its experiment file."""
    folder = ROOT / "plugins" / plugin
    sys.path.insert(0, str(folder))
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for group, parts in project["entry-points"].items():
        for name, place in parts.items():
            module, _, attribute = place.partition(":")
            registry = getattr(gankit, group.removeprefix("gankit."))
            registry.register(name)(getattr(importlib.import_module(module), attribute))
    return str(next(path for path in folder.glob("*.toml") if path.name != "pyproject.toml"))


def draw_images(place: Path) -> None:
    """Write 24 pictures of noise as an npz file, or as DICOM files of six patients."""
    draw = np.random.default_rng(0)
    if place.suffix == ".npz":
        pixels = draw.integers(0, 256, (24, 3, 16, 16), dtype=np.uint8)
        np.savez(place, images=pixels, labels=np.arange(24) % 2)
        return
    from pydicom import data, dcmread, uid

    slice_ = dcmread(data.get_testdata_file("CT_small.dcm", download=False))
    place.mkdir()
    for number in range(24):
        slice_.PatientID, slice_.StudyInstanceUID = (
            f"patient {number % 6}",
            uid.generate_uid(entropy_srcs=[str(number)]),
        )
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = slice_.StudyInstanceUID
        slice_.save_as(place / f"{number}.dcm")


def recipes() -> list[str]:
    """All recipes but those that differ from another in sizes alone, and the examples and recipes of plug-ins."""
    fixed = (name for name in fixed_recipe_names() if name not in ("demo", "wgan-gp-64"))
    return [*fixed, *computed.names(), *PLUGINS, *OF_PLUGINS]


class Tally:
    """Counts of cases as a JSON file, which tells what is done already. Cases are called "KIND at WHICH"."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.content: dict[str, Any] = {"seed": seed, "counts": {}, "finished": [], "done": {}, "failed": {}}
        if path.exists():
            before = json.loads(path.read_text())
            if before["seed"] == seed:
                self.content = before

    def is_done(self, case: str) -> bool:
        return (
            case in self.content["done"] or case in self.content["failed"]
            or case.split(" at ")[0] in self.content["finished"]
        )  # fmt: skip

    def add(self, case: str, wrong: list[str], outcome: str = "same") -> None:
        if wrong:
            self.content["failed"][case] = wrong
        else:
            self.content["done"][case] = outcome
            key = f"{case.split(' at ')[0]}: {outcome}"
            self.content["counts"][key] = self.content["counts"].get(key, 0) + 1
        self._write()
        print(f"{case}: {'; '.join(wrong) or outcome}", flush=True)

    def finish(self, kind: str) -> None:
        """Keep of the cases of a kind that are done how many there are alone."""
        self.content["finished"].append(kind)
        done = self.content["done"]
        self.content["done"] = {case: how for case, how in done.items() if not case.startswith(f"{kind} at ")}
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipes", default=",".join(recipes()))
    parser.add_argument("--count", type=int, help="cases of a kind; all by default")
    parser.add_argument("--kinds", help="kinds of cases, separated by commas; all by default")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for runs, with a cache of its own; what a training imports is imported before the first fork."""
    torch.set_num_threads(1)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports torch._dynamo
    for module in pkgutil.walk_packages(gankit.__path__, "gankit."):
        if not module.name.startswith(("gankit.testing", "gankit.__main__")):
            importlib.import_module(module.name)
    os.environ.pop("GANKIT_CACHE_GB", None)
    place = Path(tempfile.mkdtemp(prefix="gankit-faults-"))
    os.environ["GANKIT_CACHE"] = str(place / "cache")
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def whole_run(words: list[str], place: Path, processes: int = 1) -> tuple[Path, Ended]:
    """A run that nothing stops, and how its process ended."""
    out = place / "whole"
    shutil.rmtree(out, ignore_errors=True)
    ended = gankit_process(["train", *words, "--out", str(out)], place, Fault(out, 0), processes=processes)
    if ended.code:
        raise RuntimeError(ended.said)
    return out, ended


def resume(words: list[str], out: Path, place: Path, processes: int = 1, fault: Fault | None = None) -> Ended:
    """Train or resume the run in a folder to its end."""
    begun = (out / "experiment.toml").is_file()
    command = ["resume", str(out)] if begun else ["train", *words, "--out", str(out)]
    return gankit_process(command, place, fault, processes=processes)


def go_on(words: list[str], out: Path, place: Path, processes: int = 1) -> list[str]:
    """As `resume`; what was wrong."""
    ended = resume(words, out, place, processes)
    return [f"it went on, and ended with {ended.code}: {ended.said[-300:]}"] if ended.code else []
