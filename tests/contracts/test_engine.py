"""Every engine of the registry keeps the contract; Ray's on two workers that are started for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import pytest

from pipelines.engines.engine import Engine
from pipelines.engines.registry import ENGINES, EngineName, engine_of
from tests.contracts.engine import CHECKS
from tests.parts import require


@pytest.fixture(
    scope="module",
    params=[name if name == "local" else pytest.param(name, marks=pytest.mark.connected) for name in ENGINES],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param != "ray":
        yield engine_of(request.param)
        return
    try:
        import ray
    except ImportError:
        require(None, "Ray is not installed")
        raise
    yield engine_of("ray", workers=2)
    ray.shutdown()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_engine(check: Callable[[Engine], None], engine: Engine) -> None:
    check(engine)


def test_the_command_line_knows_the_engines_that_there_are() -> None:
    assert get_args(EngineName) == tuple(ENGINES)
