"""The pairs that stand: upheld by a panel or an adjudicator, and re-scored under any policy from then on.

A pair names two decisions; their contexts are read from the lake when they are needed, so a person who was erased there
is erased here: their pairs lapse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from decision.batch import Floats
from decision.fairness.penalty import UpheldPairs
from decision.protocols import Policy
from pipelines.fairness import tables as t
from pipelines.fairness.store import Governance
from pipelines.fairness.window import treatments
from pipelines.interactions.arrays import to_batch
from pipelines.lake.lake import Lake
from pipelines.settings import FairnessSettings, LoopSettings, Settings

_AT_ONCE = 1_000
"""Tasks of one query for judgements: databases limit what one may name."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A pair that was judged, and what its panel accepts.

    Attributes:
        task_id: the task.
        favoured: decision of the better treated person.
        disfavoured: of the other.
        action_id: the compared action.
        limit: largest gap that is no violation: the panel's threshold, see `decision.fairness.panel`.
        gap: the gap when it was judged.
        status: ``upheld`` or ``dismissed``.
    """

    task_id: str
    favoured: str
    disfavoured: str
    action_id: str
    limit: float
    gap: float
    status: str


def upheld(store: Governance, loop: str) -> list[Standing]:
    """Return the loop's upheld pairs, oldest first; tasks with a known answer are none."""
    query = sa.select(t.tasks, t.rules.c.quorum, t.rules.c.sensitivity).join(
        t.rules, t.rules.c.rule_id == t.tasks.c.rule_id
    )
    query = query.where(t.tasks.c.loop == loop, t.tasks.c.status == "upheld", t.tasks.c.stream != "gold")
    return limits(store, store.rows(query.order_by(t.tasks.c.opened_at, t.tasks.c.task_id)))


def limits(store: Governance, tasks: Sequence[dict[str, Any]]) -> list[Standing]:
    """Return decided tasks with their panels' thresholds.

    The threshold is the q-th smallest acceptable gap plus the sensitivity. Where an adjudicator upheld a pair that the
    quorum did not reach, it is the largest one of those who saw a violation.

    Args:
        store: where the judgements are.
        tasks: rows of the tasks with ``quorum`` and ``sensitivity``.
    """
    from decision.fairness.panel import votes_needed

    said: dict[str, list[float]] = {}
    names = [row["task_id"] for row in tasks]
    judged = t.judgements.c
    voted = sa.select(judged.task_id, judged.acceptable).where(judged.acceptable.is_not(None))
    for start in range(0, len(names), _AT_ONCE):
        for row in store.rows(voted.where(judged.task_id.in_(names[start : start + _AT_ONCE]))):
            said.setdefault(row["task_id"], []).append(row["acceptable"])
    out: list[Standing] = []
    for name, row in zip(names, tasks, strict=True):
        accepted = sorted(said.get(name, []))
        needed = votes_needed(max(len(accepted), 1), row["quorum"])
        limit = (accepted[needed - 1] if accepted else 0.0) + row["sensitivity"]
        if row["status"] == "upheld" and row["gap"] <= limit:  # by an adjudicator, against the panel's count
            seen = [gap for gap in accepted if row["gap"] > gap + row["sensitivity"]]
            limit = (max(seen) if seen else 0.0) + (row["sensitivity"] if seen else 0.0)
        keys = ("task_id", "favoured", "disfavoured", "action_id", "gap", "status")
        out.append(Standing(**{key: row[key] for key in keys}, limit=min(limit, 1.0)))
    return out


def training_pairs(settings: Settings, lake: Lake, loop: LoopSettings) -> UpheldPairs | None:
    """Return the pairs whose gaps cost in a training of the loop; None where it has no panels."""
    if not loop.fairness.enabled:
        return None
    with Governance.at(settings) as store:
        standing = upheld(store, loop.name)
    return as_pairs(lake, loop.name, standing) if standing else None


