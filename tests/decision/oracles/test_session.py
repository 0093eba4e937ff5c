"""The session policy in numpy: the trained net's own numbers, exact propensities, and files that hold up."""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
import pytest

from decision.batch import Batch, one
from decision.errors import FieldError, SupportError
from decision.exploration.rule import Exploration
from decision.oracles.factory import load_oracle
from decision.oracles.session import FEATURE, MODEL_FILE, NUMBERS_FILE, SessionOracle, SessionSettings
from decision.policy import OraclePolicy
from tests.contracts.policy import CHECKS
from tests.parts import require

ACTIONS, LEVELS = ["d6", "d12", "d18"], [0.2, 0.4, 0.6]


def arrays(seed: int = 0, *, inputs: int = 3, hidden: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {
        "extractor.weight_ih_l0": (3 * hidden, inputs),
        "extractor.weight_hh_l0": (3 * hidden, hidden),
        "extractor.bias_ih_l0": (3 * hidden,),
        "extractor.bias_hh_l0": (3 * hidden,),
        "head.0.weight": (10, inputs + hidden),
        "head.0.bias": (10,),
        "head.2.weight": (3, 10),
        "head.2.bias": (3,),
    }
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def oracle(seed: int = 0) -> SessionOracle:
    return SessionOracle(SessionSettings(actions=ACTIONS, levels=LEVELS), arrays(seed))


def features(state: np.ndarray) -> dict[str, float]:
    return {FEATURE.format(index): float(value) for index, value in enumerate(state)}


def batch() -> Batch:
    policy = oracle()
    moved = policy.advance(policy.start(), "d12", 4.0)
    ids = [*ACTIONS, "d18", "d6", "d12", "new"]
    return Batch([{"hour": 1.0}, features(moved), {}], [{}] * 7, ids, np.array([0, 3, 6, 7]))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_policy_contract(check) -> None:
    check(OraclePolicy(oracle(), Exploration(kind="softmax", inverse_temperature=1.0, floor=0.02)), batch())


@pytest.mark.parametrize(("form", "features"), [("log", 1), ("linear", 1), ("linear", 3), ("log", 2)])
def test_numbers_are_those_of_the_trained_net(form: Literal["log", "linear"], features: int) -> None:
    import importlib.util

    require(importlib.util.find_spec("torch"), "torch is not installed")
    import torch

    from simulators.learned.served import served
    from simulators.learned.trajectories import Scale, catalogue_of
    from simulators.sim2rec.network import ContextPolicy

    rng = np.random.default_rng(1)
    raw = np.stack([np.power(LEVELS, k + 1) for k in range(features)], axis=1).astype(np.float32)
    catalogue = catalogue_of(ACTIONS, raw, np.arange(len(ACTIONS)))
    scale = Scale(form, 1.5, spread=1.0 if form == "log" else 2.0, least=0.05)
    net = ContextPolicy(2 + features, 3, hidden=16, seed=4)
    ours = served(net, catalogue, scale, range(3))
    inputs, state = np.zeros((1, 2 + features), np.float32), net.start(1)
    mine = ours.start()
    for _ in range(30):
        with torch.no_grad():
            logits, state = net.step(torch.from_numpy(inputs), state)
        assert ours.logits(mine) == pytest.approx(logits[0].numpy(), abs=1e-5)
        action, reward = int(rng.integers(3)), float(rng.uniform(0.0 if form == "log" else -9.0, 9.0))
        seen = scale.response(np.array([reward], np.float32))
        inputs = np.concatenate([np.ones(1), seen, catalogue.features[action]])[None].astype(np.float32)
        mine = ours.advance(mine, ACTIONS[action], reward)


def test_a_version_of_before_reads_on_as_it_was() -> None:
    """Settings without the newer fields: one level per action, logarithms less 1.5."""
    files = oracle().save()
    stored = json.loads(files["session.json"])
    for name in ("features", "response", "spread"):
        del stored["settings"][name]
    again = SessionOracle.load(files | {"session.json": json.dumps(stored).encode()})
    state = again.advance(again.start(), ACTIONS[0], 4.0)
    assert state[:3] == pytest.approx([1.0, np.log(4.0) - 1.5, LEVELS[0]], abs=1e-7)
    assert state.tobytes() == oracle().advance(oracle().start(), ACTIONS[0], 4.0).tobytes()


def test_last_outcome_changes_the_distribution() -> None:
    policy = OraclePolicy(oracle(), Exploration(kind="softmax", inverse_temperature=1.0))
    start = policy.oracle.start()
    pmfs = [
        policy.pmf(one(features(policy.oracle.advance(start, "d12", reward)), [{}] * 3, ACTIONS)) for reward in (1, 9)
    ]
    assert np.abs(pmfs[0] - pmfs[1]).max() > 0.01


def test_user_without_a_memory_is_answered_as_one_at_the_start() -> None:
    ours = oracle()
    known = ours.predict(one(features(ours.start()), [{}] * 3, ACTIONS))
    assert np.allclose(ours.predict(one({}, [{}] * 3, ACTIONS)), known)


def test_files_restore_the_oracle_through_the_one_place_that_loads() -> None:
    ours = oracle()
    again = load_oracle("session", ours.save())
    assert np.array_equal(again.predict(batch()), ours.predict(batch()))


@pytest.mark.parametrize("damage", [lambda d: d[:-4], lambda d: d + b"\0\0\0\0", lambda d: b"\xff" * len(d)])
def test_damaged_weights_are_refused(damage) -> None:
    files = oracle().save()
    with pytest.raises(FieldError):
        SessionOracle.load(files | {NUMBERS_FILE: damage(files[NUMBERS_FILE])})


def test_it_does_not_pretend_to_learn_from_interactions() -> None:
    with pytest.raises(SupportError, match="episodes"):
        oracle().fit(None)


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("state", lambda o: o.advance(np.zeros(3, np.float32), "d6", 1.0)),
        ("reward", lambda o: o.advance(o.start(), "d6", float("nan"))),
        ("group", lambda o: o.advance(o.start(), "d6", 1.0, [1.0])),
    ],
)
def test_what_does_not_fit_is_refused(field: str, call) -> None:
    with pytest.raises(FieldError, match=field):
        call(oracle())


