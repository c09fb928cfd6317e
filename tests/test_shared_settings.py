"""What all parts share, as torch's number of threads: a part that changes it is refused, and it is put back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import strangers
import torch
from strangers import Painter, Scoring, Trained
from torch import Tensor, nn

import gankit
from gankit.errors import PartError

trained = strangers.trained
CHANGES: dict[str, Callable[[], Any]] = {
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "torch's number of CPU threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch's deterministic mode": lambda: torch.use_deterministic_algorithms(True),
    "NumPy's handling of errors": lambda: np.seterr(invalid="raise"),
    "the working directory": lambda: os.chdir("/"),
    "what Ctrl-C does": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    "torch's seed": lambda: torch.manual_seed(0),
}


def shared() -> list[Any]:
    return [
        torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(),
        torch.get_deterministic_debug_mode(), np.geterr(), os.getcwd(), signal.getsignal(signal.SIGINT),
        torch.is_grad_enabled(), torch.get_rng_state().tolist(),
    ]  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_a_part_that_changes_what_all_share_is_refused(what: str, trained: Trained) -> None:
    class Changing(Painter):
        def forward(self, z: Tensor) -> Any:
            CHANGES[what]()
            return super().forward(z)

    class Built(Scoring):
        def __init__(self) -> None:
            super().__init__()
            CHANGES[what]()

    class Term(gankit.Loss):
        def critic(self, turn: gankit.Turn) -> Tensor:
            CHANGES[what]()
            return turn.real_scores.mean()

    before = shared()
    for kind, part, names in (
        ("generator", gankit.wrap("generator", Changing, latent_dim=16), "generator mine"),
        ("critic", gankit.wrap("critic", Built), "critic mine"),
        ("loss", Term, "(loss mine|one of generator resnet, critic resnet, loss wasserstein, loss mine)"),
    ):
        with pytest.raises(PartError, match=f"^{names} changes {what}, which all parts share: leave it as it is"):
            trained(**{kind: part})
        assert shared() == before


def test_a_part_that_ends_the_making_of_gradients_is_refused(trained: Trained) -> None:
    class Graphless(Scoring):
        def forward(self, images: Tensor) -> Any:
            torch.set_grad_enabled(False)
            return super().forward(images)

    with pytest.raises(PartError, match=r"critic mine, .*changes torch's gradient mode, which all parts share"):
        trained(critic=gankit.wrap("critic", Graphless))
    assert torch.is_grad_enabled()


class Constant(Scoring):
    """With random numbers that no state holds."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.rand(())

    def forward(self, images: Tensor) -> Any:
        return self.scale * super().forward(images)


class Timed(nn.Module):
    """Computes with the time."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x) * (1 + time.perf_counter() % 1)


UNSTEADY = "computes something else at every call for the same input and draws: use no clock"


def test_a_clock_is_told_from_mixed_samples_and_from_constants_that_are_not_saved(trained: Trained) -> None:
    with pytest.raises(PartError, match=f"^critic mine {UNSTEADY}"):
        trained(critic=gankit.wrap("critic", Timed(Scoring())))
    with pytest.raises(PartError, match=f"^generator mine {UNSTEADY}"):
        trained(generator=gankit.wrap("generator", Timed(Painter()), latent_dim=16))
    with pytest.raises(PartError, match=r"^critic mine computes something else once it is built anew with its saved"):
        trained(critic=gankit.wrap("critic", Constant))
