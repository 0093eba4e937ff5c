"""Logistic regression on context, action, their products and the pairs of an action's own features.

    logit E[y | x, a] = b0 + u'x + v'a + x'Wa + sum_{i<j} P_ij a_i a_j

with the reward y scaled to [0, 1] by the loop's range; a reward between the ends counts as that share of a success
(Papke and Wooldridge 1996). Every fit minimises the log-loss under a Gaussian prior, to convergence, so the result does
not depend on the order of the rows. The state is that prior's mean and precision, one of each per weight: a resumed
fit starts from the last one's posterior in Laplace's diagonal form (Chapelle and Li 2011, Algorithm 3), and features
that appear later, a new action's among them, get weights of their own under the first prior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from scipy import optimize, sparse

from decision.batch import Batch, Features, Floats, Interactions, Ints
from decision.errors import FieldError, Words
from decision.options import SHIPPED, Positive, Range, Samples, Seed
from decision.oracles.kind import Kind, OracleSettings
from decision.oracles.products import ColumnSet, Entries, entries_of
from decision.ragged import ragged_offsets, ragged_rows

MODEL_FILE = "logistic.json"
NUMBERS_FILE = "logistic.f64"
MAX_WEIGHTS = 200_000
MAX_PAIRS = 4_096
_DECISIONS = 512
_LOOSE = 1e-3  # the constant's prior precision, as a share of the others'
_GRADIENT = 1e-7  # of the mean loss, at which the fit has converged
_STEPS = 2_000


class LogisticSettings(Range, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the oracle.

    Attributes:
        interactions: learn a weight for each pair of context and action column, and of an action's own columns.
        ridge: precision of the prior of every weight.
        samples: draws from the posterior that `members` returns.
        seed: of those draws.
    """

    interactions: bool = SHIPPED.interactions
    ridge: Positive = SHIPPED.ridge
    samples: Samples = 100
    seed: Seed = 0


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    settings: LogisticSettings
    fitted: bool
    context: ColumnSet
    action: ColumnSet
    pairs: list[tuple[int, int]]


