"""Which recipe makes the best pictures of few images? Every recipe at equal time, and other libraries beside them.

    python tests/benchmarks/few_images.py --data FOLDER --limit 9      again and again, until it says that all is done
    python tests/benchmarks/few_images.py --smoke --out FOLDER         tiny trainings on the CPU, to see whether it runs

It first says what it will cost. Ctrl-C, or the limit in minutes, stops it; the same command goes on, and what is
finished is kept. After each stop it writes few-images.json, few-images.md and pictures from what there is into --out;
with --docs docs they become the page docs/measured/few-images.md. What fails is a marked row.

A training is of a recipe (gankit's own or of plugins/), a data set at a size, a number of images and a seed. Sets other
than the eyes are npz files whose names begin so, under --data. Nothing is read from a network. torch-mimicry comes from
the folder .bench, which `make bench` fills; StyleGAN2-ADA from a clone of NVIDIA's stylegan3 that --stylegan names. It
needs a GPU and a compiler, and is not resumed: give --limit more than --minutes.
"""

from __future__ import annotations

import _thread
import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import platform
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import few_images_page
import few_images_peers
import gpu
import numpy as np
import torch
from few_images_peers import PEERS, clock

import gankit
from gankit import seeds
from gankit.errors import GankitError, RunError
from gankit.experiments.recipe_files import fixed_recipe_names, recipe_facts
from gankit.experiments.selection import select_images
from gankit.images.pictures import grid_png
from gankit.interfaces import Dataset
from gankit.runs.run import Run, choose_device
from gankit.studies.fitting import FitSettings, TrainingSet, apply, class_weights, fit
from gankit.studies.jobs import Job, run_jobs, unfinished
from gankit.studies.labelled import class_labels
from gankit.studies.trainings import RUN
from gankit.training.timing import time_training

Values = dict[str, Any]
Place = tuple[str, int]

ROOT = Path(__file__).parents[2]
PLUGINS = ("gankit-fastgan", "gankit-adaptive-augment", "gankit-stylegan2")  # the last one imports the second
SETS = ["eyes:64", "eyes:128", "bccd_cells:64", "retinamnist:32", "breastmnist:32"]
KINDS = ["plain", "classes", "transfer"]
HELD_OUT = 0.3
METRICS = ["frechet", "kid", "precision-recall", "memorisation"]
SHOWN = 12
"""Samples of each training that the pictures show: the first ones."""
TIMING = 0.02
"""The share of a training's time in which steps are timed before it begins, on top of the first, untimed ones."""
JUDGING = 30.0
"""Seconds that sampling and evaluating are expected to take."""
JUDGE_STEPS = 1000
"""Of the classifier that looks for the class asked for; fewer where trainings take less than a minute."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training."""

    who: str  # a recipe or a peer
    data: str
    side: int
    number: str  # of training images; "all" without those that are held out
    kind: str = "plain"  # or "classes", conditioned on them, or "transfer", started from the run of another set
    seed: int = 0
    start: str = ""  # the cell from whose run it starts

    @property
    def name(self) -> str:
        """Of its folder."""
        who = re.sub(r"[^\w.-]", "-", self.who)
        return f"{who}.{self.data}-{self.side}.{self.number}.{self.kind}.{self.seed}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What holds for all trainings."""

    minutes: float
    folder: Path  # of data sets
    stylegan: Path | None
    features: str | None
    overrides: tuple[str, ...]

    def data(self, cell: Cell) -> list[str]:
        """Settings of the data table; the same images are held out whatever the number."""
        source = ["data.name=eyes"] if cell.data == "eyes" else ["data.name=npz", f"data.path={self.find(cell.data)}"]
        number = "none" if cell.number == "all" else cell.number
        split = [f"data.held_out={HELD_OUT}", "data.split_seed=0", f"data.subset={number}"]
        return [*source, f"data.size={cell.side}", f"data.flip={str(cell.data == 'eyes').lower()}", *split]

    def find(self, data: str) -> Path:
        """The npz file whose name begins so, somewhere in the folder."""
        files = sorted(self.folder.rglob(f"{data}*.npz"))
        if not files:
            raise RunError(f"--data {self.folder}: no file {data}*.npz there; name the folder, or other --sets")
        return files[0].absolute()

    def settings(self, cell: Cell, folder: Path) -> list[str]:
        """Overrides of a recipe."""
        start = [f"training.start_from={(folder.parent / cell.start / RUN).absolute()}"] if cell.start else []
        own = [f"data.conditional={str(cell.kind == 'classes').lower()}", f"training.seed={cell.seed}"]
        return [*self.data(cell), *own, "evaluation.every=0", *start, *self.overrides]


