"""With a guard the gate makes candidates, and the guard takes it from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipelines.lake.lake import Lake
from pipelines.log.sqlite.log import LocalLog
from pipelines.nightly import nightly
from pipelines.promotion.promote import promote
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, Settings
from pipelines.training.train import train
from tests.worlds.synthetic import LATER, new_loop, new_settings, open_parts, play, settle

TEXT = "[gate]\nminimum_ess = 5\n[guard]\nenabled = true\n"
Parts = tuple[Settings, LoopSettings, LocalLog, Lake, Registry]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    settings = new_settings(tmp_path)
    loop = new_loop(settings, "shop", TEXT)
    log, lake = open_parts(settings)
    play(log, "shop", 600)
    yield settings, loop, log, lake, Registry(settings)
    log.close()


def test_a_version_that_passes_the_gate_becomes_the_candidate(parts: Parts) -> None:
    _, loop, log, lake, registry = parts
    settle(log, lake, loop)
    first = train(lake, registry, loop, seed=1, now=LATER).version
    promotion = promote(lake, registry, loop, now=LATER, by="a test")
    assert (promotion.promoted, promotion.candidate) == (False, first)
    assert registry.aliases("shop") == {"candidate": first}
    (written,) = registry.verdicts("shop")
    assert (written.verdict, written.alias, written.to_version) == ("candidate", "candidate", first)
    assert "rolled out" in promote(lake, registry, loop, now=LATER, by="a test").reasons[0]
    assert len(registry.verdicts("shop")) == 1, "repeated, it changes nothing"


def test_a_version_waits_while_another_is_rolled_out_unless_told_otherwise(parts: Parts) -> None:
    _, loop, log, lake, registry = parts
    settle(log, lake, loop)
    first, second = (train(lake, registry, loop, seed=seed, now=LATER).version for seed in (1, 2))
    promote(lake, registry, loop, version=first, now=LATER, by="a test")
    waiting = promote(lake, registry, loop, version=second, now=LATER, by="a test", replace_candidate=False)
    assert (waiting.promoted, waiting.candidate) == (False, first)
    assert registry.aliases("shop") == {"candidate": first}
    assert promote(lake, registry, loop, version=second, now=LATER, by="a test").candidate == second
    assert registry.aliases("shop") == {"candidate": second}


def test_a_version_that_the_guard_killed_is_not_rolled_out_again_unnamed(parts: Parts) -> None:
    _, loop, log, lake, registry = parts
    settle(log, lake, loop)
    version = train(lake, registry, loop, seed=1, now=LATER).version
    promote(lake, registry, loop, now=LATER, by="a test")
    registry.set_alias("shop", "candidate", None, {"verdict": "killed", "reasons": ["a test"]}, expected=version)
    again = promote(lake, registry, loop, now=LATER, by="a test")
    assert (again.promoted, again.candidate) == (False, None)
    assert "was killed" in again.reasons[0]
    assert promote(lake, registry, loop, version=version, now=LATER, by="a test").candidate == version


def test_nights_under_a_guard_roll_out_one_version_after_the_other(parts: Parts) -> None:
    settings, loop, log, lake, registry = parts
    first = nightly(settings, log, lake, registry, loop, now=LATER, run_id="one")
    assert first.verdict == "rolling_out"
    assert (first.result("guard") or {})["status"] == "idle"
    play(log, "shop", 100, first=600)
    second = nightly(settings, log, lake, registry, loop, now=LATER, run_id="two")
    assert second.verdict == "waiting"
    begun = second.result("guard") or {}
    assert (begun["status"], begun["weight"], begun["baseline_version"]) == ("climbing", 0.05, "baseline:uniform")
    assert registry.aliases("shop") == {"candidate": begun["candidate_version"]}


def test_the_guard_is_off_unless_asked_for(parts: Parts) -> None:
    settings, loop, log, lake, registry = parts
    loop = msgspec.structs.replace(loop, guard=msgspec.structs.replace(loop.guard, enabled=False))
    run = nightly(settings, log, lake, registry, loop, now=LATER, run_id="one")
    assert run.verdict == "promoted"
    assert (run.result("guard") or {})["status"] == "off"
    assert not (settings.root / "guard").exists()
