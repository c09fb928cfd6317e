"""Trainings that are killed or interrupted and resumed end with the files of one never stopped.

Kinds: "write" is a kill before and halfway through every write, sync, rename, new folder and deletion. What a kill
leaves is what the folder holds at that moment, so one training keeps each state that its folder has, and each different
one is resumed. "two" does so with two processes; with "again" the resumed training is killed at one of its changes, and
resumed once more. "moment" sends SIGKILL, SIGTERM, SIGINT or SIGHUP at random moments.
"""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from faults import Fault, States, Tally, arguments, differences, gankit_process, go_on, small, whole_run, workplace

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
MOMENTS = 8  # of a recipe


def main() -> None:
    options = arguments(__doc__ or "")
    tally = Tally(options.results / "kills.json", options.seed)
    for recipe in options.recipes.split(","):
        for kind in (options.kinds or "write,moment,two").split(","):
            if f"{recipe} {kind}" not in tally.content["finished"]:
                with workplace() as place:
                    try_kind(kind, recipe, place, tally, options.seed, options.count)
    raise SystemExit(bool(tally.content["failed"]))


def try_kind(kind: str, recipe: str, place: Path, tally: Tally, seed: int, count: int | None) -> None:
    words, processes, out = small(recipe, place), 2 if kind == "two" else 1, place / "cut"
    whole, ended = whole_run(words, place, processes)
    draw = random.Random(f"{seed} {kind} {recipe}")
    if kind == "moment":
        cases = [f"{draw.choice(SIGNALS).name} {draw.random():.4f}" for _ in range(count or MOMENTS)]
    else:
        states = States(out, 0, kept=place / "states")
        recorded = gankit_process(["train", *words, "--out", str(out)], place, states, processes=processes)
        if recorded.code:
            raise RuntimeError(recorded.said)
        cases = sorted((path.name for path in states.kept.iterdir()), key=int)
        if kind != "again":
            tally.content.setdefault("kills", {})[f"{recipe} {kind}"] = recorded.events
        cases = draw.sample(cases, min(count or len(cases), len(cases)))
        if kind == "again":
            cases = [f"{case} {draw.randrange(1, recorded.events)}" for case in cases]
    for case in cases:
        name = f"{recipe} {kind} at {case}"
        if tally.is_done(name):
            continue
        shutil.rmtree(out, ignore_errors=True)
        wrong = []
        if kind == "moment":
            how, where = case.split()
            send = (int(signal.Signals[how]), float(where) * ended.seconds)
            stopped = gankit_process(["train", *words, "--out", str(out)], place, send=send)
            if stopped.code not in (0, 130, 1, -send[0]):
                wrong = [f"ended with {stopped.code}: {stopped.said[-300:]}"]
        else:
            state, *changes = case.split()
            (place / "states" / state).rename(out)
            for change in map(int, changes):
                go_on(words, out, place, fault=Fault(out, change, half=change % 2 == 0))
        wrong += go_on(words, out, place, processes)
        tally.add(name, wrong or differences(whole, out))
    if count is None:
        tally.finish(f"{recipe} {kind}")


if __name__ == "__main__":
    main()
