from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.decay import Decayed
from decision.errors import FieldError
from pipelines.features.stream import GRACE_US, Stream
from pipelines.lake.lake import ConflictError
from pipelines.settings import FeatureSettings, LoopSettings, RewardSettings

TIME = pa.timestamp("us", "UTC")
LOOP = LoopSettings(name="news", features=FeatureSettings(enabled=True, half_life_s=60.0))
WINDOW_S = LOOP.reward.window_s


@dataclass(frozen=True)
class D:
    """A decision of the log."""

    event: str
    subject: str | None = "u"
    at: float = 0.0
    deferred: bool = False
    arrived: float | None = None
    slot: str = ""
    action: str = "a"


@dataclass(frozen=True)
class O:  # noqa: E742
    """An outcome of the log."""

    event: str
    value: float = 1.0
    at: float = 1.0
    name: str = "reward"
    key: str | None = None
    copy: tuple[str, int] | None = None
    arrived: float | None = None
    slot: str = ""
    action: str | None = None


def times(seconds: Sequence[float]) -> pa.Array:
    return pa.array([round(s * 1e6) for s in seconds], pa.int64()).cast(TIME)


def rows(records: Sequence[D] | Sequence[O], *, start: int = 0, partition: int = 0) -> pa.Table:
    n = len(records)
    columns = {
        "partition": pa.array([partition] * n, pa.int32()),
        "offset": pa.array(range(start, start + n), pa.int64()),
        "appended_at": times([r.at if r.arrived is None else r.arrived for r in records]),
        "event_id": pa.array([r.event for r in records], pa.string()),
        "slot": pa.array([r.slot for r in records], pa.string()),
        "ts": times([r.at for r in records]),
    }
    if n and isinstance(records[0], O):
        columns |= {
            "name": pa.array([r.name for r in records]),
            "value": pa.array([r.value for r in records], pa.float64()),
            "idempotency_key": pa.array([r.key for r in records], pa.string()),
            "spool": pa.array([None if r.copy is None else r.copy[0] for r in records], pa.string()),
            "spool_offset": pa.array([None if r.copy is None else r.copy[1] for r in records], pa.int64()),
            "action_id": pa.array([r.action for r in records], pa.string()),
        }
    else:
        columns |= {
            "subject_id": pa.array([r.subject for r in records], pa.string()),
            "deferred": pa.array([r.deferred for r in records], pa.bool_()),
            "action_ids": pa.array([["a", "b"] for _ in records], pa.list_(pa.string())),
            "action_index": pa.array(["ab".index(r.action) for r in records], pa.int32()),
        }
    return pa.table(columns)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a file is made for the owner alone before SQLite opens it, whatever its name means


def stream(loop: LoopSettings = LOOP, path: Path = Path(":memory:")) -> Stream:
    return Stream(path, loop)


def sums(decisions: Sequence[D], outcomes: Sequence[O], loop: LoopSettings = LOOP) -> dict[str, Decayed]:
    state = stream(loop)
    state.take("decisions", rows(decisions))
    if outcomes:
        state.take("outcomes", rows(outcomes))
    found = state.subjects()
    state.close()
    return found


def test_a_decision_counts_by_its_age_with_its_outcomes_and_its_reward() -> None:
    found = sums([D("a", at=0.0), D("b", at=60.0), D("c", "v", at=5.0)], [O("a", 0.75, at=30.0), O("c", 0.0, at=6.0)])
    assert found == {"u": Decayed(1.5, 0.5, 0.375, 60.0), "v": Decayed(1.0, 1.0, 0.0, 5.0)}


def test_a_repeated_report_counts_once() -> None:
    by_key = [O("a", 0.25, key="k"), O("a", 0.25, at=2.0, key="k")]
    by_copy = [O("a", 0.25, copy=("spool", 7)), O("a", 0.25, copy=("spool", 7))]
    separate = [O("a", 0.25), O("a", 0.25)]
    assert [sums([D("a")], outcomes)["u"][1:3] for outcomes in (by_key, by_copy, separate)] == [
        (1.0, 0.25),
        (1.0, 0.25),
        (2.0, 0.5),
    ]


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (O("a", at=WINDOW_S), True),
        (O("a", at=WINDOW_S + 1e-6), False),
        (O("a", arrived=WINDOW_S + GRACE_US / 1e6), True),
        (O("a", arrived=WINDOW_S + GRACE_US / 1e6 + 1e-6), False),
        (O("a", at=-60.0), False),
        (O("a", name="view"), False),
        (O("ghost"), False),
    ],
)
def test_outcomes_count_inside_the_window_under_the_rewards_name(outcome: O, counts: bool) -> None:
    assert sums([D("a")], [outcome])["u"][:3] == (1.0, float(counts), float(counts))


