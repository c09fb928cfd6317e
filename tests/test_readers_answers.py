"""The study of readers: readers of known skill in a browser, and bad ratings."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import readers_data
from rating_person import PHONE, Person
from readers_data import SMALL, Simulated, key_of, run, save
from scipy import stats

from gankit.errors import DataError, GankitError, RunError, plain_words
from gankit.studies.formats import interval
from gankit.studies.readers.answers import Answers, read_answers
from gankit.studies.readers.judging import _discrimination
from gankit.studies.readers.report import by_calls
from gankit.studies.study import Results

fixed_secret = readers_data.fixed_secret
sources = readers_data.sources

PRESS = (
    "keys => [...keys].forEach(key => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true})))"
)
"""Many keys at once: each takes a moment from outside."""
SKILLS = {"Ada": 0.8, "Bo": 1.2, "Cy": 1.6}
KEYS = {"left": "l", "right": "i", "real": "r", "generated": "g"}


def test_three_readers_of_known_skill_two_of_them_in_a_browser(
    browser: Any, sources: list[str], tmp_path: Path, fixed_secret: None
) -> None:
    out, settings = tmp_path / "out", [*sources, "readers.images=24", "readers.pairs=18", "readers.repeats=0.15"]
    run(out, *settings)
    key, page = key_of(out), out / "for-readers" / "page.html"
    for seed, (name, skill) in enumerate(SKILLS.items()):
        reader = Simulated(name, skill, seed)
        if name == "Bo":
            save(out, name, reader.answers(key), key.digest)
            continue
        someone = Person(browser, page)
        assert someone.page.title() == "Rate 55 images and 21 pairs"
        someone.page.fill("#rater", name)
        someone.type("Enter")
        keys = [
            f"{given['score']}{KEYS[given['diagnosis']]}{KEYS[given['call']]}" if "score" in given
            else "1" if given["call"] == "left" else "2"
            for given in reader.answers(key).values()
        ]  # fmt: skip
        someone.type(" ".join("".join(keys[:3])))
        assert someone.place == "Image 4 of 76, 3 rated"
        someone.page.evaluate(PRESS, "".join(keys[3:-1]))
        assert someone.place == "Pair 76 of 76, 75 rated"
        someone.type(keys[-1])
        someone.hears("All 76 images and pairs are rated: save the ratings.")
        button = "#export" if name == "Cy" else "#save"
        someone.page.locator("summary").nth(1).click()
        file, content = someone.saved(button)
        (out / "ratings" / file).write_bytes(content)
        someone.close()
    assert {path.suffix for path in (out / "ratings").iterdir()} == {".csv", ".json"}
    results = run(out, *settings)
    found = {(entry["source"], entry["what"]): entry for entry in results.values["findings"]}
    phi, mean = stats.norm.cdf, lambda of: float(np.mean([of(skill) for skill in SKILLS.values()]))
    for what, true in {
        "accuracy": mean(lambda d: phi(d / 2)), "d'": mean(lambda d: d), "AUC of scores": mean(area_of_scores),
        "pairs right": mean(lambda d: phi(d / math.sqrt(2))), "d' of pairs": mean(lambda d: d), "diagnosis right": 0.8,
    }.items():  # fmt: skip
        entry = found["gan", what]
        assert entry["low"] < true < entry["high"], what
        assert entry["readers"] == 3
    assert found["real", "diagnosis right"]["low"] < 0.8 < found["real", "diagnosis right"]["high"]
    assert results.values["verdicts"]["gan"].startswith("Readers tell the images of gan from real ones: accuracy 0.")
    assert results.values["notes"] == []
    several = {entry["what"]: entry for entry in results.values["agreement"] if entry["who"] == "between readers"}
    assert several["Fleiss' kappa of real or generated"]["n"] == 48
    alpha = several["Krippendorff's alpha of scores (ordinal)"]
    assert 0 < alpha["low"] < alpha["value"] < alpha["high"] < 1
    own = [entry for entry in results.values["agreement"] if entry["who"] == "Bo"]
    assert [(entry["what"], entry["n"]) for entry in own[:2]] == [("same call again", 7), ("same choice again", 3)]
    assert {entry["low"] for entry in own} == {None}  # too few
    check_report(browser, results)


def area_of_scores(skill: float) -> float:
    """The AUC of a reader's five scores."""
    ends = np.array([-np.inf, -1.2, -0.4, 0.4, 1.2, np.inf])
    real, generated = (np.diff(stats.norm.cdf(ends - shift * skill)) for shift in (0.5, -0.5))
    below = np.cumsum(generated) - generated
    return float((real * (below + generated / 2)).sum())


