"""Every example runs, with small settings; in this process, since importing torch anew for each would take longest."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import processes
import pytest
from joblib.externals.loky import get_reusable_executor
from PIL import Image

import gankit
from gankit.runs import checkpoint

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICK = [
    "data.counts=[12, 8, 10]", "training.steps=2", "training.batch=4", "training.generator_batch=4",
    "training.critic_steps=1", "evaluation.features=pixels",
]  # fmt: skip
NARROW = ["generator.width=4", "critic.width=4"]
LEVELS = ["generator.widths=[4, 4, 4, 4]", "critic.widths=[4, 4, 4, 4]", "generator.latent_dim=4"]

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a script as `python script arguments` would, and gives what it prints."""

    def script(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    yield script
    get_reusable_executor().shutdown(wait=True)  # the processes of joblib


def steps(folder: Path) -> int:
    """Of the newest checkpoint; a run with parts of a script's own opens only where the script registers them."""
    restored = checkpoint.restore(folder / "checkpoints")
    return 0 if restored is None else restored.step


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


def test_dcgan_beside_wgan_gp(run: Run, tmp_path: Path) -> None:
    small = [*QUICK, *NARROW, "training.tick_every=1", "evaluation.every=1"]
    printed = run("dcgan_or_wgan_gp.py", tmp_path, *small)
    assert "DCGAN: estimate" in printed
    assert "WGAN-GP: estimate" in printed
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.size == (900, 500)
    rows = {name: gankit.open_run(tmp_path / name).log for name in ("dcgan", "wgan-gp")}
    assert all(len(log) == 2 and "metrics" in log[0] for log in rows.values())
    assert "critic/gradient-penalty" in rows["wgan-gp"][0]
    assert "critic/gradient-penalty" not in rows["dcgan"][0]


def test_the_scopes_of_an_augment(run: Run, tmp_path: Path) -> None:
    printed = run("few_images_scopes.py", tmp_path, *QUICK, *NARROW)
    scopes = ["none", "critic", "critic-turn", "real"]
    assert [line.split()[0] for line in printed.splitlines()] == ["scope", *scopes]
    augments = [gankit.open_run(tmp_path / scope).experiment.augment for scope in scopes]
    assert [augment.scope if augment else "none" for augment in augments] == scopes
    with Image.open(tmp_path / "scopes.png") as picture:
        assert picture.size == (8 * (96 + 2) + 2, 4 * (96 + 2) + 2)


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


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])  # each job loads torch
def test_many_trainings(run: Run, jobs: int, tmp_path: Path) -> None:
    given = [tmp_path / "many", *QUICK, *LEVELS, "--seeds", 2]
    table = run("many_trainings.py", *given, "--jobs", jobs)
    assert [line[:22].strip() for line in table.splitlines()[1:]] == ["wgan-gp", "diffaugment", "weaker penalty"]
    runs = sorted(path.name for path in (tmp_path / "many").iterdir())
    assert len(runs) == 6
    written = (tmp_path / "many" / runs[0] / "log.jsonl").read_bytes()
    assert run("many_trainings.py", *given, "--jobs", 1) == table
    assert (tmp_path / "many" / runs[0] / "log.jsonl").read_bytes() == written


def test_a_search_goes_on(run: Run, tmp_path: Path) -> None:
    import optuna

    given = [tmp_path / "search", *QUICK, *LEVELS, "--seeds", 1]
    run("search_with_optuna.py", *given, "--trials", 1)
    shutil.rmtree(tmp_path / "search" / "trial-0-0")  # it is not trained again
    printed = run("search_with_optuna.py", *given, "--trials", 2)
    assert not (tmp_path / "search" / "trial-0-0").exists()
    study = optuna.load_study(study_name="demo", storage=f"sqlite:///{tmp_path / 'search' / 'study.db'}")
    assert len(study.trials) == 2
    assert study.trials[0].params != study.trials[1].params
    assert "best of 2" in printed
    assert "recipe on fresh seeds and test images" in printed


