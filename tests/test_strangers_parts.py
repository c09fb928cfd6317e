"""Networks, losses and augments as strangers write them: they train, or one line says what does not fit."""

from __future__ import annotations

import contextlib
import io
import random
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gankit
from gankit import seeds
from gankit.errors import PartError, SettingsError
from gankit.losses.gradient_penalty import gradient_penalty
from gankit.registry import registry
from gankit.report import write_report
from gankit.runs.networks import PROBE_BATCH
from gankit.studies.jobs import Job
from gankit.studies.study import Arm, Study, Work
from gankit.studies.trainings import time_steps

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 3, 16, 16), dtype=np.uint8)
FEW = [
    "data.size=16", "training.batch=4", "training.generator_batch=4", "training.critic_steps=1", "training.threads=1",
    "training.steps=2", "training.tick_every=1", "evaluation.features=pixels", "generator.width=4", "critic.width=4",
]  # fmt: skip


def labelled() -> gankit.Dataset:
    return gankit.wrap("dataset", IMAGES, labels=np.arange(24) % 3)  # type: ignore[no-any-return]


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., gankit.Run]:
    """Trains strangers' parts, given by kind, beside gankit's own; a refusal must leave nothing behind."""

    def train(*overrides: str, data: Any = None, name: str = "run", **parts: Any) -> gankit.Run:
        chosen = [text for text in FEW if text.partition(".")[0] not in parts]
        for kind, part in parts.items():
            if kind != "loss":
                getattr(gankit, f"{kind}s").register("mine")(part)
                chosen.append(f"{kind}.name=mine")
        if "loss" in parts:
            gankit.losses.register("mine")(parts["loss"])
            chosen.append('losses=["wasserstein", "mine"]')
        data = labelled() if data is None else data
        folder = tmp_path / name
        try:
            return gankit.train(gankit.load("wgan-gp", *chosen, *overrides), folder, data=data)
        except gankit.GankitError as error:
            assert "\n" not in str(error)  # noqa: PT017 - raised anew below
            assert not folder.exists(), "a refusal has written something"
            raise

    return train


Trained = Callable[..., gankit.Run]


# Memory format


class Viewed(nn.Module):
    """Flattens with `view` after a convolution, as most tutorials do."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv, self.score = nn.Conv2d(3, width, 3, 2, 1), nn.Linear(width * 64, 1)
        self.register_buffer("five", torch.zeros(1, 1, 1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.score(self.conv(images).view(len(images), -1))
        return scores


def test_a_critic_that_flattens_with_view_trains(trained: Trained) -> None:
    assert trained(critic=gankit.wrap("critic", Viewed)).finished


def test_a_layout_that_a_network_cannot_have_is_refused(trained: Trained) -> None:
    with pytest.raises(PartError, match=r"^training\.channels_last: critic mine has tensors of five dim"):
        trained("training.channels_last=true", critic=gankit.wrap("critic", Viewed))


def test_a_thin_strided_convolution_trains(trained: Trained) -> None:
    layers = nn.Conv2d(3, 8, 1, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 8)
    assert trained('losses=["hinge"]', critic=gankit.wrap("critic", nn.Sequential(*layers))).finished


def test_an_augment_that_uses_view_trains_beside_own_networks(trained: Trained) -> None:
    augment = gankit.wrap("augment", lambda images: images.view(len(images), -1).view(images.shape) * 0.5)
    assert trained(augment=augment).finished


# The rehearsal: what trains and what is refused


class Painter(nn.Module):
    """A generator as strangers write it; `draw` is what a test changes."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.start, self.end, self.grow = nn.Linear(16, width * 16), nn.Conv2d(width, 3, 3, 1, 1), nn.Upsample(None, 4)

    def inner(self, z: Tensor) -> Tensor:
        return self.start(z).unflatten(1, (-1, 4, 4))  # type: ignore[no-any-return]

    def forward(self, z: Tensor) -> Any:
        return self.end(self.grow(self.inner(z))).tanh()


