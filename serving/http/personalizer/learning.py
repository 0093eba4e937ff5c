"""The learning settings ("policy"): Vowpal Wabbit's arguments, mapped onto a loop's policy where we have the learner.

What a loop does and VW has no argument for stands under our own names, ``--oracle logistic --exploration falcon``;
both kinds are taken. An argument that would change nothing here is refused by its name, and so is one that we lack.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from decision.errors import FieldError
from decision.options import PASSES, SHIPPED, PolicySettings
from pipelines.settings import LoopSettings, load_loop
from serving.http.personalizer.addresses import loop_of, operation
from serving.http.personalizer.configuration import changed
from serving.http.personalizer.errors import RefusedError
from serving.routes import Call, Route
from serving.wire import decode

MAX_ARGUMENTS = 4_096
_CONFIGURATION, _CONTRACT = "InvalidPolicyConfiguration", "InvalidPolicyContract"
_RULES = {"--squarecb": "squarecb", "--regcb": "regcb", "--softmax": "softmax", "--bag": "thompson"}
_NUMBERS = {
    "--epsilon": "policy.epsilon",
    "-l": "policy.learning_rate",
    "--learning_rate": "policy.learning_rate",
    "-b": "policy.bits",
    "--bit_precision": "policy.bits",
    "--bag": "policy.bag",
    "--passes": "training.passes",
}
_WHOLE = ("policy.bits", "policy.bag", "training.passes")
_CROSSED = ("-q", "--quadratic", "--interactions")
_FIXED = {"--power_t": ("0", "0.0"), "--cb_type": ("mtr",)}
"""Arguments of which our learner has one value; VW's adaptive steps decay by themselves."""
_SILENT = ("--cb_explore_adf", "--quiet", "--noconstant")
_OWN = ("--oracle", "--exploration")
_OTHER_UNIT = {"--gamma_scale": "policy.gamma", "--lambda": "policy.inverse_temperature"}


class PolicyContract(msgspec.Struct):
    """Learning settings.

    Attributes:
        name: their name; that of the oracle and the rule in answers.
        arguments: of Vowpal Wabbit, or our own.
    """

    name: str
    arguments: str


_contract = msgspec.json.Decoder(PolicyContract)


async def _reads(call: Call) -> bytes:
    loop = loop_of(call)
    return _encoded(await asyncio.to_thread(load_loop, call.core.settings, loop, os.environ))


async def _updates(call: Call) -> bytes:
    loop, values = loop_of(call), values_of(decode(_contract, call.body).arguments)
    return _encoded(await asyncio.to_thread(changed, call, loop, values, code=_CONFIGURATION))


async def _resets(call: Call) -> bytes:
    loop = loop_of(call)
    values = {f"policy.{name}": value for name, value in msgspec.to_builtins(SHIPPED).items()}
    values["training.passes"] = PASSES
    return _encoded(await asyncio.to_thread(changed, call, loop, values, code=_CONFIGURATION))


def _encoded(loop: LoopSettings) -> bytes:
    return msgspec.json.encode(contract_of(loop))


def contract_of(loop: LoopSettings) -> PolicyContract:
    """Return a loop's policy as learning settings: in VW's words where its learner is VW and its rule one of VW's."""
    policy = loop.policy
    name = f"{policy.oracle}-{policy.exploration}"
    rules = {
        "epsilon_greedy": f"--epsilon {policy.epsilon!r}",
        "regcb": "--regcb",
        "thompson": f"--bag {policy.bag}",
    }
    if policy.oracle != "vw" or policy.exploration not in rules:
        own = msgspec.to_builtins(policy)
        return PolicyContract(name, " ".join(f"--{key} {_text(value)}" for key, value in own.items()))
    words = ["--cb_explore_adf", rules[policy.exploration], "--cb_type mtr --power_t 0"]
    words.append(f"-l {policy.learning_rate!r} -b {policy.bits} --passes {loop.training.passes}")
    if policy.interactions:
        words.append("-q ::")
    return PolicyContract(name, " ".join(words))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def values_of(arguments: str) -> dict[str, Any]:
    """Return what learning settings change in a loop's settings, {path: value}.

    Args:
        arguments: of VW, or our own names.

    Raises:
        RefusedError: an argument is unknown, has no value that fits, or is none of our learners'.
    """
    words = _words(arguments)
    if any(word in _OWN for word in words):
        return _own_values(words)
    return _vw_values(words)


