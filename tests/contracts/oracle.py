"""What every oracle keeps, whatever it is made of. Each check takes a factory of cold oracles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from decision.batch import one
from decision.columns import FeatureRows
from decision.oracles.factory import load_oracle
from decision.protocols import ManyModels, Prepares
from tests.strategies import interactions_of


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
    """However the rows are held: each once, equal ones together, or among others that no row is."""
    first, second = interactions_of(np.random.default_rng(0)), interactions_of(np.random.default_rng(1), 60)
    rows = np.random.default_rng(2).permutation(len(second))
    by_rows = fitted(make, first)
    by_rows.fit(second.take(rows))
    for held in (FeatureRows.of, lambda features: FeatureRows.of(features).interned()):
        by_columns = fitted(make, in_columns(first, held))
        by_columns.fit(in_columns(second, held).take(rows))
        assert by_columns.save() == by_rows.save()
        assert np.array_equal(by_columns.predict(in_columns(first, held).batch), by_rows.predict(first.batch))
        if isinstance(by_rows, ManyModels):
            members = by_columns.members(in_columns(second, held).batch)
            assert np.array_equal(members, by_rows.members(second.batch))


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


def in_columns(data, held):
    batch = data.batch
    columns = replace(batch, contexts=held(batch.contexts), actions=held(batch.actions))
    return replace(data, batch=columns)


def fitted(make, data):
    oracle = make()
    oracle.fit(data)
    return oracle
