"""gankit's own suite for data sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gankit.testing
from dicom_files import pixels, save

from gankit_dicom import Dicom


class TestGrey(gankit.testing.DatasetTests):
    part = Dicom
    settings = {"window": (2000.0, 3000.0)}  # noqa: RUF012

    def write(self, folder: Path) -> Mapping[str, Any]:
        lines = ["file,label,agreement,split,age"]
        for i in range(6):
            save(
                folder / f"{i}.dcm",
                pixels(2, 9, 7, high=4095, seed=i, dtype="uint16"),
                BitsStored=12,
                PatientID=f"p{i // 2}",
            )
            lines.append(f"{i}.dcm,{'ab'[i % 2]},0.{i + 4},{'train' if i < 4 else 'test'},{i}")
        (folder / "labels.csv").write_text("\n".join(lines))
        return {"path": str(folder)}


class TestColourOnDisk(gankit.testing.DatasetTests):
    part = Dicom
    settings = {"in_memory": False, "mirror_keeps_label": False}  # noqa: RUF012

    def write(self, folder: Path) -> Mapping[str, Any]:
        for i in range(4):
            path = folder / "ab"[i % 2] / str(i)
            save(path, pixels(8, 8, 3, seed=i), PhotometricInterpretation="RGB", PatientID=f"p{i // 2}")
        return {"path": str(folder)}
