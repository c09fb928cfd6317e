"""Training on one GPU: graphs beside eager turns, kernels, memory, bf16, determinism, and torch-mimicry's own step.

    python tests/benchmarks/gpu.py            every part, at most nine minutes; writes gpu.json and docs/measured/gpu.md
    python tests/benchmarks/gpu.py --smoke    tiny networks on the CPU, to see whether it runs; needs --out

A bare machine with one GPU needs no network: bring the wheels of gankit[offline] and what it depends on, and a folder
.bench made by `make bench` with torch-mimicry (without it that row is left out). FastGAN is read from plugins/. Parts
come in the order of their worth, and those for which no time is left are named. Both files are written anew after each
row, and what fails is named and leaves the rest as it is. Run again on the same machine and commit, it goes on with
the rows that are missing; delete gpu.json to measure all anew.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import platform
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gpu_page
import numpy as np
import speed_peers
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

import gankit
from gankit.errors import typed_line
from gankit.evaluation.extraction import extractor
from gankit.files import write_atomically
from gankit.runs.networks import generate_batches
from gankit.training.data import prepare
from gankit.training.execution.graphs import WARM_UPS, Graphs
from gankit.training.log import TickLog
from gankit.training.step import Stepper

Row = dict[str, Any]
Case = partial[Iterator[Row]]
"""Measures one thing: a function of the benchmark and of what the rows are about."""

HERE = Path(__file__).parent
FASTGAN = HERE.parents[1] / "plugins" / "gankit-fastgan"
LIMIT = 8.5 * 60
"""Seconds after which no row begins, so that everything takes nine minutes with the imports and the last row."""
WHOLE = ("data.flip=true", "training.dequantise=true", "training.averaging=0.999")
SAME = ("data.flip=false", "training.dequantise=false", "training.averaging=0")
"""What torch-mimicry does not do: mirrored images, noise below a grey level, averaged weights."""
CASES: list[tuple[str, int, int]] = [
    *(("wgan-gp", side, 64 if side == 32 else 32) for side in (32, 64, 128)),
    ("fastgan", 256, 8), ("fastgan", 64, 16), ("wgan-gp-diffaugment", 64, 64), ("wgan-gp-64", 64, 64),
    ("dcgan", 64, 64), ("fastgan", 128, 8), ("dcgan", 32, 64), ("wgan-gp-diffaugment", 32, 64),
    ("dcgan", 128, 64), ("wgan-gp-diffaugment", 128, 32), ("fastgan", 32, 16),
    ("wgan-gp", 256, 8), ("dcgan", 256, 16), ("wgan-gp-diffaugment", 256, 8),
]  # fmt: skip
"""Recipe, side of the images and batch."""


class Bench:
    """One run of the benchmark: the device, the size of the work, and the time that is left."""

    def __init__(self, smoke: bool, limit: float = LIMIT) -> None:
        self.smoke, self.end = smoke, time.monotonic() + limit
        self.device = torch.device("cpu" if smoke else "cuda")
        self.rounds, self.steps = (1, 1) if smoke else (5, 4)
        self.not_run: list[str] = []

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], count: int) -> float:
        """Seconds of one call, the median of rounds of so many calls."""
        taken = []
        for _ in range(self.rounds):
            self.wait()
            start = time.perf_counter()
            for _ in range(count):
                work()
            self.wait()
            taken.append((time.perf_counter() - start) / count)
        return statistics.median(taken)

    def kernels(self, work: Callable[[], Any]) -> Row:
        """Milliseconds in which the GPU computes in one call, and the number of its kernels; empty on a CPU."""
        if self.device.type != "cuda":
            return {}
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            work()
            self.wait()
        events = [
            event for event in recorded.events()
            if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
        ]  # fmt: skip
        return {"kernels_ms": sum(event.device_time for event in events) / 1000, "kernels": len(events)}

    def stepper(self, recipe: str, side: int, batch: int, *more: str) -> Stepper:
        tiny = ["generator.width=4", "critic.width=4", "training.critic_steps=1"] if self.smoke else []
        if self.smoke:
            side, batch = 32 if recipe == "fastgan" else 8, 4
        settings = [
            f"data.size={side}", f"training.batch={batch}", f"training.generator_batch={batch}",
            f"training.device={self.device.type}", *tiny, *more,
        ]  # fmt: skip
        experiment = gankit.load(FASTGAN / "fastgan.toml" if recipe == "fastgan" else recipe, *settings)
        if recipe == "fastgan" and not self.smoke:
            experiment = gankit.load(experiment, "generator.width=64", "critic.width=64")
        experiment = gankit.load(experiment, "data.subset=none")
        return Stepper(experiment, prepare(experiment.data, 0, images(side, 64 if self.smoke else 1024)), log())

    @contextlib.contextmanager
    def running(self, recipe: str, side: int, batch: int, *more: str) -> Iterator[Stepper]:
        """A training past its first steps; its memory is freed at the end."""
        gc.collect()  # the first training of a process stays until then, in the frames in which torch imports more
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        stepper = self.stepper(recipe, side, batch, *more)
        with stepper.computing():
            for _ in range(1 if self.smoke else WARM_UPS + 3):
                stepper.advance()
            yield stepper

    def measure(self, recipe: str, side: int, batch: int, *more: str) -> Row:
        """As `measured`, of a training of its own: its memory is no part of the next one's."""
        with self.running(recipe, side, batch, *more) as stepper:
            return self.measured(stepper)

    def measured(self, stepper: Stepper) -> Row:
        """Milliseconds of a step, its kernels, memory, and images a second."""
        wall = self.seconds(stepper.advance, self.steps)
        shown = stepper.settings.batch * stepper.settings.critic_steps
        memory = {"memory_mb": torch.cuda.max_memory_reserved() / 1e6} if self.device.type == "cuda" else {}
        graphs = isinstance(stepper.execution, Graphs) and bool(stepper.execution.recorded)
        return {
            "step_ms": 1000 * wall, "images_per_second": shown / wall, "graphs": graphs, **memory,
            **self.kernels(stepper.advance), "said": list(stepper.warnings),
        }  # fmt: skip


