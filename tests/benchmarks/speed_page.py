"""docs/measured/speed-numbers.md and its pictures, written from the results of speed.py."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

DOCS = Path(__file__).parents[2] / "docs"
TARGETS = {
    "step": 1.5, "lazy": 2.3, "trainers": 2.0, "loop": 1.03, "share": 0.6, "memory": 0.75, "data": 50.0,
}  # fmt: skip
EXPECTED = {
    "batch": (1, "arithmetic is in proportion to the batch; fixed costs flatten the left end"),
    "side": (2, "pixels, that is the square of the side, in both networks' costliest layers"),
    "width": (2, "a convolution's arithmetic is in proportion to channels in times channels out"),
    "frechet": (1, "the products of features are linear in n once n exceeds the 64 dimensions"),
    "kid": (1, "a kernel between all pairs within blocks of 2000 images"),
    "precision-recall": (2, "distances between all pairs"),
}


def table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (head, ["---"] * len(head), *lines))


def seconds(value: float) -> str:
    if value < 0.1:
        return f"{value * 1000:.2g} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def ratio(row: Row) -> str:
    """Median with the least and greatest of the rounds."""
    return f"{row['median']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def verdict(value: float, target: float, *, least: bool = True) -> str:
    """Whether a target is met; a missed one says so."""
    met = value >= target if least else value <= target
    return "met" if met else "**missed**"


def slope(rows: Sequence[Row], clock: str = "wall_s") -> float:
    """The exponent of growth between the last two points: 1 is linear, 2 quadratic."""
    a, b = rows[-2:]
    return math.log(b[clock] / a[clock]) / math.log(b["x"] / a["x"])


def write(results: Row, docs: Path) -> str:
    """Writes the page and its pictures below a folder; gives the page."""
    text = page(results)
    (docs / "measured").mkdir(exist_ok=True)
    (docs / "images").mkdir(exist_ok=True)
    (docs / "measured" / "speed-numbers.md").write_text(text, encoding="utf-8")
    if "mimicry" in results and "trainers" in results:
        steps_picture(results, docs / "images" / "speed-steps.png")
    if "growth" in results:
        growth_picture(results["growth"], docs / "images" / "speed-growth.png")
    return text


def page(results: Row) -> str:
    """The page's text; parts that were not measured are left out."""
    facts, versions = results["machine"], results["machine"]["versions"]
    said = [
        "# Training in numbers",
        f"What a training step costs, beside torch-mimicry {versions['torch-mimicry']}, torchgan "
        f"{versions['torchgan']} and vegans {versions['vegans']} in the same process, taking turns. Medians are given, "
        "and ratios of each turn with the least and the greatest of them. `make bench` measures all of it again and "
        "writes this page. How gankit saves work is told [under Speed](../explanation/speed.md).",
    ]
    if results["quick"]:
        said.append("**These are figures of a trial run (`--quick`) with tiny networks: they show what is measured, "
                    "not how fast it is.**")  # fmt: skip
    said.append(
        f"Machine: {facts['processor']}, {facts['cores']} cores, {facts['threads']} threads, {facts['instructions']}; "
        f"Python {versions['python']}, torch {versions['torch']}, NumPy {versions['numpy']}."
    )
    parts = {
        "mimicry": mimicry_page, "trainers": trainers_page, "loop": loop_page, "limit": limit_page,
        "memory": memory_page, "data": data_page, "processes": processes_page, "growth": growth_page, "gpu": gpu_page,
    }  # fmt: skip
    for part, written in parts.items():
        if results.get(part) is not None:
            said += written(results[part])
    marks = ("|", "#", "![")
    wrapped = (text if text.startswith(marks) else textwrap.fill(text, 120, break_on_hyphens=False) for text in said)
    return "\n\n".join(wrapped) + "\n"


def steps(found: Sequence[Row]) -> str:
    lines = []
    for row in found:
        target = {"gankit": TARGETS["step"], "gankit, every=5": TARGETS["lazy"]}.get(row["who"])
        median = row["times"]["wall"]["median"]
        goal = f"{target:g}: {verdict(median, target)}" if target else ""
        lines.append((row["batch"], row["who"], seconds(row["wall_s"]), ratio(row["times"]["wall"]),
                      ratio(row["times"]["cpu"]), goal))  # fmt: skip
    return table(("batch", "who", "a step", "times faster", "by CPU time", "target"), lines)


