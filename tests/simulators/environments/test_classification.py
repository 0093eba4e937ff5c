from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from decision.errors import FieldError
from simulators.environments.classification import DATASETS, ClassificationWorld, classification_world

SIZES = {"digits": (1797, 64, 10), "wine": (178, 13, 3), "breast_cancer": (569, 30, 2)}


@pytest.fixture(scope="module", params=DATASETS)
def world(request: pytest.FixtureRequest) -> ClassificationWorld:
    return classification_world(request.param, seed=1)


def test_world_is_the_data_set_scaled_to_the_unit_interval(world: ClassificationWorld) -> None:
    n, d, k = SIZES[world.name]
    assert (world.contexts.shape, len(world.action_ids), len(world.feature_names)) == ((n, d), k, d)
    assert world.contexts.min() == 0.0
    assert world.contexts.max() == 1.0
    assert set(world.labels) == set(range(k))


def test_world_split_is_disjoint_complete_and_has_every_class_on_both_sides(world: ClassificationWorld) -> None:
    assert not set(world.train) & set(world.heldout)
    assert len(world.train) + len(world.heldout) == len(world.labels)
    for rows in (world.train, world.heldout):
        assert set(world.labels[rows]) == set(range(len(world.action_ids)))
    assert abs(len(world.heldout) / len(world.labels) - 0.3) < 0.01


def test_world_values_of_known_policies_are_exact(world: ClassificationWorld) -> None:
    rows, k = world.heldout, len(world.action_ids)
    right = np.zeros((len(rows), k))
    right[np.arange(len(rows)), world.labels[rows]] = 1.0
    uniform = np.full(len(rows) * k, 1.0 / k)
    assert world.value(right.ravel(), rows) == world.optimum == 1.0
    assert world.value(uniform, rows) == pytest.approx(world.uniform_value, abs=1e-12)
    assert world.greedy_accuracy(right.ravel(), rows) == 1.0
    assert world.greedy_accuracy(np.zeros(len(rows) * k), rows) == pytest.approx(1.0 / k, abs=1e-12)
    assert world.greedy_accuracy(-right.ravel(), rows) == 0.0


def test_world_reward_is_one_for_the_right_action_alone(world: ClassificationWorld) -> None:
    for row in world.train[:20]:
        rewards = [world.reward(int(row), action_id) for action_id in world.action_ids]
        assert rewards == [float(index == world.labels[row]) for index in range(len(world.action_ids))]


def test_world_batch_holds_what_a_request_sends(world: ClassificationWorld) -> None:
    rows = world.train[:3]
    batch = world.batch(rows)
    assert len(batch) == 3
    assert list(batch.action_ids[: len(world.action_ids)]) == list(world.action_ids)
    for index, row in enumerate(rows):
        context = batch.contexts[index]
        assert [context.get(name, 0.0) for name in world.feature_names] == world.contexts[row].tolist()
    sent = world.action_features()
    assert [f"class={features['class']}" for features in sent] == [next(iter(f)) for f in batch.actions[: len(sent)]]


def test_world_split_follows_from_the_seed() -> None:
    first, again, other = (classification_world("wine", seed=seed) for seed in (3, 3, 4))
    assert first.heldout.tolist() == again.heldout.tolist() != other.heldout.tolist()


@pytest.mark.parametrize(("name", "heldout", "field"), [("iris", 0.3, "world"), ("wine", 1.0, "heldout")])
def test_world_refuses_what_it_cannot_be_made_of(name: str, heldout: float, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        classification_world(name, seed=1, heldout=heldout)
    assert caught.value.field == field


def test_the_digits_are_those_of_scikit_learn() -> None:
    theirs: Any = load_digits()
    ours = classification_world("digits", seed=0)
    np.testing.assert_array_equal(ours.contexts, theirs.data / np.maximum(theirs.data.max(axis=0), 1.0))
    np.testing.assert_array_equal(ours.labels, theirs.target)
    assert ours.feature_names == tuple(theirs.feature_names)
    assert ours.action_ids == tuple(str(name) for name in theirs.target_names)


def test_the_digits_wait_for_no_import_of_scikit_learn() -> None:
    code = (
        "import sys; from simulators.environments.classification import classification_world; "
        "classification_world('digits', seed=0); print({'sklearn', 'pandas', 'scipy'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
