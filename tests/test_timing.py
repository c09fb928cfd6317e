"""How long a step takes, for plans and studies: which steps are timed, and for how long."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import gankit
from gankit.testing._capture import replay_turns
from gankit.training import timing
from gankit.training.pixels import ReadAhead
from gankit.training.step import Stepper
from gankit.training.timing import time_training

Clock = Callable[[Callable[[int], float]], Counter[int]]
SMALL = ["data.counts=[4,4,4]", "training.batch=4", "generator.widths=[4,4,4,4]", "critic.widths=[4,4,4,4]"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let each step take the seconds that a function of its number says; how often each number was done."""

    def start(seconds: Callable[[int], float]) -> Counter[int]:
        now, done = [0.0], Counter[int]()

        def advance(stepper: Stepper) -> None:
            done[stepper.step] += 1
            now[0] += seconds(stepper.step)
            stepper.go_to(stepper.step + 1)

        monkeypatch.setattr(Stepper, "advance", advance)
        monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
        return done

    return start


def test_real_steps_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TIMED_STEPS", 1)
    state = torch.get_rng_state()
    assert 0 < time_training(gankit.load("demo", *SMALL)) < 60
    assert torch.equal(torch.get_rng_state(), state)


def test_steps_with_a_lazy_loss_count_as_often_as_they_come(clock: Clock) -> None:
    clock(lambda step: 9 if step % 8 == 0 else 1)
    lazy = gankit.load("demo", *SMALL, "losses.gradient-penalty.every=8", "training.critic_steps=1")
    assert time_training(lazy) == 2
    # Of critic updates 0 to 23, those of eight steps, 0, 8 and 16 have the penalty: those of steps 0, 2 and 5.
    clock(lambda step: 9 if step % 8 in (0, 2, 5) else 1)
    assert time_training(gankit.load(lazy, "training.critic_steps=3")) == 4
    assert time_training(gankit.load(lazy, "training.critic_steps=3", "training.steps=2")) == 5


def test_two_lazy_losses_make_four_kinds_of_steps(clock: Clock) -> None:
    done = clock(lambda step: 1 + 4 * (step % 2 == 0) + 9 * (step % 3 == 0))
    losses = "losses=[{name='hinge'}, {name='r1', every=2}, {name='r2', every=3}]"
    assert time_training(gankit.load("demo", *SMALL, losses, "training.critic_steps=1"), limit=1e9) == 6
    assert done == dict.fromkeys((n + 6 * i for n in range(4) for i in range(1 + timing.TIMED_STEPS)), 1)


def test_slow_steps_are_timed_once_of_each_kind(clock: Clock) -> None:
    lazy = gankit.load("demo", *SMALL, "losses.gradient-penalty.every=16", "training.critic_steps=1")
    done = clock(lambda step: 30)
    assert time_training(lazy) == 30
    assert done == dict.fromkeys((0, 16, 1, 17), 1)  # the first of each kind, which loads and compiles, is not timed
    done = clock(lambda step: 4)
    time_training(lazy)
    assert done == dict.fromkeys((0, 16, 32, 48, 1, 17, 33, 49), 1)
    done = clock(lambda step: 4)
    time_training(gankit.load(lazy, "training.steps=18"))
    assert done == {0: 2, 16: 2, 1: 2, 17: 2}  # none after the last, where schedules end


@pytest.mark.parametrize("critic_steps", [1, 2])
@pytest.mark.parametrize("every", [1, 16])
def test_images_of_timed_steps_are_read_ahead_as_in_a_training(
    every: int, critic_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they are read ahead: else steps would wait for the disk."""
    reads: list[bool] = []  # of each critic update: whether its images had been asked for before
    read = ReadAhead.rows

    def rows(ahead: ReadAhead, indices: Any, next_indices: Any) -> torch.Tensor:
        reads.append(indices.tobytes() in ahead._waiting)
        return read(ahead, indices, next_indices)

    timed: list[bool] = []

    def middle(times: list[float]) -> float:
        steps = [all(reads[i : i + critic_steps]) for i in range(0, len(reads), critic_steps)]
        # With two kinds of steps, an untimed one goes before each.
        timed.extend(steps[:: -1 if every == 1 else -2][: timing.TIMED_STEPS])
        reads.clear()
        return 1.0

    monkeypatch.setattr("gankit.training.data.place", ReadAhead)
    monkeypatch.setattr(ReadAhead, "rows", rows)
    monkeypatch.setattr(timing, "median", middle)
    settings = [f"losses.gradient-penalty.every={every}", f"training.critic_steps={critic_steps}"]
    time_training(gankit.load("demo", *SMALL, *settings), limit=1e9)
    assert timed == [True] * timing.TIMED_STEPS * (1 if every == 1 else 2)


@pytest.mark.parametrize("kinds", [1, 2])
def test_recorded_turns_alone_are_timed_where_turns_are_recorded(kinds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[int] = []  # kinds of turns, when each step began to be timed
    steppers: list[Any] = []

    def replaying(*given: Any) -> Stepper:
        steppers.append(Stepper(*given))
        replay_turns(steppers[-1], pytest.fail)
        return steppers[-1]

    def time() -> float:
        recorded.append(len(steppers[-1].execution.recorded))
        return 0.0

    monkeypatch.setattr(timing, "Stepper", replaying)
    monkeypatch.setattr(timing.time, "perf_counter", time)
    every = f"losses.gradient-penalty.every={kinds}"
    time_training(gankit.load("demo", *SMALL, every, "training.critic_steps=1"))
    begun = recorded[::2]
    timed = [begun[i : i + 8] for i in range(0, len(begun), 8)]  # three warm-ups and five timed steps of each kind
    assert [set(steps[3:]) for steps in timed] == [{2}, {3}][:kinds]
    assert all(steps[2] < steps[3] for steps in timed)


def test_steps_that_are_timed_compute_as_those_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a replay on a GPU would differ from an eager turn, and the eager ones be timed."""
    now: list[str] = []
    seen: list[str] = []

    @contextlib.contextmanager
    def computing(settings: Any, device: torch.device) -> Iterator[None]:
        now.append(settings.precision)
        yield
        now.pop()

    monkeypatch.setattr("gankit.training.step.arithmetic", computing)
    monkeypatch.setattr(Stepper, "advance", lambda stepper: seen.extend(now or ["outside"]))
    monkeypatch.setattr(Stepper, "close", lambda stepper: seen.append("close"))
    assert time_training(gankit.load("demo", *SMALL, "training.precision=bf16")) >= 0
    assert set(seen[:-1]) == {"bf16"}
    assert seen[-1] == "close"


@pytest.mark.parametrize(("setting", "expected"), [("auto", 2), ("1", 1)])
def test_the_training_s_own_threads_go_first(setting: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    monkeypatch.setattr(Stepper, "advance", lambda stepper: seen.add(torch.get_num_threads()))
    time_training(gankit.load("demo", *SMALL, f"training.threads={setting}"), threads=2)
    assert seen == {expected}
