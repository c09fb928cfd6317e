"""Files and folders that are there as a whole or not at all, even when the machine stops; and who may write them."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import filelock

from gankit.errors import BusyError, GankitError, RunError, not_in_utf8, report_lost
from gankit.terminal.text import harmless, say, to_cell

LOCK, HOLDER = ".lock", ".lock-holder"
OWN = re.compile(r"\..+\.\d+\.tmp|(\..+)?\.lock(-holder)?")
"""Names of what gankit puts into a folder while it writes: unfinished files and folders, and locks."""
POLL, SIGNED = 0.2, 5.0  # seconds between looks at a lock of another process, and until it has said which one it is
MARK = b"gankit-digest:"


def user_path(path: str | Path) -> Path:
    """A path as the user names it, in which `~` stands for the home folder.

    Raises:
        GankitError: there is no such user, this one has no home folder, or no file can have this name here.
    """
    try:
        os.fsencode(path)
        return Path(path).expanduser()
    except UnicodeEncodeError as error:
        advice = "write it in other letters" if error.encoding == "utf-8" else "set PYTHONUTF8=1"
        raise GankitError(f"{str(path)!a}: no file can have this name in {error.encoding}; {advice}") from None
    except RuntimeError:
        raise GankitError(f"{path}: ~ does not stand for a home folder here; write the path in full") from None


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write and read, which takes the name `path` when the block ends well; else nothing is left of it.

    Raises:
        OSError: it cannot be written; names `path`.
    """
    # Threads, too, may write the same cached array at one time.
    temporary = path.parent / f".{path.name}.{os.getpid()}{threading.get_ident()}.tmp"
    with named_errors(path, temporary):
        try:
            with open(temporary, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            _remove(temporary)
        _sync_folder(path.parent)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file, a text in UTF-8, that is either there as a whole or not at all.

    Raises:
        GankitError: the text holds the name of a file that is not in UTF-8.
        OSError: it cannot be written; names the file.
    """
    if isinstance(content, str):
        try:
            content = content.encode()
        except UnicodeEncodeError as error:
            name = repr(content[max(error.start - 20, 0) : error.end + 20])
            raise GankitError(f"{path}: {not_in_utf8(name)}") from None
    with open_atomically(path) as file:
        file.write(content)


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a table, its header first, as a CSV file that is there as a whole or not at all; cells by `to_cell`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([to_cell(cell) for cell in row] for row in rows)
    write_atomically(path, text.getvalue())


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file; it is on the disk when this returns.

    Raises:
        OSError: it cannot be written; names the file.
    """
    if path.exists():
        open_ordinary(path).close()
    with named_errors(path), open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def named_errors(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an OSError inside name this file or folder, where it names none, and where it names the temporary one."""
    try:
        yield
    except OSError as error:
        place = str(error.filename or path).replace(str(temporary or path), str(path))
        raise OSError(error.errno, error.strerror or str(error), place) from error


def _sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk; does nothing on systems that cannot."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def open_ordinary(path: Path) -> BinaryIO:
    """Open a file to read it, but no pipe or device: these may wait, or have no end.

    Raises:
        OSError: it cannot be read; names it.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not an ordinary file", str(path))
    return open(path, "rb")


def seal(file: BinaryIO) -> None:
    """Append a digest of everything that was written to a file, for `is_sealed`."""
    file.write(MARK + _digest(file, file.tell()))


def is_sealed(path: Path) -> bool | None:
    """Whether the content of a file is what was sealed; None for a file without a seal.

    Raises:
        OSError: as `open_ordinary`.
    """
    with open_ordinary(path) as file:
        size = file.seek(0, os.SEEK_END) - len(MARK) - hashlib.blake2b().digest_size
        file.seek(max(size, 0))
        mark, digest = file.read(len(MARK)), file.read()
        return None if size < 0 or mark != MARK else _digest(file, size) == digest


def _digest(file: BinaryIO, size: int) -> bytes:
    """Of the first `size` bytes, read in blocks; a memory map would keep all of them in memory."""
    digest = hashlib.blake2b()
    file.seek(0)
    while size > 0 and (block := file.read(min(2**20, size))):
        digest.update(block)
        size -= len(block)
    return digest.digest()


def refuse_nonempty(folder: Path, hint: str = "choose another --out") -> None:
    """Refuse to write into a folder that holds anything but what gankit left there when it was stopped.

    Raises:
        RunError: it does, or is a file; the hint says what to do instead.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; choose another --out")
    if folder.is_dir() and not all(OWN.fullmatch(path.name) for path in folder.iterdir()):
        raise RunError(f"{folder} is not empty; {hint}")


def refuse_taken(folder: Path) -> None:
    """Refuse what `write_folder` cannot write, before the work.

    Raises:
        RunError: it holds something, or is a file, the current folder, a link, or where a disk is mounted.
    """
    folder = user_path(folder)
    if folder.resolve() == Path.cwd():
        raise RunError(f"{folder} is the current folder, which cannot be replaced; name another as --out")
    if folder.is_symlink() or os.path.ismount(folder):
        raise RunError(f"{folder} is a link or a mounted disk, which cannot be replaced; name a folder in it as --out")
    refuse_nonempty(folder)
    refuse_unwritable(folder)


def refuse_unwritable(path: Path) -> None:
    """Refuse a file or folder that this user may not write, before the work.

    Raises:
        PermissionError: names it.
    """
    place = next(filter(Path.exists, path.absolute().parents))
    if not os.access(place, os.W_OK | os.R_OK):  # read, too, to bring its entries to the disk
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def write_folder(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Write a folder, now missing or empty, so that it is either there as a whole or not at all.

    `fill` is called with an empty folder, into which it writes everything.

    Raises:
        RunError: as `refuse_taken`, or another process writes the folder.
        OSError: it cannot be written; names the file.
    """
    refuse_taken(folder := user_path(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with locked(folder), named_errors(folder, new):
        try:
            new.mkdir()
            fill(new)
            for path in (*new.rglob("*"), new):
                if path.is_dir():
                    _sync_folder(path)
                else:
                    with open(path, "rb+") as file:
                        os.fsync(file.fileno())
            refuse_nonempty(folder)
            if folder.exists():
                shutil.rmtree(folder)
            new.rename(folder)
            try:
                _sync_folder(folder.parent)
            except OSError as error:  # no reason to delete what may be the work of hours
                say(f"warning: {folder} is whole, but a power cut may take it ({error.strerror}); copy it", error=True)
        finally:
            _remove(new)
    return folder


def _unfinished(folder: Path, name: str = ".+") -> list[Path]:
    """What stopped processes left of files and folders of a name, a regular expression."""
    return [path for path in folder.iterdir() if re.fullmatch(rf"\.({name})\.\d+\.tmp", path.name)]


def _remove(path: Path) -> None:
    """Delete a file or folder that may be gone already."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Be the one process that writes into a folder, which is made where it is missing.

    What a stopped process left unfinished is removed. If nothing is written, the folder is left as it was.

    Raises:
        BusyError: another process writes there; says which.
        RunError: the folder was moved or deleted meanwhile.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with report_lost(folder), locked(folder, folder / LOCK):
            remove_unfinished(folder)
            yield
    finally:
        with contextlib.suppress(OSError):  # it holds something now
            for path in made:
                path.rmdir()


@contextlib.contextmanager
def sole_output(*paths: Path) -> Iterator[None]:
    """Be the one process that writes these files and the pictures beside them, or into the run folders they are in.

    Raises:
        BusyError: another process writes there; says which.
    """
    places = (path.parent if (path.parent / "experiment.toml").is_file() else path for path in paths)
    with contextlib.ExitStack() as stack:
        for place in {place.resolve(): place for place in places}.values():
            stack.enter_context(sole_writer(place) if place.is_dir() else locked(place))
        yield


def remove_unfinished(folder: Path) -> None:
    """Delete the unfinished files in a folder and the folders in it; unfinished folders have locks of their own."""
    for inside in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        for left in filter(Path.is_file, _unfinished(inside)):
            _remove(left)


@contextlib.contextmanager
def locked(target: Path, lock: Path | None = None, give_up: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Hold a lock that ends with this process at the latest; what stopped processes left of the target is removed.

    The lock's file is beside the target by default, and gone afterwards. `give_up` is asked again and again while
    another process holds the lock; by default there is no waiting.

    Raises:
        RunError: another process holds it (a BusyError that says which), or something else is in the lock's place.
    """
    lock = lock or target.with_name(f".{target.name}{LOCK}")
    handle, holder = filelock.FileLock(lock), lock.with_name(lock.name + HOLDER.removeprefix(LOCK))
    soon = time.monotonic() + SIGNED
    while True:
        try:
            handle.acquire(timeout=0)
        except filelock.Timeout:
            if give_up() and (holder.exists() or time.monotonic() > soon):
                raise BusyError(f"{target}: {_describe(holder)} is writing here; wait for it, or stop it") from None
            time.sleep(POLL)
        except NotImplementedError:  # a file system without locks: its users must take care
            break
        except OSError as error:
            if lock.is_symlink() or lock.is_dir():  # a lock is always a file: who follows a link may harm another
                raise RunError(f"{lock} is a link or a folder, not a lock: remove it, and start again") from None
            raise OSError(error.errno, error.strerror, str(lock if lock.exists() else target)) from None
        else:
            if lock.exists():  # else its last holder deleted it after it was opened here
                break
            handle.release()
    for left in _unfinished(lock.parent, "|".join(map(re.escape, (target.name, holder.name)))):
        _remove(left)
    try:
        command = shlex.join([Path(sys.argv[0].removesuffix(f"{os.sep}__main__.py")).name, *sys.argv[1:]])
        facts = {"pid": os.getpid(), "command": command, "host": socket.gethostname()}
        with named_errors(target, holder):
            write_atomically(holder, json.dumps(facts))
        yield
    finally:
        _remove(holder)
        _remove(lock)
        handle.release()


def _describe(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text(encoding="utf-8"))
        return harmless(f"process {int(facts['pid'])} on {facts['host']} ({facts['command']!s:.200})")
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
