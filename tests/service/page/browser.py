"""The browser that the page is looked at with: what is installed here, and never a copy of its own."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright

_COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ON_MACS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def installed() -> str:
    """Where Chromium is. AssertionError, which says how to get it, where there is none: a skip would hide faults."""
    found = next(filter(None, map(shutil.which, _COMMANDS)), None)
    found = found or next((path for path in _ON_MACS if Path(path).exists()), None)
    assert found is not None, "no Chromium is installed: `apt-get install chromium`, or Chrome on a Mac"
    return found


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Chromium without a window."""
    async with async_playwright() as playwright:
        # Its sandbox cannot be had by root, nor in most containers; it sees this machine alone.
        running = await playwright.chromium.launch(executable_path=installed(), args=["--no-sandbox"])
        try:
            yield running
        finally:
            await running.close()


async def wide_by(page: Any) -> int:
    """By how many pixels a page is wider than its window."""
    return int(await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
