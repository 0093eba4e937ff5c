"""A loop's settings as they are read: its file, then the environment over it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from decision.errors import FieldError, Words, nearest_of
from decision.validation import convert
from pipelines.settings.installation import Settings, check_loop_name, from_variable
from pipelines.settings.loop import LoopSettings
from pipelines.state.state import Entry, State

_FORMER = {("training", "candidates"): "variants"}
"""Keys of a loop's file that have other names now."""
MAX_FILE_BYTES = 1 << 20
LOOPS = "loop/"
"""How the keys of State begin that every replica looks at."""
_SETTINGS = "/settings"


def load_loop(settings: Settings, name: str, environ: Mapping[str, str] | None = None) -> LoopSettings:
    """Return the settings of the loop `name`: of its file, or where machines share State, as they were applied.

    Raises:
        FieldError: the loop does not exist, its file cannot be read, or it or the environment holds a key or value that
            does not fit; names the loop, the file and the key.
        StateError: State cannot be reached.
    """
    environ = os.environ if environ is None else environ
    if settings.state:
        entry = _entry(settings, check_loop_name(name))
        if entry is None:
            raise _no_loop(name, list_loops(settings))
        return parse_applied(entry.value, name, environ)
    path = settings.loop_path(name)
    if not path.exists():
        raise _no_loop(name, list_loops(settings))
    try:
        return parse_loop(read_loop_file(path), name, environ)
    except FieldError as error:
        raise (error if error.source else error.from_source(f"loop {name!r}, {path}")) from None


def parse_applied(text: bytes, name: str, environ: Mapping[str, str]) -> LoopSettings:
    """Return the settings of the loop `name` from what was applied, the same on every machine.

    Raises:
        FieldError: it does not fit this release, or a variable of this machine alone wants to change it.
    """
    refuse_overrides(name, environ)
    try:
        return parse_loop(text.decode(), name, {})
    except FieldError as error:
        raise (error if error.source else error.from_source(f"loop {name!r}, as applied")) from None


def refuse_overrides(name: str, environ: Mapping[str, str]) -> None:
    """Refuse variables that change the settings of a loop which machines share.

    Raises:
        FieldError: there is one.
    """
    for variable in sorted(environ):
        if variable.startswith(_prefix(name)):
            says = "changes the loop on this machine alone: put it into loop.toml, and `decision apply` that"
            raise FieldError(variable, wanted="unset", got=Words("set"), says=says)


def load_loops(
    settings: Settings, environ: Mapping[str, str] | None = None
) -> tuple[dict[str, LoopSettings], dict[str, str]]:
    """Return the settings of the loops that can be read, and why the others cannot, each by the loop's name."""
    loops: dict[str, LoopSettings] = {}
    errors: dict[str, str] = {}
    for name in list_loops(settings):
        try:
            loops[name] = load_loop(settings, name, environ)
        except FieldError as error:
            errors[name] = str(error)
    return loops, errors


def parse_loop(text: str, name: str, environ: Mapping[str, str]) -> LoopSettings:
    """Return the loop settings in the TOML `text`, overridden by `environ`.

    Raises:
        FieldError: as `load_loop`.
    """
    values = _parsed(text)
    values.setdefault("name", name)
    if values["name"] != name:
        raise FieldError("name", wanted=f"{name!r}, the name of its folder", got=values["name"])
    _renamed(values)
    _check_keys(values, LoopSettings, "")
    variables = _override(values, name, environ)
    try:
        return convert(values, LoopSettings)
    except FieldError as error:
        raise from_variable(error, variables) or error from None


def list_loops(settings: Settings) -> list[str]:
    """Return the names of the installation's loops, sorted; also of those whose settings cannot be read.

    Raises:
        StateError: State cannot be reached.
    """
    if settings.state:
        with State(settings.state_url) as state:
            return applied_loops(state.versions(LOOPS))
    return sorted(path.parent.name for path in (settings.root / "loops").glob("*/loop.toml"))


def applied_loops(keys: Iterable[str]) -> list[str]:
    """Return the names of the loops whose settings stand under one of the `keys` of State, sorted."""
    return sorted(key[len(LOOPS) : -len(_SETTINGS)] for key in keys if key.endswith(_SETTINGS))


def settings_key(name: str) -> str:
    """Return the key under which a loop's settings stand in State."""
    return f"{LOOPS}{name}{_SETTINGS}"


def setting_names(kind: type[msgspec.Struct] = LoopSettings, path: str = "") -> list[str]:
    """Return the paths of all settings of a loop, as in ``gate.alpha``."""
    found: list[str] = []
    for field in msgspec.structs.fields(kind):
        section = _section(field.type)
        found += [f"{path}{field.name}"] if section is None else setting_names(section, f"{path}{field.name}.")
    return found


