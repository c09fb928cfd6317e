"""Where images are kept while a training runs: the same pixels everywhere, read ahead where they do not fit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import gankit
from gankit import seeds
from gankit.datasets.npz import Npz
from gankit.evaluation.extraction import features
from gankit.evaluation.sources import Drawn
from gankit.features.pixels import Pixels
from gankit.interfaces import Dataset
from gankit.interfaces.dataset import View
from gankit.training import pixels
from gankit.training.pixels import Host, ReadAhead, Resident, place

Small = Callable[..., list[str]]

CPU = torch.device("cpu")
RANGES = {"uint8": 255, "uint16": 65535, "float32": 1}


def images(dtype: str, count: int = 600) -> Dataset:
    values = np.random.default_rng(0).random((count, 3, 4, 5)) * RANGES[dtype]
    dataset: Dataset = gankit.wrap("dataset", values.astype(dtype), value_range=(0, RANGES[dtype]))
    return dataset


@pytest.mark.parametrize("kept", [Host, Resident, ReadAhead])
@pytest.mark.parametrize("dtype", RANGES)
def test_every_place_gives_the_same_pixels(kept: Any, dtype: str) -> None:
    dataset = images(dtype)
    place = kept(dataset, CPU)
    for start in (0, 7, 590):
        indices = np.arange(start, start + 10)[::-1].copy()
        rows = place.rows(indices, lambda indices=indices: indices + 1)
        assert rows.dtype == {"uint8": torch.uint8, "uint16": torch.int32, "float32": torch.float32}[dtype]
        np.testing.assert_array_equal(rows.double().numpy(), dataset.images[indices])
        rows.zero_()  # a batch is a copy
    np.testing.assert_array_equal(place.rows(np.array([0]), lambda: np.array([0])).double(), dataset.images[:1])


class Watched:
    """Notes which images were read, and by which thread."""

    dtype = np.dtype(np.uint8)

    def __init__(self, fail: bool = False) -> None:
        self.read: list[tuple[list[int], str]] = []
        self.fail = fail

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        self.read.append((indices.tolist(), threading.current_thread().name))
        if self.fail:
            raise gankit.errors.DataError("a.png: it is gone")
        return np.zeros((len(indices), 1, 2, 2), np.uint8)


def test_a_thread_reads_the_next_batch_and_each_batch_once() -> None:
    dataset: Any = Watched()
    ahead = ReadAhead(dataset, CPU)
    for start in range(5):
        ahead.rows(np.array([start]), lambda start=start: np.array([start + 1]))  # type: ignore[misc]
    ahead._reader.close()
    assert [indices for indices, _ in dataset.read] == [[0], [1], [2], [3], [4], [5]]
    assert all(name.startswith("gankit images") for _, name in dataset.read)


def test_batches_that_nobody_asks_for_do_not_pile_up() -> None:
    dataset: Any = Watched()
    ahead = ReadAhead(dataset, CPU)
    for start in range(0, 100, 2):
        ahead.rows(np.array([start]), lambda start=start: np.array([start + 1]))  # type: ignore[misc]
    assert len(ahead._waiting) <= pixels.MOST_AHEAD


def test_an_error_of_the_thread_is_that_of_the_batch() -> None:
    dataset: Any = Watched(fail=True)
    with pytest.raises(gankit.errors.DataError, match=r"a\.png: it is gone"):
        ReadAhead(dataset, CPU).rows(np.array([0]), lambda: np.array([1]))


def features_of(run: gankit.Run) -> Any:
    """Of images that a thread generates while their features are computed."""
    return features(Drawn(run, 3), Pixels(run.image), quiet=True)


class Generating(View):
    """Generates images with a run whenever it is read, and looks at some in each thread that reads it."""

    def __init__(self, whole: Dataset, run: gankit.Run) -> None:
        super().__init__(whole)
        self.run, self.threads, self.found = run, set[str](), list[Any]()

    @property
    def images(self) -> NDArray[Any]:
        return self.whole.images

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        self.run.sample(2, seed=int(indices[0]))
        if (name := threading.current_thread().name) not in self.threads:
            self.found.append(features_of(self.run))
            self.threads.add(name)
        return super().rows(indices)


@pytest.mark.timeout(120)  # a thread that waits for the turn of the one that waits for it would wait for ever
def test_images_that_are_generated_are_read_ahead_and_change_no_draw(
    small: Small, arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = gankit.load("wgan-gp", *small("training.steps=2", "evaluation.every=0"))
    run = gankit.train(experiment, tmp_path / "plain")
    dataset = Generating(Npz(path=arrays), run)
    monkeypatch.setattr("gankit.training.data.place", ReadAhead)
    ahead = gankit.train(experiment, tmp_path / "ahead", data=dataset)
    assert any(name.startswith("gankit images") for name in dataset.threads)
    assert all(np.array_equal(found, features_of(run)) for found in dataset.found)
    assert np.array_equal(ahead.sample(4), run.sample(4))


@pytest.mark.timeout(120)
def test_what_is_read_ahead_gets_the_turn_when_it_is_waited_for_and_not_before() -> None:
    def generate() -> Tensor:
        with seeds.own_draws():
            return torch.rand(())

    reader = seeds.Reader(CPU)
    with seeds.own_draws():
        ahead = reader.submit(generate)
        assert not wait([ahead], 0.1).done
        reader.close()
        assert ahead.done()


def test_the_thread_ends_with_the_training() -> None:
    ahead = ReadAhead(images("uint8"), CPU)
    ahead.rows(np.array([0]), lambda: np.array([1]))
    threads = [thread for thread in threading.enumerate() if thread in ahead._reader._pool._threads]
    del ahead
    for thread in threads:
        thread.join(10)
    assert [thread.is_alive() for thread in threads] == [False]


@pytest.mark.parametrize(("free", "kept"), [(4 * 600 * 60, "Resident"), (4 * 600 * 60 - 4, "ReadAhead")])
def test_a_gpu_keeps_what_takes_a_quarter_of_its_free_memory(
    free: int, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    for name in ("Resident", "ReadAhead"):
        monkeypatch.setattr(pixels, name, lambda dataset, device, name=name: name)
    assert place(images("uint8"), torch.device("cuda")) == kept  # type: ignore[comparison-overlap]
    assert isinstance(place(images("uint8"), CPU), Host)


def test_the_thread_that_fills_pinned_memory_uses_the_gpu_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[torch.device, str]] = []
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda device: taken.append((device, threading.current_thread().name))
    )
    ahead = ReadAhead(images("uint8"), torch.device("cuda:1"))
    ahead._reader.submit(lambda: None).result()
    assert [device for device, _ in taken] == [torch.device("cuda:1")]
    assert taken[0][1].startswith("gankit images")
