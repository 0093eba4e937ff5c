"""Settings put into force by a page: nothing of somebody else's is lost, and State knows who did it."""

from __future__ import annotations

from pathlib import Path

import pytest

from decision.errors import FieldError
from pipelines.operations.apply import SettingsMovedError, apply
from pipelines.operations.edit import edit, settings_history, settings_text
from pipelines.settings import Settings, load_settings

FIRST, SECOND = "[reward]\nwindow_s = 60.0\n", "[reward]\nwindow_s = 90.0\n"


@pytest.fixture(params=["file", "shared"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "shared":
        made = load_settings({}, home=str(tmp_path), state=f"sqlite:///{tmp_path}/shared.db")
        apply(made, FIRST, "shop", by="the first", environ={})
        return made
    made = load_settings({}, home=str(tmp_path))
    path = made.loop_path("shop")
    path.parent.mkdir(parents=True)
    path.write_text(FIRST)
    return made


def test_a_change_is_in_force_with_what_differs_and_who_did_it(settings: Settings) -> None:
    changed = edit(settings, SECOND, "shop", before=FIRST, by="key abc", environ={})
    assert changed == {"reward.window_s": (60.0, 90.0)}
    assert settings_text(settings, "shop") == SECOND
    history = settings_history(settings, "shop")
    assert [change.value for change in history] == [FIRST.encode(), SECOND.encode()]
    assert history[-1].by == "key abc"


def test_what_somebody_else_changed_meanwhile_is_not_lost(settings: Settings) -> None:
    edit(settings, SECOND, "shop", before=FIRST, by="one", environ={})
    with pytest.raises(SettingsMovedError):
        edit(settings, "[reward]\nwindow_s = 10.0\n", "shop", before=FIRST, by="other", environ={})
    assert settings_text(settings, "shop") == SECOND


@pytest.mark.parametrize("text", ["[reward]\nwindow_s = -1.0\n", "[reward", "mood = 1\n", "#" * 70_000])
def test_settings_that_do_not_fit_change_nothing(settings: Settings, text: str) -> None:
    with pytest.raises(FieldError):
        edit(settings, text, "shop", before=FIRST, by="one", environ={})
    assert settings_text(settings, "shop") == FIRST
    assert len(settings_history(settings, "shop")) == (1 if settings.state else 0)


def test_an_edit_of_the_file_in_between_is_told_apart(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path))
    path = settings.loop_path("shop")
    path.parent.mkdir(parents=True)
    path.write_text(FIRST)
    edit(settings, SECOND, "shop", before=FIRST, by="one", environ={})
    path.write_text("[reward]\nwindow_s = 5.0\n")
    edit(settings, FIRST, "shop", before="[reward]\nwindow_s = 5.0\n", by="two", environ={})
    assert [change.by for change in settings_history(settings, "shop")] == ["the file", "one", "the file", "two"]
