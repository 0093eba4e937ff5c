"""Mining of a window: which pairs of people the panel shall look at, and a random probe with known weights beside them.

Mined pairs are the neighbours with the largest gap over their distance, or by a metric learned from earlier judgements;
they steer learning. Probe pairs are drawn at random by stratum from all near pairs; they tell how often the policy
violates. Where the auditors are of several types, pairs that tell the types apart go in between, as do appeals and
tasks with a known answer. Auditors cannot tell which is which.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from decision.batch import Floats, Ints
from decision.errors import FieldError, SupportError
from decision.fairness.blinding import Shown, payload
from decision.fairness.mining import Metric, Pairs, action_pairs, learn_metric, near, rank_by_metric, rank_by_ratio
from decision.fairness.probe import sample, strata_of
from decision.protocols import Policy
from pipelines.fairness import tables as t
from pipelines.fairness.judges.judge_types import judge_types, note, told
from pipelines.fairness.judges.telling import telling
from pipelines.fairness.store import Governance
from pipelines.fairness.tasks import Pair, Stream, open_tasks, rule_of
from pipelines.fairness.window import People, Scale, people_of
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.progress import Progress, parted, silent
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings

NEIGHBOURS = 20
PER_PERSON = 2
"""Mined pairs that one person may stand in, so that one odd person does not fill the panel's day."""

MOST_TASKS, MOST_DECISIONS = 500, 50_000
LEARNED_FROM = 50
"""Judged pairs from which on a metric is learned."""

_SMALLEST_GAP = 0.01


class Mined(msgspec.Struct, frozen=True, kw_only=True):
    """What a mining found.

    Attributes:
        window_id: its name.
        policy_version: the version whose probabilities are compared.
        decisions: decisions looked at.
        people: different people among them.
        pairs: near pairs they make.
        ranking: ``ratio``, or ``learned`` from judged pairs.
        mined: tasks opened for the largest gaps.
        probe: for the random probe.
        types: for pairs that tell types of auditors apart.
        gold: with a known answer.
        appeals: for appeals of decisions.
        tasks: their ids.
    """

    window_id: str
    policy_version: str
    decisions: int
    people: int
    pairs: int
    ranking: str
    mined: int
    probe: int
    types: int
    gold: int
    appeals: int
    tasks: list[str]


@step("mined")
def mine(
    store: Governance,
    lake: Lake,
    registry: Registry,
    loop: LoopSettings,
    *,
    now: datetime,
    by: str,
    seed: int = 1,
    version: str | None = None,
    decisions: int = 2_000,
    mined: int = 20,
    probe: int = 10,
    types: int = 5,
    gold: int = 0,
    progress: Progress = silent,
) -> Mined:
    """Open tasks for the pairs of the loop's latest decisions that are worth an auditor's time.

    Args:
        store: where tasks are kept.
        lake: where decisions are.
        registry: the versions.
        loop: the loop; its fairness settings say what is hidden and compared.
        now: time, UTC.
        by: who asks.
        seed: of the probe and of the cards' sides.
        version: version whose probabilities are compared; see `policy_of` for None.
        decisions: latest decisions looked at.
        mined: pairs with the largest gaps to open.
        probe: pairs of the random probe to open.
        types: pairs to open that tell types of auditors apart; none where the auditors are of one type.
        gold: tasks to ask again of which the panel was of one mind.
        progress: told of the parts of the search that are done.

    Raises:
        FieldError: a number is outside its range.
        SupportError: the loop has no two people to compare.
    """
    for name, value in (("mined", mined), ("probe", probe), ("types", types), ("gold", gold)):
        if not 0 <= value <= MOST_TASKS:
            raise FieldError(name, wanted=f"0 to {MOST_TASKS} tasks", got=value)
    if not 2 <= decisions <= MOST_DECISIONS:
        raise FieldError("decisions", wanted=f"2 to {MOST_DECISIONS}", got=decisions)
    part_done = parted(progress, "parts of the search done", 4)
    appeals = store.rows(
        sa.select(t.appeals).where(
            t.appeals.c.loop == loop.name, t.appeals.c.status == "open", t.appeals.c.event_id.is_not(None)
        )
    )
    rows = lake.decisions(loop.name, latest=decisions)
    missing = sorted({row["event_id"] for row in appeals} - set(rows["event_id"].to_pylist()))
    if missing:
        import pyarrow as pa

        rows = pa.concat_tables([rows, lake.decisions(loop.name, event_ids=missing)])
    policy, name = policy_of(registry, loop, version)
    part_done()
    people = people_of(rows, policy, loop.fairness)
    part_done()
    i, j = near(people.features, NEIGHBOURS)
    others = np.array([people.subjects[a] != people.subjects[b] for a, b in zip(i, j, strict=True)], dtype=bool)
    pairs, action = action_pairs(people.features, people.probability, i[others], j[others])
    if not pairs.gap.size:
        raise SupportError(f"loop {loop.name} has no two people to compare among {len(rows)} decisions")
    part_done()
    rng = np.random.default_rng(seed)
    before = _known(store, loop.name)
    metric = _metric(store, loop.name, people)
    order = rank_by_ratio(pairs) if metric is None else rank_by_metric(pairs, metric)
    large = max(loop.fairness.sensitivity, _SMALLEST_GAP)
    top = _best(order, pairs, people, before, wanted=mined, larger_than=large)
    chosen: list[tuple[Stream, Pair]] = []
    for rank, position in enumerate(top, 1):
        chosen.append(("mined", _pair(people, pairs, action, position, name, loop, rng, rank=rank)))
    chosen += _probe(people, pairs, action, name, loop, rng, budget=probe, gap_over=large)
    found = judge_types(store, loop.name, seed=seed)
    asked = before | {frozenset((pair.favoured, pair.disfavoured)) for _, pair in chosen}
    order = telling(found, people, pairs, larger_than=large)
    for position in _best(order, pairs, people, asked, wanted=types, larger_than=large):
        chosen.append(("types", _pair(people, pairs, action, position, name, loop, rng)))
    answered, appealed = _appealed(appeals, people, pairs, action, name, loop, rng)
    chosen += appealed + _gold(store, loop.name, rng, gold)
    window_id = f"w{secrets.token_hex(6)}"
    made = open_tasks(
        store,
        loop.name,
        rule_of(loop.fairness),
        [chosen[int(position)] for position in rng.permutation(len(chosen))],  # ids and times tell no stream
        window_id=window_id,
        now=now,
        by=by,
        details={"policy_version": name, "decisions": len(rows), "pairs": int(pairs.gap.size), "seed": seed},
    )
    seen = told(store, loop.name, found)
    with store.write(now, by) as writing:
        note(writing, loop.name, seen)
        for appeal_id, status in answered.items():
            changed = sa.update(t.appeals).where(t.appeals.c.appeal_id == appeal_id).values(status=status)
            writing.connection.execute(changed)
            writing.log("appeal_paired", appeal_id, {"outcome": status, "window": window_id})
    part_done()
    streams = [stream for stream, _ in chosen]
    return Mined(
        window_id=window_id,
        policy_version=name,
        decisions=len(rows),
        people=len(people),
        pairs=int(pairs.gap.size),
        ranking="ratio" if metric is None else "learned",
        mined=streams.count("mined"),
        probe=streams.count("probe"),
        types=streams.count("types"),
        gold=streams.count("gold"),
        appeals=streams.count("appeal"),
        tasks=made,
    )


