"""`training.compile`: equal to the uncompiled training, and a training without it wherever it does not work."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gankit
from gankit import distributed
from gankit.errors import PartError
from gankit.interfaces import Generator, ImageSpec, Loss, Turn
from gankit.nn.compilation import Compilation, call, compiles_penalties
from gankit.nn.gradients import score_gradients
from gankit.runs import checkpoint
from gankit.training.trainer import Trainer

Small = Callable[..., list[str]]
needs_a_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Everything but the making of machine code: reading, `torch.func`, the two graphs. Lists what was compiled."""
    torch.compiler.reset()
    original, compiled = torch.compile, []

    def compile_(function: Any, *, options: dict[str, Any], **more: Any) -> Any:
        compiled.append(function)
        return original(function, backend="aot_eager", **more)

    monkeypatch.setattr(torch, "compile", functools.wraps(original)(compile_))
    yield compiled
    torch.compiler.reset()


def weights(run: Path) -> dict[str, Tensor]:
    restored = checkpoint.restore(run / "checkpoints")
    assert restored is not None
    parts = {**restored.state, "exported": checkpoint.read_export(run / "generator.safetensors")[0]}
    names = ("generator", "critic", "exported")
    return {f"{part}.{key}": value for part in names for key, value in parts[part].items()}


def difference(one: Path, other: Path) -> float:
    """Norm of the difference of all weights and statistics over the norm of all; their names are the same."""
    a, b = weights(one), weights(other)
    assert list(a) == list(b)
    gap, whole = (torch.cat([v.double().flatten() for v in part]) for part in ([b[n] - a[n] for n in a], a.values()))
    return (gap.norm() / whole.norm()).item()


def trained(small: Small, folder: Path, *overrides: str) -> Path:
    path: Path = gankit.train(gankit.load("wgan-gp", *small(*overrides)), folder).path
    return path


