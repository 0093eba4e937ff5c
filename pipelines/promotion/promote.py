"""Who decides: the gate's verdict moves the champion, or writes down why it stays.

Where the loop has a guard, the gate makes a version the candidate, and the guard makes it the champion or stops it.
Each is one alias move that only happens if the champion still is the one the verdict was passed against. The way back
is `pipelines.promotion.rollback`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from decision.errors import FieldError
from decision.gate import judge
from decision.ope.diagnostics.refusals import UNSUPPORTED
from decision.ope.diagnostics.untried import LEAST, Untried
from pipelines.engines.engine import Engine
from pipelines.evaluation.evaluate import Evaluated, evaluate
from pipelines.evaluation.trajectories import Trajectories
from pipelines.evaluation.witness import Witness, heard
from pipelines.lake.lake import Lake
from pipelines.logs import step
from pipelines.progress import Progress, silent
from pipelines.registry.charge import WrittenVerdict
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings
from pipelines.training.trained import POLICY

if TYPE_CHECKING:
    from pipelines.fairness.gate import PanelGate  # imports SQLAlchemy's tables: only loops with panels need them


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate said of a version.

    Attributes:
        version: the version judged.
        promoted: whether it is the champion now.
        champion: the champion before; None when the baseline was in charge.
        candidate: the version that the guard rolls out now; None for none.
        reasons: why, in words.
        numbers: the numbers the verdict rests on.
        number: of the written verdict; None when there was nothing to decide.
    """

    version: str
    promoted: bool
    champion: str | None
    candidate: str | None = None
    reasons: list[str]
    numbers: dict[str, float | None] = {}
    number: int | None = None


@step("judged at the gate")
def promote(
    lake: Lake,
    registry: Registry,
    loop: LoopSettings,
    *,
    version: str | None = None,
    now: datetime,
    by: str,
    evaluated: Evaluated | None = None,
    table_version: int | None = None,
    replace_candidate: bool = True,
    panels: PanelGate | None = None,
    progress: Progress = silent,
    engine: Engine | None = None,
) -> Promotion:
    """Judge a version against the champion, or the baseline where there is none, and promote it if the gate opens.

    Args:
        lake: the tables.
        registry: the versions.
        loop: the loop; its gate settings decide.
        version: the version to judge; None for the latest trained one.
        now: time of the verdict, UTC.
        by: who asks, for the record.
        evaluated: the evaluation to judge by, when there is one of this version against the present champion.
        table_version: version of the interactions table to evaluate on; None for the present one.
        replace_candidate: with a guard, take the place of a version that is being rolled out; otherwise a version
            waits until the guard is done with the one before it.
        panels: the auditors' evidence; a loop with panels promotes nothing without.
        progress: told how far the evaluation is, if there has to be one.
        engine: who goes through the parts of the log for it; None for this process, one after the other.

    Returns:
        The promotion or refusal; a refusal is written down and is no error. Repeated, it changes nothing.

    Raises:
        FieldError: there is no version to judge.
        SupportError: the holdout cannot answer.
        AliasMovedError: the champion changed meanwhile; run it again.
    """
    named = version is not None
    version = version or latest(registry, loop.name)
    aliases = registry.aliases(loop.name)
    champion, candidate = aliases.get("champion"), aliases.get("candidate") if loop.guard.enabled else None
    if version == champion:
        return Promotion(version=version, promoted=True, champion=champion, reasons=["it is the champion already"])
    if candidate is not None and (version == candidate or not replace_candidate):
        reason = f"version {candidate} is being rolled out"
        return Promotion(version=version, promoted=False, champion=champion, candidate=candidate, reasons=[reason])
    if not named and (back := _taken_back(registry, loop.name, version)):
        reason = f"version {version} was {back.verdict.replace('_', ' ')} at {back.at}; name it to judge it again"
        return Promotion(version=version, promoted=False, champion=champion, reasons=[reason])
    if evaluated is None or (evaluated.version, evaluated.against_version) != (version, champion):
        evaluated = evaluate(
            lake, registry, loop, version, table_version=table_version, progress=progress, engine=engine
        )
    gate = loop.gate
    verdict = judge(
        evaluated.references(),
        alpha=gate.alpha,
        margin=gate.margin,
        minimum_ess=gate.minimum_ess,
    )
    against = f"against {evaluated.against}, on {evaluated.rows:,} decisions of the holdout"
    doubts = [f"doubt: {doubt}" for doubt in evaluated.lift_estimate.reasons]
    alarms = [f"alarm: {alarm}" for alarm in evaluated.health.alarms]
    reasons = [*verdict.reasons, *doubts, *alarms, against]
    opens, numbers = verdict.promote, dict(verdict.numbers)
    if evaluated.trajectories is not None:
        said = heard(
            evaluated.trajectories,
            evaluated.witness,
            minimum_ess=gate.minimum_ess,
            margin=verdict.numbers["margin"],
        )
        opens = (opens or (said.better and loop.guard.enabled)) and not said.refused
        reasons += [*said.refused, *_on_its_word(evaluated.witness, loop)] if said.better else said.refused
        reasons += _worst(evaluated.witness)
        numbers |= _numbers(evaluated.trajectories, evaluated.witness)
    if (unknown := evaluated.untried) is not None:
        reasons, numbers = [*reasons, *(told := _unknown(unknown))], numbers | {"untried": unknown.share}
        opens = opens and not told
    if loop.fairness.enabled:
        assessed = None if panels is None else panels.assess(version, champion, now=now, by=by)
        opens = opens and assessed is not None and assessed.passed
        reasons += ["fairness: the panels were not asked"] if assessed is None else assessed.reasons
        numbers |= {} if assessed is None else assessed.numbers
    fields = {"verdict": "promoted" if opens else "refused", "reasons": reasons, "numbers": numbers}
    fields |= {"at": now.astimezone(UTC).isoformat(), "by": by}
    rolled_out = opens and loop.guard.enabled
    if rolled_out:
        fields |= {"verdict": "candidate"}
        written = registry.set_alias(loop.name, "candidate", version, fields, expected=aliases.get("candidate"))
    elif opens:
        written = registry.set_alias(loop.name, "champion", version, fields, expected=champion)
    else:
        written = registry.refuse(loop.name, version, fields)
    return Promotion(
        version=version,
        promoted=opens and not rolled_out,
        champion=champion,
        candidate=version if rolled_out else None,
        reasons=reasons,
        numbers=written.numbers,
        number=written.number,
    )


