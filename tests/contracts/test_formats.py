"""Every format that can be written keeps what it holds: written and found again, the rows are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from decision.errors import FieldError
from pipelines.commands.data import WRITABLE
from pipelines.formats.registry import FORMATS, format_of
from pipelines.formats.rows import check_rows
from pipelines.log.open import SCHEMES, open_log

KEPT = ("action_index", "propensity", "reward")


def shipped():
    """Return the rows of the sample's smallest log."""
    found = next(iter(format_of("open-bandit").find(None, "sample")))
    return next(iter(found.batches)).slice(0, 200)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_reads_what_is_there_and_names_what_is_not(name: str, tmp_path: Path) -> None:
    with pytest.raises(FieldError):
        [list(log.batches) for log in format_of(name).find(tmp_path / "nothing", "gone")]


@pytest.mark.parametrize("name", [name for name, entry in FORMATS.items() if not entry.shipped])
def test_a_format_without_a_sample_asks_for_the_path(name: str) -> None:
    with pytest.raises(FieldError, match="path"):
        list(format_of(name).find(None, "x"))


def test_what_can_be_written_says_so_by_its_suffixes() -> None:
    assert {name for name in FORMATS if format_of(name).write is not None} == set(WRITABLE)
    suffixes = [suffix for entry in FORMATS.values() for suffix in entry.suffixes]
    assert len(set(suffixes)) == len(suffixes)


def test_rows_written_are_the_rows_read_again(tmp_path: Path) -> None:
    rows, path = shipped(), tmp_path / "rows.parquet"
    write = format_of("parquet").write
    assert write is not None
    assert write(rows, path) == (200, 0)
    (found,) = format_of("parquet").find(path, "again")
    again = next(iter(found.batches))
    check_rows(again)
    for column in KEPT:
        assert again[column].to_pylist() == rows[column].to_pylist()


@pytest.mark.parametrize("url", ["", "local", "local:", "s3://bucket/log", "kafka://", "kafka:", "kafkas://b:1"])
def test_an_address_of_no_log_names_the_addresses_that_there_are(url: str) -> None:
    with pytest.raises(FieldError, match="log") as refused:
        open_log(url)
    if url.partition(":")[0] not in SCHEMES:
        assert "local:" in refused.value.wanted
        assert "kafka:" in refused.value.wanted
