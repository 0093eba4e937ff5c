"""What a version is worth before it decides anything: its value, the others', the paired lift, and its health.

Everything is computed on the holdout, rows that no generation learned from; all of them count, slice by slice. The
reward model of the doubly robust terms is the version's own, which has not seen these rows either.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from decision.artifact import unpack
from decision.errors import FieldError, SupportError
from decision.gate import Reference
from decision.ope.diagnostics.untried import Untried, untried
from decision.ope.estimate import Estimate
from decision.ope.estimators.dr import dr
from decision.ope.estimators.lift import Lift
from decision.ope.estimators.snips import snips
from pipelines.engines.engine import Engine, LocalEngine
from pipelines.evaluation.agreement import Agreement, agreement
from pipelines.evaluation.charts import evaluation_chart
from pipelines.evaluation.health import Health, health
from pipelines.evaluation.holdout import Compared, Worth
from pipelines.evaluation.judging import Asked, Files, drawn_by, judged
from pipelines.evaluation.trajectories import Trajectories, trajectories
from pipelines.evaluation.witness import Witness, witness_of
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.progress import Progress, parted, silent
from pipelines.registry.proven import Looks, last_proven
from pipelines.registry.registry import Registry
from pipelines.registry.tracking import RegistryError
from pipelines.reports.card import card, summary
from pipelines.settings import LoopSettings
from pipelines.training.aligned import is_mixed
from pipelines.training.window import window
from pipelines.trajectories.memories import memory_of

MAX_ROWS = 50_000
"""Latest rows of the holdout that the health is told from, at least; everything else counts all of them."""

Role = Literal["version", "against", "proven", "baseline"]


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy is worth on the holdout.

    Attributes:
        role: its part in the comparison.
        policy: which, in words.
        dr: doubly robust estimate.
        snips: self-normalised importance sampling; None where the log has no support at all.
    """

    role: Role
    policy: str
    dr: Estimate
    snips: Estimate | None


