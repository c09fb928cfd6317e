"""docs/measured/few-images.md, written from the results of few_images.py."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speed_page import table

Row = dict[str, Any]
Where = tuple[str, int, str]

PAGE = Path(__file__).parents[2] / "docs" / "measured" / "few-images.md"
VALUES = {"frechet": 0, "kid": 3, "precision": 2, "recall": 2, "memorisation": 2}
"""The values of a table, and their digits."""
HEAD = ["trained", "images", "steps", "seconds", "FD", "KID", "precision", "recall", "memorisation"]
EPILOGUE = """
## Measure it yourself

On a machine with a GPU and no network, with the wheels of `gankit[offline]`, the data sets as npz files, the folder
`.bench` that `make bench` fills, and a clone of NVIDIA's stylegan3 if there is one:

```text
python tests/benchmarks/few_images.py --data FOLDER --seeds 3 --minutes 6 --limit 9 --stylegan CLONE --docs docs
```

It says what it will cost, stops after nine minutes, and goes on with the same command until it says that all is done.
It trains every recipe of gankit and of the plug-ins on the eyes at 64 and 128 pixels, on `bccd_cells` at 64 and on
`retinamnist` and `breastmnist` at 32, each with 100, 300 and all images; then with classes, and from the run of the set
before.
`--sets`, `--numbers`, `--recipes` and `--kinds` choose a part.
"""


def where(row: Row) -> Where:
    """The data set, size and number of images."""
    return row["data"], row["side"], row["number"]


def rank(row: Row) -> float:
    """The KID, for order; failures come last."""
    return float("inf") if row["failure"] else row["kid"]["value"]


def pictured(rows: list[Row]) -> dict[Where, list[Row]]:
    """The trainings that each picture shows: the first seed of plain ones, the best KID first."""
    found: dict[Where, list[Row]] = {}
    for row in sorted(rows, key=rank):
        if row["kind"] == "plain" and row["seed"] == 0 and not row["failure"]:
            found.setdefault(where(row), []).append(row)
    return found


def picture(place: Where) -> str:
    """Its file."""
    return f"few-images-{place[0]}-{place[1]}-{place[2]}.png"


def value(rows: list[Row], name: str) -> str:
    """A value with its error: of one training its standard error, of several seeds that of their mean."""
    values, digits = [row[name]["value"] for row in rows], VALUES[name]
    several = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else rows[0][name]["error"]
    error = "" if several is None else f" ± {several:z.{digits}f}"
    return f"{statistics.mean(values):z.{digits}f}{error}"


def lines(rows: list[Row]) -> Iterator[list[Any]]:
    """A line for each training, its seeds together, and a first one for the reals."""
    ran = [row for row in rows if not row["failure"]]
    if ran:
        floors = [
            f"{statistics.mean(row[name]['floor'] for row in ran):z.{digits}f}" for name, digits in VALUES.items()
        ]
        yield ["*between reals*", "", "", "", *floors]
    by_who = {who: [row for row in rows if row["who"] == who] for who in dict.fromkeys(row["who"] for row in rows)}
    for who, group in sorted(by_who.items(), key=lambda item: statistics.mean(map(rank, item[1]))):
        good = [row for row in group if not row["failure"]]
        if not good:
            yield [who, "", "", "", "**failed**", *[""] * (len(VALUES) - 1)]
            continue
        spent = [f"{statistics.mean(row[key] for row in good):,.0f}" for key in ("steps", "seconds")]
        name = f"{who} ({len(good)} of {len(group)} seeds)" if len(good) < len(group) else who
        yield [name, good[0]["images"], *spent, *(value(good, name) for name in VALUES)]


def plain(rows: list[Row]) -> Iterator[str]:
    """Sections of the trainings from first weights."""
    seen = pictured(rows)
    for (data, side, number), group in itertools.groupby(sorted(rows, key=where), where):
        yield f"\n## {data}, {side} pixels, {number} images\n\n{table(HEAD, list(lines(list(group))))}\n"
        if shown := seen.get((data, side, number)):
            names = ", ".join(row["who"] for row in shown)
            yield f"\n![A row of samples for each training](../images/{picture((data, side, number))})\n"
            yield f"\nThe first samples of each, not selected; from above: {names}.\n"


def classes(rows: list[Row]) -> Iterator[str]:
    """The section of trainings with classes."""
    if not rows:
        return
    yield (
        "\n## With classes\n\nThe share of samples whose class a classifier of the training images confirms, beside "
        "that of held-out reals.\n\n"
    )
    found = []
    for row in sorted(rows, key=where):
        line = [row["who"], f"{row['data']} {row['side']}"]
        found.append([*line, "**failed**", "", "", "", ""] if row["failure"] else [
            *line, row["images"], f"{row['confirmed']:.2f}", f"{row['confirmed_reals']:.2f}", value([row], "kid"),
            value([row], "recall"),
        ])  # fmt: skip
    yield table(["trained", "on", "images", "confirmed", "of reals", "KID", "recall"], found) + "\n"


def transfer(rows: list[Row], rest: list[Row]) -> Iterator[str]:
    """The section of trainings that start from another set's run, beside those from first weights."""
    if not rows:
        return
    yield "\n## Started from another set\n\nAt equal time, without the time of the run from which they start.\n\n"
    alone = {(where(row), row["who"], row["seed"]): row for row in rest}
    names = {row["name"]: f"{row['data']} {row['side']}" for row in rest}
    found = []
    for row in sorted(rows, key=where):
        both = alone[where(row), row["who"], row["seed"]], row
        shown = [
            "**failed**" if each["failure"] else value([each], name) for name in ("kid", "recall") for each in both
        ]
        found.append([row["who"], f"{row['data']} {row['side']}", row["number"], names[row["start"]], *shown])
    yield table(["trained", "on", "images", "from", "KID alone", "started", "recall alone", "started"], found) + "\n"


