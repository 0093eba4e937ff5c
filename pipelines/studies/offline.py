"""The study of policies made from a log alone: how much is run, its tables and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import altair as alt

from decision.errors import FieldError
from pipelines.reports.figures import HEIGHT, MUTED, SERIES, WIDTH, svg
from pipelines.studies.jobs import MOST_PROCESSES, Progress, all_of
from pipelines.studies.report import Figure, Findings, Sheet, number, with_interval
from simulators.offline.gated import BETAS
from simulators.studies import offline

ABOUT = (
    "Policies with memory made from a log alone, in long-term satisfaction: whose trajectories are imitated where a "
    "tenth of them is a better version's, and what a critic adds to imitation."
)
KEEPS = True
"""`run` takes ``kept``, a folder of finished jobs: the study goes on where it was stopped."""


def seeds(*, quick: bool) -> list[int]:
    """Return the seeds when none are asked for."""
    return [7] if quick else [7, 8, 9]


def run(
    asked: Sequence[int], length: int | None, *, quick: bool, progress: Progress, kept: Path | None = None
) -> Findings:
    """Run the study.

    Args:
        asked: seeds.
        length: users of each log; the study's own when None.
        quick: a quarter of the gradient steps on half the users.
        progress: called with what is running and the share done.
        kept: folder to keep finished jobs in and to take them from; None keeps nothing.

    Raises:
        FieldError: `length` is too small to learn from.
    """
    if length is not None and not 40 <= length <= 10_000:
        raise FieldError("size", wanted="40 to 10000 users", got=length)
    size = offline.QUICK if quick else offline.Size()
    if length is not None:
        size = replace(size, users=length)
    work = [(job.name, offline.run_job, job, size) for job in offline.jobs(asked, size)]
    done = all_of(work, 1 if quick else MOST_PROCESSES, progress, kept)
    result = {"seeds": list(asked), "size": asdict(size)} | offline.summary(size, done, asked)
    return Findings("offline", ABOUT, result, list(sheets(result)), list(figures(result)))


def sheets(result: dict[str, Any]) -> list[Sheet]:
    """Return the tables of a result."""
    seeded, out = len(result["seeds"]), list[Sheet]()
    for world, methods in result["mixed"].items():
        cells = [
            [
                method,
                with_interval(row, "return", 1),
                number(row["share_of_good"]),
                number(row.get("on_good"), 2),
                number(row.get("ess"), 0),
                ", ".join(number(each, 0) for each in row["by_seed"]),
            ]
            for method, row in methods.items()
        ]
        columns = ["method", "return", "/ good version", "weight on it", "effective trajectories", "by seed"]
        share = result["share_of_users"][world]
        note = f"Users' first responses explain {share:.2f} of the variance of returns."
        out.append(Sheet(f"Mixed log {world}: a tenth is the good version's, {seeded} seeds", columns, cells, note))
    cells = [
        [
            method,
            with_interval(row, "return", 1),
            with_interval(row, "over_log", 1) if "over_log" in row else "-",
            with_interval(row, "over_cloning", 1) if "over_cloning" in row else "-",
        ]
        for method, row in result["study_log"].items()
    ]
    note = "Intervals: bootstrap over seeds and users, paired."
    columns = ["method", "return", "over the log", "over cloning"]
    out.append(Sheet(f"The log of the study of learned simulators: {seeded} seeds", columns, cells, note))
    return [*out, _steps(result)]


def _steps(result: dict[str, Any]) -> Sheet:
    """Return what became of gated steps, seed by seed."""
    told = {world: methods["gated_pw"]["told"] for world, methods in result["mixed"].items()}
    told[offline.STUDY_LOG] = result["study_log"]["gated"]["told"]
    cells = [
        [
            world,
            str(seed),
            number(one["users_apart"], 0),
            number(one["steps_taken"], 0),
            number(one.get("beta"), 1),
            ", ".join(number(one[f"gain_low_at_{beta:g}"], 3) for beta in BETAS if f"gain_low_at_{beta:g}" in one)
            or "-",
            number(one.get("believed_apart"), 2),
            number(one.get("error_apart"), 2),
        ]
        for world, each in told.items()
        for seed, one in zip(result["seeds"], each, strict=True)
    ]
    steps = ", ".join(f"{beta:g}" for beta in BETAS)
    columns = ["log", "seed", "users who prove", "taken", "last beta", f"lower bounds at {steps}", "believed", "off"]
    note = "In reward per decision. Off: the users' simulator on what was logged, less what was."
    return Sheet("Steps behind a proof", columns, cells, note)


def figures(result: dict[str, Any]) -> list[Figure]:
    """Return the drawings of a result."""
    caption = "Share of the good version's return, by whose decisions are imitated."
    return [Figure("mixed", _mixed(result["mixed"]), caption)]


def _mixed(worlds: dict[str, Any]) -> str:
    points = [
        {"what": method.replace("_", " "), "log": world, "share": row["share_of_good"]}
        for world, methods in worlds.items()
        for method, row in methods.items()
    ]
    scale = alt.Scale(domain=list(worlds), range=list(SERIES[: len(worlds)]))
    base = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("share:Q", title="share of the good version's return", scale=alt.Scale(zero=False)),
        y=alt.Y("what:N", title=None, sort=None, axis=alt.Axis(labelLimit=0, minExtent=130)),
    )
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(color=alt.Color("log:N", scale=scale))
    mark = alt.Chart(alt.Data(values=[{"at": 1.0}])).mark_rule(strokeDash=[4, 4], color=MUTED).encode(x="at:Q")
    return svg((dots + mark).properties(width=WIDTH - 160, height=HEIGHT), "Returns of imitation in mixed logs")
