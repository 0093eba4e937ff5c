"""The spool: what is acknowledged is on disk, once, whatever is killed, full or asked twice."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from decision.errors import FieldError
from pipelines.log.protocol import LogUnavailable, UnknownTopic
from pipelines.log.sqlite.log import Group, LocalLog, Stored
from pipelines.operations.waiting import wait_until
from serving.spool import Spool, SpoolClosed
from serving.waiting.fair import TURN_GROUPS, QueueFull
from tests.contracts.event_log import read_all

CLIENT = """
import asyncio, sys
from pipelines.log.sqlite.log import LocalLog
from serving.spool import Spool
path, prefix, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
spool = Spool(LocalLog(path))

async def client(number):
    for n in range(number, count, 16):
        key = f"{prefix}{n}"
        stored = await spool.append(key.encode(), [("decisions", sys.argv[4].encode(), ())], unique=True)
        value = stored.messages[0].value.decode() if stored.existing else sys.argv[4]
        sys.stdout.write(f"{key} {int(stored.existing)} {value}\\n")
        sys.stdout.flush()

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    await asyncio.gather(*[client(number) for number in range(16)])

asyncio.run(main())
"""


def submit(spool: Spool, key: bytes, messages: Any, *, unique: bool = False) -> Future[list[Stored]]:
    """Give the spool one group, as a thread does that will wait for it."""
    return spool.submit((Group(key, messages, unique),))


@pytest.fixture
def log(tmp_path: Path):
    log = LocalLog(tmp_path / "log.db")
    log.create("decisions", 2)
    log.create("outcomes", 2)
    yield log
    log.close()


@pytest.fixture
def spool(log: LocalLog):
    spool = Spool(log)
    yield spool
    spool.close()


def start(log: LocalLog, prefix: str, count: int, value: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CLIENT, str(log.path), prefix, str(count), value]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def all_keys(log: LocalLog, topic: str = "decisions") -> list[str]:
    return [m.key.decode() for p in range(2) for m in read_all(log, topic, p)]


def test_an_acknowledged_message_is_on_disk_for_every_process(log: LocalLog, spool: Spool) -> None:
    other = LocalLog(log.path)

    async def run() -> None:
        for n in range(20):
            stored = await spool.append(b"%d" % n, [("decisions", b"v", (("h", b"1"),))], unique=True)
            found = other.find("decisions", b"%d" % n)
            assert [(m.partition, m.offset) for m in found] == list(stored.positions)
            assert found[0].headers == (("h", b"1"),)

    asyncio.run(run())
    assert spool.appended == 20
    assert spool.bytes == sum(len(str(n)) for n in range(20)) + 20 * 3
    assert spool.depth == 0
    assert spool.last_fsync_seconds > 0
    other.close()


def test_many_waiters_share_commits_and_each_gets_its_own_answer(log: LocalLog, spool: Spool) -> None:
    async def one(n: int) -> None:
        stored = await spool.append(b"%d" % n, [("decisions", b"value %d" % n, ())], unique=True)
        (partition, offset), *_ = stored.positions
        assert log.read("decisions", partition, offset, max_messages=1)[0].value == b"value %d" % n

    async def run() -> None:
        await asyncio.gather(*[one(n) for n in range(1000)])

    asyncio.run(run())
    assert len(all_keys(log)) == 1000


def test_what_is_appended_in_one_turn_of_a_loop_is_handed_over_together(
    log: LocalLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[int] = []
    write = log.append_groups

    def counted(groups: Sequence[Group]) -> list[Stored]:
        commits.append(len(groups))
        return write(groups)

    monkeypatch.setattr(log, "append_groups", counted)
    spool = Spool(log)

    async def turn() -> None:
        many = [Group(b"m%d" % n, [("decisions", b"v", ())], True) for n in range(30)]
        ones = [spool.append(b"s%d" % n, [("decisions", b"v", ())], unique=True) for n in range(20)]
        stored, *single = await asyncio.gather(spool.append_all(many), *ones)
        assert [each.existing for each in stored] == [False] * 30
        assert [each.existing for each in single] == [False] * 20

    asyncio.run(turn())
    spool.close()
    assert commits == [50]


def test_a_unique_key_is_written_once_however_many_threads_ask(log: LocalLog, spool: Spool) -> None:
    barrier = threading.Barrier(8)
    answers: list[list[Stored]] = [[] for _ in range(8)]

    def run(number: int) -> None:
        barrier.wait()
        futures = [
            submit(spool, b"key %d" % n, [("decisions", b"from %d" % number, ())], unique=True) for n in range(100)
        ]
        answers[number] = [future.result(300)[0] for future in futures]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(all_keys(log)) == sorted(f"key {n}" for n in range(100))
    for n in range(100):
        winners = [number for number in range(8) if not answers[number][n].existing]
        assert len(winners) == 1
        for number in set(range(8)) - set(winners):
            assert [m.value for m in answers[number][n].messages] == [b"from %d" % winners[0]]
    assert spool.appended == 100


def test_a_unique_key_is_written_once_however_many_processes_ask(log: LocalLog) -> None:
    processes = [start(log, "k", 400, value) for value in ("left", "right")]
    for process in processes:
        go(process)
    answers = [dict[str, tuple[str, str]](), dict[str, tuple[str, str]]()]
    for process, answer in zip(processes, answers, strict=True):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        for line in output.decode().splitlines():
            key, existing, value = line.split()
            answer[key] = (existing, value)
    assert sorted(all_keys(log)) == sorted(f"k{n}" for n in range(400))
    for key, (existing, value) in answers[0].items():
        assert {existing, answers[1][key][0]} == {"0", "1"}
        assert value == answers[1][key][1]  # both were told the same decision


def test_messages_of_one_submit_are_written_whole_or_not_at_all(log: LocalLog, spool: Spool) -> None:
    messages = [("decisions", b"slot a", ()), ("decisions", b"slot b", ()), ("outcomes", b"seen", ())]
    first = submit(spool, b"k", messages, unique=True).result(300)[0]
    second = submit(spool, b"k", [*messages, ("outcomes", b"again", ())], unique=True).result(300)[0]
    assert len(first.positions) == 3
    assert [m.value for m in second.messages] == [b"slot a", b"slot b"]
    assert all_keys(log) == ["k", "k"]
    assert all_keys(log, "outcomes") == ["k"]
    assert [m.value for m in spool.find("outcomes", b"k")] == [b"seen"]
    for n in range(3):  # outcomes repeat their key
        assert not submit(spool, b"k", [("outcomes", b"%d" % n, ())]).result(300)[0].existing


def test_a_full_queue_refuses_and_loses_nothing_it_took(log: LocalLog) -> None:
    spool = Spool(log, max_events=20, max_bytes=2000)
    blocker = LocalLog(log.path)
    with blocker._file.transaction():  # another process is writing, and takes its time
        futures = [submit(spool, b"%d" % n, [("decisions", b"v", ())]) for n in range(10)]
        with pytest.raises(QueueFull, match="10 events"):
            submit(spool, b"x", [("decisions", b"v", ())]).result(300)
        assert spool.depth == 10
        assert not any(future.done() for future in futures)
    for future in futures:
        future.result(300)
    with blocker._file.transaction():
        future = submit(spool, b"large", [("decisions", bytes(900), ())])
        with pytest.raises(QueueFull):
            submit(spool, b"too much", [("decisions", bytes(200), ())]).result(300)
    future.result(300)
    assert sorted(all_keys(log)) == sorted([*map(str, range(10)), "large"])
    spool.close()
    blocker.close()


def test_while_one_loop_floods_anothers_decisions_are_all_taken_and_wait_for_a_commit_and_a_turn(
    log: LocalLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[list[str]] = []
    write = log.append_groups

    def watched(groups: Sequence[Group]) -> list[Stored]:
        commits.append([group.loop for group in groups])
        return write(groups)

    monkeypatch.setattr(log, "append_groups", watched)
    spool, blocker = Spool(log, max_events=4_000), LocalLog(log.path)

    def give(key: str, topic: str, loop: str) -> Future[list[Stored]]:
        return spool.submit((Group(key.encode(), [(topic, bytes(500), ())], False, loop),))

    taken = 0
    for number in range(8):
        with blocker._file.transaction():  # the disk takes its time: the flood fills what it may
            before = len(commits)
            flood = [give(f"f{number}", "outcomes", "flood")]
            wait_until(partial(lambda begun: len(commits) > begun, before), "the commit under way")
            flood += [give(f"f{number}-{n}", "outcomes", "flood") for n in range(2_500)]
            other = [give(f"o{number}-{n}", "decisions", "other") for n in range(5)]
        assert [future.result(300)[0].existing for future in other] == [False] * 5
        assert commits[before + 1].index("other") <= TURN_GROUPS
        errors = [future.exception(300) for future in flood]
        refused = [error for error in errors if error is not None]
        assert {error.loop for error in refused if isinstance(error, QueueFull)} == {"flood"}
        assert len(refused) > 400
        taken += len(errors) - len(refused)
    spool.close()
    blocker.close()
    assert len(all_keys(log)) == 8 * 5
    assert len(all_keys(log, "outcomes")) == taken


def test_a_disk_that_fails_is_every_waiters_error_and_heals_by_itself(tmp_path: Path) -> None:
    log = LocalLog(tmp_path / "log.db", max_bytes=300_000)
    log.create("decisions", 1)
    spool = Spool(log)
    taken, error = 0, None
    while error is None:
        error = submit(spool, b"%d" % taken, [("decisions", bytes(5000), ())]).exception(300)
        taken += error is None
    assert isinstance(error, LogUnavailable)
    assert "full" in str(error)
    assert not spool.healthy
    with pytest.raises(LogUnavailable):
        asyncio.run(spool.append(b"x", [("decisions", bytes(50_000), ())]))
    assert log.watermarks("decisions", 0) == (0, taken)
    log.trim("decisions", 0, taken)
    wait_until(lambda: spool.healthy, "the spool")  # no request is needed for it
    submit(spool, b"y", [("decisions", b"v", ())]).result(300)[0]
    spool.close()
    log.close()


def test_a_message_that_does_not_fit_is_refused_at_once_and_harms_no_other(log: LocalLog, spool: Spool) -> None:
    with pytest.raises(FieldError, match="value"):
        submit(spool, b"k", [("decisions", bytes(5 << 20), ())]).result(300)
    with pytest.raises(FieldError, match="key"):
        submit(spool, b"", [("decisions", b"", ())]).result(300)
    with pytest.raises(UnknownTopic):
        submit(spool, b"k", [("nowhere", b"", ())]).result(300)
    with pytest.raises(FieldError, match="messages"):
        submit(spool, b"k", []).result(300)
    assert submit(spool, b"k", [("decisions", b"", ())]).result(300)[0].positions
    assert spool.healthy


def test_close_writes_what_waits_and_then_takes_nothing(log: LocalLog) -> None:
    spool = Spool(log)
    futures = [submit(spool, b"%d" % n, [("decisions", b"v", ())]) for n in range(500)]
    spool.close()
    assert all(future.done() and not future.exception() for future in futures)
    assert len(all_keys(log)) == 500
    with pytest.raises(SpoolClosed):
        submit(spool, b"x", [("decisions", b"v", ())]).result(300)
    spool.close()


def test_a_cancelled_waiter_leaves_its_message_and_its_neighbours_alone(log: LocalLog, spool: Spool) -> None:
    async def run() -> None:
        blocker = LocalLog(log.path)
        with blocker._file.transaction():
            tasks = [asyncio.ensure_future(spool.append(b"%d" % n, [("decisions", b"v", ())])) for n in range(3)]
            await asyncio.sleep(0)
            tasks[1].cancel()
            await asyncio.sleep(0)
        assert (await tasks[0]).positions
        assert (await tasks[2]).positions
        assert tasks[1].cancelled()
        blocker.close()

    asyncio.run(run())
    assert sorted(all_keys(log)) == ["0", "1", "2"]


def test_loops_in_several_threads_each_get_their_answers(log: LocalLog, spool: Spool) -> None:
    def run(prefix: bytes) -> None:
        async def many() -> None:
            await asyncio.gather(
                *[spool.append(prefix + b"%d" % n, [("decisions", b"v", ())], unique=True) for n in range(50)]
            )

        asyncio.run(many())

    threads = [threading.Thread(target=run, args=(prefix,)) for prefix in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len(set(all_keys(log))) == 150


def test_kill_at_any_moment_keeps_every_acknowledged_decision_exactly_once(log: LocalLog) -> None:
    rng = random.Random(20)
    acknowledged: list[str] = []
    following = start(log, "0-", 1_000_000, "v")
    for n in range(400):
        if n >= 20 and len(acknowledged) > 200:  # on a busy machine it takes more kills until they prove anything
            break
        process, following = following, start(log, f"{n + 1}-", 1_000_000, "v")
        go(process)
        time.sleep(rng.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=300)
        lines = output.decode().split("\n")[:-1]  # the last line may be torn
        acknowledged += [line.split()[0] for line in lines]
    following.kill()
    following.communicate(timeout=300)
    keys = all_keys(log)
    assert len(keys) == len(set(keys))
    assert set(acknowledged) <= set(keys)
    assert len(acknowledged) > 200
