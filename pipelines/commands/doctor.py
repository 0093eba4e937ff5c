"""Where the addresses of an installation lead, and whether they keep what is relied upon."""

from __future__ import annotations

import msgspec
from rich.console import Console

from pipelines.commands.outcome import DONE, FAILED, REFUSED, Home, Json, Outcome, command
from pipelines.settings import load_settings


@command
def doctor(home: Home = None, json: Json = False) -> Outcome:
    """Tell of each address whether it answers, whether machines share it, and whether it passed its probe.

    Files on object storage are probed by writing one key twice on condition that it is new: the second must be refused.
    Of an OpenID Connect issuer the keys are fetched, and its clock is compared with this machine's.
    Exit status 3: a probe was refused; 1: an address does not answer.

    Example: `DECISION_FILES=s3://decisions/production decision doctor`
    """
    from pipelines.operations.doctor import examine

    found = examine(load_settings(home=None if home is None else str(home)))
    refused = [finding.variable for finding in found if finding.probe == "refused"]
    silent = [finding.variable for finding in found if not finding.reachable]
    names = {finding.variable: finding.variable.removeprefix("DECISION_").lower() for finding in found}

    def show(out: Console) -> None:
        for finding in found:
            style = "red" if finding.variable in (*refused, *silent) else "yellow" if finding.advice else ""
            out.print(str(finding), style=style, markup=False, highlight=False, soft_wrap=True)

    data = {
        "addresses": {names[finding.variable]: msgspec.to_builtins(finding) for finding in found},
        "refused": [names[variable] for variable in refused],
        "unreachable": [names[variable] for variable in silent],
    }
    return Outcome(data, show, REFUSED if refused else FAILED if silent else DONE)
