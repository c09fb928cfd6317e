"""Headers that contradict the pixels: honoured as the standard says, or refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import Array, error, header
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, JPEGLSNearLossless, RLELossless

from gankit_dicom import Dicom


def smooth(*shape: int, top: int = 255) -> Array:
    """(h, w) or (h, w, 3) values that JPEG keeps well."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    values = np.stack([(3 * x + 2 * y + 40 * i) % top for i in range(shape[2] if len(shape) > 2 else 1)], axis=-1)
    return values.squeeze(-1).astype(np.uint8) if len(shape) == 2 else values.astype(np.uint8)


def jpeg(array: Array, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, "JPEG", quality=98, subsampling=0, **options)
    return content.getvalue()


def jpeg_2000(array: Array, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(array).save(content, "JPEG2000", no_jp2=True, irreversible=False, **options)
    return content.getvalue()


def packed(array: Array, syntax: str, streams: list[bytes], **tags: Any) -> Dataset:
    made = header(array, **tags)
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate(streams)
    made["PixelData"].is_undefined_length = True
    made["PixelData"].VR = "OB"
    return made


def run_lengths(array: Array, **tags: Any) -> Dataset:
    made = header(array, **tags)
    made.compress(RLELossless, encoding_plugin="pydicom")
    return made


def images(folder: Path, made: Dataset, **tags: Any) -> Array:
    for name, value in tags.items():
        setattr(made, name, value)
    made.save_as(folder / "a", enforce_file_format=True)
    return Dicom(path=folder).images


def refusal(folder: Path, made: Dataset, **tags: Any) -> str:
    return error(lambda: images(folder, made, **tags))


WRONG = [(8, 32), (32, 8), (4, 64), (15, 16), (16, 15), (17, 16), (16, 17), (8, 16), (8, 8)]
FORMATS = [(JPEGBaseline8Bit, jpeg), (JPEG2000Lossless, jpeg_2000)]


@pytest.mark.parametrize(("syntax", "write"), FORMATS, ids=["JPEG", "JPEG 2000"])
class TestCompressed:
    def test_sizes(self, tmp_path: Path, syntax: str, write: Any) -> None:
        array = smooth(16, 16)
        assert np.abs(images(tmp_path, packed(array, syntax, [write(array)]))[0, 0].astype(int) - array).max() <= 3
        for rows, columns in WRONG:
            text = refusal(tmp_path, packed(array, syntax, [write(array)]), Rows=rows, Columns=columns)
            assert text.startswith("a has compressed pixels of other sizes than its header says"), (rows, columns)

    def test_samples(self, tmp_path: Path, syntax: str, write: Any) -> None:
        other = "a has compressed pixels of other sizes"
        assert refusal(tmp_path, packed(smooth(16, 16), syntax, [write(smooth(16, 16, 3))])).startswith(other)
        coloured = packed(smooth(8, 8, 3), syntax, [write(smooth(8, 24))], PhotometricInterpretation="RGB")
        assert refusal(tmp_path, coloured).startswith(other)

    def test_frames(self, tmp_path: Path, syntax: str, write: Any) -> None:
        frames = np.stack([smooth(16, 16) // 2 + 20 * i for i in range(3)]).astype(np.uint8)
        streams = [write(frame) for frame in frames]
        assert np.abs(images(tmp_path, packed(frames, syntax, streams)).astype(int) - frames[:, None]).max() <= 3
        for count in (1, 2):
            text = refusal(tmp_path, packed(frames, syntax, streams), NumberOfFrames=count)
            assert text.startswith("a holds more images than its header says (NumberOfFrames)")
        assert "cannot be decoded" in refusal(tmp_path, packed(frames, syntax, streams), NumberOfFrames=4)

    def test_a_frame_in_parts_and_an_extended_table(self, tmp_path: Path, syntax: str, write: Any) -> None:
        array = smooth(16, 16)
        made = packed(array, syntax, [write(array)])
        made.PixelData = encapsulate([write(array)], fragments_per_frame=3)
        assert np.abs(images(tmp_path, made)[0, 0].astype(int) - array).max() <= 3
        frames = np.stack([array // 2, array])
        made = packed(frames, syntax, [write(frame) for frame in frames])
        parts = encapsulate_extended([write(frame) for frame in frames])
        made.PixelData, made.ExtendedOffsetTable, made.ExtendedOffsetTableLengths = parts
        assert np.abs(images(tmp_path, made).astype(int) - frames[:, None]).max() <= 3
        assert "other sizes" in refusal(tmp_path, made, Rows=8, Columns=32)


@pytest.mark.parametrize("tags", [{"BitsStored": 6, "HighBit": 5}, {"PixelRepresentation": 1}])
def test_bits_of_lossy_jpeg(tmp_path: Path, tags: dict[str, int]) -> None:
    text = refusal(tmp_path, packed(smooth(16, 16), JPEGBaseline8Bit, [jpeg(smooth(16, 16))]), **tags)
    assert text.startswith("a has compressed pixels of other bits than its header says")


@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("mark", [b"JFIF", b"Adobe"])
def test_colours_of_jpeg(tmp_path: Path, kind: str, mark: bytes) -> None:
    """The components are YCbCr; the file says so too, by either mark, and the header may say that decoders give RGB."""
    array, stream = smooth(16, 16, 3), jpeg(smooth(16, 16, 3))
    if mark == b"Adobe":
        stream = b"\xff\xd8\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1" + stream[20:]
    assert mark in stream
    made = packed(array, JPEGBaseline8Bit, [stream], PhotometricInterpretation=kind)
    assert np.abs(images(tmp_path, made)[0].transpose(1, 2, 0).astype(int) - array).max() <= 6


def test_colours_that_contradict_jpeg(tmp_path: Path) -> None:
    array, stream = smooth(16, 16, 3), jpeg(smooth(16, 16, 3), keep_rgb=True)
    assert b"Adobe" in stream
    made = packed(array, JPEGBaseline8Bit, [stream], PhotometricInterpretation="RGB")
    assert np.abs(images(tmp_path, made)[0].transpose(1, 2, 0).astype(int) - array).max() <= 6
    for kind in ("YBR_FULL", "YBR_FULL_422"):
        assert refusal(tmp_path, made, PhotometricInterpretation=kind).startswith("a has compressed pixels of other c")
    for syntax in (JPEGBaseline8Bit, RLELossless):
        made = run_lengths(array, PhotometricInterpretation="RGB") if syntax == RLELossless else made
        for kind in ("YBR_ICT", "YBR_RCT"):
            text = refusal(tmp_path, made, PhotometricInterpretation=kind)
            assert text.startswith("a has colours of JPEG 2000 (PhotometricInterpretation), which it is not")


@pytest.mark.parametrize("mixed", [False, True])
def test_colours_of_jpeg_2000(tmp_path: Path, mixed: bool) -> None:
    array = smooth(16, 16, 3)
    made = packed(array, JPEG2000Lossless, [jpeg_2000(array, mct=int(mixed))], PhotometricInterpretation="RGB")
    np.testing.assert_array_equal(images(tmp_path, made)[0].transpose(1, 2, 0), array)  # RGB once it is decoded
    for kind in ("YBR_RCT", "YBR_ICT"):
        if mixed:
            np.testing.assert_array_equal(
                images(tmp_path, made, PhotometricInterpretation=kind)[0].transpose(1, 2, 0), array
            )
        else:
            assert "of other colours" in refusal(tmp_path, made, PhotometricInterpretation=kind)
    assert "of other colours" in refusal(tmp_path, made, PhotometricInterpretation="YBR_FULL_422")
    if mixed:
        assert "of other colours" in refusal(tmp_path, made, PhotometricInterpretation="YBR_FULL")


@pytest.mark.parametrize("kind", ["8 bits", "16 bits", "RGB"])
def test_sizes_of_run_lengths(tmp_path: Path, kind: str) -> None:
    array = smooth(16, 16, 3) if kind == "RGB" else smooth(16, 16).astype("uint16" if kind == "16 bits" else "uint8")
    tags = {"PhotometricInterpretation": "RGB"} if kind == "RGB" else {}
    kept = images(tmp_path, run_lengths(array, **tags))[0].transpose(1, 2, 0).squeeze()
    np.testing.assert_array_equal(kept, array)
    for rows, columns in [(15, 16), (16, 15), (17, 16), (8, 16), (8, 8)]:
        text = refusal(tmp_path, run_lengths(array, **tags), Rows=rows, Columns=columns)
        assert text.startswith("a has pixels that cannot be decoded"), (rows, columns)


def test_frames_of_run_lengths_and_a_byte_that_fills_up(tmp_path: Path) -> None:
    frames = np.stack([smooth(5, 5) + i for i in range(3)]).astype(np.uint8)
    np.testing.assert_array_equal(images(tmp_path, run_lengths(frames))[:, 0], frames)
    for count in (1, 2):
        assert "(NumberOfFrames)" in refusal(tmp_path, run_lengths(frames), NumberOfFrames=count)
    literal = bytes([24]) + frames[0].tobytes() + bytes([0, 0])  # 25 pixels, and a zero
    stream = np.array([1, 64, *[0] * 14], "<u4").tobytes() + literal
    np.testing.assert_array_equal(images(tmp_path, packed(frames[0], RLELossless, [stream]))[0, 0], frames[0])


def test_pixels_that_are_not_compressed(tmp_path: Path) -> None:
    array = smooth(16, 16)
    more = "a holds more pixels than its header says"
    for tags in ({"Rows": 15}, {"Columns": 15}, {"Rows": 8}, {"Rows": 8, "Columns": 8}):
        assert refusal(tmp_path, header(array), **tags).startswith(more), tags
    frames = np.stack([array, array])
    assert refusal(tmp_path, header(frames), NumberOfFrames=1).startswith(more)
    assert refusal(tmp_path, header(array.astype("uint16")), BitsAllocated=8, BitsStored=8, HighBit=7).startswith(more)
    coloured = header(smooth(16, 16, 3), PhotometricInterpretation="RGB")
    assert refusal(tmp_path, coloured, PhotometricInterpretation="MONOCHROME2", SamplesPerPixel=1).startswith(more)
    whole = header(smooth(16, 16, 3), PhotometricInterpretation="YBR_FULL")
    assert refusal(tmp_path, whole, PhotometricInterpretation="YBR_FULL_422").startswith(more)
    for filling in (b"", bytes(14)):
        kept = images(tmp_path, header(array), PixelData=array.tobytes() + filling)
        np.testing.assert_array_equal(kept[0, 0], array)


def jpeg_ls(height: int, width: int, samples: int, bits: int) -> bytes:
    """The beginning of a JPEG-LS frame, with a mark before it and bytes of 255 between; no pixels."""
    begin = b"\xff\xd8\xff\xe8\0\4ab\xff\xff\xf7\0" + bytes([8 + 3 * samples, bits])
    sizes = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return begin + sizes + bytes([samples]) + bytes(3 * samples) + bytes(200)


@pytest.mark.parametrize(
    ("syntax", "said", "reason"),
    [
        (JPEGLSLossless, (8, 32, 1, 8), "of other sizes"),
        (JPEGLSLossless, (16, 16, 3, 8), "of other sizes"),
        (JPEGLSNearLossless, (16, 16, 1, 12), "of other bits"),
        (JPEGLSNearLossless, (16, 16, 1, 8), "that cannot be decoded"),
        (JPEGLSLossless, (16, 16, 1, 12), "that cannot be decoded"),
    ],
)
def test_what_jpeg_ls_says(
    tmp_path: Path, syntax: str, said: tuple[int, int, int, int], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits reaches the decoder, which finds no pixels."""
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", property(lambda self: True))
    assert reason in refusal(tmp_path, packed(smooth(16, 16), syntax, [jpeg_ls(*said)]))