def test_a_table_of_what_diverged_goes_on_where_it_was(run: Run, arrays: Path, tmp_path: Path) -> None:
    out, small = tmp_path / "out", [*NARROW, "training.batch=4", "training.critic_steps=1"]
    given = [out, *small, "--npz", arrays, "--recipes", "wgan-gp", "dcgan", "--sides", 16, "--steps", 2, "--seeds", 1]
    first = run("no_divergence.py", *given)
    assert len(re.findall(r"^\| (?:wgan-gp|dcgan) \| (?:eyes|arrays) \| 16 \| 1 \| 2 \| 4 \| \d", first, re.M)) == 4
    kept = {path: path.read_bytes() for path in out.glob("*.json")}
    (broken,) = (path for path in kept if path.name.startswith("dcgan-eyes"))
    broken.unlink()
    assert run("no_divergence.py", *given).endswith(first[first.index("| recipe") :])
    assert json.loads(broken.read_text()) == json.loads(kept[broken])


def test_a_lazy_penalty_goes_on_where_it_was(run: Run, arrays: Path, tmp_path: Path) -> None:
    quick = ["data.subset=24", "training.batch=4", "evaluation.features=pixels", *LEVELS]
    out = tmp_path / "lazy"
    given = ["lazy_penalty.py", out, *quick, "--npz", arrays, "--every", 1, 2, "--steps", 2, "--seeds", 1, "--jobs", 1]
    run(*given, "--rounds", 1)
    measured = json.loads((out / "costs.json").read_text())
    assert [len(values) for values in measured.values()] == [6, 6]
    assert min(*measured["1"], *measured["2"]) > 0
    (out / "costs.json").write_text('{"1": [3.0, 1.0, 1.0], "2": [1.5, 0.5, 0.9]}')
    printed = run(*given)
    assert "| 2 | 0.9000 | 0.50 (0.50 to 0.90) | 4 |" in printed
    for name in ("eyes", "arrays"):
        assert re.search(rf"^{name}: \d+ held-out images, by seed, and as many generated ones$", printed, re.MULTILINE)
        lazy = out / f"{name}-every-2-0"
        assert {path.name for path in lazy.glob("judged-*")} >= {"judged-2.json", "judged-4.json"}
        assert gankit.open_run(lazy).steps == 4
        assert gankit.open_run(out / f"{name}-every-1-0").steps == 2
        whole = gankit.train(gankit.load(lazy), tmp_path / name)  # never stopped
        assert (lazy / "generator.safetensors").read_bytes() == whole.exported.read_bytes()
    rows = [line for line in printed.splitlines() if line.startswith("| every = ")]
    assert [row.split(" | ")[:2] for row in rows] == 2 * [
        ["| every = 1", "2"], ["| every = 2, equal steps", "2"], ["| every = 2, equal time", "4"],
    ]  # fmt: skip
    assert len(re.findall(r"^\| [12] \| 0\.\d+ \|$", printed, re.MULTILINE)) == 4  # how far slopes are off
    with Image.open(out / "samples.png") as picture:
        assert picture.size == (10 * (64 + 2) + 2, 2 * (64 + 2) + 2)
    written = (lazy / "log.jsonl").read_bytes()
    assert run(*given) == printed
    assert (lazy / "log.jsonl").read_bytes() == written


def test_bf16_beside_float32(run: Run, tmp_path: Path) -> None:
    quick = ["data.subset=24", "training.batch=4", "training.tick_every=1", "evaluation.every=1"]
    narrow = ["generator={name='resnet', width=4}", "critic={name='resnet', width=4}"]
    given = ["bf16_curve.py", tmp_path, *quick, *narrow, "--steps", 2, "--seeds", 1, "--rounds", 1, "--jobs", 1]
    printed = run(*given)
    for name in ("narrow", "width 64"):
        assert re.search(rf"^\| {name} \| [\d.]+ \| [\d.]+ \| [\d.]+ \(", printed, re.MULTILINE)
    ends = re.findall(r"^\| (float32|bf16) \| [\d.]+ \| [\d.]+ \|$", printed, re.MULTILINE)
    assert ends == ["float32", "bf16"]
    for precision in ("float32", "bf16"):
        assert gankit.open_run(tmp_path / f"{precision}-0").experiment.training.precision == precision
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.size == (900, 360)
    assert run(*given) == printed


def test_a_penalty_in_bf16_beside_float64(run: Run) -> None:
    printed = run("bf16_gradients.py", "--turns", 1, "--steps", 1, "--networks", "16x16, width 16")
    rows = [[float(cell) for cell in row.split("|")[3:-1]] for row in printed.splitlines()[1:]]
    assert len(rows) == 3
    for _, float32, scores, everything, *_ in rows:
        assert float32 < 1e-3 < scores < 0.1
        assert 1e-3 < everything < 0.1


