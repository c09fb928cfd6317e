"""Headers that contradict the pixels: honoured as the standard says, or refused."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import Array, error, header, pixels
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, encapsulate_extended, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, JPEGLSNearLossless, RLELossless

from gankit_dicom import Dicom
from gankit_dicom._guard import Problem
from gankit_dicom._stream import check_count, check_frame


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


def shipped(folder: Path, name: str) -> Path:
    """A folder with one of the files that come with pydicom."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    (folder / name).mkdir()
    shutil.copy(path, folder / name / "a")
    return folder / name


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


def with_mark(stream: bytes, place: str = "first", filling: bytes = b"") -> bytes:
    """JPEG with Adobe's mark of YCbCr in place of JFIF's: first of all, or behind the frame header; maybe longer."""
    segment = b"\xff\xee\0" + bytes([14 + len(filling)]) + b"Adobe\0\x64\0\0\0\0\1" + filling
    stream, at = b"\xff\xd8" + stream[20:], 2
    while place == "late" and stream[at : at + 2] != b"\xff\xda":
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return stream[:at] + segment + stream[at:]


@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("mark", ["JFIF", "first", "late", "longer"])
def test_colours_of_jpeg(tmp_path: Path, kind: str, mark: str) -> None:
    """The components are YCbCr; the file says so too, by either mark, and the header may say that decoders give RGB."""
    array, stream = smooth(16, 16, 3), jpeg(smooth(16, 16, 3))
    if mark != "JFIF":
        stream = with_mark(stream, mark, b"ab" if mark == "longer" else b"")
    made = packed(array, JPEGBaseline8Bit, [stream], PhotometricInterpretation=kind)
    assert np.abs(images(tmp_path, made)[0].transpose(1, 2, 0).astype(int) - array).max() <= 6


def test_frames_of_which_some_have_adobes_mark(tmp_path: Path) -> None:
    """By a header of YCbCr the others have these colours too; by one of RGB nobody knows."""
    frames = [smooth(16, 16, 3), smooth(16, 16, 3)[::-1]]
    plain, as_rgb = [jpeg(frame) for frame in frames], [jpeg(frame, keep_rgb=True) for frame in frames]
    marked, bare = [with_mark(stream) for stream in plain], [b"\xff\xd8" + stream[20:] for stream in plain]
    some = [[plain[0], marked[1]], [marked[0], plain[1]], [bare[0], marked[1]], [marked[0], bare[1]]]
    for kind in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        for streams in (plain, marked, *some, [marked[0], as_rgb[1]]):
            made = packed(np.stack(frames), JPEGBaseline8Bit, streams, PhotometricInterpretation=kind)
            if streams in (plain, marked) or (streams in some and kind != "RGB"):
                kept = images(tmp_path, made).transpose(0, 2, 3, 1)
                assert np.abs(kept.astype(int) - np.stack(frames)).max() <= 6
                continue
            reason = "frames with Adobe's mark of YCbCr and others without it" if kind == "RGB" else "compressed pixels"
            assert refusal(tmp_path, made).startswith(f"a has {reason}")


def test_marks_are_looked_at_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.stack([smooth(16, 16, 3)] * 9)
    made = packed(frames, JPEGBaseline8Bit, [with_mark(jpeg(frames[0]))] * 9, PhotometricInterpretation="YBR_FULL")
    made.save_as(tmp_path / "a", enforce_file_format=True)
    looked: list[int] = []
    monkeypatch.setattr(
        "gankit_dicom._stream.get_frame",
        lambda content, frame, **options: looked.append(frame) or get_frame(content, frame, **options),
    )
    image = Dicom(path=tmp_path).read(np.array([7]))[0]
    assert np.abs(image.transpose(1, 2, 0).astype(int) - frames[7]).max() <= 6
    assert looked == [7]


