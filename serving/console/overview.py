"""What the first page shows of each loop, from counters, the nights' manifests and State."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import msgspec
from markupsafe import Markup

from decision.errors import FieldError
from decision.guard.snapshot import GuardSnapshot, largest_weight_at
from pipelines.evaluation.rewards import Running, running
from pipelines.evaluation.standing import Alarm, Standing, alarms_key, standing_in
from pipelines.reports.lines import spark
from serving.console.counted import Counted
from serving.console.frame import policy_words, share
from serving.console.nights import Night, Number
from serving.console.rates import Rates
from serving.core import Core
from serving.wire import LoopDescription

_LEVEL = 0.95


class Lift(NamedTuple):
    """What the policy in charge brings over the baseline, with an interval; None for the numbers that nobody knows."""

    value: float
    low: float
    high: float
    night: str


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """A loop at a glance.

    Attributes:
        name: the loop.
        says: how it runs, as `serving.wire.LoopDescription`.
        in_charge: who decides, in words.
        candidate: who is being rolled out and how far, in words; "" for nobody.
        per_second: decisions a second of the last minute; None where nothing was counted for long enough.
        decided: decisions since the service started.
        fallbacks: those of them that the baseline took because the policy failed.
        outcomes: outcomes since the service started.
        value: mean reward so far, with an interval that holds at every look; None before a night.
        bounded: whether the loop's settings give the range of rewards that the interval rests on.
        trend: the nights' mean rewards, drawn; "" of fewer than two.
        lift: of the policy in charge over the baseline; None where no night knows.
        join_rate: share of mature decisions that met an outcome; None before one is mature.
        standing: the alarms.
        last_night: the latest; None before the first.
    """

    name: str
    says: LoopDescription
    in_charge: str
    candidate: str
    per_second: float | None
    decided: int
    fallbacks: int
    outcomes: int
    value: Running | None
    bounded: bool
    trend: str
    lift: Lift | None
    join_rate: float | None
    standing: Standing
    last_night: Night | None

    @property
    def alarms(self) -> list[Alarm]:
        """Those that stand."""
        return self.standing.alarms


def glance(
    core: Core,
    found: list[Night],
    counted: Counted,
    rates: Rates,
    name: str,
    standing: Standing | None = None,
    published: GuardSnapshot | None = None,
) -> Glance:
    """Return a loop at a glance; blocking.

    Args:
        core: of the service.
        found: nights of the loop.
        counted: counts of the loops.
        rates: of the service.
        name: of the loop.
        standing: its alarms; None for those of the service's last look at State, at most a second ago.
        published: of its guard; None for that of the service's last look.

    Raises:
        UnknownLoopError: there is no such loop.
        UnavailableError: its settings cannot be read.
        StateError: State cannot be reached.
    """
    says, sample = core.describe(name, counted=False), rates.watch()
    says.counters = counted.of(name)
    if published is not None and published.candidate_version == says.candidate_version:
        says.guard = msgspec.structs.replace(says.guard, weight=largest_weight_at(published, core.clock()))
    loop = core.snapshot(name).loop
    kept = [night for night in found if night.rewards is not None and night.rewards.n]
    sums = [night.rewards for night in kept if night.rewards is not None]
    so_far = running(sums, loop.reward.minimum, loop.reward.maximum, level=_LEVEL, latest=1)
    counts, joined = says.counters or {}, None
    if counts.get("joined", 0) + counts.get("expired", 0):
        joined = counts["joined"] / (counts["joined"] + counts["expired"])
    if standing is None:
        standing = alarms_in(core, name, core.loops.seen(alarms_key(name)))
    return Glance(
        name=name,
        says=says,
        in_charge=policy_words(says.policy_version),
        candidate=""
        if not says.candidate_version or not says.guard.weight
        else f"version {says.candidate_version} at {share(says.guard.weight)}",
        per_second=rates.per_second("decided", name),
        decided=int(sample.counted.get(("decided", name), 0)),
        fallbacks=int(sample.counted.get(("fallbacks", name), 0)),
        outcomes=int(sample.counted.get(("outcomes", name), 0)),
        value=so_far[-1] if so_far else None,
        bounded=loop.reward.minimum is not None and loop.reward.maximum is not None,
        trend=Markup(spark([one.total / one.n for one in sums], f"Mean reward of {len(sums)} nights")),  # noqa: S704 - drawn here, its text escaped
        lift=lift_of(found, says.policy_version),
        join_rate=joined,
        standing=standing,
        last_night=found[-1] if found else None,
    )


def alarms_in(core: Core, name: str, value: bytes | None) -> Standing:
    """Return the alarms in what stands under a loop's `alarms_key`; none where it cannot be read."""
    with suppress(FieldError):
        return standing_in(core.settings, name, value)
    return Standing()


def lift_of(nights: list[Night], version: str) -> Lift | None:
    """Return what a version brings over the baseline by the latest night that judged both; None where none did.

    Each value has a 95% interval of its own, so what lies between their far ends holds with 90% at least.
    """
    for night in reversed(nights):
        own, baseline = night.values.get(version), night.values.get("")
        if own is not None and baseline is not None:
            return Lift(own.value - baseline.value, own.low - baseline.high, own.high - baseline.low, night.run_id)
    return None


def value_of(nights: list[Night], version: str) -> Number | None:
    """Return what a version is worth by the latest night that judged it; None where none did."""
    return next((night.values[version] for night in reversed(nights) if version in night.values), None)