CASES = {
    "penalty, labels": ["data.conditional=true", "augment.name=diffaugment"],
    "conditions, lazy r1": ['data.conditional=["severity"]', 'losses=["hinge", {name="r1", every=2}]'],
    "spectral normalisation": ["critic.spectral=true", "data.flip=true"],
    "a critic that mixes": ['critic={name="dcgan", width=4}', "data.size=16", "losses=['minimax']"],
}


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (n > 0)) for n, c in enumerate(CASES)])
def test_equal_to_the_uncompiled_training(
    case: str, quick: list[Any], small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    double = [*CASES[case], "training.precision=float64"]
    eager = trained(small, tmp_path / "eager", *double)
    assert not quick
    compiled = trained(small, tmp_path / "compiled", "training.compile=all", *double)
    assert "training.compile" not in capsys.readouterr().err
    assert len(quick) >= 2
    assert difference(eager, compiled) < 1e-10


@pytest.mark.slow
def test_a_resumed_training_ends_as_an_unbroken_one(quick: list[Any], small: Small, tmp_path: Path) -> None:
    overrides = ["training.compile=all", "training.steps=2"]
    whole = trained(small, tmp_path / "whole", *overrides)
    cut = trained(small, tmp_path / "cut", *overrides, "training.max_minutes=0.00001")
    torch.compiler.reset()  # as in another process
    assert gankit.resume(cut).finished
    assert difference(whole, cut) == 0
    assert gankit.open_run(cut).sample(2).shape == (2, 3, 8, 8)


@pytest.mark.slow
def test_true_leaves_what_penalties_differentiate(quick: list[Any], small: Small, tmp_path: Path) -> None:
    for value, more in (("true", 0), ("all", 1)):
        quick.clear()
        updates = Trainer(gankit.load("wgan-gp", *small(f"training.compile={value}")), tmp_path / value, None).stepper
        updates.advance()
        assert not updates.warnings
        networks = [updates.generator, updates.critic.features, updates.critic.score]  # type: ignore[attr-defined]
        assert quick[:3] == networks
        assert len(quick) == 3 + more


class Breaking(Generator):
    """Reads a value back, which no compiler follows, and counts its calls in a buffer."""

    latent_dim = 4

    def __init__(self, image: ImageSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(4, image.channels * image.height * image.width)
        self.register_buffer("calls", torch.zeros(()))
        self.shape = image.shape

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        self.calls += 1
        images = self.linear(z).tanh().view(-1, *self.shape)
        return images if images.mean().item() > -2 else -images


class Twice(Loss):
    """A penalty of a stranger's, who compiles_penalties the scores of the turn twice, and draws."""

    fail = False

    def critic(self, turn: Turn) -> Tensor:
        (gradient,) = torch.autograd.grad(turn.fake_scores.sum(), list(turn.critic.parameters()), create_graph=True)[:1]
        turn.log("twice/drawn", torch.rand(()))
        return gradient.square().sum() * torch.rand(())


@pytest.fixture
def strangers() -> None:
    gankit.generators.register("breaking")(Breaking)
    gankit.losses.register("twice")(Twice)


REFUSED = {
    "a network that cannot be read": (["generator={name='breaking'}"], {"critic", "generator"}),
    "scores that are differentiated twice": (['losses=["wasserstein", "twice"]'], {"critic"}),
}


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (n > 0)) for n, c in enumerate(REFUSED)])
def test_what_cannot_be_compiled_trains_without(
    case: str, quick: list[Any], small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, sides = REFUSED[case]
    overrides = [*overrides, "training.steps=2", "training.tick_every=1", "training.precision=float64"]
    eager = trained(small, tmp_path / "eager", *overrides)
    compiled = trained(small, tmp_path / "compiled", "training.compile=all", *overrides)
    assert quick
    errors = capsys.readouterr().err
    told = [line for line in errors.splitlines() if "warning: training.compile" in line]
    assert {line.split(": ")[2].split("'")[0].removeprefix("the ") for line in told} == sides, told
    assert len(told) == len(sides)
    assert "Traceback" not in errors
    assert difference(eager, compiled) < (1e-10 if len(sides) == 1 else 1e-300)
    rows = [[json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (eager, compiled)]
    for a, b in zip(*rows, strict=True):  # nothing of the failed attempt is counted
        for key in a:
            if "/" in key:
                assert b[key] == pytest.approx(a[key], rel=1e-6)
    restored = checkpoint.restore(compiled / "checkpoints")
    assert restored is not None
    assert set(restored.state["compilation"]["failed"]) == sides
    trainer = Trainer(gankit.open_run(compiled).experiment, compiled, None)
    trainer.restore()
    assert trainer.stepper.compilation.state_dict() == {"failed": sorted(sides)}


def test_setting_it_later_takes_up_the_run(small: Small, tmp_path: Path) -> None:
    run = trained(small, tmp_path / "run", "training.steps=1")
    for before, after in (("false", '"all"'), ('"all"', "false")):
        path = run / "experiment.toml"
        path.write_text(path.read_text().replace(f"compile = {before}\n", f"compile = {after}\n"))
        trainer = Trainer(gankit.open_run(run).experiment, run, None)
        trainer.restore()
        assert trainer.stepper.step == 1


def test_without_a_compiler_it_says_so(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(function: Any, **more: Any) -> Any:
        def run(*arguments: Any) -> Any:
            raise RuntimeError("no working C++ compiler\nsecond line")

        return run

    eager = trained(small, tmp_path / "eager", "training.steps=1")
    monkeypatch.setattr(torch, "compile", functools.wraps(torch.compile)(missing))
    compiled = trained(small, tmp_path / "compiled", "training.compile=true", "training.steps=1")
    assert difference(eager, compiled) == 0
    errors = capsys.readouterr().err
    for side in ("critic", "generator"):
        told = f"warning: training.compile: the {side}'s turns go on without it: RuntimeError: no working C++ compiler"
        assert errors.count(told) == 1
    assert "second line" not in errors


class Quadratic(nn.Module):
    """Scores of (n, 2, 2) images, three a sample, or none that fit."""

    def __init__(self, fits: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4))
        self.fits = fits

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        scores = (images.flatten(1) @ self.weight.t()).square()
        scores = scores if labels is None else scores * labels[:, None]
        return scores if self.fits else scores.flatten()


def test_errors_that_are_not_the_compilers_come_through(quick: list[Any]) -> None:
    told: list[str] = []
    critic, images = Quadratic(fits=False), torch.rand(3, 2, 2, dtype=torch.float64)
    with pytest.raises(PartError, match=r"needs scores of shape \(3, \.\.\.\)"):
        Compilation([critic], told.append).attempt("critic", lambda: score_gradients(critic, images))
    assert len(quick) == 1
    assert not told
    assert not compiles_penalties()


def test_gradients_of_compiled_networks_and_of_plain_functions(quick: list[Any]) -> None:
    module = Quadratic()
    images, found = torch.randn(5, 2, 2, dtype=torch.float64), []
    plain: Callable[..., Tensor] = lambda *arguments: module(*arguments)  # noqa: E731 - no module, so not compiled
    for labels in (None, torch.arange(5)):
        session = Compilation([], lambda text: pytest.fail(text))
        for critic in (plain, module):
            gradients = session.attempt("critic", lambda c=critic, y=labels: score_gradients(c, images, y))
            (second,) = torch.autograd.grad(gradients.square().sum(), module.weight)
            found.append((gradients, second))
        for a, b in zip(*found[-2:], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
            assert a.abs().max() > 0
    assert len(quick) == 2


def test_many_shapes_end_in_uncompiled_turns(quick: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    linear, told = nn.Linear(2, 1), []
    session = Compilation([linear], told.append)
    for n in range(2, 40):
        images = torch.rand(n, 2)
        scores = session.attempt("critic", lambda images=images: call(linear, images))
        torch.testing.assert_close(scores, linear(images))
    assert told == ["training.compile: the critic's turns go on without it: it would be compiled for too many shapes"]
    assert not capfd.readouterr().err


def test_synchronised_batch_normalisation_is_not_compiled(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 2)
    for norm, told in (("batch", 2), ("layer", 0)):
        overrides = small("training.compile=true", f"generator.norm={norm}")
        updates = Trainer(gankit.load("wgan-gp", *overrides), tmp_path / norm, None).stepper
        assert len(updates.warnings) == told
        assert all("synchronised between processes" in line for line in updates.warnings)
        assert len(updates.compilation.state_dict()["failed"]) == told


QUICK_PROCESS = """
import functools, torch
from gankit.cli import main
original = torch.compile
torch.compile = functools.wraps(original)(lambda f, *, options, **more: original(f, backend="aot_eager", **more))
main()
"""


@pytest.mark.slow
def test_two_processes_compile_each_for_itself(small: Small, tmp_path: Path) -> None:
    overrides = small("generator.norm=layer", "training.precision=float64", "training.steps=3", "training.device=cpu")
    eager = trained(small, tmp_path / "eager", *overrides)
    (tmp_path / "quick.py").write_text(QUICK_PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "quick.py"), "train", "wgan-gp", *overrides, "training.compile=all", "--out"]
    done = subprocess.run([*command, str(tmp_path / "two")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert difference(eager, tmp_path / "two") < 1e-9


@pytest.mark.slow
@needs_a_compiler
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("precision", "limit"), [("float64", 1e-10), ("float32", 1e-4), ("bf16", 2e-2)], ids=["float64", "float32", "bf16"]
)
def test_machine_code_is_equal(
    precision: str, limit: float, small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [f"training.precision={precision}", "data.conditional=true", "critic.norm=layer"]
    eager = trained(small, tmp_path / "eager", *overrides)
    compiled = trained(small, tmp_path / "compiled", "training.compile=all", *overrides)
    assert "training.compile" not in capsys.readouterr().err
    assert 0 < difference(eager, compiled) < limit
