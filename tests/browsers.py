"""A real browser for tests: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from brokers import find_program
from support import require


class Chromium:
    """The browser, for :func:`require`."""

    @staticmethod
    def missing() -> str | None:
        return None if find_program("chromium") else "chromium"


def started_chromium() -> Iterator[Any]:
    """A browser that ends after the tests of a module."""
    playwright = pytest.importorskip("playwright.sync_api")
    require(Chromium)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=find_program("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()
