"""The first look at a log: its extent, what it holds, what reward models need of it; as sums that add up exactly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from decision.batch import Floats
from decision.errors import FieldError
from decision.ope.estimators.mrdr import mrdr_row_weights
from decision.ope.rows import Rows
from decision.ope.sums.exact import exact_group_sums
from pipelines.interactions.arrays import interned
from pipelines.replay.crossfit import FOLDS
from pipelines.replay.policy import Tested, pmf_of
from pipelines.replay.rows import Loaded, fold_of_hash

SAMPLE = 200_000
"""Rows, at most about, that a learned reward model is fitted on and that the log's propensities are tested on."""

EARLY = 0.2
"""Share of the log's time whose rows teach the confidence sequence's reward model, and are left out of it."""

_KEPT = 4  # sums of every fold: rows, rewards, and both weighted for MRDR; of early rows and of later ones


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a log reaches; `+` merges shards.

    Attributes:
        rows: decisions.
        first: time of the first one in microseconds since 1970.
        last: of the last one.
        low: smallest reward.
        high: largest reward.
        whole: decisions with their whole logging distribution.
        counted: some rows stand for several decisions.
    """

    rows: int = 0
    first: int = 2**62
    last: int = -(2**62)
    low: float = np.inf
    high: float = -np.inf
    whole: int = 0
    counted: bool = False

    def __add__(self, other: Extent) -> Extent:
        return Extent(
            self.rows + other.rows,
            min(self.first, other.first),
            max(self.last, other.last),
            min(self.low, other.low),
            max(self.high, other.high),
            self.whole + other.whole,
            self.counted or other.counted,
        )

    @property
    def cut(self) -> int:
        """Time in microseconds at which the confidence sequence begins."""
        return self.first + int(EARLY * (self.last - self.first))


CHECKED_COLUMNS = (
    "event_id",
    "slot",
    "ts",
    "action_ids",
    "action_index",
    "propensity",
    "pmf",
    "seed",
    "reward_version",
)
"""What the test of the propensities reads."""

EXTENT_COLUMNS = ("ts", "reward", "pass_probability")
"""What the extent reads, beside ``pmf`` where the file does not say that none is missing."""


def extent_of(table: pa.Table) -> Extent:
    """Return the extent of some rows with the columns `EXTENT_COLUMNS`; without ``pmf`` none is missing.

    Raises:
        FieldError: a chance of being kept is not in (0, 1].
    """
    if not len(table):
        return Extent()
    ts = table["ts"].cast(pa.int64()).to_numpy()
    reward = table["reward"].to_numpy()
    kept = table["pass_probability"].to_numpy()
    if not (float(kept.min()) > 0 and float(kept.max()) <= 1):
        got = (float(kept.min()), float(kept.max()))
        raise FieldError("pass_probability", wanted="numbers in (0, 1]", got=got)
    return Extent(
        len(table),
        int(ts.min()),
        int(ts.max()),
        float(reward.min()),
        float(reward.max()),
        len(table) - (table["pmf"].null_count if "pmf" in table.column_names else 0),
        bool((kept < 1).any()),
    )


@dataclass(frozen=True, slots=True)
class Survey:
    """What a whole log teaches before anything is estimated; `+` merges shards.

    Attributes:
        actions: sums by action, of rows, rewards, and both weighted for MRDR, each of later and of early rows and of
            every fold; as whole multiples of 2^-1074.
        versions: rows by policy version.
        sample: rows kept for the reward model and for the test of the propensities, by a hash of their ids.
    """

    actions: dict[str, list[int]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    sample: tuple[pa.Table, ...] = ()

    def __add__(self, other: Survey) -> Survey:
        actions = dict(self.actions)
        for name, sums in other.actions.items():
            here = actions.get(name)
            actions[name] = sums if here is None else [a + b for a, b in zip(here, sums, strict=True)]
        versions = dict(self.versions)
        for name, rows in other.versions.items():
            versions[name] = versions.get(name, 0) + rows
        return Survey(actions, versions, self.sample + other.sample)

    @property
    def rows(self) -> int:
        """Decisions."""
        return sum(self.versions.values())

    def sampled(self) -> pa.Table | None:
        """Return the sample in an order that does not depend on how the log was cut; None without a row."""
        if not self.sample:
            return None
        rows = pa.concat_tables(self.sample, promote_options="default")
        return rows.sort_by([(name, "ascending") for name in ("ts", "event_id", "slot")]).combine_chunks()

    @property
    def names(self) -> list[str]:
        """[a] ids of the actions that were offered, sorted."""
        return sorted(self.actions)

    def tables(self) -> tuple[Floats, Floats, Floats]:
        """Return mean rewards by action: [f, a] for each fold, [a] early, [f, a] for MRDR; see `shrunk`.

        The table of a fold is made of the rows of all others.
        """
        wholes = np.array([self.actions[name] for name in self.names], dtype=object).T.reshape(_KEPT, 2, FOLDS, -1)
        early = (wholes[:2, 1].sum(1) / (1 << 1074)).astype(np.float64)
        every = wholes.sum(1)
        others = ((every.sum(1, keepdims=True) - every) / (1 << 1074)).astype(np.float64)
        folds, robust = [], []
        for fold in range(FOLDS):
            rows, reward, weight, weighted = others[:, fold]
            scale = rows.sum() / weight.sum() if weight.sum() > 0 else 1.0
            folds.append(shrunk(rows, reward))
            robust.append(shrunk(weight * scale, weighted * scale))
        return np.stack(folds), shrunk(*early), np.stack(robust)


PRIOR_ROWS = 10.0


def shrunk(rows: Floats, reward: Floats) -> Floats:
    """Return [a] mean rewards, drawn towards the mean of all by ten rows' worth.

    Args:
        rows: [a] number of rows of each action.
        reward: [a] sum of their rewards.
    """
    overall = float(reward.sum() / rows.sum()) if rows.sum() > 0 else 0.0
    return (reward + PRIOR_ROWS * overall) / (rows + PRIOR_ROWS)


def survey_of(loaded: Loaded, extent: Extent, policy: Tested | None, *, sampled: tuple[str, ...]) -> Survey:
    """Return the survey of some rows.

    Args:
        loaded: the rows.
        extent: of the whole log.
        policy: the evaluation policy, for the weights of MRDR; None to leave them out.
        sampled: columns that are kept of the sampled rows; none for no sample.
    """
    log = loaded.interactions
    n, a = len(log), len(loaded.names)
    fold = fold_of_hash(loaded.hashed, FOLDS)
    chosen = loaded.ids[log.chosen]
    early = (loaded.ts < extent.cut).astype(np.int64)
    weights = np.zeros(n) if policy is None else _robust(loaded, policy)
    columns = [np.ones(n), log.reward, weights, weights * log.reward]
    cell = (early * FOLDS + fold) * a + chosen
    sums = exact_group_sums(columns, cell, 2 * FOLDS * a).reshape(-1, a)
    versions = interned(loaded.table["policy_version"])
    rows = np.bincount(versions.code, minlength=len(versions.names)).tolist()
    kept: tuple[pa.Table, ...] = ()
    if sampled:
        share = min(1.0, SAMPLE / max(extent.rows, 1))
        chosen_rows = (loaded.hashed >> np.uint64(40)).astype(np.float64) * 2.0**-24 < share
        there = [name for name in sampled if name in loaded.table.column_names]
        kept = (_plain(loaded.table.select(there).filter(pa.array(chosen_rows))),)
    return Survey(
        {name: sums[:, number].tolist() for number, name in enumerate(loaded.names)},
        {name: count for name, count in sorted(zip(versions.names, rows, strict=True)) if count},
        kept,
    )


def _robust(loaded: Loaded, policy: Tested) -> Floats:
    log = loaded.interactions
    return mrdr_row_weights(Rows.of(log, pmf_of(policy, loaded.table, log)))


def _plain(table: pa.Table) -> pa.Table:
    # Texts, not the codes of each batch's own dictionary: the sample is put together and sorted.
    fields = [field.with_type(_decoded(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def _decoded(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.list_(kind.value_field.with_type(_decoded(kind.value_type))) if pa.types.is_list(kind) else kind
