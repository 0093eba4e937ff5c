"""Features on the request path: two reads of Feast's online store, and what is made of them.

`served` is the one way from stored values to features. The lookup and the retrieval for training both go through it
with the decision's time, so what a model learns from is what it is asked with.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from decision.decay import Decayed, faded, mean_reward
from pipelines.features.views import STREAM_COLUMNS, Views, close_online_store, entity_key, import_feast, quiet

STREAM_FEATURES = ("stream_decisions", "stream_mean_reward", "stream_outcomes")
"""Decayed number of the subject's decisions, their mean reward, and the decayed number of their outcomes."""

Value = float | str


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


class Lookup:
    """Reads of one loop's online features.

    Args:
        views: the loop's views.
        stream: read the stream's features too.

    Raises:
        Exception: whatever Feast raises when its folder cannot be opened.
    """

    def __init__(self, views: Views, *, stream: bool) -> None:
        self._views, self._stream = views, stream
        with quiet():
            import_feast()
            from feast.infra.provider import get_provider
            from feast.repo_config import load_repo_config

            views.write_repository()
            self._config = load_repo_config(views.root, views.root / "feature_store.yaml")
            self._provider = get_provider(self._config)
            self._tables = [views.stream()] if stream else []
        self._has_uploads = False
        entity_key("")  # imports what the first lookup would import

    def stored(self, subject_id: str) -> dict[str, Value | None]:
        """Return the stored columns of a subject, {} when there are none.

        Raises:
            Exception: whatever Feast raises when its store cannot be read.
        """
        if not self._has_uploads and self._views.subjects.is_file():
            with quiet():
                self._tables.append(self._views.uploads())
            self._has_uploads = True
        key, found = entity_key(subject_id), dict[str, Value | None]()
        for table in self._tables:
            try:
                rows = self._provider.online_read(self._config, table, [key])
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                continue  # nothing was ever put there
            for name, value in (rows[0][1] or {}).items():
                kind = value.WhichOneof("val")
                found[name] = None if kind is None else getattr(value, kind)
        return found

    def close(self) -> None:
        """Close Feast's connection to its online store; does nothing when it was closed before."""
        close_online_store(self._provider)


def _number(value: Value | None) -> float:
    if not isinstance(value, float):
        raise TypeError(f"stream: must be a number, is {value!r}")
    return value
