"""Who can write to MLflow's files and tables cannot put another model in the place of a registered one."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from decision.artifact import Manifest, pack
from decision.exploration.rule import Exploration
from decision.oracles.linear import LinearOracle
from decision.policy import OraclePolicy
from pipelines.registry.cache import manifest_digest
from pipelines.registry.registry import AlteredError, Registry
from pipelines.registry.tracking import RegistryError
from pipelines.settings import Settings, load_settings
from serving.loops import Loops
from tests.contracts.registry import packed
from tests.strategies import interactions_of
from tests.worlds.synthetic import new_loop, new_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return new_settings(tmp_path_factory.mktemp("attacked"))


@pytest.fixture(scope="module")
def registry(settings: Settings) -> Registry:
    return Registry(settings)


def policy_of(loop: str, seed: int) -> dict[str, bytes]:
    oracle = LinearOracle()
    oracle.fit(interactions_of(np.random.default_rng(seed), 60))
    rule = Exploration(gamma=20.0)
    manifest = Manifest(
        loop=loop, oracle="linear", exploration=rule, seed=seed, code_version="test", created_at="2026-01-01T00:00:00Z"
    )
    return pack(OraclePolicy(oracle, rule), manifest)


def replace_at_mlflow(settings: Settings, loop: str, version: str, files: dict[str, bytes]) -> None:
    """Put other files, and the tag that fits them, in the place of a version's."""
    with closing(sqlite3.connect(settings.root / "mlflow.db")) as database:
        named = (loop, int(version))
        ((run,),) = database.execute("SELECT run_id FROM model_versions WHERE name = ? AND version = ?", named)
        changed = database.execute(
            "UPDATE model_version_tags SET value = ? WHERE name = ? AND version = ? AND key = 'manifest_sha256'",
            (manifest_digest(files), *named),
        )
        assert changed.rowcount == 1
        database.commit()
    folder = settings.root / "models" / loop / run / "artifacts" / "policy"
    shutil.rmtree(folder)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def forget_copies(settings: Settings) -> None:
    shutil.rmtree(settings.root / "cache", ignore_errors=True)


def test_files_changed_together_with_their_tag_are_refused_and_the_message_says_what_to_do(
    settings: Settings, registry: Registry
) -> None:
    version = registry.register("both", packed(model_vw=b"good"))
    replace_at_mlflow(settings, "both", version, packed(model_vw=b"evil"))
    forget_copies(settings)
    with pytest.raises(
        AlteredError,
        match=r"version 1 of both is not what was registered: manifest\.json: must be sha256 .*decision rollback both",
    ):
        Registry(settings).files("both", version)


def test_the_copy_on_this_machine_serves_on_when_mlflow_was_changed(settings: Settings, registry: Registry) -> None:
    files = packed(model_vw=b"good")
    version = registry.register("kept", files)
    replace_at_mlflow(settings, "kept", version, packed(model_vw=b"evil"))
    assert Registry(settings).files("kept", version) == files


