"""The BentoML service: each worker opens the core and answers on two ports, the service's and BentoML's own.

    python -m bentoml serve serving.service:DecisionService --host 127.0.0.1 --port 18080

That is BentoML's port; the service's is ``DECISION_PORT``, like every setting (see `pipelines.settings`). `decision
serve` sets both. Requests to the service's port go to the worker's door, `serving.http.door`. On its own port BentoML
runs the same application, past its routing. Its tracing, metrics and access logs are off, since they cost more than a
decision; our metrics count the requests of both ports.
"""

# ruff: noqa: E402 - something is done before the last imports
from __future__ import annotations

import asyncio
import gc
import os
import sys

import bentoml
import click

from pipelines.operations.parent import end_with_parent, started_by_us

end_with_parent()  # before the rest is imported: a worker's supervisor may be gone by then

from decision.errors import FieldError
from pipelines.log.protocol import LogCorrupt
from pipelines.logs import set_up, take_over
from pipelines.operations.processes import check_keys, check_port
from pipelines.settings import load_settings
from serving import metrics
from serving.http.app import App
from serving.http.door import ANSWER_S, Door
from serving.routes import Application, Receive, Scope, Send
from serving.start import check_logs, open_core

metrics.join_run()
settings = load_settings()
set_up(settings.log_format, settings.log_level)
take_over("bentoml", "circus", "uvicorn.error")  # BentoML would write each of our lines a second time, in its form
app = App(lambda: open_core(settings))
_YOUNG_OBJECTS = 20_000
_BENTOML_ANSWERS = frozenset({"/healthz", "/schema.json"})


async def _drain() -> None:
    await asyncio.sleep(settings.drain_s)


class Frame:
    """Middleware of BentoML: what it does not answer itself goes to the application."""

    def __init__(self, inner: Application) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the server's start and end."""
        ours = scope["type"] == "websocket" or (scope["type"] == "http" and scope["path"] not in _BENTOML_ANSWERS)
        await (app if ours else self._inner)(scope, receive, send)


@bentoml.service(
    name="decision",
    workers=settings.workers,
    traffic={"timeout": ANSWER_S},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"sample_rate": 0.0, "excluded_urls": ["."]},
)
class DecisionService:
    """Holds the core of one worker and its door."""

    def __init__(self) -> None:
        metrics.reserve()
        self.core = app.core
        self.door = Door(app, host=settings.host, port=settings.port, drain=_drain)
        app.watched.append(self.door.broken)

    def __is_ready__(self) -> bool:
        """Return whether decisions can be taken now."""
        return app.ready() is None

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Check, before any worker starts, that the port is free, who reaches it without a key, and that logs fit."""
        command = click.get_current_context(silent=True)
        host = "" if command is None else command.params.get("host", "")  # where BentoML's own port will be
        try:
            check_keys(settings, *([host] if host else []))
            check_port("port", settings.host, settings.port)
            check_logs(settings)
        except (FieldError, LogCorrupt) as error:
            sys.stderr.write(f"error: {error}\n")
            raise SystemExit(2 if isinstance(error, FieldError) else 1) from None
        os.environ |= started_by_us()  # its workers inherit it
        metrics.begin_run(settings.root)

    @bentoml.on_startup
    async def open(self) -> None:
        """Answer on the service's port from now on."""
        gc.collect()
        # What is there stays, and collections need not look at it again. What requests leave behind goes by itself;
        # rare collections find the few circles among it.
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS, 20, 20)
        try:
            await self.door.open()
        except BaseException:
            app.close()
            raise

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Be not ready, answer what is under way, write what waits and close everything before the process ends."""
        await self.door.close()
        app.close()
        metrics.forget()


DecisionService.add_asgi_middleware(Frame)  # type: ignore[arg-type]
