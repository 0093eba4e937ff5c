"""Ridge regression in closed form on context, action and, optionally, their products.

The state is X'X and X'y: resuming is adding, and the result does not depend on how the data were split (Hoerl and
Kennard 1970). Columns are fixed by the first fit; features that appear later are ignored until a cold start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from decision.batch import Batch, Features, Floats, Interactions, Ints, take_rows
from decision.errors import FieldError
from decision.options import SHIPPED, Positive, Range, Samples, Seed
from decision.oracles.encoder import columns_of, dense, entries, positions_of, rows_apart
from decision.oracles.kind import Kind, OracleSettings
from decision.ragged import sums_by_owner

MODEL_FILE = "linear.json"
NUMBERS_FILE = "linear.f64"
MAX_WEIGHTS = 4_096
_ROWS = 2_048
_DECISIONS = 512


class LinearSettings(Range, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the oracle.

    Attributes:
        interactions: add the products of context and action columns.
        ridge: prior precision.
        samples: draws from the posterior that `members` returns.
        seed: of those draws.
    """

    interactions: bool = SHIPPED.interactions
    ridge: Positive = SHIPPED.ridge
    samples: Samples = 100
    seed: Seed = 0


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    settings: LinearSettings
    fitted: bool
    context_columns: list[str]
    action_columns: list[str]


