"""The watch over policies made in simulators: quiet in their world, alarmed in another, and then the bandit decides."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from decision.artifact import Manifest, pack
from decision.errors import FieldError
from decision.exploration.rule import Exploration
from decision.oracles.session import SessionOracle, SessionSettings
from decision.policy import OraclePolicy
from decision.records import Decision, Outcome
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.promotion.watch import Watched, watch
from pipelines.registry.registry import Registry
from simulators.environments.lts.env import draw_users
from simulators.learned.logs import logged
from simulators.learned.trajectories import Trajectories
from tests.decision.oracles.test_session import arrays
from tests.worlds.lake import LATER, START, World, decision, outcome
from tests.worlds.rollout import policy_files
from tests.worlds.synthetic import new_loop, new_settings

LEVELS = {f"d{number}": number / 30 for number in range(6, 19)}
MADE = START + timedelta(days=3)
STEPS = 20
TEXT = "[reward]\nmaximum = 1000.0\n"


def records(log: Trajectories, first: str, since: timedelta) -> list[Decision | Outcome]:
    """Return the log's users as decisions a minute apart, and their outcomes."""
    out: list[Decision | Outcome] = []
    ids = list(LEVELS)
    for user in range(len(log)):
        for step in range(log.actions.shape[1]):
            event = f"{first}-{user}-{step}"
            index, p = ids.index(f"d{log.actions[user, step]}"), float(log.propensities[user, step])
            pmf = [(1 - p) / (len(ids) - 1)] * len(ids)
            pmf[index] = p
            ts = START + since + timedelta(minutes=step, milliseconds=user)
            actions = msgspec.Raw(msgspec.json.encode([{}] * len(ids)))
            out.append(
                decision(
                    event,
                    subject_id=f"{first}-{user}",
                    ts=ts,
                    action_ids=ids,
                    actions=actions,
                    pmf=pmf,
                    action_index=index,
                    propensity=p,
                )
            )
            late = ts + timedelta(seconds=5)
            out.append(msgspec.structs.replace(outcome(event, float(log.rewards[user, step])), ts=late))
    return out


class Shop:
    """A lake and a registry whose champion is a session policy made on day 3, after a bandit."""

    def __init__(self, folder: Path) -> None:
        self.settings = new_settings(folder)
        self.loop = new_loop(self.settings, "shop", TEXT)
        self.registry = Registry(self.settings)
        self.world = World(folder)
        bandit = self.registry.register("shop", policy_files("shop", 0))
        self.point(bandit, None)
        oracle = SessionOracle(SessionSettings(actions=list(LEVELS), levels=tuple(LEVELS.values())), self._net())
        rule = Exploration(kind="softmax", inverse_temperature=1.0, floor=0.03)
        manifest = Manifest(
            loop="shop",
            oracle="session",
            exploration=rule,
            seed=0,
            code_version="test",
            created_at=MADE.isoformat(),
        )
        self.session = self.registry.register("shop", pack(OraclePolicy(oracle, rule), manifest))
        self.bandit = bandit
        self.point(self.session, bandit)

    @staticmethod
    def _net() -> dict[str, np.ndarray]:
        net = arrays()
        net["head.2.weight"] = np.zeros((len(LEVELS), 10), np.float32)
        net["head.2.bias"] = np.zeros(len(LEVELS), np.float32)
        return net

    def point(self, version: str, expected: str | None) -> None:
        verdict = {"verdict": "promoted", "reasons": ["a test"], "numbers": {}, "at": START.isoformat(), "by": "a test"}
        self.registry.set_alias("shop", "champion", version, verdict, expected=expected)  # type: ignore[arg-type]

    def see(self, log: Trajectories, first: str, since: timedelta) -> None:
        self.world.append(*records(log, first, since))
        ingest(self.world.log, self.world.lake)
        join(self.world.lake, self.loop, LATER)

    def watch(self, **changes: Any) -> Watched:
        return watch(self.world.lake, self.registry, self.loop, now=LATER, by="a test", length=STEPS, **changes)


def users(seed: int, count: int) -> Trajectories:
    return logged(draw_users(np.random.default_rng(seed), np.array([14.0]), count), seed, horizon=STEPS)