def grouped(seed: int = 0) -> SessionOracle:
    """Return a policy that sees two numbers of its user's group, by themselves and times the level."""
    held = arrays(seed, inputs=7)
    held["extractor.weight_ih_l0"][:, 3:] = 0.0
    groups = {"Oslo": (1.0, -1.0), "7": (0.0, 2.0)}
    settings = SessionSettings(actions=ACTIONS, levels=LEVELS, group="city", groups=groups, elsewhere=(0.5, 0.5))
    return SessionOracle(settings, held)


@pytest.mark.parametrize(
    ("context", "seen"),
    [
        ({"city=Oslo": 1.0}, (1.0, -1.0)),
        ({"city": 7.0}, (0.0, 2.0)),
        ({"city=Rome": 1.0}, (0.5, 0.5)),
        ({"cities=Oslo": 1.0, "hour": 3.0}, (0.5, 0.5)),
        ({}, (0.5, 0.5)),
    ],
)
def test_the_context_says_which_group_a_user_is_of_and_one_not_known_is_like_the_mean(context, seen) -> None:
    policy = grouped()
    state = policy.advance(policy.start(), "d12", 4.0)
    found = policy.seen_in(context, state)
    level = np.float32(LEVELS[1])
    assert found[:7].tolist() == pytest.approx([1.0, state[1], level, *seen, *(level * np.array(seen))])
    assert found[7:].tolist() == state[7:].tolist()
    batch = Batch([policy.remembering(context, state)], [{}] * 3, ACTIONS, np.array([0, 3]))
    assert policy.predict(batch).tolist() == policy.logits(found).tolist()


def test_a_memory_is_the_same_whichever_group_and_a_net_that_remembers_groups_is_refused() -> None:
    policy = grouped()
    again = SessionOracle.load(policy.save())
    assert dict(again.settings.groups) == {"Oslo": (1.0, -1.0), "7": (0.0, 2.0)}
    assert again.name == policy.name
    state = policy.advance(policy.start(), "d6", 2.0)
    assert state[3:7].tolist() == [0.0] * 4
    held = arrays(0, inputs=7)
    with pytest.raises(FieldError, match="0 for what the group says"):
        SessionOracle(policy.settings, held)


def test_a_policy_without_groups_is_written_as_it_always_was() -> None:
    stored = json.loads(oracle().save()[MODEL_FILE])
    assert not {"group", "groups", "elsewhere"} & set(stored["settings"])
