"""Log lines: one a step, with the numbers of its result, and no secret in any of them."""

from __future__ import annotations

import io
import json
import logging
from contextvars import copy_context
from pathlib import Path

import msgspec
import pytest

from pipelines.logs import ABOUT, JsonFormatter, TextFormatter, masked, numbers, set_up, step, tell
from pipelines.nightly import STEPS, nightly
from pipelines.registry.registry import Registry
from tests.worlds.synthetic import LATER, new_loop, new_settings, open_parts, play


def told(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class Result(msgspec.Struct):
    rows: int = 3
    loss: float = 1 / 3
    by: dict[str, int] = msgspec.field(default_factory=lambda: {"a": 1})
    names: tuple[str, ...] = ("x", "y")
    text: str = "x" * 300
    bad: float = float("nan")


def test_numbers_are_single_values_lists_are_counted_and_long_texts_left_out() -> None:
    assert numbers(Result()) == {"rows": 3, "loss": 0.333333, "by.a": 1, "names": 2, "bad": None}


def test_a_step_tells_its_numbers_under_its_own_module(lines: io.StringIO) -> None:
    @step("counted", worth=lambda result: result.rows > 1)
    def count(rows: int) -> Result:
        return Result(rows=rows)

    logging.getLogger(__name__).setLevel(logging.INFO)
    count(1)
    count(2)
    (line,) = told(lines)
    assert (line["event"], line["logger"], line["rows"], line["level"]) == ("counted", __name__, 2, "info")
    assert line["seconds"] >= 0


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("postgresql+psycopg://ann:s3cret@db:5432/x failed", "ann"),
        ("kafka://b1:9092?sasl_plain_password=s3cret&security_protocol=SSL", "security_protocol=SSL"),
        ("http://u:s3cret@mlflow/", "mlflow"),
        ("redis://:s3cret@cache:6379/0", "cache"),
        ("https://x/?api_key=s3cret", "api_key="),
    ],
)
def test_a_password_in_an_address_reaches_no_line(text: str, kept: str, lines: io.StringIO) -> None:
    assert "s3cret" not in masked(text)
    assert kept in masked(text)
    log = logging.getLogger("pipelines.test")
    log.warning("cannot reach %s", text, extra={"fields": {"address": text}})
    try:
        raise OSError(text)
    except OSError:
        log.exception("failed")
    for form in ("text", "json"):
        set_up(form, logging.INFO, lines)
        log.warning("again %s", text)
    assert "s3cret" not in lines.getvalue()
    assert lines.getvalue().count("***") >= 5


def test_a_field_never_takes_the_place_of_the_lines_own() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "done", (), None)
    record.fields = {"time": 3, "event": "other", "rows": 1}
    line = json.loads(JsonFormatter().format(record))
    assert (line["event"], line["event_"], line["time_"], line["rows"]) == ("done", "other", 3, 1)


def test_a_field_of_several_lines_stays_on_its_own() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "done", (), None)
    record.fields = {"loop": "a\n12:00:00_forged", "event_id": "b\u2028c", "version": 3}
    line = TextFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert "version=3" in line


def test_a_line_says_what_its_request_is_about_and_its_own_fields_go_before_it() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "done", (), None)
    record.fields = {"loop": "own"}

    def formatted() -> dict[str, str]:
        ABOUT.set(lambda: {"loop": "news", "event_id": "e" * 1_000})
        return json.loads(JsonFormatter().format(record))

    line = copy_context().run(formatted)
    assert (line["loop"], line["event_id"]) == ("own", "e" * 200)
    assert "event_id" not in json.loads(JsonFormatter().format(record))


def test_a_night_goes_by_in_lines_with_the_numbers_of_its_manifest(tmp_path: Path, lines: io.StringIO) -> None:
    settings = new_settings(tmp_path)
    loop, (log, lake) = new_loop(settings, "shop"), open_parts(settings)
    play(log, loop.name, 600)
    run = nightly(settings, log, lake, Registry(settings), loop, now=LATER)
    log.close()
    seen = told(lines)
    done = {line["step"]: line for line in seen if line["event"] == "step done"}
    assert list(done) == list(STEPS)
    for name in STEPS:
        result = run.result(name)
        assert result is not None
        expected = {key: value for key, value in numbers(result).items() if key not in ("loop", "run", "step")}
        assert {key: done[name].get(key, done[name].get(f"{key}_")) for key in expected} == expected
    assert {"ingested", "joined", "trained", "evaluated", "judged at the gate", "night done"} <= {
        line["event"] for line in seen
    }
    assert [line["verdict"] for line in seen if line["event"] == "night done"] == [run.verdict]


def test_nothing_is_computed_where_nobody_listens() -> None:
    calls: list[int] = []

    @step("quiet", worth=lambda result: calls.append(1) is None)
    def quiet() -> int:
        return 1

    logging.getLogger(__name__).setLevel(logging.WARNING)
    assert quiet() == 1
    assert calls == []
    tell(logging.getLogger(__name__), "unheard", {})