def log() -> TickLog:
    return TickLog(Path("unused"), tensorboard=False)


def images(side: int, count: int) -> Any:
    values = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)
    return gankit.wrap("dataset", values)


# The parts


def step_part(bench: Bench) -> Iterator[Case]:
    """A step of every recipe and size, eagerly and as graphs."""
    for recipe, side, batch in CASES[:4:3] if bench.smoke else CASES:
        yield partial(step, bench, recipe, side, batch)


def step(bench: Bench, recipe: str, side: int, batch: int) -> Iterator[Row]:
    ways = {"graphs": "training.graphs=auto", "eager": "training.graphs=false"}
    measured = {name: bench.measure(recipe, side, batch, *WHOLE, setting) for name, setting in ways.items()}
    yield {"recipe": recipe, "side": side, "batch": batch, **measured}


def mimicry_part(bench: Bench) -> Iterator[Case]:
    """WGAN-GP at 32x32 beside torch-mimicry's own step."""
    yield partial(mimicry, bench, "torch-mimicry")
    lazy = "losses.gradient-penalty.every=5"
    for who, more in (("gankit", SAME), ("gankit, penalty every 5th", (*SAME, lazy)), ("gankit, whole recipe", WHOLE)):
        yield partial(beside_mimicry, bench, who, *more)


def mimicry(bench: Bench, who: str) -> Iterator[Row]:
    batch, width = (4, 4) if bench.smoke else (64, 128)
    peer = speed_peers.mimicry(batch, width, str(bench.device))
    peer()
    yield {"who": who, "step_ms": 1000 * bench.seconds(peer, bench.steps)}


def beside_mimicry(bench: Bench, who: str, *more: str) -> Iterator[Row]:
    with bench.running("wgan-gp", 32, 64, *more) as stepper:
        for _ in range(2 * WARM_UPS if bench.smoke else 15):  # until every set of due losses is recorded
            stepper.advance()
        yield {"who": who, **bench.measured(stepper)}


def equality_part(bench: Bench) -> Iterator[Case]:
    """Whether eager, replayed and resumed trainings end bitwise equal."""
    cases: tuple[tuple[str, int, int, *tuple[str, ...]], ...] = (
        ("wgan-gp", 32, 16), ("wgan-gp-diffaugment", 32, 16), ("dcgan", 64, 16), ("fastgan", 64, 8),
        ("wgan-gp", 32, 16, "training.precision=bf16"), ("wgan-gp-64", 64, 8), ("r3gan", 32, 16),
    )  # fmt: skip
    for case in cases[:1] if bench.smoke else cases:
        yield partial(equality, bench, *case)


