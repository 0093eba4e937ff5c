"""What a verdict on a pair changed: how its two people are treated now, and which decisions are answered otherwise."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pyarrow.compute as pc
import sqlalchemy as sa

from decision.batch import Features
from decision.fairness.clamp import Anchor, ClampedPolicy, seen_of
from decision.fairness.pair_name import pair_name
from decision.policy import OraclePolicy
from decision.protocols import Policy
from pipelines.fairness import tables as t
from pipelines.fairness.anchors import anchors_key, former_stamp, published
from pipelines.fairness.errors import NoTaskError
from pipelines.fairness.mine import policy_of
from pipelines.fairness.standing import limits
from pipelines.fairness.store import Governance, Query
from pipelines.fairness.views.judged import Verdict, verdicts_of
from pipelines.fairness.window import treatments
from pipelines.interactions.arrays import to_batch
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, Settings
from pipelines.state.state import State

LATEST = 2_000
"""Latest decisions that are looked through for people who look like those of a pair."""

NEAR = 2 * LATEST
"""Decisions before a pair was opened among which its two are looked for first."""

_DECIDED = ("upheld", "dismissed", "disputed", "no_quorum")


class Sides(msgspec.Struct, frozen=True, kw_only=True):
    """How two people are treated.

    Attributes:
        high: probability of the person who was treated better when the pair was judged.
        low: of the other.
    """

    high: float
    low: float

    @property
    def gap(self) -> float:
        """The difference; below 0 where the two changed places."""
        return self.high - self.low


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A pair that was decided.

    Attributes:
        task_id: the pair.
        name: its name for people.
        status: as it stands.
        judged: how the two were treated when it was judged.
        version: by which version.
        limit: largest difference that its panel accepts; None where nothing was upheld or dismissed.
        verdicts: oldest first.
        panel: ids of the members who judged.
    """

    task_id: str
    name: str
    status: str
    judged: Sides
    version: str
    limit: float | None
    verdicts: list[Verdict]
    panel: list[str]


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What follows from a pair's verdict.

    Attributes:
        version: the version in charge; None where the baseline decides.
        before: how the version in charge treats the two by itself; None without one, or where the decisions are gone.
        after: with the published pairs clamped; None where nothing is.
        clamps: the loop clamps.
        published: this pair is among those that the service clamps around.
        looked_at: latest decisions that were looked through.
        alike: of these, those that look like one of the two in all that auditors may see, with the compared action
            offered.
        changed: of these, those that the clamp answers with other probabilities.
        events: the latest ten of `alike`.
    """

    version: str | None
    before: Sides | None
    after: Sides | None
    clamps: bool
    published: bool
    looked_at: int
    alike: int
    changed: int
    events: list[str]


def decided_pairs(store: Governance, loop: str, *, first: int = 0, limit: int = 25) -> list[Decided]:
    """Return the loop's decided pairs, the latest opened first, from place `first` on."""
    query = _decided(loop).order_by(t.tasks.c.opened_at.desc(), t.tasks.c.task_id)
    return _told(store, store.rows(query.offset(first).limit(limit)))


def decided_pair(store: Governance, loop: str, task_id: str) -> Decided:
    """Return one of them.

    Raises:
        NoTaskError: there is none of the loop.
    """
    found = _told(store, store.rows(_decided(loop).where(t.tasks.c.task_id == task_id)))
    if not found:
        raise NoTaskError("this loop has no such pair that was decided")
    return found[0]


