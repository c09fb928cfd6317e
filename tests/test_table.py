"""`labels.csv`: columns, votes, splits, and errors with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import error, save

from gankit.datasets.folder import Folder
from gankit.images.labels_csv import read_table


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a.png, b.png, c.png and d/e.png, of one value each: 0, 1, 2 and 3."""
    for value, name in enumerate(["a.png", "b.png", "c.png", "d/e.png"]):
        save(tmp_path / name, np.full((3, 3), value, np.uint8))
    return tmp_path


def listed(folder: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8", **settings: Any) -> Folder:
    (folder / name).write_text(text, encoding=encoding)
    return Folder(path=folder, **settings)


class TestTable:
    def test_all_columns(self, pictures: Path) -> None:
        data = listed(
            pictures,
            "File, Label,group,agreement,split,age,eye\n"
            "d/e.png,good,p2,1,test,61.5,left\n"
            "a.png,poor,p1,0.5,train,40,right\n"
            "\n"
            "b.png,good,p1,0.75,train,,left\n"
            '"c.png",poor,p3,0.75,,33,right\n',
        )
        assert data.images[:, 0, 0, 0].tolist() == [3, 0, 1, 2]
        assert data.class_names == ("good", "poor")
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 0, 1]
        assert data.groups is not None
        assert data.groups.tolist() == ["p2", "p1", "p1", "p3"]
        assert data.agreement is not None
        assert data.agreement.tolist() == [1, 0.5, 0.75, 0.75]
        assert {name: indices.tolist() for name, indices in data.splits.items()} == {"test": [0], "train": [1, 2]}
        assert set(data.facts) == {"age", "eye"}
        np.testing.assert_array_equal(data.facts["age"], [61.5, 40, np.nan, 33])
        assert data.facts["eye"].tolist() == ["left", "right", "left", "right"]
        part = data.subset([2, 0])
        assert part.groups is not None
        assert part.groups.tolist() == ["p1", "p2"]
        assert part.images[:, 0, 0, 0].tolist() == [1, 3]

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_separators_marks_and_slashes(self, pictures: Path, separator: str) -> None:
        text = "file,label\r\na.png,1\r\nb.png,2\r\n./c.png,10\r\nd\\e.png,2\r\n".replace(",", separator)
        data = listed(pictures, text, encoding="utf-8-sig")
        assert data.class_names == ("1", "2", "10")
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 2, 1]

    def test_classes_with_signs_and_decimals_are_in_the_order_of_numbers(self, pictures: Path) -> None:
        data = listed(pictures, "file,label\na.png,10.5\nb.png,-1\nc.png,2\nd/e.png,-10\n")
        assert data.class_names == ("-10", "-1", "2", "10.5")
        assert data.labels is not None
        assert data.labels.tolist() == [3, 1, 2, 0]

    def test_numbers_of_classes_are_those_of_facts(self, pictures: Path) -> None:
        for mark, numbers in ((",", ["-10", "\u22122", ".5", "1e3"]), (";", ["-0,5", "1,5", "2", "10,25"])):
            rows = zip(("a.png", "b.png", "c.png", "d/e.png"), reversed(numbers), reversed(numbers), strict=True)
            data = listed(pictures, "\n".join(map(mark.join, [("file", "label", "severity"), *rows])))
            assert data.class_names == tuple(numbers)
            assert sorted(data.facts["severity"]) == list(reversed(data.facts["severity"]))
            assert data.facts["severity"].dtype == np.float64

    def test_names_with_digits_and_underscores_are_no_numbers(self, pictures: Path) -> None:
        data = listed(pictures, "file,visit\na.png,1_2\nb.png,1_3\nc.png,2_1\nd/e.png,12\n")
        assert data.facts["visit"].tolist() == ["1_2", "1_3", "2_1", "12"]

    def test_votes_in_columns(self, pictures: Path) -> None:
        data = listed(
            pictures,
            "file,label,vote_1,vote_2,vote_3\n"
            "a.png,x,x,y,x\nb.png,y,y,,y\nc.png,x,y,y,\nd/e.png,y,z,y,x\n",
        )  # fmt: skip
        assert data.agreement is not None
        np.testing.assert_allclose(data.agreement, [2 / 3, 1, 0, 1 / 3])
        assert data.agreement.dtype == np.float64
        assert data.class_names == ("x", "y")
        assert data.facts == {}

    def test_words_for_missing_votes_are_no_votes(self, pictures: Path) -> None:
        text = "file,label,vote_1,vote_2\na.png,x,x,nan\nb.png,y,y,<NA>\nc.png,x,#N/A,y\nd/e.png,y,y,y\n"
        data = listed(pictures, text)
        assert data.agreement is not None
        assert data.agreement.tolist() == [1, 1, 0, 1]

    def test_words_for_missing_votes_in_one_column(self, pictures: Path) -> None:
        data = listed(pictures, "file,votes\na.png,nan;nan;y\nb.png,x|<NA>\nc.png,\u200b;x\nd/e.png,y\n")
        assert data.class_names == ("x", "y")
        assert data.agreement is not None
        assert data.agreement.tolist() == [1, 1, 1, 1]

    def test_votes_in_one_column_without_label(self, pictures: Path) -> None:
        data = listed(pictures, "file,votes\na.png,x;y;x\nb.png,y|y\nc.png,x;\nd/e.png, y ; x; y ;y\n")
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 0, 1]
        assert data.agreement is not None
        np.testing.assert_allclose(data.agreement, [2 / 3, 1, 1, 3 / 4])

    def test_only_facts(self, pictures: Path) -> None:
        data = listed(pictures, "file,severity\na.png,0\nb.png,0.5\nc.png,1\nd/e.png,1\n")
        assert data.labels is None
        assert data.image.classes == 0
        assert data.facts["severity"].tolist() == [0, 0.5, 1, 1]

    def test_names_of_files_that_the_locale_cannot_decode(self, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_text("file\ncafé.png\n", encoding="utf-8")
        as_python_keeps_it = "café.png".encode().decode("ascii", "surrogateescape")
        assert read_table(tmp_path / "labels.csv", [as_python_keeps_it], skip_unlisted=False).files == [
            as_python_keeps_it
        ]

    def test_another_file(self, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        elsewhere = tmp_path_factory.mktemp("tables") / "mine.csv"
        elsewhere.write_text("file,label\na.png,u\nb.png,u\nc.png,v\nd/e.png,u\n")
        assert Folder(path=pictures, table=elsewhere).class_names == ("u", "v")
        (pictures / "inside.csv").write_text(elsewhere.read_text().replace("u", "w"))
        assert Folder(path=pictures, table="inside.csv").class_names == ("v", "w")
        assert "there is no CSV file none.csv" in error(lambda: Folder(path=pictures, table="none.csv").image)

    def test_a_row_without_its_image(self, pictures: Path) -> None:
        text = error(lambda: listed(pictures, "file,label\na.png,x\n\nbb.png,x\n").image)
        assert text == (
            f"{pictures / 'labels.csv'} line 4 names 'bb.png', and there is no such image; did you mean 'b.png'? "
            "add the image or remove the row"
        )

    @pytest.mark.parametrize("name", ["a", "A.PNG", "/home/ada/photos/a.png", "C:\\photos\\a.jpg"])
    def test_an_image_named_in_another_way_is_proposed(self, pictures: Path, name: str) -> None:
        text = error(lambda: listed(pictures, f"file,label\n{name},x\nb.png,x\nc,x\nd/e,x\n").image)
        assert "and there is no such image, as in 2 other rows; did you mean 'a.png'?" in text

    @pytest.mark.parametrize("header", ["Image Name,Class", "image;name", "FILE NAMES\tlabel"])
    def test_usual_titles_of_files_are_found_with_any_separator(self, pictures: Path, header: str) -> None:
        separator = next(mark for mark in ",;\t" if mark in header)
        rows = "a.png,x\nb.png,y\nc.png,x\nd/e.png,x\n".replace(",", separator)
        assert len(listed(pictures, f"{header}\n{rows}")) == 4

    def test_images_without_a_row(self, pictures: Path) -> None:
        rows = "file,label\na.png,x\nc.png,y\n"
        text = error(lambda: listed(pictures, rows).image)
        assert f"{pictures / 'labels.csv'} has no row for 2 of 4 images, b.png first" in text
        assert 'unlisted = "skip"' in text
        data = Folder(path=pictures, unlisted="skip")
        assert data.images[:, 0, 0, 0].tolist() == [0, 2]
        assert len(data) == 2

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (
                "Datei;Diagnose\na.png;x\n",
                "has no column `file`; its first line must name the columns: file,... (it says: 'Datei', 'Diagnose')",
            ),
            ("", "has no column `file`; its first line must name the columns: file,... (it says: nothing)"),
            ("file,label\n", "has a header and no rows"),
            ("file,label\na.png,x,y\n", "line 2 has 3 cells where the header has 2"),
            ("file,label\na.png\n", "line 2 has 1 cells where the header has 2"),
            ("file,label,Label\na.png,x,x\n", "has the column 'label' more than once"),
            ("file,label\na.png,x\na.png,x\n", "line 3 names 'a.png' again, after line 2"),
            ("file,label\na.png,\nb.png,x\nc.png,x\nd/e.png,x\n", "line 2 has an empty label; fill"),
            ("file,label\na.png,x\nb.png,\u200b\nc.png,x\nd/e.png,x\n", "line 3 has an empty label"),
            ("file,label\na.png,x\nb.png,x\nc.png,nan\nd/e.png,x\n", "line 4 has an empty label ('nan'); fill"),
            ("file,group\na.png,1\nb.png,\nc.png,x\nd/e.png,x\n", "line 3 has an empty group"),
            ("file,group\na.png,1\nb.png,#N/A\nc.png,x\nd/e.png,x\n", "line 3 has an empty group ('#N/A'); fill"),
            ("file,agreement\na.png,1\nb.png,1.5\nc.png,1\nd/e.png,1\n", "line 3 has agreement '1.5'; it must be"),
            ("file,agreement\na.png,all\nb.png,1\nc.png,1\nd/e.png,1\n", "line 2 has agreement 'all'"),
            ("file,agreement\na.png,nan\nb.png,1\nc.png,1\nd/e.png,1\n", "line 2 has an empty agreement"),
            ("file,votes\na.png,x;y\nb.png,x\nc.png,x\nd/e.png,x\n", "line 2: the votes are tied between 'x' and 'y'"),
            ("file,votes\na.png,x\nb.png,;nan\nc.png,x\nd/e.png,x\n", "line 3 has no vote"),
            ("file,votes,vote_1\na.png,x,x\nb.png,x,x\nc.png,x,x\nd/e.png,x,x\n", "both `votes` and `vote_` columns"),
            ("file,votes,agreement\na.png,x,1\nb.png,x,1\nc.png,x,1\nd/e.png,x,1\n", "both votes and `agreement`"),
            ("file,label\na.png,x\nb.png,X\nc.png,x\nd/e.png,x\n", "line 3 says 'X' where others say 'x'"),
            ("file,label,vote_1\na.png,x,x\nb.png,x,X\nc.png,x,x\nd/e.png,x,x\n", "line 3 says 'X' where"),
        ],
    )
    def test_refused(self, pictures: Path, rows: str, message: str) -> None:
        text = error(lambda: listed(pictures, rows).labels)
        assert text.startswith(str(pictures / "labels.csv"))
        assert message in text

    @pytest.mark.parametrize(
        ("title", "role"),
        [
            ("patient", "groups"), ("Patient_ID", "groups"), ("subject", "groups"), ("case", "groups"),
            ("Case No", "groups"), ("Pat_Nr", "groups"), ("participants", "groups"),
            ("class", "labels"), ("Diagnosis", "labels"), ("set", "splits"),
        ],
    )  # fmt: skip
    def test_usual_words_are_read_as_what_they_mean(self, pictures: Path, title: str, role: str) -> None:
        cells = ("train", "test", "val", "train") if role == "splits" else ("x1", "x2", "x3", "x1")
        rows = "".join(
            f"{name},{cell}\n" for name, cell in zip(("a.png", "b.png", "c.png", "d/e.png"), cells, strict=True)
        )
        data = listed(pictures, f"filename,{title}\n{rows}")
        read = {"groups": data.groups, "labels": data.labels, "splits": data.splits or None}
        assert [name for name, values in read.items() if values is not None] == [role]
        assert data.facts == {}
        assert data.known.read_as == {"filename": "file", title: role.removesuffix("s")}

    @pytest.mark.parametrize("title", ["rater{}", "Reader_{}", "expert {}", "grader-{}"])
    def test_raters_by_usual_words_are_votes(self, pictures: Path, title: str) -> None:
        titles = [title.format(number) for number in (1, 2)]
        rows = "a.png,x,x,x\nb.png,y,x,y\nc.png,x,y,\nd/e.png,y,y,y\n"
        data = listed(pictures, f"file,label,{','.join(titles)}\n{rows}")
        assert data.agreement is not None
        assert data.agreement.tolist() == [1, 0.5, 0, 1]
        assert (data.known.raters, data.known.read_as) == (2, dict.fromkeys(titles, "vote"))

    def test_gankit_s_own_titles_come_first(self, pictures: Path) -> None:
        rows = "a.png,x,p1,s1,0.5,y\nb.png,x,p1,s2,1,x\nc.png,y,p2,s3,1,x\nd/e.png,y,p3,s4,1,x\n"
        data = listed(pictures, f"file,label,group,subject,agreement,rater1\n{rows}")
        assert data.groups is not None
        assert data.groups.tolist() == ["p1", "p1", "p2", "p3"]
        assert set(data.facts) == {"subject", "rater1"}
        data = listed(pictures, "file,image,class,label\na.png,a,u,x\nb.png,b,u,x\nc.png,c,v,y\nd/e.png,d,v,y\n")
        assert data.class_names == ("x", "y")
        assert set(data.facts) == {"image", "class"}

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ("file,patient,case\na.png,1,2\nb.png,2,3\nc.png,3,4\nd/e.png,4,5\n",
             "has `patient` and `case`, and each may say which images are of one patient; rename the right one to "
             "`group`"),
            ("file,patient\na.png,1\nb.png,\nc.png,x\nd/e.png,x\n", "line 3 has an empty patient"),
            ("file,label,rater1\na.png,x,1\nb.png,y,2\nc.png,x,1\nd/e.png,y,2\n",
             "no vote equals a label (votes like '1', labels like 'x')"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_told_is_asked(self, pictures: Path, rows: str, message: str) -> None:
        assert message in error(lambda: listed(pictures, rows).labels)

    def test_a_case_that_is_yes_or_no_is_no_patient(self, pictures: Path) -> None:
        save(pictures / "f.png", np.zeros((3, 3), np.uint8))
        rows = "a.png,0\nb.png,1\nc.png,1\nd/e.png,0\nf.png,0\n"
        text = error(lambda: listed(pictures, f"file,case\n{rows}").labels)
        assert "has `case` with one or two values: if it tells which images are of one patient, call it `group`" in text
        assert listed(pictures, f"file,case_status\n{rows}").groups is None

    def test_not_utf8(self, pictures: Path) -> None:
        text = error(lambda: listed(pictures, "file,label\na.png,gr\xfcn\n", encoding="latin-1").image)
        assert "labels.csv is not in UTF-8; save it as CSV UTF-8" in text
