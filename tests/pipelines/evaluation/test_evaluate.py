from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from decision.artifact import unpack
from decision.errors import SupportError
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.health import health
from pipelines.interactions.arrays import to_interactions
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.registry.tracking import RegistryError
from pipelines.settings import LoopSettings, Settings
from pipelines.training.train import train
from pipelines.training.window import window
from tests.worlds.synthetic import LATER, new_loop, new_settings, open_parts, play, settle, value_of

ROWS = 1_500


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return new_settings(tmp_path_factory.mktemp("evaluate"))


@pytest.fixture(scope="module")
def registry(settings: Settings) -> Registry:
    return Registry(settings)


@pytest.fixture(scope="module")
def loop(settings: Settings) -> LoopSettings:
    return new_loop(settings, "colours")


@pytest.fixture(scope="module")
def lake(settings: Settings, loop: LoopSettings) -> Lake:
    log, lake = open_parts(settings)
    play(log, loop.name, ROWS)
    settle(log, lake, loop)
    log.close()
    return lake


@pytest.fixture(scope="module")
def version(lake: Lake, registry: Registry, loop: LoopSettings) -> str:
    return train(lake, registry, loop, seed=1, now=LATER).version


@pytest.mark.statistical
def test_the_intervals_hold_the_true_values(
    settings: Settings, lake: Lake, registry: Registry, loop: LoopSettings, version: str
) -> None:
    """Three intervals of 95% on fixed data: with other seeds one of them would miss in at most 15% of cases."""
    evaluated = evaluate(lake, registry, loop, version)
    policy, _ = unpack(registry.files(loop.name, version))
    truth = value_of(policy)
    ours, baseline = evaluated.values
    assert (ours.role, baseline.role) == ("version", "baseline")
    assert ours.dr.low < truth < ours.dr.high
    assert baseline.dr.low < 1 / 3 < baseline.dr.high
    assert evaluated.lift_estimate.low < truth - 1 / 3 < evaluated.lift_estimate.high
    assert ours.snips is not None
    assert abs(ours.snips.value - truth) < 0.2


def test_the_lift_is_narrower_than_the_two_intervals(
    lake: Lake, registry: Registry, loop: LoopSettings, version: str
) -> None:
    other = train(lake, registry, loop, seed=2, now=LATER).version
    evaluated = evaluate(lake, registry, loop, other, against=version)
    lift, (ours, theirs, _) = evaluated.lift_estimate, evaluated.values
    assert theirs.policy == f"version {version}"
    assert lift.high - lift.low < (ours.dr.high - ours.dr.low) + (theirs.dr.high - theirs.dr.low)
    assert evaluated.against_version == version


def test_only_the_holdout_is_looked_at(lake: Lake, registry: Registry, loop: LoopSettings, version: str) -> None:
    evaluated = evaluate(lake, registry, loop, version)
    rows = window(lake, loop)
    assert evaluated.rows == rows.data.holdout == len(rows.holdout)
    assert evaluated.table_version == rows.data.table_version


def test_the_champion_is_what_a_version_is_compared_with(
    settings: Settings, lake: Lake, registry: Registry, version: str
) -> None:
    loop = new_loop(settings, "crowned")
    log, _ = open_parts(settings)
    play(log, loop.name, 300)
    settle(log, lake, loop)
    log.close()
    first, second = (train(lake, registry, loop, seed=seed, now=LATER).version for seed in (1, 2))
    assert evaluate(lake, registry, loop, second).against == "baseline, uniform"
    with pytest.raises(SupportError, match="no champion"):
        evaluate(lake, registry, loop, second, against="champion")
    registry.set_alias(loop.name, "champion", first, {})
    evaluated = evaluate(lake, registry, loop, second)
    assert (evaluated.against, evaluated.against_version) == (f"champion, version {first}", first)
    assert [value.role for value in evaluated.values] == ["version", "against", "baseline"]
    registry.set_alias(loop.name, "baseline", first, {})
    assert evaluate(lake, registry, loop, second).values[-1].policy == f"baseline, version {first}"


def test_a_policy_against_itself_has_no_lift(lake: Lake, registry: Registry, loop: LoopSettings, version: str) -> None:
    lift = evaluate(lake, registry, loop, version, against=version).lift_estimate
    assert (lift.value, lift.low, lift.high) == (0.0, 0.0, 0.0)


def test_numbers_and_picture_are_kept_with_the_version(
    settings: Settings, lake: Lake, registry: Registry, loop: LoopSettings, version: str
) -> None:
    evaluated = evaluate(lake, registry, loop, version)
    kept = registry.metrics(loop.name, version)
    assert kept["eval.lift"] == evaluated.lift_estimate.value
    assert kept["eval.value_low"] == evaluated.values[0].dr.low
    assert kept["eval.baseline"] == evaluated.values[-1].dr.value
    assert kept["health.positive_rate"] == evaluated.health.positive_rate
    assert kept["train.rows"] > 0
    (run_id,) = [entry.run_id for entry in registry.versions(loop.name) if entry.version == version]
    plot = settings.root / "models" / loop.name / run_id / "artifacts" / "plots" / "evaluation.png"
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_an_evaluation_is_json_and_back(lake: Lake, registry: Registry, loop: LoopSettings, version: str) -> None:
    evaluated = evaluate(lake, registry, loop, version)
    assert msgspec.json.decode(msgspec.json.encode(evaluated), type=type(evaluated)) == evaluated


