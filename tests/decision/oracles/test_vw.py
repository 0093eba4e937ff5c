from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.batch import Batch, Features, Interactions, one
from decision.columns import FeatureRows, Texts
from decision.errors import FieldError
from decision.oracles.files.vw_head import MODEL_FILE
from decision.oracles.vw import SETTINGS_FILE, VwOracle, VwSettings, texts_of
from tests.strategies import interactions_of

ODD = [
    "a b", "a:b", "a|b", "a%20b", "a\nb", "a\rb", "a\tb", "a\x00b", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u00a0",
    "é", "日本", "²", "٣", "7", "0012", "-5", "", "#x", "'q", '"', "\\", "x" * 300,
]  # fmt: skip

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(1 << 53), 1 << 53).map(float),
    st.floats(-10, 10).map(lambda number: round(number, 3)),
    st.sampled_from([0.0, -0.0, 1e-4, 9.999e-5, 1e15, 1e16, 123456789012345.6, 1e22, 5e-324]),
)


def text_of(features: Features) -> str:
    return texts_of(FeatureRows.of([features]))[0].as_py()


def by_vw(oracle: VwOracle, data: Interactions) -> list[float]:
    """Return VW's own predictions for the numbers as they are read, wild ones cut."""
    offsets = data.batch.offsets
    contexts = oracle._read("C", FeatureRows.of(data.batch.contexts))
    actions = oracle._read("A", FeatureRows.of(data.batch.actions))
    return [
        oracle._workspace.predict(f"|C {text_of(context)}|A {text_of(actions[j])}")
        for i, context in enumerate(contexts)
        for j in range(offsets[i], offsets[i + 1])
    ]


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b c", "d:e", "é"]), NUMBERS, max_size=4), max_size=5))
def test_text_of_many_rows_is_each_ones_own_with_numbers_as_python_writes_them(rows: list[Features]) -> None:
    names = {"a": "a", "b c": "b%20c", "d:e": "d%3Ae", "é": "é"}
    expected = ["".join(f"{names[k]}:{v!r} " for k, v in row.items() if v != 0.0) for row in rows]
    columns = FeatureRows.of([*rows, *rows[:1]])
    assert texts_of(columns).to_pylist() == [*expected, *expected[:1]]
    assert texts_of(columns[1:2]).to_pylist() == [*expected, *expected[:1]][1:2]


@pytest.mark.parametrize("interactions", [True, False])
def test_predictions_equal_vws_own(interactions: bool) -> None:
    data = interactions_of(np.random.default_rng(0), 500)
    oracle = VwOracle(VwSettings(interactions=interactions, bits=18))
    oracle.fit(data)
    assert np.allclose(oracle.predict(data.batch), by_vw(oracle, data), rtol=0, atol=2e-6)


def test_predictions_equal_vws_own_with_names_of_every_kind() -> None:
    rng = np.random.default_rng(1)
    data = interactions_of(rng, 300)
    for features in (*data.batch.contexts, *data.batch.actions):
        features[ODD[int(rng.integers(len(ODD)))]] = float(rng.normal()) * 10.0 ** int(rng.integers(-6, 4))
    oracle = VwOracle(VwSettings(passes=2))
    oracle.fit(data)
    assert np.allclose(oracle.predict(data.batch), by_vw(oracle, data), rtol=0, atol=5e-6)


def test_score_of_an_action_does_not_depend_on_the_others_offered() -> None:
    data = interactions_of(np.random.default_rng(6), 200)
    oracle = VwOracle(VwSettings())
    oracle.fit(data)
    plain, odd = {"a=1": 1.0, "cost": 0.5}, {"cost": 1e15}
    context = data.batch.contexts[0]
    alone = oracle.predict(one(context, [plain], ["1"]))[0]
    assert oracle.predict(one(context, [odd, plain, odd], ["0", "1", "2"]))[1] == pytest.approx(alone, abs=1e-12)


