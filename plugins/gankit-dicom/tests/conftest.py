from __future__ import annotations

from pathlib import Path

import gankit
import pytest
import torch

from gankit_dicom import Dicom

gankit.datasets.register("dicom")(Dicom)  # for tests without an installation; with one, it is the same class
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GANKIT_CACHE", str(folder))
    return folder
