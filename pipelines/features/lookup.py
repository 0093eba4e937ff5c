"""Features on the request path: one read of Feast's online store, and what is made of it.

`served` is the one way from stored values to features. The lookup and the retrieval for training both go through it
with the decision's time, so what a model learns from is what it is asked with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from decision.decay import Decayed, faded, mean_reward
from pipelines.features.repository import encoded_key, import_feast, quiet
from pipelines.features.shared import STREAM_COLUMNS
from pipelines.features.views import Views, table_of
from pipelines.files import open_sqlite

STREAM_FEATURES = ("stream_decisions", "stream_mean_reward", "stream_outcomes")
"""Decayed number of the subject's decisions, their mean reward, and the decayed number of their outcomes."""

Value = float | str
_BUSY_S = 1.0
_MOST_KEPT = 10_000


def served(stored: Mapping[str, Value | None], at: float) -> dict[str, Value]:
    """Return the features of a subject at the time `at`, sorted by name.

    Args:
        stored: columns of the views; None and missing are alike.
        at: seconds since 1970.
    """
    features = {name: value for name, value in stored.items() if value is not None and name not in STREAM_COLUMNS}
    decisions, outcomes, rewards, when, half_life_s = (stored.get(name) for name in STREAM_COLUMNS)
    if half_life_s is not None:
        state = Decayed(_number(decisions), _number(outcomes), _number(rewards), _number(when))
        now = faded(state, at, half_life_s=_number(half_life_s))
        features["stream_decisions"] = now.decisions
        features["stream_mean_reward"] = mean_reward(state)
        features["stream_outcomes"] = now.outcomes
    return dict(sorted(features.items()))


class SharedLookup:
    """Reads of one loop's online features in Redis: one round trip for both views of all who are asked about.

    Args:
        views: the loop's views, whose values are shared.
        stream: read the stream's features too.
    """

    def __init__(self, views: Views, *, stream: bool) -> None:
        if views.shared is None:
            raise ValueError("the installation's online values are not shared")
        self._shared, self._stream = views.shared, stream
        with quiet():
            import_feast()
            encoded_key("")
        self._shared.stored([""], stream=stream)  # imports what the first lookup would import

    def stored(self, subject_ids: Sequence[str]) -> list[Mapping[str, Value | None]]:
        """Return the stored columns of each subject, {} when there are none.

        Raises:
            ConnectionError: Redis does not answer.
        """
        return self._shared.stored(subject_ids, stream=self._stream)

    def close(self) -> None:
        """Do nothing: the connections belong to the views."""


class Lookup:
    """Reads of one loop's online features: one prepared statement over the tables of Feast's online store.

    What a subject's columns were is kept until somebody commits to the store or `cache_s` is over, so that a subject
    who asks again costs no read, and nobody is served what was replaced.

    Args:
        views: the loop's views.
        stream: read the stream's features too.
        cache_s: how long a subject's columns are kept at most, in seconds; 0 for not at all.
        clock: seconds, of any origin.

    Raises:
        Exception: whatever Feast or SQLite raises when the store cannot be opened.
    """

    def __init__(
        self, views: Views, *, stream: bool, cache_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._wanted = [table_of(view) for view in ([views.stream_view] if stream else []) + [views.subject_view]]
        self._cache_s, self._clock = cache_s, clock
        with quiet():
            import_feast()
            from feast.protos.feast.types.Value_pb2 import Value as Stored

            self._decode: Callable[[bytes], Any] = Stored.FromString
            encoded_key("")  # imports what the first lookup would import
        views.write_repository()
        self._connection = open_sqlite(views.online_path, busy_s=_BUSY_S, synchronous="NORMAL")
        self._turn = threading.Lock()
        self._version = -1
        self._statement = ""
        self._kept: dict[str, tuple[float, dict[str, Value | None]]] = {}

    def stored(self, subject_ids: Sequence[str]) -> list[Mapping[str, Value | None]]:
        """Return the stored columns of each subject, {} when there are none.

        Raises:
            Exception: whatever Feast or SQLite raises when the store cannot be read.
        """
        with self._turn:
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:  # somebody committed
                self._kept.clear()
                self._statement = self._prepared()
                self._version = version
            now = self._clock()
            return [self._of(subject_id, now) for subject_id in subject_ids]

    def close(self) -> None:
        """Close the store; does nothing when it was closed before."""
        self._connection.close()

    def _prepared(self) -> str:
        there = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        selects = [f'SELECT feature_name, value FROM "{name}" WHERE entity_key = ?1' for name in self._wanted]
        return " UNION ALL ".join(select for select, name in zip(selects, self._wanted, strict=True) if name in there)

    def _of(self, subject_id: str, now: float) -> Mapping[str, Value | None]:
        at, columns = self._kept.get(subject_id, (now, None))
        if columns is None or now - at > self._cache_s:
            columns = self._read(subject_id)
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[subject_id] = (now, columns)
        return columns

    def _read(self, subject_id: str) -> dict[str, Value | None]:
        found: dict[str, Value | None] = {}
        if self._statement:  # else nothing was ever put there
            for name, raw in self._connection.execute(self._statement, (encoded_key(subject_id),)):
                value = self._decode(raw)
                kind = value.WhichOneof("val")
                found[name] = None if kind is None else getattr(value, kind)
        return found


def _number(value: Value | None) -> float:
    if not isinstance(value, float):
        raise TypeError(f"stream: must be a number, is {value!r}")
    return value
