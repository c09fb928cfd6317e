"""Speed and memory of training, beside torch-mimicry, torchgan and vegans in the same process.

    python tests/benchmarks/speed.py                    all parts at full size: a quarter of an hour on two idle cores
    python tests/benchmarks/speed.py --quick            tiny networks, to see whether it runs
    python tests/benchmarks/speed.py --only loop limit  these parts again; the rest of the file stays

Peers take turns with gankit (A B A B); medians count, and ratios are of the same turn. Results go to speed.json beside
this file, the page docs/measured/speed-numbers.md and its pictures are written from them. `make bench` installs the
peers before.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import speed_page
import speed_peers
import torch
from flops import Flops
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

import gankit
from gankit.interfaces import ImageSpec, Result, Rows
from gankit.training.step import Stepper
from gankit.training.trainer import Trainer

Row = dict[str, Any]

JSON = Path(__file__).with_suffix(".json")
THREADS = min(2, os.cpu_count() or 1)
"""Of this process and those that it starts; `--threads` sets another number."""
CRITIC_STEPS = speed_peers.CRITIC_STEPS
SAME = ("data.flip=false", "training.dequantise=false", "training.averaging=0")
"""What torch-mimicry does not do: mirrored images, noise below a grey level, averaged weights."""
NEVER = 10**9

bar: tqdm[Any] = tqdm(disable=True)


# Clocks


def clocked(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of a call: on the wall, and of all cores of this process together."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def in_turn(label: str, calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each call in each round, after one that does not count."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for i in range(rounds + 1):
        for name, call in calls.items():
            bar.set_description(f"{label}: {name}")
            seconds = clocked(call)
            bar.update()
            if i:
                taken[name].append(seconds)
    return taken


def medians(taken: Sequence[tuple[float, float]]) -> Row:
    """Of the seconds of some rounds."""
    return {"wall_s": statistics.median(w for w, _ in taken), "cpu_s": statistics.median(c for _, c in taken)}


def ratios(above: Sequence[tuple[float, float]], below: Sequence[tuple[float, float]]) -> Row:
    """Of two calls: medians of the rounds' own ratios, and the least and greatest; of wall and of CPU seconds."""
    row: Row = {}
    for place, clock in enumerate(("wall", "cpu")):
        each = [a[place] / b[place] for a, b in zip(above, below, strict=True)]
        row[clock] = {"median": statistics.median(each), "low": min(each), "high": max(each)}
    return row


# gankit's side


def pixels(n: int, size: int) -> Any:
    """(n, 3, size, size) uint8 noise: what a step costs does not depend on what it sees."""
    return np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def experiment(batch: int, width: int, size: int = 32, *more: str) -> Any:
    return gankit.load(
        "wgan-gp", f"data.size={size}", f"generator.width={width}", f"critic.width={width}", f"training.batch={batch}",
        f"training.generator_batch={batch}", f"training.critic_steps={CRITIC_STEPS}", f"training.threads={THREADS}",
        f"training.sample_every={NEVER}", f"training.checkpoint_every={NEVER}", *more,
    )  # fmt: skip


def updates(batch: int, width: int, size: int = 32, *more: str) -> Stepper:
    with tempfile.TemporaryDirectory() as folder:
        data = gankit.wrap("dataset", pixels(1024, size))
        return Trainer(experiment(batch, width, size, *more), Path(folder) / "run", data).stepper


# (1) torch-mimicry's own train_step


def mimicry_part(quick: bool, device: str = "cpu") -> list[Row]:
    width, found = (8 if quick else 128), []
    for batch, rounds in ((2, 2), (4, 2)) if quick else ((16, 9), (64, 5)):
        own = (*SAME, f"training.device={device}")
        calls = {
            "torch-mimicry": speed_peers.mimicry(batch, width, device),
            "gankit": updates(batch, width, 32, *own).advance,
            "gankit, every=5": updates(batch, width, 32, *own, "losses.gradient-penalty.every=5").advance,
            "gankit, whole recipe": updates(batch, width, 32, f"training.device={device}").advance,
        }
        taken = in_turn(f"step of {batch}", calls, rounds)
        found += [{"batch": batch, "width": width, "who": name, "rounds": rounds, **medians(taken[name]),
                   "times": ratios(taken["torch-mimicry"], taken[name])} for name in calls]  # fmt: skip
    return found


