"""Log lines: one a step, with the numbers that its result has, as text for people or as JSON for machines.

A line is an event of a few words and its fields. Nothing about people goes in: results hold counts and versions. What
looks like a password in an address is masked in every line, wherever it comes from.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, ParamSpec, TextIO, TypeVar

import msgspec

from pipelines.settings import LoopSettings

P = ParamSpec("P")
T = TypeVar("T")
Form = Literal["text", "json"]

ABOUT: ContextVar[Callable[[], Mapping[str, str]] | None] = ContextVar("about", default=None)
"""What the lines of a request are about, asked when there is one: loop, event and trace. A field of the line's own goes
before it."""

_PASSWORD = re.compile(r"(?<=://)([^/\s:@]*):([^@/\s]+)@")
_QUERY = re.compile(r"([?&][\w.]*+=)[^&\s'\"]+")
_SECRET = re.compile(r"(?i)password|secret|token|key")
_LONGEST = 200
_DEPTH = 2


def masked(text: str) -> str:
    """Return `text` with the passwords of addresses in it replaced."""

    def hidden(found: re.Match[str]) -> str:
        return f"{found[1]}***" if _SECRET.search(found[1]) else found[0]

    return _QUERY.sub(hidden, _PASSWORD.sub(r"\1:***@", text))


def step(
    event: str, *, worth: Callable[[Any], bool] = lambda result: True
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that logs the numbers of a step's result once it is done, under the step's own module.

    Args:
        event: what was done, as ``joined``.
        worth: whether a result is worth a line; a step that looks every second finds nothing most times.
    """

    def decorate(work: Callable[P, T]) -> Callable[P, T]:
        log = logging.getLogger(work.__module__)

        @functools.wraps(work)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            if not log.isEnabledFor(logging.INFO):
                return work(*args, **kwargs)
            began = time.perf_counter()
            result = work(*args, **kwargs)
            if not worth(result):
                return result
            loops = [value.name for value in (*args, *kwargs.values()) if isinstance(value, LoopSettings)]
            fields: dict[str, Any] = {"loop": loops[0]} if loops else {}
            tell(log, event, fields | numbers(result) | {"seconds": round(time.perf_counter() - began, 3)})
            return result

        return run

    return decorate


def tell(log: logging.Logger, event: str, fields: Mapping[str, Any], level: int = logging.INFO) -> None:
    """Log an event with its fields."""
    log.log(level, event, extra={"fields": fields})


def numbers(result: object) -> dict[str, Any]:
    """Return what a result says in single values, nested ones by dotted names; lists are counted."""
    return dict(_walk("", msgspec.to_builtins(result, enc_hook=str), 0))


def _walk(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        if depth <= _DEPTH:
            for key, inner in value.items():
                yield from _walk(f"{name}.{key}" if name else str(key), inner, depth + 1)
    elif isinstance(value, list | tuple):
        yield name or "rows", len(value)
    elif isinstance(value, float):
        yield name or "value", float(f"{value:.6g}") if math.isfinite(value) else None
    elif not isinstance(value, str) or len(value) <= _LONGEST:
        yield name or "value", value


class TextFormatter(logging.Formatter):
    """``12:00:01 pipelines.training.train trained loop=news version=3 rows=812``, without fields that have no value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        given = _fields(record).items()
        fields = "".join(f" {name}={_plain(value)}" for name, value in given if value not in (None, ""))
        line = f"{at} {record.name} {level}{record.getMessage()}{fields}"
        return masked(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


class JsonFormatter(logging.Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``event``, the event's fields, and ``error`` if there is one.

    A field of the same name as one of these gets an underscore.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": masked(record.getMessage()),
        }
        for name, value in _fields(record).items():
            line[f"{name}_" if name in line else name] = masked(value) if isinstance(value, str) else value
        if record.exc_info:
            line["error"] = masked(self.formatException(record.exc_info))
        return json.dumps(line, default=str, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a line, and what the request is about that it was written for."""
    fields: dict[str, Any] = dict(getattr(record, "fields", {}))
    about = ABOUT.get()
    if about is not None:
        for name, value in about().items():
            fields.setdefault(name, value[:_LONGEST])
    return fields


def _plain(value: Any) -> str:
    """Return a value as a word: in quotes where it has blanks, or what could be taken for the next line."""
    text = str(value)
    if text.isprintable():
        return json.dumps(text, ensure_ascii=False) if " " in text else text
    return json.dumps(text)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours; there is one at most. Without a stream it writes to what standard error is by then: above a bar, if any."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._given = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line."""
        self.stream = self._given or sys.stderr
        super().emit(record)


def set_up(form: Form = "text", level: int | str = logging.WARNING, stream: TextIO | None = None) -> None:
    """Send log lines to `stream`, standard error when None; called again, change form and level."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(handler)
    made = _Handler(stream)
    made.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root.addHandler(made)
    level = level.upper() if isinstance(level, str) else level
    root.setLevel(logging.WARNING)
    for package in ("decision", "simulators", "pipelines", "serving"):
        logging.getLogger(package).setLevel(level)


def take_over(*packages: str) -> None:
    """Have the lines of other packages go out as ours do, once each: their own handlers, and those of the root, go.

    Args:
        packages: names of loggers that have handlers of their own.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler:  # no subclass: those are somebody's on purpose
            root.removeHandler(handler)
    for package in packages:
        log = logging.getLogger(package)
        log.handlers.clear()
        log.propagate = True
