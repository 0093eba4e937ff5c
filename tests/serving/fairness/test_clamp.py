"""The clamp on the request path: published pairs, exact propensities, and a stop when they are withdrawn."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from deltalake.transaction import AddAction

from decision.draw import draw
from decision.records import decode_decision
from pipelines.fairness import tables as t
from pipelines.fairness.mine import mine
from pipelines.fairness.people import add_person, open_session
from pipelines.fairness.publish import publish
from pipelines.fairness.store import Governance
from pipelines.fairness.tasks import Judgement, assign, judge, queue
from pipelines.fairness.views import effect
from pipelines.fairness.views.effect import effect_of
from pipelines.lake.lake import Lake
from pipelines.lake.statistics import actions_of
from pipelines.settings import load_loop
from pipelines.training.train import train
from serving.core import Core
from serving.fairness.console.site import COOKIE
from serving.http.app import App
from serving.start import open_core
from serving.wire import Action, DecideRequest
from tests.worlds.credit import LOOP, TEXT, Credit
from tests.worlds.panels import NOW


def test_upheld_pairs_are_answered_alike_with_exact_propensities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credit = Credit.at(tmp_path, TEXT + "clamp = true\n")
    credit.play(500)
    version = train(credit.lake, credit.registry, credit.loop, seed=1, now=NOW).version
    fields = {"verdict": "set", "reasons": ["a test"], "at": NOW.isoformat(), "by": "a test"}
    credit.registry.set_alias(LOOP, "champion", version, fields)
    with Governance.at(credit.settings) as store:
        people = [add_person(store, name=f"A{n}", roles=["auditor"], now=NOW, by="test")[0] for n in range(3)]
        mine(store, credit.lake, credit.registry, credit.loop, now=NOW, by="test", decisions=200, mined=1, probe=0)
        assign(store, LOOP, now=NOW, by="test", rng=np.random.default_rng(0))
        for person in people:
            (task,) = queue(store, person, now=NOW)
            said = Judgement(verdict="unfair", payload_hash=task["payload_hash"], acceptable=0.1)
            judge(store, person, task["task_id"], said, now=NOW + timedelta(hours=1))
        (pair,) = store.rows(sa.select(t.tasks))
        core = open_core(credit.settings)
        before = [_decide(core, credit, pair[side]) for side in ("favoured", "disfavoured")]
        waits = effect_of(credit.settings, store, credit.lake, credit.registry, credit.loop, pair["task_id"])
        assert (waits.version, waits.clamps, waits.published, waits.after) == (version, True, False, None)
        assert publish(credit.settings, store, credit.lake, credit.loop) == 1
        core.loops.refresh()
        after = [_decide(core, credit, pair[side]) for side in ("favoured", "disfavoured")]
        assert before[0].pmf[0] - before[1].pmf[0] > 0.3
        assert abs(after[0].pmf[0] - after[1].pmf[0]) <= 0.1 + 1e-12
        for record in after:
            assert record.propensity == record.pmf[record.action_index]
            assert draw(record.pmf, record.seed) == record.action_index
            assert core.explain(record.event_id).decisions[0].pmf_recomputed_equal
        told = effect_of(credit.settings, store, credit.lake, credit.registry, credit.loop, pair["task_id"])
        assert told.published
        assert (told.before.high, told.before.low) == pytest.approx([record.pmf[0] for record in before], abs=1e-12)
        assert (told.after.high, told.after.low) == pytest.approx([record.pmf[0] for record in after], abs=1e-12)
        assert (told.looked_at, told.alike, told.changed) == (500, 2, 2)  # nobody else looks like one of the two
        assert set(told.events) == {pair["favoured"], pair["disfavoured"]}
        owner, _ = add_person(store, name="O", roles=["owner"], owns=[LOOP], now=NOW, by="test")
        token = open_session(store, owner, now=datetime.fromtimestamp(core.clock(), UTC))
        page = " ".join(_page(core, f"/console/fairness/{LOOP}/pairs/{pair['task_id']}", token).split())
        assert f"Version {version}, in charge, by itself" in page
        assert "As they are answered now, clamped" in page
        assert (
            "Of the latest 500 decisions, 2 look like one of the two; 2 of them would get other probabilities" in page
        )
        assert pair["favoured"] not in page  # which decisions those are is for administrators
        path = credit.settings.loop_path(LOOP)
        path.write_text(TEXT)
        assert publish(credit.settings, store, credit.lake, load_loop(credit.settings, LOOP)) == 0
        core.loops.refresh()
        core.loops.refresh()
        assert _decide(core, credit, pair["favoured"]).pmf == before[0].pmf
        monkeypatch.setattr(effect, "LATEST", 200)
        monkeypatch.setattr(effect, "NEAR", 240)
        of_pair = (credit.settings, store, credit.lake, credit.registry, credit.loop, pair["task_id"])
        told = effect_of(*of_pair)
        assert told.before is not None
        grow(credit.lake, 10_000_000)
        assert effect_of(*of_pair) == told  # and so nothing of the history was read
        core.close()


def grow(lake: Lake, rows: int) -> None:
    """Let the lake tell of a file of so many earlier decisions that nobody ever wrote: whoever reads it fails."""
    table = lake.table("decisions")
    known = actions_of(table)[0]
    values = {name.removeprefix("partition."): str(known[name]) for name in known if name.startswith("partition.")}
    ends = {
        end: {"ts": (known["min.ts"] - timedelta(days=days)).isoformat(), "event_id": any_id}
        for end, days, any_id in (("minValues", 30, "!"), ("maxValues", 1, "~"))
    }
    path = f"{known['path'].rpartition('/')[0]}/nobody-wrote-it.parquet"
    lake.commit(
        "decisions", table, [AddAction(path, 1 << 30, values, 0, True, json.dumps({"numRecords": rows, **ends}))], {}
    )


def _page(core: Core, path: str, token: str) -> str:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=App(lambda: core))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path, headers={"cookie": f"{COOKIE}={token}"})

    answer = asyncio.run(ask())
    assert answer.status_code == 200, answer.text
    return answer.text


def _decide(core: object, credit: Credit, event_id: str) -> object:
    row = credit.lake.decisions(LOOP, event_ids=[event_id]).to_pylist()[0]
    actions = [Action("approve", {"give": 1}), Action("deny", {"give": 0})]
    request = DecideRequest(msgspec.json.decode(row["context"]), actions)
    answer = asyncio.run(core.decide(LOOP, request))  # type: ignore[attr-defined]
    return decode_decision(core.spool.find("decisions", answer.event_id.encode())[0].value)  # type: ignore[attr-defined]
