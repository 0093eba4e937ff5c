"""The page of a replay: the answer, estimates, figures, diagnostics; one file that fetches nothing."""

from __future__ import annotations

import math
from typing import Any

from decision.ope.estimate import Estimate
from pipelines.replay import figures as replay_figures
from pipelines.replay.replay import Replay
from pipelines.replay.segments import in_words
from pipelines.reports import figures
from pipelines.reports.pages import render

_WORDS = {
    "rows": "decisions tested",
    "mean_weight": "mean weight of the uniform policy (1 where propensities are right)",
    "mean_weight_error": "its standard error",
    "mean_inverse": "mean of 1/p",
    "mean_actions": "mean number of actions",
    "smallest": "smallest propensity",
    "largest_weight": "largest weight of the uniform policy",
    "largest_share": "share of the weight that one decision carries",
    "ess_uniform": "effective rows for the uniform policy",
    "decisions": "decisions whose distribution is known",
    "redrawn": "draws that follow their seed",
    "unequal": "propensities that are not the distribution's value",
    "unsupported": "share of offered actions that could not be drawn",
    "chi_square": "chi-square of the choices against the distributions",
    "degrees": "its degrees of freedom",
    "p_value": "its p-value",
}


def replay_report(result: Replay) -> str:
    """Return the page of a replay."""
    named = {name: estimate for name, estimate in result.estimates.items() if estimate is not None}
    drawn: dict[str, str] = {}
    if result.diagnostics.histogram:
        drawn["weights"] = figures.weights(result.diagnostics.histogram)
    if named:
        rows = [_row(name, estimate, result) for name, estimate in named.items() if _finite(estimate)]
        drawn["estimates"] = replay_figures.estimates(rows, logged=result.logged.value) if rows else ""
    if len(result.trend) > 1:
        points = [{"until": p.until, "low": p.lift_low, "high": p.lift_high} for p in result.trend]
        drawn["trend"] = replay_figures.trend(points)
    first = named.get(result.recommended or "")
    if result.by_parameter and first is not None and _finite(first):
        drawn["agreement"] = replay_figures.agreement(_tuning(result), low=first.low, high=first.high)
    segments = [
        {"name": name or "(none)", "value": e.value, "low": e.low, "high": e.high, "rows": e.n}
        for name, e in result.segments.items()
        if e is not None and _finite(e)
    ]
    if segments:
        whole = first.value if first is not None else result.logged.value
        drawn["forest"] = replay_figures.forest(segments, whole=whole)
    words = "" if result.found is None else in_words(result.found)
    return render("replay.html", result=result, figures=drawn, words=_WORDS, found_words=words)


def _row(name: str, estimate: Estimate, result: Replay) -> dict[str, Any]:
    low, high = result.bootstrap.get(name, (None, None))
    first = name == result.recommended
    return {
        "name": name,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "first": first,
        "apart": name in result.apart,
        "boot_low": low,
        "boot_high": high,
    }


def _tuning(result: Replay) -> list[dict[str, Any]]:
    return [
        {"name": name, "tau": float(tau), "value": estimate.value, "chosen": float(tau) == result.tuned[name]}
        for name, values in result.by_parameter.items()
        for tau, estimate in values.items()
    ]


def _finite(estimate: Estimate) -> bool:
    return math.isfinite(estimate.low) and math.isfinite(estimate.high)
