"""A report on a log before training: what it could teach, by generation, and which trainers it suits.

A context is a (context, action) pair's first half: decisions with the same context text are the same state. Contexts
that never repeat make every pair unique, and SACo says nothing; then only coverage of actions is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import msgspec
import numpy as np
import pyarrow as pa

from decision.errors import SupportError
from decision.ope.diagnostics.log_quality import LogQuality, coverage, trajectory_quality
from decision.ope.sums.exact import exact_group_sums
from pipelines.engines.engine import Engine
from pipelines.interactions.arrays import interned
from pipelines.replay.passes import Job
from pipelines.replay.policy import PolicySpec
from pipelines.replay.rows import load, text_hash
from pipelines.replay.source import COLUMNS, FLAT, Source

MAX_PAIRS = 2_000_000
_STATES = 1 << 20  # contexts are counted in this many cells by their hash
_LEAST_ROWS, _LEAST_ESS, _LEAST_ACTION_ROWS = 1_000, 0.02, 30
_LEARNED, _UNIQUE = 0.3, 0.9
_COLUMNS = tuple(name for name in COLUMNS if name not in ("actions", "feature_snapshot", "seed", *FLAT))


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What a log or one generation of it could teach.

    Attributes:
        name: ``all``, or the version that drew it.
        rows: decisions.
        actions: different actions drawn.
        coverage: share of the actions offered anywhere that were drawn 30 times or more.
        saco: unique pairs of context and action over those that a uniform log of as many rows would be expected to
            have; None where contexts hardly ever repeat.
        tq: mean reward between the worst (0) and the best (1) policy known: the log's generations, and choosing one
            action always, by weights, where 30 rows or more count for it; None where there are no two.
        reward: mean reward.
        entropy: 1 for a uniform log, 0 for one without chance.
        forced: share of decisions that could hardly have gone another way.
        uniform_ess: effective sample size for the uniform policy, as a share.
        suits: trainers that the log suits.
        reasons: why not others, in words.
    """

    name: str
    rows: int
    actions: int
    coverage: float
    saco: float | None
    tq: float | None
    reward: float
    entropy: float
    forced: float
    uniform_ess: float
    suits: list[str]
    reasons: list[str]


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """The report.

    Attributes:
        log: its name.
        whole: of all decisions.
        parts: of every generation.
    """

    log: str
    whole: Part
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Taken:
    """Sums of one generation; `+` merges shards.

    Attributes:
        quality: of exploration and reward.
        actions: rows, and sums of 1/p, 1/p^2 and r/p (multiples of 2^-1074), by action drawn.
        offered: ids of actions offered.
        pairs: hashes of (context, action) pairs drawn, and of contexts with the number of actions they offered.
        states: {hash of a context: number of its rows}.
        chance: sum over contexts of offered actions, for the reference.
    """

    quality: LogQuality = field(default_factory=LogQuality)
    actions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    offered: frozenset[str] = frozenset()
    pairs: frozenset[int] = frozenset()
    states: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __add__(self, other: Taken) -> Taken:
        actions = dict(self.actions)
        for name, sums in other.actions.items():
            here = actions.get(name, (0,) * len(sums))
            actions[name] = tuple(a + b for a, b in zip(here, sums, strict=True))
        states = dict(self.states)
        for key, (rows, most) in other.states.items():
            seen = states.get(key, (0, 0))
            states[key] = (seen[0] + rows, max(seen[1], most))
        return Taken(
            self.quality + other.quality, actions, self.offered | other.offered, self.pairs | other.pairs, states
        )


def describe(source: Source, engine: Engine, *, log: str) -> Description:
    """Return the report on a log.

    Args:
        source: where the rows are.
        engine: who reads them.
        log: name of the log.

    Raises:
        SupportError: there are no rows.
    """
    job = Job(source=source, policy=PolicySpec(kind="uniform", name=""))
    found = engine.total(describe_unit, merged, job, source.units())
    if not found:
        raise SupportError(f"{log}: there are no settled decisions to describe")
    whole = reduce(add, found.values())
    means = _means(found.values(), whole)
    parts = [_part(name or "(none)", taken, whole, means) for name, taken in sorted(found.items())]
    return Description(log=log, whole=_part("all", whole, whole, means), parts=parts)


def merged(one: dict[str, Taken], other: dict[str, Taken]) -> dict[str, Taken]:
    """Return the sums of both by generation."""
    alike = {name: one[name] + taken if name in one else taken for name, taken in other.items()}
    return one | alike


