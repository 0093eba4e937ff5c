"""A loop's settings on every machine at once, where machines share State; who changed them, and when.

One machine edits ``loop.toml`` in place. Machines that share State read the same text from there, each within
``reload_s`` of its being applied, and no variable of one of them changes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from decision.errors import DecisionError, FieldError, Words
from pipelines.settings import LoopSettings, Settings, check_loop_name, parse_loop, refuse_overrides, settings_key
from pipelines.state.failures import StaleError
from pipelines.state.state import Change, State


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What came of applying.

    Attributes:
        loop: the loop.
        version: of its settings, from 1 on.
        changed: settings whose values differ from those before, {path: (before, now)}; of a new loop, none.
        new: there was no such loop before.
    """

    loop: str
    version: int
    changed: dict[str, tuple[Any, Any]]
    new: bool


class SettingsMovedError(DecisionError):
    """Somebody else applied settings meanwhile."""


def apply(
    settings: Settings, text: str, name: str, *, by: str, environ: Mapping[str, str], expected: int | None = None
) -> Applied:
    """Put a loop's settings into State, for every machine; the same text again changes nothing.

    Args:
        settings: the installation.
        text: TOML, as of ``loop.toml``.
        name: the loop.
        by: who applies, for the history.
        environ: this machine's environment; it may hold nothing over the loop's settings.
        expected: version that the settings must have before, 0 for a new loop; None for any.

    Raises:
        FieldError: machines share no State, or the settings do not fit.
        SettingsMovedError: they are not at the version expected.
        StateError: State cannot be reached.
    """
    key = settings_key(check_loop_name(name))
    refuse_overrides(name, environ)
    now = parse_loop(text, name, {})
    with _shared(settings) as state:
        entry = state.get(key)
        stands = 0 if entry is None else entry.version
        if expected is not None and expected != stands:
            told = f"`decision apply --loop {name} --history` shows who applied what"
            raise SettingsMovedError(f"settings of {name}: expected version {expected}, found {stands}; {told}")
        if entry is not None and entry.value == text.encode():
            return Applied(loop=name, version=stands, changed={}, new=False)
        before = None if entry is None else _readable(entry.value, name)
        try:
            version = state.put({key: (stands or None, text.encode())}, by=by)[key]
        except StaleError as error:
            raise SettingsMovedError(f"settings of {name}: somebody else applied some meanwhile") from error
    return Applied(loop=name, version=version, changed=_changed(before, now), new=entry is None)


def applied(settings: Settings, name: str) -> list[Change]:
    """Return the changes of a loop's settings, oldest first; each value is the text.

    Raises:
        FieldError: machines share no State.
        StateError: State cannot be reached.
    """
    with _shared(settings) as state:
        return state.history(settings_key(check_loop_name(name)))


def changes_of(changes: Sequence[Change], name: str) -> list[dict[str, tuple[Any, Any]]]:
    """Return what each change of a loop's settings made of the one before, {path: (before, now)}.

    Nothing of the first that is kept, and of what is no settings of this release.
    """
    read = [None if change.value is None else _readable(change.value, name) for change in changes]
    return [
        {} if before is None or now is None else differing(before, now)
        for before, now in zip([None, *read], read, strict=False)
    ]


def _shared(settings: Settings) -> State:
    if not settings.state:
        says = "is not set, so loops/*/loop.toml is in force as it is edited; there is nothing to apply it to"
        raise FieldError("DECISION_STATE", wanted="an address that machines share", got=Words("none"), says=says)
    return State(settings.state_url)


def _readable(text: bytes, name: str) -> LoopSettings | None:
    try:
        return parse_loop(text.decode(), name, {})
    except (FieldError, UnicodeDecodeError):  # of another release
        return None


def _changed(before: LoopSettings | None, now: LoopSettings) -> dict[str, tuple[Any, Any]]:
    return {} if before is None else differing(before, now)


def differing(before: LoopSettings, now: LoopSettings) -> dict[str, tuple[Any, Any]]:
    """Return the settings whose values differ, {path: (before, now)}."""
    old, new = flat(msgspec.to_builtins(before)), flat(msgspec.to_builtins(now))
    return {path: (old.get(path), new.get(path)) for path in sorted({*old, *new}) if old.get(path) != new.get(path)}


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted paths."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found
