"""What a training says while it runs: its cost, the time left, and how it answers an interrupt."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tqdm.auto import tqdm

import gankit
from gankit.report import write_report
from gankit.terminal import text
from gankit.terminal.text import progress_bar
from gankit.training.progress import Progress, format_seconds
from gankit.training.stopping import StopRequest


class Terminal(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that the test moves: `clock[0]` is the time."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def take(bar: Progress, clock: list[float], steps: range, seconds: float) -> None:
    for step in steps:
        clock[0] += seconds
        bar.step(step + 1)


def test_the_cost_of_a_long_training_is_said_once_with_steps_for_a_short_one(
    clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Progress(100_000, 0, 64)
    take(bar, clock, range(1), 50)  # the first step loads and compiles
    take(bar, clock, range(1, 40), 1.368)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "100,000 steps: about 38.0 h on this machine; stop with Ctrl-C and go on at any time; "
        "training.steps=1000 takes 23 min"
    )


def test_the_cost_of_a_training_that_stops_by_itself_says_when(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    take(Progress(1800, 0, 32, max_minutes=7), clock, range(10), 2)
    take(Progress(1800, 0, 32, max_minutes=90), clock, range(10), 2)
    stops, does_not = capsys.readouterr().err.splitlines()
    assert stops == (
        "1,800 steps: about 60 min on this machine; training.max_minutes stops it after 7 min, "
        "and gankit resume goes on for as long again"
    )
    assert "max_minutes" not in does_not


def test_after_a_slow_first_step_the_cost_is_said_at_once(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    take(Progress(100_000, 0, 64), clock, range(1), 378)
    assert capsys.readouterr().err.startswith("100,000 steps: about 10,500.0 h on this machine")


def test_a_resumed_training_says_what_is_left(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    take(Progress(1000, 400, 64), clock, range(400, 420), 2)
    assert capsys.readouterr().err.startswith("600 steps that are left: about 20 min on this machine")


def test_the_cost_follows_from_the_steps_since_the_number_of_threads_was_chosen(
    clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Progress(1000, 0, 64)
    for step, seconds in enumerate([3, 3, 3, 3, 3, 3, 2]):
        clock[0] += seconds
        bar.step(step + 1, on_trial=True)
    assert capsys.readouterr().err == ""
    bar.count_anew()
    assert bar.seconds_left() > 2000  # nothing else is known yet
    take(bar, clock, range(7, 9), 1)
    assert capsys.readouterr().err.startswith("1,000 steps: about 17 min on this machine")
    assert bar.seconds_left() == 991


def test_the_cost_is_said_again_when_slow_first_steps_were_on_trial(
    clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Progress(1000, 0, 64)
    clock[0] += 80
    bar.step(1, on_trial=True)
    bar.count_anew()
    take(bar, clock, range(1, 3), 10)
    slow, fast = capsys.readouterr().err.splitlines()
    assert slow.startswith("1,000 steps: about 22.2 h")
    assert fast.startswith("1,000 steps: about 2.8 h")


def test_the_cost_is_the_mean_of_steps_with_and_without_lazy_losses(
    clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Progress(1000, 0, 64, period=8, evaluates=True)
    take(bar, clock, range(1), 30)  # it loads, compiles, and has all losses
    take(bar, clock, range(1, 8), 1)
    assert capsys.readouterr().err == ""
    take(bar, clock, range(8, 9), 9)
    assert capsys.readouterr().err.startswith("1,000 steps: about 33 min on this machine, without evaluations; ")
    assert bar.seconds_left() == 991 * (7 * 1 + 9) / 8


def test_a_long_period_delays_the_announcement_by_a_minute_at_most(
    clock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Progress(1000, 0, 64, period=100)
    take(bar, clock, range(6), 10)
    assert capsys.readouterr().err == ""
    take(bar, clock, range(6, 7), 10)
    assert capsys.readouterr().err.startswith("1,000 steps: about 2.8 h on this machine")


def test_a_short_training_and_other_processes_say_nothing(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    take(Progress(50, 0, 64), clock, range(20), 1)
    take(Progress(100_000, 0, 64, quiet=True), clock, range(20), 1)
    assert capsys.readouterr().err == ""


def test_without_a_terminal_there_is_a_line_for_each_tick(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress(50, 0, 64)
    for tick in range(3):
        take(bar, clock, range(10 * tick, 10 * tick + 10), 1)
        assert bar.speed()["images_per_second"] == 64
        bar.show({"critic/wasserstein": -1.5, "critic/mine:gradient-penalty": 2.5, "generator/wasserstein": 2.0})
    bar.say_stopped("interrupted", Path("runs/x"))
    bar.close()
    assert capsys.readouterr().err.splitlines() == [
        "step 10 of 50: 64 images/s, 40 s left; wasserstein=-1.5, gradient-penalty=2.5",
        "step 20 of 50: 64 images/s, 30 s left; wasserstein=-1.5, gradient-penalty=2.5",
        "step 30 of 50: 64 images/s, 20 s left; wasserstein=-1.5, gradient-penalty=2.5",
        "interrupted: stopped at step 30 of 50 after 30 s; go on with: gankit resume runs/x",
    ]


def test_a_terminal_has_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Progress(50, 0, 64)
    bar.step(1)
    bar.speed()
    bar.show({"critic/hinge": 1.0})
    bar.close()
    assert "1/50" in terminal.getvalue()
    assert "hinge=1" in terminal.getvalue()
    assert "step 1 of 50" not in terminal.getvalue()


def test_names_of_losses_are_whole_and_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("wasserstein", "mine:gradient-penalty", "auxiliary-class")
    for columns, last in ((80, "auxiliary-class=0.123"), (50, "...")):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        shape = columns, 30
        monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda shape=shape: lambda stream: shape)
        bar = Progress(100_000, 99_000, 64)
        bar.step(99_001)
        bar.speed()
        bar.show({f"critic/{name}": -0.1234 if name == names[0] else 0.1234 for name in names})
        bar.say("a line above")
        bar.close()
        lines = re.split(r"[\r\n]|\x1b\[A", terminal.getvalue())
        assert all(len(line) <= columns for line in lines)
        assert f"wasserstein=-0.123, gradient-penalty=0.123, {last}" in lines
        assert "a line above" in lines, "the bar is wiped first"


def screen(written: str) -> list[str]:
    """The lines of a terminal down to its cursor, or to the last words below it, after all that was written to it."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[A|[\r\n]|[^\x1b\r\n]+", written):
        if part == "\x1b[A":
            row -= 1
        elif part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    lines = [line.rstrip() for line in lines]
    while len(lines) > row + 1 and not lines[-1]:
        lines.pop()
    return lines