def check_report(browser: Any, results: Results) -> None:
    """It is one file with all tables, and nothing is cut off on a phone."""
    text = results.report.read_text(encoding="utf-8")
    for part in ("What was found", "Agreement", "Methods, to paste", "Flow of images", "called real most often"):
        assert part in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    phone = browser.new_page(viewport=PHONE)
    phone.goto(results.report.as_uri())
    assert phone.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    phone.close()
    tables = ["findings", "readers", "agreement", "diagnoses", "flow"]
    assert all((results.folder / f"{name}.{end}").is_file() for name in tables for end in ("csv", "tex"))
    with open(results.folder / "answers.csv", encoding="utf-8") as file:
        answers = list(csv.DictReader(file))
    assert len(answers) == 3 * 76
    right = np.mean([row["right"] == "1" for row in answers if row["beside"] and not row["repeats"]])
    assert right == pytest.approx(next(e["value"] for e in results.values["findings"] if e["what"] == "pairs right"))
    assert json.loads((results.folder / "metrics.json").read_text())["protocol"]["shown"] == 76


def test_pairs_on_a_phone_by_touch(browser: Any, sources: list[str], tmp_path: Path) -> None:
    run(tmp_path / "out", *sources, "readers.images=0", "readers.pairs=3", "readers.repeats=0.0")
    page = tmp_path / "out" / "for-readers" / "page.html"
    phone = Person(browser, page, viewport=PHONE, has_touch=True, is_mobile=True)
    assert phone.place == "Pair 1 of 3, 0 rated"
    left, right = (phone.page.locator(name).bounding_box() for name in ("#image", "#right"))
    assert left["width"] == right["width"] > 150
    assert left["y"] == right["y"]
    assert phone.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    phone.page.locator("#right").tap()  # the image itself is a button
    assert phone.place == "Pair 2 of 3, 1 rated"
    phone.page.get_by_role("button", name="left").tap()
    phone.page.locator("#undo").tap()
    assert phone.place == "Pair 2 of 3, 1 rated"
    phone.type("o")  # no field for a diagnosis is there
    phone.type("2 1")
    assert phone.message == "All 3 pairs are rated: save the ratings."
    phone.reload("Welcome back: 3 of 3 pairs are rated.")
    rows = list(csv.DictReader(io.StringIO(phone.saved()[1].decode())))
    assert [row["call"] for row in rows] == ["right", "right", "left"]
    phone.close()


def test_half_a_reader_and_one_who_comes_under_two_names(
    sources: list[str], tmp_path: Path, fixed_secret: None
) -> None:
    out = tmp_path / "out"
    run(out, *sources, *SMALL)
    key = key_of(out)
    whole = Simulated("Ada", 1.0, 0).answers(key)
    save(out, "Ada", dict(list(whole.items())[:10]), key.digest)
    alone = run(out, *sources, *SMALL)
    assert "one reader: the intervals are over images alone, and say nothing of other readers" in alone.values["notes"]
    assert "over readers and" not in alone.report.read_text(encoding="utf-8") + (out / "findings.tex").read_text()
    save(out, "Bo", {key.images[-1].id: {"call": "left"}}, key.digest)  # too little for any value
    alone = run(out, *sources, *SMALL)
    assert "one reader: the intervals are over images alone, and say nothing of other readers" in alone.values["notes"]
    assert "over readers and" not in alone.report.read_text(encoding="utf-8") + (out / "findings.tex").read_text()
    other = Simulated("Bo", 1.0, 1).answers(key)
    save(out, "Bo", other, key.digest)
    save(out, "Di", other, "")
    results = run(out, *sources, *SMALL)
    assert results.values["notes"] == [
        "Ada answered 10 of 20, and counts with these", "Bo, Di gave the same answers to everything: one file twice?",
    ]  # fmt: skip
    report = results.report.read_text(encoding="utf-8")
    assert "Ada answered 10 of 20" in report
    found = {entry["what"]: entry for entry in results.values["findings"] if entry["source"] == "gan"}
    assert found["accuracy"]["readers"] == 3
    assert found["pairs right"]["by_reader"]["Ada"] is None
    assert found["pairs right"]["readers"] == 2
    of_few = Answers(key, tuple(rater for rater in read_answers(out, key).raters if rater.name == "Ada"))
    shown = by_calls(of_few, "gan")  # what nobody called is not among them
    calls = [whole[image.id]["call"] for image in shown]
    assert calls == sorted(calls, reverse=True)
    assert len(calls) == sum(
        image.source == "gan" and image.id in list(whole)[:10] for image in of_few.shown_first(pairs=False)
    )
    picture = out / "for-readers" / "images" / shown[0].files[0]
    picture.write_bytes(picture.read_bytes()[:60])
    with pytest.raises(DataError, match=rf"{shown[0].id}\.png cannot be .*; replace it or take it out"):
        run(out, *sources, *SMALL)


