"""What is uploaded: the contents of wheel and source archive, their metadata, the citation, and the install lines."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import audit
import pytest
import yaml
from packaging.metadata import Metadata
from packaging.specifiers import SpecifierSet

import gankit

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> dict[str, bytes]:
    """The wheel's files by name."""
    (path,) = built.glob("*.whl")
    assert path.name == f"gankit-{gankit.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files(folder: str) -> set[str]:
    """What git tracks there; without git, what is there but for the hidden folders that tools leave."""
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        return {name for name in listed.stdout.split() if (ROOT / name).is_file()}
    found = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
    return {name for name in found if not re.search(r"\.pyc$|^\.\w+/", name)}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: dict[str, bytes]) -> None:
    information = f"gankit-{gankit.__version__}.dist-info"
    inside = {name for name in wheel if not name.startswith(f"{information}/")}
    assert files("gankit") <= inside
    assert all(name.startswith("gankit/") for name in inside)
    assert not [name for name in inside if "__pycache__" in name or name.endswith((".pyc", ".orig"))]
    assert wheel[f"{information}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"gankit = gankit.__main__:main" in wheel[f"{information}/entry_points.txt"]


def test_the_source_archive_holds_the_repository(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in files(".") if not name.startswith(".ci/")} <= inside
    assert not [name for name in inside if re.search(r"__pycache__|\.pyc$|^(runs|site|dist|\.venv|\.ci)(/|$)", name)]


def test_an_index_would_accept_the_metadata(wheel: dict[str, bytes]) -> None:
    (text,) = [content for name, content in wheel.items() if name.endswith(".dist-info/METADATA")]
    metadata = Metadata.from_email(text, validate=True)
    assert metadata.description == (ROOT / "README.md").read_text()
    assert metadata.description_content_type == "text/markdown"
    assert metadata.license_expression == "Apache-2.0"
    assert str(metadata.version) == gankit.__version__


def test_every_python_that_is_named_is_allowed() -> None:
    for path in [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]:
        project = tomllib.loads(path.read_text())["project"]
        named = [text.rpartition(" ")[2] for text in project["classifiers"] if re.search(r":: 3\.\d+$", text)]
        assert named == ["3.11", "3.12", "3.13", "3.14"], path
        assert list(SpecifierSet(project["requires-python"]).filter(["3.10", *named])) == named


def test_the_citation_is_valid_and_says_what_the_project_says() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["message"].strip()
    assert citation["title"] == PROJECT["name"]
    assert citation["abstract"] == PROJECT["description"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["license"] == PROJECT["license"]
    assert str(citation["version"]) == gankit.__version__
    allowed = {"cff-version", "message", "type", "title", "abstract", "authors", "version", "license", "keywords"}
    assert set(citation) <= allowed, "the schema of 1.2.0 has other keys too: add them here"


def test_install_lines_are_true_until_gankit_is_on_an_index_and_follow_from_one_place_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    quotes = importlib.import_module("quotes")
    readmes = [ROOT / "README.md", *ROOT.glob("plugins/*/README.md")]
    assert set(readmes) <= set(quotes.PAGES)
    for path in readmes:
        text = path.read_text()
        assert quotes.refreshed(text) == text, f"{path}: python docs/quotes.py"
        lines = [line.partition("#")[0].strip() for line in re.findall(r"pip install ([^`\n]+)", text)]
        wanted = [line.rpartition(" ")[2].strip("'\"") for line in lines]
        folder = path.parent.relative_to(ROOT).as_posix()
        assert wanted[0] == (".[offline]" if folder == "." else f"./{folder}")
        for target in wanted:
            # pip takes what is installed already, and only adds what the extra names.
            found = re.fullmatch(r"(?:gankit[\w-]*|\.)\[(.+)\]", target)
            if found:
                project = tomllib.loads((path.parent / "pyproject.toml").read_text())["project"]
                assert set(found[1].split(",")) <= set(project["optional-dependencies"])
            else:
                assert (ROOT / target / "pyproject.toml").is_file(), f"pip install {target} needs an index"
        monkeypatch.setattr(quotes, "PUBLISHED", True)
        name = '"gankit[offline]"' if folder == "." else path.parent.name
        assert f"```sh\npip install {name}\n" in quotes.refreshed(text)
        monkeypatch.setattr(quotes, "PUBLISHED", False)


def test_other_pythons_are_tested_where_they_are_installed(tmp_path: Path) -> None:
    for folder in ("tests", "bin"):
        (tmp_path / folder).mkdir()
    script = shutil.copy(ROOT / "tests" / "other_pythons.sh", tmp_path / "tests")
    python = tmp_path / "bin" / "python3.13"
    python.write_text(
        '#!/bin/sh\necho ran "$@"\nif [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi\n'
    )
    python.chmod(0o755)
    path = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    done = subprocess.run(["sh", script, "3.13", "3.99"], env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python3.99 is not installed: skipped" in done.stdout
    ran = [line for line in done.stdout.splitlines() if line.startswith("ran -m")]
    assert [line.split()[2] for line in ran] == ["venv", "pip", "pytest"]


def test_an_audit_counts_as_clean_only_what_was_looked_up() -> None:
    known = {"name": "clean", "version": "1.0", "vulns": []}
    vulnerable = {"name": "old", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
    unknown = {"name": "nowhere", "skip_reason": "not found"}
    assert audit.report([known]) == (["published vulnerabilities: 0, in 1 packages"], True)
    assert audit.report([known, vulnerable, unknown]) == (
        [
            "old 2.0: PYSEC-1, mended in 2.1",
            "published vulnerabilities: 1, in 2 packages",
            "not audited, since the index knows nothing of them: nowhere",
        ],
        False,
    )
