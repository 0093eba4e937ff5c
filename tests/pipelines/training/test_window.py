"""Which rows of a log a training reads, and what they stand for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decision.batch import Interactions
from pipelines.lake.lake import Lake
from pipelines.settings import LoopSettings, parse_loop
from pipelines.training import window as windows
from pipelines.training.window import Window, window
from tests.worlds.logged import DAY_US, START_US, append, rows_of

ROWS, DAYS, CLICKS = 6_000, 10, 0.02
ACTIONS = [{"colour": colour} for colour in ("red", "green", "blue")]
CONTEXTS = [{"x": round(0.1 * i, 1), "country": "de" if i % 2 else "fr"} for i in range(8)]


def loop_of(text: str, name: str = "clicks") -> LoopSettings:
    return parse_loop(text, name, {})


def written(path: Path, name: str, reward: np.ndarray, ts: np.ndarray, seed: int = 1, pieces: int = 3) -> Lake:
    rng, n, lake = np.random.default_rng(seed), reward.size, Lake(path)
    context, chosen = rng.integers(0, len(CONTEXTS), n), rng.integers(0, len(ACTIONS), n)
    rows = rows_of(name, ts=ts, reward=reward, contexts=CONTEXTS, context=context, actions=ACTIONS, chosen=chosen).take(
        rng.permutation(n)
    )
    append(lake, [rows.slice(start, -(-n // pieces)) for start in range(0, n, -(-n // pieces))])
    return lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    rng = np.random.default_rng(5)
    ts = START_US + np.arange(ROWS) * (DAYS * DAY_US // ROWS)
    return written(tmp_path_factory.mktemp("window"), "clicks", (rng.random(ROWS) < CLICKS).astype(float), ts)


def learned(found: Window) -> Interactions:
    return found.learned()[0]


def test_rewards_that_are_rare_are_all_kept_and_others_stand_for_those_left_out(lake: Lake) -> None:
    """The sample's size is binomial: within 5 standard deviations of 500; fails by chance with probability 6e-7."""
    whole = learned(window(lake, loop_of("")))
    found = window(lake, loop_of("[training]\nsample = 500\ndecay = 1.0"))
    log = learned(found)
    assert log.reward.sum() == whole.reward.sum() > 50
    assert abs((log.reward == 0).sum() - 500) < 5 * 500**0.5
    assert (log.weights[log.reward > 0] == 1.0).all()
    rate = 500 / (0.8 * (ROWS - sum(day.rewarded for day in found.data.days)))
    assert log.weights[log.reward == 0] == pytest.approx(1 / rate)
    assert found.data.sampled == len(log)
    assert [day.rate for day in found.data.days] == pytest.approx([rate] * DAYS)
    assert {day.rewarded_rate for day in found.data.days} == {1.0}
    assert sum(day.rows for day in found.data.days) == ROWS == found.data.rows
    assert found.data.days[0].day == "2026-01-01"


def test_rewards_that_are_not_rare_are_thinned_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    reward = np.where(rng.random(ROWS) < 0.9, rng.integers(1, 6, ROWS), 0).astype(float)
    lake = written(tmp_path, "stars", reward, START_US + np.arange(ROWS) * 1_000)
    log = learned(window(lake, loop_of("[training]\nsample = 300", "stars")))
    assert len(log) == pytest.approx(2 * 300, rel=0.25)


def test_holdout_is_never_thinned(lake: Lake) -> None:
    whole, thinned = (window(lake, loop_of(f"[training]\nsample = {sample}")) for sample in (0, 50))
    assert thinned.holdout.equals(whole.holdout)
    assert thinned.rows == whole.rows == ROWS - whole.data.holdout
    assert whole.data.sampled == whole.rows


