"""An append-only log in which every entry holds the hash of the one before.

An edited, deleted or moved entry breaks the chain at its place. A chain cut off at its end is whole in itself, so heads
are anchored elsewhere: an anchor says how many entries there were and what the last one's hash was (Haber and Stornetta
1991, "How to time-stamp a digital document").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from decision.errors import FieldError

GENESIS = "0" * 64
"""What the first entry holds for the hash of the one before."""

MAX_BODY_CHARS = 1 << 20
_MOST_FAULTS = 100


class Entry(NamedTuple):
    """One entry.

    Attributes:
        seq: its number, from 1 without a gap.
        at: when, ISO 8601 in UTC.
        actor: who did it.
        kind: what was done.
        subject: to what.
        body: canonical JSON of the rest.
        previous: hash of the entry before, `GENESIS` for the first.
        hash: BLAKE2b-256 of all of the above.
    """

    seq: int
    at: str
    actor: str
    kind: str
    subject: str
    body: str
    previous: str
    hash: str


class Anchor(NamedTuple):
    """A head noted outside the log: the number of entries and the hash of the last one."""

    entries: int
    head: str


class Fault(NamedTuple):
    """What is wrong and at which entry, with 0 for the log as a whole."""

    seq: int
    what: str


class Checked(NamedTuple):
    """The result of a check.

    Attributes:
        entries: how many were read.
        head: hash of the last one.
        faults: what is wrong, the first hundred; none when the chain is whole.
    """

    entries: int
    head: str
    faults: tuple[Fault, ...]


def canonical(value: Mapping[str, Any]) -> str:
    """Return the canonical JSON of `value`: keys sorted, no white space, no NaN.

    Raises:
        FieldError: it holds what JSON cannot, or is longer than a million characters.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FieldError("body", wanted="finite JSON", got=error) from error
    if len(text) > MAX_BODY_CHARS:
        raise FieldError("body", wanted=f"at most {MAX_BODY_CHARS} characters", got=len(text))
    return text


def digest(text: str) -> str:
    """Return the hex BLAKE2b-256 of a text."""
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def hash_of(entry: Entry) -> str:
    """Return the hash that `entry` must hold."""
    return digest(canonical({key: value for key, value in entry._asdict().items() if key != "hash"}))


def follow(last: Anchor, *, at: str, actor: str, kind: str, subject: str, body: Mapping[str, Any]) -> Entry:
    """Return the entry that comes after the head `last` (``Anchor(0, GENESIS)`` in an empty log)."""
    entry = Entry(last.entries + 1, at, actor, kind, subject, canonical(body), last.head, "")
    return entry._replace(hash=hash_of(entry))


def check(entries: Iterable[Entry], anchors: Sequence[Anchor] = ()) -> Checked:
    """Return whether the chain is whole and agrees with every anchor.

    Args:
        entries: in the order of the log.
        anchors: heads noted elsewhere, in any order.
    """
    faults: list[Fault] = []
    wanted: dict[int, set[str]] = {}
    for anchor in anchors:
        if anchor.entries > 0:
            wanted.setdefault(anchor.entries, set()).add(anchor.head)
    count, head = 0, GENESIS
    for entry in entries:
        if entry.seq != count + 1:
            lost = entry.seq > count + 1
            faults.append(Fault(count + 1, "deleted" if lost else f"out of order: entry {entry.seq} stands here"))
        if entry.previous != head:
            faults.append(Fault(entry.seq, "does not follow the entry before it"))
        if entry.hash != hash_of(entry):
            faults.append(Fault(entry.seq, "edited: its hash is another"))
        if wanted.get(entry.seq, {entry.hash}) != {entry.hash}:
            faults.append(Fault(entry.seq, "not what was anchored"))
        count, head = entry.seq, entry.hash
        if len(faults) >= _MOST_FAULTS:
            break
    else:
        anchored = max(wanted, default=0)
        if anchored > count:
            faults.append(Fault(0, f"truncated: {anchored} entries were anchored, {count} are here"))
    return Checked(count, head, tuple(faults[:_MOST_FAULTS]))
