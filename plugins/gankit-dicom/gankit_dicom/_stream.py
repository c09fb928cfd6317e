"""Whether the pixels in a file are those of which its header speaks (DICOM PS3.5, 8.2 and annex A)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any, NamedTuple

from pydicom import Dataset
from pydicom.encaps import generate_fragments, generate_frames, get_frame, parse_basic_offsets
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    JPEGTransferSyntaxes,
    RLELossless,
)

from gankit_dicom._guard import Problem

_UNSIGNED = (JPEGBaseline8Bit, JPEGExtended12Bit)
"""Syntaxes whose values have no sign."""
_JPEG, _JPEG_2000, _JP2 = b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP"
_JPEG_LS, _SCAN = 0xFFF7, 0xFFDA
_FRAME_HEADERS = {*range(0xFFC0, 0xFFD0), _JPEG_LS} - {0xFFC4, 0xFFC8, 0xFFCC}  # of JPEG and JPEG-LS
_ADOBE = re.compile(rb"\xff\xee(..Adobe.{6}\x01)", re.DOTALL)
_ADOBE_LENGTH = 14  # bytes of its mark, at least
_YBR = ("YBR_FULL", "YBR_FULL_422")
_ADVICE = "; see which is true, or take it out"


class _Stream(NamedTuple):
    """What the compressed pixels of a frame say of themselves."""

    height: int
    width: int
    samples: int
    bits: int
    mixed: bool | None = None  # JPEG 2000: whether decoding makes RGB of the components
    adobe: int | None = None  # JPEG: 0 where Adobe's mark says that the components are RGB, 1 where YCbCr


def by_adobe(header: Dataset) -> None:
    """Change a JPEG file whose colours are YCbCr by Adobe's mark such that all decoders make RGB of it once.

    Pillow would do so and leave the header as it is; others look at the header alone.

    Raises:
        Problem: some of its frames have the mark; others do not, and are no YCbCr by the header.
    """
    if header.file_meta.TransferSyntaxUID not in JPEGTransferSyntaxes or header.SamplesPerPixel != 3:
        return
    pixels, found = _ADOBE.subn(lambda mark: b"\xff\xfe" + mark[1], header.PixelData)
    if not found:
        return
    marked = {stream.adobe == 1 for stream in _streams(header) if stream is not None}
    if len(marked) > 1 and header.PhotometricInterpretation not in _YBR:
        raise Problem(
            "has frames with Adobe's mark of YCbCr and others without it; convert them to RGB, or take it out"
        )
    if True in marked:
        header.PixelData = pixels
        header.PhotometricInterpretation = _YBR[0]


def check_count(header: Dataset) -> None:
    """
    Raises:
        Problem: there are more pixels than the header's sizes and number of frames need, and not only zeros.
    """
    frames, syntax = int(header.get("NumberOfFrames") or 1), header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        buffer = BytesIO(header.PixelData)
        parse_basic_offsets(buffer)
        found = sum(
            syntax == RLELossless or part.startswith((_JPEG, _JPEG_2000, _JP2)) for part in generate_fragments(buffer)
        )
        if found > frames:
            raise Problem(f"holds more images than its header says (NumberOfFrames){_ADVICE}")
        return
    pixel = header.SamplesPerPixel * header.BitsAllocated  # bits
    needed = (frames * header.Rows * header.Columns * pixel + 7) // 8
    if header.PhotometricInterpretation == "YBR_FULL_422":
        needed = needed * 2 // 3
    rest = header.PixelData[needed:]
    # Some programs fill up the end: with zeros (DICOM PS3.5, 8.1.1), or with less than a row or a column.
    if len(rest) >= max(2, min(header.Rows, header.Columns) * pixel // 8) and rest.strip(b"\0"):
        raise Problem(f"holds more pixels than its header says (Rows, Columns, NumberOfFrames, BitsAllocated){_ADVICE}")


def check_frame(header: Dataset, frame: int) -> None:
    """
    Raises:
        Problem: a compressed frame says other things of its pixels than the header does.
    """
    syntax, kind = header.file_meta.TransferSyntaxUID, header.PhotometricInterpretation
    mixes = kind in ("YBR_ICT", "YBR_RCT")
    if mixes and syntax not in JPEG2000TransferSyntaxes:
        raise Problem(f"has colours of JPEG 2000 (PhotometricInterpretation), which it is not{_ADVICE}")
    if not syntax.is_encapsulated or (stream := _stream_of(header, frame)) is None:
        return
    said = int(header.Rows), int(header.Columns), int(header.SamplesPerPixel)
    if said != stream[:3]:
        names = "Rows, Columns, SamplesPerPixel"
        raise Problem(f"has compressed pixels of other sizes than its header says ({names}){_ADVICE}")
    signed = syntax in _UNSIGNED and header.PixelRepresentation == 1
    fewer = syntax == JPEGLSNearLossless and stream.bits < header.BitsStored  # of more, all may be unused
    if signed or fewer or (syntax in _UNSIGNED and stream.bits != header.BitsStored):
        names = "BitsStored, PixelRepresentation"
        raise Problem(f"has compressed pixels of other bits than its header says ({names}){_ADVICE}")
    is_rgb = stream.adobe == 0 or stream.mixed  # as decoders give it; JPEG 2000 does not know 4:2:2
    if (mixes and not stream.mixed) or (kind in _YBR and (is_rgb or (stream.mixed is False and kind == _YBR[1]))):
        raise Problem(
            f"has compressed pixels of other colours than its header says (PhotometricInterpretation){_ADVICE}"
        )


def _streams(header: Dataset) -> Iterator[_Stream | None]:
    """As `_stream_of` of one frame after the other, in one go through the file; ends where frames are damaged."""
    with suppress(ValueError):
        yield from map(_stream, generate_frames(header.PixelData, **_division(header)))


def _stream_of(header: Dataset, frame: int) -> _Stream | None:
    with suppress(ValueError):
        return _stream(get_frame(header.PixelData, frame, **_division(header)))
    return None


def _division(header: Dataset) -> dict[str, Any]:
    """What pydicom needs to know to divide pixels into frames."""
    tables = [header.get(name) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    offsets = (tables[0], tables[1]) if all(tables) else None
    return {"number_of_frames": int(header.get("NumberOfFrames") or 1), "extended_offsets": offsets}


def _stream(content: bytes) -> _Stream | None:
    """None where a frame is not in a JPEG format, or its beginning is damaged: the decoder says so."""
    begins = max(content.find(_JPEG_2000, 0, 2**16), 0)
    place, stream, adobe = begins + 2, None, None
    try:
        while True:
            marker, length = struct.unpack_from(">HH", content, place)
            if marker in _FRAME_HEADERS and content.startswith(_JPEG):
                bits, height, width, samples = struct.unpack_from(">BHHB", content, place + 4)
                stream = _Stream(height, width, samples, bits)
            if marker == 0xFFEE and length >= _ADOBE_LENGTH and content[place + 4 : place + 9] == b"Adobe":
                adobe = content[place + 15]
            if marker in (_SCAN, _JPEG_LS) and stream is not None:  # Adobe's mark may be anywhere before a scan
                return stream._replace(adobe=adobe)
            if marker == 0xFF51:
                right, bottom, left, top = struct.unpack_from(">4I", content, place + 6)
                samples, bits = struct.unpack_from(">HB", content, place + 38)
                stream = _Stream(bottom - top, right - left, samples, (bits & 127) + 1)
            if marker == 0xFF52 and stream is not None:
                return stream._replace(mixed=bool(content[place + 8]))
            place += 1 if marker == 0xFFFF else 2 + length  # any number of bytes of 255 begins a mark
    except (struct.error, IndexError):
        return None
