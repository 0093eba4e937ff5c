"""What people do with a guard: cap, stop, resume, replay, and look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import pipelines.guard.step as step_module
from decision.errors import FieldError
from pipelines.guard.operate import operate
from pipelines.guard.replay import replay
from pipelines.guard.report import plot, report
from pipelines.guard.state import evidence_in, rules_in
from pipelines.guard.store import GuardStore
from tests.worlds.rollout import GuardedLoop, published


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[GuardedLoop]:
    made = GuardedLoop(tmp_path)
    yield made
    made.close()


def test_operators_cap_stop_and_resume_at_once(shop: GuardedLoop) -> None:
    shop.point("candidate", "2")
    begun = shop.step()
    state = operate(shop.settings, shop.loop, now=shop.now, by="ann", cap=0.02)
    assert published(shop).weight == state.weight == 0.02
    assert published(shop).guard_version == begun.guard_version + 1
    operate(shop.settings, shop.loop, now=shop.now, by="ann", stop=True)
    assert published(shop).weight == 0.0
    assert shop.step().weight == 0.0, "an aggregation does not undo it"
    operate(shop.settings, shop.loop, now=shop.now, by="ann", stop=False, cap=1.0)
    assert published(shop).weight == 0.05
    last = GuardStore(shop.settings, "shop").moves()[-1]
    assert (last.kind, last.reason) == ("resumed", "resumed by ann")
    with pytest.raises(FieldError, match="cap"):
        operate(shop.settings, shop.loop, now=shop.now, by="ann", cap=1.5)


def test_a_stop_during_an_aggregation_wins(shop: GuardedLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.point("candidate", "2")
    state = shop.step()
    shop.serve(state, 50, 0.3, 0.2)
    real, stops = step_module.judge, []

    def stop_meanwhile(state):
        if not stops:
            stops.append(operate(shop.settings, shop.loop, now=shop.now, by="ann", stop=True))
        return real(state)

    monkeypatch.setattr(step_module, "judge", stop_meanwhile)
    state = shop.step()
    assert state.stopped
    assert (state.weight, published(shop).weight) == (0.0, 0.0)
    assert evidence_in(state).decisions == 50


def test_replay_tells_when_the_lake_is_not_what_was_counted(shop: GuardedLoop) -> None:
    shop.point("candidate", "2")
    shop.serve(shop.step(), 100, 0.3, 0.2)
    shop.step()
    store = GuardStore(shop.settings, "shop")
    state = store.load()
    part = state.parts[""]
    assert part.sums is not None
    assert replay(shop.settings, shop.loop, shop.world.lake).same
    futility = [part.sums.futility[0] + 1, *part.sums.futility[1:]]
    other = msgspec.structs.replace(part, sums=msgspec.structs.replace(part.sums, futility=futility))
    store.commit(msgspec.structs.replace(state, parts={"": other}))
    found = replay(shop.settings, shop.loop, shop.world.lake)
    assert (found.same, found.differs) == (False, ["parts"])


def test_report_and_plot_show_the_rollout(shop: GuardedLoop, tmp_path: Path) -> None:
    shop.point("candidate", "2")
    shop.serve(shop.step(), 1500, 0.6, 0.1)
    state = shop.step()
    history = GuardStore(shop.settings, "shop").moves()
    seen = json.loads(msgspec.json.encode(report(state, history)))
    assert [rung["weight"] for rung in seen["rungs"]] == list(rules_in(state).rungs)
    assert {leg["name"] for leg in seen["legs"]} == {"futility", "promotion", "drift"}
    assert seen["history"][0]["kind"] == "started"
    for kind in ("svg", "html"):
        plot(history, "shop", tmp_path / f"weights.{kind}")
        assert "share of the candidate" in (tmp_path / f"weights.{kind}").read_text()
    with pytest.raises(FieldError, match="plot"):
        plot(history, "shop", tmp_path / "weights.exe")
