"""What must be known of a DICOM file before its pixels are read."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from gankit_dicom._guard import Problem, guarded
from gankit_dicom._tones import Tones, macro, padding, tones

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
PIXELS = (
    "BitsAllocated", "BitsStored", "Columns", "HighBit", "ModalityLUTSequence", "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence", "PhotometricInterpretation", "PixelPaddingRangeLimit", "PixelPaddingValue",
    "PixelPresentation", "PixelRepresentation", "PlanarConfiguration", "PresentationLUTShape", "RescaleIntercept",
    "RescaleSlope", "Rows", "SamplesPerPixel", "SharedFunctionalGroupsSequence", "VOILUTFunction", "VOILUTSequence",
    "WindowCenter", "WindowWidth",
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)  # fmt: skip
"""All that decoding reads beside the pixels: the other elements, which tell of the patient, are never parsed."""
_SIDES = ("ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio", "PixelSpacing")
"""Elements of two numbers, which are equal where pixels are square."""
_LARGEST = 2**29  # bytes of a deflated file when it is unpacked
_BROKEN = "has the suffix or the mark of DICOM and cannot be read as an image; replace it or take it out"
_IDS = ("AccessionNumber", "OtherPatientIDs", "PatientBirthDate", "PatientID")
_NAMES = ("OtherPatientNames", "PatientBirthName", "PatientName")
_PERSON = (
    *_IDS, *_NAMES, "BurnedInAnnotation", "OtherPatientIDsSequence", "SpecificCharacterSet",
    "StudyInstanceUID",
)  # fmt: skip


class View(NamedTuple):
    """What black and white of grey frames follow from, as in `Tones`."""

    span: tuple[float, float]
    has_window: bool
    window: tuple[float, float, str] | None


@dataclass(frozen=True)
class Header:
    """A file's header; what tells of the patient stays in memory and in no `repr`.

    Attributes:
        frames: number of images.
        channels: 1 or 3.
        height: pixels.
        width: pixels.
        bits: of each channel.
        burned_in: whether the file says that its pixels show who the patient is.
        views: of its grey frames.
        square: whether its pixels are, as far as the file says.
        problem: why its pixels cannot be read, or None.
        stamp: of the file, before it was read.
        patient: id, or "".
        study: unique id, or "".
        secrets: what must not be shown.
    """

    frames: int = 1
    channels: int = 1
    height: int = 1
    width: int = 1
    bits: int = 8
    burned_in: bool = False
    views: frozenset[View] = frozenset()
    square: bool = True
    problem: str | None = None
    stamp: tuple[int, int] = (0, 0)
    patient: str = field(default="", repr=False)
    study: str = field(default="", repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)


def stamp(path: Path) -> tuple[int, int]:
    """A file's size in bytes and time of change in nanoseconds."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def read_header(path: Path) -> Header | None:
    """A file's header, or None for a DICOM file that holds no image (a report, a plan, a directory)."""
    try:
        before = guarded(lambda: stamp(path))
        guarded(lambda: _check_unpacked(path))
    except Problem as problem:
        return Header(problem=str(problem))
    try:
        tags = [*PIXELS, *_SIDES, *_PERSON]
        header = guarded(lambda: pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags))
    except Problem:
        return Header(problem=_BROKEN)
    try:
        if guarded(lambda: _has_no_image(header)):
            return None
        person = guarded(lambda: _person(header))
    except Problem:
        return Header(problem=_BROKEN)
    try:
        return replace(guarded(lambda: _image(header, before[0])), stamp=before, **person)
    except Problem as problem:
        return Header(problem=str(problem), **person)


def _has_no_image(header: Dataset) -> bool:
    """Whether a file is of one of the standard's classes without an image; images without size are cut off."""
    kind = header.file_meta.get("MediaStorageSOPClassUID")
    return "Rows" not in header and "Columns" not in header and kind is not None and "Image" not in kind.name


def _person(header: Dataset) -> dict[str, Any]:
    ids = [text for item in (header, *(header.get("OtherPatientIDsSequence") or ())) for text in _texts(item, _IDS)]
    names = _texts(header, _NAMES)
    secrets = {*ids, *names, *(word for name in names for word in re.split(r"[\s^=,_.-]+", name))}
    return {
        "patient": str(header.get("PatientID") or "").strip(),
        "study": str(header.get("StudyInstanceUID") or "").strip(),
        "secrets": frozenset(secrets - {""}),
    }


def _texts(header: Dataset, elements: Sequence[str]) -> list[str]:
    """All values of some elements, of which each may have several."""
    values = [header.get(element) or "" for element in elements]
    return [str(each).strip() for value in values for each in (value if isinstance(value, MultiValue) else [value])]