def place(text: str) -> Place:
    """A set and the side of its images, from NAME:SIDE."""
    name, _, side = text.partition(":")
    return name, int(side)


def amount(number: str) -> float:
    """A number of training images; all are more than any."""
    return float("inf") if number == "all" else int(number)


def fits(who: str, side: int) -> bool:
    """Whether a recipe or peer is made for this size."""
    if who in PEERS:
        return side in PEERS[who]
    sizes = [int(size) for size in re.findall(r"(\d+)x", recipe_facts(who)["Sizes"])]
    return min(sizes) <= side <= max(sizes)


def plain_cells(places: list[Place], numbers: list[str], recipes: list[str], count: int) -> Iterator[Cell]:
    """Trainings from first weights: the most images first, the later seeds last."""
    order = itertools.product(range(count), sorted(numbers, key=amount, reverse=True), places, recipes)
    for seed, number, (data, side), who in order:
        if fits(who, side):
            yield Cell(who, data, side, number, seed=seed)


def more_cells(cells: list[Cell], places: list[Place]) -> Iterator[Cell]:
    """Trainings with classes on the most images; on the fewest, those that start from the set named before theirs."""
    fewest, most = (end((cell.number for cell in cells), key=amount) for end in (min, max))
    before = dict(itertools.pairwise(places[::-1]))
    for cell in (cell for cell in cells if cell.who not in PEERS):
        if cell.number == most:
            yield dataclasses.replace(cell, kind="classes")
        if cell.number == fewest and (source := before.get((cell.data, cell.side))) and fits(cell.who, source[1]):
            start = Cell(cell.who, *source, most, seed=cell.seed).name
            yield dataclasses.replace(cell, kind="transfer", start=start)


def steps_in(experiment: gankit.Experiment, minutes: float) -> int:
    """How many steps take so long here."""
    return max(int(60 * minutes / time_training(experiment, limit=60 * minutes * TIMING)), 1)


def train_recipe(cell: Cell, plan: Plan, folder: Path) -> Run:
    """The run of a recipe after its time, begun or resumed; its schedules are made for the steps that fit into it."""
    path = folder / RUN
    file = path / "experiment.toml"
    if not file.is_file():
        settings = plan.settings(cell, folder)
        steps = steps_in(gankit.load(cell.who, *settings), plan.minutes)
        limits = f"training.steps={steps}", f"training.max_minutes={plan.minutes}"
        with clock(folder):
            return gankit.train(gankit.load(cell.who, *settings, *limits), path)
    with clock(folder) as seconds:
        left = plan.minutes - seconds() / 60
        if left <= 0:
            return gankit.open_run(path)
        file.write_text(re.sub(r"(?m)^max_minutes = .*$", f"max_minutes = {left:.5f}", file.read_text()))
        return gankit.resume(path)


