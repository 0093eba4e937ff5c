from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import msgspec
import pytest

from decision.artifact import unpack
from decision.errors import FieldError
from pipelines.evaluation.evaluate import evaluate
from pipelines.lake.lake import Lake
from pipelines.log.sqlite.log import LocalLog
from pipelines.promotion.promote import latest, promote
from pipelines.promotion.rollback import rollback
from pipelines.registry.registry import AliasMovedError, Registry
from pipelines.settings import LoopSettings, Settings
from pipelines.training.train import train
from tests.worlds.synthetic import LATER, name_of, new_loop, new_settings, open_parts, play, settle, value_of

ROWS = 1_200


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return new_settings(tmp_path_factory.mktemp("promote"))


@pytest.fixture(scope="module")
def registry(settings: Settings) -> Registry:
    return Registry(settings)


@pytest.fixture(scope="module")
def parts(settings: Settings) -> Iterator[tuple[LocalLog, Lake]]:
    log, lake = open_parts(settings)
    yield log, lake
    log.close()


@pytest.fixture
def loop(settings: Settings, parts: tuple[LocalLog, Lake], request: pytest.FixtureRequest) -> LoopSettings:
    """A loop of its own for each test, with uniform decisions in the lake."""
    loop = new_loop(settings, name_of(request.node.name))
    play(parts[0], loop.name, ROWS)
    settle(*parts, loop)
    return loop


@pytest.fixture(scope="module")
def lake(parts: tuple[LocalLog, Lake]) -> Lake:
    return parts[1]


def untaught(loop: LoopSettings) -> LoopSettings:
    """The loop with a policy that learns nothing worth having: uniform, so no better than the baseline."""
    return msgspec.structs.replace(loop, policy=msgspec.structs.replace(loop.policy, exploration="uniform"))


def test_a_better_policy_takes_over(lake: Lake, registry: Registry, loop: LoopSettings) -> None:
    version = train(lake, registry, loop, seed=1, now=LATER).version
    promotion = promote(lake, registry, loop, now=LATER, by="a test")
    assert promotion.promoted
    assert promotion.version == version == registry.aliases(loop.name)["champion"]
    (written,) = registry.verdicts(loop.name)
    assert (written.verdict, written.from_version, written.to_version) == ("promoted", None, version)
    assert (written.at, written.by, written.reasons) == (LATER.isoformat(), "a test", promotion.reasons)
    assert written.numbers["lower_bound"] is not None
    assert written.numbers["lower_bound"] > 0
    assert "holdout" in written.reasons[-1]
    policy, _ = unpack(registry.files(loop.name, version))
    assert value_of(policy) > 0.7


def test_a_policy_that_is_no_better_is_refused_with_reasons(lake: Lake, registry: Registry, loop: LoopSettings) -> None:
    version = train(lake, registry, untaught(loop), seed=1, now=LATER).version
    promotion = promote(lake, registry, loop, now=LATER, by="a test")
    assert not promotion.promoted
    assert any("is at least" in reason for reason in promotion.reasons)
    assert registry.aliases(loop.name) == {}
    (written,) = registry.verdicts(loop.name)
    assert (written.verdict, written.version, written.alias) == ("refused", version, "")


def test_a_worse_policy_does_not_replace_the_champion(lake: Lake, registry: Registry, loop: LoopSettings) -> None:
    champion = train(lake, registry, loop, seed=1, now=LATER).version
    assert promote(lake, registry, loop, now=LATER, by="a test").promoted
    worse = train(lake, registry, untaught(loop), seed=1, now=LATER).version
    promotion = promote(lake, registry, loop, now=LATER, by="a test")
    assert (promotion.promoted, promotion.version, promotion.champion) == (False, worse, champion)
    assert registry.aliases(loop.name) == {"champion": champion}


def test_too_little_evidence_is_a_refusal(lake: Lake, registry: Registry, loop: LoopSettings) -> None:
    strict = msgspec.structs.replace(loop, gate=msgspec.structs.replace(loop.gate, minimum_ess=10_000.0))
    train(lake, registry, loop, seed=1, now=LATER)
    promotion = promote(lake, registry, strict, now=LATER, by="a test")
    assert not promotion.promoted
    assert any("effective sample size" in reason for reason in promotion.reasons)


def test_promoting_the_champion_again_changes_nothing(lake: Lake, registry: Registry, loop: LoopSettings) -> None:
    train(lake, registry, loop, seed=1, now=LATER)
    assert promote(lake, registry, loop, now=LATER, by="a test").promoted
    again = promote(lake, registry, loop, now=LATER, by="a test")
    assert again.promoted
    assert again.number is None
    assert len(registry.verdicts(loop.name)) == 1


