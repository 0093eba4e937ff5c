"""An installation as an operator meets it: a loop in the middle of a rollout, with nights behind it, and a new one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from decision.batch import Batch, Interactions
from decision.drift.compare import Changed, Drift, Moved
from pipelines.evaluation.alarms import Alarmed
from pipelines.evaluation.drift import Drifted
from pipelines.evaluation.health import health
from pipelines.evaluation.rewards import rewards_of
from pipelines.evaluation.standing import Alarm, raise_alarms
from pipelines.nightly import STEPS
from pipelines.runs import Run, Step
from pipelines.state.state import State
from serving.core import Core
from serving.start import open_core
from tests.serving.http.test_app import Caller
from tests.worlds.lake import START
from tests.worlds.rollout import TEXT, GuardedLoop

DRIFT = Drift(
    rows=2_000,
    before=12_000,
    features=[
        Moved(
            name="device",
            psi=0.31,
            missing=0.0,
            missing_before=0.0,
            cell="phone",
            share=0.71,
            share_before=0.4,
            p=1e-9,
            new={"watch": 0.05},
            alarmed=True,
        ),
        Moved(
            name="hour", psi=0.12, missing=0.0, missing_before=0.0, cell="missing", share=0.0, share_before=0.0, p=1.0
        ),
    ],
    actions=[
        Moved(
            name="price", psi=0.02, missing=0.2, missing_before=0.1, cell="missing", share=0.2, share_before=0.1, p=1.0
        )
    ],
    rewards=[Changed(of="", mean=0.3, mean_before=0.5, share=1.0, effective=500.0, p=1e-5, alarmed=True)],
)
REWARD = "[reward]\nminimum = 0.0\nmaximum = 1.0\n"


class Operated:
    """A loop ``shop`` that rolls version 2 out beside version 1, after nights, and a new loop that did nothing.

    Args:
        home: the home folder.
        nights: how many there were.
        failed: whether the last one failed.
        alarms: what it raised.
        new: name of the new loop; counts of decisions are a process's, so one that is asked has a name of its own.
        settings: of the installation, instead of its own.
    """

    def __init__(
        self,
        home: Path,
        *,
        nights: int = 12,
        failed: bool = False,
        alarms: tuple[Alarm, ...] = (),
        new: str = "fresh",
        **settings: Any,
    ) -> None:
        self.shop = GuardedLoop(home, TEXT + REWARD)
        fresh = self.shop.settings.loop_path(new)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text("")
        self.shop.point("candidate", "2")
        state = self.shop.step()
        for _ in range(2):
            self.shop.serve(state, 60, 0.5, 0.35)
            state = self.shop.step()
        self.guard = state
        write_nights(self.shop.settings.state_url, "shop", nights, failed=failed)
        raise_alarms(self.shop.settings, "shop", _run_id(1), alarms, now=START - timedelta(days=1))
        self.shop.close()
        self.settings = msgspec.structs.replace(self.shop.settings, **settings)
        self.core: Core = open_core(self.settings, clock=lambda: (self.shop.now + timedelta(seconds=5)).timestamp())
        self.call = Caller(self.core)

    def close(self) -> None:
        self.call.app.close()


def write_nights(state_url: str, loop: str, nights: int, *, failed: bool = False, rows: int = 2_000) -> None:
    """Write the manifests of so many nights into State, as a night does."""
    rng = np.random.default_rng(7)
    with State(state_url) as state:
        for number in range(nights):
            begun = START - timedelta(days=nights - number)
            rewards = (rng.random(rows) < 0.3 + 0.2 * min(1.0, number / 6)).astype(np.float64)
            ends_badly = failed and number == nights - 1
            results = _results(rng, number, rewards)
            steps = [
                Step(name=name, finished_at=begun.isoformat(), result=results.get(name, {}))
                for name in (STEPS[:5] if ends_badly else STEPS)
            ]
            run = Run(
                run_id=_run_id(nights - number),
                loop=loop,
                started_at=begun,
                seed=1,
                status="failed" if ends_badly else "done",
                error="train: the disk is full; free some space and run `decision nightly` again" if ends_badly else "",
                steps=steps,
            )
            state.put({f"run/{loop}/{run.run_id}": (None, msgspec.json.encode(run))}, by="nightly")


def _run_id(days: int) -> str:
    return (START - timedelta(days=days)).strftime("%Y%m%dT%H%M%S.%f")


def _results(rng: np.random.Generator, number: int, rewards: np.ndarray[Any, Any]) -> dict[str, dict[str, Any]]:
    n, k = 300, 4
    scores = rng.random(n * k)
    pmf = np.full(n * k, 1 / k)
    chosen = np.arange(n) * k + rng.integers(0, k, n)
    observed = (rng.random(n) < 0.2 + 0.5 * scores[chosen]).astype(np.float64)
    batch = Batch([{}] * n, [{}] * (n * k), [f"action-{i}" for i in range(k)] * n, np.arange(n + 1) * k)
    learned = Interactions(batch=batch, chosen=chosen, reward=observed, propensity=pmf[chosen], pmf=pmf)
    value = float(rewards.mean())

    def estimate(of: float, wide: float = 0.02) -> dict[str, Any]:
        return {"value": of, "low": of - wide, "high": of + wide, "level": 0.95, "n": n, "ess": 200.0, "reasons": []}

    return {
        "alarms": msgspec.to_builtins(
            Alarmed(
                rows=rewards.size,
                before=rewards.size * number,
                join_rate=0.93,
                entropy=0.4 + 0.02 * number,
                rewards=rewards_of(rewards),
                drift=Drifted(version="1", found=DRIFT),
            )
        ),
        "evaluate": {
            "version": str(1 + number % 3),
            "against": "champion, version 1",
            "against_version": "1",
            "proven_version": None,
            "rows": n,
            "lift_estimate": estimate(0.01),
            "values": [
                {"role": "version", "policy": "the new version", "dr": estimate(value + 0.01)},
                {"role": "against", "policy": "champion, version 1", "dr": estimate(value)},
                {"role": "baseline", "policy": "baseline, uniform", "dr": estimate(value - 0.08)},
            ],
            "health": msgspec.to_builtins(health(learned, pmf, scores)),
        },
        "promote": {
            "version": str(1 + number % 3),
            "promoted": False,
            "champion": "1",
            "candidate": None,
            "reasons": [
                "the lift over champion, version 1 is +0.0100, and its lower bound -0.0100 is not above the margin"
            ],
        },
    }
