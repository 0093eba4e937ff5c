"""Settings of a loop that machines share: what was applied is in force everywhere, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from decision.errors import FieldError
from pipelines.operations.apply import Applied, SettingsMovedError, applied, apply
from pipelines.settings import Settings, list_loops, load_loop, load_loops, load_settings

FIRST, SECOND = "[reward]\nwindow_s = 30\n", "[reward]\nwindow_s = 60\n[guard]\nenabled = true\n"


@pytest.fixture
def machines(tmp_path: Path) -> list[Settings]:
    """Two homes that share State."""
    state = f"sqlite:///{tmp_path / 'state.db'}"
    return [load_settings({}, home=str(tmp_path / name), state=state) for name in ("a", "b")]


def put(settings: Settings, text: str, name: str = "news", **changes: object) -> Applied:
    return apply(settings, text, name, **{"by": "ann", "environ": {}, **changes})  # type: ignore[arg-type]


def test_what_one_machine_applies_is_in_force_on_all(machines: list[Settings]) -> None:
    a, b = machines
    assert list_loops(b) == []
    assert put(a, FIRST) == Applied(loop="news", version=1, changed={}, new=True)
    assert list_loops(b) == ["news"]
    assert load_loop(b, "news", {}).reward.window_s == 30.0
    done = put(b, SECOND, by="bob")
    assert done.version == 2
    assert done.changed == {"guard.enabled": (False, True), "reward.window_s": (30.0, 60.0)}
    assert load_loop(a, "news", {}).guard.enabled
    assert [(change.version, change.by) for change in applied(a, "news")] == [(1, "ann"), (2, "bob")]


def test_a_file_of_one_machine_alone_is_not_in_force(machines: list[Settings]) -> None:
    a, _ = machines
    put(a, FIRST)
    for name in ("news", "other"):
        path = a.loop_path(name)
        path.parent.mkdir(parents=True)
        path.write_text(SECOND)
    assert list_loops(a) == ["news"]
    assert load_loop(a, "news", {}).reward.window_s == 30.0


def test_the_same_text_again_is_no_change(machines: list[Settings]) -> None:
    put(machines[0], FIRST)
    assert put(machines[1], FIRST) == Applied(loop="news", version=1, changed={}, new=False)
    assert len(applied(machines[0], "news")) == 1


@pytest.mark.parametrize(("expected", "stands"), [(1, 2), (0, 2), (3, 2)])
def test_settings_that_moved_meanwhile_are_not_overwritten(
    machines: list[Settings], expected: int, stands: int
) -> None:
    put(machines[0], FIRST, expected=0)
    put(machines[1], SECOND, expected=1)
    with pytest.raises(SettingsMovedError, match=f"expected version {expected}, found {stands}"):
        put(machines[0], FIRST, expected=expected)
    assert load_loop(machines[0], "news", {}).reward.window_s == 60.0


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[reward]\nwindow_s = -1\n", r"reward\.window_s"),
        ("[rewards]\n", "rewards"),
        ("name = 'other'\n", "name"),
        ("= 1", "line 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name_and_change_nothing(
    machines: list[Settings], text: str, field: str
) -> None:
    put(machines[0], FIRST)
    with pytest.raises(FieldError, match=field):
        put(machines[0], text)
    assert load_loop(machines[1], "news", {}).reward.window_s == 30.0


def test_a_variable_of_one_machine_cannot_change_what_all_share(machines: list[Settings]) -> None:
    put(machines[0], FIRST)
    variable = "DECISION_LOOP_NEWS__REWARD__WINDOW_S"
    with pytest.raises(FieldError, match=variable):
        load_loop(machines[0], "news", {variable: "5"})
    with pytest.raises(FieldError, match=variable):
        put(machines[0], SECOND, environ={variable: "5"})
    assert load_loop(machines[0], "news", {"DECISION_LOOP_OTHER__REWARD__WINDOW_S": "5"}).reward.window_s == 30.0


def test_settings_of_a_later_release_leave_the_other_loops_alone(machines: list[Settings]) -> None:
    from pipelines.settings import settings_key
    from pipelines.state.state import State

    put(machines[0], FIRST)
    with State(machines[0].state_url) as state:
        state.put({settings_key("new"): (None, b"[later]\nkey = 1\n")})
    loops, errors = load_loops(machines[1], {})
    assert list(loops) == ["news"]
    assert list(errors) == ["new"]
    assert "as applied" in errors["new"]


def test_without_a_shared_state_the_file_is_in_force_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="as it is edited"):
        put(load_settings({}, home=str(tmp_path)), FIRST)
