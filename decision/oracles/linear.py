"""Ridge regression in closed form on context, action and, optionally, their products.

The state is X'X and X'y: resuming is adding, and the result does not depend on how the data were split (Hoerl and
Kennard 1970). Columns are fixed by the first fit, and with them the bounds and scales of their numbers; features that
appear later are ignored until a cold start. Numbers of ordinary size stay as they are: the penalty is on their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
import numpy as np
from scipy import linalg

from decision.batch import Batch, Features, Floats, Interactions, Ints, take_rows
from decision.errors import FieldError
from decision.options import SHIPPED, Positive, Range, Samples, Seed
from decision.oracles.action_ids import is_id
from decision.oracles.encoder import NOTHING_LEFT_OUT, LeftOut, room, rows_apart
from decision.oracles.identity import MAX_FEW, most_frequent_ids
from decision.oracles.kind import Kind, OracleSettings
from decision.oracles.products import ColumnSet, Scales, dense, entries_of
from decision.ragged import sums_by_owner

MODEL_FILE = "linear.json"
NUMBERS_FILE = "linear.f64"
MAX_WEIGHTS = 4_096
_ORDINARY = 20.0  # root mean square of a column's numbers up to which they are not divided by it
_ROUNDED = 1e-13  # eigenvalue of a matrix of ones on its diagonal that rounding makes
_WITH_IDS = 1_024  # weights up to which ids are added
_ID_ROWS = 10.0
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
    context_scales: list[list[float]] = []
    action_scales: list[list[float]] = []


_stored = msgspec.json.Decoder(_Stored).decode  # made at import, which one thread does


class LinearOracle:
    """Closed-form ridge; predictions are in reward units.

    Attributes:
        left_out: columns that the first fit had no room for: the rarest, where there would be more than 4,096 weights.
    """

    def __init__(self, settings: LinearSettings | None = None) -> None:
        self.settings = settings or LinearSettings()
        self._middle = (self.settings.low + self.settings.high) / 2.0
        self.left_out = NOTHING_LEFT_OUT
        self._set_columns(ColumnSet(), ColumnSet())
        self._fitted = False
        self._draws: Floats | None = None
        self._gram: Floats = np.zeros((0, 0))
        self._moment: Floats = np.zeros(0)
        self._weights: Floats = np.zeros(0)

    def fit(self, interactions: Interactions) -> None:
        """Add `interactions` to the sums and solve."""
        batch = interactions.batch
        chosen = take_rows(batch.actions, interactions.chosen)
        if not self._fitted:
            self._choose_columns(batch, chosen)
            width = self._width()
            self._gram, self._moment, self._fitted = np.zeros((width, width)), np.zeros(width), True
        weights = interactions.weights
        for start in range(0, len(batch), _ROWS):
            stop = start + _ROWS
            x = self._rows(batch.contexts[start:stop], chosen[start:stop])
            weighted = x.T * weights[start:stop]
            self._gram += weighted @ x
            self._moment += weighted @ (interactions.reward[start:stop] - self._middle)
        self._draws = None
        unit, factor = self._factor()
        self._weights = unit * _back(factor, _back(factor, unit * self._moment, transposed=False))

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
        found = entries_of(actions, self._action_positions, self._scales[1])
        row, column, value = found.row, found.column, found.value
        crossed = products.reshape(c, a) if self.settings.interactions else None
        alone = np.bincount(row, weights=own[column] * value, minlength=k)
        positions, scales = self._context_positions, self._scales[0]

        def scores(contexts: Sequence[Features]) -> Floats:
            x = rows_apart(contexts, positions, scales)
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
            unit, factor = self._factor()
            spread = 0.5 * (self.settings.high - self.settings.low)
            normal = np.random.default_rng([self.settings.seed, 1]).normal(
                size=(self._moment.size, self.settings.samples)
            )
            self._draws = (self._weights[:, None] + spread * unit[:, None] * _back(factor, normal)).T
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
        columns = list(self._context_positions), list(self._action_positions)
        scales = ([numbers.tolist() for numbers in each] for each in self._scales)
        stored = _Stored(self.settings, self._fitted, *columns, *scales)
        numbers = np.concatenate((self._gram.ravel(), self._moment, self._weights)).astype("<f8")
        return {MODEL_FILE: msgspec.json.encode(stored), NUMBERS_FILE: numbers.tobytes()}

    @classmethod
    def load(cls, files: dict[str, bytes]) -> LinearOracle:
        """Return the oracle that `save` described.

        Raises:
            FieldError: a file is missing or does not fit.
        """
        try:
            stored = _stored(files[MODEL_FILE])
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(MODEL_FILE, wanted="a linear model", got=error) from error
        oracle = cls(stored.settings)
        c, a = len(stored.context_columns), len(stored.action_columns)
        width = (1 + c + a + (c * a if stored.settings.interactions else 0)) if stored.fitted else 0
        data = files.get(NUMBERS_FILE, b"")
        if len(data) != 8 * width * (width + 2):
            raise FieldError(NUMBERS_FILE, wanted=f"{8 * width * (width + 2)} bytes", got=len(data))
        numbers = np.frombuffer(data, dtype="<f8").astype(np.float64)
        if not np.isfinite(numbers).all():
            raise FieldError(NUMBERS_FILE, wanted="finite numbers", got=numbers)
        oracle._fitted = stored.fitted
        oracle._set_columns(
            _columns(stored.context_columns, stored.context_scales),
            _columns(stored.action_columns, stored.action_scales),
        )
        oracle._gram = numbers[: width**2].reshape(width, width).copy()
        oracle._moment, oracle._weights = numbers[width**2 : width**2 + width], numbers[width**2 + width :]
        return oracle

    def _choose_columns(self, batch: Batch, chosen: Sequence[Features]) -> None:
        none = ColumnSet()
        contexts, actions = none.seen_in(batch.contexts), none.seen_in(batch.actions)
        most = contexts.names_seen, actions.names_seen
        if self.settings.interactions:
            most = room(*most, MAX_WEIGHTS)
        elif sum(most) >= MAX_WEIGHTS:
            most = room(*most, MAX_WEIGHTS // 2)
        context, rare = none.extended_by(contexts, most[0])
        action, rare_own = none.extended_by(actions, most[1])
        self.left_out = LeftOut(rare, rare_own)
        left = (_WITH_IDS // (1 + len(context)) if self.settings.interactions else _WITH_IDS) - 1 - len(action)
        ids = most_frequent_ids(chosen, min(left, MAX_FEW))
        self._set_columns(_ordinary(context), _ordinary(action).with_flags(ids))

    def _factor(self) -> tuple[Floats, Floats]:
        """Return [w] units and [w, w] lower triangle L, L L' being X'X and the prior in these units.

        What columns say twice, to the last digit, is told apart by a prior that rounding cannot swallow.
        """
        matrix = self._gram + self._prior()
        unit = 1.0 / np.sqrt(np.diag(matrix))
        matrix *= unit[:, None] * unit
        rounded = _ROUNDED * self._moment.size
        while True:
            with suppress(np.linalg.LinAlgError):
                factor = np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)
                if float(np.diag(factor).min()) ** 2 > rounded:
                    return unit, factor
            matrix[np.diag_indices_from(matrix)] += rounded
            rounded *= 10.0

    def _set_columns(self, context: ColumnSet, action: ColumnSet) -> None:
        self._context_positions, self._action_positions = context.positions(), action.positions()
        self._scales: tuple[Scales, Scales] = context.scales(), action.scales()

    def _width(self) -> int:
        c, a = len(self._context_positions), len(self._action_positions)
        return 1 + c + a + (c * a if self.settings.interactions else 0)

    def _prior(self) -> Floats:
        """Return [w, w] the prior's precision; that of ids is worth some rows."""
        ids = np.array([is_id(name) for name in self._action_positions], dtype=np.bool_)
        own = np.where(ids, max(self.settings.ridge, _ID_ROWS), self.settings.ridge)
        c = len(self._context_positions)
        crossed = np.tile(own, c if self.settings.interactions else 0)
        return np.diag(np.concatenate((np.full(1 + c, self.settings.ridge), own, crossed)))

    def _rows(self, contexts: Sequence[Features], actions: Sequence[Features]) -> Floats:
        """Return [r, w]: 1, context, action and their products, of one action per decision."""
        x, z = (
            dense(each, positions, scales)
            for each, positions, scales in zip(
                (contexts, actions), (self._context_positions, self._action_positions), self._scales, strict=True
            )
        )
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
        x = dense(contexts, self._context_positions, self._scales[0])
        per_action = np.broadcast_to(own, (len(contexts), a))
        if self.settings.interactions:
            per_action = per_action + x @ crossed.reshape(c, a)
        found = entries_of(actions, self._action_positions, self._scales[1])
        row = found.row
        terms = per_action[decisions[row], found.column] * found.value
        return constant + (x @ shared)[decisions] + np.bincount(row, weights=terms, minlength=len(actions))


