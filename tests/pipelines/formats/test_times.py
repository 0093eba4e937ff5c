"""Times of other systems: a number is read in the unit that makes it a time of this age, or the unit is asked for."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.errors import FieldError
from pipelines.formats.times import Clock, Unit

NAIVE = datetime(2026, 3, 1, 9, 30, tzinfo=UTC).replace(tzinfo=None)
PER_SECOND: dict[Unit, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def read(values: list[Any], unit: Unit | None = None, kind: Any = None) -> list[datetime | None]:
    found = Clock(unit).read(pa.array(values, kind), range(len(values))).to_pylist()
    return [None if ts is None else ts.astimezone(UTC) for ts in found]


@given(
    seconds=st.integers(1_000_000_000, 7_258_118_399),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
    text=st.booleans(),
    told=st.booleans(),
)
def test_a_number_is_the_second_it_counts_whatever_its_unit(seconds: int, unit: Unit, text: bool, told: bool) -> None:
    number = seconds * PER_SECOND[unit]
    if number < 1 << 63:
        assert read([str(number) if text else number], unit if told else None) == [datetime.fromtimestamp(seconds, UTC)]


@given(number=st.integers(0, (1 << 63) - 1))
def test_a_number_that_is_read_without_a_unit_is_a_time_between_2001_and_2200(number: int) -> None:
    with suppress(FieldError):
        (ts,) = read([number])
        assert ts is not None
        assert 2001 <= ts.year < 2200


@pytest.mark.parametrize("values", [[0, 1, 2], [17_672_256_000], [100_000_000_000], [1.5], ["42"], [float("inf")]])
def test_ambiguous_numbers_name_the_option_that_says_their_unit(values: list[Any]) -> None:
    with pytest.raises(FieldError, match=r"^row 0: ts: must be a number that is certain.*--time-unit s, ms, us or ns"):
        read(values)


def test_a_file_has_one_unit_from_its_first_number_on() -> None:
    clock = Clock()
    clock.read(pa.array([None, 1_767_225_600]), [0, 1])
    with pytest.raises(FieldError, match=r"^row 3: ts: must be a time in s, as the first"):
        clock.read(pa.array([1_767_225_601, 1_767_225_602_000]), [2, 3])
    assert Clock("s").read(pa.array([10, 1_767_225_600]), [0, 1]).null_count == 0


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-01T09:30:00Z",
        "2026-03-01 10:30:00+01:00",
        "2026-03-01T09:30:00.000000000",
        "2026-03-01 09:30",
        " 2026-03-01T04:30:00-0500 ",
        NAIVE,
        datetime(2026, 3, 1, 10, 30, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_texts_and_timestamps_are_utc_unless_they_say_otherwise(value: Any) -> None:
    assert read([value, None]) == [datetime(2026, 3, 1, 9, 30, tzinfo=UTC), None]


def test_a_date_is_its_midnight() -> None:
    assert read([date(2026, 3, 1)]) == read(["2026-03-01"]) == [datetime(2026, 3, 1, tzinfo=UTC)]


def test_columns_of_two_forms_of_text_are_read_row_by_row() -> None:
    at = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
    assert read(["2026-03-01T09:30:00", None, "2026-03-01T09:30:00Z"]) == [at, None, at]


@pytest.mark.parametrize(
    ("values", "unit", "match"),
    [
        (["2026-03-01", "03/01/2026"], None, "row 1: ts: must be a time: RFC 3339.*'03/01/2026'"),
        (["1767225600", "soon"], None, "row 1: ts: must be a number, as others.*'soon'"),
        ([1_767_225_600, -1], "s", "row 1: ts: must be a time in s between 1970 and 2200"),
        ([1e300], "ms", "row 0: ts: must be a time in ms between"),
        (["99999999999999999999"], "s", "row 0: ts: must be a time in s between"),
        ([date(1900, 1, 1)], None, "row 0: ts: must be a time between 1970 and 2200"),
        (["2400-01-01T00:00:00Z"], None, "row 0: ts"),
        ([True], None, "ts: must be a time.*'bool'"),
    ],
)
def test_what_is_no_time_is_named_with_its_row(values: list[Any], unit: Unit | None, match: str) -> None:
    with pytest.raises(FieldError, match=match):
        read(values, unit)