class LogisticOracle:
    """Penalised logistic regression; predictions are in reward units."""

    def __init__(self, settings: LogisticSettings | None = None) -> None:
        self.settings = settings or LogisticSettings()
        self._fitted = False
        self._draws: Floats | None = None
        self._set_layout(ColumnSet(), ColumnSet(), [])
        self._mean: Floats = np.zeros(1)
        self._precision: Floats = np.full(1, _LOOSE * self.settings.ridge)

    def fit(self, interactions: Interactions) -> None:
        """Learn from `interactions`; called again, from the posterior of the last fit.

        Raises:
            FieldError: the columns make more than 200,000 weights.
            ArithmeticError: the fit did not converge.
        """
        batch = interactions.batch
        chosen = [batch.actions[int(j)] for j in interactions.chosen]
        kept = interactions.weights > 0
        rows = np.flatnonzero(kept)
        contexts = [batch.contexts[int(i)] for i in rows]
        chosen = [chosen[int(i)] for i in rows]
        self._extend(contexts, chosen)
        self._draws = None
        self._fitted = True
        if not rows.size:
            return
        scaled = (interactions.reward[rows] - self.settings.low) / (self.settings.high - self.settings.low)
        weight, target = interactions.weights[rows], np.clip(scaled, 0.0, 1.0)
        design = self._design(contexts, chosen)
        self._mean = _minimise(design, target, weight, self._mean, self._precision)
        p = _sigmoid(design @ self._mean)
        curvature = design.multiply(design).T @ (weight * p * (1.0 - p))
        self._precision = self._precision + np.asarray(curvature, dtype=np.float64)

    def predict(self, batch: Batch) -> Floats:
        """Return [m] expected rewards, flat in the order offered; the middle of the range before any fit."""
        if len(batch) == 1:
            return self.prepare(batch.actions)(batch.contexts[0])
        return self._reward(_sigmoid(self._logits(batch, self._mean[None, :])[0]))

    def prepare(self, actions: Sequence[Features]) -> Callable[[Features], Floats]:
        """Return what gives [k] expected rewards of `actions` ([k]) in one context, bit for bit as `predict`."""
        k, c, interactions = len(actions), len(self._context), self.settings.interactions
        block = _Block.of(self._mean[None, :], c, len(self._action), interactions)
        constant, shared, own, crossed = block.constant[0], block.shared[0], block.own[0], block.crossed[0]
        y = entries_of(actions, self._action_positions, *self._action_scales)
        row, column, value = y.row, y.column, y.value
        pair_row, pair, pair_value = self._pair_entries(y)
        pairs = np.bincount(pair_row, weights=block.pairs[0][pair] * pair_value, minlength=k) if pair.size else None
        alone = None if interactions else np.bincount(row, weights=own[column] * value, minlength=k)
        position = self._context_positions.get
        shift, scale = (numbers.tolist() for numbers in self._scales)
        low, span = self.settings.low, self.settings.high - self.settings.low

        def score(context: Features) -> Floats:
            row_of = [0.0] * c
            for name, number in context.items():
                at = position(name)
                if at is not None:
                    row_of[at] = (number - shift[at]) / scale[at]
            dense = np.array((row_of,))
            logit = constant + dense @ shared
            if alone is None:
                per_action = own + (dense @ crossed)[0]
                logit = logit + np.bincount(row, weights=per_action[column] * value, minlength=k)
            else:
                logit = logit + alone
            if pairs is not None:
                logit += pairs
            # minimum and maximum rather than clip: a third of the time for ten numbers
            return low + span * (1.0 / (1.0 + np.exp(-np.minimum(np.maximum(logit, -500.0), 500.0))))

        return score

    def members(self, batch: Batch) -> Floats:
        """Return [S, m] expected rewards under S fixed draws from the diagonal Laplace posterior.

        The draws belong to the model and the settings' seed, so whatever is made of them is the same when asked again.
        """
        if self._draws is None:
            normal = np.random.default_rng([self.settings.seed, 1]).normal(
                size=(self.settings.samples, self._mean.size)
            )
            self._draws = self._mean + normal / np.sqrt(self._precision)
        return self._reward(_sigmoid(self._logits(batch, self._draws)))

    def save(self) -> dict[str, bytes]:
        """Return settings and columns as JSON; the weights and their precisions as little-endian doubles."""
        stored = _Stored(self.settings, self._fitted, self._context, self._action, self._pairs)
        numbers = np.concatenate((self._mean, self._precision)).astype("<f8")
        return {MODEL_FILE: msgspec.json.encode(stored), NUMBERS_FILE: numbers.tobytes()}

    @classmethod
    def load(cls, files: dict[str, bytes]) -> LogisticOracle:
        """Return the oracle that `save` described.

        Raises:
            FieldError: a file is missing or does not fit.
        """
        try:
            stored = msgspec.json.decode(files[MODEL_FILE], type=_Stored)
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(MODEL_FILE, wanted="a logistic model", got=error) from error
        oracle = cls(stored.settings)
        a = len(stored.action)
        if len(stored.pairs) > MAX_PAIRS or any(not 0 <= i < j < a for i, j in stored.pairs):
            raise FieldError(MODEL_FILE, wanted="pairs of action columns", got=stored.pairs)
        oracle._set_layout(stored.context, stored.action, stored.pairs)
        data = files.get(NUMBERS_FILE, b"")
        width = oracle._width()
        if len(data) != 16 * width:
            raise FieldError(NUMBERS_FILE, wanted=f"{16 * width} bytes", got=len(data))
        mean, precision = np.split(np.frombuffer(data, dtype="<f8").astype(np.float64), 2)
        if not np.isfinite(mean).all() or not (precision > 0).all() or not np.isfinite(precision).all():
            raise FieldError(NUMBERS_FILE, wanted="finite weights and positive precisions", got=Words("not"))
        oracle._mean, oracle._precision, oracle._fitted = mean, precision, stored.fitted
        return oracle

    def _reward(self, share: Floats) -> Floats:
        return self.settings.low + (self.settings.high - self.settings.low) * share

    def _set_layout(self, context: ColumnSet, action: ColumnSet, pairs: list[tuple[int, int]]) -> None:
        self._context, self._action, self._pairs = context, action, pairs
        self._context_positions, self._action_positions = context.positions(), action.positions()
        self._pair_codes = np.array([i * len(action) + j for i, j in pairs], dtype=np.int64)
        self._pair_order = np.argsort(self._pair_codes, kind="stable")
        self._scales = tuple(np.array(v, dtype=np.float64) for v in (context.shift, context.scale))
        self._action_scales = tuple(np.array(v, dtype=np.float64) for v in (action.shift, action.scale))

    def _width(self) -> int:
        c, a = len(self._context), len(self._action)
        width = 1 + c + a + (c * a if self.settings.interactions else 0) + len(self._pairs)
        if width > MAX_WEIGHTS:
            raise FieldError("features", wanted=f"at most {MAX_WEIGHTS} weights with interactions", got=width)
        return width

    def _extend(self, contexts: Sequence[Features], chosen: Sequence[Features]) -> None:
        """Append the columns that only these rows have; old weights move to their new places."""
        old = _blocks(self._mean, self._precision, len(self._context), len(self._action), self.settings.interactions)
        c, a, pairs = len(self._context), len(self._action), len(self._pairs)
        self._set_layout(self._context.extended(contexts), self._action.extended(chosen), self._pairs)
        if self.settings.interactions:
            self._set_layout(self._context, self._action, self._pairs + self._new_pairs(chosen))
        width, prior = self._width(), self.settings.ridge
        mean, precision = np.zeros(width), np.full(width, prior)
        new = _blocks(mean, precision, len(self._context), len(self._action), self.settings.interactions)
        for was, now in zip(old, new, strict=True):
            now.constant[:], now.shared[:, :c], now.own[:, :a] = was.constant, was.shared, was.own
            now.crossed[:, :c, :a], now.pairs[:, :pairs] = was.crossed, was.pairs
        self._mean, self._precision = mean, precision

    def _new_pairs(self, chosen: Sequence[Features]) -> list[tuple[int, int]]:
        entries = entries_of(chosen, self._action_positions, *self._action_scales)
        first, second = _outer(entries, entries)
        i, j = entries.column[first], entries.column[second]
        codes, counts = np.unique((i * len(self._action) + j)[i < j], return_counts=True)
        codes = codes[np.lexsort((codes, -counts))]
        codes = codes[~np.isin(codes, self._pair_codes)][: MAX_PAIRS - len(self._pairs)]
        return [(int(code) // len(self._action), int(code) % len(self._action)) for code in codes]

    def _design(self, contexts: Sequence[Features], chosen: Sequence[Features]) -> Any:
        """Return the [r, width] sparse matrix whose product with the weights is the logit."""
        x = entries_of(contexts, self._context_positions, *self._scales)
        y = entries_of(chosen, self._action_positions, *self._action_scales)
        c, a, r = len(self._context), len(self._action), len(contexts)
        rows = [np.arange(r, dtype=np.int64), x.row, y.row]
        columns = [np.zeros(r, np.int64), 1 + x.column, 1 + c + y.column]
        values = [np.ones(r), x.value, y.value]
        if self.settings.interactions:
            of_y, of_x = _outer(y, x)
            rows.append(y.row[of_y])
            columns.append(1 + c + a + x.column[of_x] * a + y.column[of_y])
            values.append(y.value[of_y] * x.value[of_x])
            row, pair, value = self._pair_entries(y)
            rows.append(row)
            columns.append(1 + c + a + c * a + pair)
            values.append(value)
        flat = (np.concatenate(rows), np.concatenate(columns))
        return sparse.csr_matrix((np.concatenate(values), flat), shape=(r, self._width()))

    def _pair_entries(self, y: Entries) -> tuple[Ints, Ints, Floats]:
        """Return row, pair and value of every known pair of an action's own columns."""
        if not self._pairs:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        first, second = _outer(y, y)
        i, j = y.column[first], y.column[second]
        code = i * len(self._action) + j
        ordered = self._pair_codes[self._pair_order]
        place = np.minimum(np.searchsorted(ordered, code), ordered.size - 1)
        known = (i < j) & (ordered[place] == code)
        return y.row[first][known], self._pair_order[place[known]], (y.value[first] * y.value[second])[known]

    def _logits(self, batch: Batch, weights: Floats) -> Floats:
        """Return [s, m] logits under [s, width] weights."""
        offsets = batch.offsets
        parts = [np.zeros((len(weights), 0))]
        for start in range(0, len(batch), _DECISIONS):
            stop = min(start + _DECISIONS, len(batch))
            first, last = int(offsets[start]), int(offsets[stop])
            decisions = np.repeat(np.arange(stop - start), np.diff(offsets[start : stop + 1]))
            parts.append(self._some(batch.contexts[start:stop], batch.actions[first:last], decisions, weights))
        return np.concatenate(parts, axis=1)

    def _some(
        self, contexts: Sequence[Features], actions: Sequence[Features], decisions: Ints, weights: Floats
    ) -> Floats:
        c, a = len(self._context), len(self._action)
        block = _Block.of(weights, c, a, self.settings.interactions)
        x = entries_of(contexts, self._context_positions, *self._scales)
        dense = np.zeros((len(contexts), c))
        dense[x.row, x.column] = x.value
        y = entries_of(actions, self._action_positions, *self._action_scales)
        row = y.row
        pair_row, pair, pair_value = self._pair_entries(y)
        out = np.empty((len(weights), len(actions)))
        for s in range(len(weights)):
            per_action = (
                block.own[s] + dense @ block.crossed[s] if self.settings.interactions else block.own[s][None, :]
            )
            of = decisions[row] if self.settings.interactions else 0
            terms = per_action[of, y.column] * y.value
            out[s] = block.constant[s] + (dense @ block.shared[s])[decisions]
            out[s] += np.bincount(row, weights=terms, minlength=len(actions))
            if pair.size:
                out[s] += np.bincount(pair_row, weights=block.pairs[s][pair] * pair_value, minlength=len(actions))
        return out


class _Block:
    """Views of [s, width] weights by their parts."""

    def __init__(self, constant: Floats, shared: Floats, own: Floats, crossed: Floats, pairs: Floats) -> None:
        self.constant, self.shared, self.own, self.crossed, self.pairs = constant, shared, own, crossed, pairs

    @classmethod
    def of(cls, weights: Floats, c: int, a: int, interactions: bool) -> _Block:
        products = c * a if interactions else 0
        constant, shared, own, crossed, pairs = np.split(weights, np.cumsum((1, c, a, products)), axis=1)
        return cls(
            constant[:, 0], shared, own, crossed.reshape(len(weights), *((c, a) if interactions else (0, 0))), pairs
        )


def _blocks(mean: Floats, precision: Floats, c: int, a: int, interactions: bool) -> tuple[_Block, _Block]:
    return _Block.of(mean[None, :], c, a, interactions), _Block.of(precision[None, :], c, a, interactions)


def _outer(one: Entries, other: Entries) -> tuple[Ints, Ints]:
    """Return the entries of `one` and of `other` that share a row, every pair of them."""
    row = one.row
    lengths = np.diff(other.offsets)[row]
    offsets = ragged_offsets(lengths)
    return np.repeat(np.arange(row.size, dtype=np.int64), lengths), ragged_rows(other.offsets[row], offsets)


def _sigmoid(logit: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -500.0, 500.0)))


