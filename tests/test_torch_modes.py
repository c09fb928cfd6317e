"""Threads, defaults and modes of torch, and tracing: they change no training, sample or penalty."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strangers
import torch
from strangers import FEW, Trained, labelled
from torch import Tensor, nn

import gankit
from gankit import seeds
from gankit.errors import PartError
from gankit.losses.gradient_penalty import gradient_penalty
from gankit.studies.jobs import Job
from gankit.studies.study import Arm, Study, Work
from gankit.training import timing
from gankit.training.execution.graphs import _python_state

trained = strangers.trained


def losses_of(seed: int, folder: Path) -> list[float]:
    experiment = gankit.load("wgan-gp-diffaugment", *FEW, f"training.seed={seed}")
    run = gankit.train(experiment, folder / str(seed), data=labelled())
    return [row["critic/wasserstein"] for row in run.log]


def test_trainings_in_two_threads_are_those_of_one_after_the_other(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(losses_of, (1, 2), [tmp_path / "together"] * 2))
    assert together == [losses_of(seed, tmp_path / "alone") for seed in (1, 2)]


def test_sampling_in_one_thread_leaves_a_training_in_another_as_it_is(trained: Trained, tmp_path: Path) -> None:
    run, over = trained(), threading.Event()

    def sample() -> None:
        while not over.is_set():
            gankit.open_run(run.path).sample(2)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        beside = losses_of(1, tmp_path / "beside")
    finally:
        over.set()
        thread.join()
    assert beside == losses_of(1, tmp_path / "alone")


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.PCG64, np.random.Philox, np.random.SFC64])
def test_global_draws_of_every_kind_are_left_as_they_were(kind: Any) -> None:
    before = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(kind(1))
        np.random.randn(3)  # an odd number: MT19937 keeps one more normal value
        state = _python_state()
        with seeds.own_draws([]):
            seeds.seed_torch(0, "any")
            np.random.randn()
            assert _python_state() != state
        assert _python_state() == state
    finally:
        np.random.set_bit_generator(before)


def test_steps_that_are_timed_wait_for_a_training_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    began, prepare = threading.Event(), timing.prepare
    monkeypatch.setattr(timing, "prepare", lambda *given: began.set() or prepare(*given))
    with ThreadPoolExecutor(1) as pool:
        with seeds.own_draws():
            timed = pool.submit(timing.time_training, gankit.load("wgan-gp-diffaugment", *FEW), data=labelled())
            assert not began.wait(0.2)
        assert timed.result() > 0
    assert began.is_set()


@contextlib.contextmanager
def other_defaults() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.device("meta"), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)


def test_defaults_and_modes_of_torch_change_nothing(trained: Trained) -> None:
    run = trained("data.conditional=true", "training.checkpoint_every=1")
    images, conditional = run.sample(5, seed=3), run.sample(2, labels=1)
    with other_defaults():
        other = trained("data.conditional=true", "training.checkpoint_every=1", name="other")
        assert np.array_equal(other.sample(5, seed=3), images)
        assert np.array_equal(gankit.open_run(run.path).sample(2, labels=1), conditional)
        assert torch.get_default_dtype() == torch.float64
    assert other.exported.read_bytes() == run.exported.read_bytes()
    assert all(parameter.dtype == torch.float32 for parameter in other.critic.parameters())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda: torch.set_default_dtype(torch.float64), "torch's default dtype"),
        (lambda: torch.set_grad_enabled(False), "torch's gradient mode"),
        (lambda: os.chdir("/"), "the working directory"),
    ],
)
def test_on_tick_changes_nothing_that_parts_share(change: Callable[[], Any], what: str, tmp_path: Path) -> None:
    before, data = (torch.get_default_dtype(), torch.is_grad_enabled(), Path.cwd()), labelled()
    experiment = gankit.load("wgan-gp", *FEW)
    run = gankit.train(experiment, tmp_path / "run", data=data, on_tick=lambda row: np.random.seed(1))
    with pytest.raises(PartError, match=f"^on_tick changes {what}, which all parts share: leave it as it is$"):
        gankit.train(experiment, tmp_path / "changed", data=data, on_tick=lambda row: change())
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), Path.cwd()) == before
    assert gankit.resume(tmp_path / "changed", data=data).exported.read_bytes() == run.exported.read_bytes()


def test_the_default_type_comes_back_when_the_last_thread_has_left() -> None:
    first = seeds.plain_torch()
    with other_defaults():
        with first, contextlib.ExitStack() as stack:
            stack.enter_context(seeds.plain_torch())
            late = stack.pop_all()  # as a thread leaves that came second and stays longer
        assert torch.get_default_dtype() == torch.float32
        late.close()
        assert torch.get_default_dtype() == torch.float64


def test_jobs_of_a_study_do_not_know_the_defaults_of_torch(tmp_path: Path) -> None:
    class Asked(Study):
        def arms(self) -> list[Arm]:
            return [Arm("one", "a job")]

        def work(self, jobs: Path) -> list[Work]:
            job = Job("one", lambda folder: {"type": str(torch.zeros(1).dtype), "device": str(torch.zeros(1).device)})
            return [Work("", [job], 1, lambda threads: 0.0)]

        def judge(self, outcomes: Any, folder: Path) -> Any:
            return outcomes["one"].result

        def report(self, results: Any) -> None:
            pass

    with other_defaults():
        results = Asked(gankit.load("wgan-gp")).run(tmp_path / "study", threads=1, quiet=True)
    assert results.values == {"type": "torch.float32", "device": "cpu"}


def test_a_gradient_penalty_in_inference_mode_is_that_without_gradients() -> None:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(48, 1))
    real, fake = torch.randn(2, 4, 3, 4, 4)
    with torch.no_grad():
        expected = gradient_penalty(critic, real, fake)
    with torch.inference_mode():
        assert torch.equal(gradient_penalty(critic, real.clone(), fake), expected)


def test_a_gradient_penalty_under_torch_func_is_the_plain_one() -> None:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Tanh(), nn.Linear(8, 1))
    real, fake, alpha = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), torch.full((2,), 0.5)

    def penalty(parameters: dict[str, Tensor]) -> Tensor:
        def call(images: Tensor) -> Tensor:
            return torch.func.functional_call(critic, parameters, (images,))  # type: ignore[no-any-return]

        return gradient_penalty(call, real, fake, alpha=alpha).mean()

    found = torch.func.grad(penalty)(dict(critic.named_parameters()))
    gradient_penalty(critic, real, fake, alpha=alpha).mean().backward()  # type: ignore[no-untyped-call]
    for name, parameter in critic.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[name], expected)


@pytest.mark.filterwarnings("ignore:.*jit:FutureWarning")
@pytest.mark.parametrize(("kind", "name"), [("generator", "resnet"), ("critic", "resnet"), ("critic", "dcgan")])
def test_own_networks_are_traced(kind: str, name: str) -> None:
    network = gankit.build(kind, name, gankit.ImageSpec(3, 16, 16), width=4).eval()
    given = torch.randn(2, 3, 16, 16) if kind == "critic" else torch.randn(2, network.latent_dim)
    torch.testing.assert_close(torch.jit.trace(network, given)(given), network(given))  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore")  # the exporter is an old one
@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [("generator", "resnet", {}), ("critic", "resnet", {}), ("generator", "dcgan", {}), ("critic", "dcgan", {}),
     ("generator", "r3gan", {"group_width": 2}), ("critic", "r3gan", {"group_width": 2})],
)  # fmt: skip
def test_own_networks_go_through_the_older_exporter_of_onnx(kind: str, name: str, settings: dict[str, int]) -> None:
    onnx, reference = pytest.importorskip("onnx"), pytest.importorskip("onnx.reference")
    network = gankit.build(kind, name, gankit.ImageSpec(3, 16, 16), width=4, **settings).eval()
    given = torch.randn(2, 3, 16, 16) if kind == "critic" else torch.randn(2, network.latent_dim)
    file = io.BytesIO()
    torch.onnx.export(network, (given,), file, dynamo=False, input_names=["x"])
    (found,) = reference.ReferenceEvaluator(onnx.load_from_string(file.getvalue())).run(None, {"x": given.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(given), rtol=1e-3, atol=1e-4)