def policy_of(registry: Registry, loop: LoopSettings, version: str | None) -> tuple[Policy | None, str]:
    """Return the policy whose probabilities are compared and its version; (None, "logged") where there is none.

    Without a version named it is the champion, and before there is one the latest that was trained: the gate will ask
    about it.
    """
    version = version or registry.aliases(loop.name).get("champion")
    if version is None:
        trained = registry.versions(loop.name)
        if not trained:
            return None, "logged"
        version = trained[-1].version
    from decision.artifact import unpack

    return unpack(registry.files(loop.name, version))[0], version


def _best(
    order: Ints,
    pairs: Pairs,
    people: People,
    before: set[frozenset[str]],
    *,
    wanted: int,
    larger_than: float,
) -> list[int]:
    stands: dict[int, int] = {}
    out: list[int] = []
    for position in order.tolist():
        if len(out) >= wanted:
            break
        members = int(pairs.favoured[position]), int(pairs.disfavoured[position])
        if pairs.gap[position] <= larger_than or any(stands.get(member, 0) >= PER_PERSON for member in members):
            continue
        if frozenset(people.event_ids[member] for member in members) in before:
            continue
        for member in members:
            stands[member] = stands.get(member, 0) + 1
        out.append(position)
    return out


def _probe(
    people: People,
    pairs: Pairs,
    action: Ints,
    name: str,
    loop: LoopSettings,
    rng: np.random.Generator,
    *,
    budget: int,
    gap_over: float,
) -> list[tuple[Stream, Pair]]:
    if not budget:
        return []
    distance = np.sqrt((pairs.difference**2).mean(1)) if pairs.difference.shape[1] else np.zeros(pairs.gap.size)
    # Pairs whose gap is too small to matter cannot violate; they are counted in the population, not judged.
    asked = np.flatnonzero(pairs.gap > gap_over)
    if not asked.size:
        return []
    drawn = sample(strata_of(distance[asked], pairs.gap[asked]), budget, rng)
    return [
        (
            "probe",
            _pair(
                people,
                pairs,
                action,
                int(asked[position]),
                name,
                loop,
                rng,
                stratum=int(stratum),
                inclusion=float(inclusion),
                population=int(pairs.gap.size),
            ),
        )
        for position, inclusion, stratum in zip(drawn.chosen, drawn.inclusion, drawn.stratum, strict=True)
    ]


