"""Arrays of npz and npy files: layouts, MedMNIST, depths, facts, refusals."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import error, pixels

from gankit import ImageSpec, build
from gankit.datasets.folder import Folder
from gankit.datasets.npz import Npz
from gankit.training.rehearsal import check


class TestNpz:
    def write(self, folder: Path, **arrays: Any) -> Path:
        path = folder / "data.npz"
        np.savez_compressed(path, **arrays)
        return path

    def test_plain(self, tmp_path: Path) -> None:
        images = pixels(6, 4, 5)
        path = self.write(
            tmp_path,
            images=images,
            labels=np.array([0, 1, 2, 1, 0, 2], np.uint8)[:, None],
            groups=np.array([7, 7, 8, 8, 9, 9]),
            agreement=np.array([1, 0.5, 0.25, 1, 1, 1], np.float32),
            class_names=np.array(["u", "v", "w"]),
            severity=np.linspace(0, 1, 6),
            pair=np.zeros((6, 2)),
            eye=np.array(list("lrlrlr")),
            comment=np.array("six images"),
        )
        data = Npz(path=path)
        assert data.image == ImageSpec(1, 4, 5, classes=3)
        assert len(data) == 6
        np.testing.assert_array_equal(data.images, images[:, None])
        assert data.images.dtype == np.uint8
        assert data.value_range == (0, 255)
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 2, 1, 0, 2]
        assert data.labels.dtype == np.int64
        assert data.class_names == ("u", "v", "w")
        assert data.groups is not None
        assert data.groups.tolist() == [7, 7, 8, 8, 9, 9]
        assert data.agreement is not None
        assert data.agreement.dtype == np.float64
        assert set(data.facts) == {"severity", "pair", "eye"}
        assert data.facts["pair"].shape == (6, 2)
        assert data.splits == {}

    def test_medmnist(self, tmp_path: Path) -> None:
        images = pixels(9, 4, 5, 3)
        labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 1])[:, None]
        arrays: dict[str, Any] = {}
        for name, part in (("test", slice(6, 9)), ("train", slice(0, 4)), ("val", slice(4, 6))):
            arrays |= {f"{name}_images": images[part], f"{name}_labels": labels[part], f"{name}_age": labels[part] * 9}
        data = Npz(path=self.write(tmp_path, **arrays))
        assert data.image == ImageSpec(3, 4, 5, classes=2)
        np.testing.assert_array_equal(data.images, images.transpose(0, 3, 1, 2))
        assert data.images.flags.c_contiguous
        assert {name: indices.tolist() for name, indices in data.splits.items()} == {
            "train": [0, 1, 2, 3], "val": [4, 5], "test": [6, 7, 8],
        }  # fmt: skip
        assert data.labels is not None
        np.testing.assert_array_equal(data.labels, labels[:, 0])
        np.testing.assert_array_equal(data.facts["age"], labels[:, 0] * 9)

    @pytest.mark.parametrize(
        ("shape", "channels", "spec"),
        [
            ((2, 5, 6), None, (1, 5, 6)),
            ((2, 5, 6, 1), None, (1, 5, 6)),
            ((2, 5, 6, 3), None, (3, 5, 6)),
            ((2, 3, 5, 6), None, (3, 5, 6)),
            ((2, 1, 5, 6), None, (1, 5, 6)),
            ((2, 5, 6, 4), "last", (4, 5, 6)),
            ((2, 2, 5, 6), "first", (2, 5, 6)),
            ((2, 3, 5, 3), "last", (3, 3, 5)),
            ((2, 3, 5, 3), "first", (3, 5, 3)),
        ],
    )
    def test_layouts(self, tmp_path: Path, shape: tuple[int, ...], channels: Any, spec: tuple[int, int, int]) -> None:
        data = Npz(path=self.write(tmp_path, images=pixels(*shape)), channels=channels)
        assert data.image == ImageSpec(*spec)
        assert data.images.shape == (2, *spec)

    @pytest.mark.parametrize("shape", [(2, 3, 5, 3), (2, 5, 6, 4)])
    def test_unclear_layout(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        path = self.write(tmp_path, images=pixels(*shape))
        assert 'set channels = "first" or channels = "last"' in error(lambda: Npz(path=path).image)

    def test_other_names_and_no_labels(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, scans=pixels(3, 4, 4), grade=np.array([1, 0, 1]))
        data = Npz(path=path, images="scans", labels="grade")
        assert data.labels is not None
        assert data.labels.tolist() == [1, 0, 1]
        assert data.facts == {}
        unlabelled = Npz(path=path, images="scans")
        assert unlabelled.labels is None
        assert unlabelled.image.classes == 0
        assert set(unlabelled.facts) == {"grade"}

    def test_facts_are_read_at_first_use(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        masks = pixels(6, 4, 5, seed=1)
        path = self.write(tmp_path, images=pixels(6, 4, 5), labels=np.arange(6) % 2, masks=masks)
        part = Npz(path=path).subset([4, 1])
        with monkeypatch.context() as patch:
            patch.setattr(Npz, "decode", lambda self: pytest.fail("decoded"))
            assert part.labels is not None
            assert part.labels.tolist() == [0, 1]
            content, before = path.read_bytes(), path.stat()
            path.write_bytes(b"")
            assert list(part.facts) == ["masks"]
            assert "has changed since it was opened" in error(lambda: part.facts["masks"])
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        np.testing.assert_array_equal(part.facts["masks"], masks[[4, 1]])

    @pytest.mark.parametrize("suffix", ["npz", "npy"])
    def test_a_file_that_is_replaced(self, tmp_path: Path, suffix: str) -> None:
        """Its images are of another number, size or type than the data set has said; or only of other values."""
        path = tmp_path / f"data.{suffix}"
        others = (pixels(5, 4, 5), pixels(6, 5, 4), pixels(6, 4, 5, dtype=np.uint16), pixels(6, 4, 5, seed=1))
        for number, other in enumerate(others):
            for now in (pixels(6, 4, 5), other):
                if suffix == "npz":
                    np.savez(path, images=now, labels=np.arange(len(now)) % 2)
                else:
                    np.save(path, now)
                os.utime(path, ns=(0, 2 * number + (now is other)))  # clocks of files may be slow
                if now is not other:
                    data = Npz(path=path)
                    assert data.image.shape == (1, 4, 5)
            text = error(lambda data=data: data.images)
            assert text == f"{path} has changed since it was opened; load it anew"

    def test_the_beginning_says_that_a_file_is_npy(self, tmp_path: Path) -> None:
        """Not what lies behind: the mark of a zip among the pixels, or a whole one, whose sizes nobody has checked."""
        stored, path = pixels(4, 8, 8, 3), tmp_path / "a.npy"
        stored.reshape(-1)[-200:-196] = np.frombuffer(b"PK\5\6", np.uint8)
        np.save(path, stored)
        np.testing.assert_array_equal(Npz(path=path).images, stored.transpose(0, 3, 1, 2))
        other = self.write(tmp_path, images=pixels(50, 8, 8, 3, seed=1))
        path.write_bytes(path.read_bytes() + other.read_bytes())
        np.testing.assert_array_equal(Npz(path=path).images, stored.transpose(0, 3, 1, 2))

    def test_sixteen_bits_and_byte_order(self, tmp_path: Path) -> None:
        images = pixels(3, 4, 4, dtype=np.uint16)
        data = Npz(path=self.write(tmp_path, images=images.astype(">u2")))
        assert data.images.dtype == np.uint16
        assert data.images.dtype.isnative
        np.testing.assert_array_equal(data.images[:, 0], images)
        assert data.value_range == (0, 65535)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
    def test_other_types_need_a_range(self, tmp_path: Path, dtype: Any) -> None:
        images = np.linspace(-1000, 3000, 48).reshape(3, 4, 4).astype(dtype)
        path = self.write(tmp_path, images=images)
        assert "which does not define black and white; set value_range" in error(lambda: Npz(path=path).image)
        data = Npz(path=path, value_range=(-1000, 3000))
        assert data.images.dtype == np.float32
        np.testing.assert_allclose(data.images[:, 0], images, rtol=1e-6)
        assert data.value_range == (-1000, 3000)
        text = error(lambda: Npz(path=path, value_range=(0, 3000)).images)
        assert "values go from -1000 to 3000, outside value_range = [0, 3000]" in text

    def test_not_a_number(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, images=np.full((2, 3, 3), np.nan, np.float32))
        assert "some values are NaN, outside value_range" in error(lambda: Npz(path=path, value_range=(0, 1)).images)
        path = self.write(tmp_path, images=np.zeros((2, 3, 3), bool))
        assert "images are bool" in error(lambda: Npz(path=path).image)

    def test_memory_mapped_equals_in_memory(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, images=pixels(5, 4, 6, 3))
        mapped = Npz(path=path, in_memory=False).images
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, Npz(path=path).images)
        self.write(tmp_path, images=pixels(5, 4, 6, 3, seed=1)[:4])
        assert len(Npz(path=path, in_memory=False).images) == 4

    def test_image_reads_no_pixels(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, images=pixels(5, 40, 40), labels=np.array([0, 1, 0, 1, 0]))
        content = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            content[archive.getinfo("images.npy").header_offset + 400] ^= 255  # reading the pixels fails
        path.write_bytes(content)
        data = Npz(path=path)
        assert data.image == ImageSpec(1, 40, 40, classes=2)
        assert len(data) == 5
        assert "'images' cannot be read" in error(lambda: data.images)

    def test_missing_and_foreign_files(self, tmp_path: Path) -> None:
        assert "there is no file" in error(lambda: Npz(path=tmp_path / "none.npz").image)
        assert "there is no file" in error(lambda: Npz(path=tmp_path / "none.npz", in_memory=False).images)
        assert f"{Path.cwd() / 'none.npz'}; set path" in error(lambda: Npz(path="none.npz").image)
        assert 'is a folder; name = "folder" reads pictures' in error(lambda: Npz(path=tmp_path).image)
        np.save(tmp_path / "a.npy", np.zeros(3))
        assert 'name = "npz" reads such files' in error(lambda: Folder(path=tmp_path / "a.npy").image)
        assert "images must be (n, h, w)" in error(lambda: Npz(path=tmp_path / "a.npy").image)
        (tmp_path / "a.npz").write_text("images")
        assert "is not an npz file that NumPy can read" in error(lambda: Npz(path=tmp_path / "a.npz").image)
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            archive.writestr("x.npy", b"nothing")
        assert "is not an npz file that NumPy can read" in error(lambda: Npz(path=tmp_path / "b.zip").image)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"image": pixels(3, 4, 4), "y": [0, 1, 0]}, "no array 'images'; did you mean 'image'? known: image, y"),
            ({"images": pixels(3, 4)}, "images must be (n, h, w), (n, h, w, c) or (n, c, h, w): (3, 4)"),
            ({"images": pixels(0, 4, 4)}, "no image in it"),
            ({"images": pixels(2, 0, 4)}, "no image in it"),
            ({"images": pixels(3, 4, 4), "labels": [0, 1]}, "'labels' has shape (2,), and there are 3 images"),
            ({"images": pixels(3, 4, 4), "labels": [0.0, 1.5, 0]}, "'labels' are float64, and labels are classes"),
            (
                {"images": pixels(3, 4, 4), "labels": ["a", "b", "a"], "class_names": ["a", "b"]},
                "'labels' are <U1, and labels are classes 0, 1, ... with class_names, or names",
            ),
            ({"images": pixels(3, 4, 4), "labels": ["a", "A", "a"]}, "the classes 'A' and 'a' are one name"),
            ({"images": pixels(3, 4, 4), "labels": ["a", " ", "a"]}, "'labels' has no value for image 1"),
            ({"images": pixels(3, 4, 4), "groups": [np.nan, 1, 2]}, "'groups' has no value for image 0"),
            ({"images": pixels(3, 4, 4), "labels": ["a", "b", "nan"]}, "'labels' has no value for image 2 (nan)"),
            ({"images": pixels(3, 4, 4), "groups": ["a", "<NA>", "b"]}, "'groups' has no value for image 1 (<NA>)"),
            (
                {"images": pixels(3, 4, 4), "groups": ["pe\u0301", "p\u00e9", "q"]},
                r"'groups': 'pe\u0301' and 'p\xe9' look alike, and would be two groups; use one spelling",
            ),
            ({"images": pixels(3, 4, 4), "labels": [[0, 1, 0]]}, "'labels' has shape (1, 3), and there are 3 images"),
            ({"images": pixels(8, 9, 3)}, "this may be one colour picture, or grey ones of 3 pixels width: (8, 9, 3)"),
            ({"images": pixels(3, 4, 4), "labels": [-1, 1, 0]}, "'labels' has the value -1, and classes are numbered"),
            (
                {"images": pixels(3, 4, 4), "labels": [0, 1, 0], "class_names": ["exotropi\u0301a", "exotrop\u00eda"]},
                r"class_names has 'exotropi\u0301a' and 'exotrop\xeda'; use one spelling",
            ),
            (
                {"images": pixels(3, 4, 4), "labels": [0, 1, 0], "class_names": ["a", "a"]},
                "class_names has 'a' twice; use one spelling and one number",
            ),
            (
                {"images": pixels(3, 4, 4), "labels": [0, 1, 0], "class_names": ["a"]},
                "the labels have 2 classes, and class_names has 1",
            ),
            ({"images": pixels(3, 4, 4), "labels": np.array([0, 1, 0], object)}, "'labels' holds Python objects"),
            (
                {"train_images": pixels(3, 4, 4), "test_images": pixels(2, 4, 5)},
                "images of the splits differ in shape or type: (3, 4, 4) uint8, (2, 4, 5) uint8",
            ),
            (
                {"train_images": pixels(3, 4, 4), "test_images": pixels(2, 4, 4), "train_labels": [0, 1, 0]},
                "no array 'test_labels'",
            ),
            (
                {
                    "train_images": pixels(4, 4, 4),
                    "test_images": pixels(1, 4, 4),
                    "train_labels": [[0, 1, 0, 1]],
                    "test_labels": [[1, 0, 1, 0]],
                },
                "'train_labels' has shape (1, 4), and there are 4 images",
            ),
            (
                {"train_images": pixels(3, 4, 4), "test_images": pixels(2, 4, 4), "train_labels": [[0, 1]] * 3},
                "no array 'test_labels'",
            ),
        ],
    )
    def test_refused(self, tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
        path = self.write(tmp_path, **arrays)
        text = error(lambda: Npz(path=path).image)
        assert str(path) in text
        assert message in text

    @pytest.mark.parametrize(
        ("labels", "names", "expected"),
        [
            ([0, 2, 0, 2], None, ("0", "2")),
            ([0.0, 2.0, 0.0, 2.0], ["a", "b", "c"], ("a", "c")),
            ([7, 7, 300, 5], None, ("5", "7", "300")),
            ([0, 2, 0, 2], ["a", "b", "c"], ("a", "c")),
            ([1, 1, 0, 0], ["a", "b", "c"], ("a", "b")),
        ],
    )
    def test_classes_without_an_image_are_left_out_by_name(
        self, tmp_path: Path, labels: list[int], names: list[str] | None, expected: tuple[str, ...]
    ) -> None:
        arrays: dict[str, Any] = {} if names is None else {"class_names": names}
        data = Npz(path=self.write(tmp_path, images=pixels(4, 3, 3), labels=labels, **arrays))
        assert data.class_names == expected
        assert data.labels is not None
        known = list(map(str, labels)) if names is None else [names[int(label)] for label in labels]
        assert [expected[label] for label in data.labels] == known
        assert data.image.classes == len(expected)

    def test_text_in_bytes_is_text(self, tmp_path: Path) -> None:
        data = Npz(
            path=self.write(
                tmp_path, images=pixels(2, 3, 3), labels=[0, 1], class_names=np.char.encode(["n\u00e9", "b"], "utf-8"),
                groups=np.array([b"p1", b"p2"]), eye=np.array([b"l", b"r"]),
            )
        )  # fmt: skip
        assert data.class_names == ("n\u00e9", "b")
        assert data.groups is not None
        assert data.groups.tolist() == ["p1", "p2"]
        assert data.facts["eye"].tolist() == ["l", "r"]
        text = error(
            lambda: Npz(path=self.write(tmp_path, images=pixels(2, 3, 3), groups=np.array([b"\xff"] * 2))).groups
        )
        assert "'groups' cannot be read ('utf-8' codec" in text

    def test_too_little_memory_is_no_damage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise MemoryError("Unable to allocate 9 GiB")

        path = self.write(tmp_path, images=pixels(2, 3, 3))
        monkeypatch.setattr("gankit.images.archive.npy.read_array", fail)
        with pytest.raises(MemoryError, match="9 GiB"):
            _ = Npz(path=path).images

    def test_several_labels_per_image_are_a_fact(self, tmp_path: Path) -> None:
        several = np.random.default_rng(0).integers(0, 2, (4, 14), dtype=np.uint8)
        for arrays in (
            {"images": pixels(4, 3, 3), "labels": several},
            {"train_images": pixels(3, 3, 3), "test_images": pixels(1, 3, 3), "train_labels": several[:3],
             "test_labels": several[3:]},
        ):  # fmt: skip
            path = self.write(tmp_path, **arrays)
            data = Npz(path=path)
            assert (data.labels, data.class_names, data.image.classes) == (None, (), 0)
            np.testing.assert_array_equal(data.facts["labels"], several)
        np.savez(path, images=pixels(4, 3, 3), findings=several)
        assert 'or set labels = "none"' in error(lambda: Npz(path=path, labels="findings").labels)

    def test_labels_may_be_names(self, tmp_path: Path) -> None:
        data = Npz(path=self.write(tmp_path, images=pixels(4, 3, 3), labels=["10", "9", "10", "9"]))
        assert data.class_names == ("9", "10")
        assert data.labels is not None
        assert data.labels.tolist() == [1, 0, 1, 0]

    def test_none_is_a_name(self, tmp_path: Path) -> None:
        names = ["None", "Mild", "None"]
        data = Npz(path=self.write(tmp_path, images=pixels(3, 3, 3), labels=names, groups=names))
        assert data.class_names == ("Mild", "None")
        assert data.groups is not None
        assert data.groups.tolist() == names

    def test_labels_can_be_left_out(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, images=pixels(3, 3, 3), labels=[0.5, 1, 2])
        assert "labels are classes" in error(lambda: Npz(path=path).labels)
        data = Npz(path=path, labels="none")
        assert data.image.classes == 0
        assert data.facts["labels"].tolist() == [0.5, 1, 2]

    def test_usual_words_are_read_as_what_they_mean(self, tmp_path: Path) -> None:
        arrays = {"images": pixels(4, 3, 3), "label": np.array([0, 1, 1, 0]), "patient_id": np.arange(4) // 2}
        data = Npz(path=self.write(tmp_path, **arrays, age=np.arange(4)))
        assert (data.labels.tolist(), data.groups.tolist()) == ([0, 1, 1, 0], [0, 0, 1, 1])  # type: ignore[union-attr]
        assert set(data.facts) == {"age"}
        assert Npz(path=tmp_path / "data.npz", labels="none").labels is None
        with_own = Npz(path=self.write(tmp_path, **arrays, labels=np.array([1, 0, 1, 0]), groups=np.arange(4)))
        assert (with_own.labels.tolist(), with_own.groups.tolist()) == ([1, 0, 1, 0], [0, 1, 2, 3])  # type: ignore[union-attr]
        both = Npz(path=self.write(tmp_path, **arrays, subject=np.arange(4)))
        assert "rename the right one to `groups`" in error(lambda: both.groups)

    def test_an_array_without_a_name(self, tmp_path: Path) -> None:
        images = pixels(4, 5, 5, 3)
        np.savez(tmp_path / "a.npz", images, np.arange(4))
        np.save(tmp_path / "a.npy", images)
        for name in ("a.npz", "a.npy"):
            np.testing.assert_array_equal(Npz(path=tmp_path / name).images, images.transpose(0, 3, 1, 2))
        assert Npz(path=tmp_path / "a.npz").facts["arr_1"].tolist() == [0, 1, 2, 3]
        assert "known: arr_0, arr_1" in error(lambda: Npz(path=tmp_path / "a.npz", images="pictures").image)

    @pytest.mark.parametrize("shape", ["(10000000000, 28, 28)", "(-1, 28, 28)", f"({'9' * 5000}, 28, 28)"])
    def test_sizes_beyond_what_the_file_can_hold(self, tmp_path: Path, shape: str) -> None:
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(5500) + b"\n"
        member = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + bytes(784)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("images.npy", member)
        (tmp_path / "a.npy").write_bytes(member)
        for name in ("a.npz", "a.npy"):
            text = error(lambda name=name: len(Npz(path=tmp_path / name).images))
            assert "is cut off" in text or "is not an npz file that NumPy can read" in text

    def test_archives_that_unpack_to_gigabytes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.write(tmp_path, images=np.zeros((50, 100, 100), np.uint8))
        assert Npz(path=path).images.max() == 0
        monkeypatch.setattr("gankit.images.archive._LARGE", 10**5)
        assert "unpacks to 0.0 GB from 0.0 MB" in error(lambda: Npz(path=path).images)
        path = self.write(tmp_path, images=pixels(50, 100, 100))
        assert len(Npz(path=path).images) == 50

    @pytest.mark.parametrize("damage", ["encrypted", "compression"])
    def test_members_that_cannot_be_unpacked(self, tmp_path: Path, damage: str) -> None:
        path = self.write(tmp_path, images=pixels(3, 4, 4))
        content, place = bytearray(path.read_bytes()), {"encrypted": (6, 8), "compression": (8, 10)}[damage]
        for signature, at in ((b"PK\3\4", place[0]), (b"PK\1\2", place[1])):
            content[content.index(signature) + at] |= {"encrypted": 1, "compression": 97}[damage]
        path.write_bytes(content)
        assert "is not an npz file that NumPy can read" in error(lambda: Npz(path=path).image)

    def test_arrays_that_are_no_facts_are_named(self, tmp_path: Path) -> None:
        images = pixels(10, 4, 4)
        np.savez(tmp_path / "a.npz", images=images, severity=np.zeros(9), side=np.zeros(10), when=np.zeros(10, "M8[s]"),
                 labels=np.arange(10) % 2, mu=np.zeros(3), sigma=np.eye(3), scale=np.float64(2))  # fmt: skip
        (remark,) = Npz(path=tmp_path / "a.npz").subset([1, 2]).remarks
        assert remark.startswith(
            "severity (9,), when (10,), scale (): no facts, which have numbers or a text for each of"
        )
        lines = check("wgan-gp", "data.name=npz", f"data.path={tmp_path / 'a.npz'}", "generator.width=2",
                      "critic.width=2", "training.batch=2", "training.generator_batch=2")  # fmt: skip
        assert f"warning: data: {remark}" in lines
        np.savez(tmp_path / "c.npz", images=images, labels=np.zeros((10, 2), complex))
        data = Npz(path=tmp_path / "c.npz")
        assert data.labels is None
        assert data.remarks[0].startswith("labels (10, 2): no facts")
        parts = {f"{split}_{name}": np.zeros(5) for split in ("train", "test") for name in ("labels", "age")}
        np.savez(tmp_path / "b.npz", train_images=images[:5], test_images=images[5:], **parts, test_x=np.zeros(5))
        assert Npz(path=tmp_path / "b.npz", labels="none").remarks[0].startswith("test_x (5,): no facts")

    def test_refused_columns(self, tmp_path: Path) -> None:
        unshared = Npz(path=self.write(tmp_path, images=pixels(2, 3, 3), agreement=[0.5, 1.5]))
        assert "'agreement' has values outside [0, 1]" in error(lambda: unshared.agreement)
        ungrouped = Npz(path=self.write(tmp_path, images=pixels(2, 3, 3), groups=np.zeros((2, 2))))
        assert "'groups' must be (n,) or (n, 1)" in error(lambda: ungrouped.groups)
        assert "no array 'grades'" in error(lambda: Npz(path=ungrouped.archive.path, labels="grades").labels)

    def test_mirror_and_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(tmp_path, images=pixels(2, 3, 3))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        data = build("dataset", "npz", path="~/data.npz", mirror_keeps_label=False)
        assert len(data) == 2
        assert data.mirror(data.images) is None
