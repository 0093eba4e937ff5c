"""Two versions side by side: what each learned from, which settings differ, what each is worth, and where they differ.

Both are asked about the same held-out decisions, so the difference of their values has a paired interval. The reward
model of the doubly robust terms is the mean of both; neither has seen these rows. Segments' intervals hold together.
Nothing is written.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from decision.artifact import Manifest, unpack
from decision.batch import Floats, Interactions, Ints
from decision.columns import FeatureRows, Texts, joined
from decision.drift.layout import laid_out, members
from decision.drift.observed import Described
from decision.errors import SupportError
from decision.ope.estimate import Estimate
from decision.ope.estimators.dr import dr, dr_sums, dr_terms
from decision.ope.estimators.lift import Lift, lift_of
from decision.ope.intervals.simultaneous import simultaneous
from decision.ope.sums.means import MeanSums
from decision.ope.weights import weights_of
from decision.policy import OraclePolicy
from decision.ragged import group_sum
from pipelines.evaluation.holdout import users_of
from pipelines.evaluation.judging import Asking
from pipelines.interactions.arrays import read_apart
from pipelines.lake.lake import Lake
from pipelines.progress import Progress, counted, silent
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings
from pipelines.training.window import window

MAX_ROWS = 50_000
"""Newest decisions of the holdout that are asked about."""
LEAST = 100
"""Decisions of a segment without which nothing is said of it."""
_LARGEST = 0.95
_SHOWN = 20
_NOT_SETTINGS = ("alarms", "auxiliary", "variants", "mean_reward", "fairness_pairs")


class LearnedFrom(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version comes from.

    Attributes:
        version: the version.
        created_at: when it was trained, ISO 8601.
        rows: decisions in its window.
        sampled: those that it learned from.
        first_ts: time of the oldest, ISO 8601.
        last_ts: of the newest.
    """

    version: str
    created_at: str
    rows: int
    sampled: int
    first_ts: str
    last_ts: str


