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
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def sign_in(page: Any, address: str, key: str) -> None:
    page.goto(f"{address}/console/login")
    page.get_by_label("Your key").fill(key)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "login" not in url)
