"""The in-process client keeps the contract, in a bare loop and in one with features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.client import Client
from tests.contracts.client import CHECKS
from tests.worlds.synthetic import new_loop, new_settings


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("text", ["", "[features]\nenabled = true\n"], ids=["bare", "features"])
def test_client(check: Callable[[Callable[[], Client]], None], text: str, tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    new_loop(settings, "news", text)
    check(lambda: Client(settings))
