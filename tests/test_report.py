"""Reports in a real browser, as they are read and as they are printed: of a run, and of studies."""

from __future__ import annotations

import html
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gankit
from gankit.errors import RunError
from gankit.evaluation.comparison import write_metrics
from gankit.report import nearest_png, write_report
from gankit.report.card import card, card_html
from gankit.report.pages import markdown, render

PHONE, PAPER = 390, 680  # pixels; the second is A4 or Letter without its margins
NAMES = ["<i>left</i>", "right, both", "neither of them"]
WIDEST = "Math.max(...[...document.querySelectorAll('body *')].map(each => each.getBoundingClientRect().right))"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> gankit.Run:
    """On three classes, one of which the training never sees."""
    folder = tmp_path_factory.mktemp("runs")
    images = np.random.default_rng(0).integers(0, 255, (60, 3, 8, 8), dtype=np.uint8)
    np.savez(folder / "d.npz", images=images, labels=np.arange(60) % 2, class_names=np.array(NAMES))
    small = ["data.name=npz", f"data.path={folder / 'd.npz'}", "data.conditional=true", "generator.width=4",
             "generator.latent_dim=6", "critic.width=4", "critic.flat_blocks=1", "training.steps=2", "training.batch=4",
             "training.generator_batch=4", "training.critic_steps=1", "training.tick_every=1",
             "evaluation.features=pixels"]  # fmt: skip
    run = gankit.train(gankit.load("wgan-gp", *small), folder / "run")
    report = gankit.evaluate(run, metrics=["kid", "precision-recall", {"name": "intra-class", "metric": "kid"}],
                             count=40)  # fmt: skip
    write_metrics(report, run.path / "metrics.json")
    return run


@pytest.fixture(scope="module")
def report(run: gankit.Run) -> Path:
    return write_report(run)


@pytest.fixture
def opened(browser: Any) -> Any:
    """Opens a page at a width; whatever it asks for but itself and its pictures is a fault."""
    asked: list[str] = []
    pages = []

    def open_page(path: Path, width: int, media: str = "screen") -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        page.on("request", lambda request: asked.append(request.url))
        page.emulate_media(media=media)
        page.goto(path.as_uri())
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_samples_stand_above_the_nearest_training_images() -> None:
    """Whatever their order, brightness aside, and wherever among several batches they lie."""
    images = np.random.default_rng(0).integers(20, 235, (1300, 1, 20, 24), dtype=np.uint8)
    places = np.array([1299, 3, 600])
    samples = (images[places].astype(np.int16) + np.array([-9, 0, 9])[:, None, None, None]).astype(np.uint8)
    png, looked_at = nearest_png(samples, (0, 255), gankit.wrap("dataset", images))
    assert looked_at == 1300
    with Image.open(io.BytesIO(png)) as picture:
        shown = np.asarray(picture)[2::5, 2::5]
    for column, place in enumerate(places):
        left = 25 * column + 1
        assert np.array_equal(shown[1:21, left : left + 24], samples[column, 0])
        assert np.array_equal(shown[22:42, left : left + 24], images[place, 0])


def test_a_run_s_report_reads_on_a_phone(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, PHONE)
    assert page.evaluate(WIDEST) <= PHONE
    headings = page.locator("h2").all_inner_texts()
    assert headings == ["Values", "Samples beside real images", "Card of the synthetic images", "Curves", "Settings"]
    columns = (
        page.locator(".values tbody tr")
        .first.locator("td")
        .evaluate_all("cells => cells.map(cell => getComputedStyle(cell, '::before').content)")
    )
    assert columns[:3] == ["none", '"value"', '"real-real"']  # where the table's head is not shown
    assert not page.locator("details").get_attribute("open")
    assert not page.locator("pre").is_visible()


def test_real_images_stand_beside_samples_of_the_same_class_and_scale(report: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, 1280)
    shown = page.locator(".beside figure:has(.samples)")
    captions = [f"{name}, {side}" for name in NAMES[:2] for side in ("real", "generated")]
    assert shown.locator("figcaption").all_inner_texts() == captions
    sizes = shown.locator("img").evaluate_all(
        "all => all.map(each => [each.naturalWidth, each.naturalHeight, each.width])"
    )
    assert len({tuple(size) for size in sizes}) == 1
    tops = shown.locator("img").evaluate_all("all => all.map(each => each.getBoundingClientRect().top)")
    assert tops[0] == tops[1] < tops[2] == tops[3]


