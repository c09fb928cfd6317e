"""Files that are damaged are noticed, and forged ones harm nothing: checkpoints, exported generators, the cache.

A few bytes are changed, the end is cut off, or a piece is zeroed or taken out. A resume says that the newest checkpoint
is damaged, goes on from the one before, and ends as a run that was never stopped; an export is refused; an entry of
the cache is made again ("noticed").

Forged files have the digest that they need: keys, shapes, types and values are changed, or a pickle holds a program.
What comes of it is used ("read") or refused in one line ("refused"), without a traceback, and nothing is run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments import MEGABYTES, SECONDS, STRANGE, tables_in
from faults import arguments, differences, gankit_process, small, whole_run, workplace
from safetensors.torch import load_file, save

import gankit
from gankit import cache
from gankit.errors import GankitError, RunError
from gankit.files import seal
from gankit.runs import checkpoint
from gankit.training.data import prepare
from gankit.training.log import TickLog
from gankit.training.step import Stepper

COUNT = {"resume": 40, "checkpoint": 1000, "export": 1000, "cache": 1000, "forged checkpoint": 1000,
         "forged export": 1000}  # fmt: skip
CHANGES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda t: t.double(), lambda t: t.to(torch.complex64), lambda t: t.flatten()[:1], lambda t: t.flatten()[:0],
    lambda t: t[None], lambda t: t.expand(3, *t.shape), lambda t: torch.full_like(t, 2), lambda t: t.to_sparse(),
    lambda t: t.float() * float("inf"), lambda t: t.bool(), lambda t: torch.empty(t.shape, device="meta"),
]  # fmt: skip
GOOD = ("noticed", "read", "refused")
RAN = "code-was-run"


class Program:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (RAN,)


def main() -> None:
    options = arguments(__doc__ or "")
    path = options.results.resolve() / "damaged.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"seed": options.seed}
    with workplace() as place, contextlib.chdir(place):
        words = small("wgan-gp", place)
        whole, _ = whole_run(words, place)
        for kind in (options.kinds or ",".join(COUNT)).split(","):
            entry = found.setdefault(kind, {"done": 0, "outcomes": {}, "to look at": {}})
            trial = TRIALS[kind](whole, place)
            while entry["done"] < (options.count or COUNT[kind]):
                number = entry["done"]
                ended = outcome(trial, random.Random(f"{options.seed} {kind} {number}"))
                entry["outcomes"] = dict(Counter(entry["outcomes"]) + Counter([ended if ended in GOOD else "wrong"]))
                if ended not in GOOD:
                    entry["to look at"][str(number)] = ended
                    print(kind, number, ended, flush=True)
                entry["done"] += 1
                if entry["done"] % 20 == 0 or entry["done"] == (options.count or COUNT[kind]):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(found, indent=1) + "\n")
            print(kind, entry["outcomes"], flush=True)
    raise SystemExit(any(found[kind]["to look at"] for kind in found if kind in COUNT))


def outcome(trial: Callable[[random.Random], str], draw: random.Random) -> str:
    """How one case ended: one of GOOD, or what was wrong."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        ended = trial(draw)
    except GankitError as error:
        ended = "refused" if "\n" not in str(error) and len(str(error)) < 2000 else f"said {error}"
    except Exception as error:
        ended = f"raised {type(error).__name__}: {error}"
    if Path(RAN).exists():
        return "ran a program"
    if time.process_time() - start > SECONDS:
        return "slow"
    return "memory" if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > MEGABYTES * 1024 else ended


def damage(path: Path, draw: random.Random) -> None:
    """Change a file in one way or another; never to what it was."""
    content = bytearray(path.read_bytes())
    before, start = bytes(content), draw.randrange(len(content))
    length = draw.choice([1, 1, 4, 64, 4096])
    match draw.choice(["flip", "change", "cut", "zero", "take out", "put in", "empty"]):
        case "flip":
            content[start] ^= 1 << draw.randrange(8)
        case "change":
            content[start : start + length] = draw.randbytes(len(content[start : start + length]))
        case "cut":
            del content[start:]
        case "zero":
            content[start : start + length] = bytes(len(content[start : start + length]))
        case "take out":
            del content[start : start + length]
        case "put in":
            content[start:start] = draw.randbytes(length)
        case "empty":
            content.clear()
    if content == before:
        content[start] ^= 1
    replace(path, bytes(content))


def replace(path: Path, content: bytes) -> None:
    path.unlink()  # others may have it mapped
    path.write_bytes(content)


def resume(whole: Path, place: Path) -> Callable[[random.Random], str]:
    """Resume a copy of a run whose newest checkpoint is damaged."""

    def trial(draw: random.Random) -> str:
        out = copied(whole, place)
        _, six = sorted((out / "checkpoints").glob("step-*.pt"))
        damage(six, draw)
        ended = gankit_process(["resume", str(out)], place)
        if ended.code or six.name not in ended.said or "going on from step 4" not in ended.said:
            return f"ended with {ended.code}: {ended.said[-300:]}"
        return "; ".join(differences(whole, out)) or "noticed"

    return trial