def mimicry_page(found: list[Row]) -> list[str]:
    return [
        "## A step beside torch-mimicry's",
        f"One generator update after five critic updates of WGAN-GP at 32x32, both networks {found[0]['width']} "
        "channels wide; torch-mimicry by its own `train_step`, with batches that are there already, gankit with its "
        "data. `gankit` has the same mathematics (torch-mimicry up-samples bilinearly); with `every=5` the penalty is "
        "taken on every fifth critic update, with five times the weight; the whole recipe adds mirrored images, noise "
        "below a grey level and averaged weights.",
        steps(found),
        "![Times faster than each peer](../images/speed-steps.png)",
    ]


def trainers_page(found: list[Row]) -> list[str]:
    lines = [(row["who"], seconds(row["wall_s"]), ratio(row["times"]["wall"]), ratio(row["times"]["cpu"]),
              "" if row["who"] == "gankit" or "fused" in row["who"] else
              f"{TARGETS['trainers']:g}: {verdict(row['times']['wall']['median'], TARGETS['trainers'])}")
             for row in found]  # fmt: skip
    return [
        "## Other trainers with the same networks",
        f"gankit's own networks in the trainers of torchgan and vegans, batch {found[0]['batch']}: plain, as the two "
        "would have them, and fused with the memory format that gankit gives them, so that only the trainers differ. "
        "vegans is held to five critic steps, which it would forget; torchgan counts each of its two critic losses as "
        "a step.",
        table(("who", "a step", "times slower than gankit", "by CPU time", "target"), lines),
        "torchgan makes fakes with a graph, differentiates the generator on the critic's turn, and steps twice, once a "
        "loss. vegans trains as torch-mimicry does, so that nearly all that it loses with plain convolutions comes "
        "from them.",
    ]


def loop_page(found: list[Row]) -> list[str]:
    lines = [(row["batch"], *(seconds(row[who]["wall_s"] / row["steps"]) for who in ("hand", "gankit")),
              ratio(row["times"]["wall"]), ratio(row["times"]["cpu"]),
              f"{TARGETS['loop']:g}: {verdict(row['times']['wall']['median'], TARGETS['loop'], least=False)}")
             for row in found]  # fmt: skip
    return [
        "## What the trainer itself costs",
        "`gankit.train`, progress and log included, beside the whole recipe written out by hand over the same fused "
        "networks. A tick comes every few steps, and at each the loop by hand takes its turn. By hand, draws are "
        "torch's own and no run can be resumed.",
        table(("batch", "by hand, a step", "gankit.train", "ratio", "by CPU time", "target"), lines),
    ]


def limit_page(found: Row) -> list[str]:
    products = [(name, *(f"{value / 1e9:.0f}" for value in each.values()))
                for name, each in found["matrix_products"].items()]  # fmt: skip
    sizes = list(next(iter(found["matrix_products"].values())))
    shares = [(row["batch"], f"{row['flop'] / 1e9:.0f}", seconds(row["wall_s"]), f"{row['speed'] / 1e9:.0f}",
               f"{row['share']:.0%}", f"{TARGETS['share']:.0%}: {verdict(row['share'], TARGETS['share'])}")
              for row in found["steps"]]  # fmt: skip
    groups = sorted(found["steps"][0]["profile"], key=lambda key: -found["steps"][0]["profile"][key])
    spent = [(key, *(f"{row['profile'].get(key, 0):.1%}" for row in found["steps"])) for key in groups]
    return [
        "## Share of the machine's limit",
        "Square matrix products of n in float32, the best of some, in 10^9 operations a second:",
        table(("library", *(f"n = {size}" for size in sizes)), products),
        "A step's convolutions, counted as they run (so after fusing, second derivatives included), by torch's own "
        "formulas; the speed that follows; and its share of the fastest product above:",
        table(("batch", "10^9 operations", "a step", "10^9 a second", "share", "target"), shares),
        "Where the time goes, from a profile of one step:",
        table(("", *(f"batch {row['batch']}" for row in found["steps"])), spent),
    ]


def memory_page(found: list[Row]) -> list[str]:
    lines = [(row["who"], f"{row['before_mb']:.0f} MB", f"{row['growth_mb']:.0f} MB", f"{row['share']:.2f}",
              "" if row["who"] != "gankit" else
              f"{TARGETS['memory']:g}: {verdict(row['share'], TARGETS['memory'], least=False)}")
             for row in found]  # fmt: skip
    return [
        "## Memory",
        f"Each in a process of its own, batch {found[0]['batch']}: resident memory before the first step, and how far "
        "its peak in two steps lies above that.",
        table(("who", "before", "growth", "share of torch-mimicry's", "target"), lines),
    ]


