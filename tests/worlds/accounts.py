"""What callers of a fleet were told and told it, held against what its lake and its State have of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from decision.join import CONFLICT
from pipelines.registry.charge import WrittenVerdict
from pipelines.registry.stated import aliases_in
from pipelines.state.state import Change


class Told(NamedTuple):
    """What callers know.

    Attributes:
        answers: the actions that were acknowledged for each event, in the order in which the caller heard of them; it
            acts on the last one.
        reports: (action, value) that was reported of each event, whether or not that was acknowledged.
        accepted: events whose report was acknowledged.
        versions: versions that answered.
    """

    answers: dict[str, list[str]]
    reports: dict[str, tuple[str, float]]
    accepted: set[str]
    versions: set[str]


class Row(NamedTuple):
    """What the lake made of a decision."""

    event_id: str
    action: str
    state: str
    reason: str | None
    reward: float | None


class Account(msgspec.Struct, frozen=True):
    """What does not agree, by event; all of it is empty where every promise was kept, but what says that it may be.

    Attributes:
        lost_decisions: acknowledged, and not in the lake.
        doubled: more than once in the lake or among the settled.
        lost_outcomes: acknowledged, and not in the lake.
        unsettled: in the lake, and neither settled nor dropped.
        wrong_rewards: a reward that was not reported, or of an action that the caller did not take.
        silent: the caller took another action than the one kept, and the row is not dropped as a conflict.
        differed: two answers that were acknowledged are not the same; may be, while Redis is away.
    """

    lost_decisions: list[str]
    doubled: list[str]
    lost_outcomes: list[str]
    unsettled: list[str]
    wrong_rewards: list[str]
    silent: list[str]
    differed: list[str]

    @property
    def broken(self) -> dict[str, list[str]]:
        """What a promise says there is none of, where there is some."""
        found: dict[str, list[str]] = msgspec.structs.asdict(self)
        return {name: events for name, events in found.items() if events and name != "differed"}


def account(told: Told, decisions: Sequence[str], outcomes: Iterable[str], rows: Sequence[Row]) -> Account:
    """Return what of the callers' knowledge and the lake does not agree, after everything was settled.

    Args:
        told: what the callers know.
        decisions: event id of each decision in the lake.
        outcomes: event id of each outcome there.
        rows: what was settled.
    """
    kept, settled, reported = Counter(decisions), Counter(row.event_id for row in rows), set(outcomes)
    twice = {event for counted in (kept, settled) for event, times in counted.items() if times > 1}
    return Account(
        lost_decisions=[event for event in told.answers if not kept[event]],
        doubled=sorted(twice),
        lost_outcomes=sorted(told.accepted - reported),
        unsettled=[event for event in kept if not settled[event]],
        wrong_rewards=[row.event_id for row in rows if _is_wrong(row, told)],
        silent=[row.event_id for row in rows if row.reason != CONFLICT and _is_silent(row, told)],
        differed=[event for event, answers in told.answers.items() if len(set(answers)) > 1],
    )


def _is_wrong(row: Row, told: Told) -> bool:
    return row.state == "joined" and told.reports.get(row.event_id) != (row.action, row.reward)


def _is_silent(row: Row, told: Told) -> bool:
    return row.event_id in told.answers and told.answers[row.event_id][-1] != row.action


def broken_links(changes: Sequence[Change], verdicts: Sequence[WrittenVerdict]) -> list[str]:
    """Return where the history of who is in charge is no chain in which every link is one verdict.

    Args:
        changes: all changes of a loop's charge, oldest first.
        verdicts: its verdicts, oldest first.
    """
    found: list[str] = []
    if [change.version for change in changes] != list(range(1, len(changes) + 1)):
        found.append("a change of the charge is missing")
    if [verdict.number for verdict in verdicts] != list(range(1, len(changes) + 1)):
        found.append(f"{len(verdicts)} verdicts explain {len(changes)} changes")
    before: Mapping[str, str] = {}
    for change, verdict in zip(changes, verdicts, strict=False):
        now = {} if change.value is None else aliases_in("", change.value)
        wanted = dict(before)
        if verdict.alias:
            if wanted.pop(verdict.alias, None) != verdict.from_version:
                found.append(f"verdict {verdict.number} moves {verdict.alias} from where it does not stand")
            wanted |= {} if verdict.to_version is None else {verdict.alias: verdict.to_version}
        if now != wanted:
            found.append(f"verdict {verdict.number} does not explain {before} -> {now}")
        before = now
    return found


def champions(changes: Sequence[Change]) -> set[str]:
    """Return every version that was ever in charge."""
    stood = [{} if change.value is None else aliases_in("", change.value) for change in changes]
    return {aliases["champion"] for aliases in stood if "champion" in aliases}
