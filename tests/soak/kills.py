"""Service, forwarder and ingesters are killed under load, again and again: nothing is lost, nothing booked twice.

``python -m tests.soak.kills [--kills N] [--seed S]``. The first fault ends it with an error.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import pytest

from pipelines.log.sqlite.log import LocalLog
from tests.e2e.test_kill_forwarder import PARTITIONS, TOPICS, kill_forwarder
from tests.e2e.test_kill_ingester import kill_ingesters
from tests.e2e.test_kill_service import kill_service
from tests.worlds.s3 import BUCKET, S3
from tests.worlds.versitygw import Versitygw, missing


def forwarder(folder: Path, kills: int, seed: int) -> int:
    source = LocalLog(folder / "log.db")
    try:
        for topic in TOPICS:
            source.create(topic, PARTITIONS)
        return kill_forwarder(source, folder, kills, seed)
    finally:
        source.close()


def ingesters_on_s3(folder: Path, kills: int, seed: int, kind: type[S3] = S3) -> int:
    with kind() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        return kill_ingesters(folder, kills, 2, seed, lake=f"s3://{BUCKET}/lake", longest_s=3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    parts = {
        "service": lambda folder: kill_service(folder, given.kills, given.seed),
        "forwarder": lambda folder: forwarder(folder, given.kills, given.seed),
        "one ingester": lambda folder: kill_ingesters(folder, given.kills, 1, given.seed),
        "two ingesters": lambda folder: kill_ingesters(folder, given.kills, 2, given.seed),
        "two, files on S3": lambda folder: ingesters_on_s3(folder, given.kills, given.seed),
    }
    if reason := missing():
        print(f"without versitygw: {reason}")
    else:
        parts["two, on versitygw"] = lambda folder: ingesters_on_s3(folder, given.kills, given.seed, Versitygw)
    print(f"{'killed':<18}{'times':>8}{'taken, all of it booked once':>32}")
    taken: dict[str, int] = {}
    for name, run in parts.items():
        with tempfile.TemporaryDirectory() as folder:
            taken[name] = run(Path(folder))
        print(f"{name:<18}{given.kills:>8}{taken[name]:>32}", flush=True)
    print(json.dumps({"name": "kills", "kills": given.kills, "seed": given.seed, "taken": taken}))


if __name__ == "__main__":
    main()
