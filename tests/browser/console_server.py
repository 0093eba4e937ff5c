"""The console in a real browser: the service's application behind a real socket, and Debian's Chromium."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.operations.processes import free_port
from serving.http.app import App
from tests.parts import require

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")

_PATIENCE_MS = 300_000
"""How long a page may take: waits guard a hang, and a busy machine is none."""
_WIDER = """(width) => document.documentElement.scrollWidth <= width ? [] : [
  document.documentElement.scrollWidth,
  ...[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > width)
    .map(e => e.outerHTML.slice(0, 120))]"""


@contextmanager
def serving(app: App) -> Iterator[str]:
    """Serve `app` in a thread and yield its address."""
    import uvicorn

    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(300)


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a running browser; skips where there is none."""
    require(CHROMIUM.is_file(), f"{CHROMIUM} is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser: Any = play.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS), timeout=_PATIENCE_MS)
        opened = browser.new_context

        def patient(**given: Any) -> Any:
            context = opened(**given)
            context.set_default_timeout(_PATIENCE_MS)
            return context

        browser.new_context = patient
        try:
            yield browser
        finally:
            browser.close()


def sign_in(page: Any, address: str, key: str) -> None:
    page.goto(f"{address}/console/login")
    page.get_by_label("Your key").fill(key)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "login" not in url)


def sign_in_to_judge(page: Any, address: str, key: str) -> None:
    """Sign a new auditor in and leave the tour for the first pair."""
    sign_in(page, address, key)
    page.get_by_role("button", name="Show me my first pair").click()
    page.wait_for_url("**/console/review")


def barriers(page: Any, width: int) -> list[Any]:
    """What of a page, with everything on it opened, shuts somebody out by axe, or is wider than `width` pixels."""
    from axe_playwright_python.sync_playwright import Axe

    for closed in page.locator("details").all():
        closed.evaluate("e => { e.open = true; }")
    found = Axe().run(page).response["violations"]
    told = [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found]
    return [*told, *page.evaluate(_WIDER, width)]
