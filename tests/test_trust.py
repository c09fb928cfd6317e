"""What files and names of others cannot do: run programs, forge lines on a terminal, be formulas."""

from __future__ import annotations

import ast
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gankit
from gankit.cli import main
from gankit.errors import DataError, PartError, SettingsError, first_of, plain_words
from gankit.evaluation.latex import tabular
from gankit.experiments.schema import schema
from gankit.files import write_csv
from gankit.images.known import Known
from gankit.images.labels_csv import read_csv
from gankit.ranking.page import page_text
from gankit.registry.plugins import PlugIn
from gankit.registry.registry import Registry
from gankit.registry.trust import VARIABLE, check_trust, trust
from gankit.runs.sampling import write_samples
from gankit.terminal.text import from_cell, harmless, to_cell


class Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TorchScript file, and an environment that trusts nothing."""
    monkeypatch.setenv(VARIABLE, "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(Means()).save(str(tmp_path / "net.pt"))
    return tmp_path / "net.pt"


def experiment_file(tmp_path: Path, overrides: list[str], script: Path) -> Path:
    """An experiment file that judges by features from a TorchScript file."""
    features = {"name": "torchscript", "path": str(script)}
    tables = gankit.load("wgan-gp", *overrides).tables()
    tables["evaluation"] |= {"features": features, "every": 6}
    path = tmp_path / "e.json"
    path.write_text(json.dumps(tables))
    return path


# Programs


def test_a_torchscript_file_is_loaded_only_where_the_user_names_it(
    small: Callable[..., list[str]], script: Path, tmp_path: Path
) -> None:
    file = experiment_file(tmp_path, small(), script)
    with pytest.raises(PartError, match=r"net.pt holds a program.*set GANKIT_TRUST=.*net.pt"):
        gankit.train(gankit.load(file), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = gankit.train(gankit.load(file, f"evaluation.features.path={script}"), tmp_path / "run")
    os.environ[VARIABLE] = ""  # another day, or another person
    with pytest.raises(PartError, match="holds a program"):
        gankit.evaluate(run, run, ["frechet"], run.experiment.evaluation.features)
    named = {"name": "torchscript", "path": str(script)}
    assert gankit.evaluate(run, run, ["frechet"], named)["protocol"]["features"] == "torchscript"
    assert len(run.sample(2)) == 2


@pytest.mark.parametrize("trusted", [True, False])
def test_a_file_is_trusted_by_the_environment(
    small: Callable[..., list[str]], script: Path, tmp_path: Path, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, os.pathsep.join(["/elsewhere.pt", str(script)] if trusted else ["/elsewhere.pt"]))
    features = gankit.load(experiment_file(tmp_path, small(), script)).evaluation.features
    if trusted:
        assert features.build(gankit.ImageSpec(3, 8, 8)).dim == 3
    else:
        with pytest.raises(PartError, match="holds a program"):
            features.build(gankit.ImageSpec(3, 8, 8))


def test_a_path_that_holds_the_separator_is_trusted_too(script: Path, tmp_path: Path) -> None:
    folder = tmp_path / f"12{os.pathsep}30"
    folder.mkdir()
    path = str(script.rename(folder / "net.pt"))
    for _ in range(2):
        trust({"path": path})
    assert os.environ[VARIABLE] == path
    check_trust(path, "features torchscript")
    with pytest.raises(PartError, match="holds a program"):
        check_trust(__file__, "features torchscript")


def test_trust_does_not_follow_from_naming_another_file(
    small: Callable[..., list[str]], script: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.pt").write_bytes(script.read_bytes())
    file = experiment_file(tmp_path, small(), tmp_path / "other.pt")
    features = gankit.load(file, f"training.start_from={script}").evaluation.features
    with pytest.raises(PartError, match=r"other.pt holds a program"):
        features.build(gankit.ImageSpec(3, 8, 8))


def test_a_program_of_the_user_is_trusted_and_so_are_its_workers(script: Path, small: Callable[..., list[str]]) -> None:
    tables = gankit.load("wgan-gp", *small()).tables()
    tables["evaluation"]["features"] = {"name": "torchscript", "path": str(script)}
    assert gankit.load(tables).evaluation.features.build(gankit.ImageSpec(3, 8, 8)).dim == 3
    assert str(script) in os.environ[VARIABLE]  # which the processes of a study inherit


def test_weights_of_inception_are_a_program_too(script: Path, tmp_path: Path, small: Callable[..., list[str]]) -> None:
    tables = gankit.load("wgan-gp", *small()).tables()
    tables["evaluation"]["features"] = {"name": "inception-v3", "weights": str(script)}
    (tmp_path / "e.json").write_text(json.dumps(tables))
    with pytest.raises(PartError, match=r"inception-v3: .*holds a program"):
        gankit.load(tmp_path / "e.json").evaluation.features.build(gankit.ImageSpec(3, 8, 8))


def test_the_schema_imports_no_plug_in_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = PlugIn("loss", "mine", "their-dist", "their_module", "Mine")
    imported = []
    monkeypatch.setattr(Registry, "_plugins", lambda self: [plugin] if self.kind == "loss" else [])
    monkeypatch.setattr(PlugIn, "load", lambda self: imported.append(self.name))
    titles = [option.get("title") for option in schema()["properties"]["losses"]["items"]["anyOf"]]
    assert "loss mine" in titles
    assert not imported
    schema(load=True)
    assert imported == ["mine"]


# Names


EVIL = "a\x1b[2J\x1b[1;1H\u202egnp\x9b\x07<script>&"


def test_names_move_no_cursor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert harmless(EVIL) == r"a\x1b[2J\x1b[1;1H\u202egnp\x9b\x07<script>&"
    assert harmless("Grüße\tد\u200cر\n日本") == "Grüße\tد\u200cر\n日本"
    assert harmless(EVIL.encode().decode("ascii", "surrogateescape")) == harmless(EVIL)
    as_python_keeps_it = "Grüße".encode().decode("ascii", "surrogateescape")  # a name of a file, with LC_ALL=C
    assert harmless(as_python_keeps_it) == "Grüße"
    assert harmless("Gr\udcfc\udcdfe") == r"Gr\xfc\xdfe", "a name in Latin-1"
    monkeypatch.setattr("sys.argv", ["gankit", "show", EVIL])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().err
    assert shown.startswith("gankit: there is no recipe or file")
    assert not set(shown) & set("\x1b\x07\x9b\u202e\r")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_line_end_in_a_name_makes_no_second_line(end: str) -> None:
    name = f"scan{end}1.png"
    texts = [str(DataError(f"{name} is damaged")), first_of([name]), plain_words(FileNotFoundError(2, "gone", name))]
    texts += Known(["a.png"], left_out=[name]).remarks
    for text in texts:
        assert text is not None
        assert len(text.splitlines()) == 1
        assert repr(name)[1:-1] in text
    assert str(SettingsError("one\ntwo")) == "one\ntwo", "a line for each setting"


def test_only_one_place_prints() -> None:
    root = Path(gankit.__file__).parent
    printing = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert set(printing) == {"terminal/text.py"}


def test_names_are_text_in_pages_and_tables() -> None:
    page = page_text("0", [], [EVIL], False)
    assert "<script>&" not in page
    assert not set(page) & set("\x1b\x07\x9b\u202e")
    table = tabular([EVIL], [("", [[EVIL + "\n\n\\input{x}"]])], notes=EVIL)
    assert not set(table) & set("\x1b\x07\x9b\u202e")
    assert "\n\n" not in table
    assert "\\input" not in table


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+cmd",
        "-2+3",
        "@sum",
        "\tx",
        "'=x",
        "''=x",
        "'plain",
        "-",
        "=",
        "",
        "a=b",
        "-1.5,0.2",
        "'",
        "-1_0",
        "-inf",
    ],
)
def test_cells_are_no_formulas_and_read_back_as_they_were(text: str, tmp_path: Path) -> None:
    cell = str(to_cell(text))
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert from_cell(cell) == text
    write_csv(tmp_path / "t.csv", [["file", "x"], ["a.png", text]])
    assert read_csv(tmp_path / "t.csv", "file", unify=str).columns["x"] == [text]


@pytest.mark.parametrize("value", ["-1.5", "+2", "-1e-5", -1.5, None, "1", 0])
def test_numbers_in_cells_stay_numbers(value: object) -> None:
    assert to_cell(value) == value


def test_images_of_classes_that_look_like_formulas_are_read_back(
    tmp_path: Path, small: Callable[..., list[str]]
) -> None:
    images = np.zeros((8, 8, 8, 3), np.uint8)
    names = np.array(["=HYPERLINK(1)", "@x"])
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(8) % 2, class_names=names)
    run = gankit.train(
        gankit.load("wgan-gp", *small(f"data.path={tmp_path / 'd.npz'}", "data.conditional=true", "training.steps=1")),
        tmp_path / "run",
    )
    folder = write_samples(run, tmp_path / "drawn", 4, None, 0)
    assert "'=HYPERLINK(1)" in (folder / "labels.csv").read_text()
    assert set(gankit.build("dataset", "folder", path=folder, unlisted="skip").class_names) <= set(names.tolist())
