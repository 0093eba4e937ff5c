"""The study of rankings that are re-weighted: which loops are run, their tables and figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from decision.batch import Interactions
from decision.errors import FieldError
from decision.exploration.mix import with_floor
from decision.exploration.tilt import ranked
from decision.options import SHIPPED, Range
from decision.policy import FirstPolicy, OraclePolicy
from pipelines.reports.figures import HEIGHT, MUTED, SERIES, WIDTH, svg
from pipelines.settings import LoopSettings, Variant, parse_loop
from pipelines.studies.report import Figure, Findings, Sheet, number, with_interval
from pipelines.training.train import scheduled_policy
from pipelines.training.variants import configuration, learned
from simulators.studies import tilt
from simulators.studies.auxiliary import ACTIONS, NUMBERS
from simulators.studies.interval import of_mean
from simulators.studies.tilt import Visitors

ABOUT = (
    "Applications send their own ranking, which is right in all, most or few contexts and knows what no feature says. "
    "Loops begin with draws by the place and learn every night from their own log. Shown is what their policies are "
    "worth, over the optimum: with the ranking re-weighted (tilt), and with rules that do not look at it."
)
BETAS = (3.0, 10.0, 30.0, 100.0)
"""Inverse temperatures of the tilt, per sigma."""
STEEPNESSES = (1.0, 3.0)
TILTS = {f"tilt_{beta:g}_steep_{steepness:g}": (beta, steepness) for beta in BETAS for steepness in STEEPNESSES}
RULES: dict[str, str] = {
    "default": "",
    "squarecb": 'exploration = "squarecb"',
    "greedy": 'exploration = "epsilon_greedy"\nepsilon = 0.0',
    "softmax": 'exploration = "softmax"',
    **{name: f'exploration = "tilt"\ninverse_temperature = {beta}' for name, (beta, _) in TILTS.items()},
}
"""Policies by name, as a loop's settings have them."""
AGAINST = ("first", "greedy")
"""Policies that each is held against: the ranker's first action, and the model's best one."""
RECOMPUTED = 50
"""Decisions of each tilt whose probabilities are computed again, one at a time and by the formula."""
_TEST, _HELD = 4_000, 0.2

Progress = Callable[[str, float], None]


def seeds(*, quick: bool) -> list[int]:
    """Return the seeds when none are asked for; three either way."""
    return [7, 8, 9]


def run(asked: Sequence[int], length: int | None, *, quick: bool, progress: Progress) -> Findings:
    """Run the study.

    Args:
        asked: seeds.
        length: decisions of a night; the study's own when None.
        quick: fewer and shorter nights.
        progress: called with what is running and the share done.

    Raises:
        FieldError: `length` is too small.
    """
    rows = (500 if quick else 1_000) if length is None else length
    if rows < 200:
        raise FieldError("size", wanted="200 decisions or more", got=rows)
    nights = 2 if quick else 4
    rankers: dict[str, Any] = {}
    apart = 0.0
    for place, ranker in enumerate(tilt.EDGES):
        runs = list[dict[str, list[float]]]()
        for number_of, seed in enumerate(asked):
            progress(f"{ranker}, seed {seed}", (place + number_of / len(asked)) / len(tilt.EDGES))
            values, gap = _run(ranker, seed, rows, nights)
            runs.append(values)
            apart = max(apart, gap)
        rankers[ranker] = {name: _summary(name, runs) for name in runs[0]}
    progress("done", 1.0)
    result = {"seeds": list(asked), "size": rows, "nights": nights, "rankers": rankers, "recomputed_apart": apart}
    return Findings("tilt", ABOUT, result, sheets(result), [figure(result)])


def sheets(result: dict[str, Any]) -> list[Sheet]:
    """Return the tables of a result."""
    note = (
        "online: mean over the nights; over first, greedy: that less always taking the ranker's first action, or the "
        f"model's best. Probabilities computed again differ by {result['recomputed_apart']:.1e} at most."
    )
    return [
        Sheet(
            f"The ranker is {ranker}: {result['nights']} nights of {result['size']:,}, {len(result['seeds'])} seeds",
            ["policy", "first night", "last night", "online", "over first", "over greedy"],
            [
                [
                    name.replace("_", " "),
                    number(row["begin"]),
                    *[with_interval(row, key) for key in ("last", "online", "over_first", "over_greedy")],
                ]
                for name, row in rows.items()
            ],
            note,
        )
        for ranker, rows in result["rankers"].items()
    ]


