"""The types among a loop's auditors, from their judgements; which upheld pairs each type backs; what is told of them.

Who judges which type is nobody's business: what is told has numbers of judges and no identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from decision.batch import Floats, Ints
from decision.fairness.latent_types import (
    FEWEST_JUDGES,
    Judgements,
    Types,
    backed_by_each,
    backing,
    fit_types,
    unfair_probability,
    with_a_say,
)
from decision.validation import prepared
from pipelines.fairness import tables as t
from pipelines.fairness.judges.covariates import Cards, Covariates
from pipelines.fairness.people import list_people
from pipelines.fairness.standing import Standing, upheld
from pipelines.fairness.store import Governance, Writing

NOTED = "judge_types"
"""Kind of the audit log's entries that tell of types."""

MOST_JUDGEMENTS = 2_000
"""Latest judgements that are looked at."""

FEWEST_JUDGEMENTS = 30
"""Judgements below which nobody is told apart."""

SEED = 1
_WEIGHS = 5


@dataclass(frozen=True, slots=True)
class JudgeTypes:
    """Types among J auditors, from n judgements on p pairs.

    Attributes:
        types: the types.
        covariates: how pairs become what the types weigh.
        pairs: [p, d] the judged pairs.
        tasks: [p] their tasks.
        pair: [n] pair of each judgement.
        judge: [n] auditor of each, in [0, J).
        unfair: [n] 1 where it says unfair.
    """

    types: Types
    covariates: Covariates
    pairs: Floats
    tasks: tuple[str, ...]
    pair: Ints
    judge: Ints
    unfair: Floats


class TypeTold(msgspec.Struct, frozen=True, kw_only=True):
    """One type.

    Attributes:
        share: its share among judges, in (0, 1].
        judges: how many belong to it; fractions where it is not sure.
        unfair: share of the judged pairs that it holds to be unfair.
        weighs: what it weighs most, the largest weight first: how much a standard deviation of it adds to the log-odds
            of "unfair".
        asked: whether a clamp wants its backing.
    """

    share: float
    judges: float
    unfair: float
    weighs: list[tuple[str, float]]
    asked: bool = False


