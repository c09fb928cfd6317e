"""How many CPU threads a work uses: chosen by what its pieces take, recorded, and repeated by a resumed training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from same_runs import Killed
from torch import Tensor

import gankit
from gankit.evaluation import extraction
from gankit.features.pixels import Pixels
from gankit.nn import threads
from gankit.nn.threads import ThreadChoice, fastest, own_threads, thread_options, torch_threads
from gankit.studies import estimate
from gankit.studies.jobs import Job
from gankit.studies.study import Arm, Study, Work
from gankit.training import threads as step_threads
from gankit.training import train
from gankit.training.step import Stepper
from gankit.training.threads import StepThreads

Small = Callable[..., list[str]]
Machine = Callable[[int], float]


def idle(number: int) -> float:
    """Seconds of a piece of work on four idle cores."""
    return 0.3 / number


def busy(number: int) -> float:
    """Seconds of a piece beside other programs, where threads wait for each other."""
    return 0.35 * number


def work(choice: ThreadChoice, machine: Machine, seconds: float) -> list[int]:
    """Work for so long; the numbers of threads that were used, without repetitions."""
    used = []
    while seconds > 0:
        used.append(choice.threads)
        seconds -= machine(choice.threads)
        choice.note(machine(choice.threads))
    return [number for number, before in zip(used, [None, *used], strict=False) if number != before]


def test_more_threads_are_taken_while_they_are_faster() -> None:
    assert work(ThreadChoice([1, 2, 4]), idle, 10) == [1, 2, 4]
    assert work(ThreadChoice([1, 2, 4]), busy, 10) == [1, 2, 1]
    assert work(ThreadChoice([1, 2, 4]), lambda number: [0, 0.3, 0.2, 0, 0.25][number], 10) == [1, 2, 4, 2]
    assert fastest([1, 2, 4], lambda number: [0, 0.3, 0.2, 0, 0.25][number]) == 2
    assert fastest([8], lambda number: pytest.fail("there is nothing to time")) == 8


def test_fewer_are_tried_when_pieces_become_slow_and_more_once_there_is_time() -> None:
    choice = ThreadChoice([1, 2, 4])
    work(choice, idle, 60)
    assert work(choice, busy, 60) == [4, 2, 1]
    assert work(choice, idle, 30) == [1]
    assert work(choice, idle, 100) == [1, 2, 4]


def test_trials_on_a_busy_machine_take_a_twentieth_of_the_time_at_most() -> None:
    choice, tried = ThreadChoice([1, 2]), 0.0
    for _ in range(10_000):
        seconds = 0.2 if choice.threads == 1 else 8.0
        tried += seconds * (choice.threads == 2)
        choice.note(seconds)
    assert 0 < tried < 0.05 * (2000 + tried)


def test_a_work_that_goes_on_tries_nothing_until_it_is_slow() -> None:
    assert work(ThreadChoice([1, 2], 2, 0.15), idle, 60) == [2]
    assert work(ThreadChoice([1, 2], 2, 0.15), busy, 60) == [2, 1]
    assert work(ThreadChoice([1, 2], 2, None), busy, 60) == [2, 1]  # one that was killed within a trial
    assert work(ThreadChoice([1, 2], 8, 0.1), lambda number: 0.1, 60) == [8]  # on another machine


def test_a_number_that_somebody_has_chosen_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    with torch_threads(None):
        torch.set_num_threads(12)
        assert thread_options() == [1, 3, 6, 12]
        with torch_threads(6):
            assert thread_options() == [6]
        torch.set_num_threads(5)
        assert thread_options() == [5]
        torch.set_num_threads(6)  # as torch has it where two cores share one
        assert thread_options() == [1, 3, 6]
        monkeypatch.setenv("OMP_NUM_THREADS", "6")
        assert thread_options() == [6]


def test_each_thread_of_a_program_has_its_number_and_leaves_the_programs() -> None:
    """They need not leave in the reverse order of coming, as nested ones do."""
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second, ThreadPoolExecutor(1) as third:
        own = first.submit(own_threads).result()
        one, other, any_number = torch_threads(own + 1), torch_threads(own + 2), torch_threads(None)
        first.submit(one.__enter__).result()
        assert second.submit(torch.get_num_threads).result() == own + 1  # what torch does to a thread that is new
        assert second.submit(own_threads).result() == own
        second.submit(other.__enter__).result()
        assert first.submit(own_threads).result() == own + 1
        first.submit(one.__exit__, None, None, None).result()
        assert first.submit(own_threads).result() == own
        assert second.submit(thread_options).result() == [own + 2]  # still chosen
        third.submit(any_number.__enter__).result()
        assert third.submit(torch.get_num_threads).result() == own
        second.submit(other.__exit__, None, None, None).result()
        third.submit(any_number.__exit__, None, None, None).result()
        assert not first.submit(lambda: threads._this_thread.counts).result()
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == own


def test_two_trainings_in_threads_keep_their_numbers(small: Small, tmp_path: Path, used: list[tuple[int, int]]) -> None:
    before = torch.get_num_threads()
    waiting: list[Any] = []

    def start_the_other(row: dict[str, Any]) -> None:
        if not waiting:  # while the first is in the midst of its steps
            waiting.append(pool.submit(gankit.train, two, tmp_path / "two"))

    one, two = (gankit.load("wgan-gp", *small(f"training.threads={number}")) for number in (3, 2))
    with ThreadPoolExecutor(1) as pool:
        run = gankit.train(one, tmp_path / "one", on_tick=start_the_other)
        other = waiting[0].result()
        assert pool.submit(torch.get_num_threads).result() == before
    assert [number for _, number in used] == [3] * 6 + [2] * 6
    assert [run.experiment.run.threads, other.experiment.run.threads, torch.get_num_threads()] == [3, 2, before]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two cores to choose from, and a clock that moves by what a step takes there: `clock["machine"]`."""
    machine: dict[str, Any] = {"machine": lambda number: 2 / number, "now": 0.0}

    def now() -> float:
        machine["now"] += machine["machine"](torch.get_num_threads())  # read before and after a step
        return float(machine["now"])

    monkeypatch.setattr(train, "thread_options", lambda: [1] if any(threads._this_thread.counts) else [1, 2])
    monkeypatch.setattr(step_threads, "perf_counter", now)
    return machine


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The step and the threads of every update of the generator."""
    seen: list[tuple[int, int]] = []
    update = Stepper.update

    def note(self: Stepper, side: Any, batch: int, index: int) -> None:
        if side == "generator" and self.settings.critic_steps == 2:  # not in the rehearsal
            seen.append((self.step, torch.get_num_threads()))
        update(self, side, batch, index)

    monkeypatch.setattr(Stepper, "update", note)
    return seen


def weights(run: Path) -> dict[str, Tensor]:
    return dict(gankit.open_run(run).generator.state_dict())


@pytest.mark.slow
def test_a_resumed_training_repeats_the_recorded_choices_and_ends_bitwise_the_same(
    small: Small, tmp_path: Path, clock: dict[str, Any], used: list[tuple[int, int]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    wide = ["generator.width=16", "critic.width=16", "training.batch=8", "training.generator_batch=8"]
    experiment = gankit.load("wgan-gp", *small(*wide, "training.checkpoint_every=2", "training.tick_every=1"))
    gankit.train(experiment, tmp_path / "whole")
    whole = used.copy()
    assert whole == [(0, 1), (1, 1), (2, 2), (3, 2), (4, 2), (5, 2)]
    rows = [json.loads(line) for line in (tmp_path / "whole" / "threads.jsonl").read_text().splitlines()]
    assert rows == [
        {"step": 0, "threads": 1}, {"step": 2, "threads": 2}, {"step": 3, "threads": 2, "seconds": 1.0},
    ]  # fmt: skip
    assert "using 2 of 2 CPU threads, the fastest at present: 1 s per step" in capsys.readouterr().err

    def die(row: dict[str, Any]) -> None:
        if row["step"] == 4:  # the newest checkpoint is that of step 2
            raise Killed

    used.clear()
    with pytest.raises(Killed):
        gankit.train(experiment, tmp_path / "cut", on_tick=die)
    clock["machine"] = lambda number: 2 * number  # the machine is busy now: it would choose otherwise
    gankit.resume(tmp_path / "cut")
    assert used == [*whole[:4], *whole[2:]]
    whole_weights, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(value, cut[name]) for name, value in whole_weights.items())


def test_a_resumed_training_goes_on_choosing(
    small: Small, tmp_path: Path, clock: dict[str, Any], used: list[tuple[int, int]]
) -> None:
    settings = small(
        "training.steps=11", "training.lr_decay=none", "training.checkpoint_every=6", "training.tick_every=6"
    )

    def die(row: dict[str, Any]) -> None:
        raise Killed

    with pytest.raises(Killed):
        gankit.train(gankit.load("wgan-gp", *settings), tmp_path / "run", on_tick=die)
    clock["machine"] = lambda number: 5 * number  # busy since then
    gankit.resume(tmp_path / "run")
    assert dict(used) == {
        **dict.fromkeys(range(2), 1),
        **dict.fromkeys(range(2, 11), 2),
        **dict.fromkeys(range(8, 11), 1),
    }


def test_damaged_records_of_choices_are_left_out(tmp_path: Path) -> None:
    rows = ['{"step": 0, "threads": 2}', '{"step": 4, "threads": 0}', '{"step": 5}', '{"step": 6, "threads": "1"}', "{"]
    (tmp_path / "threads.jsonl").write_text("\n".join([*rows, '{"step": 7, "threads": 1, "seconds": "x"}']))
    assert StepThreads(tmp_path, [1, 2]).threads_for(9) == 2
    (tmp_path / "threads.jsonl").write_text("{")
    assert StepThreads(tmp_path, [1, 2]).threads_for(9) is None


def test_a_number_in_the_settings_is_neither_timed_nor_changed(
    small: Small, tmp_path: Path, clock: dict[str, Any], used: list[tuple[int, int]]
) -> None:
    gankit.train(gankit.load("wgan-gp", *small("training.threads=2")), tmp_path / "run")
    assert {number for _, number in used} == {2}
    assert not (tmp_path / "run" / "threads.jsonl").exists()


def test_a_run_that_never_chose_keeps_its_number(
    small: Small, tmp_path: Path, clock: dict[str, Any], used: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As runs of gankit before 0.2."""
    with monkeypatch.context() as patch:
        patch.setattr(train, "thread_options", lambda: [1])
        gankit.train(gankit.load("wgan-gp", *small("training.max_minutes=0.00001")), tmp_path / "run")
    file = tmp_path / "run" / "experiment.toml"
    file.write_text(file.read_text().replace("max_minutes = 1e-05", ""))
    gankit.resume(tmp_path / "run")
    assert {number for _, number in used} == {1}


