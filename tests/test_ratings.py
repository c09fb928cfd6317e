"""Ratings of people as an order of images: by number, from a page, and of several sources."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raters import rate, read, write

import gankit
from gankit.errors import DataError, GankitError, RunError
from gankit.evaluation.design import wilson
from gankit.ranking import rank, write_page, write_ranking
from gankit.ranking.key import Key, check_numbers, read_key
from gankit.ranking.ratings import krippendorff_alpha


def test_alpha_of_the_published_example() -> None:
    # Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section D.
    rows = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]
    table = [[math.nan if cell == "." else float(cell) for cell in row.split()] for row in rows]
    nominal, interval = krippendorff_alpha(table, "nominal"), krippendorff_alpha(table, "interval")
    assert nominal == pytest.approx(0.743, abs=5e-4)
    assert interval == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha([[1, 2, 3], [1, 2, 3]], "interval") == 1
    assert krippendorff_alpha([[1, 1], [1, 1]], "nominal") is None
    assert krippendorff_alpha([[1, math.nan], [math.nan, 1]], "nominal") is None


def test_scores_of_several_raters_are_averaged(one_step_runs: dict[str, gankit.Run], tmp_path: Path) -> None:
    one = write(tmp_path / "ada.csv", "image,score,diagnosis", "0,1,left", "1,5,right", "2,3,left", "3,2,left")
    two = write(
        tmp_path / "bo.csv", "\ufefffile;score", "00003.png;4", "drawn/00001.png;3", "00000.png;2", "00002.png;3"
    )
    ranked = rank(one_step_runs["classes"], 4, 2, f"ratings:{one},{two}", label="left")
    assert ranked.scores.tolist() == [1.5, 4, 3, 3]
    assert ranked.order.tolist() == [1, 2, 3, 0]
    assert np.array_equal(ranked.images, one_step_runs["classes"].sample(4, "left"))
    by_what = {finding.what: finding for finding in ranked.findings}
    alpha = by_what["Krippendorff's alpha of scores"]
    assert alpha.value == pytest.approx(krippendorff_alpha([[1, 5, 3, 2], [2, 3, 3, 4]], "interval"))
    diagnosed = by_what["generated images diagnosed as asked"]
    assert (diagnosed.rater, diagnosed.value, diagnosed.n) == ("ada", 0.75, 4)
    assert (diagnosed.low, diagnosed.high) == wilson(3, 4)
    together = write(tmp_path / "all.csv", "rater,image,score", *(f"ada,{i},{i}" for i in range(4)),
                     *(f"bo,{i},{3 - i}" for i in range(4)))  # fmt: skip
    both = rank(one_step_runs["classes"], 4, 2, f"ratings:{together}")
    assert both.scores.tolist() == [1.5] * 4
    assert both.order.tolist() == [0, 1, 2, 3]
    alone = rank(one_step_runs["plain"], 4, 2, f"ratings:{one}")
    assert (alone.findings, alone.notes) == ((), ())


GOOD = ("0,1", "1,2", "2,3")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "no column `image`"),
        (("image,grade", "0,1"), "no column `score`"),
        (("image,score",), "has a header and no rows"),
        (("image,score", "0,good"), "line 2: the score 'good' is not a number"),
        (("image,score", "0,nan"), "the score 'nan' is not a number"),
        (("image,score", "0,1e308"), "the score '1e308' is not a number up to 1e+100 in size"),
        (("image,score", *GOOD[:2], "9" * 900 + ",1"), "there is no image '999"),
        (("image,score", *GOOD[:2], "9" * 5000 + ",1"), "line 4: image has more than 1000 characters"),
        (("image,score", "0,1,2"), "line 2 has 3 cells where the header has 2"),
        (("image,score", *GOOD, "0,2"), "line 5: r has rated image 0 twice"),
        (("image,score", *GOOD, "00000.png,2"), "has rated image 0 twice"),
        (("image,score", *GOOD[:2]), "gives no score for 1 of 3 images, 2 first"),
        (("image,score", *GOOD, "3,1"), "there is no image '3'; the images are 0 to 2"),
        (("image,score", *GOOD, "cat.png,1"), "there is no image 'cat.png'"),
        (("image,score,call", "0,1,maybe"), "the call 'maybe' is neither real nor generated"),
        (("image,score", '0,"1'), "cannot be read"),
        (("image,score,key", "0,1,", "1,1,abc", "2,1,abc"), "of different pages"),
        (("image,score,key", "0,1,abc", "1,1,abc", "2,1,abc"), "the key abc... of the ratings is not in"),
    ],
)
def test_bad_ratings_are_one_line(
    one_step_runs: dict[str, gankit.Run], tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    path = write(tmp_path / "r.csv", *lines)
    with pytest.raises(DataError) as raised:
        rank(one_step_runs["plain"], 3, 1, f"ratings:{path}")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_ratings_may_be_the_progress_of_a_page_and_lack_answers(
    one_step_runs: dict[str, gankit.Run], tmp_path: Path
) -> None:
    answers = {str(i): {"score": str(i + 1), "diagnosis": "left"} for i in range(3)} | {"3": {}}
    path = write(tmp_path / "r.json", json.dumps({"key": "", "rater": "Ada", "answers": answers}))
    assert rank(one_step_runs["plain"], 3, 1, f"ratings:{path}").scores.tolist() == [1, 2, 3]
    path = write(tmp_path / "r.csv", "image,score,diagnosis", "0,1,", "1,,left", "2,3,")
    with pytest.raises(DataError, match="r gives no score for 1 of 3 images, 1 first"):
        rank(one_step_runs["plain"], 3, 1, f"ratings:{path}")


def test_files_that_are_missing_or_given_twice(one_step_runs: dict[str, gankit.Run], tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "image,score", *GOOD)
    with pytest.raises(DataError, match="cannot be read"):
        rank(one_step_runs["plain"], 3, 1, f"ratings:{path},{tmp_path}/none.csv")
    with pytest.raises(DataError, match="r is the rater of two files"):
        rank(one_step_runs["plain"], 3, 1, f"ratings:{path},{path}")
    with pytest.raises(GankitError, match="count: 0 images cannot be ranked"):
        rank(one_step_runs["plain"], 0, 1, f"ratings:{path}")
    with pytest.raises(DataError, match="the ratings name no key"):
        rank(one_step_runs["plain"], 3, 1, f"ratings:{path}", key=path)


def test_ratings_of_a_page_find_their_key_and_images(copied_run: gankit.Run, tmp_path: Path) -> None:
    page = write_page(copied_run, copied_run.path / "rating-7", 9, seed=7, real=6)
    ada = rate(page, "ada", lambda image: 5 if image.real else image.number % 5 + 1, lambda image: "real")
    bo = rate(page, "bo", lambda image: 1, lambda image: "real" if image.real else "generated")
    ranked = rank(copied_run, None, 3, f"ratings:{ada},{bo}")
    assert ranked.seed == 7
    assert ranked.scores.tolist() == [(number % 5 + 2) / 2 for number in range(9)]
    assert ranked.order.tolist() == [4, 3, 8, 2, 7, 1, 6, 0, 5]
    assert np.array_equal(ranked.images, copied_run.sample(9, seed=7))
    value = {(finding.rater, finding.what): (finding.value, finding.n) for finding in ranked.findings}
    assert value["ada", "real images recognised"] == (1, 6)
    assert value["ada", "generated images taken for real"] == (1, 9)
    assert value["bo", "generated images taken for real"] == (0, 9)
    assert value["bo", "generated images diagnosed as asked"] == (1, 9)
    assert value["bo", "real images diagnosed as labelled"] == (1, 6)
    assert value["all", "Krippendorff's alpha of diagnoses"] == (1, 15)
    low = next(finding for finding in ranked.findings if finding.what == "real images recognised")
    assert (low.low, low.high) == wilson(6, 6)
    assert str(low) == "ada: real images recognised 1, 95 % interval 0.61 to 1.00 (n = 6)"
    written = write_ranking(ranked, tmp_path / "ranked")
    assert read(written / "findings.csv")[0] == ["rater", "what", "value", "low", "high", "n"]
    assert len(read(written / "findings.csv")) == 1 + len(ranked.findings)
    # Elsewhere the key is found in the run's folder, or given.
    moved = Path(shutil.copy(ada, tmp_path / "ada.csv"))
    assert rank(copied_run, 9, 3, f"ratings:{moved}", seed=7).scores[4] == 5
    hidden = page.parent.rename(tmp_path / "hidden")
    with pytest.raises(DataError, match="give it with --key"):
        rank(copied_run, None, 3, f"ratings:{moved}")
    assert rank(copied_run, None, 3, f"ratings:{moved}", key=hidden / "key.json").scores[4] == 5
    with pytest.raises(GankitError, match="count: the rating page was made with 9, not with 8"):
        rank(copied_run, 8, 3, f"ratings:{moved}", key=hidden / "key.json")
    with pytest.raises(GankitError, match="label: the rating page was made with None, not with left"):
        rank(copied_run, None, 3, f"ratings:{moved}", key=hidden / "key.json", label="left")


def test_ratings_that_do_not_fit_the_page(copied_run: gankit.Run) -> None:
    page = write_page(copied_run, copied_run.path / "rating", 4, real=2)
    path = rate(page, "ada", lambda image: 3, lambda image: "" if image.real else "generated")
    with pytest.raises(DataError, match=r"ada gives no call for 2 of 6 images, \w+ first"):
        rank(copied_run, None, 2, f"ratings:{path}")
    lines = path.read_text().splitlines()
    write(path, *lines[:-1])
    with pytest.raises(DataError, match="gives no score for 1 of 6 images"):
        rank(copied_run, None, 2, f"ratings:{path}")
    write(path, *lines, lines[-1].replace(lines[-1].split(",")[0], "0123456789ab"))
    with pytest.raises(DataError, match="there is no image '0123456789ab'; it is none of the 6 of the key"):
        rank(copied_run, None, 2, f"ratings:{path}")


def test_a_key_that_was_changed_is_noticed(copied_run: gankit.Run) -> None:
    page = write_page(copied_run, copied_run.path / "rating", 4, real=2)
    path, key = rate(page, "ada", lambda image: 3, lambda image: "real"), page.parent / "key.json"
    assert len(rank(copied_run, None, 2, f"ratings:{path}").order) == 4
    table = json.loads(key.read_text())
    for image in table["images"]:
        image["real"] = not image["real"]
    key.write_text(json.dumps(table, indent=1) + "\n")
    with pytest.raises(DataError, match="is not the key that the page was sealed with, or it was changed"):
        rank(copied_run, None, 2, f"ratings:{path}")
    key.write_text("{}")
    with pytest.raises(RunError, match="is not the key of a rating page"):
        rank(copied_run, None, 2, f"ratings:{path}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": "1"}, "valid integer"), ({"seed": -1}, "greater than or equal to 0"), ({"seed": 2**63}, "less than"),
        ({"sources": [{"name": "a", "content": "b", "best": 1}]}, "valid boolean"),
        ({"label": 3}, "valid string"), ({"images": {}}, "valid array"),
        ({"images": [{"id": "a", "real": False, "number": 1, "label": ""}]}, "not numbered 0, 1, 2"),
        ({"images": [{"id": "a", "real": False, "number": 0, "label": ""}] * 2}, "not numbered 0, 1, 2"),
        ({"images": [{"id": "a", "real": real, "number": 0, "label": ""} for real in (True, False)]}, "have one id"),
        ({"images": [{"id": "a", "real": False, "number": True, "label": ""}]}, "valid integer"),
        ({"sources": [], "images": [{"id": "a", "real": True, "number": 0, "label": ""}]}, "names no source"),
    ],
)  # fmt: skip
def test_a_forged_key_is_one_line(
    one_step_runs: dict[str, gankit.Run], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    page = write_page(one_step_runs["plain"], tmp_path / "page", 3)
    path = page.parent / "key.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match="is not the key of a rating page") as caught:
        check_numbers(read_key(path, Key)[0], path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"format": 1, "format": 1}', "9" * 5000, "\x00"])
def test_what_is_no_key_at_all_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(text)
    with pytest.raises(RunError, match="is not the key of a rating page"):
        read_key(path, Key)


def test_ratings_of_another_generator_are_refused(copied_run: gankit.Run, one_step_runs: dict[str, gankit.Run]) -> None:
    page = write_page(copied_run, copied_run.path / "rating", 4)
    path = rate(page, "ada", lambda image: 3)
    with pytest.raises(RunError, match="its generator is not the one of the rated images"):
        rank(one_step_runs["classes"], None, 2, f"ratings:{path}")


def test_a_key_of_an_older_page_is_read(copied_run: gankit.Run) -> None:
    page = write_page(copied_run, copied_run.path / "rating", 4, real=2)
    path = page.parent / "key.json"
    table = json.loads(path.read_text())
    (origin,) = table.pop("sources")
    table |= {"format": 1, "run": origin["name"], "generator": origin["content"], "best": origin["best"]}
    for image in table["images"]:
        del image["source"]
    path.write_text(json.dumps(table))
    ada = rate(page, "ada", lambda image: image.number + 1, lambda image: "real")
    ranked = rank(copied_run, None, 2, f"ratings:{ada}")
    assert ranked.scores.tolist() == [1, 2, 3, 4]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Eight dark and six bright pictures of strangers in class folders, of the size of the runs' images."""
    made, draw = [], np.random.default_rng(3)
    for name, count, level in (("murky", 8, 20), ("sunny", 6, 200)):
        for number in range(count):
            path = tmp_path / name / ("left" if number % 2 else "right") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(level, level + 20, (8, 8, 3), dtype=np.uint8)).save(path)
        made.append(tmp_path / name)
    return made


