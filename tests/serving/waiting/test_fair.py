"""The queue of many loops: none fills it for the others, and each is served in its turn."""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.waiting.fair import TURN_GROUPS, FairQueue, QueueFull

NO_LIMIT = 1 << 40


def fill(queue: FairQueue[str], loop: str, size: int = 1) -> int:
    """Add entries of one group until the loop is refused; return how many were taken."""
    for number in count():
        try:
            queue.add(loop, f"{loop}{number}", 1, size)
        except QueueFull:
            return number
    raise AssertionError


@pytest.mark.parametrize("loops", [1, 2, 5, 20])
def test_loops_that_flood_together_have_equal_shares_and_leave_one_free(loops: int) -> None:
    queue: FairQueue[str] = FairQueue(most_groups=2_100, most_bytes=NO_LIMIT)
    taken = Counter[str]()
    refused = set[str]()
    while len(refused) < loops:
        for number in range(loops):
            try:
                queue.add(f"l{number}", "", 1, 1)
                taken[f"l{number}"] += 1
            except QueueFull as error:
                refused.add(error.loop)
    share = 2_100 // (loops + 1)
    assert all(share - 1 <= each <= share + 1 for each in taken.values())
    assert fill(queue, "late") >= share // 2


def test_bytes_are_shared_as_groups_are() -> None:
    queue: FairQueue[str] = FairQueue(most_groups=NO_LIMIT, most_bytes=9_000)
    assert fill(queue, "large", 100) == 45
    assert fill(queue, "small", 10) == 225


def test_a_loop_with_nothing_in_the_queue_is_taken_while_there_is_room_at_all() -> None:
    queue: FairQueue[str] = FairQueue(most_groups=100, most_bytes=1_000)
    queue.add("a", "nearly all", 1, 900)
    with pytest.raises(QueueFull) as own:
        queue.add("a", "more", 1, 60)
    queue.add("b", "the rest", 1, 100)
    with pytest.raises(QueueFull) as nobody:
        queue.add("c", "one byte", 1, 1)
    assert (own.value.loop, nobody.value.loop) == ("a", "")


def test_what_was_taken_counts_until_it_is_done() -> None:
    queue: FairQueue[str] = FairQueue(most_groups=10, most_bytes=NO_LIMIT)
    assert fill(queue, "a") == 5
    assert len(queue.take(100, 100)) == 5
    assert (queue.groups, queue.waiting, bool(queue)) == (5, 0, False)
    with pytest.raises(QueueFull):
        queue.add("a", "", 1, 1)
    queue.done()
    assert (queue.groups, queue.size) == (0, 0)
    assert fill(queue, "a") == 5


def test_who_comes_late_waits_for_one_turn_of_each_of_the_others() -> None:
    queue: FairQueue[str] = FairQueue(most_groups=NO_LIMIT, most_bytes=NO_LIMIT)
    for number in range(1_000):
        for loop in "abc":
            queue.add(loop, f"{loop}{number}", 1, 500)
    queue.take(512, NO_LIMIT)
    queue.done()
    queue.add("late", "late", 1, 500)
    batch = queue.take(512, NO_LIMIT)
    before = Counter(each[0] for each in batch[: batch.index("late")])
    assert before.keys() <= set("abc")
    assert max(before.values()) <= TURN_GROUPS


def test_a_loop_of_large_entries_pays_for_them_while_others_wait() -> None:
    queue: FairQueue[str] = FairQueue(most_groups=NO_LIMIT, most_bytes=NO_LIMIT)
    for number in range(20):
        queue.add("large", f"large{number}", 1, 4 << 20)
    for number in range(4_000):
        queue.add("small", f"small{number}", 1, 100)
    written = Counter[str]()
    while "small3999" not in (batch := queue.take(512, 8 << 20)):
        written.update(each[:5] for each in batch)
        queue.done()
    # eight turns of 32 small ones cost what one of four MiB does
    assert 12 <= written["large"] <= 18


def test_nothing_is_kept_of_loops_that_have_nothing_in_the_queue() -> None:
    queue: FairQueue[str] = FairQueue(most_groups=100, most_bytes=1_000)
    for number in range(1_000):
        queue.add(f"l{number}", "", 1, 1)
        queue.take(1, 1)
        queue.done()
    assert queue._lines == {}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.integers(0, 9_000_000)),
            st.tuples(st.integers(1, 40), st.integers(1, 9_000_000)),
        ),
        max_size=80,
    )
)
def test_every_entry_comes_out_once_and_in_the_order_of_its_loop(steps: list[tuple[object, ...]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(most_groups=50, most_bytes=30_000_000)
    added, out = list[tuple[str, int]](), list[tuple[str, int]]()
    for number, step in enumerate([*steps, (NO_LIMIT, NO_LIMIT)]):
        match step:
            case (str() as loop, int() as groups, int() as size):
                try:
                    queue.add(loop, (loop, number), groups, size)
                    added.append((loop, number))
                except QueueFull:
                    pass
                assert queue.groups <= 50
                assert queue.size <= 30_000_000
            case (int() as groups, int() as size):
                out += queue.take(groups, size)
                queue.done()
            case _:
                raise AssertionError
    assert sorted(out) == sorted(added)
    for loop in "abc":
        assert [each for each in out if each[0] == loop] == [each for each in added if each[0] == loop]
    assert (queue.groups, queue.size, queue.waiting, bool(queue)) == (0, 0, 0, False)
