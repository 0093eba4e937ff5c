"""`decision keys`: who may ask the service what."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from decision.errors import FieldError
from pipelines.commands.outcome import Home, Json, Outcome, command, who
from pipelines.settings import Settings, load_settings

keys = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@keys.command("create")
@command
def create(
    role: Annotated[
        list[str], typer.Option("--role", help="decide, report, explain, read, operate or admin (all); repeat it.")
    ],
    loop: Annotated[list[str] | None, typer.Option("--loop", help="A loop; repeat it (default: all).")] = None,
    tenant: Annotated[str, typer.Option(help="Whose key it is: it sees loops with this `tenant` alone.")] = "",
    expires: Annotated[
        str | None, typer.Option(help="After how long it ends: 90d, 12h; or a time with its UTC offset.")
    ] = None,
    per_second: Annotated[float | None, typer.Option(help="Requests a second that a worker takes of it.")] = None,
    per_day: Annotated[int | None, typer.Option(help="Requests a day (UTC) that the installation takes of it.")] = None,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Make a key. It is shown now and never again: State keeps its hash.

    As soon as there is one, every request has to show a key, on this machine too.

    Example: `decision keys create --role decide --role report --loop news --expires 90d`
    """
    from pipelines.access.keys import new_key
    from pipelines.fairness.people import add_key
    from pipelines.fairness.store import Governance
    from pipelines.state.state import State

    settings, now = _settings(home), datetime.now(UTC)
    key, token = new_key(
        roles=role,
        loops=loop or [],
        tenant=tenant,
        now=now,
        by=who(),
        expires_at=None if expires is None else _ends(expires, now),
        per_second=per_second,
        per_day=per_day,
    )
    with Governance.at(settings) as store, State(settings.state_url) as state:
        add_key(store, state, key, now=now, by=who())
    return Outcome({"key": token, **_row(key, None, now)}, lambda out: _show_new(out, token, key))


@keys.command("list")
@command
def list_(home: Home = None, json: Json = False) -> Outcome:
    """Show all keys, those that ended too: what each may do, and when it was last used.

    Example: `decision keys list`
    """
    from pipelines.access.keys import listed
    from pipelines.state.state import State

    now = datetime.now(UTC)
    with State(_settings(home).state_url) as state:
        rows = [_row(key, used, now) for key, used in listed(state)]

    def show(out: Console) -> None:
        whole = Column("id", min_width=max([len(row["id"]) for row in rows], default=2))  # it is copied from here
        table = Table(whole, "roles", "loops", "tenant", "state", "last used", "today", "made")
        for row in rows:
            table.add_row(
                row["id"],
                " ".join(row["roles"]),
                " ".join(row["loops"]),
                row["tenant"],
                row["state"],
                (row["last_used"] or "never")[:16],
                str(row["today"]),
                f"{row['created_at'][:10]} by {row['created_by']}",
            )
        out.print(table if rows else "no keys: whoever reaches this machine's loopback may ask")

    return Outcome({"keys": rows}, show)


@keys.command("revoke")
@command
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="Of the key; `decision keys list` shows it.")],
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Take a key back: it ends everywhere within two looks of the replicas.

    Example: `decision keys revoke abcdefghijkl`
    """
    from pipelines.fairness.people import revoke_key
    from pipelines.fairness.store import Governance
    from pipelines.state.state import State

    settings, now = _settings(home), datetime.now(UTC)
    with Governance.at(settings) as store, State(settings.state_url) as state:
        key = revoke_key(store, state, id, now=now, by=who())
    return Outcome(_row(key, None, now), lambda out: out.print(f"{id} is revoked", highlight=False))


def _settings(home: Any) -> Settings:
    from pipelines.files import make_home

    settings = load_settings(home=None if home is None else str(home))
    make_home(settings.root)
    return settings


def _ends(text: str, now: datetime) -> datetime:
    found = _SPAN.fullmatch(text)
    if found is not None:
        return now + timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise FieldError("expires", wanted="90d, 12h or the like, or a time with its UTC offset", got=text)
    return at


def _row(key: Any, used: Any, now: datetime) -> dict[str, Any]:
    state = "revoked" if key.revoked_at is not None else "holds" if key.is_valid(now) else "ended"
    today = used.requests if used is not None and used.day == now.date().isoformat() else 0
    return {
        "id": key.id,
        "roles": key.roles,
        "loops": key.loops,
        "tenant": key.tenant,
        "state": state,
        "created_at": key.created_at.isoformat(),
        "created_by": key.created_by,
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
        "revoked_at": None if key.revoked_at is None else key.revoked_at.isoformat(),
        "per_second": key.per_second,
        "per_day": key.per_day,
        "last_used": None if used is None else used.at.isoformat(),
        "today": today,
    }


def _show_new(out: Console, token: str, key: Any) -> None:
    out.print(token, highlight=False, soft_wrap=True)
    where = "all loops" if key.loops == ["*"] else ", ".join(key.loops)
    whose = f" of {key.tenant}" if key.tenant else ""
    out.print(f"may {', '.join(key.roles)} in {where}{whose}; it is not shown again", highlight=False)
