"""What a memory adds to a decision in process: a session policy against the same head without looking anything up.

``advance`` is the recurrent step itself, ``decide`` the whole of it: the lookup on SQLite, 51 more features to read,
the head. ``python -m tests.bench.session``, ``QUICK=1`` for less.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from decision.exploration.rule import Exploration
from decision.oracles.session import SessionOracle, SessionSettings
from decision.policy import OraclePolicy
from pipelines.settings import LoopSettings
from serving.deciding.decide import Ask, decide
from serving.deciding.question import Catalogues, question_of
from serving.sessions import SessionStates
from serving.snapshot import Snapshot
from serving.wire import Action, DecideRequest
from tests.decision.oracles.test_session import arrays

QUICK = os.environ.get("QUICK") == "1"
REQUESTS = 300 if QUICK else 3_000


def main() -> None:
    """Run the benchmark and print its line."""
    names = [f"d{document}" for document in range(3)]
    oracle = SessionOracle(SessionSettings(actions=names, levels=(0.2, 0.4, 0.6)), arrays(0, hidden=48))
    policy = OraclePolicy(oracle, Exploration(kind="softmax", inverse_temperature=1.0, floor=0.01))
    snapshot = Snapshot(LoopSettings(name="bench"), policy, "1", policy, "baseline:given")
    request = question_of(DecideRequest({}, [Action(name) for name in names], subject_id="u"), Catalogues())
    ts = datetime(2026, 1, 1, tzinfo=UTC)
    times = {name: np.empty(REQUESTS) for name in ("advance", "with_memory", "without")}
    with tempfile.TemporaryDirectory() as folder:
        states = SessionStates(Path(folder) / "s.sqlite", "bench")
        states.use(oracle)
        state = oracle.start()
        for number in range(100):
            state = oracle.advance(state, names[number % 3], 3.0)
            states._keep(f"u{number}", state)
        gc.disable()
        for number in range(-50, REQUESTS):
            started = time.perf_counter_ns()
            state = oracle.advance(state, names[number % 3], 3.0)
            advanced = time.perf_counter_ns()
            decide((Ask(request, snapshot, "e", states.online(f"u{number % 100}")),), ts)
            with_memory = time.perf_counter_ns()
            decide((Ask(request, snapshot, "e", {}),), ts)
            if number >= 0:
                times["advance"][number] = (advanced - started) / 1e3
                times["with_memory"][number] = (with_memory - advanced) / 1e3
                times["without"][number] = (time.perf_counter_ns() - with_memory) / 1e3
        states.close()
    detail = {
        name: {f"p{q}_us": round(float(np.quantile(measured, q / 100)), 1) for q in (50, 99)}
        for name, measured in times.items()
    }
    ratio = float(np.median(times["with_memory"]) / np.median(times["without"]))
    print(json.dumps({"name": "session", "ratios": {"with_memory": round(ratio, 3)}, "detail": detail}))


if __name__ == "__main__":
    main()
