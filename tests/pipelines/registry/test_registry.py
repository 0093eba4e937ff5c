from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from decision.errors import FieldError
from pipelines.registry.cache import ModelCache, verify
from pipelines.registry.charge import WrittenVerdict, moves
from pipelines.registry.registry import AlteredError, Registry
from pipelines.registry.tracking import RegistryError
from pipelines.settings import Settings, load_settings
from tests.contracts.registry import packed
from tests.worlds.synthetic import new_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return new_settings(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def registry(settings: Settings) -> Registry:
    return Registry(settings)


def forget(settings: Settings) -> None:
    shutil.rmtree(settings.root / "cache", ignore_errors=True)


def test_a_home_without_a_registry_has_no_versions_and_is_left_alone(tmp_path: Path) -> None:
    registry = Registry(load_settings({}, home=str(tmp_path / "home")))
    assert registry.aliases("news") == {}
    assert registry.versions("news") == []
    assert registry.verdicts("news") == []
    assert not (tmp_path / "home").exists()


def test_a_home_that_was_moved_has_its_versions_and_takes_new_ones(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()  # a path with a name that the home's own folder has, too
    before, after = tmp_path / "models" / "before", tmp_path / "models" / "after"
    before.mkdir()
    first, second = packed(model_vw=b"first"), packed(model_vw=b"second")
    version = Registry(new_settings(before)).register("shop", first)
    before.rename(after)
    shutil.rmtree(after / "cache")
    moved = Registry(load_settings({}, home=str(after)))
    assert moved.files("shop", version) == first
    newer = moved.register("shop", second, metrics={"value": 1.0})
    shutil.rmtree(after / "cache")
    assert Registry(load_settings({}, home=str(after))).files("shop", newer) == second
    assert not before.exists()
    assert len(list((after / "models" / "shop").glob("*/artifacts/policy"))) == 2


def test_what_a_registry_makes_is_its_owners_alone(tmp_path: Path) -> None:
    Registry(load_settings({}, home=str(tmp_path))).register("shop", packed(model_vw=b"x"))
    assert {path.name: path.stat().st_mode & 0o077 for path in tmp_path.iterdir() if path.is_file()} == dict.fromkeys(
        ("mlflow.db", "mlflow.lock", "registry.lock", "state.db"), 0
    )


def test_a_file_altered_in_the_registry_is_refused_by_name(settings: Settings, registry: Registry) -> None:
    version = registry.register("altered", packed(model_vw=b"good"))
    (stored,) = (settings.root / "models" / "altered").glob("*/artifacts/policy/model.vw")
    stored.write_bytes(b"evil")
    forget(settings)
    with pytest.raises(AlteredError, match=r"files\.model\.vw.*sha256.*decision rollback altered"):
        registry.files("altered", version)


def test_a_manifest_altered_along_with_its_file_is_refused_too(settings: Settings, registry: Registry) -> None:
    version = registry.register("forged", packed(model_vw=b"good"))
    (folder,) = (settings.root / "models" / "forged").glob("*/artifacts/policy")
    for name, data in packed(model_vw=b"evil").items():
        (folder / name).write_bytes(data)
    forget(settings)
    with pytest.raises(AlteredError, match=r"manifest\.json"):
        registry.files("forged", version)


def test_a_copy_altered_on_this_machine_is_fetched_again(settings: Settings, registry: Registry) -> None:
    files = packed(model_vw=b"good")
    version = registry.register("cached", files)
    copy = settings.root / "cache" / "models" / "cached" / version / "model.vw"
    copy.write_bytes(b"evil")
    assert registry.files("cached", version) == files
    assert copy.read_bytes() == b"good"


def test_a_copy_of_another_version_with_the_same_number_is_not_served(settings: Settings, registry: Registry) -> None:
    files = packed(model_vw=b"new")
    version = registry.register("renumbered", files)
    ModelCache(settings.root / "cache" / "models").put("renumbered", version, packed(model_vw=b"old"))
    assert registry.files("renumbered", version) == files


@pytest.mark.parametrize(
    ("files", "field"),
    [
        ({}, "files"),
        ({"model": b""}, "manifest.json"),
        ({"manifest.json": b"[]"}, "manifest.json"),
        ({"manifest.json": b'{"files":{}}', "extra": b""}, "files"),
        ({"manifest.json": b'{"files":{"model":"0"}}'}, "files"),
        ({"manifest.json": b'{"files":{"model":"0"}}', "model": b""}, "files.model"),
        ({"manifest.json": b'{"files":{"../model":"0"}}', "../model": b""}, "files"),
        ({"manifest.json": b'{"files":{".hidden":"0"}}', ".hidden": b""}, "files"),
        ({f"f{number}": b"" for number in range(65)}, "files"),
    ],
)
def test_files_that_are_not_those_of_their_manifest_are_refused(files: dict[str, bytes], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        verify(files)
    assert caught.value.field == field


def test_links_in_the_cache_are_not_followed(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)
    cache.put("news", "1", packed(model=b"good"))
    (tmp_path / "elsewhere").write_bytes(b"good")
    (tmp_path / "news" / "1" / "model").unlink()
    (tmp_path / "news" / "1" / "model").symlink_to(tmp_path / "elsewhere")
    assert cache.files("news", "1") is None


def test_the_cache_keeps_the_latest_versions_and_the_champion(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)
    cache.put_aliases("news", {"champion": "2"})
    for number in range(1, 15):
        cache.put("news", str(number), packed(model=b"%d" % number))
    held = {int(folder.name) for folder in (tmp_path / "news").iterdir() if folder.is_dir()}
    assert held == {2, *range(5, 15)}


def test_a_version_that_is_no_number_cannot_leave_the_cache(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="version"):
        ModelCache(tmp_path).files("news", "../1")


def test_an_alias_moves_with_its_verdict(settings: Settings, registry: Registry) -> None:
    first, second = (registry.register("moved", packed(a=data)) for data in (b"1", b"2"))
    assert registry.aliases("moved") == {}
    verdict = {"verdict": "promoted", "reasons": ["better"], "numbers": {"low": 0.1}, "by": "a test", "at": "now"}
    registry.set_alias("moved", "champion", first, verdict, expected=None)
    registry.set_alias("moved", "champion", second, verdict, expected=first)
    registry.refuse("moved", first, {"verdict": "refused", "reasons": ["worse"]})
    assert registry.aliases("moved") == {"champion": second}
    found = registry.verdicts("moved")
    assert found[1] == WrittenVerdict(
        number=2,
        version=second,
        alias="champion",
        from_version=first,
        to_version=second,
        verdict="promoted",
        reasons=["better"],
        numbers={"low": 0.1},
        by="a test",
        at="now",
    )
    assert [(entry.verdict, entry.alias, entry.from_version) for entry in found] == [
        ("promoted", "champion", None),
        ("promoted", "champion", first),
        ("refused", "", None),
    ]
    files = sorted((settings.root / "models" / "moved").glob("*/artifacts/verdicts/*.json"))
    assert {path.name for path in files} == {"000001.json", "000002.json", "000003.json"}
    assert b'"from":"1","to":"2"' in next(path for path in files if path.name == "000002.json").read_bytes()


def test_a_verdict_whose_move_was_prevented_is_no_move() -> None:
    def verdict(number: int, old: str | None, new: str | None) -> WrittenVerdict:
        return WrittenVerdict(number=number, version=new or "", alias="champion", from_version=old, to_version=new)

    history = [verdict(1, None, "1"), verdict(2, "1", "2"), verdict(3, "1", "3"), verdict(4, "3", None)]
    assert [entry.number for entry in moves(history, "champion", None)] == [1, 3, 4]
    assert [entry.number for entry in moves(history, "champion", "3")] == [1, 3]
    assert moves(history, "candidate", "3") == []


def test_without_the_registry_this_machine_answers_from_what_it_saw(settings: Settings, registry: Registry) -> None:
    files = packed(a=b"1")
    version = registry.register("away", files)
    registry.set_alias("away", "champion", version, {})
    assert registry.aliases("away") == {"champion": version}
    damaged = settings.root / "damaged.db"
    damaged.write_text("no database")
    cut_off = Registry(msgspec.structs.replace(settings, tracking_uri=f"sqlite:///{damaged}"))
    assert cut_off.aliases("away") == {"champion": version}
    assert cut_off.files("away", version) == files
    with pytest.raises(RegistryError):
        cut_off.aliases("never-seen")
    with pytest.raises(RegistryError):
        cut_off.files("away", "7")
    with pytest.raises(RegistryError):
        cut_off.set_alias("away", "champion", None, {})


def test_aliases_can_be_polled_from_many_threads_while_they_move(registry: Registry) -> None:
    first, second = (registry.register("polled", packed(a=data)) for data in (b"1", b"2"))
    registry.set_alias("polled", "champion", first, {})
    with ThreadPoolExecutor(8) as pool:
        polls = [pool.submit(registry.aliases, "polled") for _ in range(50)]
        registry.set_alias("polled", "champion", second, {})
        polls += [pool.submit(registry.aliases, "polled") for _ in range(50)]
    assert {poll.result()["champion"] for poll in polls[:50]} <= {first, second}
    assert {poll.result()["champion"] for poll in polls[50:]} == {second}


def test_importing_the_registry_does_not_import_mlflow() -> None:
    code = "import sys, pipelines.registry.registry; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_two_processes_may_open_a_new_registry_at_once_and_neither_talks(tmp_path: Path) -> None:
    code = (
        "import sys; from pipelines.registry.registry import Registry; from pipelines.settings import load_settings\n"
        "from tests.contracts.registry import packed\n"
        "registry = Registry(load_settings({}, home=sys.argv[1]))\n"
        "print(registry.register('shared', packed(a=sys.argv[2].encode())))\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled; assert is_telemetry_disabled()\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    results = [process.communicate(timeout=300) for process in started]
    assert [err for _, err in results] == ["", ""]
    assert sorted(out.strip() for out, _ in results) == ["1", "2"]
