"""The distributions under plugins/: each is installed with pip, and works there through public names alone."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from distributions import Environment, wheels
from packaging.requirements import Requirement
from same_runs import state

import gankit
from gankit.registry.plugins import GROUPS, KINDS, SHIPPED, plural

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))

KIND_FOLDERS = {plural(kind) for kind in KINDS}
MODULES = {"interfaces", "recipes", "nn.layers", "errors", "images.resizing", "images.labels_csv", "cache", "testing"}
SINGLE = {("gankit.registry", name) for name in ("Schedule", "Scheduled", "fill_at", "nested_part", "value_at")}
SINGLE |= {
    ("gankit.nn.gradients", "without_autocast"),
    ("gankit.nn.noise", "Noise"),
    ("gankit.images.decoding", "all_told"),
}
"""Public names of modules that are not public as a whole."""


def examples_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.toml")) if path.name != "pyproject.toml"]


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return found


def requirements(folder: Path) -> list[str]:
    """The lines of its dependencies."""
    found: list[str] = project(folder)["dependencies"]
    return found


@pytest.fixture(scope="session", params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    """The source of each of them in turn."""
    found: Path = request.param
    return found


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each of them, by its folder's name."""
    paths = wheels(FOLDERS, tmp_path_factory.mktemp("wheels"))
    return {path.name.split("-")[0].replace("_", "-"): path for path in paths}


