"""Clusters: the setting arrives, and jobs need nothing of the program that starts them."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pytest
from joblib._parallel_backends import ParallelBackendBase

import gankit
from gankit.cli import app
from gankit.errors import GankitError, RunError, SettingsError
from gankit.studies import worker
from gankit.studies.clusters import open_cluster
from gankit.studies.jobs import Job, Outcome, run_jobs
from gankit.studies.study import Arm, Results, Study, Work
from gankit.studies.worker import ALIVE, MainProcess, made_file, run_job


class Elsewhere(ParallelBackendBase):  # type: ignore[misc]
    """A backend of joblib that hands over bytes alone, and runs them in a thread that is not the program's."""

    supports_retrieve_callback = True
    taken: list[int] = []

    def effective_n_jobs(self, n_jobs: int) -> int:
        return n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        self.parallel = parallel
        self.pool = ThreadPoolExecutor(1)
        self.taken.append(n_jobs)
        return n_jobs

    def terminate(self) -> None:
        self.pool.shutdown()

    def submit(self, func: Any, callback: Any = None) -> Future[Any]:
        content = cloudpickle.dumps(func)
        future = self.pool.submit(lambda: pickle.loads(content)())
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        return out.result()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    joblib.register_parallel_backend("elsewhere", Elsewhere)
    Elsewhere.taken.clear()
    yield
    del joblib.parallel.BACKENDS["elsewhere"]


class Doubles(Study):
    """A number is drawn by a first job, and read by all others."""

    def arms(self) -> list[Arm]:
        return [Arm("a", ""), Arm("b", ""), Arm("c", "")]

    def work(self, jobs: Path) -> list[Work]:
        self.opened = True  # in the program's memory alone
        others = [Job(arm.name, self.read) for arm in self.arms()]
        steps = 1
        return [
            Work("", [Job("first", self.draw)], steps, lambda threads: 0.01, first=True),
            Work("reading", others, steps, lambda threads: 0.01),
        ]

    def draw(self, folder: Path) -> dict[str, Any]:
        np.save(folder / "number.npy", np.random.default_rng(self.experiment.training.seed).random(3))
        return {}

    def read(self, folder: Path) -> dict[str, Any]:
        made_file(folder.parent / "first", "number.npy")
        number = float(np.load(folder.parent / "first" / "number.npy").sum()) * len(folder.name)
        is_main = threading.current_thread() is threading.main_thread()
        return {"number": number, "remembers": hasattr(self, "opened"), "main": is_main}

    def judge(self, outcomes: Mapping[str, Outcome], folder: Path) -> Any:
        return {arm.name: outcomes[arm.name].result["number"] for arm in self.arms()}

    def report(self, results: Results) -> None:
        results.report.write_text("done")


def test_a_study_on_a_cluster_is_that_of_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Doubles(gankit.load("demo"))
    here = study.run(tmp_path / "here", threads=1, quiet=True)
    there = study.run(tmp_path / "there", workers=2, cluster="elsewhere")
    assert there.values == here.values
    assert here.outcomes["a"].result["remembers"]
    assert [there.outcomes[name].result["remembers"] for name in "abc"] == [False] * 3
    assert not there.outcomes["a"].result["main"]
    assert {outcome.threads for outcome in there.outcomes.values()} == {1}
    assert set(Elsewhere.taken) == {2}
    said = capsys.readouterr().err
    assert "3 readings of 1 steps" in said
    assert "with 2 at a time" in said
    assert "4 of 4 jobs" in said
    again = study.run(tmp_path / "there", cluster="elsewhere", workers=2, quiet=True)
    assert again.values == here.values
    assert not (tmp_path / "there" / "jobs" / ALIVE).exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[study\n", r"study\.toml:1: not TOML"),
        ("study = 3", "holds a study of other settings"),
    ],
)
def test_a_study_file_that_was_damaged(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    with pytest.raises(GankitError, match=message):
        Doubles(gankit.load("demo")).run(tmp_path, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]


@pytest.mark.parametrize("options", [{"workers": -1}, {"workers": 0}, {"threads": 0}])
def test_numbers_of_workers_and_threads_begin_at_one(options: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"(workers|threads): (-1|0) is too few; give 1 or more, or leave it out"):
        Doubles(gankit.load("demo")).run(tmp_path / "out", quiet=True, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_command_takes_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[Any] = []

    def listen(study: Study, out: Path, **options: Any) -> Results:
        given.append(options)
        raise RunError("heard")

    monkeypatch.setattr(Study, "run", listen)
    with pytest.raises(RunError, match="heard"):
        app(["study", "agreement", "--cluster", "dask:tcp://host:8786", "--out", str(tmp_path)], standalone_mode=False)
    assert given == [{"workers": None, "threads": None, "cluster": "dask:tcp://host:8786"}]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("slurm", r"cluster slurm: write dask or ray, or dask:ADDRESS"),
        ("threading", r"cluster threading: write dask or ray"),
        ("loky", r"cluster loky: write dask or ray"),  # what --workers starts, but without its ends
        ("elsewhere:there", "write dask or ray"),
    ],
)
def test_clusters_that_there_are_not(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message), open_cluster(name, 2):
        pass


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_a_cluster_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("distributed", "ray"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError, match=rf"pip install 'gankit\[{name}\]' first"), open_cluster(name):
        pass


