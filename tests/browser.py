"""Pages in a real browser without a network."""

from pathlib import Path
from typing import Any

import pytest


def opened(browser: Any, path: Path, width: int = 1280, scheme: str = "light", **options: Any) -> tuple[Any, list[str]]:
    """Returns a page without a network, and a list that collects its requests and errors.

    Args:
        browser: The browser.
        path: File of the page.
        width: Width of the window in pixels.
        scheme: Whether the page is light or dark.
        options: More of the browser's options, such as has_touch.
    """
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    context.set_offline(True)
    page, events = context.new_page(), []
    page.on("request", lambda request: events.append(f"request {request.url[:60]}"))
    page.on("console", lambda message: events.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error {error}"))
    page.on("dialog", lambda dialog: events.append(f"dialog {dialog.message}"))
    page.goto(path.as_uri())
    return page, events


def until(page: Any, condition: str) -> None:
    """Waits for a condition; playwright's own function runs a script, which the page forbids."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"not true within a minute: {condition}")