def test_a_page_of_two_folders_tells_them_apart_only_by_its_key(folders: list[Path], tmp_path: Path) -> None:
    page = write_page([*map(str, folders)], tmp_path / "page", seed=5, real=3, against=str(folders[0]))
    key = read_key(page.parent / "key.json", Key)[0]
    assert [Path(origin.name).name for origin in key.sources] == ["murky", "sunny"]
    assert [(image.source, image.number) for image in key.generated] == [(s, n) for s in (0, 1) for n in range(6)]
    assert sum(image.real for image in key.images) == 3
    text = page.read_text()
    assert not any(word in text for word in ("murky", "sunny", key.secret, str(tmp_path)))
    assert '"classes": ["left", "right"]' in text
    ada = rate(page, "ada", lambda image: 2 + 2 * image.source + image.number % 2, lambda image: "real")
    bo = rate(page, "bo", lambda image: 2 + 2 * image.source + image.number % 2,
              lambda image: "real" if image.real or image.source else "generated")  # fmt: skip
    ranked = rank(folders, None, 3, f"ratings:{ada},{bo}")
    assert ranked.scores.tolist() == [2, 3] * 3 + [4, 5] * 3
    assert ranked.images[:6].max() < 100 < ranked.images[6:].min()
    value = {(finding.rater, finding.what): finding for finding in ranked.findings}
    dark, bright = map(str, folders)
    assert value["all", f"mean score of {bright}"].value == 4.5
    lead = value["all", f"mean score of {bright} less that of {dark}"]
    assert (lead.value, lead.n) == (2, 12)
    half = 2.5706 * math.sqrt(2 * 0.3 / 6)  # Student's quantile for 5 degrees of freedom; variances are 0.3
    assert (lead.low, lead.high) == pytest.approx((2 - half, 2 + half), abs=1e-3)
    assert value["bo", f"images of {dark} taken for real"].value == 0
    assert value["bo", f"images of {bright} taken for real"].value == 1
    assert value["bo", "generated images diagnosed as asked"].value == 1
    rows = read(write_ranking(ranked, tmp_path / "ranked") / "ranking.csv")
    assert rows[0][-1] == "source"
    assert {row[-1] for row in rows[1:] if int(row[1]) >= 6} == {str(path) for path in folders[1].rglob("*.png")}


