"""A policy with a cap on the request path: the bound holds on what is logged, and the explanation says how."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np

from decision.batch import Interactions
from decision.draw import draw
from decision.exploration.rule import Exploration
from decision.fairness.clamp import Anchor, ClampedPolicy
from decision.oracles.logistic import LogisticOracle
from decision.policy import CappedPolicy, OraclePolicy, UniformPolicy, blinded
from decision.records import Decision
from pipelines.settings import LoopSettings
from serving.deciding.decide import Ask, decide
from serving.deciding.question import Catalogues, read_question
from serving.explaining.explain import explained
from serving.snapshot import Snapshot
from tests.strategies import interactions_of

TS = datetime(2026, 1, 1, tzinfo=UTC)
SUPPLIED = ("c0", "s")
ACTIONS = [{"id": str(number), "features": {"a": str(number), "cost": number / 6}} for number in range(6)]


def policy_with_a_cap() -> CappedPolicy:
    log = interactions_of(np.random.default_rng(1), 400)
    parts = []
    for supplied in ((), SUPPLIED):
        oracle = LogisticOracle()
        asked = blinded(log.batch, supplied)
        oracle.fit(Interactions(asked, log.chosen, log.propensity, log.reward, log.pmf))
        parts.append(OraclePolicy(oracle, Exploration(kind="squarecb", gamma=1e4, sigma=0.4)))
    return CappedPolicy(*parts, supplied=SUPPLIED, cap=2.0)


POLICY = policy_with_a_cap()


def records(contexts: list[dict[str, object]], policy: OraclePolicy = POLICY) -> list[Decision]:
    snapshot = Snapshot(LoopSettings(name="shop"), policy, "1", UniformPolicy(), "baseline:uniform")
    catalogues = Catalogues()
    asks = [
        Ask(read_question(msgspec.json.encode({"context": c, "actions": ACTIONS}), catalogues), snapshot, f"e{i}", {})
        for i, c in enumerate(contexts)
    ]
    found = decide(asks, TS)
    assert not [each for each in found if isinstance(each, Exception)]
    return [each[0] for each in found if not isinstance(each, Exception)]


def test_whatever_a_caller_writes_the_logged_probabilities_keep_the_bound() -> None:
    said = [{}, {"c0": 1e15}, {"c0": -1e15, "s": "2"}, {"s": ["0", "1", "2"]}, {"c0": [1, 2], "s": {"x": 1}}]
    contexts = [{"c1": 0.2, "c2": 0.9, **each} for each in said]
    found = records([*contexts, *contexts])
    trusted = explained(found[0], POLICY).pmf_trusted
    assert trusted is not None
    for record in found:
        assert all(p <= 3.0 * t for p, t in zip(record.pmf, trusted, strict=True))
        assert record.propensity == record.pmf[record.action_index]
        assert draw(record.pmf, record.seed) == record.action_index
    assert [record.pmf for record in found[: len(said)]] == [record.pmf for record in found[len(said) :]]


def test_an_explanation_shows_the_distribution_before_the_cap_and_the_trusted_one() -> None:
    (record,) = records([{"c0": 1e15, "c1": 0.2, "s": "1"}])
    again = explained(record, POLICY)
    assert again.pmf_recomputed_equal
    assert again.cap == 2.0
    assert again.pmf_uncapped is not None
    assert again.pmf_trusted is not None
    kept = np.minimum(again.pmf_uncapped, 2.0 * np.array(again.pmf_trusted))
    assert np.allclose(record.pmf, kept + (1.0 - kept.sum()) * np.array(again.pmf_trusted), rtol=0.0, atol=1e-12)
    assert not np.allclose(record.pmf, again.pmf_uncapped)


def test_a_version_without_a_cap_is_explained_without_one() -> None:
    (record,) = records([{"c0": 1.0}], POLICY.full)
    again = explained(record, POLICY.full)
    assert (again.cap, again.pmf_uncapped, again.pmf_trusted) == (None, None, None)


def test_a_panels_clamp_stands_on_what_the_cap_leaves() -> None:
    """Nobody of the pair asks here, so the clamp changes nothing, and the cap is what it was."""
    anchor = Anchor(favoured={"c1": 0.1}, disfavoured={"c1": 0.2}, action_id="0", limit=0.1)
    clamped = ClampedPolicy(POLICY, [anchor], [])
    (plain,), (record,) = records([{"c0": 1e15}]), records([{"c0": 1e15}], clamped)
    assert record.pmf == plain.pmf
    assert explained(record, clamped).cap == 2.0
