"""The join: which outcomes belong to which decision, and what each decision's reward is at a given time.

A decision is mature when its reward window is over. Then it is *joined* (an outcome of the reward's name came inside
the window), *expired* (none came: the default reward) or *dropped* with a reason; before, it is *pending*. Everything
follows from the rows and the time passed in, so joining again gives the same rows.

A deferred decision counts once it is activated: by an outcome of that name, or, where the rule says so, by a reward. An
event is used as a whole, so what is reported of it without a slot, and any reward, activates all of its slots.

An outcome that names an action counts only for a decision that drew it. Where an event was answered in two ways, by
replicas that did not know of each other, a decision counts only if an outcome says that it was the one acted on.

A window is closed on both sides and begins `SKEW_US` before the decision: the clocks of the machine that decided and
of the one that saw the outcome may differ by a little, and feedback may be instant. Earlier outcomes never count.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.reward import Aggregation, aggregate_groups

SKEW_US = 1_000_000
ACTIVATION = "activation"
"""Name of the outcome that makes a deferred decision count."""

State = Literal["pending", "joined", "expired", "dropped"]
PENDING, JOINED, EXPIRED, DROPPED = range(4)
STATES: tuple[State, ...] = ("pending", "joined", "expired", "dropped")
NOT_ACTIVATED = "not_activated"
CONFLICT = "conflict"
"""Why a decision is dropped whose event was answered in two ways, and no outcome says which one was used."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRule:
    """How the outcomes of a decision become its reward.

    Attributes:
        outcome: name of the outcomes that are aggregated.
        window_us: length of the window in microseconds, above 0.
        default: reward without an outcome.
        aggregation: how several become one number.
        minimum: smallest reward; smaller ones are clipped to it.
        maximum: largest reward; larger ones are clipped to it.
        late: count outcomes after the window too; a decision is still mature when the window is over.
        activates: a reward activates a deferred decision.
    """

    outcome: str
    window_us: int
    default: float
    aggregation: Aggregation
    minimum: float
    maximum: float
    late: bool = False
    activates: bool = False


@dataclass(frozen=True, slots=True)
class DecisionRows:
    """n decisions.

    Attributes:
        ts: [n] when each was made, microseconds since 1970.
        deferred: [n] those that count only once activated.
        until: [n] outcomes at this offset of their log partition and beyond do not count.
        event: [n] the first row of each one's event; None where each is an event of its own.
        action: [n] ids of the actions drawn; None where no outcome names one.
        conflicting: [n] those whose event was also answered in another way; None for none.
    """

    ts: Ints
    deferred: Bools
    until: Ints
    event: Ints | None = None
    action: Sequence[str] | None = None
    conflicting: Bools | None = None


