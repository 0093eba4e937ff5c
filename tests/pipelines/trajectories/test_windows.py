"""Trajectories are right: in order of time, whole, masked, and the same whatever is held at a time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from decision.errors import FieldError, SupportError
from decision.records import Decision, Outcome
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.trajectories.catalogue import catalogue_of
from pipelines.trajectories.histories import histories
from pipelines.trajectories.windows import Trajectories, gathered, windows
from tests.worlds.lake import LATER, START, World, decision, loop_of, outcome

LOOP = loop_of("[reward]\nminimum = -1e6\nmaximum = 1e6\ndefault = -7.0\nwindow_s = 3600.0\n")
IDS = ["north", "south", "west"]
FEATURES = b'[{"level":0.5,"kind":"a"},{"level":1.5},{"level":2.5,"kind":"b"}]'


def visit(event: str, subject: str | None, at: timedelta, **changes: object) -> Decision:
    given: dict[str, object] = {
        "subject_id": subject,
        "ts": START + at,
        "actions": msgspec.Raw(FEATURES),
        "action_ids": IDS,
        "pmf": [0.5, 0.25, 0.25],
        "action_index": 0,
        "propensity": 0.5,
    }
    return decision(event, **(given | changes))


def paid(record: Decision, value: float, after_s: float = 1.0, name: str = "reward") -> Outcome:
    return outcome(record.event_id, value, ts=record.ts + timedelta(seconds=after_s), name=name)


def world_of(folder: Path, *records: Decision | Outcome) -> World:
    world = World(folder)
    world.append(*records)
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    return world


def random_log(seed: int, rows: int = 400, users: int = 17) -> list[Decision | Outcome]:
    rng = np.random.default_rng(seed)
    out: list[Decision | Outcome] = []
    for number in range(rows):
        user, index = int(rng.integers(users)), int(rng.integers(3))
        record = visit(
            f"e{rng.integers(1_000_000)}-{number}",
            f"u{user}",
            timedelta(seconds=float(rng.integers(0, 100_000))),
            episode_id=f"visit-{rng.integers(1, 15)}" if rng.random() < 0.8 else None,
            action_index=index,
            propensity=[0.5, 0.25, 0.25][index],
            policy_version=str(rng.integers(1, 4)),
            context=msgspec.Raw(msgspec.json.encode({"city": f"c{user % 3}", "age": 3})),
        )
        out.append(record)
        if rng.random() < 0.7:
            out.append(paid(record, float(rng.normal(0.0, 50.0))))
    return out


def test_visits_come_in_order_of_time_whatever_their_names(tmp_path: Path) -> None:
    visits = [
        visit(f"e{n}", "ann", timedelta(days=n), episode_id=f"visit-{9 + n}", step=0, policy_version=str(n // 2))
        for n in range(4)
    ]
    world = world_of(tmp_path, *visits[::-1], *(paid(record, float(n)) for n, record in enumerate(visits)))
    found = gathered(windows(world.lake, LOOP, length=4))
    assert found.rewards.tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert [found.version_names[code] for code in found.versions[0]] == ["0", "0", "1", "1"]
    each = gathered(windows(world.lake, LOOP, length=4, by="episode"))
    assert each.episodes.tolist() == ["visit-9", "visit-10", "visit-11", "visit-12"]
    assert each.rewards[each.mask].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert each.mask.sum(axis=1).tolist() == [1, 1, 1, 1]
    assert each.first.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("by", ["user", "episode"])
@pytest.mark.parametrize("length", [1, 5, 64])
def test_every_settled_decision_is_in_one_window_in_order(tmp_path: Path, by: str, length: int) -> None:
    log = random_log(length)
    world = world_of(tmp_path, *log)
    found = gathered(windows(world.lake, LOOP, length=length, by=by, group="context.city"))  # type: ignore[arg-type]
    decisions = {r.event_id: r for r in log if isinstance(r, Decision)}
    rewards = {r.event_id: r.value for r in log if isinstance(r, Outcome)}
    assert found.mask.sum() == found.decisions == len(decisions)
    rows: dict[str, list[tuple[object, ...]]] = {}
    for n, user in enumerate(found.users):
        assert found.mask[n].tolist() == sorted(found.mask[n].tolist(), reverse=True)
        assert found.groups[n] == f"c{int(user[1:]) % 3}"
        for t in np.flatnonzero(found.mask[n]).tolist():
            seen = (found.ts_us[n, t], found.catalogue.ids[found.actions[n, t]], found.rewards[n, t])
            seen += (found.propensities[n, t], found.version_names[found.versions[n, t]])
            rows.setdefault(user, []).append((*seen, found.episodes[n] if by == "episode" else ""))
    for user, seen in rows.items():
        mine = sorted((r for r in decisions.values() if r.subject_id == user), key=lambda r: (r.ts, r.event_id))
        wanted = [
            (
                round((r.ts - START).total_seconds() * 1e6) + round(START.timestamp() * 1e6),
                IDS[r.action_index],
                rewards.get(r.event_id, -7.0),
                r.propensity,
                r.policy_version,
                (r.episode_id or "") if by == "episode" else "",
            )
            for r in mine
        ]
        if by == "user":
            assert seen == wanted
            continue
        episodes = list(dict.fromkeys(row[-1] for row in wanted))
        assert seen == [row for episode in episodes for row in wanted if row[-1] == episode]


def test_what_is_held_at_a_time_changes_nothing(tmp_path: Path) -> None:
    world = world_of(tmp_path, *random_log(3))
    whole = list(windows(world.lake, LOOP, length=6))
    parts = list(windows(world.lake, LOOP, length=6, rows_at_once=50))
    assert len(whole) == 1
    assert len(parts) > 2
    assert sum(part.decisions for part in parts) == whole[0].decisions
    one, many = whole[0], gathered(parts)
    order = np.lexsort((many.first, many.users.astype(str)))
    sorted_many = many.take(order)
    for name in ("users", "first", "mask", "actions", "rewards", "versions", "ts_us", "known_us", "offered", "pmf"):
        assert np.array_equal(getattr(one, name), getattr(sorted_many, name)), name
    assert np.array_equal(one.dense_pmf(), sorted_many.dense_pmf())


def test_actions_have_their_features_and_distributions_are_whole(tmp_path: Path) -> None:
    few = visit(
        "e1", "ann", timedelta(seconds=1), actions=msgspec.Raw(b'[{"level":3.5,"kind":"b"}]'), action_ids=["west"]
    )
    few = msgspec.structs.replace(few, pmf=[1.0], propensity=1.0)
    world = world_of(tmp_path, visit("e0", "ann", timedelta(0)), few)
    known = catalogue_of(world.lake, "shop")
    assert known.ids == IDS
    assert known.names == ["kind=a", "kind=b", "level"]
    assert known.features.tolist() == [[1.0, 0.0, 0.5], [0.0, 0.0, 1.5], [0.0, 1.0, 3.0]]
    found = gathered(windows(world.lake, LOOP, length=3))
    assert found.dense_pmf().tolist() == [[[0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]
    assert found.dense_offered().tolist() == [[[True, True, True], [False, False, True], [False, False, False]]]
    assert found.actions.tolist() == [[0, 2, 0]]


def test_what_is_never_drawn_was_offered_all_the_same(tmp_path: Path) -> None:
    sure = msgspec.structs.replace(visit("e0", "ann", timedelta(0)), pmf=[1.0, 0.0, 0.0], propensity=1.0)
    world = world_of(tmp_path, sure)
    found = gathered(windows(world.lake, LOOP, length=1))
    assert found.dense_pmf().tolist() == [[[1.0, 0.0, 0.0]]]
    assert found.dense_offered().tolist() == [[[True, True, True]]]


def test_when_a_reward_was_known_is_told(tmp_path: Path) -> None:
    records = [visit(f"e{n}", "ann", timedelta(hours=2 * n)) for n in range(3)]
    outcomes = [paid(records[0], 1.0, 9.0, name="click"), paid(records[0], 2.0, 30.0), paid(records[2], 3.0, -0.5)]
    found = gathered(windows(world_of(tmp_path, *records, *outcomes).lake, LOOP, length=3))
    ((first, second, third),) = ((found.known_us - found.ts_us) / 1e6).tolist()
    assert (first, second) == (30.0, 3600.0)
    assert 0.0 <= third < 30.0  # it happened before; it was known once the log had it, after the decision
    assert found.rewards.tolist() == [[2.0, -7.0, 3.0]]


def test_episodes_stand_for_users_where_there_are_none_and_slots_and_strangers_are_left_out(tmp_path: Path) -> None:
    world = world_of(
        tmp_path,
        visit("e0", None, timedelta(0), episode_id="one"),
        visit("e1", None, timedelta(1), episode_id="one"),
        visit("e2", None, timedelta(0)),
        visit("e3", "ann", timedelta(0), slot="top"),
    )
    found = gathered(windows(world.lake, LOOP, length=3))
    assert found.users.tolist() == ["episode one"]
    assert found.mask.tolist() == [[True, True, False]]


def test_a_lake_without_anybody_gives_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert list(windows(world.lake, LOOP, length=3)) == []
    with pytest.raises(SupportError, match="no user"):
        gathered(windows(world.lake, LOOP, length=3))


def test_arguments_that_do_not_fit_are_named(tmp_path: Path) -> None:
    world = world_of(tmp_path, visit("e0", "ann", timedelta(0)))
    with pytest.raises(FieldError, match="length"):
        next(windows(world.lake, LOOP, length=0))
    with pytest.raises(FieldError, match="by"):
        next(windows(world.lake, LOOP, length=1, by="week"))  # type: ignore[arg-type]
    with pytest.raises(FieldError, match="rows_at_once"):
        next(histories(world.lake, "shop", (), rows_at_once=0))
    with pytest.raises(FieldError, match="since"):
        next(histories(world.lake, "shop", (), since=START.replace(tzinfo=None)))
    other = world_of(tmp_path / "other", visit("e1", "ann", timedelta(0), action_ids=["a", "b", "c"]))
    with pytest.raises(FieldError, match="catalogue"):
        next(windows(world.lake, LOOP, length=1, catalogue=catalogue_of(other.lake, "shop")))


def test_windows_are_taken_like_rows(tmp_path: Path) -> None:
    found: Trajectories = gathered(windows(world_of(tmp_path, *random_log(5)).lake, LOOP, length=7))
    rows = np.array([3, 0, 3])
    some = found.take(rows)
    assert np.array_equal(some.rewards, found.rewards[rows])
    assert np.array_equal(some.dense_pmf(), found.dense_pmf()[rows])
