"""What the pages of owners and auditors cost beside ten million decisions and a year of panels, against a first day.

The ten million are a file that the lake's log of commits tells of and nobody ever wrote: a page that read it would
fail. The year's pairs are copies of a real one, with judgements, verdicts and entries of the log, put in by hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import sqlalchemy as sa

from pipelines.fairness import tables as t
from pipelines.fairness.mine import mine
from pipelines.fairness.people import Person, add_person, open_session
from pipelines.fairness.publish import publish
from pipelines.fairness.store import Governance, stamp
from pipelines.fairness.tasks import Judgement, assign, judge, queue
from pipelines.training.train import train
from serving.fairness.console.site import COOKIE
from serving.http.app import App
from serving.start import open_core
from tests.serving.fairness.test_clamp import grow
from tests.worlds.credit import LOOP, TEXT, Credit
from tests.worlds.panels import NOW

QUICK = os.environ.get("QUICK") == "1"
NIGHTS, DECISIONS, PAGES = (20, 200_000, 3) if QUICK else (365, 10_000_000, 15)
A_NIGHT, AUDITORS = 30, 5


class Site:
    """A loop with a panel that judged a night's pairs, and before it `nights` more of them."""

    def __init__(self, folder: Path, nights: int, decisions: int) -> None:
        credit = Credit.at(folder, TEXT + "clamp = true\n")
        credit.play(9_000)  # more in each partition than a verdict's page reads
        version = train(credit.lake, credit.registry, credit.loop, seed=1, now=NOW).version
        fields = {"verdict": "set", "reasons": ["a benchmark"], "at": NOW.isoformat(), "by": "a benchmark"}
        credit.registry.set_alias(LOOP, "champion", version, fields)
        self.core = open_core(credit.settings)
        self.app = App(lambda: self.core)
        now = datetime.fromtimestamp(self.core.clock(), UTC)
        with Governance.at(credit.settings) as store:
            people = [_added(store, f"A{n}", "auditor") for n in range(AUDITORS)]
            owner = add_person(store, name="O", roles=["owner"], owns=[LOOP], now=NOW, by="bench")[0]
            others = [_added(store, "J", "adjudicator"), _added(store, "M", "administrator")]
            mine(store, credit.lake, credit.registry, credit.loop, now=now, by="bench")
            assign(store, LOOP, now=now, by="bench", rng=np.random.default_rng(0))
            for number, person in enumerate(people):
                for at, task in enumerate(queue(store, person, now=now)[: A_NIGHT - 5]):
                    said = "unfair" if (at + number) % 5 < 3 else "fair"
                    what = Judgement(verdict=said, payload_hash=task["payload_hash"])
                    judge(store, person, task["task_id"], what, now=now)
            publish(credit.settings, store, credit.lake, credit.loop)
            fill(store, people, nights, now)
            upheld = store.rows(sa.select(t.tasks).where(t.tasks.c.status == "upheld").limit(1))[0]["task_id"]
            who = dict(
                zip(("owner", "auditor", "adjudicator", "administrator"), (owner, people[0], *others), strict=True)
            )
            self.tokens = {role: open_session(store, person, now=now) for role, person in who.items()}
        if decisions:
            grow(credit.lake, decisions)
        self.pages = {
            "fairness": ("owner", f"/console/fairness/{LOOP}"),
            "verdicts": ("owner", f"/console/fairness/{LOOP}/pairs"),
            "verdict": ("owner", f"/console/fairness/{LOOP}/pairs/{upheld}"),
            "review": ("auditor", "/console/review"),
            "judged": ("auditor", "/console/judged"),
            "disputes": ("adjudicator", "/console/disputes"),
            "panels": ("administrator", "/console/panels"),
        }

    def milliseconds(self, name: str) -> tuple[list[float], list[float]]:
        """Return how long each of some pages took, and what processor time of this process."""
        role, path = self.pages[name]
        took, used = list[float](), list[float]()
        for _ in range(PAGES + 1):
            begun, before = time.perf_counter(), time.process_time()
            answer = asyncio.run(self._get(path, self.tokens[role]))
            took.append(1e3 * (time.perf_counter() - begun))
            used.append(1e3 * (time.process_time() - before))
            if answer.status_code != 200:
                raise RuntimeError(f"{path} gave {answer.status_code}: {answer.text[-300:]}")
        return took[1:], used[1:]  # the first imports and opens

    async def _get(self, path: str, token: str) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app), base_url="http://localhost"
        ) as client:
            return await client.get(path, headers={"cookie": f"{COOKIE}={token}"})


