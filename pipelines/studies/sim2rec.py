"""The study of Sim2Rec: how much is run, in how many processes, what is kept, its tables and its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import altair as alt

from decision.errors import FieldError
from pipelines.reports.figures import HEIGHT, MUTED, SERIES, WIDTH, svg
from pipelines.studies.jobs import MOST_PROCESSES, Progress, all_of
from pipelines.studies.report import Figure, Findings, Sheet, number, with_interval, worst_member
from pipelines.studies.sim2rec_worlds import driver_sheets, retention_sheets
from simulators.studies import learned, retention, sim2rec
from simulators.studies.drivers import programme

ABOUT = (
    "Policies trained in a set of simulators and deployed unseen: long-term satisfaction against the exact optimum, "
    "and simulators learned from logs of limited support, tested in the true world."
)
KEEPS = True
"""`run` takes ``kept``, a folder of finished jobs: the study goes on where it was stopped."""

WORLDS = ("lts", "driver-programme", "retention")
"""Names of `--world`; long-term satisfaction, true and learned, when none is given."""
_SHOWN = ("sim2rec", "sim2rec_ppo", "dr_osi", "dr_uni", "direct", "upper_bound")

_LEGEND = alt.Legend(columnPadding=26)


def seeds(*, quick: bool) -> list[int]:
    """Return the seeds when none are asked for."""
    return [0] if quick else [0, 1, 2]


def run(
    asked: Sequence[int],
    length: int | None,
    *,
    quick: bool,
    progress: Progress,
    kept: Path | None = None,
    world: str = "lts",
    rate: float | None = None,
) -> Findings:
    """Run the study.

    Args:
        asked: seeds.
        length: iterations of every student; the study's own when None.
        quick: under three minutes on one core instead of hours.
        progress: called with what is running and the share done.
        kept: folder to keep finished jobs in and to take them from; None keeps nothing.
        world: one of `WORLDS`.
        rate: belongs to another study.

    Raises:
        FieldError: `length` is too small to learn from, the world is unknown, or a rate is given.
    """
    if rate is not None:
        raise FieldError("rate", wanted="the study 'regression-oracle'", got=rate)
    if world not in WORLDS:
        raise FieldError.choice("world", list(WORLDS), world)
    if length is not None and length < 5:
        raise FieldError("size", wanted="5 iterations or more", got=length)
    if world != "lts":
        return _of_world(world, asked, length, quick=quick, progress=progress, kept=kept)
    size = sim2rec.QUICK if quick else sim2rec.Size()
    small = learned.QUICK if quick else learned.Size()
    if length is not None:
        size, small = replace(size, iterations=length), replace(small, iterations=length)
    work: list[tuple[str, Callable[..., dict[str, Any]], Any, Any]] = [
        (job.name, sim2rec.run_job, job, size) for job in sim2rec.jobs(asked, size)
    ]
    work += [(job.name, learned.run_job, job, small) for job in learned.jobs(asked, small)]
    done = all_of(work, 1 if quick else MOST_PROCESSES, progress, kept)
    result = {
        "seeds": list(asked),
        "lts": sim2rec.summary(size, done, asked),
        "kale_shift": sim2rec.summary_of_shifts(size, done, asked),
        "learned": learned.summary(small, done, asked),
        "simulators": learned.simulators_of(done, asked),
        "sizes": {"lts": asdict(size), "learned": asdict(small)},
        "paper": sim2rec.PAPER,
    }
    return Findings("sim2rec", ABOUT, result, list(sheets(result)), list(figures(result)))


def _of_world(
    world: str, asked: Sequence[int], length: int | None, *, quick: bool, progress: Progress, kept: Path | None
) -> Findings:
    module: Any = {"driver-programme": programme, "retention": retention}[world]
    size = module.QUICK if quick else module.Size()
    if length is not None:
        size = replace(size, iterations=length)
    work = [(job.name, module.run_job, job, size) for job in module.jobs(asked, size)]
    done = all_of(work, 1 if quick else MOST_PROCESSES, progress, kept)
    result = {
        "world": world,
        "seeds": list(asked),
        "methods": module.summary(size, done, asked),
        "sizes": asdict(size),
        **({"paper": module.PAPER} if hasattr(module, "PAPER") else {}),
    }
    drawn = driver_sheets if world == "driver-programme" else retention_sheets
    return Findings(f"sim2rec-{world}", ABOUT, result, drawn(result), [])


def sheets(result: dict[str, Any]) -> list[Sheet]:
    """Return the tables of a result."""
    out: list[Sheet] = []
    seeded = len(result["seeds"])
    users = result["sizes"]["lts"]["users"]
    for name, methods in result["lts"].items():
        paper = result["paper"][name]
        cells = [
            [
                method,
                with_interval(row, "return", 1) if "return_ci" in row else number(row["return"], 1),
                number(row.get("ratio_upper_bound")),
                number(row["ratio_oracle"]),
                number(row.get("cvar10"), 1),
                number(row.get("train_ratio_oracle")),
                worst_member(row),
                f"{row['user_steps'] / 1e6:.1f}M",
                number(paper.get(method), 1),
                number(paper[method] / paper["upper_bound"] if method in paper else None),
            ]
            for method, row in sorted(methods.items(), key=lambda entry: -entry[1]["return"])
        ]
        columns = [
            "method",
            "return",
            "/ own upper bound",
            "/ oracle",
            "worst 10%",
            "/ oracle, trained groups",
            "worst member, share of its own optimum",
            "user-steps",
            "paper: return",
            "paper: / its upper bound",
        ]
        note = (
            "The paper's bound is PPO trained in the target group for 2e9 user-steps, about .984 of the oracle; ours "
            "is our own learner trained there. The two ratios are different quantities. The worst member is a group "
            "trained on; PPO and what needs no training are not run there."
        )
        title = f"LTS{name}: deployed unseen at mu 14, {users:,} users, {seeded} seeds"
        out.append(Sheet(title, columns, cells, note))
    if result["kale_shift"]:
        out.append(_shifted(result, seeded))
    out.append(_embedding(result["lts"]))
    out.append(_learned(result, seeded))
    return out


def _shifted(result: dict[str, Any], seeded: int) -> Sheet:
    cells = [
        [
            shift,
            method,
            with_interval(row, "return", 1),
            number(row.get("ratio_upper_bound")),
            number(row["ratio_oracle"]),
            number(row.get("cvar10"), 1),
            worst_member(row),
        ]
        for shift, methods in result["kale_shift"].items()
        for method, row in methods.items()
    ]
    columns = ["kale shift in training", "method", "return", "/ own upper bound", "/ oracle", "worst 10%"]
    columns.append("worst member, share of its own optimum")
    name = list(result["lts"])[-1]
    note = "Users are simulated with kale means up to so much off; those deployed to have none of it."
    return Sheet(f"LTS{name} with kale shifts in training: {seeded} seeds", columns, cells, note)


def _embedding(tasks: dict[str, Any]) -> Sheet:
    cells = [
        [
            f"LTS{name}",
            number(row["correlation"]),
            "yes" if row["between"] else "no",
            number(row["groups"]["14"]["mean"], 2),
            number(row["divergence_target"], 4),
        ]
        for name, methods in tasks.items()
        if (row := methods.get("sim2rec", {}).get("sadae")) is not None
    ]
    columns = ["task", "correlation with mu_c", "14 lies between", "14 reconstructed (seed 0)", "KL at 14"]
    note = "Of the first principal component of the group embedding, over groups 6 to 21, unseen ones included."
    return Sheet("The group embedding", columns, cells, note)


def _learned(result: dict[str, Any], seeded: int) -> Sheet:
    cells = [
        [
            method,
            with_interval(row, "return", 1),
            with_interval(row, "over_logged", 1) if "over_logged" in row else "-",
            with_interval(row, "over_cloning", 1) if "over_cloning" in row else "-",
            with_interval(row, "over_ensemble", 1) if "over_ensemble" in row else "-",
            number(row["ratio_oracle"]),
            number(row.get("believed"), 1),
            number(row.get("held_out"), 1),
            worst_member(row),
        ]
        for method, row in sorted(result["learned"].items(), key=lambda entry: -entry[1]["return"])
    ]
    columns = [
        "method",
        "true return",
        "over logged",
        "over cloning",
        "over plain ensemble",
        "/ oracle",
        "believed",
        "in held-out simulator",
        "worst member, / best document held",
    ]
    note = (
        "Believed: the return that the training simulators promise, without penalty; its distance from the true "
        "return is what was exploited. Intervals: bootstrap over seeds and users, paired. The worst member is the "
        "simulator trained in with the least share of what each user's best document brings there, held: the optimum "
        "of a learned simulator is not known."
    )
    return Sheet(
        f"Learned from logs of limited support, tested in the true world: {seeded} seeds", columns, cells, note
    )


def figures(result: dict[str, Any]) -> list[Figure]:
    """Return the drawings of a result."""
    out: list[Figure] = []
    for name, methods in result["lts"].items():
        out.append(Figure(f"learning_lts{name}", _learning(methods), f"LTS{name}: return in the unseen group."))
        sadae = methods.get("sim2rec", {}).get("sadae")
        if sadae is not None:
            out.append(Figure(f"embedding_lts{name}", _components(sadae), f"LTS{name}: principal components, seed 0."))
    gap = _gap(result)
    out.append(Figure("gap", gap, "Share of the oracle reached in the groups trained on and in the unseen one."))
    out.append(
        Figure("learned", _believed(result["learned"]), "Learned simulators: what is believed and what is true.")
    )
    return out


def _learning(methods: dict[str, Any]) -> str:
    names = [name for name in _SHOWN if "curve" in methods.get(name, {})]
    points = [
        {"what": name, "steps": steps, "return": reached} for name in names for steps, reached in methods[name]["curve"]
    ]
    scale = alt.Scale(domain=names, range=list(SERIES[: len(names)]))
    chart = alt.Chart(alt.Data(values=points)).mark_line(strokeWidth=2)
    chart = chart.encode(
        x=alt.X(
            "steps:Q",
            title="user-steps simulated",
            axis=alt.Axis(format="~s", tickCount=6),
            scale=alt.Scale(nice=False),
        ),
        y=alt.Y("return:Q", title="return at mu 14", scale=alt.Scale(zero=False)),
        color=alt.Color("what:N", scale=scale, legend=alt.Legend(columns=3, columnPadding=18)),
    )
    mark = [{"at": methods["oracle"]["return"]}]
    rule = alt.Chart(alt.Data(values=mark)).mark_rule(strokeDash=[4, 4], color=MUTED).encode(y="at:Q")
    return svg((chart + rule).properties(width=WIDTH, height=HEIGHT), "Return in the unseen group by user-steps")


def _components(sadae: dict[str, Any]) -> str:
    trained = set(sadae.get("trained", []))
    points = [
        {
            "group": choc,
            "first": row["components"][0],
            "second": row["components"][1],
            "kind": "target, unseen" if choc == "14" else "trained on" if choc in trained else "other, unseen",
        }
        for choc, row in sadae["groups"].items()
    ]
    kinds = alt.Scale(domain=["trained on", "target, unseen", "other, unseen"], range=[SERIES[0], SERIES[1], MUTED])
    source = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("first:Q", title="first component"),
        y=alt.Y("second:Q", title="second component", scale=alt.Scale(domain=[-1, 1])),
        color=alt.Color("kind:N", scale=kinds, legend=_LEGEND),
    )
    dots = source.mark_point(filled=True, size=70, opacity=1)
    names = source.mark_text(dy=-10, fontSize=11).encode(text="group:N")
    return svg((dots + names).properties(width=WIDTH, height=HEIGHT), "Principal components of the group embedding")


def _gap(result: dict[str, Any]) -> str:
    points = [
        {"what": f"LTS{name} {method}", "where": where, "ratio": row[key], "order": index}
        for index, (name, methods) in enumerate(result["lts"].items())
        for method, row in methods.items()
        if "train_ratio_oracle" in row
        for where, key in (("groups trained on", "train_ratio_oracle"), ("unseen group", "ratio_oracle"))
    ]
    scale = alt.Scale(domain=["groups trained on", "unseen group"], range=[SERIES[0], SERIES[1]])
    base = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("ratio:Q", title="share of the oracle", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)),
        y=alt.Y("what:N", title=None, sort=None, axis=alt.Axis(labelLimit=0, minExtent=130)),
    )
    lines = base.mark_line(color=MUTED, strokeWidth=2).encode(detail="what:N")
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(
        color=alt.Color("where:N", scale=scale, legend=_LEGEND)
    )
    rows = len({point["what"] for point in points})
    return svg((lines + dots).properties(width=WIDTH - 160, height=max(24 * rows, 60)), "Gap from training to target")


def _believed(methods: dict[str, Any]) -> str:
    points = [
        {"what": method.replace("_", " "), "kind": kind, "value": row[key]}
        for method, row in sorted(methods.items(), key=lambda entry: -entry[1]["return"])
        for kind, key in (("true world", "return"), ("believed", "believed"), ("held-out simulator", "held_out"))
        if row.get(key) is not None
    ]
    kinds = ["true world", "believed", "held-out simulator"]
    scale = alt.Scale(domain=kinds, range=[SERIES[0], SERIES[1], MUTED])
    base = alt.Chart(alt.Data(values=points)).mark_point(filled=True, size=80, opacity=1)
    chart = base.encode(
        x=alt.X("value:Q", title="return", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)),
        y=alt.Y("what:N", title=None, sort=None, axis=alt.Axis(labelLimit=0, minExtent=130)),
        color=alt.Color("kind:N", scale=scale, legend=_LEGEND),
    )
    return svg(chart.properties(width=WIDTH - 160, height=28 * max(len(methods), 2)), "Believed and true returns")
