"""Jobs of a study: resumed and never repeated, failures marked, interrupts and dead workers survived."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import psutil
import pytest
import torch

import gankit
from gankit.errors import BusyError, GankitError, RunError
from gankit.registry import registry
from gankit.studies.jobs import Job, run_jobs
from gankit.training.stopping import StopRequest


def count(folder: Path) -> dict[str, Any]:
    """Says how often it was started in this folder."""
    started = len(list(folder.glob("started-*")))
    (folder / f"started-{started}").touch()
    return {"started": started + 1, "threads": torch.get_num_threads(), "process": os.getpid()}


def fail(folder: Path) -> dict[str, Any]:
    raise GankitError("the images are broken")


def die_once(folder: Path) -> dict[str, Any]:
    found = count(folder)
    if found["started"] == 1:
        os._exit(9)
    return found


def use_the_script_part(folder: Path) -> dict[str, Any]:
    return {"part": registry("loss").get("of-the-script").__name__, **count(folder)}


def interrupted_once(folder: Path) -> dict[str, Any]:
    if count(folder)["started"] == 1:
        raise KeyboardInterrupt
    return {"gone on": True}


def lose_the_job(folder: Path) -> dict[str, Any]:
    shutil.rmtree(folder)
    return {}


def lose_the_study(folder: Path) -> dict[str, Any]:
    folder.parent.rename(folder.parent.with_name("moved"))
    return {}


def wait_for(file: Path, *, by: subprocess.Popen[Any] | processes.Started) -> None:
    """Wait until a process has made a file, however long that takes on a busy machine."""
    while not file.exists():
        assert by.poll() is None, "the process has ended without it"
        time.sleep(0.05)


def test_results_come_in_order_and_jobs_are_not_repeated(tmp_path: Path) -> None:
    jobs = [Job(name, count) for name in ("b", "a", "c.d-e_1")]
    for _ in range(2):
        found = run_jobs(jobs, tmp_path / "jobs", threads=1, quiet=True)
        assert list(found) == ["b", "a", "c.d-e_1"]
        assert all(outcome.result["started"] == 1 and outcome.failure is None for outcome in found.values())
    more = run_jobs([*jobs, Job("new", count)], tmp_path / "jobs", quiet=True)
    assert [outcome.result["started"] for outcome in more.values()] == [1, 1, 1, 1]


def test_a_short_first_job_does_not_say_how_long_the_others_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was to take 20 seconds and took 60; the others are to take 200 each."""
    short = Job("short", count, cost=20)
    run_jobs([short], tmp_path, quiet=True)
    content = json.loads((tmp_path / "short" / "result.json").read_text())
    del content["seal"]
    (tmp_path / "short" / "result.json").write_text(json.dumps({**content, "seconds": 60}))
    run_jobs([short, *(Job(name, count, cost=200) for name in "abc")], tmp_path)
    found = re.search(r"1 of 4 jobs .*, (\d+):(\d+) left", capsys.readouterr().err)
    assert found
    assert 600 < 60 * int(found[1]) + int(found[2]) < 800  # not 1,800


def test_the_time_left_is_told_before_a_job_has_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_jobs([Job("one", count, cost=600.0), Job("two", count, cost=300.0)], tmp_path, threads=1)
    said = capsys.readouterr().err
    assert re.search(r"0 of 2 jobs +0%.*, (15:00|14:5\d) left", said)
    assert re.search(r"2 of 2 jobs +100%.*, 00:00 left", said)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    script = f"""
import sys, time
from gankit.studies.jobs import Job, run_jobs
from pathlib import Path
def slow(folder):
    (folder / "begun").touch()
    sys.stdin.readline()
    return {{}}
run_jobs([Job("slow", slow)], Path({str(tmp_path)!r}), quiet=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as other:
        wait_for(tmp_path / "slow" / "begun", by=other)
        with pytest.raises(RunError, match=rf"process {other.pid} on .* is writing here; wait for it"):
            run_jobs([Job("mine", count)], tmp_path, quiet=True)
        assert not (tmp_path / "mine").exists()
        other.kill()  # leaves no lock behind
    assert run_jobs([Job("mine", count)], tmp_path, quiet=True)["mine"].result["started"] == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a process does not learn there that its parent has ended")
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = f"""
import os, time
from gankit.studies.jobs import Job, run_jobs
from pathlib import Path
def slow(folder):
    (folder / "worker").write_text(str(os.getpid()))
    (folder / "begun").touch()
    if folder.name == "idle":
        return {{}}
    try:
        time.sleep(300)
    finally:
        time.sleep(0.5)
        (folder / "ended").touch()
