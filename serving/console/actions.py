"""What an operator does from a page, each behind a confirmation: stop, resume, cap, freeze, roll back.

An action is checked as the command line's is, takes effect as that does, and is kept with who did it: the guard's moves
and the registry's verdicts have the name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from decision.errors import FieldError
from pipelines.evaluation.standing import clear
from pipelines.guard.operate import operate
from pipelines.guard.report import GuardReport
from pipelines.promotion.rollback import rollback
from pipelines.registry.mirror import mirror_apart
from serving.console.frame import share
from serving.console.loop import guard_of
from serving.core import Core

_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """What an operator asks for.

    Attributes:
        core: of the service.
        loop: the loop.
        fields: of the form.
        by: who asks.
        now: the time, UTC.
    """

    core: Core
    loop: str
    fields: Mapping[str, str]
    by: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Action:
    """Something that an operator does to a loop.

    Attributes:
        name: of its page.
        label: of the way there, and of its button.
        says: what it does, for the page that asks for a confirmation.
        do: does it, and returns what was done in a sentence.
        fields: of its form.
        danger: it takes something away.
        guarded: it needs a guard.
        fits: whether the rollout is one that it can be done to.
        listed: whether the loop's page leads to it beside the others; else from what it is done to.
    """

    name: str
    label: str
    says: str
    do: Callable[[Asked], str]
    fields: tuple[str, ...] = ()
    danger: bool = False
    guarded: bool = True
    fits: Callable[[GuardReport], bool] = lambda seen: True
    listed: bool = True


def _operated(asked: Asked, **what: Any) -> Any:
    loop = asked.core.snapshot(asked.loop).loop
    return operate(asked.core.settings, loop, now=asked.now, by=asked.by, **what)


def _stop(asked: Asked) -> str:
    _operated(asked, stop=True)
    return "The rollout is stopped: the candidate gets nothing"


def _resume(asked: Asked) -> str:
    state = _operated(asked, stop=False)
    return f"The rollout goes on at {share(state.weight)}"


def _cap(asked: Asked) -> str:
    text = asked.fields.get("cap", "").removesuffix("%").strip()
    try:
        cap = float(text) / 100.0
    except ValueError as error:
        raise FieldError("cap", wanted="a number of percent from 0 to 100", got=text) from error
    if not 0.0 <= cap <= 1.0:
        raise FieldError("cap", wanted="a number of percent from 0 to 100", got=text)
    state = _operated(asked, cap=cap)
    return f"The cap is {share(cap)}; the candidate has {share(state.weight)}"


def _freeze(asked: Asked) -> str:
    # Whoever reads the weight now and caps it a moment later could cap what a step has changed meanwhile: lower at
    # worst, which is what a freeze allows. What the service served at its last look may be above a cap set since.
    state = _operated(asked, cap=guard_of(asked.core, asked.loop).weight)
    return f"The share is held at {share(state.weight)}: evidence may lower it and does not raise it"


def _roll_back(asked: Asked) -> str:
    reason, to = asked.fields.get("reason", ""), asked.fields.get("to", "") or None
    if not reason:
        raise FieldError("reason", wanted="a few words for those who read it later", got="")
    if len(reason) > _LONGEST_REASON:
        raise FieldError("reason", wanted=f"at most {_LONGEST_REASON} characters", got=len(reason))
    core = asked.core
    done = rollback(core.registry, asked.loop, now=asked.now, by=asked.by, reason=reason, to=to, mirror=False)
    mirror_apart(core.settings)
    return f"{f'Version {done.to_version}' if done.to_version else 'The baseline'} decides again"


def _clear(asked: Asked) -> str:
    key = asked.fields.get("alarm", "")
    clear(asked.core.settings, asked.loop, [key], now=asked.now, by=asked.by)
    return f"{'All alarms are' if key == 'all' else f'The alarm {key} is'} cleared, until it comes back"


def _under_way(seen: GuardReport) -> bool:
    return seen.status in ("climbing", "frozen") and not seen.stopped


ACTIONS = (
    Action(
        "stop",
        "Stop the rollout",
        "The candidate gets no traffic from now on; the policy in charge decides alone. Its evidence is kept, and "
        "“Resume” lets it go on where it was.",
        _stop,
        danger=True,
        fits=_under_way,
    ),
    Action(
        "freeze",
        "Freeze the share",
        "The candidate keeps at most the share that it has now. New evidence may still lower it, and does not raise "
        "it. A cap of 100 % ends the freeze.",
        _freeze,
        fits=_under_way,
    ),
    Action(
        "cap",
        "Cap the share",
        "The candidate never gets more than this share, whatever its evidence says. 100 % takes the cap away.",
        _cap,
        fields=("cap",),
        fits=_under_way,
    ),
    Action(
        "resume",
        "Resume the rollout",
        "The candidate gets its share again: where it was before a stop, or anew after the audit froze it.",
        _resume,
        fits=lambda seen: seen.stopped or seen.status == "frozen",
    ),
    Action(
        "rollback",
        "Roll back",
        "The policy in charge gives its place back. What it had before decides again within seconds.",
        _roll_back,
        fields=("reason", "to"),
        danger=True,
        guarded=False,
    ),
    Action(
        "clear",
        "Clear the alarm",
        "The alarm is known, and stays quiet for as long as every night finds it again. When it has been away and "
        "comes back, it is raised anew.",
        _clear,
        fields=("alarm",),
        guarded=False,
        listed=False,
    ),
)
