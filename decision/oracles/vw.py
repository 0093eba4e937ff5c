"""Vowpal Wabbit as a regression oracle: one line per decision, that of the chosen action.

The context is namespace C, the action A; with interactions on, ``-q CA`` learns a weight for each pair. Rewards are
scaled to [0, 1] by the loop's range: logistic loss when every reward is 0 or 1, squared loss otherwise. Exploration
does not happen here (see `decision.exploration`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow
import pyarrow.compute
from vowpalwabbit import Workspace

from decision.batch import Batch, Features, Floats, Interactions, Ints, take_rows
from decision.columns import FeatureRows
from decision.errors import FieldError
from decision.options import PASSES, SHIPPED, Bits, NotNegative, Passes, Positive, Range, Seed
from decision.oracles.files.vw_body import check_body
from decision.oracles.files.vw_head import MODEL_FILE, check_head, scratch_file
from decision.oracles.identity import MAX_CROSSED, most_frequent_ids, without_other_ids
from decision.oracles.kind import Kind, OracleSettings
from decision.oracles.numbers import Numbers
from decision.oracles.products import ColumnSet
from decision.protocols import Oracle
from decision.ragged import ragged_offsets

pa: Any = pyarrow
pc: Any = pyarrow.compute

SETTINGS_FILE = "vw.json"
MAX_HASHES = 200_000
_AT_ONCE = 1 << 20  # crossed weights that are held at once
_MAX_CROSSED = 1 << 14
_START = np.zeros(1, np.int64)
_FNV_PRIME = 16_777_619  # VW's hash of a pair of features: (first * prime) ^ second
_CONSTANT = 11_650_396  # VW's index of the constant
_ESCAPE = str.maketrans({"%": "%25", " ": "%20", ":": "%3A", "|": "%7C", "\n": "%0A", "\r": "%0D", "\t": "%09"})


class VwSettings(Range, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the oracle; stored beside the model.

    Attributes:
        interactions: learn a weight for each pair of context and action feature.
        learning_rate: VW's ``-l``.
        bits: weights are hashed into 2^bits.
        passes: times `fit` goes through its data, in a new order each time.
        seed: of those orders.
        logistic: logistic loss; decided by the first fit when None.
        l2: VW's ``--l2``.
    """

    interactions: bool = SHIPPED.interactions
    learning_rate: Positive = SHIPPED.learning_rate
    bits: Bits = SHIPPED.bits
    passes: Passes = PASSES
    seed: Seed = 0
    logistic: bool | None = None
    l2: NotNegative = 0.0


