"""A model is asked with features as it learned them, whatever the rules of flattening are by now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from decision.artifact import MANIFEST_FILE, Manifest, pack, unpack
from decision.batch import Batch, Interactions
from decision.errors import FieldError
from decision.exploration.rule import Exploration
from decision.features import flatten
from decision.oracles.logistic import LogisticOracle
from decision.policy import OraclePolicy, UniformPolicy
from pipelines.settings import LoopSettings
from serving.deciding.decide import Ask, decide
from serving.deciding.question import Catalogues, read_question
from serving.explaining.explain import explained
from serving.snapshot import Snapshot

BODY = {
    "context": {"_hidden": 2.0, "items": [{"qty": 3}, {"qty": 5}], "slot.x": 4},
    "actions": [
        {"id": "a", "features": {"_own": 1, "tags": [{"w": 1}, {"w": 2}]}},
        {"id": "b", "features": {"_own": 2, "tags": [{"w": 7}]}},
    ],
}
TS = datetime(2026, 1, 1, tzinfo=UTC)


def model(version: int) -> OraclePolicy:
    """Return a policy that learned under the rules of `version`, by way of its files."""
    rng = np.random.default_rng(0)
    n = 300
    contexts, actions = list[dict[str, float]](), list[dict[str, float]]()
    for _ in range(n):
        value = {"_hidden": float(rng.normal()), "items": [{"qty": int(rng.integers(9))} for _ in range(2)]}
        contexts.append(flatten(value, field="context", version=version))
        own = {"_own": int(rng.integers(3)), "tags": [{"w": int(rng.integers(5))}, {"w": int(rng.integers(5))}]}
        actions.append(flatten(own, field="features", version=version))
    batch = Batch(contexts, actions, ["x"] * n, np.arange(n + 1))
    reward = (rng.random(n) < 0.5).astype(float)
    oracle = LogisticOracle()
    oracle.fit(Interactions(batch, np.arange(n), np.ones(n), reward, np.ones(n)))
    policy = OraclePolicy(oracle, Exploration(kind="softmax"), features_version=version)
    files = pack(policy, Manifest(loop="shop", oracle="logistic", exploration=policy.exploration, seed=0,
                                  code_version="1", created_at="2026-01-01"))  # fmt: skip
    manifest = msgspec.json.decode(files[MANIFEST_FILE])
    assert manifest["features_version"] == version
    if version == 1:  # as it was written before there were versions
        del manifest["features_version"]
    return unpack(files | {MANIFEST_FILE: msgspec.json.encode(manifest)})[0]


def asked(policy: OraclePolicy, body: dict[str, Any]) -> Any:
    snapshot = Snapshot(LoopSettings(name="shop"), policy, "1", UniformPolicy(), "baseline:uniform")
    question = read_question(msgspec.json.encode(body), Catalogues())
    (found,) = decide([Ask(question, snapshot, "e", {"visits": 2.0, "_f": 1.0})], TS)
    if isinstance(found, Exception):
        raise found
    return found


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("slots", [False, True])
def test_a_model_is_asked_by_the_rules_it_learned_under_and_explained_by_them(version: int, slots: bool) -> None:
    policy = model(version)
    body = BODY | ({"slots": [{"id": "s", "features": {"x": 1, "_y": 2}}]} if slots else {})
    (record,) = asked(policy, body)
    value = BODY["context"] | ({"slot": {"x": 1, "_y": 2}} if slots else {})
    context = flatten(value, field="context", version=version) | {"feature.visits": 2.0}
    if version == 1:
        context["feature._f"] = 1.0
    actions = [flatten(action["features"], field="features", version=version) for action in BODY["actions"]]
    assert record.pmf == policy.pmf(Batch([context], actions, ["a", "b"], np.array([0, 2]))).tolist()
    again = explained(record, policy)
    assert again.draw_matches
    assert again.pmf_recomputed_equal


def test_a_number_beyond_the_limit_is_refused_by_its_name() -> None:
    for where, field in (("context", "context.x.y"), ("actions", "actions[0].features.z")):
        body = {"context": {"x": {"y": 1}}, "actions": [{"id": "a", "features": {"z": 1}}]}
        text = msgspec.json.encode(body).replace(b'"y":1' if where == "context" else b'"z":1', b'"y":1e200'
                                                 if where == "context" else b'"z":-2e15')  # fmt: skip
        snapshot = Snapshot(LoopSettings(name="shop"), None, "", UniformPolicy(), "baseline:uniform")
        with pytest.raises(FieldError) as caught:  # noqa: PT012 - an action is read with the question, a context later
            (found,) = decide([Ask(read_question(text, Catalogues()), snapshot, "e", {})], TS)
            if isinstance(found, Exception):
                raise found
        assert caught.value.field == field
