"""Flattened features written as the JSON that Vowpal Wabbit reads, in the shape that a model learned from.

VW looks at the innermost name alone: in ``{"geo": {"town": {"size": 3}}}`` the namespace is ``town`` and the feature
``size``. So a flattened name, ``geo.town.size``, says all that VW makes of it. Names that meet stand side by side, as
VW adds them up. VW does the hashing itself, so its own rules hold (``--chain_hash``, what it escapes, places in
arrays).

What flattening cannot tell apart is read in one way: the first "=" ends a name, and "." separates names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

import msgspec

from decision.batch import Features
from decision.features import MAX_FEATURES

Shape = Literal["personalizer", "plain"]
"""Of the lines that a model learned from: ``FromUrl``, ``i`` and ``j`` as Personalizer's logs have them, or none."""

_NUMBERED = re.compile(r"#\d+$")
_PLACED = re.compile(r"^(.*)\[(\d+)\]$", re.DOTALL)
_HIDDEN = "_"
_encode = msgspec.json.encode

_Entry = tuple[str, str, bytes | None, int]


@lru_cache(maxsize=100_000)
def _entry(name: str) -> _Entry | None:
    """Return namespace, key, text and place in an array of a feature; the text is None for a number, the place -1."""
    if name.startswith(_HIDDEN):
        return None
    path, equals, text = name.partition("=")
    if equals:
        space, _, key = path.rpartition(".")
        return space.rpartition(".")[2], key, _encode(text), -1
    path = _NUMBERED.sub("", path)
    placed = _PLACED.match(path)
    if placed is not None and len(placed[2]) < 5 and int(placed[2]) < MAX_FEATURES:
        return placed[1].rpartition(".")[2], "", None, int(placed[2])
    space, _, key = path.rpartition(".")
    return space.rpartition(".")[2], key, None, -1


def _members(features: Features) -> tuple[list[bytes], list[bytes]]:
    """Return the members of the object of `features` without a namespace, and those that are namespaces."""
    own: list[bytes] = []
    spaces: dict[str, list[bytes]] = {}
    arrays: dict[str, list[tuple[int, float]]] = {}
    for name, value in features.items():
        entry = _entry(name)
        if entry is None:
            continue
        space, key, text, place = entry
        if place >= 0:
            arrays.setdefault(space, []).append((place, value))
            continue
        member = _encode(key) + b":" + (_encode(value) if text is None else text)
        (spaces.setdefault(space, []) if space else own).append(member)
    told = [_encode(space) + b":{" + b",".join(members) + b"}" for space, members in spaces.items()]
    for space, numbers in arrays.items():
        values = [0.0] * (1 + max(place for place, _ in numbers))
        for place, value in numbers:
            values[place] = value
        told.append(_encode(space) + b":" + _encode(values))
    return own, told


def _listed(name: bytes, features: Features) -> bytes:
    own, spaces = _members(features)
    members = own + spaces
    return b'"' + name + b'":[{' + b",".join(members) + b"}]" if members else b""


def action_json(features: Features, action_id: str, shape: Shape) -> bytes:
    """Return an action as an entry of ``_multi``."""
    if shape == "plain":
        own, spaces = _members(features)
        return b"{" + b",".join(own + spaces) + b"}"
    tag = _encode(action_id)
    about = b'"i":{"constant":1,"id":' + tag + b"}"
    listed = _listed(b"j", features)
    return b"{" + about + (b"," + listed if listed else b"") + b"}"


def context_json(context: Features, actions: Iterable[bytes], shape: Shape) -> bytes:
    """Return a decision, ``c`` of a line of dsjson, with `actions` as `action_json` wrote them."""
    if shape == "plain":
        own, spaces = _members(context)
        members = own + spaces
    else:
        listed = _listed(b"FromUrl", context)
        members = [listed] if listed else []
    return b"{" + b",".join([*members, b'"_multi":[' + b",".join(actions) + b"]"]) + b"}"