def _words(arguments: str) -> list[str]:
    if len(arguments) > MAX_ARGUMENTS:
        raise RefusedError(
            400, _CONTRACT, f"arguments: must have at most {MAX_ARGUMENTS} characters", field="arguments"
        )
    try:
        words = shlex.split(arguments)
    except ValueError as error:
        raise RefusedError(400, _CONTRACT, f"arguments: must be words: {error}", field="arguments") from error
    return [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]


def _vw_values(words: Sequence[str]) -> dict[str, Any]:
    if "--cb_explore_adf" not in words:
        raise _lacking("--cb_explore_adf, for a loop chooses one of the actions that it is offered")
    values: dict[str, Any] = {"policy.oracle": "vw", "policy.interactions": False}
    rules = [word for word in words if word in _RULES]
    if len(rules) > 1:
        raise RefusedError(400, _CONFIGURATION, f"arguments: {' and '.join(rules)} are two rules; give one")
    values["policy.exploration"] = _RULES[rules[0]] if rules else "epsilon_greedy"
    left = list(reversed(words))
    while left:
        word = left.pop()
        if word in _CROSSED:
            _next(word, left)
            values["policy.interactions"] = True
        elif word in _NUMBERS:
            values[_NUMBERS[word]] = _number(word, _next(word, left), whole=_NUMBERS[word] in _WHOLE)
        elif word in _FIXED:
            given = _next(word, left)
            if given not in _FIXED[word]:
                raise _lacking(f"{word} {_FIXED[word][0]}")
        elif word in _OTHER_UNIT:
            own = _OTHER_UNIT[word]
            raise RefusedError(400, _CONFIGURATION, f"arguments: {word} has another unit here; set {own} in its place")
        elif word not in _SILENT and word not in _RULES:
            raise RefusedError(400, _CONFIGURATION, f"arguments: {word[:80]} has nothing here that it sets")
    if rules and "policy.epsilon" in values:
        raise RefusedError(400, _CONFIGURATION, f"arguments: --epsilon changes nothing beside {rules[0]}")
    return values


def _own_values(words: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    left = list(reversed(words))
    while left:
        word = left.pop()
        path = f"policy.{word[2:]}"
        if word[:2] != "--" or word[2:] not in PolicySettings.__struct_fields__:
            raise RefusedError(400, _CONFIGURATION, f"arguments: there is no {word[:80]} beside our own names")
        given = _next(word, left)
        kind = type(getattr(SHIPPED, word[2:]))
        if kind is str:
            values[path] = given
        elif kind is bool:
            if given not in ("true", "false"):
                raise _unfit(word, "true or false", given)
            values[path] = given == "true"
        else:
            values[path] = _number(word, given, whole=kind is int)
    return values


def _next(word: str, left: list[str]) -> str:
    if not left:
        raise _unfit(word, "followed by its value", "the last word")
    return left.pop()


def _number(word: str, given: str, *, whole: bool) -> float | int:
    found = _as_number(given)
    if found is None or (whole and not found.is_integer()):
        raise _unfit(word, "a whole number" if whole else "a number", given)
    return int(found) if whole else found


def _as_number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) < 1e15 else None


def _unfit(word: str, wanted: str, got: str) -> RefusedError:
    error = FieldError("arguments", wanted=wanted, got=got, says=f"{word} must be {wanted}, is {got[:80]!r}")
    return RefusedError(400, _CONFIGURATION, str(error), field="arguments")


def _lacking(wanted: str) -> RefusedError:
    return RefusedError(400, _CONFIGURATION, f"arguments: the learner here has {wanted}", field="arguments")


_VW = {"name": "ours", "arguments": "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"}

ROUTES: tuple[Route, ...] = (
    operation(
        "/configurations/policy",
        "readPolicy",
        "Read the learning settings",
        _reads,
        method="GET",
        role="read",
        response=PolicyContract,
        answers=_VW,
    ),
    operation(
        "/configurations/policy",
        "updatePolicy",
        "Change the learning settings; the next training follows them",
        _updates,
        method="PUT",
        role="admin",
        request=PolicyContract,
        response=PolicyContract,
        errors=(409,),
        example=_VW,
        answers=_VW,
    ),
    operation(
        "/configurations/policy",
        "resetPolicy",
        "Take the learning settings back to those that ship",
        _resets,
        method="DELETE",
        role="admin",
        response=PolicyContract,
        errors=(409,),
        answers={"name": "logistic-falcon", "arguments": "--oracle logistic --exploration falcon"},
    ),
)
