"""A loop `news` whose application asks for decisions: videos pay on phones, news elsewhere.

The last batch is of now, and each other one a second before the next, however long the machine takes: so rewards come
within any window, and as many windows are over on every machine.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import numpy as np

from pipelines.settings import Settings
from serving.http.app import App
from serving.start import open_core

ACTIONS = ("news", "video", "shop")
DECISIONS, AT_ONCE = 1_200, 100


def ask(settings: Settings, rng: np.random.Generator) -> None:
    """Ask for the decisions, and report what they led to; the best action pays .8, others .2."""
    times = [time.time() - left for left in range(DECISIONS // AT_ONCE)]
    core = open_core(settings, clock=lambda: times[-1])
    try:
        asyncio.run(_ask(App(lambda: core), rng, times))
    finally:
        core.close()


async def _ask(app: App, rng: np.random.Generator, times: list[float]) -> None:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost/v1/loops/news") as client:
        for start in range(0, DECISIONS, AT_ONCE):
            contexts = [_context(rng, start + number) for number in range(AT_ONCE)]
            actions = [{"id": name, "features": {"category": name[0]}} for name in ACTIONS]
            asked = [
                {
                    "event_id": f"e{start + number:05d}",
                    "context": context,
                    "actions": actions,
                }  # ids draw: always alike
                for number, context in enumerate(contexts)
            ]
            answer = await client.post("/decide/batch", json={"decisions": asked})
            outcomes: list[dict[str, Any]] = []
            for context, given in zip(contexts, answer.json()["decisions"], strict=True):
                best = "video" if context["device"] == "mobile" else "news"
                if rng.random() < (0.8 if given["action_id"] == best else 0.2):
                    outcomes.append({"event_id": given["event_id"], "value": 1})
            (await client.post("/outcomes", json=outcomes)).raise_for_status()
            if len(times) > 1:
                times.pop()


def _context(rng: np.random.Generator, number: int) -> dict[str, Any]:
    device = str(rng.choice(["mobile", "desktop"]))
    return {"device": device, "hour": 9, "country": ("AT", "DE", "FR")[number % 3]}