class Normed(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.end = (torch.nn.utils.spectral_norm(layer) for layer in (self.start, self.end))


class Remembering(Painter):
    """Keeps activations of its last call, deep within a list."""

    def inner(self, z: Tensor) -> Tensor:
        self.seen = [{"inner": super().inner(z)}]
        return self.seen[0]["inner"]


class Twice(Painter):
    """Uses one module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = self.mix_again = nn.Conv2d(4, 4, 3, 1, 1)

    def inner(self, z: Tensor) -> Tensor:
        return self.mix_again(self.mix(super().inner(z)))  # type: ignore[no-any-return]


class Lazy(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.LazyLinear(64)
        self.end = nn.LazyConv2d(3, 3, 1, 1)


@pytest.mark.parametrize("kind", [Normed, Remembering, Twice, Lazy])
def test_generators_that_train_and_are_opened_as_they_were(kind: type, trained: Trained) -> None:
    run = trained("training.checkpoint_every=1", generator=gankit.wrap("generator", kind, latent_dim=16))
    assert run.finished
    assert np.array_equal(run.sample(3), gankit.open_run(run.path).sample(3))
    assert gankit.resume(run.path, data=labelled()).finished


class Pair(Painter):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z), z


class Columns(Painter):
    def inner(self, z: Tensor) -> Tensor:
        return super().inner(z[:, :, 0, 0])


class FixedBatch(Painter):
    def inner(self, z: Tensor) -> Tensor:
        return super().inner(z).view(4, 4, 4, 4)


class Single(Painter):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z)[:1]


class RandomConstant(Painter):
    """Random frequencies in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = torch.randn(16)

    def inner(self, z: Tensor) -> Tensor:
        return super().inner(torch.sin(3 * z * self.frequencies))


class RandomBuffer(RandomConstant):
    """Random frequencies in a buffer that no state holds."""

    def __init__(self) -> None:
        super().__init__()
        del self.frequencies
        self.register_buffer("frequencies", torch.randn(16), persistent=False)


class OwnDraws(Painter):
    """Draws from a generator of its own, whose state a resume loses."""

    def __init__(self) -> None:
        super().__init__()
        self.draws = torch.Generator().manual_seed(0)

    def inner(self, z: Tensor) -> Tensor:
        return super().inner(z + torch.randn(z.shape, generator=self.draws))


class Counting(Painter):
    """Counts its calls in a number."""

    calls = 0

    def inner(self, z: Tensor) -> Tensor:
        self.calls += self.training
        return super().inner(z)


class Locked(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Extra(Painter):
    """Adds to its state what is no tensor."""

    def get_extra_state(self) -> Any:
        return {"name": "extra"}

    def set_extra_state(self, state: Any) -> None:
        pass


class Empty(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [self.start, self.grow, self.end]
        del self.start, self.end

    def forward(self, z: Tensor) -> Any:
        start, grow, end = self.layers
        return end(grow(start(z).unflatten(1, (-1, 4, 4)))).tanh()


class Hooked(Painter):
    def before_step(self, step: int) -> Any:
        return 0.5


class HookedPair(Painter):
    def before_step(self, step: int) -> Any:
        return {"pair": torch.zeros(2)}


class HookedStep(Painter):
    def before_step(self, step: int) -> Any:
        return {"step": 0.5}


class DtypeOfItsOwn(Painter):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z).numpy(force=True)


class Bodiless(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.zeros(3, device="meta"))


class Computed(Painter):
    def __init__(self) -> None:
        super().__init__()
        for values in self.start._parameters, self.end._parameters:
            values.update({name: value * 1 for name, value in values.items() if value is not None})  # type: ignore


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Bodiless, "generator mine cannot be moved to cpu: NotImplementedError: Cannot copy out of meta tensor"),
        (Computed, "generator mine has parameters that no optimizer can train, as copies of TorchScript modules"),
        (Pair, r"generator mine, called with \(4, 16\), returned a tuple of \(4, 3, 16, 16\) and \(4, 16\)"),
        (Columns, r"generator mine takes latents of shape \(4, 16, 1, 1\).*begin with z = z\[:, :, None, None\]"),
        (FixedBatch, r"generator mine, called with \(3, 16\), raised RuntimeError: shape"),
        (Single, r"generator mine makes \(1, 3, 16, 16\) of 4 latents; the data are \(3, 16, 16\)"),
        (RandomConstant, "generator mine computes something else once it is built anew"),
        (RandomBuffer, "generator mine computes something else once it is built anew"),
        (OwnDraws, "generator mine computes something else"),
        (Counting, "generator mine changes calls in a step, which a resumed run would lose"),
        (Locked, "generator mine cannot be copied, which sampling requires: TypeError"),
        (Extra, "the state of generator mine cannot be exported"),
        (Empty, "generator mine has no parameters to train: hold its layers as attributes, several of them in a torch"),
        (Hooked, r"Hooked.before_step returned 0\.5 \(float\): return numbers by name, or None"),
        (HookedPair, r"HookedPair.before_step returned a dict of pair: \(2,\): return numbers by name, or None"),
        (HookedStep, "a part logs step, which is an entry of gankit's own in the log; choose another name"),
        (DtypeOfItsOwn, r"returned a NumPy array of \(4, 3, 16, 16\); it must return one tensor"),
    ],
)
def test_generators_that_are_refused(kind: type, message: str, trained: Trained) -> None:
    with pytest.raises(PartError, match=message):
        trained(generator=gankit.wrap("generator", kind, latent_dim=16))


