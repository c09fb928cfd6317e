"""Trainings whose disk fails end with one line that names a file, and resume to the files of one with a sound disk.

Each write, sync, rename, new folder and deletion fails in turn, once and from then on for good. The recipe
`EACH` has each error at each place; the others have them in turn: gankit asks nowhere which of them it was.
"""

from __future__ import annotations

import errno
import random
import shutil
from pathlib import Path

from faults import Ended, Fault, Tally, arguments, differences, gankit_process, go_on, small, whole_run, workplace

ERRORS = [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT]
EACH = "wgan-gp"


def main() -> None:
    options = arguments(__doc__ or "")
    tally = Tally(options.results / "writes.json", options.seed)
    for recipe in options.recipes.split(","):
        if recipe in tally.content["finished"]:
            continue
        with workplace() as place:
            words = small(recipe, place)
            whole, ended = whole_run(words, place)
            cases = [
                (code, often, at)
                for at in range(1, ended.events + 1) for number, often in enumerate(("once", "for good"))
                for code in (ERRORS if recipe == EACH else [ERRORS[(at + number) % len(ERRORS)]])
            ]  # fmt: skip
            draw = random.Random(f"{options.seed} {recipe}")
            for code, often, at in draw.sample(cases, min(options.count or len(cases), len(cases))):
                name = f"{recipe} at {at}, {errno.errorcode[code]} {often}"
                if tally.is_done(name):
                    continue
                out = place / "cut"
                shutil.rmtree(out, ignore_errors=True)
                fault = Fault(out, at, code, often == "for good", half=bool(draw.getrandbits(1)))
                failed = gankit_process(["train", *words, "--out", str(out)], place, fault)
                wrong = complaints(failed, out) + go_on(words, out, place)
                tally.add(name, wrong or differences(whole, out), "same" if failed.code else "not noticed, and same")
            if options.count is None:
                tally.finish(recipe)
    raise SystemExit(bool(tally.content["failed"]))


def complaints(ended: Ended, out: Path) -> list[str]:
    """What is wrong with how a process ended whose disk failed: by one line that names a file, or as if nothing was."""
    lines = [line for line in ended.said.splitlines() if line.startswith("gankit: ")]
    if "Traceback" in ended.said or ended.code not in (0, 2):
        return [f"ended with {ended.code}: {ended.said[-500:]}"]
    if ended.code == 2 and (len(lines) != 1 or str(out) not in lines[0]):
        return [f"said: {lines}"]
    return []


if __name__ == "__main__":
    main()
