"""Several processes train as one, by gloo on this machine, compared with one process; a slow test starts torchrun."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import processes
import pytest
import torch
from distributed_runs import DCGAN, DOUBLE, LABELS, LAZY, R3GAN, RESNET, SMALL
from same_runs import state

import gankit
from gankit import distributed
from gankit.runs import checkpoint

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def difference(one: Path, other: Path, part: str) -> float:
    """Norm of the difference of all weights and statistics over the norm of all."""
    a, b = (torch.cat([v.double().flatten() for v in state(run)[part].values()]) for run in (one, other))
    return ((a - b).norm() / a.norm()).item()


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        pytest.param("wgan-gp", RESNET, marks=pytest.mark.slow),
        pytest.param("a lazy penalty, alone every other time", [*RESNET, LAZY], marks=pytest.mark.slow),
        pytest.param("r3gan", R3GAN, marks=pytest.mark.slow),
        ("batch norm", DCGAN),
        ("labels", LABELS),
    ],
)
def test_two_processes_end_where_one_does(name: str, recipe: list[str], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    gankit.train(gankit.load(recipe[0], *recipe[1:], *DOUBLE), one)
    done = processes.run("train", *recipe, *DOUBLE, "--out", str(two), processes=2)
    assert done.returncode == 0, done.stderr
    for part in ("generator", "critic"):
        assert difference(one, two, part) < 1e-9, f"{part} of {name}"
    rows = [[json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (one, two)]
    for a, b in zip(*rows, strict=True):
        assert a["step"] == b["step"]
        for key in a:
            if "/" in key:  # means of the processes' means, whose shares of an odd batch differ
                assert b[key] == pytest.approx(a[key], rel=0.2, abs=0.05)
    assert done.stdout.count("finished, 6 steps") == 1, "one process speaks"
    assert gankit.open_run(two).experiment.run.processes == 2  # type: ignore[union-attr]


REPLAYED = """
import sys

from torch import nn

import gankit
from gankit import distributed
from gankit.testing._capture import ReplayRecorder
from gankit.training import step
from gankit.training.execution.graphs import Graphs

recipe, folder, *settings = sys.argv[1:]
eagerly, close = step.choose, Graphs.close

def replay(settings, device, parts, random, log, report, compilation):
    modules = [part for part in parts.values() if isinstance(part, nn.Module)]
    if settings.graphs is False:  # a rehearsal
        return eagerly(settings, device, parts, random, log, report, compilation)
    return Graphs(ReplayRecorder(modules), modules, [random], log, report)

def tell_and_close(graphs):
    print(f"replayed {len(graphs.recorded)} kinds of turns", file=sys.stderr)
    close(graphs)

with distributed.process_group():
    gankit.train(gankit.load(recipe, *settings), f"{folder}/eager")
    step.choose, Graphs.close = replay, tell_and_close
    gankit.train(gankit.load(recipe, *settings), f"{folder}/replayed")
