"""The people of a window of decisions: what auditors may see of them, and how a policy would treat them.

Both members of a pair are scored by the same version, whatever version decided at the time, so that a gap is the
policy's and not the calendar's. Outcomes and drawn actions are never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Floats
from decision.fairness.blinding import Shown, visible
from decision.fairness.exposure import exposure
from decision.features import flatten
from decision.policy import features_version_of
from decision.protocols import Policy
from pipelines.interactions.arrays import to_batch
from pipelines.settings import FairnessSettings

MOST_ACTIONS = 64
"""Actions offered most often that are compared; the tail is offered too rarely to pair people on it."""


@dataclass(frozen=True, slots=True)
class People:
    """n people as a window shows them, those who look and are treated alike once.

    Attributes:
        event_ids: [n] their decisions.
        subjects: [n] who they are, for leaving out pairs of a person with themselves.
        shown: [n] what auditors may see.
        features: [n, d] the same as numbers, in standard deviations.
        actions: [A] the compared actions.
        probability: [n, A] probability or exposure of each action; NaN where it was not offered.
    """

    event_ids: list[str]
    subjects: list[str]
    shown: list[Shown]
    features: Floats
    actions: list[str]
    probability: Floats

    def __len__(self) -> int:
        return len(self.event_ids)


def shown_of(row: dict[str, Any], settings: FairnessSettings) -> Shown:
    """Return what auditors may see of the person of a decision row of the lake."""
    context: dict[str, Any] = msgspec.json.decode(row["context"])
    snapshot: dict[str, Any] = msgspec.json.decode(row["feature_snapshot"] or "{}")
    identifiers = [row["event_id"], row["subject_id"] or "", row["episode_id"] or ""]
    context.pop("slot", None)  # of the page, not of the person
    return visible(
        context | ({"known": snapshot} if snapshot else {}), protected=settings.protected, identifiers=identifiers
    )


def treatments(rows: pa.Table, policy: Policy | None, settings: FairnessSettings) -> dict[str, dict[str, float]]:
    """Return by event the probability (or exposure) of each action under `policy`; None for the logged one."""
    if policy is None:
        pmfs = [list(pmf or []) for pmf in rows["pmf"].to_pylist()]
    else:
        batch = to_batch(rows, version=features_version_of(policy))
        flat = policy.pmf(batch)
        pmfs = [flat[start:stop].tolist() for start, stop in zip(batch.offsets, batch.offsets[1:], strict=False)]
    slots: dict[str, list[tuple[int, dict[str, float]]]] = {}
    columns = (rows[name].to_pylist() for name in ("event_id", "offset", "action_ids"))
    for event_id, offset, ids, pmf in zip(*columns, pmfs, strict=True):
        if pmf:
            slots.setdefault(event_id, []).append((offset or 0, dict(zip(ids, pmf, strict=True))))
    out: dict[str, dict[str, float]] = {}
    for event_id, found in slots.items():
        ordered = [pmf for _, pmf in sorted(found, key=lambda entry: entry[0])]
        out[event_id] = exposure(ordered) if settings.unit == "exposure" else ordered[0]
    return out


def people_of(rows: pa.Table, policy: Policy | None, settings: FairnessSettings) -> People:
    """Return the people of the decisions `rows` as `policy` would treat them; None for the logged probabilities."""
    treated = treatments(rows, policy, settings)
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    shown: dict[str, Shown] = {}
    for row in rows.to_pylist():
        event_id = row["event_id"]
        if event_id not in treated or event_id in shown:
            continue
        shown[event_id] = shown_of(row, settings)
        alike = tuple(round(value, 6) for value in treated[event_id].values())
        # Of people who look and are treated the same, one stands for all: the latest.
        seen[(*shown[event_id].items(), *treated[event_id], alike)] = row
    kept = list(seen.values())
    names = [settings.action] if settings.action else _frequent([treated[row["event_id"]] for row in kept])
    probability = np.full((len(kept), len(names)), np.nan)
    for position, row in enumerate(kept):
        for column, name in enumerate(names):
            probability[position, column] = treated[row["event_id"]].get(name, np.nan)
    cards = [shown[row["event_id"]] for row in kept]
    return People(
        event_ids=[row["event_id"] for row in kept],
        subjects=[row["subject_id"] or row["event_id"] for row in kept],
        shown=cards,
        features=Scale.of(cards).apply(cards),
        actions=names,
        probability=probability,
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """How shown features become comparable numbers.

    Attributes:
        encoder: columns, one per number and per category.
        centre: [d] means.
        spread: [d] standard deviations.
    """

    encoder: Any
    centre: Floats
    spread: Floats

    @staticmethod
    def of(cards: list[Shown]) -> Scale:
        """Return the scale of `cards`; columns that do not vary are left out by their spread."""
        from sklearn.feature_extraction import DictVectorizer

        encoder = DictVectorizer(sparse=False)
        numbers = np.asarray(encoder.fit_transform([flatten(card, field="features") for card in cards] or [{}]))
        spread = numbers.std(0) if numbers.size else np.ones(numbers.shape[1])
        return Scale(encoder, numbers.mean(0), np.where(spread > 1e-9, spread, np.inf))

    def apply(self, cards: list[Shown]) -> Floats:
        """Return [n, d] numbers in standard deviations, at most 4 from the mean."""
        if not cards:
            return np.zeros((0, self.centre.size))
        numbers = np.asarray(self.encoder.transform([flatten(card, field="features") for card in cards]))
        return np.clip((numbers - self.centre) / self.spread, -4.0, 4.0)


def _frequent(treated: list[dict[str, float]]) -> list[str]:
    counts: dict[str, int] = {}
    for pmf in treated:
        for action in pmf:
            counts[action] = counts.get(action, 0) + 1
    return sorted(counts, key=lambda action: (-counts[action], action))[:MOST_ACTIONS]
