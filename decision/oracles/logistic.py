"""Logistic regression on context, action, their products and the pairs of an action's own features.

    logit E[y | x, a] = b0 + u'x + v'a + x'Wa + sum_{i<j} P_ij a_i a_j + sum_i q_i [id(a) = i]

with the reward y scaled to [0, 1] by the loop's range; a reward between the ends counts as that share of a success
(Papke and Wooldridge 1996). Every fit minimises the log-loss under a Gaussian prior, to convergence, so the result does
not depend on the order of the rows. The state is that prior's mean and precision, one of each per weight: a resumed
fit starts from the last one's posterior in Laplace's diagonal form (Chapelle and Li 2011, Algorithm 3), and features
that appear later, a new action's among them, get weights of their own under the first prior.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np

from decision.batch import Batch, Features, Floats, Interactions, Ints
from decision.columns import FeatureRows
from decision.errors import FieldError, Words
from decision.options import SHIPPED, Positive, Range, Samples, Seed
from decision.oracles.action_ids import is_id
from decision.oracles.design import Block, PairEntries, Part, Sizes, outer
from decision.oracles.drawn import ROWS, Drawn, DrawnRows
from decision.oracles.encoder import NOTHING_LEFT_OUT, LeftOut, room, rows_apart
from decision.oracles.identity import CROSSED_PRECISION, MAX_ALONE, PRECISION, chosen_ids, ranked_ids
from decision.oracles.kind import Kind, OracleSettings
from decision.oracles.likelihood import DesignRows, least, sigmoid
from decision.oracles.products import MAX_COLUMNS, ColumnSet, Entries, Scales, entries_of, places_of
from decision.parts import Held, Parts
from decision.ragged import sums_by_owner

MODEL_FILE = "logistic.json"
NUMBERS_FILE = "logistic.f64"
MAX_WEIGHTS = 200_000
MAX_PAIRS = 4_096
_DECISIONS = 512
_LOOSE = 1e-3  # the constant's prior precision, as a share of the others'
_FACTORED = 2_048  # weights up to which their curvatures are factored
_FEW = 16  # rows for each weight that know the curvatures roughly
_MANY = 8  # times these, from where on they are asked first; one part is fitted before it would pay


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


class _Stored(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    settings: LogisticSettings
    fitted: bool
    context: ColumnSet
    action: ColumnSet
    pairs: list[tuple[int, int]]
    alone: list[str] = []


_stored = msgspec.json.Decoder(_Stored).decode  # made at import, which one thread does


class LogisticOracle:
    """Penalised logistic regression; predictions are in reward units.

    Attributes:
        left_out: columns that the last fit had no room for: the rarest, where there would be more than 200,000 weights.
    """

    def __init__(self, settings: LogisticSettings | None = None) -> None:
        self.settings = settings or LogisticSettings()
        self.left_out = NOTHING_LEFT_OUT
        self._fitted = False
        self._draws: Floats | None = None
        self._set_layout(ColumnSet(), ColumnSet(), [], [])
        self._mean: Floats = np.zeros(1)
        self._precision: Floats = np.full(1, _LOOSE * self.settings.ridge)

    def fit(self, interactions: Interactions) -> None:
        """Learn from `interactions`; called again, from the posterior of the last fit.

        Raises:
            ArithmeticError: the fit did not converge.
        """
        self.fit_chunks([interactions])

    def fit_chunks(
        self,
        chunks: Iterable[Interactions],
        *,
        place: Callable[[], Parts] = Held,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        """Learn from `chunks`, which are gone through once, as `fit` from all of them at once, bit for bit.

        Args:
            chunks: the rows.
            place: makes where they are kept meanwhile; memory does not grow with them where it is on disk.
            watch: told how often the rows have been gone over since, after each time.

        Raises:
            ArithmeticError: the fit did not converge.
        """
        rows = DrawnRows(chunks, place())
        self._extend(rows)
        self._draws, self._fitted = None, True
        if not rows.rows:
            return
        design = self._design(rows, place())
        few = _FEW * self._mean.size
        pilot: DesignRows | None = None
        ids = bool(self._ids.any()) or bool(self._alone)  # they lie along what their features say: a long narrow bowl
        if self._mean.size <= _FACTORED and rows.rows > (2 * few if ids else max(ROWS, _MANY * few)):
            pilot = self._design([rows.few(few)], place(), written=True)
        self._mean = least(design, self._mean, self._precision, pilot, watch, scaled=ids)
        self._precision = self._precision + design.curvature(self._mean)

    def predict(self, batch: Batch) -> Floats:
        """Return [m] expected rewards, flat in the order offered; the middle of the range before any fit."""
        if len(batch) == 1:
            return self.prepare(batch.actions)(batch.contexts)[0]
        return self._reward(sigmoid(self._logits(batch, self._mean[None, :])[0]))

    def prepare(self, actions: Sequence[Features]) -> Callable[[Sequence[Features]], Floats]:
        """Return what gives [n, k] expected rewards of `actions` ([k]) in n contexts, bit for bit as `predict`."""
        k, c, interactions = len(actions), len(self._context), self.settings.interactions
        block = Block.of(self._mean[None, :], c, len(self._action), interactions)
        constant, shared, own, crossed = block.constant[0], block.shared[0], block.own[0], block.crossed[0]
        y = entries_of(actions, self._action_positions, self._action_scales)
        row, column, value = y.row, y.column, y.value
        pair_row, pair, pair_value = self._own_entries(actions, y)
        if self._ids.any():  # of thousands of columns, those of these actions
            used, column = np.unique(column, return_inverse=True)
            own, crossed = own[used], np.ascontiguousarray(crossed[:, used])
        pairs = np.bincount(pair_row, weights=block.pairs[0][pair] * pair_value, minlength=k) if pair.size else None
        alone = None if interactions else np.bincount(row, weights=own[column] * value, minlength=k)
        positions, scales = self._context_positions, self._scales
        low, span = self.settings.low, self.settings.high - self.settings.low

        def scores(contexts: Sequence[Features]) -> Floats:
            x = rows_apart(contexts, positions, scales)
            logit = constant + x @ shared
            if alone is None:
                per_action = own + (x @ crossed)[:, 0, :]
                logit = logit + sums_by_owner(row, per_action[:, column] * value, k)
            else:
                logit = logit + alone
            if pairs is not None:
                logit += pairs
            # minimum and maximum rather than clip: a third of the time for ten numbers
            return low + span * (1.0 / (1.0 + np.exp(-np.minimum(np.maximum(logit, -500.0), 500.0))))

        return scores

    def members(self, batch: Batch) -> Floats:
        """Return [S, m] expected rewards under S fixed draws from the diagonal Laplace posterior.

        The draws belong to the model and the settings' seed, so whatever is made of them is the same when asked again.
        """
        if self._draws is None:
            normal = np.random.default_rng([self.settings.seed, 1]).normal(
                size=(self.settings.samples, self._mean.size)
            )
            self._draws = self._mean + normal / np.sqrt(self._precision)
        return self._reward(sigmoid(self._logits(batch, self._draws)))

    def save(self) -> dict[str, bytes]:
        """Return settings and columns as JSON; the weights and their precisions as little-endian doubles."""
        stored = _Stored(self.settings, self._fitted, self._context, self._action, self._pairs, [*self._alone])
        numbers = np.concatenate((self._mean, self._precision)).astype("<f8")
        return {MODEL_FILE: msgspec.json.encode(stored), NUMBERS_FILE: numbers.tobytes()}

    @classmethod
    def load(cls, files: dict[str, bytes]) -> LogisticOracle:
        """Return the oracle that `save` described.

        Raises:
            FieldError: a file is missing or does not fit.
        """
        try:
            stored = _stored(files[MODEL_FILE])
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(MODEL_FILE, wanted="a logistic model", got=error) from error
        oracle = cls(stored.settings)
        a = len(stored.action)
        if len(stored.pairs) > MAX_PAIRS or any(not 0 <= i < j < a for i, j in stored.pairs):
            raise FieldError(MODEL_FILE, wanted="pairs of action columns", got=stored.pairs)
        if len(stored.alone) > MAX_ALONE:
            raise FieldError(MODEL_FILE, wanted=f"at most {MAX_ALONE} ids that stand alone", got=len(stored.alone))
        oracle._set_layout(stored.context, stored.action, stored.pairs, stored.alone)
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

    def _set_layout(
        self, context: ColumnSet, action: ColumnSet, pairs: list[tuple[int, int]], alone: list[str]
    ) -> None:
        self._context, self._action, self._pairs = context, action, pairs
        self._alone = {name: number for number, name in enumerate(alone)}
        self._ids = np.array([is_id(name) for name in action.names], dtype=np.bool_)
        self._context_positions, self._action_positions = context.positions(), action.positions()
        self._pair_codes = np.array([i * len(action) + j for i, j in pairs], dtype=np.int64)
        self._pair_order = np.argsort(self._pair_codes, kind="stable")
        self._scales, self._action_scales = context.scales(), action.scales()

    def _width(self) -> int:
        c, a = len(self._context), len(self._action)
        width = 1 + c + a + (c * a if self.settings.interactions else 0) + len(self._pairs) + len(self._alone)
        if width > MAX_WEIGHTS:
            raise FieldError("features", wanted=f"at most {MAX_WEIGHTS} weights with interactions", got=width)
        return width

    def _extend(self, rows: DrawnRows) -> None:
        """Append the columns that only these rows have; old weights move to their new places."""
        crossing = self.settings.interactions
        old = _blocks(self._mean, self._precision, len(self._context), len(self._action), crossing)
        c, a, pairs, alone = len(self._context), len(self._action), len(self._pairs), len(self._alone)
        self._set_columns(rows)
        width, prior = self._width(), self.settings.ridge
        mean, precision = np.zeros(width), np.full(width, prior)
        new = _blocks(mean, precision, len(self._context), len(self._action), crossing)
        tight, shift = max(prior, PRECISION), len(self._pairs)
        new[1].own[:, self._ids], new[1].pairs[:, shift:] = tight, tight
        if crossing:
            new[1].crossed[:, :, self._ids] = max(prior, CROSSED_PRECISION)
        for was, now in zip(old, new, strict=True):
            now.constant[:], now.shared[:, :c], now.own[:, :a] = was.constant, was.shared, was.own
            now.crossed[:, :c, :a], now.pairs[:, :pairs] = was.crossed, was.pairs[:, :pairs]
            now.pairs[:, shift : shift + alone] = was.pairs[:, pairs:]
        self._mean, self._precision = mean, precision

    def _set_columns(self, rows: DrawnRows) -> None:
        """Lay out columns, pairs and ids of these rows behind those that are there."""
        crossing, names = self.settings.interactions, rows.action_names

        def chosen() -> Iterator[FeatureRows]:
            return (part.chosen for part in rows)

        contexts = self._context.seen(rows.context_names, lambda: (part.contexts for part in rows))
        actions = self._action.seen(names, chosen)
        c, a = len(self._context), len(self._action)
        most = min(c + contexts.names_seen, MAX_COLUMNS), min(a + actions.names_seen, MAX_COLUMNS)
        if crossing:
            most = room(*most, MAX_WEIGHTS - MAX_PAIRS - len(self._alone), known=(c, a))
        context, rare = self._context.extended_by(contexts, most[0])
        action, rare_own = self._action.extended_by(actions, most[1])
        self.left_out = LeftOut(rare, rare_own)
        self._set_layout(context, action, self._pairs, [*self._alone])
        if crossing:
            self._set_layout(context, action, self._pairs + self._new_pairs(rows), [*self._alone])
        ranked = ranked_ids(names, chosen, {*self._alone, *action.names})
        if ranked:
            left, cost = MAX_WEIGHTS - self._width(), 1 + len(context) if crossing else 0
            found = chosen_ids(ranked, cost=cost, room=left, columns=MAX_COLUMNS - len(action))
            columns = action.with_flags(found.crossed)
            alone = [*self._alone, *found.alone][:MAX_ALONE]
            # a pair is a code of two columns: more columns, other codes
            self._set_layout(context, columns, self._pairs, alone)

    def _new_pairs(self, rows: DrawnRows) -> list[tuple[int, int]]:
        """Return the pairs of an action's own columns that only `rows` have, the most frequent first."""
        few = min(MAX_PAIRS - len(self._pairs), MAX_WEIGHTS - self._width())
        codes, counts = np.zeros(0, np.int64), np.zeros(0)
        for part in rows:
            distinct = entries_of(_distinct(part.chosen), self._action_positions, self._action_scales)
            first, second = outer(distinct, distinct)
            i, j = distinct.column[first], distinct.column[second]
            times = np.bincount(part.chosen.rows, minlength=part.chosen.distinct)[distinct.row[first]]
            kept = (i < j) & ~self._ids[i] & ~self._ids[j]  # an id has a weight for all that its features say together
            both = np.concatenate((codes, (i * len(self._action) + j)[kept]))
            codes, place = np.unique(both, return_inverse=True)
            counts = np.bincount(place, weights=np.concatenate((counts, times[kept])), minlength=codes.size)
        codes = codes[np.lexsort((codes, -counts))]
        codes = codes[~np.isin(codes, self._pair_codes)][:few]
        return [(int(code) // len(self._action), int(code) % len(self._action)) for code in codes]

    def _design(self, rows: Iterable[Drawn], kept: Parts, *, written: bool = False) -> DesignRows:
        """Return the design of the rows, written out or not; its product with the weights is the logit."""
        own = len(self._pairs) + len(self._alone)
        sizes = Sizes(len(self._context), len(self._action), own, self.settings.interactions)
        low, span = self.settings.low, self.settings.high - self.settings.low
        design = DesignRows(sizes, kept)
        for contexts, chosen, reward, weight in rows:
            x = entries_of(contexts, self._context_positions, self._scales)
            actions = _distinct(chosen)
            y = entries_of(actions, self._action_positions, self._action_scales)
            part = Part(x, y, self._own_entries(actions, y), chosen.rows, sizes, written=written)
            design.append(part, np.clip((reward - low) / span, 0.0, 1.0), weight)
        return design

    def _own_entries(self, actions: Sequence[Features], y: Entries) -> PairEntries:
        """Return the entries of `actions` that no context is crossed with: known pairs of columns, and ids alone."""
        found = self._pair_entries(y)
        if not self._alone:
            return found
        size = len(self._alone)
        ids = entries_of(actions, self._alone, Scales(np.zeros(size), np.ones(size), np.zeros(size), np.ones(size)))
        return PairEntries(
            np.concatenate((found.row, ids.row)),
            np.concatenate((found.pair, ids.column + len(self._pairs))),
            np.concatenate((found.value, ids.value)),
        )

    def _pair_entries(self, y: Entries) -> PairEntries:
        """Return row, pair and value of every known pair of an action's own columns."""
        if not self._pairs:
            return PairEntries(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        first, second = outer(y, y)
        i, j = y.column[first], y.column[second]
        code = i * len(self._action) + j
        ordered = self._pair_codes[self._pair_order]
        place = np.minimum(np.searchsorted(ordered, code), ordered.size - 1)
        known = (i < j) & (ordered[place] == code)
        value = (y.value[first] * y.value[second])[known]
        return PairEntries(y.row[first][known], self._pair_order[place[known]], value)

    def _logits(self, batch: Batch, weights: Floats) -> Floats:
        """Return [s, m] logits under [s, width] weights."""
        offsets = batch.offsets
        contexts, actions = FeatureRows.of(batch.contexts), FeatureRows.of(batch.actions)
        x_places = places_of(contexts.names, self._context_positions)
        y_places = places_of(actions.names, self._action_positions)
        parts = [np.zeros((len(weights), 0))]
        for start in range(0, len(batch), _DECISIONS):
            stop = min(start + _DECISIONS, len(batch))
            first, last = int(offsets[start]), int(offsets[stop])
            decisions = np.repeat(np.arange(stop - start), np.diff(offsets[start : stop + 1]))
            x = entries_of(contexts[start:stop], self._context_positions, self._scales, x_places)
            y = entries_of(actions[first:last], self._action_positions, self._action_scales, y_places)
            parts.append(self._some(x, y, self._own_entries(actions[first:last], y), decisions, weights))
        return np.concatenate(parts, axis=1)

    def _some(self, x: Entries, y: Entries, own: PairEntries, decisions: Ints, weights: Floats) -> Floats:
        c, a = len(self._context), len(self._action)
        block = Block.of(weights, c, a, self.settings.interactions)
        n, m = x.offsets.size - 1, y.offsets.size - 1
        dense = np.zeros((n, c))
        dense[x.row, x.column] = x.value
        row, column = y.row, y.column
        pair_row, pair, pair_value = own
        used: Ints | slice = slice(None)
        if self._ids.any():
            used, column = np.unique(column, return_inverse=True)
        out = np.empty((len(weights), m))
        for s in range(len(weights)):
            per_action = (
                block.own[s][used] + dense @ block.crossed[s][:, used]
                if self.settings.interactions
                else block.own[s][None, used]
            )
            of = decisions[row] if self.settings.interactions else 0
            terms = per_action[of, column] * y.value
            out[s] = block.constant[s] + (dense @ block.shared[s])[decisions]
            out[s] += np.bincount(row, weights=terms, minlength=m)
            if pair.size:
                out[s] += np.bincount(pair_row, weights=block.pairs[s][pair] * pair_value, minlength=m)
        return out


def _blocks(mean: Floats, precision: Floats, c: int, a: int, interactions: bool) -> tuple[Block, Block]:
    return Block.of(mean[None, :], c, a, interactions), Block.of(precision[None, :], c, a, interactions)


def _distinct(rows: FeatureRows) -> FeatureRows:
    """Return the distinct rows, each once."""
    return FeatureRows(rows.names, rows.name, rows.value, rows.offsets, np.arange(rows.distinct, dtype=np.int64))


def _new(s: OracleSettings) -> LogisticOracle:
    return LogisticOracle(
        LogisticSettings(interactions=s.interactions, ridge=s.ridge, low=s.low, high=s.high, seed=s.seed)
    )


ORACLE = Kind(_new, LogisticOracle.load)
