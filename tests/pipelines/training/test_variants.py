"""Variants in a world that turned: what paid in the older generations does not in the newest."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from decision.artifact import unpack
from decision.batch import Interactions
from decision.errors import SupportError
from decision.options import Range
from decision.oracles.ensemble import EnsembleOracle
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, Variant, parse_loop
from pipelines.training.train import train
from pipelines.training.variants import compare, configuration, learned
from tests.strategies import interactions_of
from tests.worlds.synthetic import LATER, new_loop, new_settings, open_parts, play, settle


def loop_of(text: str) -> LoopSettings:
    return parse_loop(text, "shop", {})


def turned(n: int = 1_500) -> tuple[Interactions, np.ndarray]:
    """Return a log whose newer half pays where the older half did not."""
    log = interactions_of(np.random.default_rng(0), n)
    half = np.arange(n) < n // 2
    reward = np.where(half, 1.0 - log.reward, log.reward)
    return Interactions(log.batch, log.chosen, log.propensity, reward, log.pmf), np.where(
        np.arange(n) < n // 2, 2, np.where(np.arange(n) < 3 * n // 4, 1, 0)
    )


def test_short_memory_wins_in_a_world_that_turned() -> None:
    log, age = turned()
    loop = loop_of("[training]\ndecay = 1.0\nvariants = [{generations = 1}, {generations = 2}]")
    found = compare(log, age, loop, 0, [], Range())
    assert [entry.chosen for entry in found] == [False, True, False]
    assert found[1].variant == {"generations": 1}
    losses = [entry.loss for entry in found]
    assert all(loss is not None for loss in losses)
    assert losses[1] == min(loss for loss in losses if loss is not None)


def test_long_memory_wins_where_nothing_changes() -> None:
    log = interactions_of(np.random.default_rng(1), 1_500)
    age = np.repeat((3, 2, 1, 0), (600, 500, 100, 300))
    loop = loop_of("[training]\ngenerations = 1\nvariants = [{generations = 0, decay = 1.0}]")
    assert [entry.chosen for entry in compare(log, age, loop, 0, [], Range())] == [False, True]


def test_variant_that_cannot_be_trained_says_why_and_is_not_chosen() -> None:
    log, age = turned()
    loop = loop_of("[training]\nvariants = [{average = 3, bag = 2}]")
    found = compare(log, age, loop, 0, [], Range())
    assert found[0].chosen
    assert found[1].loss is None
    assert "average" in found[1].error


def test_without_variants_nothing_is_compared() -> None:
    log, age = turned(100)
    (only,) = compare(log, age, loop_of(""), 0, [], Range())
    assert (only.chosen, only.loss, only.variant) == (True, None, {})


def test_average_is_the_mean_of_the_newest_models() -> None:
    log, age = turned(400)
    loop = loop_of('[policy]\noracle = "linear"\n[training]\naverage = 3')
    made = configuration(loop, Variant(), 0, Range())
    earlier = []
    for seed in (1, 2, 3):
        kind, oracle, _ = learned([(interactions_of(np.random.default_rng(seed)), np.zeros(200, np.int64))], made, [])
        earlier.append((kind, oracle.save()))
    kind, oracle, _ = learned([(log, age)], made, earlier)
    assert isinstance(oracle, EnsembleOracle)
    assert kind == "ensemble"
    members = oracle.members(log.batch)
    assert len(members) == 3
    newest = learned([(log, age)], configuration(loop_of('[policy]\noracle = "linear"'), Variant(), 0, Range()), [])[1]
    assert np.allclose(members[-1], newest.predict(log.batch))
    assert np.allclose(oracle.predict(log.batch), members.mean(axis=0))


def test_rules_that_leave_no_row_are_said() -> None:
    log, _ = turned(100)
    made = configuration(loop_of("[training]\ngenerations = 1"), Variant(), 0, Range())
    with pytest.raises(SupportError, match="no row"):
        learned([(log, np.full(100, 2))], made, [])


def test_training_keeps_the_comparison_in_the_manifest_and_resumes_generations(tmp_path) -> None:
    settings = new_settings(tmp_path)
    text = "[training]\ngeneration_rows = 50\nminimum = 50\naverage = 2\nvariants = [{decay = 1.0}]"
    loop = new_loop(settings, "shop", text)
    log, lake = open_parts(settings)
    registry = Registry(settings)
    play(log, "shop", 200)
    settle(log, lake, loop)
    first = train(lake, registry, loop, seed=1, now=LATER)
    play(log, "shop", 150, first=200)
    settle(log, lake, loop)
    log.close()
    second = train(lake, registry, loop, seed=1, now=LATER)
    _, manifest = unpack(registry.files("shop", second.version))
    assert first.metrics["train.generations"] == 1.0
    assert second.metrics["train.generations"] == 2.0
    assert manifest.oracle == "ensemble"
    assert manifest.data["trainings"] == [first.data.last_ts]
    assert [entry["chosen"] for entry in manifest.training["variants"]].count(True) == 1
    again = train(lake, registry, loop, seed=1, now=LATER)
    assert registry.files("shop", again.version) == registry.files("shop", second.version)


def test_every_training_setting_can_be_a_variant() -> None:
    """A setting that is added to the loop but not to variants would silently be the loop's everywhere."""
    names = set(Variant.__struct_fields__)
    known = set(LoopSettings(name="x").training.__struct_fields__) | set(
        LoopSettings(name="x").policy.__struct_fields__
    )
    assert names <= known
    assert msgspec.to_builtins(Variant(decay=0.5)) == {"decay": 0.5}
    assert isinstance(Lake, type)
