"""Decide over HTTP against a no-op application on the same BentoML, same load, same run.

One worker each; the decision has 10 actions and 20 context features, a trained VW policy, feature look-up by subject
and the durable spool. ``python -m tests.bench.serving``, ``QUICK=1`` for under a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

QUICK = os.environ.get("QUICK") == "1"
ROUNDS, SECONDS, CONNECTIONS = (3, 3.0, 32) if QUICK else (7, 5.0, 32)


def body(rng: np.random.Generator, subject: int) -> dict:
    """Return one decide request."""
    context = {f"f{i}": round(float(rng.random()), 4) for i in range(18)} | {
        "country": f"c{int(rng.integers(8))}",
        "new": True,
    }
    actions = [{"id": f"a{i}", "features": {"kind": f"k{i % 4}", "price": i / 10, "position": i}} for i in range(10)]
    return {"context": context, "actions": actions, "subject_id": f"s{subject}"}


def prepare(home: Path) -> None:
    """Make a loop with a trained policy as champion and features for 500 subjects."""
    from decision.artifact import Manifest, pack
    from decision.batch import Batch, Interactions
    from decision.exploration.rule import Exploration
    from decision.features import flatten
    from decision.oracles.vw import VwOracle
    from decision.policy import OraclePolicy
    from pipelines.features.store import Features
    from pipelines.registry.registry import Registry
    from pipelines.settings import load_loop, load_settings

    settings = load_settings({}, home=str(home))
    path = settings.loop_path("bench")
    path.parent.mkdir(parents=True)
    path.write_text("[features]\nenabled = true\n")
    rng = np.random.default_rng(0)
    requests = [body(rng, i) for i in range(2000)]
    contexts = [flatten(r["context"], field="context") | {"feature.age": 3.0} for r in requests]
    actions = [flatten(a["features"], field="actions") for r in requests for a in r["actions"]]
    n = len(requests)
    batch = Batch(contexts, actions, [f"a{i}" for i in range(10)] * n, np.arange(n + 1) * 10)
    oracle = VwOracle()
    oracle.fit(
        Interactions(
            batch,
            np.arange(n) * 10 + rng.integers(10, size=n),
            np.full(n, 0.1),
            (rng.random(n) < 0.3) * 1.0,
            np.full(10 * n, 0.1),
        )
    )
    policy = OraclePolicy(oracle, Exploration())
    manifest = Manifest(
        loop="bench",
        oracle="vw",
        exploration=policy.exploration,
        seed=0,
        code_version="bench",
        created_at="2026-01-01T00:00:00Z",
    )
    registry = Registry(settings)
    version = registry.register("bench", pack(policy, manifest))
    registry.set_alias(
        "bench",
        "champion",
        version,
        {
            "verdict": "promoted",
            "reasons": ["benchmark"],
            "numbers": {},
            "at": "2026-01-01T00:00:00+00:00",
            "by": "benchmark",
        },
        expected=None,
    )
    table = home / "subjects.csv"
    table.write_text(
        "subject_id,age,visits,spend\n" + "\n".join(f"s{i},{i % 60},{i % 7},{i / 3:.2f}" for i in range(500))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = Features(settings, load_loop(settings, "bench", {}))
        features.load_subjects(table, now=datetime(2026, 1, 1, tzinfo=UTC))
        features.close()


def burst(port: int, path: str, bodies: bytes) -> dict[str, float]:
    """Load one service for a while, from a process of its own."""
    command = [sys.executable, "-m", "tests.bench.load", str(port), path, str(SECONDS), str(CONNECTIONS)]
    return json.loads(subprocess.run(command, input=bodies, capture_output=True, check=True).stdout)


def main() -> None:
    """Run the benchmark and print its line."""
    from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
    from pipelines.settings import load_settings

    rng = np.random.default_rng(1)
    bodies = "\n".join(json.dumps(body(rng, int(rng.integers(500)))) for _ in range(1000)).encode()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        subprocess.run(
            [sys.executable, "-m", "tests.bench.serving", "prepare", folder], check=True, capture_output=True
        )
        ours = load_settings({}, home=folder, port=free_port(), reload_s=5.0)
        noop = load_settings({}, home=folder, port=free_port())
        reference = [
            "tests.bench.noop_service:Noop" if part.startswith("serving.") else part for part in serve_command(noop)
        ]
        for name, command, settings in (("ours", serve_command(ours), ours), ("noop", reference, noop)):
            running = stack.enter_context(process(name, command, settings, home / f"{name}.log"))
            wait_until_ready(running, settings, home / f"{name}.log")
            paths = {"ours": (ours.port, "/v1/loops/bench/decide"), "noop": (noop.port, "/")}
        results: dict[str, list[dict[str, float]]] = {"ours": [], "noop": []}
        for number in range(ROUNDS + 1):
            for name, (port, path) in paths.items():
                measured = burst(port, path, bodies)
                print(f"round {number} {name}: {measured}", file=sys.stderr)
                if number:  # the first round warms up
                    results[name].append(measured)
    rate = {name: statistics.median(r["requests_per_second"] for r in rows) for name, rows in results.items()}
    latency = {name: statistics.median(r["p50_ms"] for r in rows) for name, rows in results.items()}
    detail = {
        "requests_per_second": rate,
        "p50_ms": latency,
        "p99_ms": {name: statistics.median(r["p99_ms"] for r in rows) for name, rows in results.items()},
        "errors": sum(r["errors"] for rows in results.values() for r in rows),
        "rounds": ROUNDS,
        "connections": CONNECTIONS,
    }
    ratios = {"requests_per_second": rate["ours"] / rate["noop"]}
    print(json.dumps({"name": "serving", "ratios": ratios, "detail": detail}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        prepare(Path(sys.argv[2]))
    else:
        main()