def _minimise(design: Any, target: Floats, weight: Floats, mean: Floats, precision: Floats) -> Floats:
    """Return the weights of least weighted log-loss plus the prior's penalty, per unit of weight."""
    total = float(weight.sum())
    transposed = design.T.tocsr()

    def loss(beta: Floats) -> tuple[float, Floats]:
        logit = design @ beta
        off = beta - mean
        value = weight @ (np.logaddexp(0.0, logit) - target * logit) + 0.5 * (precision * off) @ off
        slope = transposed @ (weight * (_sigmoid(logit) - target)) + precision * off
        return float(value) / total, slope / total

    options = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "maxcor": 20, "ftol": 0.0, "gtol": _GRADIENT}
    found: Any = optimize.minimize(loss, mean, jac=True, method="L-BFGS-B", options=options)
    if float(np.abs(found.jac).max()) > 100.0 * _GRADIENT:
        raise ArithmeticError(f"logistic regression did not converge: {found.message}")
    return np.asarray(found.x, dtype=np.float64)


def _new(s: OracleSettings) -> LogisticOracle:
    return LogisticOracle(
        LogisticSettings(interactions=s.interactions, ridge=s.ridge, low=s.low, high=s.high, seed=s.seed)
    )


ORACLE = Kind(_new, LogisticOracle.load)