@dataclass(frozen=True, slots=True)
class OutcomeRows:
    """m outcomes, in any order.

    Attributes:
        decision: [m] row of the decision each belongs to, -1 for an orphan.
        name: [m] names.
        value: [m] finite.
        ts: [m] when each happened, microseconds since 1970.
        offset: [m] position in the log partition; distinct for the outcomes of one decision.
        identities: [m] what each is known by: two outcomes of one decision that share an identity are one report
            that arrived twice.
        event: [m] the first row of a decision of the same event, whatever the slot, -1 where there is none; None: as
            `decision`.
        whole: [m] those that name no slot; None for all.
        action: [m] ids of the actions they followed, None where that was not said; None for all of them.
    """

    decision: Ints
    name: Sequence[str]
    value: Floats
    ts: Ints
    offset: Ints
    identities: Sequence[tuple[Hashable, ...]]
    event: Ints | None = None
    whole: Bools | None = None
    action: Sequence[str | None] | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of n decisions.

    Attributes:
        state: [n] int8, index into `STATES`.
        reward: [n] the reward; NaN for pending and dropped decisions.
        clipped: [n] rewards that were outside [minimum, maximum].
        counted: flat rows of the outcomes inside the windows, whatever their name, by decision, time and offset.
        offsets: [n + 1] decision i has ``counted[offsets[i]:offsets[i + 1]]``.
        repeats: outcomes left out because they had arrived before.
        early: outcomes left out because they lie before their decision.
        elsewhere: outcomes left out because they followed another action than the one drawn.
        conflict: [n] dropped decisions that conflict with another answer.
    """

    state: NDArray[np.int8]
    reward: Floats
    clipped: Bools
    counted: Ints
    offsets: Ints
    repeats: int
    early: int
    elsewhere: int
    conflict: Bools


def match(decisions: Sequence[Hashable], outcomes: Sequence[Hashable]) -> Ints:
    """Return [m] the row of the decision with each outcome's key, -1 where there is none.

    Args:
        decisions: [n] keys; of rows with the same key the first is meant.
        outcomes: [m] keys.
    """
    rows: dict[Hashable, int] = {}
    for row, key in enumerate(decisions):
        rows.setdefault(key, row)
    return np.fromiter((rows.get(key, -1) for key in outcomes), dtype=np.int64, count=len(outcomes))


def settle(decisions: DecisionRows, outcomes: OutcomeRows, *, rule: RewardRule, now_us: int) -> Settled:
    """Return the state and reward of each decision at `now_us`.

    Args:
        decisions: [n] of them.
        outcomes: [m] outcomes of any of them.
        rule: the reward's definition.
        now_us: the time, microseconds since 1970.
    """
    n = len(decisions.ts)
    conflicting = np.zeros(n, dtype=np.bool_) if decisions.conflicting is None else decisions.conflicting
    named, same = _named(decisions, outcomes)
    # Of a conflicting decision only those count that say it was the one acted on.
    belongs = np.where(named, same, ~conflicting[outcomes.decision] if n else True)
    rows = np.flatnonzero((outcomes.decision >= 0) & belongs)
    owner = outcomes.decision[rows]
    after = outcomes.ts[rows] - decisions.ts[owner]
    early = after < -SKEW_US
    inside = ~early & (outcomes.offset[rows] < decisions.until[owner])
    if not rule.late:
        inside &= after <= rule.window_us
    # Of those alone: what may not count does not take the place of a later report.
    first = _first_reports(outcomes, rows[inside])
    counted = rows[inside][first]
    counted = counted[np.lexsort((outcomes.offset[counted], outcomes.ts[counted], outcomes.decision[counted]))]
    owner = outcomes.decision[counted]
    names = np.array([outcomes.name[i] for i in counted.tolist()], dtype=object)

    is_reward = names == rule.outcome
    raw = aggregate_groups(
        outcomes.value[counted][is_reward], outcomes.ts[counted][is_reward], owner[is_reward], n, rule.aggregation
    )
    has_reward = ~np.isnan(raw)
    reward = np.where(has_reward, np.clip(raw, rule.minimum, rule.maximum), rule.default)
    activated = np.zeros(n, dtype=np.bool_)
    activated[owner[names == ACTIVATION]] = True
    if decisions.deferred.any():
        activated |= _activated_by_event(decisions, outcomes, rule, belongs)
    confirmed = np.zeros(n, dtype=np.bool_)
    confirmed[owner] = True

    state = np.where(has_reward, JOINED, EXPIRED).astype(np.int8)
    state[decisions.deferred & ~activated | conflicting & ~confirmed] = DROPPED
    state[decisions.ts + rule.window_us > now_us] = PENDING
    settled = (state == JOINED) | (state == EXPIRED)
    return Settled(
        state=state,
        reward=np.where(settled, reward, np.nan),
        clipped=settled & has_reward & (reward != raw),
        counted=counted,
        offsets=np.searchsorted(owner, np.arange(n + 1)).astype(np.int64),
        repeats=int(np.count_nonzero(~first)),
        early=int(np.count_nonzero(early)),
        elsewhere=int(np.count_nonzero((outcomes.decision >= 0) & named & ~same)),
        conflict=conflicting & ~confirmed & (state == DROPPED),
    )


def _named(decisions: DecisionRows, outcomes: OutcomeRows) -> tuple[Bools, Bools]:
    """Return ([m], [m]) which outcomes name an action, and which of them the action of their decision."""
    m = len(outcomes.decision)
    named, same = np.zeros(m, dtype=np.bool_), np.zeros(m, dtype=np.bool_)
    if outcomes.action is not None and decisions.action is not None:
        for row, (action, owner) in enumerate(zip(outcomes.action, outcomes.decision.tolist(), strict=True)):
            if action is not None and owner >= 0:
                named[row], same[row] = True, action == decisions.action[owner]
    return named, same


def _activated_by_event(decisions: DecisionRows, outcomes: OutcomeRows, rule: RewardRule, belongs: Bools) -> Bools:
    """Return [n] which decisions belong to an event that was activated as a whole, by outcomes that belong to it."""
    n = len(decisions.ts)
    event = np.arange(n) if decisions.event is None else decisions.event
    of = outcomes.decision if outcomes.event is None else outcomes.event
    whole = np.ones(len(of), dtype=np.bool_) if outcomes.whole is None else outcomes.whole
    names = np.array(outcomes.name, dtype=object)
    told = (of >= 0) & ((outcomes.decision < 0) | belongs)
    rows = np.flatnonzero(told & ((names == ACTIVATION) & whole | (names == rule.outcome) & rule.activates))
    first = of[rows]
    after = outcomes.ts[rows] - decisions.ts[first]  # the slots of an event are of one time
    inside = (after >= -SKEW_US) & (outcomes.offset[rows] < decisions.until[first])
    if not rule.late:
        inside &= after <= rule.window_us
    activated = np.zeros(n, dtype=np.bool_)
    activated[first[inside]] = True
    return activated[event]


def _first_reports(outcomes: OutcomeRows, rows: Ints) -> Bools:
    """Return which of `rows` ([r], each with a decision) repeat none that came before."""
    first = np.ones(len(rows), dtype=np.bool_)
    seen: set[tuple[int, Hashable]] = set()
    for place in np.argsort(outcomes.offset[rows], kind="stable").tolist():
        identities = outcomes.identities[int(rows[place])]
        if identities:
            owner = int(outcomes.decision[rows[place]])
            keys = [(owner, identity) for identity in identities]
            first[place] = seen.isdisjoint(keys)
            seen.update(keys)
    return first
