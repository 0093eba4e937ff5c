"""Ids of actions as features: what is learned of them, and that every way of asking a policy reads them alike."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from decision.artifact import MANIFEST_FILE, Manifest, pack, unpack
from decision.batch import Batch, Interactions, one
from decision.columns import FeatureRows, Texts
from decision.exploration.rule import Exploration
from decision.oracles.action_ids import PREFIX, drawn_with_ids, with_ids
from decision.oracles.factory import load_oracle, new_oracle
from decision.oracles.identity import most_frequent_ids
from decision.oracles.kind import OracleSettings
from decision.oracles.logistic import LogisticOracle
from decision.oracles.neural import NeuralOracle, NeuralSettings
from decision.policy import OraclePolicy
from decision.protocols import Oracle

NAMES = ["7", "07", "7.0", "überraschung", "日本", "a b|c:d", "plain"]
"""Ids that are numbers, that look alike, and that no file of a model may stumble over."""
KINDS = ["logistic", "linear", "vw", "lightgbm", "neural"]


def cold(kind: str) -> Oracle:
    return NeuralOracle(NeuralSettings(hidden=16, steps=150)) if kind == "neural" else new_oracle(settings_of(kind))


def settings_of(kind: str) -> OracleSettings:
    return msgspec.convert({"kind": kind}, OracleSettings)


def pays(name: str, sunny: bool) -> float:
    """Return the chance of a reward: one id pays when the sun shines, another when it does not, the others little."""
    return 0.9 if (name, sunny) in {("07", True), ("日本", False)} else 0.15


def log_of_ids(n: int, seed: int = 0, features=lambda name, row: {}) -> Interactions:
    """Return decisions between three of the ids, drawn uniformly."""
    rng = np.random.default_rng(seed)
    offered = [rng.choice(len(NAMES), 3, replace=False) for _ in range(n)]
    ids = [NAMES[i] for row in offered for i in row]
    sunny = rng.random(n) < 0.5
    picks = rng.integers(0, 3, n)
    reward = [float(rng.random() < pays(ids[3 * row + picks[row]], bool(sunny[row]))) for row in range(n)]
    batch = Batch(
        [{"sunny": float(each)} for each in sunny],
        [features(name, at // 3) for at, name in enumerate(ids)],
        ids,
        np.arange(n + 1, dtype=np.int64) * 3,
    )
    return Interactions(batch, np.arange(n) * 3 + picks, np.full(n, 1 / 3), np.array(reward), np.full(3 * n, 1 / 3))


def learned(kind: str, log: Interactions) -> OraclePolicy:
    oracle = cold(kind)
    oracle.fit(drawn_with_ids(log))
    return OraclePolicy(oracle, Exploration(kind="softmax", floor=0.0), action_ids=True)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_alone_are_enough_to_learn_which_action_pays_in_which_context(kind: str) -> None:
    policy = learned(kind, log_of_ids(3_000))
    for sunny, best in ((1.0, "07"), (0.0, "日本")):
        scores = policy.scores(one({"sunny": sunny}, [{}] * len(NAMES), NAMES))
        assert NAMES[int(scores.argmax())] == best
        assert scores.max() > 0.5 > np.sort(scores)[-2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_a_single_decision_and_what_is_prepared_read_ids_alike(kind: str) -> None:
    policy, asked = learned(kind, log_of_ids(600)), log_of_ids(12, seed=1).batch
    whole = policy.pmf(asked)
    columns = Batch(
        FeatureRows.of(asked.contexts), FeatureRows.of(asked.actions), Texts.of(asked.action_ids), asked.offsets
    )
    assert np.array_equal(policy.pmf(columns), whole)
    for row in range(len(asked)):
        alone = asked.take(np.array([row]))
        single = policy.pmf(alone)
        assert np.allclose(single, whole[3 * row : 3 * row + 3], rtol=0, atol=1e-12)
        assert policy.prepare(alone.actions, alone.action_ids)(alone.contexts) == [single.tolist()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_that_reads_ids_says_so_and_one_of_before_reads_on(kind: str) -> None:
    policy, asked = learned(kind, log_of_ids(400)), log_of_ids(20, seed=1).batch
    about = Manifest(loop="shop", oracle=kind, exploration=Exploration(), seed=1, code_version="", created_at="")
    files = pack(policy, about)
    again, manifest = unpack(files)
    assert manifest.action_ids
    assert np.array_equal(again.pmf(asked), policy.pmf(asked))
    former = msgspec.json.decode(files[MANIFEST_FILE])
    del former["action_ids"]
    without, _ = unpack(files | {MANIFEST_FILE: msgspec.json.encode(former)})
    assert np.array_equal(without.scores(asked), policy.oracle.predict(asked))


@pytest.mark.parametrize("kind", ["logistic", "vw", "linear", "lightgbm"])
def test_a_fit_goes_on_from_a_saved_one_that_knows_ids(kind: str) -> None:
    first, second = (drawn_with_ids(log_of_ids(300, seed)) for seed in (0, 1))
    through = cold(kind)
    through.fit(first)
    resumed = load_oracle(kind, through.save())
    through.fit(second)
    resumed.fit(second)
    assert resumed.save() == through.save()


def test_columns_and_dictionaries_name_the_same_actions() -> None:
    log = log_of_ids(50, features=lambda name, row: {"x": float(row % 3), "y=1": 1.0} if row % 2 else {})
    batch = log.batch
    columns = Batch(batch.contexts, FeatureRows.of(batch.actions), Texts.of(batch.action_ids), batch.offsets)
    assert list(with_ids(columns).actions) == with_ids(batch).actions
    assert with_ids(batch).actions[0] == batch.actions[0] | {PREFIX + batch.action_ids[0]: 1.0}
    drawn = drawn_with_ids(Interactions(columns, log.chosen, log.propensity, log.reward, log.pmf))
    assert list(drawn.batch.actions) == [with_ids(batch).actions[flat] for flat in log.chosen]
    assert list(drawn.batch.action_ids) == [batch.action_ids[flat] for flat in log.chosen]


def test_an_action_without_an_id_has_no_more_features_than_it_had() -> None:
    assert with_ids(one({}, [{"x": 1.0}, {}], ["", "a"])).actions == [{"x": 1.0}, {PREFIX + "a": 1.0}]
    held = Batch([{}], FeatureRows.of([{"x": 1.0}, {}]), Texts.of(["", "a"]), np.array([0, 2]))
    assert list(with_ids(held).actions) == [{"x": 1.0}, {PREFIX + "a": 1.0}]


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_that_coincides_with_a_feature_changes_nothing(kind: str) -> None:
    log = log_of_ids(300, features=lambda name, row: {f"name={name}": 1.0})
    with_, without = cold(kind), cold(kind)
    with_.fit(drawn_with_ids(log))
    rows = np.arange(len(log) + 1)
    drawn = [log.batch.actions[flat] for flat in log.chosen]
    without.fit(
        Interactions(
            Batch(log.batch.contexts, drawn, [""] * len(log), rows),
            rows[:-1],
            log.propensity,
            log.reward,
            log.propensity,
        )
    )
    assert with_.save() == without.save()


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_id_starts_from_the_other_features_of_its_action(kind: str) -> None:
    policy = learned(kind, log_of_ids(1_500, features=lambda name, row: {"size": float(len(name))}))
    asked = one({"sunny": 1.0}, [{"size": 5.0}, {"size": 5.0}], ["never seen", "nor this one"])
    assert np.array_equal(policy.scores(asked), policy.oracle.predict(asked))


def test_an_id_departs_from_its_features_as_its_rows_say() -> None:
    """Of two actions alike, one pays always: its score rises with its rows, and the other's does not follow."""
    scores = []
    for rows in (0, 3, 30, 300):
        log = log_of_ids(1_000 + rows, features=lambda name, row: {"size": float(len(name))})
        ids = [*log.batch.action_ids]
        for row in range(1_000, 1_000 + rows):
            ids[int(log.chosen[row])] = "new"
        reward = np.where(np.arange(len(log)) < 1_000, log.reward, 1.0)
        batch = Batch(log.batch.contexts, log.batch.actions, ids, log.batch.offsets)
        policy = learned("logistic", Interactions(batch, log.chosen, log.propensity, reward, log.pmf))
        scores.append(policy.scores(one({"sunny": 1.0}, [{"size": 2.0}] * 2, ["new", "other"])).tolist())
    own = [pair[0] - pair[1] for pair in scores]
    assert own[0] == 0.0
    assert own == sorted(own)
    assert 0.02 < own[1] < 0.3
    assert own[3] > 0.5


