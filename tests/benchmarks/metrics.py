"""Speed, memory and accuracy of the metrics, beside clean-fid (Parmar et al. 2022) in the same process.

    python tests/benchmarks/metrics.py            all parts at full size: half an hour on two idle cores
    python tests/benchmarks/metrics.py --quick    small sizes: some minutes

Peers take turns with gankit (A B A B), and medians count. Results go to metrics.json beside this file, and the page
docs/measured/metrics-numbers.md is written from them.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import textwrap
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import scipy.linalg
import threadpoolctl
import torch
import torchvision
from cleanfid import fid
from cleanfid.inception_torchscript import InceptionV3W
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

import gankit
from gankit.evaluation import entries, extraction, uncertainty
from gankit.evaluation.sources import open_source
from gankit.features.inception_v3 import InceptionV3
from gankit.interfaces import Dataset, Features, Pool, Rows
from gankit.metrics.frechet import Frechet, frechet_distance

Array = NDArray[Any]
Row = dict[str, Any]

ROOT = Path(__file__).parents[2]
JSON, PAGE = Path(__file__).with_suffix(".json"), ROOT / "docs" / "measured" / "metrics-numbers.md"
THREADS = 2
DIM = 2048
PARTS = ("streaming", "frechet", "folders", "repeated", "metrics")  # streaming first, while the heap is small
WEIGHTS = "inception-2015-12-05.pt"  # the name that clean-fid's loader asks for
JUDGED = ("frechet", "kid", "precision-recall", "variance-ratio", "memorisation", "inception-score")
STAGES = ("standard_errors", "real_against_real")

bar: tqdm[Any] = tqdm(disable=True)


# Clocks


def timed(label: str, call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and what it gives."""
    bar.set_description(label)
    start = time.perf_counter()
    found = call()
    seconds = time.perf_counter() - start
    bar.update()
    return seconds, found


def in_turn(label: str, calls: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each call and what it gave last; A B A B."""
    seconds, found = defaultdict(list), {}
    for _ in range(repeats):
        for name, call in calls.items():
            taken, found[name] = timed(f"{label}: {name}", call)
            seconds[name].append(taken)
    return {name: statistics.median(each) for name, each in seconds.items()}, found


@contextlib.contextmanager
def clocked(clock: dict[str, float], module: Any, *names: str) -> Iterator[None]:
    """Adds up the seconds spent in some functions of a module."""
    originals = {name: getattr(module, name) for name in names}

    def clocking(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return originals[name](*args, **options)
            finally:
                clock[name] += time.perf_counter() - start

        return call

    for name in names:
        setattr(module, name, clocking(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(module, name, original)


def resident(key: str = "VmRSS") -> float:
    """Megabytes of memory in use (VmRSS), or at most so far (VmHWM); Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def reset_peak() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: what was freed before must not hide growth
    Path("/proc/self/clear_refs").write_text("5")


# (a) The Frechet distance beside clean-fid's


def rows(n: int, d: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Array:
    """Gaussian features with a power law of variances, float32 as networks give them."""
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(n, d)) * (8 * scale * np.arange(1, d + 1) ** -0.6) + shift).astype(np.float32)


def moments(x: Array) -> tuple[Array, Array]:
    """As clean-fid computes them, but in float64."""
    return np.mean(x, axis=0, dtype=np.float64), np.cov(x.astype(np.float64), rowvar=False)


def peer_distance(*given: Array) -> float | None:
    """clean-fid's distance of two means and covariances; None where it fails, as imaginary parts make it."""
    try:
        return float(fid.frechet_distance(*given))
    except ValueError:
        return None


