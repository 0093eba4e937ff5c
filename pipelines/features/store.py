"""Online features of a loop's subjects: looked up for every decision, fed by uploads and by the outcomes' stream.

What was looked up is logged with the decision, and training reads it from there. A feature that came later is filled
in from Feast's history as it stood at each decision's time. The state follows the lake: `feature_push.py` brings what
is new.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from decision.decay import Decayed
from decision.errors import FieldError
from pipelines.features.lookup import STREAM_FEATURES, Lookup, SharedLookup, Value, served
from pipelines.features.stream import Place, Stream, Topic
from pipelines.features.uploads import add_upload, latest, read_upload
from pipelines.features.views import STREAM_COLUMNS, SUBJECT, TIMESTAMP, Views
from pipelines.lake.features import without_features
from pipelines.online.connection import Online
from pipelines.settings import LoopSettings, Settings

_LOG = logging.getLogger(__name__)
_RETRY_S = 1.0


class Features:
    """Features of one loop.

    Args:
        settings: the installation.
        loop: the loop.
        online: connections to the installation's Redis, if it has one; opened here when None.
        clock: seconds since 1970; when a push became visible, and when a lookup without a time happens.

    Attributes:
        failures: lookups that Feast did not answer, since the start.
    """

    def __init__(
        self,
        settings: Settings,
        loop: LoopSettings,
        *,
        online: Online | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.failures = 0
        self._loop, self._clock = loop, clock
        self._views = Views(settings, loop, online)
        self._lookup: Lookup | SharedLookup | None = None
        self._stream: Stream | None = None
        self._retry_at = 0.0
        self._closed = False

    def open(self) -> None:
        """Get ready for lookups: seconds, which the first one takes otherwise. A failure is counted and tried again."""
        if self._lookup is None and not self._closed and time.monotonic() >= self._retry_at:
            try:
                asked = self._loop.features
                if self._views.shared is not None:
                    self._lookup = SharedLookup(self._views, stream=asked.stream)
                else:
                    self._lookup = Lookup(self._views, stream=asked.stream, cache_s=asked.cache_s)
            except Exception as error:
                self._failed(error)

    def close(self) -> None:
        """Close the files; nothing is looked up any more. Does nothing when it was closed before."""
        self._closed = True
        lookup, self._lookup = self._lookup, None
        if lookup is not None:
            lookup.close()
        self._views.close()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def online(self, subject_id: str, at: datetime | None = None) -> dict[str, Value]:
        """Return one subject's features; now when `at` is None. See `online_many`."""
        return self.online_many((subject_id,), datetime.fromtimestamp(self._clock(), UTC) if at is None else at)[0]

    def online_many(self, subject_ids: Sequence[str], at: datetime) -> list[dict[str, Value]]:
        """Return each subject's features, {} when there are none or Feast does not answer; never raises.

        Args:
            subject_ids: whom the decisions are for.
            at: the decisions' time.
        """
        self.open()
        if self._lookup is not None:
            now = at.timestamp()
            try:
                return [served(stored, now) for stored in self._lookup.stored(subject_ids)]
            except Exception as error:  # whatever is wrong in there, the decisions go on without features
                self._failed(error)
        self.failures += len(subject_ids)
        return [{} for _ in subject_ids]

    def names(self) -> list[str]:
        """Return the names of the features, sorted, as the files say now."""
        self._views.copies.fetch()
        return sorted([*self._views.uploaded(), *(STREAM_FEATURES if self._loop.features.stream else ())])

    def load_subjects(self, path: Path, *, now: datetime, replace: bool = False) -> int:
        """Add the features in a table to the uploads and put those that hold at `now` online.

        Args:
            path: Parquet or CSV with ``subject_id``, optionally ``ts``, and features; see `read_upload`.
            now: time of the upload.
            replace: forget all earlier uploads.

        Returns:
            Rows in the table.

        Raises:
            FieldError: the file or a column does not fit.
        """
        upload = read_upload(path, now=now)
        table = upload
        self._views.copies.fetch()
        if not replace and self._views.uploaded():
            table = add_upload(pq.read_table(self._views.subjects), upload)
        self._write_subjects(table)
        self._views.redeclare(empty_subjects=replace)
        theirs = pc.field(SUBJECT).isin(upload[SUBJECT].unique())
        self._views.put(self._views.subject_view, latest(table.filter(theirs), now=now).to_pandas())
        return len(upload)

    def materialize(self, now: datetime) -> int:
        """Put the uploaded features that hold at `now` online and return how many subjects have some.

        A row whose time lay ahead at its upload is looked up from the first call after that time on.
        """
        self._views.copies.fetch()
        if not self._views.uploaded():
            return 0
        rows = latest(pq.read_table(self._views.subjects), now=now)
        self._views.put(self._views.subject_view, rows.to_pandas())
        return len(rows)

    def positions(self) -> dict[tuple[Place, int], int]:
        """Return the offset from which `take` and `contest` go on, by what and partition; 0 where it is absent."""
        return self._state().positions()

    def take(self, topic: Topic, rows: pa.Table, *, since: int | None = None) -> int:
        """Add rows of the lake to the stream's state, and return how many of them are new; `publish` puts it online.

        Args:
            topic: what the rows are.
            rows: rows of the loop. Those below the position are left out, so rows may come again.
            since: the rows have no gap from this offset on; checked against the position. None when that is certain.

        Raises:
            FieldError: a column is missing.
            ConflictError: the position lies before `since`.
        """
        return self._state().take(topic, rows, since=since)

    def contest(self, events: Sequence[tuple[int, str]], partition: int, until: int) -> None:
        """Take away what decisions contribute that others answered as well; see `Stream.contest`."""
        self._state().contest(events, partition, until)

    def publish(self) -> int:
        """Put online what changed, and return how many subjects that concerns.

        To be called when everything in the lake was taken: what can change no more is forgotten.
        """
        changed = self._state().publish(self._publish)
        self._state().forget_settled()
        return changed

    def push(self, *, decisions: pa.Table | None = None, outcomes: pa.Table | None = None) -> int:
        """Take the rows, the decisions first, and publish; returns how many subjects changed."""
        if decisions is not None:
            self.take("decisions", decisions)
        if outcomes is not None:
            self.take("outcomes", outcomes)
        return self.publish()

    def historical(self, asked: pa.Table, names: Sequence[str] | None = None) -> pa.Table:
        """Return the features as they stood at each row's time, never later.

        Args:
            asked: [n] rows with ``subject_id`` (null for nobody) and ``ts``.
            names: features; all when None.

        Returns:
            [n] rows in the same order: ``subject_id``, ``ts`` and one column per feature, null where there was none.

        Raises:
            FieldError: a name that is no feature, or a column that is missing.
        """
        names = self._known(names)
        for column in (SUBJECT, "ts"):
            if column not in asked.column_names:
                raise FieldError(column, wanted="a column", got=None)
        rows = self._served_at(asked, names)
        kinds = self._views.uploaded()
        columns = {SUBJECT: asked[SUBJECT], "ts": asked["ts"]}
        columns |= {n: pa.array([row.get(n) for row in rows], kinds.get(n, pa.float64())) for n in names}
        return pa.table(columns)

    def backfill(self, interactions: pa.Table, names: Sequence[str] | None = None) -> pa.Table:
        """Return the interactions with features added that the snapshots of their decisions do not have.

        What was logged is never changed: the policy was asked with it.

        Args:
            interactions: [n] rows with ``subject_id``, ``ts`` and ``feature_snapshot``.
            names: features to add; all when None.

        Raises:
            FieldError: a name that is no feature, or a column that is missing.
        """
        names = self._known(names)
        if "feature_snapshot" not in interactions.column_names:
            raise FieldError("feature_snapshot", wanted="a column", got=None)
        snapshots: list[str] = interactions["feature_snapshot"].to_pylist()
        for row, features in enumerate(self._served_at(interactions, names)):
            logged = msgspec.json.decode(snapshots[row], type=dict[str, Value])
            added = {name: features[name] for name in names if name in features and name not in logged}
            if added:
                snapshots[row] = msgspec.json.encode(dict(sorted((logged | added).items()))).decode()
        index = interactions.column_names.index("feature_snapshot")
        return without_features(interactions.set_column(index, "feature_snapshot", pa.array(snapshots, pa.string())))

    def erase(self, subject_id: str) -> int:
        """Remove everything that is kept about `subject_id`, online and in the history, and return how many rows."""
        removed = self._state().erase(subject_id)
        removed += self._views.history.erase(subject_id)
        if self._views.uploaded():
            table = pq.read_table(self._views.subjects)
            kept = table.filter(pc.field(SUBJECT) != subject_id)
            if len(kept) < len(table):
                removed += len(table) - len(kept)
                self._write_subjects(kept)
        return removed + self._views.erase(subject_id)

    def _state(self) -> Stream:
        if self._stream is None:
            self._stream = Stream(self._views.folder / "stream.db", self._loop)
        return self._stream

    def _publish(self, number: int, before_us: int, changed: dict[str, Decayed]) -> int:
        half_life_s = self._loop.features.half_life_s
        columns = {SUBJECT: pa.array(changed, pa.string())}
        states = [(*sums, half_life_s) for sums in changed.values()]
        for name, values in zip(STREAM_COLUMNS, zip(*states, strict=True), strict=True):
            columns[name] = pa.array(values, pa.float64())
        rows = pd.DataFrame({name: column.to_pandas() for name, column in columns.items()})
        rows[TIMESTAMP] = datetime.fromtimestamp(self._clock(), UTC)
        self._views.put(self._views.stream_view, rows)
        # The history says when the values were there to be looked up, not a moment earlier: nothing comes from the
        # future. Times only grow, whatever the clock does.
        now_us = max(int(self._clock() * 1e6), before_us + 1)
        columns[TIMESTAMP] = pa.array([now_us] * len(changed), pa.int64()).cast(pa.timestamp("us", "UTC"))
        self._views.history.append(number, pa.table(columns).select([SUBJECT, TIMESTAMP, *STREAM_COLUMNS]))
        return now_us

    def _known(self, names: Sequence[str] | None) -> list[str]:
        known = self.names()
        for name in names or ():
            if name not in known:
                raise FieldError("names", wanted=f"features among {', '.join(known)}", got=name)
        return known if names is None else list(names)

    def _served_at(self, asked: pa.Table, names: Sequence[str]) -> list[dict[str, Value]]:
        columns: list[str] = []
        if set(names) & set(STREAM_FEATURES):
            columns += [f"{self._views.stream_view}:{name}" for name in STREAM_COLUMNS]
        columns += [f"{self._views.subject_view}:{name}" for name in names if name not in STREAM_FEATURES]
        rows: list[dict[str, Value]] = [{} for _ in range(len(asked))]
        with_subject = asked[SUBJECT].is_valid().to_numpy().nonzero()[0]
        if not len(with_subject) or not columns:
            return rows
        ours = asked.select([SUBJECT, "ts"]).take(pa.array(with_subject))
        ts = ours["ts"].cast(pa.timestamp("us", "UTC"))
        question = pd.DataFrame({SUBJECT: ours[SUBJECT].to_pandas(), TIMESTAMP: ts.to_pandas()})
        found = self._views.as_of(question, columns)
        times = (ts.cast(pa.int64()).to_numpy() / 1e6).tolist()
        for row, at, stored in zip(with_subject.tolist(), times, found.to_pylist(), strict=True):
            rows[row] = served(stored, at)
        return rows

    def _write_subjects(self, table: pa.Table) -> None:
        self._views.copies.write(self._views.subjects, table)

    def _failed(self, error: Exception) -> None:
        if time.monotonic() >= self._retry_at:
            _LOG.warning("features of the loop %s cannot be looked up: %s", self._loop.name, error)
        lookup, self._lookup, self._retry_at = self._lookup, None, time.monotonic() + _RETRY_S
        if lookup is not None:
            lookup.close()