def test_without_its_data_a_report_says_why_no_real_images_are_shown(run: gankit.Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    settings = (copy / "experiment.toml").read_text()
    (copy / "experiment.toml").write_text(re.sub('path = ".*d.npz"', 'path = "gone.npz"', settings))
    page = write_report(gankit.open_run(copy)).read_text()
    assert "No real images beside them: " in page
    assert "gone.npz" in page.partition("No real images")[2][:200]
    assert page.count('class="samples"') == 2


def test_nothing_is_cut_on_paper(report: Path, tmp_path: Path, opened: Callable[..., Any]) -> None:
    page = opened(report, PAPER, "print")
    assert page.evaluate(WIDEST) <= PAPER
    assert page.locator("pre").is_visible()  # what was folded
    names = [f"class-{number}" for number in range(20)]
    rows = [["trained on", *names], *([name, *["0.123 [0.101, 0.145]"] * 20] for name in names)]
    text = render("gankit.studies", "tables.html.j2", title="Wide", tables={"Classes": rows}, failures="", warnings=[],
                  command="gankit", experiment="")  # fmt: skip
    (tmp_path / "wide.html").write_text(text)
    assert opened(tmp_path / "wide.html", PAPER, "print").evaluate(WIDEST) <= PAPER


def test_every_table_has_a_head_that_printing_repeats() -> None:
    templates = list(Path(gankit.__file__).parent.rglob("*.html.j2"))
    tables = [part.partition("</table>")[0] for path in templates for part in path.read_text().split("<table")[1:]]
    assert len(tables) > 3
    assert [table for table in tables if table.count("<thead>") != 1] == []


def test_the_card_says_what_the_images_are_and_what_is_not_known(run: gankit.Run, tmp_path: Path) -> None:
    write_report(run)
    card = (run.path / "card.md").read_text()
    assert "60 training images; the data do not say of which patients" in card
    assert "- right, both: 30 images." in card
    assert "Kept from training: no images, so that it cannot be tested whether generated images are new" in card
    assert re.search(r"Of 40 generated images \d+ equal an image of the training images pixel by pixel", card)
    assert "No membership attack was made" in card
    assert "**Not for clinical use**" in card
    assert not re.search(r"\n- .*\n\n- ", card)  # one list, whatever lines are left out
    page = (run.path / "report.html").read_text()
    assert "Card of the synthetic images" in page
    assert "<h3>Copies and privacy</h3>\n<ul><li>Of 40 generated images" in page
    assert "<li>right, both: 30 images.</li>" in page
    assert "<strong>Not for clinical use</strong>" in page
    assert "## " not in page
    assert NAMES[0] not in page
    copy = shutil.copytree(run.path, tmp_path / "copy")
    (copy / "metrics.json").unlink()
    write_report(gankit.open_run(copy))
    assert "Not judged yet: gankit evaluate writes what belongs here" in (copy / "card.md").read_text()


def test_the_card_of_a_run_says_what_it_was_told(run: gankit.Run, tmp_path: Path) -> None:
    assert ", told the class." in card(run, None)
    copy = shutil.copytree(run.path, tmp_path / "copy")
    settings = (copy / "experiment.toml").read_text().replace("conditional = true", "conditional = false")
    settings = re.sub(r"classes = \d", "classes = 0", settings).replace("held_out = 0.0", "held_out = 0.2")
    settings = re.sub('path = ".*d.npz"', 'path = "gone.npz"', settings)
    (copy / "experiment.toml").write_text(settings)
    text = card(gankit.open_run(copy), None)
    assert "told" not in text
    assert "Kept from training: a share of the images, whose number is not known here" in text


@pytest.mark.parametrize(
    ("name", "as_markdown"),
    [
        ("right, both", "right, both"), ("*a*_b_", r"\*a\*\_b\_"), ("<i>&[x](y)", r"\<i\>\&\[x\](y)"),
        ("a\n\n# b", r"a \# b"),
        ("1. x", r"1\. x"), ("- x", r"\- x"), ("-0.5", "-0.5"), ("`\\n`", r"\`\\n\`"),
    ],
)  # fmt: skip
def test_names_are_text_in_markdown(name: str, as_markdown: str) -> None:
    assert markdown(name) == as_markdown
    shown = html.escape(" ".join(name.split()))
    assert card_html(f"# title\n\n- {markdown(name)}: **3** images.") == (
        f"<ul><li>{shown}: <strong>3</strong> images.</li></ul>"
    )


def test_a_folder_with_an_experiment_alone_has_no_report(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text(gankit.load("wgan-gp").toml())
    with pytest.raises(RunError, match=r"experiment\.toml has no \[run\] table"):
        write_report(gankit.open_run(tmp_path))


def test_the_card_has_attacks_and_controls(tmp_path: Path) -> None:
    """Of a run with held-out images: through the template alone, with what an evaluation gives."""
    attack = {"by": "critic score", "area": 0.75, "low": 0.6, "high": 0.85, "control": 0.6, "members": 30, "others": 9}
    controls = {
        "copycat": {"memorisation": 1.0, "passed": True},
        "held-out reals": {"memorisation": None, "passed": None},
    }
    metrics = {
        "protocol": {
            "n_fake": 50, "training": "training images", "warnings": ["look"], "membership": {"critic": attack},
            "copies": {"exact": 1, "near": 2, "near_expected": 0.01},
        },
        "metrics": {"memorisation": {"value": 0.6, "details": {"controls": controls}}},
    }  # fmt: skip
    text = render(
        "gankit.report", "card.md.j2", name="run", steps=5, metrics=metrics, generator="resnet", critic="resnet",
        record={"image": {"channels": 1, "height": 8, "width": 8}, "images": 1200}, data="npz", losses=["wasserstein"],
        patients=30, held_out=90, unopened="", unread="", told="", classes={"*all*": 4},
        meanings={"memorisation": {"words": "often"}},
    )  # fmt: skip
    assert r"- \*all\*: 4 images." in text
    assert "1,200 training images of 30 patients" in text
    assert "Membership attack by critic score: area 0.75 (0.60 to 0.85) over 30 training and 9 held-out" in text
    assert "memorisation: 0.60; control, copycat: 1.00 (as it must); control, held-out reals: unknown; often." in text
    assert (
        "1 equal an image of the training images pixel by pixel, and 2 are near copies (for comparison, 1.0 %" in text
    )
    assert "- Warning: look." in text
