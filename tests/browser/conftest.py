"""A real Chromium, and the API and a company's site at two origins for it to look at."""

import os
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from shared.settings import Settings
from tests.browser.web_world import Web, open_web

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest_asyncio.fixture
async def chromium() -> AsyncIterator[Browser]:
    """The browser of this machine; none is ever downloaded."""
    if shutil.which(CHROMIUM) is None:
        missing = "there is no Chromium here; install it (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture
async def web(settings: Settings, chromium: Browser, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Web]:
    """Capture and a company's site. Nobody here types as slowly as a person, so forms may be filled in at once."""
    monkeypatch.setenv("THROUGHLINE_CAPTURE_FORM_FASTEST", "PT0S")
    monkeypatch.setenv("THROUGHLINE_CAPTURE_FORM_FASTEST_UNPROVEN", "PT0S")
    async with open_web(settings, chromium) as made:
        yield made