class VwOracle:
    """A VW regressor that resumes where it stopped; predictions are in reward units."""

    def __init__(self, settings: VwSettings | None = None) -> None:
        self.settings = settings or VwSettings()
        self._workspace: Any = None
        self._numbers: dict[str, Numbers] | None = {space: Numbers(ColumnSet()) for space in "CA"}
        self._fits = 0
        self._weights: Floats | None = None
        self._hashes: dict[str, dict[str, int]] = {}
        self._ids: dict[str, None] = {}

    def fit(self, interactions: Interactions) -> None:
        """Learn from `interactions`; called again, resume from the present state."""
        scaled = (interactions.reward - self.settings.low) / (self.settings.high - self.settings.low)
        if self._workspace is None:
            if self.settings.logistic is None:
                logistic = bool(np.isin(scaled, (0.0, 1.0)).all())
                self.settings = msgspec.structs.replace(self.settings, logistic=logistic)
            self._workspace = Workspace(self._arguments())
        batch = interactions.batch
        contexts = FeatureRows.of(batch.contexts)
        chosen = FeatureRows.of(take_rows(batch.actions, interactions.chosen))
        # thousands of ids, crossed with the context, would share the table's weights by chance
        ids = dict.fromkeys(most_frequent_ids(chosen, MAX_CROSSED))
        self._ids = dict.fromkeys([*(self._ids | ids)][:MAX_CROSSED])
        chosen = without_other_ids(chosen, self._ids)
        if self._numbers is not None:
            self._numbers = {
                space: known.extended(rows)
                for (space, known), rows in zip(self._numbers.items(), (contexts, chosen), strict=True)
            }
        lines = _lines(
            _labels(scaled, bool(self.settings.logistic), interactions.weight),
            texts_of(self._read("C", contexts)),
            texts_of(self._read("A", chosen)),
        )
        for number in range(self.settings.passes):
            if self.settings.passes > 1:
                order = np.random.default_rng([self.settings.seed, self._fits, number]).permutation(len(lines))
                self._learn(lines.take(pa.array(order)))
            else:
                self._learn(lines)
        self._fits += 1
        self._weights = None

    def _learn(self, lines: Any) -> None:
        """Have VW's own driver read the lines: a quarter of the time of handing them over one by one, same weights."""
        if not len(lines):
            return
        with scratch_file() as model:
            text = model.with_name("rows.txt")
            text.write_bytes(_bytes_of(lines))
            self._workspace.save(str(model))
            self._workspace.finish()
            self._workspace = Workspace(f"{self._arguments()} -i {model} -d {text}")

    def predict(self, batch: Batch) -> Floats:
        """Return [m] expected rewards, flat in the order offered; the middle of the range before any fit.

        Computed from VW's weights rather than by VW: its predictor wants the context once per action as text, ten times
        the cost. Equal to VW's own predictions up to single-precision rounding. Weights are copied from VW when a
        decision first needs them.
        """
        low, span = self.settings.low, self.settings.high - self.settings.low
        if self._workspace is None:
            return np.full(len(batch.actions), low + 0.5 * span)
        contexts = self._read("C", FeatureRows.of(batch.contexts))
        actions = self._read("A", without_other_ids(FeatureRows.of(batch.actions), self._ids))
        out = np.empty(len(batch.actions))
        for decisions in _alike(actions, batch.offsets):
            first = int(decisions[0])
            offered = actions[int(batch.offsets[first]) : int(batch.offsets[first + 1])]
            lengths = np.diff(contexts.offsets)[contexts.rows[decisions]]
            for length in np.unique(lengths).tolist():
                rows = decisions[lengths == length]
                flat = batch.offsets[rows][:, None] + np.arange(len(offered))
                out[flat] = self._scores(contexts.take(rows), length, offered)
        return out

    def _scores(self, contexts: FeatureRows, length: int, actions: FeatureRows) -> Floats:
        """Return [g, k] expected rewards of `actions` ([k]) in each of [g] contexts of `length` features.

        Every sum is made in the order of `prepare`, so that both agree bit for bit.
        """
        low, span, k = self.settings.low, self.settings.high - self.settings.low, len(actions)
        _, constant = self._table()
        a_index, a_value = self.indices("A", list(actions))
        own = self.weights_of(a_index)
        owners = np.repeat(np.arange(k), np.diff(actions.entries()[2]))
        at_once = max(_AT_ONCE // max(length * a_index.size, 1), 1)
        parts: list[Floats] = []
        for start in range(0, len(contexts), at_once):
            rows = contexts.rows[start : start + at_once]
            flat = contexts.offsets[rows][:, None] + np.arange(length)
            value = contexts.value[flat]
            there = np.zeros(len(contexts.names), np.int64)
            there[contexts.name[flat]] = 1
            used = np.flatnonzero(there)
            place = (np.cumsum(there) - 1)[contexts.name[flat]]
            c_index, _ = self.indices("C", [{contexts.names[code]: 1.0 for code in used.tolist()}])
            alone = self.weights_of(c_index)[place]
            per_action = np.broadcast_to(own, (rows.size, own.size))
            if self.settings.interactions and length:
                crossed = (c_index[:, None] * _FNV_PRIME) ^ a_index
                weights = self.weights_of(crossed & ((1 << self.settings.bits) - 1))
                per_action = own + np.matmul(value[:, None, :], weights[place])[:, 0, :]
            shared = np.matmul(alone[:, None, :], value[:, :, None])[:, 0, 0]
            owner = np.arange(rows.size)[:, None] * k + owners
            terms = np.bincount(owner.ravel(), weights=(per_action * a_value).ravel(), minlength=rows.size * k)
            parts.append((constant + shared)[:, None] + terms.reshape(rows.size, k))
        out = np.concatenate(parts)
        if self.settings.logistic:
            out = 1.0 / (1.0 + np.exp(-np.minimum(np.maximum(out, -50.0), 50.0)))
        return low + span * np.minimum(np.maximum(out, 0.0), 1.0)

    def prepare(self, actions: Sequence[Features]) -> Callable[[Sequence[Features]], Floats]:
        """Return what gives [n, k] expected rewards of `actions` ([k]) in n contexts, bit for bit as `predict`."""
        settings, k = self.settings, len(actions)
        low, span, logistic = settings.low, settings.high - settings.low, bool(settings.logistic)
        if self._workspace is None:
            return lambda contexts: np.full((len(contexts), k), low + 0.5 * span)
        _, constant = self._table()
        known = without_other_ids(FeatureRows.of(actions), self._ids)
        rows = _Rows(self, list(self._read("A", known)))
        own, a_value, owners = rows.own, rows.value, rows.owners
        limits = None if self._numbers is None else self._numbers["C"]

        def score(context: Features) -> Floats:
            alone, crossed = rows.of(context)
            c_value = np.array([*context.values()], dtype=np.float64)
            if limits is not None and c_value.size:
                c_value = limits.of(context, c_value)
            per_action = own if crossed is None else own + c_value @ crossed
            out = constant + float(alone @ c_value) + np.bincount(owners, weights=per_action * a_value, minlength=k)
            # minimum and maximum rather than clip: a third of the time for ten numbers
            if logistic:
                out = 1.0 / (1.0 + np.exp(-np.minimum(np.maximum(out, -50.0), 50.0)))
            return low + span * np.minimum(np.maximum(out, 0.0), 1.0)

        return lambda contexts: np.array([score(context) for context in contexts])

    def _read(self, space: str, rows: FeatureRows) -> FeatureRows:
        """Return `rows` with their numbers cut to the bounds of their columns."""
        if self._numbers is None or not rows.value.size:
            return rows
        value = self._numbers[space].scales(rows.names).of(rows.value, rows.name.astype(np.int64))
        return FeatureRows(rows.names, rows.name, value, rows.offsets, rows.rows)

    def weights_of(self, index: Ints) -> Floats:
        """Return VW's weights at `index`, any shape."""
        weights, _ = self._table()
        self._copy_weights(weights, index)
        return weights[index]

    def _table(self) -> tuple[Floats, float]:
        """Return the weights, NaN where they were not copied from VW yet, and the constant's."""
        if self._weights is None:
            self._weights = np.full(1 << self.settings.bits, np.nan)
            self._copy_weights(self._weights, np.array([_CONSTANT & (self._weights.size - 1)]))
        return self._weights, float(self._weights[_CONSTANT & (self._weights.size - 1)])

    def _copy_weights(self, weights: Floats, index: Ints) -> None:
        # One call into VW per weight: all 2^18 would stall the first decision of a new model by a tenth of a second.
        get = self._workspace.get_weight
        wanted = np.unique(index)
        wanted = wanted[np.isnan(weights[wanted])]
        weights[wanted] = [get(int(i)) for i in wanted]

    def indices(self, space: str, rows: Sequence[Features]) -> tuple[Ints, Floats]:
        """Return the weight index and value of every feature of `rows`, one row after another."""
        known = self._hashes.setdefault(space, {})
        if len(known) > MAX_HASHES:
            known.clear()
        index: list[int] = []
        value: list[float] = []
        for row in rows:
            for name, number in row.items():
                place = known.get(name)
                if place is None:
                    workspace = self._workspace
                    place = known[name] = int(workspace.hash_feature(_name(name), workspace.hash_space(space)))
                index.append(place)
                value.append(number)
        return np.array(index, dtype=np.int64), np.array(value, dtype=np.float64)

    def save(self) -> dict[str, bytes]:
        """Return VW's own model file and the settings."""
        numbers = None if self._numbers is None else {space: each.columns for space, each in self._numbers.items()}
        stored = _Stored(self.settings, self._fits, numbers, [*self._ids])
        files = {SETTINGS_FILE: msgspec.json.encode(stored)}
        if self._workspace is not None:
            with scratch_file() as path:
                self._workspace.save(str(path))
                files[MODEL_FILE] = path.read_bytes()
        return files

    @classmethod
    def load(cls, files: dict[str, bytes]) -> VwOracle:
        """Return the oracle that `save` described.

        Raises:
            FieldError: a file is missing or does not fit.
        """
        try:
            stored = _stored(files[SETTINGS_FILE])
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(SETTINGS_FILE, wanted="the oracle's settings", got=error) from error
        oracle = cls(stored.settings)
        oracle._fits, oracle._ids = stored.fits, dict.fromkeys(stored.ids)
        if stored.numbers is not None and stored.numbers.keys() != {"C", "A"}:
            raise FieldError(SETTINGS_FILE, wanted="numbers of C and A", got=sorted(stored.numbers))
        oracle._numbers = None
        if stored.numbers is not None:
            oracle._numbers = {space: Numbers(columns) for space, columns in stored.numbers.items()}
        if MODEL_FILE in files:
            head = check_head(MODEL_FILE, files[MODEL_FILE], stored.settings.bits)
            check_body(MODEL_FILE, files[MODEL_FILE], head)
            with scratch_file() as path:
                path.write_bytes(files[MODEL_FILE])
                try:
                    oracle._workspace = Workspace(f"{oracle._arguments()} -i {path}")
                except RuntimeError as error:
                    raise FieldError(MODEL_FILE, wanted="a VW model", got=error) from error
        return oracle

    def _arguments(self) -> str:
        s = self.settings
        parts = [f"--quiet --random_seed {s.seed} -b {s.bits} -l {s.learning_rate} --l2 {s.l2}"]
        if s.interactions:
            parts.append("-q CA")
        if s.logistic:
            parts.append("--loss_function logistic --link logistic")
        return " ".join(parts)


class _Stored(msgspec.Struct, omit_defaults=True):
    settings: VwSettings
    fits: int
    numbers: dict[str, ColumnSet] | None = None  # none in models that were made before there were bounds
    ids: list[str] = []


_stored = msgspec.json.Decoder(_Stored).decode  # made at import, which one thread does


class _Rows:
    """What context features weigh, alone and crossed with the features of certain actions; looked up once each.

    Attributes:
        own: [a] weights of the actions' features, one action after another.
        value: [a] their values.
        owners: [a] the action each belongs to.
    """

    def __init__(self, oracle: VwOracle, actions: Sequence[Features]) -> None:
        self._oracle, self._interactions = oracle, oracle.settings.interactions
        self._index, self.value = oracle.indices("A", actions)
        self.own = oracle.weights_of(self._index)
        self.owners = np.repeat(np.arange(len(actions)), np.fromiter(map(len, actions), np.int64, len(actions)))
        self._lock = threading.Lock()
        self._place: dict[str, int] = {}
        self._most = _MAX_CROSSED // max(self._index.size, 1)
        self._alone, self._crossed = self._looked_up(())

    def of(self, context: Features) -> tuple[Floats, Floats | None]:
        """Return the [c] weights of the context's features and the [c, a] crossed ones, None where none are learned."""
        place = self._place
        try:
            rows = [place[name] for name in context]
        except KeyError:
            with self._lock:
                new = [name for name in context if name not in place]
                if len(place) + len(new) > self._most:
                    alone, crossed = self._looked_up(context)
                    return alone, crossed if self._interactions else None
                alone, crossed = self._looked_up(new)
                # Rows are there before a name leads to them: other threads read without the lock.
                self._alone = np.concatenate((self._alone, alone))
                self._crossed = np.concatenate((self._crossed, crossed))
                for name in new:
                    place[name] = len(place)
            rows = [place[name] for name in context]
        index = np.array(rows, dtype=np.int64)
        return self._alone.take(index), self._crossed.take(index, 0) if self._interactions and rows else None

    def _looked_up(self, names: Iterable[str]) -> tuple[Floats, Floats]:
        index, _ = self._oracle.indices("C", [dict.fromkeys(names, 1.0)])
        alone = self._oracle.weights_of(index)
        if not self._interactions:
            return alone, np.zeros((alone.size, 0))
        crossed = (index[:, None] * _FNV_PRIME) ^ self._index
        return alone, self._oracle.weights_of(crossed & ((1 << self._oracle.settings.bits) - 1))


def _alike(actions: FeatureRows, offsets: Ints) -> list[Ints]:
    """Return the decisions that are offered the same actions in the same order, group by group."""
    data, cuts = actions.rows.astype(np.int64, copy=False).tobytes(), (8 * offsets).tolist()
    known: dict[bytes, int] = {}
    group = np.array([known.setdefault(data[a:b], len(known)) for a, b in pairwise(cuts)], dtype=np.int64)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.cumsum(np.bincount(group, minlength=1))[:-1]) if group.size else []


