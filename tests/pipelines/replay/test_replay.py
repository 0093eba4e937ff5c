from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from decision.batch import Batch, Floats
from decision.draw import draw, seed_of
from decision.errors import SupportError
from decision.policy import FirstPolicy, UniformPolicy
from pipelines.formats.rows import complete
from pipelines.interactions.arrays import to_interactions
from pipelines.replay.crossfit import FOLDS, CrossFit, Fitted
from pipelines.replay.models import LEARNED, reward_models
from pipelines.replay.propensities import check_propensities
from pipelines.replay.replay import replay
from pipelines.replay.report import replay_report
from pipelines.replay.rows import fold_of_hash, load
from pipelines.replay.survey import extent_of, survey_of

AT = datetime(2026, 3, 1, tzinfo=UTC)
IDS = ["a", "b", "c"]
MEANS = [0.2, 0.6, 0.4]


class Fixed:
    """The same probabilities in every decision of three actions."""

    def __init__(self, *pmf: float) -> None:
        self.one = np.array(pmf)

    def pmf(self, batch: Batch) -> Floats:
        return np.tile(self.one, len(batch))


def log(n: int = 2000, *, pmf: tuple[float, ...] = (0.5, 0.3, 0.2), version: str = "1", **changes: Any) -> pa.Table:
    """Return a log whose draws follow their seeds and whose actions have the mean rewards `MEANS`."""
    rng = np.random.default_rng(7)
    seeds = [seed_of("news", f"e{row}") for row in range(n)]
    index = [draw(list(pmf), seed) for seed in seeds]
    columns: dict[str, Any] = {
        "event_id": [f"e{row}" for row in range(n)],
        "ts": [AT] * n,
        "action_ids": [IDS] * n,
        "action_index": index,
        "propensity": [pmf[chosen] for chosen in index],
        "pmf": [list(pmf)] * n,
        "seed": seeds,
        "reward": [float(rng.random() < MEANS[chosen]) for chosen in index],
        "reward_version": [version] * n,
    }
    return complete({**columns, **changes}, n)


def test_replaying_the_logging_policy_gives_the_logged_mean_exactly() -> None:
    rows = log()
    result = replay(rows, Fixed(0.5, 0.3, 0.2), log="news", policy_name="itself", reward_model="none")
    mean = float(rows["reward"].to_numpy().mean())
    for estimate in (result.estimates["ips"], result.estimates["snips"], result.logged):
        assert estimate is not None
        assert estimate.value == pytest.approx(mean, abs=1e-12)
    found = result.diagnostics
    assert (found.mean_weight, found.ess, found.largest_weight) == pytest.approx((1.0, 2000.0, 1.0))
    assert result.trusted


@pytest.mark.parametrize("reward_model", ["means", *LEARNED])
def test_replay_finds_the_known_values(reward_model: Any) -> None:
    """Each of 9 intervals misses its value with probability .05; seeded, and run once to see that none does."""
    rows = log(4000)
    for policy, value in (
        (UniformPolicy(), np.mean(MEANS)),
        (FirstPolicy(), MEANS[0]),
        (Fixed(0.1, 0.8, 0.1), 0.54),
    ):
        result = replay(rows, policy, log="news", policy_name="x", reward_model=reward_model, check=False)
        for name in ("ips", "snips", "dr"):
            estimate = result.estimates[name]
            assert estimate is not None
            assert estimate.low < value < estimate.high, name
            assert estimate.high - estimate.low < 0.15


def test_a_policy_without_support_gets_no_estimate_and_is_not_trusted() -> None:
    rows = log(300, pmf=(0.5, 0.5, 0.0))
    result = replay(rows, Fixed(0.0, 0.0, 1.0), log="news", policy_name="x", reward_model="none")
    assert result.estimates["snips"] is None
    assert not result.trusted
    assert any("support" in reason for reason in result.reasons)
    assert result.diagnostics.unused == 1.0
    assert result.diagnostics.histogram == []
    assert "no support" in replay_report(result)


