"""The study of conservative exploration: how much is run, its tables and its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import altair as alt

from decision.errors import FieldError
from pipelines.reports.figures import HEIGHT, MUTED, SERIES, WIDTH, svg
from pipelines.studies.report import Figure, Findings, Sheet, number, with_interval
from simulators.studies import stepmix

ABOUT = (
    "Exploration that keeps a promise: random decision processes under StepMix, EpsMix and what they are compared "
    "with; the serving guard's ladder; contextual algorithms; slates and sessions."
)
_CURVES = ("ucbvi", "stepmix", "stepmix_certified_reference", "epsmix", "conservative_budget", "hard_gate", "baseline")

Progress = Callable[[str, float], None]


def seeds(*, quick: bool) -> list[int]:
    """Return the seeds when none are asked for."""
    return list(range(5 if quick else 20))


def run(asked: Sequence[int], length: int | None, *, quick: bool, progress: Progress) -> Findings:
    """Run the study.

    Args:
        asked: seeds.
        length: episodes of each tabular run; the study's own when None.
        quick: minutes instead of most of an hour.
        progress: called with what is running and the share done.

    Raises:
        FieldError: `length` is too small to plan with.
    """
    size = stepmix.QUICK if quick else stepmix.Size()
    if length is not None:
        if length < 100:
            raise FieldError("size", wanted="100 episodes or more", got=length)
        size = replace(size, episodes=length, program_episodes=min(size.program_episodes, length))
    result = stepmix.run(asked, size, progress)
    return Findings("stepmix", ABOUT, result, list(sheets(result)), list(figures(result)))


def sheets(result: dict[str, Any]) -> list[Sheet]:
    """Return the tables of a result."""
    seeded = len(result["seeds"])
    out = [_tabular(name, rows, seeded) for name, rows in result["tabular"].items()]
    out.append(_guard(result["guard"]))
    contextual = result["contextual"]
    out.append(
        Sheet(
            f"Contextual, linear rewards: {contextual['rounds']:,} rounds, {seeded} seeds",
            ["algorithm", "regret", "violated rounds", "rounds below in total", "explored"],
            [
                [
                    name,
                    with_interval(row, "regret", 0),
                    with_interval(row, "violations", 1),
                    number(row["total_violations"], 1),
                    number(row["explored"], 2),
                ]
                for name, row in contextual["algorithms"].items()
            ],
            f"alpha {contextual['alpha']}; violated: the round's policy is worth less than (1 - alpha) of the "
            "baseline. CLUCB and SquareCB promise the total only, Thompson every round.",
        )
    )
    sequences = result["sequences"]
    for world in ("slates", "sessions"):
        rows = [
            [
                f"{lift} {method}",
                with_interval(row, "violation_probability", 2),
                with_interval(row, "first", 0),
                with_interval(row, "full", 0),
            ]
            for lift, methods in sequences[world].items()
            for method, row in methods.items()
        ]
        columns = ["lift, method", "P(violation)", f"{world} to the first rung", "to full weight (median)"]
        out.append(Sheet(f"{world.capitalize()}: {sequences['runs']} runs of {sequences['units']:,}", columns, rows))
    return out


def _tabular(name: str, rows: dict[str, Any], seeded: int) -> Sheet:
    cells = [
        [
            algorithm,
            with_interval(row, "regret", 0),
            with_interval(row, "violations", 1),
            number(row["worst_shortfall"], 2),
            number(row["first_exploring_episode"], 0),
            number(row["lower_bound_missed"], 3),
            f"{row['episodes']:,}",
        ]
        for algorithm, row in rows.items()
    ]
    columns = ["algorithm", "regret", "violated episodes", "worst", "first exploring", "bound missed", "episodes"]
    eta, alpha = stepmix.SETTINGS[name]
    return Sheet(f"Tabular, {name} threshold (eta {eta:g}, alpha {alpha:g}): {seeded} seeds", columns, cells)


def _guard(guard: dict[str, Any]) -> Sheet:
    keys = (("violation_probability", 3), ("decisions_to_full", 0), ("decisions_to_kill", 0), ("killed_share", 2))

    def cell(key: str, lift: str, digits: int) -> str:
        return with_interval({key: guard[key][lift], f"{key}_ci": guard[f"{key}_ci"][lift]}, key, digits)

    rows = [
        [lift, *[cell(key, lift, digits) for key, digits in keys], f"{guard['reward_lost_share'][lift]:.2%}"]
        for lift in guard["violation_probability"]
    ]
    equal = guard["equal"]
    note = (
        f"Drift from +10% to -20%: caught after {with_interval(guard, 'drift_delay', 0)} decisions (median), in "
        f"{guard['drift_caught_share']:.0%} of the runs. Equal policies, {equal['runs']} runs of "
        f"{equal['decisions']:,}: {equal['false_alarms']} false alarms, {equal['false_kills']} false kills, "
        f"{equal['false_promotions']} false promotions."
    )
    columns = ["lift", "P(violation)", "to full weight", "to kill (median)", "killed", "reward lost"]
    return Sheet(f"Serving guard: {guard['runs']} runs of {guard['decisions']:,} per lift", columns, rows, note)


def figures(result: dict[str, Any]) -> list[Figure]:
    """Return the drawings of a result."""
    out = [
        Figure(f"regret_{name}", _regret(rows), f"Regret by episode, {name} threshold, mean over seeds.")
        for name, rows in result["tabular"].items()
    ]
    out += [
        Figure(
            f"safety_{name}",
            _safety(rows),
            f"Regret with its interval, {name} threshold; colour says who violated episodes.",
        )
        for name, rows in result["tabular"].items()
    ]
    ladder = _ladder(result["guard"])
    out.append(Figure("guard_weights", ladder, "Share of the candidate as evidence comes, five runs per lift."))
    return out


def _regret(rows: dict[str, Any]) -> str:
    names = [name for name in _CURVES if name in rows]
    points = [
        {"what": name, "episode": episode, "regret": regret}
        for name in names
        for episode, regret in zip(rows[name]["curve"]["episode"], rows[name]["curve"]["regret"], strict=True)
    ]
    scale = alt.Scale(domain=names, range=[MUTED if name == "baseline" else SERIES[i] for i, name in enumerate(names)])
    chart = alt.Chart(alt.Data(values=points)).mark_line(strokeWidth=2)
    chart = chart.encode(
        x=alt.X("episode:Q", title="episode", scale=alt.Scale(nice=False)),
        y=alt.Y("regret:Q", title="reward missed so far"),
        color=alt.Color("what:N", scale=scale, legend=alt.Legend(columns=3, labelLimit=200, columnPadding=18)),
    )
    return svg(chart.properties(width=WIDTH, height=HEIGHT), "Cumulative regret by episode and algorithm")


def _safety(rows: dict[str, Any]) -> str:
    longest = max(row["episodes"] for row in rows.values())
    points = [
        {
            "what": name.replace("_", " "),
            "regret": row["regret"],
            "low": row["regret_ci"][0] if row["regret_ci"][0] is not None else row["regret"],
            "high": row["regret_ci"][1] if row["regret_ci"][1] is not None else row["regret"],
            "kept": "no episode violated" if row["violations"] == 0 else "episodes violated",
        }
        for name, row in sorted(rows.items(), key=lambda entry: entry[1]["regret"])
        if row["episodes"] == longest  # regret of fewer episodes is another scale
    ]
    kinds = alt.Scale(domain=["no episode violated", "episodes violated"], range=[SERIES[2], SERIES[1]])
    color = alt.Color("kept:N", scale=kinds, legend=alt.Legend(columnPadding=30))
    axis = alt.Axis(labelLimit=260, minExtent=200)
    source = alt.Chart(alt.Data(values=points)).encode(y=alt.Y("what:N", sort=None, title=None, axis=axis), color=color)
    bars = source.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="regret"), x2="high:Q")
    dots = source.mark_point(filled=True, size=70, opacity=1).encode(x="regret:Q")
    return svg((bars + dots).properties(width=WIDTH - 200, height=24 * len(points)), "Regret and safety by algorithm")


def _ladder(guard: dict[str, Any]) -> str:
    batch = guard["rules"]["batch"]
    points = [
        {"lift": lift, "run": f"{lift} {index}", "decision": batch * at, "weight": weight}
        for lift, runs in guard["weights"].items()
        for index, weights in enumerate(runs)
        for at, weight in enumerate(weights)
    ]
    names = list(guard["weights"])
    chart = alt.Chart(alt.Data(values=points)).mark_line(strokeWidth=1.5, interpolate="step-after", opacity=0.8)
    chart = chart.encode(
        x=alt.X("decision:Q", title="decisions", scale=alt.Scale(nice=False), axis=alt.Axis(format="~s")),
        y=alt.Y("weight:Q", title="share of the candidate", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("lift:N", sort=None, scale=alt.Scale(domain=names, range=list(SERIES[: len(names)]))),
        detail="run:N",
    )
    return svg(chart.properties(width=WIDTH, height=HEIGHT), "Weight of the candidate by decision and lift")
