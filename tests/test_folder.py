"""Pictures in a folder, read without loss: depths, colours, orientation, refusals."""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import error, palette_bmp, palette_png, pixels, save, sixteen_bit_colour_png
from PIL import ExifTags, Image

from gankit import ImageSpec, build, load
from gankit.datasets.folder import Folder
from gankit.experiments.selection import select_images
from gankit.images import decoding, room
from gankit.images.decoding import Decoder, decode_all


class TestFolder:
    def test_plain_pictures(self, tmp_path: Path) -> None:
        arrays = [pixels(6, 9, seed=i) for i in range(3)]
        for i, array in enumerate(arrays):
            save(tmp_path / f"{i}.png", array)
        data = Folder(path=tmp_path)
        assert data.image == ImageSpec(1, 6, 9)
        assert len(data) == 3
        assert data.labels is data.groups is data.agreement is None
        assert (data.class_names, data.facts, data.splits) == ((), {}, {})
        assert data.images.dtype == np.uint8
        np.testing.assert_array_equal(data.images, np.stack(arrays)[:, None])
        assert data.value_range == (0, 255)

    def test_colour_is_channels_first(self, tmp_path: Path) -> None:
        array = pixels(5, 4, 3)
        save(tmp_path / "a.png", array)
        data = Folder(path=tmp_path)
        assert data.image == ImageSpec(3, 5, 4)
        np.testing.assert_array_equal(data.images[0], array.transpose(2, 0, 1))

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
    def test_sixteen_bits_stay(self, tmp_path: Path, suffix: str) -> None:
        array = pixels(7, 5, dtype=np.uint16)
        save(tmp_path / f"a{suffix}", array)
        data = Folder(path=tmp_path)
        assert data.image == ImageSpec(1, 7, 5)
        assert data.images.dtype == np.uint16
        np.testing.assert_array_equal(data.images[0, 0], array)
        assert data.value_range == (0, 65535)
        coloured = Folder(path=tmp_path, grey=False)
        assert coloured.image.channels == 3
        np.testing.assert_array_equal(coloured.images[0], np.stack([array] * 3))

    def test_thirty_two_bit_integers_that_fit_sixteen(self, tmp_path: Path) -> None:
        array = pixels(4, 4, dtype=np.uint16).astype(np.int32)
        save(tmp_path / "a.tif", array)
        np.testing.assert_array_equal(Folder(path=tmp_path).images[0, 0], array)
        save(tmp_path / "a.tif", array + 40000)
        assert "outside 16 bits" in error(lambda: Folder(path=tmp_path).images)

    def test_header_and_pixels_agree(self, tmp_path: Path) -> None:
        for name, mode in [("1", "1"), ("p", "P"), ("l", "L"), ("rgb", "RGB"), ("cmyk", "CMYK")]:
            folder = tmp_path / name
            folder.mkdir()
            Image.fromarray(pixels(6, 4, 3)).convert(mode).save(folder / ("a.tif" if mode == "CMYK" else "a.png"))
            data = Folder(path=folder)
            assert data.images.shape[1:] == data.image.shape
            assert data.image.channels == (1 if mode in "1L" else 3)

    def test_inks_of_a_jpeg_need_the_mark_that_says_which_way_they_go(self, tmp_path: Path) -> None:
        save(tmp_path / "rgb.png", np.full((16, 16, 3), 40, np.uint8))
        Image.open(tmp_path / "rgb.png").convert("CMYK").save(tmp_path / "a.jpg", quality=95)
        (tmp_path / "rgb.png").unlink()
        content = (tmp_path / "a.jpg").read_bytes()
        assert np.abs(Folder(path=tmp_path).images.astype(int) - 40).max() < 6
        start = content.index(b"\xff\xee")  # Adobe's segment, with its length behind the mark
        length = 2 + int.from_bytes(content[start + 2 : start + 4], "big")
        (tmp_path / "a.jpg").write_bytes(content[:start] + content[start + length :])
        assert "does not say whether 0 is no ink or all" in error(lambda: Folder(path=tmp_path).images)

    def test_palette_keeps_its_colours(self, tmp_path: Path) -> None:
        array = np.repeat(np.repeat(pixels(2, 2, 3), 3, 0), 3, 1)
        picture = Image.fromarray(array).convert("P", palette=Image.Palette.ADAPTIVE)
        picture.save(tmp_path / "a.png")
        np.testing.assert_array_equal(Folder(path=tmp_path).images[0], array.transpose(2, 0, 1))

    @pytest.mark.parametrize("suffix", [".png", ".bmp"])
    @pytest.mark.parametrize(("bits", "row"), [(8, [0, 1, 2, 1]), (8, [0, 1, 1, 200]), (4, [0x01, 0x21])])
    def test_pixels_beyond_a_short_palette_are_refused(
        self, tmp_path: Path, suffix: str, bits: int, row: list[int]
    ) -> None:
        write = palette_png if suffix == ".png" else palette_bmp
        path = tmp_path / f"a{suffix}"
        path.write_bytes(write([(255, 0, 0), (0, 255, 0)], bits, bytes(row)))
        expected = f"{path} has pixels of a colour beyond its palette of 2; save it as RGB"
        assert error(lambda: Folder(path=tmp_path).images) == expected
        path.write_bytes(write([(255, 0, 0), (0, 255, 0)], bits, bytes([0, 1, 1, 0] if bits == 8 else [0x01, 0x10])))
        assert Folder(path=tmp_path).images[0, :, 0].T.tolist() == [[255, 0, 0], [0, 255, 0], [0, 255, 0], [255, 0, 0]]

    def test_every_suffix_in_any_letter_case(self, tmp_path: Path) -> None:
        for i, suffix in enumerate([".png", ".JPG", ".jpeg", ".Tif", ".tiff", ".bmp", ".WebP"]):
            save(tmp_path / f"{i}{suffix}", np.full((8, 8, 3), 100, np.uint8))
        data = Folder(path=tmp_path)
        assert len(data) == 7
        assert np.abs(data.images.astype(int) - 100).max() <= 1

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
    @pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 3), (8, 1)])
    def test_orientation_is_applied(self, tmp_path: Path, suffix: str, orientation: int, turn: int) -> None:
        array = np.zeros((16, 8, 3), np.uint8)
        array[:8] = 255
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(tmp_path / f"a{suffix}", array, exif=exif)
        data = Folder(path=tmp_path)
        upright = np.rot90(array, turn)
        assert data.image == ImageSpec(3, *upright.shape[:2])
        assert np.abs(data.images[0].transpose(1, 2, 0).astype(int) - upright).max() < 20

    def test_alpha(self, tmp_path: Path) -> None:
        opaque = pixels(4, 4, 4)
        opaque[..., 3] = 255
        save(tmp_path / "a.png", opaque)
        np.testing.assert_array_equal(Folder(path=tmp_path).images[0], opaque[..., :3].transpose(2, 0, 1))
        opaque[1, 1, 3] = 254
        path = save(tmp_path / "a.png", opaque)
        text = error(lambda: Folder(path=tmp_path).images)
        assert text.startswith(f"{path} is partly transparent")
        assert "without an alpha channel" in text

    def test_transparent_palette_and_grey(self, tmp_path: Path) -> None:
        palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).convert("P")
        palette.save(tmp_path / "a.png", transparency=0)
        assert "partly transparent" in error(lambda: Folder(path=tmp_path).images)
        palette.save(tmp_path / "a.png", transparency=7)
        assert Folder(path=tmp_path).images.shape == (1, 3, 2, 2)
        (tmp_path / "a.png").unlink()
        save(tmp_path / "b.png", np.stack([pixels(3, 3), np.zeros((3, 3), np.uint8)], -1))
        assert "transparent" in error(lambda: Folder(path=tmp_path).images)

    def test_sixteen_bit_colour_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(sixteen_bit_colour_png(pixels(3, 4, 3, dtype=np.uint16)))
        text = error(lambda: Folder(path=tmp_path).image)
        assert "16 bits per channel and colour" in text
        assert "8-bit" in text

    def test_sixteen_bits_a_pixel_is_no_depth(self, tmp_path: Path) -> None:
        red, blue = 0b11111 << 11, 0b11111
        rows = struct.pack("<4H", red, blue, blue, red)
        header = struct.pack("<IiiHHIIiiIIIII", 40, 2, 2, 1, 16, 3, len(rows), 0, 0, 0, 0, 0xF800, 0x7E0, 0x1F)
        start = 14 + len(header)
        (tmp_path / "a.bmp").write_bytes(struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + header + rows)
        image = Folder(path=tmp_path).images[0]
        assert image[:, 0, 0].tolist() == [0, 0, 255]
        assert image[:, 1, 0].tolist() == [255, 0, 0]

    def test_floating_point_is_refused(self, tmp_path: Path) -> None:
        save(tmp_path / "a.tif", np.zeros((3, 3), np.float32))
        assert "a.tif is floating-point" in error(lambda: Folder(path=tmp_path).image)

    def test_many_pages_are_refused(self, tmp_path: Path) -> None:
        frames = [Image.fromarray(pixels(3, 3, seed=i)) for i in range(3)]
        frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
        assert "holds 3 pages or frames" in error(lambda: Folder(path=tmp_path).image)

    def test_mixed_depths_are_refused(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", pixels(4, 4))
        save(tmp_path / "b.png", pixels(4, 4, dtype=np.uint16))
        text = error(lambda: Folder(path=tmp_path).images)
        assert "b.png has 16 bits per channel where" in text
        assert "a.png has 8" in text

    def test_mixed_colour_needs_the_setting(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", pixels(4, 4))
        colour = pixels(4, 4, 3)
        save(tmp_path / "b.png", colour)
        assert "b.png is colour where" in error(lambda: Folder(path=tmp_path).images)
        grey = Folder(path=tmp_path, grey=True)
        assert grey.image.channels == grey.images.shape[1] == 1
        luma = colour @ np.array([0.299, 0.587, 0.114])
        assert np.abs(grey.images[1, 0] - luma).max() <= 1
        assert Folder(path=tmp_path, grey=False).images.shape == (2, 3, 4, 4)

    def test_mixed_sizes_need_a_size(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", pixels(4, 6))
        save(tmp_path / "b.png", pixels(8, 5))
        text = error(lambda: Folder(path=tmp_path).images)
        small, large = tmp_path / "a.png", tmp_path / "b.png"
        assert text == (
            f"pictures have 2 sizes, from 4 x 6 ({small}) to 8 x 5 ({large}), height x width; resize all, as fit says: "
            "data.size=64 for an experiment, {name = ..., size = 64} elsewhere"
        )
        assert error(lambda: Folder(path=tmp_path).stored_sizes) == text
        experiment = load("wgan-gp", "data.name=folder", f"data.path={tmp_path}")
        assert error(lambda: select_images(experiment.data, 0)) == text, "before networks are built for the first size"
        assert error(lambda: load("resnet-small", "data.name=folder", f"data.path={tmp_path}")) == text
        data = Folder((3, 7), path=tmp_path)
        assert data.image == ImageSpec(1, 3, 7)
        assert data.images.shape == (2, 1, 3, 7)

    def test_twelve_bits_in_sixteen(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", pixels(4, 4, dtype=np.uint16) % 4096)
        data = build("dataset", "folder", path=str(tmp_path), value_range=[0, 4095])
        assert data.value_range == (0, 4095)
        assert data.images.max() <= 4095
        save(tmp_path / "a.png", np.full((4, 4), 5000, np.uint16))
        assert "values go from 5000 to 5000, outside value_range = [0, 4095]" in error(
            lambda: Folder(path=tmp_path, value_range=(0, 4095)).images
        )
        assert "black before white" in error(lambda: Folder(path=tmp_path, value_range=(1, 1)))

    def test_memory_mapped_equals_in_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for i in range(4):
            save(tmp_path / f"{i}.png", pixels(12, 10, 3, seed=i))
        within = Folder((6, 8), path=tmp_path)
        mapped = Folder((6, 8), path=tmp_path, in_memory=False)
        assert isinstance(mapped.images, np.memmap)
        np.testing.assert_array_equal(mapped.images, within.images)
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "decode", lambda self: pytest.fail("decoded again"))
            again = Folder((6, 8), path=tmp_path, in_memory=False)
            np.testing.assert_array_equal(again.images, within.images)
        assert Folder((6, 8), path=tmp_path, in_memory=False, fit="pad").cache_key() != mapped.cache_key()
        save(tmp_path / "0.png", pixels(12, 10, 3, seed=9))
        changed = Folder((6, 8), path=tmp_path, in_memory=False)
        np.testing.assert_array_equal(changed.images, Folder((6, 8), path=tmp_path).images)
        assert (changed.images[0] != within.images[0]).any()

    def test_mirror(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png", pixels(3, 4))
        data = Folder(path=tmp_path)
        np.testing.assert_array_equal(data.mirror(data.images), data.images[..., ::-1])
        assert Folder(path=tmp_path, mirror_keeps_label=False).mirror(data.images) is None

    def test_image_reads_one_header(self, tmp_path: Path) -> None:
        save(tmp_path / "a" / "a.png", pixels(3, 4))
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "b.png").write_bytes(b"not a picture")
        data = Folder(path=tmp_path)
        assert data.image == ImageSpec(1, 3, 4, classes=2)
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1]
        assert "b.png cannot be read (no PNG, JPEG, TIFF, BMP, WEBP that Pillow can read)" in error(lambda: data.images)

    def test_truncated_picture(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", pixels(40, 40))
        path.write_bytes(path.read_bytes()[:700])
        assert error(lambda: Folder(path=tmp_path).images).startswith(f"{path} cannot be decoded")

    def test_too_little_memory_for_a_picture(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any) -> None:
            raise MemoryError

        save(tmp_path / "a.png", pixels(4, 4))
        monkeypatch.setattr("gankit.images.decoding.Decoder._decode_8_bit", fail)
        assert "(MemoryError); free some memory, or replace it" in error(lambda: Folder(path=tmp_path).images)

    @pytest.mark.parametrize("form", ["GIF", "EPS", "PPM", "ICNS"])
    def test_only_documented_formats_are_opened(self, tmp_path: Path, form: str) -> None:
        Image.fromarray(pixels(32, 32, 3)).save(tmp_path / "a.png", form)
        assert "a.png cannot be read (no PNG, JPEG," in error(lambda: Folder(path=tmp_path).image)

    def test_pictures_that_fill_the_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save(tmp_path / "a.png", pixels(40, 40))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
        assert Folder(path=tmp_path).images.shape == (1, 1, 40, 40)
        for limit in (1000, 500):  # Pillow warns up to twice the limit, and fails above
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
            assert "million pixels, PIL.Image.MAX_IMAGE_PIXELS" in error(lambda: Folder(path=tmp_path).images)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
        save(tmp_path / "a.png", pixels(40, 40), format="WEBP")  # whose reader takes twice as much
        assert "or than half as many in a WebP file" in error(lambda: Folder(path=tmp_path).images)

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is limited")
    @pytest.mark.parametrize("mode", ["RGBA", "I;16", "P"])
    def test_a_large_picture_takes_less_than_ten_bytes_a_pixel(self, tmp_path: Path, mode: str) -> None:
        import resource

        side, stored = 3000, np.uint16 if mode == "I;16" else np.uint8
        image = Image.fromarray((np.arange(side * side) % 251).reshape(side, side).astype(stored))
        exif = image.getexif()
        exif[ExifTags.Base.Orientation] = 6
        image = image if image.mode == mode else image.convert(mode)
        image.save(tmp_path / "a.png", exif=exif, compress_level=1)
        del image
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        try:
            resource.setrlimit(resource.RLIMIT_AS, (now + 10 * side * side, limits[1]))
            images = Folder(path=tmp_path, size=(40, 40), in_memory=True).images
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        assert images.shape[2:] == (40, 40)

    def test_threads_together_hold_no_more_pixels_than_the_largest_picture(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now, most, lock = [0], [0], threading.Lock()

        class Watching(Decoder):
            def stored(self, picture: Image.Image, where: str) -> Any:
                with lock:
                    now[0] += picture.width * picture.height
                    most[0] = max(most[0], now[0])
                time.sleep(0.01)
                with lock:
                    now[0] -= picture.width * picture.height
                return super().stored(picture, where)

        sides = [4, 10, 9, 3, 9, 12, 2, 5, 9, 9]
        monkeypatch.setattr(room, "AT_ONCE", 100)
        names = [str(side) for side in sides]
        images = decode_all(names, lambda i: Image.new("L", (sides[i], sides[i]), i), Watching((2, 2)), threads=4)
        assert images[:, 0, 0, 0].tolist() == list(range(10))
        assert most[0] == 144, "one that is larger than the limit is decoded alone"

    @pytest.mark.parametrize("kind", ["pipe", "link"])
    @pytest.mark.parametrize("name", ["a.png", "labels.csv"])
    def test_what_is_no_file_is_not_opened(self, tmp_path: Path, kind: str, name: str) -> None:
        save(tmp_path / "b.png", pixels(4, 4))
        if kind == "pipe":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).symlink_to("/dev/zero")
        assert f"{name} is not an ordinary file" in error(lambda: Folder(path=tmp_path).images)

    def test_missing_empty_and_foreign(self, tmp_path: Path) -> None:
        assert "does not exist; set path" in error(lambda: Folder(path=tmp_path / "none").image)
        advice = (
            f"does not exist in {Path.cwd()}; go to the folder that holds it, or set path to the folder of the pictures"
        )
        assert advice in error(lambda: Folder(path="none here").image)
        assert "holds no pictures (png, jpg," in error(lambda: len(Folder(path=tmp_path)))
        for name in ("notes.txt", "data.json", "README.md", ".DS_Store", ".git/config", "Thumbs.db"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("")
        save(tmp_path / "a.png", pixels(3, 3))
        assert len(Folder(path=tmp_path)) == 1
        (tmp_path / "scan.DCM").write_bytes(b"")
        (tmp_path / "other.dcm").write_bytes(b"")
        text = error(lambda: Folder(path=tmp_path).image)
        assert "(2 .dcm; " in text
        assert "other.dcm first)" in text
        assert "is a file, not a folder" in error(lambda: Folder(path=tmp_path / "a.png").image)
        (tmp_path / "photos.zip").touch()
        assert "is a file, not a folder; unpack it, and set path" in error(
            lambda: Folder(path=tmp_path / "photos.zip").image
        )

    def test_many_pictures(self, tmp_path: Path) -> None:
        for i in range(decoding.NO_PROGRESS_BAR + 3):
            save(tmp_path / f"{i:04}.bmp", np.full((2, 2), i % 256, np.uint8))
        assert (Folder(path=tmp_path).images[:, 0, 0, 0] == np.arange(decoding.NO_PROGRESS_BAR + 3) % 256).all()
