"""The commands of `decision audit`, by name."""

from __future__ import annotations

import typer

from pipelines.commands.auditing import panels, people, proof, reach

audit = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
audit.add_typer(people.people, name="people", help="Manage the people on the panels and their keys.")
for _name, _work in {
    "mine": panels.mine,
    "assign": panels.assign,
    "status": panels.status,
    "types": panels.types,
    "features": reach.features,
    "adjudicate": panels.adjudicate,
    "appeal": panels.appeal,
    "replay": panels.replay,
    "gate": panels.gate,
    "verify": proof.verify,
    "export": proof.export,
    "head": proof.head,
    "repair": proof.repair,
}.items():
    audit.command(_name)(_work)