def test_a_cluster_of_one_worker_is_none() -> None:
    with pytest.raises(RunError, match="it runs 1 job at a time, and must run two"), open_cluster("elsewhere", 1):
        pass


def test_whatever_an_address_is_refused_for_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def client(place: str, timeout: float) -> Any:
        raise TypeError("TLS expects a `ssl_context` argument")

    dask = SimpleNamespace(Client=client, KilledWorker=RuntimeError, LocalCluster=None)
    monkeypatch.setitem(sys.modules, "distributed", dask)
    with pytest.raises(RunError, match="cluster dask:tls://a:1: TLS expects"), open_cluster("dask:tls://a:1"):
        pass


def test_a_dask_of_this_machine_has_as_many_workers_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int | None] = []

    @contextlib.contextmanager
    def local(name: str | None = None, n_workers: int | None = None, **options: Any) -> Iterator[None]:
        made.append(n_workers)
        yield

    client = SimpleNamespace(nthreads=lambda: dict.fromkeys(range(made[-1] or 0), 1))
    distributed = SimpleNamespace(
        LocalCluster=local, KilledWorker=RuntimeError, Client=lambda place, timeout: contextlib.nullcontext(client)
    )
    monkeypatch.setitem(sys.modules, "distributed", distributed)
    config = SimpleNamespace(set=lambda settings: contextlib.nullcontext())
    monkeypatch.setitem(sys.modules, "dask", SimpleNamespace(config=config))
    monkeypatch.setattr(joblib, "parallel_config", lambda *given, **more: contextlib.nullcontext())
    with open_cluster("dask", 3) as cluster:
        assert (cluster.workers, made) == (3, [3])


class FakeRay(SimpleNamespace):
    """What is used of Ray, on a cluster of two GPUs without CPUs."""

    def __init__(self, used: bool = False) -> None:
        def note(name: str) -> Callable[..., None]:
            return lambda *given, **more: self.calls.append(name)

        super().__init__(calls=[], init=note("init"), shutdown=note("shutdown"), register_ray=note("register"))
        self.is_initialized, self.cluster_resources = (lambda: used), (lambda: {"GPU": 2.0})
        self.exceptions = SimpleNamespace(RayError=RuntimeError)


