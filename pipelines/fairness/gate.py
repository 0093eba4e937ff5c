"""The panel's part of the gate: standing violations re-scored, a probe's violation rate, and whether evidence suffices.

"Too little evidence" is a refusal with its reason, never a pass. The numbers and the head of the audit log go into the
promotion's verdict, so the registry is a second anchor of the chain.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
import numpy as np
import sqlalchemy as sa

from decision.fairness.agreement import in_words
from pipelines.fairness import tables as t
from pipelines.fairness.mine import policy_of
from pipelines.fairness.report import agreement_of, rate_of
from pipelines.fairness.standing import limits, rescore, upheld
from pipelines.fairness.store import Governance
from pipelines.fairness.verify import verify
from pipelines.lake.lake import Lake
from pipelines.progress import Progress, parted, silent
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, Settings

WORSE = 0.05
"""A pair's gap may not grow by more than this against the policy in charge while it violates."""


class Assessed(msgspec.Struct, frozen=True, kw_only=True):
    """What the panel's evidence says of a version.

    Attributes:
        passed: whether the gate may open.
        reasons: why, in words; refusals begin with ``fairness:``.
        numbers: what it rests on.
    """

    passed: bool
    reasons: list[str]
    numbers: dict[str, float | None]


class PanelGate:
    """Asks the panels of one loop about versions.

    Args:
        settings: the installation.
        lake: the tables.
        registry: the versions.
        loop: the loop.
        progress: as in `assess`.
    """

    def __init__(
        self, settings: Settings, lake: Lake, registry: Registry, loop: LoopSettings, progress: Progress = silent
    ) -> None:
        self._settings, self._lake, self._registry, self._loop = settings, lake, registry, loop
        self._progress = progress

    def assess(self, version: str, champion: str | None, *, now: datetime, by: str) -> Assessed:
        """Return what the panels say of `version`, and write it to the audit log."""
        with Governance.at(self._settings) as store:
            assessed = assess(store, self._lake, self._registry, self._loop, version, champion, self._progress)
            with store.write(now, by) as writing:
                body = {"version": version, "champion": champion, **msgspec.to_builtins(assessed)}
                body["settings"] = msgspec.to_builtins(self._loop.fairness)
                writing.log("gate", self._loop.name, body)
            head = store.head()
        note = f"audit log head {head.entries}:{head.head}"  # as `decision audit verify --head` takes it
        numbers = {**assessed.numbers, "fairness_audit_entries": float(head.entries)}
        return Assessed(passed=assessed.passed, reasons=[*assessed.reasons, note], numbers=numbers)


def assess(
    store: Governance,
    lake: Lake,
    registry: Registry,
    loop: LoopSettings,
    version: str,
    champion: str | None,
    progress: Progress = silent,
) -> Assessed:
    """Return what the panels' evidence says of a version.

    Args:
        store: the evidence.
        lake: where the judged decisions are.
        registry: the versions.
        loop: the loop; its fairness settings hold the limits.
        version: the version.
        champion: the version in charge; None for the baseline.
        progress: told of the audit log's entries checked, and of the parts of the evidence weighed.
    """
    rule = loop.fairness
    refusals: list[str] = []
    notes: list[str] = []
    faults = verify(store, progress=progress).faults
    if faults:
        refusals.append(f"fairness: the audit log does not verify: {faults[0].what}")
    part_done = parted(progress, "parts of the evidence weighed", 4)
    policy, _ = policy_of(registry, loop, version)
    stands = rescore(lake, loop, upheld(store, loop.name), policy)
    part_done()
    violating = sum(stands.violating)
    share = violating / len(stands.pairs) if stands.pairs else 0.0
    notes.append(f"fairness: {violating} of {len(stands.pairs)} upheld pairs still violate")
    if share > rule.standing:
        refusals.append(f"{notes.pop()}, {rule.standing:.0%} may")
    if champion is not None and stands.pairs:
        before = rescore(lake, loop, stands.pairs, policy_of(registry, loop, champion)[0])
        worse = [
            pair.task_id
            for pair, now, was, bad in zip(stands.pairs, stands.gaps, before.gaps, stands.violating, strict=True)
            if bad and abs(now) > abs(was) + WORSE
        ]
        if worse:
            refusals.append(f"fairness: {len(worse)} upheld pairs are treated less alike than before, {worse[0]} first")
    part_done()
    r = t.rules.c
    query = sa.select(t.tasks, r.quorum, r.sensitivity).join(t.rules, r.rule_id == t.tasks.c.rule_id)
    tasks = store.rows(query.where(t.tasks.c.loop == loop.name))
    decided = limits(store, [row for row in tasks if row["status"] in ("upheld", "dismissed")])
    probes = {row["task_id"] for row in tasks if row["stream"] == "probe"}
    scored = rescore(lake, loop, [pair for pair in decided if pair.task_id in probes], policy)
    gaps = {pair.task_id: gap for pair, gap in zip(scored.pairs, scored.gaps, strict=True)}
    part_done()
    limit = {pair.task_id: pair.limit for pair in scored.pairs}
    rate = rate_of(tasks, {name: abs(gap) > limit[name] for name, gap in gaps.items()})
    judged = 0 if rate is None else rate.pairs
    agreed = agreement_of(store, loop.name)
    part_done()
    if judged < rule.evidence:
        refusals.append(f"fairness: too little evidence: {judged} probe pairs are judged, {rule.evidence} are needed")
    if rate is not None:
        told = f"fairness: violation rate {rate.value:.4f} [{rate.low:.4f}, {rate.high:.4f}] among near pairs"
        if judged >= rule.evidence and rate.high > rule.rate:
            refusals.append(f"{told}, {rule.rate} is the limit")
        else:
            notes.append(told)
    if rule.evidence and agreed.alpha is not None and agreed.alpha < rule.agreement:
        refusals.append(
            f"fairness: too little evidence: the auditors {in_words(agreed)}: their agreement is {agreed.alpha:.2f}, "
            f"{rule.agreement} is needed"
        )
    numbers: dict[str, float | None] = {
        "fairness_value": registry.metrics(loop.name, version).get("eval.value"),
        "fairness_upheld": float(len(stands.pairs)),
        "fairness_violating": float(violating),
        "fairness_largest_gap": float(np.abs(stands.gaps).max()) if stands.gaps else 0.0,
        "fairness_rate": None if rate is None else rate.value,
        "fairness_rate_high": None if rate is None else rate.high,
        "fairness_probed": float(judged),
        "fairness_agreement": agreed.alpha,
    }
    return Assessed(passed=not refusals, reasons=[*refusals, *notes], numbers=numbers)