def read_checkpoint(whole: Path, place: Path) -> Callable[[random.Random], str]:
    """Read a checkpoint that is damaged, beside one that is not."""

    def trial(draw: random.Random) -> str:
        out = copied(whole, place)
        damage(out / "checkpoints" / "step-00000006.pt", draw)
        restored = checkpoint.restore(out / "checkpoints")
        return "noticed" if restored is not None and restored.step == 4 and restored.skipped else "it was taken"

    return trial


def read_export(whole: Path, place: Path) -> Callable[[random.Random], str]:
    """Read an exported generator that is damaged."""

    def trial(draw: random.Random) -> str:
        path = copied(whole, place) / "generator.safetensors"
        damage(path, draw)
        try:
            checkpoint.read_export(path)
        except RunError as error:
            return "noticed" if "\n" not in str(error) else f"said {error}"
        return "it was taken"

    return trial


def read_cache(whole: Path, place: Path) -> Callable[[random.Random], str]:
    """Ask for an array whose entry in the cache is damaged."""
    array = np.random.default_rng(0).integers(0, 256, (24, 3, 16, 16), dtype=np.uint8)

    def trial(draw: random.Random) -> str:
        folder: cache.Folder = draw.choice(["arrays", "features"])  # type: ignore[assignment]
        cache.stored("entry", lambda: array, folder)
        damage(place / "cache" / folder / "entry.npy", draw)
        found = [np.array_equal(cache.stored("entry", lambda: array, folder), array) for _ in range(2)]
        return "noticed" if all(found) else "it was taken"

    return trial


def forge(content: Any, draw: random.Random) -> None:
    """Change keys, values, and the shapes and types of tensors, in place."""
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        if not (places := tables_in(content)):
            return
        container, key = draw.choice(places)
        value = container[key]
        match draw.choice(["set", "remove", "rename", "tensor", "tensor"]):
            case "set":
                container[key] = draw.choice([*STRANGE, torch.zeros(2), torch.tensor(float("nan"))])
            case "remove":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[draw.choice(["x", 5, f"{key}.x", "weight"])] = container.pop(key)
            case "tensor" if isinstance(value, torch.Tensor):
                container[key] = draw.choice(CHANGES)(value)


def forged_checkpoint(whole: Path, place: Path) -> Callable[[random.Random], str]:
    """Take up a checkpoint that was changed and sealed again, and do a step; as a resume does."""
    experiment = gankit.load(whole / "experiment.toml")
    stepper = Stepper(experiment, prepare(experiment.data, 0), TickLog(Path(), tensorboard=False))
    newest = whole / "checkpoints" / "step-00000006.pt"

    def trial(draw: random.Random) -> str:
        folder = place / "forged"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        content = torch.load(newest, weights_only=True)
        forge(content if draw.random() < 0.2 else content.get("state"), draw)
        if draw.random() < 0.05:
            content["state"] = Program()
        file = io.BytesIO()
        torch.save(content, file)
        seal(file)
        (folder / "step-00000006.pt").write_bytes(file.getvalue())
        try:
            restored = checkpoint.restore(folder, load=lambda state: stepper.load_state_dict(state, whole))
            assert restored is not None
            stepper.go_to(restored.step)
            stepper.advance()
            stepper.log.means()
        finally:
            stepper.load_state_dict(torch.load(newest, weights_only=True)["state"], whole)
        return "read"

    return trial


def forged_export(whole: Path, place: Path) -> Callable[[random.Random], str]:
    """Sample from an exported generator that was changed and has the digest that it needs."""

    def trial(draw: random.Random) -> str:
        out = copied(whole, place)
        best = draw.random() < 0.5
        path = out / ("generator-best.safetensors" if best else "generator.safetensors")
        tensors: dict[str, Any] = dict(load_file(path))
        config = checkpoint.read_export(path)[1]
        forge(draw.choice([tensors, config]), draw)
        tensors = {
            str(name): value.to_dense().contiguous().clone()
            for name, value in tensors.items() if isinstance(value, torch.Tensor) and not value.is_meta
        }  # fmt: skip
        try:
            text = json.dumps({**config, "digest": checkpoint._digest(tensors, config)}, sort_keys=True)
            content = save(tensors, {"gankit": text})
        except (TypeError, ValueError, RuntimeError):  # what no such file can hold
            return "refused"
        replace(path, content)
        run = gankit.open_run(out, best=best)
        run.sample(2)
        assert run.best is not None
        return "read"

    return trial


def copied(whole: Path, place: Path) -> Path:
    out = place / "copy"
    shutil.rmtree(out, ignore_errors=True)
    return Path(shutil.copytree(whole, out))


TRIALS = {"resume": resume, "checkpoint": read_checkpoint, "export": read_export, "cache": read_cache,
          "forged checkpoint": forged_checkpoint, "forged export": forged_export}  # fmt: skip

if __name__ == "__main__":
    main()
