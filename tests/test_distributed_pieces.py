"""What processes that train as one share, in this process alone: statistics, gradients, logs, rows and draws."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed_runs import RESNET, SMALL
from torch import Tensor, nn
from torch import distributed as dist

import gankit
from gankit import distributed, seeds
from gankit.distributed import Shard, SynchronisedBatchNorm, shard
from gankit.errors import PartError, ProcessLostError, RunError
from gankit.evaluation import extraction
from gankit.evaluation.sources import from_array
from gankit.training.trainer import Trainer


def test_what_is_gathered_comes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", lambda values, value: values.__setitem__(slice(2), [value, value]))
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: "on the CPU")
    assert distributed.gather({"a": [torch.ones(()), 3]}) == [{"a": ["on the CPU", 3]}] * 2


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
    whole = seeds.TurnDraws(seeds.generator(0, "s", 3), like, (0, 7, 7))
    part = seeds.TurnDraws(seeds.generator(0, "s", 3), like, (2, 5, 7))
    assert torch.equal(whole.uniform(7, 2)[2:5], part.uniform(3, 2))
    assert torch.equal(whole.normal(7)[2:5], part.normal(3))
    rows = seeds.TurnDraws(seeds.generator(0, "s", 3), torch.empty(0), (2, 5, 7)).uniform(3, 2)
    assert not rows.storage_offset()  # else a replay, whose inputs are copies, would round differently
    for draws, count in ((part, 3), (whole, 7)):
        with pytest.raises(PartError, match=rf"draws of shape \(1,\) for {count} samples"):
            draws.uniform(1)


def test_a_mean_over_one_process_has_no_graph_either() -> None:
    weight = torch.ones((), requires_grad=True)
    assert not distributed.average(2 * weight).requires_grad
    assert distributed.average(2 * weight).item() == 2


def test_without_torchrun_nothing_is_started() -> None:
    with distributed.process_group():
        assert (distributed.rank(), distributed.size()) == (0, 1)
        assert distributed.gather(3) == [3]
        assert distributed.on_rank_zero(lambda: 4) == 4
        assert distributed.means({"a": 1.5}) == {"a": 1.5}


@pytest.mark.parametrize(
    ("rank", "size", "message"),
    [
        ("first", "2", r"RANK=first is not a number: start all processes by torchrun, or unset RANK"),
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
