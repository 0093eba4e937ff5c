"""Python functions as policies: over one decision in the shape of its request, or over the columns of many.

They are asked with what was logged as text, not with flattened features: a condition reads as it would in the
application.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Floats
from decision.errors import FieldError, Words
from pipelines.replay.policies.answers import probabilities

_object = msgspec.json.Decoder(dict[str, Any]).decode
_objects = msgspec.json.Decoder(list[dict[str, Any]]).decode


@runtime_checkable
class ReadsRows(Protocol):
    """A policy that is asked with rows of a log as they were logged."""

    def pmf_of_rows(self, table: pa.Table) -> Floats:
        """Return [m] probabilities for [n] rows with ``event_id``, ``context``, ``actions``, ``action_ids``, ``ts``."""
        ...


class OneByOne:
    """A function over one decision, as it was asked: ``context`` and ``actions`` as in a request.

    Args:
        function: of the context (a dictionary) and the actions (a list of ``{"id": ..., "features": {...}}``); it
            returns an action's id, probabilities in the order of the actions, or {id: probability}.
        name: how it is named in errors.
    """

    def __init__(self, function: Callable[[dict[str, Any], list[dict[str, Any]]], Any], name: str) -> None:
        self._function, self._name = function, name
        self._lock = Lock()  # threads ask, and the function may be anybody's

    def pmf_of_rows(self, table: pa.Table) -> Floats:
        """Return [m] probabilities.

        Raises:
            FieldError: the function raised something, or its answer is no distribution; naming the decision.
        """
        out: list[float] = []
        for event, context, actions, ids in asked(table):
            try:
                with self._lock:
                    answer = self._function(context, actions)
            except Exception as error:
                raise raised(self._name, error, f"event {event!r}") from error
            out += _read(answer, ids, event)
        return np.array(out, dtype=np.float64)


class OverColumns:
    """A function over the columns of many decisions.

    Args:
        function: of an Arrow table with ``event_id``, ``ts``, ``action_ids`` and ``context.NAME`` for every field of
            the contexts; it returns an answer for each row, as that of `OneByOne`.
        name: how it is named in errors.
    """

    def __init__(self, function: Callable[[pa.Table], Any], name: str) -> None:
        self._function, self._name = function, name
        self._lock = Lock()

    def pmf_of_rows(self, table: pa.Table) -> Floats:
        """Return [m] probabilities.

        Raises:
            FieldError: the function raised something, or its answers are not one distribution for each row.
        """
        rows = columns_of(table)
        try:
            with self._lock:
                answers: Any = self._function(rows)
        except Exception as error:
            raise raised(self._name, error, f"{len(table)} rows") from error
        if isinstance(answers, pa.Array | pa.ChunkedArray):
            answers = answers.to_pylist()
        if isinstance(answers, str) or not hasattr(answers, "__len__") or len(answers) != len(table):
            got = Words(f"{len(answers)} of them") if hasattr(answers, "__len__") else answers
            raise FieldError("policy", wanted=f"{len(table)} answers, one for each row", got=got)
        ids: list[list[str]] = rows["action_ids"].to_pylist()
        events: list[str] = rows["event_id"].to_pylist()
        found = [_read(*each) for each in zip(list(answers), ids, events, strict=True)]
        return np.array([share for one in found for share in one], dtype=np.float64)


def asked(table: pa.Table) -> list[tuple[str, dict[str, Any], list[dict[str, Any]], list[str]]]:
    """Return of every row its event, and its context, actions and their ids as its request had them.

    Raises:
        FieldError: a row cannot be read, or has another number of actions than of ids.
    """
    columns = (table[name].to_pylist() for name in ("event_id", "context", "actions", "action_ids"))
    return [
        (event, *request_of(event, context, actions, ids), ids)
        for event, context, actions, ids in zip(*columns, strict=True)
    ]


def request_of(
    event: str, context: str, actions: str, ids: Sequence[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the context and the actions of a request from what was logged of it.

    Raises:
        FieldError: they cannot be read, or there is another number of actions than of ids.
    """
    try:
        features = _objects(actions)
        read = _object(context)
    except msgspec.DecodeError as error:
        raise FieldError(f"event {event!r}", wanted="a context and actions in JSON", got=error) from error
    if len(features) != len(ids):
        raise FieldError(f"event {event!r}: actions", wanted=f"{len(ids)} objects, one per action", got=len(features))
    return read, [{"id": name, "features": one} for name, one in zip(ids, features, strict=True)]


def columns_of(table: pa.Table) -> pa.Table:
    """Return rows with a column ``context.NAME`` for every field of their contexts; mixed types become text."""
    contexts = [_object(text) for text in table["context"].to_pylist()]
    names = dict.fromkeys(name for one in contexts for name in one)
    columns: dict[str, Any] = {
        "event_id": pa.array(table["event_id"].to_pylist(), pa.string()),
        "ts": table["ts"],
        "action_ids": pa.array(table["action_ids"].to_pylist(), pa.list_(pa.string())),
    }
    for name in names:
        values = [one.get(name) for one in contexts]
        try:
            columns[f"context.{name}"] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[f"context.{name}"] = pa.array([None if value is None else str(value) for value in values])
    return pa.table(columns)


def raised(name: str, error: Exception, where: str) -> FieldError:
    """Return what a function raised, with the line of its own file, as an error of the policy."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({Path(last[0].filename).name}, line {last[0].lineno})" if last else ""
    says = f"{name} raised {type(error).__name__}: {error}{place}"
    return FieldError("policy", wanted="a function that answers", got=error, says=f"{where}: {says}")


def _read(answer: Any, ids: Sequence[str], event: str) -> list[float]:
    try:
        return probabilities(answer, ids)
    except FieldError as error:
        raise error.under(f"policy: event {event!r}: ") from error
