"""Names in several spellings: of classes, of patients, of files."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from pictures import error, pixels, save

from gankit.datasets.folder import Folder
from gankit.images.names import two_spellings

COMPOSED, APART = (unicodedata.normalize(form, "exotrop\u00eda") for form in ("NFC", "NFD"))
SPELLINGS = [
    (COMPOSED, APART), ("left eye", "left\u00a0eye"), ("left", "left\u200b"), ("left", "\ufeffleft"), ("Left", "left"),
    ("left eye", "left  eye"), ("left eye", "left_eye"), ("left-eye", "left eye"), ("left_eye", "left\u2013eye"),
    ("1", "01"), ("1", "1.0"), ("+1", "1"), ("0", "00"), ("1", "\u0661"), ("-1", "\u22121"),
]  # fmt: skip


def listed(folder: Path, rows: list[tuple[str, ...]], header: str = "file,label") -> Folder:
    for row in rows:
        save(folder / row[0], pixels(3, 3))
    lines = [header, *(",".join(row) for row in rows)]
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return Folder(path=folder)


@pytest.mark.parametrize(("first", "second"), SPELLINGS)
def test_a_class_in_two_spellings_is_refused(tmp_path: Path, first: str, second: str) -> None:
    text = error(lambda: listed(tmp_path / "csv", [("0.png", first), ("1.png", second)]).known)
    assert "line 3 says" in text
    assert "use one spelling" in text
    assert text.isascii()
    assert two_spellings([first, second, "other"]) is not None


def test_names_that_differ() -> None:
    names = [
        "1",
        "10",
        "1.5",
        "-1",
        "left",
        "right",
        "1a",
        "a1",
        "HER2",
        "HER2-",
        "HER2+",
        "10000000000000001",
        "1" * 9000,
    ]
    assert two_spellings([*names, *("0" * count + "x" for count in (90_000, 100_000))]) is None


def test_sub_folders_in_two_spellings(tmp_path: Path) -> None:
    for name in (COMPOSED, APART):
        save(tmp_path / name / "a.png", pixels(3, 3))
    assert "are one name in two spellings" in error(lambda: Folder(path=tmp_path).known)


def test_splits_and_groups_in_two_spellings(tmp_path: Path) -> None:
    for column, names in (("split", ("train", "Train")), ("group", ("p\u00e9", "pe\u0301"))):
        rows = [(f"{i}.png", name) for i, name in enumerate(names)]
        assert "use one spelling" in error(lambda c=column, r=rows: listed(tmp_path / c, r, f"file,{c}").known)
    known = listed(tmp_path / "ids", [("0.png", "P1"), ("1.png", "p1"), ("2.png", "01")], "file,group").known
    assert known.groups is not None
    assert len(set(known.groups)) == 3  # ids, of which only looks count


def test_files_are_found_in_any_unicode_form(tmp_path: Path) -> None:
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        folder = tmp_path / form
        name = unicodedata.normalize(form, "M\u00fcller.png")
        save(folder / name, pixels(3, 3))
        (folder / "labels.csv").write_text(f"file,label\n{unicodedata.normalize(other, name)},a\n", encoding="utf-8")
        assert Folder(path=folder).known.files == [name]


def test_messages_show_how_names_that_look_alike_differ(tmp_path: Path) -> None:
    save(tmp_path / "left eye.png", pixels(3, 3))
    (tmp_path / "labels.csv").write_text("file,label\nleft\u00a0eye.png,a\n", encoding="utf-8")
    assert r"names 'left\xa0eye.png', and there is no such image; did you mean 'left eye.png'?" in error(
        lambda: Folder(path=tmp_path).known
    )


def test_titles_with_letters_that_are_not_seen(tmp_path: Path) -> None:
    known = listed(tmp_path, [("0.png", "a")], "\u200bfile,label\u200b").known
    assert known.class_names == ("a",)


class TestSpreadsheets:
    """CSV files as spreadsheets write them."""

    def table(self, folder: Path, text: str) -> Folder:
        for i in range(2):
            save(folder / f"{i}.png", pixels(3, 3))
        (folder / "labels.csv").write_bytes(text.encode("utf-8-sig"))
        return Folder(path=folder)

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_a_line_that_names_the_separator(self, tmp_path: Path, separator: str) -> None:
        lines = [f"sep={separator}", f"file{separator}label", f"0.png{separator}a", f"1.png{separator}b"]
        assert self.table(tmp_path, "\r\n".join(lines)).known.class_names == ("a", "b")
        text = error(lambda: self.table(tmp_path, "\r\n".join([*lines, "x"])).known)
        assert "labels.csv line 5 has 1 cells" in text

    def test_decimal_commas(self, tmp_path: Path) -> None:
        facts = self.table(tmp_path, "file;age;agreement\n0.png;4,5;0,8\n1.png;;1\n")
        np.testing.assert_array_equal(facts.facts["age"], [4.5, np.nan])
        assert facts.agreement is not None
        assert facts.agreement.tolist() == [0.8, 1]
        for text in ('file,age\n0.png,"4,5"\n1.png,5\n', "file\tage\n0.png\t12,345\n1.png\t5\n"):
            assert "which is not a number here; write a point before decimals" in error(
                lambda text=text: self.table(tmp_path, text).facts
            )
        assert self.table(tmp_path, "file;teeth\n0.png;a,b\n1.png;5\n").facts["teeth"].tolist() == ["a,b", "5"]

    @pytest.mark.parametrize("text", ['file,label\n0.png,"a\n1.png,b\n', 'file,label\n0.png,"a"b\n1.png,b\n'])
    def test_quotation_marks_in_a_wrong_place(self, tmp_path: Path, text: str) -> None:
        assert "a quotation mark is not closed or in a wrong place" in error(lambda: self.table(tmp_path, text).known)