def test_watch_is_quiet_in_its_own_world_and_gives_the_place_back_in_another(tmp_path: Path) -> None:
    """Seeded. The watch allows half as much again as 99% of groups of users held apart show."""
    shop = Shop(tmp_path)
    found = shop.watch()
    assert (found.judged, found.users) == (False, 0)
    assert "wanted 40 users" in found.reason
    shop.see(users(1, 120), "before", timedelta(0))
    shop.see(users(2, 40), "since", timedelta(days=4))
    found = shop.watch()
    assert (found.judged, found.alarmed, found.users, found.learned_from) == (True, False, 40, 120)
    assert shop.registry.aliases("shop")["champion"] == shop.session
    other = users(3, 400)
    fallen = replace(other, rewards=other.rewards * np.where(other.actions > 12, 0.5, 1.0))
    shop.see(fallen, "later", timedelta(days=5))
    told = shop.watch(act=False)
    assert told.alarmed
    assert shop.registry.aliases("shop")["champion"] == shop.session
    found = shop.watch()
    assert (found.moved, found.to_version) == (True, shop.bandit)
    assert shop.registry.aliases("shop")["champion"] == shop.bandit
    written = shop.registry.verdicts("shop")[-1]
    assert (written.verdict, written.by) == ("rolled_back", "a test")
    assert "unlikely under every simulator" in written.reasons[0]
    assert shop.watch().reason == "the policy in charge was not made in simulators"


def test_a_city_where_something_broke_and_users_who_lie_are_told_of_by_name(tmp_path: Path) -> None:
    """Seeded. In Turin rewards beyond a document are halved; in Bergen three users report every other one too high."""
    shop = Shop(tmp_path)
    shop.see(users(1, 120), "before", timedelta(0))
    log, city = users(2, 90), np.arange(90) % 3
    rewards = np.where((city == 2)[:, None] & (log.actions > 12), 0.5 * log.rewards, log.rewards)
    liars = [0, 3, 6]
    rewards[liars, ::2] *= np.e
    made = records(replace(log, rewards=rewards.astype(np.float32)), "since", timedelta(days=4))
    names = ("bergen", "lyon", "turin")
    shop.world.append(*(_in_city(record, names) for record in made))
    ingest(shop.world.log, shop.world.lake)
    join(shop.world.lake, shop.loop, LATER)
    found = shop.watch(act=False, group="context.city")
    assert {one.group: one.users for one in found.groups} == dict.fromkeys(names, 30)
    alarmed = {one.group for one in found.groups if one.alarmed}
    assert "turin" in alarmed
    assert "lyon" not in alarmed
    assert {f"since-{user}" for user in liars} <= {one.user for one in found.oddest}
    assert [one.surprise for one in found.oddest] == sorted((one.surprise for one in found.oddest), reverse=True)
    assert found.odd_limit is not None
    assert found.oddest[-1].surprise > found.odd_limit
    assert shop.watch(act=False, most_users=2).oddest == found.oddest[:2]
    assert found.odd >= len(found.oddest) > 3


def _in_city(record: Decision | Outcome, names: tuple[str, ...]) -> Decision | Outcome:
    if isinstance(record, Outcome):
        return record
    name = names[int(record.event_id.split("-")[1]) % 3]
    return msgspec.structs.replace(record, context=msgspec.Raw(msgspec.json.encode({"city": name})))


def test_the_gap_of_every_simulator_says_on_which_actions_users_answer_otherwise(tmp_path: Path) -> None:
    """Seeded. What documents beyond one bring became uncertain, and with it what is remembered where others follow."""
    shop = Shop(tmp_path)
    shop.see(users(1, 120), "before", timedelta(0))
    log, rng = users(2, 60), np.random.default_rng(0)
    far = log.actions > 12
    odd = np.where(far, log.rewards * np.exp(rng.normal(0.0, 0.4, log.rewards.shape)), log.rewards)
    shop.see(replace(log, rewards=odd.astype(np.float32)), "since", timedelta(days=4))
    found = shop.watch(act=False)
    assert len(found.simulators) == 3
    for one in found.simulators:
        assert one.gap is not None
        assert one.before is not None
        assert one.gap > one.before
        assert {each.action for each in one.actions[:6]} == {f"d{number}" for number in range(13, 19)}
        assert sum(each.decisions for each in one.actions) == 60 * STEPS


def test_a_trajectory_too_short_to_judge_is_refused(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with pytest.raises(FieldError, match="length"):
        watch(shop.world.lake, shop.registry, shop.loop, now=LATER, by="a test", length=9)