def gpu_part(quick: bool) -> Row | None:
    """The same on a GPU, where there is one."""
    if not torch.cuda.is_available():
        return None
    return {"device": torch.cuda.get_device_name(), "steps": mimicry_part(quick, "cuda")}


# (2) The trainers of torchgan and vegans


def networks(width: int, fused: bool) -> tuple[Any, Any]:
    """gankit's networks; plain convolutions in torch's own memory format, or fused in the trainer's."""
    image, made = ImageSpec(3, 32, 32), []
    for kind in ("generator", "critic"):
        network = gankit.build(kind, "resnet", image, width=width, fused=fused)
        made.append(network.to(memory_format=torch.channels_last) if fused else network)
    return made[0], made[1]


def trainers_part(quick: bool) -> list[Row]:
    batch, width, rounds = (2, 8, 1) if quick else (16, 128, 5)
    images = torch.rand(batch, 3, 32, 32) * 2 - 1
    calls: dict[str, Callable[[], Any]] = {"gankit": updates(batch, width, 32, *SAME).advance}
    for name, trainer in (("torchgan", speed_peers.torchgan), ("vegans", speed_peers.vegans)):
        for kind in ("plain", "fused"):
            generator, critic = networks(width, kind == "fused")
            calls[f"{name}, {kind}"] = trainer(generator, critic, images, generator.latent_dim)
    taken = in_turn("trainers", calls, rounds)
    return [{"batch": batch, "width": width, "who": name, "rounds": rounds, **medians(taken[name]),
             "times": ratios(taken[name], taken["gankit"])} for name in calls]  # fmt: skip


# (3) A loop by hand