def equality(bench: Bench, recipe: str, side: int, batch: int, *settings: str) -> Iterator[Row]:
    half = 1 if bench.smoke else 4
    ended = {}

    def advanced(stepper: Stepper, steps: int) -> Stepper:
        with stepper.computing():
            for _ in range(steps):
                stepper.advance()
        return stepper

    for way in ("eager", "again", "replayed", "resumed"):
        more = (*settings, *(["training.graphs=false"] if way in ("eager", "again") else []))
        stepper = advanced(bench.stepper(recipe, side, batch, *WHOLE, *more), half if way == "resumed" else 2 * half)
        if way == "resumed":
            other = bench.stepper(recipe, side, batch, *WHOLE, *settings)
            other.load_state_dict(stepper.state_dict(), Path("state"))
            other.go_to(stepper.step)
            stepper = advanced(other, half)
        state = tree_leaves(stepper.state_dict())
        ended[way] = [value.cpu().clone() for value in state if isinstance(value, Tensor)]
    for way in ("again", "replayed", "resumed"):
        equal = all(torch.equal(a, b) for a, b in zip(ended["eager"], ended[way], strict=True))
        yield {"recipe": " ".join((recipe, *settings)), "side": side, "way": way, "equal": equal}


def arithmetic_part(bench: Bench) -> Iterator[Case]:
    """What determinism and exact float32 cost, and what bf16 gains."""
    ways = {"as it is": (), "not deterministic": ("training.deterministic=false",),
            "float32-exact": ("training.precision=float32-exact",), "bf16": ("training.precision=bf16",)}  # fmt: skip
    cases = (("wgan-gp", 32, 64), ("fastgan", 64, 16), ("wgan-gp-diffaugment", 64, 64), ("dcgan", 64, 64))
    for recipe, side, batch in cases[:1] if bench.smoke else cases:
        for way, more in ways.items():
            yield partial(computing, bench, recipe, side, batch, way, *more)


def computing(bench: Bench, recipe: str, side: int, batch: int, way: str, *more: str) -> Iterator[Row]:
    yield {"recipe": recipe, "side": side, "way": way, **bench.measure(recipe, side, batch, *WHOLE, *more)}


def record_part(bench: Bench) -> Iterator[Case]:
    """What it takes to record the turns of a training, with the eager turns beside which they are compared."""
    for recipe, side, batch in (("wgan-gp", 32, 64), ("fastgan", 256, 8))[: 1 if bench.smoke else 2]:
        yield partial(recording, bench, recipe, side, batch)


def recording(bench: Bench, recipe: str, side: int, batch: int) -> Iterator[Row]:
    stepper, taken = bench.stepper(recipe, side, batch, *WHOLE), []
    with stepper.computing():
        for _ in range(1 if bench.smoke else WARM_UPS + 3):
            taken.append(bench_once(bench, stepper.advance))
    yield {"recipe": recipe, "side": side, "first_s": taken[0], "all_s": sum(taken), "last_s": taken[-1]}


def bench_once(bench: Bench, work: Callable[[], Any]) -> float:
    bench.wait()
    start = time.perf_counter()
    work()
    bench.wait()
    return time.perf_counter() - start


def inference_part(bench: Bench) -> Iterator[Case]:
    """Images a second that are sampled, and that features are extracted from."""
    count = 64 if bench.smoke else 4096
    yield partial(sampling, bench, count)
    yield partial(features, bench, count)


def sampling(bench: Bench, count: int) -> Iterator[Row]:
    generator = bench.stepper("wgan-gp", 32, 64).averaged_generator().eval()
    latents = torch.randn(count, generator.latent_dim)
    next(generate_batches(generator, latents, None))  # libraries choose their kernels in the first
    taken = bench_once(bench, lambda: list(generate_batches(generator, latents, None)))
    yield {"what": "sampling wgan-gp 32x32", "images_per_second": count / taken}