def describe_unit(job: Job, unit: int) -> dict[str, Taken]:
    """Return the sums of a unit of the log by generation."""
    found: dict[str, Taken] = {}
    for table in job.source.batches(unit, _COLUMNS):
        versions = interned(table["policy_version"])
        for code in np.unique(versions.code).tolist():
            version = versions.names[code]
            taken = _taken(table.filter(pa.array(versions.code == code)))
            found[version] = found[version] + taken if version in found else taken
    return found


def _taken(table: pa.Table) -> Taken:
    loaded = load(table, features=False, counted=False)
    log = loaded.interactions
    chosen = loaded.ids[log.chosen]
    a = len(loaded.names)
    counts = np.bincount(chosen, minlength=a)
    inverse = 1.0 / log.propensity
    sums = exact_group_sums([inverse, inverse**2, log.reward * inverse], chosen, a)
    state = text_hash(table["context"].to_numpy(zero_copy_only=False)) % np.uint64(_STATES)
    name = text_hash(np.array(loaded.names, dtype=object))
    sizes = np.diff(log.batch.offsets)
    cells, place, rows = np.unique(state, return_inverse=True, return_counts=True)
    most = np.zeros(len(cells), dtype=np.int64)
    np.maximum.at(most, place, sizes)
    pair = state * np.uint64(2**32) + name[chosen] % np.uint64(2**32)
    return Taken(
        LogQuality.of(log),
        {loaded.names[i]: (int(counts[i]), *sums[:, i].tolist()) for i in np.flatnonzero(counts)},
        frozenset(loaded.names),
        frozenset(np.unique(pair).tolist()),
        {int(cell): (int(n), int(k)) for cell, n, k in zip(cells, rows, most, strict=True)},
    )


def _means(generations: Iterable[Taken], whole: Taken) -> list[float]:
    """Return the mean rewards of the policies known."""
    found = [taken.quality.mean_reward for taken in generations if taken.quality.rows >= _LEAST_ACTION_ROWS]
    for _, weight, square, reward in whole.actions.values():
        if weight * weight >= _LEAST_ACTION_ROWS * (square << 1074):
            found.append(reward / weight)
    return found


def _part(name: str, taken: Taken, whole: Taken, means: list[float]) -> Part:
    quality, rows = taken.quality, taken.quality.rows
    drawn = sum(sums[0] >= _LEAST_ACTION_ROWS for sums in taken.actions.values())
    covered = drawn / max(len(whole.offered), 1)
    suits, reasons = _suits(quality, covered)
    repeats = 1.0 - len(taken.states) / max(rows, 1)
    saco = None
    if repeats > 1.0 - _UNIQUE and len(taken.pairs) <= MAX_PAIRS:
        # Of n draws among k actions alike, k (1 - (1 - 1/k)^n) are different on average.
        expected = sum(k * -np.expm1(n * np.log1p(-1.0 / k)) if k > 1 else 1.0 for n, k in taken.states.values())
        saco = coverage(len(taken.pairs), round(float(expected)))
    best = trajectory_quality(quality.mean_reward, worst=min(means), best=max(means)) if means else None
    return Part(
        name=name,
        rows=rows,
        actions=len(taken.actions),
        coverage=covered,
        saco=saco,
        tq=best,
        reward=quality.mean_reward,
        entropy=quality.mean_entropy,
        forced=quality.forced_share,
        uniform_ess=quality.uniform_ess_share,
        suits=suits,
        reasons=reasons,
    )


def _suits(quality: LogQuality, covered: float) -> tuple[list[str], list[str]]:
    suits: list[str] = []
    reasons: list[str] = []
    if quality.rows < _LEAST_ROWS:
        reasons.append(f"{quality.rows} decisions are few: expect a model of actions' means at best")
    if covered < 1.0:
        reasons.append(f"{1 - covered:.0%} of the actions were drawn fewer than {_LEAST_ACTION_ROWS} times")
    explored = quality.uniform_ess_share >= _LEAST_ESS and quality.forced_share < 1.0
    if quality.rows >= _LEAST_ROWS:
        suits.append("regression oracle, unweighted")
    if explored and quality.rows >= _LEAST_ROWS:
        suits += ["regression oracle, importance weighted", "off-policy gradient"]
    elif not explored:
        reasons.append(
            f"{quality.uniform_ess_share:.1%} of the decisions count for the uniform policy: weights would carry noise"
        )
    if quality.forced_share >= 1.0:
        reasons.append("no decision could have gone another way: nothing can be evaluated off-policy")
    if quality.mean_entropy < _LEARNED:
        suits.append("imitation of the logged policy")
    return suits, reasons
