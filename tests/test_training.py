"""The training loop: exact resume, counts, schedules, what a run folder holds."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
import tqdm
from torch import Tensor

import gankit
from gankit.distributed import shard
from gankit.errors import GankitError, PartError, RunError
from gankit.interfaces import Loss, Side, Turn
from gankit.runs import checkpoint
from gankit.training.evaluator import Evaluator
from gankit.training.start import load_start_weights
from gankit.training.stopping import StopRequest
from gankit.training.trainer import Trainer

Small = Callable[..., list[str]]


def state(folder: Path) -> dict[str, Any]:
    restored = checkpoint.restore(folder / "checkpoints")
    assert restored is not None
    return restored.state


def assert_equal(a: Any, b: Any, place: str = "") -> None:
    assert type(a) is type(b), place
    if isinstance(a, Tensor):
        assert torch.equal(a.cpu(), b.cpu()), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_equal(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), place
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{place}/{i}")
    else:
        assert a == b, place


def test_a_lazy_penalty_that_does_not_hold_the_critic_is_named_once(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for every, warned in (1, 0), (2, 1):
        overrides = small(
            "training.steps=4", "training.tick_every=2", "losses.gradient-penalty.weight=1e6",
            f"losses.gradient-penalty.every={every}",
        )  # fmt: skip
        gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / str(every))
        said = capsys.readouterr().err
        assert said.count("up to step 2: computed only once in 2 updates, it no longer restrains the critic") == warned
        assert said.count("restrains the critic") == warned


def log_without_times(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def assert_same_run(a: Path, b: Path) -> None:
    assert_equal(state(a), state(b))
    assert (a / "generator.safetensors").read_bytes() == (b / "generator.safetensors").read_bytes()
    assert log_without_times(a) == log_without_times(b)


CLASS_LOSSES = 'losses=["wasserstein", {name="auxiliary-class", fake=false, generator=0.5}]'
RECIPES = {
    "wgan-gp": [],
    "diffaugment": ["augment.name=diffaugment", "data.flip=true", "data.balance=0.5"],
    "conditional": ["data.conditional=true", "data.held_out=0.2"],
    "conditions": ['data.conditional=["severity"]', "critic.spectral=true"],
    "class head": ["data.conditional=true", "data.weights=severe", "critic.class_head=true", CLASS_LOSSES],
    "fade": ["data.conditional=true", "training.label_fade=[1, 9]", "training.tick_every=1"],
    "fade of conditions": ['data.conditional=["severity"]', "training.label_fade=[0, 5]"],
    "consistency": ["augment.name=diffaugment", 'losses=[{name="hinge"}, {name="consistency"}, {name="r1", every=3}]'],
    "clipping": ['losses=["wasserstein", "weight-clipping"]', "training.optimizer=RMSprop", "training.lr_decay=none"],
    "float64": ["training.precision=float64", "training.averaging=0"],
    "bf16": ["training.precision=bf16"],
}


class Killed(BaseException):
    pass


def die_at_step_6(row: dict[str, Any]) -> None:
    if row["step"] == 6:
        raise Killed


# What the others have, these have too, or gankit does the same with it.
QUICKLY = {"wgan-gp", "diffaugment", "class head", "fade of conditions", "consistency", "bf16"}


@pytest.mark.parametrize(
    "recipe", [pytest.param(recipe, marks=[] if recipe in QUICKLY else pytest.mark.slow) for recipe in RECIPES]
)
def test_killed_and_resumed_is_bitwise_as_never_stopped(recipe: str, small: Small, tmp_path: Path) -> None:
    def copy_at_step_6(row: dict[str, Any]) -> None:
        if row["step"] == 6:  # what a run that is killed now leaves
            shutil.copytree(tmp_path / "whole", tmp_path / "cut")

    gankit.train(gankit.load("wgan-gp", *small(*RECIPES[recipe])), tmp_path / "whole", on_tick=copy_at_step_6)
    assert gankit.open_run(tmp_path / "cut").steps == 4
    torch.manual_seed(7)  # what the resuming process drew before must not matter
    run = gankit.resume(tmp_path / "cut")
    assert run.finished
    assert run.steps == 6
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_without_a_checkpoint_a_run_starts_at_step_0(small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small())
    gankit.train(experiment, tmp_path / "whole")

    def die(row: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        gankit.train(experiment, tmp_path / "cut", on_tick=die)
    assert not (tmp_path / "cut" / "checkpoints").exists()
    gankit.resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_broken_newest_checkpoint_falls_back_on_the_one_before(small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small("training.checkpoint_every=2"))
    gankit.train(experiment, tmp_path / "whole")
    gankit.train(experiment, tmp_path / "cut")
    newest = sorted((tmp_path / "cut" / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert not gankit.open_run(tmp_path / "cut").finished
    gankit.resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("kind", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupt_saves_and_the_resumed_process_ends_the_same(
    kind: signal.Signals, small: Small, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    overrides = small("training.steps=50", "training.tick_every=3", "training.checkpoint_every=25")
    gankit.train(gankit.load("wgan-gp", *overrides), whole)
    started = processes.Started("train", "wgan-gp", *overrides, "--out", str(cut))
    log = cut / "log.jsonl"
    while not log.exists() or not log.read_text():
        assert started.processes[0].is_alive()
        time.sleep(0.05)
    started.send_signal(kind)
    started.send_signal(kind)  # as a terminal and a wrapper together send it
    done = started.wait()
    assert done.returncode == 130, done.stderr
    assert "gankit resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert 0 < (steps := gankit.open_run(cut).steps) < 50
    assert len(gankit.open_run(cut).log) == steps // 3, "an interrupt leaves no line of its own"
    assert processes.run("resume", str(cut)).returncode == 0
    assert_same_run(whole, cut)
    assert gankit.resume(cut).finished
    for folder in ("samples", "checkpoints"):
        assert [file.name for file in sorted((cut / folder).iterdir())] == [
            file.name for file in sorted((whole / folder).iterdir())
        ]


def test_a_damaged_checkpoint_is_passed_over(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    gankit.train(gankit.load("wgan-gp", *small()), whole)
    six = sorted((whole / "checkpoints").iterdir())[-1]
    content = torch.load(six, weights_only=True)
    content["state"]["generators"] = content["state"].pop("generator")
    changed = bytearray(six.read_bytes())
    changed[len(changed) // 2] ^= 1  # within a weight
    for damage, reason in (
        (lambda path: path.write_bytes(changed), "cannot be read (it was altered after it was written)"),
        (lambda path: torch.save(content | {"format": 2}, path), "the saved generator does not fit the experiment"),
    ):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out)
        damage(out / "checkpoints" / six.name)
        (out / "generator.safetensors").unlink()
        gankit.resume(out)
        said = " ".join(capsys.readouterr().err.split())
        assert reason in said
        assert "going on from step 4" in said
        assert_same_run(whole, out)
    for path in (out / "checkpoints").iterdir():
        path.write_bytes(changed)
    with pytest.raises(RunError, match=r"none of 2 checkpoints can be read .* put back a copy of one") as raised:
        gankit.resume(out)
    assert "delete" not in str(raised.value)
    (out / "generator.safetensors").write_bytes(
        (whole / "generator.safetensors").read_bytes().replace(b"uint8", b"uint9")
    )
    with pytest.raises(RunError, match=r"generator\.safetensors was altered after it was written"):
        gankit.open_run(out).sample(1)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals that close")
def test_a_terminal_that_closes_asks_for_a_stop_unless_nohup_says_otherwise() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        for asked, meaning in ((True, signal.SIG_DFL), (False, signal.SIG_IGN)):
            signal.signal(signal.SIGHUP, meaning)
            with StopRequest() as stop:
                os.kill(os.getpid(), signal.SIGHUP)
            assert stop.requested == asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_handler_of_the_program_that_python_runs_in_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As R's: Python shows None in its place, and could not put it back."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "getsignal", lambda kind: None if kind == signal.SIGINT else before)
    set_for: list[int] = []
    monkeypatch.setattr(signal, "signal", lambda kind, handler: set_for.append(kind))
    with StopRequest():
        assert signal.SIGTERM in set_for
    assert signal.SIGINT not in set_for


def test_a_training_outlives_its_terminal(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    for number, stream in enumerate((Gone(), None)):
        monkeypatch.setattr(sys, "stderr", stream)
        overrides = small("training.steps=2", 'data.conditional=["severe"]')
        assert gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / str(number)).finished


def test_resuming_another_seed_or_a_plain_rand_in_a_part(small: Small, tmp_path: Path) -> None:
    """A stranger's part that draws from torch's own generator resumes exactly too."""

    @gankit.augments.register("noise")
    class Noise(gankit.Augment):
        def forward(self, images: Tensor) -> Tensor:
            return images + 0.1 * torch.randn_like(images)

    experiment = gankit.load("wgan-gp", *small("augment.name=noise", "training.seed=5"))
    gankit.train(experiment, tmp_path / "whole")

    with pytest.raises(Killed):
        gankit.train(experiment, tmp_path / "cut", on_tick=die_at_step_6)
    gankit.resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_the_generator_is_prepared_for_sampling_once_a_step(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, steps = Evaluator.sampling_copy, []

    def noted(self: Evaluator) -> gankit.Generator:
        steps.append(self._stepper.step)
        return prepare(self)

    monkeypatch.setattr(Evaluator, "sampling_copy", noted)
    gankit.train(gankit.load("wgan-gp", *small("evaluation.every=1")), tmp_path / "run")
    assert steps == [0, 3, 4, 6]


def test_training_leaves_torch_as_it_was(small: Small, tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    gankit.train(gankit.load("wgan-gp", *small("training.threads=2")), tmp_path / "run")
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == 1


class Spy(Loss):
    """Counts what the trainer asks of a loss."""

    calls: list[tuple[str, int, int]] = []
    after: list[str] = []

    def __init__(self, *, which: int = 0) -> None:
        self.which = which

    def critic(self, turn: Turn) -> Tensor:
        assert not turn.fake.requires_grad
        assert all(p.requires_grad for p in turn.critic.parameters())
        Spy.calls.append(("critic", self.which, turn.step))
        return turn.fake_scores.mean() - turn.real_scores.mean()

    def generator(self, turn: Turn) -> Tensor:
        assert turn.fake.requires_grad
        assert not any(p.requires_grad for p in turn.critic.parameters())
        Spy.calls.append(("generator", self.which, turn.step))
        return -turn.fake_scores.mean()

    def after_step(self, turn: Turn) -> None:
        Spy.after.append(turn.side)


def test_counts_of_turns_optimiser_steps_and_intervals(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gankit.losses.register("spy")(Spy)
    Spy.calls, Spy.after = [], []
    monkeypatch.setattr("gankit.training.trainer.rehearse", lambda *_: [])  # only the training counts
    steps: list[int] = []
    original = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *a, **k: (steps.append(id(self)), original(self))[1])
    losses = 'losses=[{name="spy", which=1}, {name="spy", which=2, every=4}, {name="gradient-penalty", every=5}]'
    experiment = gankit.load("wgan-gp", *small(losses, "training.critic_steps=3", "training.steps=5"))
    gankit.train(experiment, tmp_path / "run")
    sides = [side for side, which, _ in Spy.calls if which == 1]
    assert sides == (["critic"] * 3 + ["generator"]) * 5
    assert len([c for c in Spy.calls if c[:2] == ("critic", 2)]) == 4  # updates 0, 4, 8, 12 of 15
    assert [step for side, which, step in Spy.calls if (side, which) == ("generator", 2)] == [0, 4]
    assert sorted(steps.count(optimizer) for optimizer in set(steps)) == [5, 15]
    assert Spy.after == [side for side in sides for _ in range(2)]  # once a step for each of the two


@pytest.mark.parametrize("side", ["critic", "generator"])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(side: Side, small: Small, tmp_path: Path) -> None:
    """Through the penalty, labels, drawn flips and dequantising, in parts of unequal size."""
    recipe = ("wgan-gp", *small("training.precision=float64", "training.dequantise=true", "data.flip=true",
                                "data.conditional=true", "generator.norm=layer"))  # fmt: skip
    gradients = []
    for accumulate in (1, 3, 9):
        experiment = gankit.load(*recipe, f"training.accumulate={accumulate}")
        stepper = Trainer(experiment, tmp_path / "run", None).stepper
        stepper.update(side, 4, 5)
        gradients.append(torch.cat([p.grad.flatten() for p in getattr(stepper, side).parameters()]))
    for parts in gradients[1:]:
        torch.testing.assert_close(parts, gradients[0], rtol=1e-9, atol=1e-12)


def test_a_batch_in_parts_is_refused_beside_what_mixes_it(small: Small, tmp_path: Path) -> None:
    for recipe, more, said in (
        ("dcgan", [], "critic dcgan mixes the samples of a batch"),
        ("dcgan", ["critic.norm=none"], "generator dcgan mixes the samples of a batch"),
        ("wgan-gp", ["training.compile=true"], "training.compile works on whole batches"),
    ):
        experiment = gankit.load(recipe, "data.size=16", "training.accumulate=2", *more)
        with pytest.raises(PartError, match=f"^training.accumulate: {said}"):
            gankit.train(experiment, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_in_parts_resumes_exactly(small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp-diffaugment", *small("training.accumulate=2", "generator.norm=layer"))
    gankit.train(experiment, tmp_path / "whole")

    def die(row: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        gankit.train(experiment, tmp_path / "cut", on_tick=die)
    gankit.resume(tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_the_effective_weight_of_every_loss(small: Small, tmp_path: Path) -> None:
    """The gradient that the critic receives is the sum of weight x every x gradient of each loss that is due."""
    losses = 'losses=["wasserstein", {name="gradient-penalty", weight=3.0, every=4}, {name="drift", weight=0.5}]'
    experiment = gankit.load("wgan-gp", *small(losses, "training.precision=float64"))
    stepper = Trainer(experiment, tmp_path / "run", None).stepper
    weights = {w.name: w.every * w.weight for w in stepper.gan.losses}  # type: ignore[operator]
    assert weights == {"wasserstein": 1.0, "gradient-penalty": 12.0, "drift": 0.5}
    for number, due in ((0, ["wasserstein", "gradient-penalty", "drift"]), (1, ["wasserstein", "drift"])):
        total = stepper.objective(stepper.turn("critic", shard(4), number), number)
        assert total is not None
        single = [
            weights[w.name] * w.loss.critic(stepper.turn("critic", shard(4), number))  # type: ignore[operator]
            for w in stepper.gan.losses
            if w.name in due
        ]
        torch.testing.assert_close(total, sum(single))


def test_defaults_of_weights() -> None:
    experiment = gankit.load("wgan-gp", 'losses=["wasserstein", "gradient-penalty"]')
    parts = gankit.training.assembly.build(experiment, gankit.ImageSpec(3, 8, 8))
    assert [w.weight for w in parts.losses] == [1.0, 10.0]


def test_linear_decay_never_reaches_zero_and_is_in_the_log(small: Small, tmp_path: Path) -> None:
    run = gankit.train(
        gankit.load("wgan-gp", *small("training.tick_every=1", "training.lr_decay=linear")), tmp_path / "run"
    )
    rates = [row["critic_lr"] for row in run.log]
    np.testing.assert_allclose(rates, [2e-4 * (6 - k) / 6 for k in range(6)])


def test_averaged_weights_follow_the_decay(small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small("training.averaging=0.5"))
    stepper = Trainer(experiment, tmp_path / "run", None).stepper
    expected = [p.detach().clone() for p in stepper.generator.parameters()]
    for step in range(4):
        stepper.advance()
        decay = min(0.5, (2 + step) / (11 + step))
        live = list(stepper.generator.parameters())
        expected = [p.detach().clone() if step == 0 else decay * e + (1 - decay) * p.detach()
                    for e, p in zip(expected, live, strict=True)]  # fmt: skip
    for mine, theirs in zip(stepper.averaged.module.parameters(), expected, strict=True):  # type: ignore[union-attr]
        torch.testing.assert_close(mine, theirs)


def test_a_run_folder(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("data.conditional=true")), tmp_path / "run")
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoints", "experiment.toml", "generator.safetensors", "log.jsonl", "samples",
    ]  # fmt: skip
    assert [row["step"] for row in run.log] == [3, 6]
    assert {"critic/wasserstein", "critic/gradient-penalty", "generator/wasserstein"} <= set(run.log[0])
    assert run.log[0]["images_per_second"] > 0
    grids = sorted(path.name for path in (run.path / "samples").iterdir())
    assert grids == ["step-00000000.png", "step-00000006.png"]
    again = gankit.open_run(run.path)
    assert again.experiment == run.experiment
    assert again.experiment.run is not None
    assert again.experiment.run.label_counts == [20, 20]
    assert again.experiment.run.versions["torch"] == torch.__version__


def test_equal_runs_give_equal_bytes_whatever_the_folder(small: Small, tmp_path: Path) -> None:
    for name in ("a", "b"):
        gankit.train(gankit.load("wgan-gp", *small()), tmp_path / name)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    other = gankit.train(gankit.load("wgan-gp", *small("training.seed=1")), tmp_path / "c")
    exported = [path / "generator.safetensors" for path in (other.path, tmp_path / "a")]
    assert exported[0].read_bytes() != exported[1].read_bytes()


def test_start_from_another_run(small: Small, tmp_path: Path) -> None:
    first = gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "first")
    experiment = gankit.load("wgan-gp", *small(f"training.start_from={first.path}", "training.seed=9"))
    trainer = Trainer(experiment, tmp_path / "second", None)
    load_start_weights(trainer.stepper)
    assert_equal(dict(trainer.stepper.generator.state_dict()), dict(state(first.path)["generator"]))
    newest = max((first.path / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    trainer.stepper.warnings.clear()
    load_start_weights(trainer.stepper)
    [line] = trainer.stepper.warnings
    assert "step-00000006.pt cannot be read" in line
    assert line.endswith("; starting from step 4 of that run")
    with pytest.raises(RunError, match=r"does not fit .* give the networks the names and widths"):
        gankit.train(gankit.load(experiment, "generator.width=8"), tmp_path / "third")
    assert not (tmp_path / "third").exists()


def start(small: Small, tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...]) -> tuple[Any, Any]:
    """The state of a run, and the networks of another experiment that has started from it."""
    run = gankit.train(gankit.load("wgan-gp", *small(*first)), tmp_path / "first")
    experiment = gankit.load("wgan-gp", *small(*second, f"training.start_from={run.path}", "training.seed=9"))
    stepper = Trainer(experiment, tmp_path / "second", None).stepper
    load_start_weights(stepper)
    return state(run.path), stepper


def test_networks_of_another_size_share_the_layers_at_the_smallest_maps(small: Small, tmp_path: Path) -> None:
    saved, stepper = start(small, tmp_path, ("data.size=8",), ("data.size=32",))
    generator, critic = stepper.generator.state_dict(), stepper.critic.state_dict()
    assert torch.equal(generator["blocks.0.conv1.weight"], saved["generator"]["blocks.0.conv1.weight"])
    assert "blocks.1.conv1.weight" not in saved["critic"]
    assert torch.equal(critic["blocks.1.conv1.weight"], saved["critic"]["blocks.0.conv1.weight"])
    told = {line.split(" of the ")[1].split()[0]: line for line in stepper.warnings if "start_from" in line}
    assert "freshly drawn: blocks.0.conv1.weight, blocks.0.conv1.bias" in told["critic"]
    assert "freshly drawn: blocks.1." in told["generator"]


def test_layers_that_the_other_run_does_not_have_are_not_frozen(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("data.size=8")), tmp_path / "first")
    other = small("data.size=32", f"training.start_from={run.path}", "training.freeze=5")
    with pytest.raises(
        RunError, match=r"freeze: the critic of .*first has no blocks\.0\..*, which would stay as drawn"
    ):
        gankit.train(gankit.load("wgan-gp", *other), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_classes_begin_with_what_a_network_without_them_has_learned(small: Small, tmp_path: Path) -> None:
    saved, stepper = start(small, tmp_path, (), ("data.conditional=true",))
    generator = stepper.generator.state_dict()
    for key, old in (("gain", "weight"), ("shift", "bias")):
        table = generator[f"blocks.0.norm1.{key}.table.weight"]
        assert torch.equal(table, saved["generator"][f"blocks.0.norm1.norm.{old}"].expand_as(table))
    assert any("freshly drawn: projection.table.weight" in line for line in stepper.warnings)


def test_other_classes_begin_with_the_mean_of_the_old_ones(small: Small, tmp_path: Path) -> None:
    three = tmp_path / "three.npz"
    np.savez(three, images=np.zeros((30, 8, 8, 3), np.uint8), labels=np.arange(30) % 3)
    more = ("data.conditional=true", f"data.path={three}")
    saved, stepper = start(small, tmp_path, ("data.conditional=true",), more)
    for network, key in ((stepper.generator, "blocks.0.norm1.gain"), (stepper.critic, "projection")):
        kind = "critic" if network is stepper.critic else "generator"
        table, old = network.state_dict()[f"{key}.table.weight"], saved[kind][f"{key}.table.weight"]
        assert len(table) != len(old)
        torch.testing.assert_close(table, old.mean(0).expand_as(table))


def test_without_classes_a_network_begins_with_their_mean(small: Small, tmp_path: Path) -> None:
    saved, stepper = start(small, tmp_path, ("data.conditional=true",), ())
    found = stepper.generator.state_dict()["blocks.0.norm1.norm.weight"]
    torch.testing.assert_close(found, saved["generator"]["blocks.0.norm1.gain.table.weight"].mean(0))


def test_an_average_goes_on_at_its_age(small: Small, tmp_path: Path) -> None:
    """Or the first steps would forget what another run has learned; the age survives a checkpoint, too."""
    saved, stepper = start(small, tmp_path, ("training.averaging=0.9",), ("training.averaging=0.999",))
    age = int(saved["averaged"]["n_averaged"])
    assert age == 6
    old = [value.clone() for value in stepper.averaged.module.parameters()]
    stepper.advance()
    share = (2 + age) / (11 + age)
    for before, now, average in zip(
        old, stepper.generator.parameters(), stepper.averaged.module.parameters(), strict=True
    ):
        torch.testing.assert_close(average, share * before + (1 - share) * now)
    assert int(stepper.state_dict()["averaged"]["n_averaged"]) == age + 1


def test_frozen_layers_of_the_critic_keep_their_weights(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "first")
    more = small(f"training.start_from={run.path}", "training.freeze=2")
    frozen = gankit.train(gankit.load("wgan-gp", *more), tmp_path / "frozen")
    before, after = state(run.path)["critic"], state(frozen.path)["critic"]
    same = [key for key in before if torch.equal(before[key], after[key]) and key != "linear.bias"]  # has no gradient
    assert same == ["stem.conv1.weight", "stem.conv1.bias", "stem.conv2.weight", "stem.conv2.bias"]
    with pytest.raises(PartError, match=r"the critic has \d+ layers; freeze at most"):
        gankit.train(gankit.load("wgan-gp", *more, "training.freeze=99"), tmp_path / "x")
    with pytest.raises(PartError, match=r"set training\.start_from to the run that they come from"):
        gankit.train(gankit.load("wgan-gp", *small("training.freeze=2")), tmp_path / "x")


def test_max_minutes_stops_in_good_order(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("training.max_minutes=0.00001")), tmp_path / "run")
    assert run.steps == 1
    assert not run.finished
    for _ in range(5):
        run = gankit.resume(run.path)
    assert run.finished


def test_a_clock_that_is_set_while_a_run_trains(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()
    jumps = [0.0, 86400.0, -86400.0, -1e9, 1e12]
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: real + jumps[next(calls) % len(jumps)])
    monkeypatch.setattr(tqdm.std, "time", time.time)  # which it has by name
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    overrides = small("training.max_minutes=5", "evaluation.every=1", "data.in_memory=false")
    run = gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    assert run.finished
    assert all(0 <= row["seconds"] < 300 and row["images_per_second"] > 0 for row in run.log)
    assert gankit.resume(run.path).finished
    assert "6/6 [00:0" in terminal.getvalue()
    assert not list(tmp_path.rglob("*.lock*"))


def test_what_a_kill_at_the_very_end_left_is_gone_after_resuming(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("training.checkpoint_every=2")), tmp_path / "run")
    files = {path.name: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for name in ("checkpoints/step-00000002.pt", ".lock", ".lock-holder", ".generator.safetensors.1.tmp"):
        (run.path / name).write_bytes(b"")
    assert gankit.resume(run.path).finished
    assert {path.name: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == files


def test_data_of_the_calling_program(small: Small, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 65535, (12, 1, 8, 8), dtype=np.uint16)
    data = gankit.wrap("dataset", images)
    run = gankit.train(gankit.load("wgan-gp", *small("training.max_minutes=0.00001")), tmp_path / "run", data=data)
    assert run.sample(2).dtype == np.uint16
    with pytest.raises(RunError, match="resume it there with data="):
        gankit.resume(run.path)
    assert gankit.resume(run.path, data=data).steps == 2


def test_a_training_that_diverges_ends_with_a_clear_error(small: Small, tmp_path: Path) -> None:
    weight = "losses.gradient-penalty.weight={start=1.0, end=1e30, steps=1}"
    experiment = gankit.load("wgan-gp", *small(weight, "training.optimizer=SGD"))
    with pytest.raises(RunError, match="diverged by step"):
        gankit.train(experiment, tmp_path / "run")


def test_refusals_write_nothing(small: Small, tmp_path: Path) -> None:
    refused = {
        "mixes the samples": ['critic={name="dcgan"}', "data.size=16"],
        "cannot use labels": ["generator.name=dcgan", "data.conditional=true"],
        "trains the generator": ['losses=["gradient-penalty"]'],
        "needs an Augment": ['losses=["hinge", "consistency"]'],
        "does not fit images 30 high": ["data.size=30"],
        "refuses them": ["training.optimizer_options={momentom=1}"],
        "cannot be used here": ["training.device=cuda:9"],
        "there is no run here": ["training.start_from=nowhere"],
        "no numeric column 'age'": ['data.conditional=["age"]'],
        "41 images asked for": ["data.subset=41"],
        "does not record how many raters agreed": ["data.min_agreement=0.8"],
        "no split 'test'": ["data.split=test"],
        "no labels to fade in": ["training.label_fade=[0, 4]"],
        "needs a ClassHead, .*set critic.class_head=true": [
            "data.conditional=true",
            'losses=["hinge", "auxiliary-class"]',
        ],
        "needs classes: set data.conditional": [CLASS_LOSSES],
        "class_head needs classes": ["critic.class_head=true"],
        "critic resnet would ignore the labels": ["critic.projection=false", "data.conditional=true"],
    }
    for message, overrides in refused.items():
        with pytest.raises(GankitError, match=message) as caught:
            gankit.train(gankit.load("wgan-gp", *small(*overrides)), tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


def test_a_folder_that_is_taken(small: Small, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="not empty; choose another"):
        gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "run")
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_evaluation_while_training(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("evaluation.every=2", "evaluation.count=16")), tmp_path / "run")
    assert ["metrics" in row for row in run.log] == [False, True]
    assert run.log[1]["metrics"]["frechet"] > 0


def test_tensorboard(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("training.tensorboard=true")), tmp_path / "run")
    assert list((run.path / "tensorboard").iterdir())


def test_a_loss_that_needs_an_ability(small: Small, tmp_path: Path) -> None:
    @gankit.losses.register("needs-a-head")
    class NeedsHead(Loss):
        needs = (gankit.interfaces.ClassHead,)

        def generator(self, turn: Turn) -> Tensor:
            return turn.fake.mean()

    with pytest.raises(PartError, match="needs a ClassHead"):
        gankit.train(gankit.load("wgan-gp", *small('losses=["hinge", "needs-a-head"]')), tmp_path / "run")


@pytest.mark.parametrize(("scope", "said"), [("critic", False), ("critic-turn", True), ("real", True)])
def test_risky_scopes_are_allowed_with_a_warning(
    scope: str, said: bool, small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = small("augment.name=diffaugment", f"augment.scope={scope}", "training.steps=1")
    gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "run")
    assert (f"warning: augment.scope={scope}" in capsys.readouterr().err) == said


def test_a_run_killed_between_its_two_last_files_still_exports_its_generator(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = gankit.load("wgan-gp", *small())
    gankit.train(experiment, tmp_path / "whole")
    for name in ("save", "export"):
        real, calls = getattr(checkpoint, name), []

        def die(*arguments: Any, real: Any = real, calls: list[int] = calls) -> Any:
            calls.append(1)
            if len(calls) == 2:  # the first is at step 4, the second at the end
                raise Killed
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, name, die)
            with pytest.raises(Killed):
                gankit.train(experiment, tmp_path / name)
        gankit.resume(tmp_path / name)
        assert_same_run(tmp_path / "whole", tmp_path / name)
    (tmp_path / "save" / "generator.safetensors").unlink()
    gankit.resume(tmp_path / "save")
    assert_same_run(tmp_path / "whole", tmp_path / "save")


@pytest.mark.timeout(120)  # a thread that waits for the training's draws would wait for ever
def test_a_run_can_be_evaluated_while_another_one_trains(small: Small, tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small())
    run = gankit.train(experiment, tmp_path / "first")
    alone = gankit.evaluate(run, count=20, features="pixels", metrics="kid")
    during: list[Any] = []
    gankit.train(
        experiment, tmp_path / "second",
        on_tick=lambda row: during.append(gankit.evaluate(run, count=20, features="pixels", metrics="kid")),
    )  # fmt: skip
    assert [values["metrics"] for values in during] == [alone["metrics"]] * 2
    assert_same_run(tmp_path / "first", tmp_path / "second")


def test_resuming_on_other_data_is_refused(small: Small, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    images, severity = draw.integers(0, 255, (12, 1, 8, 8), dtype=np.uint8), draw.normal(size=12)

    def data(n: int, scale: float = 1.0) -> gankit.Dataset:
        made: gankit.Dataset = gankit.wrap("dataset", images[:n], facts={"severity": scale * severity[:n]})
        return made

    experiment = gankit.load("wgan-gp", *small('data.conditional=["severity"]', "training.max_minutes=0.00001"))
    run = gankit.train(experiment, tmp_path / "run", data=data(12))
    with pytest.raises(RunError, match="images was 12, is 11"):
        gankit.resume(run.path, data=data(11))
    with pytest.raises(RunError, match="condition_scale was"):
        gankit.resume(run.path, data=data(12, 3.0))
    assert gankit.resume(run.path, data=data(12)).steps == 2


def test_a_run_that_started_from_another_resumes_without_it(small: Small, tmp_path: Path) -> None:
    first = gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "first")
    overrides = small(f"training.start_from={first.path}", "training.max_minutes=0.00001")
    second = gankit.train(gankit.load("wgan-gp", *overrides), tmp_path / "second")
    first.path.rename(tmp_path / "moved")
    assert gankit.resume(second.path).steps == 2


def test_no_checkpoint_holds_weights_that_are_not_finite(small: Small, tmp_path: Path) -> None:
    """Also where the losses are looked at more rarely than checkpoints are written."""
    weight = "losses.gradient-penalty.weight={start=1.0, end=1e30, steps=1}"
    options = [weight, "training.optimizer=SGD", "training.tick_every=1000"]
    with pytest.raises(RunError, match=r"diverged by step 4 \(.*critic"):
        gankit.train(gankit.load("wgan-gp", *small(*options)), tmp_path / "run")
    assert checkpoint.restore(tmp_path / "run" / "checkpoints") is None


def test_grids_show_the_same_conditions_at_every_step(small: Small, tmp_path: Path) -> None:
    trainer = Trainer(gankit.load("wgan-gp", *small('data.conditional=["severity"]')), tmp_path, None)
    shown = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        shown.append(trainer.evaluator.grid_labels())
    assert shown[0] is not None
    assert torch.equal(shown[0], shown[1])  # type: ignore[arg-type]
    rows = shown[0].view(8, 8)
    assert (rows == rows[:, :1]).all()
    assert (rows[1:] >= rows[:-1]).all()
    assert trainer.data.labels is not None
    assert (rows[0, 0], rows[-1, 0]) == (trainer.data.labels.min(), trainer.data.labels.max())


def test_an_out_that_is_a_file(small: Small, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("thesis")
    with pytest.raises(RunError, match="run is a file; choose another --out"):
        gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "run")
