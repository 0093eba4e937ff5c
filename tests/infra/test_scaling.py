"""The simulation of the lake's commit protocol, where its results are known."""

from __future__ import annotations

import pytest

from tests.soak.scaling import Costs, most, simulated


def costs(**given: float) -> Costs:
    return Costs(
        **{name: given.get(name, 0.0) for name in ("message", "joined", "commit", "file", "request")},
        look=None,
        pin=None,
        pinned=None,
    )


def test_one_follower_never_tries_twice_and_many_as_often_as_commits_meet() -> None:
    assert simulated(costs(request=0.02), 1e3, 1, seed=1).attempts == 1.0
    again = [simulated(costs(request=0.02), 1e3, 64, seed=seed).attempts - 1.0 for seed in range(6)]
    meet = (
        63 / 30.0 * 0.18
    )  # commits of the others a second, and nine requests; who lost comes later to the next tables
    assert meet / 3 < sum(again) / 6 < meet


def test_without_costs_every_row_waits_for_its_interval_and_no_longer() -> None:
    run = simulated(costs(), 1e6, 4, seed=1)
    assert (run.behind, run.busy) == (0.0, 0.0)
    assert run.age == pytest.approx(30.0)
    assert run.commits == pytest.approx(4 / 30, rel=0.05)


@pytest.mark.parametrize("followers", [1, 8])
def test_processors_alone_bound_the_rate_at_the_sum_of_their_costs(followers: int) -> None:
    top = most(lambda rate: simulated(costs(message=20e-6, joined=30e-6), rate, followers, seed=1).carried)
    assert top == pytest.approx(followers / (1.3 * 20e-6 + 30e-6), rel=0.07)


def test_a_slow_store_bounds_the_commits_of_a_table_however_many_race_for_it() -> None:
    runs = [simulated(costs(request=5.0), 1e3, followers, seed=1, interval=1.0) for followers in (8, 32)]
    assert all(run.commits < 1 / 5.0 * 1.2 for run in runs)
    assert runs[1].attempts > runs[0].attempts
    assert not runs[1].carried


def test_the_same_seed_is_the_same_run() -> None:
    one, again, other = (simulated(costs(request=0.02), 1e3, 16, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
