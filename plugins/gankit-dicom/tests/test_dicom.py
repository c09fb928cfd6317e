"""Which files are images, of what kind, and what is known of them."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import error, header, palette, pixels, save
from gankit import ImageSpec
from gankit.images.resizing import resized
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    UID,
    BasicTextSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)  # fmt: skip

from gankit_dicom import Dicom


class TestFiles:
    def test_with_and_without_suffix_at_any_depth(self, tmp_path: Path) -> None:
        names = ["IM0001", "a.dcm", "b.DCM", "s/t/1.2.840.5", "s/u.ima"]
        for i, name in enumerate(names):
            save(tmp_path / name, np.full((4, 5), i, np.uint8))
        data = Dicom(path=tmp_path, sub_folders="ignore")
        assert data.image == ImageSpec(1, 4, 5)
        np.testing.assert_array_equal(data.images, np.stack([np.full((1, 4, 5), i) for i in range(5)]))
        assert (len(data), data.labels, data.agreement, data.class_names) == (5, None, None, ())
        assert (dict(data.facts), dict(data.splits)) == ({}, {})

    def test_one_line_says_what_is_left_out(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        save(tmp_path / "a", pixels(4, 4))
        save(tmp_path / ".hidden", pixels(9, 9))
        (tmp_path / "notes.txt").write_text("beside")
        data = Dicom(path=tmp_path)
        assert data.image
        assert caplog.text == ""
        report = header(pixels(4, 4))
        report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = BasicTextSRStorage
        for name in ("Rows", "Columns", "PixelData"):
            delattr(report, name)
        report.save_as(tmp_path / "report.dcm", enforce_file_format=True)
        save(tmp_path / "DICOMDIR", pixels(4, 4))
        (tmp_path / "viewer.exe").write_bytes(b"MZ" * 100)
        (tmp_path / "empty").write_bytes(b"")
        data = Dicom(path=tmp_path)
        assert len(data) == len(data.images) == 1
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage() == (
            f"{tmp_path}: 1 DICOM files are read; left out: 1 DICOMDIR, 2 not DICOM, 1 DICOM without an image"
        )

    def test_links_are_followed_once(self, tmp_path: Path) -> None:
        save(tmp_path / "data" / "s" / "a", pixels(4, 4))
        save(tmp_path / "elsewhere" / "b", pixels(4, 4))
        (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "data" / "s" / "up").symlink_to(tmp_path / "data")
        data = Dicom(path=tmp_path / "data", sub_folders="ignore")
        assert len(data) == 2

    def test_folders_without_images(self, tmp_path: Path) -> None:
        assert error(lambda: Dicom(path=tmp_path).image).endswith("holds no DICOM images; check path")
        (tmp_path / "a.png").write_bytes(b"x")
        assert error(lambda: len(Dicom(path=tmp_path))).endswith("holds no DICOM images (1 not DICOM); check path")
        assert "does not exist; set path" in error(lambda: Dicom(path=tmp_path / "none").labels)
        assert "is a file, not a folder" in error(lambda: Dicom(path=tmp_path / "a.png").labels)

    @pytest.mark.parametrize(
        "content", [b"", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 300, b"junk" * 90]
    )
    def test_broken_files(self, tmp_path: Path, content: bytes) -> None:
        save(tmp_path / "a.dcm", pixels(4, 4))
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / "b.dcm").write_bytes(content)
        text = error(lambda: Dicom(path=tmp_path, sub_folders="ignore").image)
        assert text.startswith("s/b.dcm has the suffix or the mark of DICOM and cannot be read as an image")

    def test_all_damaged_files_are_named(self, tmp_path: Path) -> None:
        for name in "abcd":
            save(tmp_path / f"{name}.dcm", pixels(32, 32))
        data = Dicom(path=tmp_path, size=(16, 16))
        assert data.stored_sizes == {(32, 32)}
        for name in "bd":
            (tmp_path / f"{name}.dcm").write_bytes((tmp_path / f"{name}.dcm").read_bytes()[:-300])
        text = error(lambda: Dicom(path=tmp_path).images)
        assert text.startswith("b.dcm has pixels that cannot be decoded")
        assert text.endswith("; 2 of 4 pictures have a problem: b.dcm, d.dcm")
        for name in "ac":
            (tmp_path / f"{name}.dcm").write_bytes(bytes(128) + b"DICMcut")
        assert error(lambda: Dicom(path=tmp_path).image).endswith("; 2 of 4 pictures have a problem: a.dcm, c.dcm")

    def test_a_header_that_is_cut_off(self, tmp_path: Path) -> None:
        made = header(pixels(4, 4))
        for name in ("Rows", "Columns", "PixelData"):
            delattr(made, name)
        made.save_as(tmp_path / "a", enforce_file_format=True)
        assert error(lambda: Dicom(path=tmp_path).image).startswith("a has the suffix or the mark of DICOM")

    def test_pixels_that_are_cut_off(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.dcm", pixels(32, 32))
        path.write_bytes(path.read_bytes()[:-300])
        data = Dicom(path=tmp_path)
        assert data.image == ImageSpec(1, 32, 32)
        assert error(lambda: data.images).startswith("a.dcm has pixels that cannot be decoded")
        assert error(lambda: data.read(np.array([0]))).startswith("a.dcm has pixels that cannot be decoded")
        made = header(pixels(8, 8))
        del made.PixelData
        made.save_as(path, enforce_file_format=True)
        assert error(lambda: Dicom(path=tmp_path).images) == "a.dcm has no pixels; replace it or take it out"

    @pytest.mark.parametrize(
        ("tags", "reason"),
        [
            ({"BitsStored": 9}, "has a header whose sizes"),
            ({"BitsStored": None}, "has a header whose sizes"),
            ({"SamplesPerPixel": 3}, "has a header whose sizes"),
            ({"PhotometricInterpretation": "HSV"}, "has colours of a kind that cannot be read"),
            ({"HighBit": 5}, "keeps its values in the upper bits"),
            ({"TransferSyntaxUID": MPEG2MPML}, "is video"),
        ],
    )
    def test_headers_that_cannot_be_read(self, tmp_path: Path, tags: dict[str, object], reason: str) -> None:
        made = header(pixels(4, 4))
        for name, value in tags.items():
            setattr(made.file_meta if name in made.file_meta else made, name, value)
        if "TransferSyntaxUID" in tags:
            made.PixelData = encapsulate([b"video!"])
            made["PixelData"].is_undefined_length = True
        made.save_as(tmp_path / "a", enforce_file_format=True)
        assert error(lambda: Dicom(path=tmp_path).image).startswith(f"a {reason}")

    def test_sizes_differ(self, tmp_path: Path) -> None:
        small, large = pixels(8, 8), pixels(20, 12, seed=1)
        save(tmp_path / "a", small)
        save(tmp_path / "b", large)
        text = error(lambda: Dicom(path=tmp_path).image)
        assert text.startswith("b is 20 x 12 pixels (height x width) where a is 8 x 8; ")
        for fit in ("crop", "pad", "stretch"):
            images = Dicom((10, 6), path=tmp_path, fit=fit).images
            np.testing.assert_array_equal(images, np.stack([resized(i[None], (10, 6), fit) for i in (small, large)]))

    def test_lazy(self, tmp_path: Path, cache: Path) -> None:
        for i in range(3):
            save(tmp_path / str(i), pixels(6, 6, seed=i))
        data = Dicom(path=tmp_path)
        rows = data.read(np.array([2, 0, 2]))
        assert "images" not in vars(data)
        np.testing.assert_array_equal(rows, data.images[[2, 0, 2]])
        assert not any(cache.rglob("*.npy"))
        (tmp_path / "1").write_bytes(b"")
        np.testing.assert_array_equal(data.read(np.array([1])), data.images[[1]])

    def test_cached_until_a_file_or_a_setting_changes(self, tmp_path: Path, cache: Path) -> None:
        path = save(tmp_path / "a", pixels(2, 6, 6))

        def files(**settings: object) -> int:
            images = Dicom(path=tmp_path, in_memory=False, **settings).images
            assert isinstance(images, np.memmap)
            return len(list(cache.rglob("*.npy")))

        assert [files(), files(), files(window=(9, 9)), files(frames="first"), files(bits=16)] == [1, 1, 2, 3, 4]
        os.utime(path, (1, 1))
        assert files() == 5
        assert all(file.name.startswith("dicom-") for file in cache.rglob("*.npy"))

    def test_the_digest_is_of_the_pixels_alone(self, tmp_path: Path) -> None:
        digests = []
        for i, value in enumerate([5, 5, 6]):
            save(tmp_path / str(i) / f"{i}", np.full((4, 4), value, np.uint8), PatientName=f"N{i}")
            digests.append(Dicom(path=tmp_path / str(i)).digest())
        assert digests[0] == digests[1] != digests[2]


class TestColours:
    def test_rgb(self, tmp_path: Path) -> None:
        array = pixels(6, 4, 3)
        save(tmp_path / "a", array, PhotometricInterpretation="RGB", WindowCenter=3, WindowWidth=2)
        data = Dicom(path=tmp_path)
        assert data.image == ImageSpec(3, 6, 4)
        np.testing.assert_array_equal(data.images[0], array.transpose(2, 0, 1))
        np.testing.assert_array_equal(Dicom(path=tmp_path, bits=16).images, data.images.astype(int) * 257)
        grey = Dicom(path=tmp_path, grey=True)
        assert grey.image.channels == 1
        np.testing.assert_array_equal(grey.images[0, 0], (array @ [0.299, 0.587, 0.114]).round())

    def test_deep_rgb_by_plane(self, tmp_path: Path) -> None:
        array = pixels(6, 4, 3, high=4095, dtype="uint16")
        planes = np.ascontiguousarray(array.transpose(2, 0, 1)).tobytes()
        save(
            tmp_path / "a",
            array,
            PhotometricInterpretation="RGB",
            BitsStored=12,
            PlanarConfiguration=1,
            PixelData=planes,
        )
        expected = (array.transpose(2, 0, 1) * (65535 / 4095)).round()
        np.testing.assert_array_equal(Dicom(path=tmp_path).images[0], expected)

    @pytest.mark.parametrize("kind", ["YBR_FULL", "YBR_FULL_422"])
    def test_luminance_and_chrominance(self, tmp_path: Path, kind: str) -> None:
        array = np.repeat(pixels(6, 2, 3, low=40, high=210), 2, axis=1)
        y, cb, cr = (array[..., i].astype(float) for i in range(3))
        rgb = np.stack(
            [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
        )
        stored = array
        if kind == "YBR_FULL_422":  # Y1 Y2 Cb Cr for each two pixels
            stored = np.stack([array[:, ::2, 0], array[:, 1::2, 0], array[:, ::2, 1], array[:, ::2, 2]], axis=-1)
        save(tmp_path / "a", array, PhotometricInterpretation=kind, PixelData=stored.tobytes())
        data = Dicom(path=tmp_path)
        assert data.image == ImageSpec(3, 6, 4)
        assert np.abs(data.images[0] - rgb.clip(0, 255)).max() <= 1

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_palette(self, tmp_path: Path, dtype: str) -> None:
        """More places than 8 bits count, too."""
        places = 256 if dtype == "uint8" else 1000
        largest = np.iinfo(dtype).max
        colours = {
            name: pixels(places, high=largest, seed=i, dtype=dtype) for i, name in enumerate(["red", "green", "blue"])
        }
        stored = pixels(6, 5, high=places - 1, dtype="uint16")
        save(tmp_path / "a", stored, PhotometricInterpretation="PALETTE COLOR", **palette(**colours))
        data = Dicom(path=tmp_path)
        assert (data.image, data.dtype) == (ImageSpec(3, 6, 5), np.dtype(dtype))
        np.testing.assert_array_equal(data.images[0], np.stack([entries[stored] for entries in colours.values()]))

    def test_palette_of_8_bits_with_a_thousand_places(self, tmp_path: Path) -> None:
        colours = {name: pixels(1000, seed=i) for i, name in enumerate(["red", "green", "blue"])}
        stored = pixels(6, 5, high=999, dtype="uint16")
        save(tmp_path / "a", stored, PhotometricInterpretation="PALETTE COLOR", **palette(**colours))
        np.testing.assert_array_equal(
            Dicom(path=tmp_path).images[0], np.stack([entries[stored] for entries in colours.values()])
        )

    def test_palette_in_segments(self, tmp_path: Path) -> None:
        stored = pixels(6, 5, high=3)
        colours = {name: pixels(4, seed=i) for i, name in enumerate(["Red", "Green", "Blue"])}
        tags = {f"Segmented{n}PaletteColorLookupTableData": b"\0\4" + e.tobytes() for n, e in colours.items()}
        tags |= {f"{n}PaletteColorLookupTableDescriptor": [4, 0, 8] for n in colours}
        save(tmp_path / "a", stored, PhotometricInterpretation="PALETTE COLOR", **tags)
        np.testing.assert_array_equal(
            Dicom(path=tmp_path).images[0], np.stack([entries[stored] for entries in colours.values()])
        )
        tags |= {f"{n}PaletteColorLookupTableDescriptor": [400, 0, 8] for n in colours}
        save(tmp_path / "a", stored, PhotometricInterpretation="PALETTE COLOR", **tags)
        assert error(lambda: Dicom(path=tmp_path).images).startswith("a has a palette in segments that cannot be read")

    def test_grey_and_colour_do_not_mix_unasked(self, tmp_path: Path) -> None:
        save(tmp_path / "a", pixels(4, 4))
        save(tmp_path / "b", pixels(4, 4, 3), PhotometricInterpretation="RGB")
        text = error(lambda: Dicom(path=tmp_path).image)
        assert text.startswith("b is colour where a is grey; set grey = true")
        assert Dicom(path=tmp_path, grey=True).images.shape == (2, 1, 4, 4)
        coloured = Dicom(path=tmp_path, grey=False)
        assert coloured.image == ImageSpec(3, 4, 4)
        np.testing.assert_array_equal(coloured.images[0], np.stack([pixels(4, 4)] * 3))


class TestStorage:
    @pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
    def test_transfer_syntaxes(self, tmp_path: Path, syntax: str) -> None:
        stored = pixels(6, 6, high=4095, dtype="uint16")
        filled = stored | 2**15  # a bit that is not used
        made = header(filled, BitsStored=12)
        if syntax == RLELossless:
            made.compress(RLELossless, encoding_plugin="pydicom")
        else:
            made.file_meta.TransferSyntaxUID = syntax
            if syntax == ExplicitVRBigEndian:
                made.PixelData = filled.astype(">u2").tobytes()
        made.save_as(tmp_path / "a", enforce_file_format=True)
        np.testing.assert_array_equal(Dicom(path=tmp_path).images[0, 0], (stored * (65535 / 4095)).round())

    @pytest.mark.parametrize(
        ("syntax", "packages"),
        [(JPEGLossless, "pylibjpeg pylibjpeg-libjpeg"), (JPEGLSLossless, "pylibjpeg pylibjpeg-libjpeg")],
    )
    def test_a_decoder_is_missing(
        self, tmp_path: Path, syntax: str, packages: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", property(lambda self: False))
        made = header(pixels(4, 4), TransferSyntaxUID=syntax, PixelData=encapsulate([b"packed"]))
        made["PixelData"].is_undefined_length = True
        (tmp_path / "s").mkdir()
        made.save_as(tmp_path / "s" / "a", enforce_file_format=True)
        text = error(lambda: Dicom(path=tmp_path).image)
        assert text.startswith("s/a is compressed (JPEG")
        assert text.endswith(f"no decoder of it is installed: pip install {packages}")

    @pytest.mark.parametrize(
        ("syntax", "more"),
        [(JPEGBaseline8Bit, "pylibjpeg-libjpeg"), (JPEG2000Lossless, "pylibjpeg-openjpeg"), (RLELossless, None)],
    )
    def test_compressed_pixels_that_are_damaged(self, tmp_path: Path, syntax: str, more: str | None) -> None:
        made = header(pixels(4, 4), TransferSyntaxUID=syntax, PixelData=encapsulate([b"damage"]))
        made["PixelData"].is_undefined_length = True
        made.save_as(tmp_path / "a", enforce_file_format=True)
        text = error(lambda: Dicom(path=tmp_path).images)
        assert text.startswith("a has pixels that cannot be decoded")
        assert ("pip install" in text) == (more is not None)
        assert more is None or more in text

    @pytest.mark.parametrize(
        ("array", "tags", "message"),
        [
            (
                pixels(4, 4),
                {"PresentationLUTShape": "INVERSE"},
                "a has a PhotometricInterpretation and a PresentationLUTShape that contradict",
            ),
            (
                pixels(4, 4),
                {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
                "a has a PhotometricInterpretation and a PresentationLUTShape that contradict",
            ),
            (pixels(4, 4), {"PixelPresentation": "MIXED"}, "a has colours beside its grey values"),
            (pixels(4, 4), {"PixelPresentation": "COLOR"}, "a has colours beside its grey values"),
            (
                pixels(4, 4, 3),
                {"PhotometricInterpretation": "RGB", "PixelRepresentation": 1},
                "a has a header whose sizes, bits and colours do not fit each other",
            ),
            (pixels(4, 4).astype(np.uint32), {}, "a can hold values of 32 bits, of which 16 would be left; set window"),
        ],
    )
    def test_values_that_would_mean_something_else(
        self, tmp_path: Path, array: np.ndarray, tags: dict[str, Any], message: str
    ) -> None:
        save(tmp_path / "a", array, **tags)
        assert error(lambda: Dicom(path=tmp_path).images).startswith(message)

    def test_deep_values_have_a_window(self, tmp_path: Path) -> None:
        save(tmp_path / "a", np.array([[0, 2**31]], np.uint32))
        assert Dicom(path=tmp_path, window=(2**30, 2**31)).images[0, 0].tolist() == [[0, 65535]]

    @pytest.mark.parametrize("beyond", [False, True])
    def test_compressed_values_beyond_their_bits(self, tmp_path: Path, beyond: bool) -> None:
        stored = pixels(32, 32, high=4095, dtype="uint16")
        content = io.BytesIO()
        Image.fromarray(stored | (2**15 if beyond else 0)).save(content, "jpeg2000", no_jp2=True)
        made = header(stored, BitsStored=12, TransferSyntaxUID=JPEG2000Lossless)
        made.PixelData = encapsulate([content.getvalue()])
        made["PixelData"].is_undefined_length = True
        made.save_as(tmp_path / "a", enforce_file_format=True)
        if beyond:
            assert error(lambda: Dicom(path=tmp_path).images).startswith("a holds values that its bits (BitsStored)")
        else:
            np.testing.assert_array_equal(Dicom(path=tmp_path).images[0, 0], (stored * (65535 / 4095)).round())

    def test_jpeg(self, tmp_path: Path) -> None:
        array = np.kron(np.array([[20, 200], [120, 60]], np.uint8), np.ones((8, 8), np.uint8))
        content = io.BytesIO()
        Image.fromarray(array).save(content, "jpeg", quality=95)
        made = header(array, TransferSyntaxUID=JPEGBaseline8Bit, PixelData=encapsulate([content.getvalue()]))
        made["PixelData"].is_undefined_length = True
        made.save_as(tmp_path / "a", enforce_file_format=True)
        assert np.abs(Dicom(path=tmp_path).images[0, 0].astype(int) - array).max() <= 2


class TestFrames:
    def test_each_frame_is_an_image(self, tmp_path: Path) -> None:
        cine, single = pixels(4, 6, 5), pixels(6, 5, seed=1)
        save(tmp_path / "b" / "cine", cine, PatientID="1")
        save(tmp_path / "a" / "still", single, PatientID="1")
        data = Dicom(path=tmp_path)
        assert data.image == ImageSpec(1, 6, 5, classes=2)
        assert len(data) == 5
        np.testing.assert_array_equal(data.images, np.concatenate([single[None], cine])[:, None])
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 1, 1, 1]
        assert data.groups.tolist() == [0] * 5
        np.testing.assert_array_equal(data.read(np.array([3, 0, 4, 2])), data.images[[3, 0, 4, 2]])

    @pytest.mark.parametrize(("frames", "which"), [("first", 0), ("middle", 2)])
    def test_one_frame_a_file(self, tmp_path: Path, frames: str, which: int) -> None:
        cine = pixels(5, 6, 6, 3)
        save(tmp_path / "a", cine, PhotometricInterpretation="RGB")
        data = Dicom(path=tmp_path, frames=frames)
        assert len(data) == 1
        np.testing.assert_array_equal(data.images[0], cine[which].transpose(2, 0, 1))

    def test_rows_of_the_table_are_files(self, tmp_path: Path) -> None:
        save(tmp_path / "a", pixels(2, 4, 4))
        save(tmp_path / "b.dcm", pixels(4, 4))
        (tmp_path / "labels.csv").write_text("file,votes,split,age,note\nb.dcm,x;x;y,test,3,n\na,y;y,train,5,m\n")
        data = Dicom(path=tmp_path)
        assert data.class_names == ("x", "y")
        assert data.labels is not None
        assert data.agreement is not None
        assert data.labels.tolist() == [0, 1, 1]
        assert data.agreement.tolist() == pytest.approx([2 / 3, 1, 1])
        assert {name: places.tolist() for name, places in data.splits.items()} == {"test": [0], "train": [1, 2]}
        assert data.facts["age"].tolist() == [3, 5, 5]
        assert data.facts["note"].tolist() == ["n", "m", "m"]
        np.testing.assert_array_equal(data.images[0, 0], pixels(4, 4))


class TestTable:
    def test_as_in_folder(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            save(tmp_path / "scans" / name, pixels(4, 4))
        table = tmp_path / "calls.csv"
        table.write_text("file,label\na,x\n")
        folder = tmp_path / "scans"
        assert "no row for 1 of 2 images, b first" in error(lambda: Dicom(path=folder, table=table).labels)
        assert len(Dicom(path=folder, table=table, unlisted="skip")) == 1
        assert "there is no CSV file none.csv" in error(lambda: Dicom(path=folder, table="none.csv").labels)
        table.write_text("file,label\na,x\nbb,x\n")
        assert "line 3 names 'bb', and there is no such image" in error(lambda: Dicom(path=folder, table=table).labels)

    def test_files_that_are_not_listed_may_be_unreadable(self, tmp_path: Path) -> None:
        save(tmp_path / "a", pixels(4, 4))
        save(tmp_path / "b", pixels(4, 4), HighBit=3)
        (tmp_path / "labels.csv").write_text("file,label\na,x\n")
        assert len(Dicom(path=tmp_path, unlisted="skip").images) == 1

    def test_mirror(self, tmp_path: Path) -> None:
        save(tmp_path / "a", pixels(4, 4))
        data = Dicom(path=tmp_path)
        np.testing.assert_array_equal(data.mirror(data.images), data.images[..., ::-1])
        assert Dicom(path=tmp_path, mirror_keeps_label=False).mirror(data.images) is None


@pytest.mark.parametrize("tags", [{"NumberOfFrames": 2**31 - 1}, {"Rows": 65535, "Columns": 65535}])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_sizes_beyond_what_the_file_can_hold(tmp_path: Path, tags: dict[str, Any], syntax: UID) -> None:
    made = header(pixels(8, 8), **tags, TransferSyntaxUID=syntax)
    if syntax == RLELossless:
        made["PixelData"].VR, made["PixelData"].value = "OB", encapsulate([bytes(64)])
        made["PixelData"].is_undefined_length = True
    made.save_as(tmp_path / "a", enforce_file_format=True)
    assert error(lambda: Dicom(path=tmp_path).image).startswith("a has pixels that are cut off")


def test_files_that_unpack_to_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a", np.zeros((2000, 2000), np.uint8), TransferSyntaxUID=DeflatedExplicitVRLittleEndian)
    assert Dicom(path=tmp_path).images.max() == 0
    monkeypatch.setattr("gankit_dicom._header._LARGEST", 2**20)
    assert error(lambda: Dicom(path=tmp_path).image).startswith("a unpacks to more than 1 MB")


@pytest.mark.parametrize(
    "now", [pixels(8, 8), pixels(1, 16), pixels(16, 16, 3), pixels(2, 16, 16), pixels(16, 16, dtype="uint16")],
    ids=lambda now: "x".join(map(str, now.shape)) + f" {now.dtype}",
)  # fmt: skip
def test_a_file_that_is_replaced_behind_its_header(tmp_path: Path, now: Any) -> None:
    save(tmp_path / "a", pixels(16, 16))
    save(tmp_path / "b", pixels(16, 16, seed=1))
    data = Dicom(path=tmp_path)
    assert data.image.shape == (1, 16, 16)
    save(tmp_path / "b", now, **({"PhotometricInterpretation": "RGB"} if now.shape == (16, 16, 3) else {}))
    assert error(lambda: data.images) == "b has changed since its header was read; make the data set anew"
    np.testing.assert_array_equal(data.read(np.array([0]))[0, 0], pixels(16, 16))
    (tmp_path / "b").unlink()
    assert error(lambda: data.images).startswith("b cannot be read as an image (FileNotFoundError)")