def _labels(scaled: Floats, logistic: bool, weight: Floats | None) -> Any:
    """Return [n] labels, with the rows' weights where they have some."""
    labels = np.where(scaled > 0.5, "1", "-1").tolist() if logistic else [repr(value) for value in scaled.tolist()]
    if weight is not None:
        labels = [f"{label} {number:.6g}" for label, number in zip(labels, weight.tolist(), strict=True)]
    return pa.array(labels, pa.large_string())


def _lines(labels: Any, contexts: Any, actions: Any) -> Any:
    """Return [n] examples."""
    between = [pa.scalar(text, pa.large_string()) for text in (" |C ", "|A ", "\n", "")]
    return pc.binary_join_element_wise(labels, between[0], contexts, between[1], actions, *between[2:])


def texts_of(rows: FeatureRows) -> Any:
    """Return [r] rows as VW text; numbers in full, which VW rounds to single precision, and 0 left out."""
    used, row = np.unique(rows.rows, return_inverse=True)
    name, value, offsets = FeatureRows(rows.names, rows.name, rows.value, rows.offsets, used).entries()
    kept = value != 0.0
    if not kept.all():
        name, value, offsets = name[kept], value[kept], ragged_offsets(kept.astype(np.int64))[offsets]
    names = pa.array([f"{_name(text)}:" for text in rows.names], pa.large_string()).take(pa.array(name))
    space, nothing = pa.scalar(" ", pa.large_string()), pa.scalar("", pa.large_string())
    entries = pc.binary_join_element_wise(names, *_numbers(value), space, nothing)
    begins = np.frombuffer(entries.buffers()[1], np.int64, len(entries) + 1) if len(entries) else _START
    buffers = pa.py_buffer(np.ascontiguousarray(begins[offsets])), entries.buffers()[2]
    distinct = pa.LargeStringArray.from_buffers(used.size, *buffers)
    return distinct if np.array_equal(row, np.arange(used.size)) else distinct.take(pa.array(row))