def page(found: Row) -> str:
    """The page."""
    rows, at, machine = found["rows"], found["minutes"], found["machine"]
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("plain", "classes", "transfer")}
    features = sorted({row["features"] for row in rows if not row["failure"]})
    left = f"; {found['left']} of those asked for are still to do" if found["left"] else ""
    seeds = len({row["seed"] for row in rows})
    parts = [
        "# Good pictures from few images\n\nWhich recipe makes the best pictures of few images in the same time, and "
        "how do other libraries' own trainings do beside them?\n\n"
        f"**What was run**: {len(rows)} trainings, {at:g} minute{'s' if at != 1 else ''} each, {seeds} "
        f"seed{'s' if seeds != 1 else ''}, on one {machine['device']}, torch {machine['torch']}{left}.\n"
    ]
    if found["smoke"]:
        parts.append("\n**A trial of tiny trainings: no record.**\n")
    if machine["device"].startswith("CPU"):
        parts.append(
            "\n**Nothing here was run on a GPU**, nor were other libraries trained. On a CPU, recipes made for GPUs "
            "end after a handful of steps, as the table shows: their rows say what they do in this time, not what "
            "they can do.\n"
        )
    parts.append(
        "\nA few steps of each recipe are timed first. It then takes the number of steps, and with it the schedules, "
        "that fits into the time; a clock stops what takes longer. Seconds count the start too. 30 % of the images "
        "are held out (whole patients or photographs, where known), and as many samples are compared with them; "
        f"features: {', '.join(features)}. Errors are standard errors. Memorisation compares samples with training "
        "images: 0.5 is as new as held-out images, 1 is copies, 0 is far from all real images. FD and recall depend "
        "on the number of images: compare within a table, but not with the row *between reals*, which compares "
        "halves of the held-out images.\n"
    )
    parts += [*plain(by_kind["plain"]), *classes(by_kind["classes"]), *transfer(by_kind["transfer"], by_kind["plain"])]
    if failures := [row for row in rows if row["failure"]]:
        parts.append("\n## Failed\n\nThey are tried again once their folder in `jobs/` is deleted.\n\n")
        parts += [f"- `{row['name']}`: {row['failure']}\n" for row in failures]
    return "".join([*parts, EPILOGUE])


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(PAGE.with_suffix(".json").read_text())))