class Drawing(Painter):
    """Draws from the global generators of NumPy and Python, its weights and in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.start.weight.data.copy_(torch.from_numpy(np.random.normal(size=self.start.weight.shape)))

    def inner(self, z: Tensor) -> Tensor:
        return super().inner(random.random() * z + torch.from_numpy(np.random.normal(size=z.shape)).float())


def test_draws_of_numpy_and_python_follow_the_seed_and_a_resume(trained: Trained) -> None:
    np.random.seed(0)
    random.seed(0)
    state, numbers = random.getstate(), np.random.get_state()[1]
    generator = gankit.wrap("generator", Drawing, latent_dim=16)
    runs = [trained("training.steps=3", generator=generator, name=name) for name in ("a", "b")]

    def stop(row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        gankit.train(runs[0].experiment, runs[0].path.parent / "c", data=labelled(), on_tick=stop)
    runs.append(gankit.resume(runs[0].path.parent / "c", data=labelled()))
    expected = runs[0].generator.state_dict()
    for run in runs:
        assert run.steps == 3
        assert all(torch.equal(value, expected[name]) for name, value in run.generator.state_dict().items())
        assert np.array_equal(run.sample(4), runs[0].sample(3 + 1))
    assert random.getstate() == state, "the calling program's own draws go on as they were"
    assert np.array_equal(np.random.get_state()[1], numbers)


class Turned(Painter):
    """With numbers of three types, the first of them unused."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.register_buffer("turn", torch.tensor(1j))
        self.shift = nn.Parameter(torch.tensor(0j))

    def forward(self, z: Tensor) -> Any:
        return (super().forward(z) * self.turn * self.turn + self.shift).real


def test_complex_numbers_stay_complex_and_no_unused_parameter_decides_the_type(trained: Trained) -> None:
    run = trained(generator=gankit.wrap("generator", Turned, latent_dim=16))
    images = run.sample(4)
    assert images.std() > 1  # all are grey without the imaginary part
    assert np.array_equal(images, gankit.open_run(run.path).sample(4))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_networks_of_other_types_are_trained_in_float32(dtype: torch.dtype, trained: Trained) -> None:
    parts = {"generator": gankit.wrap("generator", Painter().to(dtype), latent_dim=16),
             "critic": gankit.wrap("critic", Scoring().to(dtype))}  # fmt: skip
    run = trained(**parts)
    assert {value.dtype for value in run.generator.parameters()} == {torch.float32}


