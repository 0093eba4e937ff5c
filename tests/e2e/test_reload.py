"""The champion changes under load: no request fails, and no answer mixes two versions."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from decision.artifact import Manifest, pack, unpack
from decision.exploration.rule import Exploration
from decision.oracles.linear import LinearOracle
from decision.policy import OraclePolicy
from decision.records import decode_decision
from pipelines.registry.registry import Registry
from pipelines.settings import load_settings
from serving.explaining.explain import batch_of
from serving.start import open_core
from serving.wire import Action, DecideRequest
from tests.strategies import interactions_of
from tests.worlds.synthetic import new_settings


def register(registry: Registry, seed: int, loop: str = "news") -> str:
    oracle = LinearOracle()
    oracle.fit(interactions_of(np.random.default_rng(seed), 60))
    policy = OraclePolicy(oracle, Exploration(gamma=20.0 + seed))
    manifest = Manifest(
        loop=loop,
        oracle="linear",
        exploration=policy.exploration,
        seed=seed,
        code_version="test",
        created_at="2026-01-01T00:00:00+00:00",
    )
    return registry.register(loop, pack(policy, manifest))


def promote(registry: Registry, version: str, expected: str | None, loop: str = "news") -> None:
    verdict = {
        "verdict": "promoted",
        "reasons": ["test"],
        "numbers": {},
        "at": "2026-01-01T00:00:00+00:00",
        "by": "test",
    }
    registry.set_alias(loop, "champion", version, verdict, expected=expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_champion_swapped_under_load_fails_no_request_and_mixes_no_versions(tmp_path: Path) -> None:
    new_settings(tmp_path)
    settings = load_settings({}, home=str(tmp_path), reload_s=0.05)
    path = settings.loop_path("news")
    path.parent.mkdir(parents=True)
    path.write_text("")
    registry = Registry(settings)
    versions = [register(registry, seed) for seed in range(4)]
    core = open_core(settings)
    rng = np.random.default_rng(0)

    async def ask(number: int) -> str:
        context = {"c0": float(rng.random()), "c1": float(rng.random()), "c2": float(rng.random())}
        actions = [Action(str(j), {"a": str(j), "cost": j / 6}) for j in range(4)]
        answer = await core.decide("news", DecideRequest(context, actions, event_id=f"e{number}"))
        return answer.policy_version

    async def load() -> list[str]:
        seen: list[str] = []
        champion: str | None = None
        number = 0
        for version in versions:
            await asyncio.to_thread(promote, registry, version, champion)
            champion = version
            async with asyncio.timeout(300):  # until the new champion answers
                while not seen or seen[-1] != version:
                    seen += await asyncio.gather(*(ask(number + i) for i in range(16)))
                    number += 16
                    await asyncio.sleep(0.01)
        return seen

    try:
        seen = asyncio.run(load())
        assert [v for i, v in enumerate(seen) if i == 0 or seen[i - 1] != v][-len(versions) :] == versions
        policies = {version: unpack(registry.files("news", version))[0] for version in versions}
        for number, version in enumerate(seen):
            (message,) = core.spool.find("decisions", f"e{number}".encode())
            record = decode_decision(message.value)
            assert record.policy_version == version
            if version in policies:
                assert policies[version].pmf(batch_of(record)).tolist() == record.pmf
    finally:
        core.close()


def test_corrupt_artifact_leaves_the_last_good_version_in_charge(tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    path = settings.loop_path("news")
    path.parent.mkdir(parents=True)
    path.write_text("")
    registry = Registry(settings)
    good, bad = register(registry, 1), register(registry, 2)
    promote(registry, good, None)
    core = open_core(settings)
    try:
        assert core.snapshot("news").policy_version == good
        for file in (tmp_path / "cache").rglob("linear.json"):
            file.write_bytes(b"{}")
        for file in tmp_path.rglob("linear.json"):
            file.write_bytes(b"{}")
        promote(registry, bad, good)
        core.loops.refresh()
        assert core.snapshot("news").policy_version == good
        assert core.loops.error("news")
        answer = asyncio.run(core.decide("news", DecideRequest({}, [Action("a"), Action("b")])))
        assert answer.policy_version == good
    finally:
        core.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait as long as it takes: a run that hangs here has shown its failure."""
    while not condition():
        time.sleep(0.005)


def take_all(taken: list[int]) -> None:
    """Open files until there is no descriptor left."""
    while True:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return


def test_a_rollback_is_served_after_descriptors_ran_out(tmp_path: Path) -> None:
    new_settings(tmp_path)
    settings = load_settings({}, home=str(tmp_path), reload_s=0.05)
    path = settings.loop_path("news")
    path.parent.mkdir(parents=True)
    path.write_text("")
    registry = Registry(settings)
    old, new = register(registry, 1), register(registry, 2)
    promote(registry, old, None)
    promote(registry, new, old)
    core = open_core(settings)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        until(lambda: not core.loops.refresher.first)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 20, limits[1]))
        take_all(taken)
        until(lambda: core.loops.refresher.failures > 0)  # nothing can be reloaded ...
        until(lambda: core.ready() is not None)  # ... and the service says so
        while taken:
            os.close(taken.pop())
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        promote(registry, old, new)
        until(lambda: core.snapshot("news").policy_version == old)
        until(lambda: core.ready() is None)
    finally:
        while taken:
            os.close(taken.pop())
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        core.close()