def _added(store: Governance, name: str, role: str) -> Person:
    return add_person(store, name=name, roles=[role], now=NOW, by="bench")[0]


def fill(store: Governance, people: list[Person], nights: int, now: datetime) -> None:
    """Put the pairs of so many earlier nights into the store, each judged by all, in the shares of a usual panel."""
    pattern = store.rows(sa.select(t.tasks).where(t.tasks.c.status == "upheld").limit(1))[0]
    verdict = store.rows(sa.select(t.verdicts).limit(1))[0]
    rng = np.random.default_rng(1)
    tasks, said, found, log = [], [], [], []
    names = ("task_id", "person_id", "verdict", "acceptable", "reason", "payload_hash", "judged_at")
    last = store.head().entries
    for night in range(nights):
        at = stamp(now - timedelta(days=nights - night))
        for number in range(A_NIGHT):
            task = f"b{night:05}x{number:05}"
            votes = rng.random(len(people)) < (0.8 if number % 3 else 0.2)
            status = "upheld" if votes.sum() >= 3 else "dismissed"
            probe = {"stream": "probe", "stratum": number % 4, "inclusion": 0.01, "population": 2_000}
            more = probe if number >= 20 else {"stream": "mined"}
            tasks.append({**pattern, "task_id": task, "status": status, "opened_at": at, "due_at": at, **more})
            tasks[-1]["window_id"] = f"night{night}"
            said += [
                dict(
                    zip(
                        names,
                        (task, one.person_id, "unfair" if no else "fair", 0.0 if no else 1.0, "", "x", at),
                        strict=True,
                    )
                )
                for one, no in zip(people, votes.tolist(), strict=True)
            ]
            numbers = {"unfair": int(votes.sum()), "fair": int((~votes).sum()), "abstained": 0, "decided_at": at}
            found.append({**verdict, "verdict_id": None, "task_id": task, "status": status, **numbers})
            for kind in ("opened", "assigned", *["judged"] * len(people), "closed"):
                last += 1
                body = {"at": at, "actor": "bench", "kind": kind, "subject": task, "body": "{}"}
                log.append({"seq": last, "previous": "x", "hash": "x", **body})
    for row in found:
        del row["verdict_id"]
    with store.write(now, "bench") as writing:
        for table, rows in ((t.tasks, tasks), (t.judgements, said), (t.verdicts, found), (t.audit_log, log)):
            if rows:
                writing.connection.execute(sa.insert(table), rows)


def main() -> None:
    """Run the benchmark and print its line."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        small, large = Site(Path(one), 0, 0), Site(Path(other), NIGHTS, DECISIONS)
        took = {name: (small.milliseconds(name), large.milliseconds(name)) for name in small.pages}
        for site in (small, large):
            site.app.close()
    middle = {name: [statistics.median(ms[0]) for ms in both] for name, both in took.items()}
    line = {
        "name": "panels",
        "ratios": {name: round(large / small, 3) for name, (small, large) in middle.items()},
        "detail": {
            "decisions": DECISIONS,
            "pairs": NIGHTS * A_NIGHT,
            "judgements": NIGHTS * A_NIGHT * AUDITORS,
            "milliseconds": {name: [round(ms, 1) for ms in both] for name, both in middle.items()},
            "processor_milliseconds": {
                name: [round(statistics.median(ms[1]), 1) for ms in both] for name, both in took.items()
            },
        },
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