def test_what_conditional_eyes_measure_as(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gankit.train(gankit.load("eyes", "data.conditional=false", "critic.class_head=false", "data.balance=0",
                             'losses=["wasserstein"]', *QUICK, *LEVELS), tmp_path / "plain")  # fmt: skip
    small = ["--count", 30, "--counts", 12, 8, 10]
    table = run("conditional_eyes.py", "eyes", "--beside", "plain", *small, "--picture", tmp_path / "rows.png")
    for row in ("eyes, asked for esotropia", "plain, without labels", "real normal", "real, all"):
        counts = re.search(rf"^{row} +(\d+) ((?: +[\d.]+ \[-?[\d.]+, [\d.]+\]){{4}})$", table, re.MULTILINE)
        assert counts, row
        shares = [float(share) for share in re.findall(r"([\d.]+) \[", counts[2])]
        assert sum(shares) == pytest.approx(1, abs=0.03)
    value = r" +-?[\d.]+(?: \+- [\d.]+)? \(-?[\d.]+\)"
    assert len(re.findall(rf"^(?:eyes|plain), \w+ +30 +\d+(?:{value}){{3}} +\d+$", table, re.MULTILINE)) == 6
    with Image.open(tmp_path / "rows.png") as picture:
        assert picture.width > picture.height


def test_the_table_of_the_eyes(run: Run) -> None:
    table = run("eyes_table.py")
    for count in ("1250", "451", "999"):
        assert count in table


def test_a_metric_of_one_s_own(run: Run, tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 200, (24, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", images=grey)
    np.savez(tmp_path / "fake.npz", images=grey + np.uint8(20))
    table = run("own_metric.py", tmp_path / "fake.npz", tmp_path / "real.npz")
    assert "brightness" in table
    assert "20.0 +- " in table


def test_the_tables_of_standard_errors(run: Run) -> None:
    tables = run("standard_errors.py", "--repeats", "3", "--errors", "2", "--sizes", "12", "16", "24")
    for title in ("256 features, one distribution", "by patient", "patients on both sides, exchanged whole"):
        assert title in tables
    assert "nan" not in tables


def test_intervals_of_paired_differences_where_there_is_none(run: Run) -> None:
    given = ["--cases", "60", "--seeds", "3", "5", "--per-group", "2", "--bootstraps", "10", "--draws", "100"]
    tables = run("interval_simulation.py", "--trials", "250", *given)
    assert tables.count("| exchangeable, seeds differ much | 60 | 2 | ") == 4
    assert "nan" not in tables
    worst = float(re.search(r"two seeds or more: ([\d.]+) %", tables)[1])  # type: ignore[index]
    assert worst <= 5 + 3 * 100 * (0.05 * 0.95 / 250) ** 0.5  # three standard errors of so few trials


def test_the_page_of_coverage_has_the_tables_of_its_data(run: Run) -> None:
    data = EXAMPLES.parent / "docs" / "measured" / "interval-coverage.json"
    page = data.with_suffix(".md").read_text()
    lines = run("interval_coverage.py", data, "--tables").splitlines()
    assert len(lines) > 100
    for line in lines:
        assert line.removeprefix("#") in page


@pytest.mark.slow
def test_the_simulation_of_coverage_goes_on_where_it_was_stopped(run: Run, tmp_path: Path) -> None:
    first, again = (run("interval_coverage.py", tmp_path / "found.json", "--trials", 1) for _ in range(2))
    assert first.count("\n### ") == 9
    assert again.splitlines()[:-1] == first.splitlines()[:-1]  # nothing is simulated twice; the last line is the time
    assert {entry["trials"] for entry in json.loads((tmp_path / "found.json").read_text()).values()} == {1}


def test_the_notebook_shows_each_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ", ".join(map(repr, [*QUICK, *LEVELS]))
    names: dict[str, object] = {}
    shown = []
    for cell in json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            *body, last = ast.parse("".join(cell["source"]).replace('"training.steps=300"', small)).body
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
    text = Path(__file__).read_text(encoding="utf-8")
    files = [path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".toml", ".ipynb")]
    assert len(files) > 10
    assert [path.name for path in files if f'"{path.name}"' not in text] == []
    assert [path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"] == ["plugin"]
    plugin = [path for path in (EXAMPLES / "plugin").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.name for path in plugin} == {
        "README.md", "gankit_soft_margin.py", "pyproject.toml", "soft_margin.toml", "test_soft_margin.py",
    }  # fmt: skip


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
