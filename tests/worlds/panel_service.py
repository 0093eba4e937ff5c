"""A service with panels: a real core, its HTTP application, a store with five auditors and everyone else."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from pipelines.fairness.people import add_person
from pipelines.fairness.store import Governance
from pipelines.settings import load_settings
from serving.core import Core
from serving.http.app import App
from serving.start import open_core
from tests.worlds.panels import LOOP, NOW, Panel

TEXT = '[fairness]\nenabled = true\nprotected = ["group"]\ntreatment = "getting the loan"\n'


class House:
    """Calls the application without a socket."""

    def __init__(self, home: Path) -> None:
        for loop in (LOOP, "other"):
            path = home / "loops" / loop / "loop.toml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(TEXT)
        self.core: Core = open_core(
            load_settings({}, home=str(home)), clock=lambda: (NOW + timedelta(hours=1)).timestamp()
        )
        self.app = App(lambda: self.core)
        self.store = Governance.at(self.core.settings)
        self.panel = Panel(self.store)
        self.keys: dict[str, str] = {}
        for role in ("adjudicator", "administrator"):
            _, self.keys[role] = add_person(self.store, name=role.title(), roles=[role], now=NOW, by="test")
        _, self.keys["owner"] = add_person(self.store, name="Owner", roles=["owner"], owns=[LOOP], now=NOW, by="test")
        both, self.keys["both"] = add_person(
            self.store, name="Both", roles=["owner", "auditor"], owns=[LOOP], now=NOW, by="test"
        )
        self.both = both

    def __call__(
        self, method: str, path: str, body: Any = None, *, key: str = "", content: bytes | None = None, **headers: str
    ) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key:
            sent["authorization"] = f"Bearer {self.keys.get(key, key)}"
        data = content if content is not None else None if body is None else json.dumps(body).encode()

        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, content=data, headers=sent)

        return asyncio.run(call())

    def close(self) -> None:
        self.store.close()
        self.core.close()