def test_a_log_sampled_down_stands_for_what_was_left_out() -> None:
    whole = log(4000)
    rewarded = whole["reward"].to_numpy() == 1.0
    # Of the decisions without reward only every fourth was kept, and says so.
    keep = rewarded | (np.arange(4000) % 4 == 0)
    share = np.where(rewarded, 1.0, 0.25)
    rows = log(4000, pass_probability=share).filter(pa.array(keep))
    given, wanted = (
        replay(table, UniformPolicy(), log="x", policy_name="x", reward_model="none", check=False)
        for table in (rows, whole)
    )
    for name in ("ips", "snips"):
        here, there = given.estimates[name], wanted.estimates[name]
        assert here is not None
        assert there is not None
        assert here.value == pytest.approx(there.value, abs=0.02)
    assert given.logged.value == pytest.approx(wanted.logged.value, abs=0.02)


@pytest.mark.parametrize("kind", LEARNED)
def test_a_learned_reward_model_never_saw_the_row_it_predicts(kind: Any) -> None:
    interactions, folds = to_interactions(log(200)), np.arange(200) % FOLDS

    def expected() -> Floats:
        models = CrossFit(kind, interactions, folds).models()
        return models.predict(interactions.batch, folds, models.load())

    before = expected()
    interactions.reward[folds == 0] = 1.0 - interactions.reward[folds == 0]
    after = expected()
    group = np.repeat(folds, 3)
    np.testing.assert_array_equal(before[group == 0], after[group == 0])
    for other in range(1, FOLDS):
        assert (before[group == other] != after[group == other]).any()


@pytest.mark.parametrize("kind", LEARNED)
def test_models_of_folds_are_the_same_whichever_process_fits_them(kind: Any) -> None:
    few = to_interactions(log(200))
    crossfit = CrossFit(kind, few.take(np.arange(20_000) % 200), np.arange(20_000) % FOLDS, named=True)
    seen: list[Fitted] = []
    assert crossfit.models(3, seen.append) == crossfit.models()
    assert sorted(fold for part in seen for fold in part.constant) == list(range(FOLDS))


@pytest.mark.parametrize("kind", LEARNED)
def test_actions_without_features_are_told_apart_by_their_ids(kind: Any) -> None:
    """Action a works in one half of the contexts and b in the other, which only the crossing of both can say."""
    rows, n = log(3000), 3000
    here = np.random.default_rng(3).random(n) < 0.5
    reward = [
        float((index == 0) == on and index < 2)
        for index, on in zip(rows["action_index"].to_pylist(), here, strict=True)
    ]
    contexts = ['{"here": 1}' if on else '{"there": 1}' for on in here]
    rows = _changed(_changed(_changed(rows, "context", contexts), "actions", ["[{}, {}, {}]"] * n), "reward", reward)
    found = replay(rows, Fixed(1.0, 0.0, 0.0), log="x", policy_name="x", reward_model=kind, check=False).estimates
    dm, dr, ips = found["dm"], found["dr"], found["ips"]
    assert dm is not None
    assert dr is not None
    assert ips is not None
    assert dm.value == pytest.approx(here.mean(), abs=0.05)
    assert dr.high - dr.low < 0.7 * (ips.high - ips.low)


def test_means_are_those_of_the_other_folds_drawn_towards_the_mean_of_all() -> None:
    rows = log(300, ts=[AT + timedelta(minutes=row) for row in range(300)])
    loaded = load(rows, features=False, counted=False)
    models = reward_models(survey_of(loaded, extent_of(rows), None, sampled=()))
    folds, reward, chosen = (
        fold_of_hash(loaded.hashed, FOLDS),
        rows["reward"].to_numpy(),
        rows["action_index"].to_numpy(),
    )
    assert set(folds.tolist()) == set(range(FOLDS))

    def shrunk(of: Any) -> list[float]:
        mean = reward[of].mean()
        return [(reward[of & (chosen == a)].sum() + 10 * mean) / ((of & (chosen == a)).sum() + 10.0) for a in range(3)]

    np.testing.assert_allclose(models.folds, [shrunk(folds != fold) for fold in range(FOLDS)], rtol=1e-12)
    np.testing.assert_allclose(models.early, shrunk(np.arange(300) < 60), rtol=1e-12)
    ends = models.predict(loaded, ()).expected.reshape(300, 3)
    np.testing.assert_array_equal(ends, models.folds[folds])


