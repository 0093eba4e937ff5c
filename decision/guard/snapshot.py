"""What a guard tells the replicas that serve: how far the candidate is mixed in now, and how long that holds.

Replicas only read. Each takes the snapshot of the highest version whose checksum fits; one that is no longer renewed
falls back to the weight that needs no evidence and, ten lifetimes later, to the policy in charge alone. Lowering the
weight of the whole mixture is always safe: its value is linear in the weight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from typing import Any, Literal, cast

import msgspec

from decision.errors import FieldError
from decision.validation import prepared

Unit = Literal["decision", "slate", "episode"]

STALE_LIFETIMES = 10.0
"""So many lifetimes after its expiry a snapshot gives the candidate nothing any more."""
MAX_SNAPSHOT_BYTES = 1 << 16


class GuardSnapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """State of a guard as published.

    Attributes:
        guard_version: rises with every change of what is served.
        loop: the loop.
        baseline_version: the policy in charge, registry version or name of the loop's baseline.
        candidate_version: the version being rolled out; "" without one.
        weight: share of the candidate, in [0, 1), where no segment has its own.
        floor: share that needs no evidence, alpha, in [0, 1).
        killed: the candidate was refuted.
        n: matured decisions behind the weight.
        expires_at: until when the weight holds, seconds since 1970.
        ttl_s: lifetime, seconds.
        segment: path of the context field whose values have weights of their own, dotted; "" for none.
        weights: share of the candidate by value of that field, each in [0, 1).
        unit: what is drawn from the mixture at once: each ``decision``, or all of a ``slate`` or ``episode``.
        episode_s: how long after its first decision an episode is over, seconds.
        checksum: sha256 of everything else, hex.
    """

    guard_version: int
    loop: str
    baseline_version: str
    candidate_version: str
    weight: float
    floor: float
    killed: bool
    n: int
    expires_at: float
    ttl_s: float
    segment: str = ""
    weights: dict[str, float] = {}
    unit: Unit = "decision"
    episode_s: float = 0.0
    checksum: str = ""


def encode_snapshot(snapshot: GuardSnapshot) -> bytes:
    """Return the snapshot as JSON with its checksum."""
    return msgspec.json.encode(msgspec.structs.replace(snapshot, checksum=_checksum(snapshot)))


def decode_snapshot(data: bytes) -> GuardSnapshot:
    """Return the snapshot in `data`.

    Raises:
        FieldError: the bytes are no snapshot, were altered, or hold a weight that nobody may serve.
    """
    if len(data) > MAX_SNAPSHOT_BYTES:
        raise FieldError("guard", wanted=f"at most {MAX_SNAPSHOT_BYTES} bytes", got=len(data))
    try:
        snapshot = msgspec.json.decode(data, type=prepared(GuardSnapshot))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FieldError("guard", wanted="a guard snapshot", got=error) from error
    if snapshot.checksum != _checksum(snapshot):
        raise FieldError("guard.checksum", wanted=_checksum(snapshot), got=snapshot.checksum)
    if not 0.0 <= snapshot.weight < 1.0:
        raise FieldError("guard.weight", wanted="a number in [0, 1)", got=snapshot.weight)
    for value, weight in snapshot.weights.items():
        if not 0.0 <= weight < 1.0:
            raise FieldError(f"guard.weights[{value}]", wanted="a number in [0, 1)", got=weight)
    if not 0.0 <= snapshot.floor < 1.0:
        raise FieldError("guard.floor", wanted="a number in [0, 1)", got=snapshot.floor)
    return snapshot


def newest(held: GuardSnapshot | None, found: GuardSnapshot) -> GuardSnapshot:
    """Return which of two snapshots of a loop holds: that of the higher version, or the later renewal of it."""
    if held is None or held.loop != found.loop:
        return found
    return max(held, found, key=lambda snapshot: (snapshot.guard_version, snapshot.expires_at))


def weight_at(snapshot: GuardSnapshot, now: float, segment: str = "") -> float:
    """Return the candidate's share at `now` (seconds since 1970): full, then the floor at most, then nothing."""
    weight = snapshot.weights.get(segment, snapshot.weight)
    if now <= snapshot.expires_at:
        return weight
    if now <= snapshot.expires_at + STALE_LIFETIMES * snapshot.ttl_s:
        return min(weight, snapshot.floor)
    return 0.0


def largest_weight(snapshot: GuardSnapshot) -> float:
    """Return the largest share that is published for any segment."""
    return max(snapshot.weight, *snapshot.weights.values()) if snapshot.weights else snapshot.weight


def largest_weight_at(snapshot: GuardSnapshot, now: float) -> float:
    """Return the candidate's share at `now` (seconds since 1970), the largest of all segments."""
    return max(weight_at(snapshot, now, segment) for segment in ("", *snapshot.weights))


def segment_of(context: Any, path: str, listed: Container[str]) -> str:
    """Return the segment of a decision: the value at the dotted `path` of its context if it is `listed`, else "".

    Args:
        context: the decision's context, as decoded JSON.
        path: names, outermost first; "" finds nothing.
        listed: values with a weight of their own. Numbers and truth values are looked for as JSON writes them.
    """
    if not path:
        return ""
    value = context
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return ""
        value = cast("Mapping[str, Any]", value).get(name)
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int):
        value = str(value)
    return value if isinstance(value, str) and value in listed else ""


def _checksum(snapshot: GuardSnapshot) -> str:
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(snapshot, checksum=""))).hexdigest()