def confirmed(cell: Cell, plan: Plan, folder: Path, samples: few_images_peers.Images, held: Dataset) -> Values:
    """The shares of samples, and of held-out images, in which a classifier of all training images sees their class."""
    everything = plan.data(dataclasses.replace(cell, number="all"))
    pool, _ = select_images(gankit.load("resnet-small", *everything, *plan.overrides).data, 0)
    labels, classes = class_labels(pool), pool.image.classes
    settings = FitSettings(steps=max(int(min(plan.minutes, 1) * JUDGE_STEPS), 1))
    seeds.seed_torch(0, "judge")
    network = settings.new_network(pool.image, classes).to(choose_device("auto"))
    targets, weights = torch.from_numpy(labels.copy()), class_weights(labels, classes)
    fit(network, TrainingSet(np.asarray(pool.images), targets, pool, weights=weights), settings, 0, folder / "judge")
    sides = {"confirmed": gankit.wrap("dataset", samples), "confirmed_reals": held}
    return {name: float((apply(network, side).argmax(1) == class_labels(held)).mean()) for name, side in sides.items()}


def do(cell: Cell, plan: Plan, folder: Path) -> Values:
    """What becomes of one cell; whatever goes wrong with it, the others go on."""
    try:
        return train_and_judge(cell, plan, folder)
    except GankitError:
        raise
    except Exception as error:
        raise RunError(f"{type(error).__name__}: {error}") from error


def train_and_judge(cell: Cell, plan: Plan, folder: Path) -> Values:
    """Its facts and values; the first samples are kept for the pictures."""
    reals, held = select_images(gankit.load("resnet-small", *plan.data(cell), *plan.overrides).data, 0)
    assert held is not None
    classes: Values = {}
    if cell.who in PEERS:
        samples, steps = few_images_peers.train(cell, plan, folder, reals, len(held))
    else:
        run = train_recipe(cell, plan, folder)
        samples = run.sample(len(held), class_labels(held) if run.image.classes else None, seed=cell.seed + 1)
        steps = run.steps
        classes = confirmed(cell, plan, folder, samples, held) if run.image.classes else {}
    np.save(folder / "shown.npy", samples[:SHOWN])
    report = gankit.evaluate(samples, held, METRICS, plan.features, training=reals)
    values = {
        name: {"value": entry["value"], "error": entry["standard_error"], "floor": entry["real_vs_real"]["value"]}
        for name, entry in report["metrics"].items() if name in few_images_page.VALUES
    }  # fmt: skip
    facts = {"images": len(reals), "samples": len(samples), "steps": steps, "features": report["protocol"]["features"]}
    return {**facts, "seconds": float((folder / few_images_peers.CLOCK).read_text()), **values, **classes}


def machine() -> Values:
    """What the trainings ran on."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU (threads: {torch.get_num_threads()})"
    return {
        "device": name,
        "torch": torch.__version__,
        "gankit": gankit.__version__,
        "python": platform.python_version(),
    }


def write(found: Values, jobs: Path, page: Path, images: Path) -> None:
    """The record, the page, and its pictures: a row of the first samples for each training, in the table's order."""
    for folder in (page.parent, images):
        folder.mkdir(parents=True, exist_ok=True)
    page.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    page.write_text(few_images_page.page(found))
    for where, rows in few_images_page.pictured(found["rows"]).items():
        shown = [np.load(jobs / row["name"] / "shown.npy") for row in rows]
        (images / few_images_page.picture(where)).write_bytes(grid_png(np.concatenate(shown), (0.0, 255.0), SHOWN))


