"""Serving a candidate by segment, and by one coin for whole slates and episodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from decision.draw import draw
from decision.guard.coin import candidate_has
from decision.guard.snapshot import GuardSnapshot, encode_snapshot
from decision.records import Decision
from pipelines.settings import load_settings
from serving.core import Core
from serving.start import open_core
from serving.wire import Action, DecideRequest, Slot
from tests.worlds.rollout import GuardedLoop, publish

TEXT = "[guard]\nenabled = true\n"
EPISODES = TEXT + 'unit = "episode"\nepisode_s = 100\n'
NOW = 1_800_000_000.0


class Site:
    """A loop ``shop`` with champion 1 and candidate 2, and replicas on its home folder."""

    def __init__(self, home: Path, text: str, online: str = "") -> None:
        self.made = GuardedLoop(home, text)
        self.settings = load_settings({}, home=str(home), reload_s=3600.0, online=online)
        self.now, self.version = NOW, 10
        self.cores: list[Core] = []

    def publish(self, weight: float, **changes: Any) -> None:
        """Publish a weight for version 2 and let every replica look."""
        self.version += 1
        fields = {
            "guard_version": self.version,
            "loop": "shop",
            "baseline_version": "1",
            "candidate_version": "2",
            "weight": weight,
            "floor": 0.05,
            "killed": False,
            "n": 0,
            "expires_at": NOW + 1e6,
            "ttl_s": 1e5,
            "unit": self.made.loop.guard.unit,
        }
        publish(self.settings, encode_snapshot(GuardSnapshot(**(fields | changes))))
        for core in self.cores:
            core.loops.refresh()

    def replica(self) -> Core:
        core = open_core(self.settings, clock=lambda: self.now)
        self.cores.append(core)
        return core

    def ask(self, core: Core, event_id: str, **fields: Any) -> list[Decision]:
        """Return the records of one decision."""
        actions = [Action(name, {"kind": name}) for name in ("a", "b", "c")]
        request = DecideRequest(fields.pop("context", {"hour": 9}), actions, event_id=event_id, **fields)
        asyncio.run(core.decide("shop", request))
        return core.stored(event_id)

    def close(self) -> None:
        for core in self.cores:
            core.close()
            assert core.episodes is not None
            core.episodes.close()
        self.made.close()


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(tmp_path, request.param)
    yield made
    made.close()


def check_side(record: Decision, weight: float, unit_id: str) -> None:
    """Check that the record is the coin's and can be drawn again."""
    side = candidate_has("shop", unit_id, weight)
    assert record.guard_weight == weight
    assert record.pmf == (record.pmf_candidate if side else record.pmf_baseline)
    assert draw(record.pmf, record.seed) == record.action_index
    assert record.propensity == record.pmf[record.action_index]


@pytest.mark.parametrize("site", [EPISODES], indirect=True)
def test_an_episode_keeps_to_what_it_began_with_over_replicas_and_restarts(site: Site) -> None:
    site.publish(0.5)
    one, other = site.replica(), site.replica()
    names = [f"visit-{n}" for n in range(20)]
    for name in names:
        check_side(site.ask(one, f"{name}.0", episode_id=name)[0], 0.5, name)
    site.publish(0.9)
    for name in names[:10]:
        record = site.ask(other, f"{name}.1", episode_id=name)[0]
        check_side(record, 0.5, name)
        assert record.guard_version == 11
    third = site.replica()
    for name in names[10:]:
        check_side(site.ask(third, f"{name}.2", episode_id=name)[0], 0.5, name)
    check_side(site.ask(third, "new.0", episode_id="new")[0], 0.9, "new")


@pytest.mark.parametrize("site", [EPISODES], indirect=True)
def test_an_episode_goes_on_under_its_versions_when_the_champion_changes(site: Site) -> None:
    site.publish(0.5)
    core = site.replica()
    names = [f"visit-{n}" for n in range(8)]
    before = {name: site.ask(core, f"{name}.0", episode_id=name)[0] for name in names}
    site.made.point("champion", "2")
    site.publish(0.0, baseline_version="2", candidate_version="")
    for name in names:
        record = site.ask(core, f"{name}.1", episode_id=name)[0]
        check_side(record, 0.5, name)
        assert (record.policy_version, record.pmf) == ("1", before[name].pmf)
    fresh = site.ask(core, "new.0", episode_id="new")[0]
    assert (fresh.policy_version, fresh.guard_weight) == ("2", 0.0)


@pytest.mark.parametrize("site", [EPISODES], indirect=True)
def test_a_stop_an_end_and_a_missing_episode_leave_the_policy_in_charge_alone(site: Site) -> None:
    site.publish(0.5)
    core = site.replica()
    site.ask(core, "v.0", episode_id="v")
    assert site.ask(core, "none.0")[0].guard_weight == 0.0
    site.now += 101.0
    late = site.ask(core, "v.1", episode_id="v")[0]
    assert (late.guard_weight, late.pmf_candidate, late.policy_version) == (0.0, None, "1")
    site.ask(core, "w.0", episode_id="w")
    site.publish(0.0)
    stopped = site.ask(core, "w.1", episode_id="w")[0]
    assert (stopped.guard_weight, stopped.pmf_candidate) == (0.0, None)


@pytest.mark.parametrize("site", [TEXT + 'unit = "slate"\n'], indirect=True)
def test_one_coin_decides_for_all_slots_of_a_slate(site: Site) -> None:
    site.publish(0.5)
    core = site.replica()
    for n in range(20):
        records = site.ask(core, f"page-{n}", slots=[Slot("top"), Slot("middle")])
        assert len(records) == 2
        for record in records:
            check_side(record, 0.5, f"page-{n}")


@pytest.mark.parametrize("site", [TEXT + 'segment = "country"\nsegments = ["de", "fr"]\n'], indirect=True)
def test_each_segment_is_served_its_own_weight(site: Site) -> None:
    site.publish(0.05, segment="country", weights={"de": 0.9, "fr": 0.0})
    core = site.replica()
    served = {
        country: site.ask(core, f"{country}-1", context={"country": country})[0] for country in ("de", "fr", "it")
    }
    assert {country: record.guard_weight for country, record in served.items()} == {"de": 0.9, "fr": 0.0, "it": 0.05}
    for record in served.values():
        rho, candidate = record.guard_weight, record.pmf_candidate or record.pmf_baseline
        assert record.pmf_baseline is not None
        assert candidate is not None
        for p, b, c in zip(record.pmf, record.pmf_baseline, candidate, strict=True):
            assert abs(p - ((1 - rho) * b + rho * c)) < 1e-12
    guard = msgspec.to_builtins(core.describe("shop").guard)
    assert (guard["weight"], guard["segments"]) == (0.9, {"de": 0.9, "fr": 0.0})
