"""Which features and actions there are, and of which kind their values: of a loop's latest decisions, and of a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec
import pyarrow as pa

from decision.features import MAX_DEPTH
from pipelines.formats.dsjson.line import Row
from pipelines.operations.migration.findings import Tally

Kind = Literal["number", "text", "list of numbers", "list of texts"]
MOST = 20_000
"""Features and actions that are told apart."""

_decode = msgspec.json.decode


class Names:
    """The features and actions of decisions, as many as `MOST`.

    Attributes:
        kinds: {feature: kind of its values}, as in ``context.user.age`` and ``action.price``; the kind that came first.
        actions: their ids.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}
        self.actions: set[str] = set()

    @classmethod
    def of(cls, table: pa.Table) -> Names:
        """Return those of decisions in the lake's columns."""
        names = cls()
        for row in table.select(["context", "actions", "action_ids"]).to_pylist():
            for path, kind in features_of(row):
                if len(names.kinds) < MOST:
                    names.kinds.setdefault(path, kind)
            if len(names.actions) < MOST:
                names.actions.update(row["action_ids"])
        return names


class Compared:
    """Compares the features and actions of a log with those that a loop knows, and with each other.

    Args:
        known: of the loop; None where it has no decisions.
        tally: counts.
    """

    def __init__(self, known: Names | None, tally: Tally) -> None:
        self._known, self._tally, self._seen = known, tally, Names()

    def check(self, rows: list[Row], place: str, *, named: bool) -> None:
        """Count what is other in the rows of an event.

        Args:
            rows: as `rows_of` makes them.
            place: where its line stands.
            named: whether its actions have ids in the log.
        """
        known, seen = self._known, self._seen
        for path, kind in dict.fromkeys(found for row in rows for found in features_of(row)):
            before = seen.kinds.get(path)
            if before is None and len(seen.kinds) < MOST:
                seen.kinds[path] = kind
            if before is not None and before != kind:
                self._tally.add("two_shapes", place, f"{kind}, and {before} before", path)
            if known is None:
                continue
            theirs = known.kinds.get(path)
            if theirs is None and len(known.kinds) < MOST:
                self._tally.add("unknown_feature", place, kind, path)
            elif theirs is not None and theirs != kind:
                self._tally.add("other_shape", place, f"{kind}, in the loop {theirs}", path)
        if known is not None and named and len(known.actions) < MOST:
            for id in sorted({id for row in rows for id in row["action_ids"]} - known.actions):
                self._tally.add("unknown_action", place, "", id)

    def finish(self) -> None:
        """Count which features of the loop no line had."""
        if self._known is not None and len(self._seen.kinds) < MOST:
            for path in sorted(self._known.kinds.keys() - self._seen.kinds.keys()):
                self._tally.add("absent_feature", "the whole log", self._known.kinds[path], path)


def features_of(row: Mapping[str, Any]) -> Iterator[tuple[str, Kind]]:
    """Yield the features of a decision with the kind of their values, some of them twice."""
    yield from _of(row["context"], "context")
    yield from _of(row["actions"], "action")


@lru_cache(maxsize=4_096)
def _of(text: str, prefix: str) -> tuple[tuple[str, Kind], ...]:
    return tuple(dict.fromkeys(_walk(_decode(text), prefix, 0)))


def _walk(value: Any, path: str, depth: int) -> Iterator[tuple[str, Kind]]:
    """Yield what stands in `value`; names that begin with "_" are no features, deeper ones are refused elsewhere."""
    if isinstance(value, dict) and depth <= MAX_DEPTH + 1:
        for name, item in value.items():
            if name[:1] != "_":
                yield from _walk(item, f"{path}.{name}", depth + 1)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict | list):
                yield from _walk(item, path, depth + 1 if isinstance(item, list) else depth)
            elif item is not None:
                yield path, "list of texts" if isinstance(item, str) else "list of numbers"
    elif isinstance(value, str):
        yield path, "text"
    elif value is not None and not isinstance(value, dict):
        yield path, "number"