class TypesTold(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of the types among a loop's auditors.

    Attributes:
        judges: auditors whose judgements were looked at.
        judgements: judgements looked at.
        types: the types, the largest first; one where nothing tells kinds apart, none where too few judged.
        held_out: mean log-likelihood of a held-out judgement with 1, 2, ... types.
        gain_error: standard error of what each number of types gains over one.
        upheld: upheld pairs.
        backed: those of them that every type with a say backs.
    """

    judges: int
    judgements: int
    types: list[TypeTold]
    held_out: list[float]
    gain_error: list[float]
    upheld: int
    backed: int


class Noted(TypesTold, frozen=True, kw_only=True):
    """What the audit log told of the types last; `at` says when."""

    at: str


def judge_types(store: Governance, loop: str, *, seed: int = SEED) -> JudgeTypes | None:
    """Return the types among the loop's active auditors; None while there are too few judgements.

    Pairs with a known answer and pairs whose people were erased are left out, and who could not tell said nothing.

    Args:
        store: where the judgements are.
        loop: the loop.
        seed: of the folds and starts; the same judgements and seed give the same types.
    """
    rows = _said(store, loop)
    people = list(dict.fromkeys(sorted(row["person_id"] for row in rows)))
    if len(rows) < FEWEST_JUDGEMENTS or len(people) < 2 * FEWEST_JUDGES:
        return None
    shown = {row["task_id"]: row for row in rows}
    cards = [_cards(row["payload"]) for row in shown.values()]
    gaps = np.array([row["gap"] for row in shown.values()])
    covariates = Covariates.of(cards, gaps)
    pairs = covariates.apply(cards, gaps)
    places = {task: place for place, task in enumerate(shown)}
    pair = np.array([places[row["task_id"]] for row in rows], dtype=np.int64)
    judge = np.array([people.index(row["person_id"]) for row in rows], dtype=np.int64)
    unfair = np.array([row["verdict"] == "unfair" for row in rows], dtype=np.float64)
    types = fit_types(Judgements(judge, pairs[pair], unfair), rng=np.random.default_rng(seed))
    return JudgeTypes(types, covariates, pairs, tuple(shown), pair, judge, unfair)


def backed(found: JudgeTypes | None, standing: Sequence[Standing]) -> list[Standing]:
    """Return the pairs that each type with a say backs; all of them where fewer than two have one, or too few judged.

    A pair that is not among the judgements looked at, because it is older or its people were erased, is kept.
    """
    if found is None:
        return list(standing)
    asked = with_a_say(found.types, found.pairs)
    each = backed_by_each(backing(found.types, found.pairs, found.pair, found.judge, found.unfair)[:, asked])
    refused = {task for task, holds in zip(found.tasks, each, strict=True) if not holds}
    return [pair for pair in standing if pair.task_id not in refused]


def told(store: Governance, loop: str, found: JudgeTypes | None) -> TypesTold:
    """Return what is told of the types `found` among the loop's auditors."""
    standing = upheld(store, loop)
    if found is None:
        rows = _said(store, loop)
        judges = len({row["person_id"] for row in rows})
        return TypesTold(
            judges=judges,
            judgements=len(rows),
            types=[],
            held_out=[],
            gain_error=[],
            upheld=len(standing),
            backed=len(standing),
        )
    types = found.types
    calls = (unfair_probability(types, found.pairs) > 0.5).mean(0)
    asked = with_a_say(types, found.pairs)
    return TypesTold(
        judges=types.belonging.shape[0],
        judgements=found.unfair.size,
        types=[
            TypeTold(
                share=float(types.share[number]),
                judges=float(types.belonging[:, number].sum()),
                unfair=float(calls[number]),
                weighs=_weighs(found.covariates.names, types.weights[number]),
                asked=bool(asked[number]),
            )
            for number in range(len(types))
        ],
        held_out=list(types.held_out),
        gain_error=list(types.gain_error),
        upheld=len(standing),
        backed=len(backed(found, standing)),
    )


def note(writing: Writing, loop: str, seen: TypesTold) -> None:
    """Write what is told of a loop's types to the audit log, where the dashboard reads it."""
    writing.log(NOTED, loop, msgspec.to_builtins(seen))


def noted(store: Governance, loop: str) -> Noted | None:
    """Return what the audit log told last of a loop's types; None where nobody looked yet."""
    query = sa.select(t.audit_log).where(t.audit_log.c.kind == NOTED, t.audit_log.c.subject == loop)
    rows = store.rows(query.order_by(t.audit_log.c.seq.desc()).limit(1))
    if not rows:
        return None
    return msgspec.convert({**msgspec.json.decode(rows[0]["body"]), "at": rows[0]["at"]}, prepared(Noted))


def _said(store: Governance, loop: str) -> list[dict[str, Any]]:
    """Return the latest judgements of active auditors on pairs that are still shown, the oldest first."""
    active = [person.person_id for person in list_people(store) if person.active]
    j = t.judgements.c
    query = (
        sa.select(j.task_id, j.person_id, j.verdict, t.tasks.c.gap, t.tasks.c.payload)
        .join(t.tasks, t.tasks.c.task_id == j.task_id)
        .where(t.tasks.c.loop == loop, t.tasks.c.stream != "gold", t.tasks.c.payload.is_not(None))
        .where(j.verdict != "cannot_tell", j.person_id.in_(active))
        .order_by(j.judged_at.desc(), j.task_id, j.person_id)
        .limit(MOST_JUDGEMENTS)
    )
    return store.rows(query)[::-1]


def _cards(payload: str) -> Cards:
    cards: list[dict[str, dict[str, Any]]] = msgspec.json.decode(payload)["cards"]
    first, second = ({name: value for name, value in card["features"].items() if value is not None} for card in cards)
    return first, second


def _weighs(names: Sequence[str], weights: Floats) -> list[tuple[str, float]]:
    order = np.argsort(-np.abs(weights[:-1]), kind="stable")[:_WEIGHS]
    return [(names[int(place)], round(float(weights[int(place)]), 3)) for place in order]
