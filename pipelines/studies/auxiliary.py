"""The study of auxiliary outcomes and of policies that change at night: what is run, its tables and its figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import altair as alt
import numpy as np

from decision.batch import Floats, Interactions
from decision.errors import FieldError
from decision.options import Range
from decision.oracles.action_ids import with_ids
from pipelines.reports.figures import HEIGHT, SERIES, WIDTH, svg
from pipelines.settings import AuxiliaryOutcome, LoopSettings, RewardSettings, Variant
from pipelines.studies.report import Figure, Findings, Sheet, with_interval
from pipelines.training.aligned import range_with, weighed
from pipelines.training.variants import configuration, learned
from simulators.studies import auxiliary
from simulators.studies.auxiliary import ACTIONS, NUMBERS, Device, Kind, Shop
from simulators.studies.interval import of_mean

ABOUT = (
    "Clicks beside rare purchases: the value of the greedy policy, over the optimum's, that learns from purchases "
    "alone, from clicks and purchases alike, and with the weight of clicks that a training chooses. And nights on one "
    "world: how often the best action changes, and what that is worth, by what keeps it."
)
MARGINS = {"fresh": 0.08, "log": 0.02}
"""Margins by where the nights learn from, in rewards: the largest that lost no value in the first measurement."""
_METHODS = ("primary", "plain_sum", "chosen")

Progress = Callable[[str, float], None]


def seeds(*, quick: bool) -> list[int]:
    """Return the seeds when none are asked for; three either way."""
    return [7, 8, 9]


def run(asked: Sequence[int], length: int | None, *, quick: bool, progress: Progress) -> Findings:
    """Run the study.

    Args:
        asked: seeds.
        length: decisions of the shop's log; the study's own when None.
        quick: fewer nights, and a shorter log.
        progress: called with what is running and the share done.

    Raises:
        FieldError: `length` is too small.
    """
    rows = (2_000 if quick else 4_000) if length is None else length
    if rows < 500:
        raise FieldError("size", wanted="500 decisions or more", got=rows)
    kinds, parts = get_args(Kind), 2 + len(MARGINS)
    shops: dict[str, Any] = {}
    for place, kind in enumerate(kinds):
        progress(f"shops whose clicks are {kind}", place / parts)
        shops[kind] = _summary([_shop(kind, seed, rows) for seed in asked])
    kept: dict[str, Any] = {}
    for place, (source, margin) in enumerate(MARGINS.items(), len(kinds)):
        progress(f"nights on {source} rows", place / parts)
        kept[source] = {
            device: _kept(device, asked, margin, fresh=source == "fresh", nights=8 if quick else 14)
            for device in auxiliary.DEVICES
        }
    progress("done", 1.0)
    result = {"seeds": list(asked), "size": rows, "auxiliary": shops, "margin": kept}
    return Findings("auxiliary", ABOUT, result, sheets(result), [figure(result)])


def sheets(result: dict[str, Any]) -> list[Sheet]:
    """Return the tables of a result."""
    seeded = len(result["seeds"])
    cells = [
        [kind, *[with_interval(row[method], "value") for method in _METHODS], ", ".join(map(str, row["weights"]))]
        for kind, row in result["auxiliary"].items()
    ]
    columns = ["clicks are", *[method.replace("_", " ") for method in _METHODS], "weights chosen"]
    out = [Sheet(f"Auxiliary outcomes: logs of {result['size']:,} uniform decisions, {seeded} seeds", columns, cells)]
    for source, devices in result["margin"].items():
        rows = [
            [device.replace("_", " "), with_interval(row, "flips"), with_interval(row, "value", 4)]
            for device, row in devices.items()
        ]
        title = f"Nights on {source} rows, margin {MARGINS[source]:g}, {seeded} seeds"
        out.append(Sheet(title, ["what keeps a policy", "flips a night", "value"], rows))
    return out


def figure(result: dict[str, Any]) -> Figure:
    """Return the drawing of a result: what keeps a policy costs and saves."""
    points = [
        {"nights": source, "device": device.replace("_", " "), "flips": row["flips"], "value": row["value"]}
        for source, devices in result["margin"].items()
        for device, row in devices.items()
    ]
    names = [device.replace("_", " ") for device in auxiliary.DEVICES]
    chart = alt.Chart(alt.Data(values=points)).mark_point(filled=True, size=90, opacity=1)
    chart = chart.encode(
        x=alt.X("flips:Q", title="contexts whose best action changes in a night", axis=alt.Axis(format="%")),
        y=alt.Y("value:Q", title="value over the optimum's", scale=alt.Scale(zero=False, padding=10)),
        color=alt.Color("device:N", scale=alt.Scale(domain=names, range=list(SERIES[: len(names)]))),
        shape=alt.Shape("nights:N"),
    )
    drawn = svg(chart.properties(width=WIDTH, height=HEIGHT), "Changes of the best action against value")
    return Figure("flips", drawn, "Nights that change little and are worth much lie at the upper left.")


def _shop(kind: Kind, seed: int, rows: int) -> dict[str, float]:
    world = auxiliary.shop(kind, seed)
    rng = np.random.default_rng([seed, 2])
    log, clicks = world.logged(rows, rng)
    test = rng.normal(size=(20_000, NUMBERS))
    loop = LoopSettings(name="shop", reward=RewardSettings(auxiliary=(AuxiliaryOutcome(outcome="click"),)))
    (found,) = weighed(log, np.zeros(rows, np.int64), clicks[None], loop, seed, Range())
    factors = {"primary": 0.0, "plain_sum": 1.0, "chosen": found.factor}
    values = {name: _value(world, log, clicks, loop, factor, seed, test) for name, factor in factors.items()}
    return values | {"weight": found.weight}


def _value(
    world: Shop, log: Interactions, clicks: Floats, loop: LoopSettings, factor: float, seed: int, test: Floats
) -> float:
    """Return what the greedy policy of the reward and `factor` times clicks earns, over the optimum."""
    made = configuration(loop, Variant(), seed, range_with(Range(), np.array([factor]), clicks[None]))
    sums = replace(log, reward=log.reward + factor * clicks)
    _, oracle, _ = learned([(sums, np.zeros(len(log), np.int64))], made, [])
    batch = auxiliary.batch_of(test)
    scores = oracle.predict(with_ids(batch) if made.action_ids else batch).reshape(-1, ACTIONS)
    _, buys = world.means(test)
    return float(buys[np.arange(len(test)), scores.argmax(axis=1)].mean() / buys.max(axis=1).mean())


def _summary(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for method in _METHODS:
        values = [one[method] for one in runs]
        row[method] = {"value": float(np.mean(values)), "value_ci": of_mean(values, low=0.0, high=1.0)}
    apart = [one["chosen"] - one["primary"] for one in runs]
    return row | {
        "gain": float(np.mean(apart)),
        "gain_ci": of_mean(apart),
        "weights": [one["weight"] for one in runs],
    }


def _kept(device: Device, asked: Sequence[int], margin: float, *, fresh: bool, nights: int) -> dict[str, Any]:
    runs = [auxiliary.nights(device, seed, margin=margin, fresh=fresh, count=nights) for seed in asked]
    flips, values = [one.flips for one in runs], [one.value for one in runs]
    return {
        "flips": float(np.mean(flips)),
        "flips_ci": of_mean(flips, low=0.0, high=1.0),
        "value": float(np.mean(values)),
        "value_ci": of_mean(values, low=0.0, high=1.0),
    }
