"""The contract of an event log: what ingestion, the forwarder and the spool rely on, on every adapter alike.

Each check gets a way to open the log (every call gives a new handle on the same log) and the name of a topic that does
not exist yet.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from decision.errors import FieldError
from pipelines.log.protocol import (
    MAX_KEY_BYTES,
    MAX_MESSAGE_BYTES,
    EventLog,
    LogError,
    Message,
    OffsetOutOfRange,
    UnknownTopic,
    partition_of,
)

Open = Callable[[], EventLog]
PARTITIONS = 3


def read_all(log: EventLog, topic: str, partition: int, *, step: int = 1000) -> list[Message]:
    """Read a partition from its first kept message to its end."""
    offset, high = log.watermarks(topic, partition)
    messages: list[Message] = []
    while offset < high:
        messages += log.read(topic, partition, offset, max_messages=step)
        offset = messages[-1].offset + 1
    return messages


def check_what_is_appended_is_read_as_it_was(open_log: Open, topic: str) -> None:
    log = open_log()
    log.create(topic, PARTITIONS)
    rng = random.Random(7)
    items = [
        (
            rng.randbytes(rng.randint(1, 60)),
            rng.randbytes(rng.choice([0, 1, 30, 5000])),
            tuple((f"h{n}é", rng.randbytes(rng.randint(0, 9))) for n in range(rng.randint(0, 4))),
        )
        for _ in range(300)
    ]
    positions = log.append_many(topic, items)
    positions.append(log.append(topic, b"last", b"one", (("a", b"\x00\xff"),)))
    items.append((b"last", b"one", (("a", b"\x00\xff"),)))
    found = {(m.partition, m.offset): m for p in range(PARTITIONS) for m in read_all(log, topic, p)}
    assert len(found) == len(items)
    for position, (key, value, headers) in zip(positions, items, strict=True):
        message = found[position]
        assert (message.topic, message.key, message.value, message.headers) == (topic, key, value, headers)
        assert message.ts_ms > 1_600_000_000_000


def check_offsets_are_contiguous_and_in_order_of_appending(open_log: Open, topic: str) -> None:
    log = open_log()
    log.create(topic, PARTITIONS)
    positions = log.append_many(topic, [(f"k{n}".encode(), str(n).encode(), ()) for n in range(200)])
    positions += [log.append(topic, f"k{n}".encode(), str(n).encode()) for n in range(200, 210)]
    for partition in range(PARTITIONS):
        offsets = [offset for at, offset in positions if at == partition]
        assert offsets == list(range(len(offsets)))
        values = [int(m.value) for m in read_all(log, topic, partition)]
        assert values == sorted(values)


def check_a_key_chooses_its_partition_as_kafka_does(open_log: Open, topic: str) -> None:
    log = open_log()
    log.create(topic, PARTITIONS)
    keys = [f"event-{n}".encode() for n in range(50)]
    positions = log.append_many(topic, [(key, b"", ()) for key in keys])
    assert [partition for partition, _ in positions] == [partition_of(key, PARTITIONS) for key in keys]
    assert {partition for partition, _ in positions} == set(range(PARTITIONS))


def check_create_is_idempotent_and_refuses_another_count(open_log: Open, topic: str) -> None:
    log = open_log()
    log.create(topic, PARTITIONS)
    log.append(topic, b"k", b"v")
    log.create(topic, PARTITIONS)
    open_log().create(topic, PARTITIONS)
    assert log.partitions(topic) == PARTITIONS
    assert sum(len(read_all(log, topic, p)) for p in range(PARTITIONS)) == 1
    with pytest.raises(FieldError, match="partitions: must be 3"):
        log.create(topic, PARTITIONS + 1)
    for bad in (0, -1, 100_000):
        with pytest.raises(FieldError, match="partitions"):
            log.create(topic + "-other", bad)
    for name in ("", "a/b", "a b", "x" * 300, ".."):
        with pytest.raises(FieldError, match="topic"):
            log.create(name, 1)


def check_a_topic_that_was_not_created_is_an_error(open_log: Open, topic: str) -> None:
    log = open_log()
    with pytest.raises(UnknownTopic, match=topic):
        log.partitions(topic)
    with pytest.raises(UnknownTopic, match=topic):
        log.append(topic, b"k", b"v")
    with pytest.raises(UnknownTopic, match=topic):
        log.read(topic, 0, 0)
    log.create(topic, 1)
    for partition in (-1, 1):
        with pytest.raises(FieldError, match="partition"):
            log.read(topic, partition, 0)


def check_the_end_is_empty_and_waiting_sees_what_comes(open_log: Open, topic: str) -> None:
    log, writer = open_log(), open_log()
    log.create(topic, 1)
    assert log.read(topic, 0, 0) == []
    assert len(log.read_stretch(topic, 0, 0)) == 0
    assert log.read(topic, 0, 0, wait_s=0.05) == []
    timer = threading.Timer(0.2, writer.append, (topic, b"k", b"v"))
    timer.start()
    try:
        found = log.read(topic, 0, 0, wait_s=120.0)
    finally:
        timer.join()
    assert [m.value for m in found] == [b"v"]
    assert log.read(topic, 0, 1) == []


def check_an_offset_outside_the_watermarks_is_an_error(open_log: Open, topic: str) -> None:
    log = open_log()
    log.create(topic, 1)
    log.append_many(topic, [(b"k", b"v", ())] * 3)
    for offset in (-1, 4, 1 << 50):
        with pytest.raises(OffsetOutOfRange) as caught:
            log.read(topic, 0, offset)
        assert (caught.value.low, caught.value.high) == (0, 3)
    assert len(log.read(topic, 0, 1)) == 2  # and the handle goes on working


def check_reads_keep_to_their_limits(open_log: Open, topic: str) -> None:
    log = open_log()
    log.create(topic, 1)
    log.append_many(topic, [(b"k", bytes(1000), ()) for _ in range(100)])
    assert [m.offset for m in log.read(topic, 0, 10, max_messages=7)] == list(range(10, 17))
    assert [m.offset for m in log.read(topic, 0, 17, max_messages=1)] == [17]
    some = log.read(topic, 0, 0, max_bytes=5500)
    assert [m.offset for m in some] == list(range(5))
    assert [m.offset for m in log.read(topic, 0, 5, max_bytes=1)] == [5]  # one always comes, or a reader would hang
    assert log.read_stretch(topic, 0, 0, max_bytes=5500).messages() == some
    with pytest.raises(FieldError, match="max_messages"):
        log.read(topic, 0, 0, max_messages=0)


def check_partitions_can_be_read_in_any_order(open_log: Open, topic: str) -> None:
    log = open_log()
    log.create(topic, PARTITIONS)
    log.append_many(topic, [(f"k{n}".encode(), str(n).encode(), ()) for n in range(400)])
    whole = {p: read_all(log, topic, p) for p in range(PARTITIONS)}
    rng = random.Random(3)
    for _ in range(30):
        partition = rng.randrange(PARTITIONS)
        offset = rng.randrange(len(whole[partition]))
        found = log.read(topic, partition, offset, max_messages=rng.randint(1, 50))
        assert found == whole[partition][offset : offset + len(found)]
        assert found
        assert log.read_stretch(topic, partition, offset, max_messages=len(found)).messages() == found


def check_watermarks_follow_the_appends(open_log: Open, topic: str) -> None:
    log = open_log()
    log.create(topic, 1)
    assert log.watermarks(topic, 0) == (0, 0)
    log.append_many(topic, [(b"k", b"v", ())] * 5)
    assert log.watermarks(topic, 0) == (0, 5)
    assert open_log().watermarks(topic, 0) == (0, 5)


def check_every_handle_sees_the_same_log(open_log: Open, topic: str) -> None:
    one, other = open_log(), open_log()
    assert one.identity() == other.identity() != ""
    one.create(topic, 2)
    one.append(topic, b"k", b"1")
    other.append(topic, b"k", b"2")
    one.append(topic, b"k", b"3")
    partition = partition_of(b"k", 2)
    assert [m.value for m in read_all(one, topic, partition)] == [b"1", b"2", b"3"]
    assert read_all(other, topic, partition) == read_all(one, topic, partition)


def check_appenders_at_once_get_offsets_of_their_own(open_log: Open, topic: str) -> None:
    open_log().create(topic, 2)
    results: list[list[tuple[int, int]]] = [[] for _ in range(4)]

    def run(number: int, log: EventLog) -> None:
        for n in range(5):
            items = [(f"{number}-{n}-{i}".encode(), f"{number} {n * 20 + i}".encode(), ()) for i in range(20)]
            results[number] += log.append_many(topic, items)

    shared = open_log()
    logs = [shared, shared, open_log(), open_log()]  # threads on one handle, and handles of their own
    threads = [threading.Thread(target=run, args=(number, log)) for number, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    positions = [position for result in results for position in result]
    assert len(positions) == len(set(positions)) == 400
    for partition in range(2):
        messages = read_all(shared, topic, partition)
        assert [m.offset for m in messages] == list(range(len(messages)))
        for number in range(4):
            own = [int(m.value.split()[1]) for m in messages if m.value.startswith(b"%d " % number)]
            assert own == sorted(own)


def check_sizes_are_limited_and_the_field_is_named(open_log: Open, topic: str) -> None:
    log = open_log()
    log.create(topic, 1)
    largest = random.Random(1).randbytes(MAX_MESSAGE_BYTES - 1)  # nothing a codec could shrink
    log.append(topic, b"k", largest)
    for key, value, headers, field in (
        (b"", b"v", (), "key"),
        (b"k" * (MAX_KEY_BYTES + 1), b"v", (), "key"),
        (b"k", largest + b"x", (), "value"),
        (b"k", b"v", tuple((f"h{n}", b"") for n in range(40)), "headers"),
        (b"k", b"v", (("h", bytes(70_000)),), "headers"),
    ):
        with pytest.raises(FieldError) as caught:
            log.append(topic, key, value, headers)
        assert caught.value.field == field
    log.append(topic, b"k", b"small")
    assert [len(m.value) for m in read_all(log, topic, 0)] == [len(largest), 5]


def check_a_closed_log_says_so(open_log: Open, topic: str) -> None:
    log = open_log()
    log.create(topic, 1)
    log.append(topic, b"k", b"v")
    log.close()
    log.close()
    with pytest.raises(LogError, match="closed"):
        log.append(topic, b"k", b"v")
    assert len(read_all(open_log(), topic, 0)) == 1


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