@pytest.mark.parametrize("most", [1, 150, 10_000])
def test_unseen_rows_are_the_newest_held_out_with_the_ages_of_their_neighbours(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """A generation is a day; a row behind the last of its day to learn from may count as one of the next."""
    monkeypatch.setattr(windows, "SLICE", 171)
    step = DAYS * DAY_US // ROWS
    ends = [windows._instant(START_US + day * DAY_US - step).isoformat() for day in range(1, DAYS)]
    found = window(lake, loop_of("[training]\ngeneration_rows = 100\nsample = 700"), trainings=ends)
    newest = found.holdout.slice(max(len(found.holdout) - most, 0))
    log, age = found.unseen(most)
    assert log.reward.tolist() == newest["reward"].to_pylist()
    assert log.propensity.tolist() == newest["propensity"].to_pylist()
    assert (log.weights == 1.0).all()
    day = (newest["ts"].cast("int64").to_numpy() - START_US) // DAY_US
    off = DAYS - 1 - day - age
    assert set(off.tolist()) <= {0, 1}
    assert off.sum() <= 2 * DAYS


def test_a_log_of_which_nothing_is_held_out_yet_has_no_unseen_row(tmp_path: Path) -> None:
    lake = written(tmp_path, "few", np.array([0.0, 1.0, 0.0]), START_US + np.arange(3), pieces=1)
    found = window(lake, loop_of("[training]\nholdout = 1e-9", "few"))
    log, age = found.unseen(100)
    assert (found.data.holdout, len(log), age.size) == (0, 0, 0)


def test_smaller_sample_is_part_of_a_larger_one(lake: Lake) -> None:
    ids = [
        {
            i
            for table in window(lake, loop_of(f"[training]\nsample = {n}")).picked()
            for i in table["event_id"].to_pylist()
        }
        for n in (100, 400, 2_000)
    ]
    assert ids[0] < ids[1] < ids[2]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.002, 0.05, 0.5, 0.95]),
    kind=st.sampled_from(["clicks", "revenue", "costs"]),
    sample=st.sampled_from([60, 300, 1_000]),
    decay=st.sampled_from([0.5, 0.9, 1.0]),
)
def test_weighted_sums_of_a_sample_are_those_of_the_log(
    tmp_path_factory: pytest.TempPathFactory, seed: int, share: float, kind: str, sample: int, decay: float
) -> None:
    """Sums of ones, rewards and squares of the rows to learn from, each a row's age-weighted: 6 standard errors, as the
    rates give them, and 10 of the largest weights; by Bernstein's inequality an example fails below 1e-6."""
    rng = np.random.default_rng(seed)
    n = 3_000
    value = {"clicks": np.ones(n), "revenue": rng.lognormal(3.0, 1.0, n), "costs": -rng.random(n)}[kind]
    reward = np.where(rng.random(n) < share, value, 0.0)
    ts = START_US + np.sort(rng.integers(0, 6 * DAY_US, n))
    lake = written(tmp_path_factory.mktemp("random"), "random", reward, ts, seed)
    text = f"[training]\nsample = {sample}\ndecay = {decay}\ngeneration_rows = 300"
    ends = [windows._instant(int(ts[i])).isoformat() for i in (900, 1_500, 2_400)]
    every, age = window(
        lake, loop_of("[training]\nsample = 0\ngeneration_rows = 300", "random"), trainings=ends
    ).learned()
    some, some_age = window(lake, loop_of(text, "random"), trainings=ends).learned()
    for power in (0, 1, 2):
        terms, wanted = some.weights * decay**some_age * some.reward**power, decay**age * every.reward**power
        spread = float(((some.weights - 1.0) / some.weights * terms**2).sum()) ** 0.5
        largest = float(np.abs(terms).max(initial=0.0))
        assert abs(float(terms.sum()) - float(wanted.sum())) <= 6.0 * spread + 10.0 * largest + 1e-9


def test_sample_is_the_same_however_it_is_sliced_and_filed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_of("[training]\nsample = 700")
    first, data = learned(window(lake, loop)), window(lake, loop).data
    lake.compact("interactions")
    monkeypatch.setattr(windows, "SLICE", 171)
    again = window(lake, loop)
    chunks = [chunk for chunk, _ in again.chunks()]
    assert len(chunks) > 20
    assert np.array_equal(np.concatenate([chunk.reward for chunk in chunks]), first.reward)
    assert np.array_equal(np.concatenate([chunk.weights for chunk in chunks]), first.weights)
    assert msgspec.structs.replace(again.data, table_version=0) == msgspec.structs.replace(data, table_version=0)


