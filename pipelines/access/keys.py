"""API keys in State: what each may do, in which loops, until when. State holds their hashes and never the keys.

A key is ``dk_ID_SECRET``. Its secret is 256 random bits, so a plain hash is as good as a slow one: nobody tries 2^256.
The id finds its row, so checking costs the same however many keys there are.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from decision.errors import FieldError
from pipelines.settings import LOOP_NAME, LoopSettings, Settings
from pipelines.state.rows import read_json
from pipelines.state.state import Entry, State

Role = Literal["decide", "report", "explain", "read", "operate", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""``admin`` holds all the others."""
PREFIX = "access/key/"
USED = "access/used/"
SUBJECTS = "oidc-"
"""How the names of an issuer's subjects begin, under which their requests are counted beside those of keys."""
EVERY = "*"
"""All loops that a key's tenant has; of a key without one, all loops."""
MAX_KEYS = 10_000
TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TOKEN = re.compile(rb"dk_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a key or a token allows, and where.

    Attributes:
        roles: what whoever shows it may do.
        loops: where: names, or `EVERY`.
        tenant: whose it is; it sees no loop of another tenant. "" for the installation's own.
    """

    roles: list[Role]
    loops: list[str]
    tenant: str = ""

    def holds(self, role: str) -> bool:
        """Return whether it has a role."""
        return role in self.roles or "admin" in self.roles

    def sees(self, loop: LoopSettings) -> bool:
        """Return whether a loop is there for who shows it."""
        return (not self.tenant or loop.tenant == self.tenant) and (EVERY in self.loops or loop.name in self.loops)

    def sees_all(self) -> bool:
        """Return whether every loop is there for who shows it."""
        return not self.tenant and EVERY in self.loops


class Key(Grant, frozen=True, kw_only=True):
    """A key, and what it may do.

    Attributes:
        id: names it, in lists and in logs.
        digest: SHA-256 of its secret.
        created_at: when it was made.
        created_by: who made it.
        expires_at: when it ends; None for never.
        revoked_at: when it was taken back; None while it was not.
        per_second: requests a second that a worker takes of it, a burst of two seconds among them; None for any.
        per_day: requests a day (UTC) that the installation takes of it, counted every few seconds; None for any.
    """

    id: str
    digest: bytes
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    per_day: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def is_valid(self, now: datetime) -> bool:
        """Return whether the key was neither taken back nor has ended."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """How a key was used: last when, and how often on its last day (UTC)."""

    at: datetime
    day: str
    requests: int


def new_key(
    *,
    roles: Sequence[str],
    loops: Sequence[str],
    tenant: str = "",
    now: datetime,
    by: str,
    expires_at: datetime | None = None,
    per_second: float | None = None,
    per_day: int | None = None,
) -> tuple[Key, str]:
    """Return a key, and what whoever holds it has to show; that is kept nowhere.

    Raises:
        FieldError: a role, loop, tenant, time or limit that is none.
    """
    for role in roles:
        if role not in ROLES:
            raise FieldError.choice("role", list(ROLES), role)
    if not roles:
        raise FieldError("role", wanted=f"one of {', '.join(ROLES)}", got=None)
    for loop in loops:
        if loop != EVERY and not LOOP_NAME.fullmatch(loop):
            raise FieldError("loop", wanted='a loop\'s name, or "*"', got=loop)
    if tenant and not TENANT.fullmatch(tenant):
        raise FieldError("tenant", wanted="up to 64 small letters, digits, - and _", got=tenant)
    if expires_at is not None and expires_at <= now:
        raise FieldError("expires", wanted="a time to come", got=expires_at.isoformat())
    if per_second is not None and not 0.0 < per_second < 1e9:
        raise FieldError("per_second", wanted="a number above 0", got=per_second)
    if per_day is not None and per_day < 1:
        raise FieldError("per_day", wanted="1 or more", got=per_day)
    name = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(12))
    secret = secrets.token_urlsafe(32)
    key = Key(
        id=name,
        digest=digest_of(secret.encode()),
        roles=[role for role in ROLES if role in roles],
        loops=sorted(set(loops)) or [EVERY],
        tenant=tenant,
        created_at=now,
        created_by=by,
        expires_at=expires_at,
        per_second=per_second,
        per_day=per_day,
    )
    return key, f"dk_{name}_{secret}"


def digest_of(secret: bytes) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret).digest()


def shown(token: bytes) -> tuple[str, bytes] | None:
    """Return the id and the secret that a caller shows; None for what is no key of ours."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else (found[1].decode(), found[2])


def fits(key: Key, secret: bytes) -> bool:
    """Return whether a secret is the key's."""
    return hmac.compare_digest(key.digest, digest_of(secret))


def add(state: State, key: Key, *, by: str) -> None:
    """Keep a key.

    Raises:
        FieldError: there are `MAX_KEYS` already.
        StateError: State cannot be reached.
    """
    if len(state.versions(PREFIX)) >= MAX_KEYS:
        raise FieldError("keys", wanted=f"at most {MAX_KEYS} keys", got=MAX_KEYS)
    state.put({PREFIX + key.id: (None, msgspec.json.encode(key))}, by=by)


def has_keys(settings: Settings) -> bool:
    """Return whether there are keys in State, none of one that nobody has written to yet.

    Raises:
        StateError: State cannot be reached.
    """
    address = settings.state_url
    if address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///")).is_file():
        return False
    with State(address) as state:
        return bool(state.versions(PREFIX))


def listed(state: State) -> list[tuple[Key, Used | None]]:
    """Return all keys, those that ended too, with how they were used, oldest first.

    Raises:
        StateError: State cannot be reached.
    """
    used = state.entries(USED)
    keys = [parsed(key, entry) for key, entry in state.entries(PREFIX).items()]
    rows = [(key, used.get(USED + key.id)) for key in keys]
    found = [(key, None if entry is None else read_json(USED + key.id, entry.value, Used)) for key, entry in rows]
    return sorted(found, key=lambda row: row[0].created_at)


def revoke(state: State, name: str, *, now: datetime, by: str) -> Key:
    """Take a key back; it ends at every replica within two looks at State.

    Raises:
        FieldError: there is no such key.
        StaleError: somebody else changed it; try again.
        StateError: State cannot be reached.
    """
    entry = state.get(PREFIX + name)
    if entry is None:
        raise FieldError("id", wanted="the id of a key, see `decision keys list`", got=name)
    key = msgspec.structs.replace(parsed(PREFIX + name, entry), revoked_at=now)
    state.put({PREFIX + name: (entry.version, msgspec.json.encode(key))}, by=by)
    return key


def count(state: State, name: str, requests: int, now: datetime) -> int:
    """Add to how often a key was used today, and return how often that is.

    Raises:
        StaleError: another worker counted at the same moment; try again.
        StateError: State cannot be reached.
    """
    entry = state.get(USED + name)
    day = now.astimezone(UTC).date().isoformat()
    before = None if entry is None else read_json(USED + name, entry.value, Used)
    today = requests + (before.requests if before is not None and before.day == day else 0)
    used = Used(at=now, day=day, requests=today)
    change = None if entry is None else entry.version, msgspec.json.encode(used)
    state.put({USED + name: change}, kept=1)  # every few seconds, and nobody asks how it stood before
    return today


def unused(state: State, days: int, now: datetime) -> dict[str, int]:
    """Return how an issuer's subjects were used who were not seen for `days`, by key in State, with their bytes.

    Keys of this installation are not among them: `listed` shows when each was last used.

    Raises:
        StateError: State cannot be reached.
    """
    before = now - timedelta(days=days)
    found = state.entries(f"{USED}{SUBJECTS}")
    times = {key: read_json(key, entry.value, Used).at for key, entry in found.items()}
    return {key: len(found[key].value) for key, at in times.items() if at.astimezone(UTC) < before}


def parsed(key: str, entry: Entry) -> Key:
    """Return the API key that stands under a key of State.

    Raises:
        DamagedRowError: it does not fit.
    """
    return read_json(key, entry.value, Key)
