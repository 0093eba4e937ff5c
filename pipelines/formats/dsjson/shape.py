"""The shape of features in Personalizer's log lines, and what its requests made them from.

A request lists objects of features. The log has the context's list under ``FromUrl``, an action's under ``j``, beside
``i`` with a constant and the id, and a slot's under ``sj``. Here each list is one object again, as a request's is when
it is decided on, so a policy that learned from a log is asked in the shape that it learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from decision.features import merged

LISTED = "FromUrl"
_APART = frozenset(["_multi", "_slots", LISTED])


def context_of(c: Mapping[str, Any]) -> dict[str, Any]:
    """Return the context features of a line's ``c``: of Personalizer's, or of any other as they stand."""
    listed = _listed(c.get(LISTED))
    if listed is None:
        return {name: value for name, value in c.items() if name == LISTED or name not in _APART}
    rest = {name: value for name, value in c.items() if name not in _APART}
    return merged([rest, *listed] if rest else listed)


def action_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the features of an entry of ``_multi``, its ``_tag`` apart."""
    features = {name: value for name, value in entry.items() if name != "_tag"}
    about = features.get("i")
    if not isinstance(about, dict) or about != {"constant": 1, "id": entry.get("_tag")}:
        return features
    del features["i"]
    listed = _listed(features.get("j", []))
    if listed is None:
        return features
    features.pop("j", None)
    return merged([features, *listed] if features else listed)


def slot_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the features of an entry of ``_slots``; what begins with "_" says something else."""
    features = {name: value for name, value in entry.items() if name[:1] != "_"}
    listed = _listed(features.get("sj"))
    if listed is None:
        return features
    del features["sj"]
    return merged([features, *listed] if features else listed)


def _listed(value: object) -> list[dict[str, Any]] | None:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in cast("list[object]", value)):
        return None
    return cast("list[dict[str, Any]]", value)
