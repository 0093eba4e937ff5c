"""Alarms of a night: each is raised by what it is for, and none on a quiet log."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from decision.errors import FieldError
from decision.records import Decision
from pipelines.evaluation.alarms import ERROR, Alarmed, Rows, alarms, looked_at
from pipelines.evaluation.standing import (
    KINDS,
    Alarm,
    Cleared,
    Raised,
    alarms_key,
    clear,
    raise_alarms,
    standing,
)
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.settings import LoopSettings, Settings, load_settings
from pipelines.state.state import State
from tests.worlds.lake import LATER, LOOP, World, decision, outcome

N = 1_500


def table(rng: np.random.Generator, n: int, **changes: Any) -> pa.Table:
    """Return `n` rows of a quiet loop, apart from the changes: clicks at .2, three actions, a floor of .05."""
    click = rng.random(n) < changes.get("rate", 0.2)
    scale = changes.get("scale", 1.0)
    pmf = np.full((n, 3), changes.get("floor", 0.05) / 3)
    pmf[np.arange(n), rng.integers(0, 2, n)] += 1 - changes.get("floor", 0.05)
    drawn = (rng.random((n, 1)) > pmf.cumsum(1)).sum(1).clip(max=2)
    price = np.where(rng.random(n) < changes.get("wild", 0.0), 1e9, rng.lognormal(0.0, 2.0, n))
    names = [
        [*(["age"] if age else []), "price", "town=x" if town else "town=y"]
        for age, town in zip(rng.random(n) < changes.get("age", 0.9), rng.random(n) < 0.5, strict=True)
    ]
    wide = np.flatnonzero(rng.random(n) < changes.get("wide", 0.0))
    for row, first in zip(wide.tolist(), rng.integers(0, 1 << 40, wide.size).tolist(), strict=True):
        names[row] = [f"id{first + i}" for i in range(changes.get("names", 100))] + names[row]
    columns: dict[str, Any] = {
        "partition": [0] * n,
        "offset": range(n),
        "state": np.where(click | (rng.random(n) < changes.get("met", 0.3)), "joined", "expired"),
        "reward": click * scale + changes.get("shift", 0.0),
        "reward_version": [LOOP.reward.version] * n,
        "ts": pa.array(np.arange(n) * 1_000_000, pa.timestamp("us", "UTC")),
        "event_id": [f"e{i}" for i in range(n)],
        "subject_id": [f"u{i}" for i in range(n)],
        "pass_probability": [1.0] * n,
        "policy_version": ["3"] * n,
        "mode": ["online"] * n,
        "action_ids": [["a", "b", "c"]] * n,
        "actions": ['[{"x":1.0},{"x":2.0},{"kind":"old"}]'] * n,
        "action_index": drawn,
        "pmf": pmf.tolist(),
        "propensity": pmf[np.arange(n), drawn],
        "context_names": names,
        "context_values": [[1.0] * (len(own) - 2) + [cost, 1.0] for own, cost in zip(names, price, strict=True)],
    }
    return pa.table(columns)


def found(before: dict[str, Any], late: dict[str, Any], *, seed: int = 1, n: int = N) -> Alarmed:
    rng = np.random.default_rng(seed)
    both = pa.concat_tables([table(rng, n, **before), table(rng, n, **late)])
    is_late = np.arange(2 * n) >= n
    return looked_at(Rows(both, is_late, is_late.astype(np.int64)), LOOP, {}, rng)


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        ({"rate": 0.1}, {"value"}),
        ({"met": 0.1}, {"joins"}),
        ({"floor": 0.0}, {"exploration"}),
        ({"age": 0.02}, {"feature_gone:age"}),
        ({"wild": 0.02}, {"feature_grown:price"}),
    ],
)
def test_each_alarm_is_raised_by_what_it_is_for_and_by_nothing_else(late: dict[str, Any], expected: set[str]) -> None:
    raised = {alarm.key for alarm in found({}, late).alarms}
    assert raised - {"joins"} == expected - {"joins"}  # fewer clicks are fewer outcomes, too
    assert expected <= raised


def test_a_quiet_log_raises_each_alarm_no_more_often_than_stated() -> None:
    # 150 quiet nights: more than 3 false alarms of a kind at .001 have a probability of 2e-5.
    raised = Counter(alarm.kind for seed in range(150) for alarm in found({}, {}, seed=seed, n=400).alarms)
    assert ERROR == 0.001
    assert all(count <= 3 for count in raised.values()), raised


@pytest.mark.parametrize("before", [0.0, 0.1])
def test_names_that_come_by_the_thousand_are_an_alarm_for_as_long_as_they_come(before: float) -> None:
    (alarm,) = found({"wide": before}, {"wide": 0.1}).alarms
    assert alarm.key == "feature_names"
    assert "'id" in alarm.text


@pytest.mark.parametrize("late", [{"wide": 0.1, "names": 5}, {"wide": 0.004, "names": 500}])
def test_a_few_new_names_and_a_few_wide_contexts_are_none(late: dict[str, Any]) -> None:
    assert found({}, late).alarms == []


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (1e3, 0.0), (1.0, -5.0)])
@pytest.mark.parametrize("rate", [0.2, 0.1])
def test_the_unit_of_the_rewards_changes_no_alarm(scale: float, shift: float, rate: float) -> None:
    plain = found({}, {"rate": rate})
    other = found({"scale": scale, "shift": shift}, {"rate": rate, "scale": scale, "shift": shift})
    assert [alarm.key for alarm in other.alarms] == [alarm.key for alarm in plain.alarms]


def test_a_fall_that_an_earlier_night_had_too_is_no_alarm() -> None:
    rng = np.random.default_rng(1)
    parts = [table(rng, N, rate=rate) for rate in (0.1, 0.3, 0.3, 0.11)]
    night = np.repeat(np.arange(4), N)
    rows = Rows(pa.concat_tables(parts), night == 3, night)
    assert "value" not in {alarm.kind for alarm in looked_at(rows, LOOP, {}, rng).alarms}
    rows = Rows(pa.concat_tables(parts[1:]), night[N:] == 3, night[N:])
    assert "value" in {alarm.kind for alarm in looked_at(rows, LOOP, {}, rng).alarms}


def test_an_action_that_is_never_tried_is_named() -> None:
    rng = np.random.default_rng(1)
    rows = table(rng, 2 * N)
    index = rows["action_index"].to_numpy().copy()
    index[index == 2] = 0
    rows = rows.set_column(rows.column_names.index("action_index"), "action_index", pa.array(index))
    late = np.arange(2 * N) >= N
    (alarm,) = looked_at(Rows(rows, late, late.astype(np.int64)), LOOP, {}, rng).alarms
    assert alarm.key == "untried:c"
    assert f"{2 * N} times" in alarm.text


def test_modes_that_explore_nothing_raise_no_alarm_about_it() -> None:
    rng = np.random.default_rng(1)
    rows, late = table(rng, 2 * N, floor=0.0), np.arange(2 * N) >= N
    quiet = LoopSettings(name="shop", mode="apprentice")
    assert looked_at(Rows(rows, late, late.astype(np.int64)), quiet, {}, rng).alarms == []


# -- on a lake ---------------------------------------------------------------------------------------------------------


def play(world: World, first: int, n: int, rate: float, loop: LoopSettings = LOOP) -> None:
    rng = np.random.default_rng(first)
    shown: list[Decision] = []
    for i in range(first, first + n):
        index = int(rng.random() < 0.25)
        ts = LATER - timedelta(days=20) + timedelta(seconds=i)
        shown.append(decision(f"e{i}", ts=ts, action_index=index, propensity=[0.75, 0.25][index]))
    world.append(*shown)
    world.append(*(outcome(d.event_id, ts=d.ts) for d in shown if rng.random() < rate))
    ingest(world.log, world.lake)
    join(world.lake, loop, LATER)


def test_a_drift_of_the_click_rate_is_seen_by_the_next_night(tmp_path: Path) -> None:
    world = World(tmp_path)
    play(world, 0, 3_000, 0.277)
    first = alarms(world.lake, LOOP, [], seed=1)
    assert abs(first.rows - first.before) <= 4
    assert (first.rows + first.before, first.alarms) == (3_000, [])
    play(world, 3_000, 3_000, 0.277)
    second = alarms(world.lake, LOOP, [first.positions], seed=1)
    assert (second.rows, second.before) == (3_000, 3_000)
    assert "value" not in {alarm.kind for alarm in second.alarms}
    play(world, 6_000, 3_000, 0.163)
    third = alarms(world.lake, LOOP, [first.positions, second.positions], seed=1)
    assert (third.rows, third.before) == (3_000, 6_000)
    assert {"value", "joins"} == {alarm.kind for alarm in third.alarms}
    assert third == alarms(world.lake, LOOP, [first.positions, second.positions], seed=1)


def test_a_drift_within_the_first_night_is_seen(tmp_path: Path) -> None:
    world = World(tmp_path)
    play(world, 0, 3_000, 0.277)
    play(world, 3_000, 3_000, 0.163)
    assert "value" in {alarm.kind for alarm in alarms(world.lake, LOOP, [], seed=1).alarms}


def test_a_short_night_is_looked_at_together_with_the_one_before(tmp_path: Path) -> None:
    world = World(tmp_path)
    play(world, 0, 600, 0.3)
    first = alarms(world.lake, LOOP, [], seed=1)
    play(world, 600, 300, 0.3)
    second = alarms(world.lake, LOOP, [first.positions], seed=1)
    play(world, 900, 30, 0.3)
    third = alarms(world.lake, LOOP, [first.positions, second.positions], seed=1)
    assert (third.rows, third.before) == (330, 600)
    assert alarms(world.lake, LoopSettings(name="other"), [], seed=1) == Alarmed()


# -- what stands -------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({}, home=str(tmp_path))


def test_a_cleared_alarm_is_quiet_until_it_comes_back(settings: Settings) -> None:
    untried, fell = Alarm(kind="untried", subject="a:b", text="never"), Alarm(kind="value", text="fell")
    assert standing(settings, "shop").alarms == []
    assert raise_alarms(settings, "shop", "1", [untried, fell], now=LATER).alarms == [untried, fell]
    assert clear(settings, "shop", ["untried:a:b"], now=LATER, by="ada").alarms == [fell]
    assert raise_alarms(settings, "shop", "2", [untried], now=LATER).alarms == []
    assert raise_alarms(settings, "shop", "3", [], now=LATER).cleared == []
    assert raise_alarms(settings, "shop", "4", [untried], now=LATER).alarms == [untried]
    assert clear(settings, "shop", ["all"], now=LATER, by="ada").alarms == []
    with pytest.raises(FieldError, match="clear"):
        clear(settings, "shop", ["untried:zz"], now=LATER, by="ada")


def test_an_alarm_says_since_which_night_it_stands_and_who_cleared_it(settings: Settings) -> None:
    fell, day = Alarm(kind="value", text="fell"), timedelta(days=1)
    for number in range(3):
        found = raise_alarms(settings, "shop", f"night-{number}", [fell], now=LATER + number * day)
    assert found.since == {"value": Raised(night="night-0", at=LATER.isoformat())}
    found = clear(settings, "shop", ["all"], now=LATER + 3 * day, by="ada")
    done = Cleared(key="value", text="fell", by="ada", at=(LATER + 3 * day).isoformat())
    assert found.clearings == [done]
    assert raise_alarms(settings, "shop", "night-4", [], now=LATER + 4 * day).clearings == [done]
    assert raise_alarms(settings, "shop", "night-5", [fell], now=LATER + 5 * day).since["value"].night == "night-5"
    with State(settings.state_url) as state:
        assert [one.by for one in state.history(alarms_key("shop"))][3] == "ada"


def test_every_kind_of_alarm_says_what_to_do() -> None:
    assert all(Alarm(kind=kind, text="").to_do for kind in KINDS)


def test_alarms_that_cannot_be_read_are_named(settings: Settings) -> None:
    with State(settings.state_url) as state:
        state.put({alarms_key("shop"): (None, b"{")})
    with pytest.raises(FieldError, match="alarms of shop"):
        standing(settings, "shop")


def test_alarms_of_an_earlier_release_stand_until_the_next_night(settings: Settings) -> None:
    fell = Alarm(kind="value", text="fell")
    (settings.root / "alarms").mkdir(parents=True)
    (settings.root / "alarms" / "shop.json").write_bytes(msgspec.json.encode({"night": "1", "found": [fell]}))
    assert standing(settings, "shop").alarms == [fell]
    assert clear(settings, "shop", ["value"], now=LATER, by="ada").alarms == []
    assert raise_alarms(settings, "shop", "2", [], now=LATER).found == []
    assert standing(settings, "shop").found == []
