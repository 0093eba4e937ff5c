"""What a memory adds to a decision: the same policy asked about a user whom it remembers, and about nobody.

``over_http`` is a whole decision of a running service on disk, one request at a time on one connection, the two kinds
alternated; ``in_process`` is the decision alone, with the look-up. Detail has the recurrent step too.
``python -m tests.bench.session``, ``QUICK=1`` for less.
"""

from __future__ import annotations

import gc
import http.client
import json
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np

from decision.artifact import Manifest, pack
from decision.batch import Floats
from decision.draw import seed_of
from decision.exploration.rule import Exploration
from decision.oracles.session import NAME, SessionOracle, SessionSettings
from decision.policy import OraclePolicy
from decision.records import SCHEMA_VERSION, Decision, Outcome, encode
from pipelines.interactions.window import rule_of
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, Settings, load_settings
from pipelines.trajectories.memories import Memories, remembering
from serving.deciding.decide import Ask, decide
from serving.deciding.question import Catalogues, question_of
from serving.snapshot import Snapshot
from serving.wire import Action, DecideRequest
from tests.decision.oracles.test_session import arrays
from tests.worlds.synthetic import new_loop, new_settings

QUICK = os.environ.get("QUICK") == "1"
REQUESTS = 300 if QUICK else 3_000
USERS, LOOP = 100, "feed"
NAMES = [f"d{document}" for document in range(3)]
START = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    """Run the benchmark and print its line."""
    oracle = SessionOracle(SessionSettings(actions=NAMES, levels=(0.2, 0.4, 0.6)), arrays(0, hidden=48))
    policy = OraclePolicy(oracle, Exploration(kind="softmax", inverse_temperature=1.0, floor=0.01))
    with tempfile.TemporaryDirectory() as folder:
        times = alone(policy, oracle, Path(folder)) | over_http(policy, Path(folder))
    detail = {
        name: {f"p{q}_us": round(float(np.quantile(measured, q / 100)), 1) for q in (50, 99)}
        for name, measured in times.items()
    }
    ratios = {
        name: round(float(np.median(times[f"{name}_with"]) / np.median(times[f"{name}_without"])), 3)
        for name in ("over_http", "in_process")
    }
    print(json.dumps({"name": "session", "ratios": ratios, "detail": detail}))


def alone(policy: OraclePolicy, oracle: SessionOracle, folder: Path) -> dict[str, Floats]:
    """Return how long decisions take in this process, in microseconds."""
    loop = LoopSettings(name=LOOP)
    snapshot = Snapshot(loop, policy, "1", policy, "baseline:given")
    asked = question_of(DecideRequest({}, [Action(name) for name in NAMES], subject_id="u"), Catalogues())
    used, at = remembering(oracle, rule_of(loop)), START + timedelta(hours=1)
    times = {name: np.empty(REQUESTS) for name in ("advance", "in_process_with", "in_process_without")}
    log, store = LocalLog(folder / "log.sqlite"), Memories(folder / "s.sqlite", LOOP)
    try:
        remember(log, 1)
        store.use([used])
        store.follow(log, at)
        state = oracle.start()
        gc.disable()
        for number in range(-50, REQUESTS):
            started = time.perf_counter_ns()
            state = oracle.advance(state, NAMES[number % 3], 3.0)
            advanced = time.perf_counter_ns()
            held = store.online(f"u{number % USERS}", at, used)
            decide((Ask(asked, snapshot, "e", {NAME: held}),), at)
            with_memory = time.perf_counter_ns()
            decide((Ask(asked, snapshot, "e", {}),), at)
            if number >= 0:
                times["advance"][number] = (advanced - started) / 1e3
                times["in_process_with"][number] = (with_memory - advanced) / 1e3
                times["in_process_without"][number] = (time.perf_counter_ns() - with_memory) / 1e3
    finally:
        gc.enable()
        store.close()
        log.close()
    return times


def over_http(policy: OraclePolicy, folder: Path) -> dict[str, Floats]:
    """Return how long decisions take over HTTP, in microseconds."""
    new_settings(folder)
    settings = load_settings({}, home=str(folder), port=free_port())
    new_loop(settings, LOOP, "[reward]\nmaximum = 100.0\n")
    registry, at = Registry(settings), START.isoformat()
    manifest = Manifest(
        loop=LOOP, oracle="session", exploration=policy.exploration, seed=0, code_version="bench", created_at=at
    )
    version = registry.register(LOOP, pack(policy, manifest))
    verdict = {"verdict": "promoted", "reasons": ["a bench"], "numbers": {}, "at": at, "by": "a bench"}
    registry.set_alias(LOOP, "champion", version, verdict, expected=None)  # type: ignore[arg-type]
    log = LocalLog(settings.spool_path)
    remember(log, settings.partitions)
    log.close()
    times = {name: np.empty(REQUESTS) for name in ("over_http_with", "over_http_without")}
    output = folder / "service.log"
    with process("service", serve_command(settings), settings, output) as running:
        wait_until_ready(running, settings, output)
        connection = http.client.HTTPConnection(settings.host, settings.port, timeout=60)
        kinds = [("over_http_with", "u{}"), ("over_http_without", None)]
        for number in range(-100, REQUESTS):
            for name, user in kinds if number % 2 else kinds[::-1]:
                asked = {"context": {}, "actions": [{"id": name} for name in NAMES]}
                if user is not None:
                    asked["subject_id"] = user.format(number % USERS)
                body = json.dumps(asked).encode()
                started = time.perf_counter_ns()
                connection.request("POST", f"/v1/loops/{LOOP}/decide", body, {"content-type": "application/json"})
                answer = connection.getresponse().read()
                if number >= 0:
                    times[name][number] = (time.perf_counter_ns() - started) / 1e3
                if b"event_id" not in answer:
                    raise RuntimeError(answer.decode())
        connection.close()
    check(settings)
    return times


def check(settings: Settings) -> None:
    """Raise when the service did not answer from memory."""
    log = LocalLog(settings.spool_path)
    try:
        found = [
            message.value
            for part in range(settings.partitions)
            for message in log.read("decisions", part, 0, max_messages=100_000)
        ]
    finally:
        log.close()
    remembered = sum(b'"session":[' in value for value in found)
    if remembered < REQUESTS:
        raise RuntimeError(f"{remembered} decisions were made from memory, wanted {REQUESTS} or more")


def remember(log: LocalLog, partitions: int) -> None:
    """Put three turns of every user on the log, each with its outcome."""
    for topic in ("decisions", "outcomes"):
        log.create(topic, partitions)
    offered = msgspec.Raw(b"[{},{},{}]")
    for turn in range(3):
        ts = START + timedelta(minutes=turn)
        items = [(f"e{user}-{turn}", f"u{user}") for user in range(USERS)]
        made = [
            Decision(
                schema_version=SCHEMA_VERSION,
                loop=LOOP,
                event_id=event,
                ts=ts,
                subject_id=user,
                context=msgspec.Raw(b"{}"),
                actions=offered,
                action_ids=NAMES,
                pmf=[0.5, 0.25, 0.25],
                action_index=0,
                propensity=0.5,
                policy_version="1",
                baseline_version="baseline:uniform",
                seed=seed_of(LOOP, event),
            )
            for event, user in items
        ]
        said = [
            Outcome(schema_version=SCHEMA_VERSION, loop=LOOP, event_id=event, value=3.0, ts=ts) for event, _ in items
        ]
        log.append_many("decisions", [(each.event_id.encode(), encode(each), ()) for each in made])
        log.append_many("outcomes", [(each.event_id.encode(), encode(each), ()) for each in said])


if __name__ == "__main__":
    main()
