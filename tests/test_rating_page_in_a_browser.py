"""A person's work on the rating page in a real browser, from a file and without a network."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rating_pages
from rating_pages import CLASSES, key_of, trained
from rating_person import PHONE, Person, data_of

import gankit
from gankit.ranking import rank, write_page

page = rating_pages.page
run = rating_pages.run


@pytest.fixture
def person(browser: Any, page: Path) -> Iterator[Person]:
    someone = Person(browser, page, viewport={"width": 1000, "height": 900})
    yield someone
    someone.close()


def rows(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


def test_by_keyboard_from_the_first_image_to_the_csv(
    person: Person, page: Path, run: gankit.Run, tmp_path: Path
) -> None:
    ids, digest = [image["id"] for image in data_of(page)["images"]], data_of(page)["key"]
    assert person.place == "Image 1 of 8, 0 rated"
    assert person.page.locator("#image").get_attribute("alt") == "image 1 of 8"
    typed = []
    for number in range(8):
        score, letter, call = str(number % 5 + 1), "lip"[number % 3], "rg"[number % 2]
        typed.append([score, CLASSES[number % 3], ["real", "generated"][number % 2]])
        person.type(f"{score} {letter}")
        assert person.chosen == typed[-1][:2]
        assert person.place == f"Image {number + 1} of 8, {number} rated"
        person.type(call)  # the last answer moves on
    assert person.place == "Image 8 of 8, 8 rated"
    assert person.message == "All 8 images are rated: save the ratings."
    assert person.page.locator("#save").inner_text() == "Save ratings"
    person.page.fill("#rater", 'Ada "the eye", L.')
    name, content = person.saved()
    assert name == f"ratings-{digest[:8]}-Ada-the-eye-L.csv"
    head, *lines = rows(content)
    assert head == ["image", "score", "diagnosis", "call", "rater", "key"]
    assert lines == [[ids[i], *typed[i], 'Ada "the eye", L.', digest] for i in range(8)]
    # What was saved is what is ranked.
    (tmp_path / name).write_bytes(content)
    ranked = rank(run, None, 2, f"ratings:{tmp_path / name}", key=page.parent / "key.json")
    for i, image in enumerate(key_of(page).images):
        if not image.real:
            assert ranked.scores[image.number] == int(typed[i][0])
    recognised = next(finding for finding in ranked.findings if finding.what == "real images recognised")
    called = [typed[i][2] == "real" for i, image in enumerate(key_of(page).images) if image.real]
    assert recognised.value == pytest.approx(np.mean(called))


def test_a_reload_goes_on_and_undo_takes_back(person: Person) -> None:
    person.type("4 l g 2 p r 5")
    assert person.place == "Image 3 of 8, 2 rated"
    person.page.fill("#rater", "Bo")
    person.reload("Welcome back: 2 of 8 images are rated.")
    assert person.place == "Image 3 of 8, 2 rated"
    assert person.chosen == ["5"]
    assert person.page.input_value("#rater") == "Bo"
    assert person.page.locator("#undo").is_disabled()
    person.type("ArrowLeft")
    assert person.chosen == ["2", CLASSES[2], "real"]
    person.type("1 i")  # changes of a rated image stay there
    assert person.chosen == ["1", CLASSES[1], "real"]
    person.type("u")
    assert person.chosen == ["1", CLASSES[2], "real"]
    assert person.message == "Undone."
    person.type("u ArrowLeft ArrowLeft ArrowLeft")
    assert person.place == "Image 1 of 8, 2 rated"
    person.type("ArrowRight")
    assert person.chosen == ["2", CLASSES[2], "real"]
    person.type("x 9 Control+u")  # no keys of the page
    assert person.chosen == ["2", CLASSES[2], "real"]
    name, content = person.saved()
    assert person.message == "Saved, but 6 images are not fully rated yet."
    assert name.endswith("-Bo.csv")
    assert [row[1] for row in rows(content)[1:]] == ["4", "2", "5"]


def test_a_diagnosis_in_own_words(person: Person, page: Path) -> None:
    words = 'ptosis, left; "mild" <b>&amp; é'
    person.type("3 g o")
    person.page.keyboard.type(words)
    person.type("Enter")
    assert person.place == "Image 2 of 8, 1 rated"
    assert person.page.input_value("#other") == ""
    person.type("ArrowLeft")
    assert person.page.input_value("#other") == words
    person.reload("Welcome back: 1 of 8 images are rated.")
    person.type("ArrowLeft")
    assert person.page.input_value("#other") == words
    # Leaving the field by a click keeps the words and moves no further than the click says.
    person.type("ArrowRight 2 r o")
    person.page.keyboard.type("nystagmus")
    person.page.locator("#next").click()
    assert person.place == "Image 3 of 8, 2 rated"
    person.type("o")
    person.page.keyboard.type("never mind")
    person.type("Escape")
    assert person.page.input_value("#other") == ""
    person.type("1")  # the keys are the page's again
    assert person.chosen == ["1"]
    _, content = person.saved()
    assert [row[2] for row in rows(content)[1:]] == [words, "nystagmus", ""]


def test_progress_goes_to_another_browser(browser: Any, person: Person, page: Path, tmp_path: Path) -> None:
    person.page.fill("#rater", "Cy")
    person.type("Enter 4 l g 2 p r")
    person.page.locator("summary").nth(1).click()
    name, content = person.saved("#export")
    assert name == f"progress-{data_of(page)['key'][:8]}-Cy.json"
    other = Person(browser, page)
    other.page.locator("summary").nth(1).click()

    def imported(text: bytes) -> str:
        path = tmp_path / "progress.json"
        path.write_bytes(text)
        other.page.set_input_files("#import", path)
        for _ in range(200):
            if other.message and not other.page.input_value("#import"):
                break
            other.page.wait_for_timeout(20)
        message = other.message
        other.page.evaluate("document.getElementById('message').textContent = ''")
        return message

    first = data_of(page)["images"][0]["id"]
    for wrong, message in (
        (b"no json", "it is not a progress file"),
        (b"[]", "it is of another page"),
        (b"null", "it is of another page"),
        (content.replace(data_of(page)["key"].encode(), b"0" * 64), "it is of another page"),
        (content.replace(first.encode(), b"0" * 12), "it names images that this page does not have"),
        (content.replace(b'"4"', b'"6"'), "it holds an answer that this page cannot give"),
    ):
        assert imported(wrong) == f"The file cannot be imported: {message}."
        assert other.place == "Image 1 of 8, 0 rated"
    assert imported(content) == "Imported: 2 of 8 images are rated."
    assert other.place == "Image 3 of 8, 2 rated"
    assert other.page.input_value("#rater") == "Cy"
    assert rows(other.saved()[1]) == rows(person.saved()[1])
    for answer, place in (("dismiss", "Image 3 of 8, 2 rated"), ("accept", "Image 1 of 8, 0 rated")):
        other.page.once("dialog", lambda dialog, answer=answer: getattr(dialog, answer)())
        other.page.locator("#start-over").click()
        assert other.place == place
    assert other.page.input_value("#rater") == ""
    other.close()


def test_on_a_phone_by_touch(browser: Any, page: Path) -> None:
    phone = Person(browser, page, viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
    for detail in phone.page.locator("summary").all():
        detail.tap()
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 375
    small = phone.page.evaluate(
        "[...document.querySelectorAll('button, label.file, input[type=text]')]"
        ".filter(element => element.getBoundingClientRect().height < 44).map(element => element.textContent)"
    )
    assert small == []
    phone.page.locator("[data-value='4']").tap()
    phone.page.locator("[data-field=diagnosis]").nth(1).tap()
    phone.page.locator("[data-value=generated]").tap()
    assert phone.place == "Image 2 of 8, 1 rated"
    phone.close()


CONTRAST = """() => {
    const light = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number).map(part => part / 255)
        .map(part => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4)
        .reduce((sum, part, i) => sum + part * [.2126, .7152, .0722][i], 0);
    const ground = element => { const own = getComputedStyle(element).backgroundColor;
        return own === 'rgba(0, 0, 0, 0)' ? ground(element.parentElement) : own; };
    return Math.min(...[...document.querySelectorAll('h1, p, button:enabled, .question, .soft, summary, label')]
        .filter(element => element.textContent.trim()).map(element => {
            const [high, low] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
            return (high + .05) / (low + .05);
        }));
}"""


def test_light_dark_and_names(browser: Any, page: Path) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        someone = Person(browser, page, color_scheme=scheme)
        someone.type("3")
        assert someone.page.evaluate(CONTRAST) >= 4.5
        grounds.add(someone.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for question in ("How real does it look?", "What does it show?", "Is it a real image or a generated one?"):
            assert someone.page.get_by_role("group", name=question).count() == 1
        assert someone.page.get_by_role("group", name="What does it show?").get_by_role("button").count() == 3
        assert someone.page.get_by_role("button", name="3", pressed=True).count() == 1
        assert someone.page.get_by_role("progressbar", name="images rated").count() == 1
        for name in ("Your name", "Other"):
            assert someone.page.get_by_role("textbox", name=name).count() == 1
        someone.close()
    assert len(grounds) == 2


def test_a_page_without_classes_and_with_spoilt_storage(browser: Any, run: gankit.Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.random.default_rng(1).integers(0, 255, (8, 1, 8, 8), dtype=np.uint8))
    plain = trained(tmp_path / "plain", tmp_path / "d.npz")
    page = write_page(plain, tmp_path / "page", 3)
    someone = Person(browser, page)
    someone.type("2 ArrowRight 5 o")  # a score does not move on: there may be something to say
    someone.page.keyboard.type("a line")
    someone.type("Enter ArrowRight 1")
    assert someone.place == "Image 3 of 3, 3 rated"
    assert [row[1:3] for row in rows(someone.saved()[1])[1:]] == [["2", ""], ["5", "a line"], ["1", ""]]
    for spoilt in ("[1", None, {}):
        someone.page.evaluate("spoilt => inStore('readwrite', store => store.put(spoilt, data.key))", spoilt)
        someone.reload("The answers that this browser stored cannot be read (it is of another page).")
        assert someone.place == "Image 1 of 3, 0 rated"
    someone.close()


@pytest.mark.slow
def test_what_is_answered_before_the_browser_has_read_what_it_kept(browser: Any, page: Path) -> None:
    someone = Person(browser, page)
    someone.type("4 l g 2 p r 5")
    someone.page.fill("#rater", "Di")
    # The read of what was kept ends only when `release` is called.
    someone.page.add_init_script(
        """const open = indexedDB.open.bind(indexedDB);
        indexedDB.open = (...given) => {
            const real = open(...given), late = {};
            real.onupgradeneeded = () => { late.result = real.result; late.onupgradeneeded(); };
            const success = new Promise(resolve => { real.onsuccess = resolve; });
            window.release = async () => { await success; late.result = real.result; late.onsuccess(); };
            return late;
        };"""
    )
    someone.page.reload()
    someone.type("1 ArrowRight ArrowRight p r")
    someone.page.evaluate("release()")
    someone.hears("Welcome back: 3 of 8 images are rated.")
    assert someone.place == "Image 4 of 8, 3 rated"
    assert someone.page.input_value("#rater") == "Di"
    answers = [row[1:4] for row in rows(someone.saved()[1])[1:]]
    assert answers == [["1", CLASSES[0], "generated"], ["2", CLASSES[2], "real"], ["5", CLASSES[2], "real"]]
    someone.page.reload()
    someone.page.evaluate("release()")
    someone.hears("Welcome back: 3 of 8 images are rated.")
    someone.close()


def test_a_browser_that_keeps_nothing_says_so(browser: Any, page: Path) -> None:
    nothing = "This browser stores nothing: export your progress before you close the page."
    for refusal in (
        "Object.defineProperty(window, 'indexedDB', {value: undefined})",
        "indexedDB.open = () => { throw new DOMException('denied', 'SecurityError'); }",
        "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }",
    ):
        someone = Person(browser, page)
        someone.page.add_init_script(refusal)
        someone.page.reload()
        for answer in ("4", "l", "g"):  # the last one leads to the next image
            someone.type(answer)
            someone.hears(nothing)
        assert someone.place == "Image 2 of 8, 1 rated"
        assert rows(someone.saved()[1])[1][1:4] == ["4", CLASSES[0], "generated"]
        someone.close()
