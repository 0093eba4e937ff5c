"""The study of Sim2Rec on a loop's own log: its tables and its figures."""

from __future__ import annotations

from typing import Any

import altair as alt

from pipelines.reports.figures import HEIGHT, MUTED, SERIES, WIDTH, svg
from pipelines.studies.report import Figure, Sheet, number

HELD_OUT = "held out"
"""Name of the simulator that judges."""


def sheets(result: dict[str, Any]) -> list[Sheet]:
    """Return the tables of a result."""
    log, members = result["log"], result["members"]
    told = result["doubts"] or ["nothing speaks against the simulators, for the actions that were shown"]
    out = [Sheet("Where not to believe them", ["what was found"], [[text] for text in told])]
    trend = any("worn" in row for row in members.values())
    rows = [
        [
            name,
            "judges" if name == HELD_OUT else "taught in" if row["kept"] else "left out",
            number(row["error"], 4),
            number(row["explained"]),
            number(row["surprise"], 2),
            number(row["gap"]),
            f"{row['within_90']:.0%}",
            *([number(row["at_once"], 2), number(row["worn"], 2)] if trend else []),
        ]
        for name, row in members.items()
    ]
    columns = ["simulator", "", "error", "variance explained", "surprise", "gap", "in its 90%"]
    columns += ["trend at once", "worn later"] if trend else []
    note = (
        f"One decision ahead, {log['users_apart']} users that no training sees, rewards {log['mean_reward']:.4g} +- "
        f"{log['deviation']:.4g}. To say the user's last reward again errs by {log['last_error']:.4g}. Surprise: "
        "squared errors over those that it states. Gap: of what it says from what was answered, mean logarithm of the "
        "ratio of both densities; 0 where all is right."
    )
    out.append(Sheet("What the simulators know", columns, rows, note))
    far = [
        [
            steps,
            number(next(iter(members.values()))["logged"][steps], 4),
            *(_interval(row, steps) for row in members.values()),
        ]
        for steps in map(str, result["horizons"])
    ]
    note = (
        "What the logged actions bring in a simulator, less what they brought, per decision, after "
        f"{result['followed']} decisions as logged; 95% intervals over users."
    )
    out.append(Sheet("How far ahead they hold", ["decisions ahead", "logged", *members], far, note))
    cells = [
        [
            row["id"],
            f"{row['share']:.2%}",
            "yes" if row["executed"] else "no",
            number(row["error"], 4),
            number(row["gap"]),
            number(row["disagreement"], 4),
            number(row["disagreement_held"], 4),
        ]
        for row in result["actions"]
    ]
    columns = [
        "action",
        "shown in",
        "executed",
        "least error",
        "least gap",
        "disagreement",
        f"held for {result['held']}",
    ]
    out.append(
        Sheet("Actions", columns, cells, "Disagreement: deviation over the simulators of what it brings a decision.")
    )
    if result["versions"]:
        kept = [
            [
                one["version"],
                one["method"],
                *(number(one[key], 4) for key in ("believed", "held_out", "came_true", "gain", "gained")),
                f"{one['decisions']:,.0f}",
            ]
            for one in result["versions"]
        ]
        columns = ["version", "method", "believed", HELD_OUT, "came true", "gain promised", "gained", "decisions"]
        out.append(Sheet("Versions: promised and come true", columns, kept, "Gained: over others in the same hours."))
    return out


def _interval(row: dict[str, Any], steps: str) -> str:
    each = row["ahead"][steps]
    return f"{each['off']:+.4f} [{each['off_ci'][0]:+.4f}, {each['off_ci'][1]:+.4f}]"


def figures(result: dict[str, Any]) -> list[Figure]:
    """Return the drawings of a result."""
    names = list(result["members"])
    points = [
        {"what": name, "steps": int(steps), "off": each["off"]}
        for name, row in result["members"].items()
        for steps, each in row["ahead"].items()
    ]
    scale = alt.Scale(domain=names, range=[*SERIES[: len(names) - 1], MUTED])
    source = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("steps:Q", title="decisions ahead", axis=alt.Axis(tickCount=6)),
        y=alt.Y("off:Q", title="said less brought, per decision"),
        color=alt.Color("what:N", scale=scale, legend=alt.Legend(columns=3, columnPadding=18)),
    )
    lines = source.mark_line(strokeWidth=2) + source.mark_point(filled=True, size=50, opacity=1)
    far = svg(lines.properties(width=WIDTH, height=HEIGHT), "Error on the logged actions by decisions ahead")
    dots = [
        {
            "share": row["share"],
            "apart": row["disagreement_held"],
            "kind": "executed" if row["executed"] else "hardly ever shown",
        }
        for row in result["actions"]
    ]
    kinds = alt.Scale(domain=["executed", "hardly ever shown"], range=[SERIES[0], SERIES[1]])
    marks = (
        alt.Chart(alt.Data(values=dots))
        .mark_point(filled=True, size=70, opacity=1)
        .encode(
            x=alt.X("share:Q", title="share of the decisions", axis=alt.Axis(format="%", tickCount=6)),
            y=alt.Y("apart:Q", title=f"disagreement, held for {result['held']}"),
            color=alt.Color("kind:N", scale=kinds, legend=alt.Legend(columnPadding=26)),
        )
    )
    shown = svg(marks.properties(width=WIDTH, height=HEIGHT), "Disagreement of the simulators by action")
    return [
        Figure("ahead", far, "What the logged actions bring in each simulator, less what they brought."),
        Figure("actions", shown, "How far the simulators are apart on each action, by how often it was shown."),
    ]
