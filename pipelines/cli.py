"""The command line. Commands live in `pipelines.commands`; here they get their names, and bad arguments their line.

Nothing heavy is imported before a command needs it: `decision --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pipelines.commands import audit, data, features, guard, replay, running, start, steps, study
from pipelines.commands.outcome import BAD_INPUT, FAILED, print_json, report_error, state
from pipelines.formats.registry import FORMATS

_PANELS = {
    "Start": {"demo": start.demo, "init": start.init, "serve": running.serve, "top": running.top},
    "One step of the loop": {
        "forward": running.forward,
        "ingest": steps.ingest,
        "features": features.features,
        "join": steps.join,
        "train": steps.train,
        "evaluate": steps.evaluate,
        "promote": steps.promote,
        "watch": steps.watch,
        "rollback": steps.rollback,
        "guard": guard.guard,
    },
    "The whole night": {"nightly": steps.nightly},
    "Studies": {"study": study.study},
    "Logs": {"replay": replay.replay, "export": data.export, "erase": data.erase},
}
app = typer.Typer(
    name="decision",
    help="Which action for this context? A service that decides, logs the exact propensity, and learns.\n\n"
    "Begin with `decision demo`. Every command takes `--json` for one line of result on stdout; the exit status is "
    "0 done, 1 failed, 2 bad arguments or input, 3 a gate refused.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
imports = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr; show tracebacks.")] = False,
) -> None:
    """Take the options of every command."""
    state.verbose = verbose


for _panel, _commands in _PANELS.items():
    for _name, _function in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_function)
for _name in FORMATS:
    imports.command(_name)(data.importer(_name))
app.add_typer(imports, name="import", rich_help_panel="Logs", help="Bring in logs of other systems.")
app.add_typer(audit.audit, name="audit", rich_help_panel="Panels of auditors", help="Pairs, judgements, verdicts, log.")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process with its status."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        status = app(args=given, prog_name="decision", standalone_mode=False)
    except typer.TyperException as error:
        message = error.format_message()
        report_error(message)
        if "--json" in given:
            print_json({"error": message})
        status = BAD_INPUT
    except typer.Abort:
        status = FAILED
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
