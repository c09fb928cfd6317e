"""The command line: evaluations, statistics, reports and the demo; streams and names of files."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import command_line
import numpy as np
import pytest
from command_line import Call, Small, train_runs
from PIL import Image

import gankit

call = command_line.call


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return train_runs(tmp_path_factory.mktemp("runs"), "plain")


def pictures(folder: Path, seed: int) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for i in range(12):
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_evaluate_a_run(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    answer = call("evaluate", run, "--count", 10)
    assert answer.code == 0
    assert "FD (efficientnet-lite0) " in answer.out
    report = json.loads((run / "metrics.json").read_text())
    assert report["metrics"]["frechet"]["n_fake"] == 10
    assert report["metrics"]["frechet"]["n_real"] == 20
    call("evaluate", run, "--count", 10, "--out", tmp_path / "other.json")
    assert json.loads((tmp_path / "other.json").read_text()) == report


def test_evaluate_a_folder_against_a_folder(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    plain = ["--features", "pixels", "--metrics", "frechet"]
    one, two = pictures(tmp_path / "one", 1), pictures(tmp_path / "two", 2)
    file = tmp_path / "m.json"
    answer = call("evaluate", one, "--against", two, "--metrics", " frechet,", "--features", "pixels", "--out", file)
    assert answer.code == 0
    report = json.loads((tmp_path / "m.json").read_text())
    assert report["metrics"]["frechet"]["value"] > 0
    assert call("evaluate", one, "--against", one, *plain).out.count("FD (pixels) ") == 1
    assert call("evaluate", one, "--against", runs["folder"] / "colour.npz", *plain).code == 0
    assert "--against: say which real images" in call("evaluate", one).line
    assert (
        "no metric named 'frechett'; did you mean 'frechet'?"
        in call("evaluate", one, "--against", two, "--metrics", "frechett").line
    )
    assert "no features named 'pixel'" in call("evaluate", one, "--against", two, "--features", "pixel").line
    assert "--metrics: name at least one" in call("evaluate", one, "--against", two, "--metrics", ",").line
    assert "nowhere: there is no such folder or file" in call("evaluate", tmp_path / "nowhere", "--against", two).line
    assert "there is no dataset named 'nowhere'" in call("evaluate", "nowhere", "--against", two).line
    (tmp_path / "void").mkdir()
    assert "holds no pictures" in call("evaluate", tmp_path / "void", "--against", two).line


def test_evaluate_with_everything(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "one", 1), pictures(tmp_path / "two", 2)
    file = tmp_path / "m.json"
    metrics = '["kid", {name = "precision-recall", k = 2}, "memorisation"]'
    chosen = ["--features", '{name = "pixels", side = 2}', "--metrics", metrics, "--permutations", 19]
    answer = call("evaluate", one, "--against", two, *chosen, "--training", two, "--out", file)
    assert answer.code == 0
    report = json.loads(file.read_text())
    assert report["protocol"]["features_dim"] == 12
    assert report["metrics"]["kid"]["p_value"]["permutations"] == 19
    assert report["metrics"]["precision"]["details"] == {"k": 2}
    assert (tmp_path / "memorisation-pairs.png").is_file()
    assert "no best generator was kept" in call("evaluate", runs["plain"], "--best").line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "3"], "a name, or a table with a name, is needed, not 3"),
        (["--features", '["pixels"]'], "a name, or a table with a name, is needed"),
        (["--features", "pixels", "--metrics", '["kid", 3]'], "a name, or a table with a name, is needed, not 3"),
        (["--features", "pixels", "--count", "13"], "13 images are asked for, and there are 12"),
        (["--features", "pixels", "--training", "nowhere"], "nowhere: there is no such folder or file here"),
    ],
)
def test_mistakes_in_judging(arguments: list[str], message: str, call: Call, tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "one", 1), pictures(tmp_path / "two", 2)
    assert message in call("evaluate", one, "--against", two, *arguments).line


def test_a_single_table_is_a_metric(call: Call, tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "one", 1), pictures(tmp_path / "two", 2)
    answer = call("evaluate", one, "--against", two, "--features", "pixels", "--metrics", '{name = "kid"}')
    assert answer.code == 0
    assert "KID (pixels) " in answer.out


def test_windows(call: Call, tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (12, 8, 8), dtype=np.uint16)
    np.savez(tmp_path / "deep.npz", images=deep)
    plain = [tmp_path / "deep.npz", "--against", tmp_path / "deep.npz", "--features", "pixels", "--metrics", "frechet"]
    assert "--window black,white" in call("evaluate", *plain).line
    assert call("evaluate", *plain, "--window", "0,4095").code == 0
    assert "outside value_range" in call("evaluate", *plain, "--window", "0,100").line
    for text in ("5", "a,b", "9,1", "1,2,3", "0,inf"):
        assert f"--window {text}: " in call("evaluate", *plain, "--window", text).line


def test_statistics(call: Call, tmp_path: Path) -> None:
    one, two = pictures(tmp_path / "one", 1), pictures(tmp_path / "two", 2)
    plain = ["--features", "pixels"]
    answer = call("statistics", one, *plain, "--out", tmp_path / "one.npz")
    assert answer.out.strip() == f"12 images of {one}: {tmp_path / 'one.npz'}"
    answer = call("evaluate", two, "--against", tmp_path / "one.npz", *plain, "--metrics", "frechet")
    assert answer.code == 0
    assert "FD (pixels) " in answer.out
    assert "must be an .npz file" in call("statistics", one, *plain, "--out", tmp_path / "one.txt").line
    assert "must be an .npz file" in call("statistics", one, *plain, "--out", tmp_path / "no" / "one.npz").line


def test_report(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    answer = call("report", run)
    assert answer.code == 0
    assert answer.out.strip() == str(run / "report.html")
    assert "<html" in (run / "report.html").read_text()
    assert "there is no run here" in call("report", tmp_path).line


@pytest.mark.parametrize("metrics", ["[kid]", "[kid,memorisation]"])
def test_a_demo_says_at_its_start_how_long_its_evaluation_takes(
    call: Call, small: Small, tmp_path: Path, metrics: str
) -> None:
    changes = small("evaluation.count=10", "evaluation.features=pixels", "data.held_out=0.25")
    changes.append(f"evaluation.metrics={metrics}")
    changes += ["generator.widths=[8,4]", "critic.widths=[4,8]", "losses.gradient-penalty.every=1"]
    answer = call("demo", *changes, "training.steps=1", "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    said = re.search(r"evaluation after the training: features of (\d+) images, about \d+ s\n", answer.err)
    assert said, answer.err
    protocol = json.loads((tmp_path / "run" / "metrics.json").read_text())["protocol"]
    of_training = protocol["n_training"] if "memorisation" in metrics else 0
    assert int(said[1]) == of_training + protocol["n_real"] + protocol["n_fake"] == (50 if of_training else 22)
    assert said.start() < answer.err.index("data: ")


def test_a_demo_that_is_there_keeps_its_settings(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    shutil.rmtree(run / "samples")
    assert call("evaluate", run, "--features", "pixels", "--metrics", "frechet").code == 0
    answer = call("demo", "training.steps=100", "--out", run)
    assert answer.code == 0, answer
    assert f"{run}: the run that is there keeps its settings; for others choose another --out" in answer.out
    assert "samples:" not in answer.out
    assert (run / "report.html").is_file()


def test_a_run_whose_checkpoints_are_all_damaged_is_judged_by_its_generator(
    call: Call, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1000])
    why = "none of 1 checkpoints can be read"
    answer = call("evaluate", run, "--features", "pixels", "--metrics", "frechet")
    assert answer.code == 0, answer
    assert (run / "metrics.json").is_file()
    assert "an unknown number of generator updates" in (run / "card.md").read_text()
    assert call("report", run).code == 0
    page = (run / "report.html").read_text()
    assert f"{why} (" in page
    assert "<dd>unknown of 1</dd>" in page
    assert "Unfinished" not in page
    assert call("sample", run, "--count", 2).code == 0
    assert why in repr(gankit.open_run(run))
    assert why in call("resume", run).line
    assert why in call("rank", run, "--count", 2, "--keep", 1).line


def test_a_damaged_generator_is_exported_anew_as_its_error_says(
    call: Call, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    exported = run / "generator.safetensors"
    whole = exported.read_bytes()
    exported.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "put back a copy, or delete it and resume the run" in call("sample", run).line
    exported.unlink()
    assert call("resume", run).code == 0
    assert exported.read_bytes() == whole


# Streams and names


def test_a_reader_that_leaves_early_stops_nothing(
    call: Call, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(runs["plain"], tmp_path / "run")
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", buffering=1) as gone, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", gone)
        judged = call("evaluate", run, "--features", "pixels", "--metrics", "frechet")
        listed = call("list")
    assert (judged.code, judged.err) == (0, "")
    assert (run / "metrics.json").is_file()
    assert (listed.code, listed.err) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device")
def test_output_that_a_full_disk_cannot_take_is_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        shown = call("show", "wgan-gp")
    assert shown.line == "gankit: standard output: No space left on device"


@pytest.mark.skipif(os.name == "nt", reason="a shell is needed")
def test_no_file_takes_the_place_of_a_closed_stream() -> None:
    code = (
        "import os; from gankit.terminal.text import open_standard_streams; open_standard_streams(); "
        "raise SystemExit(os.open(os.devnull, os.O_RDONLY))"
    )
    done = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code])
    assert done.returncode == 3


def test_folders_of_any_name_can_be_trained_on_and_into(call: Call, runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "größe 图像 👁"
    data = shutil.copytree(pictures(tmp_path / "plain", 1), tmp_path / "Bäume 図 👁" / "a\nb")
    small = ["generator.width=4", "critic.width=4", "training.steps=1", "training.batch=4", "training.critic_steps=1"]
    trained = call("train", "wgan-gp", "data.name=folder", f"data.path={data.parent}", *small, "--out", out)
    assert trained.code == 0, trained
    assert f"gankit sample {shlex.quote(str(out))}" in trained.out
    assert call("sample", out, "--count", 2).code == 0
    refused = call("train", "wgan-gp", "data.name=folder", f"data.path={data}", *small, "--out", tmp_path / "no")
    assert "data.path: " in refused.line
    assert refused.line.endswith("has control characters; rename the file or folder")
    assert not (tmp_path / "no").exists()