def as_pairs(lake: Lake, loop: str, standing: Sequence[Standing]) -> UpheldPairs:
    """Return the pairs whose two decisions are in the lake, with the compared action offered to both."""
    first, second, kept = _rows(lake, loop, standing)
    batches = [to_batch(rows) for rows in (first, second)]
    actions: list[list[int]] = [[], []]
    usable: list[int] = []
    for position, pair in enumerate(kept):
        flat = [_flat(batch, position, pair.action_id) for batch in batches]
        if None not in flat:
            usable.append(position)
            for side, row in enumerate(flat):
                actions[side].append(int(row or 0))
    rows = np.array(usable, dtype=np.int64)
    taken = [batch.take(rows) for batch in batches]
    shifted = [
        np.array(actions[side], dtype=np.int64) - batches[side].offsets[rows] + taken[side].offsets[:-1]
        for side in (0, 1)
    ]
    limit = np.array([kept[position].limit for position in usable], dtype=np.float64)
    return UpheldPairs(taken[0], taken[1], shifted[0], shifted[1], limit)


class Rescored(msgspec.Struct, frozen=True, kw_only=True):
    """Judged pairs under a policy.

    Attributes:
        pairs: those that could be scored.
        gaps: their gaps, the favoured person's probability first; below 0 where the order turned round.
        lapsed: pairs whose decisions are gone.
    """

    pairs: list[Standing]
    gaps: list[float]
    lapsed: int

    @property
    def violating(self) -> list[bool]:
        """Whether each violates its panel's limit, in either direction."""
        return [abs(gap) > pair.limit for gap, pair in zip(self.gaps, self.pairs, strict=True)]


def rescore(lake: Lake, loop: LoopSettings, standing: Sequence[Standing], policy: Policy | None) -> Rescored:
    """Return the gaps of judged pairs under `policy`; None for the probabilities that were logged."""
    first, second, kept = _rows(lake, loop.name, standing)
    treated = [_treated(rows, policy, loop.fairness) for rows in (first, second)]
    pairs: list[Standing] = []
    found: list[float] = []
    for pair in kept:
        high = treated[0].get(pair.favoured, {}).get(pair.action_id)
        low = treated[1].get(pair.disfavoured, {}).get(pair.action_id)
        if high is not None and low is not None:
            pairs.append(pair)
            found.append(high - low)
    return Rescored(pairs=pairs, gaps=found, lapsed=len(standing) - len(pairs))


def excess(rescored: Rescored) -> Floats:
    """Return [p] by how much each pair's gap exceeds its limit, at least 0."""
    gaps = np.abs(np.array(rescored.gaps, dtype=np.float64))
    return np.maximum(gaps - np.array([pair.limit for pair in rescored.pairs], dtype=np.float64), 0.0)


def _treated(rows: Any, policy: Policy | None, settings: FairnessSettings) -> dict[str, dict[str, float]]:
    return treatments(rows, policy, settings) if len(rows) else {}


def _rows(lake: Lake, loop: str, standing: Sequence[Standing]) -> tuple[Any, Any, list[Standing]]:
    wanted = sorted({event for pair in standing for event in (pair.favoured, pair.disfavoured)})
    rows = lake.decisions(loop, event_ids=wanted)
    places: dict[str, int] = {}
    for place, event_id in enumerate(rows["event_id"].to_pylist()):
        places.setdefault(event_id, place)
    kept = [pair for pair in standing if pair.favoured in places and pair.disfavoured in places]
    first = rows.take(np.array([places[pair.favoured] for pair in kept], dtype=np.int64))
    second = rows.take(np.array([places[pair.disfavoured] for pair in kept], dtype=np.int64))
    return first, second, kept


def _flat(batch: Any, position: int, action_id: str) -> int | None:
    for flat in range(int(batch.offsets[position]), int(batch.offsets[position + 1])):
        if batch.action_ids[flat] == action_id:
            return flat
    return None