def test_a_verdict_against_a_champion_that_is_gone_is_not_used(
    lake: Lake, registry: Registry, loop: LoopSettings
) -> None:
    first, second = (train(lake, registry, loop, seed=seed, now=LATER).version for seed in (1, 2))
    stale = evaluate(lake, registry, loop, second)
    assert stale.lift_estimate.low > 0  # better than the baseline by far, but the baseline is not in charge any more
    registry.set_alias(loop.name, "champion", first, {"verdict": "promoted"})
    promotion = promote(lake, registry, loop, version=second, now=LATER, by="a test", evaluated=stale)
    assert f"champion, version {first}" in promotion.reasons[-1]


def test_rollback_goes_back_one_champion_at_a_time_and_then_to_the_baseline(
    lake: Lake, registry: Registry, loop: LoopSettings
) -> None:
    versions = [train(lake, registry, loop, seed=seed, now=LATER).version for seed in (1, 2, 3)]
    for version in versions:
        registry.set_alias(loop.name, "champion", version, {"verdict": "promoted"})
    for expected in (versions[1], versions[0], None):
        written = rollback(registry, loop.name, now=LATER, by="a test", reason="complaints")
        assert (written.verdict, written.to_version) == ("rolled_back", expected)
        assert registry.aliases(loop.name).get("champion") == expected
    assert written.reasons == ["complaints", "back to the baseline"]
    with pytest.raises(FieldError, match="champion"):
        rollback(registry, loop.name, now=LATER, by="a test")


def test_rollback_after_a_rollback_and_a_promotion_skips_what_was_rolled_back(
    lake: Lake, registry: Registry, loop: LoopSettings
) -> None:
    a, b, c = (train(lake, registry, loop, seed=seed, now=LATER).version for seed in (1, 2, 3))
    registry.set_alias(loop.name, "champion", a, {"verdict": "promoted"})
    registry.set_alias(loop.name, "champion", b, {"verdict": "promoted"})
    rollback(registry, loop.name, now=LATER, by="a test")
    registry.set_alias(loop.name, "champion", c, {"verdict": "promoted"})
    assert rollback(registry, loop.name, now=LATER, by="a test").to_version == a
    assert rollback(registry, loop.name, now=LATER, by="a test", to=c).to_version == c
    with pytest.raises(FieldError, match="another version"):
        rollback(registry, loop.name, now=LATER, by="a test", to=c)


def test_what_was_rolled_back_is_promoted_again_only_by_name(
    lake: Lake, registry: Registry, loop: LoopSettings
) -> None:
    version = train(lake, registry, loop, seed=1, now=LATER).version
    assert promote(lake, registry, loop, now=LATER, by="a test").promoted
    rollback(registry, loop.name, now=LATER + timedelta(hours=1), by="a test")
    unnamed = promote(lake, registry, loop, now=LATER, by="a test")
    assert not unnamed.promoted
    assert "rolled back" in unnamed.reasons[0]
    assert promote(lake, registry, loop, version=version, now=LATER, by="a test").promoted


def test_a_champion_that_moved_during_the_verdict_stops_the_move(
    lake: Lake, registry: Registry, loop: LoopSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (train(lake, registry, loop, seed=seed, now=LATER).version for seed in (1, 2))
    real = registry.aliases
    seen = real(loop.name)
    registry.set_alias(loop.name, "champion", first, {"verdict": "promoted"})
    monkeypatch.setattr(registry, "aliases", lambda loop: seen)  # what was read before the other move
    with pytest.raises(AliasMovedError):
        promote(lake, registry, loop, version=second, now=LATER, by="a test")
    assert real(loop.name)["champion"] == first


def test_without_a_version_there_is_nothing_to_promote(registry: Registry, lake: Lake, loop: LoopSettings) -> None:
    with pytest.raises(FieldError, match="version"):
        promote(lake, registry, loop, now=LATER, by="a test")
    with pytest.raises(FieldError, match="version"):
        latest(registry, loop.name)


def test_the_margin_counts_from_the_last_proven_version(lake: Lake, registry: Registry, loop: LoopSettings) -> None:
    """A version that was set by hand and is worth little is no excuse for the next one."""
    relative = msgspec.structs.replace(loop, gate=msgspec.structs.replace(loop.gate, margin=None))
    good = train(lake, registry, relative, seed=1, now=LATER).version
    first = promote(lake, registry, relative, now=LATER, by="a test")
    assert (first.promoted, first.numbers["proven"], first.numbers["look"]) == (True, 1.0, 1.0)
    worse = train(lake, registry, untaught(relative), seed=1, now=LATER).version
    registry.set_alias(loop.name, "champion", worse, {"verdict": "set"})
    again = train(lake, registry, untaught(relative), seed=2, now=LATER).version
    evaluated = evaluate(lake, registry, relative, again)
    assert (evaluated.against_version, evaluated.proven_version) == (worse, good)
    promotion = promote(lake, registry, relative, now=LATER, by="a test")
    assert not promotion.promoted
    assert any(f"last proven, version {good}" in reason for reason in promotion.reasons)
    assert promotion.numbers["proven_lower_bound"] is not None
    assert promotion.numbers["proven_lower_bound"] < -0.3
