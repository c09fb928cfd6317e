"""Commands beside `gankit train` whose disk fails end with one line that names a file, and succeed when repeated.

Each write, sync, rename, new folder and deletion fails in turn, once and from then on for good. No file may then hold
what neither an earlier command nor a whole one wrote, and the command repeated leaves what a whole one leaves.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import chdir
from functools import partial
from pathlib import Path

import numpy as np
from faults import Ended, Fault, States, Tally, arguments, gankit_process, workplace
from writes import ERRORS

from gankit.files import OWN
from gankit.ranking import key
from gankit.studies.readers.blinding import SetKey
from gankit.studies.worker import CLOCK, RESULT

sys.path.append(str(Path(__file__).parents[1]))
from readers_data import Simulated, save

SMALL = (
    "data.name=npz data.path=images.npz generator.name=resnet generator.widths=[4,4] generator.latent_dim=6 "
    "critic.name=resnet critic.widths=[4,4] critic.flat_blocks=1 training.steps=2 training.tick_every=2 "
    "training.threads=1 training.sample_every=2 training.checkpoint_every=1 training.batch=4 "
    "training.generator_batch=4 training.critic_steps=1 augment=none evaluation.features=pixels"
)
CLASSIFIER = "wgan-gp --steps 3 --batch 8 --width 4 --seeds 1"
CROSSED = f"{CLASSIFIER} --folds 2 --ratios [1.0] --controls [] --views 1 --estimator LogisticRegression"
PAGE = "readers --real images.npz --generated.gan drawn.npz --images 4 --pairs 2"
AGREEMENT = "--thresholds [0] --seeds-at-ends 1 --drawn 12 --kept 3 --warm-start 1 --controls [] --scopes []"
COMMANDS = {
    "sample": "sample run --count 4 --out drawn",
    "walk": "walk run --stops 2 --frames 2 --out walked",
    "rank": "rank run --count 6 --keep 2 --out ranked",
    "page": "rank run --page --count 4 --out rating",
    "evaluate": "evaluate run --features pixels --metrics frechet,memorisation",
    "tables": "evaluate drawn.npz --against images.npz --features pixels --metrics frechet --out a.json --csv a.csv "
    "--tex a.tex",
    "statistics": "statistics images.npz --features pixels --out statistics.npz",
    "report": "report run",
    "plan": "plan images.npz --minutes 60 --out plan.toml",
    "demo": f"demo {SMALL} --out demo",
    "classifier": f"study classifier {CLASSIFIER} --groupings {{}} --arms [real,synthetic] {SMALL} --out study",
    "augmentation": f"study augmentation {CROSSED} --generators 1 --arms [real,synthetic] {SMALL} --out study",
    "folds": f"study augmentation {CROSSED} --generator false --export-folds folds {SMALL} --out study",
    "program": f"study augmentation {CROSSED} --generator false --others.mine.command mine.py {SMALL} --out study",
    "agreement": f"study agreement {AGREEMENT} {SMALL} --out study",
    "export": f"study {PAGE} --out new",
    "analyse": f"study {PAGE} --out readers",
}
"""What runs in a folder that `prepare` has filled, by the names of cases."""
Case = tuple[str, Callable[[], tuple[list[str], str]]]
TIMED = (RESULT, "log.jsonl")
NAMES = r"(drawn|walked|ranked|rating|run|a\.|statistics|plan|demo|study|folds|new|readers)[^: ]*: "
"""What a command names that cannot write."""
PROGRAM = """
import sys, shutil, pathlib
shutil.copytree(pathlib.Path(sys.argv[1], "train"), sys.argv[2])
"""


def prepare(work: Path) -> None:
    """Fill a folder with images, a run, and a set for readers with the answers of one."""
    work.mkdir()
    os.chdir(work)
    for number, name in enumerate(("images", "drawn")):
        draw = np.random.default_rng(number)
        images = draw.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
        votes = draw.integers(0, 2, (40, 10))
        np.savez(f"{name}.npz", images=images, labels=np.arange(40) % 2, groups=np.arange(40), agreement=votes.mean(1))
    Path("mine.py").write_text(PROGRAM)
    for command in (f"train wgan-gp {SMALL} --out run", COMMANDS["analyse"]):
        said = gankit_process(shlex.split(command), work.parent)
        if said.code:
            raise RuntimeError(said.said)
    sealed = key.read_key(work / "readers" / "key.json", SetKey)[0]
    save(work / "readers", "one", Simulated("one", 1, 0).answers(sealed), sealed.digest)


def files(work: Path) -> dict[str, bytes]:
    """The contents of all files but passing ones, times, checkpoints (writes.py tries them) and the cache."""
    found = {}
    for path in sorted(work.rglob("*")):
        inside = path.relative_to(work)
        passing = (
            path.name == CLOCK
            or path.suffix == ".pt"
            or inside.parts[0] == "cache"
            or any(map(OWN.fullmatch, inside.parts))
        )
        if path.is_file() and not passing:
            found[str(inside)] = path.read_bytes()
    return found


def main() -> None:
    options = arguments(__doc__ or "")
    tally = Tally(options.results / "commands.json", options.seed)
    key.secrets.token_hex = lambda count: "7" * 2 * count  # type: ignore[attr-defined]
    with workplace() as place, chdir("."):
        work = place / "work"
        prepare(work)
        work.rename(place / "before")
        for name in (options.kinds or ",".join(COMMANDS)).split(","):
            command = Command(name, place)
            for kind, cases in (("killed", command.kills), ("failing", command.failures)):
                if f"{name} {kind}" in tally.content["finished"]:
                    continue
                for case, act in draw_some(cases(), options.count, f"{options.seed} {name}"):
                    if not tally.is_done(f"{name} {kind} at {case}"):
                        tally.add(f"{name} {kind} at {case}", *act())
                if options.count is None:
                    tally.finish(f"{name} {kind}")
    raise SystemExit(bool(tally.content["failed"]))


def draw_some(cases: list[Case], count: int | None, seed: str) -> list[Case]:
    return random.Random(seed).sample(cases, min(len(cases) if count is None else count, len(cases)))


class Command:
    """A command, what it makes, and how it is tried."""

    def __init__(self, name: str, place: Path) -> None:
        self.name, self.place, self.work, self.before = name, place, place / "work", place / "before"
        self.words, self.states = shlex.split(COMMANDS[name]), place / f"states-{name}"
        whole = self.run(Fault(self.work, 0))
        self.code, self.changes = whole.code, whole.events
        if self.code != (2 if name == "folds" else 0):  # These wait for images
            raise RuntimeError(f"{name}: {whole.said}")
        self.made, self.old = files(self.work), files(self.before)
        self.run(None)
        again = files(self.work)
        self.vary = {file for file, content in self.made.items() if file.endswith(TIMED) or again.get(file) != content}

    def run(self, fault: Fault | None, start: Path | None = None) -> Ended:
        """Run it on a copy of a folder."""
        os.chdir(self.place)
        if start != self.work:
            shutil.rmtree(self.work, ignore_errors=True)
            shutil.copytree(start or self.before, self.work)
        os.chdir(self.work)
        os.environ["GANKIT_CACHE"] = str(self.work / "cache")
        return gankit_process(self.words, self.place, fault)

    def kills(self) -> list[Case]:
        """One for each state that a kill leaves."""
        self.run(States(self.work, 0, kept=self.states))
        return [(state.name, partial(self.resumed, state)) for state in sorted(self.states.iterdir())]

    def resumed(self, state: Path) -> tuple[list[str], str]:
        wrong, left = self.half(state), files(state)
        outcome = self.repeated(state)
        return wrong + outcome[0], outcome[1] if left != self.made else "whole already"

    def failures(self) -> list[Case]:
        """Two for each change of the folder."""
        cases = itertools.product(range(1, self.changes + 1), (False, True))
        codes = [(at, ERRORS[(at + often) % len(ERRORS)], often) for at, often in cases]
        return [
            (f"{at}, {errno.errorcode[code]} {'for good' if often else 'once'}", partial(self.failed, at, code, often))
            for at, code, often in codes
        ]

    def failed(self, at: int, code: int, often: bool) -> tuple[list[str], str]:
        ended = self.run(Fault(self.work, at, code, often, half=at % 2 == 0))
        wrong = complaints(ended) + self.half(self.work)
        if ended.code:
            return wrong + self.repeated(self.work)[0], "same"
        return wrong + self.others(), "not noticed, and same"

    def repeated(self, start: Path) -> tuple[list[str], str]:
        """What is wrong when it is given again."""
        ended = self.run(None, start)
        taken = ended.code == 2 and "choose another" in ended.said and not self.others()
        if ended.code != self.code and not taken:
            return [f"repeated: {ended.code}, {ended.said[-300:]}"], "same"
        return self.others(), "same"

    def half(self, folder: Path) -> list[str]:
        """Files that neither an earlier command nor a whole one wrote."""
        found = {name: content for name, content in files(folder).items() if content != self.old.get(name)}
        found = {name: content for name, content in found.items() if not name.endswith("generator.safetensors")}
        return [f"{name} is half a file" for name, content in found.items() if not self.same(name, content)]

    def others(self) -> list[str]:
        """Files that are not as a whole command leaves them."""
        left = files(self.work)
        names = sorted({*self.made, *left})
        return [f"{name} is not as it was" for name in names if not self.same(name, left.get(name))]

    def same(self, name: str, content: bytes | None) -> bool:
        """Whether a file is as a whole command writes it; one that tells times is about as long and ends likewise."""
        whole = self.made.get(name)
        if content is None or whole is None or name not in self.vary:
            return content == whole
        return abs(len(content) - len(whole)) <= 0.1 * len(whole) and content[-1:] == whole[-1:]


def complaints(ended: Ended) -> list[str]:
    """What is wrong with how a command ended whose disk failed: by one line that names a file, or as if nothing was."""
    lines = [line for line in ended.said.splitlines() if line.startswith("gankit: ")]
    if "Traceback" in ended.said or ended.code not in (0, 2):
        return [f"ended with {ended.code}: {ended.said[-500:]}"]
    if ended.code == 2 and len(lines) != 1:
        return [f"said: {ended.said[-500:]}"]
    return [] if not ended.code or re.search(NAMES, lines[0]) else [f"named nothing: {lines}"]


if __name__ == "__main__":
    main()
