"""Every distribution that was served, computed again from its record: by the versions that it names, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from decision.artifact import unpack
from decision.batch import Floats, Interactions
from decision.policy import Policy, UniformPolicy
from pipelines.interactions.arrays import to_interactions
from pipelines.registry.registry import Registry

EXACT = 1e-12
"""Most that a probability may differ by."""
_WHOLE = 1e-9


def differing(rows: pa.Table, registry: Registry, loop: str, candidates: Sequence[str]) -> int:
    """Return how many of the decisions in `rows` were drawn from another distribution than their record leads to.

    A decision beside which a candidate was computed was drawn from the distribution of one of both policies, or from
    their mixture; that of the one in charge and that of the candidate are computed again each.

    Args:
        rows: rows of the interactions.
        registry: the versions.
        loop: name of the loop.
        candidates: versions that were candidates.
    """
    wrong, held = 0, {version: _policy(registry, loop, version) for version in candidates}
    versions = np.array(rows["policy_version"].to_pylist(), dtype=object)
    beside = rows["pmf_candidate"].is_valid().to_numpy()
    for version in sorted(set(versions)):
        policy = _policy(registry, loop, str(version))
        for with_candidate in (False, True):
            some = rows.filter(pa.array((versions == version) & (beside == with_candidate)))
            if not len(some):
                continue
            log = to_interactions(some)
            bad = _off(policy, log, _flat(some, "pmf_baseline" if with_candidate else "pmf")) > EXACT
            if with_candidate:
                theirs = _flat(some, "pmf_candidate")
                bad |= np.min([_off(each, log, theirs) for each in held.values()], axis=0) > EXACT
                bad |= _mixed(some, log, theirs) > _WHOLE
            wrong += int(bad.sum())
    return wrong


def _policy(registry: Registry, loop: str, version: str) -> Policy:
    return UniformPolicy() if version == "baseline:uniform" else unpack(registry.files(loop, version))[0]


def _off(policy: Policy, log: Interactions, pmf: Floats) -> Floats:
    """Return [n] how far each distribution is from the policy's, at most."""
    return np.maximum.reduceat(np.abs(policy.pmf(log.batch) - pmf), log.batch.offsets[:-1])


def _mixed(rows: pa.Table, log: Interactions, candidate: Floats) -> Floats:
    """Return [n] how far what was drawn from is from either policy and from their mixture."""
    starts, sizes = log.batch.offsets[:-1], np.diff(log.batch.offsets)
    baseline, rho = _flat(rows, "pmf_baseline"), np.repeat(rows["guard_weight"].to_numpy(), sizes)
    ways = (baseline, candidate, (1.0 - rho) * baseline + rho * candidate)
    return np.min([np.maximum.reduceat(np.abs(log.pmf - way), starts) for way in ways], axis=0)


def _flat(rows: pa.Table, column: str) -> Floats:
    return pc.call_function("list_flatten", [rows[column].combine_chunks()]).to_numpy().astype(np.float64)