def data_page(found: list[Row]) -> list[str]:
    lines = [(row["batch"], f"{row['delivered']:,.0f}", f"{row['used']:,.0f}", f"{row['times']:,.0f}",
              f"{TARGETS['data']:g}: {verdict(row['times'], TARGETS['data'])}") for row in found]  # fmt: skip
    return [
        "## Data",
        "Images a second at 32x32 that memory delivers to a turn, latents and all draws included (chosen, mirrored, "
        "converted, with noise below a grey level), and those that the critic uses:",
        table(("batch", "delivered", "used", "times", "target"), lines),
    ]


def processes_page(found: list[Row]) -> list[str]:
    lines = [(row["batch"], row["processes"], row["threads"], f"{row['images_per_second']:.0f}", f"{row['times']:.2f}")
             for row in found]  # fmt: skip
    return [
        "## Two processes",
        "`gankit train` by one process and by two under torchrun, the same global batch; real images a second:",
        table(("batch", "processes", "threads each", "images a second", "of the first"), lines),
        "One process with two threads and two with one have the same cores. Two processes split each batch, so that "
        "every operation is half as large, do the work that does not depend on the batch twice (kernels, optimiser), "
        "send gradients and statistics of batch normalisation to each other, and wait for the slower of the two; "
        "threads meet after each operation instead. Processes are for several machines or GPUs; on one CPU take "
        "threads, or [several trainings](../how-to/many-processes.md).",
    ]


def growth_page(found: Row) -> list[str]:
    lines = []
    for name, (expected, reason) in EXPECTED.items():
        rows = found[name]
        lines.append((name, f"{rows[0]['x']} to {rows[-1]['x']}", seconds(rows[0]["wall_s"]),
                      seconds(rows[-1]["wall_s"]), f"{slope(rows):.2f}", expected, reason))  # fmt: skip
    return [
        "## Growth",
        "Seconds of a step against batch, side of the images and width of the networks, and of metrics against the "
        "number of images a side (64 features). The exponent is that between the last two points: 1 is linear.",
        table(("", "from", "first", "last", "exponent", "theory", "why"), lines),
        "![Seconds against size, both logarithmic](../images/speed-growth.png)",
    ]


def gpu_page(found: Row) -> list[str]:
    return ["## On a GPU", f"The first table again, on {found['device']}:", steps(found["steps"])]


def steps_picture(results: Row, path: Path) -> None:
    """Bars: how many times faster than each peer, with the spread of the turns."""
    from matplotlib.figure import Figure

    bars = [(f"torch-mimicry, batch {row['batch']}{', every=5' if 'every' in row['who'] else ''}", row["times"]["wall"])
            for row in results["mimicry"] if row["who"] in ("gankit", "gankit, every=5")]  # fmt: skip
    bars += [(row["who"], row["times"]["wall"]) for row in results["trainers"] if row["who"] != "gankit"]
    figure = Figure(figsize=(8, 0.42 * len(bars) + 0.9), dpi=100, layout="constrained")
    axes = figure.subplots()
    medians = [each["median"] for _, each in bars]
    spread = [[each["median"] - each["low"] for _, each in bars], [each["high"] - each["median"] for _, each in bars]]
    axes.barh(range(len(bars)), medians, xerr=spread, color="#00897b", ecolor="#555555", capsize=3)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times faster: median of the turns, least and greatest")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def growth_picture(found: Row, path: Path) -> None:
    """Six panels with logarithmic axes; a dashed line has the slope that theory says."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(9, 5), dpi=100, layout="constrained")
    for axes, (name, (expected, _)) in zip(figure.subplots(2, 3).flat, EXPECTED.items(), strict=True):
        x, y = [row["x"] for row in found[name]], [row["wall_s"] for row in found[name]]
        axes.loglog(x, y, marker="o", color="#00897b")
        axes.loglog(x, [y[-1] * (each / x[-1]) ** expected for each in x], "--", color="#888888", linewidth=1)
        axes.set_title(f"step against {name}" if name in ("batch", "side", "width") else f"{name} against n", size=10)
        axes.set_xticks(x, [str(each) for each in x])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("seconds")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})