def _check_unpacked(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(2**12)
        if DeflatedExplicitVRLittleEndian.encode() not in start:
            return
        file.seek(144 + int.from_bytes(start[140:144], "little"))  # behind the group that is not deflated
        inflate, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while packed := inflate.unconsumed_tail or file.read(2**20):
            unpacked += len(inflate.decompress(packed, 2**24))
            if unpacked > _LARGEST:
                raise Problem(f"unpacks to more than {_LARGEST // 2**20} MB; convert it to an uncompressed file")


def _image(header: Dataset, size: int) -> Header:
    if "Rows" not in header and "Columns" not in header:
        raise Problem(_BROKEN)
    if "TransferSyntaxUID" not in header.file_meta:
        raise Problem("does not say how its pixels are stored; replace it or take it out")
    _check_decoder(header)
    kind = str(header.get("PhotometricInterpretation"))
    if kind not in GREY + COLOUR:
        raise Problem("has colours of a kind that cannot be read; convert it to RGB, or take it out")
    colour = kind in COLOUR
    samples = 3 if colour and kind != "PALETTE COLOR" else 1
    allocated, stored = int(header.get("BitsAllocated") or 0), int(header.get("BitsStored") or 0)
    frames, height, width = int(header.get("NumberOfFrames") or 1), int(header.Rows), int(header.Columns)
    sizes = min(frames, height, width) >= 1 and 1 <= stored <= allocated <= 32
    types = (0, 1) if samples == 1 else (0,)  # colours have no sign
    if not sizes or header.get("SamplesPerPixel") != samples or header.get("PixelRepresentation") not in types:
        raise Problem("has a header whose sizes, bits and colours do not fit each other; replace it or take it out")
    shape, shown = (str(header.get(n) or "").strip().upper() for n in ("PresentationLUTShape", "PixelPresentation"))
    if not colour and shown in ("COLOR", "MIXED", "TRUE_COLOR"):
        raise Problem("has colours beside its grey values (a supplemental palette); convert it to RGB, or take it out")
    if (kind, shape) in (("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")):
        raise Problem(
            "has a PhotometricInterpretation and a PresentationLUTShape that contradict each other; see which is true "
            "and remove PresentationLUTShape"
        )
    if int(header.get("HighBit", stored - 1)) != stored - 1:
        raise Problem("keeps its values in the upper bits, as the standard no longer allows; convert it or take it out")
    if size < _least_size(header.file_meta.TransferSyntaxUID, frames, height * width * samples, allocated, kind):
        raise Problem("has pixels that are cut off: it is smaller than its sizes need; replace it or take it out")
    if header.original_encoding[1] is False and _has_tables(header):
        raise Problem("has lookup tables in big-endian order; convert it to Explicit VR Little Endian")
    if not colour:
        padding(header)  # raises where it is invalid
    grey = () if colour else _all_tones(header, frames)
    views = frozenset(View(each.span, each.has_window, each.window) for each in grey)
    bits = int(header.RedPaletteColorLookupTableDescriptor[2]) if kind == "PALETTE COLOR" else stored
    burned_in = str(header.get("BurnedInAnnotation") or "").strip().upper() == "YES"
    return Header(frames, 3 if colour else 1, height, width, bits, burned_in, views, _is_square(header, frames))


def _least_size(syntax: UID, frames: int, values: int, bits: int, kind: str) -> int:
    """Bytes that a file of so many frames and values in each cannot be below."""
    if syntax.is_encapsulated:
        return frames * max(64, values // 1000)
    stored = frames * (values * bits // 8) * (2 if kind == "YBR_FULL_422" else 3) // 3
    return stored // 1032 if syntax == DeflatedExplicitVRLittleEndian else stored  # no zlib stream packs more densely


def _has_tables(header: Dataset) -> bool:
    names = ("ModalityLUTSequence", "VOILUTSequence", "RedPaletteColorLookupTableData")
    return any(element.keyword in names for element in header.iterall())


def _all_tones(header: Dataset, frames: int) -> Iterator[Tones]:
    return (tones(header, frame) for frame in _frames_apart(header, frames))


def _frames_apart(header: Dataset, frames: int) -> range:
    """The frames whose transformations may differ; frames of files without functional groups share theirs."""
    return range(frames if header.get("PerFrameFunctionalGroupsSequence") else 1)


def _is_square(header: Dataset, frames: int) -> bool:
    """Whether no frame has sides of pixels that differ by more than a hundredth; what is no size does not count."""
    measures = [macro(header, frame, "PixelMeasuresSequence") for frame in _frames_apart(header, frames)]
    for item in [header, *measures]:
        for sides in ([float(text) for text in _texts(item, [name]) if _is_size(text)] for name in _SIDES):
            if len(sides) == 2 and max(sides) > 1.01 * min(sides):
                return False
    return True


def _is_size(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _check_decoder(header: Dataset) -> None:
    syntax = header.file_meta.TransferSyntaxUID
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = None
    if available is None:
        raise Problem("is video, or compressed in a way that pydicom cannot decode; convert it to an uncompressed file")
    if not available:
        raise Problem(f"is compressed ({syntax.name}), and no decoder of it is installed: {decoders(header)}")


def decoders(header: Dataset) -> str:
    """What to install for a compressed file; "" for a file that needs nothing."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in JPEG2000TransferSyntaxes:
        return "pip install pylibjpeg pylibjpeg-openjpeg"
    if syntax in [*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes]:
        return "pip install pylibjpeg pylibjpeg-libjpeg"
    return ""
