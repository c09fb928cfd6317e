"""Trainings that are killed or interrupted and resumed end with the files of one never stopped.

Kinds: "write" is a kill before and halfway through every write, sync, rename, new folder and deletion. What a kill
leaves is what the folder holds at that moment, so one training keeps each state that its folder has, and each different
one is resumed. "two" does so with two processes. With "again" some of the states are resumed, killed at one of the
changes that the resumed training makes, and resumed once more. "moment" sends SIGKILL, SIGTERM, SIGINT or SIGHUP at
random moments.
"""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from faults import (
    Fault,
    States,
    Tally,
    arguments,
    differences,
    gankit_process,
    go_on,
    resume,
    small,
    whole_run,
    workplace,
)

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
MOMENTS, AGAIN = 8, 25  # cases of a recipe


def main() -> None:
    options = arguments(__doc__ or "")
    tally = Tally(options.results / "kills.json", options.seed)
    for recipe in options.recipes.split(","):
        for kind in (options.kinds or "write,moment,two,again").split(","):
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
        most = AGAIN if kind == "again" else len(cases)
        cases = draw.sample(cases, min(count or most, len(cases)))
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
            shutil.copytree(place / "states" / case, out, symlinks=True)
            if kind == "again":
                wrong = kill_again(words, out, place, random.Random(f"{seed} {name}"))
        wrong += go_on(words, out, place, processes)
        tally.add(name, wrong or differences(whole, out))
    if count is None:
        tally.finish(f"{recipe} {kind}")


def kill_again(words: list[str], out: Path, place: Path, draw: random.Random) -> list[str]:
    """Go on with the run in a folder, and kill that at one of its changes; what was wrong."""
    state = shutil.copytree(out, place / "state", symlinks=True)
    unstopped = resume(words, out, place, fault=Fault(out, 0))
    shutil.rmtree(out)
    state.rename(out)
    if unstopped.code or not unstopped.events:
        return [f"{unstopped.events} changes, ended with {unstopped.code}: {unstopped.said[-300:]}"]
    change = draw.randint(1, unstopped.events)
    killed = resume(words, out, place, fault=Fault(out, change, half=change % 2 == 0))
    if killed.code == -signal.SIGKILL:
        return []
    return [f"not killed at change {change} of {unstopped.events}, ended with {killed.code}: {killed.said[-300:]}"]


if __name__ == "__main__":
    main()
