"""docs/measured/gpu.md, written from the results of gpu.py; without results it says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from speed_page import table, verdict

Row = dict[str, Any]

PAGE = Path(__file__).parents[2] / "docs" / "measured" / "gpu.md"
RECORD = Path(__file__).with_name("gpu.json")

INTRODUCTION = (
    "# Training on a GPU\n\n"
    "What a step costs on one GPU, with turns replayed as [CUDA graphs](../explanation/speed.md#on-a-gpu) and without. "
    "`make bench-gpu` measures it in at most nine minutes and writes this page.\n"
)
NOTHING_YET = (
    "\n"
    "**Nothing on this page has been measured yet.** Replayed turns are tested on the CPU, where a replay repeats "
    "the recorded operations of one turn in the same memory: there they equal eager turns bitwise, in two processes "
    "too, for all parts of gankit and of the shipped plug-ins that say that they can be captured. What takes [fewer "
    "kernels](../explanation/speed.md#on-a-gpu) there, and bf16 in penalties, is tested on the CPU alone. How fast "
    "graphs are on a GPU, how much memory they take, what determinism costs there, and that runs end bitwise equal "
    "there, is open until somebody runs the benchmark on a GPU.\n\n"
    "It needs a machine with one NVIDIA GPU and no network: bring the wheels of `gankit[offline]` and its "
    "dependencies, and the folder `.bench` that `make bench` fills with torch-mimicry, and run `python "
    "tests/benchmarks/gpu.py`.\n\n"
    "The table says what the benchmark will compare the results with.\n\n"
)


class Target(NamedTuple):
    """What is to be reached: each of the values at least or at most a limit."""

    what: str
    target: str
    limit: float
    values: Callable[[Row], list[float]]
    at_least: bool = False


def of_steps(results: Row, recipe: str, side: int) -> list[float]:
    return [row["graphs"]["step_ms"] for row in results["step"] if (row["recipe"], row["side"]) == (recipe, side)]


def over(key: str, of: str, results: Row) -> list[float]:
    """A value of replayed steps over another one: of the same step, or of the eager one."""
    pairs = [(row["graphs"].get(key), row["eager" if key == of else "graphs"].get(of)) for row in results["step"]]
    return [value / other for value, other in pairs if value and other]


def times(rows: list[Row], key: str, slow: str, fast: str) -> list[float]:
    """How many times as fast one row is as another one."""
    found = {row[key]: row["step_ms"] for row in rows}
    return [found[slow] / found[fast]] if slow in found and fast in found else []


def bf16(results: Row) -> list[float]:
    return times([row for row in results["arithmetic"] if row["recipe"] == "wgan-gp"], "way", "as it is", "bf16")


MIMICRY = "wgan-gp 32x32, batch 64, beside torch-mimicry's own step"
TARGETS = [
    Target(MIMICRY, "7 times as fast", 7, lambda r: times(r["mimicry"], "who", "torch-mimicry", "gankit"), True),
    Target("the same with the penalty every 5th update", "9 times as fast", 9,
           lambda r: times(r["mimicry"], "who", "torch-mimicry", "gankit, penalty every 5th"), True),
    Target("a step with flips, dequantising and averaging, over one without", "1.1", 1.1,
           lambda r: times(r["mimicry"], "who", "gankit, whole recipe", "gankit")),
    Target("a step over the time of its kernels", "1.1", 1.1, partial(over, "step_ms", "kernels_ms")),
    Target("fastgan 256x256, batch 8", "25 ms", 25, lambda r: of_steps(r, "fastgan", 256)),
    Target("wgan-gp-64, batch 64", "125 ms", 125, lambda r: of_steps(r, "wgan-gp-64", 64)),
    Target("bf16 at 32x32, beside float32", "1.3 times as fast", 1.3, bf16, True),
    Target("eager, replayed and resumed trainings", "bitwise equal", 1,
           lambda r: [float(row["equal"]) for row in r["equality"]], True),
    Target("memory, beside eager turns", "1.3 times", 1.3, partial(over, "memory_mb", "memory_mb")),
]  # fmt: skip


def targets(results: Row) -> str:
    """Each target with the value that is farthest from it."""
    lines = []
    for target in TARGETS:
        values = target.values(results)
        worst = (min if target.at_least else max)(values, default=None)
        met = "not measured" if worst is None else verdict(worst, target.limit, least=target.at_least)
        lines.append([target.what, target.target, number(worst, 2), len(values), met])
    return table(["what", "target", "found (the worst)", "of", ""], lines)


def number(value: Any, digits: int = 1) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def page(results: Row | None) -> str:
    """The page, from what gpu.py found, or from nothing."""
    if results is None:
        return INTRODUCTION + NOTHING_YET + table(["what", "target"], [target[:2] for target in TARGETS]) + "\n"
    machine = results["machine"]
    parts = [INTRODUCTION, f"\nOn {machine['device']}, torch {machine['torch']}, CUDA {machine['cuda']}.\n"]
    if results["smoke"]:
        parts.append("\n**A trial of tiny networks on a CPU: no record.**\n")
    parts.append(f"\n## Targets\n\n{targets(results)}\n")
    for heading, name, write in SECTIONS:
        if results[name]:
            parts.append(f"\n## {heading}\n\n{write(results[name])}\n")
    if results["not_run"]:
        parts.append("\n## Not run\n\n" + "\n".join(f"- {line}" for line in results["not_run"]) + "\n")
    return "".join(parts)


def steps(rows: list[Row]) -> str:
    head = ["recipe", "side", "batch", "graphs", "eager", "kernels", "step / kernels", "images/s", "memory",
            "of eager"]  # fmt: skip
    lines = []
    for row in rows:
        graphs, eager = row["graphs"], row["eager"]
        kernels = graphs.get("kernels_ms")
        memory, before = graphs.get("memory_mb"), eager.get("memory_mb")
        lines.append([
            row["recipe"], row["side"], row["batch"],
            f"{number(graphs['step_ms'])} ms", f"{number(eager['step_ms'])} ms",
            f"{number(kernels)} ms" if kernels else "", number(graphs["step_ms"] / kernels, 2) if kernels else "",
            number(graphs["images_per_second"], 0), f"{number(memory, 0)} MB" if memory else "",
            number(memory / before, 2) if memory and before else "",
        ])  # fmt: skip
    said = sorted({line for row in rows for line in row["graphs"]["said"]})
    return table(head, lines) + "".join(f"\n\nSaid on the way: {line}" for line in said)


def beside_mimicry(rows: list[Row]) -> str:
    own = next((row["step_ms"] for row in rows if row["who"] == "torch-mimicry"), None)  # it may be absent
    lines = [[row["who"], f"{number(row['step_ms'])} ms", number(own and own / row["step_ms"], 2)] for row in rows]
    return table(["who", "a step", "times as fast"], lines)


def equalities(rows: list[Row]) -> str:
    words = {"again": "a second eager training", "replayed": "a replayed one", "resumed": "a replayed, resumed one"}
    lines = [[row["recipe"], row["side"], words[row["way"]], "yes" if row["equal"] else "**no**"] for row in rows]
    return table(["recipe", "side", "beside an eager training", "bitwise equal"], lines)


def ways(rows: list[Row]) -> str:
    usual = {row["recipe"]: row["step_ms"] for row in rows if row["way"] == "as it is"}
    lines = []
    for row in rows:
        before = usual.get(row["recipe"])  # it may have failed
        ratio = before and before / row["step_ms"]
        lines.append([row["recipe"], row["side"], row["way"], f"{number(row['step_ms'])} ms", number(ratio, 2)])
    return table(["recipe", "side", "arithmetic", "a step", "times as fast"], lines)


def records(rows: list[Row]) -> str:
    lines = [[row["recipe"], row["side"], *(f"{number(row[key], 2)} s" for key in ("first_s", "all_s", "last_s"))]
             for row in rows]  # fmt: skip
    return table(["recipe", "side", "first step", "steps until all is recorded", "a step then"], lines)


def inference(rows: list[Row]) -> str:
    return table(["what", "images/s"], [[row["what"], number(row["images_per_second"], 0)] for row in rows])


SECTIONS = [
    ("Equal runs", "equality", equalities), ("Beside torch-mimicry", "mimicry", beside_mimicry),
    ("Steps", "step", steps), ("Arithmetic", "arithmetic", ways), ("Recording", "record", records),
    ("Sampling and features", "inference", inference),
]  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(RECORD.read_text()) if RECORD.is_file() else None))
