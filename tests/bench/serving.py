"""Decide over HTTP against applications that do nothing, on uvicorn alone and on BentoML: same load, same run.

A decision has 20 context features and, where no row says otherwise, 10 actions; a trained policy answers and the
durable spool writes. The service runs on the first core and the load generator on the last; two workers have both.
Rounds alternate the rows, and medians count. ``python -m tests.bench.serving``, ``QUICK=1`` for about a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from pipelines.operations.processes import SERVICE, free_port, process, serve_command, wait_until_ready
from pipelines.settings import Settings, load_loop, load_settings

QUICK = os.environ.get("QUICK") == "1"
ROUNDS, SECONDS, CONNECTIONS = (1, 0.3, 32) if QUICK else (5, 1.5, 32)
CORES = sorted(os.sched_getaffinity(0))
SUBJECTS = 500
TOGETHER = 16  # decisions that share a turn under this load
SETTLE_S = 0.2  # what was due while a service slept is done before it is measured
SERVICES = ("uvicorn no-op", "no-op", "no-op, metrics off", "one worker", "two workers")


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured.

    Attributes:
        service: which of the processes answers.
        port: where it listens.
        path: what is posted to.
        bodies: JSON bodies, one a line.
        decisions: in each request.
        connections: kept busy; few for batches, so that no more decisions wait than the spool takes.
        half: whether the tail at half of the peak is measured too.
    """

    service: str
    port: int
    path: str
    bodies: bytes
    decisions: int = 1
    connections: int = CONNECTIONS
    half: bool = False


def question(rng: np.random.Generator, actions: int = 10) -> dict[str, Any]:
    """Return one decide request; the catalogue is the same in all, as applications have it."""
    context = {f"f{i}": round(float(rng.random()), 4) for i in range(18)} | {
        "country": f"c{int(rng.integers(8))}",
        "new": True,
    }
    offered = [
        {"id": f"a{i}", "features": {"kind": f"k{i % 4}", "price": i / 10, "position": i}} for i in range(actions)
    ]
    return {"context": context, "actions": offered, "subject_id": f"s{int(rng.integers(SUBJECTS))}"}


def questions(count: int, actions: int = 10) -> bytes:
    """Return distinct decide requests, one a line."""
    rng = np.random.default_rng(actions)
    return "\n".join(json.dumps(question(rng, actions)) for _ in range(count)).encode()


def batches(count: int, size: int) -> bytes:
    """Return batches of decide requests, one a line."""
    rng = np.random.default_rng(size)
    return "\n".join(json.dumps({"decisions": [question(rng) for _ in range(size)]}) for _ in range(count)).encode()


def prepare(home: Path) -> None:
    """Make loops with trained champions: the policy that ships, with features of 500 subjects and without; VW's."""
    from decision.artifact import Manifest, pack
    from decision.batch import Batch, Interactions
    from decision.exploration.rule import Exploration
    from decision.features import flatten
    from decision.oracles.factory import new_oracle
    from decision.oracles.kind import OracleSettings
    from decision.policy import OraclePolicy
    from pipelines.features.store import Features
    from pipelines.registry.registry import Registry

    settings = load_settings({}, home=str(home))
    rng = np.random.default_rng(0)
    requests = [question(rng) for _ in range(500)]
    actions = [flatten(a["features"], field="actions") for r in requests for a in r["actions"]]
    n = len(requests)
    registry = Registry(settings)
    table = home / "subjects.csv"
    table.write_text(
        "subject_id,age,visits,spend\n" + "\n".join(f"s{i},{i % 60},{i % 7},{i / 3:.2f}" for i in range(SUBJECTS))
    )
    verdict = {"verdict": "promoted", "reasons": ["benchmark"], "numbers": {}, "by": "benchmark"}
    for loop, oracle_kind, text in (
        ("plain", "logistic", ""),
        ("features", "logistic", "[features]\nenabled = true\n"),
        ("vw", "vw", "[features]\nenabled = true\n"),
    ):
        path = settings.loop_path(loop)
        path.parent.mkdir(parents=True)
        path.write_text(text)
        looked_up = {"feature.age": 3.0} if text else {}
        contexts = [flatten(r["context"], field="context") | looked_up for r in requests]
        batch = Batch(contexts, actions, [f"a{i}" for i in range(10)] * n, np.arange(n + 1) * 10)
        oracle = new_oracle(OracleSettings(kind=oracle_kind))
        rewards = (rng.random(n) < 0.3).astype(np.float64)
        chosen = np.arange(n) * 10 + rng.integers(10, size=n)
        propensity, pmf = np.full(n, 0.1), np.full(10 * n, 0.1)
        oracle.fit(Interactions(batch, chosen, propensity, rewards, pmf))
        policy = OraclePolicy(oracle, Exploration(rows=float(n)))
        manifest = Manifest(
            loop=loop,
            oracle=oracle_kind,
            exploration=policy.exploration,
            seed=0,
            code_version="bench",
            created_at="2026-01-01T00:00:00Z",
        )
        version = registry.register(loop, pack(policy, manifest))
        registry.set_alias(loop, "champion", version, verdict | {"at": "2026-01-01T00:00:00+00:00"}, expected=None)
        if text:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                features = Features(settings, load_loop(settings, loop, {}))
                features.load_subjects(table, now=datetime(2026, 1, 1, tzinfo=UTC))
                features.close()


