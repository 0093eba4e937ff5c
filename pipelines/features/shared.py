"""Online values in Redis, as Feast lays them out: one hash per subject holds those of all views, so one read gets all.

Feast's fields are hashes of names, so what was uploaded is known by the list of names that the last upload left beside
the values; it is read with them, and a change of it is seen by the next lookup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipelines.features.repository import KEY_VERSION, PROJECT, SUBJECT
from pipelines.online.connection import Command, Online

STREAM_COLUMNS = ("stream_decisions", "stream_outcomes", "stream_rewards", "stream_at", "stream_half_life_s")
"""What the stream's view holds: decayed sums, the time at which they hold, and their half-life."""

_ATTEMPTS = 5
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[str]).decode


class SharedValues:
    """The values of one loop; Feast must have been imported before any is read or erased.

    Args:
        online: a Redis that all machines share.
        stream_view: name of the view of the stream.
        subject_view: name of the view of uploads.
    """

    def __init__(self, online: Online, stream_view: str, subject_view: str) -> None:
        self._online, self._stream_view, self._subject_view = online, stream_view, subject_view
        self._key = f"features:{subject_view}"
        self._names: list[str] = []
        self._fields: list[bytes] = []

    def declare(self, names: Sequence[str]) -> None:
        """Say what was uploaded.

        Raises:
            ConnectionError: Redis does not answer.
        """
        self._ask([("SET", self._key, _encode(names))])

    def stored(self, subject_ids: Sequence[str], *, stream: bool) -> list[Mapping[str, float | str | None]]:
        """Return the stored columns of each subject by one round trip, {} when there are none.

        Args:
            subject_ids: whose.
            stream: those of the stream, too.

        Raises:
            ConnectionError: Redis does not answer.
        """
        for _ in range(_ATTEMPTS):
            columns, fields = self._layout(stream)
            reads: list[Command] = [("HMGET", _row_key(each), *fields) for each in subject_ids] if fields else []
            names, *rows = self._ask([("GET", self._key), *reads])
            uploaded = [] if names is None else _decode(names)
            if uploaded == self._names:
                return [_values(columns, row) for row in rows] if fields else [{} for _ in subject_ids]
            self._names, self._fields = uploaded, []
        raise ConnectionError("online: the uploaded features change all the time")

    def erase(self, subject_id: str, views: Sequence[str]) -> int:
        """Remove the values of a subject in `views`, and return how many.

        Raises:
            ConnectionError: Redis does not answer.
        """
        (names,) = self._ask([("GET", self._key)])
        uploaded = [] if names is None else _decode(names)
        columns = {self._stream_view: STREAM_COLUMNS, self._subject_view: uploaded}
        fields = [_field(view, name) for view in views for name in columns[view]]
        times = [f"_ts:{view}" for view in views]
        key = _row_key(subject_id)
        replies = self._ask([("HDEL", key, *fields)] * bool(fields) + [("HDEL", key, *times)])
        return int(replies[0]) if fields else 0

    def _layout(self, stream: bool) -> tuple[list[str], list[bytes]]:
        """Return the columns and Feast's names of them, the stream's first."""
        columns = [*STREAM_COLUMNS, *self._names]
        if not self._fields:
            views = [self._stream_view] * len(STREAM_COLUMNS) + [self._subject_view] * len(self._names)
            self._fields = [_field(view, name) for view, name in zip(views, columns, strict=True)]
        first = 0 if stream else len(STREAM_COLUMNS)
        return columns[first:], self._fields[first:]

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        replies = self._online.ask(commands)
        if replies is None:
            raise ConnectionError("online: Redis does not answer")
        return replies


def _row_key(subject_id: str) -> bytes:
    from feast.infra.online_stores.helpers import _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = EntityKey(join_keys=[SUBJECT], entity_values=[Value(string_val=subject_id)])
    return _redis_key(PROJECT, key, KEY_VERSION)


def _field(view: str, name: str) -> bytes:
    from feast.infra.online_stores.helpers import _mmh3

    return _mmh3(f"{view}:{name}")


def _values(columns: Sequence[str], row: Sequence[bytes | None]) -> dict[str, float | str | None]:
    from feast.protos.feast.types.Value_pb2 import Value

    found: dict[str, float | str | None] = {}
    for name, raw in zip(columns, row, strict=True):
        if raw is not None:
            value = Value.FromString(raw)
            kind = value.WhichOneof("val")
            found[name] = None if kind is None else getattr(value, kind)
    return found
