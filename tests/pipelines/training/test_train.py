from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from decision.artifact import MANIFEST_FILE, Manifest, pack, unpack
from decision.errors import FieldError, SupportError
from decision.oracles.action_ids import with_ids
from decision.oracles.factory import load_oracle
from decision.oracles.kept import KeptOracle
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, Settings, parse_loop
from pipelines.training import window as windows
from pipelines.training.train import exploration_of, resumable, train
from pipelines.training.trained import code_version
from pipelines.training.window import window
from tests.worlds.synthetic import (
    KINDS,
    LATER,
    batch_of,
    new_loop,
    new_settings,
    open_parts,
    play,
    settle,
    value_of,
)

ROWS = 800


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return new_settings(tmp_path_factory.mktemp("train"))


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


def with_policy(loop: LoopSettings, **fields: object) -> LoopSettings:
    return msgspec.structs.replace(loop, policy=msgspec.structs.replace(loop.policy, **fields))


def with_training(loop: LoopSettings, **fields: object) -> LoopSettings:
    return msgspec.structs.replace(loop, training=msgspec.structs.replace(loop.training, **fields))


def ids_of(tables: Iterator[pa.Table]) -> set[str]:
    return {event_id for table in tables for event_id in table["event_id"].to_pylist()}


@pytest.mark.parametrize("oracle", ["vw", "linear"])
def test_the_same_data_and_seed_give_the_same_bytes(
    lake: Lake, registry: Registry, loop: LoopSettings, oracle: str
) -> None:
    loop = with_policy(loop, oracle=oracle)
    first = train(lake, registry, loop, seed=3, now=LATER)
    again = train(lake, registry, loop, seed=3, now=LATER)
    assert first.version != again.version
    assert registry.files(loop.name, first.version) == registry.files(loop.name, again.version)


@pytest.mark.parametrize("oracle", ["vw", "linear"])
def test_a_generation_learns_what_pays(lake: Lake, registry: Registry, loop: LoopSettings, oracle: str) -> None:
    """Uniform is worth 1/3, the best policy .8; with a floor of .05 the best that can be had is .777."""
    trained = train(lake, registry, with_policy(loop, oracle=oracle), seed=1, now=LATER)
    policy, _ = unpack(registry.files(loop.name, trained.version))
    assert value_of(policy) > 0.7


def test_the_manifest_says_which_data_made_the_model(lake: Lake, registry: Registry, loop: LoopSettings) -> None:
    trained = train(lake, registry, loop, seed=5, now=LATER)
    manifest = msgspec.json.decode(registry.files(loop.name, trained.version)[MANIFEST_FILE], type=Manifest)
    rows = lake.interactions(loop.name)
    data = manifest.data
    assert data["rows"] == ROWS
    assert trained.rows == ROWS - data["holdout"]
    assert data["table_version"] == lake.version("interactions")
    assert data["first_ts"] == rows["ts"][0].as_py().isoformat()
    assert data["last_ts"] == rows["ts"][-1].as_py().isoformat()
    by_partition = {str(partition): 0 for partition in (0, 1)}
    for row in rows.select(["partition", "offset"]).to_pylist():
        by_partition[str(row["partition"])] = max(by_partition[str(row["partition"])], row["offset"])
    assert data["offsets"] == by_partition
    assert (manifest.seed, manifest.code_version, manifest.created_at) == (5, code_version(), LATER.isoformat())
    assert manifest.libraries["vowpalwabbit"]
    (version,) = [entry for entry in registry.versions(loop.name) if entry.version == trained.version]
    assert version.tags["kind"] == "policy"


def test_the_manifest_fixes_how_noisy_rewards_are_and_what_floor_the_log_needs(
    lake: Lake, registry: Registry, loop: LoopSettings
) -> None:
    """The log is uniform: the floor is the smallest, however many uniform draws are asked for in the end. Rewards of .1
    or .8 are at most as noisy as a fair coin's .5."""
    trained = train(lake, registry, with_policy(loop, floor_minimum=0.02), seed=5, now=LATER)
    rule = unpack(registry.files(loop.name, trained.version))[1].exploration
    assert 0.2 < rule.sigma < 0.5
    assert (rule.floor, rule.rows) == (0.02, trained.metrics["train.effective_rows"])
    assert trained.metrics["train.uniform_rows"] == pytest.approx(rule.rows)
    asked = train(lake, registry, with_policy(loop, floor_rows=trained.rows + 10_000.0), seed=5, now=LATER)
    assert asked.metrics["train.floor"] == loop.policy.floor_minimum


