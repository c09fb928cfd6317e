"""A long training of a tiny GAN: memory, open files and the time of a step must stay as they are.

`python tests/reliability/soak.py` trains 20,000 steps with lines of the log, grids and checkpoints, and compares the
last tenth with the second one: by then all that is made once has been made. The speed of a machine that does other
work too changes within minutes, so the time of a step is measured in that of work which stays the same, done in turns
with the steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gankit

RESULTS = Path(__file__).parent / "results"
SEED, STEPS = 0, 20_000
GROWTH, DRIFT = 1.02, 1.1
"""Bounds of the last tenth's resident memory, and of its processor time a step, in those of the second."""


def fixed_work() -> float:
    """Processor seconds of small kernels and their second derivatives, as a step has them, of always the same size."""
    began = time.process_time()
    draws = torch.Generator().manual_seed(SEED)
    images, kernel = (torch.randn(size, generator=draws, requires_grad=True) for size in [(4, 3, 8, 8), (4, 3, 3, 3)])
    for _ in range(100):
        scores = torch.nn.functional.conv2d(images, kernel, padding=1).tanh().sum()
        (slope,) = torch.autograd.grad(scores, images, create_graph=True)
        torch.autograd.grad(slope.square().sum(), kernel)
    return time.process_time() - began


def soak(steps: int, folder: Path) -> dict[str, Any]:
    """Train so many steps in a folder; what became of memory, open files and the time of a step."""
    images = np.random.default_rng(SEED).integers(0, 256, (24, 3, 8, 8), dtype=np.uint8)
    every = max(1, steps // 200)
    experiment = gankit.load(
        "wgan-gp", "generator.width=4", "generator.latent_dim=6", "critic.width=4", "critic.flat_blocks=1",
        f"training.steps={steps}", "training.batch=4", "training.generator_batch=4", "training.critic_steps=1",
        f"training.tick_every={every}", f"training.sample_every={20 * every}",
        f"training.checkpoint_every={20 * every}", f"training.seed={SEED}", "training.threads=1",
        "evaluation.features=pixels",
    )  # fmt: skip
    memory, files, ratios = list[int](), list[int](), list[float]()
    began = time.process_time()

    def note(_: dict[str, Any]) -> None:
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        files.append(len(os.listdir("/proc/self/fd")))
        nonlocal began
        seconds = time.process_time() - began
        ratios.append(seconds / every / fixed_work())
        began = time.process_time()

    gankit.train(experiment, folder / "run", data=gankit.wrap("dataset", images), on_tick=note)
    tenth = len(memory) // 10
    early, late = slice(tenth, 2 * tenth), slice(-tenth, None)
    values = {
        "memory": statistics.median(memory[late]) / statistics.median(memory[early]),
        "open files": max(files[late]) - max(files[early]),
        "time of a step": statistics.median(ratios[late]) / statistics.median(ratios[early]),
    }
    bad = [name for name, limit in (("memory", GROWTH), ("open files", 0), ("time of a step", DRIFT))
           if values[name] > limit]  # fmt: skip
    return {
        "what": "steps of one training", "seed": SEED, "tried": steps,
        "outcomes": {"within bounds" if not bad else f"growth of {', '.join(bad)}": steps},
        "values": {name: round(value, 4) for name, value in values.items()},
        "machine": f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores",
    }  # fmt: skip


def main() -> None:
    """Train, and write what was found; the exit code is 1 where something grew."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=STEPS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(given.count, Path(folder))
    given.results.mkdir(exist_ok=True)
    (given.results / "soak.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    sys.exit("within bounds" not in found["outcomes"])


if __name__ == "__main__":
    main()
