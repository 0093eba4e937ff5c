"""A guard for people: its ladder, its legs and its history as tables, and the weight over time as a plot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from decision.errors import FieldError
from decision.guard.evidence import certified_rung, log_mean_wealth
from pipelines.guard.state import REST_NAME, GuardState, Part, evidence_in, evidence_of_part, mean_weights, rules_in
from pipelines.guard.store import Move

PLOT_KINDS = (".svg", ".html", ".png")
_SHOWN = 12


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """One weight of the ladder: the log wealth against "it breaks the promise", and whether it may be served."""

    weight: float
    log_wealth: float
    certified: bool


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One test beside the ladder: its log wealth, and where it strikes."""

    name: str
    log_wealth: float | None
    needed: float


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """Mean weight of one policy, which has to be 1, with its standard error."""

    policy: str
    mean: float
    error: float


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One segment of the traffic: its share, and the log wealth of its own tests.

    Attributes:
        name: value of the field, or ``others``.
        weight: the candidate's share.
        killed: the candidate is worse here.
        n: matured units folded in.
        top_rung: log wealth against "the top weight breaks the promise".
        futility: log wealth against "the candidate is no worse".
        drift: log of the drift detector; None before its first batch.
        needed: where ladder and futility strike.
    """

    name: str
    weight: float
    killed: bool
    n: int
    top_rung: float
    futility: float
    drift: float | None
    needed: float


class GuardReport(msgspec.Struct, frozen=True, kw_only=True):
    """A guard as `decision guard` shows it.

    Attributes:
        loop: the loop.
        status: as in `GuardState`.
        reason: why, in words.
        baseline_version: the policy in charge.
        candidate_version: the version rolled out.
        attempt: number of the candidate's attempt.
        guard_version: version of what is published.
        weight: the candidate's share.
        cap: largest weight, set by an operator.
        stopped: stopped by an operator.
        expires_at: until when that holds, seconds since 1970.
        n: matured decisions folded in.
        clipped: rewards among them that were cut to the range.
        skipped: settled decisions left out, by reason.
        unit: what is drawn from the mixture at once: a ``decision``, ``slate`` or ``episode``.
        rungs: the ladder; with segments, of the traffic of no listed value.
        legs: futility, promotion, drift; promotion is judged on all segments together.
        segments: each segment's own tests, where there are several.
        audit: mean weights.
        history: the latest moves, oldest first.
    """

    loop: str
    status: str
    reason: str
    baseline_version: str
    candidate_version: str
    attempt: int
    guard_version: int
    weight: float
    cap: float
    stopped: bool
    expires_at: float
    n: int
    clipped: int
    skipped: dict[str, int]
    unit: str
    rungs: list[Rung]
    legs: list[Leg]
    segments: list[Segment]
    audit: list[Audit]
    history: list[Move]


def report(state: GuardState, history: list[Move]) -> GuardReport:
    """Return what there is to show of a guard."""
    rungs, legs, segments, audit = list[Rung](), list[Leg](), list[Segment](), list[Audit]()
    n, clipped, unit = 0, 0, "decision"
    if state.terms is not None and "" in state.parts:
        unit, rules, evidence = state.terms.unit, rules_in(state), evidence_in(state)
        rest = evidence_of_part(state.parts[""], rules)
        wealth, certified = log_mean_wealth(rest.ladder), certified_rung(rest, rules)
        rungs = [
            Rung(weight=weight, log_wealth=float(wealth[i]), certified=i <= certified)
            for i, weight in enumerate(rules.rungs)
        ]
        needed = -math.log(rules.delta_futility)
        legs = [
            Leg(name="futility", log_wealth=float(log_mean_wealth(rest.futility)), needed=needed),
            Leg(
                name="promotion",
                log_wealth=float(log_mean_wealth(evidence.promotion)),
                needed=-math.log(rules.delta_promotion),
            ),
            Leg(name="drift", log_wealth=_drift(state.parts[""]), needed=math.log(rules.drift_threshold)),
        ]
        for name, part in state.parts.items() if len(state.parts) > 1 else ():
            own = evidence_of_part(part, rules)
            segments.append(
                Segment(
                    name=name or REST_NAME,
                    weight=part.weight,
                    killed=part.killed,
                    n=own.decisions,
                    top_rung=float(log_mean_wealth(own.ladder)[-1]),
                    futility=float(log_mean_wealth(own.futility)),
                    drift=_drift(part),
                    needed=needed,
                )
            )
        pairs = zip(("candidate", "baseline"), mean_weights(evidence), strict=True)
        audit = [Audit(policy=name, mean=mean, error=error) for name, (mean, error) in pairs]
        n, clipped = evidence.decisions, evidence.clipped
    shared = ("loop", "status", "reason", "baseline_version", "candidate_version", "attempt", "guard_version")
    shared += ("weight", "cap", "stopped", "expires_at", "skipped")
    fields = {name: getattr(state, name) for name in shared}
    return GuardReport(
        **fields,
        n=n,
        clipped=clipped,
        unit=unit,
        rungs=rungs,
        legs=legs,
        segments=segments,
        audit=audit,
        history=history,
    )


def _drift(part: Part) -> float | None:
    drift = float(np.logaddexp.reduce(np.array(part.drift)) - math.log(len(part.drift)))
    return drift if math.isfinite(drift) else None


def guard_table(seen: GuardReport) -> RenderableType:
    """Return a guard for a terminal."""
    parts: list[RenderableType] = [_headline(seen)]
    if seen.rungs:
        ladder = Table(box=box.SIMPLE_HEAD, title="ladder", title_justify="left")
        for name in ("weight", "log wealth", ""):
            ladder.add_column(name, justify="right")
        for rung in seen.rungs:
            mark = "certified" if rung.certified else ""
            here = " <- served" if math.isclose(rung.weight, seen.weight) else ""
            ladder.add_row(f"{rung.weight:.2f}", f"{rung.log_wealth:+.2f}", mark + here)
        legs = Table(box=box.SIMPLE_HEAD, title="legs", title_justify="left")
        for name in ("leg", "log wealth", "strikes at"):
            legs.add_column(name, justify="left" if name == "leg" else "right")
        for leg in seen.legs:
            legs.add_row(leg.name, "-" if leg.log_wealth is None else f"{leg.log_wealth:+.2f}", f"{leg.needed:.2f}")
        for entry in seen.audit:
            legs.add_row(f"mean weight, {entry.policy}", f"{entry.mean:.4f}", f"1 +- {4 * entry.error:.4f}")
        parts += [ladder, legs]
    if seen.segments:
        own = Table(box=box.SIMPLE_HEAD, title="segments", title_justify="left")
        for name in ("segment", "weight", f"{seen.unit}s", "top rung", "futility", "drift", "strikes at"):
            own.add_column(name, justify="left" if name == "segment" else "right")
        for one in seen.segments:
            weight = "killed" if one.killed else f"{one.weight:.2f}"
            drift = "-" if one.drift is None else f"{one.drift:+.2f}"
            own.add_row(
                one.name,
                weight,
                f"{one.n:,}",
                f"{one.top_rung:+.2f}",
                f"{one.futility:+.2f}",
                drift,
                f"{one.needed:.2f}",
            )
        parts.append(own)
    if seen.history:
        history = Table(box=box.SIMPLE_HEAD, title="history", title_justify="left")
        for name in ("at", "move", "candidate", "weight", "decisions", "why"):
            history.add_column(name, no_wrap=name != "why")
        for entry in seen.history[-_SHOWN:]:
            moved = f"{entry.from_weight:.2f} -> {entry.to_weight:.2f}"
            n = entry.numbers.get("n")
            counted = "" if n is None else f"{n:.0f}"
            history.add_row(
                entry.at[:19].replace("T", " "), entry.kind, entry.candidate_version, moved, counted, entry.reason
            )
        parts.append(history)
    return Group(*parts)


def _headline(seen: GuardReport) -> str:
    if seen.status == "off":
        return f"{seen.loop}: the guard is off; set \\[guard] enabled = true in loop.toml"
    words = [f"{seen.loop}: [bold]{seen.status}[/]"]
    if seen.candidate_version:
        words.append(f"version {seen.candidate_version} beside {seen.baseline_version}, attempt {seen.attempt}")
    words.append(f"weight [bold]{seen.weight:.2f}[/] after {seen.n} matured {seen.unit}s")
    if seen.stopped:
        words.append("[red]stopped by an operator[/]")
    if seen.cap < 1.0:
        words.append(f"capped at {seen.cap:.2f}")
    return ", ".join(words) + (f"\n{seen.reason}" if seen.reason else "")


def plot(history: list[Move], loop: str, path: Path) -> None:
    """Write the candidate's weight over time to `path`.

    Raises:
        FieldError: the name ends in none of `PLOT_KINDS`.
    """
    if path.suffix not in PLOT_KINDS:
        raise FieldError("plot", wanted=f"a name that ends in one of {list(PLOT_KINDS)}", got=path.name)
    import altair as alt
    import vl_convert

    rows = [
        {
            "at": entry.at,
            "weight": entry.to_weight,
            "candidate": f"version {entry.candidate_version}",
            "move": entry.kind,
        }
        for entry in history
        if entry.candidate_version
    ]
    source: Any = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("at:T", title=None),
        y=alt.Y("weight:Q", title="share of the candidate", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("candidate:N", title=None),
    )
    points = source.mark_point(filled=True, size=60).encode(tooltip=["at:T", "move:N", "weight:Q"])
    chart = (source.mark_line(interpolate="step-after") + points).properties(
        title=f"{loop}: rollout under the guard", width=560, height=260, background="white", padding=16
    )
    spec = chart.to_json()
    if path.suffix == ".png":
        path.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))
    elif path.suffix == ".svg":
        path.write_text(vl_convert.vegalite_to_svg(spec))
    else:
        path.write_text(vl_convert.vegalite_to_html(spec, bundle=True))
