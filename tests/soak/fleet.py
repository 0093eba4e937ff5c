"""A fleet is killed, stopped and cut off from its parts under load: what was acknowledged is there, once and rightly.

``python -m tests.soak.fleet [--minutes M] [--every S] [--ack disk|kafka] [--seed N] [--quick]``. Three replicas, two
followers and nights, each in a home folder of its own, share a Kafka broker, PostgreSQL, Redis, an S3 server and an
MLflow server, all real. Every few seconds one of them is killed or stopped for 2 to 8 s, and started again; the broker,
PostgreSQL and Redis are each away once. At the end all of it is counted. Exit status 1: a promise broke.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc
import pytest

from pipelines.files import SOURCES
from pipelines.ingestion.forward import to_forward
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join, restate
from pipelines.lake.lake import Lake
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.apply import apply
from pipelines.operations.processes import environment, free_port
from pipelines.operations.waiting import wait_until
from pipelines.registry.registry import Registry
from pipelines.registry.served import ServedCharge
from pipelines.registry.stated import charge_key
from pipelines.registry.tracking import Tracking
from pipelines.settings import Settings, load_loop, load_settings
from pipelines.state.state import State
from tests.kafka_broker import lost_sockets, own_broker
from tests.mlflow_server import own_mlflow
from tests.postgres_server import new_database, own_server
from tests.redis_server import own_redis
from tests.worlds.accounts import Account, Row, account, broken_links, champions
from tests.worlds.chaos import Chaos, Part
from tests.worlds.fleet import Caller, Member, all_told
from tests.worlds.s3 import BUCKET, S3
from tests.worlds.versitygw import Versitygw

LOOP, REPLICAS, FOLLOWERS, CALLERS, PARTITIONS = "shop", 3, 2, 3, 4
TEXT = """
[reward]
window_s = {window}
minimum = 0.0
maximum = 1.0
[gate]
minimum_ess = 5
"""


SERVERS: dict[str, type[S3]] = {"moto": S3, "versitygw": Versitygw}


class Fleet(NamedTuple):
    """What runs.

    Attributes:
        shared: the addresses, as settings of any process of the fleet.
        operator: a home folder of nobody's process.
        parts: those that may be away, by name.
    """

    shared: dict[str, Any]
    operator: Settings
    parts: Mapping[str, Part]


@contextmanager
def fleet(folder: Path, ack: str, store: str) -> Iterator[Fleet]:
    """Start the parts in `folder`."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        stack.enter_context(lost_sockets())
        broker, redis = stack.enter_context(own_broker()), stack.enter_context(own_redis())
        postgres, s3 = stack.enter_context(own_server(folder / "pg")), stack.enter_context(SERVERS[store]())
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        shared = {
            "log": f"kafka://{broker.bootstrap}",
            "files": f"s3://{BUCKET}/fleet",
            "state": new_database(postgres.uri),
            "online": redis.url,
            "tracking_uri": stack.enter_context(own_mlflow(folder / "mlflow")),
            "ack": ack if ack == "disk" else "kafka_unreplicated",
            "partitions": PARTITIONS,
            "follow_s": 2.0,
        }
        operator = load_settings({}, home=str(folder / "operator"), **shared)
        parts = {
            "broker": Part(broker.kill, broker.start),
            "PostgreSQL": Part(lambda: postgres.freeze(on=True), lambda: postgres.freeze(on=False)),
            "Redis": Part(redis.kill, redis.start),
        }
        yield Fleet(shared, operator, parts)


def members(of: Fleet, folder: Path, ack: str) -> list[Member]:
    """Return the processes, none of them started."""
    output = folder / "output"
    output.mkdir()

    def member(name: str, *arguments: str, kept: bool = True, **more: Any) -> Member:
        settings = load_settings({}, home=str(folder / name), **of.shared, **more)
        return Member(settings, [sys.executable, "-m", "pipelines.cli", *arguments], output, kept=kept)

    replicas = [member(f"replica{n}", "serve", kept=ack == "disk", port=free_port()) for n in range(1, REPLICAS + 1)]
    followers = [member(f"follower{n}", "ingest", "--follow") for n in range(1, FOLLOWERS + 1)]
    return [*replicas, *followers, member("night", "nightly", LOOP, "--json")]


