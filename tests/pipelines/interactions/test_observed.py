"""Texts of actions, which are most of a row, are held within bounds, evenly and however they come."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.interactions.observed import with_few_texts

ROWS, LONG = 4_000, 1_000


def tables(*sizes: int) -> list[pa.Table]:
    """Return rows with texts of a thousand bytes, cut into tables of these sizes."""
    whole = pa.table({"offset": np.arange(ROWS), "actions": ["x" * LONG] * ROWS})
    starts = np.cumsum((0, *sizes[:-1])).tolist()
    return [whole.slice(start, size) for start, size in zip(starts, sizes, strict=True)]


def test_long_texts_are_held_up_to_a_bound_and_no_row_is_lost() -> None:
    found = pa.concat_tables(with_few_texts(tables(1_000, 3_000), most=ROWS * LONG // 10))
    held = found["actions"].is_valid().to_numpy()
    assert found["offset"].to_pylist() == list(range(ROWS))
    assert ROWS // 40 <= held.sum() <= ROWS // 10  # the largest power of 1/2 that fits is 1/16
    early, late = np.split(held, 2)
    assert abs(int(early.sum()) - int(late.sum())) <= 10


def test_which_texts_are_held_does_not_depend_on_where_tables_end() -> None:
    one, other = (
        pa.concat_tables(with_few_texts(tables(*sizes), most=ROWS * LONG // 10)) for sizes in ((ROWS,), (10, 90, 3_900))
    )
    assert one["actions"].is_valid().to_pylist() == other["actions"].is_valid().to_pylist()


def test_few_texts_stay_as_they_are() -> None:
    assert with_few_texts(tables(ROWS), most=ROWS * LONG)[0]["actions"].null_count == 0


def test_a_single_text_beyond_the_bound_is_not_held() -> None:
    assert with_few_texts(tables(ROWS), most=LONG - 1)[0]["actions"].null_count == ROWS