def test_a_generator_without_latent_dim_is_told(trained: Trained) -> None:
    class Own(gankit.Generator):
        def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
            return z

    with pytest.raises(PartError, match=r"generator mine has no latent_dim: set self\.latent_dim"):
        trained(generator=Own)


class Scoring(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(768, 1)

    def forward(self, images: Tensor) -> Any:
        return self.score(images.flatten(1))


class ScorePair(Scoring):
    def forward(self, images: Tensor) -> Any:
        scores = super().forward(images)
        return scores, scores


class Squashed(nn.Module):
    """Its `features` and `score` are not all that `forward` does."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Flatten(), nn.Linear(768, 1)

    def score(self, features: Tensor) -> Tensor:
        return self.head(features)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Any:
        return self.score(self.features(images)).tanh()


class Named(Scoring):
    def forward(self, images: Tensor) -> Any:
        return {"scores": super().forward(images)}


class Scoreless(Scoring):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images)[:, :0]


class Frozen(Scoring):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class Whole(Scoring):
    def __init__(self) -> None:
        super().__init__()
        self.order = nn.Parameter(torch.arange(768), requires_grad=False)


class OtherSize(Scoring):
    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(3072, 1)


class OnceDifferentiable(Scoring):
    """Has no second derivative, which a gradient penalty takes."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:
            context.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(context: Any, gradient: Tensor) -> Any:
            return 2 * context.saved_tensors[0] * gradient

    def forward(self, images: Tensor) -> Any:
        return self.score(self.Square.apply(images.flatten(1)))  # type: ignore[no-untyped-call]


class Heated(Scoring):
    """Tells the log of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("heat", torch.tensor(0.25))

    def before_step(self, step: int) -> Any:
        return {"heat": self.heat}


def test_tensors_that_a_part_tells_of_a_step_are_logged_as_numbers(trained: Trained) -> None:
    assert [row["heat"] for row in trained(critic=gankit.wrap("critic", Heated)).log] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ScorePair, r"critic mine, called with \(4, 3, 16, 16\), returned a tuple of \(4, 1\) and \(4, 1\)"),
        (Named, r"critic mine, called with .*, returned a dict of scores: \(4, 1\); it must return one tensor"),
        (Frozen, r"critic mine has no parameters to train: all are frozen; call requires_grad_\(True\)"),
        (Whole, "critic mine has parameters of whole numbers, .*order: make them buffers"),
        (Scoreless, r"critic mine gives scores of shape \(4, 0\) for 4 images"),
        (Squashed, r"critic mine has methods `features` and `score`, and .* differs from `forward\(images, labels\)`"),
        (OtherSize, r"critic mine, called with \(4, 3, 16, 16\), raised RuntimeError: (addmm: )?mat1 and mat2"),
        (OnceDifferentiable, "in a trial step .*raised RuntimeError: trying to differentiate twice"),
    ],
)
def test_critics_that_are_refused(kind: type, message: str, trained: Trained) -> None:
    with pytest.raises(PartError, match=message):
        trained(critic=gankit.wrap("critic", kind))


class Running(gankit.Loss):
    """Keeps a running mean, as `hold` gives it."""

    hold: Callable[[float], Any] = float

    def __init__(self) -> None:
        self.gap = type(self).hold(0)

    def critic(self, turn: gankit.Turn) -> Tensor:
        self.gap = type(self).hold(0.9 * self.number() + 0.1 * turn.real_scores.mean().item())
        return self.number() * turn.fake_scores.mean()

    def number(self) -> float:
        return float(self.gap)

    def state_dict(self) -> dict[str, Any]:
        return {"gap": self.gap}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.gap = state["gap"]


class Fractions(Running):
    hold = Fraction

    def number(self) -> float:
        return float(self.gap)


class Stateless(Running):
    """Keeps the mean without a state."""

    state_dict = load_state_dict = property()  # type: ignore[assignment]


class OneWay(Running):
    load_state_dict = property()  # type: ignore[assignment]


class Now(Running):
    """Has a value only until its state is loaded."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loaded = True

    def critic(self, turn: gankit.Turn) -> Tensor | None:
        return None if hasattr(self, "loaded") else super().critic(turn)


class Vector(gankit.Loss):
    def critic(self, turn: gankit.Turn) -> Tensor:
        return turn.real_scores


class Number(gankit.Loss):
    def generator(self, turn: gankit.Turn) -> Tensor:
        return 0.5  # type: ignore[return-value]


class LogsAll(gankit.Loss):
    def generator(self, turn: gankit.Turn) -> Tensor:
        turn.log("scores", turn.fake_scores)
        return turn.fake_scores.mean()


class LogsStep(gankit.Loss):
    def generator(self, turn: gankit.Turn) -> Tensor:
        turn.log("step", turn.fake_scores.mean())
        return turn.fake_scores.mean()


class Failing(gankit.Loss):
    def after_step(self, turn: gankit.Turn) -> None:
        raise KeyError("gone")


def test_numbers_of_numpy_are_saved_as_numbers(trained: Trained) -> None:
    class Mean(Running):
        hold = np.float64

    run = trained("training.max_minutes=0.00001", "training.steps=50", loss=Mean)
    assert not run.finished
    assert gankit.resume(run.path, data=labelled()).path == run.path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Fractions, "the state of loss mine holds gap, a Fraction that a checkpoint cannot restore"),
        (Stateless, "loss mine finds .* in a second step on the critic's turn"),
        (Now, "loss mine finds .* in a second step on the critic's turn, and no value once all parts are built anew"),
        (OneWay, "loss mine cannot load its own saved state: AttributeError"),
        (Vector, r"loss mine returned \(4,\) on the critic's turn: return one number as a tensor"),
        (Number, r"loss mine returned 0.5 \(float\) on the generator's turn"),
        (Failing, "in a trial step loss mine raised KeyError: 'gone'"),
        (LogsAll, r"scores was logged with shape \(4,\): log one number, such as a mean"),
        (LogsStep, "a part logs step, which is an entry of gankit's own in the log; choose another name"),
    ],
)
def test_losses_that_are_refused(kind: type, message: str, trained: Trained) -> None:
    with pytest.raises(PartError, match=message):
        trained(loss=kind)


