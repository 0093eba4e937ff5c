"""The alarms of a loop that stand: what its last night raised and nobody has cleared.

A file in the home folder, ``alarms/LOOP.json``, which the night writes and operators, the service's metrics and
`decision top` read. A cleared alarm stays quiet for as long as every night finds it again, and is raised anew when it
comes back after that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from decision.errors import FieldError
from pipelines.files import write_atomically
from pipelines.settings import Settings, check_loop_name

Kind = Literal["value", "joins", "exploration", "feature_gone", "feature_grown", "feature_names", "untried"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """What should be looked at.

    Attributes:
        kind: ``value`` (rewards fell), ``joins`` (fewer decisions meet an outcome), ``exploration`` (it died),
            ``feature_gone``, ``feature_grown``, ``feature_names`` (new ones by the thousand), ``untried`` (an action is
            offered and never drawn).
        subject: the feature or action; "" for the loop.
        text: the same in a sentence.
    """

    kind: Kind
    subject: str = ""
    text: str

    @property
    def key(self) -> str:
        """What it is cleared by: its kind and, after a colon, its subject."""
        return f"{self.kind}:{self.subject}" if self.subject else self.kind


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The alarms of a loop.

    Attributes:
        night: id of the run that found them.
        found: everything it found.
        cleared: keys that an operator cleared.
    """

    night: str = ""
    found: list[Alarm] = []
    cleared: list[str] = []

    @property
    def alarms(self) -> list[Alarm]:
        """Those that stand."""
        return [alarm for alarm in self.found if alarm.key not in self.cleared]


def standing(settings: Settings, loop: str) -> Standing:
    """Return the loop's alarms; none before its first night.

    Raises:
        FieldError: the file cannot be read.
    """
    path = _path(settings, loop)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Standing)
    except FileNotFoundError:
        return Standing()
    except (OSError, msgspec.DecodeError) as error:
        raise FieldError(f"alarms/{loop}.json", wanted="the alarms of a night", got=error) from error


def raise_alarms(settings: Settings, loop: str, night: str, found: Sequence[Alarm]) -> Standing:
    """Keep what a night found; cleared alarms that it did not find again can be raised anew."""
    keys = {alarm.key for alarm in found}
    cleared = [key for key in standing(settings, loop).cleared if key in keys]
    return _saved(settings, loop, Standing(night=night, found=list(found), cleared=cleared))


def clear(settings: Settings, loop: str, keys: Collection[str]) -> Standing:
    """Clear alarms by their keys; ``all`` clears those that stand.

    Raises:
        FieldError: there is no such alarm.
    """
    now = standing(settings, loop)
    known = [alarm.key for alarm in now.found]
    for key in keys:
        if key != "all" and key not in known:
            raise FieldError.choice("clear", [*known, "all"], key)
    wanted = known if "all" in keys else [key for key in known if key in keys or key in now.cleared]
    return _saved(settings, loop, msgspec.structs.replace(now, cleared=wanted))


def _saved(settings: Settings, loop: str, kept: Standing) -> Standing:
    path = _path(settings, loop)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.encode(kept))
    return kept


def _path(settings: Settings, loop: str) -> Path:
    return settings.root / "alarms" / f"{check_loop_name(loop)}.json"