def test_learning_on_is_seen_by_a_model_that_has_predicted() -> None:
    first, second = interactions_of(np.random.default_rng(2), 200), interactions_of(np.random.default_rng(3), 200)
    asked, silent = VwOracle(VwSettings()), VwOracle(VwSettings())
    for oracle in (asked, silent):
        oracle.fit(first)
    before = asked.predict(second.batch)
    for oracle in (asked, silent):
        oracle.fit(second)
    assert np.array_equal(asked.predict(second.batch), silent.predict(second.batch))
    assert not np.array_equal(asked.predict(second.batch), before)


def test_large_table_costs_nothing_until_it_is_needed() -> None:
    """2^24 weights are not copied out of VW for a decision that needs a handful."""
    oracle = VwOracle(VwSettings(bits=24))
    data = interactions_of(np.random.default_rng(4), 20)
    oracle.fit(data)
    oracle.predict(data.batch)
    assert oracle._weights is not None
    assert np.isfinite(oracle._weights).sum() < 1_000


def test_fractional_rewards_in_a_range_of_their_own_are_learned() -> None:
    data = interactions_of(np.random.default_rng(5), 3_000, binary=False)
    scaled = Interactions(data.batch, data.chosen, data.propensity, 100 * data.reward - 20, data.pmf)
    oracle = VwOracle(VwSettings(low=-40.0, high=110.0, passes=3))
    oracle.fit(scaled)
    assert oracle.settings.logistic is False
    error = oracle.predict(data.batch)[data.chosen] - scaled.reward
    assert np.mean(error**2) < 0.2 * scaled.reward.var()


@pytest.mark.parametrize("interactions", [True, False])
def test_a_batch_of_columns_is_predicted_as_its_decisions_are_one_by_one_bit_for_bit(interactions: bool) -> None:
    rng = np.random.default_rng(7)
    sets = [
        [{"kind=a": 1.0, "price": 2.5}, {"kind=b": 1.0}, {}],
        [{"kind=b": 1.0}, {"price": -1.0, "kind=a": 1.0}],
        [{"size": float(size)} for size in range(30)],
    ]
    names = [f"c{i}" for i in range(40)]
    contexts = [
        {name: float(rng.normal()) for name in rng.permutation(names)[: rng.integers(0, 30)]} for _ in range(400)
    ]
    offered = [sets[i] for i in rng.integers(0, len(sets), 400)]
    actions = [action for each in offered for action in each]
    offsets = np.concatenate(([0], np.cumsum([len(each) for each in offered])))
    ids = Texts.of([str(j) for each in offered for j in range(len(each))])
    oracle = VwOracle(VwSettings(bits=14, interactions=interactions))
    batch = Batch(FeatureRows.of(contexts), FeatureRows.of(actions).interned(), ids, offsets)
    chosen, m = offsets[:-1], int(offsets[-1])
    oracle.fit(Interactions(batch, chosen, np.ones(400), (rng.random(400) < 0.5) * 1.0, np.ones(m)))
    whole = oracle.predict(batch)
    for i, context in enumerate(contexts):
        assert whole[offsets[i] : offsets[i + 1]].tolist() == oracle.prepare(offered[i])([context])[0].tolist()


def test_names_that_would_break_vws_format_are_kept_apart() -> None:
    texts = [text_of({name: 1.0}) for name in ODD]
    assert len(set(texts)) == len(ODD)
    assert not any(sign in text[:-3] for text in texts for sign in " \n\t|")


def test_damaged_files_name_themselves() -> None:
    oracle = VwOracle(VwSettings(bits=12))
    oracle.fit(interactions_of(np.random.default_rng(0), 50))
    files = oracle.save()
    for name, data in ((SETTINGS_FILE, b"{"), (MODEL_FILE, b"not a model")):
        with pytest.raises(FieldError) as caught:
            VwOracle.load(files | {name: data})
        assert caught.value.field == name


def test_range_must_not_be_empty() -> None:
    with pytest.raises(FieldError, match="high"):
        VwOracle(VwSettings(low=1.0, high=1.0))