# Gradients and inputs


class Inverting(nn.Module):
    def forward(self, images: Tensor) -> Any:
        return images.neg_()


class Rounded(nn.Module):
    def forward(self, images: Tensor) -> Any:
        return torch.from_numpy(images.detach().numpy()).round()


class InPlace(Scoring):
    def forward(self, images: Tensor) -> Any:
        return super().forward(nn.functional.leaky_relu_(images))


class Deaf(Scoring):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images.detach())


class Fixed(Scoring):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images).detach()


class Still(Painter):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z).detach()


class Idle(gankit.Loss):
    """Trains nothing on the critic's turn."""

    def critic(self, turn: gankit.Turn) -> Tensor:
        return turn.fake_scores.mean().detach()

    def generator(self, turn: gankit.Turn) -> Tensor:
        return turn.fake.square().mean()


class Elsewhere(gankit.Loss):
    """Reaches parameters of its own, and no others."""

    def __init__(self) -> None:
        self.own = torch.ones((), requires_grad=True)

    def generator(self, turn: gankit.Turn) -> Tensor:
        return self.own * turn.fake.detach().mean()


class Overwriting(gankit.Loss):
    def critic(self, turn: gankit.Turn) -> Tensor:
        return turn.real_scores.mean() + turn.raw_real.mul_(0.5).mean()


BLOCKS = "lets no gradient through: leave out detach"


