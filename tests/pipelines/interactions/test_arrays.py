from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from decision.columns import FeatureRows, Texts
from decision.errors import FieldError
from decision.features import flatten
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.arrays import to_interactions
from pipelines.interactions.join import join
from pipelines.lake.features import without_features
from tests.worlds.lake import LATER, LOOP, World, decision, outcome


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    world = World(tmp_path_factory.mktemp("rows"))
    world.append(
        decision("e1", feature_snapshot=msgspec.Raw(b'{"visits":3,"city":"Paris"}')),
        decision(
            "e2",
            actions=msgspec.Raw(b'[{"price":1},{},{"tags":["new","red"]}]'),
            action_ids=["a", "b", "c"],
            pmf=[0.25, 0.25, 0.5],
            action_index=2,
            propensity=0.5,
        ),
        outcome("e1", 0.5),
    )
    ingest(world.log, world.lake)
    join(world.lake, LOOP, LATER)
    return world.lake.interactions("shop")


def test_rows_become_flat_arrays(rows: pa.Table) -> None:
    interactions = to_interactions(rows)
    assert interactions.batch.offsets.tolist() == [0, 2, 5]
    assert list(interactions.batch.action_ids) == ["a", "b", "a", "b", "c"]
    assert list(interactions.batch.actions) == [
        {"price": 1.5},
        {"price": 2.0},
        {"price": 1.0},
        {},
        {"tags=new": 1.0, "tags=red": 1.0},
    ]
    assert interactions.chosen.tolist() == [1, 4]
    assert interactions.propensity.tolist() == [0.25, 0.5]
    assert interactions.reward.tolist() == [0.5, 0.0]
    assert interactions.pmf.tolist() == [0.75, 0.25, 0.25, 0.25, 0.5]
    assert interactions.chosen.dtype == interactions.batch.offsets.dtype == np.int64


def test_looked_up_features_join_the_context_under_their_prefix(rows: pa.Table) -> None:
    first, second = to_interactions(rows).batch.contexts
    context = flatten({"country": "fr", "age": 41.5}, field="context")
    assert first == context | {"feature.visits": 3.0, "feature.city=Paris": 1.0}
    assert second == context


def test_a_slice_is_read_like_the_whole(rows: pa.Table) -> None:
    whole, part = to_interactions(rows), to_interactions(rows.slice(1))
    assert part.batch.offsets.tolist() == [0, 3]
    assert list(part.batch.actions) == list(whole.batch.actions)[2:]
    assert part.pmf.tolist() == whole.pmf.tolist()[2:]
    assert len(to_interactions(rows.slice(2))) == 0


def test_an_unknown_distribution_is_nan(rows: pa.Table) -> None:
    pmf = pa.array([None, [0.25, 0.25, 0.5]], rows.schema.field("pmf").type)
    unknown = rows.set_column(rows.schema.get_field_index("pmf"), "pmf", pmf)
    np.testing.assert_array_equal(to_interactions(unknown).pmf, [np.nan, np.nan, 0.25, 0.25, 0.5])


@pytest.mark.parametrize(
    ("column", "text", "field"),
    [
        ("context", "[]", "context"),
        ("context", '{"a":1e999}', "context"),
        ("actions", "[{}]", "actions"),
        ("actions", '[{"a":{"b":{"c":{"d":{"e":{"f":1}}}}}},{}]', "actions"),
        ("feature_snapshot", "nope!", "context"),
    ],
)
def test_what_cannot_be_read_names_event_and_field(rows: pa.Table, column: str, text: str, field: str) -> None:
    texts = pa.array([text, rows[column].to_pylist()[1]])
    broken = without_features(rows.set_column(rows.schema.get_field_index(column), column, texts))
    with pytest.raises(FieldError) as caught:
        to_interactions(broken)
    assert caught.value.field.startswith(f"e1: {field}")


def test_a_missing_column_is_named(rows: pa.Table) -> None:
    with pytest.raises(FieldError, match="reward: must be a column"):
        to_interactions(rows.drop_columns(["reward"]))


def test_equal_actions_and_ids_are_held_once(rows: pa.Table) -> None:
    batch = to_interactions(pa.concat_tables([rows] * 3)).batch
    assert isinstance(batch.contexts, FeatureRows)
    assert isinstance(batch.actions, FeatureRows)
    assert isinstance(batch.action_ids, Texts)
    assert batch.action_ids.names == ["a", "b", "c"]
    assert len(set(batch.actions.rows.tolist())) == 5
    assert list(batch.actions) == list(to_interactions(rows).batch.actions) * 3
    assert list(batch.contexts) == list(to_interactions(rows).batch.contexts) * 3