def test_without_features_a_learned_model_is_that_of_means() -> None:
    rows, policy = log(300), Fixed(0.2, 0.2, 0.6)
    rows = _changed(_changed(rows, "context", ["{}"] * 300), "actions", ["[{}, {}, {}]"] * 300)
    learned, means = (
        replay(rows, policy, log="news", policy_name="x", reward_model=kind, check=False) for kind in ("vw", "means")
    )
    assert learned.estimates == means.estimates


def test_an_estimate_that_rests_on_few_rewarded_decisions_says_so() -> None:
    reward = np.zeros(400)
    reward[:5] = 1.0
    few = replay(log(400, reward=reward), UniformPolicy(), log="x", policy_name="x", reward_model="means", check=False)
    assert any("rewarded decisions" in reason for reason in few.reasons)
    assert few.estimates["dr"] is not None
    bounded = few.estimates["sequence"]
    assert few.recommended == "sequence"
    assert bounded is not None
    assert bounded.low <= 5 / 400 <= bounded.high
    many = replay(log(400), UniformPolicy(), log="x", policy_name="x", reward_model="means", check=False)
    assert many.reasons == []
    assert (many.recommended, "sequence" in many.estimates) == ("dr", False)


def test_the_lift_is_paired_with_what_was_logged() -> None:
    rows = log(500)
    same = replay(rows, Fixed(0.5, 0.3, 0.2), log="x", policy_name="x", reward_model="none", check=False).lift
    assert same is not None
    assert (same.low, same.value, same.high) == (0.0, 0.0, 0.0)
    found = replay(rows, UniformPolicy(), log="x", policy_name="x", reward_model="means", check=False)
    dr, lift = found.estimates["dr"], found.lift
    assert dr is not None
    assert lift is not None
    assert lift.value == pytest.approx(dr.value - found.logged.value, abs=1e-12)
    assert lift.high - lift.low < 1.2 * (dr.high - dr.low)


def test_nothing_to_replay_says_so() -> None:
    with pytest.raises(SupportError, match="news"):
        replay(log(10).slice(0, 0), UniformPolicy(), log="news", policy_name="x")


def _changed(rows: pa.Table, column: str, values: Any) -> pa.Table:
    at = rows.schema.get_field_index(column)
    return rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))


def test_a_true_log_passes_with_every_draw_repeated() -> None:
    report = check_propensities(log())
    assert report.ok
    assert report.numbers["redrawn"] == 2000


def test_another_choice_than_the_seeds_is_found() -> None:
    rows = log()
    index = rows["action_index"].to_pylist()
    index[5] = (index[5] + 1) % 3
    propensity = rows["propensity"].to_pylist()
    propensity[5] = [0.5, 0.3, 0.2][index[5]]
    report = check_propensities(_changed(_changed(rows, "action_index", index), "propensity", propensity))
    assert not report.ok
    assert report.reasons == ("1 of 2000 draws are not those of their seeds",)


def test_a_propensity_that_is_not_the_pmfs_is_found() -> None:
    rows = log()
    report = check_propensities(_changed(rows, "propensity", [0.9, *rows["propensity"].to_pylist()[1:]]))
    assert not report.ok


def test_an_import_whose_choices_do_not_follow_its_pmfs_is_found() -> None:
    # Drawn from another distribution than the one logged; there are no seeds to compare with.
    rows = log(version="imported")
    assert check_propensities(rows).ok
    wrong = [[0.3, 0.5, 0.2]] * len(rows)
    propensity = [wrong[0][index] for index in rows["action_index"].to_pylist()]
    report = check_propensities(_changed(_changed(rows, "pmf", wrong), "propensity", propensity))
    assert not report.ok
    assert "redrawn" not in report.numbers
    assert any("do not follow" in reason for reason in report.reasons)


def test_weights_histogram_counts_every_positive_weight_once() -> None:
    result = replay(log(500), Fixed(0.2, 0.7, 0.1), log="x", policy_name="x", reward_model="none", check=False)
    bins = result.diagnostics.histogram
    assert sum(count for _, _, count in bins) == 500
    assert all(low < high for low, high, _ in bins)
    assert [high for _, high, _ in bins[:-1]] == pytest.approx([low for low, _, _ in bins[1:]])


def test_text_of_others_cannot_break_out_of_a_report() -> None:
    name = "<script>alert(1)</script>"
    result = replay(log(100), UniformPolicy(), log=name, policy_name=name, reward_model="none", check=False)
    page = replay_report(result)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
