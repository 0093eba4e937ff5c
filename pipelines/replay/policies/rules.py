"""A policy of rules in TOML.

::

    otherwise = "uniform"                            # or "first", or an action's id

    [[rule]]
    when = 'device == "mobile" and hour >= 18'       # always, where it is left out
    action = "video"

    [[rule]]
    when = 'country in ["AT", "DE"]'
    among = 'action.category == "sport"'             # one of these, each as often
    share = 0.9                                      # the rest goes to the rules below

The first rule whose condition holds, and whose action is offered, takes its share of the probability.
"""

from __future__ import annotations

import tomllib
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Floats
from decision.errors import FieldError
from decision.validation import prepared
from pipelines.replay.policies.conditions import Condition, condition
from pipelines.replay.policies.functions import request_of

MAX_BYTES = 64 << 10
_MAX_RULES = 100
_MAX_KNOWN = 100_000


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule as it is written.

    Attributes:
        when: condition on the context; "" for always.
        action: id of the action.
        among: condition on actions instead: one of those that it holds for, each as often.
        share: of the probability that rules above left, above 0.
    """

    when: str = ""
    action: str | None = None
    among: str | None = None
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rule: Annotated[list[Rule], msgspec.Meta(min_length=1, max_length=_MAX_RULES)]
    otherwise: str = "uniform"


class Rules:
    """Rules as a policy.

    Args:
        text: the file.

    Attributes:
        context: fields of the context that conditions read, by dots.
        features: features of actions that they read, without the id.
        actions: ids of actions that rules name.

    Raises:
        FieldError: it cannot be read; the message names the rule.
    """

    def __init__(self, text: bytes) -> None:
        if len(text) > MAX_BYTES:
            raise FieldError("policy", wanted=f"a file of at most {MAX_BYTES} bytes", got=len(text))
        try:
            file = msgspec.convert(tomllib.loads(text.decode()), prepared(_File))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
            wanted = "rules in TOML (`otherwise`, and `[[rule]]` with `when`, `action` or `among`, and `share`)"
            raise FieldError("policy", wanted=wanted, got=error) from error
        self._otherwise = file.otherwise
        self._rules = [self._read(rule, f"rule[{place}]") for place, rule in enumerate(file.rule)]
        read = [one for _, when, among in self._rules for one in (when, among) if one is not None]
        self.context = tuple(dict.fromkeys(name for one in read for name in one.context))
        self.features = tuple(dict.fromkeys(name for one in read for name in one.action if name != "id"))
        named: list[str] = [rule.action for rule, _, _ in self._rules if rule.action is not None]
        if not self._fixed:
            named.append(file.otherwise)
        self.actions: tuple[str, ...] = tuple(dict.fromkeys(named))
        self._known: dict[tuple[str, str, tuple[str, ...]], list[float]] = {}

    @property
    def _fixed(self) -> bool:
        return self._otherwise in ("uniform", "first")

    def pmf_of_rows(self, table: pa.Table) -> Floats:
        """Return [m] probabilities.

        Raises:
            FieldError: a condition orders values of different kinds, or no rule is left for a decision and the action
                of ``otherwise`` is not offered; naming the decision.
        """
        out: list[float] = []
        columns = (table[name].to_pylist() for name in ("event_id", "context", "actions", "action_ids"))
        for event, context, actions, ids in zip(*columns, strict=True):
            key = (context, actions, tuple(ids))  # rules answer the same question alike
            found = self._known.get(key)
            if found is None:
                asked = request_of(event, context, actions, ids)
                try:
                    found = self.answer(*asked)
                except FieldError as error:
                    raise error.under(f"policy: event {event!r}: ") from error
                if len(self._known) < _MAX_KNOWN:
                    self._known[key] = found
            out += found
        return np.array(out, dtype=np.float64)

    def answer(self, context: dict[str, Any], actions: list[dict[str, Any]]) -> list[float]:
        """Return [K] probabilities of one decision.

        Raises:
            FieldError: see `pmf_of_rows`.
        """
        out = [0.0] * len(actions)
        seen = [{**one["features"], "id": one["id"]} for one in actions]
        left = 1.0
        for rule, when, among in self._rules:
            if when is not None and not when.holds(context, {}):
                continue
            if among is not None:
                places = [place for place, one in enumerate(seen) if among.holds(context, one)]
            else:
                places = [place for place, one in enumerate(seen) if one["id"] == rule.action]
            for place in places:
                out[place] += left * rule.share / len(places)
            if places:
                left *= 1.0 - rule.share
            if left <= 0.0:
                return out
        places = self._rest(seen)
        for place in places:
            out[place] += left / len(places)
        return out

    def _rest(self, seen: list[dict[str, Any]]) -> list[int]:
        if self._fixed:
            return list(range(len(seen))) if self._otherwise == "uniform" else [0]
        found = [place for place, one in enumerate(seen) if one["id"] == self._otherwise]
        if not found:
            raise FieldError("otherwise", wanted="uniform, first, or an action that is offered", got=self._otherwise)
        return found

    @staticmethod
    def _read(rule: Rule, field: str) -> tuple[Rule, Condition | None, Condition | None]:
        if (rule.action is None) == (rule.among is None):
            raise FieldError(f"policy.{field}", wanted="a rule with either `action` or `among`", got=rule.action)
        when = condition(rule.when, f"policy.{field}.when") if rule.when else None
        if when is not None and when.action:
            raise FieldError(
                f"policy.{field}.when",
                wanted="a condition on the context (actions are chosen by `among`)",
                got=rule.when,
            )
        return rule, when, None if rule.among is None else condition(rule.among, f"policy.{field}.among")
