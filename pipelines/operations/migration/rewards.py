"""What a line says of rewards, beside what the loop would make of the same outcomes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from decision.options import LARGEST_REWARD, LEAST_REWARD
from decision.reward import AGGREGATIONS, aggregate
from pipelines.formats.dsjson.line import DsjsonLine
from pipelines.operations.migration.findings import Tally
from pipelines.settings.loop import RewardSettings

_NEAR = 1e-6
_TIMES = ("EnqueuedTimeUtc", "Timestamp")


class Rewards:
    """Compares the rewards of a log with a loop's definition.

    Args:
        settings: the definition.
        tally: counts.

    Attributes:
        timed: outcomes whose time the log has.
        reported: outcomes that the log has.
    """

    def __init__(self, settings: RewardSettings, tally: Tally) -> None:
        self._settings, self._tally = settings, tally
        self._fit = set(AGGREGATIONS)
        self.timed = self.reported = 0

    def check(self, line: DsjsonLine, place: str) -> None:
        """Count what a line's rewards come to otherwise here."""
        for cost, outcomes in _labels(line):
            values = [value for value in (_number(entry.get("v")) for entry in outcomes) if value is not None]
            self.reported += len(values)
            reward = None if cost is None else -cost + 0.0
            unsaid = not values and reward is not None and (line.slots is not None or line.outcomes is None)
            self._check_values([reward] if unsaid and reward is not None else values, place)
            self._check_times(line.timestamp, outcomes, place)
            if line.skip_learn:
                if values:
                    self._tally.add("activated_by_reward", place, f"{len(values)} outcomes")
            elif reward is not None and not values:
                if abs(reward - self._settings.default) > _NEAR:
                    example = f"{reward:g}, and reward.default is {self._settings.default:g}"
                    self._tally.add("default_reward", place, example)
            elif reward is not None:
                self._check_aggregate(values, reward, place)

    def finish(self) -> list[str]:
        """Return what the log could not tell of rewards."""
        untold = list[str]()
        if not self.reported:
            self._tally.drop("default_reward")
            untold.append(
                "the default reward and the aggregation: no line has its outcomes (o), only what they came to"
            )
        if not self.timed:
            wait = f"the loop waits reward.window_s = {self._settings.window_s:g} seconds"
            untold.append(f"the reward wait time: outcomes have no times in this log; {wait}")
        for found in self._tally.findings():
            if found.kind == "aggregation":
                fits = " or ".join(sorted(self._fit))
                found.do = (
                    f"Set reward.aggregation to what makes every reward of this log: {fits}."
                    if self._fit
                    else "No aggregation makes every reward of this log: something else changed them there."
                )
        return untold

    def _check_values(self, values: list[float], place: str) -> None:
        if bad := [value for value in values if not LEAST_REWARD <= value <= LARGEST_REWARD]:
            self._tally.add("reward_range", place, f"{bad[0]:g}")
        low, high = self._settings.minimum, self._settings.maximum
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        if bad := [value for value in values if not low <= value <= high]:
            self._tally.add("reward_cut", place, f"{bad[0]:g}")

    def _check_times(self, decided: datetime | None, outcomes: list[dict[str, Any]], place: str) -> None:
        for entry in outcomes:
            at = next((time for name in _TIMES if (time := _time(entry.get(name))) is not None), None)
            if at is None or decided is None or (at.tzinfo is None) is not (decided.tzinfo is None):
                continue
            self.timed += 1
            waited = (at - decided).total_seconds()
            if waited > self._settings.window_s:
                example = f"after {waited:g} s, and reward.window_s is {self._settings.window_s:g}"
                self._tally.add("late_outcome", place, example)

    def _check_aggregate(self, values: list[float], reward: float, place: str) -> None:
        asked = self._settings.aggregation
        if len(values) == 1:
            makes = dict.fromkeys(AGGREGATIONS, values[0])
        else:
            array, order = np.array(values), np.arange(len(values))
            makes = {kind: aggregate(array, order, kind) for kind in AGGREGATIONS}  # pyright: ignore[reportArgumentType]
        self._fit &= {kind for kind, made in makes.items() if made is not None and abs(made - reward) <= _NEAR}
        mine = makes[asked]
        if mine is None or abs(mine - reward) > _NEAR:
            self._tally.add("aggregation", place, f"{reward:g} there, {asked} of {values[:5]} makes {mine:g}")


def _labels(line: DsjsonLine) -> Iterator[tuple[float | None, list[dict[str, Any]]]]:
    if line.slots is None:
        yield _number(line.label_cost), line.outcomes or []
        return
    for slot in line.slots:
        yield _number(slot.cost), slot.outcomes


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return None
