"""The demo's books, closed: what the application wrote down against what the lake holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from decision.artifact import unpack
from decision.batch import Floats
from decision.policy import UniformPolicy
from pipelines.demo.result import Proof
from pipelines.demo.traffic import Acknowledged, Status
from pipelines.interactions.arrays import to_interactions
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.replay.propensities import check_propensities

_POINTS = 300
_BINS = np.geomspace(1e-3, 1.0, 13)


def prove(lake: Lake, registry: Registry, loop: str, journal: list[Acknowledged], status: Status) -> Proof:
    """Return the comparison of the journal with the lake, and the proof of the propensities.

    Args:
        lake: the tables, everything ingested and joined.
        registry: the versions.
        loop: the loop.
        journal: the application's.
        status: its last.
    """
    decisions, outcomes = lake.decisions(loop), lake.outcomes(loop)
    answered = {entry.event_id: entry for entry in journal if entry.kind == "decision"}
    reported = [entry.key for entry in journal if entry.kind == "outcome"]
    waits = np.array([entry.ms for entry in answered.values()])
    return Proof(
        lost_decisions=len(answered.keys() - set(decisions["event_id"].to_pylist())),
        lost_outcomes=len(set(reported) - set(outcomes["idempotency_key"].to_pylist())),
        failed_requests=status.failed,
        repeated_requests=status.repeated,
        changed_answers=status.changed,
        differing_answers=_differing(decisions, answered),
        mixed_versions=_mixed(lake.interactions(loop), registry, loop),
        repeated_outcomes=len(reported) - len(set(reported)),
        propensities=check_propensities(decisions),
        median_ms=float(np.median(waits)),
        p99_ms=float(np.quantile(waits, 0.99)),
    )


def _differing(decisions: pa.Table, answered: dict[str, Acknowledged]) -> int:
    columns = ("event_id", "action_ids", "action_index", "propensity", "policy_version")
    count = 0
    for row in decisions.select(columns).to_pylist():
        entry = answered.get(row["event_id"])
        if entry is None:
            continue
        logged = (row["action_ids"][row["action_index"]], row["propensity"], row["policy_version"])
        count += logged != (entry.action_id, entry.propensity, entry.version)
    return count


def _mixed(rows: pa.Table, registry: Registry, loop: str) -> int:
    wrong = 0
    versions = np.array(rows["policy_version"].to_pylist(), dtype=object)
    for version in sorted(set(versions)):
        some = to_interactions(rows.filter(pa.array(versions == version)))
        policy = UniformPolicy() if version == "baseline:uniform" else unpack(registry.files(loop, str(version)))[0]
        gap = np.abs(policy.pmf(some.batch) - some.pmf)
        wrong += int((np.maximum.reduceat(gap, some.batch.offsets[:-1]) > 1e-12).sum())
    return wrong


def regret_curves(journal: list[Acknowledged], *, uniform: float, optimum: float) -> list[dict[str, Any]]:
    """Return cumulative regret after every so many decisions: ``decision``, ``what``, ``regret``."""
    expected = expected_rewards(journal)
    served, drawn = np.cumsum(optimum - expected), (optimum - uniform) * np.arange(1, len(expected) + 1)
    at = np.unique(np.linspace(0, len(expected) - 1, _POINTS).astype(int))
    curves = {"the service": served, "uniform": drawn, "oracle": np.zeros(len(expected))}
    return [
        {"decision": int(index) + 1, "what": what, "regret": float(curve[index])}
        for what, curve in curves.items()
        for index in at
    ]


def expected_rewards(journal: list[Acknowledged]) -> Floats:
    """Return [n] the exact expected reward of each answer, in the order they came."""
    decisions = sorted((entry for entry in journal if entry.kind == "decision"), key=lambda entry: entry.at)
    return np.array([entry.expected for entry in decisions])


def answers_by_second(journal: list[Acknowledged]) -> list[dict[str, Any]]:
    """Return how often each version answered in each second, stacked.

    Rows have ``second``, ``end``, ``version``, and ``low`` and ``high``, the answers before and with this version's.
    """
    counts: dict[tuple[int, str], int] = {}
    for entry in journal:
        if entry.kind == "decision":
            key = (int(entry.at), entry.version)
            counts[key] = counts.get(key, 0) + 1
    found: list[dict[str, Any]] = []
    below: dict[int, int] = {}
    for (second, version), count in counts.items():
        low = below.get(second, 0)
        below[second] = low + count
        found.append({"second": second, "end": second + 1, "version": version, "low": low, "high": low + count})
    return found


def first_answers(journal: list[Acknowledged]) -> list[dict[str, Any]]:
    """Return when each version answered first: ``second``, ``version``."""
    first: dict[str, float] = {}
    for entry in journal:
        if entry.kind == "decision":
            first[entry.version] = min(entry.at, first.get(entry.version, entry.at))
    return [{"second": second, "version": version} for version, second in first.items()]


def calibration_bins(decisions: pa.Table) -> list[dict[str, Any]]:
    """Return logged probabilities against frequencies of being drawn, over all actions of all decisions."""
    pmf = np.concatenate([np.asarray(row) for row in decisions["pmf"].to_pylist()])
    sizes = np.array([len(row) for row in decisions["action_ids"].to_pylist()])
    drawn = np.zeros(len(pmf))
    drawn[np.cumsum(sizes) - sizes + decisions["action_index"].to_numpy()] = 1.0
    bins = np.digitize(pmf, _BINS)
    found: list[dict[str, Any]] = []
    for index in np.unique(bins):
        here = bins == index
        probability, frequency = float(pmf[here].mean()), float(drawn[here].mean())
        error = 1.96 * float(np.sqrt((pmf[here] * (1 - pmf[here])).sum())) / int(here.sum())
        if frequency > 0:
            low = max(frequency - error, frequency / 10)
            found.append({"probability": probability, "frequency": frequency, "low": low, "high": frequency + error})
    return found
