"""gankit's command in processes of their own, forked from one that has loaded torch, since an import takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

FORKED = multiprocessing.get_context("forkserver")
# What a training imports; an optimiser imports torch._dynamo.
FORKED.set_forkserver_preload(["torch._dynamo", "gankit.cli", "gankit.training.train"])


@dataclass(frozen=True)
class Done:
    """How the processes ended: the first exit code that is not 0, and what all of them wrote."""

    returncode: int
    stdout: str
    stderr: str


class Started:
    """`gankit` as one process, or as several that find each other by the variables that torchrun sets.

    With `replayed` turns are recorded and replayed, on the CPU; each process says how many kinds.
    """

    def __init__(self, *arguments: str, processes: int = 1, replayed: bool = False) -> None:
        group: dict[str, str] = {}
        if processes > 1:
            with socket.create_server(("127.0.0.1", 0)) as free:
                group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
            group["WORLD_SIZE"] = str(processes)
        self._said = TemporaryDirectory()
        self.processes = []
        for rank in range(processes):
            own = {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} if group else {}
            said = [self._file(rank, stream) for stream in (1, 2)]
            given = (arguments, {**os.environ, **own}, Path.cwd(), said, replayed)
            self.processes.append(FORKED.Process(target=_command, args=given))
            self.processes[-1].start()

    def _file(self, rank: int, stream: int) -> Path:
        return Path(self._said.name, f"{rank}-{stream}")

    def send_signal(self, kind: signal.Signals) -> None:
        for process in self.processes:
            os.kill(process.pid, kind)

    def wait(self) -> Done:
        for process in self.processes:
            process.join()
        codes = [process.exitcode for process in self.processes if process.exitcode]
        ranks = range(len(self.processes))
        texts = ["".join(self._file(rank, stream).read_text() for rank in ranks) for stream in (1, 2)]
        self._said.cleanup()
        return Done(codes[0] if codes else 0, *texts)


def run(*arguments: str, processes: int = 1, replayed: bool = False) -> Done:
    return Started(*arguments, processes=processes, replayed=replayed).wait()


def _command(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, said: Sequence[Path], replayed: bool
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, file in enumerate(said, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    if replayed:
        _replay_turns()
    sys.argv = ["gankit", *arguments]
    runpy.run_module("gankit", run_name="__main__")


def _replay_turns() -> None:
    from typing import Any

    from torch import nn

    from gankit.distributed import has_synchronised_norms
    from gankit.testing._capture import ReplayRecorder
    from gankit.training import step
    from gankit.training.execution.graphs import Graphs
    from gankit.training.execution.work import Eager

    def choose(settings: Any, device: Any, parts: Any, random: Any, log: Any, report: Any, compilation: Any) -> Any:
        modules = [part for part in parts.values() if isinstance(part, nn.Module)]
        if settings.graphs is False or has_synchronised_norms(*modules):
            return Eager(log)
        graphs: Any = Graphs(ReplayRecorder(modules), modules, [random], log, report)
        close = graphs.close

        def told() -> None:
            print(f"replayed {len(graphs.recorded)} kinds of turns", file=sys.stderr)
            close()

        graphs.close = told
        return graphs

    step.choose = choose