def test_thousands_of_ids_with_a_few_rows_each_cost_a_weight_each_and_help() -> None:
    """10,000 articles that live for a day, of worth by their features and by themselves."""
    rng = np.random.default_rng(5)
    n, articles, k, days = 30_000, 10_000, 5, 20
    worth, quality = rng.normal(0.0, 0.6, articles), rng.normal(0.0, 1.0, articles)

    def play(n: int) -> tuple[Interactions, np.ndarray]:
        day = np.arange(n) * days // n
        offered = day[:, None] * (articles // days) + rng.integers(0, articles // days, (n, k))
        chance = 1.0 / (1.0 + np.exp(2.0 - 0.5 * quality[offered] - worth[offered]))
        pick = rng.integers(0, k, n)
        rows = FeatureRows.of([{"quality": float(each)} for each in quality])
        batch = Batch(
            FeatureRows.of([{f"hour={h}": 1.0} for h in rng.integers(0, 24, n)]),
            rows.take(offered.ravel()),
            Texts([f"article-{i}" for i in range(articles)], offered.ravel()),
            np.arange(n + 1, dtype=np.int64) * k,
        )
        at = np.arange(n)
        reward = (rng.random(n) < chance[at, pick]) * 1.0
        return Interactions(batch, at * k + pick, np.full(n, 1 / k), reward, np.full(n * k, 1 / k)), chance

    log, _ = play(n)
    asked, chance = play(4_000)
    with_, without = LogisticOracle(), LogisticOracle()
    with_.fit(drawn_with_ids(log))
    without.fit(log)
    drawn = len({log.batch.action_ids[flat] for flat in log.chosen})
    weights = len(with_.save()["logistic.f64"]) // 16
    assert 9_000 < drawn < weights < drawn + 60  # each id of a few rows has one, none is crossed with the 24 hours
    found = [
        chance[np.arange(len(asked)), policy.scores(asked.batch).reshape(chance.shape).argmax(1)].mean()
        for policy in (OraclePolicy(with_, Exploration(), action_ids=True), OraclePolicy(without, Exploration()))
    ]
    assert found[0] > found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_one_id_alone_and_ids_whose_features_change_are_no_error(kind: str) -> None:
    alone = log_of_ids(200)
    alone = Interactions(
        Batch(alone.batch.contexts, alone.batch.actions, ["only"] * 600, alone.batch.offsets),
        alone.chosen, alone.propensity, alone.reward, alone.pmf,
    )  # fmt: skip
    changing = log_of_ids(400, features=lambda name, row: {f"title={name}{row % 7}": 1.0, "age": float(row)})
    for log in (alone, changing):
        assert np.isfinite(learned(kind, log).scores(log.batch)).all()


def test_rare_ids_and_those_that_say_nothing_new_are_not_among_the_most_frequent() -> None:
    actions = [{PREFIX + "often": 1.0, "x": float(i)} for i in range(50)]
    actions += [{PREFIX + "twin": 1.0, "colour=red": 1.0} for _ in range(40)]
    actions += [{PREFIX + "rare": 1.0} for _ in range(19)]
    assert most_frequent_ids(actions, 10) == [PREFIX + "often"]
    assert most_frequent_ids(actions, 0) == []
