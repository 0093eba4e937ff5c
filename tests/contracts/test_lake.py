"""The lake keeps its contract in a folder and on object storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.lake.lake import Lake
from tests.contracts.lake import CHECKS
from tests.worlds.s3 import BUCKET, S3


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_lake(check: Callable[[Callable[[], Lake]], None], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "lake"
    check(lambda: Lake(folder))


@pytest.mark.connected
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_lake_on_s3(check: Callable[[Callable[[], Lake]], None], s3: S3) -> None:
    check(lambda: Lake(f"s3://{BUCKET}/{check.__name__}/lake"))