def figure(result: dict[str, Any]) -> Figure:
    """Return the drawing of a result: value against the inverse temperature."""
    points = [
        {"ranker": ranker, "beta": beta, "steep": f"tilt, steepness {steepness:g}", "value": rows[name]["online"]}
        for ranker, rows in result["rankers"].items()
        for name, (beta, steepness) in TILTS.items()
    ]
    level = [
        {"ranker": ranker, "beta": beta, "steep": other, "value": rows[other]["online"]}
        for ranker, rows in result["rankers"].items()
        for other in ("first", "default")
        for beta in (BETAS[0], BETAS[-1])
    ]
    names = [*dict.fromkeys(point["steep"] for point in points), "first", "default"]
    colours = alt.Scale(domain=names, range=[*SERIES[:3], MUTED])
    chart = alt.Chart(alt.Data(values=[*points, *level])).mark_line(point=True)
    chart = chart.encode(
        x=alt.X(
            "beta:Q",
            title="inverse temperature",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(values=list(BETAS)),
        ),
        y=alt.Y("value:Q", title="value over the optimum's", scale=alt.Scale(zero=False)),
        color=alt.Color("steep:N", title=None, scale=colours),
        column=alt.Column("ranker:N", title=None, sort=list(result["rankers"])),
    )
    drawn = svg(chart.properties(width=WIDTH // 3, height=HEIGHT), "Value against the inverse temperature")
    return Figure("tilt", drawn, "What a tilt is worth online, by inverse temperature and by the ranker's quality.")


def _run(ranker: str, seed: int, rows: int, nights: int) -> tuple[dict[str, list[float]], float]:
    """Return [nights] values of each policy, and the largest difference of a probability that was computed again."""
    world, edge = tilt.world_of(seed), tilt.EDGES[ranker]
    test = world.visitors(_TEST, edge, np.random.default_rng([seed, 72]))
    offsets = test.batch.offsets
    best = float(test.mean.reshape(-1, ACTIONS).max(axis=1).mean())
    references = {
        "first": tilt.value(test, FirstPolicy().pmf(test.batch)),
        **{f"ranking_{each:g}": tilt.value(test, ranked(offsets, steepness=each)) for each in STEEPNESSES},
        "best_of_features": world.seen_best(test, np.random.default_rng([seed, 73])) / best,
    }
    values = {name: [worth] * nights for name, worth in references.items()}
    apart = 0.0
    for name, text in RULES.items():
        beta, steepness = TILTS.get(name, (0.0, STEEPNESSES[0]))
        loop = parse_loop(f'[baseline]\nkind = "ranking"\nsteepness = {steepness}\n[policy]\n{text}\n', "tilt", {})
        policies = list(_nights(loop, world, edge, seed, rows, nights))
        values[name] = [tilt.value(test, policy.pmf(test.batch)) for policy in policies]
        if name in TILTS:
            apart = max(apart, _apart(policies[-1], test, beta, steepness))
    return values, apart


def _nights(
    loop: LoopSettings, world: tilt.World, edge: float, seed: int, rows: int, nights: int
) -> Iterator[OraclePolicy]:
    """Yield the policy after each night; the night before the first is drawn by the ranking, above a floor."""
    rng = np.random.default_rng([seed, 74])
    seen, logs, held = list[Visitors](), list[Interactions](), list[NDArray[np.bool_]]()
    policy: OraclePolicy | None = None
    for night in range(nights):
        visitors = world.visitors(rows, edge, rng)
        if policy is None:
            offsets = visitors.batch.offsets
            pmf = with_floor(ranked(offsets, steepness=loop.steepness), offsets, SHIPPED.floor)
        else:
            pmf = policy.pmf(visitors.batch)
        seen.append(visitors)
        logs.append(tilt.logged(visitors, pmf, rng))
        held.append(rng.random(rows) < _HELD)
        log, out = tilt.together(seen, logs), np.concatenate(held)
        age = np.repeat(np.arange(night, -1, -1), rows)
        made = configuration(loop, Variant(), seed, Range())
        _, oracle, tally = learned([(log.take(np.flatnonzero(~out)), age[~out])], made, [])
        policy = scheduled_policy(loop, made, oracle, tally, (log.take(np.flatnonzero(out)), age[out]))
        yield policy


def _apart(policy: OraclePolicy, test: Visitors, beta: float, steepness: float) -> float:
    """Return the largest difference between a policy's probabilities and what a service says, or the formula."""
    rule, scores = policy.exploration, policy.scores(test.batch).reshape(-1, ACTIONS)
    said, found = policy.pmf(test.batch).reshape(-1, ACTIONS), 0.0
    for row in range(RECOMPUTED):
        ids = [f"a{each}" for each in test.shown[row]]
        context = {f"x{i}": float(test.x[row, i]) for i in range(NUMBERS)}
        served = policy.prepare([{each: 1.0} for each in ids], ids)([context])[0]
        weight = np.arange(1, ACTIONS + 1) ** -steepness * np.exp(beta / rule.unit * (scores[row] - scores[row].max()))
        formula = (1.0 - rule.floor) * weight / weight.sum() + rule.floor / ACTIONS
        found = max(found, *np.abs(said[row] - served), *np.abs(said[row] - formula))
    return float(found)


def _summary(name: str, runs: Sequence[dict[str, list[float]]]) -> dict[str, Any]:
    """Return what is told of a policy: its first and last night, the mean of all, and that less other policies'."""
    online = {each: [float(np.mean(one[each])) for one in runs] for each in (name, *AGAINST)}
    last = [one[name][-1] for one in runs]
    row: dict[str, Any] = {
        "begin": float(np.mean([one[name][0] for one in runs])),
        "last": float(np.mean(last)),
        "last_ci": of_mean(last, low=0.0, high=1.0),
        "online": float(np.mean(online[name])),
        "online_ci": of_mean(online[name], low=0.0, high=1.0),
    }
    for other in AGAINST:
        over = [one - its for one, its in zip(online[name], online[other], strict=True)]
        row[f"over_{other}"], row[f"over_{other}_ci"] = float(np.mean(over)), of_mean(over)
    return row
