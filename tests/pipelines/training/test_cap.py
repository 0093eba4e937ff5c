"""Loops whose callers supply features: two models are learned, and what they say together is what is served."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from decision.artifact import unpack
from decision.errors import FieldError
from decision.policy import CappedPolicy
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, parse_loop
from pipelines.training.dsjson import train_from_dsjson
from pipelines.training.train import train
from pipelines.training.vw_model import register_vw_model
from tests.worlds.synthetic import KINDS, LATER, batch_of, new_loop, new_settings, open_parts, play, settle

TEXT = '[features]\nsupplied_by_caller = ["kind"]\n[policy]\ncap = 1.5\n'


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Registry, LoopSettings]:
    settings = new_settings(tmp_path_factory.mktemp("cap"))
    loop = new_loop(settings, "colours", TEXT)
    log, lake = open_parts(settings)
    play(log, loop.name, 600)
    settle(log, lake, loop)
    log.close()
    return lake, Registry(settings), loop


def trained(parts: tuple[Lake, Registry, LoopSettings], **policy: object) -> CappedPolicy:
    lake, registry, loop = parts
    loop = msgspec.structs.replace(loop, policy=msgspec.structs.replace(loop.policy, **policy))
    made = train(lake, registry, loop, seed=1, now=LATER)
    found, manifest = unpack(registry.files(loop.name, made.version))
    assert manifest.trusted is not None
    assert (manifest.trusted.supplied, manifest.trusted.cap) == (("kind",), loop.policy.cap)
    assert isinstance(found, CappedPolicy)
    return found


@pytest.mark.parametrize("oracle", ["logistic", "linear", "vw"])
def test_a_version_keeps_the_bound_on_what_the_caller_says(
    parts: tuple[Lake, Registry, LoopSettings], oracle: str
) -> None:
    """Without the kind all three colours pay .33, with it one pays .8, and without a cap has nearly everything."""
    policy = trained(parts, oracle=oracle)
    for kind in (*KINDS, "unheard of"):
        asked = batch_of(kind)
        trusted = policy.trusted_pmf(asked)
        assert np.array_equal(trusted, policy.trusted_pmf(batch_of("red")))
        assert (policy.pmf(asked) <= 2.5 * trusted).all()
    assert policy.full.pmf(batch_of("red"))[0] > 2.5 * policy.trusted_pmf(batch_of("red"))[0]


def test_the_trusted_part_has_a_noise_of_its_own(parts: tuple[Lake, Registry, LoopSettings]) -> None:
    """Without the kind the rewards' standard deviation stays nearly whole, .47; with it .35 is left."""
    policy = trained(parts)
    assert policy.trusted.exploration.sigma > policy.full.exploration.sigma + 0.03


@pytest.mark.parametrize("rule", [{"average": 2}, {"warm_start": True}])
def test_averages_and_warm_starts_go_on_with_the_part_they_belong_to(tmp_path: Path, rule: dict[str, object]) -> None:
    settings = new_settings(tmp_path)
    loop = new_loop(settings, "colours", TEXT)
    training = msgspec.structs.replace(loop.training, generation_rows=100, **rule)
    loop = msgspec.structs.replace(loop, training=training)
    log, lake = open_parts(settings)
    registry, before = Registry(settings), ""
    for first in (0, 300):
        play(log, loop.name, 300, first=first)
        settle(log, lake, loop)
        before = train(lake, registry, loop, seed=1, now=LATER).version
    log.close()
    policy, manifest = unpack(registry.files(loop.name, before))
    assert isinstance(policy, CappedPolicy)
    assert manifest.trusted is not None
    assert manifest.oracle == manifest.trusted.oracle == ("ensemble" if "average" in rule else "logistic")
    assert np.array_equal(policy.trusted.pmf(batch_of("red")), policy.trusted.pmf(batch_of("blue")))


def test_a_version_of_a_file_would_have_no_cap_and_is_refused(
    parts: tuple[Lake, Registry, LoopSettings], tmp_path: Path
) -> None:
    _, registry, loop = parts
    path = tmp_path / "log.json"
    path.write_text(json.dumps({}))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(FieldError, match="supplied_by_caller: must be empty for a version that is made of a file"):
        train_from_dsjson(path, registry, loop, seed=0, now=now)
    with pytest.raises(FieldError, match="supplied_by_caller"):
        register_vw_model(registry, loop, b"vw", name="model", now=now)


def test_a_policy_with_memory_has_no_cap() -> None:
    text = '[policy]\noracle = "session"\nexploration = "softmax"\n[features]\nenabled = true\n'
    with pytest.raises(FieldError, match=r"supplied_by_caller: must be empty where policy\.oracle is 'session'"):
        parse_loop(text + 'supplied_by_caller = ["a"]\n', "songs", {})