def by_hand(batch: int, width: int) -> Callable[[], None]:
    """A step of the recipe written out, with all that it does, over the same networks and as many images."""
    images = torch.from_numpy(pixels(1024, 32))
    generator, critic = (network.train() for network in networks(width, True))
    averaged = [parameter.detach().clone() for parameter in generator.parameters()]
    optimizers = [torch.optim.Adam(n.parameters(), 2e-4, (0.0, 0.9), fused=True) for n in (generator, critic)]

    def reals() -> Tensor:
        raw = images[torch.randint(len(images), (batch,))]
        raw = torch.where(torch.rand(batch, 1, 1, 1) < 0.5, raw.flip(3), raw)
        real = raw.float() / 127.5 - 1 + (torch.rand(raw.shape) - 0.5) * (2 / 255)
        return real.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        for _ in range(CRITIC_STEPS):
            real = reals()
            with torch.no_grad():
                fake = generator(torch.randn(batch, generator.latent_dim))
            scores = critic(torch.cat([real, fake]))
            loss = scores[batch:].mean() - scores[:batch].mean()
            mixed = torch.lerp(fake, real, torch.rand(batch, 1, 1, 1)).requires_grad_()
            (gradient,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
            loss = loss + 10 * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
            optimizers[1].zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizers[1].step()
        critic.requires_grad_(False)
        loss = -critic(generator(torch.randn(batch, generator.latent_dim))).mean()
        optimizers[0].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizers[0].step()
        critic.requires_grad_(True)
        torch._foreach_lerp_(averaged, [parameter.detach() for parameter in generator.parameters()], 0.001)

    return step


def loop_part(quick: bool) -> list[Row]:
    """`gankit.train` as a whole, ticks and logs included; at every tick the loop by hand does as many steps."""
    found = []
    for batch, steps, rounds in ((2, 1, 2),) if quick else ((8, 4, 8), (16, 3, 7), (64, 2, 4)):
        width = 8 if quick else 128
        hand = by_hand(batch, width)
        taken: dict[str, list[tuple[float, float]]] = {"gankit": [], "hand": []}
        mark = [0.0, 0.0]

        def tick(row: Row, hand: Any = hand, taken: Any = taken, mark: Any = mark, steps: int = steps) -> None:
            taken["gankit"].append((time.perf_counter() - mark[0], time.process_time() - mark[1]))
            taken["hand"].append(clocked(lambda: [hand() for _ in range(steps)]))
            bar.update()
            mark[:] = time.perf_counter(), time.process_time()

        bar.set_description(f"loop of {batch}")
        with tempfile.TemporaryDirectory() as folder:
            gankit.train(
                experiment(batch, width, 32, f"training.steps={(rounds + 1) * steps}", f"training.tick_every={steps}"),
                Path(folder) / "run", data=gankit.wrap("dataset", pixels(1024, 32)), on_tick=tick,
            )  # fmt: skip
        own, other = taken["gankit"][1:], taken["hand"][1:]  # the first of each allocates
        found.append({
            "batch": batch, "width": width, "steps": steps, "rounds": rounds, "gankit": medians(own),
            "hand": medians(other), "times": ratios(own, other),
        })  # fmt: skip
    return found


# (4) The machine's own limit


GROUPS = {
    "convolutions": ("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution"),
    "their gradients": ("convolution_backward",),
    "copies and changes of layout": ("copy_", "clone", "contiguous", "cat", "fill_", "zero_", "_to_copy"),
    "activations": ("clamp_min", "relu", "threshold_backward", "tanh", "tanh_backward"),
    "sums and products of elements": ("add", "add_", "mul", "mul_", "div", "div_", "sub", "lerp", "sum", "mean"),
    "normalisation": ("native_batch_norm", "native_batch_norm_backward"),
    "resampling and kernels": ("avg_pool2d", "avg_pool2d_backward", "upsample_nearest2d",
                               "upsample_nearest2d_backward", "constant_pad_nd", "flip", "mm", "bmm"),
    "optimiser": ("_fused_adam_",),
}  # fmt: skip


def group(operation: str) -> str:
    """Where an operation of the profile belongs."""
    name = operation.removeprefix("aten::")
    return next((key for key, names in GROUPS.items() if name in names), "all else")


def multipliers(n: int) -> dict[str, Callable[[], Any]]:
    """The square matrix products of n that this machine's libraries offer."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    x, y = a.numpy(), b.numpy()
    return {
        "torch.mm": lambda: torch.mm(a, b),
        "NumPy": lambda: x @ y,
        "oneDNN": lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""),
    }


def limit_part(quick: bool) -> Row:
    width, found = (8 if quick else 128), []
    speeds: Row = {}
    for n in (64, 128) if quick else (512, 1024, 2048, 4096):
        for name, call in multipliers(n).items():
            best = min(clocked(call)[0] for _ in range(8 if n < 4096 else 3))
            speeds.setdefault(name, {})[str(n)] = 2 * n**3 / best
    best = max(max(each.values()) for each in speeds.values())
    for batch, rounds in ((2, 1),) if quick else ((16, 5), (64, 3)):
        trained = updates(batch, width, 32, *SAME)
        with Flops() as counted:
            trained.advance()
        seconds = medians(in_turn(f"share of {batch}", {"gankit": trained.advance}, rounds)["gankit"])
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            trained.advance()
        spent: dict[str, float] = {}
        for event in profiled.key_averages():
            key = group(event.key)
            spent[key] = spent.get(key, 0.0) + event.self_cpu_time_total
        flop = sum(counted.counts.values())
        found.append({
            "batch": batch, "width": width, "flop": flop, "counts": dict(counted.counts), **seconds,
            "speed": flop / seconds["wall_s"], "share": flop / seconds["wall_s"] / best,
            "profile": {key: value / sum(spent.values()) for key, value in spent.items()},
        })  # fmt: skip
    return {"matrix_products": speeds, "best": best, "steps": found}


# (5) Memory


def resident(key: str) -> int:
    """Kilobytes of this process in memory (VmRSS), or at most so far (VmHWM); Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


def memory_of(who: str, batch: int, width: int) -> None:
    """Prints how far the memory of this process grows in two steps, in megabytes; the process must be a fresh one."""
    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    lazy = ["losses.gradient-penalty.every=5"] if who == "gankit, every=5" else []
    step = (
        speed_peers.mimicry(batch, width) if who == "torch-mimicry" else updates(batch, width, 32, *SAME, *lazy).advance
    )
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    step(), step()
    print(json.dumps({"before_mb": before / 1024, "growth_mb": (resident("VmHWM") - before) / 1024}))


def memory_part(quick: bool) -> list[Row]:
    batch, width = (2, 8) if quick else (64, 128)
    grown: dict[str, list[Row]] = {"torch-mimicry": [], "gankit": [], "gankit, every=5": []}
    for _ in range(1 if quick else 3):
        for who, rows in grown.items():
            bar.set_description(f"memory: {who}")
            command = [sys.executable, __file__, "--threads", str(THREADS), "--memory", who, str(batch), str(width)]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            bar.update()
    found = []
    for who, rows in grown.items():
        growth = statistics.median(row["growth_mb"] for row in rows)
        peer = statistics.median(row["growth_mb"] for row in grown["torch-mimicry"])
        found.append({"who": who, "batch": batch, "width": width, "growth_mb": growth, "share": growth / peer,
                      "before_mb": statistics.median(row["before_mb"] for row in rows)})  # fmt: skip
    return found


# (6) Data


def data_part(quick: bool) -> list[Row]:
    found = []
    for batch in (2,) if quick else (16, 64):
        trained = updates(batch, 8 if quick else 128)
        numbers = iter(range(NEVER))

        def deliver(trained: Stepper = trained, numbers: Iterator[int] = numbers) -> None:
            for number in (next(numbers) for _ in range(50)):
                assert len(trained.turn("critic", gankit.distributed.shard(trained.settings.batch), number).real)

        taken = in_turn(f"data of {batch}", {"data": deliver, "step": trained.advance}, 3)
        delivered = 50 * batch / medians(taken["data"])["wall_s"]
        used = CRITIC_STEPS * batch / medians(taken["step"])["wall_s"]
        found.append({"batch": batch, "delivered": delivered, "used": used, "times": delivered / used})
    return found


# (7) Two processes


def speed_of(processes: int, threads: int, settings: Sequence[str], folder: Path) -> float:
    """Real images a second in one training by the command line; the median of its ticks but the first."""
    command = [sys.executable, "-m", *(["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
               "-m"] if processes > 1 else []), "gankit", "train", "wgan-gp", f"training.threads={threads}", *settings,
               "--out", str(folder)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return statistics.median(row["images_per_second"] for row in rows[1:])


def processes_part(quick: bool) -> list[Row]:
    found = []
    kinds = ((1, THREADS), (2, 1), (1, 1))
    for batch, width, steps in ((4, 8, 3),) if quick else ((16, 128, 8), (64, 128, 4)):
        speeds: dict[tuple[int, int], list[float]] = {kind: [] for kind in kinds}
        for _ in range(1 if quick else 2):
            for kind in kinds:
                bar.set_description(f"{kind[0]} processes, batch {batch}")
                with tempfile.TemporaryDirectory() as name:
                    np.savez(f"{name}/data.npz", images=pixels(256, 32).transpose(0, 2, 3, 1))
                    settings = [
                        "data.name=npz", f"data.path={name}/data.npz", "data.flip=false", f"generator.width={width}",
                        f"critic.width={width}", f"training.batch={batch}", f"training.generator_batch={batch}",
                        f"training.steps={steps}", "training.tick_every=1", f"training.sample_every={NEVER}",
                        f"training.checkpoint_every={NEVER}", "data.size=32",
                    ]  # fmt: skip
                    speeds[kind].append(speed_of(*kind, settings, Path(name) / "run"))
                bar.update()
        one = statistics.median(speeds[kinds[0]])
        found += [{"batch": batch, "processes": p, "threads": t, "images_per_second": statistics.median(each),
                   "times": statistics.median(each) / one} for (p, t), each in speeds.items()]  # fmt: skip
    return found


# (8) Growth


def growth_part(quick: bool) -> Row:
    """Seconds of a step against batch, side and width; of metrics against the number of images."""
    w = 4 if quick else 64
    sweeps = {
        "batch": [(b, w, 32) for b in ((2, 4) if quick else (2, 4, 8, 16, 32, 64))],
        "side": [(4, w // 2, s) for s in ((16, 32) if quick else (16, 32, 64, 128))],
        "width": [(8, c, 32) for c in ((4, 8) if quick else (16, 32, 64, 128, 256))],
    }
    found: Row = {}
    for name, cases in sweeps.items():
        place = {"batch": 0, "width": 1, "side": 2}[name]
        calls = {str(case[place]): updates(*case, *SAME).advance for case in cases}
        taken = in_turn(name, calls, 1 if quick else 3)
        found[name] = [{"x": int(x), **medians(each)} for x, each in taken.items()]
    rows = np.random.default_rng(0).normal(size=(2, 200 if quick else 8000, 64)).astype(np.float32)
    for name in ("frechet", "kid", "precision-recall"):
        calls = {}
        for n in (50, 100) if quick else (500, 1000, 2000, 4000, 8000):
            calls[str(n)] = lambda n=n, name=name: metric(name, rows[0, :n], rows[1, :n])
        taken = in_turn(name, calls, 1 if quick else 3)
        found[name] = [{"x": int(x), **medians(each)} for x, each in taken.items()]
    return found


def metric(name: str, real: Any, fake: Any) -> dict[str, float]:
    return dict(Result.of(gankit.build("metric", name).compute(Rows(features=real), Rows(features=fake))).values)


PARTS: dict[str, Callable[[bool], Any]] = {
    "mimicry": mimicry_part, "trainers": trainers_part, "loop": loop_part, "limit": limit_part, "memory": memory_part,
    "data": data_part, "processes": processes_part, "growth": growth_part, "gpu": gpu_part,
}  # fmt: skip


def machine() -> Row:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(), "cores": os.cpu_count(), "threads": THREADS,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "versions": {"python": platform.python_version(), "gankit": gankit.__version__}
        | {name: importlib.metadata.version(name) for name in ("torch", "numpy")} | speed_peers.VERSIONS,
    }  # fmt: skip


def main() -> None:
    global bar, THREADS
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="tiny networks; the figures mean nothing")
    options.add_argument("--only", nargs="+", choices=PARTS, help="measure these again and keep the rest of the file")
    options.add_argument("--threads", type=int, default=THREADS, help="of torch; one on a machine that is not idle")
    options.add_argument("--page", action="store_true", help="only write the page from the file")
    options.add_argument("--out", type=Path, default=JSON, help="the results; the page goes beside any but the default")
    options.add_argument("--memory", nargs=3, metavar=("WHO", "BATCH", "WIDTH"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    THREADS = chosen.threads
    if chosen.memory:
        memory_of(chosen.memory[0], *map(int, chosen.memory[1:]))
        return
    results: Row = json.loads(chosen.out.read_text()) if chosen.only or chosen.page else {}
    if not chosen.page:
        warnings.simplefilter("ignore")  # peers use what torch calls old
        torch.set_num_threads(THREADS)
        with tqdm(unit=" turns") as bar:
            results |= {"quick": chosen.quick, "machine": machine()}
            for name, part in PARTS.items():
                if not chosen.only or name in chosen.only:
                    results[name] = part(chosen.quick)
                    chosen.out.write_text(json.dumps(results, indent=1) + "\n")  # what is measured is kept
    own = chosen.out == JSON
    print(speed_page.write(results, speed_page.DOCS if own else chosen.out.parent))


if __name__ == "__main__":
    main()