def test_days_are_counted_back_from_the_newest_decision(lake: Lake) -> None:
    found = window(lake, loop_of("[training]\ndays = 2.5"))
    assert found.data.rows == ROWS // 4
    assert len(found.data.days) == 3
    assert window(lake, loop_of("[training]\ndays = 0")).data.rows == ROWS


def test_former_setting_takes_the_latest_rows_whatever_their_age(lake: Lake) -> None:
    found = window(lake, loop_of("[training]\nwindow = 1700\ndays = 1"))
    assert found.data.rows == 1_700
    assert sum(day.rows for day in found.data.days) == 1_700
    assert window(lake, loop_of("[training]\nwindow = 0\ndays = 1")).data.rows == ROWS


def test_older_generations_are_thinned_as_they_fade(lake: Lake) -> None:
    """Rows of all days whose rate is below 1 count alike, decay^age / rate."""
    step = DAYS * DAY_US // ROWS
    ends = [windows._instant(START_US + day * DAY_US - step).isoformat() for day in range(1, DAYS)]
    loop = loop_of("[training]\nsample = 200\ngeneration_rows = 100\ndecay = 0.5")
    found = window(lake, loop, trainings=ends)
    rates = np.array([day.rate for day in found.data.days])
    assert rates[:-1] / rates[1:] == pytest.approx([0.5] * (DAYS - 1))
    log, age = found.learned()
    common = log.reward == 0
    assert (0.5**age * log.weights)[common] == pytest.approx(1 / rates[-1])
    assert (log.weights[~common] == 1.0).all()


def test_reward_range_is_that_of_the_rows_to_learn_from(lake: Lake) -> None:
    found = window(lake, loop_of(""))
    assert (found.data.reward_low, found.data.reward_high) == (0.0, 1.0)
    given_both = window(lake, loop_of("[reward]\nminimum = -1.0\nmaximum = 4.0"))
    assert (given_both.reward.low, given_both.reward.high) == (-1.0, 4.0)


def sampled_down(path: Path, seed: int) -> Lake:
    """A log of 8,000 decisions, a fifth of them clicked, that kept every click and a quarter of the others."""
    rng, n, lake = np.random.default_rng(seed), 8_000, Lake(path)
    reward = (rng.random(n) < 0.2).astype(np.float64)
    context, chosen = rng.integers(0, len(CONTEXTS), n), rng.integers(0, len(ACTIONS), n)
    ts = START_US + np.arange(n, dtype=np.int64) * 1_000_000
    rows = rows_of("clicks", ts=ts, reward=reward, contexts=CONTEXTS, context=context, actions=ACTIONS, chosen=chosen)
    kept = np.where(reward > 0, 1.0, 0.25)
    place = rows.column_names.index("pass_probability")
    rows = rows.set_column(place, rows.schema.field(place), pa.array(kept))
    append(lake, [rows.filter(pa.array(rng.random(n) < kept))])
    return lake


def test_a_log_that_was_sampled_down_is_learned_from_as_the_whole_log(tmp_path: Path) -> None:
    found = window(sampled_down(tmp_path, 5), loop_of("[training]\nholdout = 0.25\n"))
    log = learned(found)
    # the sum of weights is that of a binomial of 4,800 at 1/4, times 4: five of its standard errors either way
    assert log.weights.sum() == pytest.approx(6_000, abs=5 * 4 * np.sqrt(4_800 * 0.25 * 0.75))
    assert np.average(log.reward, weights=log.weights) == pytest.approx(0.2, abs=0.04)
    assert log.reward.mean() > 0.4


def test_a_log_that_was_sampled_down_is_judged_on_as_the_whole_log(tmp_path: Path) -> None:
    found = window(sampled_down(tmp_path, 6), loop_of("[training]\nholdout = 0.25\n"))
    held, judged = pa.concat_tables(found.held()), pa.concat_tables(found.judged())
    assert held["reward"].to_numpy().mean() > 0.4
    # 500 rows of 2,000 decisions: five standard errors of their mean
    assert len(judged) == pytest.approx(500, abs=5 * np.sqrt(500))
    assert judged["reward"].to_numpy().mean() == pytest.approx(0.2, abs=5 * np.sqrt(0.16 / len(judged)))
    narrow = pa.concat_tables(found.judged(("policy_version",)))
    assert narrow["event_id"].to_pylist() == judged["event_id"].to_pylist()
