"""Versions that cannot be loaded: the last good one decides, or the baseline, and the error says what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from decision.artifact import MAX_BYTES
from pipelines.registry.cache import MAX_FILES
from pipelines.registry.registry import Registry
from tests.e2e.test_reload import promote, register
from tests.faults.site import LOOP, Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "home")
    yield site
    site.stop()


def stored(site: Site, version: str) -> Path:
    """Return where MLflow has the files of a version, after this machine's copy of it is gone."""
    run = next(known.run_id for known in Registry(site.settings).versions(LOOP) if known.version == version)
    (folder,) = site.settings.root.glob(f"models/**/{run}/artifacts/policy")
    for copy in (site.settings.root / "cache" / "models" / LOOP / version).iterdir():
        copy.unlink()
    return folder


def registered(site: Site, seed: int) -> str:
    return register(Registry(site.settings), seed, LOOP)


def error_of(site: Site) -> str:
    site.look()
    return site.ask("GET", f"/v1/loops/{LOOP}").json()["error"] or ""


def version_of(site: Site) -> str:
    assert set(site.live(3)) <= {200, 202}
    return site.ask("GET", f"/v1/loops/{LOOP}").json()["policy_version"]


def test_a_champion_that_is_damaged_at_the_start_leaves_the_baseline_until_it_is_restored(site: Site) -> None:
    version = registered(site, 1)
    promote(Registry(site.settings), version, None, LOOP)
    file = stored(site, version) / "linear.f64"
    good = file.read_bytes()
    file.write_bytes(bytes(len(good)))
    site.start()
    assert version_of(site) == "baseline:uniform"
    assert pytest.approx(1.0) == sum(entry["probability"] for entry in ranking(site))
    assert f"version {version} of {LOOP} is not what was registered: files.linear.f64" in error_of(site)
    file.write_bytes(good)
    assert error_of(site) == ""
    assert version_of(site) == version
    site.stop()
    site.check()


def ranking(site: Site) -> list[dict[str, float]]:
    question = {"context": {}, "actions": [{"id": "a"}, {"id": "b"}]}
    return site.ask("POST", f"/v1/loops/{LOOP}/decide", question).json()["ranking"]


@pytest.mark.parametrize("what", ["huge", "many", "gone", "cut"])
def test_a_version_that_cannot_be_loaded_leaves_the_last_good_one_in_charge(site: Site, what: str) -> None:
    good, bad = registered(site, 1), registered(site, 2)
    promote(Registry(site.settings), good, None, LOOP)
    site.start()
    folder = stored(site, bad)
    file = folder / "linear.f64"
    if what == "huge":  # with a hole: it takes no room here, and is not to be fetched
        os.truncate(file, 4 * MAX_BYTES)
    elif what == "many":
        for number in range(MAX_FILES):
            (folder / f"more{number}").write_bytes(b"")
    elif what == "gone":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size - 1)
    promote(Registry(site.settings), bad, good, LOOP)
    said = error_of(site)
    assert f"version {bad} of {LOOP} is not what was registered" in said
    assert f"decision rollback {LOOP}" in said
    assert version_of(site) == good
    site.stop()
    site.check()
