from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from decision.errors import FieldError
from pipelines.operations.init import SESSIONS, init_loop, loop_toml
from pipelines.settings import LoopSettings, load_loop, load_settings, parse_loop


def _keys(kind: type[Any], path: str = "") -> set[str]:
    found: set[str] = set()
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= _keys(field.type, f"{path}{field.name}.")
        else:
            found.add(f"{path}{field.name}")
    return found


def test_the_written_file_is_exactly_the_defaults() -> None:
    assert parse_loop(loop_toml("news"), "news", {}) == LoopSettings(name="news")


def test_the_written_file_shows_every_setting() -> None:
    """What has no default stands there as a comment, ready to be filled in."""
    written = tomllib.loads(re.sub(r"(?m)^# (\w+) =$", r"\1 = 1", loop_toml("news")))
    flat = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in written.items()
        for key in (value if isinstance(value, dict) else [""])
    }
    assert flat == _keys(LoopSettings)


def test_every_setting_has_a_comment_above_it() -> None:
    lines = loop_toml("news").splitlines()
    for above, line in pairwise(lines):
        if " = " in line and not line.startswith("#"):
            assert above.startswith("# "), line


def test_comments_name_choices_and_limits() -> None:
    text = loop_toml("news")
    assert '(one of "online", "apprentice", "logging_only")' in text
    assert "(above 0 and below 0.5)" in text


def test_given_values_replace_defaults_and_nothing_else() -> None:
    text = loop_toml("news", {"reward.window_s": 2.5, "policy.oracle": "linear", "deferred": True})
    loop = parse_loop(text, "news", {})
    assert (loop.reward.window_s, loop.policy.oracle, loop.deferred) == (2.5, "linear", True)
    assert loop.training == LoopSettings(name="news").training


def test_a_value_for_no_setting_is_refused_by_name() -> None:
    with pytest.raises(FieldError, match=r"reward\.window"):
        loop_toml("news", {"reward.window": 3})


def test_init_writes_a_loop_that_loads_and_refuses_to_do_so_twice(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path))
    path = init_loop(settings, "news")
    assert load_loop(settings, "news", {}) == LoopSettings(name="news")
    path.write_text("deferred = true")
    with pytest.raises(FieldError) as caught:
        init_loop(settings, "news")
    assert caught.value.field == "loop"
    assert path.read_text() == "deferred = true"
    init_loop(settings, "news", replace=True)
    assert not load_loop(settings, "news", {}).deferred


def test_init_with_a_value_that_does_not_fit_writes_nothing(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path))
    with pytest.raises(FieldError, match="window_s"):
        init_loop(settings, "news", values={"reward.window_s": -1})
    assert not settings.loop_path("news").exists()


def test_a_loop_with_sessions_is_one_that_can_be_read(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path))
    init_loop(settings, "feed", values=SESSIONS)
    loop = load_loop(settings, "feed", {})
    assert (loop.policy.oracle, loop.policy.exploration, loop.features.enabled) == ("session", "softmax", True)
    assert (loop.guard.unit, loop.session.method, loop.session.also) == ("episode", "sim2rec", ("clone",))
