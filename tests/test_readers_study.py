"""The study of readers: the blinded set, its key, and sources that do not serve."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import readers_data
from PIL import Image
from rating_person import data_of
from readers_data import SMALL, arrays, key_of, run, save, study

from gankit.errors import DataError, SettingsError
from gankit.evaluation.sources import Drawn
from gankit.ranking import write_page
from gankit.ranking.key import Key, new_ids, read_key
from gankit.studies.commands import own_options
from gankit.studies.readers.blinding import seal_set

sources = readers_data.sources


def test_the_set_is_blinded_and_the_key_tells(sources: list[str], tmp_path: Path) -> None:
    done = study(*sources, *SMALL)
    out = tmp_path / "telltale-study"
    results = done.run(out, quiet=True)
    key, page = key_of(out), out / "for-readers" / "page.html"
    content, text = data_of(page), page.read_text(encoding="utf-8")
    assert content["key"] == key.digest
    assert [image["id"] for image in content["images"]] == [image.id for image in key.images]
    for secret in ("telltale", "gan.npz", key.secret, "seed"):
        assert secret not in text
    assert "generated" in text
    # 6 + 6 single ones and 4 pairs, a quarter of either again
    assert [image.is_pair for image in key.images] == [False] * 15 + [True] * 5
    shown = [picture for image in key.images if not image.repeats for picture in image.pictures]
    assert len({(picture.source, picture.number) for picture in shown}) == len(shown) == 20
    place = {image.id: i for i, image in enumerate(key.images)}
    for image in key.images:
        if image.repeats:
            first = key.images[place[image.repeats]]
            assert place[first.id] < place[image.id]
            assert image.pictures == first.pictures[::-1]  # the sides of a pair are exchanged
    for image in key.images:
        if image.is_pair:
            assert {picture.source for picture in image.pictures} == {"real", "gan"}
    # Pictures are pixels of one codec.
    files = sorted((out / "for-readers" / "images").iterdir())
    assert [path.name for path in files] == sorted(name for image in key.images for name in image.files)
    with np.load(sources[0].partition("=")[2]) as real:
        image = next(each for each in key.images if each.pictures[0].source == "real" and not each.is_pair)
        picture = Image.open(io.BytesIO((out / "for-readers" / "images" / image.files[0]).read_bytes()))
        assert np.array_equal(np.asarray(picture), real["images"][image.pictures[0].number])
    assert {path.read_bytes()[:33] for path in files} == {files[0].read_bytes()[:33]}  # of one PNG header
    # Nothing is judged yet, and the same call writes no other set.
    assert "give readers" in done.summary(results)
    assert "No ratings yet" in results.report.read_text(encoding="utf-8")
    run(out, *sources, *SMALL)
    assert key_of(out) == key


def test_the_real_image_of_a_pair_is_on_either_side(sources: list[str]) -> None:
    pairs = study(*sources, "readers.images=0", "readers.pairs=40", "readers.repeats=0")
    left = [shown.pictures[0].source == "real" for shown in seal_set(pairs, pairs.opened).images]
    assert 4 < sum(left) < 36  # missed by chance once in ten million times


def test_real_images_of_a_run_are_its_held_out_ones(sources: list[str], tmp_path: Path, small: Any) -> None:
    import gankit

    deep = {"images": np.random.default_rng(0).integers(0, 4096, (60, 12, 12), dtype=np.uint16)}
    np.savez(tmp_path / "deep.npz", **deep)
    own = [f"data.path={tmp_path / 'deep.npz'}", "data.value_range=[0, 4095]", "training.steps=1", "data.held_out=0.5"]
    trained = gankit.train(gankit.load("wgan-gp", *small(*own)), tmp_path / "gan")
    others = [f"readers.generated.other={tmp_path / 'deep.npz'}", "readers.images=3", "readers.pairs=2"]
    key = study(*others, f"readers.generated.gan={trained.path}").opened  # whichever is named first
    assert key["real"].what == "held-out images"
    assert len(key["gan"].images) == 5
    assert key["other"].images.value_range == (0, 4095)  # the run says which values are black and white
    everything = study(f"readers.generated.gan={trained.path}", "readers.images=30")
    with pytest.raises(DataError, match="50 images of real are to be shown, and held-out images has"):
        _ = everything.opened


def test_images_drawn_with_conditions_have_no_class(one_step_runs: dict[str, Any], tmp_path: Path) -> None:
    """Their data have classes too, by which the real images are known."""
    conditioned = one_step_runs["condition"]
    run(tmp_path / "out", f"readers.generated.gan={conditioned.path}", *SMALL)
    shown = [picture for image in key_of(tmp_path / "out").images for picture in image.pictures]
    assert {picture.label for picture in shown if picture.source == "gan"} == {""}
    assert {picture.label for picture in shown if picture.source == "real"} <= {"left", "right"}
    for source, numbers in ((conditioned, True), (Drawn(conditioned, 6), False)):
        page = write_page([source], tmp_path / f"page-{numbers}", 6, real=9, against=conditioned)
        images = read_key(page.parent / "key.json", Key)[0].images
        assert all(bool(image.label) == numbers for image in images if not image.real)
        assert {image.label for image in images if image.real} <= {"left", "right"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["readers.real=none"], "no real images are named, and no source is a run"),
        (["readers.images=70"], "90 images of real are to be shown, and .* has 80: lower readers.images"),
        (["readers.images=50"], "70 images of gan are to be shown, and .* has 60: lower readers.images"),
    ],
)
def test_sources_that_do_not_serve(sources: list[str], tmp_path: Path, settings: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(tmp_path / "out", *sources, *settings)
    assert not (tmp_path / "out").exists()


def test_real_images_among_the_generated_ones_are_told_before_anyone_rates(sources: list[str], tmp_path: Path) -> None:
    settings = [sources[0], sources[0].replace("readers.real", "readers.generated.gan"), "readers.images=40"]
    done = study(*settings, "readers.pairs=0")
    summary = done.summary(done.run(tmp_path / "out", quiet=True))
    assert re.search(r"note: gan: \d+ of 40 generated images equal a real image or its mirror image", summary)


def test_readers_choose_between_classes_not_their_spellings(sources: list[str], tmp_path: Path) -> None:
    path = Path(sources[1].partition("=")[2])
    with np.load(path) as gan:
        np.savez(tmp_path / "gan.npz", images=gan["images"], labels=gan["labels"], class_names=["Left", "upper"])
    # 45 of 80 and of 60 images, half of them of either class: whatever is drawn has both
    settings = [sources[0], f"readers.generated.gan={tmp_path / 'gan.npz'}", "readers.images=45", "readers.pairs=2"]
    run(tmp_path / "out", *settings)
    key = key_of(tmp_path / "out")
    assert key.classes == ("left", "right", "upper")
    save(tmp_path / "out", "Ada", {image.id: right_answer(image) for image in key.images}, key.digest)
    rows = run(tmp_path / "out", *settings).values["diagnoses"]
    assert {(row["source"], row["class"]) for row in rows if row["right"] == row["images"]} >= {
        ("real", "left"), ("gan", "left"), ("gan", "upper")
    }  # fmt: skip


def right_answer(image: Any) -> dict[str, str]:
    """What a reader says who knows the key."""
    if image.is_pair:
        return {"call": "left" if image.pictures[0].source == "real" else "right"}
    picture = image.pictures[0]
    return {"diagnosis": picture.label, "call": "real" if picture.source == "real" else "generated"}


def test_ids_are_no_numbers_for_a_spreadsheet() -> None:
    assert all(name[0].isalpha() for name in new_ids("7" * 64, 500))


def test_images_of_another_size_are_refused(sources: list[str], tmp_path: Path) -> None:
    large = arrays(tmp_path / "large.npz", 60, 2, size=16)
    with pytest.raises(DataError, match=r"1 x 16 x 16 .* 1 x 12 x 12, which would give them away"):
        run(tmp_path / "out", *sources, f"readers.generated.large={large}", "readers.images=10")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "no source of generated images"),
        (["readers.generated.real=x"], "'real' is what the real images are called"),
        (["readers.generated.gan=x", "readers.images=0", "readers.pairs=0"], "nothing to show"),
        (["readers.generated.gan=x", "readers.repeats=0.6"], "readers.repeats"),
    ],
)
def test_settings_that_do_not_serve(settings: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        study(*settings)


def test_names_of_sources_may_have_hyphens() -> None:
    words = own_options("readers", ["--generated.my-gan", "runs/gan", "--real=scans"])
    assert words == ["readers.generated.my-gan=runs/gan", "readers.real=scans"]
    assert study(*words).settings.generated == {"my-gan": "runs/gan"}
