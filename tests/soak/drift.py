"""How often quiet nights raise an alarm of drift: clicks, rare clicks, revenue; each night under another policy.

``make soak NAME=drift``, with ``ARGS="--nights N --error E"`` for others. Every night has a training sample of its own,
so that nights are independent. ``--tests`` counts every change that the tests alone would call, however small.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import msgspec
import numpy as np

from decision.drift import compare
from decision.drift.profile import profile_of
from tests.worlds.drifting import night

WORLDS: dict[str, dict[str, Any]] = {
    "clicks": {},
    "rare clicks": {"rates": (0.006, 0.005, 0.004)},
    "revenue": {"rates": (0.1, 0.1, 0.1), "sigma": 1.5},
    "little exploration": {"floor": 0.05},
    "many features": {"noise": 60},
}
BEFORE, NIGHT = 4_000, 1_500


def false_alarms(
    world: str, *, nights: int, error: float, size: float = 1.0, thresholds: bool = True
) -> dict[str, int]:
    """Return how many of `nights` called a feature or the offers moved, and how many a reward.

    Args:
        world: one of `WORLDS`.
        nights: how many.
        error: of features, and of rewards.
        size: multiplies the rows.
        thresholds: a change must be large, too, and outside what the training data had.
    """
    moved = changed = 0
    for seed in range(nights):
        rng = np.random.default_rng([seed, len(world)])
        rows = (round(BEFORE * size), round(NIGHT * size))
        before = night(rng, rows[0], **{"blocks": 8 if thresholds else 1, **WORLDS[world]})
        found = compare.drift(profile_of(before), night(rng, rows[1], **{"favourite": 1, **WORLDS[world]}), error=error)
        entries = [*found.features, *([found.offers] if found.offers else [])]
        moved += any(entry.alarmed if thresholds else entry.p <= error for entry in entries)
        changed += any(entry.alarmed if thresholds else entry.p <= error * _part(entry.of) for entry in found.rewards)
    return {"features": moved, "rewards": changed}


def _part(of: str) -> float:
    return 0.5 if not of else 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=200)
    parser.add_argument("--error", type=float, default=0.001)
    parser.add_argument("--tests", action="store_true")
    asked = parser.parse_args()
    table: dict[str, dict[str, int]] = {}
    for world in WORLDS:
        table[world] = false_alarms(world, nights=asked.nights, error=asked.error, thresholds=not asked.tests)
        print(f"{world:<20} {table[world]}", flush=True)
    print(
        json.dumps(
            {"name": "drift", "nights": asked.nights, "error": asked.error, "alarms": msgspec.to_builtins(table)}
        )
    )


if __name__ == "__main__":
    main()