run_jobs([Job(name, slow) for name in ("idle", "a", "b")], Path({str(tmp_path)!r}), workers=3, quiet=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as parent:
        for file in ("a/begun", "b/begun", "idle/result.json"):
            wait_for(tmp_path / file, by=parent)
        workers = [psutil.Process(int((tmp_path / name / "worker").read_text())) for name in ("a", "b", "idle")]
        parent.kill()

    def after(folder: Path) -> dict[str, Any]:
        return {"one at a time": (folder / "ended").exists()}

    found = run_jobs([Job(name, after) for name in "ab"], tmp_path, quiet=True)
    assert [outcome.result for outcome in found.values()] == [{"one at a time": True}] * 2
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


@pytest.mark.skipif(os.name == "nt", reason="a process does not learn there that its parent has ended")
def test_a_look_at_the_parent_that_fails_is_neither_its_end_nor_the_last(tmp_path: Path) -> None:
    script = """
import errno, pathlib, psutil, sys, time
from gankit.studies.worker import end_with
status, failures = psutil.Process.status, [psutil.AccessDenied(), OSError(errno.EMFILE, "Too many open files")]
def look(process):
    if failures:
        raise failures.pop()
    pathlib.Path(sys.argv[2]).touch()
    return status(process)
psutil.Process.status = look
end_with(int(sys.argv[1]))
time.sleep(30)
"""
    wait = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(wait, stdin=subprocess.PIPE) as parent:
        worker = processes.Started(str(parent.pid), str(tmp_path / "seen"), code=script)
        wait_for(tmp_path / "seen", by=worker)
        parent.kill()
        assert worker.wait().returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a process does not learn there that its parent has ended")
def test_workers_that_still_load_when_their_parent_is_killed_end_too(tmp_path: Path) -> None:
    script = f"""
import os, psutil, signal, threading, time
from gankit.studies.jobs import Job, run_jobs
from pathlib import Path
def end():
    while len(workers := [p.pid for p in psutil.Process().children() if "LokyProcess" in str(p.cmdline())]) < 2:
        time.sleep(0.01)
    Path({str(tmp_path / "workers")!r}).write_text(" ".join(map(str, workers)))
    time.sleep(0.1)  # The workers have been told what to do, and have not yet loaded gankit
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=end).start()
run_jobs([Job(name, lambda folder: time.sleep(300)) for name in "ab"], Path({str(tmp_path / "jobs")!r}), workers=2)
"""
    subprocess.run([sys.executable, "-c", script], stderr=subprocess.DEVNULL, check=False)
    workers = [psutil.Process(int(word)) for word in (tmp_path / "workers").read_text().split()]
    _, alive = psutil.wait_procs(workers, timeout=120)  # much less than `SILENCE`
    assert not alive


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there are no shells of Unix")
def test_workers_that_a_shell_has_started_work_and_end_with_their_main_process(tmp_path: Path) -> None:
    shell = tmp_path / "python"
    shell.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')  # as in wrappers of clusters; not by `exec`
    shell.chmod(0o755)
    script = f"""
import os, sys, time
from gankit.studies.jobs import Job, run_jobs
from pathlib import Path
sys.executable = {str(shell)!r}
def quick(folder):
    return {{"worker": os.getpid(), "parent": os.getppid()}}
def slow(folder):
    (folder / "worker").write_text(str(os.getpid()))
    (folder / "begun").touch()
    time.sleep(300)
folder = Path({str(tmp_path / "jobs")!r})
found = run_jobs([Job("a", quick), Job("b", quick)], folder, workers=2, quiet=True)
assert all(outcome.result["parent"] != os.getpid() for outcome in found.values())
run_jobs([Job("c", slow)], folder, workers=2, quiet=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as main:
        wait_for(tmp_path / "jobs" / "c" / "begun", by=main)
        worker = psutil.Process(int((tmp_path / "jobs" / "c" / "worker").read_text()))
        main.kill()
    _, alive = psutil.wait_procs([worker], timeout=60)  # much less than `SILENCE`
    assert not alive


def test_a_folder_that_another_process_writes_is_no_failure_of_the_job(tmp_path: Path) -> None:
    def busy(folder: Path) -> dict[str, Any]:
        raise BusyError("run: process 7 is writing here")

    with pytest.raises(BusyError, match="process 7"):
        run_jobs([Job("a", busy)], tmp_path, quiet=True)
    assert run_jobs([Job("a", count)], tmp_path, quiet=True)["a"].failure is None


def test_threads_are_set_recorded_and_put_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    found = run_jobs([Job("a", count)], tmp_path, threads=3, quiet=True)["a"]
    assert (found.result["threads"], found.threads, torch.get_num_threads()) == (3, 3, before)
    assert run_jobs([Job("b", count)], tmp_path, quiet=True)["b"].threads == before


def test_a_failure_is_marked_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_jobs([Job("bad", fail), Job("good", count)], tmp_path)
    assert found["bad"].failure == "the images are broken"
    assert found["bad"].result == {}
    assert found["good"].result["started"] == 1
    shown = capsys.readouterr().err
    assert "bad failed: the images are broken" in shown
    assert "2 of 2 jobs" in shown
    again = run_jobs([Job("bad", count)], tmp_path, quiet=True)  # not tried again
    assert again["bad"].failure == "the images are broken"
    (tmp_path / "bad" / "result.json").unlink()
    assert run_jobs([Job("bad", count)], tmp_path, quiet=True)["bad"].failure is None


def test_an_interrupt_stops_and_the_next_start_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [Job("first", count), Job("second", interrupted_once), Job("third", count)]
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, tmp_path, quiet=True)
    assert "stopped with 2 of 3 jobs to do" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()
    found = run_jobs(jobs, tmp_path, quiet=True)
    assert found["first"].result["started"] == 1
    assert found["second"].result == {"gone on": True}
    assert found["third"].result["started"] == 1


def test_the_time_of_earlier_starts_counts(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "seconds.txt").write_text("100.5")
    assert run_jobs([Job("a", count)], tmp_path, quiet=True)["a"].seconds >= 100.5


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    def broken(folder: Path) -> dict[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_jobs([Job("a", broken)], tmp_path, quiet=True)
    assert not (tmp_path / "a" / "result.json").exists()


@pytest.mark.parametrize("lose", [lose_the_job, lose_the_study])
def test_a_folder_that_is_moved_or_deleted_meanwhile_is_named_as_gone(
    lose: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=f"^{re.escape(str(tmp_path / 'jobs'))}.* is gone: .+ put it back"):
        run_jobs([Job("a", lose), Job("b", count)], tmp_path / "jobs", quiet=True)
    assert not (tmp_path / "jobs" / "b").exists()
    assert run_jobs([Job("a", count)], tmp_path / "jobs", quiet=True)["a"].failure is None


@pytest.mark.parametrize("names", [("a", "a"), ("a/b",), ("",), ("..",), ("a b",)])
def test_names_must_serve_as_folders(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names are different"):
        run_jobs([Job(name, count) for name in names], tmp_path, quiet=True)


def test_a_broken_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text("{")
    with pytest.raises(RunError, match=r"result\.json cannot be read"):
        run_jobs([Job("a", count)], tmp_path, quiet=True)


def test_a_result_that_was_changed_by_hand_is_not_judged(tmp_path: Path) -> None:
    run_jobs([Job("a", count)], tmp_path, quiet=True)
    path = tmp_path / "a" / "result.json"
    path.write_text(path.read_text().replace('"started": 1', '"started": 2'))
    with pytest.raises(RunError, match=r"a/result\.json cannot be read \(.*changed since it was written\): delete it"):
        run_jobs([Job("a", count)], tmp_path, quiet=True)


def test_workers_survive_a_death_and_know_the_parts_of_the_script(tmp_path: Path) -> None:
    class OfTheScript(gankit.Loss):
        """Registered here alone."""

    gankit.losses.register("of-the-script")(OfTheScript)
    jobs = [Job("quick", count), Job("part", use_the_script_part), Job("dies", die_once)]
    found = run_jobs(jobs, tmp_path, workers=2, threads=1, quiet=True)
    assert found["part"].result["part"] == "OfTheScript"
    assert found["dies"].result["started"] == 2
    assert all(outcome.failure is None and outcome.threads == 1 for outcome in found.values())
    assert os.getpid() not in {outcome.result["process"] for outcome in found.values()}
    assert (tmp_path / "quick" / "output.txt").is_file()


def test_workers_that_do_nothing_are_not_asked_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gankit.studies.jobs.run_job", lambda *given: None)
    with pytest.raises(RunError, match=r"workers were lost 3 times before any job ended \(a or a neighbour\)"):
        run_jobs([Job("a", count)], tmp_path, quiet=True)


def test_workers_that_were_there_before_go_where_the_program_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers live on for a while, and paths of a study may be relative to where its program stands."""
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        found = run_jobs([Job(name, count) for name in "ab"], Path("jobs"), workers=2, threads=1, quiet=True)
        assert [outcome.result["started"] for outcome in found.values()] == [1, 1]
        assert (tmp_path / place / "jobs" / "a" / "started-0").is_file()


SCRIPT = """
import sys, time
from pathlib import Path
from gankit.studies.jobs import Job, run_jobs

def wait(folder):
    (folder / "here").touch()
    naps = 0 if (folder / "mark").exists() else int(sys.argv[2])
    for _ in range(naps):
        time.sleep(60 / naps)
    return {}

def main():
    run_jobs([Job(name, wait) for name in "abcd"], Path(sys.argv[1]), workers=2, threads=1, quiet=True)

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_a_second_interrupt_of_workers_says_what_is_lost(tmp_path: Path) -> None:
    script, jobs = tmp_path / "script.py", tmp_path / "jobs"
    # Jobs that do not stop when they are asked to.
    deaf = "    import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n    (folder"
    script.write_text(SCRIPT.replace("    (folder", deaf, 1))
    words = [sys.executable, str(script), str(jobs), "1"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    for name in "ab":
        wait_for(jobs / name / "here", by=process)
    process.send_signal(signal.SIGINT)
    time.sleep(StopRequest.GRACE + 0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert said.index("interrupt again") < said.index("stopped at once: what running jobs did since")
    assert "is lost; run the same command again to continue" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "kind", "naps"),
    [([], signal.SIGINT, "1"), (["sh", "-c", 'trap "" INT; exec "$@"', "sh"], signal.SIGTERM, "600")],
    ids=["in the foreground", "in the background, where Ctrl-C is ignored"],
)
def test_an_interrupt_of_the_parent_reaches_its_workers(
    start: list[str], kind: signal.Signals, naps: str, tmp_path: Path
) -> None:
    script, jobs = tmp_path / "script.py", tmp_path / "jobs"
    script.write_text(SCRIPT)
    words = [sys.executable, str(script), str(jobs), naps]
    process = subprocess.Popen([*start, *words], stderr=subprocess.PIPE, text=True)
    for name in "ab":
        wait_for(jobs / name / "here", by=process)
    process.send_signal(kind)
    _, said = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "stopped with 4 of 4 jobs to do" in said
    assert not (jobs / "c").exists()
    for name in "abcd":
        (jobs / name).mkdir(exist_ok=True)
        (jobs / name / "mark").touch()
    subprocess.run(words, check=True)
    assert all(json.loads((jobs / name / "result.json").read_text())["result"] == {} for name in "abcd")
