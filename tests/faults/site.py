"""A small installation that faults happen to: callers who remember what they were told, and a check of all of it."""

from __future__ import annotations

import asyncio
import copy
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from pipelines.ingestion.ingest import ingest
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.nightly import nightly
from pipelines.operations.installation import Installation
from pipelines.runs import Run
from pipelines.settings import Settings, load_settings
from serving.http.app import App
from serving.start import open_core
from tests.worlds.synthetic import BAD, GOOD, KINDS, new_loop, new_settings

LOOP = "shop"
TEXT = "[gate]\nminimum_ess = 5\nmargin = 0.0\n"
ACTIONS = [{"id": kind, "features": {"colour": kind}} for kind in KINDS]


class Site:
    """One machine's installation: a service that may be started and stopped, and nights.

    Args:
        home: the home folder; made.
        text: settings of the loop.

    Attributes:
        settings: the installation's.
        now: seconds since 1970, as the service's clock says.
        decided: events whose decision was acknowledged.
        reported: events whose outcome was.
        heard: the last problem document that a caller got.
        before: what happens when a step of a night begins.
        step: the last step of a night that was begun.
    """

    def __init__(self, home: Path, text: str = TEXT) -> None:
        home.mkdir(parents=True)
        self.settings: Settings = new_settings(home)
        new_loop(self.settings, LOOP, text)
        self.now = datetime.now(UTC).timestamp()
        self.decided: dict[str, str] = {}
        self.reported: set[str] = set()
        self.heard = self.step = ""
        self.before: dict[str, Callable[[], object]] = {}
        self._app: App | None = None
        self._rng = np.random.default_rng(1)
        self._number = 0

    def copied(self, files: Path, home: Path) -> Site:
        """Return this site, which is stopped, as it would be in `home`; `files` are its own, wherever they are."""
        assert self._app is None, "its files change as long as it is started"
        shutil.copytree(files, home)
        other = copy.copy(self)
        other.settings = load_settings({}, home=str(home))
        other.decided, other.reported, other.before = dict(self.decided), set(self.reported), dict(self.before)
        other._rng = copy.deepcopy(self._rng)
        return other

    @property
    def app(self) -> App:
        """The service's application."""
        assert self._app is not None, "the service is not started"
        return self._app

    def start(self) -> None:
        """Start the service, if it is not; raises what it cannot start for."""
        if self._app is None:
            app = App(lambda: open_core(self.settings, clock=lambda: self.now))
            _ = app.core
            self._app = app

    def look(self) -> None:
        """Let the service look for what changed, now."""
        self.app.core.loops.refresh()

    def stop(self) -> None:
        """Stop the service, if it is not."""
        app, self._app = self._app, None
        if app is not None:
            app.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Return the service's answer, without a socket."""

        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                content = None if body is None else json.dumps(body)
                return await client.request(method, path, content=content, headers=headers)

        response = asyncio.run(call())
        if response.status_code >= 400:
            self.heard = response.text
        return response

    def live(self, n: int, *, at_once: int = 1, reports_first: bool = False) -> Counter[int]:
        """Ask for `n` decisions and report on those that pay; return how often each status was the answer.

        Args:
            n: how many.
            at_once: how many in one request.
            reports_first: tell the outcome before the decision is asked for.
        """
        statuses: Counter[int] = Counter()
        for first in range(0, n, at_once):
            questions = [self._question() for _ in range(min(at_once, n - first))]
            events = [question["event_id"] for question in questions]
            if reports_first:
                statuses += self._report(events)
            answer = self.ask("POST", f"/v1/loops/{LOOP}/decide/batch", {"decisions": questions})
            statuses[answer.status_code] += 1
            if answer.status_code != 200:
                continue
            actions = [one["action_id"] for one in answer.json()["decisions"]]
            self.decided |= dict(zip(events, actions, strict=True))
            if not reports_first:
                chances = [
                    GOOD if action == question["context"]["kind"] else BAD
                    for action, question in zip(actions, questions, strict=True)
                ]
                paid = self._rng.random(len(chances)) < chances
                statuses += self._report([event for event, pays in zip(events, paid, strict=True) if pays])
        return statuses

    def _question(self) -> dict[str, Any]:
        self._number += 1
        self.now += 0.01
        kind, subject = KINDS[int(self._rng.integers(3))], f"s{self._number % 7}"
        event = f"e{self._number}"
        return {"event_id": event, "context": {"kind": kind}, "actions": ACTIONS, "subject_id": subject}

    def _report(self, events: list[str]) -> Counter[int]:
        if not events:
            return Counter()
        outcomes = [{"event_id": event, "value": 1.0} for event in events]
        status = self.ask("POST", f"/v1/loops/{LOOP}/outcomes", outcomes).status_code
        if status == 202:
            self.reported.update(events)
        return Counter([status])

    @contextmanager
    def parts(self) -> Iterator[Installation]:
        """Open what commands open."""
        with Installation(self.settings) as parts:
            yield parts

    @property
    def later(self) -> datetime:
        """When every window is over."""
        return datetime.fromtimestamp(self.now, UTC) + timedelta(days=2)

    def night(self) -> Run:
        """Run a night after all windows are over, or go on with one; raises what it ended with."""

        def told(step: str, state: str) -> None:
            self.step = step
            if state == "started" and (happens := self.before.get(step)) is not None:
                happens()

        with self.parts() as parts:
            loop = parts.loop(LOOP)
            return nightly(self.settings, parts.log, parts.lake, parts.registry, loop, now=self.later, told=told)

    def nights(self) -> list[str]:
        """Return the nights that were begun."""
        return sorted(path.name for path in (self.settings.root / "runs" / LOOP).glob("*/"))

    def check(self) -> None:
        """Bring everything in and check that nothing acknowledged is lost or doubled, and that the counts add up."""
        with self.parts() as parts:
            ingest(parts.log, parts.lake, loops=parts.loops)
            join(parts.lake, parts.loop(LOOP), self.later)
            kept = Counter(parts.lake.decisions(LOOP)["event_id"].to_pylist())
            actions = {
                row["event_id"]: row["action_ids"][row["action_index"]]
                for row in parts.lake.decisions(LOOP).select(["event_id", "action_ids", "action_index"]).to_pylist()
            }
            outcomes = Counter(parts.lake.outcomes(LOOP)["event_id"].to_pylist())
            counted = counters(parts.lake, parts.loop(LOOP), self.later)
        assert [event for event in self.decided if kept[event] != 1] == []
        assert {event: actions[event] for event in self.decided} == self.decided
        assert [event for event in self.reported if outcomes[event] < 1] == []
        assert counted.balanced
        assert (counted.pending, counted.decided) == (0, sum(kept.values()))
        assert counted.decided == counted.joined + counted.expired + sum(counted.dropped.values())
