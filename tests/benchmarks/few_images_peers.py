"""Trainings of torch-mimicry and StyleGAN2-ADA on few images, as their authors wrote them, for few_images.py."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import speed_peers
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gankit.errors import RunError
from gankit.interfaces import Dataset
from gankit.runs.run import choose_device

if TYPE_CHECKING:
    from few_images import Cell, Plan

Images = NDArray[Any]

PEERS = {"torch-mimicry": (32, 64, 128), "StyleGAN2-ADA": (32, 64, 128)}
"""And the sizes for which they have networks."""
CLOCK = "trained.txt"


@contextlib.contextmanager
def clock(folder: Path) -> Iterator[Callable[[], float]]:
    """The seconds that this context has taken, with those of earlier starts in this folder."""
    file = folder / CLOCK
    before, start = float(file.read_text()) if file.is_file() else 0.0, time.monotonic()
    try:
        yield lambda: before + time.monotonic() - start
    finally:
        file.write_text(f"{before + time.monotonic() - start:.3f}")


def train(cell: Cell, plan: Plan, folder: Path, reals: Dataset, count: int) -> tuple[Images, int]:
    """So many samples of a peer that was trained on 8-bit images, and its steps or, of StyleGAN2, thousands of images.

    Raises:
        Missing: it is not installed.
        RunError: no clone was named, or no network was written in time.
    """
    return (mimicry if cell.who == "torch-mimicry" else stylegan)(cell, plan, folder, reals, count)


def mimicry(cell: Cell, plan: Plan, folder: Path, reals: Dataset, count: int) -> tuple[Images, int]:
    """torch-mimicry's WGAN-GP with its networks, steps and settings; its rate falls to 0 with the time.

    Its networks make colour: grey images are repeated, and the samples' channels averaged.
    """
    nets, log = (speed_peers.peer(f"torch_mimicry.{name}") for name in ("nets.wgan_gp", "training.metric_log"))
    device, saved = choose_device("auto"), folder / "networks.pt"
    torch.manual_seed(cell.seed)
    networks = [getattr(nets, f"WGANGP{part}{cell.side}")().to(device) for part in ("Generator", "Discriminator")]
    optimizers = [torch.optim.Adam(network.parameters(), **speed_peers.ADAM) for network in networks]
    (generator, critic), parts, steps = networks, [*networks, *optimizers], 0
    if saved.is_file():
        state = torch.load(saved, map_location=device)
        steps = state["steps"]
        for part, values in zip(parts, state["parts"], strict=True):
            part.load_state_dict(values)
    images = torch.from_numpy(np.asarray(reals.images)).to(device)

    def batch() -> tuple[Tensor, None]:
        rows = images[torch.randint(len(images), (min(64, len(images)),), device=device)]
        return (rows.float() / 127.5 - 1).expand(-1, 3, -1, -1), None

    try:
        with clock(folder) as seconds:
            while (left := 1 - seconds() / 60 / plan.minutes) > 0:
                for group in itertools.chain(*(optimizer.param_groups for optimizer in optimizers)):
                    group["lr"] = speed_peers.ADAM["lr"] * left
                said = log.MetricLog()
                for _ in range(speed_peers.CRITIC_STEPS):
                    real = batch()
                    critic.train_step(real_batch=real, netG=generator, optD=optimizers[1], log_data=said, device=device)
                generator.train_step(real_batch=real, netD=critic, optG=optimizers[0], log_data=said, device=device)
                steps += 1
    finally:
        torch.save({"steps": steps, "parts": [part.state_dict() for part in parts]}, saved)
    with torch.no_grad():
        pieces = [generator.generate_images(min(100, count - start), device) for start in range(0, count, 100)]
    made = torch.cat(pieces).cpu().clamp(-1, 1)
    made = made if reals.image.channels == 3 else made.mean(1, keepdim=True)
    return ((made + 1) * 127.5).round().to(torch.uint8).numpy(), steps


def stylegan(cell: Cell, plan: Plan, folder: Path, reals: Dataset, count: int) -> tuple[Images, int]:
    """NVIDIA's code with the settings that StyleGAN2-ADA's "auto" gives; its start and its compiling cost it time."""
    if plan.stylegan is None:
        raise RunError("no clone of stylegan3 was named (--stylegan)")
    pictures, runs, drawn = (folder.absolute() / name for name in ("reals", "runs", "drawn"))
    for old in (pictures, runs, drawn):  # of an interrupted training, which begins anew
        shutil.rmtree(old, ignore_errors=True)
    (folder / CLOCK).unlink(missing_ok=True)
    pictures.mkdir()
    for i, image in enumerate(np.asarray(reals.images)):
        Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(pictures / f"{i:05}.png")
    batch = max(min(4096 // cell.side, 32), 16)
    settings = {
        "outdir": runs, "data": pictures, "cfg": "stylegan2", "gpus": 1, "batch": batch, "seed": cell.seed,
        "gamma": 0.0002 * cell.side**2 / batch, "map-depth": 2, "glr": 0.0025, "dlr": 0.0025, "cbase": 16384,
        "metrics": "none", "tick": 1, "snap": 1, "kimg": 1_000_000,
    }  # fmt: skip

    def call(program: str, **options: Any) -> None:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        timeout = 60 * plan.minutes if program == "train.py" else None
        subprocess.run([sys.executable, program, *words], cwd=plan.stylegan, timeout=timeout, check=True)

    with clock(folder), contextlib.suppress(subprocess.TimeoutExpired):
        call("train.py", **settings)
    snapshots = sorted(runs.rglob("network-snapshot-*.pkl"))
    if not snapshots:
        raise RunError("it wrote no network in this time")
    call("gen_images.py", outdir=drawn, seeds=f"0-{count - 1}", network=snapshots[-1])
    made = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in sorted(drawn.glob("*.png"))])
    made = made.transpose(0, 3, 1, 2)[:, : reals.image.channels]
    return np.ascontiguousarray(made), int(snapshots[-1].stem.rpartition("-")[2])
