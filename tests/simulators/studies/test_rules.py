from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from decision.batch import Interactions
from decision.oracles.factory import new_oracle
from decision.oracles.kind import OracleSettings
from pipelines.studies.rules import findings
from simulators.environments.offers import OFFERS, offers_world
from simulators.studies.regression_oracle import Trace, figures_of
from simulators.studies.rules import GENERATIONS, RULES, TUNED, VW, Task, run


def test_rows_that_meet_teach_the_same_as_apart() -> None:
    world, rng, n = offers_world("revenue", rate=0.2, seed=1), np.random.default_rng(2), 3_000
    context, offer = rng.choice(world.share.size, n, p=world.share), rng.integers(OFFERS, size=n)
    reward = world.rewards(context, offer, rng)
    apart = Interactions(
        world.batch(context), np.arange(n) * OFFERS + offer, np.full(n, 0.1), reward, np.full(n * OFFERS, 0.1)
    )
    cell, place, count = np.unique(context * OFFERS + offer, return_inverse=True, return_counts=True)
    at, k = np.divmod(cell, OFFERS)[0], cell % OFFERS
    met = Interactions(
        world.batch(at),
        np.arange(at.size) * OFFERS + k,
        np.full(at.size, 0.1),
        np.bincount(place, weights=reward) / count,
        np.full(at.size * OFFERS, 0.1),
        count.astype(np.float64),
    )
    grid = world.batch(np.arange(world.share.size))
    found = []
    for rows in (apart, met):
        oracle = new_oracle(OracleSettings(high=world.high))
        oracle.fit(rows)
        found.append(oracle.predict(grid))
    assert np.allclose(*found, rtol=1e-4)


def test_knowing_the_noise_of_rare_clicks_gains_while_learning() -> None:
    """One seed, known values: .78 of what can be gained against .65 without, at eight thousand visitors a night."""
    found = {name: figures_of(run(Task("clicks", 0.005, name, 0, 8_000))) for name in ("default", "without_sigma")}
    assert found["default"]["online"] > found["without_sigma"]["online"] + 0.05


def test_every_method_runs_in_a_world_and_the_tuned_ones_say_which_number_won() -> None:
    def one_after_another(tasks: Sequence[Task], one: Callable[[Task], Trace]) -> dict[Task, Trace]:
        return {task: one(task) for task in tasks}

    result = findings("clicks", 0.3, [3], 300, quick=True, traces=one_after_another).result
    methods = result["stationary"]
    assert {"default", *TUNED, VW} <= set(methods)
    assert (result["world"], result["rate"], result["seeds"], result["size"]) == ("clicks", 0.3, [3], 300)
    for row in methods.values():
        assert {"online", "online_ci", "last3", "drawdown", "sign_flips"} <= set(row)
        assert len(row["by_generation"]) == GENERATIONS
        assert row["by_generation"][0] == pytest.approx(0.0, abs=1e-9)
    for method in TUNED:
        assert methods[method]["online"] == methods[methods[method]["chosen"]]["online"]
        assert methods[method]["chosen"] in RULES


def test_payments_are_a_world_too() -> None:
    trace = run(Task("payments", None, "default", 0, 300))
    assert max(trace.online[1:]) > 0.0
    assert run(Task("payments", None, "default", 0, 300)) == trace
