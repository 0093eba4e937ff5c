"""Training a policy with memory on a long log: seconds and memory of each method, and what of it are the trajectories.

``python -m tests.soak.long_sessions [--decisions N] [--users U] [--methods clone,sim2rec] [--effort E]`` writes a lake
of N decisions of U users over ten actions, and trains on it as `decision train` does, in a process of its own for each
method; a first process reads the trajectories and does nothing else. A row says what a process held at most beside
what it held before it began. Of more users than ``session.users`` a training learns from a sample.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.settings import load_settings
from pipelines.training.session_log import log_of
from pipelines.training.train import train
from tests.worlds.logged import START_US, append, rows_of
from tests.worlds.synthetic import START, new_loop, new_settings

LOOP, AT_ONCE, ACTIONS, DAYS = "feed", 100_000, 10, 30
TEXT = '[policy]\noracle = "session"\nexploration = "softmax"\n[features]\nenabled = true\nstream = false\n'


def tables(decisions: int, users: int) -> Iterator[pa.Table]:
    """Yield the log: users come in turns and like higher levels until they had many of them; draws are uniform."""
    rng, had = np.random.default_rng(7), np.zeros(users)
    offered = [{"level": round(0.1 * level, 1)} for level in range(ACTIONS)]
    span = DAYS * 86_400_000_000 // decisions
    for first in range(0, decisions, AT_ONCE):
        number = np.arange(first, min(first + AT_ONCE, decisions))
        who, chosen = number % users, rng.integers(0, ACTIONS, number.size)
        reward = np.zeros(number.size)
        for turn in np.unique(number // users):
            here = number // users == turn
            level = 0.1 * chosen[here]
            reward[here] = np.maximum(level * (1.5 - had[who[here]]) + 0.1 * rng.standard_normal(here.sum()), 0.0)
            had[who[here]] = 0.8 * had[who[here]] + 0.2 * level
        rows = rows_of(
            LOOP,
            ts=START_US + number * span,
            reward=reward,
            contexts=[{}],
            context=np.zeros(number.size, np.int64),
            actions=offered,
            chosen=chosen,
            first=first,
        )
        names = pa.array([f"u{user}" for user in range(users)]).take(pa.array(who))
        at = rows.column_names.index("subject_id")
        yield rows.set_column(at, rows.schema.field("subject_id"), names.cast(rows.schema.field("subject_id").type))


def child(home: Path, method: str, effort: float) -> None:
    """Train, or read the trajectories alone, and print what it took."""
    settings = load_settings({}, home=str(home))
    loop = new_loop(settings, LOOP, f'{TEXT}[session]\nmethod = "{method or "clone"}"\nalso = []\neffort = {effort}\n')
    lake, registry = Lake(settings.lake_url), Registry(settings)
    registry.open()
    before, start, cpu = held(), time.perf_counter(), time.process_time()
    if method:
        train(lake, registry, loop, seed=1, now=START + timedelta(days=DAYS + 1))
    else:
        log_of(lake, loop, lake.version("interactions"))
    took = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    print(json.dumps({"method": method or "trajectories alone", **took, "beside_mb": held() - before}))


def held() -> float:
    """Return the most that this process held so far, in MB."""
    # getrusage would count what the parent held when this process was forked from it
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--methods", default="clone,sim2rec")
    parser.add_argument("--effort", type=float, default=1.0)
    parser.add_argument("--child", type=Path)
    parser.add_argument("--method", default="")
    given = parser.parse_args()
    if given.child:
        child(given.child, given.method, given.effort)
        return
    found: list[dict[str, float | str]] = []
    with tempfile.TemporaryDirectory() as name:
        # One registry for all of them: a method's version is the next one's earlier version, as it is for users.
        new_settings(Path(name))
        append(Lake(Path(name) / "lake"), tables(given.decisions, given.users))
        print(f"{given.decisions:,} decisions of {given.users:,} users\n{'':<24}{'seconds':>9}{'of CPU':>9}{'MB':>8}")
        for method in ("", *given.methods.split(",")):
            command = [sys.executable, "-m", "tests.soak.long_sessions", "--child", name, "--method", method]
            command += ["--effort", str(given.effort)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            found.append(row := json.loads(ran.stdout.splitlines()[-1]))
            print(f"{row['method']:<24}{row['seconds']:>9.1f}{row['cpu']:>9.1f}{row['beside_mb']:>8.0f}", flush=True)
    print(json.dumps({"name": "long_sessions", "decisions": given.decisions, "users": given.users, "rows": found}))


if __name__ == "__main__":
    main()