def test_colours_beyond_their_bits(tmp_path: Path) -> None:
    array, tags = smooth(16, 16, 3), {"PhotometricInterpretation": "RGB", "BitsStored": 7}
    made = packed(array // 2, JPEG2000Lossless, [jpeg_2000(array // 2, mct=0)], **tags)
    shown = images(tmp_path, made)[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(shown, (array // 2 * (255 / 127)).round())
    text = refusal(tmp_path, packed(array, JPEG2000Lossless, [jpeg_2000(array, mct=0)], **tags))
    assert text.startswith("a holds values that its bits (BitsStored) cannot")


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


@pytest.mark.parametrize("frames", [1, 2])
def test_what_fills_up_pixels_that_are_not_compressed(tmp_path: Path, frames: int) -> None:
    stored = np.stack([smooth(16, 16) + i for i in range(frames)]).astype(np.uint8)
    for filling in (b"", bytes(14), b"\1" * 14, bytes(16), bytes(512)):
        kept = images(tmp_path, header(stored), PixelData=stored.tobytes() + filling)
        np.testing.assert_array_equal(kept[:, 0], stored)
    for filling in (b"\1" * 16, bytes(15) + b"\1", b"\1" + bytes(511)):
        text = refusal(tmp_path, header(stored), PixelData=stored.tobytes() + filling)
        assert text.startswith("a holds more pixels than its header says"), filling


def test_a_black_end_that_nobody_can_tell_from_filling(tmp_path: Path) -> None:
    array = smooth(16, 16)
    array[14:] = 0
    np.testing.assert_array_equal(images(tmp_path, header(array), Rows=14)[0, 0], array[:14])
    np.testing.assert_array_equal(
        images(tmp_path, header(array), Columns=14)[0, 0], array.reshape(-1)[: 16 * 14].reshape(16, 14)
    )
    assert "more pixels" in refusal(tmp_path, header(array), Columns=13)


def test_the_padded_file_of_pydicom(tmp_path: Path) -> None:
    padded, plain = (shipped(tmp_path, name) for name in ("MR_small_padded.dcm", "MR_small.dcm"))
    np.testing.assert_array_equal(Dicom(path=padded, window="full").images, Dicom(path=plain, window="full").images)


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
        (JPEGLSNearLossless, (16, 16, 1, 7), "of other bits"),
        (JPEGLSNearLossless, (16, 16, 1, 12), "that cannot be decoded"),
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


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLSNearLossless])
@pytest.mark.parametrize("sign", [0, 1])
def test_more_bits_of_jpeg_ls_than_are_stored(
    tmp_path: Path, syntax: str, sign: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all values fit they are read, in place of a decoder's; an error of the encoder may take them beyond."""
    low, high = (-512, 511) if sign else (0, 1023)
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", property(lambda self: True))
    array = pixels(16, 16, low=low, high=high, dtype=np.int16 if sign else np.uint16)
    for change in (0, 1, -1 if sign else 1):
        changed = array + np.where(array == (low if change < 0 else high), change, 0).astype(array.dtype)
        monkeypatch.setattr("gankit_dicom._pixels.pixel_array", lambda *_, changed=changed, **__: changed)
        made = packed(array, syntax, [jpeg_ls(16, 16, 1, 12)], BitsStored=10)
        if change == 0:
            kept = images(tmp_path, made)[0, 0]
            np.testing.assert_array_equal(kept, ((array.astype(float) - low) * 65535 / 1023).round())
        else:
            assert refusal(tmp_path, made).startswith("a holds values that its bits (BitsStored) cannot")


JPEG_LS = [
    "MR_small_jpeg_ls_lossless.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm",
    "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm",
]  # fmt: skip


@pytest.mark.parametrize("name", JPEG_LS)
def test_headers_of_real_jpeg_ls(tmp_path: Path, name: str) -> None:
    made = dcmread(shipped(tmp_path, name) / "a")
    check_count(made)
    check_frame(made, 0)
    for tags in ({"Rows": made.Rows + 1}, {"Columns": made.Columns - 1}, {"SamplesPerPixel": 4 - made.SamplesPerPixel}):
        other = dcmread(tmp_path / name / "a")
        other.update(tags)
        with pytest.raises(Problem, match="of other sizes"):
            check_frame(other, 0)


needs_decoder = pytest.mark.skipif(
    not get_decoder(JPEGLSLossless).is_available, reason="needs a decoder of JPEG-LS, such as pyjpegls"
)


@needs_decoder
@pytest.mark.parametrize("name", JPEG_LS)
def test_pixels_of_real_jpeg_ls(tmp_path: Path, name: str) -> None:
    folder = shipped(tmp_path, name)
    stored, made = dcmread(folder / "a").pixel_array.astype(float), dcmread(folder / "a")
    low = -(2**15) if made.PixelRepresentation else 0
    kept = Dicom(path=folder, window="full" if made.SamplesPerPixel == 1 else "file").images[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(kept.squeeze(), stored - low)
    if name.startswith("MR_small"):
        np.testing.assert_array_equal(stored, dcmread(shipped(tmp_path, "MR_small.dcm") / "a").pixel_array)


@needs_decoder
@pytest.mark.parametrize(("syntax", "loss"), [(JPEGLSLossless, 0), (JPEGLSNearLossless, 2)])
def test_bits_of_real_jpeg_ls(tmp_path: Path, syntax: str, loss: int) -> None:
    encode = pytest.importorskip("jpeg_ls").encode_pixel_data
    for high, bits in ((1000, 10), (1023, 10), (1000, 12), (1023, 12)):
        array = pixels(16, 16, high=high, dtype=np.uint16)
        stream = encode(array.tobytes(), loss, rows=16, columns=16, samples_per_pixel=1, bits_allocated=16,
                        bits_stored=bits, photometric_interpretation="MONOCHROME2", pixel_representation=0,
                        planar_configuration=0)  # fmt: skip
        made = packed(array, syntax, [bytes(stream)], BitsStored=10)
        if (high, bits) == (1023, 12) and loss:
            assert refusal(tmp_path, made).startswith("a holds values that its bits (BitsStored) cannot")
        else:
            kept = images(tmp_path, made)[0, 0] * (1023 / 65535)
            assert np.abs(kept - array).max() <= loss + 0.01
