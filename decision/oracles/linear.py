"""Ridge regression in closed form on context, action and, optionally, their products.

The state is X'X and X'y: resuming is adding, and the result does not depend on how the data were split (Hoerl and
Kennard 1970). Columns are fixed by the first fit; features that appear later are ignored until a cold start.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from decision.batch import Batch, Features, Floats, Interactions
from decision.errors import FieldError
from decision.oracles.encoder import columns_of, context_rows, dense, entries, positions_of

MODEL_FILE = "linear.json"
NUMBERS_FILE = "linear.f64"
MAX_WEIGHTS = 4_096
_ROWS = 2_048
_DECISIONS = 512


class LinearSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the oracle.

    Attributes:
        interactions: add the products of context and action columns.
        ridge: prior precision, > 0.
        low: smallest reward; predictions are clipped to the range.
        high: largest reward.
    """

    interactions: bool = True
    ridge: float = 1.0
    low: float = 0.0
    high: float = 1.0


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    settings: LinearSettings
    fitted: bool
    context_columns: list[str]
    action_columns: list[str]


class LinearOracle:
    """Closed-form ridge; predictions are in reward units."""

    def __init__(self, settings: LinearSettings | None = None) -> None:
        self.settings = settings or LinearSettings()
        if not self.settings.ridge > 0:
            raise FieldError("ridge", wanted="a number above 0", got=self.settings.ridge)
        if not self.settings.low < self.settings.high:
            raise FieldError("high", wanted=f"above low = {self.settings.low}", got=self.settings.high)
        self._middle = (self.settings.low + self.settings.high) / 2.0
        self._set_columns([], [])
        self._fitted = False
        self._gram: Floats = np.zeros((0, 0))
        self._moment: Floats = np.zeros(0)
        self._weights: Floats = np.zeros(0)

    def fit(self, interactions: Interactions) -> None:
        """Add `interactions` to the sums and solve.

        Raises:
            FieldError: the products make more than 4,096 weights.
        """
        batch = interactions.batch
        chosen = [batch.actions[int(j)] for j in interactions.chosen]
        if not self._fitted:
            self._set_columns(columns_of(batch.contexts), columns_of(batch.actions))
            width = self._width()
            if width > MAX_WEIGHTS:
                raise FieldError("features", wanted=f"at most {MAX_WEIGHTS} weights with interactions", got=width)
            self._gram, self._moment, self._fitted = np.zeros((width, width)), np.zeros(width), True
        for start in range(0, len(batch), _ROWS):
            stop = start + _ROWS
            x = self._rows(batch.contexts[start:stop], chosen[start:stop])
            self._gram += x.T @ x
            self._moment += x.T @ (interactions.reward[start:stop] - self._middle)
        prior = self.settings.ridge * np.eye(self._moment.size)
        self._weights = np.asarray(np.linalg.solve(self._gram + prior, self._moment), dtype=np.float64)

    def predict(self, batch: Batch) -> Floats:
        """Return [m] expected rewards, flat in the order offered; the middle of the range before any fit."""
        if not self._fitted:
            return np.full(len(batch.actions), self._middle)
        parts: list[Floats] = []
        for start in range(0, len(batch), _DECISIONS):
            stop = min(start + _DECISIONS, len(batch))
            offsets = batch.offsets[start : stop + 1]
            actions = batch.actions[int(offsets[0]) : int(offsets[-1])]
            parts.append(self._scores(Batch(batch.contexts[start:stop], actions, actions_ids(actions), offsets - offsets[0])))
        return np.clip(self._middle + np.concatenate(parts), self.settings.low, self.settings.high)
