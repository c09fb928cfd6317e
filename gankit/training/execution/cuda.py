"""Turns recorded as CUDA graphs: the `Recorder` of a CUDA device."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import final

import torch


@final
class CudaRecorder:
    """Records CUDA graphs on one device. They share their memory, since only one turn runs at a time.

    `generators` are those of the device from which turns draw, besides torch's own.
    """

    def __init__(self, device: torch.device, generators: list[torch.Generator]) -> None:
        self._device, self._generators = device, generators
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    @contextlib.contextmanager
    def warm_up(self) -> Iterator[None]:
        """Compute on the stream on which turns are recorded, so that gradients are allocated there from the start."""
        outer = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(outer)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            outer.wait_stream(self._stream)

    def record(self, compute: Callable[[], None]) -> Callable[[], None]:
        """As `Recorder.record`."""
        # After an invalid recording the inner context fails to leave the stream, and the outer one leaves it. The outer
        # one also makes the stream's device current: there a graph keeps the seeds of its draws.
        with torch.cuda.stream(self._stream):
            graph = self._graph()
            # "thread_local" lets other threads read images meanwhile.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                compute()
        return graph.replay

    def _graph(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions of torch register by themselves, and deprecate the call
            for generator in self._generators:
                graph.register_generator_state(generator)
        return graph

    def recover(self) -> None:
        """As `Recorder.recover`: record a trivial graph, since torch's generators refuse to draw until one succeeds."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            self._end_allocation()
        with (
            contextlib.suppress(RuntimeError),  # a driver that cannot record at all has left the generators alone
            torch.cuda.stream(stream),
            torch.cuda.graph(self._graph(), stream=stream, capture_error_mode="thread_local"),
        ):
            torch.zeros(1, device=self._device)

    def _end_allocation(self) -> None:
        """Let the allocator know that a recording has ended.

        Versions of torch before 2.12 do not tell it of a failed one. They then raise errors instead of giving back any
        memory, and keep what the recording took.
        """
        with contextlib.suppress(RuntimeError):  # it knows already
            device = torch.cuda.current_device()
            torch._C._cuda_endAllocateToPool(device, self._pool)
            torch._C._cuda_releasePool(device, self._pool)

    def free(self) -> None:
        """As `Recorder.free`."""
        torch.cuda.empty_cache()
