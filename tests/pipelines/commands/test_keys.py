"""`decision keys`: what is made is shown once and kept as a hash, listed with its use, and taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.access.keys import PREFIX, has_keys, shown
from pipelines.operations.processes import check_keys
from pipelines.settings import load_settings
from pipelines.state.state import State
from tests.pipelines import test_cli

run = test_cli.run


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(run: Any, tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "home"))
    assert not has_keys(settings)
    asked = ("--role", "report", "--role", "decide", "--loop", "news", "--tenant", "acme", "--expires", "90d")
    made = run("keys", "create", *asked, "--per-second", "5", "--json").result
    name, secret = shown(made["key"].encode()) or ("", b"")
    assert (made["id"], made["roles"], made["loops"], made["tenant"]) == (name, ["decide", "report"], ["news"], "acme")
    assert made["state"] == "holds"
    with State(settings.state_url) as state:
        (entry,) = state.entries(PREFIX).values()
    assert secret not in entry.value
    assert has_keys(settings)
    check_keys(load_settings({}, home=str(tmp_path / "home"), host="0.0.0.0"))  # it may be reached from elsewhere now
    listed = run("keys", "list")
    assert name in listed.out
    assert secret.decode() not in listed.out + listed.err
    assert run("keys", "revoke", name, "--json").result["state"] == "revoked"
    assert run("keys", "list", "--json").result["keys"][0]["state"] == "revoked"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (("--role", "king"), "role"),
        (("--role", "read", "--loop", "No Loop"), "loop"),
        (("--role", "read", "--tenant", "A B"), "tenant"),
        (("--role", "read", "--expires", "soon"), "expires"),
        (("--role", "read", "--expires", "2020-01-01T00:00:00Z"), "expires"),
        (("--role", "read", "--per-second", "0"), "per_second"),
        (("--role", "read", "--per-day", "0"), "per_day"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_makes_no_key(
    run: Any, tmp_path: Path, asked: tuple[str, ...], field: str
) -> None:
    refused = run("keys", "create", *asked, "--json")
    assert (refused.status, refused.result["field"]) == (2, field)
    assert run("keys", "list", "--json").result["keys"] == []


def test_a_narrow_terminal_has_the_whole_id_which_revoke_wants(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = run("keys", "create", "--role", "admin", "--tenant", "a-rather-long-tenant", "--json").result
    monkeypatch.setenv("COLUMNS", "60")
    assert made["id"] in run("keys", "list").out


def test_a_key_that_is_not_there_cannot_be_revoked(run: Any) -> None:
    assert run("keys", "revoke", "abcdefghijkl", "--json").result["field"] == "id"