def command(settings: Settings, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command to its end; return its status and result."""
    line = [sys.executable, "-m", "pipelines.cli", *arguments, "--json"]
    done = subprocess.run(line, env=environment(settings), cwd=SOURCES, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}


def drain(among: list[Member]) -> tuple[int, dict[str, int | None]]:
    """End all but the night in good order, replicas first.

    Returns:
        How many messages spools still hold back, and the status with which each ended; None for one that did not.
    """
    left, ends = 0, dict[str, int | None]()
    for member in among[:-1]:
        ends[member.name] = member.end()
        if member.settings.ack == "disk" and member.settings.spool_path.is_file():
            spool = LocalLog(member.settings.spool_path)
            left += to_forward(spool)
            spool.close()
    return left, ends


def books(of: Fleet, callers: list[Caller]) -> tuple[Account, dict[str, Any]]:
    """Settle everything in the lake and hold it against what the callers know; return that, and the counters."""
    lake, loop, told = Lake(of.operator.lake_url), load_loop(of.operator, LOOP, {}), all_told(callers)
    later = datetime.now(UTC) + timedelta(days=1)

    def counted() -> Account:
        # with those that were dropped, which `Lake.interactions` leaves out
        wanted = ["event_id", "action_ids", "action_index", "state", "reason", "reward"]
        ours = pc.field("loop") == LOOP
        rows = lake.read("interactions", lambda table: table.to_pyarrow_dataset().to_table(wanted, filter=ours))
        return account(
            told,
            lake.decisions(LOOP)["event_id"].to_pylist(),
            lake.outcomes(LOOP)["event_id"].to_pylist(),
            [
                Row(row["event_id"], row["action_ids"][row["action_index"]], row["state"], row["reason"], row["reward"])
                for row in rows.to_pylist()
            ],
        )

    join(lake, loop, later)
    found = counted()
    late = len(found.silent)
    if late:  # the other answer came after the decision was settled, which a restatement is for
        restate(lake, loop, later)
        found = counted()
    seen = counters(lake, loop, later, in_full=True)
    return found, {
        "decided": seen.decided,
        "joined": seen.joined,
        "expired": seen.expired,
        "dropped": dict(seen.dropped),
        "duplicates": seen.duplicates_seen,
        "conflicts": seen.conflicts_seen,
        "late_conflicts": late,
        "late_outcomes": seen.late_outcomes,
        "balanced": seen.balanced,
    }


def charge(of: Fleet) -> tuple[list[str], set[str], int]:
    """Return what is wrong with the history of the champion, every version that was one, and how many moves it had."""
    with State(of.operator.state_url) as state:
        changes = state.history(charge_key(LOOP))
    registry = Registry(of.operator)
    verdicts = registry.verdicts(LOOP)
    wrong = broken_links(changes, verdicts)
    if (mirror := ServedCharge(Tracking(of.operator)).aliases(LOOP)) != registry.aliases(LOOP):
        wrong.append(f"MLflow's aliases are {mirror}, not {registry.aliases(LOOP)}")
    return wrong, champions(changes), sum(bool(verdict.alias) for verdict in verdicts)


def run(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Run it all and return what was counted, with ``broken``: every promise that was, by name."""

    def say(what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    with fleet(folder, given.ack, given.s3) as of:
        window = 5 if given.quick else 20
        apply(of.operator, TEXT.format(window=window), LOOP, by="the soak", environ={})
        among = members(of, folder, given.ack)
        try:
            for member in among:
                member.start()
            ports = [member.settings.port for member in among[:REPLICAS]]
            callers = [Caller(f"c{n}", LOOP, ports, given.seed) for n in range(CALLERS)]
            for caller in callers:
                caller.start()

            def answered() -> int:
                return sum(len(caller.told.answers) for caller in callers)

            wait_until(lambda: answered() > 20, "the first decisions", still_s=600.0)
            chaos = Chaos(among, of.parts, given.seed, every_s=given.every, away_s=given.away)
            chaos.run(60.0 * given.minutes, say)
            before = answered()
            wait_until(lambda: answered() > before + 20, "decisions after the chaos")
            for caller in callers:
                caller.end()
            say("draining")
            left, ends = drain(among)
            last = among[-1].wait() if among[-1].runs() else None
        finally:
            for member in among:
                member.kill()
        say(f"the last night ended with {last}; counting")
        ingest, _ = command(of.operator, "ingest")
        night, ended = command(of.operator, "nightly", LOOP)
        found, counted = books(of, callers)
        verified, _ = command(of.operator, "verify", LOOP)
        wrong, stood, moves = charge(of)
    told = all_told(callers)
    statuses = sum((caller.statuses for caller in callers), Counter[int]())
    broken: dict[str, Any] = found.broken
    unknown = sorted(
        version for version in told.versions if not version.startswith("baseline:") and version not in stood
    )
    checks = {
        "not_forwarded": left,
        # the signal itself ends one that was started a moment ago: it had nothing to finish
        "ends": {name: status for name, status in ends.items() if status not in (0, -signal.SIGTERM)},
        "ingest": ingest,
        "last_night": 0 if night in (0, 3) else night,
        "verify": verified,
        "not_balanced": int(not counted["balanced"]),
        "charge": wrong,
        "never_in_charge": unknown,
        "answers": dict(sum((caller.unexpected for caller in callers), Counter[str]()).most_common(20)),
    }
    broken |= {name: value for name, value in checks.items() if value}
    return {
        "acknowledged": len(told.answers),
        "reported": len(told.accepted),
        "answers": {str(status): times for status, times in sorted(statuses.items())},
        "differed": len(found.differed),
        **counted,
        "champions": len(stood),
        "moves": moves,
        "versions_that_answered": sorted(told.versions),
        "last_verdict": ended.get("verdict", ended.get("error")),
        "members": {
            member.name: {
                "killed": chaos.killed[member.name],
                "hurt": chaos.hurt[member.name],
                "stopped": chaos.stopped[member.name],
                "ended": {str(status): times for status, times in sorted(member.ended.items())},
            }
            for member in among
        },
        "broken": broken,
    }


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{'process':<12}{'killed':>8}{'a part':>8}{'stopped':>9}  ended by itself (times by status)")
    for name, one in found["members"].items():
        ended = ", ".join(f"{times} x {status}" for status, times in one["ended"].items())
        print(f"{name:<12}{one['killed']:>8}{one['hurt']:>8}{one['stopped']:>9}  {ended or '-'}")
    for name, value in found.items():
        if name not in ("members", "broken"):
            text = ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else value
            print(f"{name.replace('_', ' '):<24}{text}")
    for name, value in found["broken"].items():
        print(f"BROKEN {name}: {value}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two hits (default: %(default)s)")
    parser.add_argument("--ack", choices=["disk", "kafka"], default="disk")
    parser.add_argument("--s3", choices=SERVERS, default="moto", help="whose server holds the files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two minutes, and parts away for 8 s")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it there")
    given = parser.parse_args()
    given.minutes = given.minutes or (2.0 if given.quick else 10.0)
    given.away = 8.0 if given.quick else 30.0
    began = time.perf_counter()
    with ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        folder.mkdir(parents=True, exist_ok=True)
        found = run(folder.absolute(), given)
    show(found)
    about = {"name": "fleet", "seed": given.seed, "ack": given.ack, "minutes": given.minutes}
    print(json.dumps({**about, **found, "seconds": round(time.perf_counter() - began)}))
    return 1 if found["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