_WITNESSED = ("held_out", "gain", "gain_low", "gain_high", "error", "missed")
_AGREED = {"": "share", "_low": "low", "_high": "high"}


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation.

    Attributes:
        loop: the loop.
        version: the version evaluated.
        against: the policy that `lift` compares it with, in words.
        against_version: its version; None for the baseline.
        proven: the last version that was proven to be better, from which the gate's margin counts, in words.
        proven_version: its version; None for the baseline.
        looks: verdicts of the gate since.
        against_looks: verdicts of the gate since the champion is in charge.
        table_version: version of the interactions table.
        rows: holdout rows looked at.
        lift: paired difference, the version minus `against`.
        switched: the same by Switch-DR, narrower and leaning on the reward model.
        kept: the same over `against` diluted by the baseline with the gate's share; None where that is the baseline.
        predicted: the lift that the version's reward model predicts, in standard errors; None where nobody knows how
            far rewards lie from its predictions.
        over_proven: the version against the last proven one; None where that is `against`.
        proven_predicted: the same as `predicted`, over the last proven one.
        lift_estimate: the lift with its two-sided 95% interval.
        values: of the version, of what it is compared with, and of the baseline.
        health: what it would look like to serve the version.
        trajectories: for a policy with memory, what it is worth over users' first decisions.
        witness: for a policy with memory, what the simulator held out from its training says of it.
        untried: for a policy with memory, its own choices that the log hardly ever made.
        agreement: of a loop in apprentice mode, how often the version would have done what the application did.
    """

    loop: str
    version: str
    against: str
    against_version: str | None
    proven: str
    proven_version: str | None
    looks: Looks
    against_looks: Looks
    table_version: int
    rows: int
    lift: Lift
    switched: Lift
    kept: Lift | None
    predicted: float | None
    over_proven: Compared | None
    proven_predicted: float | None
    lift_estimate: Estimate
    values: list[Value]
    health: Health
    trajectories: Trajectories | None = None
    witness: Witness | None = None
    untried: Untried | None = None
    agreement: Agreement | None = None

    def references(self) -> list[Reference]:
        """Return what the gate holds the version to."""
        found = [(self.against, self.lift, self.kept, self.switched, self.predicted, self.against_looks)]
        if (one := self.over_proven) is not None:
            found.append((self.proven, one.lift, one.kept, one.switched, self.proven_predicted, self.looks))
        return [
            Reference(
                name,
                lift.estimate,
                None if kept is None else kept.estimate,
                switched.estimate,
                predicted,
                look=looks.verdicts + 1,
                likely=looks.likely + 1,
            )
            for name, lift, kept, switched, predicted, looks in found
        ]

    def metrics(self) -> dict[str, float]:
        """Return the numbers, named for a tracking store; those of an unbounded interval are left out."""
        named: dict[str, Estimate | None] = {"lift": self.lift_estimate}
        if self.over_proven is not None:
            named["lift_over_proven"] = self.over_proven.lift.estimate()
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
        if self.witness is not None:
            numbers |= {f"eval.witness_{name}": getattr(self.witness, name) for name in _WITNESSED}
        if self.untried is not None:
            numbers |= {"eval.untried": self.untried.share}
        if self.agreement is not None:
            numbers |= {f"eval.agreement{part}": getattr(self.agreement, of) for part, of in _AGREED.items()}
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
    engine: Engine | None = None,
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
        engine: who goes through the parts of the log; None for this process, one after the other.

    Raises:
        FieldError: the files of a version do not fit their manifest.
        RegistryError: there is no such version.
        SupportError: the holdout is empty, or `against` is a champion that does not exist.
    """
    part_done = parted(progress, "parts of the evaluation done", 4)
    aliases = registry.aliases(loop.name)
    champion = aliases.get("champion")
    engine = engine or LocalEngine(1)
    rows = window(lake, loop, table_version, engine=engine)
    if not rows.data.holdout:
        raise SupportError(f"the holdout of loop {loop.name} is empty: {rows.data.rows} interactions so far")
    part_done()
    files: dict[str, Files] = {version: registry.files(loop.name, version)}
    policy, manifest = unpack(files[version])
    alias = aliases.get("baseline")
    base = f"baseline, {loop.reference}" if alias is None else f"baseline, version {alias}", alias
    against = against or ("champion" if champion else "baseline")
    other_version = None if against == "baseline" else champion if against == "champion" else against
    if against == "champion" and other_version is None:
        raise SupportError(f"loop {loop.name} has no champion to compare with")
    standing = last_proven(registry.verdicts(loop.name), champion)
    other = base if other_version is None else _named(other_version, champion=other_version == champion)
    proven = base if standing.version is None else _named(standing.version, proven=standing.version != champion)
    if standing.version == other_version:
        proven = other
    for _, asked_version in (base, other, proven):
        if asked_version is not None and asked_version not in files:
            files[asked_version] = registry.files(loop.name, asked_version)
    drawn = _with_files(registry, loop, drawn_by(rows, engine), files)
    asked = Asked(rows, lake.path, loop, files, version, dict([other, proven]), base, drawn, MAX_ROWS)
    found = judged(asked, engine)
    if found is None or found.sums is None:
        why = "is empty"
        if found is not None and found.unread:
            why = f"has no row that can be read: {found.unread[min(found.unread)]}"
        raise SupportError(f"the holdout of loop {loop.name} {why}")
    part_done()
    sums, latest, memory = found.sums, found.latest, memory_of(policy)
    compared, base_name = sums.compared, base[0]
    newest, pmf, scores = latest.joined()
    mixed = is_mixed(manifest.training)
    sigma = 0.0 if mixed else policy.exploration.sigma
    values = [_value("version", f"version {version}", sums.worth[""])]
    if other_version is not None:
        values.append(_value("against", other[0], sums.worth[other[0]]))
    if proven[0] not in (other[0], base_name):
        values.append(_value("proven", proven[0], sums.worth[proven[0]]))
    values.append(_value("baseline", base_name, sums.worth[base_name]))
    evaluated = Evaluated(
        loop=loop.name,
        version=version,
        against=other[0],
        against_version=other_version,
        proven=proven[0],
        proven_version=standing.version,
        looks=standing.looks,
        against_looks=standing.champion,
        table_version=rows.data.table_version,
        rows=sums.rows,
        lift=compared[other[0]].lift,
        switched=compared[other[0]].switched,
        kept=compared[other[0]].kept,
        predicted=compared[other[0]].score(sigma),
        over_proven=None if proven == other else compared[proven[0]],
        proven_predicted=compared[proven[0]].score(sigma),
        lift_estimate=compared[other[0]].lift.estimate(),
        values=values,
        health=health(newest, pmf, scores, nothing=loop.reward.default, featured=latest.featured),
        trajectories=None if memory is None else trajectories(lake, loop, policy, memory, loop.gate.session_steps),
        witness=witness_of(lake, registry, loop.name, version, manifest, rows.data.table_version),
        untried=None if memory is None else untried(newest, pmf, floor=policy.exploration.floor),
        agreement=agreement(version, newest, pmf if mixed or memory is not None else scores)
        if loop.mode == "apprentice"
        else None,
    )
    chart = evaluation_chart(
        f"{loop.name}, version {version}",
        {value.policy: value.dr for value in values},
        [(entry.predicted, entry.observed) for entry in evaluated.health.calibration],
        rows=evaluated.rows,
    )
    plots = {"evaluation.png": chart}
    told = msgspec.to_builtins(evaluated)
    words = summary(manifest, told), card(manifest, version, told)
    registry.describe(loop.name, version, metrics=evaluated.metrics(), plots=plots, words=words)
    part_done()
    return evaluated


def _value(role: Role, name: str, worth: Worth) -> Value:
    return Value(role=role, policy=name, dr=dr(worth.dr), snips=snips(worth.snips))


def _named(version: str, *, champion: bool = False, proven: bool = False) -> tuple[str, str]:
    """Return the name of a version in words, and the version."""
    role = "champion, " if champion else "last proven, " if proven else ""
    return f"{role}version {version}", version


def _with_files(
    registry: Registry, loop: LoopSettings, drawn: dict[str, int], files: dict[str, Files]
) -> dict[str, int]:
    """Return `drawn` with the files of all its versions in `files`; empty where those of one cannot be had."""
    for version in drawn:
        if version in files or version.startswith("baseline:"):
            continue
        try:
            files[version] = registry.files(loop.name, version)
        except (FieldError, RegistryError):
            return {}
    return drawn
