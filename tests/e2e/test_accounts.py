"""What the chaos run counts by: a promise that breaks is found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from pipelines.registry.charge import WrittenVerdict
from pipelines.state.state import Change
from tests.worlds.accounts import Account, Row, Told, account, broken_links, champions

ROWS = (
    Row("taken", "a", "joined", None, 1.0),
    Row("silent-user", "b", "expired", None, 0.0),
    Row("other", "a", "dropped", "conflict", None),
    Row("unheard", "a", "expired", None, 0.0),
)


def found(rows: tuple[Row, ...] = ROWS, **changes: Any) -> Account:
    told = Told(
        answers={"taken": ["a"], "silent-user": ["b"], "other": ["a", "b"]},
        reports={"taken": ("a", 1.0), "other": ("b", 1.0)},
        accepted={"taken", "other"},
        versions={"1"},
    )
    kept = {"decisions": [row.event_id for row in rows], "outcomes": ["taken", "taken", "other"]} | changes
    return account(told, rows=rows, **kept)


def test_what_agrees_breaks_nothing() -> None:
    agreed = found()
    assert agreed.broken == {}
    assert agreed.differed == ["other"]


@pytest.mark.parametrize(
    ("name", "event", "changed"),
    [
        ("lost_decisions", "silent-user", {"rows": (ROWS[0], *ROWS[2:])}),
        ("doubled", "taken", {"decisions": ["taken", "taken", "silent-user", "other", "unheard"]}),
        ("doubled", "taken", {"rows": (ROWS[0], *ROWS), "decisions": ["taken", "silent-user", "other", "unheard"]}),
        ("lost_outcomes", "other", {"outcomes": ["taken"]}),
        ("unsettled", "more", {"decisions": ["taken", "silent-user", "other", "unheard", "more"]}),
        ("wrong_rewards", "taken", {"rows": (ROWS[0]._replace(reward=2.0), *ROWS[1:])}),
        ("wrong_rewards", "other", {"rows": (*ROWS[:2], Row("other", "a", "joined", None, 1.0), ROWS[3])}),
        ("wrong_rewards", "unheard", {"rows": (*ROWS[:3], ROWS[3]._replace(state="joined", reward=1.0))}),
        ("silent", "other", {"rows": (*ROWS[:2], Row("other", "a", "expired", None, 0.0), ROWS[3])}),
    ],
)
def test_what_does_not_agree_is_named(name: str, event: str, changed: dict[str, Any]) -> None:
    assert found(**changed).broken[name] == [event]


def change(version: int, aliases: dict[str, str]) -> Change:
    value = msgspec.json.encode({"aliases": aliases, "verdicts": version})
    return Change(version, value, datetime(2026, 1, 1, tzinfo=UTC), "ann")


def verdict(number: int, alias: str, moved_from: str | None, to: str | None) -> WrittenVerdict:
    return WrittenVerdict(number=number, version="1", alias=alias, from_version=moved_from, to_version=to)


def test_a_chain_of_verdicts_is_whole_or_its_broken_link_is_named() -> None:
    changes = [change(1, {"champion": "1"}), change(2, {"champion": "1"}), change(3, {"champion": "3"})]
    verdicts = [verdict(1, "champion", None, "1"), verdict(2, "", None, None), verdict(3, "champion", "1", "3")]
    assert broken_links(changes, verdicts) == []
    assert champions(changes) == {"1", "3"}
    assert broken_links(changes, verdicts[:2]) == ["2 verdicts explain 3 changes"]
    assert "a change of the charge is missing" in broken_links(changes[1:], verdicts[1:])
    stale = [*verdicts[:2], verdict(3, "champion", "2", "3")]
    assert broken_links(changes, stale) == ["verdict 3 moves champion from where it does not stand"]
    other = [*changes[:2], change(3, {"champion": "2"})]
    assert len(broken_links(other, verdicts)) == 1
