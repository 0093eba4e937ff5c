"""The report of the demo of policies with memory."""

from __future__ import annotations

import pyarrow as pa

from pipelines.demo.proof import calibration_bins
from pipelines.demo.session_result import SessionResult
from pipelines.reports import figures, session_figures
from pipelines.reports.pages import render


def session_report(result: SessionResult, decisions: pa.Table) -> str:
    """Return the page of a demo.

    Args:
        result: what it found.
        decisions: the loop's rows of the lake.
    """

    def days(of: str) -> list[dict[str, object]]:
        return [
            {"policy": one.policy, "day": day, "value": value}
            for one in result.served
            for day, value in enumerate(getattr(one, of), start=1)
        ]

    cohorts = [
        {"cohort": one.number, "policy": name, "value": value}
        for one in result.cohorts
        for name, value in (("bandit", one.bandit), ("session", one.session))
        if value is not None
    ]
    believed = [
        {"version": one.version, "what": what, "value": value}
        for one in result.promises
        for what, value in (
            ("believed by the simulators it was taught in", one.believed),
            ("said by the simulator held out", one.held_out),
            ("came true", one.came_true),
        )
        if value is not None
    ]
    drawn = {
        "reward": session_figures.by_day(days("reward"), "reward of a visit"),
        "satisfaction": session_figures.by_day(days("satisfaction"), "satisfaction"),
        "rollout": session_figures.rollout(
            cohorts, [{"cohort": one.number, "share": one.weight} for one in result.cohorts]
        ),
        "belief": session_figures.belief(believed) if believed else "",
        "calibration": figures.calibration(calibration_bins(decisions)),
    }
    served = {one.policy: one for one in result.served}
    return render("demo_sessions.html", result=result, served=served, figures=drawn)
