"""Small DICOM files for the tests, written by pydicom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gankit.errors import DataError
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

Array = NDArray[Any]


def header(pixels: Array, **tags: Any) -> Dataset:
    """A DICOM data set of (h, w) or (frames, h, w) grey or, with PhotometricInterpretation, (..., h, w, 3) pixels."""
    kind = tags.get("PhotometricInterpretation", "MONOCHROME2")
    colour = kind not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    shape = pixels.shape[:-1] if colour else pixels.shape
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.PhotometricInterpretation = kind
    made.SamplesPerPixel = 3 if colour else 1
    if colour:
        made.PlanarConfiguration = 0
    made.Rows, made.Columns = shape[-2:]
    if len(shape) == 3:
        made.NumberOfFrames = shape[0]
    made.BitsAllocated = pixels.dtype.itemsize * 8
    made.BitsStored = tags.get("BitsStored", made.BitsAllocated)
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    content = pixels.tobytes()
    made.add_new("PixelData", "OW", content + b"\0" * (len(content) % 2))
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def save(path: Path, pixels: Array, **tags: Any) -> Path:
    """A DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header(pixels, **tags).save_as(path, enforce_file_format=True)
    return path


def table(entries: Array, bits: int, first: int = 0) -> Dataset:
    """An item of a sequence of lookup tables, one entry a word."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "US", entries.tolist())
    return item


def palette(**colours: Array) -> dict[str, Any]:
    """Elements of a palette of 8- or 16-bit entries: red, green and blue."""
    made: dict[str, Any] = {}
    for name, entries in colours.items():
        made[f"{name.capitalize()}PaletteColorLookupTableDescriptor"] = [len(entries), 0, entries.dtype.itemsize * 8]
        made[f"{name.capitalize()}PaletteColorLookupTableData"] = entries.tobytes()
    return made


def pixels(*shape: int, low: int = 0, high: int = 255, seed: int = 0, dtype: Any = np.uint8) -> Array:
    """Random values from low to high, with both of them among the values."""
    made = np.random.default_rng(seed).integers(low, high, shape, dtype=dtype, endpoint=True)
    made.flat[0], made.flat[-1] = low, high
    return made


def error(make: Callable[[], object]) -> str:
    """The text of the one-line DataError that `make` raises, which hides no other error."""
    with pytest.raises(DataError) as caught:
        make()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    text = str(caught.value)
    assert "\n" not in text
    return text