@pytest.mark.parametrize(
    ("parts", "losses", "message"),
    [
        ({"augment": gankit.wrap("augment", Inverting)}, ["hinge"], "augment mine changes its input in place"),
        ({"critic": gankit.wrap("critic", InPlace)}, ["hinge"], "critic mine changes its input in place"),
        ({"augment": gankit.wrap("augment", Rounded)}, ["hinge"], f"^augment mine {BLOCKS}"),
        ({"critic": gankit.wrap("critic", Deaf)}, ["hinge"], f"^critic mine {BLOCKS}"),
        ({"critic": gankit.wrap("critic", Deaf)}, ["wasserstein", "gradient-penalty"], f"^critic mine {BLOCKS}"),
        ({"critic": gankit.wrap("critic", Fixed)}, ["hinge"], f"^critic mine {BLOCKS}"),
        ({"generator": gankit.wrap("generator", Still, latent_dim=16)}, ["hinge"], f"^generator mine {BLOCKS}"),
        ({"loss": Overwriting}, ["hinge", "mine"], r"loss mine changes turn\.raw_real and turn\.real in place"),
        ({"loss": Idle}, ["mine"], "loss mine trains nothing on the critic's turn"),
    ],
)
def test_gradients_that_are_kept_and_inputs_that_are_changed(
    parts: dict[str, Any], losses: list[str], message: str, trained: Trained
) -> None:
    with pytest.raises(PartError, match=message):
        trained(f"losses={losses}".replace("'", '"'), **parts)


