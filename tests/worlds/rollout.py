"""A loop under a guard, with two actions and known distributions: the candidate prefers the second one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from decision.artifact import Manifest, pack
from decision.draw import draw, seed_of
from decision.exploration.rule import Exploration
from decision.guard.snapshot import GuardSnapshot, decode_snapshot
from decision.oracles.linear import LinearOracle
from decision.policy import OraclePolicy
from decision.records import Decision, Outcome
from pipelines.guard.keys import snapshot_key
from pipelines.guard.state import GuardState
from pipelines.guard.step import guard
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, Settings
from pipelines.state.state import State
from tests.strategies import interactions_of
from tests.worlds.lake import START, World, decision, outcome
from tests.worlds.synthetic import new_loop, new_settings

BASELINE, CANDIDATE = [0.5, 0.5], [0.2, 0.8]
TEXT = "[guard]\nenabled = true\nttl_s = 3600\nbatch = 500\n"
FLUSHED = timedelta(seconds=601)
"""After this time every reward window is over."""


def policy_files(loop: str, seed: int) -> dict[str, bytes]:
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
    return pack(policy, manifest)


@cache
def _registered() -> Path:
    """Return a registry with three versions of ``shop``: making one takes a second, a copy of its files nothing."""
    made = Path(tempfile.mkdtemp(prefix="guarded-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    registry = Registry(new_settings(made))
    for seed in range(3):
        registry.register("shop", policy_files("shop", seed))
    return made


class GuardedLoop:
    """A loop ``shop`` with a champion (version 1), two more versions, a log and a lake; `now` moves with traffic."""

    def __init__(self, folder: Path, text: str = TEXT) -> None:
        self.settings = new_settings(folder)
        self.loop: LoopSettings = new_loop(self.settings, "shop", text)
        shutil.copy(_registered() / "mlflow.db", folder / "mlflow.db")
        shutil.copytree(_registered() / "models", folder / "models", dirs_exist_ok=True)
        self.registry = Registry(self.settings)
        self.point("champion", "1")
        self.world = World(folder)
        self.now: datetime = START
        self.played = 0

    def point(self, alias: str, version: str | None) -> None:
        verdict = {"verdict": "set", "reasons": ["a test"], "at": START.isoformat(), "by": "a test"}
        self.registry.set_alias("shop", alias, version, verdict)  # type: ignore[arg-type]

    def step(self) -> GuardState:
        return guard(self.settings, self.loop, self.world.lake, self.registry, self.now)

    def records(
        self, state: GuardState, n: int, good: float, bad: float, **changes: object
    ) -> tuple[list[Decision], list[Outcome]]:
        """Return n decisions at the state's weight and their outcomes; the second action pays `good`."""
        rho, decisions, outcomes = state.weight, [], []
        pmf = [(1 - rho) * b + rho * c for b, c in zip(BASELINE, CANDIDATE, strict=True)]
        for number in range(self.played, self.played + n):
            event_id = f"e{number:07d}"
            seed = seed_of("shop", event_id)
            index, ts = draw(pmf, seed), self.now + timedelta(milliseconds=number - self.played)
            fields: dict[str, object] = {
                "ts": ts,
                "pmf": pmf,
                "action_index": index,
                "propensity": pmf[index],
                "pmf_baseline": BASELINE,
                "pmf_candidate": CANDIDATE,
                "guard_weight": rho,
                "guard_version": state.guard_version,
                "policy_version": state.baseline_version,
                "seed": seed,
            }
            decisions.append(decision(event_id, **(fields | changes)))
            paid = np.random.default_rng([number, 99]).random() < (good if index == 1 else bad)
            if paid:
                happened = ts + timedelta(seconds=5)
                outcomes.append(msgspec.structs.replace(outcome(event_id, idempotency_key=event_id), ts=happened))
        self.played += n
        return decisions, outcomes

    def serve(self, state: GuardState, n: int, good: float, bad: float, **changes: object) -> None:
        """Serve n decisions, and settle everything; deferred ones are neither activated nor rewarded."""
        decisions, outcomes = self.records(state, n, good, bad, **changes)
        outcomes = [] if changes.get("deferred") else outcomes
        self.world.append(*decisions, *outcomes)
        self.settle()

    def settle(self) -> None:
        self.now += timedelta(seconds=self.played / 1000) + FLUSHED
        ingest(self.world.log, self.world.lake)
        join(self.world.lake, self.loop, self.now)

    def close(self) -> None:
        self.world.log.close()


def publish(settings: Settings, snapshot: bytes | None) -> None:
    """Put something in the place of what the guard of the loop ``shop`` published; None takes it away."""
    with State(settings.state_url) as state:
        entry = state.get(snapshot_key("shop"))
        if entry is not None or snapshot is not None:
            state.put({snapshot_key("shop"): (None if entry is None else entry.version, snapshot)})


def published(shop: GuardedLoop) -> GuardSnapshot:
    """Return what replicas read."""
    return decode_snapshot(published_bytes(shop.settings))


def published_bytes(settings: Settings) -> bytes:
    """Return what the guard of the loop ``shop`` published."""
    with State(settings.state_url) as state:
        entry = state.get(snapshot_key("shop"))
    assert entry is not None
    return entry.value
