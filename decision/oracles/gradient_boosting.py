"""Gradient-boosted trees by LightGBM (Ke et al. 2017) on the features of context and action side by side.

Log-loss for rewards within the loop's range, scaled to [0, 1]; categories are 0 or 1 and absent numbers are missing
values, which the trees send their own way. A resumed fit boosts on from the last one's trees. The model is LightGBM's
own text up to the end of its trees; everything runs on one thread, so equal data and seed give equal bytes.
"""

from __future__ import annotations

from typing import Annotated, Any

import lightgbm
import msgspec
import numpy as np

from decision.batch import Batch, Floats, Interactions, take_rows
from decision.errors import FieldError
from decision.options import Count, Range, Seed
from decision.oracles.encoder import MAX_COLUMNS, NOTHING_LEFT_OUT, LeftOut, columns_of, entries, positions_of
from decision.oracles.files.lightgbm_text import MAX_LEAVES, checked, without_tail
from decision.oracles.identity import MAX_FEW, most_frequent_ids
from decision.oracles.kind import Kind, OracleSettings

MODEL_FILE = "lightgbm.txt"
SETTINGS_FILE = "lightgbm.json"
_DECISIONS = 2_048
_NUMBERS = 1 << 27  # of the matrix of contexts, and of that of actions: a gigabyte each
_FEWEST = 64