def test_a_copy_changed_with_its_manifest_is_not_served_while_mlflow_is_away(tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    registry = Registry(settings)
    version = registry.register("copied", packed(model_vw=b"good"))
    for name, data in packed(model_vw=b"evil").items():
        (settings.root / "cache" / "models" / "copied" / version / name).write_bytes(data)
    shutil.rmtree(settings.root / "models")
    with pytest.raises(AlteredError, match="is not what was registered"):
        Registry(settings).files("copied", version)
    with closing(sqlite3.connect(settings.root / "state.db")) as database:
        database.execute("DELETE FROM state WHERE key LIKE 'registered/%'")
        database.commit()
    (settings.root / "mlflow.db").write_text("no database")
    with pytest.raises(RegistryError):
        Registry(settings).files("copied", version)


def test_an_mlflow_that_was_begun_anew_cannot_give_a_number_twice(tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    before, after = (new_settings(tmp_path / name) for name in ("before", "after"))
    Registry(before).register("anew", packed(a=b"1"))
    shutil.copy(before.root / "state.db", after.root / "state.db")
    with pytest.raises(RegistryError, match="State knows other files by that number"):
        Registry(after).register("anew", packed(a=b"2"))


def test_a_champion_changed_at_mlflow_leaves_the_last_good_one_in_charge(
    settings: Settings, registry: Registry
) -> None:
    new_loop(settings, "news")
    first, second = (registry.register("news", policy_of("news", seed)) for seed in (1, 2))
    registry.set_alias("news", "champion", first, {})
    loops = Loops(settings, registry)
    loops.refresh()
    served = loops.get("news")
    assert served is not None
    assert (served.policy_version, loops.error("news")) == (first, None)
    replace_at_mlflow(settings, "news", second, policy_of("news", 3))
    forget_copies(settings)
    registry.set_alias("news", "champion", second, {})
    loops.refresh()
    assert (kept := loops.get("news")) is not None
    assert (kept.policy, kept.policy_version) == (served.policy, first)
    assert "version 2 of news is not what was registered" in str(loops.error("news"))
    fresh = Loops(settings, Registry(settings))  # at its start it has no good one: the baseline answers
    fresh.refresh()
    started = fresh.get("news")
    assert started is not None
    assert (started.policy, started.policy_version) == (None, started.baseline_version)
    assert "version 2 of news is not what was registered" in str(fresh.error("news"))
    registry.set_alias("news", "champion", first, {})
    for looked in (loops, fresh):
        looked.refresh()
        assert (found := looked.get("news")) is not None
        assert (found.policy_version, looked.error("news")) == (first, None)
        looked.close()


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (b'{"files":' + b"[" * 500_000 + b"]" * 500_000 + b"}", "manifest.json"),
        (b'{"x":' + b"[" * 400_000 + b"]" * 400_000 + b',"files":{}}', "manifest.json"),
        (b'{"files":{"\xff":"0"}}', "manifest.json"),
        (b'{"files":{}}' + b" " * (1 << 20), "manifest.json"),
        (msgspec.json.encode({"files": {f"f{number}": "0" for number in range(20_000)}}), "files"),
    ],
    ids=["nested hashes", "nested elsewhere", "no text", "a megabyte", "20,000 files"],
)
def test_a_manifest_of_absurd_size_or_depth_is_refused(
    settings: Settings, registry: Registry, manifest: bytes, says: str, request: pytest.FixtureRequest
) -> None:
    loop = "absurd-" + request.node.callspec.id.replace(" ", "-").replace(",", "")
    version = registry.register(loop, packed(model_vw=b"good"))
    replace_at_mlflow(settings, loop, version, {"manifest.json": manifest, "model.vw": b"good"})
    forget_copies(settings)
    with pytest.raises(AlteredError, match=rf"version 1 of {loop} is not what was registered: {says}"):
        registry.files(loop, version)


def test_a_huge_file_at_mlflow_is_not_fetched(settings: Settings, registry: Registry) -> None:
    version = registry.register("huge", packed(model_vw=b"good"))
    (stored,) = (settings.root / "models" / "huge").glob("*/artifacts/policy/model.vw")
    with stored.open("wb") as file:
        file.truncate(40 << 30)  # a hole: 40 GiB that take no room
    forget_copies(settings)
    with pytest.raises(
        AlteredError, match=r"version 1 of huge is not what was registered: files: must be at most 536870912 bytes"
    ):
        registry.files("huge", version)


@pytest.mark.connected
def test_a_server_without_a_shared_state_is_held_to_what_each_home_saw_first(
    mlflow_server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trains, serves = (
        Registry(load_settings({}, home=str(tmp_path / home), tracking_uri=mlflow_server))
        for home in ("trains", "serves")
    )
    files = packed(model_vw=b"good")
    version = trains.register("seen", files)
    other = trains.register("seen", packed(model_vw=b"evil"))
    assert serves.files("seen", version) == files
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_server, registry_uri=mlflow_server)
    for name, data in packed(model_vw=b"evil").items():
        (tmp_path / name).write_bytes(data)
        client.log_artifact(client.get_model_version("seen", version).run_id, str(tmp_path / name), "policy")
    client.set_model_version_tag("seen", version, "manifest_sha256", manifest_digest(packed(model_vw=b"evil")))
    with caplog.at_level(logging.WARNING):
        assert serves.files("seen", version) == files  # its copy is the one that it saw
    assert "manifest_sha256 of version 1 of seen was changed" in caplog.text
    for home in ("trains", "serves"):
        shutil.rmtree(tmp_path / home / "cache")
    for registry in (trains, serves):
        with pytest.raises(AlteredError, match="is not what was registered"):
            registry.files("seen", version)
    assert serves.files("seen", other) == packed(model_vw=b"evil")
