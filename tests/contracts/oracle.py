"""What every oracle keeps, whatever it is made of. Each check takes a factory of cold oracles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from hypothesis import given, settings

from decision.batch import Features, Interactions, one
from decision.columns import FeatureRows
from decision.oracles.factory import load_oracle
from decision.protocols import ManyModels, Prepares
from pipelines.interactions.arrays import to_interactions
from pipelines.lake.features import action_features, context_features, with_features
from tests.strategies import feature_logs, interactions_of

CONTEXT_TEXTS = ["context", "feature_snapshot"]


def check_predictions_are_one_finite_number_per_action_in_the_reward_range(make, kind: str) -> None:
    data = interactions_of(np.random.default_rng(0))
    for oracle in (make(), fitted(make, data)):
        out = oracle.predict(data.batch)
        assert out.shape == (len(data.batch.actions),)
        assert np.isfinite(out).all()
        assert out.min() >= 0
        assert out.max() <= 1


def check_it_learns(make, kind: str) -> None:
    data = interactions_of(np.random.default_rng(0), 3_000)
    fresh = interactions_of(np.random.default_rng(1), 500)
    out = fitted(make, data).predict(fresh.batch)[fresh.chosen]
    constant = np.mean((fresh.reward - data.reward.mean()) ** 2)
    assert np.mean((fresh.reward - out) ** 2) < 0.97 * constant


def check_saved_and_loaded_predicts_the_same(make, kind: str) -> None:
    data = interactions_of(np.random.default_rng(0))
    for oracle in (make(), fitted(make, data)):
        again = load_oracle(kind, oracle.save())
        assert np.array_equal(again.predict(data.batch), oracle.predict(data.batch))


def check_resumed_after_loading_equals_uninterrupted(make, kind: str) -> None:
    first, second = interactions_of(np.random.default_rng(0)), interactions_of(np.random.default_rng(1))
    through = fitted(make, first)
    resumed = load_oracle(kind, through.save())
    through.fit(second)
    resumed.fit(second)
    assert np.array_equal(resumed.predict(first.batch), through.predict(first.batch))


def check_same_data_and_seed_give_the_same_bytes(make, kind: str) -> None:
    data = interactions_of(np.random.default_rng(0))
    assert fitted(make, data).save() == fitted(make, data).save()


def check_fit_does_not_change_its_input(make, kind: str) -> None:
    data = interactions_of(np.random.default_rng(0))
    before = (data.reward.copy(), [dict(c) for c in data.batch.contexts])
    fitted(make, data)
    assert np.array_equal(data.reward, before[0])
    assert list(data.batch.contexts) == before[1]


def check_columns_and_dictionaries_are_the_same_bit_for_bit(make, kind: str) -> None:
    """From the texts of a log, by way of one dictionary per row or of columns, however these hold the rows."""

    fitted: list[bool] = []

    @settings(max_examples=3 if kind == "neural" else 5)  # whose fits take ten times as long
    @given(feature_logs(), feature_logs())
    def check(first: pa.Table, second: pa.Table) -> None:
        wanted = learned(make, in_dictionaries(first), in_dictionaries(second))
        fitted.append(isinstance(wanted, list))
        for read in (of_texts, of_columns, in_columns, in_columns_once):
            assert learned(make, read(first), read(second)) == wanted

    check()
    assert np.mean(fitted) > 0.5


def learned(make, first: Interactions, second: Interactions) -> list[object] | str:
    """Return the bits of an oracle that learned twice and of its predictions, or why it cannot be fitted."""
    oracle = make()
    try:
        oracle.fit(first)
        oracle.fit(second)
    except Exception as error:
        return repr(error)
    bits: list[object] = [oracle.save(), *(oracle.predict(log.batch).tobytes() for log in (first, second))]
    if isinstance(oracle, ManyModels):
        bits.append(oracle.members(second.batch).tobytes())
    return bits


def in_dictionaries(table: pa.Table) -> Interactions:
    """Return the log as its rows say it, one dictionary for every row and action."""
    contexts = [
        context_features(*texts) for texts in zip(*(table[name].to_pylist() for name in CONTEXT_TEXTS), strict=True)
    ]
    rows = zip(table["actions"].to_pylist(), table["action_ids"].to_pylist(), strict=True)
    actions = [features for text, ids in rows for features in action_features(text, len(ids))]
    log = to_interactions(table)
    return replace(log, batch=replace(log.batch, contexts=contexts, actions=actions))


def of_texts(table: pa.Table) -> Interactions:
    """Return the log as columns that its texts were cut into."""
    return to_interactions(table)


def of_columns(table: pa.Table) -> Interactions:
    """Return the log as columns that the lake keeps."""
    return to_interactions(with_features(table).drop_columns(CONTEXT_TEXTS))


def in_columns(table: pa.Table) -> Interactions:
    """Return the log as columns made of its dictionaries."""
    return held(in_dictionaries(table), FeatureRows.of)


def in_columns_once(table: pa.Table) -> Interactions:
    """Return the log as columns that hold equal rows once, among others that no row is."""
    log = in_dictionaries(table)
    twice = log.take(np.concatenate((np.arange(len(log)), np.arange(len(log))[::-1])))
    return held(twice, lambda features: FeatureRows.of(features).interned()).take(np.arange(len(log)))


def held(log: Interactions, hold: Callable[[Sequence[Features]], FeatureRows]) -> Interactions:
    batch = log.batch
    return replace(log, batch=replace(batch, contexts=hold(batch.contexts), actions=hold(batch.actions)))


def check_unknown_and_missing_features_are_no_error(make, kind: str) -> None:
    data = interactions_of(np.random.default_rng(0))
    strange = interactions_of(np.random.default_rng(1), 3).batch
    for context in strange.contexts:
        context.clear()
        context["never seen: |ü\n"] = 3.0
    assert np.isfinite(fitted(make, data).predict(strange)).all()


def check_predictions_do_not_depend_on_the_batch_they_come_in(make, kind: str) -> None:
    data = interactions_of(np.random.default_rng(0), 50)
    oracle = fitted(make, interactions_of(np.random.default_rng(1)))
    whole = oracle.predict(data.batch)
    rows = np.arange(len(data))
    parts = [oracle.predict(data.batch.take(rows[i : i + 1])) for i in rows]
    assert np.allclose(np.concatenate(parts), whole, rtol=0, atol=1e-12)


def check_what_is_prepared_predicts_bit_for_bit(make, kind: str) -> None:
    data = interactions_of(np.random.default_rng(0), 50)
    for oracle in (make(), fitted(make, interactions_of(np.random.default_rng(1)))):
        if not isinstance(oracle, Prepares):
            return
        for i in range(len(data)):
            asked = data.batch.take(np.array([i]))
            prepared = oracle.prepare(asked.actions)
            contexts = [asked.contexts[0], *data.batch.contexts[:i], {}, {"never seen": 2.0}]
            alone = [oracle.predict(one(each, asked.actions, asked.action_ids)).tolist() for each in contexts]
            assert prepared(contexts).tolist() == alone
            assert [prepared([each])[0].tolist() for each in contexts] == alone


CHECKS = [value for name, value in sorted(globals().items()) if name.startswith("check_")]


def fitted(make, data):
    oracle = make()
    oracle.fit(data)
    return oracle
