"""Stored values to shades, against the closed forms of DICOM PS3.3 C.11."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import Array, error, header, pixels, save, table
from gankit import ImageSpec
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gankit_dicom import Dicom


def closed_form(x: Array, c: float, w: float, function: str, top: int) -> Array:
    """Value by value, as C.11.2.1.2.1 (linear), C.11.2.1.3.2 (linear exact) and C.11.2.1.3.1 (sigmoid) are written."""

    def shade(value: float) -> float:
        if function == "sigmoid":
            return top / (1 + np.exp(min(-4 * (value - c) / w, 700)))
        if function == "linear":
            if value <= c - 0.5 - (w - 1) / 2:
                return 0
            return top if value > c - 0.5 + (w - 1) / 2 else ((value - (c - 0.5)) / (w - 1) + 0.5) * top
        if value <= c - w / 2:
            return 0
        return top if value > c + w / 2 else ((value - c) / w + 0.5) * top

    return np.array([shade(float(value)) for value in x.reshape(-1)]).reshape(x.shape).round()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("function", ["linear", "linear-exact", "sigmoid"])
@pytest.mark.parametrize(
    ("centre", "width"), [(2048.0, 4096.0), (100.0, 51.0), (300.5, 1.0), (0.0, 700.0), (-50.0, 99.5)]
)
def test_windows(tmp_path: Path, bits: int, function: str, centre: float, width: float) -> None:
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    expected = closed_form(stored, centre, width, function, 2**bits - 1)
    named = function.upper().replace("-", "_")
    save(tmp_path / "a", stored, BitsStored=12, WindowCenter=centre, WindowWidth=width, VOILUTFunction=named)
    own = Dicom(path=tmp_path, bits=bits)
    given = Dicom(path=tmp_path, bits=bits, window=(centre, width), function=function)
    for data in (own, given):
        assert data.image == ImageSpec(1, 64, 64)
        assert data.dtype == data.images.dtype == np.dtype(f"uint{bits}")
        assert data.value_range == (0, 2**bits - 1)
        np.testing.assert_array_equal(data.images[0, 0], expected)


def test_a_given_window_is_linear_and_the_first_of_several_is_taken(tmp_path: Path) -> None:
    stored = pixels(6, 6, high=4095, dtype="uint16")
    save(
        tmp_path / "a", stored, BitsStored=12, WindowCenter=[1000, 50], WindowWidth=[500, 10], VOILUTFunction="SIGMOID"
    )
    np.testing.assert_array_equal(Dicom(path=tmp_path).images[0, 0], closed_form(stored, 1000, 500, "sigmoid", 65535))
    for window, function, expected in [("file", "linear", (1000, 500)), ((70.0, 90.0), None, (70, 90))]:
        data = Dicom(path=tmp_path, window=window, function=function)
        np.testing.assert_array_equal(data.images[0, 0], closed_form(stored, *expected, "linear", 65535))


def test_rescaling_comes_before_the_window(tmp_path: Path) -> None:
    stored = pixels(8, 8, low=-2048, high=2047, dtype="int16")
    save(
        tmp_path / "a",
        stored,
        BitsStored=12,
        RescaleSlope="2.5",
        RescaleIntercept="-1024",
        WindowCenter=40,
        WindowWidth=400,
    )
    units = stored * 2.5 - 1024
    np.testing.assert_array_equal(Dicom(path=tmp_path).images[0, 0], closed_form(units, 40, 400, "linear", 65535))
    data = Dicom(path=tmp_path, window=(-600, 1500), bits=8)
    np.testing.assert_array_equal(data.images[0, 0], closed_form(units, -600, 1500, "linear", 255))


def test_without_a_window_the_full_range_is_shown(tmp_path: Path) -> None:
    stored = pixels(8, 8, low=-2048, high=2047, dtype="int16")
    expected = ((stored.astype(float) + 2048) * 65535 / 4095).round()
    save(tmp_path / "a", stored, BitsStored=12)
    for window in ("file", "full"):
        images = Dicom(path=tmp_path, window=window).images
        np.testing.assert_array_equal(images[0, 0], expected)
    assert len(np.unique(images)) == len(np.unique(stored))  # nothing is lost
    save(tmp_path / "a", stored, BitsStored=12, WindowCenter=0, WindowWidth=10, RescaleSlope=-3, RescaleIntercept=7)
    np.testing.assert_array_equal(Dicom(path=tmp_path, window="full").images[0, 0], 65535 - expected)


def test_sixteen_bits_signed(tmp_path: Path) -> None:
    stored = np.array([[-32768, -1], [0, 32767]], np.int16)
    save(tmp_path / "a", stored)
    np.testing.assert_array_equal(Dicom(path=tmp_path).images[0, 0], [[0, 32767], [32768, 65535]])


@pytest.mark.parametrize("signed", [False, True])
def test_unused_bits_do_not_count(tmp_path: Path, signed: bool) -> None:
    stored = pixels(
        5, 5, low=-512 if signed else 0, high=511 if signed else 1023, dtype="int16" if signed else "uint16"
    )
    save(tmp_path / "clean" / "a", stored, BitsStored=10)
    with_overlay = (stored.view(np.uint16) & 1023) | (pixels(5, 5, high=63, seed=1).astype(np.uint16) << 10)
    save(tmp_path / "overlay" / "a", with_overlay.view(stored.dtype), BitsStored=10)
    clean, overlay = (Dicom(path=tmp_path / name).images for name in ("clean", "overlay"))
    np.testing.assert_array_equal(clean, overlay)
    assert (clean.min(), clean.max()) == (0, 65535)


@pytest.mark.parametrize("window", ["file", "full", (30.0, 50.0)])
def test_monochrome1_is_inverted(tmp_path: Path, window: str | tuple[float, float]) -> None:
    stored = pixels(9, 9)
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        save(tmp_path / kind / "a", stored, PhotometricInterpretation=kind, WindowCenter=100, WindowWidth=60)
    dark, bright = (Dicom(path=tmp_path / f"MONOCHROME{i}", window=window).images.astype(int) for i in (1, 2))
    assert dark.max() == bright.max() == 255
    # Half a shade is rounded away from the same side in both.
    assert np.abs(dark + bright - 255).max() <= 1


def test_bits_are_those_of_the_deepest_file(tmp_path: Path) -> None:
    save(tmp_path / "a", pixels(4, 4), WindowCenter=10, WindowWidth=10)
    assert Dicom(path=tmp_path).dtype == np.uint8
    save(tmp_path / "b", pixels(4, 4, high=1023, dtype="uint16"), BitsStored=10, WindowCenter=10, WindowWidth=10)
    assert Dicom(path=tmp_path).images.dtype == np.uint16


@pytest.mark.parametrize("bits", [8, 12])
def test_tables_of_values_and_of_shades(tmp_path: Path, bits: int) -> None:
    """Table entries of 8 bits at more than 256 places, too."""
    draw = np.random.default_rng(0)
    stored = pixels(16, 16, high=1023, dtype="uint16")
    values, shades = draw.permutation(1000).astype(np.uint16), draw.integers(0, 2**bits, 900, dtype=np.uint16)
    save(
        tmp_path / "a", stored, BitsStored=10,
        ModalityLUTSequence=Sequence([table(values, 10, first=20)]),
        VOILUTSequence=Sequence([table(shades, bits, first=50)]),
    )  # fmt: skip
    modality = values[(stored.astype(int) - 20).clip(0, 999)]
    expected = (shades[(modality.astype(int) - 50).clip(0, 899)] * (65535 / (2**bits - 1))).round()
    np.testing.assert_array_equal(Dicom(path=tmp_path).images[0, 0], expected)
    full = Dicom(path=tmp_path, window="full")
    np.testing.assert_array_equal(full.images[0, 0], (modality * (65535 / 1023)).round())


def test_two_entries_of_a_table_may_share_a_word(tmp_path: Path) -> None:
    shades = pixels(256)
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, 8])
    item.add_new("LUTData", "OW", shades.tobytes())
    stored = pixels(7, 7, seed=2)
    save(tmp_path / "a", stored, VOILUTSequence=Sequence([item]))
    np.testing.assert_array_equal(Dicom(path=tmp_path).images[0, 0], shades[stored])
    item.LUTDescriptor = [600, 0, 8]
    save(tmp_path / "a", stored, VOILUTSequence=Sequence([item]))
    assert error(lambda: Dicom(path=tmp_path).image).startswith("a has a lookup table that is cut off")


def test_enhanced_files_have_a_window_a_frame(tmp_path: Path) -> None:
    stored = pixels(2, 6, 6, high=4095, dtype="uint16")

    def item(**values: float) -> Sequence:
        made = Dataset()
        for name, value in values.items():
            setattr(made, name, value)
        return Sequence([made])

    made = header(stored, BitsStored=12)
    common, frames = Dataset(), [Dataset(), Dataset()]
    common.PixelValueTransformationSequence = item(RescaleSlope=2, RescaleIntercept=-100)
    for i, frame in enumerate(frames):
        frame.FrameVOILUTSequence = item(WindowCenter=1000 + 1000 * i, WindowWidth=600)
    made.SharedFunctionalGroupsSequence = Sequence([common])
    made.PerFrameFunctionalGroupsSequence = Sequence(frames)
    made.save_as(tmp_path / "a", enforce_file_format=True)
    images = Dicom(path=tmp_path).images
    for i in range(2):
        expected = closed_form(stored[i] * 2.0 - 100, 1000 + 1000 * i, 600, "linear", 65535)
        np.testing.assert_array_equal(images[i, 0], expected)


def test_black_and_white_must_mean_the_same(tmp_path: Path) -> None:
    save(tmp_path / "a", pixels(4, 4, high=1023, dtype="uint16"), BitsStored=10)
    save(tmp_path / "b", pixels(4, 4, high=4095, dtype="uint16"), BitsStored=12)
    text = error(lambda: Dicom(path=tmp_path).image)
    assert text.startswith("b can hold another range of values than a")
    assert "window = [centre, width]" in text
    assert Dicom(path=tmp_path, window=(500, 100)).images.shape == (2, 1, 4, 4)
    save(tmp_path / "b", pixels(4, 4, high=1023, dtype="uint16"), BitsStored=10, WindowCenter=5, WindowWidth=3)
    assert error(lambda: Dicom(path=tmp_path).image).startswith("a has no window of its own, and b has one")
    assert Dicom(path=tmp_path, window="full").images.shape == (2, 1, 4, 4)


def test_windows_that_are_none(tmp_path: Path) -> None:
    for window, function in [
        ((5, 0.5), None),
        ((5, 0), "sigmoid"),
        ((float("nan"), 5), None),
        ((5, float("inf")), "linear"),
    ]:
        assert "must be a centre and a width" in error(
            lambda w=window, f=function: Dicom(path=tmp_path, window=w, function=f)
        )
    assert "function shapes a window" in error(lambda: Dicom(path=tmp_path, window="full", function="sigmoid"))
    save(tmp_path / "a", pixels(4, 4), WindowCenter=5, WindowWidth=0)
    assert error(lambda: Dicom(path=tmp_path).images) == "a has an invalid window; set window = [centre, width]"
    save(tmp_path / "a", pixels(4, 4), WindowCenter=5, WindowWidth=9, VOILUTFunction="CUBIC")
    assert "a has a window of a function that the standard does not know" in error(lambda: Dicom(path=tmp_path).image)
    save(tmp_path / "a", pixels(4, 4), RescaleSlope=0, RescaleIntercept=9)
    assert "a has a rescaling that leaves nothing" in error(lambda: Dicom(path=tmp_path).image)
    save(tmp_path / "a", pixels(4, 4), WindowCenter=None, WindowWidth=None)
    np.testing.assert_array_equal(Dicom(path=tmp_path).images[0, 0], pixels(4, 4))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("intercept", [-1024, 0, 40000])
@pytest.mark.parametrize("converted", [False, True], ids=["as written", "by a converter that takes it for unsigned"])
def test_tables_in_every_transfer_syntax(
    tmp_path: Path, syntax: UID, signed: bool, intercept: int, converted: bool
) -> None:
    """The first mapped value is signed where the rescaled values may be negative, whatever the stored ones are."""
    low, high = (-2048, 2047) if signed else (0, 4095)
    stored = pixels(16, 16, low=low, high=high, dtype="int16" if signed else "uint16")
    first = low + intercept
    shades = np.linspace(0, 65535, 4096).round().astype(np.uint16)
    item = Dataset()
    kind = "SS" if first < 0 and not converted else "US"
    item.add_new("LUTDescriptor", kind, [4096, first % 2**16 if converted else first, 16])
    item.add_new("LUTData", "OW", shades.tobytes())
    save(
        tmp_path / "a", stored, BitsStored=12, TransferSyntaxUID=syntax, RescaleSlope=1, RescaleIntercept=intercept,
        VOILUTSequence=Sequence([item]),
    )  # fmt: skip
    np.testing.assert_array_equal(Dicom(path=tmp_path).images[0, 0], shades[stored.astype(int) - low])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("signed", [False, True])
def test_modality_tables_go_by_the_stored_values(tmp_path: Path, syntax: UID, signed: bool) -> None:
    low, high = (-2048, 2047) if signed else (0, 4095)
    stored = pixels(16, 16, low=low, high=high, dtype="int16" if signed else "uint16")
    values = np.random.default_rng(0).permutation(4096).astype(np.uint16)
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [4096, low, 16])
    item.add_new("LUTData", "OW", values.tobytes())
    save(tmp_path / "a", stored, BitsStored=12, TransferSyntaxUID=syntax, ModalityLUTSequence=Sequence([item]))
    np.testing.assert_array_equal(Dicom(path=tmp_path).images[0, 0], values[stored.astype(int) - low])


@pytest.mark.parametrize(
    ("tags", "slope", "intercept"),
    [({"RescaleIntercept": -1024}, 1, -1024), ({"RescaleSlope": 2}, 2, 0), ({"RescaleSlope": None}, 1, 0)],
)
def test_half_a_rescaling(tmp_path: Path, tags: dict[str, Any], slope: float, intercept: float) -> None:
    stored = pixels(6, 6, high=4095, dtype="uint16")
    save(tmp_path / "a", stored, BitsStored=12, **tags)
    images = Dicom(path=tmp_path, window=(40.0, 400.0)).images
    np.testing.assert_array_equal(
        images[0, 0], closed_form(stored.astype(float) * slope + intercept, 40, 400, "linear", 65535)
    )


@pytest.mark.parametrize("tags", [{"WindowCenter": 5}, {"WindowWidth": 5}, {"WindowCenter": 5, "WindowWidth": ""}])
def test_half_a_window_is_none(tmp_path: Path, tags: dict[str, Any]) -> None:
    save(tmp_path / "a", pixels(4, 4), **tags)
    assert error(lambda: Dicom(path=tmp_path).image) == "a has an invalid window; set window = [centre, width]"
    assert Dicom(path=tmp_path, window=(40.0, 400.0)).images.shape == (1, 1, 4, 4)


def test_the_advice_on_an_unknown_function_helps(tmp_path: Path) -> None:
    save(tmp_path / "a", pixels(4, 4), WindowCenter=5, WindowWidth=9, VOILUTFunction="CUBIC")
    for settings in ({"window": (40.0, 400.0)}, {"function": "linear"}, {"window": "full"}):
        assert Dicom(path=tmp_path, **settings).images.shape == (1, 1, 4, 4)


@pytest.mark.parametrize("tags", [{"RescaleSlope": 1e308}, {"RescaleIntercept": 1e300}])
def test_rescalings_that_leave_nothing(tmp_path: Path, tags: dict[str, Any]) -> None:
    save(tmp_path / "a", pixels(4, 4), **tags)
    assert error(lambda: Dicom(path=tmp_path).image).startswith("a has a rescaling that leaves nothing")


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", ["file", "full", (30.0, 50.0)])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_padding_is_black(tmp_path: Path, kind: str, window: str | tuple[float, float], syntax: UID) -> None:
    inside = pixels(8, 8, low=-1000, high=1000, dtype="int16")
    padded = np.pad(inside, 2, constant_values=-2000)
    padded[0] = -1995
    same: dict[str, Any] = {
        "PhotometricInterpretation": kind, "WindowCenter": -1500, "WindowWidth": 4000, "TransferSyntaxUID": syntax,
    }  # fmt: skip
    save(tmp_path / "inside" / "a", inside, **same)
    save(tmp_path / "padded" / "a", padded, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990, **same)
    image = Dicom(path=tmp_path / "padded", window=window).images[0, 0]
    np.testing.assert_array_equal(image[2:-2, 2:-2], Dicom(path=tmp_path / "inside", window=window).images[0, 0])
    image[2:-2, 2:-2] = 0
    assert not image.any()


def test_padding_of_another_sign_is_understood_and_of_other_bits_refused(tmp_path: Path) -> None:
    for dtype, value, stored in [("int16", 63536, -2000), ("uint16", -2000, 63536)]:
        made = header(np.array([[stored, 100]], dtype), WindowCenter=0, WindowWidth=200000)
        made.add_new("PixelPaddingValue", "US" if value > 0 else "SS", value)
        made.save_as(tmp_path / "a", enforce_file_format=True)
        image = Dicom(path=tmp_path).images[0, 0, 0]
        assert image[0] == 0 < image[1]
    save(tmp_path / "a", pixels(4, 4, dtype="uint16"), BitsStored=12, PixelPaddingValue=63536)
    text = "has padding of a value that its pixels cannot hold"
    assert text in error(lambda: Dicom(path=tmp_path).image)


@pytest.mark.parametrize(
    "name", ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"]
)
def test_pixels_that_are_not_square_are_told(tmp_path: Path, name: str) -> None:
    save(tmp_path / "a", pixels(4, 4), **{name: [2, 2]})
    save(tmp_path / "b", pixels(4, 4))
    assert Dicom(path=tmp_path).remarks == []
    save(tmp_path / "b", pixels(4, 4), **{name: [2, 1]})
    (line,) = Dicom(path=tmp_path).remarks
    assert line.startswith("the pixels of 1 of 2 files (b first) are not square")


def test_pixels_of_a_frame_that_are_not_square_are_told(tmp_path: Path) -> None:
    def group(sides: list[float]) -> Dataset:
        made, measures = Dataset(), Dataset()
        measures.PixelSpacing = sides
        made.PixelMeasuresSequence = [measures]
        return made

    save(tmp_path / "a", pixels(2, 4, 4), PerFrameFunctionalGroupsSequence=[group([1, 1]), group([1, 1.005])])
    assert Dicom(path=tmp_path).remarks == []
    save(tmp_path / "a", pixels(2, 4, 4), PerFrameFunctionalGroupsSequence=[group([1, 1]), group([1, 2])])
    assert len(Dicom(path=tmp_path).remarks) == 1
