"""The search for segments in a replay: what is kept of a log for it, and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decision.batch import Floats, take_rows
from decision.columns import FeatureRows, Texts, joined
from decision.drift.observed import Described
from decision.drift.segments import Found, find_segments
from decision.ope.estimators.registry import Mean, estimator_of
from decision.ope.rows import Rows
from pipelines.replay.rows import Loaded

MOST_ROWS = 100_000
"""Decisions that are searched and estimated on; of more, an even share by a hash of their ids."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Decisions for the search, in any order.

    Attributes:
        hashed: [n] hash of each one's id.
        terms: [n] terms of the lift.
        importance: [n] weights of the policy.
        counts: [n] how many decisions each one stands for.
        contexts: [n] features.
    """

    hashed: NDArray[np.uint64]
    terms: Floats
    importance: Floats
    counts: Floats
    contexts: FeatureRows


def kept_of(loaded: Loaded, rows: Rows, *, rows_of_log: int, model: bool) -> Kept:
    """Return what is kept of some rows of a log of so many.

    Args:
        loaded: the rows, with features.
        rows: the same with the policy's distribution and, where there is one, the reward model.
        rows_of_log: how many rows are looked at in all.
        model: there is a reward model.
    """
    share = min(1.0, MOST_ROWS / max(1, rows_of_log))
    some = np.flatnonzero((loaded.hashed >> np.uint64(40)).astype(np.float64) < share * 2.0**24)
    estimator = estimator_of("dr" if model else "ips")
    if not isinstance(estimator, Mean):
        raise TypeError("the lift is of an estimator that is a mean of terms")
    terms = estimator.terms(rows, rows.weight) - rows.reward
    counts = np.ones(len(terms)) if rows.counts is None else rows.counts
    contexts = FeatureRows.of(take_rows(loaded.interactions.batch.contexts, some))
    return Kept(loaded.hashed[some], terms[some], rows.weight[some], counts[some], contexts)


def found_in(parts: Sequence[Kept], *, level: float, counted: bool) -> Found:
    """Return the segments that stand out among what was kept of a log, in whatever order its parts came.

    Args:
        parts: one or more.
        level: coverage of the intervals, together.
        counted: some rows stand for several decisions.
    """
    hashed = np.concatenate([part.hashed for part in parts])
    order = np.argsort(hashed, kind="stable")
    contexts = joined([part.contexts for part in parts]).take(order).interned()
    name, value, offsets = contexts.entries()
    terms, importance, counts = (
        np.concatenate([getattr(part, of) for part in parts])[order] for of in ("terms", "importance", "counts")
    )
    every = np.arange(hashed.size, dtype=np.int64)
    decisions = Described(
        row=np.repeat(every, np.diff(offsets)),
        name=Texts(contexts.names, name.astype(np.int64)),
        value=value,
        weight=counts,
        block=every,
        subject=every,
    )
    half = (hashed[order] & np.uint64(1)).astype(np.int64)
    return find_segments(decisions, terms, importance, half, level=level, counted=counted)


def in_words(found: Found) -> str:
    """Return what was looked at and what came of it, in two sentences."""
    looked = (
        f"{found.singles:,} segments and {found.pairs:,} pairs of them were looked at on {found.searched:,} decisions; "
        f"the {found.chosen} that stood out the most were estimated on {found.estimated:,} others"
    )
    apart = sum(one.apart for one in found.segments)
    if not apart:
        return f"{looked}. In none of them the policy gains or loses otherwise than elsewhere, beyond chance."
    return f"{looked}. In {apart} of them the policy gains or loses otherwise than elsewhere."
