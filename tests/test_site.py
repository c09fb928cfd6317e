"""The built site: links of every page; in a real browser images, console, search, phone width, copy buttons."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

import pytest

ROOT = Path(__file__).parents[1]
PHONE = {"width": 390, "height": 800}
DESKTOP = {"width": 1280, "height": 900}
LOOK = """() => ({
    broken: [...document.images].filter(each => each.complete && !each.naturalWidth).map(each => each.src),
    silent: [...document.images].filter(each => !each.alt && each.closest('article')).map(each => each.src),
    blocks: document.querySelectorAll('.highlight pre').length,
    buttons: document.querySelectorAll('.highlight [data-clipboard-target], .highlight [data-md-type=copy]').length,
})"""


@dataclass
class Seen:
    """What the browser found on one page."""

    broken: list[str]
    silent: list[str]
    blocks: int
    buttons: int
    phone_width: int
    cut_tables: list[str]  # on a desktop
    faults: list[str] = field(default_factory=list)


class Anchors(HTMLParser):
    """The ids of a page, and where it links to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the tag says."""
        values = dict(attrs)
        self.ids |= {values["id"] or ""} if "id" in values else set()
        self.links += [values["href"] or ""] if tag == "a" and "href" in values else []


TABLES = """() => [...document.querySelectorAll('.md-typeset__scrollwrap')]
    .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.innerText.slice(0, 80))"""
SEARCH_INDEX = "/search/search_index.json"


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a line for each request; the search index, which costs most, without its words."""

    searchable = False

    def do_GET(self) -> None:
        """Send a file."""
        if self.path != SEARCH_INDEX or Quiet.searchable:
            super().do_GET()
            return
        index = json.loads(Path(self.translate_path(self.path)).read_text(encoding="utf-8"))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(json.dumps({**index, "docs": []}).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(generated_docs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning of mkdocs fails."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(generated_docs, folder / "docs", dirs_exist_ok=True)
    settings = folder / "mkdocs.yml"
    settings.write_text(f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: docs\nsite_dir: site\n", encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", str(settings)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder / "site"


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def of_every_kind(site: Path) -> dict[Path, str]:
    """The part of the site, such as tutorials, of each page that a reader can reach."""
    places = {path: path.relative_to(site).parts for path in sorted(site.rglob("*.html")) if path.name != "404.html"}
    return {path: parts[0] if len(parts) > 2 else "" for path, parts in places.items()}


@pytest.fixture(scope="module", params=["longest", pytest.param("all", marks=pytest.mark.slow)])
def pages(request: pytest.FixtureRequest, site: Path, address: str, browser: Any) -> dict[str, Seen]:
    """What the browser finds on the longest page of each part of the site, or on all, by address."""
    kinds, found = of_every_kind(site), {}
    longest = {kind: path for path, kind in sorted(kinds.items(), key=lambda item: item[0].stat().st_size)}
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda told: faults.append(f"console: {told.text}") if told.type in ("error", "warning") else 0)
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    waiting: set[Any] = set()
    page.on("request", lambda request: waiting.add(request))
    page.on("requestfinished", lambda request: waiting.discard(request))
    page.on("requestfailed", lambda request: waiting.discard(request))
    # The icon may still be on its way when the next page is opened.
    aborted = "net::ERR_ABORTED"
    page.on("requestfailed", lambda sent: None if sent.failure == aborted else faults.append(f"failed: {sent.url}"))
    page.on("response", lambda answer: faults.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else 0)
    page.on(
        "request", lambda asked: None if asked.url.startswith((address, "data:", "blob:")) else faults.append(asked.url)
    )
    for path in kinds if request.param == "all" else longest.values():
        url = address + path.relative_to(site).as_posix().removesuffix("index.html")
        faults.clear()
        page.goto(url)
        while waiting:
            page.wait_for_timeout(10)
        look = page.evaluate(LOOK)
        width, cut = page.evaluate("document.documentElement.scrollWidth"), []
        if page.evaluate(TABLES):  # only those that are cut on a phone can be cut on a desktop
            page.set_viewport_size(DESKTOP)
            cut = page.evaluate(TABLES)
            page.set_viewport_size(PHONE)
        found[url] = Seen(**look, phone_width=width, cut_tables=cut, faults=list(faults))
    context.close()
    return found


def test_every_page_is_there(site: Path) -> None:
    kinds = of_every_kind(site)
    assert len(kinds) == len(list((site.parent / "docs").rglob("*.md")))
    assert set(kinds.values()) >= {"", "tutorials", "how-to", "explanation", "measured", "reference", "project"}


def test_no_page_has_a_fault_or_asks_for_anything_outside(pages: dict[str, Seen]) -> None:
    assert not {url: seen.faults for url, seen in pages.items() if seen.faults}


def test_no_link_or_anchor_is_broken(site: Path) -> None:
    root, broken, checked = "http://site/", [], 0
    pages = {root + path.relative_to(site).as_posix().removesuffix("index.html"): path for path in of_every_kind(site)}
    anchors = {url: Anchors(path) for url, path in pages.items()}
    for url, page in anchors.items():
        for link in page.links:
            target, anchor = urldefrag(urljoin(url, link))
            if not target.startswith(root):
                continue
            checked += 1
            if target not in pages:
                if not (site / target.removeprefix(root)).is_file():
                    broken.append(f"{url}: {link}")
            elif anchor and unquote(anchor) not in anchors[target].ids and not anchor.startswith("__"):
                broken.append(f"{url}: {link}")
    assert not broken, "\n".join(broken)
    assert checked > 500


def test_every_image_is_there_and_says_what_it_shows(pages: dict[str, Seen], address: str) -> None:
    assert not {url: seen.broken for url, seen in pages.items() if seen.broken}
    assert not {url: seen.silent for url, seen in pages.items() if seen.silent}


def test_every_code_block_has_a_copy_button(pages: dict[str, Seen]) -> None:
    assert not {url: (seen.blocks, seen.buttons) for url, seen in pages.items() if seen.buttons != seen.blocks}
    assert sum(seen.blocks for seen in pages.values()) > 10


def test_no_page_is_wider_than_a_phone(pages: dict[str, Seen]) -> None:
    assert not {url: seen.phone_width for url, seen in pages.items() if seen.phone_width > PHONE["width"]}


def test_no_table_is_cut_on_a_desktop(pages: dict[str, Seen]) -> None:
    assert not {url: seen.cut_tables for url, seen in pages.items() if seen.cut_tables}


def test_the_copy_button_copies(address: str, browser: Any) -> None:
    context = browser.new_context(viewport=DESKTOP)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    page = context.new_page()
    page.goto(address, wait_until="networkidle")
    page.locator(".highlight").first.hover()
    page.locator(".highlight [data-clipboard-target], .highlight [data-md-type=copy]").first.click()
    assert "pip install" in page.evaluate("navigator.clipboard.readText()")
    context.close()


def test_search_finds_the_gradient_penalty(address: str, browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Quiet, "searchable", True)
    page = browser.new_page(viewport=DESKTOP)
    page.goto(address, wait_until="networkidle")
    page.locator(".md-search__input").click()
    page.keyboard.type("gradient penalty", delay=20)
    result = page.locator(".md-search-result__link").first
    result.wait_for(state="visible", timeout=20_000)
    result.click()
    page.wait_for_url(lambda url: urldefrag(url)[0].split("?")[0] != address)
    assert "gradient-penalty" in page.url
    assert {"gradient", "penalty"} <= set(page.locator("article").inner_text().casefold().split())
    page.close()


def test_both_colour_schemes_can_be_chosen(address: str, browser: Any) -> None:
    for scheme, expected in (("light", "default"), ("dark", "slate")):
        page = browser.new_page(color_scheme=scheme)
        page.goto(address, wait_until="networkidle")
        assert page.locator("body").get_attribute("data-md-color-scheme") == expected
        page.close()