class Differing(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that differs, by its path in the manifest; null where one version has none."""

    name: str
    first: Any
    second: Any


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How often each version would draw an action, of all decisions."""

    action_id: str
    first: float
    second: float


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions that have something in common.

    Attributes:
        of: what, for example ``device=mobile``.
        rows: how many.
        apart: mean share of draws that the two versions give to other actions, 0 to 1.
        lift: what the second version is worth more; its interval holds together with those of all segments.
    """

    of: str
    rows: int
    apart: float
    lift: Estimate


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions side by side.

    Attributes:
        loop: the loop.
        trained: where the first and the second come from.
        settings: those that differ.
        rows: held-out decisions that both were asked about.
        values: of the first and the second, doubly robust.
        lift: the second less the first, paired, with its 95% interval.
        same_choice: share of decisions of which both find the same action best.
        apart: mean share of draws that they give to other actions, 0 to 1.
        actions: those whose share of draws differs the most.
        segments: those where the lift is not 0 first, then by how far apart they are.
    """

    loop: str
    trained: list[LearnedFrom]
    settings: list[Differing]
    rows: int
    values: list[Estimate]
    lift: Estimate
    same_choice: float
    apart: float
    actions: list[Share]
    segments: list[Segment]


class _Slice(NamedTuple):
    """What came of some rows: terms of the lift, weights, distance of the draws, and the decisions' features."""

    terms: Floats
    weight: Floats
    apart: Floats
    same: NDArray[np.bool_]
    contexts: FeatureRows


def compare_versions(
    lake: Lake, registry: Registry, loop: LoopSettings, first: str, second: str, *, progress: Progress = silent
) -> Comparison:
    """Return two versions of a loop side by side.

    Args:
        lake: the tables.
        registry: the versions.
        loop: the loop.
        first: the version that the other one is compared with.
        second: the version whose lift is told.
        progress: told of the parts of the holdout that were read.

    Raises:
        RegistryError: there is no such version.
        SupportError: the holdout is empty.
    """
    files = {version: registry.files(loop.name, version) for version in (first, second)}
    manifests = [unpack(files[version])[1] for version in (first, second)]
    rows, asking = window(lake, loop), Asking(lake, loop, files)
    reward = rows.reward
    slices, values, lift = list[_Slice](), [MeanSums(), MeanSums()], None
    shares, total = dict[str, list[float]](), 0
    for number in counted(reversed(rows.slices), progress, "parts of the holdout read", total=len(rows.slices)):
        table = rows.judged_in(number)
        log, errors = read_apart(table)
        kept = np.setdiff1d(np.arange(len(table)), list(errors))
        if not kept.size:
            continue
        table, log = table.take(pa.array(kept)), log.take(kept)
        (old, one), (new, other) = (_asked(asking, version, table, log) for version in (first, second))
        expected = (one + other) / 2.0
        clusters = users_of(table, loop.name)
        values = [sums + dr_sums(log, pmf, expected, clusters) for sums, pmf in zip(values, (old, new), strict=True)]
        more = lift_of(log, new, old, expected, reward, clusters=clusters)
        lift = more if lift is None else lift + more
        slices.append(_slice(log, old, new, one, other, expected))
        _add(shares, log, old, new)
        total += len(log)
        if total >= MAX_ROWS:
            break
    if lift is None:
        raise SupportError(f"the holdout of loop {loop.name} is empty: {rows.data.rows} interactions so far")
    return _compared(loop, manifests, (first, second), slices, values, lift, shares)


def differing(first: Manifest, second: Manifest) -> list[Differing]:
    """Return the settings, and the code and libraries, in which two manifests differ."""
    flat = [_flat(manifest) for manifest in (first, second)]
    names = dict.fromkeys([*flat[0], *flat[1]])
    return [
        Differing(name=name, first=flat[0].get(name), second=flat[1].get(name))
        for name in names
        if flat[0].get(name) != flat[1].get(name)
    ]


def _compared(
    loop: LoopSettings,
    manifests: list[Manifest],
    versions: tuple[str, str],
    slices: list[_Slice],
    values: list[MeanSums],
    lift: Lift,
    shares: dict[str, list[float]],
) -> Comparison:
    apart = np.concatenate([part.apart for part in slices])
    ranked = sorted(shares.items(), key=lambda entry: -abs(entry[1][1] - entry[1][0]))
    n = apart.size
    return Comparison(
        loop=loop.name,
        trained=[_from(version, manifest) for version, manifest in zip(versions, manifests, strict=True)],
        settings=differing(*manifests),
        rows=n,
        values=[dr(sums) for sums in values],
        lift=lift.estimate(),
        same_choice=float(np.concatenate([part.same for part in slices]).mean()),
        apart=float(apart.mean()),
        actions=[Share(action_id=name, first=a / n, second=b / n) for name, (a, b) in ranked[:_SHOWN] if a != b],
        segments=_segments(slices, apart),
    )


def _asked(asking: Asking, version: str, table: pa.Table, log: Interactions) -> tuple[Floats, Floats]:
    policy: OraclePolicy = asking.policy(version)
    batch = asking.seen(policy, table, log).batch
    scores = policy.scores(batch)
    return policy.pmf_of(scores, batch), scores


def _slice(log: Interactions, old: Floats, new: Floats, first: Floats, second: Floats, expected: Floats) -> _Slice:
    offsets = log.batch.offsets
    return _Slice(
        dr_terms(log, new, expected) - dr_terms(log, old, expected),
        weights_of(log, new),
        group_sum(np.abs(new - old), offsets) / 2.0,
        _best(first, offsets) == _best(second, offsets),
        FeatureRows.of(log.batch.contexts),
    )


def _best(scores: Floats, offsets: Ints) -> Ints:
    """Return [n] which of its actions scores the most in each decision, the first of equals."""
    row = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
    order = np.lexsort((np.arange(scores.size), -scores, row))
    return order[offsets[:-1]]


def _add(shares: dict[str, list[float]], log: Interactions, old: Floats, new: Floats) -> None:
    ids = Texts.of(log.batch.action_ids)
    for side, pmf in enumerate((old, new)):
        for name, draws in zip(ids.names, np.bincount(ids.code, pmf, len(ids.names)).tolist(), strict=True):
            shares.setdefault(name, [0.0, 0.0])[side] += draws


def _segments(slices: list[_Slice], apart: Floats) -> list[Segment]:
    contexts = joined([part.contexts for part in slices])
    name, value, offsets = contexts.entries()
    every = np.arange(apart.size, dtype=np.int64)
    observed = Described(
        row=np.repeat(every, np.diff(offsets)),
        name=Texts(contexts.names, name.astype(np.int64)),
        value=value,
        weight=np.ones(every.size),
        block=every,
        subject=every,
    )
    terms, weight = (np.concatenate([getattr(part, of) for part in slices]) for of in ("terms", "weight"))
    features, found = laid_out(observed), dict[str, Ints]()
    for feature, (row, cell) in zip(features, members(features, observed), strict=True):
        for at in range(feature.cells):
            own = row[cell == at]
            if LEAST <= own.size <= _LARGEST * every.size:
                found[feature.segment(at)] = own
    lifts = simultaneous({of: MeanSums.of(terms[own], weight[own], cubes=True) for of, own in found.items()})
    segments = [
        Segment(of=of, rows=own.size, apart=float(apart[own].mean()), lift=lifts[of]) for of, own in found.items()
    ]
    return sorted(segments, key=lambda one: (one.lift.low <= 0.0 <= one.lift.high, -one.apart))[:_SHOWN]


def _from(version: str, manifest: Manifest) -> LearnedFrom:
    data = manifest.data
    return LearnedFrom(
        version=version,
        created_at=manifest.created_at,
        rows=int(data.get("rows", 0)),
        sampled=int(data.get("sampled", 0)),
        first_ts=str(data.get("first_ts", "")),
        last_ts=str(data.get("last_ts", "")),
    )


def _flat(manifest: Manifest) -> dict[str, Any]:
    parts: dict[str, dict[str, Any]] = {
        "training": {name: value for name, value in manifest.training.items() if name not in _NOT_SETTINGS},
        "exploration": msgspec.to_builtins(manifest.exploration),
        "reward": manifest.reward,
        "libraries": manifest.libraries,
    }
    flat = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    return {
        "oracle": manifest.oracle,
        "code_version": manifest.code_version,
        "features_version": manifest.features_version,
        "seed": manifest.seed,
        **flat,
    }
