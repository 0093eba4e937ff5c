"""Ridge regression in closed form on context, action and, optionally, their products.

The state is X'X and X'y: resuming is adding, and the result does not depend on how the data were split (Hoerl and
Kennard 1970). Columns are fixed by the first fit; features that appear later are ignored until a cold start.
"""

from __future__ import annotations

import msgspec
import numpy as np

from decision.batch import Batch, Floats, Interactions
from decision.errors import FieldError
from decision.oracles.encoder import columns_of, context_rows, dense

MODEL_FILE = "linear.json"
MAX_WEIGHTS = 4_096


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


class _Stored(msgspec.Struct):
    settings: LinearSettings
    context_columns: list[str]
    action_columns: list[str]
    gram: list[list[float]]
    moment: list[float]


class LinearOracle:
    """Closed-form ridge; predictions are in reward units."""

    def __init__(self, settings: LinearSettings | None = None) -> None:
        self.settings = settings or LinearSettings()
        if self.settings.ridge <= 0:
            raise FieldError("ridge", wanted="a number above 0", got=self.settings.ridge)
        self.context_columns: list[str] = []
        self.action_columns: list[str] = []
        self.gram: Floats | None = None
        self.moment: Floats = np.zeros(0)
        self._weights: Floats | None = None

    def fit(self, interactions: Interactions) -> None:
        """Add `interactions` to the sums and solve.

        Raises:
            FieldError: the products make more than 4,096 weights.
        """
        batch = interactions.batch
        chosen = [batch.actions[int(j)] for j in interactions.chosen]
        if self.gram is None:
            self.context_columns, self.action_columns = columns_of(batch.contexts), columns_of(batch.actions)
            width = self._width()
            if width > MAX_WEIGHTS:
                raise FieldError("features", wanted=f"at most {MAX_WEIGHTS} weights with interactions", got=width)
            self.gram, self.moment = np.zeros((width, width)), np.zeros(width)
        middle = (self.settings.low + self.settings.high) / 2.0
        for start in range(0, len(batch), 8192):
            stop = start + 8192
            x = self._rows(
                dense(batch.contexts[start:stop], self.context_columns),
                dense(chosen[start:stop], self.action_columns),
            )
            self.gram += x.T @ x
            self.moment += x.T @ (interactions.reward[start:stop] - middle)
        self._weights = None

    def predict(self, batch: Batch) -> Floats:
        """Return [m] expected rewards, flat in the order offered; the middle of the range before any fit."""
        middle = (self.settings.low + self.settings.high) / 2.0
        if self.gram is None:
            return np.full(len(batch.actions), middle)
        weights = self._weights
        if weights is None:
            ridge = self.settings.ridge * np.eye(self.moment.size)
            self._weights = weights = np.asarray(np.linalg.solve(self.gram + ridge, self.moment), dtype=np.float64)
        contexts = dense(batch.contexts, self.context_columns)
        x = self._rows(contexts[context_rows(batch)], dense(batch.actions, self.action_columns))
        return np.clip(middle + x @ weights, self.settings.low, self.settings.high)

    def save(self) -> dict[str, bytes]:
        """Return the columns and sums as JSON."""
        gram = np.zeros((0, 0)) if self.gram is None else self.gram
        stored = _Stored(self.settings, self.context_columns, self.action_columns, gram.tolist(), self.moment.tolist())
        return {MODEL_FILE: msgspec.json.encode(stored)}

    @classmethod
    def load(cls, files: dict[str, bytes]) -> LinearOracle:
        """Return the oracle that `save` described.

        Raises:
            FieldError: the file is missing or does not fit.
        """
        try:
            stored = msgspec.json.decode(files[MODEL_FILE], type=_Stored)
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(MODEL_FILE, wanted="a linear model", got=str(error)) from error
        oracle = cls(stored.settings)
        oracle.context_columns, oracle.action_columns = stored.context_columns, stored.action_columns
        width = oracle._width()
        gram, moment = np.array(stored.gram), np.array(stored.moment)
        if gram.size:
            if gram.shape != (width, width) or moment.shape != (width,):
                raise FieldError(MODEL_FILE, wanted=f"sums of {width} weights", got=gram.shape)
            oracle.gram, oracle.moment = gram, moment
        return oracle

    def _width(self) -> int:
        c, a = len(self.context_columns), len(self.action_columns)
        return 1 + c + a + (c * a if self.settings.interactions else 0)

    def _rows(self, contexts: Floats, actions: Floats) -> Floats:
        parts = [np.ones((contexts.shape[0], 1)), contexts, actions]
        if self.settings.interactions:
            parts.append((contexts[:, :, None] * actions[:, None, :]).reshape(contexts.shape[0], -1))
        return np.concatenate(parts, axis=1)
