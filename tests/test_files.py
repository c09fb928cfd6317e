"""Files and folders are there as a whole or not at all, and one process at a time writes a folder."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import numpy as np
import pytest

import gankit
from gankit import cache, cli
from gankit.errors import BusyError, GankitError, RunError, plain_words
from gankit.evaluation.statistics import Statistics
from gankit.evaluation.tables import is_table
from gankit.files import (
    HOLDER,
    LOCK,
    append_line,
    is_sealed,
    locked,
    open_atomically,
    refuse_taken,
    seal,
    sole_output,
    sole_writer,
    user_path,
    write_atomically,
    write_folder,
)
from gankit.planning.proposal import plan
from gankit.ranking.key import Key, read_key
from gankit.ranking.rating_files import read_ratings
from gankit.report import write_report
from gankit.runs import checkpoint

Small = Callable[..., list[str]]
HOLD = """
import sys
from pathlib import Path
from gankit.files import sole_writer
with sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes into a folder."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for write in (lambda: write_atomically(path, "new"), lambda: append_line(path, "more")):
            with pytest.raises(OSError, match="No space left") as raised:
                write()
            assert raised.value.filename == str(path)
    assert path.read_text().startswith("old")
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_is_written_whole_or_not(tmp_path: Path) -> None:
    left = tmp_path / ".out.99.tmp"
    left.mkdir()
    (left / "half.png").touch()
    other = tmp_path / ".out.png.99.tmp"
    other.touch()

    def fails(new: Path) -> None:
        (new / "a").mkdir()
        (new / "a" / "b" / "c").touch()

    with pytest.raises(OSError, match="No such file") as raised:
        write_folder(tmp_path / "out", fails)
    assert raised.value.filename == str(tmp_path / "out" / "a" / "b" / "c"), "not a name that is gone already"
    assert list(tmp_path.iterdir()) == [other], "what a killed process left is gone, other files are not"
    write_folder(tmp_path / "out", lambda new: (new / "a").touch())
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a"]


def test_a_whole_folder_whose_name_the_disk_may_lose_is_kept_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sync = os.fsync

    def fails(descriptor: int) -> None:
        if (tmp_path / "out").exists():
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr("os.fsync", fails)
    write_folder(tmp_path / "out", lambda new: (new / "a").touch())
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/a"]
    said = r"warning: .*out is whole, but a power cut may take it \(Input/output error\); copy it"
    assert re.search(said, capsys.readouterr().err)


def test_a_writer_that_has_just_begun_is_named_too(tmp_path: Path) -> None:
    facts = {"pid": 7, "command": "gankit train", "host": "atlas"}
    with filelock.FileLock(tmp_path / LOCK):
        threading.Timer(0.5, write_atomically, [tmp_path / HOLDER, json.dumps(facts)]).start()
        with pytest.raises(BusyError, match=r"process 7 on atlas \(gankit train\) is writing"), sole_writer(tmp_path):
            pass


def test_one_writer_a_folder(tmp_path: Path, small: Small) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("training.steps=1")), tmp_path / "run")
    before = sorted(run.path.iterdir())
    unfinished = gankit.load(run.path, "training.steps=2").toml()
    (run.path / "experiment.toml").write_text(unfinished)
    with held(run.path) as other:
        said = rf"run: process {other.pid} on .* \(-c {run.path}\) is writing here; wait for it"
        for write in (lambda: gankit.resume(run.path), lambda: write_report(run)):
            with pytest.raises(BusyError, match=said):
                write()
        with pytest.raises(BusyError, match=said), sole_output(run.path / "metrics.json"):
            pass
        assert run.sample(1).shape == (1, 3, 8, 8), "whoever only reads may do so"
    (run.path / ".log.jsonl.99.tmp").touch()
    assert gankit.resume(run.path).finished, "a lock ends with its process"
    assert sorted(run.path.iterdir()) == before, "and what it left is removed"


@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize(
    "put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device without an end"]
)
def test_pipes_and_devices_are_neither_awaited_nor_read_for_ever(
    put: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path))
    (tmp_path / "arrays").mkdir()
    put(tmp_path / "arrays" / "ones.npy")
    assert cache.stored("ones", lambda: np.ones(3)).sum() == 3
    assert is_sealed(tmp_path / "arrays" / "ones.npy")
    path = tmp_path / "step-1.pt"
    put(path)
    reads: list[Callable[[], object]] = [
        lambda: checkpoint.restore(tmp_path), lambda: gankit.compare(path, path), lambda: is_table(path),
        lambda: read_key(path, Key), lambda: read_ratings([path]), lambda: read_ratings([path.with_suffix(".json")]),
        lambda: append_line(path, "more"),
    ]  # fmt: skip
    put(path.with_suffix(".json"))
    for read in reads:
        with pytest.raises((GankitError, OSError), match="is not an ordinary file"):
            read()