def test_d_prime_of_pairs_is_corrected_for_answers_and_its_interval_is_that_of_the_share() -> None:
    """Readers who are always right may have any greater d', so that no end is made finite."""
    table = np.ones((3, 10))
    table[2, 1:] = np.nan  # too little for a value
    right = {"value": 1.0, "low": 0.8, "high": 1.0, "cases": 10, "by_reader": {"Ada": 1.0, "Bo": 1.0, "Di": None}}
    found = _discrimination(right, table)
    root, z = math.sqrt(2), stats.norm.ppf
    assert found["value"] == pytest.approx(root * z(20.5 / 21))
    assert found["by_reader"] == {"Ada": (one := pytest.approx(root * z(10.5 / 11))), "Bo": one, "Di": None}
    assert interval(found, digits=2) == f"{found['value']:.2f} [{root * z(0.8):.2f}, inf]"
    unknown = _discrimination({**right, "low": 0.0}, table)
    assert interval(unknown, digits=2) == f"{found['value']:.2f} [-inf, inf]"
    assert interval(_discrimination({**right, "low": None, "high": None}, table), digits=2) == f"{found['value']:.2f}"


def test_readers_who_choose_alike_agree(sources: list[str], tmp_path: Path, fixed_secret: None) -> None:
    out, settings = tmp_path / "out", [*sources, "readers.images=0", "readers.pairs=12", "readers.repeats=0"]
    run(out, *settings)
    key = key_of(out)
    for seed, name in enumerate(("Ada", "Bo")):
        save(out, name, Simulated(name, 30.0, seed).answers(key), key.digest)  # they see the real one every time
    results = run(out, *settings)
    assert results.values["agreement"] == [
        {"who": "between readers", "what": "Fleiss' kappa of pairs", "value": 1.0, "low": None, "high": None, "n": 12}
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given, key: (given | {"0" * 12: {"call": "real"}}, key.digest, {}), "there is no image '000000000000'"),
        (lambda given, key: (given, "f" * 64, {}), "of another set .* move the file out"),
        (lambda given, key: (given, key.digest, {"name": "Ada again"}), "Ada is the rater of two files"),
        (lambda given, key: (given | {key.images[0].id: {"call": "left"}}, key.digest, {}), "is one image, for which"),
        (lambda given, key: (given | {key.images[-1].id: {"call": "real"}}, key.digest, {}), "is a pair, for which"),
        (lambda given, key: (given | {key.images[-1].id: {"score": "3"}}, key.digest, {}), "is a pair: give the call"),
        (
            lambda given, key: (given | {key.images[-1].id: {"call": "left", "score": "3"}}, key.digest, {}),
            "is a pair: give the call left or right, and nothing else",
        ),
        (lambda given, key: (given | {key.images[0].id: {"score": "35"}}, key.digest, {}), "the score 35, which is no"),
        (lambda given, key: (given | {key.images[0].id: {"score": "2.5"}}, key.digest, {}), "has the score 2.5, which"),
        (
            lambda given, key: (given | {key.images[0].id: {"call": "maybe"}}, key.digest, {}),
            "neither real nor generat",
        ),
        (lambda given, key: (given | {key.images[0].id: {}}, key.digest, {}), "the score '' is not a number"),
    ],
)
def test_ratings_that_cannot_be_of_this_set(sources: list[str], tmp_path: Path, change: Any, message: str) -> None:
    out = tmp_path / "out"
    run(out, *sources, *SMALL)
    key = key_of(out)
    whole = Simulated("Ada", 1.0, 0).answers(key)
    save(out, "Ada", whole, key.digest)
    answers, digest, more = change(whole, key)
    save(out, "Ada", answers, digest, **more)
    with pytest.raises(DataError, match=message) as caught:
        run(out, *sources, *SMALL)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_place_of_the_folder_of_ratings(sources: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, *sources, *SMALL)
    (out / "ratings").rmdir()
    (out / "ratings").touch()
    with pytest.raises(FileExistsError) as caught:
        run(out, *sources, *SMALL)
    assert (
        plain_words(caught.value)
        == f"{out / 'ratings'}: a file is in the place of a folder: move it, or choose another folder"
    )


def test_files_that_are_no_ratings_and_a_key_that_was_changed(sources: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, *sources, *SMALL)
    for name, text, message in (
        ("notes.txt", "x", "notes.txt is not a CSV or JSON file of ratings"),
        ("a.json", "{", "a.json does not hold the progress of a page"),
        ("a.json", "[]", r"a.json does not hold the progress of a page \(Input should be an object\): save"),
        ("a.json", '{"key": "", "rater": "Ada", "answers": {}}', "a.json holds no answer"),
        ("a.csv", "image,score", "has a header and no rows"),
    ):
        (out / "ratings" / name).write_text(text)
        with pytest.raises(GankitError, match=message):
            run(out, *sources, *SMALL)
        (out / "ratings" / name).unlink()
    key = out / "key.json"
    key.write_text(key.read_text().replace('"label": "left"', '"label": "right"'))
    with pytest.raises(RunError, match="was changed since the set was sealed"):
        run(out, *sources, *SMALL)
