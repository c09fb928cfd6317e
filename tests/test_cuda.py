"""CUDA graphs, against a stand-in for torch's: which stream is current when, and what a failed recording leaves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gankit.training.execution.cuda import CudaRecorder

GPU = torch.device("cuda")


class Card:
    """What torch.cuda does with streams, graphs and memory, written down."""

    def __init__(self) -> None:
        self.current = "main"
        self.said: list[str] = []
        self.streams = 0
        self.broken = False
        self.ends_allocation = True  # where a recording fails, as newer versions do

    def end_allocation(self, device: int, pool: str) -> None:
        if self.ends_allocation:
            raise RuntimeError("not currently recording to it")
        self.said.append(f"end of {pool} on {device}, {self.current}")

    def stream_made(self, device: torch.device) -> Any:
        self.streams += 1
        return Stream(self, f"side {self.streams}")

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def graph(self, graph: Graph, pool: Any = None, stream: Any = None, capture_error_mode: str = "") -> Iterator[None]:
        """As torch's: where the recording is invalid, its end raises too, and the stream stays."""
        self.said.append(f"record on {stream.name} in {pool} {capture_error_mode}")
        self.current = stream.name
        try:
            yield
        finally:
            if self.broken:
                self.broken = False
                raise RuntimeError("capture was invalidated")
            self.current = "main"


class Stream:
    def __init__(self, card: Card, name: str) -> None:
        self.card, self.name = card, name

    def wait_stream(self, other: Any) -> None:
        self.card.said.append(f"{self.name} waits for {other.name}")


class Graph:
    def __init__(self, made_on: str) -> None:
        self.made_on = made_on
        self.generators: list[torch.Generator] = []
        self.replays = 0

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        self.replays += 1


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    card = Card()
    for name, value in {
        "Stream": card.stream_made, "stream": card.stream, "graph": card.graph,
        "CUDAGraph": lambda: Graph(card.current), "graph_pool_handle": lambda: "pool",
        "current_stream": lambda device: Stream(card, card.current),
        "empty_cache": lambda: card.said.append("empty"),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", card.end_allocation, raising=False)
    monkeypatch.setattr(
        torch._C, "_cuda_releasePool", lambda device, pool: card.said.append(f"release {pool} on {device}"),
        raising=False,
    )  # fmt: skip
    monkeypatch.setattr(torch, "zeros", lambda size, device: card.said.append(f"zeros on {device}"))
    return card


def test_eager_turns_run_aside_and_each_stream_waits_for_the_other(card: Card) -> None:
    recorder = CudaRecorder(GPU, [])
    with recorder.warm_up():
        assert card.current == "side 1"
    assert card.current == "main"
    assert card.said == ["side 1 waits for main", "main waits for side 1"]
    with pytest.raises(ValueError, match="a loss"), recorder.warm_up():
        raise ValueError("a loss")
    assert card.current == "main"


def test_recordings_share_a_stream_and_memory_and_know_the_generators(card: Card) -> None:
    generators = [torch.Generator()]
    recorder, seen = CudaRecorder(GPU, generators), []
    replay = recorder.record(lambda: seen.append(card.current))
    graph: Any = replay.__self__  # type: ignore[attr-defined]
    assert seen == ["side 1"]
    assert card.said == ["record on side 1 in pool thread_local"]
    assert graph.generators == generators
    assert graph.made_on == "side 1"  # with that stream's device
    replay()
    assert graph.replays == 1
    assert card.current == "main"


def test_a_failed_recording_leaves_the_stream_and_is_followed_by_one_that_works(card: Card) -> None:
    recorder = CudaRecorder(GPU, [torch.Generator()])

    def work() -> None:
        card.broken = True
        raise ValueError("reads back")

    with pytest.raises(RuntimeError, match="invalidated") as caught:
        recorder.record(work)
    assert "reads back" in str(caught.value.__context__)  # which the user is told
    assert card.current == "main"
    card.said.clear()
    recorder.recover()
    assert card.said == ["record on side 2 in None thread_local", "zeros on cuda"]  # a stream and memory of its own
    assert card.current == "main"


def test_after_a_failed_recording_the_allocator_gives_back_memory_again(card: Card) -> None:
    """Where torch itself leaves it in the midst of the recording."""
    recorder = CudaRecorder(GPU, [])
    card.ends_allocation = False
    recorder.recover()
    assert card.said == [
        "end of pool on 0, side 2", "release pool on 0", "record on side 2 in None thread_local", "zeros on cuda",
    ]  # fmt: skip


def test_a_driver_that_records_nothing_is_no_error(card: Card) -> None:
    recorder = CudaRecorder(GPU, [])
    card.broken = True
    recorder.recover()
    assert card.current == "main"


def test_memory_is_given_back(card: Card) -> None:
    CudaRecorder(GPU, []).free()
    assert card.said == ["empty"]


@pytest.mark.cpu
def test_a_gpu_is_hidden_from_tests_about_the_cpu() -> None:
    from gankit.runs.run import choose_device

    assert choose_device("auto").type == "cpu"
