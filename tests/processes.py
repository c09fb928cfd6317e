"""gankit's command in processes of their own, forked from one that has loaded all of it, since that takes seconds."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from site import addsitedir
from tempfile import TemporaryDirectory
from typing import Any

import torch
from short_trainings import SHORTER

import gankit

GANKIT = "import runpy; runpy.run_module('gankit', run_name='__main__')"
# What comes before other code, so that it imports gankit anew, but not torch, which takes seconds.
FORGET_GANKIT = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "gankit"]:
    del sys.modules[name]
"""
PYTEST = "import pytest; raise SystemExit(pytest.main())"
PACKAGE = Path(gankit.__file__).parent
MODULES = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("[!_]*.py")]
FORKED = multiprocessing.get_context("forkserver")
# Beside gankit what it imports late: an optimiser torch._dynamo, a split scikit-learn's.
FORKED.set_forkserver_preload(["torch._dynamo", "sklearn.model_selection", "matplotlib.figure", *sorted(MODULES)])


@dataclass(frozen=True)
class Done:
    """How the processes ended: the first exit code that is not 0, and what all of them wrote."""

    returncode: int
    stdout: str
    stderr: str


class Started:
    """`gankit` as one process, or as several that find each other by the variables that torchrun sets.

    Args:
        arguments: of the command.
        processes: how many there are.
        code: what they run instead of gankit, with the arguments in sys.argv.
        site: a folder of installed packages that they see beside those of this interpreter.
        folder: where they run; the current one by default.
        variables: all their environment variables; those of this process by default.
    """

    def __init__(
        self, *arguments: str, processes: int = 1, code: str = GANKIT, site: Path | None = None,
        folder: Path | None = None, variables: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        group: dict[str, str] = {}
        if processes > 1:
            with socket.create_server(("127.0.0.1", 0)) as free:
                group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
            group["WORLD_SIZE"] = str(processes)
        self._said = TemporaryDirectory()
        self.processes = []
        for rank in range(processes):
            own = {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} if group else {}
            environment = {**(os.environ if variables is None else variables), **own}
            said = [self._file(rank, stream) for stream in (1, 2)]
            given = (code, arguments, environment, folder or Path.cwd(), site, said)
            self.processes.append(FORKED.Process(target=_run, args=given))
            self.processes[-1].start()

    def _file(self, rank: int, stream: int) -> Path:
        return Path(self._said.name, f"{rank}-{stream}")

    def send_signal(self, kind: signal.Signals) -> None:
        for process in self.processes:
            os.kill(process.pid, kind)

    def poll(self) -> int | None:
        """The exit code of the first process, once it has ended."""
        return self.processes[0].exitcode

    def wait(self) -> Done:
        for process in self.processes:
            process.join()
        codes = [process.exitcode for process in self.processes if process.exitcode]
        ranks = range(len(self.processes))
        texts = ["".join(self._file(rank, stream).read_text() for rank in ranks) for stream in (1, 2)]
        self._said.cleanup()
        return Done(codes[0] if codes else 0, *texts)


def run(*arguments: str, **options: Any) -> Done:
    """Processes as `Started` describes them, from beginning to end."""
    return Started(*arguments, **options).wait()


def _run(
    code: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, site: Path | None,
    said: Sequence[Path],
) -> None:  # fmt: skip
    gc.freeze()  # what was loaded stays; to look through it again and again would take most of a short command's time
    torch.set_num_threads(1)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, file in enumerate(said, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    for (module, name), value in SHORTER.items():
        setattr(module, name, value)
    if site is not None:
        addsitedir(str(site))
    sys.argv = ["gankit", *arguments]
    try:
        exec(code, {"__name__": "__main__"})
    finally:
        # As an interpreter ends; multiprocessing alone would wait for joblib's workers for ever.
        threading._shutdown()
        atexit._run_exitfuncs()
