"""Tables of values: digits, names, what a row means, files for a paper, and what is added to a metrics file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gankit
from gankit import GankitError
from gankit.evaluation.comparison import check_files, read_metrics, write_evaluation, write_metrics
from gankit.evaluation.entries import evaluate_metric
from gankit.evaluation.latex import tabular
from gankit.evaluation.tables import Evaluated, cells, html, notes, text_table, title, with_error
from gankit.interfaces import Meaning, Metric, Pool, Rows
from gankit.registry import registry
from gankit.registry.parts import list_parts, valid_part

Small = Callable[..., list[str]]


def noise(n: int, seed: int, shift: float = 0) -> np.ndarray:
    draw = np.random.default_rng(seed).normal(120 + shift, 20, (n, 1, 8, 8))
    return np.clip(np.rint(draw), 0, 255).astype(np.uint8)


def evaluate(*metrics: Any, fake: Any = None, real: Any = None, **more: Any) -> Evaluated:
    fake, real = (noise(40, 1, 5) if fake is None else fake), (noise(50, 2) if real is None else real)
    return gankit.evaluate(fake, real, list(metrics) or None, "pixels", **more)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (252.834, 1.94, "252.8 ± 1.9"),
        (0.57832, 0.00633, "0.5783 ± 0.0063"),
        (0.99, 0.0996, "0.99 ± 0.10"),  # the error has two digits after it is rounded
        (25283.0, 1940.0, "25300 ± 1900"),
        (-1e-9, 0.0123, "0.000 ± 0.012"),
        (1.2345e-7, 1.2e-9, "1.235e-07 ± 1.2e-09"),
        (0.77654, None, "0.7765"),
        (0.77654, math.nan, "0.7765"),
        (math.inf, 1e-10, "inf"),
    ],
)
def test_a_value_has_the_digits_of_its_error(value: float, error: float | None, text: str) -> None:
    assert with_error(value, error) == text


class Jumpy(Metric):
    """A share whose jackknife fails: leaving out any image moves it far."""

    meanings = {"jumpy": Meaning("how many", "higher", share=True), "still": Meaning("nothing", "", share=True)}

    def compute(self, real: Rows, fake: Rows) -> dict[str, float]:
        odd = int(fake.required("features").sum()) % 2
        return {"jumpy": 0.7765 + 0.22 * odd * (fake.count < 40), "still": 1 - 1e-16 * fake.count}


def test_an_error_that_means_nothing_is_none() -> None:
    gankit.metrics.register("jumpy")(Jumpy)
    real, fake = (Rows(features=noise(n, n)[:, 0, 0]) for n in (50, 40))
    entries, _ = evaluate_metric(valid_part("metric", "jumpy", {}), Pool(real, fake), 0)
    assert entries["jumpy"]["standard_error"] is None  # above 0.6: no share of this mean spreads so far
    assert entries["still"]["standard_error"] is None  # 4e-15: rounding


def test_every_row_names_its_features_and_what_is_better() -> None:
    report = evaluate("fid", "kid", "precision-recall", "variance-ratio", "memorisation", "leakage")
    table = {row[0]: row[1] for row in cells(report)[1:]}
    assert table["FD (pixels)"] == table["KID (pixels)"] == table["near-copies (pixels)"] == "lower"
    assert table["recall (pixels)"] == table["density (pixels)"] == "higher"
    assert (table["variance-ratio (pixels)"], table["memorisation (pixels)"]) == ("1", "0.5")
    assert table["leakage"] == table["exact duplicates"] == "lower"  # they read no features
    notes = text_table(report)
    for name in ("FD", "KID", "coverage", "memorisation distance", "exact duplicates"):
        assert f"\n{name}: " in notes


@pytest.mark.parametrize("name", registry("metric").built_in())
def test_every_value_of_gankit_s_own_metrics_has_a_meaning(name: str) -> None:
    metric = valid_part("metric", name, {}).build()
    images = gankit.wrap("dataset", noise(90, 0), labels=np.arange(90) % 2)
    logits = gankit.wrap("features", lambda images: images.mean((2, 3)), dim=1)
    if name == "inception-score":
        assert all(metric.meaning(value).words for value in ("inception-score", "inception-score of reals"))
        return
    report = gankit.evaluate(images, images, [name], logits)
    assert all(metric.meaning(value).words or " of " in value for value in report["metrics"])


def test_a_table_on_pixels_says_what_they_cannot_see() -> None:
    report = evaluate("kid")
    for shown in (text_table(report), html(report)):
        assert "pixels see layout and colour, not shapes" in shown
    assert "pixels see" not in text_table({**report, "protocol": report["protocol"] | {"features": "other"}})


def test_counts_stand_in_rows_only_where_they_differ() -> None:
    assert cells(evaluate("kid"))[0] == ["metric", "better", "value", "real-real", "fake-real"]
    other = evaluate("kid", "memorisation", training=noise(70, 3))
    assert {"n real"} < set(cells(other)[0])
    assert "fake: fake, 40 images   real: real, 50 images" in text_table(other)


def test_values_by_class_where_both_sides_have_classes(arrays: Path) -> None:
    report = gankit.evaluate(arrays, arrays, features="pixels")
    assert [name for name in report["metrics"] if " of " in name] == ["kid of 0", "kid of 1"]
    assert "kid within classes" not in gankit.evaluate(arrays, arrays, ["kid"], "pixels")["metrics"]
    alone = gankit.wrap("dataset", noise(20, 0), labels=np.arange(20) % 2, class_names=("a", "b"))
    strange = gankit.wrap("dataset", noise(20, 1), labels=np.arange(20) % 2, class_names=("c", "d"))
    other = gankit.evaluate(alone, strange, features="pixels")
    assert "frechet" in other["metrics"]
    assert any("intra-class is left out" in warning for warning in other["protocol"]["warnings"])


def test_files_of_close_pairs_are_named(tmp_path: Path) -> None:
    for folder, names in (("test", ("new", "copy")), ("train", ("a", "b", "c"))):
        (tmp_path / folder).mkdir()
        for seed, name in enumerate(names):
            shown = 2 if name in ("copy", "c") else 10 * len(folder) + seed
            Image.fromarray(noise(1, shown)[0, 0]).save(tmp_path / folder / f"{name}.png")
    report = gankit.evaluate(tmp_path / "test", tmp_path / "train", ["leakage"], "pixels")
    assert "leakage: among the closest pairs: copy.png and c.png, distance 0" in text_table(report)
    assert "closest pairs:" not in text_table(evaluate("memorisation"))  # arrays have no files


def test_an_evaluation_is_a_dictionary_that_shows_its_table() -> None:
    report = evaluate("kid")
    assert repr(report) == str(report) == text_table(report)
    assert json.loads(json.dumps(report)) == report
    assert repr(Evaluated(a=1)) == "{'a': 1}"

    class Cells(HTMLParser):
        found: list[str] = []

        def handle_data(self, data: str) -> None:
            self.found.append(data)

    page = Cells()
    page.feed(report._repr_html_())
    assert "KID (pixels)" in page.found
    assert with_error(report["metrics"]["kid"]["value"], report["metrics"]["kid"]["standard_error"]) in page.found
    assert "<b>" not in html({**report, "protocol": report["protocol"] | {"fake": "<b>"}})


def test_tables_for_a_paper_and_a_spreadsheet(tmp_path: Path) -> None:
    report = evaluate("kid", "variance-ratio")
    for name in ("t.tex", "t.csv"):
        assert write_evaluation(report, tmp_path / name) == f"written to {tmp_path / name}"
    entry = report["metrics"]["kid"]
    shown = with_error(entry["value"], entry["standard_error"]).replace("±", r"$\pm$")
    tex = (tmp_path / "t.tex").read_text()
    assert rf"KID (pixels) $\downarrow$ & {shown} & " in tex
    assert "variance-ratio (pixels) (best: 1) & " in tex
    with open(tmp_path / "t.csv", encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert (first["metric"], first["features"], first["better"]) == ("kid", "pixels", "lower")
    assert float(first["value"]) == entry["value"]
    assert float(first["real_real"]) == entry["real_vs_real"]["value"]


def test_files_are_checked_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for option, name, message in (("--tex", "a.csv", "must end in .tex"), ("--csv", "no/a.csv", "cannot be written"),
                                  ("--out", "notes.txt", "is not a metrics file")):  # fmt: skip
        with pytest.raises(GankitError, match=message):
            check_files({option: tmp_path / name})
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["labels.csv", "paper.tex"])
def test_files_of_others_are_not_written_over(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("file,label\n")
    option = f"--{path.suffix[1:]}"
    with pytest.raises(GankitError, match="holds something else than a table of gankit: name another file"):
        check_files({option: path})
    path.write_text("")
    for _ in range(2):  # an empty file, then the table
        check_files({option: path})
        write_evaluation(evaluate("kid"), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content["metrics"]["kid"].pop("value"), r"metrics\.kid\.value: Field required"),
        (lambda content: content["metrics"]["kid"].update(value="0.1"), r"metrics\.kid\.value: .*valid number"),
        (lambda content: content["protocol"].pop("warnings"), r"protocol\.warnings: Field required"),
        (lambda content: content.update(metrics=[]), "metrics: .*dictionary"),
    ],
)
def test_damaged_metrics_files_are_named(damage: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    content = json.loads(json.dumps(evaluate("kid")))
    damage(content)
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(GankitError, match=rf"metrics\.json is not a metrics file of gankit evaluate: {message}"):
        read_metrics(tmp_path / "metrics.json")


def test_titles_of_values_that_start_with_a_sign() -> None:
    assert title("% sharp", "") == "% sharp"
    assert title("", "pixels") == " (pixels)"


def test_values_are_added_to_a_metrics_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_metrics(evaluate("kid", permutations=9), path)
    write_metrics(evaluate("fid", {"name": "precision-recall", "k": 2}), path)
    assert "added to" in write_metrics(evaluate("kid", {"name": "precision-recall", "k": 3}), path)
    stored = read_metrics(path)
    assert set(stored["metrics"]) >= {"kid", "frechet", "precision", "precision-2", "coverage-2"}
    assert "p_value" in stored["metrics"]["kid"]
    assert [stored["metrics"][name]["metric"]["k"] for name in ("precision", "precision-2")] == [2, 3]
    assert "precision-2: share of generated images that are near real ones: quality (k 3)" in text_table(stored)
    both = evaluate({"name": "precision-recall", "k": 3}, {"name": "precision-recall", "k": 2})
    write_metrics(both, path)
    assert set(read_metrics(path)["metrics"]) == set(stored["metrics"])


def test_a_number_that_ends_a_class_s_name_is_part_of_it(tmp_path: Path) -> None:
    real, fake = (
        gankit.wrap("dataset", noise(40, seed), labels=np.arange(40) % 2, class_names=("grade", "grade-2"))
        for seed in (1, 2)
    )
    report = evaluate({"name": "intra-class", "metric": "kid"}, fake=fake, real=real)
    assert {"kid of grade", "kid of grade-2"} < set(report["metrics"])
    assert "KID of grade-2" not in "\n".join(notes(report))  # only the mean over the classes is explained
    for _ in range(2):
        write_metrics(report, tmp_path / "metrics.json")
        assert read_metrics(tmp_path / "metrics.json")["metrics"] == report["metrics"]


def test_of_an_old_value_only_its_p_value_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    report = evaluate("kid", permutations=9)
    write_metrics(report, path)
    entry = report["metrics"]["kid"]
    new = {key: value for key, value in entry.items() if key not in ("real_influences", "fake_variance", "p_value")}
    write_metrics({**report, "metrics": {"kid": new}}, path)
    assert read_metrics(path)["metrics"]["kid"] == new | {"p_value": entry["p_value"]}
    other = new | {"value": 2 * entry["value"]}
    write_metrics({**report, "metrics": {"kid": other}}, path)
    assert read_metrics(path)["metrics"]["kid"] == other


def test_exponents_in_a_paper_are_powers_of_ten() -> None:
    table = tabular(["a"], [("", [["1.235e-07 ± 1.2e-09"], ["-3e+06"], ["fold-1e-2"], ["run-12"], ["-0.5"]])])
    for line in (r"$1.235 \cdot 10^{-7}$ $\pm$ $1.2 \cdot 10^{-9}$", r"$-3 \cdot 10^{6}$", "run-12", "$-$0.5"):
        assert f"\n{line} \\\\\n" in table
    assert "fold-1e-2" in table


def test_values_of_another_protocol_are_kept_in_a_file_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    first = evaluate("kid")
    write_metrics(first, path)
    others = ((1, "fake images", evaluate("kid", fake=noise(40, 9))), (2, "fake images", evaluate("kid", seed=1)))
    for number, fact, other in others:
        there = tmp_path / f"metrics-{number}.json"
        assert f"; what was there differs in {fact}, and is now in {there}" in write_metrics(other, path)
    assert read_metrics(tmp_path / "metrics-1.json") == first
    assert read_metrics(path)["protocol"]["seed"] == 1


def test_adding_a_metric_that_reads_training_images_keeps_others_comparable(tmp_path: Path) -> None:
    path, training = tmp_path / "metrics.json", noise(60, 3)
    write_metrics(evaluate("kid"), path)
    write_metrics(evaluate("memorisation", training=training), path)
    assert gankit.compare(evaluate("kid"), path)["kid"]["difference"] == 0
    with pytest.raises(GankitError, match="training_content"):
        gankit.compare(evaluate("memorisation"), evaluate("memorisation", training=training))


def test_a_run_is_evaluated_as_its_settings_say(small: Small, tmp_path: Path) -> None:
    settings = small("training.steps=1", "evaluation.count=12", "evaluation.seed=3", 'evaluation.metrics=["kid"]')
    run = gankit.train(gankit.load("wgan-gp", *settings), tmp_path / "run")
    report = gankit.evaluate(str(run.path))
    assert (report["protocol"]["n_fake"], report["protocol"]["seed"]) == (12, 3)
    assert list(report["metrics"]) == ["kid"]
    assert gankit.evaluate(run, run, ["kid"], "pixels", count=12, seed=3) == report
    with pytest.raises(GankitError, match="say which real images"):
        gankit.evaluate(noise(5, 0))


def test_a_run_made_before_better_features_were_installed_is_judged_with_them(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [override for override in small("training.steps=2", "training.tick_every=1", "evaluation.every=1")
                if "features" not in override]  # fmt: skip
    for module in ("runs.record", "evaluation.extraction"):
        monkeypatch.setattr(f"gankit.{module}.default_features", lambda: "pixels")
    run = gankit.train(gankit.load("wgan-gp", *settings), tmp_path / "run")
    assert "features" not in run.experiment.tables()["evaluation"]
    assert run.experiment.run is not None
    assert run.experiment.run.features == "pixels"  # the best generator is chosen with these to the end
    gankit.features.register("better")(gankit.wrap("features", lambda images: images.mean((2, 3)), dim=3))
    monkeypatch.setattr("gankit.evaluation.extraction.default_features", lambda: "better")
    monkeypatch.setattr("gankit.runs.record.default_features", lambda: "better")
    assert gankit.evaluate(run)["protocol"]["features"] == "better"
    from gankit.runs.record import record_run

    facts = {"image": run.experiment.run.image, "device": "cpu"}
    data = gankit.wrap("dataset", noise(9, 0))
    assert record_run(run.experiment, data, **facts).features == "pixels"


def test_a_recipe_s_name_is_trained(small: Small, tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    file.write_text(gankit.load("wgan-gp", *small("training.steps=1")).toml())
    assert gankit.train(file, tmp_path / "run").finished
    with pytest.raises(GankitError, match="there is no recipe or file 'demmo'; did you mean 'demo'"):
        gankit.train("demmo", tmp_path / "other")


def test_fid_is_the_frechet_distance_unless_something_else_has_the_name() -> None:
    assert list(evaluate("fid")["metrics"]) == ["frechet"]
    assert gankit.load("wgan-gp", 'evaluation.metrics=["fid"]').evaluation.metrics[0].name == "frechet"
    assert list_parts("metric")[0][0].split() == ["frechet", "metric", "gankit", "also", "fid"]
    gankit.metrics.register("fid")(Jumpy)
    assert registry("metric").get("fid") is Jumpy
    assert "also" not in "".join(list_parts("metric")[0])


def test_objects_show_themselves(small: Small, tmp_path: Path) -> None:
    run = gankit.train(gankit.load("wgan-gp", *small("training.steps=1", "data.conditional=true")), tmp_path / "run")
    assert str(run) == f"Run {run.path}: step 1 of 1, 40 training images of 3 x 8 x 8"
    assert str(gankit.open_run("eyes")).endswith(
        "pretrained/eyes: comes with gankit, 2700 training images of 3 x 32 x 32"
    )
    assert str(run.experiment) == repr(run.experiment) == run.experiment.toml()
    data = gankit.wrap("dataset", noise(5, 0), labels=np.array([0, 1, 1, 0, 1]), class_names=("dark", "bright"))
    assert str(data).endswith(": 5 images of 1 x 8 x 8, 2 dark, 3 bright")
    assert str(gankit.build("dataset", "folder", path=tmp_path / "no")).startswith("Folder: ")  # an error is shown
    ranking = gankit.rank(run, 6, 2)
    assert str(ranking).startswith(f"best:  {ranking.best[0]} (")
    for shown in (run, data, ranking):
        page = shown._repr_html_()
        assert "data:image/png;base64," in page
        assert len(page) < 100_000
    (run.path / "generator.safetensors").unlink()
    assert "<img" not in run._repr_html_()