def test_a_study_of_one_worker_takes_the_number_with_which_its_steps_are_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tiny(Study):
        timed: list[int | None] = []

        def arms(self) -> list[Arm]:
            return [Arm("one", "a job")]

        def time_step(self, number: int | None) -> float:
            self.timed.append(number)
            return [0, 3.0, 1.0, 0, 2.0][number or 0]

        def work(self, jobs: Path) -> list[Work]:
            job = Job("one", lambda folder: {"threads": torch.get_num_threads(), "free": len(thread_options()) > 1})
            return [Work("job", [job], 10, self.time_step)]

        def judge(self, outcomes: Any, folder: Path) -> Any:
            return outcomes["one"].result

        def report(self, results: Any) -> None:
            pass

    monkeypatch.setattr(estimate, "thread_options", lambda: [1, 2, 4])
    assert Tiny(gankit.load("wgan-gp")).run(tmp_path / "chosen", quiet=True).values == {"threads": 2, "free": False}
    assert Tiny.timed == [1, 2, 4]  # each once, for the choice and the estimate together
    assert Tiny(gankit.load("wgan-gp")).run(tmp_path / "set", threads=3, quiet=True).values["threads"] == 3


def test_features_are_computed_with_the_fastest_number(monkeypatch: pytest.MonkeyPatch) -> None:
    now, used = [0.0], []

    class Slow(Pixels):
        def forward(self, images: Tensor) -> Tensor:
            used.append(torch.get_num_threads())
            now[0] += 2.0 * used[-1]
            return super().forward(images)

    monkeypatch.setattr(extraction, "thread_options", lambda: [1, 2])
    monkeypatch.setattr(extraction, "perf_counter", lambda: now[0])
    images = gankit.wrap("dataset", np.zeros((5 * extraction.BATCH, 1, 8, 8), np.uint8))
    extraction.features(images, Slow(gankit.ImageSpec(1, 8, 8)), quiet=True)
    assert used == [1, 2, 1, 1, 1]
    assert torch.get_num_threads() == 1