class LinearOracle:
    """Closed-form ridge; predictions are in reward units."""

    def __init__(self, settings: LinearSettings | None = None) -> None:
        self.settings = settings or LinearSettings()
        self._middle = (self.settings.low + self.settings.high) / 2.0
        self._set_columns([], [])
        self._fitted = False
        self._draws: Floats | None = None
        self._gram: Floats = np.zeros((0, 0))
        self._moment: Floats = np.zeros(0)
        self._weights: Floats = np.zeros(0)

    def fit(self, interactions: Interactions) -> None:
        """Add `interactions` to the sums and solve.

        Raises:
            FieldError: the products make more than 4,096 weights.
        """
        batch = interactions.batch
        chosen = take_rows(batch.actions, interactions.chosen)
        if not self._fitted:
            self._set_columns(columns_of(batch.contexts), columns_of(batch.actions))
            width = self._width()
            if width > MAX_WEIGHTS:
                raise FieldError("features", wanted=f"at most {MAX_WEIGHTS} weights with interactions", got=width)
            self._gram, self._moment, self._fitted = np.zeros((width, width)), np.zeros(width), True
        weights = interactions.weights
        for start in range(0, len(batch), _ROWS):
            stop = start + _ROWS
            x = self._rows(batch.contexts[start:stop], chosen[start:stop])
            weighted = x.T * weights[start:stop]
            self._gram += weighted @ x
            self._moment += weighted @ (interactions.reward[start:stop] - self._middle)
        prior = self.settings.ridge * np.eye(self._moment.size)
        self._draws = None
        self._weights = np.asarray(np.linalg.solve(self._gram + prior, self._moment), dtype=np.float64)

    def predict(self, batch: Batch) -> Floats:
        """Return [m] expected rewards, flat in the order offered; the middle of the range before any fit."""
        if len(batch) == 1:
            return self.prepare(batch.actions)(batch.contexts)[0]
        return self._predicted(batch, self._weights)

    def prepare(self, actions: Sequence[Features]) -> Callable[[Sequence[Features]], Floats]:
        """Return what gives [n, k] expected rewards of `actions` ([k]) in n contexts, bit for bit as `predict`."""
        k, middle, low, high = len(actions), self._middle, self.settings.low, self.settings.high
        if not self._fitted:
            return lambda contexts: np.full((len(contexts), k), middle)
        c, a = len(self._context_positions), len(self._action_positions)
        constant, shared, own, products = np.split(self._weights, (1, 1 + c, 1 + c + a))
        row, column, value = entries(actions, self._action_positions)
        crossed = products.reshape(c, a) if self.settings.interactions else None
        alone = np.bincount(row, weights=own[column] * value, minlength=k)
        positions, shift, scale = self._context_positions, [0.0] * c, [1.0] * c

        def scores(contexts: Sequence[Features]) -> Floats:
            x = rows_apart(contexts, positions, shift, scale)
            terms = alone
            if crossed is not None:
                per_action = own + (x @ crossed)[:, 0, :]
                terms = sums_by_owner(row, per_action[:, column] * value, k)
            return (middle + (constant + x @ shared + terms)).clip(low, high)

        return scores

    def members(self, batch: Batch) -> Floats:
        """Return [S, m] expected rewards under S fixed draws from the Gaussian posterior.

        The noise is taken to have the largest variance of a reward in the range, a quarter of its square.
        """
        if not self._fitted:
            return np.full((self.settings.samples, len(batch.actions)), self._middle)
        if self._draws is None:
            spread = 0.5 * (self.settings.high - self.settings.low)
            factor = np.linalg.cholesky(self._gram + self.settings.ridge * np.eye(self._moment.size))
            normal = np.random.default_rng([self.settings.seed, 1]).normal(
                size=(self._moment.size, self.settings.samples)
            )
            self._draws = (self._weights[:, None] + spread * np.linalg.solve(factor.T, normal)).T
        return np.stack([self._predicted(batch, draw) for draw in self._draws])

    def _predicted(self, batch: Batch, weights: Floats) -> Floats:
        if not self._fitted:
            return np.full(len(batch.actions), self._middle)
        parts = [np.zeros(0)]
        offsets = batch.offsets
        for start in range(0, len(batch), _DECISIONS):
            stop = min(start + _DECISIONS, len(batch))
            first, last = int(offsets[start]), int(offsets[stop])
            decisions = np.repeat(np.arange(stop - start), np.diff(offsets[start : stop + 1]))
            parts.append(self._scores(batch.contexts[start:stop], batch.actions[first:last], decisions, weights))
        return np.clip(self._middle + np.concatenate(parts), self.settings.low, self.settings.high)

    def save(self) -> dict[str, bytes]:
        """Return settings and columns as JSON; X'X, X'y and the weights as little-endian doubles."""
        stored = _Stored(self.settings, self._fitted, list(self._context_positions), list(self._action_positions))
        numbers = np.concatenate((self._gram.ravel(), self._moment, self._weights)).astype("<f8")
        return {MODEL_FILE: msgspec.json.encode(stored), NUMBERS_FILE: numbers.tobytes()}

    @classmethod
    def load(cls, files: dict[str, bytes]) -> LinearOracle:
        """Return the oracle that `save` described.

        Raises:
            FieldError: a file is missing or does not fit.
        """
        try:
            stored = msgspec.json.decode(files[MODEL_FILE], type=_Stored)
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(MODEL_FILE, wanted="a linear model", got=error) from error
        oracle = cls(stored.settings)
        oracle._set_columns(stored.context_columns, stored.action_columns)
        width = oracle._width() if stored.fitted else 0
        data = files.get(NUMBERS_FILE, b"")
        if len(data) != 8 * width * (width + 2):
            raise FieldError(NUMBERS_FILE, wanted=f"{8 * width * (width + 2)} bytes", got=len(data))
        numbers = np.frombuffer(data, dtype="<f8").astype(np.float64)
        if not np.isfinite(numbers).all():
            raise FieldError(NUMBERS_FILE, wanted="finite numbers", got=numbers)
        oracle._fitted = stored.fitted
        oracle._gram = numbers[: width**2].reshape(width, width).copy()
        oracle._moment, oracle._weights = numbers[width**2 : width**2 + width], numbers[width**2 + width :]
        return oracle

    def _set_columns(self, context: Sequence[str], action: Sequence[str]) -> None:
        self._context_positions, self._action_positions = positions_of(context), positions_of(action)

    def _width(self) -> int:
        c, a = len(self._context_positions), len(self._action_positions)
        return 1 + c + a + (c * a if self.settings.interactions else 0)

    def _rows(self, contexts: Sequence[Features], actions: Sequence[Features]) -> Floats:
        """Return [r, w]: 1, context, action and their products, of one action per decision."""
        x, z = dense(contexts, self._context_positions), dense(actions, self._action_positions)
        parts = [np.ones((len(contexts), 1)), x, z]
        if self.settings.interactions:
            parts.append((x[:, :, None] * z[:, None, :]).reshape(len(contexts), -1))
        return np.concatenate(parts, axis=1)

    def _scores(
        self, contexts: Sequence[Features], actions: Sequence[Features], decisions: Ints, weights: Floats
    ) -> Floats:
        """Return [m] scores of `actions`, each offered in the decision of its number in `decisions` ([m])."""
        c, a = len(self._context_positions), len(self._action_positions)
        constant, shared, own, crossed = np.split(weights, (1, 1 + c, 1 + c + a))
        x = dense(contexts, self._context_positions)
        per_action = np.broadcast_to(own, (len(contexts), a))
        if self.settings.interactions:
            per_action = per_action + x @ crossed.reshape(c, a)
        row, column, value = entries(actions, self._action_positions)
        terms = per_action[decisions[row], column] * value
        return constant + (x @ shared)[decisions] + np.bincount(row, weights=terms, minlength=len(actions))


def _new(s: OracleSettings) -> LinearOracle:
    return LinearOracle(LinearSettings(interactions=s.interactions, ridge=s.ridge, low=s.low, high=s.high))


ORACLE = Kind(_new, LinearOracle.load)