def test_the_reward_is_the_loops() -> None:
    reward = RewardSettings(default=-1.0, minimum=-1.0, maximum=2.0, aggregation="max")
    loop = LoopSettings(name="news", reward=reward, features=LOOP.features)
    assert sums([D("a")], [], loop)["u"] == Decayed(1.0, 0.0, -1.0, 0.0)
    assert sums([D("a")], [O("a", 1.5), O("a", 0.5)], loop)["u"] == Decayed(1.0, 2.0, 1.5, 0.0)
    assert sums([D("a")], [O("a", 9.0)], loop)["u"] == Decayed(1.0, 1.0, 2.0, 0.0)


def test_a_deferred_decision_counts_once_it_is_activated() -> None:
    deferred = [D("a", deferred=True)]
    assert sums(deferred, []) == {}
    assert sums(deferred, [O("a", name="activation")])["u"] == Decayed(1.0, 0.0, 0.0, 0.0)
    assert sums(deferred, [O("a")])["u"] == Decayed(1.0, 1.0, 1.0, 0.0)
    strict = LoopSettings(name="news", reward=RewardSettings(activates=False), features=LOOP.features)
    assert sums(deferred, [O("a")], strict) == {}
    assert sums(deferred, [O("a"), O("a", name="activation")], strict)["u"] == Decayed(1.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize("report", [O("a", name="activation"), O("a", slot="side")])
def test_all_slots_count_once_one_of_them_is_rewarded_or_the_event_activated(report: O) -> None:
    slots = [D("a", deferred=True, slot="top"), D("a", deferred=True, slot="side")]
    rewards = 1.0 if report.slot else 0.0
    assert sums(slots, [report])["u"] == Decayed(2.0, rewards, rewards, 0.0)


def test_decisions_for_nobody_leave_nothing() -> None:
    assert sums([D("a", None)], [O("a")]) == {}


EVENTS = [f"e{i}" for i in range(6)]
DECISIONS = st.lists(
    st.builds(D, st.sampled_from(EVENTS), st.sampled_from(["u", "v", None]), st.floats(0, 500)),
    min_size=1,
    max_size=6,
    unique_by=lambda d: d.event,
)
OUTCOMES = st.lists(
    st.builds(O, st.sampled_from(EVENTS), st.floats(0, 1), st.floats(0, 900), key=st.sampled_from([None, "k", "l"])),
    min_size=1,
    max_size=10,
)


@settings(deadline=None, max_examples=60)
@given(DECISIONS, OUTCOMES, st.data())
def test_the_same_rows_in_other_batches_again_and_outcomes_first_give_the_same_sums(
    decisions: list[D], outcomes: list[O], data: st.DataObject
) -> None:
    left = {"decisions": rows(decisions), "outcomes": rows(outcomes)}
    state = stream()
    at = {"decisions": 0, "outcomes": 0}
    while any(at[topic] < len(left[topic]) for topic in at):
        topic = data.draw(st.sampled_from([topic for topic in at if at[topic] < len(left[topic])]))
        again = data.draw(st.integers(0, at[topic]))
        until = data.draw(st.integers(at[topic] + 1, len(left[topic])))
        state.take(topic, left[topic].slice(again, until - again))
        at[topic] = until
    found, wanted = state.subjects(), sums(decisions, outcomes)
    state.close()
    assert {k: pytest.approx(v, rel=1e-9, abs=1e-12) for k, v in wanted.items()} == {
        k: v for k, v in found.items() if k in wanted
    }
    assert all(v[:3] == pytest.approx((0.0, 0.0, 0.0), abs=1e-12) for k, v in found.items() if k not in wanted)


def test_each_partition_has_its_own_position() -> None:
    state = stream()
    assert state.take("decisions", pa.concat_tables([rows([D("a")], start=5), rows([D("b")], partition=1)])) == 2
    assert state.take("decisions", rows([D("c")], start=4)) == 0
    assert state.take("decisions", rows([D("c")], start=1, partition=1)) == 1
    assert state.positions() == {("decisions", 0): 6, ("decisions", 1): 2}
    state.close()


def test_rows_that_leave_a_gap_are_refused() -> None:
    state = stream()
    state.take("decisions", rows([D("a")]))
    with pytest.raises(ConflictError):
        state.take("decisions", rows([D("c")], start=2), since=2)
    assert state.take("decisions", rows([D("c")], start=2), since=1) == 1  # offset 1 is another loop's
    state.close()


def test_a_missing_column_is_named() -> None:
    state = stream()
    with pytest.raises(FieldError) as caught:
        state.take("outcomes", rows([O("a")]).drop_columns("spool"))
    assert caught.value.field == "spool"
    state.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stream.db"


def publications(state: Stream) -> Iterator[tuple[int, int, dict[str, Decayed]]]:
    got: list[tuple[int, int, dict[str, Decayed]]] = []

    def write(number: int, before_us: int, changed: dict[str, Decayed]) -> int:
        got.append((number, before_us, changed))
        return 1000 + number

    state.publish(write)
    yield from got


def test_changes_are_handed_over_once_and_again_after_a_failure(path: Path) -> None:
    def fail(number: int, before_us: int, changed: dict[str, Decayed]) -> int:
        raise OSError("no room")

    state = stream(path=path)
    state.take("decisions", rows([D("a"), D("b", "v")]))
    with pytest.raises(OSError, match="no room"):
        state.publish(fail)
    state.close()
    state = stream(path=path)  # as after a crash
    both = {"u": Decayed(1.0, 0.0, 0.0, 0.0), "v": Decayed(1.0, 0.0, 0.0, 0.0)}
    assert list(publications(state)) == [(1, 0, both)]
    assert list(publications(state)) == []
    state.take("outcomes", rows([O("b")]))
    assert list(publications(state)) == [(2, 1001, {"v": Decayed(1.0, 1.0, 1.0, 0.0)})]
    state.close()


def test_another_definition_starts_anew_and_goes_on_numbering(path: Path) -> None:
    state = stream(path=path)
    state.take("decisions", rows([D("a"), D("b", at=60.0)]))
    list(publications(state))
    state.close()
    other = LoopSettings(name="news", features=FeatureSettings(enabled=True, half_life_s=30.0))
    state = stream(other, path)
    assert state.positions() == {}
    assert state.take("decisions", rows([D("a"), D("b", at=60.0)])) == 2
    assert list(publications(state)) == [(2, 1001, {"u": Decayed(1.25, 0.0, 0.0, 60.0)})]
    state.close()


def test_what_can_still_change_is_not_forgotten() -> None:
    state = stream()
    settled_after = WINDOW_S + GRACE_US / 1e6
    state.take("decisions", rows([D("a", at=0.0), D("b", at=1.0), D("z", "x", at=settled_after)]))
    state.take("outcomes", rows([O("z", at=settled_after + 0.5)]))
    state.forget_settled()  # the last outcome arrived half a second before b's may no more
    state.take("outcomes", rows([O("a", arrived=settled_after + 1), O("b", arrived=settled_after + 1)], start=1))
    assert state.subjects()["u"][1] == pytest.approx(1.0)
    state.close()


def test_nothing_is_forgotten_while_outcomes_lag_behind() -> None:
    state = stream()
    state.take("decisions", rows([D("a"), D("z", "x", at=86_400.0)]))
    state.forget_settled()
    state.take("outcomes", rows([O("a")]))
    assert state.subjects()["u"] == Decayed(1.0, 1.0, 1.0, 0.0)
    state.close()


def test_an_erased_subject_leaves_no_trace_and_does_not_come_back(path: Path) -> None:
    state = stream(path=path)
    state.take("decisions", rows([D("event-1", "ann-smith"), D("event-2", "bob")]))
    state.take("outcomes", rows([O("event-1")]))
    assert state.erase("ann-smith") == 3
    state.take("outcomes", rows([O("event-1")], start=1))
    assert set(state.subjects()) == {"bob"}
    state.close()
    assert all(b"ann-smith" not in file.read_bytes() for file in path.parent.iterdir())


def test_what_followed_another_action_than_the_one_drawn_moves_nothing() -> None:
    reports = [O("x", 1.0, action="a"), O("x", 0.5, at=2.0, action="b"), O("x", 0.25, at=3.0)]
    assert sums([D("x", action="b")], reports)["u"][:3] == (1.0, 2.0, 0.75)


def test_a_decision_that_was_answered_twice_counts_by_what_names_its_action_alone() -> None:
    state = stream()
    state.take("decisions", rows([D("x", action="b"), D("y"), D("z", action="b")]))
    state.take("outcomes", rows([O("x"), O("y"), O("z", 0.5, action="b")]))
    assert state.subjects()["u"][:3] == (3.0, 3.0, 2.5)
    state.contest([(7, "x"), (9, "z"), (11, "of nobody")], 0, 20)
    assert state.subjects()["u"][:3] == (2.0, 2.0, 1.5)  # what is kept of x was said of no action
    state.contest([(7, "y")], 0, 20)  # seen before
    assert state.subjects()["u"][:3] == (2.0, 2.0, 1.5)
    assert state.positions()["conflicts", 0] == 20
    state.take("outcomes", rows([O("x", 0.125, at=4.0, action="b")], start=3))
    assert state.subjects()["u"][:3] == (3.0, 3.0, 1.625)
    state.close()


def test_a_state_of_an_older_form_is_filled_anew(tmp_path: Path) -> None:
    path = tmp_path / "stream.db"
    state = stream(path=path)
    state.take("decisions", rows([D("x")]))
    state.close()
    with sqlite3.connect(path) as sql:
        sql.execute("ALTER TABLE decisions DROP COLUMN action")
        sql.execute("PRAGMA user_version = 0")
    sql.close()
    state = stream(path=path)
    assert state.positions() == {}
    state.take("decisions", rows([D("x")]))
    assert state.subjects()["u"][0] == 1.0
    state.close()