def _back(factor: Floats, right: Floats, *, transposed: bool = True) -> Floats:
    """Return x with L' x = `right`, or L x, for the lower triangle L."""
    return np.asarray(linalg.solve_triangular(factor, right, lower=True, trans=int(transposed)), dtype=np.float64)


def _ordinary(columns: ColumnSet) -> ColumnSet:
    """Return the columns, numbers of ordinary size as they are."""
    plain = [not shift and scale <= _ORDINARY for shift, scale in zip(columns.shift, columns.scale, strict=True)]
    scale = [1.0 if known else number for known, number in zip(plain, columns.scale, strict=True)]
    return ColumnSet(columns.names, columns.shift, scale, columns.low, columns.high)


def _columns(names: list[str], scales: list[list[float]]) -> ColumnSet:
    """Return the columns of a file; those of one that was written before there were scales are read as they are."""
    if not scales:
        return ColumnSet(names, [0.0] * len(names), [1.0] * len(names))
    if len(scales) != len(Scales._fields):
        raise FieldError(MODEL_FILE, wanted="low, high, shift and scale of every column", got=len(scales))
    low, high, shift, scale = scales
    return ColumnSet(names, shift, scale, low, high)


def _new(s: OracleSettings) -> LinearOracle:
    return LinearOracle(LinearSettings(interactions=s.interactions, ridge=s.ridge, low=s.low, high=s.high))


ORACLE = Kind(_new, LinearOracle.load)
