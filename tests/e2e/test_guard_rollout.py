"""Rollouts under live traffic: replicas decide, outcomes come late, twice and out of order, and the guard decides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from decision.policy import OraclePolicy
from decision.records import Decision, decode_decision
from pipelines.guard.operate import operate
from pipelines.guard.replay import replay
from pipelines.guard.state import GuardState
from pipelines.guard.step import guard
from pipelines.guard.store import GuardStore
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.lake.lake import Lake
from pipelines.log.sqlite.log import LocalLog
from pipelines.registry.registry import Registry
from pipelines.registry.tracking import RegistryError
from pipelines.settings import load_settings
from serving.core import Core
from serving.start import open_core
from serving.wire import Action, DecideRequest, OutcomeRequest
from tests.worlds.rollout import publish, published_bytes
from tests.worlds.shop import PAYS, check_propensities, policy, register
from tests.worlds.synthetic import KINDS, START, new_loop, new_settings

TEXT = "[guard]\nenabled = true\nttl_s = 3600\nbatch = 300\n"


class CutOff:
    """A registry that cannot be reached."""

    def __getattr__(self, name: str) -> object:
        raise RegistryError("no route to the registry")


class Site:
    """Two replicas on one home folder, a lake, and a clock that only traffic moves."""

    def __init__(self, home: Path) -> None:
        made = new_settings(home)
        self.settings = load_settings({}, home=str(home), reload_s=3600.0)
        assert made.root == self.settings.root
        self.loop = new_loop(self.settings, "shop", TEXT)
        self.registry = Registry(self.settings)
        self.now = START.timestamp()
        self.lake = Lake(self.settings.lake_url)
        self.rng = np.random.default_rng(5)
        self.asked = 0
        self.state = GuardState(loop="shop")
        self.point("champion", self.register(policy(PAYS["good"], 0.7)))
        self.replicas: list[Core] = [open_core(self.settings, clock=lambda: self.now) for _ in range(2)]
        self.log = LocalLog(self.settings.spool_path)
        self.late: list[OutcomeRequest] = []

    def register(self, made: OraclePolicy) -> str:
        return register(self.registry, made)

    def point(self, alias: str, version: str) -> None:
        verdict = {"verdict": "set", "reasons": ["a test"], "at": START.isoformat(), "by": "a test"}
        self.registry.set_alias("shop", alias, version, verdict)  # type: ignore[arg-type]

    def traffic(self, n: int) -> None:
        """Ask both replicas n times in all; report outcomes out of order, some twice, and some after the window."""
        asyncio.run(self._traffic(n))

    async def _traffic(self, n: int) -> None:
        reports = self.late
        self.late = []
        for start in range(0, n, 50):
            kinds = [KINDS[int(i)] for i in self.rng.integers(3, size=min(50, n - start))]
            actions = [Action(colour, {"colour": colour}) for colour in KINDS]
            asks = [
                self.replicas[i % 2].decide(
                    "shop", DecideRequest({"kind": kind}, actions, event_id=f"e{self.asked + i:06d}")
                )
                for i, kind in enumerate(kinds)
            ]
            for kind, answer in zip(kinds, await asyncio.gather(*asks), strict=True):
                paid = self.rng.random() < (0.8 if answer.action_id == kind else 0.1)
                report = OutcomeRequest(answer.event_id, 1.0, idempotency_key=answer.event_id)
                if paid:
                    reports += [report] * (1 + int(self.rng.random() < 0.1))
                elif self.rng.random() < 0.02:
                    self.late.append(report)
            self.asked += len(kinds)
        self.now += 5.0
        mixed = [reports[int(i)] for i in self.rng.permutation(len(reports))]
        for start in range(0, len(mixed), 100):
            await self.replicas[start // 100 % 2].report("shop", mixed[start : start + 100])

    def aggregate(self) -> GuardState:
        """Settle what is mature, run the guard, and let both replicas look."""
        self.now += 601.0
        moment = datetime.fromtimestamp(self.now, UTC)
        ingest(self.log, self.lake)
        join(self.lake, self.loop, moment)
        self.state = guard(self.settings, self.loop, self.lake, self.registry, moment)
        self.look()
        return self.state

    def look(self) -> None:
        for replica in self.replicas:
            replica.loops.refresh()

    def records(self) -> list[Decision]:
        """Return every decision on the log."""
        return [
            decode_decision(message.value)
            for number in range(self.settings.partitions)
            for message in self.log.read("decisions", number, 0, max_messages=1_000_000)
        ]

    def close(self) -> None:
        self.log.close()
        for replica in self.replicas:
            replica.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.mark.statistical
def test_a_good_candidate_rises_to_champion_and_every_propensity_is_exact(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeded. The lift is 65%: the top needs about 2,000 decisions, 12,000 are allowed.

    On the way the aggregator is cut down once, and one replica loses the registry.
    """
    version = site.register(policy(PAYS["good"], 0.05))
    site.point("candidate", version)
    site.aggregate()
    weights = [site.state.weight]
    for number in range(12):
        site.traffic(1000)
        if number == 0:

            def cut(*args: object) -> None:
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(GuardStore, "publish", cut)
                with pytest.raises(KeyboardInterrupt):
                    site.aggregate()
        if number == 1:
            monkeypatch.setattr(site.replicas[1].loops, "_registry", CutOff())
        site.aggregate()
        weights.append(site.state.weight)
        if site.state.status == "promoted":
            break
    assert site.state.status == "promoted"
    assert max(weights) == pytest.approx(0.95)
    assert site.registry.aliases("shop") == {"champion": version}
    connected, cut_off = site.replicas
    assert connected.snapshot("shop").policy_version == version
    assert cut_off.snapshot("shop").policy_version == "1", "the last it knows of, alone"
    assert cut_off.loops.error("shop")
    site.traffic(100)
    assert replay(site.settings, site.loop, site.lake).same
    records = site.records()
    assert len(records) == site.asked
    check_propensities(records)
    served = {record.guard_weight for record in records}
    assert {0.0, 0.05, 0.95} <= {round(weight, 10) for weight in served}