def features(bench: Bench, count: int) -> Iterator[Row]:
    name, network = extractor("pixels" if bench.smoke else None, (3, 32, 32), bench.device.type)
    batch = torch.rand(64, 3, 32, 32, device=bench.device) * 255

    def extract() -> None:
        with torch.no_grad():
            for _ in range(count // 64):
                network(batch)

    extract()
    yield {"what": f"features {name}, 32x32", "images_per_second": count / bench_once(bench, extract)}


PARTS: dict[str, Callable[[Bench], Iterator[Case]]] = {
    "equality": equality_part, "mimicry": mimicry_part, "arithmetic": arithmetic_part, "record": record_part,
    "inference": inference_part, "step": step_part,
}  # fmt: skip


def run(bench: Bench, save: Callable[[Row], None], earlier: Row) -> Row:
    """The rows of every part, until the time is used up; what there is so far is saved after each.

    Those of an earlier run on the same machine are kept, unless it was whole.
    """
    found: Row = {"machine": machine(bench), "smoke": bench.smoke, "done": [], **{name: [] for name in PARTS}}
    if all(earlier.get(key) == found[key] for key in ("machine", "smoke")) and not earlier["whole"]:
        found |= {key: earlier[key] for key in ("done", *PARTS)}
    found |= {"not_run": bench.not_run, "whole": False}
    left_out = 0
    if bench.device.type != "cuda":
        bench.not_run.append("everything that needs a GPU: graphs, kernels, memory, TF32")
    for name, part in PARTS.items():
        for case in part(bench):
            about = " ".join(map(str, (name, case.func.__name__, *case.args[1:])))
            if about in found["done"]:
                continue
            left_out += 1
            if time.monotonic() > bench.end:
                bench.not_run.append(f"{name}: what follows row {len(found[name])}, for want of time")
                break
            try:
                for row in case():
                    found[name].append(row)
                    print(name, json.dumps(row), flush=True)
                found["done"].append(about)
                left_out -= 1
            except Exception as error:  # all others still count
                bench.not_run.append(f"{name}: {typed_line(error, 200)} ({' '.join(map(str, case.args[1:]))})")
            save(found)
    return found | {"whole": not left_out}


def machine(bench: Bench) -> Row:
    cuda = bench.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else "CPU", "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None, "cudnn": torch.backends.cudnn.version() if cuda else None,
        "python": platform.python_version(), "gankit": gankit.__version__, "commit": commit(),
    }  # fmt: skip


def commit() -> str | None:
    command = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
    return None


def register_plugin(folder: Path) -> None:
    """Take the parts of a plug-in that lies in this folder, where they are not installed."""
    sys.path.insert(0, str(folder))
    groups = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    for group, parts in groups.items():
        registry = getattr(gankit, group.removeprefix("gankit."))
        known = {name.rpartition(":")[2] for name in registry.names()}
        for name, place in parts.items():
            module, _, part = place.partition(":")
            if name not in known:
                registry.register(name)(getattr(importlib.import_module(module), part))


def main(arguments: list[str] | None = None) -> Row:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny networks on the CPU")
    parser.add_argument("--out", type=Path, help="a folder for gpu.json and gpu.md, in place of the project's")
    parser.add_argument("--minutes", type=float, default=LIMIT / 60, help="the time for everything")
    given = parser.parse_args(arguments)
    if given.smoke and given.out is None:
        parser.error("--smoke needs --out: what it measures is no record")
    if not given.smoke and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; --smoke runs on the CPU")
    with contextlib.suppress(OSError):  # rows of a plug-in that is not there say so
        register_plugin(FASTGAN)
    folder = HERE if given.out is None else given.out
    folder.mkdir(parents=True, exist_ok=True)
    page = gpu_page.PAGE if given.out is None else given.out / "gpu.md"

    def save(results: Row) -> None:
        write_atomically(folder / "gpu.json", json.dumps(results, indent=1) + "\n")  # may be stopped at any moment
        page.write_text(gpu_page.page(results))

    earlier = folder / "gpu.json"
    results = run(
        Bench(given.smoke, 60 * given.minutes), save, json.loads(earlier.read_text()) if earlier.is_file() else {}
    )
    save(results)
    for line in results["not_run"]:
        print(f"not run: {line}")
    return results


if __name__ == "__main__":
    main()