"""


@pytest.mark.slow
def test_two_processes_that_replay_end_bitwise_where_eager_ones_do(tmp_path: Path) -> None:
    """Gradients are summed after the replay, where a recording keeps its own."""
    settings = [*RESNET[1:], *SMALL, "generator.norm=layer", "augment.name=diffaugment", LAZY, "training.steps=5"]
    done = processes.run(RESNET[0], str(tmp_path), *settings, processes=2, code=REPLAYED)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("replayed 3 kinds of turns") == 2
    assert "training.graphs" not in done.stderr
    eager, replayed = (gankit.open_run(tmp_path / name) for name in ("eager", "replayed"))
    assert replayed.exported.read_bytes() == eager.exported.read_bytes()
    for part in ("generator", "critic", "averaged"):
        ours, theirs = (state(run.path)[part] for run in (replayed, eager))
        assert all(torch.equal(ours[name], value) for name, value in theirs.items()), part
    losses = [[{k: v for k, v in row.items() if "/" in k} for row in run.log] for run in (eager, replayed)]
    assert losses[0] == losses[1]


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    through, changing = tmp_path / "through", tmp_path / "changing"
    settings = [*RESNET, *DOUBLE, "training.lr_decay=none"]
    gankit.train(gankit.load(settings[0], *settings[1:]), through)
    for count, steps in ((2, 2), (1, 4), (3, 6)):
        if steps == 2:
            words = ["train", *settings, "training.steps=2", "--out", str(changing)]
        else:
            text = (changing / "experiment.toml").read_text()
            (changing / "experiment.toml").write_text(text.replace(f"steps = {steps - 2}\n", f"steps = {steps}\n", 1))
            words = ["resume", str(changing)]
        done = processes.run(*words, processes=count)
        assert done.returncode == 0, done.stderr
        assert gankit.open_run(changing).steps == steps
    for part in ("generator", "critic"):
        assert difference(through, changing, part) < 1e-9, part


LONG = [*RESNET, *SMALL, "training.steps=4000", "training.lr_decay=none"]


def lose_the_second(out: Path) -> processes.Done:
    """Of two forked processes."""
    started = processes.Started("train", *LONG, "--out", str(out), processes=2)
    try:
        while len(list((out / "checkpoints").glob("*"))) < 2:
            assert all(process.is_alive() for process in started.processes)
            time.sleep(0.05)
    finally:
        started.processes[1].kill()
    return started.wait()


def lose_the_second_of_torchrun(out: Path) -> processes.Done:
    process = subprocess.Popen(
        [sys.executable, *TORCHRUN, "-m", "gankit", "train", *LONG, "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        while len(list((out / "checkpoints").glob("*"))) < 2:
            assert process.poll() is None
            time.sleep(0.2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ranks = {rank_of(int(child)): int(child) for child in children}
        os.kill(ranks["1"], signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return processes.Done(process.returncode, "", errors)


@pytest.mark.parametrize("lose", [lose_the_second, pytest.param(lose_the_second_of_torchrun, marks=pytest.mark.slow)])
def test_a_lost_process_ends_the_run_with_an_error_and_a_checkpoint(
    lose: Callable[[Path], processes.Done], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = lose(out)
    errors = done.stderr
    assert done.returncode != 0
    assert "gankit: process 0 of 2: another process was lost" in errors
    assert "gankit resume RUN" in errors
    restored = checkpoint.restore(out / "checkpoints")
    assert restored is not None
    assert restored.step >= 2
    text = (out / "experiment.toml").read_text()
    (out / "experiment.toml").write_text(text.replace("steps = 4000\n", f"steps = {restored.step + 1}\n", 1))
    assert gankit.resume(out).finished


def rank_of(pid: int) -> str:
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return next((v.partition("=")[2] for v in variables if v.startswith("RANK=")), "")


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "x").write_text("x")
    done = processes.run("train", *RESNET, *SMALL, "--out", str(taken), processes=2)
    assert done.returncode != 0
    assert len(re.findall(r"^gankit: .*is not empty", done.stderr, re.MULTILINE)) == 1
    done = processes.run("train", *RESNET, *SMALL, "training.batch=1", "--out", str(tmp_path / "b"), processes=2)
    assert "training.batch: 1 images cannot be shared by 2 processes" in done.stderr


def test_evaluation_is_shared_and_exact(tmp_path: Path) -> None:
    run = tmp_path / "run"
    gankit.train(gankit.load(RESNET[0], *RESNET[1:], *SMALL), run)
    settings = ["--features", "pixels", "--metrics", "frechet,kid", "--count", "30"]
    for count in (1, 2):
        out = str(tmp_path / f"{count}.json")
        done = processes.run("evaluate", str(run), *settings, "--out", out, processes=count)
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2))
    assert one == two
    assert one["metrics"]["frechet"]["value"] > 0


@pytest.mark.parametrize(
    ("gpus", "has_nccl", "backend"),
    [(0, True, "gloo"), (2, True, "cpu:gloo,cuda:nccl"), (1, True, "gloo"), (2, False, "gloo")],
)
def test_nccl_joins_processes_that_have_a_gpu_each(
    gpus: int, has_nccl: bool, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(distributed.dist, "is_nccl_available", lambda: has_nccl)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend, timeout: taken.append(backend))
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    with distributed.process_group():
        pass
    assert taken == [backend]
