"""Routes for those who run the service: liveness, readiness, metrics, and this interface's own description."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import RedirectResponse

from serving import metrics
from serving.problems import unavailable
from serving.routes import Application, Call, Route
from serving.telemetry.catalogue import CATALOGUE
from serving.wire import Alive, Ready

if TYPE_CHECKING:
    from serving.http.exposition import Exposition


async def _livez(call: Call) -> bytes:
    return msgspec.json.encode(Alive(alive=True))


async def _metrics(call: Call) -> bytes:
    call.core.observe()
    folder = metrics.run_folder()
    shown = metrics.exposition() if folder is None else _exposition(folder).text()
    if not shown:
        raise unavailable("the files of the metrics were removed; start the service again")
    return shown if call.caller.sees_all() else _of_loops(shown, set(call.loops()))


@cache
def _exposition(folder: Path) -> Exposition:
    from serving.http.exposition import Exposition  # imports prometheus_client, which a worker points to its run before

    return Exposition(folder, {metric.family for metric in CATALOGUE})


def _of_loops(exposition: bytes, loops: set[str]) -> bytes:
    """Return the series of some loops alone, and what is said of them."""
    kept = list[str]()
    for line in exposition.decode().splitlines(keepends=True):
        named = _LOOP.search(line)
        if line.startswith("#") or (named is not None and named[1] in loops):
            kept.append(line)
    return "".join(kept).encode()


_LOOP = re.compile(r'[{,]loop="([^"]*)"')


def routes(document: Callable[[], bytes], ready: Callable[[], str | None]) -> tuple[Route, ...]:
    """Return the routes.

    Args:
        document: gives the OpenAPI document; blocking.
        ready: gives the reason why no decision can be taken now, or None.
    """

    async def readyz(call: Call) -> bytes:
        reason = ready()
        if reason is not None:
            raise unavailable(reason)
        return msgspec.json.encode(Ready(ready=True))

    async def root(call: Call) -> Application:
        return RedirectResponse("/console/", 303)

    kept = b""
    making: asyncio.Task[bytes] | None = None
    turn = asyncio.Lock()

    async def openapi(call: Call) -> bytes:
        nonlocal kept, making
        if not kept:
            if making is None or making.done():
                making = asyncio.create_task(asyncio.to_thread(document))
            made = making  # once, for all who ask before it is there, and whoever goes
            async with turn:  # and they go on one by one, with decisions in between
                kept = await asyncio.shield(made)
        return kept

    return (
        Route(
            method="GET",
            path="/",
            name="openRoot",
            tag="operations",
            summary="Go to the console",
            answer=root,
            role="anyone",
            status=303,
        ),
        Route(
            method="GET",
            path="/openapi.json",
            name="readOpenApi",
            tag="operations",
            summary="Describe this interface",
            answer=openapi,
            role="anyone",
            response=dict,
            answers={"openapi": "3.1.0"},
        ),
        Route(
            method="GET",
            path="/readyz",
            name="isReady",
            tag="operations",
            summary="Tell whether decisions can be taken: loops are loaded and fresh, the spool takes writes",
            answer=readyz,
            role="anyone",
            response=Ready,
            errors=(503,),
            answers={"ready": True},
        ),
        *_ROUTES,
    )


_ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/livez",
        name="isAlive",
        tag="operations",
        summary="Tell whether the process answers",
        answer=_livez,
        role="anyone",
        response=Alive,
        answers={"alive": True},
    ),
    Route(
        method="GET",
        path="/metrics",
        name="readMetrics",
        tag="operations",
        summary="Expose metrics in Prometheus' text format",
        answer=_metrics,
        role="operate",
        response=str,
        content="text/plain; version=0.0.4; charset=utf-8",
        answers='# TYPE decision_decided_total counter\ndecision_decided_total{loop="news"} 812.0\n',
    ),
)
