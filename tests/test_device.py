"""Which device "auto" takes, and that all generators of random numbers are seeded; no GPU is needed."""

from __future__ import annotations

import pytest
import torch

from gankit import seeds
from gankit.runs.run import choose_device


@pytest.mark.parametrize(("cuda", "mps", "taken"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_first_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, taken: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == taken


def test_an_apple_gpu_is_seeded_like_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "manual_seed", seeded.append)
    with torch.random.fork_rng(devices=[]):
        seeds.seed_torch(3, "step", 7)
    assert seeded == [seeds.derive_seed(3, "step", 7)]
