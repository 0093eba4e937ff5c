"""State keeps its contract on a SQLite file and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decision.errors import FieldError
from pipelines.state import postgresql
from pipelines.state.failures import StaleError, StateError
from pipelines.state.state import Entry, State
from tests.contracts.state import CHECKS
from tests.postgres_server import new_database, own_server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    return str(request.getfixturevalue("postgres_database"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_state_keeps_its_contract(check: Callable[[str], None], url: str) -> None:
    check(url)


KEYS = st.sampled_from(["a", "b", "loop/a", "loop/b"])
CHANGES = st.dictionaries(
    KEYS, st.tuples(st.sampled_from([None, 1, 2, 3]), st.none() | st.binary(max_size=3)), min_size=1
)


@given(steps=st.lists(CHANGES, max_size=12))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changes_do_what_they_do_to_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[dict[str, tuple[int | None, bytes | None]]]
) -> None:
    model: dict[str, tuple[int, bytes | None]] = {}
    with State(f"sqlite:///{tmp_path_factory.mktemp('state') / 'state.db'}") as state:
        for changes in steps:
            fits = all(
                (model.get(key, (0, None))[1] is None)
                if expected is None
                else (model.get(key, (0, None))[0] == expected and model[key][1] is not None)
                for key, (expected, _) in changes.items()
            )
            try:
                state.put(changes)
                assert fits
                model |= {key: (model.get(key, (0, None))[0] + 1, value) for key, (_, value) in changes.items()}
            except StaleError:
                assert not fits
            there = {key: Entry(version, value) for key, (version, value) in model.items() if value is not None}
            assert state.entries("") == there
            assert state.versions("loop/") == {k: e.version for k, e in there.items() if k.startswith("loop/")}


def test_an_address_that_is_none_is_named_and_keeps_its_password() -> None:
    with pytest.raises(FieldError, match="state"):
        State("nonsense")
    with pytest.raises(FieldError, match="state"):
        State("mysql://ann:s3cret@db/x")
    assert "s3cret" not in repr(State("postgresql://ann:s3cret@localhost:1/x"))


def test_a_database_that_is_away_is_an_error_of_state(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError):
        State(f"sqlite:///{tmp_path / 'file' / 'state.db'}").get("a")


@pytest.mark.connected
def test_a_server_that_hangs_is_not_waited_for() -> None:
    """Neither by a connection that is kept nor by a new one; when it goes on, so does State."""
    with own_server() as server, State(new_database(server.uri)) as state:
        state.put({"a": (None, b"1")})
        server.freeze(on=True)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(postgresql, "CONNECT_S", 1)
                with pytest.raises(StateError, match="does not answer for 1 s"):
                    state.get("a")
                with pytest.raises(StateError, match="timeout"):
                    state.get("a")
        finally:
            server.freeze(on=False)
        assert state.get("a") == Entry(1, b"1")
        assert state.put({"a": (1, b"2")}) == {"a": 2}
