"""CPU time of operators' commands against that of importing typer, alternating in one run.

Importing typer is what any command line of this kind pays. The home has a loop under guard with decisions and two
versions, one in charge. Byte code is read, as on a user's machine.

``python -m tests.bench.commands``, ``QUICK=1`` for less.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from pipelines.registry.registry import Registry
from tests.contracts.registry import packed
from tests.worlds.synthetic import new_loop, new_settings, open_parts, play, settle

ROUNDS = 3 if os.environ.get("QUICK") == "1" else 11
REFERENCE = "import typer"
COMMANDS = {
    "help": "--help",
    "top": "top --once --json",
    "guard_stop": "guard news --stop --json",
    "rollback": "rollback news --json",
}
_RUN = "import sys; from pipelines.cli import main; main(sys.argv[1:])"


def home_in(folder: Path, decisions: int) -> Path:
    """Return a home with a loop that has `decisions` joined decisions and two versions."""
    settings = new_settings(folder)
    loop = new_loop(settings, "news", "[guard]\nenabled = true\n\n[reward]\nminimum = 0.0\nmaximum = 1.0\n")
    log, lake = open_parts(settings)
    play(log, "news", decisions)
    settle(log, lake, loop)
    log.close()
    registry = Registry(settings)
    for number in (1, 2):
        registry.set_alias("news", "champion", registry.register("news", packed(a=b"%d" % number)), {})
    return settings.root


def seconds(code: str, arguments: list[str], environment: dict[str, str]) -> float:
    """Return the CPU seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Run the benchmark and print its line."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        folder = Path(made)
        home = home_in(folder, 3_000)
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"DECISION_HOME": str(home), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
        spent: dict[str, list[float]] = {name: [] for name in (REFERENCE, *COMMANDS)}
        for number in range(ROUNDS + 1):
            # Back and forth, so that there is always a champion to roll back from.
            to = ["--to", str(1 + number % 2)]
            for name in spent:
                given = COMMANDS.get(name, "").split() + (to if name == "rollback" else [])
                code = REFERENCE if name == REFERENCE else _RUN
                spent[name].append(seconds(code, given, environment))
    middle = {name: float(np.median(values[1:])) for name, values in spent.items()}  # the first writes byte code
    ratios = {name: round(middle[name] / middle[REFERENCE], 1) for name in COMMANDS}
    detail = {"cpu_s": {name: round(value, 3) for name, value in middle.items()}, "rounds": ROUNDS}
    print(json.dumps({"name": "commands", "ratios": ratios, "detail": detail}))


if __name__ == "__main__":
    main()