def use_ray(fake: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ray", "ray.util", "ray.util.joblib"):
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setitem(joblib.parallel.BACKENDS, "ray", Elsewhere)


def test_ray_without_cpus_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay()
    use_ray(fake, monkeypatch)
    with pytest.raises(RunError, match="cluster ray:auto: it runs 0 jobs at a time"), open_cluster("ray:auto"):
        pass
    assert fake.calls == ["init", "register", "shutdown"]


def test_ray_that_the_program_uses_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeRay(used=True)
    use_ray(fake, monkeypatch)
    with pytest.raises(RunError, match="this program uses Ray already"), open_cluster("ray"):
        pass
    assert fake.calls == []


def note(folder: Path) -> dict[str, Any]:
    return {"cwd": os.getcwd()}


def started(place: Path, token: str = "here") -> MainProcess:
    """A study in `place`, whose process lives."""
    (place / "runs" / "jobs").mkdir(parents=True, exist_ok=True)
    (place / "runs" / "jobs" / ALIVE).write_text("here 0")
    return MainProcess(place, token, [])


def test_a_worker_finds_the_folder_where_its_machine_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mounted, jobs = tmp_path / "mounted", Path("runs/jobs")
    start = started(mounted)
    gone = MainProcess(tmp_path / "not here", start.token, [])  # the directory of another machine
    monkeypatch.setattr(worker, "_first_directory", lambda: mounted)
    run_job(Job("a", note), jobs, 1, gone)
    assert json.loads((mounted / jobs / "a" / "result.json").read_text())["result"] == {"cwd": str(mounted)}
    monkeypatch.setattr(worker, "_first_directory", lambda: tmp_path)
    run_job(Job("b", note), jobs, 1, start)
    assert (mounted / jobs / "b" / "result.json").is_file()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"does not see the study: runs.jobs is in none of .*not here; use a disk"):
        run_job(Job("c", note), jobs, 1, gone)
    monkeypatch.setattr(worker, "LATE", 0.5)
    with pytest.raises(RunError, match="does not see the study"):  # a folder of the same name, but not this study's
        run_job(Job("c", note), jobs, 1, MainProcess(mounted, "another", []))
    with pytest.raises(RunError, match=r"has gankit .*, and 0\.0 runs the study: install one version"):
        run_job(Job("c", note), jobs, 1, MainProcess(mounted, "here", [], "0.0"))


def test_a_worker_outlives_a_parent_that_is_not_the_main_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the shell in which somebody started it."""
    monkeypatch.chdir(tmp_path)
    run_job(Job("a", note), Path("runs/jobs"), 1, started(tmp_path))
    assert (tmp_path / "runs" / "jobs" / "a" / "result.json").is_file()


def test_a_job_ends_when_the_process_that_started_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread, as a worker of Dask runs it, so that no signal can reach it."""
    monkeypatch.chdir(tmp_path)
    start, jobs = started(tmp_path), Path("runs/jobs")

    def endless(folder: Path) -> dict[str, Any]:
        (folder / "begun").touch()
        while True:
            time.sleep(0.01)

    def end_of(name: str, change: Callable[[], object]) -> float:
        thread = threading.Thread(target=run_job, args=(Job(name, endless), jobs, 1, start))
        thread.start()
        while not (jobs / name / "begun").exists():
            time.sleep(0.01)
        began = time.monotonic()
        change()
        thread.join(20)
        assert not thread.is_alive()
        assert not (jobs / name / "result.json").exists()
        return time.monotonic() - began

    end_of("another", lambda: (jobs / ALIVE).write_text("another 0"))
    assert not (jobs / ".stop").exists()  # the other process goes on
    (jobs / ALIVE).write_text("here 1")
    monkeypatch.setattr(worker, "SILENCE", 1.0)
    assert end_of("silent", lambda: None) < 10
    monkeypatch.setattr(worker, "SILENCE", 100.0)
    end_of("stopped", (jobs / ".stop").touch)


def test_what_an_earlier_job_wrote_is_checked_by_content(tmp_path: Path) -> None:
    def write(folder: Path) -> dict[str, Any]:
        (folder / "deep").mkdir()
        (folder / "deep" / "numbers.txt").write_text("1 2 3")
        for passing in ".seconds.txt.123.tmp", ".lock-holder", worker.CLOCK:  # others may be writing them
            (folder / passing).touch()
        return {}

    run_jobs([Job("first", write)], tmp_path, quiet=True)
    made_file(tmp_path / "first", "deep/numbers.txt")
    assert list(json.loads((tmp_path / "first" / worker.RESULT).read_text())["files"]) == ["deep/numbers.txt"]
    (tmp_path / "first" / "deep" / "numbers.txt").write_text("1 2 4")
    with pytest.raises(RunError, match=r"numbers\.txt is not what this job wrote: delete .*first to do it again"):
        made_file(tmp_path / "first", "deep/numbers.txt")
    made_file(tmp_path / "none", "deep/numbers.txt")  # who needs it says so