def _unknown(found: Untried) -> list[str]:
    """Return why a version is refused that shows what the log did not; [] where it does not."""
    if found.share <= UNSUPPORTED:
        return []
    names = ", ".join(found.actions[:5]) + (" and others" if len(found.actions) > 5 else "")
    says = f"{found.share:.1%} of its choices are actions that fewer than 1 of {1 / LEAST:.0f} decisions drew ({names})"
    return [f"{says}: neither the log nor a simulator learned from it knows what they bring"]


def _on_its_word(witness: Witness | None, loop: LoopSettings) -> list[str]:
    """Return what is told of a version that the simulator held out calls better, in agreement with the log."""
    assert witness is not None  # noqa: S101 - it spoke
    least = witness.gain_low - witness.missed
    says = f"the simulator held out says {witness.gain:+.4f} over the log, {least:+.4f} at least"
    says += ", and the log agrees on users' first decisions"
    return [says if loop.guard.enabled else f"{says}; without a guard that is not enough"]


def _worst(witness: Witness | None) -> list[str]:
    """Return where the version does worst of all simulators that were learned; [] where no share is known."""
    if witness is None or witness.worst_share is None:
        return []
    share = f"{witness.worst_share:.3f} of what each user's best action brings there, held"
    return [f"note: of the simulators it earns least in {witness.worst}, {share}"]


def _numbers(found: Trajectories, witness: Witness | None) -> dict[str, float]:
    numbers = {"trajectories": found.value.value, "trajectories_logged": found.logged}
    if witness is None:
        return numbers
    if witness.worst_share is not None:
        numbers |= {"witness_worst_share": witness.worst_share}
    return numbers | {f"witness_{name}": getattr(witness, name) for name in ("gain", "gain_low", "gain_high", "missed")}


def latest(registry: Registry, loop: str) -> str:
    """Return the loop's newest trained version.

    Raises:
        FieldError: there is none.
    """
    trained = [entry.version for entry in registry.versions(loop) if entry.tags.get("kind") == POLICY]
    if not trained:
        raise FieldError(
            "version", wanted="a trained version", got=None, says="there is none yet; run `decision train`"
        )
    return trained[-1]


def _taken_back(registry: Registry, loop: str, version: str) -> WrittenVerdict | None:
    taken = (entry for entry in registry.verdicts(loop) if entry.verdict in ("rolled_back", "killed"))
    return next((entry for entry in taken if entry.from_version == version), None)
