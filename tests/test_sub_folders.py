"""Classes and splits of sub-folders, in order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import error, pixels, save

from gankit.datasets.folder import Folder


class TestSubFolders:
    def test_classes(self, tmp_path: Path) -> None:
        for name in ("good/1.png", "good/deep/2.png", "bad/1.png"):
            save(tmp_path / name, pixels(3, 3))
        data = Folder(path=tmp_path)
        assert data.class_names == ("bad", "good")
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 1]
        assert data.labels.dtype == np.int64
        assert data.files[0] == tmp_path / "bad" / "1.png"

    def test_numbers_are_in_order(self, tmp_path: Path) -> None:
        for name in ("10/a.png", "2/a.png", "0/a.png"):
            save(tmp_path / name, pixels(3, 3))
        assert Folder(path=tmp_path).class_names == ("0", "2", "10")

    def test_splits(self, tmp_path: Path) -> None:
        for name in ("train/x/1.png", "train/y/2.png", "test/x/3.png", "valid/y/4.png"):
            save(tmp_path / name, pixels(3, 3))
        data = Folder(path=tmp_path)
        assert data.class_names == ("x", "y")
        assert {name: indices.tolist() for name, indices in data.splits.items()} == {
            "test": [0], "train": [1, 2], "val": [3],
        }  # fmt: skip

    @pytest.mark.parametrize(("first", "second"), [("Train", "Test"), ("Training", "Testing"), ("TRAIN", "test")])
    def test_splits_in_other_words(self, first: str, second: str, tmp_path: Path) -> None:
        for name in (f"{first}/x/1.png", f"{first}/y/2.png", f"{second}/x/3.png"):
            save(tmp_path / name, pixels(3, 3))
        of_folders = Folder(path=tmp_path)
        assert (of_folders.class_names, sorted(of_folders.splits)) == (("x", "y"), ["test", "train"])
        names = [(f"{first}/x/1.png", first), (f"{first}/y/2.png", first), (f"{second}/x/3.png", second)]
        (tmp_path / "labels.csv").write_text("\n".join(["file,split", *map(",".join, names)]))
        assert sorted(Folder(path=tmp_path).splits) == ["test", "train"]

    def test_folders_beside_splits(self, tmp_path: Path) -> None:
        for name in ("car/1.png", "train/2.png"):  # vehicles
            save(tmp_path / name, pixels(3, 3))
        assert Folder(path=tmp_path).class_names == ("car", "train")
        save(tmp_path / "test" / "3.png", pixels(3, 3))
        assert "test, train are splits, and beside them is car" in error(lambda: Folder(path=tmp_path).image)

    def test_classes_beside_a_table_of_patients(self, tmp_path: Path) -> None:
        names = ["good/1.png", "good/2.png", "bad/3.png"]
        for name in names:
            save(tmp_path / name, pixels(3, 3))

        def classes(header: str, *cells: str) -> tuple[str, ...]:
            rows = [f"{name},{cell}" for name, cell in zip(names, cells, strict=True)]
            (tmp_path / "labels.csv").write_text("\n".join([header, *rows]))
            return Folder(path=tmp_path).class_names

        assert classes("file,patient", "p1", "p2", "p1") == ("bad", "good")
        labels = Folder(path=tmp_path).labels
        assert labels is not None
        assert labels.tolist() == [1, 1, 0]
        assert classes("file,patient", "p1", "p1", "p2") == (), "a folder for each patient"
        assert classes("file,patient,label", "p1,x", "p2,x", "p1,y") == ("x", "y")
        assert classes("file,age", "1", "2", "3") == ()
        save(tmp_path / "4.png", pixels(3, 3))
        names.append("4.png")
        assert classes("file,patient", "p1", "p2", "p1", "p3") == ()

    def test_a_picture_outside_the_classes(self, tmp_path: Path) -> None:
        save(tmp_path / "x" / "1.png", pixels(3, 3))
        save(tmp_path / "2.png", pixels(3, 3))
        assert "2.png in none; move it into one" in error(lambda: Folder(path=tmp_path).image)

    def test_a_link_back_up_ends(self, tmp_path: Path) -> None:
        save(tmp_path / "x" / "1.png", pixels(3, 3))
        try:
            (tmp_path / "x" / "up").symlink_to(tmp_path, target_is_directory=True)
        except OSError:
            pytest.skip("this system makes no links")
        assert len(Folder(path=tmp_path)) == 1
