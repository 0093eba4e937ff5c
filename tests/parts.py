"""Real parts that tests start: a missing one skips its tests with the reason, and fails them under CI=true."""

from __future__ import annotations

import os

import pytest


def require(condition: object, reason: str) -> None:
    """Skip the calling test with `reason` unless `condition` holds; under ``CI=true`` fail it instead."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"a part is missing under CI: {reason}")
    pytest.skip(reason)