def run(cells: list[Cell], plan: Plan, given: argparse.Namespace) -> Values:
    """Do what is not done, until the limit, and write what there is."""
    folder, settings = given.out / "jobs", given.out / "settings.json"
    marks = json.dumps([plan.minutes, plan.features, *plan.overrides])  # of trainings that may stand side by side
    if settings.is_file() and settings.read_text() != marks:
        raise RunError(f"{given.out} has trainings of other minutes or settings: choose another --out")
    given.out.mkdir(parents=True, exist_ok=True)
    settings.write_text(marks)
    jobs = {Job(cell.name, functools.partial(do, cell, plan), 60 * plan.minutes + JUDGING): cell for cell in cells}
    todo = unfinished(jobs, folder)
    hours = sum(job.cost for job in todo) / 3600
    print(f"{len(jobs)} trainings of {plan.minutes:g} minutes, {len(todo)} to do: about {hours:.1f} hours; "
          "stop with Ctrl-C, and go on with the same command", flush=True)  # fmt: skip
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would never hear it
    limit = threading.Timer(60 * given.limit, _thread.interrupt_main) if given.limit else None
    with contextlib.suppress(KeyboardInterrupt):
        try:
            if limit:
                limit.start()
            run_jobs(list(jobs), folder)
        finally:
            if limit:
                limit.cancel()
    left = unfinished(jobs, folder)
    done = [job for job in jobs if job not in left]
    rows = []
    for job, outcome in zip(done, run_jobs(done, folder, quiet=True).values(), strict=True):
        rows.append({**dataclasses.asdict(jobs[job]), "name": job.name, "failure": outcome.failure, **outcome.result})
    found = {"smoke": given.smoke, "minutes": plan.minutes, "machine": machine(), "left": len(left), "rows": rows}
    write(found, folder, given.out / "few-images.md", given.out)
    if given.docs:
        write(found, folder, given.docs / "measured" / "few-images.md", given.docs / "images")
    print(f"{given.out}/few-images.md: {len(done)} of {len(jobs)} trainings{'' if left else ', all done'}")
    return found


def main(arguments: list[str] | None = None) -> Values:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings of all recipes, as key.path=value")
    parser.add_argument("--out", type=Path, default=Path("runs/few-images"))
    parser.add_argument("--data", type=Path, default=Path(), help="the folder of npz files")
    parser.add_argument("--sets", nargs="+", type=place, default=[place(text) for text in SETS], help="NAME:SIDE")
    parser.add_argument("--numbers", nargs="+", default=["100", "300", "all"], help="of training images")
    parser.add_argument("--recipes", nargs="+", help=f"of recipes and {', '.join(PEERS)}; by default all")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--minutes", type=float, default=6.0, help="of each training")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=float, help="minutes after which this call stops")
    parser.add_argument("--features", help="by default those of `gankit evaluate`")
    parser.add_argument("--stylegan", type=Path, help="a clone of NVIDIA's stylegan3")
    parser.add_argument("--docs", type=Path, help="the project's docs, where the page is then written too")
    parser.add_argument("--smoke", action="store_true", help="tiny trainings of a step or so")
    given = parser.parse_args(arguments)
    if given.smoke:
        given.sets, given.numbers, given.minutes = [("eyes", 28), ("eyes", 32)], ["30"], 1e-5
        given.recipes = given.recipes or ["resnet-small", "StyleGAN2-ADA"]
        given.overrides += ["data.counts=[30,30,30]", "training.batch=4", "training.device=cpu"]
    if given.limit and given.stylegan and given.limit <= given.minutes:
        parser.error("--limit: StyleGAN2-ADA is not resumed; give more than --minutes")
    for plugin in PLUGINS:
        gpu.register_plugin(ROOT / "plugins" / plugin)
    features = "pixels" if given.smoke else given.features
    plan = Plan(given.minutes, given.data, given.stylegan, features, tuple(given.overrides))
    try:
        for data, _ in given.sets:
            if data != "eyes":
                plan.find(data)
        cells = list(plain_cells(given.sets, given.numbers, given.recipes or everyone(), given.seeds))
        if not cells:
            parser.error("--recipes: none of them is made for these sizes (gankit list recipes)")
        cells += [cell for cell in more_cells(cells, given.sets) if cell.kind in given.kinds]
        return run(cells, plan, given)
    except (GankitError, ValueError) as error:
        parser.error(str(error))


def everyone() -> list[str]:
    """All recipes, and what is trained beside them."""
    return sorted([*PEERS, *fixed_recipe_names(), *gankit.recipes.names()])


if __name__ == "__main__":
    main()