def test_what_a_killed_process_left_of_a_file_is_removed_by_its_next_writer(tmp_path: Path) -> None:
    def writes_all() -> None:
        moments.write(tmp_path / "m.npz")
        said = pytest.raises(BusyError, match=r"m\.csv: process")
        with sole_output(tmp_path / "m.json", tmp_path / "m.csv"), said, sole_output(tmp_path / "m.csv"):
            pass

    moments = gankit.statistics(np.zeros((4, 3, 8, 8), np.uint8), "pixels")
    writes_all()
    for name in "m.npz", "m.json", "m.csv", ".m.npz.lock-holder", ".m.csv.lock-holder", "other.csv":
        (tmp_path / f".{name}.99.tmp").touch()
    writes_all()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.csv.99.tmp", "m.npz"]


def test_the_second_of_two_starts_is_refused(tmp_path: Path, small: Small) -> None:
    with held(tmp_path / "new") as other, pytest.raises(BusyError, match=f"process {other.pid}"):
        gankit.train(gankit.load("wgan-gp", *small()), tmp_path / "new")


@pytest.mark.parametrize("put", [Path.mkdir, lambda path: path.symlink_to("/dev/null")], ids=["folder", "link"])
def test_what_is_in_the_place_of_a_lock_stays_and_is_named(put: Callable[[Path], None], tmp_path: Path) -> None:
    for lock, output in ((tmp_path / LOCK, sole_writer(tmp_path)), (tmp_path / ".a.lock", sole_output(tmp_path / "a"))):
        put(lock)
        with pytest.raises(RunError, match=rf"{lock} is a link or a folder, not a lock: remove it"), output:
            pass
        assert lock.is_symlink() or lock.is_dir()


def test_a_folder_without_rights_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the system's own rights, since root has all."""
    work: list[Callable[[Path], object]] = [
        refuse_taken, lambda path: next(plan(str(tmp_path), 1.0, path.with_suffix(".toml"))),
        lambda path: Statistics.check_output(path.with_suffix(".npz")),
    ]  # fmt: skip
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path)
    for refuse in work:
        with pytest.raises(PermissionError) as caught:
            refuse(tmp_path / "new")
        assert Path(caught.value.filename).stem == "new"


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.EACCES, "; allow it, work on a copy"), (errno.EPERM, "; allow it"), (errno.EROFS, "; allow it"),
     (errno.ENOSPC, "")],
)  # fmt: skip
def test_a_read_only_folder_is_told_with_what_to_do(code: int, advice: str) -> None:
    said = str(plain_words(OSError(code, os.strerror(code), "runs/a")))
    assert said.startswith(f"runs/a: {os.strerror(code)}{advice}")
    assert ("--out" in said) == bool(advice)


def test_a_lock_that_cannot_be_written_names_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: object, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(getattr(name, "lock_file", name)))

    for owner, action in ((filelock.FileLock, "acquire"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, action, refused)
            with pytest.raises(PermissionError) as caught, sole_output(tmp_path / "a"):
                pass
        assert caught.value.filename == str(tmp_path / "a")
        assert not list(tmp_path.iterdir())


def test_a_start_that_was_cut_off_is_no_dead_end(tmp_path: Path, small: Small) -> None:
    experiment, out = gankit.load("wgan-gp", *small("training.steps=1")), tmp_path / "run"
    out.mkdir()
    for name in (".experiment.toml.99.tmp", ".lock", ".lock-holder"):
        (out / name).write_text("half")
    assert gankit.train(experiment, out).finished
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.tmp").touch()
    with pytest.raises(RunError, match="taken is not empty"):
        gankit.train(experiment, tmp_path / "taken")


def test_a_start_that_fails_on_its_data_leaves_nothing(tmp_path: Path, small: Small) -> None:
    with pytest.raises(GankitError, match="no numeric column"):
        gankit.train(gankit.load("wgan-gp", *small("data.weights=nothing")), tmp_path / "runs" / "a")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs").mkdir()
    with sole_writer(tmp_path / "runs" / "a"):
        pass
    assert list((tmp_path / "runs").iterdir()) == []


def test_waiting_for_a_writer(tmp_path: Path) -> None:
    with held(tmp_path) as other:
        until = time.monotonic() + 0.5
        with pytest.raises(BusyError), locked(tmp_path, tmp_path / LOCK, lambda: time.monotonic() > until):
            pass
        asked = []

        def ask() -> bool:
            asked.append(1)
            other.kill()
            return False

        with locked(tmp_path, tmp_path / LOCK, ask):
            assert asked


def test_a_seal_breaks_with_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "sealed"
    with open_atomically(path) as file:
        file.write(b"content")
        seal(file)
    whole = path.read_bytes()
    assert is_sealed(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not is_sealed(path)
    path.write_bytes(b"content")
    assert is_sealed(path) is None


@pytest.mark.parametrize("folder", ["arrays", "features"])
@pytest.mark.parametrize("content", [b"", b"x", None])
def test_an_altered_entry_of_the_cache_is_made_again(
    folder: cache.Folder, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path))
    array = np.arange(1000)
    cache.stored("key", lambda: array, folder)
    path = tmp_path / folder / "key.npy"
    altered = path.read_bytes().replace(b"\x03", b"\x04")
    path.unlink()
    path.write_bytes(altered if content is None else content)
    assert np.array_equal(cache.stored("key", lambda: array, folder), array)
    assert np.array_equal(cache.stored("key", lambda: array * 0, folder), array), "and kept"


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Small) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    gankit.train(gankit.load("wgan-gp", *small("training.steps=1")), "~/run")
    assert gankit.open_run("~/run").finished
    assert not Path("~").exists()
    with pytest.raises(GankitError, match="~nobody-here/run: ~ does not stand for a home folder here"):
        user_path("~nobody-here/run")
    for kind, name, key in (
        ("dataset", "folder", "path"),
        ("dataset", "npz", "path"),
        ("features", "torchscript", "path"),
    ):
        image = {} if kind == "dataset" else {"image": gankit.ImageSpec(3, 8, 8)}
        with pytest.raises(GankitError, match="~nobody-here/data: ~ does not stand for a home folder here"):
            gankit.build(kind, name, **image, **{key: "~nobody-here/data"})


