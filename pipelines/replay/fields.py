"""Fields that a replay is asked for by name: looked up in the log before anything is computed from them."""

from __future__ import annotations

from typing import Any

import msgspec

from decision.errors import FieldError
from pipelines.replay.rows import labels_of
from pipelines.replay.source import Source

_SHOWN = 20
_object = msgspec.json.Decoder(dict[str, Any]).decode
_objects = msgspec.json.Decoder(list[dict[str, Any]]).decode


def require_label(source: Source, name: str, *, setting: str) -> None:
    """Check that some decision of the log has the label `name`; a log without rows passes.

    Args:
        source: the log.
        name: ``policy_version``, or a field of the context.
        setting: where the name comes from.

    Raises:
        FieldError: no decision has it; naming `setting` and the fields that there are.
    """
    if name == "policy_version":
        return
    known: set[str] = set()
    for unit in source.units():
        for table in source.batches(unit, ("context",)):
            if any(labels_of(table, name)):
                return
            known |= set(_object(table["context"][0].as_py()))
    if known:
        shown = sorted(known)[:_SHOWN]
        raise FieldError(setting, wanted=f"policy_version, or a field of the contexts, such as {shown}", got=name)


def require_action_feature(source: Source, name: str, *, setting: str) -> None:
    """Check that some action of the log has the feature `name`; a log without rows passes.

    Args:
        source: the log.
        name: of the feature.
        setting: where the name comes from.

    Raises:
        FieldError: no action has it; naming `setting` and the features that there are.
    """
    known: set[str] = set()
    rows = 0
    for unit in source.units():
        for table in source.batches(unit, ("actions",)):
            rows += len(table)
            for text in set(table["actions"].to_pylist()):
                known |= {feature for action in _objects(text) for feature in action}
            if name in known:
                return
    if rows:
        shown = sorted(known)[:_SHOWN]
        raise FieldError(
            setting,
            wanted=f"a feature of the actions, such as {shown}" if known else "absent: no action has features",
            got=name,
        )