@pytest.mark.parametrize(("kind", "side"), [(Idle, "critic"), (Elsewhere, "generator")])
def test_a_loss_that_trains_nothing_is_named(
    kind: type, side: str, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(loss=kind)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert f"loss mine trains nothing on the {side}'s turn, as no gradient of it reaches the {side}" in line


class Counted(nn.Module):
    """Fills a list in `forward`, and empties it in `after_step`."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, images: Tensor) -> Any:
        self.seen.append(images.mean().detach())
        return images - 0.01 * self.mean

    def after_step(self, turn: gankit.Turn) -> None:
        self.mean.copy_(torch.stack(self.seen).mean())
        self.seen.clear()


def test_what_forward_fills_and_after_step_empties_is_no_lost_state(trained: Trained) -> None:
    class Filling(Counted, gankit.Augment):
        pass

    assert trained('losses=["hinge"]', augment=Filling).finished


def test_a_loss_that_is_nan_for_the_small_batch_alone_is_trained(trained: Trained) -> None:
    small = []

    class Rare(gankit.Loss):
        """The mean of what the small batch lacks, as a class may be."""

        def critic(self, turn: gankit.Turn) -> Tensor:
            small.append(len(turn.fake_scores) == PROBE_BATCH)
            chosen = torch.arange(len(turn.fake_scores)) >= PROBE_BATCH
            return (turn.fake_scores.flatten() * chosen).sum() / chosen.sum()

    assert trained(f"training.batch={2 * PROBE_BATCH}", 'losses=["hinge", "mine"]', loss=Rare).finished
    assert any(small)
    assert not all(small)


class Checkpointed(Scoring):
    """Computes its score once more in the backward pass, which `torch.autograd.grad` refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(768, 768)

    def forward(self, images: Tensor) -> Any:
        return torch.utils.checkpoint.checkpoint(self.score, self.mix(images.flatten(1)), use_reentrant=True)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_a_critic_with_a_re_entrant_checkpoint_trains(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained('losses=["hinge"]', critic=gankit.wrap("critic", Checkpointed)).finished
    assert "warning" not in capsys.readouterr().err


class Second(gankit.Loss):
    """Fails in the second turn of a critic."""

    def critic(self, turn: gankit.Turn) -> Tensor:
        if turn.step == 1:
            raise KeyError("gone")
        return turn.real_scores.mean()


def test_an_error_in_the_look_at_gradients_names_the_part(trained: Trained) -> None:
    with pytest.raises(PartError, match=r"^in a trial step loss mine raised KeyError: 'gone'"):
        trained(loss=Second)


class Learning(nn.Module, gankit.Loss):
    """Trains a scale of its own, and no network on the critic's turn."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def critic(self, turn: gankit.Turn) -> Tensor:
        return (self.scale - turn.real.std()).square()

    def after_step(self, turn: gankit.Turn) -> None:
        if self.scale.grad is not None:
            self.scale.data -= 0.1 * self.scale.grad
            self.scale.grad = None


def test_a_loss_that_trains_parameters_of_its_own_is_not_idle(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(loss=Learning)
    assert "trains nothing" not in capsys.readouterr().err


class OverwritingFakes(gankit.Loss):
    def generator(self, turn: gankit.Turn) -> Tensor:
        return turn.fake.mul_(0.5).mean()


TANH = gankit.wrap("generator", Painter, latent_dim=16)
IN_PLACE = "changes its input in place"


@pytest.mark.parametrize(
    ("parts", "losses", "message"),
    [
        ({"critic": gankit.wrap("critic", InPlace)}, ["hinge"], f"^critic mine {IN_PLACE}"),
        ({"critic": gankit.wrap("critic", InPlace)}, ["mine", "hinge"], f"^critic mine {IN_PLACE}"),
        ({"augment": gankit.wrap("augment", Inverting)}, ["hinge"], f"^augment mine {IN_PLACE}"),
        ({"loss": OverwritingFakes}, ["hinge", "mine"], r"^loss mine changes turn\.raw_fake and turn\.fake in place"),
    ],
)
def test_what_changes_images_that_a_generator_differentiates_is_named(
    parts: dict[str, Any], losses: list[str], message: str, trained: Trained
) -> None:
    if "loss" not in parts and "mine" in losses:
        parts = {**parts, "loss": Idle}
    with pytest.raises(PartError, match=message):
        trained(f"losses={losses}".replace("'", '"'), generator=TANH, **parts)


def test_an_augment_without_gradient_may_change_what_the_critic_alone_sees(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained("augment.scope=critic-turn", 'losses=["hinge"]', augment=gankit.wrap("augment", Rounded))
    assert "trains nothing" not in capsys.readouterr().err


# Cautions


class Bright(Painter):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z).sigmoid()


class Bounded(Scoring):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images).sigmoid()


class BatchNormed(Painter):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def inner(self, z: Tensor) -> Tensor:
        return self.norm(super().inner(z))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("parts", "caution"),
    [
        ({"generator": gankit.wrap("generator", Bright, latent_dim=16)}, "makes no value below 0"),
        ({"generator": gankit.wrap("generator", BatchNormed, latent_dim=16)}, "uses batch statistics in evaluation"),
        ({"critic": gankit.wrap("critic", Bounded)}, "gives only scores between 0 and 1"),
    ],
)
def test_cautions_about_networks(
    parts: dict[str, Any], caution: str, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained('losses=["hinge"]', **parts)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert caution in line


def test_cautions_about_labels(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.arange(24) % 3
    agreement = np.where(labels == 2, 0.4, 0.9)
    rare = gankit.wrap("dataset", IMAGES, labels=labels, class_names=("a", "b", "c"), agreement=agreement)
    run = trained("data.conditional=true", "data.min_agreement=0.6", data=rare)
    assert "warning: data: no training image is of class c:" in capsys.readouterr().err
    with pytest.raises(gankit.GankitError, match="no training image of class c"):
        run.sample(2, labels="c")
    trained("data.conditional=true", data=gankit.wrap("dataset", IMAGES, labels=np.zeros(24, int)), name="one")
    assert "there is a single class" in capsys.readouterr().err


class Faint(Scoring):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images).abs() / 1000


class Noisy(Painter):
    def inner(self, z: Tensor) -> Tensor:
        x = super().inner(z)
        return x + torch.randn_like(x)


def test_sound_parts_get_no_caution(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    trained("data.conditional=true")
    trained(critic=gankit.wrap("critic", Faint), name="faint")
    trained(generator=gankit.wrap("generator", Noisy, latent_dim=16), name="noisy")
    assert "warning" not in capsys.readouterr().err


# Threads, defaults of torch, tracing


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


def test_what_a_study_draws_waits_for_a_training_in_another_thread() -> None:
    began = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with seeds.own_draws():
            timed = pool.submit(time_steps, lambda steps: began.set(), 1)
            assert not began.wait(0.2)
        assert timed.result() >= 0
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


def test_a_penalty_beside_a_critic_that_mixes_samples_can_be_allowed(trained: Trained) -> None:
    mixing = ["critic.name=dcgan", 'losses=["non-saturating", "r1"]']
    with pytest.raises(PartError, match=r"mixes the samples .* training.mixed_penalties=true, as StyleGAN2 does"):
        trained(*mixing)
    assert trained(*mixing, "training.mixed_penalties=true").finished


# Settings, labels, and runs whose parts are not there


def test_a_generator_alone_is_enough_to_draw_and_show(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained("training.checkpoint_every=1", loss=Running, critic=gankit.wrap("critic", Viewed))
    monkeypatch.setattr(registry("loss"), "_registered", {})
    monkeypatch.setattr(registry("critic"), "_registered", {})
    opened = gankit.open_run(run.path)
    assert np.array_equal(opened.sample(3), run.sample(3))
    assert opened.experiment.tables() == run.experiment.tables()
    assert gankit.load(run.path).losses[1].name == "mine"
    write_report(opened)
    with pytest.raises(PartError, match="there is no critic named 'mine'"):
        opened.critic  # noqa: B018
    with pytest.raises(PartError, match="there is no critic named 'mine'"):
        gankit.train(gankit.load(run.path), run.path.parent / "other", data=labelled())
    with pytest.raises(gankit.GankitError, match="there is no loss named 'mine'"):
        gankit.load("wgan-gp", 'losses=["mine"]')


def test_a_number_is_a_name_where_names_are_numbers(trained: Trained) -> None:
    grades = gankit.wrap("dataset", IMAGES, labels=np.arange(24) % 3, class_names=("1", "2", "3"))
    run = trained("data.conditional=true", data=grades)
    for label in ("2", 2, np.int64(2)):
        assert run.encode_labels(1, label).tolist() == [1]
    for label in ("0", 0):
        with pytest.raises(gankit.GankitError, match=r"there is no class .*0"):
            run.encode_labels(1, label)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("losses.gradient-penalty.weight=true", "weight: a number is needed, not True"),
        ("training.steps=true", "training.steps: a number is needed, not True"),
        ("data.size=[true, 8]", "data.size: a number is needed"),
        ("generator.width=false", "generator.width: a number is needed, not False"),
        ("training.betas=[false, 0.9]", "training.betas: a number is needed"),
    ],
)
def test_truth_values_are_no_numbers(override: str, message: str) -> None:
    with pytest.raises(gankit.GankitError, match=re.escape(message)):
        gankit.load("wgan-gp", override)
    assert gankit.load("wgan-gp", "training.compile=true", "data.conditional=true").training.compile is True


def test_a_learning_rate_among_the_options_is_refused(trained: Trained) -> None:
    with pytest.raises(SettingsError, match=r"lr is no option here; set training.generator_lr and training.critic_lr"):
        trained("training.optimizer_options={lr=0.01}")


# Data of the calling program


def test_given_data_have_neither_size_nor_flip_of_a_recipe(tmp_path: Path) -> None:
    data = gankit.wrap("dataset", np.resize(IMAGES, (24, 3, 40, 48)))
    few = [text for text in FEW if not text.startswith("data.")]
    experiment = gankit.load("wgan-gp", *few)
    assert (experiment.data.size, experiment.data.flip) == (32, True)
    run = gankit.train(gankit.load(experiment, "training.steps=1"), tmp_path / "run", data=data)
    assert (run.image.height, run.image.width, run.experiment.data.flip) == (40, 48, False)
    asked = gankit.load("wgan-gp", *few, "data.size=16", "data.flip=true")
    run = gankit.train(asked, tmp_path / "asked", data=data)
    assert (run.image.height, run.experiment.data.flip) == (16, True)
