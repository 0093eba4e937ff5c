"""One loop whose file is wrong: the service starts, serves the others, and says what is wrong with that one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.serving.http.test_app import QUESTION, Caller, open_at

BAD: dict[str, Callable[[Path], object]] = {
    "toml": lambda path: path.write_text("mode = "),
    "key": lambda path: path.write_text("modus = 'online'"),
    "value": lambda path: path.write_text("[gate]\nalpha = 7.0\n"),
    "choice": lambda path: path.write_text('[policy]\nexploration = "falkon"\n'),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_loop_with_a_wrong_file_is_named_and_stops_no_other(tmp_path: Path, kind: str) -> None:
    bad = tmp_path / "loops" / "broken" / "loop.toml"
    bad.parent.mkdir(parents=True)
    BAD[kind](bad)
    core = open_at(tmp_path)
    try:
        call = Caller(core)
        assert call("GET", "/readyz").status_code == 200
        assert call("POST", "/v1/loops/news/decide", QUESTION).status_code == 200
        for method, path, body in (
            ("GET", "/v1/loops/broken", None),
            ("POST", "/v1/loops/broken/decide", QUESTION),
            ("POST", "/v1/loops/broken/outcomes", {"event_id": "e", "value": 1.0}),
        ):
            refused = call(method, path, body)
            assert refused.status_code == 503
            assert "broken" in refused.json()["detail"]
        assert call("GET", "/v1/loops/absent").status_code == 404
        if bad.is_dir():
            bad.rmdir()
        bad.write_text("")
        core.loops.refresh()
        assert call("POST", "/v1/loops/broken/decide", QUESTION).status_code == 200
    finally:
        core.close()


def test_a_loop_whose_file_turns_wrong_goes_on_as_it_was(tmp_path: Path) -> None:
    core = open_at(tmp_path)
    try:
        call = Caller(core)
        path = tmp_path / "loops" / "news" / "loop.toml"
        path.write_text("mode = ")
        core.loops.refresh()
        assert call("POST", "/v1/loops/news/decide", QUESTION).status_code == 200
        assert call("GET", "/v1/loops/news").json()["error"]
    finally:
        core.close()


@pytest.mark.parametrize("kind", ["file", "folder", "circle"])
def test_a_loop_whose_settings_go_goes_on_and_says_so_until_they_are_back(tmp_path: Path, kind: str) -> None:
    core = open_at(tmp_path)
    try:
        call = Caller(core)
        path = tmp_path / "loops" / "news" / "loop.toml"
        gone = path.parent if kind == "folder" else path
        away = gone.rename(tmp_path / "away")
        if kind == "circle":
            path.symlink_to(path)
        core.loops.refresh()
        assert call("POST", "/v1/loops/news/decide", QUESTION).status_code == 200
        assert "put them back" in call("GET", "/v1/loops/news").json()["error"]
        if kind == "circle":
            path.unlink()
        away.rename(gone)
        core.loops.refresh()
        assert call("GET", "/v1/loops/news").json()["error"] is None
    finally:
        core.close()
