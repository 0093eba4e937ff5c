"""What a version is worth before it decides anything: its value, the others', the paired lift, and its health.

Everything is computed on the holdout, rows that no generation learned from. The reward model of the doubly robust
terms is the version's own, which has not seen these rows either.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa

from decision.artifact import unpack
from decision.batch import Floats, Interactions
from decision.errors import FieldError, SupportError
from decision.ope.estimate import Estimate
from decision.ope.estimators.balanced import balanced
from decision.ope.estimators.dr import dr, dr_sums
from decision.ope.estimators.lift import Lift, lift_of, switched_lift_of
from decision.ope.estimators.snips import SnipsSums, snips
from decision.ope.weights import weights_of
from decision.policy import OraclePolicy, baseline_policy
from pipelines.evaluation.charts import evaluation_chart
from pipelines.evaluation.health import Health, health
from pipelines.evaluation.trajectories import Trajectories, remembered, trajectories
from pipelines.interactions.arrays import to_interactions
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.progress import Progress, parted, silent
from pipelines.registry.registry import Registry
from pipelines.registry.tracking import RegistryError
from pipelines.settings import LoopSettings
from pipelines.training.window import window
from pipelines.trajectories.memories import memory_of

MAX_ROWS = 50_000
"""Latest rows of the holdout that are looked at; more would narrow intervals that are narrow already."""
MAX_VERSIONS = 20
_SAME = 1e-6


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy is worth on the holdout.

    Attributes:
        role: its part in the comparison.
        policy: which, in words.
        dr: doubly robust estimate.
        snips: self-normalised importance sampling; None where the log has no support at all.
    """

    role: Literal["version", "against", "baseline"]
    policy: str
    dr: Estimate
    snips: Estimate | None


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation.

    Attributes:
        loop: the loop.
        version: the version evaluated.
        against: the policy that `lift` compares it with, in words.
        against_version: its version; None for the baseline.
        table_version: version of the interactions table.
        rows: holdout rows looked at.
        lift: paired difference, the version minus `against`.
        switched: the same by Switch-DR, narrower and leaning on the reward model.
        lift_estimate: the lift with its two-sided 95% interval.
        values: of the version, of what it is compared with, and of the baseline.
        health: what it would look like to serve the version.
        trajectories: for a policy with memory, what it is worth over users' first decisions.
    """

    loop: str
    version: str
    against: str
    against_version: str | None
    table_version: int
    rows: int
    lift: Lift
    switched: Lift
    lift_estimate: Estimate
    values: list[Value]
    health: Health
    trajectories: Trajectories | None = None

    def metrics(self) -> dict[str, float]:
        """Return the numbers, named for a tracking store; those of an unbounded interval are left out."""
        named: dict[str, Estimate | None] = {"lift": self.lift_estimate}
        for value in self.values:
            name = "value" if value.role == "version" else value.role
            named |= {name: value.dr, f"{name}_snips": value.snips}
        numbers = {
            f"eval.{name}{part}": number
            for name, estimate in named.items()
            if estimate is not None
            for part, number in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high))
        }
        if self.trajectories is not None:
            value = self.trajectories.value
            numbers |= {"eval.trajectories": value.value, "eval.trajectories_low": value.low}
            numbers |= {"eval.trajectories_high": value.high, "eval.trajectories_logged": self.trajectories.logged}
        numbers |= {"eval.rows": self.rows, "eval.ess": self.lift_estimate.ess, **self.health.metrics()}
        return {name: float(number) for name, number in numbers.items() if np.isfinite(number)}


@step("evaluated")
def evaluate(
    lake: Lake,
    registry: Registry,
    loop: LoopSettings,
    version: str,
    *,
    against: str | None = None,
    table_version: int | None = None,
    progress: Progress = silent,
) -> Evaluated:
    """Evaluate a version on the holdout and keep the numbers and a picture with it.

    Args:
        lake: the tables.
        registry: the versions.
        loop: the loop.
        version: the version.
        against: ``champion``, ``baseline`` or another version, to take the lift over; None for the champion, or the
            baseline where there is none.
        table_version: version of the interactions table; None for the present one.
        progress: told of the parts of the evaluation that are done.

    Raises:
        FieldError: the files of a version do not fit their manifest.
        RegistryError: there is no such version.
        SupportError: the holdout is empty, or `against` is a champion that does not exist.
    """
    part_done = parted(progress, "parts of the evaluation done", 5)
    aliases = registry.aliases(loop.name)
    champion = aliases.get("champion")
    rows = window(lake, loop, table_version)
    held = rows.holdout.slice(max(0, len(rows.holdout) - MAX_ROWS))
    if not len(held):
        raise SupportError(f"the holdout of loop {loop.name} is empty: {rows.data.rows} interactions so far")
    interactions = to_interactions(held)
    part_done()
    policy, _ = unpack(registry.files(loop.name, version))
    memory = memory_of(policy)
    seen = interactions if memory is None else remembered(lake, loop, held, memory, interactions)
    scores = policy.scores(seen.batch)
    pmf = policy.pmf_of(scores, seen.batch)
    part_done()
    baseline_name, baseline = _baseline(registry, loop, aliases.get("baseline"), interactions)
    against = against or ("champion" if champion else "baseline")
    other_version = None if against == "baseline" else champion if against == "champion" else against
    if against == "baseline":
        other_name, other = baseline_name, baseline
    elif other_version is None:
        raise SupportError(f"loop {loop.name} has no champion to compare with")
    else:
        other_name = f"{'champion, ' * (other_version == champion)}version {other_version}"
        another = _policy(registry, loop, other_version)
        kept = memory_of(another)
        other = another.pmf((interactions if kept is None else remembered(lake, loop, held, kept, interactions)).batch)
    part_done()
    weighed = _balanced(registry, loop, held, interactions)
    lift = lift_of(weighed, pmf, other, scores)
    switched = switched_lift_of(weighed, pmf, other, scores)
    part_done()
    values = [_value("version", f"version {version}", interactions, pmf, scores)]
    if against != "baseline":
        values.append(_value("against", other_name, interactions, other, scores))
    values.append(_value("baseline", baseline_name, interactions, baseline, scores))
    evaluated = Evaluated(
        loop=loop.name,
        version=version,
        against=other_name,
        against_version=other_version,
        table_version=rows.data.table_version,
        rows=len(interactions),
        lift=lift,
        switched=switched,
        lift_estimate=lift.estimate(),
        values=values,
        health=health(interactions, pmf, scores, nothing=loop.reward.default),
        trajectories=None if memory is None else trajectories(lake, loop, policy, memory, loop.gate.session_steps),
    )
    chart = evaluation_chart(
        f"{loop.name}, version {version}",
        {value.policy: value.dr for value in values},
        [(entry.predicted, entry.observed) for entry in evaluated.health.calibration],
        rows=evaluated.rows,
    )
    plots = {"evaluation.png": chart}
    registry.describe(loop.name, version, metrics=evaluated.metrics(), plots=plots)
    part_done()
    return evaluated


def _value(
    role: Literal["version", "against", "baseline"],
    name: str,
    interactions: Interactions,
    pmf: Floats,
    scores: Floats,
) -> Value:
    weights = weights_of(interactions, pmf)
    return Value(
        role=role,
        policy=name,
        dr=dr(dr_sums(interactions, pmf, scores)),
        snips=snips(SnipsSums.of(weights, interactions.reward)),
    )


def _balanced(registry: Registry, loop: LoopSettings, rows: pa.Table, interactions: Interactions) -> Interactions:
    """Return the log with balanced weights where several versions drew it and each repeats its own probabilities.

    A guard's mixture, a mask or another mode makes them differ: then every row keeps the weight it was logged with.
    """
    drawn_by = np.array(rows["policy_version"].to_pylist())
    versions, count = np.unique(drawn_by, return_counts=True)
    if not 1 < len(versions) <= MAX_VERSIONS:
        return interactions
    pmfs: list[Floats] = []
    for version in versions.tolist():
        try:
            if version.startswith("baseline:"):
                pmf = baseline_policy(loop.baseline.kind).pmf(interactions.batch)
            else:
                pmf = _policy(registry, loop, version).pmf(interactions.batch)
        except (FieldError, RegistryError, ImportError):
            return interactions
        own = drawn_by == version
        if np.abs(pmf[interactions.chosen] - interactions.propensity)[own].max() > _SAME:
            return interactions
        pmfs.append(pmf)
    return balanced(interactions, pmfs, count.tolist())


def _baseline(
    registry: Registry, loop: LoopSettings, alias: str | None, interactions: Interactions
) -> tuple[str, Floats]:
    if alias is not None:
        return f"baseline, version {alias}", _policy(registry, loop, alias).pmf(interactions.batch)
    return f"baseline, {loop.baseline.kind}", baseline_policy(loop.baseline.kind).pmf(interactions.batch)


def _policy(registry: Registry, loop: LoopSettings, version: str) -> OraclePolicy:
    return unpack(registry.files(loop.name, version))[0]
