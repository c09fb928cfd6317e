"""Someone at a rating page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PHONE = {"width": 375, "height": 700}


def data_of(page: Path) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert match
    content: dict[str, Any] = json.loads(match[1])
    return content


class Person:
    """Someone at the page, in a browser without a network."""

    def __init__(self, browser: Any, page: Path, **settings: Any) -> None:
        self.faults: list[str] = []
        self.context = browser.new_context(accept_downloads=True, offline=True, **settings)
        self.page = self.context.new_page()
        self.page.on("console", lambda line: self.faults.append(f"console: {line.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        self.page.on("request", lambda request: self._note_request(request.url))
        self.url = page.as_uri()
        self.page.goto(self.url)

    def _note_request(self, url: str) -> None:
        if url != self.url and not url.startswith(("data:", "blob:")):
            self.faults.append(url)

    def type(self, keys: str) -> None:
        for key in keys.split():
            self.page.keyboard.press(key)

    @property
    def place(self) -> str:
        return str(self.page.locator("#place").inner_text())

    @property
    def message(self) -> str:
        return str(self.page.locator("#message").inner_text())

    @property
    def chosen(self) -> list[str]:
        values: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('[aria-pressed=true]')].map(element => element.dataset.value)"
        )
        return values

    def saved(self, button: str = "#save") -> tuple[str, bytes]:
        with self.page.expect_download() as waiting:
            self.page.locator(button).click()
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()

    def hears(self, start: str) -> None:
        """Waits until the page says something that starts so."""
        self.page.wait_for_function(
            "start => document.getElementById('message').textContent.startsWith(start)", arg=start
        )

    def reload(self, expected: str) -> None:
        self.page.reload()
        self.hears(expected)

    def close(self) -> None:
        self.context.close()
        assert self.faults == []
