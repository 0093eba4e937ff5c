"""`Client.decide` against a bare `vowpalwabbit.Workspace.predict` of the same question, alternating in one run.

Ten actions, twenty context features, one core. VW gets finished text, explores (SquareCB) and keeps nothing; `decide`
gets the request as objects and returns once the record is on disk. One caller waits for the disk at every decision, 32
callers share its commits. ``sync`` writes and syncs as many bytes and does nothing else: no durable decision of one
caller takes less. So what the code alone costs is measured by stage in memory (``/dev/shm``, where there is one);
``off the disk`` is all of it but the append and threads. The policy that ships answers, and VW where a row says so.

``python -m tests.bench.in_process``, ``QUICK=1`` for less.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from vowpalwabbit import Workspace

from decision.columns import FeatureRows
from decision.features import flatten
from decision.oracles.vw import texts_of
from pipelines.settings import load_settings
from serving.client import Client
from serving.deciding.question import question_of
from serving.wire import Action, DecideRequest
from tests.bench.serving import question
from tests.bench.stages import by_stage, parts

QUICK = os.environ.get("QUICK") == "1"
ROUNDS, CALLS, CALLERS = (3, 100, 32) if QUICK else (20, 200, 32)
REQUESTS, RECORD_BYTES = 500, 1_400
REFERENCE, ONE_BY_ONE = "predict", "predict, an action at a time"
LOOPS = {"plain": "", "vw": ", VW"}
MEMORY, IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None, ", in memory"
Call = Callable[[int], object]


def asked() -> list[dict[str, Any]]:
    """Return requests as applications send them, for nobody in particular."""
    rng = np.random.default_rng(1)
    return [{key: part for key, part in question(rng).items() if key != "subject_id"} for _ in range(REQUESTS)]


def references(raw: list[dict[str, Any]]) -> dict[str, Call]:
    """Return VW's predictions: of all actions from one text with exploration, and of one action after another."""
    contexts = texts_of(FeatureRows.of([flatten(r["context"], field="context") for r in raw]))
    actions = texts_of(FeatureRows.of([flatten(a["features"], field="features") for a in raw[0]["actions"]]))
    whole = ["\n".join([f"shared |C {context}", *(f"|A {action}" for action in actions)]) for context in contexts]
    single = [[f"|C {context}|A {action}" for action in actions] for context in contexts]
    explorer, regressor = Workspace("--quiet --cb_explore_adf --squarecb -q CA"), Workspace("--quiet -q CA")
    rng = np.random.default_rng(2)
    for text, lines in zip(whole, single, strict=True):
        drawn, reward = int(rng.integers(len(actions))), float(rng.random() < 0.3)
        shared, *offered = text.split("\n")
        offered[drawn] = f"0:{-reward}:0.1 {offered[drawn]}"
        explorer.learn([shared, *offered])
        regressor.learn(f"{reward} {lines[drawn]}")
    return {
        REFERENCE: lambda i: explorer.predict(whole[i]),
        ONE_BY_ONE: lambda i: [regressor.predict(line) for line in single[i]],
    }


def synced(path: Path) -> Call:
    """Return what writes a record's bytes to the end of a file and syncs it."""
    file, block = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), bytes(RECORD_BYTES)

    def write(_: int) -> None:
        os.write(file, block)
        os.fdatasync(file)

    return write


def decision(client: Client, loop: str, requests: list[DecideRequest]) -> Call:
    """Return the whole decision."""
    return lambda i: client.decide(loop, requests[i])


def each(call: Call, first: int) -> float:
    """Return microseconds a call."""
    numbers = [number % REQUESTS for number in range(first, first + CALLS)]
    started = time.perf_counter_ns()
    for number in numbers:
        call(number)
    return (time.perf_counter_ns() - started) / 1e3 / CALLS


def together(call: Call, pool: ThreadPoolExecutor) -> tuple[float, float]:
    """Return microseconds a call when all callers call at once: by the clock, and of processor time."""
    numbers = [number % REQUESTS for number in range(CALLERS * CALLS // 4)]
    started, spent = time.perf_counter_ns(), time.process_time_ns()
    list(pool.map(lambda k: [call(number) for number in numbers[k::CALLERS]], range(CALLERS)))
    ended, used = time.perf_counter_ns(), time.process_time_ns()
    return (ended - started) / 1e3 / len(numbers), (used - spent) / 1e3 / len(numbers)


def rounded(numbers: dict[str, float], places: int) -> dict[str, float]:
    """Return `numbers` with that many decimal places."""
    return {name: round(number, places) for name, number in numbers.items()}


def main() -> None:
    """Run the benchmark and print its line."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    raw = asked()
    requests = [DecideRequest(r["context"], [Action(a["id"], a["features"]) for a in r["actions"]]) for r in raw]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(CALLERS))
        prepared = stack.enter_context(tempfile.TemporaryDirectory())
        prepare = [sys.executable, "-m", "tests.bench.serving", "prepare", prepared]
        subprocess.run(prepare, check=True, capture_output=True)
        clients: dict[str, Client] = {}
        for place, parent in (("", None), (IN_MEMORY, MEMORY)):
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=parent))
            shutil.copytree(prepared, folder, dirs_exist_ok=True)
            clients[place] = stack.enter_context(Client(load_settings({}, home=folder)))
        calls = references(raw) | {"sync": synced(clients[""].core.settings.root / "synced")}
        decides = {f"decide{place}": decision(client, "plain", requests) for place, client in clients.items()}
        calls |= decides
        core = clients[IN_MEMORY].core
        for loop in LOOPS:
            of_loop = parts(core, loop, lambda i: question_of(requests[i], core.catalogues), REQUESTS)
            calls |= {f"{loop}: {part}": call for part, call in of_loop.items()}
        times: dict[str, list[float]] = {name: [] for name in calls}
        shared: dict[str, list[tuple[float, float]]] = {name: [] for name in decides}
        gc.disable()
        for number in range(ROUNDS + 1):
            for name, call in calls.items():
                times[name].append(each(call, number * CALLS))
            for name, call in decides.items():
                shared[name].append(together(call, pool))
            gc.collect()
    us = {name: float(np.median(values[1:])) for name, values in times.items()}  # the first round warms up
    for name, pairs in shared.items():
        clock, processor = np.median(np.array(pairs[1:]), 0).tolist()
        us[f"{CALLERS} callers{name.removeprefix('decide')}"] = clock
        us[f"{CALLERS} callers{name.removeprefix('decide')}, processor time"] = processor
    stages = {
        loop: by_stage({name.removeprefix(f"{loop}: "): cost for name, cost in us.items() if name.startswith(loop)})
        for loop in LOOPS
    }
    for loop, said in LOOPS.items():
        us[f"off the disk{said}"] = sum(cost for part, cost in stages[loop].items() if part != "spool")
    us = {name: cost for name, cost in us.items() if ": " not in name}
    stages["plain"]["threads"] = us[f"decide{IN_MEMORY}"] - sum(stages["plain"].values())
    ratios = {name: cost / us[REFERENCE] for name, cost in us.items() if name != REFERENCE}
    ratios |= {f"{name}, of ten": us[name] / us[ONE_BY_ONE] for name in us if name.startswith("off the disk")}
    detail = {
        "us": rounded(us, 1),
        "by_stage_us": {loop: rounded(costs, 1) for loop, costs in stages.items()},
        "rounds": ROUNDS,
        "in_memory": MEMORY is not None,
    }
    print(json.dumps({"name": "in_process", "ratios": rounded(ratios, 3), "detail": detail}))


if __name__ == "__main__":
    main()
