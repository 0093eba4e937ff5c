"""A loop's whole settings put into force by a page: compared first, and kept with who did it.

Where machines share State the settings are there (`pipelines.operations.apply`) with their history. Elsewhere
``loop.toml`` is in force as it is edited, so State keeps the texts that were put into it, under ``edited/LOOP``.
"""

from __future__ import annotations

from collections.abc import Mapping

from decision.errors import FieldError, Words
from pipelines.files import locked, write_atomically
from pipelines.operations.apply import SettingsMovedError, applied, apply, differing
from pipelines.settings import LoopSettings, Settings, check_loop_name, load_loop, parse_loop, read_loop_file
from pipelines.state.state import Change, State

_LONGEST = 64 << 10


def settings_text(settings: Settings, name: str) -> str:
    """Return the text of a loop's settings as it stands.

    Raises:
        FieldError: there is no such loop.
        StateError: State cannot be reached.
    """
    if settings.state:
        last = next((one for one in reversed(applied(settings, name)) if one.value is not None), None)
        if last is None or last.value is None:
            raise FieldError("loop", wanted="a loop whose settings were applied", got=name)
        return last.value.decode()
    return read_loop_file(settings.loop_path(check_loop_name(name)))


def settings_history(settings: Settings, name: str) -> list[Change]:
    """Return the changes of a loop's settings, oldest first; without a State that machines share, those by `edit`.

    Raises:
        StateError: State cannot be reached.
    """
    if settings.state:
        return applied(settings, name)
    with State(settings.state_url) as state:
        return state.history(_key(name))


def edit(
    settings: Settings, text: str, name: str, *, before: str, by: str, environ: Mapping[str, str]
) -> dict[str, tuple[object, object]]:
    """Put a loop's settings into force, and return what differs, {path: (before, now)}.

    Args:
        settings: the installation.
        text: TOML.
        name: the loop; there is one.
        before: the text that the change was made from.
        by: who, for the record.
        environ: this machine's environment; what it says goes before the file.

    Raises:
        FieldError: the settings do not fit.
        SettingsMovedError: somebody else changed them meanwhile.
        StateError: State cannot be reached.
    """
    check_text(text)
    if settings.state:
        last = applied(settings, name)[-1]
        if last.value is None or last.value.decode() != before:
            raise SettingsMovedError(f"settings of {name}: somebody else applied some meanwhile")
        return apply(settings, text, name, by=by, environ=environ, expected=last.version).changed
    path = settings.loop_path(check_loop_name(name))
    with locked(path.with_suffix(".lock")):
        stands = read_loop_file(path)
        if stands != before:
            raise SettingsMovedError(f"settings of {name}: somebody else changed the file meanwhile")
        old, new = load_loop(settings, name, environ), parse_loop(text, name, environ)
        write_atomically(path, text.encode())
    _keep(settings, name, stands, text, by)
    return differing(old, new)


def check_text(text: str) -> None:
    """Refuse a text that is longer than settings are.

    Raises:
        FieldError: it is.
    """
    if len(text) > _LONGEST:
        raise FieldError("settings", wanted=f"at most {_LONGEST:,} characters", got=Words(f"{len(text):,}"))


def tried(text: str, name: str, environ: Mapping[str, str]) -> LoopSettings:
    """Return the settings that a text makes, without putting them into force.

    Raises:
        FieldError: they do not fit.
    """
    check_text(text)
    return parse_loop(text, name, environ)


def _keep(settings: Settings, name: str, before: str, now: str, by: str) -> None:
    key = _key(name)
    with State(settings.state_url) as state:
        entry = state.get(key)
        if entry is None or entry.value != before.encode():  # by an editor, of whom nobody knows the name
            version = state.put({key: (None if entry is None else entry.version, before.encode())}, by="the file")[key]
        else:
            version = entry.version
        state.put({key: (version, now.encode())}, by=by)


def _key(name: str) -> str:
    return f"edited/{check_loop_name(name)}"
