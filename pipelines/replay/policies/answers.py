"""What a policy answers about one decision, read as probabilities, and what is wrong with an answer, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from decision.errors import FieldError, Words, nearest_of
from decision.exploration.mix import TOLERANCE

_SHOWN = 8


def probabilities(answer: Any, ids: Sequence[str]) -> list[float]:
    """Return [K] probabilities of one decision's actions.

    Args:
        answer: an action's id, [K] probabilities in the order of the actions, or {id: probability}, where an action
            that is not named has none.
        ids: [K] ids of the actions that were offered.

    Raises:
        FieldError: it is none of these; `answer` is the field.
    """
    if isinstance(answer, str):
        out = [0.0] * len(ids)
        out[_place(answer, ids)] = 1.0
        return out
    if isinstance(answer, Mapping):
        out = [0.0] * len(ids)
        for name, share in answer.items():
            out[_place(name, ids)] = _number(share, f"answer[{name!r}]")
        return _checked(out, ids)
    if answer is None or isinstance(answer, bytes) or not hasattr(answer, "__len__"):
        raise _wrong(answer, ids)
    items: list[Any] = list(answer)
    if len(items) != len(ids):
        raise _wrong(Words(f"{len(items)} of them"), ids)
    return _checked([_number(item, f"answer[{place}]") for place, item in enumerate(items)], ids)


def _wrong(got: object, ids: Sequence[str]) -> FieldError:
    return FieldError("answer", wanted=f"an action's id, or {len(ids)} probabilities, one for each action", got=got)


def _place(name: object, ids: Sequence[str]) -> int:
    if isinstance(name, str) and name in ids:
        return ids.index(name)
    near = nearest_of(name, ids) if isinstance(name, str) else None
    some = ", ".join(repr(one) for one in ids[:_SHOWN])
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    raise FieldError(
        "answer", wanted=f"an action that was offered ({some}{more})", got=name, hint="" if near is None else repr(near)
    )


def _number(item: Any, field: str) -> float:
    # True and "0.5" would count as numbers; both are slips.
    if isinstance(item, bool | np.bool_ | str | bytes):
        raise FieldError(field, wanted="a probability", got=item)
    try:
        return float(item)
    except (TypeError, ValueError) as error:
        raise FieldError(field, wanted="a probability", got=item) from error


def _checked(out: list[float], ids: Sequence[str]) -> list[float]:
    for name, share in zip(ids, out, strict=True):
        if not math.isfinite(share) or share < 0.0:
            raise FieldError("answer", wanted=f"a probability from 0 to 1 for action {name!r}", got=share)
    total = math.fsum(out)
    if abs(total - 1.0) > TOLERANCE:
        raise FieldError("answer", wanted="probabilities that sum to 1", got=Words(f"{out[:_SHOWN]}, sum {total:.12g}"))
    return out