def unknown_setting(key: str) -> FieldError:
    """Return the error of a setting that does not exist, with the one that was probably meant, in any section."""
    section, dot, leaf = key.rpartition(".")
    paths = setting_names()
    beside = [path.removeprefix(f"{section}{dot}") for path in paths if path.startswith(f"{section}{dot}")]
    known = list(dict.fromkeys(name.partition(".")[0] for name in beside))
    near = nearest_of(leaf, known)
    if near is not None:
        nearest: str | None = f"{section}{dot}{near}"
    else:
        nearest = next((path for path in paths if path.rpartition(".")[2] == leaf), None) or nearest_of(key, paths)
    return FieldError.unknown(key, known, nearest=nearest, noun="setting")


def _renamed(values: dict[str, Any]) -> None:
    """Give a section's former keys their present names, so that a file of an earlier release still reads."""
    for (section, former), present in _FORMER.items():
        found = values.get(section)
        if isinstance(found, dict) and former in found and present not in found:
            found[present] = found.pop(former)


def _no_loop(name: str, known: list[str]) -> FieldError:
    if known:
        return FieldError.choice("loop", known, name)
    says = f"there is no loop {name!r}, nor any other; `decision init {name}` makes it"
    return FieldError("loop", wanted="a loop that exists", got=name, says=says)


def _entry(settings: Settings, name: str) -> Entry | None:
    with State(settings.state_url) as state:
        return state.get(settings_key(name))


def read_loop_file(path: Path) -> str:
    """Return the text of a loop's settings file.

    Raises:
        FieldError: it cannot be read, is too large, or no UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise FieldError("file", wanted="a file", got=Words("a folder" if path.is_dir() else "a pipe or device"))
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FieldError("file", wanted=f"at most {MAX_FILE_BYTES:,} bytes", got=path.stat().st_size)
        data = path.read_bytes()
        return data.removeprefix(BOM_UTF8).decode()  # some editors begin a file so
    except OSError as error:
        raise FieldError("file", wanted="readable", got=error, says=f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        says = f"must be UTF-8, is not at byte {error.object[error.start]:#04x}"
        raise FieldError(f"line {line}", wanted="UTF-8", got=error, says=says) from error


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise FieldError("file", wanted="TOML that is nested less deeply", got=Words("deeper")) from error
    except ValueError as error:  # TOMLDecodeError, and numbers of thousands of digits
        message, _, place = str(error).rpartition(" (at ")
        line = re.fullmatch(r"line (\d+), column \d+\)", place)
        field = f"line {line[1]}" if line else "file"
        says = f"must be valid TOML: {message or error}"
        raise FieldError(field, wanted="valid TOML", got=error, says=says) from error


def _check_keys(values: dict[str, Any], kind: type[msgspec.Struct], path: str) -> None:
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in values.items():
        if key not in fields:
            raise unknown_setting(f"{path}{key}")
        section = _section(fields[key])
        if isinstance(value, dict) and section is not None:
            _check_keys(value, section, f"{path}{key}.")


def _override(values: dict[str, Any], name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Put the variables of the loop `name` over `values`; return {setting: how errors name its variable}."""
    prefix = _prefix(name)
    variables: dict[str, str] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(prefix):
            continue
        path = variable.removeprefix(prefix).lower().split("__")
        setting, source = ".".join(path), f"loop {name!r}, variable {variable}"
        try:
            kind = _setting_type(path)
        except FieldError as error:
            raise error.from_source(source) from None
        variables[setting] = source
        target: Any = values
        for section in path[:-1]:
            target = target.setdefault(section, {}) if isinstance(target, dict) else None
        if isinstance(target, dict):  # else the file holds a wrong value there, which is told of first
            target[path[-1]] = _from_text(text, kind)
    return variables


def _prefix(name: str) -> str:
    return f"DECISION_LOOP_{name.upper().replace('-', '_')}__"


def _setting_type(path: list[str]) -> Any:
    kind: Any = LoopSettings
    for position, key in enumerate(path):
        section = _section(kind)
        if section is None:
            raise unknown_setting(".".join(path))
        fields = {field.name: field.type for field in msgspec.structs.fields(section)}
        if key not in fields:
            raise unknown_setting(".".join(path[: position + 1]))
        kind = fields[key]
    return kind


def _section(kind: Any) -> type[msgspec.Struct] | None:
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def _from_text(text: str, kind: Any) -> Any:
    plain = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    try:
        value = json.loads(text)
        return text if plain is str and not isinstance(value, str) else value
    except (ValueError, RecursionError):
        pass
    try:
        return float(text) if plain is float else text
    except ValueError:
        return text
