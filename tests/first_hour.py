"""The first hour of a newcomer: README's commands for one's own photographs, and two studies on them.

    python tests/first_hour.py            whole, with the gankit that this Python has
    python tests/first_hour.py --clone    from a fresh clone on: installation and `make demo` too
    python tests/first_hour.py --small    nets and steps of the test, which runs it in one process

It prints what each stage took. The photographs are rendered here: three classes, two of each patient, three raters.
With --photographs FOLDER they are those of a folder, whose labels.csv has the same columns.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
RUN = Path("runs/mine")
CLASSES = ("disc", "ring", "square")
SMALL = {
    "train": [
        "training.steps=20", "training.batch=4", "training.tick_every=1", "generator.widths=[4,4,4,4]",
        "generator.latent_dim=4", "critic.widths=[4,4,4,4]", "evaluation.features=pixels",
    ],
    "rank": ["--count", "8", "--keep", "2"],
    "sample": ["--count", "8"],
    "study": [
        "generator.widths=[4,4,4,4]", "generator.latent_dim=4", "critic.widths=[4,4,4,4]", "evaluation.features=pixels",
        "training.steps=2", "training.batch=4",
    ],
    "classifier": ["classifier.steps=4", "classifier.seeds=2", 'classifier.arms=["real","synthetic"]'],
    "agreement": [
        "study.thresholds=[0,0.6]", "study.seeds_at_ends=1", "study.scopes=[]", "study.drawn=8", "study.kept=2",
        "study.warm_start=0",
    ],
}  # fmt: skip
"""What the test adds to each command."""
WHOLE = {
    "classifier": ["training.steps=600", "classifier.seeds=2", 'classifier.arms=["real","classical","synthetic"]'],
    "agreement": [
        "training.steps=600", "study.thresholds=[0,0.6]", "study.seeds_at_ends=1", "study.scopes=[]",
        "study.warm_start=0",
    ],
}  # fmt: skip
"""What else is added: studies of some minutes, in place of hours."""

Gankit = Callable[[list[str], Path | None], str]
"""Runs `gankit` with these words and gives what it prints; interrupted as soon as a file is there, if one is named."""


def write_photographs(folder: Path, patients: int, size: int = 48) -> None:
    """Pictures of a disc, a ring or a square of a patient's own colour, and what is known of them in labels.csv."""
    draw = np.random.default_rng(0)
    rows = ["filename,diagnosis,patient,rater1,rater2,rater3,age"]
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    for patient in range(patients):
        label, colour = CLASSES[patient % len(CLASSES)], draw.integers(120, 256, 3)
        for take in range(2):
            shift = draw.uniform(-0.15, 0.15, 2)
            far, wide = np.hypot(y - shift[0], x - shift[1]), np.maximum(abs(y - shift[0]), abs(x - shift[1]))
            shape = {"disc": far < 0.5, "ring": (far > 0.35) & (far < 0.65), "square": wide < 0.5}[label]
            picture = draw.integers(20, 50, (size, size, 3)) + shape[..., None] * (colour - 60)
            (folder / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.astype(np.uint8)).save(folder / label / f"{patient:03}-{take}.jpg")
            votes = [label if draw.random() < 0.85 else CLASSES[draw.integers(3)] for _ in range(3)]
            cells = [f"{label}/{patient:03}-{take}.jpg", label, f"p{patient}", *votes, str(20 + patient)]
            rows.append(",".join(cells))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def readme(label: str) -> list[list[str]]:
    """The commands of README's section on own images, without the word gankit, for a class of these photographs."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Your images")[1]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    lines = block[1].replace("melanoma", label).splitlines()
    commands = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]
    return [words[1:] for words in commands if words]


def first_hour(gankit: Gankit, small: bool, photographs: Path | None = None) -> Iterator[tuple[str, float, str]]:
    """Go the newcomer's way in the current folder; after each stage its name, its seconds, and what was printed."""
    photos = Path("photos")
    if photographs is None:
        write_photographs(photos, 18 if small else 240)
    else:
        shutil.copytree(photographs, photos)
    label = sorted(place.name for place in photos.iterdir() if place.is_dir())[1]
    more = SMALL if small else WHOLE
    data = ["data.name=folder", "data.path=photos", "data.size=32"]
    studies = [["study", name, *data, *more.get(name, [])] for name in ("classifier", "agreement")]
    for words in [*readme(label), ["rank", str(RUN)], *studies]:
        command = words[0]
        added = more.get("train" if command in ("check", "train") else command, [])
        interrupt = RUN / "log.jsonl" if command == "train" else None
        start = time.monotonic()
        printed = gankit([*words, *added], interrupt)
        name = " ".join(words[: 2 if command == "study" else 1])
        yield name, time.monotonic() - start, printed


@contextlib.contextmanager
def interrupted(file: Path | None, interrupt: Callable[[], object]) -> Iterator[None]:
    """Call `interrupt` once as soon as there is a line in a file."""
    over = threading.Event()

    def watch() -> None:
        while file is not None and not over.wait(0.005):
            if file.is_file() and file.stat().st_size:
                interrupt()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def with_program(program: list[str]) -> Gankit:
    """`gankit` as a process of its own."""

    def run(words: list[str], interrupt: Path | None) -> str:
        print("$ gankit", shlex.join(words), flush=True)
        process = subprocess.Popen([*program, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with interrupted(interrupt, lambda: process.send_signal(signal.SIGINT)):
            printed, _ = process.communicate()
        print(printed, flush=True)
        if process.returncode and interrupt is None:
            sys.exit(f"gankit {words[0]} ended with {process.returncode}")
        return printed

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--clone", action="store_true")
    parser.add_argument("--out", type=Path, help="an empty folder, which is kept")
    parser.add_argument("--photographs", type=Path, help="a folder of photographs with labels.csv")
    options = parser.parse_args()
    photographs = options.photographs and options.photographs.absolute()
    out = (options.out or Path(tempfile.mkdtemp(prefix="first-hour-"))).absolute()
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)
    program, taken, began = [sys.executable, "-m", "gankit"], {}, time.monotonic()
    if options.clone:
        for name, words in {
            "clone": ["git", "clone", "--quiet", str(ROOT), "gankit"],
            "install": ["make", "-C", "gankit", ".venv/.installed"],
            "demo": ["make", "-C", "gankit", "demo"],
        }.items():
            start = time.monotonic()
            subprocess.run(words, check=True)
            taken[name] = time.monotonic() - start
        program = [str(out / "gankit" / ".venv" / "bin" / "gankit")]
    for name, seconds, _ in first_hour(with_program(program), options.small, photographs):
        taken[name] = seconds
        if name == "resume":
            minutes, pictures = (time.monotonic() - began) / 60, sorted((RUN / "samples").glob("*.png"))
            print(f"samples of own photographs after {minutes:.1f} minutes: {out / pictures[-1]}")
    for name, seconds in taken.items():
        print(f"{name:20}{seconds:8.1f} s")
    print(f"{'in all':20}{time.monotonic() - began:8.1f} s; everything is in {out}")


if __name__ == "__main__":
    main()
