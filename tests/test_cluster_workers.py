"""Dask and Ray as they are: workers that die, a program that is killed, interrupted and goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from small_studies import small_networks

from gankit.errors import GankitError
from gankit.studies.clusters import open_cluster

SCRIPT = '''
import functools, json, os, sys, time
from pathlib import Path
import gankit
from gankit.errors import GankitError
from gankit.studies.jobs import Job
from gankit.studies.reading import load_study
from gankit.studies.study import Arm, Study, Work
from gankit.studies.trainings import RUN, finished_run, time_training, train_or_resume

if __name__ == "__mp_main__" and Path("runs/there/jobs/a/died").exists():
    time.sleep(20)  # on a busy machine a worker of Dask takes long to start again

class Samples(Study):
    """Samples of one generator."""

    def arms(self):
        return [Arm(name, name) for name in "abc"]

    def work(self, jobs):
        time_step = functools.partial(time_training, self.experiment)
        others = [Job(arm.name, functools.partial(self.sample, arm.name)) for arm in self.arms()]
        return [Work("generator", [Job("generator", self.train)], 2, time_step, first=True),
                Work("sample", others, 1, time_step)]

    def train(self, folder):
        return {"steps": train_or_resume(self.experiment, folder / RUN).steps}

    def sample(self, name, folder):
        if name == "a" and not (folder / "died").exists() and Path("hold").exists():
            (folder / "died").touch()
            os._exit(9)
        (folder / "here").touch()
        while Path("hold").exists():
            time.sleep(0.05)
        images = finished_run(folder.parent / "generator").sample(4, seed=ord(name))
        return {"sum": int(images.sum()), "cwd": os.getcwd()}

    def judge(self, outcomes, folder):
        return {name: outcome.result.get("sum") for name, outcome in outcomes.items()}

    def report(self, results):
        results.report.write_text("done")

def main():
    cluster, *overrides = sys.argv[1:]
    gankit.studies.register("samples")(Samples)
    study = load_study("samples", "wgan-gp", *overrides)
    found = study.run("runs/there", workers=2, cluster=cluster)
    place = found.outcomes["b"].result["cwd"]
    print(json.dumps([found.values, study.run("here", threads=1, quiet=True).values, place]))

if __name__ == "__main__":
    main()
'''


LONGEST = 900  # seconds that the starts of a cluster may take in all on a busy machine
on_a_cluster = pytest.mark.timeout(LONGEST + 120)  # so that a wait fails first, and says for what


class Place:
    """A folder with the script and its data, from which clusters are tried."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs = folder, folder / "runs" / "there" / "jobs"
        self.until = time.monotonic() + LONGEST
        self.started: list[subprocess.Popen[str]] = []
        folder.mkdir()
        (folder / "script.py").write_text(SCRIPT)
        (folder / "hold").touch()
        random = np.random.default_rng(0)
        np.savez(folder / "d.npz", images=random.integers(0, 255, (16, 1, 8, 8), dtype=np.uint8))

    def start(self, cluster: str) -> subprocess.Popen[str]:
        words = [sys.executable, "script.py", cluster, *small_networks(Path("d.npz"))]
        pipe = subprocess.PIPE
        self.started.append(subprocess.Popen(words, cwd=self.folder, stdout=pipe, stderr=pipe, text=True))
        return self.started[-1]

    def wait(self, process: subprocess.Popen[str], *names: str) -> None:
        """Until these jobs are at work."""
        while not all((self.jobs / name / "here").exists() for name in names):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < self.until, f"{names} are not at work"
            time.sleep(0.2)
        for name in names:
            (self.jobs / name / "here").unlink()

    def end(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        """What a process printed, once it has ended."""
        return process.communicate(timeout=max(1.0, self.until - time.monotonic()))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "place")
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def check_cluster(place: Place, cluster: str) -> str:
    """Lose a worker, kill the program, interrupt it, and let it end; gives where a worker was."""
    first = place.start(cluster)
    place.wait(first, "a", "b")
    assert (place.jobs / "a" / "died").exists()
    first.kill()
    first.communicate()
    second = place.start(cluster)
    place.wait(second, "a", "b")
    second.send_signal(signal.SIGINT)
    _, said = place.end(second)
    assert second.returncode != 0
    assert "stopped with 3 of 4 jobs to do; the same command goes on, in trainings too" in said
    assert "with 2 at a time" in said
    (place.folder / "hold").unlink()
    last = place.start(cluster)
    out, said = place.end(last)
    assert last.returncode == 0, said
    there, here, where = json.loads(out.splitlines()[-1])
    assert there == here
    return str(where)


@pytest.mark.slow
@on_a_cluster
@pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not installed: pip install 'gankit[dask]'")
def test_a_cluster_of_dask_whose_workers_have_the_folder_elsewhere(place: Place, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    (place.folder / "runs").mkdir()
    for name in ("runs", "d.npz", "hold"):
        (mount / name).symlink_to(place.folder / name)
    file = tmp_path / "scheduler.json"
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    scheduler = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", *common])
    workers = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--nworkers", "2", "--memory-limit",
         "0", *common], cwd=mount,
    )  # fmt: skip
    try:
        while not file.is_file():
            assert time.monotonic() < place.until, "there is no scheduler"
            time.sleep(0.2)
        time.sleep(1)
        assert check_cluster(place, f"dask:{json.loads(file.read_text())['address']}") == str(mount)
    finally:
        for process in (workers, scheduler):
            process.terminate()
            process.wait(60)


@pytest.mark.slow
@on_a_cluster
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'gankit[ray]'")
def test_workers_of_ray_on_this_machine(place: Place) -> None:
    assert check_cluster(place, "ray") == str(place.folder)


@pytest.mark.slow
@on_a_cluster
@pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not installed: pip install 'gankit[dask]'")
def test_workers_of_dask_on_this_machine(place: Place) -> None:
    assert check_cluster(place, "dask") == str(place.folder)
    nowhere = open_cluster("dask:tcp://127.0.0.1:9")
    with pytest.raises(GankitError, match=r"cluster dask:tcp://127\.0\.0\.1:9: .*start dask scheduler"), nowhere:
        pass
