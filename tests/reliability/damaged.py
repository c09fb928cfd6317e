"""Files that are damaged are noticed: checkpoints, exported generators, and entries of the cache.

A few bytes are changed, the end is cut off, or a piece is zeroed or taken out. A resume says that the newest checkpoint
is damaged, goes on from the one before, and ends as a run that was never stopped; an export is refused; an entry of
the cache is made again.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
from faults import Tally, arguments, differences, gankit_process, small, whole_run, workplace

from gankit import cache
from gankit.errors import RunError
from gankit.runs import checkpoint

COUNT = {"resume": 40, "checkpoint": 600, "export": 600, "cache": 600}


def main() -> None:
    options = arguments(__doc__ or "")
    tally = Tally(options.results / "damaged.json", options.seed)
    with workplace() as place:
        words = small("wgan-gp", place)
        whole, _ = whole_run(words, place)
        for kind in (options.kinds or ",".join(COUNT)).split(","):
            for number in range(options.count or COUNT[kind]):
                draw = random.Random(f"{options.seed} {kind} {number}")
                name = f"{kind} at {number}"
                if not tally.is_done(name):
                    tally.add(name, TRIALS[kind](whole, place, draw), "noticed")
    raise SystemExit(bool(tally.content["failed"]))


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
    path.unlink()  # others may have it mapped
    path.write_bytes(content)


def resume(whole: Path, place: Path, draw: random.Random) -> list[str]:
    """Resume a copy of a run whose newest checkpoint is damaged."""
    out = copied(whole, place)
    four, six = sorted((out / "checkpoints").glob("step-*.pt"))
    damage(six, draw)
    ended = gankit_process(["resume", str(out)], place)
    if ended.code or six.name not in ended.said or "going on from step 4" not in ended.said:
        return [f"ended with {ended.code}: {ended.said[-300:]}"]
    return [] if four.exists() and not (found := differences(whole, out)) else found


def read_checkpoint(whole: Path, place: Path, draw: random.Random) -> list[str]:
    """Read a checkpoint that is damaged, beside one that is not."""
    out = copied(whole, place)
    damage(out / "checkpoints" / "step-00000006.pt", draw)
    restored = checkpoint.restore(out / "checkpoints")
    return [] if restored is not None and restored.step == 4 and restored.skipped else ["the damaged one was taken"]


def read_export(whole: Path, place: Path, draw: random.Random) -> list[str]:
    """Read an exported generator that is damaged."""
    path = copied(whole, place) / "generator.safetensors"
    damage(path, draw)
    try:
        checkpoint.read_export(path)
    except RunError:
        return []
    return ["the damaged file was read"]


def read_cache(whole: Path, place: Path, draw: random.Random) -> list[str]:
    """Ask for an array whose entry in the cache is damaged."""
    array = np.random.default_rng(0).integers(0, 256, (24, 3, 16, 16), dtype=np.uint8)
    folder: cache.Folder = draw.choice(["arrays", "features"])  # type: ignore[assignment]
    cache.stored("entry", lambda: array, folder)
    damage(place / "cache" / folder / "entry.npy", draw)
    found = [np.array_equal(cache.stored("entry", lambda: array, folder), array) for _ in range(2)]
    return [] if all(found) else ["the damaged entry was taken"]


def copied(whole: Path, place: Path) -> Path:
    out = place / "copy"
    shutil.rmtree(out, ignore_errors=True)
    return Path(shutil.copytree(whole, out))


TRIALS = {"resume": resume, "checkpoint": read_checkpoint, "export": read_export, "cache": read_cache}

if __name__ == "__main__":
    main()
