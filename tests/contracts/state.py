"""The contract of State: what every part that agrees with other machines relies on, whatever database keeps it.

Each check gets the database's address, empty. ``python -m tests.contracts.state`` is another machine: it counts a key
up by compare-and-set, or holds a lease until it is told to write.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from decision.errors import FieldError
from pipelines.operations.waiting import wait_until
from pipelines.state.failures import FencedError, StaleError
from pipelines.state.state import MAX_VALUE_BYTES, Entry, Lease, State

PROCESSES, TIMES = 6, 20


def command(url: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.contracts.state", url, *arguments]


def check_a_key_moves_from_the_version_that_was_read_and_no_other(url: str) -> None:
    with State(url) as state:
        assert state.get("a") is None
        assert state.put({"a": (None, b"1")}, by="ann") == {"a": 1}
        with pytest.raises(StaleError, match="a: expected nothing there"):
            state.put({"a": (None, b"2")})
        assert state.put({"a": (1, b"2")}, by="bob") == {"a": 2}
        with pytest.raises(StaleError, match="a: expected version 1"):
            state.put({"a": (1, b"3")})
        assert state.get("a") == Entry(2, b"2")
        assert [(change.version, change.value, change.by) for change in state.history("a")] == [
            (1, b"1", "ann"),
            (2, b"2", "bob"),
        ]


def check_a_change_of_several_keys_happens_whole_or_not_at_all(url: str) -> None:
    with State(url) as state:
        state.put({"a": (None, b"1"), "b": (None, b"1")})
        with pytest.raises(StaleError):
            state.put({"a": (1, b"2"), "b": (7, b"2"), "c": (None, b"2")})
        assert state.entries("") == {"a": Entry(1, b"1"), "b": Entry(1, b"1")}
        assert [change.version for change in state.history("a")] == [1]


def check_a_removed_key_comes_back_at_a_later_version(url: str) -> None:
    with State(url) as state:
        state.put({"a": (None, b"1")})
        assert state.put({"a": (1, None)}) == {"a": 2}
        assert state.get("a") is None
        assert state.versions("") == {}
        with pytest.raises(StaleError):
            state.put({"a": (2, b"2")})
        assert state.put({"a": (None, b"2")}) == {"a": 3}


def check_a_forgotten_key_leaves_nothing_and_others_stay(url: str) -> None:
    with State(url) as state:
        state.put({"a": (None, b"1"), "ab": (None, b"1")})
        state.put({"a": (1, b"2")})
        state.put({"a": (2, None)})
        state.forget(["a", "never there"])
        assert (state.get("a"), state.history("a")) == (None, [])
        assert state.put({"a": (None, b"3")}) == {"a": 1}
        assert state.entries("") == {"a": Entry(1, b"3"), "ab": Entry(1, b"1")}


def check_a_prefix_is_taken_literally(url: str) -> None:
    keys = ["loop/a_b/x", "loop/aXb/x", "loop/a%/x", "loop/A_B/x", "loop/ä/x", "loopx", "loop/a_b"]
    with State(url) as state:
        state.put(dict.fromkeys(keys, (None, b"")))
        assert state.versions("loop/a_b/") == {"loop/a_b/x": 1}
        assert set(state.versions("loop/a%")) == {"loop/a%/x"}
        assert set(state.entries("loop/")) == set(keys) - {"loopx"}


def check_what_is_too_large_is_refused(url: str) -> None:
    with State(url) as state:
        for key, value in (("", b""), ("k" * 301, b""), ("k", bytes(MAX_VALUE_BYTES + 1))):
            with pytest.raises(FieldError):
                state.put({key: (None, value)})


def check_of_many_that_count_none_is_lost(url: str) -> None:
    with State(url) as state:
        state.put({"count": (None, b"0")})
        counting = [subprocess.Popen(command(url, "count", str(TIMES))) for _ in range(PROCESSES)]
        assert [process.wait() for process in counting] == [0] * PROCESSES
        assert state.get("count") == Entry(1 + PROCESSES * TIMES, b"%d" % (PROCESSES * TIMES))


def check_a_lease_has_one_holder_and_passes_on_when_it_ends(url: str) -> None:
    with State(url) as state:
        first = state.acquire("night", 600.0, holder="one")
        assert first == Lease("night", 1)
        assert state.acquire("night", 600.0) is None
        assert state.renew(first, 600.0)
        assert state.release(first)
        second = state.acquire("night", 0.0)
        assert second == Lease("night", 2)
        assert state.renew(second, 0.0)  # it has ended, but nobody else has got it
        assert state.acquire("night", 600.0) == Lease("night", 3)
        assert not state.renew(second, 600.0)
        assert not state.release(second)


def check_a_lease_outlives_no_killed_holder(url: str) -> None:
    with State(url) as state:
        with holding(url, "1.0") as holder:
            holder.send_signal(signal.SIGKILL)
        found: list[Lease] = []

        def taken() -> bool:
            lease = state.acquire("night", 600.0)
            found.extend([] if lease is None else [lease])
            return bool(found)

        wait_until(taken, "the lease of a killed process")
        assert found == [Lease("night", 2)]


def check_a_holder_that_slept_past_its_end_changes_nothing(url: str) -> None:
    with State(url) as state, holding(url, "0.2") as holder:
        holder.send_signal(signal.SIGSTOP)
        found: list[Lease] = []
        wait_until(lambda: bool(found) or found.extend(filter(None, [state.acquire("night", 600.0)])), "the lease")
        state.put({"work": (None, b"new")}, fence=found[0])
        holder.send_signal(signal.SIGCONT)
        assert holder.communicate("\n")[0].strip() == "fenced"
        assert holder.returncode == 0
        assert state.get("work") == Entry(1, b"new")


@contextmanager
def holding(url: str, ttl_s: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that holds the lease ``night`` and writes ``work`` under it at a line; it ends with the block."""
    holder = subprocess.Popen(command(url, "hold", ttl_s), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "1"
        try:
            yield holder
        finally:
            holder.kill()


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


def _count(state: State, times: int) -> None:
    for _ in range(times):
        while True:
            entry = state.get("count")
            assert entry is not None
            try:
                state.put({"count": (entry.version, b"%d" % (int(entry.value) + 1))}, by=str(os.getpid()))
                break
            except StaleError:
                continue


def _hold(state: State, ttl_s: float) -> None:
    lease: Any = state.acquire("night", ttl_s, holder=str(os.getpid()))
    print(lease.token, flush=True)
    sys.stdin.readline()
    try:
        state.put({"work": (None, b"old")}, fence=lease)
        print("written", flush=True)
    except (FencedError, StaleError) as error:
        print("fenced" if isinstance(error, FencedError) else "stale", flush=True)


if __name__ == "__main__":
    with State(sys.argv[1]) as opened:
        if sys.argv[2] == "count":
            _count(opened, int(sys.argv[3]))
        else:
            _hold(opened, float(sys.argv[3]))
