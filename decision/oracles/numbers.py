"""Numbers for a learner that scales by itself and knows no columns: cut to bounds, and divided where they are huge.

Vowpal Wabbit keeps each weight's largest number and divides by it (Ross, Mineiro and Langford 2013), so that one wild
number would leave nothing of the others; and squares of products, in singles, end at 1e38.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from decision.batch import Features, Floats
from decision.columns import FeatureRows
from decision.oracles.bounds import FLAG
from decision.oracles.products import ColumnSet, Scales, places_of

_LARGE = 1e6
_FLAG = (-FLAG, FLAG, 0.0, 1.0)


class Numbers:
    """How the numbers of a namespace are read.

    Attributes:
        columns: those that hold numbers other than 0 and 1.
    """

    def __init__(self, columns: ColumnSet) -> None:
        self.columns = columns
        known = columns.scales()
        large = np.maximum(np.abs(known.low), np.abs(known.high)) > _LARGE
        self._known = Scales(
            known.low, known.high, 0.0 * known.shift, np.where(large, known.scale + np.abs(known.shift), 1.0)
        )
        self._place = columns.positions()
        self._each = {name: tuple(float(numbers[at]) for numbers in self._known) for name, at in self._place.items()}

    def extended(self, rows: FeatureRows) -> Numbers:
        """Return the same with the numbers' columns that only `rows` have."""
        columns, _ = self.columns.extended_by(self.columns.seen_in(rows), numbers=True)
        return self if columns is self.columns else Numbers(columns)

    def scales(self, names: Sequence[str]) -> Scales:
        """Return how the numbers under `names` ([c]) are read; others were only ever 0 or 1, or are too rare."""
        place = places_of(names, self._place)
        flag = place < 0
        given = [np.full(place.size, number) for number in (-FLAG, FLAG, 0.0, 1.0)]
        for numbers, known in zip(given, self._known, strict=True):
            numbers[~flag] = known[place[~flag]]
        return Scales(*given)

    def of(self, features: Features, value: Floats) -> Floats:
        """Return the [c] values of `features` as they are read."""
        if not self._place:
            return np.minimum(np.maximum(value, -FLAG), FLAG)
        each = self._each.get
        low, high, shift, scale = np.array([each(name, _FLAG) for name in features]).T
        return (np.minimum(np.maximum(value, low), high) - shift) / scale
