"""What a policy with memory knows of a user at a time: one function of their decisions and of what was reported.

The service and the gate call the same function, so a version is judged with the memory that it would have had. What is
known depends on no order of arrival:

- Turns are the user's decisions before that time, in order of time.
- What came of a turn is made of the reports known by then, by the loop's own definition of a reward: its outcome's
  name, its aggregation, its bounds. Reports that come after the window never count.
- Without a report nothing is known of a turn before its window is over; then it is the default.
- The memory goes over the turns of which something is known: the latest 100 to 199, or all while there are fewer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from decision.join import ACTIVATION, SKEW_US, RewardRule
from decision.oracles.session import SessionOracle, Singles
from decision.reward import aggregate

BLOCK = 100
"""Turns that are forgotten at once, when there are as many behind them."""
NEVER = 2**63 - 1
_LARGEST = sys.float_info.max


class Report(NamedTuple):
    """What was reported of a decision.

    Attributes:
        name: of the outcome.
        value: finite.
        ts_us: when it happened, microseconds since 1970.
        known_us: when it was known: not before it happened, nor before it came in.
        key: reports of one name that share it are one report that came again; None for none.
    """

    name: str
    value: float
    ts_us: int
    known_us: int
    key: str | None = None


class Turn(NamedTuple):
    """One decision of a user.

    Attributes:
        ts_us: when it was made, microseconds since 1970.
        event_id: its id; turns of the same time are in the order of their ids.
        action: what was shown.
        deferred: it counts only once activated.
        reports: what was reported of it, in order of arrival.
    """

    ts_us: int
    event_id: str
    action: str
    deferred: bool = False
    reports: Sequence[Report] = ()


def known_at(decided_us: int, appended_us: int, ts_us: int, arrived_us: int) -> int:
    """Return when a report was known.

    How long it took to come in is told by the log's clock, from the decision's arrival to its own: a log that was
    filled later at one go has such times too.

    Args:
        decided_us: when the decision was made.
        appended_us: when its record came to the log.
        ts_us: when what is reported happened.
        arrived_us: when the report came to the log.
    """
    return decided_us + max(ts_us - decided_us, arrived_us - appended_us)


def first_of(turns: int) -> int:
    """Return the turn that a memory begins with, when there are as many."""
    return BLOCK * max(0, turns // BLOCK - 1)


def response(turn: Turn, rule: RewardRule, at_us: int) -> float | None:
    """Return the reward of `turn` as it is known at `at_us`; None while nothing is, and for ever if it never counts."""
    over = turn.ts_us + rule.window_us
    values: list[float] = []
    times: list[int] = []
    seen = set[tuple[str, str]]()
    counts = not turn.deferred
    for report in turn.reports:
        if not turn.ts_us - SKEW_US <= report.ts_us <= over:
            continue
        if report.key is not None:
            if (report.name, report.key) in seen:
                continue
            seen.add((report.name, report.key))
        if report.known_us > min(at_us, over):
            continue
        counts |= report.name == ACTIVATION or (rule.activates and report.name == rule.outcome)
        if report.name == rule.outcome:
            values.append(report.value)
            times.append(report.ts_us)
    if not counts or (not values and at_us < over):
        return None
    if not values:
        return rule.default
    if len(values) == 1:
        found = values[0]
    else:
        found = aggregate(np.array(values), np.array(times, np.int64), rule.aggregation)
        assert found is not None  # noqa: S101 - there are values
    # A sum may pass the range of doubles; a memory is made of finite numbers.
    return min(max(found, rule.minimum, -_LARGEST), rule.maximum, _LARGEST)


def changes(turn: Turn, rule: RewardRule) -> list[int]:
    """Return the times at which `response` may change, ascending, repeats among them."""
    over = turn.ts_us + rule.window_us
    return sorted([*(report.known_us for report in turn.reports if report.known_us <= over), over])


def memory(oracle: SessionOracle, turns: Sequence[Turn], rule: RewardRule, at_us: int, *, before: int = 0) -> Singles:
    """Return the state [f + h] that `oracle` has of a user at `at_us`.

    Args:
        oracle: whose memory.
        turns: those before `at_us`, in order of time, or the latest of them.
        rule: the loop's definition of a reward.
        at_us: the time, microseconds since 1970.
        before: how many earlier turns are not among `turns`; 0, or at most what is forgotten.
    """
    state = oracle.start()
    for turn in turns[max(0, first_of(before + len(turns)) - before) :]:
        known = response(turn, rule, at_us)
        if known is not None:
            state = oracle.advance(state, turn.action, known)
    return state


class Mark(NamedTuple):
    """A memory up to some turn, to go on from.

    Attributes:
        after: time and id of the last turn in it.
        state: [f + h].
        since_us: from when on it is the memory of its turns.
        until_us: and until when, but for a report that was not there.
    """

    after: tuple[int, str]
    state: Singles
    since_us: int
    until_us: int


class Going(NamedTuple):
    """A memory at a time, and what to go on from later.

    Attributes:
        state: [f + h]; None where nothing is known of the user.
        until_us: it stays as it is until then, but for what is decided or reported meanwhile.
        marks: at most two, the later one last.
    """

    state: Singles | None
    until_us: int
    marks: tuple[Mark, ...]


def mark_before(marks: Sequence[Mark], at_us: int) -> Mark | None:
    """Return the latest of `marks` that a memory at `at_us` may go on from."""
    return next((mark for mark in reversed(marks) if mark.since_us <= at_us < mark.until_us), None)


def gone_on(oracle: SessionOracle, marks: Sequence[Mark], turns: Sequence[Turn], rule: RewardRule, at_us: int) -> Going:
    """Return `memory` at `at_us`, made from the mark that `mark_before` gives by the turns after it.

    Args:
        oracle: whose memory.
        marks: of an earlier time; without one to go on from, `memory` begins with the first of `turns`.
        turns: those after the mark and before `at_us`, in order of time.
        rule: the loop's definition of a reward.
        at_us: the time, microseconds since 1970.
    """
    last = mark_before(marks, at_us)
    settled = None if last is None else marks[0]
    state, since, until = (None, 0, NEVER) if last is None else (last.state, last.since_us, last.until_us)
    for turn in turns:
        known = response(turn, rule, at_us)
        times = changes(turn, rule)
        coming = [at for at in times if at > at_us]
        since = max([since, turn.ts_us + 1, *times[: len(times) - len(coming)]])
        if coming and known is not None:
            coming.pop()  # once something was reported, the end of the window changes nothing
        if coming:
            until = min(until, coming[0])
        if known is not None:
            state = oracle.advance(oracle.start() if state is None else state, turn.action, known)
            last = Mark((turn.ts_us, turn.event_id), state, since, until)
            if turn.ts_us + rule.window_us <= at_us:  # so are all before it: no report changes them
                settled = last
    both = [mark for mark in (settled, last) if mark is not None]
    return Going(state, until, tuple(both[-1:] if settled is last else both))


def memories(oracle: SessionOracle, turns: Sequence[Turn], rule: RewardRule) -> Iterator[Singles]:
    """Yield the state before each of a user's `turns` (all of them, in order of time): `memory`, step by step.

    What did not change since the turn before is not computed again.
    """
    due: list[tuple[int, int]] = []
    known: list[float | None] = []
    begin, states = 0, [oracle.start()]
    for turn in turns:
        while len(known) < len(turns) and turns[len(known)].ts_us < turn.ts_us:
            for at in changes(turns[len(known)], rule):
                heappush(due, (at, len(known)))
            known.append(None)
        changed = len(known)
        while due and due[0][0] <= turn.ts_us:
            number = heappop(due)[1]
            found = response(turns[number], rule, turn.ts_us)
            if found != known[number]:
                known[number], changed = found, min(changed, number)
        first = first_of(len(known))
        if first != begin:
            begin, states = first, states[:1]
        del states[max(0, changed - begin) + 1 :]
        for number in range(begin + len(states) - 1, len(known)):
            found = known[number]
            before = states[-1]
            states.append(before if found is None else oracle.advance(before, turns[number].action, found))
        yield states[-1]