def effect_of(
    settings: Settings, store: Governance, lake: Lake, registry: Registry, loop: LoopSettings, task_id: str
) -> Effect:
    """Return what follows from the verdict on a pair of the loop.

    Args:
        settings: the installation.
        store: the verdicts.
        lake: where the decisions are.
        registry: the versions.
        loop: the loop.
        task_id: the pair.

    Raises:
        NoTaskError: the loop has no such pair that was decided.
    """
    rows = store.rows(_decided(loop.name).where(t.tasks.c.task_id == task_id))
    if not rows:
        raise NoTaskError("this loop has no such pair that was decided")
    pair = rows[0]
    clamps = loop.fairness.clamp
    champion = registry.aliases(loop.name).get("champion")
    policy = None if champion is None else policy_of(registry, loop, champion)[0]
    two = _two(lake, loop.name, pair)
    anchors = _published(settings, loop.name) if clamps else []
    before = None if policy is None else _sides(two, policy, loop, pair)
    clamped: Policy | None = None
    if anchors and isinstance(policy, OraclePolicy):
        clamped = ClampedPolicy(policy, anchors, loop.fairness.protected)
    after = None if clamped is None else _sides(two, clamped, loop, pair)
    people = dict(zip(two["event_id"].to_pylist(), to_batch(two).contexts, strict=True)) if len(two) else {}
    ends = [people.get(pair["favoured"]), people.get(pair["disfavoured"])]
    latest = lake.decisions(loop.name, latest=LATEST)
    alike = _alike(latest, [end for end in ends if end is not None], pair["action_id"], loop)
    changed = 0
    if policy is not None and clamped is not None and alike:
        theirs = latest.take(alike)
        now, then = (treatments(theirs, each, loop.fairness) for each in (policy, clamped))
        changed = sum(now[event_id] != then[event_id] for event_id in now)
    events = latest["event_id"].to_pylist()
    return Effect(
        version=champion,
        before=before,
        after=after,
        clamps=clamps,
        published=any(
            [anchor.favoured, anchor.disfavoured, anchor.action_id] == [*ends, pair["action_id"]] for anchor in anchors
        ),
        looked_at=len(latest),
        alike=len(alike),
        changed=changed,
        events=[events[row] for row in alike[:-11:-1]],
    )


def _decided(loop: str) -> Query:
    r = t.rules.c
    query = sa.select(t.tasks, r.quorum, r.sensitivity).join(t.rules, r.rule_id == t.tasks.c.rule_id)
    return query.where(t.tasks.c.loop == loop, t.tasks.c.status.in_(_DECIDED))


def _told(store: Governance, rows: list[dict[str, Any]]) -> list[Decided]:
    ids = [row["task_id"] for row in rows]
    verdicts = verdicts_of(store, ids)
    stand = {pair.task_id: pair.limit for pair in limits(store, rows) if pair.status in ("upheld", "dismissed")}
    panel: dict[str, list[str]] = {}
    for row in store.rows(sa.select(t.judgements).where(t.judgements.c.task_id.in_(ids))):
        panel.setdefault(row["task_id"], []).append(row["person_id"])
    return [
        Decided(
            task_id=row["task_id"],
            name=pair_name(row["task_id"]),
            status=row["status"],
            judged=Sides(high=row["high"], low=row["low"]),
            version=row["policy_version"],
            limit=stand.get(row["task_id"]),
            verdicts=verdicts.get(row["task_id"], []),
            panel=panel.get(row["task_id"], []),
        )
        for row in rows
    ]


def _published(settings: Settings, loop: str) -> list[Anchor]:
    with State(settings.state_url) as state:
        entry = state.get(anchors_key(loop))
    if entry is None and not former_stamp(settings, loop):
        return []
    return published(settings, loop, None if entry is None else entry.value)


def _two(lake: Lake, loop: str, pair: dict[str, Any]) -> Any:
    """Return the decisions of a pair.

    Mining looks at the latest of its day, so they stand just before; a whole history is searched for those alone that
    an appeal named.
    """
    wanted = sorted({pair["favoured"], pair["disfavoured"]})
    before = lake.decisions(loop, until=datetime.fromisoformat(pair["opened_at"]), latest=NEAR)
    found = before.filter(pc.field("event_id").isin(wanted))
    whole = len(before) < NEAR or before["event_id"][0].as_py() not in wanted  # or some of its slots may be cut off
    if whole and set(found["event_id"].to_pylist()) == set(wanted):
        return found
    return lake.decisions(loop, event_ids=wanted)


def _sides(rows: Any, policy: Policy, loop: LoopSettings, pair: dict[str, Any]) -> Sides | None:
    treated = treatments(rows, policy, loop.fairness) if len(rows) else {}
    found = [treated.get(pair[side], {}).get(pair["action_id"]) for side in ("favoured", "disfavoured")]
    return None if None in found else Sides(high=float(found[0] or 0.0), low=float(found[1] or 0.0))


def _alike(rows: Any, ends: list[Features], action_id: str, loop: LoopSettings) -> list[int]:
    """Return the rows whose person looks like one of `ends` in all that auditors may see."""
    if not len(rows) or not ends:
        return []
    protected = frozenset(name.casefold() for name in loop.fairness.protected)
    wanted = {seen_of(end, protected) for end in ends}
    offered = rows["action_ids"].to_pylist()
    contexts = to_batch(rows).contexts
    return [
        row
        for row, context in enumerate(contexts)
        if action_id in (offered[row] or []) and seen_of(context, protected) in wanted
    ]