def test_what_cannot_be_evaluated_says_so(lake: Lake, registry: Registry, loop: LoopSettings, version: str) -> None:
    with pytest.raises(RegistryError, match="not found"):
        evaluate(lake, registry, loop, "999")
    tiny = msgspec.structs.replace(loop, training=msgspec.structs.replace(loop.training, holdout=1e-9))
    with pytest.raises(SupportError, match="empty"):
        evaluate(lake, registry, tiny, version)


def test_health_counts_what_is_in_the_log(lake: Lake, registry: Registry, loop: LoopSettings, version: str) -> None:
    rows = to_interactions(window(lake, loop).holdout)
    policy, _ = unpack(registry.files(loop.name, version))
    scores = policy.scores(rows.batch)
    found = health(rows, policy.pmf(rows.batch), scores)
    assert found.positive_rate == found.mean_reward == rows.reward.mean()  # rewards are 0 or 1
    assert found.logged_entropy == pytest.approx(1.0)
    assert 0 < found.entropy < 0.5
    assert found.smallest_propensity == pytest.approx(1 / 3)
    assert sum(entry.n for entry in found.calibration) == found.rows == len(rows)
    assert [entry.predicted for entry in found.calibration] == sorted(entry.predicted for entry in found.calibration)
    assert found.calibration_error is not None
    assert found.calibration_error < 0.15
    assert {entry.action_id: entry.offered for entry in found.support} == dict.fromkeys(
        ("red", "green", "blue"), len(rows)
    )
    assert sum(entry.chosen for entry in found.support) == len(rows)
    assert sum(entry.share for entry in found.support) == pytest.approx(1.0)
    assert found.effective_sample_size == pytest.approx(1.0)  # the log is uniform
    assert found.uniform_rows == pytest.approx(len(rows))
    assert found.uniform_calibration_error == pytest.approx(found.calibration_error)
    assert found.alarms == []
    assert found.metrics()["health.alarms"] == 0.0


def test_health_alarms_name_a_collapse_one_sided_rewards_and_untried_actions(lake: Lake, loop: LoopSettings) -> None:
    rows = to_interactions(window(lake, loop).holdout)
    first = np.zeros(len(rows.pmf))
    first[rows.batch.offsets[:-1]] = 1.0
    lucky = type(rows)(rows.batch, rows.batch.offsets[:-1], rows.propensity, np.ones(len(rows)), rows.pmf)
    alarms = health(lucky, first, None).alarms
    assert alarms[0].startswith("entropy collapsed")
    assert f"all but 0 of {len(rows)} are the same" in alarms[1]
    assert alarms[2:] == ["2 actions were offered and never tried"]


def test_health_says_when_actions_have_neither_features_nor_ids_that_come_back(lake: Lake, loop: LoopSettings) -> None:
    rows = to_interactions(window(lake, loop).holdout)
    passing = [f"offer-{number}" for number in range(len(rows.pmf))]
    once = replace(rows, batch=replace(rows.batch, action_ids=passing))
    said = [alarm for alarm in health(once, rows.pmf, None, featured=False).alarms if "told apart" in alarm]
    assert said == [
        "actions cannot be told apart: they have no features, and 100% of the offers carry an id that came in fewer"
        " than 30 decisions"
    ]
    for told_apart in (health(once, rows.pmf, None), health(rows, rows.pmf, None, featured=False)):
        assert not any("told apart" in alarm for alarm in told_apart.alarms)


def test_health_of_a_log_without_distributions_leaves_their_entropy_out(lake: Lake, loop: LoopSettings) -> None:
    rows = to_interactions(window(lake, loop).holdout.slice(0, 20))
    blind = type(rows)(rows.batch, rows.chosen, rows.propensity, rows.reward, rows.pmf * float("nan"))
    found = health(blind, rows.pmf, None)
    assert found.logged_entropy is None
    assert found.calibration == []
    assert "health.calibration_error" not in found.metrics()


def test_all_rows_of_the_holdout_count_and_slices_change_nothing(
    lake: Lake, registry: Registry, loop: LoopSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = train(lake, registry, loop, seed=1, now=LATER).version
    whole = evaluate(lake, registry, loop, version)
    monkeypatch.setattr("pipelines.training.window.SLICE", 97)
    monkeypatch.setattr("pipelines.evaluation.evaluate.MAX_ROWS", 50)
    cut = evaluate(lake, registry, loop, version)
    assert cut.rows == whole.rows
    assert cut.health.rows < whole.health.rows
    assert (cut.lift, cut.switched, cut.values) == (whole.lift, whole.switched, whole.values)


def test_the_card_has_what_the_evaluation_found(
    lake: Lake, registry: Registry, loop: LoopSettings, version: str
) -> None:
    evaluated = evaluate(lake, registry, loop, version)
    said, card = registry.said(loop.name, version)
    assert f"Worth {evaluated.lift_estimate.value:+.4g} [" in said
    assert card.startswith(f"# {loop.name}, version {version}\n")
    assert f"| version {version} | {evaluated.values[0].dr.value:.4g} |" in card
