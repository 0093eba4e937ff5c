"""What a version was trained on, kept with it: the nights after hold their decisions against it."""

from __future__ import annotations

from decision.drift import PROFILE_FILE
from decision.drift.profile import encoded, profile_of
from pipelines.interactions.observed import COLUMNS, LEAST_BLOCK, MOST_ROWS, observed_of
from pipelines.training.window import Window


def profiled(rows: Window) -> dict[str, bytes]:
    """Return the file with the profile of the rows that are learned from; none of too few rows."""
    observed = observed_of(rows.sampled(COLUMNS, MOST_ROWS))
    if observed is None or len(observed) < LEAST_BLOCK:
        return {}
    return {PROFILE_FILE: encoded(profile_of(observed))}
