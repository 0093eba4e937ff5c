"""What a second process of a kind adds: two followers against one, and two replicas against one.

Followers: messages lie on a log of many partitions, and each follower is bound to a core of its own; what counts is the
time from the first message to the last one in the lake. Replicas: each is bound to a core of its own with a home of its
own, and both share one Redis for answers. On two cores the load generator takes time from the replicas, so what counts
is processor time: so many decisions a second of the replicas' processor as the cores would allow if the generator ran
elsewhere. ``python -m tests.bench.fleet``, ``QUICK=1`` for less.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec

from pipelines.ingestion.behind import ends_of, to_ingest
from pipelines.ingestion.ownership import strike_absent
from pipelines.lake.tables import Tables
from pipelines.log.protocol import DECISIONS, TOPICS
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.operations.waiting import wait_until
from pipelines.settings import Settings, load_settings
from pipelines.state.state import State
from tests.bench.ingest import messages
from tests.redis_server import own_redis

QUICK = os.environ.get("QUICK") == "1"
LEAST = 1.6
MESSAGES, ROUNDS = (6_000, 1) if QUICK else (150_000, 3)
SECONDS = 2.0 if QUICK else 10.0
PARTITIONS = 16
CORES = sorted(os.sched_getaffinity(0))
_TICKS = os.sysconf("SC_CLK_TCK")


def bound(core: int, command: list[str]) -> list[str]:
    """Return a command line whose process stays on a core."""
    return ["taskset", "--cpu-list", str(CORES[core % len(CORES)]), *command]


def processor_s(pid: int) -> float:
    """Return the processor time of a process and of those that it has started and that live, in seconds."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS + sum(processor_s(int(child)) for child in children)


def shared(settings: Settings) -> tuple[int, int]:
    """Return how many partitions of the log are somebody's, and whose in all."""
    owned = "SELECT COUNT(*), COUNT(DISTINCT holder) FROM state_leases WHERE name LIKE 'ingest/%' AND ends > 0"
    with closing(sqlite3.connect(settings.root / "state.db")) as file:
        return file.execute(owned).fetchone()


def followed(count: int, folder: Path) -> dict[str, float]:
    """Return how long `count` followers take for the messages, and their processor time."""
    settings = load_settings({}, home=str(folder), partitions=PARTITIONS)
    tables = Tables(settings.lake_url)
    with ExitStack() as opened:
        log = opened.enter_context(closing(LocalLog(settings.spool_path)))
        for topic in TOPICS:
            log.create(topic, PARTITIONS)
        command = [sys.executable, "-m", "pipelines.cli", "ingest", "--follow"]
        running = [
            opened.enter_context(process(f"follower {number}", bound(number, command), settings, folder / f"{number}"))
            for number in range(count)
        ]
        with State(settings.state_url) as state:
            wait_until(lambda: len(strike_absent(state)) == count, "the followers to know each other")
        wait_until(lambda: shared(settings) == (PARTITIONS, count), "the followers to share the partitions")
        before = [processor_s(one.pid) for one in running]
        for one in running:  # they wait where they are, for less than their leases last
            one.send_signal(signal.SIGSTOP)
        log.append_many(DECISIONS, messages(MESSAGES))
        for one in running:
            one.send_signal(signal.SIGCONT)
        ends, begun = ends_of(log), time.perf_counter()
        wait_until(
            lambda: not sum(to_ingest(ends, tables).values()),
            "the messages to be in the lake",
            progress=lambda: sum(to_ingest(ends, tables).values()),
        )
        seconds = time.perf_counter() - begun
        used = [processor_s(one.pid) - was for one, was in zip(running, before, strict=True)]
    return {"seconds": seconds, "processor_s": sum(used), "least_share": min(used) / max(sum(used), 1e-9)}


def replicas(count: int, folder: Path, redis: str) -> dict[str, float]:
    """Return what `count` replicas answer, and the processor time of each decision."""
    with ExitStack() as opened:
        running: list[tuple[subprocess.Popen[bytes], Settings]] = []
        for number in range(count):
            home = folder / f"home-{number}"
            settings = load_settings({}, home=str(home), port=free_port(), bento_port=free_port(), online=redis)
            path = settings.loop_path("bench")
            path.parent.mkdir(parents=True)
            path.write_text("")
            output = folder / f"{number}.out"
            started = opened.enter_context(
                process(f"replica {number}", bound(number, serve_command(settings)), settings, output)
            )
            wait_until_ready(started, settings, output)
            running.append((started, settings))
        before = [processor_s(one.pid) for one, _ in running]
        load = [sys.executable, "-m", "tests.bench.load"]
        loads = [
            subprocess.Popen(
                [*load, str(settings.port), "/v1/loops/bench/decide", str(SECONDS), "16"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _, settings in running
        ]
        body = json.dumps({"context": {"hour": 9}, "actions": [{"id": letter} for letter in "abcdefghij"]})
        answered = sum(json.loads(one.communicate(f"{body}\n" * 64)[0])["requests"] for one in loads)
        used = sum(processor_s(one.pid) - was for (one, _), was in zip(running, before, strict=True))
    return {"decisions": answered, "microseconds": 1e6 * used / answered}


def main() -> int:
    """Measure, and print one JSON line; the status is 1 where two do not do more than `LEAST` times what one does."""
    taken: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    costs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder, own_redis() as redis:
        for number in range(ROUNDS):
            for count in (1, 2):
                taken[count].append(followed(count, Path(folder) / f"followers-{number}-{count}"))
                print(f"{count} followers: {taken[count][-1]}", file=sys.stderr)
                costs[count].append(replicas(count, Path(folder) / f"replicas-{number}-{count}", redis.url))
                print(f"{count} replicas: {costs[count][-1]}", file=sys.stderr)
    seconds = {count: statistics.median(one["seconds"] for one in runs) for count, runs in taken.items()}
    each = {count: statistics.median(one["microseconds"] for one in runs) for count, runs in costs.items()}
    ratios = {
        "two followers, by time": seconds[1] / seconds[2],
        "two replicas, by processor time": 2 * each[1] / each[2],
    }
    detail = {"cores": len(CORES), "messages": MESSAGES, "followers": taken, "replicas": costs}
    rounded = {name: round(ratio, 3) for name, ratio in ratios.items()}
    print(msgspec.json.encode({"name": "fleet", "ratios": rounded, "detail": detail}).decode())
    return int(min(ratios.values()) < LEAST and not QUICK)


if __name__ == "__main__":
    sys.exit(main())
