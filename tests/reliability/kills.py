"""Trainings that are killed or interrupted and resumed end with the files of one never stopped.

Kinds: "write" kills at each write, sync, rename, new folder and deletion in turn, once before it and once halfway;
"moment" sends SIGKILL, SIGTERM, SIGINT or SIGHUP at random moments; "two" does the first with two processes.
"""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from faults import Fault, Tally, arguments, differences, gankit_process, go_on, small, whole_run, workplace

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
MOMENTS = 8  # of a recipe


def main() -> None:
    options = arguments(__doc__ or "")
    tally = Tally(options.results / "kills.json", options.seed)
    for recipe in options.recipes.split(","):
        for kind in (options.kinds or "write,moment,two").split(","):
            with workplace() as place:
                try_kind(kind, recipe, place, tally, options.seed, options.count)
    raise SystemExit(bool(tally.content["failed"]))


def try_kind(kind: str, recipe: str, place: Path, tally: Tally, seed: int, count: int | None) -> None:
    words, processes = small(recipe, place), 2 if kind == "two" else 1
    whole, ended = whole_run(words, place, processes)
    draw = random.Random(f"{seed} {kind} {recipe}")
    if kind == "moment":
        cases = [f"{draw.choice(SIGNALS).name} {draw.random():.4f}" for _ in range(count or MOMENTS)]
    else:
        cases = [f"{how} {at}" for at in range(1, ended.events + 1) for how in ("before", "half")]
        cases = draw.sample(cases, min(count or len(cases), len(cases)))
    for case in cases:
        name = f"{recipe} {kind} at {case}"
        if tally.is_done(name):
            continue
        out = place / "cut"
        shutil.rmtree(out, ignore_errors=True)
        how, where = case.split()
        if kind == "moment":
            send = (int(signal.Signals[how]), float(where) * ended.seconds)
            stopped = gankit_process(["train", *words, "--out", str(out)], place, send=send)
            usual = (0, 130, 1, -send[0])
            wrong = [] if stopped.code in usual else [f"ended with {stopped.code}: {stopped.said[-300:]}"]
        else:
            fault = Fault(out, int(where), half=how == "half")
            stopped = gankit_process(["train", *words, "--out", str(out)], place, fault, processes=processes)
            wrong = [] if stopped.code == -signal.SIGKILL else [f"not killed: {stopped.code} {stopped.said[-300:]}"]
        wrong += go_on(words, out, place, processes)
        tally.add(name, wrong or differences(whole, out))


if __name__ == "__main__":
    main()
