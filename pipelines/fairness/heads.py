"""Heads of the audit log, noted where whoever edits the log's database need not reach: a file of the home, and State.

Each is signed (Ed25519, RFC 8032) with a key of the home that noted it, and the log names the public keys: who has the
database alone can neither change a head that was noted nor note one of his own. A line of the file that was torn by a
crash is a finding, not an end: it is taken out, and the log says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from itertools import count
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from decision.errors import FieldError
from decision.fairness.audit_log import Anchor, Entry, Fault, canonical
from decision.validation import prepared
from pipelines.files import make_private, write_atomically
from pipelines.state.failures import StaleError, StateError
from pipelines.state.state import KEPT_VERSIONS, State

HEADS = "audit/head/"
"""Prefix of keys in State; the history of one are the heads of all homes, and the log says which one it is."""
_ATTEMPTS = 20
_log = logging.getLogger(__name__)


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A head that somebody signed.

    Attributes:
        entries: how many entries the log had.
        head: hash of the last one.
        at: when it was signed, ISO 8601 UTC.
        key: public key, hex.
        signature: of the three first, hex.
    """

    entries: int
    head: str
    at: str
    key: str
    signature: str

    @property
    def anchor(self) -> Anchor:
        """What it says of the log."""
        return Anchor(self.entries, self.head)

    @property
    def fits(self) -> bool:
        """Whether the signature is the key's."""
        try:
            public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
            public.verify(bytes.fromhex(self.signature), _said(self.entries, self.head, self.at))
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """The key of a home, made when it is first needed; only its owner reads the file.

    A file without a byte is what a crash, or a full disk, left of a key: the home gets one, and the log says so.

    Args:
        path: file of the 32 private bytes, hex.

    Raises:
        FieldError: the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file() or not path.stat().st_size:
            write_atomically(path, Ed25519PrivateKey.generate().private_bytes_raw().hex().encode())
        try:
            self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))
        except ValueError as error:
            raise FieldError(path.name, wanted="64 hexadecimal digits, the key that signs heads", got=None) from error
        self.public = self._key.public_key().public_bytes_raw().hex()

    def sign(self, anchor: Anchor, at: str) -> Head:
        """Return a head, signed."""
        signature = self._key.sign(_said(anchor.entries, anchor.head, at)).hex()
        return Head(entries=anchor.entries, head=anchor.head, at=at, key=self.public, signature=signature)


class Noted(msgspec.Struct, frozen=True):
    """What is noted somewhere.

    Attributes:
        heads: oldest first; those of earlier releases are not signed.
        faults: what is wrong with the place itself.
    """

    heads: list[Head | Anchor]
    faults: list[Fault]


class Begun(NamedTuple):
    """Since when heads are noted in State: the log's entry that says so, and under which key."""

    entry: int
    key: str


class HeadsFile:
    """Heads in a file, a line each.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, head: Head) -> None:
        """Append a head; durable when this returns."""
        make_private(self._path)
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0, os.SEEK_END)
            if file.tell():  # after a torn line, this one stands by itself
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(msgspec.json.encode(head) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def noted(self) -> Noted | None:
        """Return what the file holds; None where there is none."""
        if not self._path.is_file():
            return None
        heads, faults = list[Head | Anchor](), list[Fault]()
        for number, line in enumerate(self._path.read_bytes().splitlines(), 1):
            if (found := _parsed(line)) is not None:
                heads.append(found)
            else:
                says = "is no head: torn by a crash, or edited; `decision audit repair` takes it out and says so"
                faults.append(Fault(0, f"line {number} of {self._path.name} {says}"))
        return Noted(heads, faults)

    def repair(self) -> dict[str, object] | None:
        """Take lines out that are no heads, and return what the log shall say of them; None where all are."""
        if not self._path.is_file():
            return None
        with self._path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            lines = file.read().splitlines(keepends=True)
            bad = [line for line in lines if _parsed(line) is None]
            if not bad:
                return None
            write_atomically(self._path, b"".join(line for line in lines if _parsed(line) is not None))
        return {"lines": len(bad), "sha256": hashlib.sha256(b"".join(bad)).hexdigest()}


class HeadsInState:
    """Heads in State, those of all homes.

    Args:
        state: where.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def free(self) -> str:
        """Return a key under which no head was noted.

        Raises:
            StateError: State cannot be reached.
        """
        return next(key for key in (f"{HEADS}{number}" for number in count(1)) if not self._state.history(key))

    def note(self, head: Head, key: str, by: str) -> None:
        """Note a head. Where State does not answer it is left out: the next one stands for it too."""
        try:
            for _ in range(_ATTEMPTS):
                entry = self._state.get(key)
                try:
                    self._state.put({key: (entry and entry.version, msgspec.json.encode(head))}, by=by)
                    return
                except StaleError:  # another home noted one
                    continue
        except StateError as error:
            _log.warning("head %d of the audit log is not noted in State: %s", head.entries, error)

    def noted(self, begun: Begun | None) -> Noted:
        """Return the latest heads, and what is wrong with them.

        Args:
            begun: since when they are noted; None where the log does not say so yet.

        Raises:
            StateError: State cannot be reached.
        """
        if begun is None:
            return Noted([], [])
        heads, faults = list[Head](), list[Fault]()
        changes, entry = self._state.history(begun.key), self._state.get(begun.key)
        if not changes or entry is None or entry.version < changes[-1].version:
            return Noted([], [Fault(begun.entry, "the heads that were noted in State are gone")])
        last = max(0, entry.version - KEPT_VERSIONS)  # only the latest are kept
        for change in changes:
            if change.version != last + 1:
                faults.append(Fault(0, f"heads {last + 1} to {change.version - 1} in State were removed"))
            last = change.version
            found = None if change.value is None else _parsed(change.value)
            if isinstance(found, Head):
                heads.append(found)
            else:
                faults.append(Fault(0, f"change {change.version} of the heads in State is no head"))
        if changes[0].version == 1 and begun.entry not in {head.entries for head in heads}:
            faults.append(Fault(begun.entry, "the first heads that were noted in State are gone"))
        if last < entry.version:
            faults.append(Fault(0, f"heads {last + 1} to {entry.version} in State were removed"))
        return Noted([*heads], faults)


def begun_of(entry: Entry) -> Begun:
    """Return what an entry of the log says of when heads in State were begun."""
    try:
        return Begun(entry.seq, msgspec.json.decode(entry.body, type=dict[str, str]).get("key", HEADS))
    except msgspec.DecodeError:  # edited: the chain says so
        return Begun(entry.seq, HEADS)


def _said(entries: int, head: str, at: str) -> bytes:
    return canonical({"entries": entries, "head": head, "at": at}).encode()


def _parsed(line: bytes) -> Head | Anchor | None:
    try:
        return msgspec.json.decode(line, type=prepared(Head))
    except msgspec.DecodeError:
        pass
    try:
        return msgspec.json.decode(line, type=prepared(Anchor))
    except msgspec.DecodeError:
        return None
