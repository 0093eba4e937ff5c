"""A night beside what the version in charge was trained on: from the training to the alarm that stands."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest

from decision.artifact import unpack
from decision.drift import PROFILE_FILE
from decision.drift.profile import encoded, profile_of
from pipelines.evaluation.alarms import Alarmed, alarms
from pipelines.evaluation.drift import Trained, trained_on
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.interactions.observed import COLUMNS, observed_of
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, load_settings, parse_loop
from pipelines.training.train import train
from tests.worlds.lake import LATER, World, decision, outcome
from tests.worlds.synthetic import new_settings

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

LOOP = parse_loop("[training]\nminimum = 200\n", "shop", {})
PROMOTED = {"verdict": "set", "reasons": ["test"], "numbers": {}, "by": "test"}


def play(world: World, first: int, n: int, *, desk: float, phone: float, floor: float = 0.5) -> None:
    """Decide `n` times, half of them for phones, with clicks at these rates, and settle."""
    rng = np.random.default_rng(first)
    shown, clicks = [], []
    for i in range(first, first + n):
        device = "phone" if rng.random() < 0.5 else "desk"
        pmf = [1 - floor / 2, floor / 2]
        index = int(rng.random() < pmf[1])
        shown.append(
            decision(
                f"e{i}",
                ts=LATER - timedelta(days=20) + timedelta(seconds=i),
                subject_id=f"u{i}",
                context=msgspec.Raw(msgspec.json.encode({"device": device, "hour": int(rng.integers(0, 24))})),
                pmf=pmf,
                action_index=index,
                propensity=pmf[index],
            )
        )
        clicks.append(rng.random() < (phone if device == "phone" else desk))
    world.append(*shown)
    world.append(*(outcome(d.event_id, ts=d.ts) for d, click in zip(shown, clicks, strict=True) if click))
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)


class Shop:
    """A shop whose version 1 was trained on clicks at .277 and is in charge; one night came after."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.registry = Registry(new_settings(folder))
        self.rows = 0
        self.nights: list[dict[str, int]] = []
        self.play(4_000, desk=0.277, phone=0.277)
        self.version = train(self.world.lake, self.registry, LOOP, seed=1, now=LATER).version
        self.night()
        self.registry.set_alias("shop", "champion", self.version, PROMOTED)

    def play(self, n: int, **rates: float) -> None:
        play(self.world, self.rows, n, **rates)
        self.rows += n

    def night(self, loop: LoopSettings = LOOP) -> Alarmed:
        trained = trained_on(self.registry, loop)
        found = alarms(self.world.lake, loop, self.nights, seed=1, trained=trained)
        self.nights.append(found.positions)
        return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("drift"))


def test_a_version_brings_a_profile_of_what_it_was_trained_on(shop: Shop) -> None:
    files = shop.registry.files("shop", shop.version)
    assert len(files[PROFILE_FILE]) < 20_000
    policy, manifest = unpack(files)
    assert PROFILE_FILE in manifest.files
    assert PROFILE_FILE not in policy.oracle.save()
    profile = trained_on(shop.registry, LOOP).profile
    assert profile is not None
    assert profile.rewards is not None
    assert profile.rewards.mean == pytest.approx(0.277, abs=0.03)
    assert {feature.name for feature in profile.features} == {"device", "hour"}


def test_a_fall_of_the_click_rate_is_alarmed_in_one_night_with_where_it_comes_from(shop: Shop) -> None:
    shop.play(2_000, desk=0.277, phone=0.277, floor=0.2)  # another policy, the same world
    quiet = shop.night()
    assert (quiet.alarms, quiet.drift.version, quiet.drift.skipped) == ([], shop.version, "")
    shop.play(2_000, desk=0.277, phone=0.049, floor=0.2)  # .163 in all
    fallen = {alarm.key: alarm.text for alarm in shop.night().alarms}
    assert {"value", "joins", "reward_drift", "reward_drift:device=phone"} == set(fallen)
    assert "from device=phone" in fallen["value"]
    assert "from device=phone" in fallen["reward_drift"]
    assert f"the training data of version {shop.version}" in fallen["reward_drift"]


def test_rewards_under_another_definition_are_no_drift(shop: Shop) -> None:
    other = parse_loop('[reward]\nversion = "2"\n', "shop", {})
    profile = trained_on(shop.registry, other).profile
    assert profile is not None
    assert profile.rewards is None
    assert profile.cells


def test_features_of_actions_are_those_of_the_texts_that_were_read(shop: Shop) -> None:
    table = shop.world.lake.read("interactions", lambda table: table.to_pyarrow_table(columns=list(COLUMNS)))
    known = np.arange(len(table)) % 3 > 0
    texts = pc.if_else(pa.array(known), table["actions"].cast(pa.string()), pa.scalar(None, pa.string()))
    some = table.set_column(table.column_names.index("actions"), "actions", texts)
    observed = observed_of([(some, np.ones(len(some)))])
    assert observed is not None
    assert observed.actions is not None
    assert len(observed.actions) == 2 * np.count_nonzero(known)
    assert observed.actions.weight.sum() == pytest.approx(np.count_nonzero(known))
    assert set(observed.actions.name) == {"price"}
    assert set(observed.actions.value) == {1.5, 2.0}
    profile = trained_on(shop.registry, LOOP).profile
    assert profile is not None
    assert profile.actions is not None
    assert [feature.name for feature in profile.actions.features] == ["price"]


def test_rows_that_know_the_probability_of_their_draw_alone_are_looked_at_too(shop: Shop) -> None:
    table = shop.world.lake.read("interactions", lambda table: table.to_pyarrow_table(columns=list(COLUMNS)))
    known = np.arange(len(table)) % 3 > 0
    some = table.set_column(
        table.column_names.index("pmf"), "pmf", pc.if_else(pa.array(known), table["pmf"].combine_chunks(), None)
    )
    (all_told, told) = (observed_of([(rows, np.ones(len(rows)))]) for rows in (table, some))
    assert all_told is not None
    assert told is not None
    assert np.isnan(told.pmf).sum() == 2 * np.count_nonzero(~known)
    assert encoded(profile_of(told)) == encoded(profile_of(all_told))


def test_without_a_profile_the_night_says_why_and_looks_for_the_rest(tmp_path: Path) -> None:
    registry = Registry(load_settings({}, home=str(tmp_path / "home")))
    assert trained_on(registry, LOOP) == Trained()
    world = World(tmp_path)
    play(world, 0, 400, desk=0.3, phone=0.3)
    found = alarms(world.lake, LOOP, [], seed=1)
    assert (found.drift.found, found.drift.skipped) == (None, "no version is in charge")
    assert found.rows + found.before == 400
