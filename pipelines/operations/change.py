"""Some settings of a loop changed by a program, where they stand: in its file, or where machines share State, there.

The text is written anew, each key with its meaning as `decision init` writes it; comments of one's own are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from decision.errors import FieldError, Words
from pipelines.files import locked, write_atomically
from pipelines.operations.apply import applied, apply, flat
from pipelines.operations.init import loop_toml
from pipelines.settings import LoopSettings, Settings, load_loop, parse_loop, read_loop_file


def change(
    settings: Settings, name: str, values: Mapping[str, Any], *, by: str, environ: Mapping[str, str]
) -> LoopSettings:
    """Put some values into a loop's settings, and return the settings; values that stand already write nothing.

    Args:
        settings: the installation.
        name: the loop.
        values: what changes, {path: value}, as in ``{"reward.window_s": 30.0}``.
        by: who changes, for the history of State.
        environ: this machine's environment; what it says goes before the file.

    Raises:
        FieldError: there is no such loop or setting, a value does not fit, or the environment sets it.
        SettingsMovedError: somebody else applied settings meanwhile.
        StateError: State cannot be reached.
    """
    if settings.state:
        stands = load_loop(settings, name, environ)
        last = applied(settings, name)[-1]
        if last.value is None:
            return stands
        now, changed = _changed(last.value.decode(), name, values, environ)
        if changed:
            apply(settings, changed, name, by=by, environ=environ, expected=last.version)
        return now
    path = settings.loop_path(name)
    if not path.exists():
        return load_loop(settings, name, environ)  # which says that there is none
    with locked(path.with_suffix(".lock")):
        now, changed = _changed(read_loop_file(path), name, values, environ)
        if changed:
            write_atomically(path, changed.encode())
    return now


def changed_at(settings: Settings, name: str) -> datetime:
    """Return when a loop's settings were changed last, UTC.

    Raises:
        OSError: there is no such loop.
        StateError: State cannot be reached.
    """
    if settings.state:
        versions = applied(settings, name)
        if versions:
            return versions[-1].at
    return datetime.fromtimestamp(settings.loop_path(name).stat().st_mtime, UTC)


def _changed(
    text: str, name: str, values: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[LoopSettings, str | None]:
    """Return the settings after the change, and their text; None for the text where nothing changes."""
    stands, defaults = _flat_of(parse_loop(text, name, {})), _flat_of(LoopSettings(name=name))
    if all(path in stands and stands[path] == value for path, value in values.items()):
        return parse_loop(text, name, environ), None
    given = {path: value for path, value in stands.items() if value != defaults[path]} | dict(values)
    written = loop_toml(name, given)
    wanted, found = parse_loop(written, name, {}), parse_loop(written, name, environ)
    there, here = _flat_of(wanted), _flat_of(found)
    for path in values:
        if there[path] != here[path]:
            says = "is set by a variable of this machine's environment, which goes before the settings"
            raise FieldError(path, wanted="free to change", got=Words("set"), says=says)
    return found, written


def _flat_of(loop: LoopSettings) -> dict[str, Any]:
    return flat(msgspec.to_builtins(loop))
