"""The log after power cuts: everything acknowledged before is there, once, and the log takes more."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from pipelines.log.protocol import DECISIONS
from pipelines.log.sqlite.log import LocalLog
from tests.faults.power import Event, after_cut, missing, trace, written_to
from tests.parts import require

pytestmark = pytest.mark.connected

CUTS = 200
WRITES = """
import os, random, sys
from pipelines.log.protocol import DECISIONS
from pipelines.log.sqlite.log import Group, LocalLog
rng = random.Random(3)
log = LocalLog(sys.argv[1])
log.create(DECISIONS, 2)
os.write(1, b"begun\\n")
number = 0
for _ in range(150):
    groups = []
    for _ in range(rng.randint(1, 4)):
        number += 1
        groups.append(Group(b"e%d" % number, [(DECISIONS, rng.randbytes(rng.randint(1, 20_000)), ())], True))
    log.append_groups(groups)
    os.write(1, b"".join(b"%s\\n" % group.key for group in groups))
log.close()
"""


def acknowledged(events: list[Event]) -> list[str]:
    return [line for event in events if event.what == "told" for line in event.data.decode().split()]


def test_power_cuts_lose_nothing_acknowledged_and_leave_a_log_that_goes_on(tmp_path: Path) -> None:
    require(not missing(), missing())
    home = tmp_path / "home"
    home.mkdir()
    events = trace(home, WRITES, str(home / "log.db"))
    begun = next(number for number, event in enumerate(events) if event.what == "told")
    assert sum(event.what == "sync" and event.path.endswith("log.db") for event in events) > 1  # checkpoints, too
    rng, most = random.Random(5), 0
    for number in range(CUTS):
        moment = rng.randrange(begun + 1, len(events) + 1)
        known = acknowledged(events[:moment])[1:]
        folder = tmp_path / f"cut-{number}"
        written_to(folder, after_cut(events, moment, rng), home)
        log = LocalLog(folder / "log.db")
        found = Counter(
            message.key.decode()
            for partition in range(2)
            for message in log.read(DECISIONS, partition, 0, max_messages=10_000)
        )
        assert [event for event in known if found[event] != 1] == []
        assert set(found.values()) <= {1}
        log.append(DECISIONS, b"more", b"x")
        log.close()
        most = max(most, len(known))
        shutil.rmtree(folder)
    assert most > 100


def test_a_log_that_did_not_wait_for_the_disk_would_be_caught(tmp_path: Path) -> None:
    """Without its syncs the same trace loses what was acknowledged: the simulation can tell."""
    require(not missing(), missing())
    home = tmp_path / "home"
    home.mkdir()
    events = [event for event in trace(home, WRITES, str(home / "log.db")) if event.what != "sync"]
    begun = next(number for number, event in enumerate(events) if event.what == "told")
    lost = 0
    for seed in range(10):
        rng = random.Random(seed)
        moment = rng.randrange(begun + 200, len(events))
        folder = tmp_path / f"cut-{seed}"
        written_to(folder, after_cut(events, moment, rng), home)
        try:
            log = LocalLog(folder / "log.db")
            known = acknowledged(events[:moment])[1:]
            lost += any(not log.find(DECISIONS, event.encode()) for event in known)
            log.close()
        except Exception:
            lost += 1
    assert lost > 5
