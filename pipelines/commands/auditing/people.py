"""`decision audit people`: who sits on the panels, and the keys they show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from pipelines.commands.outcome import Home, Json, Outcome, command, who
from pipelines.operations.installation import Installation

people = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@command
def add(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name, which only administrators see.", show_default=False)
    ],
    role: Annotated[
        list[str], typer.Option("--role", help="auditor, adjudicator, administrator or owner; repeatable.")
    ],
    owns: Annotated[
        list[str] | None, typer.Option("--owns", help="For owners: a loop whose model is theirs; repeatable.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Add someone and print their key, which is shown only once.

    Example: `decision audit people add "Ada L." --role auditor`
    """
    from pipelines.fairness.people import add_person
    from pipelines.fairness.store import Governance

    with Installation.at(home) as parts, Governance.at(parts.settings) as store:
        for loop in owns or []:
            parts.loop(loop)
        person, key = add_person(store, name=name, roles=role, owns=owns or [], now=datetime.now(UTC), by=who())
    data = {**msgspec.to_builtins(person), "key": key}
    return Outcome(data, lambda out: out.print(f"{person.person_id} {person.name}: key {key} (not shown again)"))


@command
def listed(home: Home = None, json: Json = False) -> Outcome:
    """Show everyone, their roles, and whether their key is still valid.

    Example: `decision audit people list`
    """
    from pipelines.fairness.people import list_people
    from pipelines.fairness.store import Governance

    with Installation.at(home) as parts, Governance.at(parts.settings) as store:
        found = list_people(store)

    def show(out: Console) -> None:
        table = Table("id", "name", "roles", "owns", "active")
        for person in found:
            roles, owns = ", ".join(person.roles), ", ".join(person.owns)
            table.add_row(person.person_id, person.name, roles, owns, "yes" if person.active else "no")
        out.print(table)

    return Outcome({"people": msgspec.to_builtins(found)}, show)


@command
def revoke(
    person: Annotated[str, typer.Argument(metavar="PERSON", help="Id of the person.", show_default=False)],
    home: Home = None,
    json: Json = False,
) -> Outcome:
    """Revoke someone's key; their judgements stand.

    Example: `decision audit people revoke p0123456789ab`
    """
    from pipelines.fairness.people import revoke as run
    from pipelines.fairness.store import Governance

    with Installation.at(home) as parts, Governance.at(parts.settings) as store:
        done = run(store, person, now=datetime.now(UTC), by=who())
    return Outcome(msgspec.to_builtins(done), lambda out: out.print(f"{done.person_id}: revoked"))


for _name, _work in {"add": add, "list": listed, "revoke": revoke}.items():
    people.command(_name)(_work)