@pytest.mark.parametrize("losses", [{"critic/hinge": 1.0}, {}])
def test_a_closed_bar_stays_above_its_losses_and_leaves_no_empty_line(
    losses: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Progress(50, 0, 64)
    bar.step(1)
    bar.show(losses)
    bar.close()
    first, *others = screen(terminal.getvalue())
    assert "1/50" in first
    assert others == (["hinge=1", ""] if losses else [""])


@pytest.mark.parametrize("columns", [1, 2])
def test_a_terminal_of_hardly_any_columns_is_no_error(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda stream: (columns, 30))
    bar = Progress(50, 0, 64)
    bar.step(1)
    bar.show({"critic/wasserstein": 1.0, "critic/hinge": 1.0})
    bar.close()
    assert terminal.getvalue()


def test_a_bar_goes_on_without_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    assert list(progress_bar(range(3), mininterval=0)) == [0, 1, 2]


def test_other_lines_stand_above_the_bars_of_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(total=4, ncols=40) as bar:
        shown = sys.stderr.getvalue()
        text.say("data: 850 images", error=True)
        wiped, line, again = sys.stderr.getvalue().removeprefix(shown).partition("data: 850 images\n")
        assert wiped.strip("\r") == " " * 40
        assert again.startswith("\r  0%"), line
        bar.update(4)


def test_the_time_left_does_not_jump_when_a_few_steps_are_slow(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress(1000, 0, 64)
    take(bar, clock, range(900), 1)
    take(bar, clock, range(900, 905), 30)  # beside another program, or an evaluation
    assert 95 <= bar.seconds_left() <= 125


def test_the_first_interrupt_is_answered_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with StopRequest("finishing this step") as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert capsys.readouterr().err == "\nfinishing this step\n"
        assert stop.requested


@pytest.mark.parametrize(
    ("seconds", "words"), [(99.4, "99 s"), (100, "2 min"), (5999, "100 min"), (6000, "1.7 h"), (4e6, "1,111.1 h")]
)
def test_lengths_of_time_in_words(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words


def test_the_report_of_an_unfinished_run_says_so_at_the_top(small: Callable[..., list[str]], tmp_path: Path) -> None:
    experiment = gankit.load("wgan-gp", *small("training.max_minutes=0.00001"))
    run = gankit.train(experiment, tmp_path / "run")
    top = write_report(run).read_text().partition("<h2>")[0]
    assert f"stopped at step 1 of 6.\nGo on with: <code>gankit resume {run.path}</code>" in top
    (run.path / "experiment.toml").write_text(
        (run.path / "experiment.toml").read_text().replace("max_minutes = 1e-05", "")
    )
    finished = gankit.resume(run.path)
    assert "Unfinished" not in write_report(finished).read_text()


def test_a_bar_that_was_only_refreshed_ends_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(50):  # where its two times differed by rounding, every other one did not
        with progress_bar(total=2) as bar:
            bar.refresh()
    assert capsys.readouterr().err.count("\n") == 50


def test_a_line_is_not_repeated_until_something_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(text, "LINE_EVERY", 0.0)
    monkeypatch.setattr(tqdm, "monitor_interval", 0.01)  # else ten seconds
    monkeypatch.setattr(tqdm, "monitor", None)
    try:
        with progress_bar(total=20, bar_format="{n} {elapsed_s}") as bar:
            bar.update(10)
            time.sleep(0.3)
            assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["0", "10"]
    finally:
        tqdm.monitor.exit()


def test_a_bar_in_a_file_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(text, "LINE_EVERY", 0.0)
    with progress_bar(total=2, desc="looking", bar_format="{desc} {n}", leave=True) as bar:
        with progress_bar(total=1, desc="within", bar_format="{desc} {n}") as inner:
            inner.update()
            print("a line of its own", file=sys.stderr)
        bar.update(2)
    written = capsys.readouterr().err
    assert "\r" not in written
    assert "\x1b" not in written
    assert written.splitlines() == ["looking 0", "within 0", "within 1", "a line of its own", "looking 2"]


def test_the_first_line_in_a_file_comes_after_seconds_and_a_short_work_has_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(text.time, "monotonic", lambda: now[0])
    with progress_bar(total=100, delay=1, bar_format="{n} {rate_noinv_fmt}") as bar:
        for _ in range(50):
            now[0] += 1
            bar.update(1)
    assert capsys.readouterr().err.splitlines() == [f"{n}  1.00it/s" for n in (5, 35, 50)]
    with progress_bar(total=100, delay=1) as bar:
        for _ in range(4):
            now[0] += 1
            bar.update(1)
    assert capsys.readouterr().err == ""


def test_a_bar_in_a_file_is_not_a_line_for_every_item(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(progress_bar(range(100_000), "counting"))) == 100_000
    assert len(capsys.readouterr().err.splitlines()) == 2  # the start and the end
