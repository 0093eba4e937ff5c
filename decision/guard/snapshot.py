"""What a guard tells the replicas that serve: how far the candidate is mixed in now, and how long that holds.

Replicas only read. Each takes the snapshot of the highest version whose checksum fits; one that is no longer renewed
falls back to the weight that needs no evidence and, ten lifetimes later, to the policy in charge alone. Lowering the
weight of the whole mixture is always safe: its value is linear in the weight.
"""

from __future__ import annotations

import hashlib

import msgspec

from decision.errors import FieldError

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
        weight: share of the candidate, in [0, 1).
        floor: share that needs no evidence, alpha, in [0, 1).
        killed: the candidate was refuted.
        n: matured decisions behind the weight.
        expires_at: until when the weight holds, seconds since 1970.
        ttl_s: lifetime, seconds.
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
        snapshot = msgspec.json.decode(data, type=GuardSnapshot)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FieldError("guard", wanted="a guard snapshot", got=str(error)) from error
    if snapshot.checksum != _checksum(snapshot):
        raise FieldError("guard.checksum", wanted=_checksum(snapshot), got=snapshot.checksum)
    if not 0.0 <= snapshot.weight < 1.0:
        raise FieldError("guard.weight", wanted="a number in [0, 1)", got=snapshot.weight)
    if not 0.0 <= snapshot.floor < 1.0:
        raise FieldError("guard.floor", wanted="a number in [0, 1)", got=snapshot.floor)
    return snapshot


def newest(held: GuardSnapshot | None, found: GuardSnapshot) -> GuardSnapshot:
    """Return which of two snapshots of a loop holds: that of the higher version, or the later renewal of it."""
    if held is None or held.loop != found.loop:
        return found
    return max(held, found, key=lambda snapshot: (snapshot.guard_version, snapshot.expires_at))


def weight_at(snapshot: GuardSnapshot, now: float) -> float:
    """Return the candidate's share at `now` (seconds since 1970): full, then the floor at most, then nothing."""
    if now <= snapshot.expires_at:
        return snapshot.weight
    if now <= snapshot.expires_at + STALE_LIFETIMES * snapshot.ttl_s:
        return min(snapshot.weight, snapshot.floor)
    return 0.0


def _checksum(snapshot: GuardSnapshot) -> str:
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(snapshot, checksum=""))).hexdigest()
