"""An action's id as one more of its features, where a loop learns from ids.

Applications name their actions and often say nothing else of them, so the name has to be something to learn from. It
becomes a category called ``_id=NAME``. Beside an action's own features it is what those do not explain: an id that a
model does not know weighs nothing, so a new action starts from its features, and a prior keeps an id near there until
its own rows say otherwise. No feature of a request can have such a name: flattening leaves out what begins with "_".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from decision.batch import Batch, Features, Interactions, take_rows
from decision.columns import FeatureRows, Texts
from decision.ragged import ragged_offsets, ragged_rows

PREFIX = "_id="
"""What the name of an id begins with among the features of an action."""


def is_id(name: str) -> bool:
    """Return whether a feature is an action's id."""
    return name.startswith(PREFIX)


def with_id(features: Features, action_id: str) -> Features:
    """Return an action's features with its id as the last of them; an action without an id has none."""
    return {**features, PREFIX + action_id: 1.0} if action_id else features


def with_ids(batch: Batch) -> Batch:
    """Return the decisions with the ids of all offered actions among their features."""
    return replace(batch, actions=_named(batch.actions, batch.action_ids))


def drawn_with_ids(interactions: Interactions) -> Interactions:
    """Return the interactions as reward models learn from them: the drawn action alone, its id among its features."""
    batch, chosen, n = interactions.batch, interactions.chosen, len(interactions)
    ids = batch.action_ids
    drawn: Sequence[str] = ids.take(chosen) if isinstance(ids, Texts) else [str(ids[i]) for i in chosen.tolist()]
    actions = _named(take_rows(batch.actions, chosen), drawn)
    each = np.arange(n + 1, dtype=np.int64)
    return replace(
        interactions,
        batch=Batch(batch.contexts, actions, drawn, each),
        chosen=each[:-1],
        pmf=interactions.pmf[chosen],
    )


def _named(actions: Sequence[Features], ids: Sequence[str]) -> Sequence[Features]:
    if not isinstance(actions, FeatureRows):
        return [with_id(features, action_id) for features, action_id in zip(actions, ids, strict=True)]
    texts = Texts.of(ids)
    kinds = max(len(texts.names), 1)
    pairs, rows = np.unique(actions.rows.astype(np.int64) * kinds + texts.code, return_inverse=True)
    held, code = np.divmod(pairs, kinds)
    named = np.array([bool(text) for text in texts.names], dtype=np.bool_)[code]
    sizes = np.diff(actions.offsets)[held]
    offsets = ragged_offsets(sizes + named)
    name, value = np.empty(int(offsets[-1]), np.int32), np.ones(int(offsets[-1]))
    own = ragged_rows(actions.offsets[held], ragged_offsets(sizes))
    place = ragged_rows(offsets[:-1], ragged_offsets(sizes))
    name[place], value[place] = actions.name[own], actions.value[own]
    names = {text: number for number, text in enumerate(actions.names)}
    of_id = np.array([names.setdefault(PREFIX + text, len(names)) for text in texts.names], dtype=np.int32)
    name[(offsets[1:] - 1)[named]] = of_id[code[named]]
    return FeatureRows(list(names), name, value, offsets, rows.astype(np.int64).ravel())
