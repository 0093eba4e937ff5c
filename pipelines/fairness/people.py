"""Who may do what: people, their roles, and the keys they show.

A key is 32 random bytes and is told once; the store has its hash only. Owners of a loop's model never audit it. The API
keys of the service stand in State; the audit log tells of them, so that one put there beside it is found out.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec
import sqlalchemy as sa

from decision.errors import FieldError, Words
from decision.fairness.audit_log import digest
from pipelines.access.keys import Key, listed
from pipelines.access.keys import add as keep_key
from pipelines.access.keys import revoke as take_key
from pipelines.fairness import tables as t
from pipelines.fairness.differences import SESSION, key_told
from pipelines.fairness.store import Governance, stamp
from pipelines.settings import check_loop_name
from pipelines.state.state import State

Role = Literal["auditor", "adjudicator", "administrator", "owner"]
ROLES: tuple[str, ...] = get_args(Role)
MAX_NAME = 200


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Someone who takes part.

    Attributes:
        person_id: random, and all that the training data would ever show.
        name: for administrators.
        roles: what they may do.
        owns: loops whose model is theirs.
        active: whether their key still opens.
    """

    person_id: str
    name: str
    roles: tuple[str, ...]
    owns: tuple[str, ...]
    active: bool

    def may(self, *roles: Role) -> bool:
        """Return whether they hold one of `roles`."""
        return any(role in self.roles for role in roles)


def add_person(
    store: Governance, *, name: str, roles: Sequence[str], owns: Sequence[str] = (), now: datetime, by: str
) -> tuple[Person, str]:
    """Add someone and return them with their key, which is shown this once.

    Raises:
        FieldError: a name or role that is none, or an owner of nothing.
    """
    if not 1 <= len(name.strip()) <= MAX_NAME or not name.isprintable():
        raise FieldError("name", wanted=f"1 to {MAX_NAME} printable characters", got=name)
    for role in roles:
        if role not in ROLES:
            raise FieldError.choice("role", list(ROLES), role)
    if not roles:
        raise FieldError("role", wanted=f"one or more of {', '.join(ROLES)}", got=Words("none"))
    if ("owner" in roles) != bool(owns):
        raise FieldError("owns", wanted="given for an owner, and for an owner only", got=list(owns))
    for loop in owns:
        check_loop_name(loop)
    key = f"dsk_{secrets.token_urlsafe(32)}"
    person = Person(
        person_id=f"p{secrets.token_hex(6)}",
        name=name.strip(),
        roles=tuple(dict.fromkeys(roles)),
        owns=tuple(dict.fromkeys(owns)),
        active=True,
    )
    with store.write(now, by) as writing:
        writing.connection.execute(
            sa.insert(t.people).values(
                person_id=person.person_id,
                name=person.name,
                roles=",".join(person.roles),
                owns=",".join(person.owns),
                key_hash=digest(key),
                added_at=writing.at,
            )
        )
        # The name stays out of the log, which is never erased. What opens is there as the hash of a hash.
        told = {"roles": person.roles, "owns": person.owns, "key": digest(digest(key))}
        writing.log("person_added", person.person_id, told)
    return person, key


def revoke(store: Governance, person_id: str, *, now: datetime, by: str) -> Person:
    """Take someone's key away; what they judged stands.

    Raises:
        FieldError: there is no such person, or they are revoked already.
    """
    with store.write(now, by) as writing:
        changed = writing.connection.execute(
            sa.update(t.people)
            .where(t.people.c.person_id == person_id, t.people.c.revoked_at.is_(None))
            .values(revoked_at=writing.at)
        )
        if not changed.rowcount:
            raise FieldError("person", wanted="the id of an active person", got=person_id)
        writing.connection.execute(sa.delete(t.sessions).where(t.sessions.c.person_id == person_id))
        writing.log("person_revoked", person_id, {})
    return next(person for person in list_people(store) if person.person_id == person_id)


def add_key(store: Governance, state: State, key: Key, *, now: datetime, by: str) -> None:
    """Keep an API key in State, and tell the audit log of it, and of those that are there if it knows none yet.

    Raises:
        FieldError: there are too many already.
        StateError: State cannot be reached.
    """
    with store.write(now, by) as writing:
        if not writing.rows(sa.select(t.audit_log.c.seq).where(t.audit_log.c.kind == "api_key_added").limit(1)):
            for known, _ in listed(state):
                writing.log("api_key_added", known.id, key_told(known))
                if known.revoked_at is not None:
                    writing.log("api_key_revoked", known.id, {})
        writing.log("api_key_added", key.id, key_told(key))
        keep_key(state, key, by=by)


def revoke_key(store: Governance, state: State, name: str, *, now: datetime, by: str) -> Key:
    """Take an API key back, and tell the audit log; raises as `pipelines.access.keys.revoke`."""
    with store.write(now, by) as writing:
        writing.log("api_key_revoked", name, {})
        return take_key(state, name, now=now, by=by)


def list_people(store: Governance) -> list[Person]:
    """Return everyone, oldest first."""
    return [_person(row) for row in store.rows(sa.select(t.people).order_by(t.people.c.added_at))]


def by_key(store: Governance, key: str) -> Person | None:
    """Return the active person who has `key`, or None. Looked up by hash, so timing tells nothing of near misses."""
    found = store.rows(sa.select(t.people).where(t.people.c.key_hash == digest(key), t.people.c.revoked_at.is_(None)))
    return _person(found[0]) if found else None


def open_session(store: Governance, person: Person, *, now: datetime) -> str:
    """Return the token of a new session in the browser, good for 12 hours."""
    token = secrets.token_urlsafe(32)
    with store.write(now, person.person_id) as writing:
        writing.connection.execute(sa.delete(t.sessions).where(t.sessions.c.expires_at < writing.at))
        ends = stamp(now + SESSION)
        writing.connection.execute(
            sa.insert(t.sessions).values(token_hash=digest(token), person_id=person.person_id, expires_at=ends)
        )
        writing.log("session_opened", person.person_id, {"token": digest(digest(token)), "expires_at": ends})
    return token


def by_session(store: Governance, token: str, *, now: datetime) -> Person | None:
    """Return the active person of a session that is still open, or None."""
    joined = t.people.join(t.sessions, t.people.c.person_id == t.sessions.c.person_id)
    found = store.rows(
        sa.select(t.people)
        .select_from(joined)
        .where(
            t.sessions.c.token_hash == digest(token),
            t.sessions.c.expires_at >= stamp(now),
            t.people.c.revoked_at.is_(None),
        )
    )
    return _person(found[0]) if found else None


def close_session(store: Governance, token: str, *, now: datetime, by: str) -> None:
    """End a session."""
    with store.write(now, by) as writing:
        gone = writing.connection.execute(sa.delete(t.sessions).where(t.sessions.c.token_hash == digest(token)))
        if gone.rowcount:
            writing.log("session_closed", by, {"token": digest(digest(token))})


def _person(row: dict[str, Any]) -> Person:
    return Person(
        person_id=row["person_id"],
        name=row["name"],
        roles=tuple(row["roles"].split(",")),
        owns=tuple(name for name in row["owns"].split(",") if name),
        active=row["revoked_at"] is None,
    )
