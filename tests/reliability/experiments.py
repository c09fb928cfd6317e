"""Experiment files, overrides, ratings and keys of others: mutations of valid ones, read under limits.

`python tests/reliability/experiments.py` makes 20,000 experiment files (TOML, JSON, YAML) with overrides and 1,000
ratings with their key, each a function of the seed and its number, reads each as gankit does, and counts how it ended.
It goes on where it was stopped. Every fifth experiment that can be read is also checked, as `gankit check` does; so is
every extreme value of `settings.py`.

Outcomes: "read", "checked", "refused" (one short line per setting), and what must not be: "traceback", "long" (a line
beyond 2,000 characters), "slow" (over 5 s), "memory" (over 1 GB), "differs" (it reads as something else once it is
written again), "code" (a program or connection was started), "killed" (a signal).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import settings
import tomlkit

import gankit
from gankit.errors import GankitError, plain_words
from gankit.experiments.recipe_files import fixed_recipe_names, recipe_text
from gankit.ranking import ratings
from gankit.ranking.key import Key, Origin, Shown
from gankit.ranking.rating_files import read_ratings
from gankit.training.rehearsal import check

SEED = 0
COUNTS = {"experiment": 20_000, "rating": 1_000}
WHAT = {
    "experiment": "experiment files and overrides", "rating": "ratings and their keys",
    "setting": "extreme values of settings of experiments and studies, and of `gankit plan`",
}  # fmt: skip
GOOD = ("read", "checked", "refused")
RESULTS = Path(__file__).parent / "results"
SECONDS, MEGABYTES, SHARE = 5, 1024, 250  # limits of each case, and cases that share a process
CHECKED = 5
STRANGE: list[Any] = [
    0, 1, -1, True, False, None, "", "x", "~nobody/x", "\x00", "a\x1b[2J", "=1+1", "\ud800", "\u202e", "9" * 400,
    1e308, -1e308, 5e-324, float("nan"), float("inf"), 10**15, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, 0.5, 1.0, 2.5,
    [], {}, [1], [0.5], [True, 0.9], [[1]], {"name": "resnet"}, {"name": 1}, {"a": {"b": {}}}, "resnet", "none",
    "cuda:99", "meta", "nowhere/run", "/dev/zero", "/", "gankit:resnet", "x:y", "../..", "C:\\temp", {"lr": 0.1},
    {"betas": [0.5]}, "12", "1e5",
]  # fmt: skip
YAML_TEXTS = [
    "a: &a [x, *a]\n", "!!python/object/apply:os.system ['touch code-was-run']\n", "x: !!python/name:os.system\n",
    "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: &c {<<: [*b, *b]}\n", "? [1, 2]\n: 3\n", "x: !!binary aGk=\n",
    "x: !!set {a, b}\n", "x: 2001-12-14t21:59:43.10-05:00\n", "%TAG ! tag:x:\n---\n", "--- 1\n--- 2\n", "x: 0o17\n",
    "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)),
]  # fmt: skip
TEXTS = ["[" * 2000, "{" * 2000, "]", "}", "=", ":", "\n[[losses]]\n", "\n[x.y.z]\n", '"', "'", "\\", "\\u0000", "#",
         "\x00", "\ufeff", "9" * 5000, "0x" + "f" * 3000, "a." * 3000 + "b = 1\n", "1e999", "nan", "- " * 2000,
         "\r", "\t",
         "<<: *a\n", "&a ", "*a ", "!!str ", "|\n", "training", "name", ".", ","]  # fmt: skip


def generator_of(kind: str, number: int) -> random.Random:
    """The random numbers of one case."""
    return random.Random(f"{SEED} {kind} {number}")


def tables_in(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """(container, key) of every value below a table or list."""
    if not isinstance(value, (dict, list)) or depth > 20:
        return []
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    return [*((value, key) for key, _ in items), *(place for _, item in items for place in tables_in(item, depth + 1))]


def mutate_tables(tables: dict[str, Any], draw: random.Random) -> None:
    """Change, add, move, repeat or remove settings."""
    for _ in range(draw.choice([0, 1, 1, 1, 1, 2, 4])):
        places = tables_in(tables)
        if not places:
            return
        container, key = draw.choice(places)
        match draw.choice(["scale", "scale", "set", "set", "add", "remove", "copy", "rename", "wrap", "deep"]):
            case "scale" if isinstance(container[key], (int, float)):
                container[key] *= draw.choice([2, 0.5, 3, 10, 0.1])
            case "scale" | "set":
                container[key] = draw.choice(STRANGE)
            case "add" if isinstance(container, dict):
                container[draw.choice(["x", "", "name", "part", "kind", "width", "a.b", "__class__", "\x1b"])] = (
                    draw.choice(STRANGE)
                )
            case "remove":
                del container[key]
            case "copy":
                other, place = draw.choice(places)
                container[key] = json.loads(json.dumps(other[place]))
            case "rename" if isinstance(container, dict):
                container[f"{key}"[: draw.randrange(len(f"{key}") + 1)] + draw.choice(["", "x", "-", "_"])] = (
                    container.pop(key)
                )
            case "wrap":
                container[key] = draw.choice([[container[key]], {"name": container[key]}])
            case "deep":
                for _ in range(draw.choice([5, 40, 200])):
                    container[key] = [container[key]]


def mutate_text(text: str, draw: random.Random) -> str:
    """Change characters, repeat or cut pieces, and put strange ones in."""
    for _ in range(draw.choice([1, 1, 3, 8])):
        start = draw.randrange(len(text) + 1)
        stop = min(len(text), start + draw.choice([0, 1, 1, 5, 60]))
        piece = draw.choice([draw.choice(TEXTS), text[start:stop] * draw.choice([0, 2, 30]), chr(draw.randrange(300))])
        text = text[:start] + piece + text[stop:]
    return text


def written(tables: dict[str, Any], format: str) -> str:
    """Tables as a file of this format; as JSON, which YAML is a superset of, where the format cannot hold them."""
    if format == ".toml":
        try:
            return tomlkit.dumps(tables)
        except Exception:  # None, and numbers that are too large
            return json.dumps(tables)
    return json.dumps(tables, indent=1)


def overrides_of(draw: random.Random) -> list[str]:
    """Overrides, few of which are right."""
    keys = ["training.steps", "training.batch", "training.betas", "training.seed", "training.optimizer_options",
            "generator.width", "critic.name", "losses.0.weight", "losses.gradient-penalty.weight", "augment",
            "data.path", "evaluation.metrics", "data.size", "losses.9.x", "training", "", "a" * 300, "run.images",
            ".".join("a" * 50), "training.device", "training.precision", "evaluation.features"]  # fmt: skip
    made = []
    for _ in range(draw.choice([0, 0, 0, 0, 1, 3])):
        value = draw.choice([*STRANGE, *TEXTS])
        text = value if isinstance(value, str) else draw.choice([repr, json.dumps])(value)
        made.append(f"{draw.choice(keys)}{draw.choice(['=', '=', '=', '', ' = '])}{text}")
    return made


def try_experiment(number: int, folder: Path) -> str:
    """Read one mutated experiment file, and check it where it is one in `CHECKED`."""
    draw = generator_of("experiment", number)
    tables: dict[str, Any] = gankit.load(draw.choice(fixed_recipe_names())).tables()
    if draw.random() < 0.3:
        tables = {name: table for name, table in tables.items() if draw.random() < 0.5}
    format = draw.choice([".toml", ".toml", ".json", ".yaml"])
    how = draw.random()
    if how < 0.6:
        mutate_tables(tables, draw)
    text = written(tables, format)
    if format == ".toml" and how > 0.9:
        text = recipe_text(draw.choice(fixed_recipe_names()))
    if how >= 0.6:
        text = mutate_text(text, draw)
    if format == ".yaml" and draw.random() < 0.2:
        text = draw.choice(YAML_TEXTS) + draw.choice(["", text])
    path = folder / f"e{format}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    overrides = overrides_of(draw)
    experiment = gankit.load(path, *overrides)
    if gankit.load(tomlkit.parse(experiment.toml()).unwrap()) != experiment:
        return "differs"
    if number % CHECKED:
        return "read"
    data = folder / "d.npz"
    if not data.is_file():
        np.savez(data, images=np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8))
    small = [f"data.path={data}", "data.name=npz", "generator.name=dcgan", "critic.name=dcgan", "generator.width=4",
             "critic.width=4", "evaluation.features=pixels"]  # fmt: skip
    check(gankit.load(path, *overrides, *(small if draw.random() < 0.7 else small[:2])))
    return "checked"


def try_rating(number: int, folder: Path) -> str:
    """Read one mutated file of ratings with its key."""
    draw = generator_of("rating", number)
    count = draw.choice([1, 2, 5, 9])
    shown = tuple(Shown(f"{draw.randrange(16**12):012x}", real, i, "") for real in (False, True) for i in range(count))
    key = Key(f"{draw.randrange(16**64):064x}", (Origin("run", "0" * 64),), 0, None, "held-out", shown)
    content = key.content().decode()
    table = json.loads(content)
    if draw.random() < 0.3:
        mutate_tables(table, draw)
        content = json.dumps(table, indent=1)
    if draw.random() < 0.1:
        content = mutate_text(content, draw)
    (folder / "key.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    digest = hashlib.sha256((folder / "key.json").read_bytes()).hexdigest()
    strange = [
        "",
        "nan",
        "1e308",
        "-5",
        "9" * 5000,
        "=1+1",
        "'",
        '"',
        "real",
        "x",
        "1,5",
        "\x00",
        "\ufeff",
        "inf",
        "1_0",
    ]
    lines = ["image,score,diagnosis,call,rater,key"]
    for image in shown:
        row = [image.id, str(draw.randrange(5)), "a", draw.choice(["real", "generated"]), "ada", digest]
        if draw.random() < 0.03:
            row[draw.randrange(6)] = draw.choice(strange)
        lines.append(",".join(row))
    text = "\n".join(lines) + "\n"
    if draw.random() < 0.3:
        text = mutate_text(text, draw)
    path = folder / "r.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    raters = read_ratings([path])
    found = ratings.find_key(raters, None, [folder])
    if found is None:
        ratings.by_number(raters, count)
        return "read"
    names, real = [image.id for image in found.images], [image.real for image in found.images]
    ratings.check_images(raters, names, any(real))
    findings = ratings.findings(raters, names, real, [image.label for image in found.images])
    numbers = [*ratings.mean_scores(raters, names), *(f.value for f in findings if f.value is not None)]
    return "read" if np.isfinite(numbers).all() else "differs"


TRIALS: dict[str, Callable[[int, Path], str]] = {
    "experiment": try_experiment, "rating": try_rating, "setting": settings.try_setting,
}  # fmt: skip
STARTED: list[str] = []


def watch(event: str, arguments: Any) -> None:
    """An audit hook that notes programs and connections."""
    if event in (
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "subprocess.Popen",
        "socket.connect",
        "pty.spawn",
    ):
        STARTED.append(event)


def outcome(kind: str, number: int, folder: Path) -> tuple[str, str]:
    """How one case ended, and what was said."""
    STARTED.clear()
    start, said = time.process_time(), ""
    try:
        ended = TRIALS[kind](number, folder)
    except TimeoutError:
        ended = "slow"
    except Exception as error:
        said = plain_words(error) or f"{type(error).__name__}: {error}"
        ended = "refused" if plain_words(error) is not None else "traceback"
        if isinstance(error, GankitError) and any(len(line) > 2000 for line in said.splitlines()):
            ended = "long"
    if time.process_time() - start > SECONDS:
        ended = "slow"
    return ("code" if STARTED or (folder / "code-was-run").exists() else ended), said


def work(kind: str, start: int, stop: int) -> None:
    """Try some cases in this process, under limits; a line of JSON for each."""

    def too_long(*_: Any) -> None:
        raise TimeoutError

    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, too_long)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        most = pages * resource.getpagesize() + 2 * MEGABYTES * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.addaudithook(watch)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number in range(start, stop):
            signal.setitimer(signal.ITIMER_PROF, 2 * SECONDS)
            ended, said = outcome(kind, number, Path(folder))
            signal.setitimer(signal.ITIMER_PROF, 0)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if peak - base > MEGABYTES * 1024:
                ended, base = "memory", peak
            print(json.dumps([number, ended, said[:300] if ended not in GOOD else ""]), flush=True)


def run(kind: str, tried: int, results: Path) -> dict[str, Any]:
    """Try the cases up to a number, from where the results file says, which is written after each share."""
    path = results / f"{kind}s.json"
    found = json.loads(path.read_text()) if path.is_file() else {
        "what": WHAT[kind], "seed": SEED, "tried": 0, "outcomes": {}, "bad": {},
        "machine": f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores",
    }  # fmt: skip
    while found["tried"] < tried:
        start, stop = found["tried"], min(tried, found["tried"] + SHARE)
        command = [sys.executable, __file__, "--kind", kind, "--work", str(start), str(stop)]
        done = subprocess.run(command, capture_output=True, text=True)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        if len(rows) < stop - start:  # the next case ended the process
            rows.append([start + len(rows), "killed", f"{done.returncode}: {done.stderr[-300:]}"])
        found["tried"] += len(rows)
        found["outcomes"] = dict(Counter(found["outcomes"]) + Counter(row[1] for row in rows))
        found["bad"] |= {str(row[0]): row[1:] for row in rows if row[1] not in GOOD}
        results.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def main() -> None:
    """Try all cases, or those that `--kind` and `--count` name; the exit code is 1 where one ended badly."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=TRIALS)
    parser.add_argument("--count", type=int)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.kind, *given.work)
        return
    counts = {**COUNTS, "setting": len(settings.cases())}
    found = [run(kind, given.count or counts[kind], given.results) for kind in ([given.kind] if given.kind else TRIALS)]
    for each in found:
        print(each["what"], each["tried"], each["outcomes"], *each["bad"].items(), sep="\n  ")
    sys.exit(any(each["bad"] for each in found))


if __name__ == "__main__":
    main()
