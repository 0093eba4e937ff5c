"""Vowpal Wabbit as a regression oracle: one line per decision, that of the chosen action.

The context is namespace C, the action A; with interactions on, ``-q CA`` learns a weight for each pair. Rewards are
scaled to [0, 1] by the loop's range: logistic loss when every reward is 0 or 1, squared loss otherwise. Exploration
does not happen here (see `decision.exploration`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isnan
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from vowpalwabbit import Workspace

from decision.batch import Batch, Features, Floats, Interactions, Ints
from decision.errors import FieldError
from decision.options import PASSES, SHIPPED, Bits, NotNegative, Passes, Positive, Range, Seed
from decision.oracles.kind import Kind, OracleSettings

MODEL_FILE = "model.vw"
SETTINGS_FILE = "vw.json"
MAX_HASHES = 200_000
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
        self._fits = 0
        self._weights: Floats | None = None
        self._hashes: dict[str, dict[str, int]] = {}

    def fit(self, interactions: Interactions) -> None:
        """Learn from `interactions`; called again, resume from the present state."""
        scaled = (interactions.reward - self.settings.low) / (self.settings.high - self.settings.low)
        if self._workspace is None:
            if self.settings.logistic is None:
                logistic = bool(np.isin(scaled, (0.0, 1.0)).all())
                self.settings = msgspec.structs.replace(self.settings, logistic=logistic)
            self._workspace = Workspace(self._arguments())
        labels = _labels(scaled, bool(self.settings.logistic))
        if interactions.weight is not None:
            labels = [f"{label} {weight:.6g}" for label, weight in zip(labels, interactions.weight, strict=True)]
        batch = interactions.batch
        lines = [
            f"{label} |C {_text(context)}|A {_text(batch.actions[flat])}\n"
            for context, flat, label in zip(batch.contexts, interactions.chosen.tolist(), labels, strict=True)
        ]
        for number in range(self.settings.passes):
            if self.settings.passes > 1:
                order = np.random.default_rng([self.settings.seed, self._fits, number]).permutation(len(lines))
                self._learn([lines[i] for i in order])
            else:
                self._learn(lines)
        self._fits += 1
        self._weights = None

    def _learn(self, lines: list[str]) -> None:
        """Have VW's own driver read the lines: a quarter of the time of handing them over one by one, same weights."""
        if not lines:
            return
        with _scratch() as model:
            text = model.with_name("rows.txt")
            text.write_text("".join(lines), encoding="utf-8", newline="")
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
        out = np.empty(len(batch.actions))
        offsets = batch.offsets.tolist()
        for i, context in enumerate(batch.contexts):
            start, stop = offsets[i], offsets[i + 1]
            out[start:stop] = self.prepare(batch.actions[start:stop])(context)
        return out

    def prepare(self, actions: Sequence[Features]) -> Callable[[Features], Floats]:
        """Return what gives [k] expected rewards of `actions` ([k]) in one context, bit for bit as `predict`."""
        k, low, span = len(actions), self.settings.low, self.settings.high - self.settings.low
        if self._workspace is None:
            return lambda context: np.full(k, low + 0.5 * span)
        weights, constant = self._table()
        mask, interactions, logistic = weights.size - 1, self.settings.interactions, bool(self.settings.logistic)
        a_index, a_value = self._indices("A", actions)
        owners = np.repeat(np.arange(k), np.fromiter(map(len, actions), np.int64, k))

        def score(context: Features) -> Floats:
            c_index, c_value = self._indices("C", [context])
            crossed = None
            if interactions and c_index.size:
                crossed = (c_index[:, None] * _FNV_PRIME) ^ a_index
                crossed &= mask
            shared, terms = _terms(weights, c_index, c_value, a_index, a_value, crossed)
            if isnan(shared + terms.sum()):
                for index in (c_index, a_index, crossed):
                    if index is not None:
                        self._copy_weights(weights, index)
                shared, terms = _terms(weights, c_index, c_value, a_index, a_value, crossed)
            out = constant + shared + np.bincount(owners, weights=terms, minlength=k)
            if logistic:
                out = 1.0 / (1.0 + np.exp(-out.clip(-50.0, 50.0)))
            return low + span * out.clip(0.0, 1.0)

        return score

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

    def _indices(self, space: str, rows: Sequence[Features]) -> tuple[Ints, Floats]:
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
        files = {SETTINGS_FILE: msgspec.json.encode({"settings": self.settings, "fits": self._fits})}
        if self._workspace is not None:
            with _scratch() as path:
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
            stored = msgspec.json.decode(files[SETTINGS_FILE], type=_Stored)
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(SETTINGS_FILE, wanted="the oracle's settings", got=error) from error
        oracle = cls(stored.settings)
        oracle._fits = stored.fits
        if MODEL_FILE in files:
            with _scratch() as path:
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


class _Stored(msgspec.Struct):
    settings: VwSettings
    fits: int


class _scratch:
    """A path for one file of VW's, which saves and loads by name only; in memory where the system allows."""

    def __enter__(self) -> Path:
        folder = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - a fresh private folder inside
        self._folder = tempfile.TemporaryDirectory(dir=folder)
        return Path(self._folder.name) / MODEL_FILE

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _terms(
    weights: Floats, c_index: Ints, c_value: Floats, a_index: Ints, a_value: Floats, crossed: Ints | None
) -> tuple[float, Floats]:
    """Return the context's part and that of every action feature, crossed with the context ([c, a] indices)."""
    per_action = weights[a_index]
    if crossed is not None:
        per_action = per_action + c_value @ weights[crossed]
    return float(weights[c_index] @ c_value), per_action * a_value


def _labels(scaled: Floats, logistic: bool) -> list[str]:
    if logistic:
        return ["1" if value > 0.5 else "-1" for value in scaled]
    return [repr(value) for value in scaled.tolist()]


def _text(features: Features) -> str:
    """Return features as VW text; numbers in full, which VW rounds to single precision."""
    return "".join([f"{_name(name)}:{value!r} " for name, value in features.items() if value != 0.0])


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


ORACLE = Kind(_new, VwOracle.load)
