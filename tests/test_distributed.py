"""Several processes train as one, by gloo on this machine, compared with one process; a slow test starts torchrun."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from same_runs import state
from torch import Tensor, nn
from torch import distributed as dist

import gankit
from gankit import distributed, seeds
from gankit.distributed import Shard, SynchronisedBatchNorm, shard
from gankit.errors import PartError, ProcessLostError, RunError
from gankit.evaluation import extraction
from gankit.evaluation.sources import from_array
from gankit.runs import checkpoint
from gankit.training.trainer import Trainer

SMALL = [
    "data.counts=[12, 10, 12]", "data.size=16", "data.flip=true", "generator.latent_dim=6", "training.steps=6",
    "training.batch=6", "training.generator_batch=5", "training.critic_steps=2", "training.tick_every=3",
    "training.sample_every=6", "training.checkpoint_every=2", "training.device=cpu", "training.threads=1",
]  # fmt: skip
DOUBLE = [*SMALL, "training.precision=float64"]
RESNET = ["wgan-gp", "generator.width=6", "critic.width=6", "critic.flat_blocks=1"]
DCGAN = ["dcgan", "generator.width=6", "critic.width=6"]
LABELS = [
    *RESNET, "data.conditional=true", "data.weights=agreement", "data.balance=0.5", "critic.class_head=true",
    "training.label_fade=[1, 8]", 'losses=["hinge", "auxiliary-class"]',
]  # fmt: skip
R3GAN = [
    "wgan-gp", "generator={name='r3gan', width=8}", "critic={name='r3gan', width=8}",
    'losses=["relativistic", {name="r1", weight=0.5}, {name="r2", weight=0.5}]',
]  # fmt: skip
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LAZY = 'losses=[{name="wasserstein", every=2}, {name="gradient-penalty"}]'


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


def test_what_is_gathered_comes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", lambda values, value: values.__setitem__(slice(2), [value, value]))
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: "on the CPU")
    assert distributed.gather({"a": [torch.ones(()), 3]}) == [{"a": ["on the CPU", 3]}] * 2


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


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of this process alone, which calls itself two."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("momentum", [0.1, None])
def test_synchronised_batch_normalisation_is_batch_normalisation(alone: None, momentum: float | None) -> None:
    """Through second derivatives, running statistics and state."""
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3, momentum=momentum).double()
    nn.init.normal_(plain.weight)
    ours = nn.Sequential(nn.BatchNorm2d(3, momentum=momentum)).double()
    ours[0].load_state_dict(plain.state_dict())
    distributed.synchronise(ours)
    assert isinstance(ours[0], SynchronisedBatchNorm)
    x = torch.randn(4, 3, 5, 2, dtype=torch.float64, requires_grad=True)
    for _ in range(2):
        made = []
        for norm in (plain, ours):
            y = norm(x)
            (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
            made.append([y, first, *torch.autograd.grad(first.square().sum(), [x, *norm.parameters()])])
        for a, b in zip(*made, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    for (name, a), b in zip(plain.state_dict().items(), ours[0].state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    torch.testing.assert_close(plain.eval()(x), ours.eval()(x))
    distributed.synchronise(ours, False)
    assert type(ours[0]) is nn.BatchNorm2d


class Activated(nn.BatchNorm2d):
    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return nn.functional.leaky_relu(super().forward(x), 0.2) * scale


class ByItself(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean((0, 2, 3), keepdim=True)


def test_a_batch_normalisation_with_a_forward_of_its_own_keeps_it(alone: None) -> None:
    torch.manual_seed(0)
    plain, ours = (Activated(3).double() for _ in range(2))
    distributed.synchronise(ours)
    assert distributed.has_synchronised_norms(ours)
    x = torch.randn(4, 3, 5, 2, dtype=torch.float64)
    torch.testing.assert_close(plain(x, scale=3.0), ours(x, scale=3.0))
    distributed.synchronise(ours, False)
    assert type(ours) is Activated


def test_a_batch_normalisation_that_normalises_by_itself_is_refused(alone: None) -> None:
    norm = ByItself(3)
    distributed.synchronise(norm)
    with pytest.raises(PartError, match="ByItself normalises by itself, so that each of 2 processes"):
        norm(torch.randn(4, 3, 5, 2))
    norm.eval()(torch.randn(4, 3, 5, 2))


def test_a_parameter_unused_here_takes_the_gradient_of_the_other_process(
    alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    used_by = {"both": (1.0, 2.0), "here": (3.0, None), "there": (None, 4.0), "nobody": (None, None)}
    there = [other or 0.0 for _, other in used_by.values()] + [
        float(other is not None) for _, other in used_by.values()
    ]
    monkeypatch.setattr(dist, "all_reduce", lambda flat: flat.add_(torch.tensor(there)))
    parameters = {name: nn.Parameter(torch.zeros(1)) for name in used_by}
    for name, (own, _) in used_by.items():
        parameters[name].grad = None if own is None else torch.tensor([own])
    distributed.sum_gradients(parameters.values())
    sums = {name: None if p.grad is None else p.grad.item() for name, p in parameters.items()}
    assert sums == {"both": 3.0, "here": 3.0, "there": 4.0, "nobody": None}


def test_a_value_logged_in_some_processes_alone_is_averaged_over_those(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = [{"both": 1.0, "here": 3.0}, {"there": 4.0, "both": 6.0}]
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "gather", lambda own: logged)
    assert distributed.means(logged[0]) == {"both": 3.5, "here": 3.0, "there": 4.0}


def test_losses_without_a_value_in_one_process_alone_end_the_training_in_one_line(
    alone: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stepper = Trainer(gankit.load(*RESNET, *SMALL), tmp_path, None).stepper
    monkeypatch.setattr(stepper.execution, "run", lambda work: None)
    stepper.update("critic", 6, 0)  # no value in the other process either
    monkeypatch.setattr(dist, "all_reduce", lambda flat: flat.add_(1))
    with pytest.raises(
        PartError, match=r"losses: on the critic's turn wasserstein, gradient-penalty returned no value"
    ):
        stepper.update("critic", 6, 1)


def test_shares_are_whole_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shard(7) == Shard(0, 7, 7)
    monkeypatch.setattr(distributed, "size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(shard(7))
    assert [list(range(7))[s.rows] for s in shares] == [[0, 1], [2, 3], [4, 5, 6]]
    assert sum(s.weight for s in shares) == pytest.approx(1)
    with pytest.raises(RunError, match=r"training.batch: 2 images cannot be shared by 3 processes"):
        shard(2)


def test_draws_are_rows_of_the_global_draws() -> None:
    like = torch.empty(0, dtype=torch.float64)
    whole = seeds.TurnDraws(seeds.generator(0, "s", 3), like)
    part = seeds.TurnDraws(seeds.generator(0, "s", 3), like, (2, 5, 7))
    assert torch.equal(whole.uniform(7, 2)[2:5], part.uniform(3, 2))
    assert torch.equal(whole.normal(7)[2:5], part.normal(3))
    rows = seeds.TurnDraws(seeds.generator(0, "s", 3), torch.empty(0), (2, 5, 7)).uniform(3, 2)
    assert not rows.storage_offset()  # else a replay, whose inputs are copies, would round differently
    with pytest.raises(PartError, match=r"draws of shape \(1,\) for 3 samples"):
        part.uniform(1)


def test_without_torchrun_nothing_is_started() -> None:
    with distributed.process_group():
        assert (distributed.rank(), distributed.size()) == (0, 1)
        assert distributed.gather(3) == [3]
        assert distributed.on_rank_zero(lambda: 4) == 4
        assert distributed.means({"a": 1.5}) == {"a": 1.5}


@pytest.mark.parametrize(
    ("rank", "size", "message"),
    [
        ("first", "2", r"RANK=first is no number: start all processes by torchrun, or unset RANK"),
        ("0", "2", r"process 0 of 2 cannot join the others \(.*MASTER_ADDR.*\): start all processes by torchrun, or"),
    ],
)
def test_what_another_program_left_in_the_place_of_torchruns_settings_is_told(
    rank: str, size: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(RunError, match=message), distributed.process_group():
        pass
    assert distributed.size() == 1


def test_a_lost_process_is_told_from_other_errors() -> None:
    assert distributed.is_process_loss(RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    assert not distributed.is_process_loss(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert issubclass(ProcessLostError, RunError)


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


def test_the_features_of_a_part_of_the_images_are_made_by_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8), dtype=np.uint8)
    monkeypatch.setattr(extraction, "CHUNK", 2)
    _, network = extraction.extractor("pixels", (3, 8, 8))
    dataset = from_array(images, "real")
    whole = extraction.features(dataset, network)
    monkeypatch.setattr(distributed, "size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "gather", lambda made: parts.append(made) or [made] * 3)
        with contextlib.suppress(IndexError, ValueError):
            extraction.features(dataset, network, shared=True)
    assert [len(made) for made in parts] == [2, 1, 1], "chunks of each process"
    monkeypatch.setattr(distributed, "gather", lambda made: parts)
    assert np.array_equal(extraction.features(dataset, network, shared=True), whole)


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
