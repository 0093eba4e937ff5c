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
from pipelines.guard.state import GuardState, evidence_in, mean_weights, rules_in
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
        rungs: the ladder.
        legs: futility, promotion, drift.
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
    rungs: list[Rung]
    legs: list[Leg]
    audit: list[Audit]
    history: list[Move]


def report(state: GuardState, history: list[Move]) -> GuardReport:
    """Return what there is to show of a guard."""
    rungs, legs, audit, n, clipped = list[Rung](), list[Leg](), list[Audit](), 0, 0
    if state.terms is not None:
        rules, evidence = rules_in(state), evidence_in(state)
        wealth, certified = log_mean_wealth(evidence.ladder), certified_rung(evidence, rules)
        rungs = [
            Rung(weight=weight, log_wealth=float(wealth[i]), certified=i <= certified)
            for i, weight in enumerate(rules.rungs)
        ]
        drift = float(np.logaddexp.reduce(np.array(state.drift)) - math.log(len(state.drift)))
        needed = -math.log(rules.delta)
        legs = [
            Leg(name="futility", log_wealth=float(log_mean_wealth(evidence.futility)), needed=needed),
            Leg(name="promotion", log_wealth=float(log_mean_wealth(evidence.promotion)), needed=needed),
            Leg(
                name="drift",
                log_wealth=drift if math.isfinite(drift) else None,
                needed=math.log(rules.drift_threshold),
            ),
        ]
        pairs = zip(("candidate", "baseline"), mean_weights(evidence), strict=True)
        audit = [Audit(policy=name, mean=mean, error=error) for name, (mean, error) in pairs]
        n, clipped = evidence.decisions, evidence.clipped
    shared = ("loop", "status", "reason", "baseline_version", "candidate_version", "attempt", "guard_version")
    shared += ("weight", "cap", "stopped", "expires_at", "skipped")
    fields = {name: getattr(state, name) for name in shared}
    return GuardReport(**fields, n=n, clipped=clipped, rungs=rungs, legs=legs, audit=audit, history=history)


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
    words.append(f"weight [bold]{seen.weight:.2f}[/] after {seen.n} matured decisions")
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