def test_no_row_of_the_holdout_is_learned_from_in_any_generation(lake: Lake, loop: LoopSettings) -> None:
    """The share held out of 800 rows is within 4 standard deviations of .2; fails for a seedless hash never."""
    whole, recent = window(lake, loop), window(lake, with_training(loop, window=300))
    ids = {"training": ids_of(whole.picked()), "holdout": ids_of(whole.held())}
    assert not ids["training"] & ids["holdout"]
    assert len(ids["training"] | ids["holdout"]) == ROWS
    assert abs(len(ids["holdout"]) / ROWS - 0.2) < 4 * (0.2 * 0.8 / ROWS) ** 0.5
    assert ids_of(recent.held()) < ids["holdout"]
    assert ids_of(recent.picked()) < ids["training"]


@pytest.mark.parametrize("size", [37, 300])
def test_slices_of_a_window_are_the_window(
    lake: Lake, loop: LoopSettings, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    loop = with_training(loop, window=500, generation_rows=20)
    ends = [row.isoformat() for row in lake.interactions(loop.name)["ts"].to_pylist()[400:760:120]]
    whole = window(lake, loop, trainings=ends)
    told: list[tuple] = []
    monkeypatch.setattr(windows, "SLICE", size)
    sliced = window(
        lake, loop, trainings=ends, progress=lambda what, done, total=None: told.append((what, done, total))
    )
    assert sliced.data == whole.data
    assert len(set(whole.ages().tolist())) > 1
    assert sliced.holdout.equals(whole.holdout)
    chunks = list(sliced.chunks())
    assert np.array_equal(np.concatenate([age for _, age in chunks]), whole.ages())
    log, age = whole.learned()
    assert np.array_equal(age, whole.ages())
    assert [x for part, _ in chunks for x in part.batch.contexts] == list(log.batch.contexts)
    assert np.array_equal(np.concatenate([part.reward for part, _ in chunks]), log.reward)
    parts = -(-500 // size)
    assert told[0] == ("parts of the window looked through", 0, parts)
    assert told[-1] == ("parts of the window read", parts, parts)


def test_default_model_is_the_same_however_its_window_is_sliced(
    lake: Lake, registry: Registry, loop: LoopSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, list[float]] = {}
    first = train(
        lake,
        registry,
        loop,
        seed=3,
        now=LATER,
        progress=lambda what, done, total=None: told.setdefault(what, []).append(done),
    )
    passes = told["passes over the decisions"]
    assert passes == list(range(1, len(passes) + 1))
    assert list(told) == ["parts of the window looked through", "parts of the window read", "passes over the decisions"]
    monkeypatch.setattr(windows, "SLICE", 90)
    again = train(lake, registry, loop, seed=3, now=LATER)
    assert registry.files(loop.name, first.version) == registry.files(loop.name, again.version)
    assert first.metrics == pytest.approx(again.metrics)


def test_the_window_is_the_latest_rows(lake: Lake, loop: LoopSettings) -> None:
    rows = lake.interactions(loop.name)
    recent = window(lake, with_training(loop, window=300))
    assert recent.data.rows == 300
    assert recent.data.first_ts == rows["ts"][ROWS - 300].as_py().isoformat()


def test_a_training_on_an_earlier_table_version_reads_the_rows_of_then(
    settings: Settings, registry: Registry, lake: Lake
) -> None:
    loop = new_loop(settings, "pinned")
    log, _ = open_parts(settings)
    play(log, loop.name, 300)
    settle(log, lake, loop)
    then = lake.version("interactions")
    first = train(lake, registry, loop, seed=1, now=LATER)
    play(log, loop.name, 100, first=300)
    settle(log, lake, loop)
    log.close()
    pinned = train(lake, registry, loop, seed=1, now=LATER, table_version=then)
    later = train(lake, registry, loop, seed=1, now=LATER)
    assert registry.files(loop.name, first.version) == registry.files(loop.name, pinned.version)
    assert (pinned.data.rows, later.data.rows) == (300, 400)


def test_too_few_rows_make_no_generation(lake: Lake, registry: Registry, loop: LoopSettings) -> None:
    before = registry.versions(loop.name)
    with pytest.raises(SupportError, match=f"{ROWS} interactions, {ROWS + 1} are needed"):
        train(lake, registry, with_training(loop, minimum=ROWS + 1), seed=1, now=LATER)
    with pytest.raises(SupportError, match="no interactions yet"):
        train(lake, registry, msgspec.structs.replace(loop, name="unheard-of"), seed=1, now=LATER)
    assert registry.versions(loop.name) == before


def test_rows_under_another_reward_definition_are_not_mixed_in(lake: Lake, loop: LoopSettings) -> None:
    changed = msgspec.structs.replace(loop, reward=msgspec.structs.replace(loop.reward, version="2"))
    with pytest.raises(SupportError, match=f"{ROWS} carry another reward definition than '2'"):
        window(lake, changed)


def test_a_training_repeated_under_its_key_is_the_same_version(
    lake: Lake, registry: Registry, loop: LoopSettings
) -> None:
    first = train(lake, registry, loop, seed=1, now=LATER, key="run 7")
    again = train(lake, registry, loop, seed=1, now=LATER + timedelta(hours=1), key="run 7")
    assert again == first


def test_a_tilt_wants_a_ranking_to_re_weight() -> None:
    text = '[policy]\nexploration = "tilt"\n'
    with pytest.raises(FieldError, match=r"baseline\.kind"):
        parse_loop(text, "news", {})
    loop = parse_loop(text + '[baseline]\nkind = "ranking"\nsteepness = 2.0\n', "news", {})
    assert exploration_of(loop, 10.0).steepness == 2.0
    assert exploration_of(parse_loop("", "news", {}), 10.0).steepness == 0.0


def test_a_margin_keeps_the_champions_action_and_the_files_hold_both_models(lake: Lake, tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    registry, keeping = Registry(settings), with_training(new_loop(settings, "colours"), margin=1e6)
    first = train(lake, registry, keeping, seed=0, now=LATER)
    _, manifest = unpack(registry.files("colours", first.version))
    assert manifest.oracle == "logistic"  # there was nobody to keep anything of

    registry.set_alias("colours", "champion", first.version, {})
    fewer = with_policy(keeping, interactions=False)
    second = train(lake, registry, fewer, seed=1, now=LATER)
    policy, manifest = unpack(registry.files("colours", second.version))
    assert (manifest.oracle, manifest.training["margin"], manifest.parent) == ("kept", 1e6, first.version)
    assert isinstance(policy.oracle, KeptOracle)
    (_, former), (_, new) = policy.oracle.members_by_kind
    for kind in KINDS:
        kept, alone = policy.scores(batch_of(kind)), new.predict(with_ids(batch_of(kind)))
        assert kept.argmax() == former.predict(with_ids(batch_of(kind))).argmax() == KINDS.index(kind)
        assert sorted(kept) == sorted(alone)

    kind, files = resumable(registry.files("colours", second.version)) or ("", {})
    assert kind == "logistic"
    assert load_oracle(kind, files).predict(with_ids(batch_of(KINDS[0]))).tolist() == (
        new.predict(with_ids(batch_of(KINDS[0]))).tolist()
    )

    without = train(lake, registry, with_training(fewer, margin=0.0), seed=1, now=LATER)
    assert unpack(registry.files("colours", without.version))[1].oracle == "logistic"


def test_a_model_of_other_sums_than_rewards_is_not_gone_on_with(
    lake: Lake, registry: Registry, loop: LoopSettings
) -> None:
    files = registry.files(loop.name, train(lake, registry, loop, seed=3, now=LATER).version)
    policy, manifest = unpack(files)
    assert resumable(files) is not None
    for factor, goes_on in ((0.0, True), (0.5, False)):
        told = {**manifest.training, "auxiliary": [{"outcome": "click", "factor": factor}]}
        other = pack(policy, msgspec.structs.replace(manifest, training=told))
        assert (resumable(other) is not None) == goes_on


@pytest.mark.parametrize(
    "text",
    [
        '[policy]\nexploration = "thompson"',
        "[fairness]\nenabled = true",
        "[training]\nwarm_start = true",
        "[training]\nvariants = [{average = 3}]",
    ],
)
def test_a_margin_beside_what_it_does_not_go_with_is_refused(text: str) -> None:
    head, training = text.split("\n", 1)
    given = f"[training]\nmargin = 0.1\n{training}" if head == "[training]" else f"{text}\n[training]\nmargin = 0.1"
    with pytest.raises(FieldError, match=r"training\.margin"):
        parse_loop(given, "shop", {})
