from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from decision.guard.snapshot import GuardSnapshot, decode_snapshot, encode_snapshot, newest, weight_at

TTL, EXPIRES = 60.0, 1_000.0


def snapshot(**changes: object) -> GuardSnapshot:
    values: dict[str, object] = {
        "guard_version": 7,
        "loop": "news",
        "baseline_version": "3",
        "candidate_version": "4",
        "weight": 0.4,
        "floor": 0.05,
        "killed": False,
        "n": 1234,
        "expires_at": EXPIRES,
        "ttl_s": TTL,
    }
    return GuardSnapshot(**(values | changes))  # type: ignore[arg-type]


def test_weight_holds_until_expiry_then_falls_to_the_floor_and_then_to_nothing() -> None:
    assert weight_at(snapshot(), EXPIRES - 1) == 0.4
    assert weight_at(snapshot(), EXPIRES) == 0.4
    assert weight_at(snapshot(), EXPIRES + 0.001) == 0.05
    assert weight_at(snapshot(), EXPIRES + 10 * TTL) == 0.05
    assert weight_at(snapshot(), EXPIRES + 10 * TTL + 0.001) == 0.0


def test_a_weight_below_the_floor_is_not_raised_by_going_stale() -> None:
    assert weight_at(snapshot(weight=0.02), EXPIRES + 1) == 0.02
    assert weight_at(snapshot(weight=0.0), EXPIRES + 1) == 0.0


@given(
    weight=st.floats(0, 1, exclude_max=True),
    floor=st.floats(0, 1, exclude_max=True),
    times=st.lists(st.floats(0, 5_000), min_size=2, max_size=6),
)
def test_weight_never_rises_as_time_goes_by(weight: float, floor: float, times: list[float]) -> None:
    weights = [weight_at(snapshot(weight=weight, floor=floor), now) for now in sorted(times)]
    assert weights == sorted(weights, reverse=True)
    assert max(weights) <= weight


def test_a_snapshot_survives_the_way_to_a_replica() -> None:
    found = decode_snapshot(encode_snapshot(snapshot()))
    assert msgspec.structs.replace(found, checksum="") == snapshot()


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_altered_byte_is_noticed(position: int, flip: int) -> None:
    data = bytearray(encode_snapshot(snapshot()))
    data[position % len(data)] ^= flip
    with pytest.raises(FieldError):
        decode_snapshot(bytes(data))


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"x" * (1 << 17)])
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(FieldError, match="guard"):
        decode_snapshot(data)


@pytest.mark.parametrize(("field", "value"), [("weight", 1.0), ("weight", -0.1), ("floor", 1.5)])
def test_a_weight_that_nobody_may_serve_is_refused_even_with_a_checksum(field: str, value: float) -> None:
    with pytest.raises(FieldError, match=f"guard.{field}"):
        decode_snapshot(encode_snapshot(snapshot(**{field: value})))


def test_the_highest_version_holds_and_of_equal_ones_the_later_renewal() -> None:
    old, new = snapshot(guard_version=6, expires_at=9_999.0), snapshot()
    renewed = snapshot(expires_at=EXPIRES + 5)
    assert newest(None, old) is old
    assert newest(new, old) is new
    assert newest(old, new) is new
    assert newest(new, renewed) is renewed
    assert newest(renewed, new) is renewed
