"""The rating page: sealed bytes that tell nothing of its images."""

from __future__ import annotations

import base64
import html
import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rating_pages
from PIL import Image
from rating_pages import CLASSES, SEED, key_of
from rating_person import data_of

import gankit
from gankit.errors import GankitError
from gankit.images.pictures import image_png
from gankit.ranking import write_page
from gankit.ranking.page import class_keys

page = rating_pages.page
run = rating_pages.run


def pixels(entry: dict[str, str]) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["src"].partition(",")[2]))))


def test_the_page_shows_the_images_of_the_key(page: Path, run: gankit.Run) -> None:
    from gankit.evaluation.sources import run_data

    reals = run_data(run)[1]
    assert reals is not None
    assert reals.labels is not None
    drawn, key = run.sample(5, seed=SEED), key_of(page)
    labels = run.draw(5, None, SEED)[1]
    assert labels is not None
    shown = data_of(page)["images"]
    assert [image["id"] for image in shown] == [image.id for image in key.images]
    assert sorted(image.number for image in key.images if not image.real) == list(range(5))
    assert len({image.number for image in key.images if image.real}) == 3
    for entry, image in zip(shown, key.images, strict=True):
        expected = reals.read(np.array([image.number]))[0] if image.real else drawn[image.number]
        assert np.array_equal(pixels(entry), expected.transpose(1, 2, 0))
        assert image.label == CLASSES[reals.labels[image.number] if image.real else labels[image.number]]


def test_the_page_tells_nothing_of_its_images(page: Path, run: gankit.Run) -> None:
    text, key = page.read_text(encoding="utf-8"), key_of(page)
    for secret in (str(SEED), run.path.name, "telltale", key.secret, key.secret[:16], key.sources[0].content,
                   "held-out", str(run.path), gankit.__version__):  # fmt: skip
        assert secret not in text
    content = data_of(page)
    assert set(content) == {"key", "images", "classes", "calls"}
    assert content["key"] == key.digest
    for entry in content["images"]:
        assert set(entry) == {"id", "src"}
        assert re.fullmatch("[0-9a-f]{12}", entry["id"])
    assert len({image.id for image in key.images}) == 8
    # What stands outside the data is the same whatever the images are.
    other = write_page(run, run.path / "other", 7, seed=3, real=1, label="up & down")
    bare = [re.sub(r'(id="data">).*?(</script>)', r"\1\2", path.read_text(encoding="utf-8")) for path in (page, other)]
    assert bare[0] == bare[1]


def test_pictures_hold_pixels_only_and_come_from_one_encoder(page: Path) -> None:
    heads = set()
    for entry in data_of(page)["images"]:
        content, place, chunks = base64.b64decode(entry["src"].partition(",")[2]), 8, []
        while place < len(content):
            (length,) = struct.unpack(">I", content[place : place + 4])
            chunks.append(content[place + 4 : place + 8])
            place += 12 + length
        assert chunks == [b"IHDR", b"IDAT", b"IEND"]
        heads.add(content[:33])
    assert len(heads) == 1


def test_order_ids_and_choice_come_of_a_fresh_secret(page: Path, run: gankit.Run, tmp_path: Path) -> None:
    keys = [key_of(page), *(key_of(write_page(run, tmp_path / str(i), 5, seed=SEED, real=3)) for i in range(12))]
    assert len({key.secret for key in keys}) == len({key.digest for key in keys}) == 13
    assert len({image.id for key in keys for image in key.images}) == 13 * 8
    assert len({tuple((image.real, image.number) for image in key.images) for key in keys}) == 13
    assert len({tuple(sorted(image.number for image in key.images if image.real)) for key in keys}) > 6
    assert len({tuple(image.real for image in key.images) for key in keys}) > 1  # by chance once in 56**12 times


def test_without_real_images_no_call_is_asked_for(run: gankit.Run, tmp_path: Path) -> None:
    text = write_page(run, tmp_path / "page", 3).read_text(encoding="utf-8")
    assert "real image or a generated one" not in text
    assert 'data-field="call"' not in text
    assert data_of(tmp_path / "page" / "page.html")["calls"] is False


def test_class_names_are_escaped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not any(name in text for name in CLASSES)
    assert data_of(page)["classes"] == CLASSES
    assert text.count("</script>") == 2
    for name in CLASSES:
        assert html.escape(name, quote=False).replace('"', "&#34;").replace("'", "&#39;") in text


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")])
def test_deep_images_and_odd_channels_become_8_bit(channels: int, mode: str) -> None:
    image = np.arange(channels * 4, dtype=np.uint16).reshape(channels, 2, 2) * 200
    picture = Image.open(io.BytesIO(image_png(image, (0.0, 4000.0))))
    expected = np.rint(image / 4000 * 255).astype(np.uint8)
    assert picture.mode == mode
    assert np.array_equal(np.asarray(picture), expected[0] if mode == "L" else expected[:3].transpose(1, 2, 0))


def test_keys_of_classes() -> None:
    assert class_keys(["exotropia", "esotropia", "normal"]) == ["e", "s", "n"]
    assert class_keys(["0", "urgo", "a"]) == ["a", "b", "c"]
    many = class_keys([str(number) for number in range(30)])
    assert len(set(many[:22])) == 22
    assert many[22:] == [""] * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "a page needs 1 drawn image or more"),
        ({"count": 1, "real": -1}, "a page needs 1 drawn image or more"),
        ({"count": 1, "real": 14}, "14 real images are to be mixed in, and there are 13 held-out images"),
        ({"count": 1, "label": "down"}, "there is no class 'down'"),
    ],
)
def test_pages_that_cannot_be_written(run: gankit.Run, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(GankitError, match=message):
        write_page(run, tmp_path / "page", **arguments)
    assert not (tmp_path / "page").exists()
