"""The alarms of a loop that stand: what its last night raised and nobody has cleared.

They stand in State, where the night writes them and operators, the service's metrics and `decision top` read them. A
cleared alarm stays quiet for as long as every night finds it again, and is raised anew when it comes back after that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal, get_args

import msgspec

from decision.errors import FieldError
from pipelines.settings import Settings, check_loop_name
from pipelines.state.change import change
from pipelines.state.state import State

Kind = Literal[
    "value",
    "joins",
    "exploration",
    "feature_gone",
    "feature_grown",
    "feature_names",
    "untried",
    "feature_drift",
    "action_drift",
    "reward_drift",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """What should be looked at.

    Attributes:
        kind: ``value`` (rewards fell), ``joins`` (fewer decisions meet an outcome), ``exploration`` (it died),
            ``feature_gone``, ``feature_grown``, ``feature_names`` (new ones by the thousand), ``untried`` (an action is
            offered and never drawn); and beside the champion's training data ``feature_drift``, ``action_drift`` (other
            actions are offered), ``reward_drift``.
        subject: the feature, action or segment; "" for the loop.
        text: the same in a sentence.
    """

    kind: Kind
    subject: str = ""
    text: str

    @property
    def key(self) -> str:
        """What it is cleared by: its kind and, after a colon, its subject."""
        return f"{self.kind}:{self.subject}" if self.subject else self.kind


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a night counted.

    Attributes:
        at: when it began, in seconds since 1970.
        value: mean reward of the decisions that it settled; None where it settled none.
        join_rate: share of the decisions it looked at that met an outcome; None where they were too few.
        decisions: the loop's decisions so far, by what became of them: ``joined``, ``pending``, ``expired``,
            ``dropped``; empty where the lake had no moment to count at.
        strays: outcomes so far that count for no decision, ``late`` and ``orphan``; None where history is too long to
            look for them.
    """

    at: float
    value: float | None = None
    join_rate: float | None = None
    decisions: dict[str, int] = {}
    strays: dict[str, int | None] = {}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The alarms of a loop.

    Attributes:
        night: id of the run that found them.
        found: everything it found.
        cleared: keys that an operator cleared.
        figures: what the night counted beside; None before the first one.
    """

    night: str = ""
    found: list[Alarm] = []
    cleared: list[str] = []
    figures: Figures | None = None

    @property
    def alarms(self) -> list[Alarm]:
        """Those that stand."""
        return [alarm for alarm in self.found if alarm.key not in self.cleared]


def alarms_key(loop: str) -> str:
    """Return the key of a loop's alarms in State."""
    return f"loop/{check_loop_name(loop)}/alarms"


def standing(settings: Settings, loop: str) -> Standing:
    """Return the loop's alarms; none before its first night.

    Raises:
        FieldError: what is kept cannot be read.
        StateError: State cannot be reached.
    """
    with State(settings.state_url) as state:
        entry = state.get(alarms_key(loop))
    return standing_in(settings, loop, None if entry is None else entry.value)


def standing_in(settings: Settings, loop: str, value: bytes | None) -> Standing:
    """Return the alarms that stand in `value`, from under `alarms_key`; None for nothing there.

    Raises:
        FieldError: it cannot be read.
    """
    try:
        if value is None:  # an earlier release kept them in a file
            value = (settings.root / "alarms" / f"{loop}.json").read_bytes()
        return msgspec.json.decode(value, type=Standing)
    except FileNotFoundError:
        return Standing()
    except (OSError, msgspec.DecodeError) as error:
        raise FieldError(f"alarms of {loop}", wanted="the alarms of a night", got=error) from error


def raise_alarms(
    settings: Settings, loop: str, night: str, found: Sequence[Alarm], figures: Figures | None = None
) -> Standing:
    """Keep what a night found and counted; cleared alarms that it did not find again can be raised anew."""
    keys = {alarm.key for alarm in found}

    def raised(before: Standing) -> Standing:
        cleared = [key for key in before.cleared if key in keys]
        return Standing(night=night, found=list(found), cleared=cleared, figures=figures)

    return _changed(settings, loop, raised)


def clear(settings: Settings, loop: str, keys: Collection[str]) -> Standing:
    """Clear alarms by their keys; ``all`` clears those that stand.

    Raises:
        FieldError: there is no such alarm.
    """

    def cleared(now: Standing) -> Standing:
        known = [alarm.key for alarm in now.found]
        for key in keys:
            if key != "all" and key not in known:
                raise FieldError.choice("clear", [*known, "all"], key)
        wanted = known if "all" in keys else [key for key in known if key in keys or key in now.cleared]
        return msgspec.structs.replace(now, cleared=wanted)

    return _changed(settings, loop, cleared)


def _changed(settings: Settings, loop: str, new: Callable[[Standing], Standing]) -> Standing:
    kept = Standing()

    def encoded(value: bytes | None) -> bytes:
        nonlocal kept
        kept = new(standing_in(settings, loop, value))
        return msgspec.json.encode(kept)

    with State(settings.state_url) as state:
        change(state, alarms_key(loop), encoded)
    return kept