def _appealed(
    appeals: list[dict[str, Any]],
    people: People,
    pairs: Pairs,
    action: Ints,
    name: str,
    loop: LoopSettings,
    rng: np.random.Generator,
) -> tuple[dict[str, str], list[tuple[Stream, Pair]]]:
    answered: dict[str, str] = {}
    made: list[tuple[Stream, Pair]] = []
    for row in appeals:
        disfavoured = [people.event_ids[int(position)] == row["event_id"] for position in pairs.disfavoured]
        found = np.flatnonzero(np.array(disfavoured) & (pairs.gap > _SMALLEST_GAP))
        answered[row["appeal_id"]] = "reviewed" if found.size else "unmatched"
        if found.size:
            distance = np.sqrt((pairs.difference[found] ** 2).mean(1))
            best = int(found[int(np.argmax(pairs.gap[found] / (distance + 0.1)))])
            made.append(("appeal", _pair(people, pairs, action, best, name, loop, rng)))
    return answered, made


def _gold(store: Governance, loop: str, rng: np.random.Generator, wanted: int) -> list[tuple[Stream, Pair]]:
    if not wanted:
        return []
    query = (
        sa.select(t.tasks, t.verdicts.c.unfair, t.verdicts.c.fair)
        .join(t.verdicts, t.verdicts.c.task_id == t.tasks.c.task_id)
        .where(t.tasks.c.loop == loop, t.tasks.c.stream != "gold", t.verdicts.c.by == "panel")
        .where(t.tasks.c.payload.is_not(None), t.tasks.c.status.in_(("upheld", "dismissed")))
        .where(sa.or_(t.verdicts.c.unfair == 0, t.verdicts.c.fair == 0))
        .order_by(t.tasks.c.task_id)
    )
    found = store.rows(query)
    made: list[tuple[Stream, Pair]] = []
    for position in rng.permutation(len(found))[:wanted]:
        row = found[int(position)]
        keys = ("favoured", "disfavoured", "action_id", "high", "low", "distance", "policy_version", "favoured_first")
        values = {key: row[key] for key in keys}
        expected = "unfair" if row["status"] == "upheld" else "fair"
        made.append(("gold", Pair(**values, payload=msgspec.json.decode(row["payload"]), expected=expected)))
    return made


def _pair(
    people: People,
    pairs: Pairs,
    action: Ints,
    position: int,
    name: str,
    loop: LoopSettings,
    rng: np.random.Generator,
    **more: Any,
) -> Pair:
    ahead, behind = int(pairs.favoured[position]), int(pairs.disfavoured[position])
    column = int(action[position])
    high, low = float(people.probability[ahead, column]), float(people.probability[behind, column])
    first = bool(rng.random() < 0.5)
    cards = (people.shown[ahead], people.shown[behind])
    shown, sides = (cards, (high, low)) if first else (cards[::-1], (low, high))
    difference = pairs.difference[position]
    return Pair(
        favoured=people.event_ids[ahead],
        disfavoured=people.event_ids[behind],
        action_id=people.actions[column],
        high=high,
        low=low,
        distance=float(np.sqrt((difference**2).mean())) if difference.size else 0.0,
        policy_version=name,
        payload=payload(shown[0], shown[1], sides, treatment=loop.fairness.treatment),
        favoured_first=first,
        **more,
    )


def _known(store: Governance, loop: str) -> set[frozenset[str]]:
    query = sa.select(t.tasks.c.favoured, t.tasks.c.disfavoured).where(t.tasks.c.loop == loop)
    return {frozenset((row["favoured"], row["disfavoured"])) for row in store.rows(query)}


def _metric(store: Governance, loop: str, people: People) -> Metric | None:
    """Return the ranking learned from the loop's judged pairs, None while there are too few or all went one way."""
    query = (
        sa.select(t.tasks, t.verdicts.c.unfair, t.verdicts.c.fair)
        .join(t.verdicts, t.verdicts.c.task_id == t.tasks.c.task_id)
        .where(t.tasks.c.loop == loop, t.verdicts.c.by == "panel", t.tasks.c.stream != "gold")
        .where(t.tasks.c.payload.is_not(None), t.verdicts.c.unfair + t.verdicts.c.fair > 0)
        .order_by(t.verdicts.c.verdict_id)
    )
    rows = store.rows(query)
    upheld: Floats = np.array([row["unfair"] / (row["unfair"] + row["fair"]) for row in rows])
    if len(rows) < LEARNED_FROM or not 0 < upheld.mean() < 1:
        return None
    cards: list[list[Shown]] = [[], []]
    for row in rows:
        for side, card in enumerate(msgspec.json.decode(row["payload"])["cards"]):
            cards[side].append({name: value for name, value in card["features"].items() if value is not None})
    scale = Scale.of(people.shown)
    difference = np.abs(scale.apply(cards[0]) - scale.apply(cards[1]))
    nobody = np.zeros(len(rows), dtype=np.int64)
    gap = np.array([row["gap"] for row in rows])
    return learn_metric(Pairs(nobody, nobody, gap, difference), upheld)
