"""Every example runs, with small settings; those of measurements are in test_examples_measured.py."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import processes
import pytest
from example_scripts import EXAMPLES, LEVELS, NARROW, QUICK, Run, runner, steps
from PIL import Image

import gankit
from gankit.studies.reading import load_study


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from runner(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("script", "overrides"),
    [
        ("train_and_sample.py", NARROW),
        ("two_minutes.py", LEVELS),
        ("own_loss.py", NARROW),
        ("own_critic.py", NARROW),
        ("wrapped_networks.py", ["critic.ndf=4"]),
    ],
)
def test_scripts_that_train(run: Run, script: str, overrides: list[str], tmp_path: Path) -> None:
    run(script, tmp_path / "run", *QUICK, *overrides)
    assert steps(tmp_path / "run") == 2


@pytest.mark.slow
def test_a_study(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run("own_study.py", *QUICK, *NARROW)
    assert re.findall(r"'seed-(\d)': \d", printed) == ["0", "1", "2"]
    assert "trained with the seed 2" in (tmp_path / "runs" / "seeds" / "report.html").read_text()


def test_a_critic_in_ten_lines() -> None:
    text = (EXAMPLES / "own_critic.py").read_text()
    section = text.partition("[start:critic]")[2].partition("# --8<-- [end:critic]")[0]
    assert len([line for line in section.splitlines() if line.strip()]) <= 10


def test_a_loop_by_hand(run: Run, tmp_path: Path) -> None:
    printed = run("hand_written_loop.py", tmp_path / "drawn", "steps=3", "batch=4", "width=4", "images=10")
    assert re.findall(r"^step (\d+): gap ", printed, re.MULTILINE) == ["1", "3"]
    with Image.open(tmp_path / "drawn" / "grid.png") as picture:
        grid = np.asarray(picture)
    assert grid.shape == (8 * 34 + 2, 8 * 34 + 2, 3)
    assert grid[2:34, 2:34].std() > 0


def test_the_penalty_in_a_loop_of_others(run: Run) -> None:
    printed = run("penalty_elsewhere.py", "steps=60")
    found = {name: float(value) for name, value in re.findall(r"^(\w+): frechet ([\d.]+)", printed, re.MULTILINE)}
    assert list(found) == ["generated", "real", "noise"]
    assert found["real"] < found["generated"] < found["noise"]


def test_a_folder_of_one_s_own(run: Run, tmp_path: Path) -> None:
    printed = run("own_folder.py", tmp_path / "out", "patients=30", *LEVELS, "training.steps=2", "training.batch=4")
    with open(tmp_path / "out" / "pictures" / "labels.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    assert len({row["group"] for row in rows}) == 30
    assert {f"vote_{rater}" for rater in range(1, 11)} < rows[0].keys()
    trained = gankit.open_run(tmp_path / "out" / "run")
    assert trained.finished
    assert trained.class_names == ["esotropia", "exotropia", "normal"]
    assert "frechet within classes" in printed


# Each job loads torch.
@pytest.mark.parametrize(("jobs", "seeds"), [(1, 1), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_many_trainings(run: Run, jobs: int, seeds: int, tmp_path: Path) -> None:
    given = [tmp_path / "many", *QUICK, *LEVELS, "training.threads=1", "--seeds", seeds]
    table = run("many_trainings.py", *given, "--jobs", jobs)
    assert [line[:22].strip() for line in table.splitlines()[1:]] == ["wgan-gp", "diffaugment", "weaker penalty"]
    runs = sorted(path.name for path in (tmp_path / "many").iterdir())
    assert len(runs) == 3 * seeds
    written = (tmp_path / "many" / runs[0] / "log.jsonl").read_bytes()
    assert run("many_trainings.py", *given, "--jobs", 1) == table
    assert (tmp_path / "many" / runs[0] / "log.jsonl").read_bytes() == written


@pytest.mark.slow
def test_a_search_goes_on(run: Run, tmp_path: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    given = [tmp_path / "search", *QUICK, *LEVELS, "--seeds", 1]
    run("search_with_optuna.py", *given, "--trials", 1)
    shutil.rmtree(tmp_path / "search" / "trial-0-0")  # it is not trained again
    printed = run("search_with_optuna.py", *given, "--trials", 2)
    assert not (tmp_path / "search" / "trial-0-0").exists()
    study = optuna.load_study(
        study_name="demo", storage=JournalStorage(JournalFileBackend(str(tmp_path / "search" / "study.log")))
    )
    assert len(study.trials) == 2
    assert study.trials[0].params != study.trials[1].params
    assert "best of 2" in printed
    assert "recipe on fresh seeds and test images" in printed


def test_a_metric_of_one_s_own(run: Run, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 200, (24, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", images=grey)
    np.savez(tmp_path / "fake.npz", images=grey + np.uint8(20))
    table = run("own_metric.py", tmp_path / "fake.npz", tmp_path / "real.npz")
    assert "brightness" in table
    assert "20.0 +- " in table


def test_the_notebook_shows_each_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ", ".join(map(repr, [*QUICK, *LEVELS]))
    names: dict[str, object] = {}
    shown = []
    for cell in json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            source = "".join(cell["source"]).replace('"training.steps=300"', small)
            source = source.replace("(32, 32))", "(32, 32), counts=(12, 8, 10))")  # all take ten seconds to render
            *body, last = ast.parse(source).body
            if not isinstance(last, ast.Expr):
                body, last = [*body, last], ast.parse("None").body[0]
            exec(compile(ast.Module(body, []), "cell", "exec"), names)
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else value)
    _, dataset, experiment, run, values, number, ranking = shown
    for page in (dataset, run, ranking):
        assert "data:image/png;base64," in page
    assert "generator" in experiment
    assert "FD (pixels)" in values
    assert isinstance(number, float)


def test_the_experiment_file_is_valid() -> None:
    experiment = gankit.load(EXAMPLES / "few_images.toml")
    assert experiment.losses[1].name == "gradient-penalty"
    assert experiment.training.critic_steps == 3


def test_the_study_file_is_valid() -> None:
    study = load_study("augmentation", EXAMPLES / "retinas_study.toml")
    assert study.settings.margin == 0.02
    assert study.settings.folds == 3
    assert study.experiment.data.split == "train"


def test_the_plug_in_is_installed_found_trained_and_tested(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(EXAMPLES / "plugin", source, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)

    def said(*arguments: str, code: str = processes.GANKIT) -> str:
        done = processes.run(*arguments, code=code, site=target, folder=source)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert re.search(r"^soft-margin +loss +gankit-soft-margin$", said("list", "loss"), re.MULTILINE)
    small = [*QUICK, *NARROW, "training.threads=1"]
    said("train", "soft_margin.toml", *small, "--out", str(tmp_path / "run"))
    assert 'name = "gankit-soft-margin:soft-margin"' in (tmp_path / "run" / "experiment.toml").read_text()
    tested = said("-q", "-W", "error", "-p", "no:cacheprovider", code=processes.PYTEST)
    assert "failed" not in tested


def test_no_example_is_forgotten() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_examples*.py"))
    files = [path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".toml", ".ipynb")]
    assert len(files) > 10
    assert [path.name for path in files if f'"{path.name}"' not in text] == []
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == {"interval_trials", "plugin"}  # the first is of interval_coverage.py
    plugin = [path for path in (EXAMPLES / "plugin").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.name for path in plugin} == {
        "README.md", "gankit_soft_margin.py", "pyproject.toml", "soft_margin.toml", "test_soft_margin.py",
    }  # fmt: skip


@pytest.mark.slow
def test_trainings_that_fail_on_purpose(run: Run, tmp_path: Path) -> None:
    printed = run("bad_samples.py", tmp_path, *QUICK, *NARROW)
    cases = ["works", "collapse", "divergence", "leak"]
    assert [line.split()[0] for line in printed.splitlines()] == cases
    for case in cases:
        with Image.open(tmp_path / f"{case}.png") as picture:
            assert picture.size == (8 * (96 + 2) + 2, 96 + 2 + 2)


def _of_wandb(folder: Path) -> str:
    (record,) = folder.glob("wandb/offline-run-*/*.wandb")
    return record.read_bytes().decode("latin-1")


def _of_mlflow(folder: Path) -> str:
    return " ".join(str(path) for path in folder.glob("mlruns/*/*/metrics/**/*"))


def _of_trackio(folder: Path) -> str:
    return (folder / "trackio" / "gankit.db").read_bytes().decode("latin-1")


@pytest.mark.parametrize(
    ("script", "sent"),
    [
        ("track_with_wandb.py", _of_wandb), ("track_with_mlflow.py", _of_mlflow),
        ("track_with_trackio.py", _of_trackio),
    ],
)  # fmt: skip
def test_trackers_get_every_value_without_a_network(script: str, sent: Callable[[Path], str], tmp_path: Path) -> None:
    name = script.removeprefix("track_with_").removesuffix(".py")
    pytest.importorskip(name, reason=f"{name} is not installed; make test-slow installs it")
    small = [*QUICK, *LEVELS[:2], "training.tick_every=1", "evaluation.every=1"]
    offline = {
        "WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"file:{tmp_path}/mlruns", "MLFLOW_ALLOW_FILE_STORE": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, "run", *small],
        cwd=tmp_path, env={**os.environ, **offline}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert steps(tmp_path / "run") == 2
    text = sent(tmp_path)
    for value in ("critic/wasserstein", "images_per_second", "kid"):
        assert value in text, value


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_trackers_in_ten_lines(name: str) -> None:
    text = (EXAMPLES / f"track_with_{name}.py").read_text()
    section = text.partition("[start:track]")[2].partition("# --8<-- [end:track]")[0]
    assert len([line for line in section.splitlines() if line.strip()]) <= 10
