"""A new loop's settings file, written from the settings themselves: every key, its meaning, its limits, its default.

What stands here is read off the classes in `pipelines.settings.loop`, so the file cannot fall behind them.
"""

from __future__ import annotations

import inspect
import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from decision.errors import FieldError
from decision.validation import limits_in_words
from pipelines.files import make_home
from pipelines.settings import (
    LoopSettings,
    Settings,
    check_loop_name,
    list_loops,
    parse_loop,
    unknown_setting,
)

SESSIONS: Mapping[str, Any] = {
    "policy.oracle": "session",
    "policy.exploration": "softmax",
    "features.enabled": True,
    "features.stream": False,
    "guard.enabled": True,
    "guard.unit": "episode",
}
"""What differs from the defaults in a loop whose policy has a memory of its users."""

_WIDTH = 110


def init_loop(settings: Settings, name: str, *, values: Mapping[str, Any] | None = None, replace: bool = False) -> Path:
    """Write the commented settings file of a new loop and return its path.

    Args:
        settings: the installation.
        name: the loop.
        values: what differs from the defaults, ``{"reward.window_s": 30}``.
        replace: overwrite the file of an existing loop.

    Raises:
        FieldError: the loop exists, the name is none, or a value does not fit.
    """
    path = settings.loop_path(name)
    if path.exists() and not replace:
        known = ", ".join(list_loops(settings))
        raise FieldError("loop", wanted=f"a new one (there are {known})", got=name)
    text = loop_toml(name, values)
    parse_loop(text, name, {})
    make_home(settings.root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def loop_toml(name: str, values: Mapping[str, Any] | None = None) -> str:
    """Return the text of ``loop.toml`` for the loop `name`, with every setting at its default or as in `values`.

    Raises:
        FieldError: the name is none, or a key of `values` is no setting.
    """
    given = dict(values or {})
    prefix = f"DECISION_LOOP_{check_loop_name(name).upper().replace('-', '_')}"
    lines = [
        f"# Settings of the loop {name!r}. Every key is shown with its default: change what you need, delete the rest.",
        f"# The environment overrides the file: {prefix}__REWARD__WINDOW_S=30 sets reward.window_s.",
        "",
    ]
    sections: list[tuple[str, Any]] = []
    lines += _keys(LoopSettings, LoopSettings(name=name), "", given, sections)
    for section, default in sections:
        lines += ["", *_comment(summary(type(default))), f"[{section}]"]
        lines += _keys(type(default), default, f"{section}.", given, [])
    if given:
        raise unknown_setting(next(iter(given)))
    return "\n".join(lines) + "\n"


def _keys(
    kind: type[Any], defaults: Any, path: str, given: dict[str, Any], sections: list[tuple[str, Any]]
) -> list[str]:
    said = meanings(kind)
    lines: list[str] = []
    for field in msgspec.structs.fields(kind):
        default = getattr(defaults, field.name)
        if isinstance(default, msgspec.Struct):
            sections.append((field.name, default))
            continue
        limits = _limits(field.type)
        meaning = said.get(field.name, "").rstrip(".")
        lines += _comment(f"{meaning} ({limits})" if limits else meaning)
        value = given.pop(f"{path}{field.name}", default)
        lines.append(f"# {field.name} =" if value is None else f"{field.name} = {as_toml(value)}")
    return lines


def _limits(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(json.dumps(value) for value in get_args(annotation))
    return limits_in_words(annotation)


def summary(kind: type[Any]) -> str:
    """Return what the docstring of a section says first."""
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")


def meanings(kind: type[Any]) -> dict[str, str]:
    """Return what the docstrings of a class and its parents say of its attributes, {name: text}."""
    found: dict[str, str] = {}
    for ancestor in reversed(kind.__mro__):
        found |= _attributes(ancestor)
    return found


def _attributes(kind: type[Any]) -> dict[str, str]:
    _, _, section = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        text = line[4:]
        if text and not text.startswith(" "):
            name, _, text = text.partition(":")
        found[name] = f"{found.get(name, '')} {text.strip()}".strip().replace("``", "`")
    return found


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH)]


def as_toml(value: Any) -> str:
    """Return a setting's value as ``loop.toml`` has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {as_toml(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    return json.dumps(value)  # for text, numbers and booleans TOML and JSON agree
