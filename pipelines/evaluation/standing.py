"""The alarms of a loop that stand: what its last night raised and nobody has cleared.

They stand in State, where the night writes them and operators, the service's metrics and `decision top` read them. A
cleared alarm stays quiet for as long as every night finds it again, and is raised anew when it comes back after that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

import msgspec

from decision.errors import FieldError
from decision.validation import prepared
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
    "action_feature_drift",
    "action_drift",
    "reward_drift",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
KEPT_CLEARINGS = 50
TO_DO: dict[Kind, str] = {
    "value": "If a new version in charge is the cause, roll back. If the world changed, the coming nights learn it.",
    "joins": "Check that the application still reports outcomes, under the ids that it was given.",
    "exploration": "Raise `policy.floor`, or find out what makes the policy so sure: else nothing new is learned.",
    "feature_gone": "Check what sends this feature: the model still expects it.",
    "feature_grown": "Check the unit in which this feature is sent.",
    "feature_names": "Take ids and times out of the names of features: send them as values, or not at all.",
    "untried": "Raise `policy.floor`, or stop offering the action.",
    "feature_drift": "Check what sends this feature. If the world changed, the coming nights learn it.",
    "action_feature_drift": "Check where the actions' features come from. If the catalogue changed, nights learn it.",
    "action_drift": "Check the list of actions that the application offers. If it is meant, nights learn it.",
    "reward_drift": "Check how outcomes are reported. If the world changed, the coming nights learn it.",
}
"""What to do about an alarm, by its kind."""


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """What should be looked at.

    Attributes:
        kind: ``value`` (rewards fell), ``joins`` (fewer decisions meet an outcome), ``exploration`` (it died),
            ``feature_gone``, ``feature_grown``, ``feature_names`` (new ones by the thousand), ``untried`` (an action is
            offered and never drawn); and beside the champion's training data ``feature_drift``,
            ``action_feature_drift`` (of a feature of the actions), ``action_drift`` (other actions are offered),
            ``reward_drift``.
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

    @property
    def to_do(self) -> str:
        """What to do about it, in a sentence or two."""
        return TO_DO[self.kind]


class Raised(msgspec.Struct, frozen=True, kw_only=True):
    """Since when every night found an alarm: id of the first of these nights, and when it did, ISO 8601 UTC."""

    night: str
    at: str


class Cleared(msgspec.Struct, frozen=True, kw_only=True):
    """That an alarm was cleared: its key and sentence, who did it, and when, ISO 8601 UTC."""

    key: str
    text: str
    by: str
    at: str


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
        since: of everything found, by key, since when; what an earlier release found is not in it.
        clearings: what was cleared of late, oldest first, also where no night finds it any more.
        figures: what the night counted beside; None before the first one.
    """

    night: str = ""
    found: list[Alarm] = []
    cleared: list[str] = []
    since: dict[str, Raised] = {}
    clearings: list[Cleared] = []
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
        return msgspec.json.decode(value, type=prepared(Standing))
    except FileNotFoundError:
        return Standing()
    except (OSError, msgspec.DecodeError) as error:
        raise FieldError(f"alarms of {loop}", wanted="the alarms of a night", got=error) from error


def raise_alarms(
    settings: Settings,
    loop: str,
    night: str,
    found: Sequence[Alarm],
    figures: Figures | None = None,
    *,
    now: datetime,
) -> Standing:
    """Keep what a night found and counted; cleared alarms that it did not find again can be raised anew.

    Args:
        settings: the installation.
        loop: name of the loop.
        night: id of the run.
        found: by the night.
        figures: what it counted.
        now: when, with its UTC offset.
    """
    keys = {alarm.key for alarm in found}
    first = Raised(night=night, at=_stamp(now))

    def raised(before: Standing) -> Standing:
        return msgspec.structs.replace(
            before,
            night=night,
            found=list(found),
            cleared=[key for key in before.cleared if key in keys],
            figures=figures,
            since={key: before.since.get(key, first) for key in sorted(keys)},
        )

    return _changed(settings, loop, raised, by=f"nightly {night}")


def clear(settings: Settings, loop: str, keys: Collection[str], *, now: datetime, by: str) -> Standing:
    """Clear alarms by their keys; ``all`` clears those that stand.

    Args:
        settings: the installation.
        loop: name of the loop.
        keys: of the alarms.
        now: when, with its UTC offset.
        by: who does it, for the record.

    Raises:
        FieldError: there is no such alarm.
    """

    def cleared(before: Standing) -> Standing:
        known = [alarm.key for alarm in before.found]
        for key in keys:
            if key != "all" and key not in known:
                raise FieldError.choice("clear", [*known, "all"], key)
        wanted = known if "all" in keys else [key for key in known if key in keys or key in before.cleared]
        made = [
            Cleared(key=alarm.key, text=alarm.text, by=by, at=stamp) for alarm in before.alarms if alarm.key in wanted
        ]
        return msgspec.structs.replace(before, cleared=wanted, clearings=[*before.clearings, *made][-KEPT_CLEARINGS:])

    stamp = _stamp(now)
    return _changed(settings, loop, cleared, by=by)


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="seconds")


def _changed(settings: Settings, loop: str, new: Callable[[Standing], Standing], *, by: str) -> Standing:
    kept = Standing()

    def encoded(value: bytes | None) -> bytes:
        nonlocal kept
        kept = new(standing_in(settings, loop, value))
        return msgspec.json.encode(kept)

    with State(settings.state_url) as state:
        change(state, alarms_key(loop), encoded, by=by)
    return kept