def _numbers(value: Floats) -> tuple[Any, Any]:
    """Return [k] numbers as Python writes them, in two pieces: VW reads other digits of the same number otherwise."""
    texts = pa.array(value).cast(pa.large_string())
    size = np.abs(value)
    rare = np.flatnonzero((size < 1e-4) | (size >= 1e10))
    ends = np.where((value == np.trunc(value)), 1, 0)
    if rare.size:
        ends[rare] = 0
        written = pa.array([repr(number) for number in value[rare].tolist()], pa.large_string())
        mask = np.zeros(value.size, np.bool_)
        mask[rare] = True
        texts = pc.replace_with_mask(texts, pa.array(mask), written)
    return texts, pa.array(["", ".0"], pa.large_string()).take(pa.array(ends))


def _bytes_of(texts: Any) -> memoryview:
    """Return the bytes of all texts, one after another."""
    ends = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(texts.buffers()[2])[int(ends[0]) : int(ends[-1])]


@lru_cache(maxsize=MAX_HASHES)
def _name(name: str) -> str:
    """Return a feature's name as VW reads it: escaped so that no two collide and none can break the line."""
    return name if name.isalnum() else name.translate(_ESCAPE)


def _new(s: OracleSettings) -> VwOracle:
    return VwOracle(
        VwSettings(
            interactions=s.interactions,
            learning_rate=s.learning_rate,
            bits=s.bits,
            passes=s.passes,
            seed=s.seed,
            low=s.low,
            high=s.high,
        )
    )


def _load(files: dict[str, bytes]) -> Oracle:
    """Return our own oracle, or that of a model which VW's users brought along; both are VW's."""
    from decision.oracles.adf.oracle import SETTINGS_FILE as BROUGHT
    from decision.oracles.adf.oracle import AdfOracle

    return AdfOracle.load(files) if BROUGHT in files else VwOracle.load(files)


ORACLE = Kind(_new, _load)