def parts(running: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the processes of a service: its supervisor and its workers."""
    top = psutil.Process(running.pid)
    return [top, *top.children(recursive=True)]


def cpu_seconds(running: subprocess.Popen[bytes]) -> float:
    """Return the processor time that a service's processes have used."""
    return sum(sum(part.cpu_times()[:2]) for part in parts(running))


def resume(running: subprocess.Popen[bytes]) -> None:
    """Let a service run on, so that it can end in order."""
    for part in parts(running):
        part.resume()


@contextlib.contextmanager
def awake(running: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let a service run within the block; outside it is suspended, so that it takes nothing from the others."""
    resume(running)
    time.sleep(SETTLE_S)
    try:
        yield
    finally:
        for part in parts(running):
            part.suspend()


def burst(row: Row, running: subprocess.Popen[bytes], seconds: float, rate: float | None = None) -> dict[str, float]:
    """Load one service for a while, from a process of its own, and add what it cost there."""
    command = [sys.executable, "-m", "tests.bench.load", str(row.port), row.path, str(seconds)]
    command += [str(row.connections), *([] if rate is None else [str(rate)])]
    with awake(running):
        before = cpu_seconds(running)
        done = subprocess.run(command, input=row.bodies, capture_output=True, check=False)
        used = cpu_seconds(running) - before
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-1000:])
    measured = json.loads(done.stdout)
    return measured | {"cpu_us": 1e6 * used / measured["requests"]}


def check(row: Row) -> None:
    """Check that a service decides what the row asks, each one of a batch."""
    body = row.bodies.split(b"\n", 1)[0]
    url = f"http://127.0.0.1:{row.port}{row.path}"
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        answer = json.load(response)
    answers = answer["decisions"] if row.decisions > 1 else [answer]
    if len(answers) != row.decisions or not all("propensity" in one for one in answers):
        raise RuntimeError(f"{url} does not decide: {str(answers[0])[:300]}")


def command_of(name: str, settings: Settings) -> list[str]:
    """Return the command line of one of the services."""
    ours, noop = serve_command(settings), ("tests.bench.noop_service", str(settings.port))
    match name:
        case "uvicorn no-op":
            quiet = ("--no-access-log", "--log-level", "warning")
            return [sys.executable, "-m", "uvicorn", *quiet, "--port", noop[1], f"{noop[0]}:app"]
        case "no-op" | "no-op, metrics off":
            its = {SERVICE: f"{noop[0]}:Noop", str(settings.frame_port): noop[1]}
            switch = ["env", "NOOP_METRICS=off"] if name != "no-op" else []
            return [*switch, *(its.get(part, part) for part in ours)]
        case _:
            return ours


def main() -> None:
    """Run the benchmark and print its line."""
    pinned = len(CORES) > 1
    print(
        f"service on core {CORES[0]}, generator on core {CORES[-1]}, two workers on both"
        if pinned
        else "one core: nothing can be pinned, the generator takes from the service",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        subprocess.run(
            [sys.executable, "-m", "tests.bench.serving", "prepare", folder], check=True, capture_output=True
        )
        at = {name: load_settings({}, home=folder, port=free_port(), reload_s=5.0) for name in SERVICES}
        at["two workers"] = msgspec.structs.replace(at["two workers"], workers=2)
        running: dict[str, subprocess.Popen[bytes]] = {}
        for name, settings in at.items():
            os.sched_setaffinity(0, CORES if name == "two workers" else {CORES[0]})  # what is started inherits it
            output = home / f"{name}.log"
            running[name] = stack.enter_context(process(name, command_of(name, settings), settings, output))
        os.sched_setaffinity(0, {CORES[-1]})  # the load generators' core: they inherit it
        for name, settings in at.items():
            wait_until_ready(running[name], settings, home / f"{name}.log")
        one = at["one worker"]
        asked, decide = questions(2000), "/v1/loops/{}/decide"
        ports = {name: settings.port for name, settings in at.items()}
        batch = decide.format("plain") + "/batch"
        rows = {
            "uvicorn no-op": Row("uvicorn no-op", ports["uvicorn no-op"], "/", asked, half=True),
            "no-op": Row("no-op", ports["no-op"], "/", asked, half=True),
            "no-op, metrics off": Row("no-op, metrics off", ports["no-op, metrics off"], "/", asked),
            "features": Row("one worker", one.port, decide.format("features"), asked, half=True),
            "plain": Row("one worker", one.port, decide.format("plain"), asked, half=True),
            "vw": Row("one worker", one.port, decide.format("vw"), asked),
            "features, BentoML's port": Row("one worker", one.frame_port, decide.format("features"), asked, half=True),
            "100 actions": Row("one worker", one.port, decide.format("plain"), questions(300, 100)),
            "1,000 actions": Row("one worker", one.port, decide.format("plain"), questions(50, 1000)),
            "batch of 100": Row("one worker", one.port, batch, batches(40, 100), decisions=100, connections=4),
            "batch of 1,000": Row("one worker", one.port, batch, batches(8, 1000), decisions=1000, connections=2),
            "two workers": Row("two workers", ports["two workers"], decide.format("features"), asked),
        }
        results: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
        halves: dict[str, list[dict[str, float]]] = {name: [] for name, row in rows.items() if row.half}
        for row in rows.values():
            check(row)
        for service in running.values():
            with awake(service):  # and suspended from now on
                stack.callback(resume, service)
        for number in range(ROUNDS + 1):
            for name, row in rows.items():
                measured = burst(row, running[row.service], SECONDS if number else SECONDS / 2)
                print(f"round {number} {name}: {measured}", file=sys.stderr)
                if not number:  # the first round warms up
                    continue
                results[name].append(measured)
                if row.half:
                    rate = measured["requests_per_second"] / 2
                    halves[name].append(burst(row, running[row.service], SECONDS, rate))
                    print(f"round {number} {name}, half load: {halves[name][-1]}", file=sys.stderr)
        stages = {loop: stages_of(folder, loop) for loop in ("features", "plain")}
    ratios, detail = ratios_of(rows, results, halves), detail_of(rows, results, halves)
    rows_us = {name: row["cpu_us"] for name, row in detail["rows"].items()}
    frame = rows_us["uvicorn no-op"]
    detail["by_stage_us"] = {
        loop: {"frame": frame} | costs | {"rest": round(rows_us[loop] - frame - sum(costs.values()), 1)}
        for loop, costs in stages.items()
    }
    print(json.dumps({"name": "serving", "ratios": ratios, "detail": detail}))


def stages_of(folder: str, loop: str) -> dict[str, float]:
    """Return what each stage of a decision costs beside the frame, in microseconds of processor time."""
    command = [sys.executable, "-m", "tests.bench.stages", folder, loop, str(TOGETHER)]
    done = subprocess.run(command, check=True, capture_output=True)
    return {name: round(cost, 1) for name, cost in json.loads(done.stdout).items()}


def median(rows: list[dict[str, float]], key: str) -> float:
    """Return the median of what was measured under `key`."""
    return statistics.median(row[key] for row in rows)


def ratios_of(
    rows: dict[str, Row], results: dict[str, list[dict[str, float]]], halves: dict[str, list[dict[str, float]]]
) -> dict[str, float]:
    """Return decisions a second against the no-op on BentoML and against uvicorn's; tails against their medians.

    The first have no word beside the row's name; `requests_per_second` is the row with features. "By processor time" is
    the no-op's on BentoML in units of the row's, which other work on the machine disturbs less.
    """
    rate = {name: rows[name].decisions * median(measured, "requests_per_second") for name, measured in results.items()}
    ratios = {"requests_per_second": rate["features"] / rate["no-op"]}
    ratios |= {name: rate[name] / rate["no-op"] for name in rows if name not in ("no-op", "features")}
    ratios |= {f"{name}, of uvicorn no-op": rate[name] / rate["uvicorn no-op"] for name in ("features", "plain")}
    cpu = {name: median(measured, "cpu_us") / rows[name].decisions for name, measured in results.items()}
    ratios |= {
        f"{name}, by processor time": cpu["no-op"] / cpu[name] for name in ("uvicorn no-op", "features", "plain")
    }
    ratios["two workers, of one"] = rate["two workers"] / rate["features"]
    ratios |= {
        f"{name}, p99 at half load of its median": statistics.median(one["p99_ms"] / one["p50_ms"] for one in measured)
        for name, measured in halves.items()
    }
    return {name: round(value, 3) for name, value in ratios.items()}


def detail_of(
    rows: dict[str, Row], results: dict[str, list[dict[str, float]]], halves: dict[str, list[dict[str, float]]]
) -> dict[str, Any]:
    """Return the medians of every row."""
    keys = ("requests_per_second", "p50_ms", "p99_ms", "cpu_us", "generator_share")
    table = {name: {key: round(median(measured, key), 3) for key in keys} for name, measured in results.items()}
    for name, measured in halves.items():
        table[name] |= {f"half_load_{key}": round(median(measured, key), 3) for key in ("p50_ms", "p99_ms")}
    return {
        "rows": table,
        "errors": sum(one["errors"] for measured in (*results.values(), *halves.values()) for one in measured),
        "rounds": ROUNDS,
        "connections": CONNECTIONS,
        "pinned": len(CORES) > 1,
        "cores": len(CORES),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        prepare(Path(sys.argv[2]))
    else:
        main()
