"""docs/measured/reliability.md, written from the results of the scripts beside this one: `python .../page.py`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "measured" / "reliability.md"
GOOD = ("same", "whole already", "not noticed, and same", "noticed", "read", "refused", "checked", "within bounds")
WHAT = {
    "write": "states that a kill at each change of a run's folder leaves, resumed",
    "two": "states that a kill at each change leaves under two processes, resumed",
    "again": "states that a kill leaves, whose resumed training was killed at a random change, and resumed once more",
    "drawn": "runs that were killed at a random write or moment, alone and under two processes, resumed",
    "moment": "runs that a signal stopped at some moment, resumed",
    "writes": "runs whose disk failed at a change of their folder, once or for good, resumed",
    "killed": "other commands and studies, repeated from each state that a kill at a change leaves",
    "failing": "other commands and studies whose disk failed at a change, once or for good, repeated",
    "resume": "runs whose newest checkpoint was damaged, and which were resumed",
    "checkpoint": "checkpoints with damaged bytes", "export": "exported generators with damaged bytes",
    "cache": "cached arrays with damaged bytes",
    "forged checkpoint": "checkpoints with changed content and the digest of that content",
    "forged export": "exported generators with changed content and the digest of that content",
    "picture": "pictures: damaged, of all formats, with odd tags, or small files that unpack to huge sizes",
    "npz": "npz files", "csv": "labels.csv files", "statistics": "statistics files", "dicom": "DICOM files",
}  # fmt: skip

HEAD = """# What was tried on purpose

gankit reads files of others, runs for days, and is stopped at any moment. The scripts in `tests/reliability` try
hundreds and thousands of cases of what can go wrong; each is a function of a seed and its number, so that it can be
looked at again. Short forms are among the default tests. What may come out of a case:

- a run that was stopped, and then resumed, ends with the files and contents of one that never stopped ("same"); a write
  that failed may have been of no consequence, such as the deletion of a lock ("not noticed, and same"), and a
  command that is killed may already have written everything ("whole already");
- a file is read ("read"; experiments also pass `gankit check`: "checked"), or refused in one line per mistake
  ("refused");
- a file of gankit's own that was damaged is never taken for whole ("noticed");
- there is never a traceback, no program is started, and no file takes more than 5 seconds or 1 GB.

A kill leaves what the folder holds at that moment. So one training of a recipe keeps the states of its folder before
and halfway through each write, sync, rename, new folder and deletion, and every state that differs from the one before
it is resumed. Failed writes: of one small run, each change with each of five errors (no space, no quota left,
read-only, not permitted, input/output error), as a failure that happens once and as one that stays; of other recipes,
a sample of changes. Neither includes the rehearsal of a training, which writes nothing.

"""
TAIL = """
Commands: `python tests/reliability/NAME.py`; each goes on where it was stopped and writes `tests/reliability/results`.
`python tests/reliability/page.py` writes this page from there.
"""


def entries(name: str, found: dict[str, Any]) -> Iterator[tuple[str, int, dict[str, int]]]:
    """(what, how many, outcomes) of each kind of case in a results file."""
    if "outcomes" in found:
        yield found["what"], found["tried"], found["outcomes"]
    elif "counts" in found:  # by "recipe kind: outcome"; of failed writes, by "recipe: outcome"
        outcomes: dict[str, Counter[str]] = {}
        for key, count in found["counts"].items():
            case, _, outcome = key.rpartition(": ")
            outcomes.setdefault(case.partition(" ")[2] or name, Counter())[outcome] += count
        for kind, counts in outcomes.items():
            yield WHAT.get(kind, kind), sum(counts.values()), dict(counts)
    else:
        for kind, entry in found.items():
            if isinstance(entry, dict) and "outcomes" in entry:
                yield WHAT.get(kind, kind), entry.get("done", sum(entry["outcomes"].values())), entry["outcomes"]


def render(results: Path) -> str:
    """The page, of whatever results there are."""
    lines = ["| what | tried | outcomes |", "| --- | --- | --- |"]
    notes = []
    for path in sorted(results.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for what, tried, outcomes in entries(path.stem, found):
            order = sorted(outcomes.items(), key=lambda item: (item[0] in GOOD, item[0]))
            text = ", ".join(f"{count:,} {name}" if name in GOOD else f"**{count:,} {name}**" for name, count in order)
            lines.append(f"| {what} | {tried:,} | {text} |")
        if kills := found.get("kills"):
            whole = [
                f"{case.replace(' write', '').replace(' two', ' under two processes')} ({count})"
                for case, count in kills.items() if case in found["finished"]
            ]  # fmt: skip
            notes.append(f"A kill at every change was tried for (number of changes): {', '.join(whole)}.\n")
        if values := found.get("values"):
            compared = ", ".join(f"{name} {value:+d}" if isinstance(value, int) else f"{name} {value:.3f}"
                                 for name, value in values.items())  # fmt: skip
            what = f"{found['tried']:,} {found['what']}, the last tenth compared with the second tenth"
            notes.append(
                f"Of {what} (ratios; open files: difference; time: beside work that stays the same): {compared}.\n"
            )
    return HEAD + "\n".join(lines) + "\n" + "".join(f"\n{note}" for note in notes) + TAIL


if __name__ == "__main__":
    PAGE.write_text(render(RESULTS), encoding="utf-8")