def test_a_run_beside_a_folder(copied_run: gankit.Run, folders: list[Path], tmp_path: Path) -> None:
    page = write_page([copied_run, folders[0]], tmp_path / "page", 4, seed=7, real=2)
    ada = rate(page, "ada", lambda image: 1 + image.source, lambda image: "real")
    ranked = rank([copied_run, folders[0]], None, 3, f"ratings:{ada}")
    assert np.array_equal(ranked.images[:4], copied_run.sample(4, seed=7))
    assert ranked.scores.tolist() == [1] * 4 + [2] * 4
    lead = next(finding for finding in ranked.findings if "less that of" in finding.what)
    assert (lead.value, lead.low, lead.high) == (1, None, None)  # no score differs from another of its source
    for sources, message in (
        ([folders[0], copied_run], "its images are not the rated ones"),
        ([copied_run], "the rating page shows images of 2 sources: give own, "),
    ):
        with pytest.raises(GankitError, match=message):
            rank(sources, None, 3, f"ratings:{ada}")
    Image.new("RGB", (8, 8)).save(folders[0] / "left" / "1.png")
    with pytest.raises(RunError, match="murky: its images are not the rated ones"):
        rank([copied_run, folders[0]], None, 3, f"ratings:{ada}")


def test_deep_images_are_ranked_beside_8_bit_ones(folders: list[Path], tmp_path: Path) -> None:
    deep = (np.arange(4 * 3 * 64).reshape(4, 3, 8, 8) * 80).astype(np.uint16)
    np.savez(tmp_path / "deep.npz", images=deep)
    table = {"name": "npz", "path": str(tmp_path / "deep.npz"), "value_range": [0, 65535]}
    page = write_page([folders[0], table], tmp_path / "page", 4)
    ranked = rank([folders[0], table], None, 3, f"ratings:{rate(page, 'ada', lambda image: 3)}")
    assert ranked.images.dtype == np.uint8
    assert np.array_equal(ranked.images[4:], np.rint(deep / 257).astype(np.uint8))


