"""Every process of an installation is killed under load, again and again: nothing is lost, nothing booked twice.

``python -m tests.soak.kills [--kills N] [--seed S] [--only PART]``. Without ``--kills`` there are a thousand, shared
out as in `KILLS`; with it, so many of each part. A part's seed is `--seed` and its place, and is printed. The first
fault ends it all with an error.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipelines.log.sqlite.log import LocalLog
from pipelines.progress import Progress
from tests.e2e.test_kill_forwarder import PARTITIONS, TOPICS, kill_forwarder
from tests.e2e.test_kill_ingester import kill_ingesters
from tests.e2e.test_kill_night import kill_followers, kill_nights
from tests.e2e.test_kill_service import Whom, kill_service
from tests.worlds.s3 import BUCKET, S3
from tests.worlds.versitygw import Versitygw, missing


def forwarder(folder: Path, kills: int, seed: int, progress: Progress) -> int:
    source = LocalLog(folder / "log.db")
    try:
        for topic in TOPICS:
            source.create(topic, PARTITIONS)
        return kill_forwarder(source, folder, kills, seed, progress)
    finally:
        source.close()


def ingesters_on_s3(folder: Path, kills: int, seed: int, progress: Progress, kind: type[S3] = S3) -> int:
    with kind() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        return kill_ingesters(folder, kills, 2, seed, lake=f"s3://{BUCKET}/lake", longest_s=3.0, progress=progress)


Part = Callable[[Path, int, int, Progress], int]
"""Kills in a folder so often, by a seed; tells of it, and returns how much was taken."""
KILLS = {
    "service": 150,
    "worker": 200,
    "supervisor": 100,
    "forwarder": 150,
    "follower": 120,
    "night": 120,
    "one ingester": 60,
    "two ingesters": 60,
    "two, files on S3": 40,
}


def told(what: str, done: float, total: float | None = None) -> None:
    """Say how far a part is."""
    print(f"\r{done:.0f} of {total:.0f} {what}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, help="of each part; without, a thousand in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[*KILLS, "two, on versitygw"])
    given = parser.parse_args()

    def ingesters(at_once: int) -> Part:
        return lambda folder, kills, seed, told: kill_ingesters(folder, kills, at_once, seed, progress=told)

    def of_service(whom: Whom) -> Part:
        return lambda folder, kills, seed, told: kill_service(folder, kills, seed, whom=whom, progress=told)

    parts: dict[str, Part] = {
        "service": of_service("service"),
        "worker": of_service("worker"),
        "supervisor": of_service("parent"),
        "forwarder": forwarder,
        "follower": kill_followers,
        "night": kill_nights,
        "one ingester": ingesters(1),
        "two ingesters": ingesters(2),
        "two, files on S3": ingesters_on_s3,
    }
    if reason := missing():
        print(f"without versitygw: {reason}")
    else:
        parts["two, on versitygw"] = partial(ingesters_on_s3, kind=Versitygw)
    print(f"{'killed':<18}{'times':>8}{'seed':>8}{'taken, all of it booked once':>32}")
    done: dict[str, dict[str, int]] = {}
    for place, (name, run) in enumerate(parts.items()):
        if given.only not in (None, name):
            continue
        kills, seed = given.kills or KILLS.get(name, 0), given.seed + place
        if not kills:
            continue
        with tempfile.TemporaryDirectory() as folder:
            taken = run(Path(folder), kills, seed, told)
        done[name] = {"kills": kills, "seed": seed, "taken": taken}
        print(f"{name:<18}{kills:>8}{seed:>8}{taken:>32}", flush=True)
    total = sum(part["kills"] for part in done.values())
    print(json.dumps({"name": "kills", "kills": total, "seed": given.seed, "parts": done}))


if __name__ == "__main__":
    main()