@pytest.mark.statistical
def test_a_bad_candidate_is_killed_before_it_costs_more_than_alpha(site: Site) -> None:
    """Seeded. At alpha a candidate worth a third is refuted within 6,000 decisions; 20,000 are allowed."""
    version = site.register(policy(PAYS["bad"], 0.05))
    site.point("candidate", version)
    site.aggregate()
    for _ in range(20):
        site.traffic(1000)
        assert site.aggregate().weight <= 0.05
        if site.state.status == "killed":
            break
    assert site.state.status == "killed"
    assert site.registry.aliases("shop") == {"champion": "1"}
    assert site.registry.verdicts("shop")[-1].verdict == "killed"
    assert site.replicas[0].snapshot("shop").candidate is None
    site.traffic(100)
    check_propensities(site.records())
    assert [record.guard_weight for record in sorted(site.records(), key=lambda r: r.event_id)][-100:] == [0.0] * 100


def test_replicas_fall_back_when_the_guard_falls_silent_and_stop_when_told(site: Site) -> None:
    site.point("candidate", site.register(policy(PAYS["good"], 0.05)))
    site.aggregate()

    def weight_now() -> float:
        site.traffic(1)
        return max(site.records(), key=lambda record: record.event_id).guard_weight

    assert weight_now() == 0.05
    operate(site.settings, site.loop, now=datetime.fromtimestamp(site.now, UTC), by="ann", stop=True)
    site.look()
    assert weight_now() == 0.0
    operate(site.settings, site.loop, now=datetime.fromtimestamp(site.now, UTC), by="ann", stop=False)
    site.look()
    assert weight_now() == 0.05
    site.now += timedelta(hours=2).total_seconds()
    assert weight_now() == 0.05, "stale: alpha at most"
    site.now += timedelta(hours=12).total_seconds()
    assert weight_now() == 0.0, "stale for more than ten lifetimes: the policy in charge alone"
    shown = msgspec.to_builtins(site.replicas[0].describe("shop").guard)
    assert (shown["weight"], shown["published_weight"]) == (0.0, 0.05), "what is served, beside what was published"
    site.aggregate()
    assert weight_now() == 0.05
    whole = published_bytes(site.settings)
    publish(site.settings, whole.replace(b'"weight":0.05', b'"weight":0.95'))
    site.look()
    assert "checksum" in str(site.replicas[0].loops.error("shop"))
    assert weight_now() == 0.0
    publish(site.settings, whole)
    site.look()
    assert site.replicas[0].loops.error("shop") is None
    assert weight_now() == 0.05
    publish(site.settings, None)
    site.look()
    assert weight_now() == 0.0
    check_propensities(site.records())


@pytest.mark.parametrize("fails", ["pmf", "prepare", "scores"])
def test_a_candidate_that_fails_leaves_the_policy_in_charge_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    site.point("candidate", site.register(policy(PAYS["good"], 0.05)))
    site.aggregate()

    def broken(*args: object) -> None:
        raise ArithmeticError("no scores")

    for replica in site.replicas:
        candidate: Any = replica.snapshot("shop").candidate
        if fails == "pmf":
            monkeypatch.setattr(candidate, "pmf", broken)
        else:
            monkeypatch.setattr(candidate.oracle, "prepare", broken if fails == "prepare" else lambda actions: broken)
    site.traffic(50)
    records = site.records()
    assert {(r.guard_weight, r.pmf_candidate is None, r.policy_version) for r in records} == {(0.0, True, "1")}
    assert site.aggregate().skipped == {"not served": 50}
