"""The lake keeps its contract in a folder and at an address of object storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.lake.lake import Lake
from tests.contracts.lake import CHECKS


@pytest.mark.parametrize("where", ["folder", "address"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_lake(check: Callable[[Callable[[], Lake]], None], where: str, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "lake"
    if where == "address":
        folder.mkdir(parents=True)  # object storage has no folders to be made
    check(lambda: Lake(folder if where == "folder" else folder.as_uri()))
