"""Requests that the border accepts and nobody meant well, then a night: it ends, its model loads, its alarms name why.

``python -m tests.soak.hostile [--requests N] [--seed S] [--oracle KIND]``. Contexts and actions bring numbers of every
size that is accepted, thousands of names, texts in any script, lists of lists and of objects, names that meet and
hidden ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from decision.artifact import unpack
from decision.errors import FieldError
from decision.policy import UniformPolicy
from decision.records import SCHEMA_VERSION, Decision, Outcome, encode
from pipelines.log.protocol import DECISIONS, OUTCOMES
from pipelines.log.sqlite.log import LocalLog
from pipelines.nightly import nightly
from pipelines.registry.registry import Registry
from pipelines.runs import Run
from serving.deciding.decide import Ask, decide
from serving.deciding.question import Catalogues, read_question
from serving.snapshot import Snapshot
from tests.worlds.synthetic import LATER, START, new_loop, new_settings, open_parts

LOOP = "hostile"
TEXTS = ("", "a", "日本", "ü|x:y", "\u0000", "\U0001f600" * 9, "=#[0]", "1e308", "x" * 900)
KEYS = ("a", "b", "a.b", "a=b", "a[0]", "b#2", "_hidden", "", "日本", "|", ":", "x" * 200)
AT_ONCE = 500


class Ended(NamedTuple):
    """What came of the requests and of the night.

    Attributes:
        run: the night.
        refused: requests that the border refused, by the field's last name.
        accepted: the others.
        asked: of those, decisions that the new model answered when it was loaded from the registry.
    """

    run: Run
    refused: Counter[str]
    accepted: int
    asked: int


def number(rng: np.random.Generator) -> float | int:
    """Return a number of any size; one in a hundred is beyond the limit."""
    kind = int(rng.integers(100))
    size = float(10.0 ** rng.uniform(-320, 15)) * (1 if rng.random() < 0.5 else -1)
    if kind == 0:
        return 10.0 ** float(rng.uniform(15.1, 300))
    if kind < 20:
        return size
    if kind < 30:
        return float(rng.choice([0.0, -0.0, 1.0, 1e15, -1e15, 5e-324]))
    return int(rng.integers(-9, 10)) if kind < 60 else float(rng.normal())


def value(rng: np.random.Generator, depth: int = 0) -> Any:
    """Return JSON of any kind."""
    kind = int(rng.integers(12 if depth < 3 else 6))
    if kind < 3:
        return number(rng)
    if kind < 6:
        return [TEXTS[int(rng.integers(len(TEXTS)))], bool(rng.random() < 0.5), None][kind - 3]
    if kind < 9:
        return [value(rng, depth + 1) for _ in range(int(rng.integers(4)))]
    return {KEYS[int(rng.integers(len(KEYS)))]: value(rng, depth + 1) for _ in range(int(rng.integers(4)))}


def request(rng: np.random.Generator) -> bytes:
    """Return the body of a request; one in two hundred has thousands of names on either side."""
    context: dict[str, Any] = {"x": float(rng.normal()), "kind": ("red", "green")[int(rng.integers(2))]}
    if rng.random() < 0.01:
        context["x"] = float(rng.choice([1e9, -1e15, 1e15]))
    for _ in range(int(rng.integers(4))):
        context[KEYS[int(rng.integers(len(KEYS)))]] = value(rng)
    actions = [{"id": name, "features": {"colour": name}} for name in ("red", "green", "blue")]
    if rng.random() < 0.3:
        actions[int(rng.integers(3))]["features"][KEYS[int(rng.integers(len(KEYS)))]] = value(rng)
    if rng.random() < 0.005:
        first = int(rng.integers(0, 30_000 if rng.random() < 0.75 else 1_000_000_000))
        context |= {f"wide{first + i}": float(rng.normal()) for i in range(int(rng.integers(100, 2_000)))}
        actions[0]["features"] |= {f"own{first + i}": 1 for i in range(110)}
    return json.dumps({"context": context, "actions": actions}, ensure_ascii=bool(rng.random() < 0.5)).encode()


def hostile_night(home: Path, requests: int, seed: int, oracle: str) -> Ended:
    """Ask so many requests of a loop in `home`, report their rewards, and run a night."""
    rng = np.random.default_rng(seed)
    settings = new_settings(home)
    text = f'[gate]\nminimum_ess = 5\n[policy]\noracle = "{oracle}"\n[reward]\nminimum = 0.0\nmaximum = 1.0'
    loop = new_loop(settings, LOOP, text)
    log, lake = open_parts(settings)
    registry = Registry(settings)
    refused: Counter[str] = Counter()
    accepted, some = 0, list[Decision]()
    try:
        snapshot, catalogues = Snapshot(loop, None, "", UniformPolicy(), "baseline:uniform"), Catalogues()
        for start in range(0, requests, AT_ONCE):
            asks: list[Ask] = []
            for place in range(start, min(start + AT_ONCE, requests)):
                try:
                    asks.append(Ask(read_question(request(rng), catalogues), snapshot, f"e{place}", {}))
                except FieldError as error:
                    refused[error.field.rpartition(".")[2]] += 1
            records: list[Decision] = []
            for each in decide(asks, START + timedelta(seconds=start / 10)):
                if isinstance(each, FieldError):
                    refused[each.field.rpartition(".")[2]] += 1
                elif isinstance(each, Exception):
                    raise each
                else:
                    records += each
            accepted += len(records)
            some = [*some, *records][:200]
            _report(log, records, rng)
        run = nightly(settings, log, lake, registry, loop, now=LATER, run_id="hostile", seed=seed)
        return Ended(run, refused, accepted, _asked(registry, run, loop, some))
    finally:
        log.close()


def _report(log: LocalLog, records: list[Decision], rng: np.random.Generator) -> None:
    log.append_many(DECISIONS, [(record.event_id.encode(), encode(record), ()) for record in records])
    outcomes: list[Outcome] = []
    for record in records:
        right = msgspec.json.decode(record.context)["kind"] == record.action_ids[record.action_index]
        if rng.random() < (0.8 if right else 0.1):
            event_id = record.event_id
            reported = Outcome(schema_version=SCHEMA_VERSION, loop=LOOP, event_id=event_id, value=1.0, ts=record.ts)
            outcomes.append(reported)
    log.append_many(OUTCOMES, [(outcome.event_id.encode(), encode(outcome), ()) for outcome in outcomes])


def _asked(registry: Registry, run: Run, loop: Any, records: list[Decision]) -> int:
    trained = run.result("train") or {}
    if "version" not in trained:
        return 0
    policy, _ = unpack(registry.files(LOOP, trained["version"]))
    snapshot, catalogues = Snapshot(loop, policy, trained["version"], UniformPolicy(), "baseline:uniform"), Catalogues()
    bodies = [
        b'{"context":%b,"actions":%b}'
        % (
            bytes(record.context),
            msgspec.json.encode(
                [
                    {"id": name, "features": features}
                    for name, features in zip(record.action_ids, msgspec.json.decode(record.actions), strict=True)
                ]
            ),
        )
        for record in records
    ]
    asks = [Ask(read_question(body, catalogues), snapshot, f"again{i}", {}) for i, body in enumerate(bodies)]
    answers = decide(asks, LATER)
    return sum(not isinstance(answer, Exception) for answer in answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=102_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--oracle", default="logistic")
    given = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        ended = hostile_night(Path(home), given.requests, given.seed, given.oracle)
    trained = ended.run.result("train") or {}
    shown = {
        "requests": given.requests,
        "refused with the field's name": ended.refused.total(),
        "accepted": ended.accepted,
        "night": ended.run.status,
        "verdict": ended.run.verdict,
        "answered by the model, loaded": ended.asked,
    }
    for name, number_ in shown.items():
        print(f"{name:<34}{number_!s:>12}")
    looked = ended.run.result("alarms") or {}
    alarms = [*trained.get("alarms", [trained.get("skipped", "")]), *(one["text"] for one in looked.get("alarms", []))]
    for alarm in alarms:
        print(f"alarm: {alarm}")
    seconds = round(time.perf_counter() - began)
    print(json.dumps({"name": "hostile", "seed": given.seed, **shown, "alarms": alarms, "seconds": seconds}))


if __name__ == "__main__":
    main()
