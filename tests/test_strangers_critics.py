"""Critics and losses as strangers write them: they train, or one line says what does not fit."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import strangers
import torch
from strangers import Running, Scoring, Trained, labelled
from torch import Tensor, nn

import gankit
from gankit.errors import PartError

trained = strangers.trained


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
        (Whole, "critic mine has integer parameters, .*order: make them buffers"),
        (Scoreless, r"critic mine gives scores of shape \(4, 0\) for 4 images"),
        (Squashed, r"critic mine has methods `features` and `score`, and .* differs from `forward\(images, labels\)`"),
        (OtherSize, r"critic mine, called with \(4, 3, 16, 16\), raised RuntimeError: (addmm: )?mat1 and mat2"),
        (OnceDifferentiable, "in a trial step .*raised RuntimeError: trying to differentiate twice"),
    ],
)
def test_critics_that_are_refused(kind: type, message: str, trained: Trained) -> None:
    with pytest.raises(PartError, match=message):
        trained(critic=gankit.wrap("critic", kind))


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


class Momentum(nn.Module, gankit.Loss):
    """Trains a network of its own by an optimizer with momentum, which `keep` says to save."""

    keep = False

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(768, 1)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.1, momentum=0.9)

    def critic(self, turn: gankit.Turn) -> Tensor:
        self.optimizer.zero_grad()
        self.net(turn.real.flatten(1)).mean().backward()
        self.optimizer.step()
        return turn.fake_scores.mean()

    def get_extra_state(self) -> Any:
        return self.optimizer.state_dict() if self.keep else None

    def set_extra_state(self, state: Any) -> None:
        if state is not None:
            self.optimizer.load_state_dict(state)


class KeptMomentum(Momentum):
    keep = True


def test_an_optimizer_of_a_loss_must_be_saved(trained: Trained) -> None:
    with pytest.raises(PartError, match=r"^loss mine changes weight in a step, which a resumed run would lose"):
        trained(loss=Momentum)
    assert trained(loss=KeptMomentum).finished


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
        (Stateless, "loss mine computes .* in a second step on the critic's turn"),
        (
            Now,
            "loss mine computes .* in a second step on the critic's turn, and no value once all parts are built anew",
        ),
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
