"""The command line. Commands live in `pipelines.commands`; here they get their names, and bad arguments their line.

Nothing heavy is imported before a command needs it: `decision --help` answers at once.
"""

from __future__ import annotations

import os
import re
import sys
from copy import copy
from typing import Annotated, Literal

import typer
from typer.models import CommandInfo

from decision.errors import FieldError
from pipelines.commands import (
    alarms,
    apply,
    data,
    doctor,
    features,
    guard,
    keys,
    replay,
    running,
    start,
    steps,
    study,
    verify,
)
from pipelines.commands.analysis import policy
from pipelines.commands.auditing.app import audit
from pipelines.commands.imports import importer, vw_model
from pipelines.commands.keeping import backup, tidy
from pipelines.commands.moving import migrate
from pipelines.commands.nights import compare, nightly
from pipelines.commands.outcome import BAD_INPUT, FAILED, print_json, report_error, state
from pipelines.formats.registry import FORMATS

_PANELS = {
    "Start": {
        "demo": start.demo,
        "init": start.init,
        "apply": apply.apply,
        "serve": running.serve,
        "top": running.top,
        "doctor": doctor.doctor,
    },
    "One step of the loop": {
        "forward": running.forward,
        "ingest": steps.ingest,
        "features": features.features,
        "join": steps.join,
        "train": steps.train,
        "evaluate": steps.evaluate,
        "compare": compare.compare,
        "promote": steps.promote,
        "watch": steps.watch,
        "rollback": steps.rollback,
        "guard": guard.guard,
    },
    "The whole night": {"nightly": nightly.nightly, "alarms": alarms.alarms},
    "Keeping an installation": {
        "tidy": tidy.tidy,
        "backup": backup.backup,
        "restore": backup.restore,
    },
    "Studies": {"study": study.study},
    "Logs": {"verify": verify.verify, "replay": replay.replay, "export": data.export, "erase": data.erase},
}
_COMPLETE = "_DECISION_COMPLETE"
"""Set by a shell that completes a line."""

app = typer.Typer(
    name="decision",
    help="Which action for this context? A service that decides, logs the exact propensity, and learns.\n\n"
    "Start with `decision demo`. Every command takes `--json` for one line of result on stdout; the exit status is "
    "0 done, 1 failed, 2 bad arguments or input, 3 a gate refused.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
imports = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def options(
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Log each step and show tracebacks; -vv adds debug messages.",
        ),
    ] = 0,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option("--log-format", help="Format of log lines (default: $DECISION_LOG_FORMAT or text)."),
    ] = None,
) -> None:
    """Take the options of every command; they may stand after it too."""
    state.verbose = verbose
    state.log_format = log_format or _form(os.environ.get("DECISION_LOG_FORMAT", "text"))


for _panel, _commands in _PANELS.items():
    for _name, _function in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_function)
for _name in FORMATS:
    imports.command(_name)(importer(_name))
imports.command("vw-model")(vw_model)
app.add_typer(
    keys.keys, name="keys", rich_help_panel="Operations", help="Keys of the service: who may do what, in which loops."
)
app.add_typer(policy.policy, name="policy", rich_help_panel="Logs", help="Try a policy on a few logged decisions.")
app.add_typer(imports, name="import", rich_help_panel="Logs", help="Import logs and models of other systems.")
app.add_typer(
    migrate.migrate,
    name="migrate",
    rich_help_panel="Logs",
    help="Come from another system: what would its requests find here?",
)
app.add_typer(
    audit,
    name="audit",
    rich_help_panel="Panels of auditors",
    help="Mine pairs, assign panels, adjudicate disputes, verify the audit log.",
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its status."""
    general, rest = _apart(sys.argv[1:] if arguments is None else arguments)
    given = general + rest
    asked = next((word for word in rest if not word.startswith("-")), None)
    try:
        status = _asked_for(asked)(args=given, prog_name="decision", standalone_mode=False)
    except typer.TyperException as error:
        message = error.format_message()
        report_error(message)
        if "--json" in given:
            print_json({"error": message})
        status = BAD_INPUT
    except FieldError as error:
        report_error(str(error))
        status = BAD_INPUT
    except typer.Abort:
        status = FAILED
    sys.exit(status if isinstance(status, int) else 0)


def _asked_for(name: str | None) -> typer.Typer:
    """Return the application with the command or group `name` alone; without one, with names and help alone.

    Typer reads the parameters of all commands that an application has, which takes longer than many commands do.
    """
    commands = [info for info in app.registered_commands if info.name == name]
    groups = [info for info in app.registered_groups if info.name == name]
    if name is None:
        commands = [_bare(info) for info in app.registered_commands]
        groups = [copy(info) for info in app.registered_groups]
        for info in groups:
            info.typer_instance = typer.Typer()
    if not (commands or groups) or _COMPLETE in os.environ:
        return app  # which says what was probably meant, or what the words of a shell may become
    narrowed = copy(app)
    narrowed.registered_commands, narrowed.registered_groups = commands, groups
    return narrowed


def _bare(info: CommandInfo) -> CommandInfo:
    """Return the command without its parameters."""

    def nothing() -> None: ...

    bare = copy(info)
    nothing.__doc__, bare.callback = getattr(info.callback, "__doc__", None), nothing
    return bare


def _apart(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the options of every command, wherever they stood, and the other arguments."""
    first: list[str] = []
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            rest += [argument, *left]
        elif re.fullmatch(r"-v+|--verbose|--log-format=.*", argument):
            first.append(argument)
        elif argument == "--log-format":
            first += [argument, *([value] if (value := next(left, None)) is not None else [])]
        else:
            rest.append(argument)
    return first, rest


def _form(text: str) -> Literal["text", "json"]:
    if text not in ("text", "json"):
        raise FieldError.choice("DECISION_LOG_FORMAT", ["text", "json"], text)
    return text


if __name__ == "__main__":
    main()