def test_without_a_home_folder_the_cache_is_a_temporary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANKIT_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: Path("~/.cache") / name)
    assert cache.cache_folder().is_absolute()


def test_a_name_that_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GankitError, match=r"a\.toml: 'the class \\udcff' is not in UTF-8; rename"):
        write_atomically(tmp_path / "a.toml", "the class \udcff")
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    for use in (
        lambda: write_atomically(tmp_path / "a.toml", "the class \udcff"),
        lambda: gankit.load("demo", "data.path=\udcc3\udcbc"),
    ):
        with pytest.raises(GankitError, match="in UTF-8; set PYTHONUTF8=1, or rename"):
            use()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="names of files are in UTF-8 there")
def test_a_name_that_the_encoding_of_files_lacks_is_not_called_missing(tmp_path: Path) -> None:
    """As in an experiment of another machine, read where `LC_ALL=C` and the UTF-8 mode of Python is off."""
    (tmp_path / "é").mkdir()
    command = [sys.executable, "-m", "gankit", "check", "wgan-gp", "data.name=folder", r'data.path="\u00e9"']
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert r"'\xe9': no file can have this name in ascii; set PYTHONUTF8=1" in ended.stderr


@pytest.mark.skipif(os.name == "nt", reason="such names can be written there")
def test_half_a_letter_is_no_name_in_any_encoding() -> None:
    said = r"^'a\\ud800': no file can have this name in utf-8; write it in other letters$"
    with pytest.raises(GankitError, match=said) as caught:
        user_path("a\ud800")
    assert str(caught.value).encode()


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (".", "../" + tmp_path.name, str(tmp_path)):
        with pytest.raises(RunError, match="is the current folder, which cannot be replaced; name another as --out"):
            write_folder(Path(name), lambda folder: None)
    assert not list(tmp_path.iterdir())


def test_a_link_or_a_mounted_disk_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    (tmp_path / "broken").symlink_to("gone")
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path / "disk")
    for name in ("link", "broken", "disk"):
        with pytest.raises(RunError, match=f"{name} is a link or a mounted disk, which cannot be replaced; name a"):
            refuse_taken(tmp_path / name)
    write_folder(tmp_path / "link" / "new", lambda folder: None)
    assert (tmp_path / "disk" / "new").is_dir()


def test_a_ranking_s_folder_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    monkeypatch.setattr("gankit.ranking.rank", lambda *given, **named: pytest.fail("it has begun"))
    with pytest.raises(RunError, match="full is not empty; choose another --out"):
        cli.rank(["runs/mine"], out=tmp_path / "full")


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_folder_is_no_file_to_write(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=rf": '{re.escape(name)}'$"):
        write_atomically(Path(name), "text")
    assert not list(tmp_path.iterdir())


def test_two_threads_may_write_the_same_file(tmp_path: Path) -> None:
    with open_atomically(tmp_path / "a") as file:
        file.write(b"first")
        other = threading.Thread(target=write_atomically, args=(tmp_path / "a", "second"))
        other.start()
        other.join()
        assert (tmp_path / "a").read_bytes() == b"second"
        file.write(b" of all")
    assert (tmp_path / "a").read_bytes() == b"first of all"