def frechet_part(quick: bool) -> Row:
    d = 256 if quick else DIM
    sizes = [(40, 40), (400, 60), (700, 700)] if quick else [(40, 40), (3000, 500), (5000, 5000)]
    speed = []
    for n, m in sizes:
        x, y = rows(n, d, 1), rows(m, d, 2, 1.1, 0.1)
        own, other = moments(x), moments(y)
        calls: dict[str, Callable[[], Any]] = {
            "clean-fid": lambda own=own, other=other: peer_distance(*own, *other),
            "moments": lambda x=x, y=y: (moments(x), moments(y)),
            "gankit": lambda x=x, y=y: frechet_distance(x, y),
        }
        seconds, found = in_turn(f"{n} against {m}", calls, 3 if n < 1000 else 2)
        speed.append({
            "n": n, "m": m, "d": d, "clean_fid_s": seconds["clean-fid"], "moments_s": seconds["moments"],
            "gankit_s": seconds["gankit"], "ratio": seconds["clean-fid"] / seconds["gankit"],
            "difference": None if found["clean-fid"] is None else found["clean-fid"] / found["gankit"] - 1,
            "value": found["gankit"],
        })  # fmt: skip
    identical = []
    for n in (40, d // 2, 3 * d // 2):
        x = rows(n, d, 1)
        _, found = in_turn(f"identical {n}", {"gankit": lambda x=x: frechet_distance(x, x[::-1])}, 1)
        _, peers = in_turn(
            f"identical {n}", {"clean-fid": lambda x=x: peer_distance(*moments(x), *moments(x))}, int(n == 40)
        )
        identical.append({"n": n, "d": d, "gankit": found["gankit"], "clean_fid": peers.get("clean-fid")})
    accuracy = [by_digits(n, m, k) for n, m, k in [(30, 20, 4), (9, 9, 8), (5, 12, 6), (3, 4, 7), (20, 20, d)]]
    accuracy += [by_hadamard(n, m, d) for n, m in [(40, 40), (d, d // 4), (5 * d // 2, 5 * d // 2)]]
    return {"speed": speed, "identical": identical, "accuracy": accuracy}


def compared(kind: str, x: Array, y: Array, truth: Any) -> Row:
    _, found = in_turn(
        f"{kind} {len(x)}, {len(y)}",
        {"gankit": lambda: frechet_distance(x, y), "clean-fid": lambda: peer_distance(*moments(x), *moments(y))}, 1,
    )  # fmt: skip
    errors = {name: None if value is None else abs(float((mpmath.mpf(value) - truth) / truth))
              for name, value in found.items()}  # fmt: skip
    return {
        "reference": kind, "n": len(x), "m": len(y), "d": x.shape[1], "value": float(truth),
        "gankit": errors["gankit"], "clean_fid": errors["clean-fid"],
    }  # fmt: skip


def by_digits(n: int, m: int, d: int) -> Row:
    """Whole numbers, so that centred rows and their products are exact; their singular values with 50 digits."""
    x = np.random.default_rng(1).integers(-64, 64, (n, d))
    y = np.random.default_rng(2).integers(-64, 64, (m, d)) * 2
    centred = [len(a) * a - a.sum(0) for a in (x, y)]  # times the number of rows
    with mpmath.workdps(50):
        across = mpmath.matrix((centred[0] @ centred[1].T).tolist())
        root = mpmath.fsum(mpmath.svd_r(across, compute_uv=False)) / (n * m)
        traces = [mpmath.mpf(int((c * c).sum())) / len(c) ** 2 / (len(c) - 1) for c in centred]
        shift = mpmath.mpf(int(((m * x.sum(0) - n * y.sum(0)) ** 2).sum())) / (n * m) ** 2
        truth = shift + sum(traces) - 2 * root / mpmath.sqrt((n - 1) * (m - 1))
        return compared("50 digits", x.astype(np.float64), y.astype(np.float64), truth)


def by_hadamard(n: int, m: int, d: int) -> Row:
    """Rows +-a_i h_i along the orthogonal rows h_i of a Hadamard matrix: dense, of exact floats, and commuting.

    Their mean is 0 and the eigenvalues of their covariance are 2 d a_i^2 / (n - 1); of 40 rows only 20 are not 0.
    """
    basis = scipy.linalg.hadamard(d).astype(np.float64)
    sides, spectra = [], []
    for count, exponent, first in ((n, 0.6, 0), (m, 0.4, 7)):
        lengths = np.zeros(d)
        used = min(count // 2, d)
        lengths[(first + np.arange(used)) % d] = np.round(4000 * np.arange(1, used + 1) ** -exponent)
        half = lengths[lengths > 0, None] * basis[lengths > 0]
        sides.append(np.concatenate([half, -half, np.zeros((count - 2 * used, d))]))
        spectra.append(lengths)
    sides[1] += 3 * basis[5]  # moves the mean
    with mpmath.workdps(50):
        roots = [[mpmath.mpf(a) * mpmath.sqrt(mpmath.mpf(2 * d) / (c - 1)) for a in spectrum.tolist()]
                 for c, spectrum in zip((n, m), spectra, strict=True)]  # fmt: skip
        truth = 9 * d + mpmath.fsum((a - b) ** 2 for a, b in zip(*roots, strict=True))
        return compared("closed form", *sides, truth)


# Networks and pictures


class Cheap(nn.Module):
    """Looks like NVIDIA's archive and costs next to nothing: what remains is reading and resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 32, 13, stride=13), nn.ReLU(), nn.AdaptiveAvgPool2d(8), nn.Flatten())
        self.output = nn.Linear(DIM, 1008)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class FullCost(nn.Module):
    """The layers of Inception-v3 with random weights, in the same wrapping: it costs what the real one costs."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.output = nn.Linear(DIM, 1008)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def archive(kind: str, folder: Path, pictures: Array) -> Path:
    """A stub of the weights under the name that clean-fid wants; normalised on a few pictures, as if trained."""
    torch.manual_seed(0)
    module: nn.Module = Cheap()
    if kind == "full cost":
        network = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=False)
        network.fc = network.dropout = nn.Identity()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
        example = nn.functional.interpolate(torch.from_numpy(pictures[:16]).float() / 128 - 1, size=(299, 299))
        with torch.no_grad():
            network.train()(example)
        module = FullCost(torch.jit.trace(network.eval(), example[:2], check_trace=False))
    path = folder / kind / WEIGHTS
    path.parent.mkdir()
    torch.jit.save(torch.jit.script(module.eval()), path)
    return path


def eyes(n: int, seed: int) -> Array:
    """Pictures of 64 x 64; those of another seed stand for generated ones."""
    counts = [-(-n * share // 2700) for share in (1250, 451, 999)]
    bar.set_description(f"rendering {n} eyes")
    images: Array = np.array(gankit.build("dataset", "eyes", counts=tuple(counts), seed=seed).images)
    return images[np.sort(np.random.default_rng(0).permutation(len(images))[:n])]


def written(images: Array, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i:05d}.png")
    return folder


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    before = os.environ.get("GANKIT_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GANKIT_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["GANKIT_CACHE"]
            else:
                os.environ["GANKIT_CACHE"] = before


# (b) Two folders through Inception


def folders_part(quick: bool) -> list[Row]:
    sizes = {"cheap": 64 if quick else 2100, "full cost": 8 if quick else 50}
    pictures = [eyes(max(sizes.values()), seed) for seed in (0, 1)]
    found = []
    with tempfile.TemporaryDirectory() as name:
        for kind, n in sizes.items():
            weights = archive(kind, Path(name), pictures[0])
            peer, own = InceptionV3W(str(weights.parent), download=False).eval(), InceptionV3(weights=weights)
            pair = [written(images[:n], Path(name) / f"{kind} {i}") for i, images in enumerate(pictures)]
            few = [written(images[:4], Path(name) / f"few {kind} {i}") for i, images in enumerate(pictures)]
            for folder in [*few, *few]:  # TorchScript profiles and compiles in its first passes
                clean_features(folder, peer, 0)
                extraction.features(dataset(folder), own, quiet=True)
            found.append(folders(kind, n, pair, peer, own, 1 if quick else 2))
    return found


def dataset(folder: Path) -> Dataset:
    source = open_source(folder)
    assert isinstance(source, Dataset)
    return source


def clean_features(folder: Path, network: nn.Module, workers: int) -> Array:
    made: Array = fid.get_folder_features(
        str(folder), model=network, num_workers=workers, batch_size=32, device=torch.device("cpu"), verbose=False
    )
    return made


def folders(kind: str, n: int, pair: Sequence[Path], peer: nn.Module, own: Features, repeats: int) -> Row:
    clocks: dict[str, dict[str, float]] = {name: defaultdict(float) for name in ("peer 0", "peer 12", "gankit")}
    kept: dict[str, list[Array]] = {}

    def clean(workers: int) -> float:
        with clocked(clocks[f"peer {workers}"], fid, "get_folder_features"):
            return float(fid.compute_fid(
                *map(str, pair), mode="clean", custom_feat_extractor=peer, num_workers=workers,
                device=torch.device("cpu"), use_dataparallel=False, verbose=False,
            ))  # fmt: skip

    def value() -> float:
        with clocked(clocks["gankit"], extraction, "features"):
            kept["gankit"] = [extraction.features(dataset(folder), own, quiet=True) for folder in pair]
        return frechet_distance(*kept["gankit"])

    def evaluated() -> float:
        with empty_cache():
            report = gankit.evaluate(pair[0], pair[1], ["frechet"], own)
        return float(report["metrics"]["frechet"]["value"])

    calls = {"peer 0": lambda: clean(0), "gankit": value, "peer 12": lambda: clean(12)}
    seconds, values = in_turn(f"folders, {kind}", calls, repeats)
    evaluation, again = timed(f"folders, {kind}: gankit.evaluate", evaluated)
    kept["peer"] = [clean_features(folder, peer, 0) for folder in pair]
    reference = frechet_distance(*kept["peer"])
    return {
        "network": kind, "n": n, "d": DIM, "clean_fid": values["peer 0"], "gankit": values["gankit"],
        "difference": values["gankit"] / values["peer 0"] - 1,
        "difference_of_nuclear_norm": values["gankit"] / reference - 1, "evaluated": again,
        "features_differ": max(float(np.abs(a - b).max()) for a, b in zip(kept["peer"], kept["gankit"], strict=True)),
        "largest_feature": max(float(np.abs(a).max()) for a in kept["peer"]),
        "whole_s": {"clean-fid, 0 workers": seconds["peer 0"], "clean-fid, 12 workers": seconds["peer 12"],
                    "gankit": seconds["gankit"]},
        "pass_s": {"clean-fid, 0 workers": clocks["peer 0"]["get_folder_features"] / repeats,
                   "clean-fid, 12 workers": clocks["peer 12"]["get_folder_features"] / repeats,
                   "gankit": clocks["gankit"]["features"] / repeats},
        "evaluate_s": evaluation,
    }  # fmt: skip


# (c) The same evaluation again


def repeated_part(quick: bool) -> list[Row]:
    few, many = (12, 24) if quick else (300, 2700)
    real, fake = (eyes(many, seed) for seed in (0, 1))
    with tempfile.TemporaryDirectory() as name:
        full, cheap = (InceptionV3(weights=archive(kind, Path(name), real)) for kind in ("full cost", "cheap"))
        found = repeated("full cost", full, real[:few], fake[:few])
        # The full network takes as long for each image; all else is measured, on features of the same length.
        found += repeated("full cost, pass scaled", cheap, real, fake, many / few * found[0]["pass_s"])
    return found + repeated("efficientnet-lite0", gankit.build("features", "efficientnet-lite0"), real, fake)


def repeated(kind: str, network: Features, real: Array, fake: Array, known_pass: float | None = None) -> list[Row]:
    """The first evaluation has every metric of the default; that with frechet alone needs the same pass."""
    found, extracting = [], 0.0
    with empty_cache():
        for metrics in (None, ["frechet"]):
            name = f"{kind}, {len(fake)} beside {len(real)}, {metrics or 'default'}"

            def evaluate(chosen: list[str] | None = metrics) -> Any:
                return gankit.evaluate(fake, real, chosen, network)

            clock: dict[str, float] = defaultdict(float)
            if metrics is None:
                with clocked(clock, extraction, "features"):
                    first, _ = timed(f"{name}: first", evaluate)
                extracting = clock.pop("features")
            runs: list[float] = []
            with (
                clocked(clock, entries, "evaluate_metric", *STAGES),
                clocked(clock, extraction, "features"),
            ):
                while len(runs) < 3 and sum(runs) < 30:
                    runs.append(timed(f"{name}: again", evaluate)[0])
            again = statistics.median(runs)
            if known_pass is not None:
                extracting = known_pass
            is_sum = metrics is not None or known_pass is not None
            if is_sum:
                first = extracting + again
            clock["values"] = clock["evaluate_metric"] - sum(clock[stage] for stage in STAGES)
            found.append({
                "network": kind, "n_real": len(real), "n_fake": len(fake), "metrics": metrics or "default",
                "pass_s": extracting, "first_s": first, "first_is_a_sum": is_sum, "again_s": again,
                "share": again / first,
                "of_it_s": {stage: clock[stage] / len(runs) for stage in ("features", "values", *STAGES)},
            })  # fmt: skip
    return found


# (d) Many rows


def streaming_part(quick: bool) -> list[Row]:
    sizes = (4000, 8000, 16000) if quick else (25000, 50000, 100000, 200000)
    Frechet().compute(Rows(features=rows(300, 128, 1)), Rows(features=rows(300, 128, 2)))
    return [stream(n) for n in sizes]


def stream(n: int, block: int = 1000) -> Row:
    """Moments of n rows in a file, half of them real, and the distance of the two halves."""
    draw, scale = np.random.default_rng(0), (8 * np.arange(1, DIM + 1) ** -0.6).astype(np.float32)
    with tempfile.TemporaryFile() as file:
        for _ in range(0, n, block):
            file.write((draw.standard_normal((block, DIM), dtype=np.float32) * scale).data)
        file.flush()
        features = np.memmap(file, np.float32, "r", shape=(n, DIM))
    sides = [Rows(features=features[: n // 2]), Rows(features=features[n // 2 :])]
    reset_peak()
    before = resident()
    reading, _ = timed(f"moments of {n} rows", lambda: [side.moments for side in sides])
    growth = resident("VmHWM") - before
    computing, _ = timed(f"distance of {n} rows", lambda: Frechet().compute(*sides))
    whole = resident("VmHWM") - before
    return {"rows": n, "d": DIM, "update_s": reading, "compute_s": computing, "growth_mb": growth,
            "growth_with_compute_mb": whole, "us_a_row": reading / n * 1e6}  # fmt: skip


# (e) What each metric costs


def metrics_part(quick: bool) -> list[Row]:
    found, d = [], 128 if quick else 1280
    for n in (30, 100) if quick else (100, 300, 1000):
        sides = []
        for seed in (1, 2):
            features, logits = np.abs(rows(n, d, seed)), rows(n, 1000, seed + 2)
            sides.append(Rows(features=features, logits=logits, ids=np.arange(n)))
        pool = Pool(*sides)
        for name in JUDGED:
            part = extraction.as_part("metric", name)
            runs = [staged(f"{name} of {n}", part, pool) for _ in range(1 if n > 1000 else 3)]
            stages = {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
            found.append({"metric": name, "n": n, "d": d, **stages})
    return found


def staged(label: str, part: Any, pool: Pool) -> dict[str, float]:
    metric = part.build()
    computing, _ = timed(f"{label}: value", lambda: metric.compute(pool.real, pool.fake))

    def share() -> tuple[Any, Any]:
        resampling = metric.resampling(pool)
        return resampling, resampling.whole().values

    sharing, (resampling, values) = timed(f"{label}: sharing", share)
    erring, _ = timed(f"{label}: error", lambda: uncertainty.standard_errors(resampling, values))
    splitting, _ = timed(f"{label}: splits", lambda: uncertainty.real_against_real(resampling, values, 0))
    return {"value_s": computing, "shared_s": sharing, "error_s": erring, "splits_s": splitting}


# The page


def machine() -> Row:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    packages = ("clean-fid", "numpy", "scipy", "torch", "torchvision", "pillow", "mpmath")
    return {
        "processor": names[0] if names else platform.machine(), "cores": os.cpu_count(), "threads": THREADS,
        "blas": sorted({f"{p['internal_api']} {p.get('architecture', '')}".strip()
                        for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"}),
        "versions": {"python": platform.python_version(), "gankit": gankit.__version__}
        | {name: importlib.metadata.version(name) for name in packages},
    }  # fmt: skip


def seconds(value: float) -> str:
    if value < 0.01:
        return f"{value * 1000:.2g} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (head, ["---"] * len(head), *lines))


def error(value: float | None) -> str:
    return "fails" if value is None else f"{value:.1e}"


def times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 20 else f"{ratio:.1f}" if ratio >= 2 else f"{ratio:.2f}"


def page(results: Row) -> str:
    """docs/measured/metrics-numbers.md from the results."""
    facts, versions = results["machine"], results["machine"]["versions"]
    said = [
        "# The metrics in numbers",
        f"How fast, how exact and how large the metrics are, beside clean-fid {versions['clean-fid']} (Parmar et al. "
        "2022) where it has the like. Both ran in one process and took turns; medians are given. `make bench` measures "
        "all of it again "
        "and writes this page.",
    ]
    if results["quick"]:
        said.append("**These are figures of a trial run (`--quick`) at small sizes, beside other programs: they show "
                    "what is measured, not how fast it is.**")  # fmt: skip
    said.append(
        f"Machine: {facts['processor']}, {facts['cores']} cores, {facts['threads']} threads for NumPy, SciPy and torch "
        f"({', '.join(facts['blas'])}), no GPU; Python {versions['python']}, "
        + ", ".join(f"{name} {versions[name]}" for name in ("numpy", "scipy", "torch", "pillow"))
        + ". Features are float32, as networks give them; arithmetic on them is in float64."
    )
    for part, write in (("frechet", frechet_page), ("folders", folders_page), ("repeated", repeated_page),
                        ("streaming", streaming_page), ("metrics", metrics_page)):  # fmt: skip
        if part in results:
            said += write(results[part])
    wrapped = (text if text.startswith(("|", "#")) else textwrap.fill(text, 120, break_on_hyphens=False)
               for text in said)  # fmt: skip
    return "\n\n".join(wrapped) + "\n"


def frechet_page(found: Row) -> list[str]:
    speed = table(
        ("images", "d", "clean-fid", "its covariances", "gankit, all", "times faster", "relative difference"),
        [(f"{r['n']:,} against {r['m']:,}", r["d"], seconds(r["clean_fid_s"]), seconds(r["moments_s"]),
          seconds(r["gankit_s"]), times(r["ratio"]), error(r["difference"])) for r in found["speed"]],
    )  # fmt: skip
    exact = table(
        ("reference", "images", "d", "error of gankit", "error of clean-fid"),
        [(r["reference"], f"{r['n']:,} against {r['m']:,}", r["d"], error(r["gankit"]), error(r["clean_fid"]))
         for r in found["accuracy"]],
    )  # fmt: skip
    same = table(
        ("images", "d", "gankit", "clean-fid"),
        [(f"{r['n']:,}", r["d"], f"{r['gankit']:.16g}", "-" if r["clean_fid"] is None else error(r["clean_fid"]))
         for r in found["identical"]],
    )  # fmt: skip
    return [
        "## The Frechet distance",
        "clean-fid takes a matrix square root of d x d whatever the number of images; gankit takes singular values of "
        "the smaller of the products. The ratio is that of clean-fid's `frechet_distance`, given its means and "
        "covariances for nothing, to gankit's from the features on:",
        speed,
        "The values are equal where covariances have full rank. Where there are fewer images than dimensions, "
        "clean-fid makes the roots of rounding errors part of its trace, or fails over imaginary parts. Relative "
        "errors against references: the same "
        "sum with 50 digits, and sets whose distance is known in closed form (commuting covariances along the rows of "
        "a Hadamard matrix, so that no feature is rounded; with fewer rows than d they are rank-deficient).",
        exact,
        "A set beside itself, in reversed order, is at exactly 0:",
        same,
    ]


def folders_page(found: list[Row]) -> list[str]:
    lines = []
    for r in found:
        for who in r["whole_s"]:
            whole, own = r["whole_s"][who], r["whole_s"]["gankit"]
            lines.append((r["network"], f"2 x {r['n']:,}", who, seconds(r["pass_s"][who]), seconds(whole),
                          times(r["pass_s"][who] / r["pass_s"]["gankit"]), times(whole / own)))  # fmt: skip
    agreement = table(
        ("network", "images", "FID of gankit beside clean-fid", "beside the nuclear norm", "features differ by"),
        [(r["network"], f"2 x {r['n']:,}", f"{r['difference']:.1e}", f"{r['difference_of_nuclear_norm']:.1e}",
          f"{r['features_differ']:.1e} of {r['largest_feature']:.2g}") for r in found],
    )  # fmt: skip
    evaluations = ", ".join(f"{seconds(r['evaluate_s'])} ({r['network']}, 2 x {r['n']:,})" for r in found)
    return [
        "## Two folders through Inception-v3",
        "`compute_fid` of clean-fid and gankit's FID of the same two folders of PNGs (`eyes`, 64x64), with stubs in "
        'place of the weights: "cheap" is one convolution, so that reading and resizing to 299x299 are all; "full '
        'cost" has the layers of Inception-v3 with random weights. The pass turns files into features; the whole '
        "adds the distance.",
        table(("network", "images", "who", "pass", "whole", "pass: gankit is faster by", "whole: by"), lines),
        "gankit decodes the next batch while one is used and resizes in as many threads as torch has; the rest of the "
        "difference is the distance, clean-fid's square root of a 2048 x 2048 matrix. With few images the square root "
        "decides, with many and the full network the network does, which both run alike. "
        f"`gankit.evaluate` with `frechet` alone, which adds the standard error and ten splits of the reals, took "
        f"{evaluations}.",
        "Relative differences of the values, that beside the nuclear norm on clean-fid's own features, and the largest "
        "difference of a feature:",
        agreement,
    ]


def repeated_page(found: list[Row]) -> list[str]:
    lines = [
        (r["network"], f"{r['n_fake']:,} beside {r['n_real']:,}",
         "default" if r["metrics"] == "default" else ", ".join(r["metrics"]), seconds(r["first_s"]),
         seconds(r["again_s"]), f"{r['share']:.1%}", seconds(r["of_it_s"]["features"]),
         seconds(r["of_it_s"]["values"]), seconds(r["of_it_s"]["standard_errors"]),
         seconds(r["of_it_s"]["real_against_real"]))
        for r in found
    ]  # fmt: skip
    return [
        "## An evaluation again",
        "`gankit.evaluate` on arrays of 64x64, first with an empty cache, then again: features come from the cache, "
        "metrics are computed anew. A full evaluation is more than values: standard errors and ten splits of the reals "
        "belong to it. The last columns are parts of the second run: features from the cache, values with what is "
        "shared between parts, standard errors, splits.",
        table(("network", "images", "metrics", "first", "again", "share", "cache", "values", "errors", "splits"),
              lines),
        "The first time of `frechet` alone is the sum of the measured pass and of its second run, since the pass is "
        "the same. In the rows \"pass scaled\" the pass is the measured one times the number of images, all else is "
        "measured.",
    ]  # fmt: skip


def streaming_page(found: list[Row]) -> list[str]:
    lines = [(f"{r['rows']:,}", seconds(r["update_s"]), f"{r['us_a_row']:.0f} µs", f"{r['growth_mb']:.0f} MB",
              seconds(r["compute_s"]), f"{r['growth_with_compute_mb']:.0f} MB") for r in found]  # fmt: skip
    return [
        "## Many images",
        "Rows of 2048 features in a file, one half real and one generated, through the metric `frechet`. First the "
        "moments of both sides, then all that the metric does. Memory is the growth of the process's resident set at "
        "its peak, which stays while the number of rows grows: from 4,096 rows a side on moments come in blocks.",
        table(("rows", "moments", "a row", "memory", "distance", "memory with it"), lines),
    ]


def metrics_page(found: list[Row]) -> list[str]:
    lines = [(r["metric"], f"{r['n']:,}", *(seconds(r[k]) for k in ("value_s", "shared_s", "error_s", "splits_s")))
             for r in sorted(found, key=lambda r: (JUDGED.index(r["metric"]), r["n"]))]  # fmt: skip
    return [
        "## What each metric costs",
        f"n images a side, {found[0]['d']:,} features (1,000 logits for the inception score), one number for the "
        "value alone, one for the value with what errors and splits share (a kernel, distances), one for standard "
        "errors of all its values (in closed form for `kid`, else up to 200 images left out one at a time, above in 50 "
        "groups, on either side), one for ten splits, each beside reals and beside generated images.",
        table(("metric", "n", "value", "shared", "errors", "splits"), lines),
    ]


def main() -> None:
    global bar
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="small sizes")
    options.add_argument("--parts", nargs="+", choices=PARTS, help="measure these again and keep the rest of the file")
    options.add_argument("--page", action="store_true", help="only write the page from the file")
    chosen = options.parse_args()
    results: Row = json.loads(JSON.read_text()) if chosen.parts or chosen.page else {}
    if not chosen.page:
        # clean-fid's call of SciPy, TorchScript and its loader of 12 workers warn of their own.
        warnings.simplefilter("ignore")
        torch.set_num_threads(THREADS)
        with threadpoolctl.threadpool_limits(THREADS), tqdm(unit=" steps") as bar:
            results |= {"quick": chosen.quick, "machine": machine()}
            for part in PARTS:
                if not chosen.parts or part in chosen.parts:
                    results[part] = globals()[f"{part}_part"](chosen.quick)
        JSON.write_text(json.dumps(results, indent=1) + "\n")
    text = page(results)
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
