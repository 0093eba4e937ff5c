from __future__ import annotations

import numpy as np
import pytest

from decision.errors import FieldError
from decision.policy import FirstPolicy, UniformPolicy
from pipelines.studies import tilt as study
from pipelines.studies.report import markdown
from simulators.studies.auxiliary import ACTIONS
from simulators.studies.tilt import logged, together, value, world_of


def test_a_ranker_orders_actions_by_their_chances_where_it_is_right_and_by_chance_elsewhere() -> None:
    visitors = world_of(7).visitors(2_000, 0.5, np.random.default_rng(0))
    mean = visitors.mean.reshape(-1, ACTIONS)
    falls = np.all(np.diff(mean, axis=1) <= 0, axis=1)
    right = visitors.x[:, 0] < 0.5
    assert falls[right].all()
    assert falls[~right].mean() == pytest.approx(1 / 120, abs=0.02)  # five standard errors
    assert value(world_of(7).visitors(100, np.inf, np.random.default_rng(0)), _first(100)) == 1.0


def _first(n: int) -> np.ndarray:
    return np.tile(np.eye(ACTIONS)[0], n)


def test_a_value_is_what_draws_earn() -> None:
    visitors = world_of(8).visitors(20_000, 0.5, np.random.default_rng(1))
    for policy in (FirstPolicy(), UniformPolicy()):
        pmf = policy.pmf(visitors.batch)
        log = logged(visitors, pmf, np.random.default_rng(2))
        best = visitors.mean.reshape(-1, ACTIONS).max(axis=1).mean()
        assert log.reward.mean() / best == pytest.approx(value(visitors, pmf), abs=0.06)  # five standard errors


def test_nights_together_are_the_nights_one_after_another() -> None:
    rng, world = np.random.default_rng(3), world_of(7)
    nights = [world.visitors(n, 0.5, rng) for n in (3, 5)]
    logs = [logged(each, UniformPolicy().pmf(each.batch), rng) for each in nights]
    both = together(nights, logs)
    for start, log in ((0, logs[0]), (3, logs[1])):
        for row in range(len(log)):
            assert both.batch.action_ids[both.chosen[start + row]] == log.batch.action_ids[log.chosen[row]]
            assert both.batch.contexts[start + row] == log.batch.contexts[row]
    assert both.reward.tolist() == [*logs[0].reward, *logs[1].reward]


def test_the_study_runs_each_ranker_and_computes_probabilities_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {name: study.RULES[name] for name in ("default", "greedy", "tilt_3_steep_3")}
    monkeypatch.setattr(study, "RULES", rules)
    monkeypatch.setattr(study, "TILTS", {"tilt_3_steep_3": study.TILTS["tilt_3_steep_3"]})
    found = study.run([7], 200, quick=True, progress=lambda what, share: None)
    assert list(found.result["rankers"]) == ["right", "mostly right", "seldom right"]
    for rows in found.result["rankers"].values():
        assert set(rows) == {"first", "ranking_1", "ranking_3", "best_of_features", *rules}
        assert all(0.0 < row["online"] <= 1.0 for row in rows.values())
    right = found.result["rankers"]["right"]
    assert right["first"]["online"] == 1.0
    assert right["greedy"]["over_first"] == pytest.approx(right["greedy"]["online"] - 1.0)
    assert right["greedy"]["over_greedy"] == 0.0
    assert right["tilt_3_steep_3"]["online"] > right["default"]["online"]
    assert found.result["recomputed_apart"] < 1e-12
    assert "mostly right" in markdown(found)
    assert "<svg" in found.figures[0].svg


def test_a_night_that_is_too_short_is_refused_by_name() -> None:
    with pytest.raises(FieldError, match="size"):
        study.run([7], 100, quick=True, progress=lambda what, share: None)
