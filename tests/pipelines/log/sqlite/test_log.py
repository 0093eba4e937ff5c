"""The local log beyond the common contract: processes at once, trimming, unique groups, damage and full disks."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decision.errors import FieldError
from pipelines.log.partitioner import murmur2
from pipelines.log.protocol import Headers, LogCorrupt, LogUnavailable, Message, OffsetOutOfRange, partition_of
from pipelines.log.sqlite.log import Group, LocalLog
from tests.contracts.event_log import read_all

APPENDER = """
import sys
from pipelines.log.sqlite.log import LocalLog
log = LocalLog(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[3])):
    log.append("t", f"{sys.argv[2]}-{n % 17}".encode(), f"{sys.argv[2]} {n}".encode())
"""


@pytest.fixture
def log(tmp_path: Path):
    log = LocalLog(tmp_path / "log.db")
    log.create("t", 2)
    yield log
    log.close()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_gives_the_values_of_kafkas_own_test(text: str, value: int) -> None:
    assert murmur2(text.encode()) == value & 0xFFFFFFFF


def test_two_processes_that_append_at_once_share_the_offsets_and_a_reader_sees_no_gap(log: LocalLog) -> None:
    count, seen = 150, {0: list[Message](), 1: list[Message]()}
    done = threading.Event()

    def tail(partition: int) -> None:
        reader, offset = LocalLog(log.path), 0
        while True:
            last = done.is_set()
            for message in reader.read("t", partition, offset, max_messages=7):
                assert message.offset == offset
                seen[partition].append(message)
                offset += 1
            if last and offset == reader.watermarks("t", partition)[1]:
                reader.close()
                return

    writers = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(log.path), name, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    tails = [threading.Thread(target=tail, args=(partition,)) for partition in (0, 1)]
    for thread in tails:
        thread.start()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    for n in range(count):  # and a third writer here, whose cached offsets go stale all the time
        log.append("t", f"c-{n % 17}".encode(), f"c {n}".encode())
    for writer in writers:
        with writer:
            assert writer.wait(300) == 0
    done.set()
    for thread in tails:
        thread.join(300)
    messages = seen[0] + seen[1]
    assert len(messages) == 3 * count
    for name in "abc":
        for key in range(17):
            own = [int(m.value.split()[1]) for m in messages if m.key == f"{name}-{key}".encode()]
            assert own == list(range(key, count, 17))


def test_trim_moves_the_low_watermark_and_offsets_are_never_used_again(log: LocalLog) -> None:
    other = LocalLog(log.path)
    for _ in range(1200):
        log.append_many("t", [(b"k", b"v", ())])
        if log.watermarks("t", partition_of(b"k", 2))[1] >= 600:
            break
    partition = partition_of(b"k", 2)
    assert log.trim("t", partition, 10) == 10
    assert log.watermarks("t", partition) == (10, 600)
    assert log.trim("t", partition, 5) == 0
    with pytest.raises(OffsetOutOfRange) as caught:
        log.read("t", partition, 9)
    assert (caught.value.low, caught.value.high) == (10, 600)
    assert log.read("t", partition, 10)[0].offset == 10
    assert other.trim("t", partition, 600) == 590
    assert log.watermarks("t", partition) == (600, 600)
    assert log.read("t", partition, 600) == []
    assert log.append("t", b"k", b"v") == (partition, 600)
    assert log.trim("t", partition, 601) == 1
    other.close()
    log.close()
    again = LocalLog(log.path)
    assert again.append("t", b"k", b"v") == (partition, 601)
    with pytest.raises(OffsetOutOfRange):
        again.trim("t", partition, 700)
    again.close()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=5)),
            st.tuples(st.just("trim"), st.integers(0, 1), st.integers(0, 20)),
            st.tuples(st.just("reopen")),
        ),
        max_size=20,
    )
)
def test_log_is_lists_of_messages_of_which_a_beginning_may_be_cut_off(operations: list[tuple]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = LocalLog(Path(folder) / "log.db")
        log.create("t", 2)
        model: dict[int, list[bytes]] = {0: [], 1: []}
        low = {0: 0, 1: 0}
        for operation in operations:
            match operation:
                case ("append", keys):
                    expected = []
                    for key in keys:
                        at = partition_of(key, 2)
                        expected.append((at, len(model[at])))
                        model[at].append(key)
                    assert log.append_many("t", [(key, b"", ()) for key in keys]) == expected
                case ("trim", partition, before):
                    before = min(before, len(model[partition]))
                    log.trim("t", partition, before)
                    low[partition] = max(low[partition], before)
                case _:
                    log.close()
                    log = LocalLog(Path(folder) / "log.db")
            for partition, keys in model.items():
                assert log.watermarks("t", partition) == (low[partition], len(keys))
                assert [m.key for m in read_all(log, "t", partition)] == keys[low[partition] :]
        log.close()


def test_groups_are_written_whole_and_a_unique_one_only_once(log: LocalLog) -> None:
    log.create("u", 2)
    first, second, third, fourth = log.append_groups(
        [
            Group(b"a", [("t", b"1", ()), ("t", b"2", (("h", b"x"),)), ("u", b"3", ())], unique=True),
            Group(b"a", [("t", b"4", ()), ("u", b"5", ())], unique=True),
            Group(b"a", [("t", b"6", ())]),
            Group(b"b", [("u", b"7", ())], unique=True),
        ]
    )
    assert not first.existing
    assert len(first.positions) == 3
    assert second.existing
    assert not second.positions
    assert [m.value for m in second.messages][:2] == [b"1", b"2"]
    assert second.messages[1].headers == (("h", b"x"),)
    assert not third.existing
    assert not fourth.existing
    assert [m.value for m in log.find("t", b"a")] == [b"1", b"2", b"6"]
    assert [m.value for m in log.find("u", b"a")] == [b"3"]  # nothing of the refused group
    other = LocalLog(log.path)
    again = other.append_groups([Group(b"a", [("t", b"8", ())], unique=True)])
    assert again[0].existing
    assert not other.append_groups([Group(b"b", [("t", b"9", ())], unique=True)])[0].existing  # keys are per topic
    other.close()
    with pytest.raises(FieldError, match="messages"):
        log.append_groups([Group(b"c", [])])


def record(loop: str, text: str = "") -> list[tuple[str, bytes, Headers]]:
    return [("t", b'{"loop":"%s","text":"%s"}' % (loop.encode(), text.encode()), ())]


def test_a_key_is_unique_in_its_loop_alone(log: LocalLog) -> None:
    log.append("t", b"a", record("shop")[0][1])  # as an earlier release wrote it
    groups = [Group(b"a", record(loop), True, loop) for loop in ("shop", "news", "news", "feed")]
    assert [stored.existing for stored in log.append_groups(groups)] == [True, False, True, False]
    for loop in ("shop", "news", "feed"):
        (stored,) = log.append_groups([Group(b"a", record(loop, "again"), True, loop)])
        assert [m.value for m in stored.messages] == [record(loop)[0][1]]
    log.redact("t", [b"a"])
    assert log.append_groups([Group(b"a", record("other"), True, "other")])[0].existing  # whose it was, nobody knows


def test_what_another_machine_answered_is_written_and_returned_as_existing(log: LocalLog) -> None:
    other = Group(b"a", record("shop", "theirs"), True, "shop", standing=True)
    first, again = log.append_groups([other]), log.append_groups([other, Group(b"b", record("shop"), True, "shop")])
    assert [bool(stored.positions) for stored in (*first, *again)] == [True, False, True]
    assert [stored.existing for stored in (*first, *again)] == [True, True, False]
    assert first[0].messages == again[0].messages
    assert [m.value for m in log.find("t", b"a")] == [other.messages[0][1]]


def test_a_group_that_does_not_fit_leaves_nothing_of_its_call(log: LocalLog) -> None:
    with pytest.raises(FieldError, match="value"):
        log.append_groups([Group(b"a", [("t", b"1", ())]), Group(b"b", [("t", bytes(5 << 20), ())])])
    assert log.find("t", b"a") == []
    assert log.append("t", b"a", b"") == (partition_of(b"a", 2), 0)


def test_find_returns_a_topics_messages_under_a_key_in_order(log: LocalLog) -> None:
    log.append_many("t", [(key, value, ()) for value in (b"1", b"2", b"3") for key in (b"x", b"y")])
    assert [m.value for m in log.find("t", b"y")] == [b"1", b"2", b"3"]
    assert log.find("t", b"z") == []


def test_redacting_empties_values_on_disk_and_moves_no_offset(log: LocalLog) -> None:
    secret = b"the subject lives at " * 400
    log.append_many("t", [(b"x", secret, ()), (b"y", b"kept", ()), (b"x", secret, (("name", b"lives at"),))])
    before = {p: log.watermarks("t", p) for p in (0, 1)}
    assert log.redact("t", [b"x", b"unknown"]) == 2
    assert [m.value for m in log.find("t", b"x")] == [b"", b""]
    assert [m.headers for m in log.find("t", b"x")] == [(("redacted", b"1"),)] * 2
    assert [m.value for m in log.find("t", b"y")] == [b"kept"]
    assert {p: log.watermarks("t", p) for p in (0, 1)} == before
    for file in log.path.parent.glob("log.db*"):
        assert b"lives at" not in file.read_bytes()


def test_offset_at_finds_the_first_message_of_a_time(tmp_path: Path) -> None:
    now = [100.0]
    log = LocalLog(tmp_path / "log.db", clock=lambda: now[0])
    log.create("t", 1)
    assert log.offset_at("t", 0, 5) == 0
    for now[0] in (100.0, 100.0, 200.0, 300.0):
        log.append("t", b"k", b"v")
    log.trim("t", 0, 1)
    assert [log.offset_at("t", 0, at * 1000) for at in (0, 100, 150, 200, 300, 301)] == [1, 1, 2, 2, 3, 4]
    log.close()


def test_positions_are_kept_per_reader(log: LocalLog) -> None:
    log.save_positions("a", {("t", 0): 5, ("t", 1): 6})
    log.save_positions("a", {("t", 1): 7})
    log.save_positions("b", {("t", 0): 1})
    log.close()
    again = LocalLog(log.path)
    assert again.positions("a") == {("t", 0): 5, ("t", 1): 7}
    assert again.positions("c") == {}
    assert again.readers() == ["a", "b"]
    again.close()


@pytest.mark.parametrize("damage", ["no database", "header"])
def test_a_file_that_is_no_log_is_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "log.db"
    if damage == "header":
        log = LocalLog(path)
        log.create("t", 1)
        log.close()
        content = bytearray(path.read_bytes())
        content[:100] = bytes(range(100))
        path.write_bytes(content)
    else:
        path.write_bytes(b"these are my notes\n" * 1000)
    content = path.read_bytes()
    with pytest.raises(LogCorrupt, match=r"log\.db: the event log is damaged"):
        LocalLog(path)
    assert path.read_bytes() == content


def test_damage_inside_the_file_is_an_error_of_reading(tmp_path: Path) -> None:
    log = LocalLog(tmp_path / "log.db")
    log.create("t", 1)
    log.append_many("t", [(b"k%d" % n, bytes(500), ()) for n in range(500)])
    log.close()
    content = bytearray(log.path.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    log.path.write_bytes(content)
    damaged = LocalLog(log.path)
    with pytest.raises(LogCorrupt, match="the event log is damaged"):
        read_all(damaged, "t", 0)
    damaged.close()


def test_another_programs_database_and_newer_schemas_are_refused(tmp_path: Path) -> None:
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE notes (text)")
    foreign.commit()
    foreign.close()
    with pytest.raises(LogCorrupt, match="another SQLite file"):
        LocalLog(tmp_path / "foreign.db")
    log = LocalLog(tmp_path / "log.db")
    log.close()
    newer = sqlite3.connect(log.path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(LogCorrupt, match="newer code"):
        LocalLog(log.path)


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogUnavailable, match="file"):
        LocalLog(tmp_path / "file" / "log.db")


def test_a_full_log_refuses_and_takes_again_after_trimming(tmp_path: Path) -> None:
    log = LocalLog(tmp_path / "log.db", max_bytes=400_000)
    log.create("t", 1)
    written = 0
    with suppress(LogUnavailable):
        while written < 1000:
            log.append("t", b"k", bytes(5000))
            written += 1
    with pytest.raises(LogUnavailable, match="full"):
        log.append("t", b"k", bytes(5000))
    assert 20 < written < 100
    assert log.watermarks("t", 0) == (0, written)  # the refused one left nothing
    log.trim("t", 0, written // 2)
    assert log.append("t", b"k", bytes(5000)) == (0, written)
    log.close()


def test_a_commit_waits_for_the_disk(log: LocalLog) -> None:
    with log._file.transaction() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: the write-ahead log is synced per commit
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_full_log_is_told_as_full_until_there_is_room_for_messages(tmp_path: Path) -> None:
    log = LocalLog(tmp_path / "full.db", max_bytes=300_000)
    log.create("decisions", 1)
    log.probe()
    with suppress(LogUnavailable):
        for _ in range(1000):
            log.append("decisions", b"k", bytes(5000))
    taken = log.watermarks("decisions", 0)[1]
    assert taken < 1000
    with pytest.raises(LogUnavailable):
        log.probe()
    log.trim("decisions", 0, taken)
    log.probe()
    log.append("decisions", b"k", bytes(5000))
    log.close()


@pytest.mark.parametrize("instead", [False, True], ids=["gone", "another"])
def test_nothing_is_acknowledged_in_a_file_that_was_taken_away_until_it_is_back(log: LocalLog, instead: bool) -> None:
    log.append("t", b"k", b"before")
    away = log.path.rename(log.path.with_name("away"))
    if instead:
        log.path.touch()
    with pytest.raises(LogUnavailable, match="is another than" if instead else "is gone; put it back, or restart"):
        log.append("t", b"k", b"lost")
    assert log.path.exists() == instead, "a new file would hide that the other is gone"
    away.replace(log.path)
    log.append("t", b"k", b"after")
    assert [message.value for message in read_all(log, "t", partition_of(b"k", 2))] == [b"before", b"after"]


def test_a_write_ahead_log_that_was_removed_loses_nothing(log: LocalLog) -> None:
    with closing(LocalLog(log.path)) as other:  # another process has the same one open
        other.append("t", b"k", b"before")
        log.append("t", b"k", b"in the old one")
        Path(f"{log.path}-wal").unlink()
        log.append("t", b"k", b"after")
        assert other.append("t", b"k", b"by the other") == (partition_of(b"k", 2), 3)
        newcomer = [sys.executable, "-c", APPENDER, log.path, "k", "1"]
        done = subprocess.run(newcomer, input="\n", text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        with sqlite3.connect(log.path) as fresh:
            assert fresh.execute("SELECT count(*) FROM messages").fetchone() == (5,)
            assert fresh.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_cannot_be_put_together_is_refused_until_a_restart(log: LocalLog) -> None:
    log.append("t", b"k", b"before")
    wal, index = Path(f"{log.path}-wal"), Path(f"{log.path}-shm")
    away = wal.rename(log.path.with_name("away"))
    wal.write_bytes(b"of somebody else")
    with pytest.raises(LogUnavailable, match="wal: another file than the one that was opened; restart what writes to"):
        log.append("t", b"k", b"refused")
    away.replace(wal)
    log.append("t", b"k", b"back")
    index.unlink()
    with pytest.raises(LogUnavailable, match=r"shm: was removed; restart what writes to log.db"):
        log.append("t", b"k", b"refused, too")
    log.close()
    with closing(LocalLog(log.path)) as opened:
        opened.append("t", b"k", b"after")
        found = [message.value for message in read_all(opened, "t", partition_of(b"k", 2))]
    assert found == [b"before", b"back", b"after"]