def test_sources_that_no_page_can_show(
    folders: list[Path], one_step_runs: dict[str, gankit.Run], tmp_path: Path
) -> None:
    Image.new("RGB", (9, 8)).save(tmp_path / "wide.png")
    (tmp_path / "wide").mkdir()
    for number in range(2):
        shutil.copy(tmp_path / "wide.png", tmp_path / "wide" / f"{number}.png")
    for sources, arguments, message in (
        ([folders[0], tmp_path / "wide"], {}, r"wide: its images are 3 x 8 x 9 .* give one as a table with a size"),
        (folders, {"count": 7}, "7 images are asked for, and there are 6"),
        (folders, {"real": 2}, "no run among the sources has real images: name those to mix in with --against"),
        (folders, {"label": "left"}, "only a run can be asked for a label"),
        ([], {}, "no source of images is given"),
    ):
        with pytest.raises(GankitError, match=message):
            write_page(sources, tmp_path / "page", **arguments)
    with pytest.raises(GankitError, match="by critic: only images of a single run can be ranked like this"):
        rank([one_step_runs["plain"], one_step_runs["classes"]])
    numbered = write(tmp_path / "r.csv", "image,score", *(f"{number},{number}" for number in range(6)))
    with pytest.raises(GankitError, match="give one"):
        rank(folders, by=f"ratings:{numbered}", keep=2)
    assert rank(folders[1], by=f"ratings:{numbered}", keep=2).best.tolist() == [5, 4]