class GradientBoostingSettings(Range, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the oracle.

    Attributes:
        rounds: trees added by every fit.
        learning_rate: shrinkage of each tree.
        leaves: largest number of leaves of a tree.
        rows_per_leaf: smallest number of rows in a leaf.
        seed: of every random choice.
    """

    rounds: Annotated[int, msgspec.Meta(ge=1, le=5_000)] = 400
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.03
    leaves: Annotated[int, msgspec.Meta(ge=2, le=MAX_LEAVES)] = 15
    rows_per_leaf: Count = 20
    seed: Seed = 0


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    settings: GradientBoostingSettings
    context: list[str]
    action: list[str]
    flags: list[bool]


_stored = msgspec.json.Decoder(_Stored).decode  # made at import, which one thread does


class GradientBoostingOracle:
    """Boosted trees; predictions are in reward units.

    Attributes:
        left_out: columns that the first fit had no room for: of context and action, the most frequent 4,096 are kept,
            and no more than 134 million numbers.
    """

    def __init__(self, settings: GradientBoostingSettings | None = None) -> None:
        self.settings = settings or GradientBoostingSettings()
        self.left_out = NOTHING_LEFT_OUT
        self._booster: Any = None
        self._set_columns([], [], np.zeros(0, np.bool_))

    def fit(self, interactions: Interactions) -> None:
        """Learn from `interactions`; called again, boost on. Columns are those of the first fit."""
        batch = interactions.batch
        chosen = take_rows(batch.actions, interactions.chosen)
        rows = np.flatnonzero(interactions.weights > 0)
        if self._booster is None:
            most = min(MAX_COLUMNS, max(_FEWEST, _NUMBERS // max(len(batch), 1)))
            (context, rare), (action, rare_own) = columns_of(batch.contexts, most), columns_of(chosen, most)
            self.left_out = LeftOut(rare, rare_own)
            action += most_frequent_ids(chosen, max(min(MAX_FEW, most - len(action)), 0))
            self._set_columns(context, action, np.zeros(len(context) + len(action), np.bool_))
            matrix = self._matrix(batch, interactions.chosen, np.arange(len(batch)))
            flags = ((matrix == 0.0) | (matrix == 1.0) | np.isnan(matrix)).all(axis=0)[: len(context) + len(action)]
            self._set_columns(context, action, flags)
        if not rows.size:
            return
        matrix = self._matrix(batch, interactions.chosen, np.arange(len(batch)))
        s = self.settings
        target = np.clip((interactions.reward - s.low) / (s.high - s.low), 0.0, 1.0)
        data = lightgbm.Dataset(
            matrix[rows], target[rows], weight=interactions.weights[rows], params={"verbosity": -1}, free_raw_data=False
        )
        parameters: dict[str, Any] = {
            "objective": "cross_entropy",
            "num_leaves": s.leaves,
            "learning_rate": s.learning_rate,
            "min_data_in_leaf": s.rows_per_leaf,
            "seed": s.seed,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        before = None if self._booster is None else _booster(self._text())
        trained = lightgbm.train(parameters, data, num_boost_round=s.rounds, init_model=before)
        self._booster = _booster(without_tail(trained.model_to_string()))

    def predict(self, batch: Batch) -> Floats:
        """Return [m] expected rewards, flat in the order offered; the middle of the range before any fit."""
        s = self.settings
        if self._booster is None:
            return np.full(len(batch.actions), 0.5 * (s.low + s.high))
        offsets = batch.offsets
        parts = [np.zeros(0)]
        for start in range(0, len(batch), _DECISIONS):
            stop = min(start + _DECISIONS, len(batch))
            flat = np.arange(int(offsets[start]), int(offsets[stop]))
            decisions = np.repeat(np.arange(start, stop), np.diff(offsets[start : stop + 1]))
            found = self._booster.predict(self._matrix(batch, flat, decisions), num_threads=1)
            parts.append(np.asarray(found, dtype=np.float64))
        return s.low + (s.high - s.low) * np.concatenate(parts)

    def save(self) -> dict[str, bytes]:
        """Return LightGBM's own text, and settings and columns as JSON."""
        stored = _Stored(self.settings, list(self._context), list(self._action), self._flags.tolist())
        files = {SETTINGS_FILE: msgspec.json.encode(stored)}
        if self._booster is not None:
            files[MODEL_FILE] = self._text().encode()
        return files

    @classmethod
    def load(cls, files: dict[str, bytes]) -> GradientBoostingOracle:
        """Return the oracle that `save` described.

        Raises:
            FieldError: a file is missing or does not fit.
        """
        try:
            stored = _stored(files[SETTINGS_FILE])
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(SETTINGS_FILE, wanted="the oracle's settings", got=error) from error
        width = len(stored.context) + len(stored.action)
        if len(stored.flags) != width or width > 2 * MAX_COLUMNS:
            raise FieldError(SETTINGS_FILE, wanted=f"{width} flags", got=len(stored.flags))
        oracle = cls(stored.settings)
        oracle._set_columns(stored.context, stored.action, np.array(stored.flags, dtype=np.bool_))
        if MODEL_FILE in files:
            try:
                oracle._booster = _booster(checked(MODEL_FILE, files[MODEL_FILE], max(width, 1)))
            except lightgbm.basic.LightGBMError as error:
                raise FieldError(MODEL_FILE, wanted="a LightGBM model", got=error) from error
        return oracle

    def _text(self) -> str:
        return without_tail(self._booster.model_to_string())

    def _set_columns(self, context: list[str], action: list[str], flags: Any) -> None:
        self._context, self._action, self._flags = positions_of(context), positions_of(action), flags

    def _matrix(self, batch: Batch, flat: Any, decisions: Any) -> Floats:
        """Return [r, c + a] features of the action rows `flat` under the contexts `decisions`, both [r]."""
        first, last = int(decisions[0]), int(decisions[-1]) + 1
        c = len(self._context)
        context = np.full((last - first, c), np.nan)
        row, column, value = entries(batch.contexts[first:last], self._context)
        context[row, column] = value
        own = np.full((len(flat), len(self._action)), np.nan)
        row, column, value = entries(take_rows(batch.actions, flat), self._action)
        own[row, column] = value
        matrix = np.concatenate((context[np.asarray(decisions) - first], own), axis=1)
        matrix[:, self._flags] = np.nan_to_num(matrix[:, self._flags], nan=0.0)
        return matrix if matrix.shape[1] else np.zeros((len(matrix), 1))  # LightGBM wants a column


def _booster(text: str) -> Any:
    return lightgbm.Booster(model_str=text)


def _new(s: OracleSettings) -> GradientBoostingOracle:
    return GradientBoostingOracle(GradientBoostingSettings(seed=s.seed % 2**31, low=s.low, high=s.high))


ORACLE = Kind(_new, GradientBoostingOracle.load)
