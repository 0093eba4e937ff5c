"""A loop whose file cannot be read is named with what is wrong, and stops no other loop, whatever command runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from decision.errors import FieldError
from pipelines.fairness.anchors import anchors_key, published
from pipelines.fairness.erase import erase_payloads
from pipelines.fairness.store import Governance
from pipelines.nightly import nightly
from pipelines.operations.installation import Installation
from pipelines.operations.status import look, status_table
from pipelines.registry.registry import Registry
from pipelines.settings import Settings, list_loops, load_loop, load_loops
from pipelines.state.state import State
from tests.worlds.synthetic import LATER, new_loop, new_settings, play


def _text(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


def _nested(path: Path) -> None:
    path.write_text("a = " + "[" * 100_000)


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    path.write_text("")
    path.chmod(0)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "toml": (_text("[gate]\nalpha = = 3"), "line 2: must be valid TOML: Invalid value"),
    "key": (_text("[gate]\nalhpa = 0.1"), "gate.alhpa: unknown setting; did you mean 'gate.alpha'? known: alpha, "),
    "section": (_text("gamma = 3.0"), "gamma: unknown setting; did you mean 'policy.gamma'?"),
    "choice": (_text("[policy]\nexploration = 'falkon'"), "is 'falkon'; did you mean 'falcon'?"),
    "bound": (_text("[gate]\nalpha = 0.7"), "gate.alpha: must be a number above 0 and below 0.5, is 0.7"),
    "type": (_text("[gate]\nalpha = 'x'"), "gate.alpha: must be a number above 0 and below 0.5, is 'x'"),
    "table": (_text("gate = 3"), "gate: must be a table, is 3"),
    "nan": (_text("[gate]\nmargin = nan"), "gate.margin: must be a finite number at least 0, is nan"),
    "relation": (
        _text("[reward]\nminimum = 2.0\nmaximum = 1.0"),
        "reward.maximum: must be above minimum = 2.0, is 1.0",
    ),
    "name": (_text("name = 'other'"), "name: must be 'bad', the name of its folder, is 'other'"),
    "digits": (_text("port = " + "9" * 10_000), "file: must be valid TOML: Exceeds the limit"),
    "nested": (_nested, "file: must be TOML that is nested less deeply"),
    "utf8": (lambda path: path.write_bytes(b"mode = 'online'\nname = '\xe9'") and None, "line 2: must be UTF-8"),
    "large": (_text("#" * (2 << 20)), "file: must be at most 1,048,576 bytes, is 2097152"),
    "folder": (_folder, "file: must be a file, is a folder"),
    "pipe": (_pipe, "file: must be a file, is a pipe or device"),
    "unreadable": (_unreadable, "file: cannot be read: Permission denied"),
}


@pytest.fixture(params=BAD)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Settings, str]:
    """Return an installation with a good loop and a bad one, and what is said of the bad one."""
    settings = new_settings(tmp_path)
    new_loop(settings, "good")
    path = tmp_path / "loops" / "bad" / "loop.toml"
    path.parent.mkdir(parents=True)
    make, said = BAD[request.param]
    make(path)
    return settings, said


def test_the_error_names_loop_file_key_and_what_fits(home: tuple[Settings, str]) -> None:
    settings, said = home
    with pytest.raises(FieldError) as caught:
        load_loop(settings, "bad", {})
    assert str(caught.value).startswith(f"loop 'bad', {settings.loop_path('bad')}: ")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_byte_order_mark_before_the_settings_is_passed_over(tmp_path: Path) -> None:
    settings = new_settings(tmp_path)
    new_loop(settings, "marked")
    settings.loop_path("marked").write_text("mode = 'apprentice'", encoding="utf-8-sig")
    assert load_loop(settings, "marked", {}).mode == "apprentice"


def test_the_others_are_read_and_every_loop_is_listed(home: tuple[Settings, str]) -> None:
    settings, said = home
    loops, errors = load_loops(settings, {})
    assert (list(loops), list(errors)) == (["good"], ["bad"])
    assert said in errors["bad"]
    assert list_loops(settings) == ["bad", "good"]


def test_top_shows_the_bad_loop_with_its_error_and_the_good_one_with_its_counters(home: tuple[Settings, str]) -> None:
    settings, said = home
    with Installation(settings) as parts:
        play(parts.log, "good", 10)  # type: ignore[arg-type]
        seen = look(parts)
    terminal = Console(width=80, file=StringIO(), force_terminal=False)
    terminal.print(status_table(seen))
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "does not run" in " ".join(shown.split())
    assert "".join(seen.loops[0].error.split()) in "".join(shown.split())  # whole, however narrow the terminal
    bad, good = seen.loops
    assert (bad.loop, bad.mode, bad.counters) == ("bad", "", None)
    assert said in bad.error
    assert good.counters is not None
    assert good.error == ""


def test_features_of_the_others_are_pushed_and_the_error_is_logged_once(
    home: tuple[Settings, str], caplog: pytest.LogCaptureFixture
) -> None:
    settings, said = home
    with Installation(settings) as parts, caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert parts.push_features() == 0
    told = [record.getMessage() for record in caplog.records if "loop 'bad'" in record.getMessage()]
    assert len(told) == 1
    assert said in told[0]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Installation]:
    settings = new_settings(tmp_path)
    new_loop(settings, "good")
    path = tmp_path / "loops" / "bad" / "loop.toml"
    path.parent.mkdir(parents=True)
    path.write_text("gamma = 3.0")
    with Installation(settings) as parts:
        yield parts


def test_a_night_of_another_loop_goes_through_and_keeps_the_bad_loops_records(two: Installation) -> None:
    play(two.log, "good", 20)  # type: ignore[arg-type]
    play(two.log, "bad", 5)  # type: ignore[arg-type]
    run = nightly(two.settings, two.log, two.lake, Registry(two.settings), two.loop("good"), now=LATER)
    assert run.status == "done"
    counted = run.result("ingest")
    assert counted is not None
    assert (counted["decisions"], counted["dead_letters"]) == (25, 0)


def test_a_folder_whose_name_is_none_for_a_loop_stops_nothing(two: Installation) -> None:
    path = two.settings.root / "loops" / "My Loop" / "loop.toml"
    path.parent.mkdir()
    path.write_text("")
    loops, errors = load_loops(two.settings, {})
    assert list(loops) == ["good"]
    assert set(errors) == {"bad", "My Loop"}
    assert [entry.loop for entry in look(two).loops] == ["My Loop", "bad", "good"]


def test_a_subject_is_erased_from_what_a_bad_loop_published(two: Installation) -> None:
    """Its file does not say any more whether it clamps; what it published is written anew without the subject."""
    with Governance.at(two.settings):
        pass
    path = two.settings.anchors_path("bad")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('[{"favoured": {"age": 3.0}, "disfavoured": {"age": 4.0}, "action_id": "a", "limit": 0.1}]')
    erase_payloads(two.settings, two.lake, "someone", now=datetime.now(UTC), by="test")
    assert not path.exists(), "it was in the file of an earlier release"
    with State(two.settings.state_url) as state:
        entry = state.get(anchors_key("bad"))
    assert entry is not None
    assert published(two.settings, "bad", entry.value) == []