@pytest.fixture(scope="session")
def shipped(folder: Path, built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment into which it is installed, with those of them that it requires; tests leave it as it is."""
    shipped = Environment(tmp_path_factory.mktemp("shipped"))
    required = [other for other in FOLDERS if any(re.match(rf"{other.name}\b", text) for text in requirements(folder))]
    shipped.install(*(built[each.name] for each in (folder, *required)))
    return shipped


@pytest.fixture
def without_source(folder: Path, tmp_path: Path) -> Path:
    """A copy without the package, so that only the installed one can be imported."""
    shutil.copytree(
        folder, tmp_path / folder.name,
        ignore=lambda place, names: [name for name in names if name.startswith((".", "gankit_")) or name == "dist"],
    )  # fmt: skip
    return tmp_path / folder.name


def scans(folder: Path) -> None:
    """Six patients' slices, as the example of gankit-dicom names them."""
    pydicom = pytest.importorskip("pydicom")
    slice_ = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm", download=False))
    (folder / "scans").mkdir()
    for number in range(6):
        slice_.PatientID, slice_.StudyInstanceUID = f"patient {number}", pydicom.uid.generate_uid()
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = pydicom.uid.generate_uid()
        slice_.save_as(folder / "scans" / f"{number}.dcm")


def test_all_are_here() -> None:
    names = {"gankit-adaptive-augment", "gankit-dicom", "gankit-fastgan", "gankit-stylegan2", "gankit-timm"}
    assert {folder.name for folder in FOLDERS} >= names
    for folder in FOLDERS:
        assert project(folder)["name"] == folder.name
        (requirement,) = [text for text in requirements(folder) if re.match(r"gankit\b(?!-)", text)]
        assert re.fullmatch(r"gankit>=[\d.]+,<[\d.]+", requirement), "it states the versions that it works with"


def test_errors_know_the_names_of_all_their_parts() -> None:
    registered = {
        folder.name: {GROUPS[group]: tuple(sorted(parts)) for group, parts in project(folder)["entry-points"].items()}
        for folder in FOLDERS
    }
    assert registered == SHIPPED


def test_its_requirements_are_met(folder: Path, shipped: Environment) -> None:
    def installed(name: str) -> metadata.Distribution:
        return next(iter(metadata.distributions(name=name, path=[str(shipped.site), *sys.path])))

    needed = [Requirement(text) for text in installed(folder.name).requires or []]
    assert {requirement.name for requirement in needed} >= {"gankit"}
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            assert requirement.specifier.contains(installed(requirement.name).version, prereleases=True), requirement


def test_its_parts_load_and_its_examples_are_valid(shipped: Environment, without_source: Path) -> None:
    groups = {GROUPS[group]: parts for group, parts in project(without_source)["entry-points"].items()}
    examples = examples_of(without_source)
    assert examples
    assert groups
    quiet, *answers = shipped.several(
        ["list", {"GANKIT_DISABLE_PLUGINS": without_source.name}],
        *(["list", kind, "--load"] for kind in groups),
        *(["show", path] for path in examples),
    )
    assert without_source.name not in quiet.out
    for answer in answers:
        assert (answer.code, answer.err) == (0, ""), answer
    for parts, answer in zip(groups.items(), answers, strict=False):
        for name in parts[1]:
            row = answer.rows[name].split()
            assert row == [name, parts[0], without_source.name, "ok"] or (parts[0] == "recipe" and "x" in row[1])
    for answer in answers[len(groups) :]:
        assert f'name = "{without_source.name}:' in answer.out, "an example uses what it is an example of"


@pytest.mark.slow  # their own tests train with each of their parts, in small
def test_its_examples_can_be_trained(shipped: Environment, without_source: Path) -> None:
    if "gankit.datasets" in project(without_source)["entry-points"]:
        scans(shipped.folder)
    fewer = {"eyes": ["data.counts=[40,40,40]"]}  # all take ten seconds to render
    names = {path: tomllib.loads(path.read_text())["data"]["name"] for path in examples_of(without_source)}
    for answer in shipped.several(*(["check", path, *fewer.get(name, [])] for path, name in names.items())):
        assert (answer.code, answer.err) == (0, ""), answer


@pytest.mark.parametrize("which", ["not slow", pytest.param("", marks=pytest.mark.slow, id="all")])
def test_its_own_tests_pass_on_what_is_installed(which: str, shipped: Environment, without_source: Path) -> None:
    options = ["-p", "no:cacheprovider", "-m", which]
    code = f"import rehearsals; rehearsals.share(); {processes.PYTEST}"
    tested = shipped.python(code, *options, "tests", folder=without_source)
    assert tested.code == 0, tested.out[-8000:] + tested.err
    assert "[100%]" in tested.out


CAPTURABLE = """
import sys
import gankit

for kind, name in (word.split(".") for word in sys.argv[1:]):
    print(gankit.build(kind, name, gankit.ImageSpec(3, 28, 28)).capturable)
"""


def test_its_turns_can_be_captured(shipped: Environment, without_source: Path) -> None:
    """All of its parts that take part in a turn say so; gankit's suites, in its own tests, hold them to it."""
    groups = {GROUPS[group]: parts for group, parts in project(without_source)["entry-points"].items()}
    kinds = ("generator", "critic", "loss", "augment")
    parts = [f"{kind}.{name}" for kind in kinds for name in groups.get(kind, {})]
    answer = shipped.python(CAPTURABLE, *parts)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.split() == ["True"] * len(parts)


# Where no sample draws for itself, so that one process has the draws of two.
TOGETHER = {
    "gankit-fastgan": ["fastgan", "generator.width=2", "critic.width=2", "generator.noise=false", "augment=none"],
    "gankit-stylegan2": [
        "stylegan2", *[f"{kind}.{key}=4" for kind in ("generator", "critic") for key in ("width", "max_width")],
        "generator.style_dim=6", "generator.mixing=0.0", "generator.noise=false", "augment.target=0.99",
        "augment.interval=1",
    ],
    "gankit-adaptive-augment": ["r3gan-ada", "generator.width=8", "critic.width=8", "augment.target=0.99",
                                "augment.interval=1"],
}  # fmt: skip
FEW = [
    "data.name=eyes", "data.counts=[10,10,12]", "data.size=28", "generator.latent_dim=6", "training.steps=3",
    "training.batch=8", "training.tick_every=1", "training.device=cpu", "training.threads=1",
    "training.precision=float64", "evaluation.features=pixels",
]  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_its_parts_as_one_does(shipped: Environment, without_source: Path) -> None:
    if without_source.name not in TOGETHER:
        pytest.skip("it has nothing that is trained")
    for count in (1, 2):
        command = ("train", *TOGETHER[without_source.name], *FEW, "--out", f"runs/{count}")
        where = {"site": shipped.site, "folder": without_source, "variables": shipped.variables}
        done = processes.run(*command, processes=count, **where)
        assert done.returncode == 0, done.stderr
    one, two = (state(without_source / "runs" / str(count)) for count in (1, 2))
    for part in ("generator", "critic"):
        for name, value in one[part].items():
            if name not in ("mean_style", "statistics.running"):  # means that no update reads, of one process's samples
                torch.testing.assert_close(two[part][name], value, rtol=1e-6, atol=1e-9, msg=name)
    logs = [(without_source / "runs" / str(count) / "log.jsonl").read_text().splitlines() for count in (1, 2)]
    r = [[json.loads(line).get("augment/r") for line in lines] for lines in logs]
    assert r[0] == r[1]
    assert (r[0][0] is not None) == ("augment.interval=1" in TOGETHER[without_source.name])


def imported(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of everything of gankit that is imported; the name is "" for a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names if alias.name.split(".")[0] == "gankit")
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "gankit":
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def is_public(module: str, name: str) -> bool:
    """Whether a third party may import it."""
    if any(word.startswith("_") for word in (*module.split("."), name)):
        return False
    _, *rest = module.split(".")
    if not rest:
        return name in {"", *gankit.__all__, *MODULES, *KIND_FOLDERS}
    return (module, name) in SINGLE or ".".join(rest) in MODULES or rest[0] in KIND_FOLDERS


def own_private(trees: list[ast.Module]) -> set[str]:
    """Names that start with one underscore and are defined in these files."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


@cache
def gankits_private() -> set[str]:
    return own_private([ast.parse(path.read_text()) for path in Path(gankit.__file__).parent.rglob("*.py")])


def offences(trees: dict[Path, ast.Module]) -> list[str]:
    """Where files of a distribution use what is private to gankit: imports, attributes, dotted text."""
    own = own_private(list(trees.values()))
    foreign = gankits_private() - own
    found = []
    for path, tree in trees.items():
        found += [f"{path.name}:{line}: {module} {name}" for line, module, name in imported(tree)
                  if not is_public(module, name)]  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                of_gankit = isinstance(node.value, ast.Name) and node.value.id == "gankit"
                if node.attr in foreign or (of_gankit and not is_public("gankit", node.attr)):
                    found.append(f"{path.name}:{node.lineno}: .{node.attr}")
            elif isinstance(node, ast.Constant) and re.fullmatch(r"'gankit\.(\w+\.)*_\w+'", repr(node.value)):
                found.append(f"{path.name}:{node.lineno}: {node.value!r}")
    return found


def test_it_uses_only_public_names(folder: Path) -> None:
    files = [path for path in sorted(folder.rglob("*.py")) if not any(part.startswith(".") for part in path.parts)]
    assert len(files) > 2
    assert not offences({path: ast.parse(path.read_text()) for path in files})


def test_the_search_for_private_names_finds_them() -> None:
    private = [
        "import gankit.training.step", "from gankit import _metric", "from gankit.losses._terms import x",
        "from gankit.interfaces import _fine", "import gankit.losses._terms", "from gankit.registry import Registry",
        "from gankit import updates", "import gankit\ngankit.updates.Updates", "turn._augment(images)",
        "patch('gankit.interfaces._fine')", "def f():\n    from gankit.cli import main",
    ]  # fmt: skip
    public = [
        "import gankit", "from gankit import ImageSpec, losses, testing", "import gankit.testing",
        "from gankit.losses.gradient_penalty import gradient_penalty", "gankit.train(gankit.load('x'), 'y')",
        "from gankit.interfaces import Turn", "self._own = 1\nself._own", "from gankit_own._module import _name",
        "from gankit.registry import nested_part",
    ]  # fmt: skip
    assert [text for text in private if not offences({Path("x.py"): ast.parse(text)})] == []
    assert [text for text in public if offences({Path("x.py"): ast.parse(text)})] == []