def test_a_study_tries_threads_on_the_work_that_takes_longest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not on the one of most steps, nor on what is done."""
    tried = []

    def kind(name: str, jobs: list[str], steps: int, seconds: float) -> Work:
        def time_step(number: int | None) -> float:
            assert number is not None
            tried.append((name, number))
            return seconds / number

        return Work(name, [Job(job, lambda folder: {}) for job in jobs], steps, time_step)

    work = [kind("slow", ["a", "b"], 10, 1.0), kind("long", ["c"], 1000, 0.001), kind("done", ["d"], 1000, 1.0)]
    work.append(kind("", ["e"], 1, 1e9))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "result.json").touch()
    monkeypatch.setattr(estimate, "thread_options", lambda: [1, 2])
    in_seconds, threads = estimate.estimate(work, tmp_path, 1, None, choose_threads=True, quiet=True)
    assert threads == 2
    assert tried[:3] == [("slow", 1), ("long", 1), ("slow", 2)]
    assert len(set(tried)) == len(tried)  # nothing is timed twice
    assert [job.cost for kind in in_seconds for job in kind.jobs] == pytest.approx([5, 5, 0.5, 500, 5e8])
    # What is not estimated is not tried either
    assert estimate.estimate(work[3:], tmp_path, 1, None, choose_threads=True, quiet=True)[1] == 1
