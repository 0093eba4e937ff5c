"""Known vulnerabilities of the packages in `constraints.txt`, asked of a public database by `pip-audit`.

`pip-audit` says "No known vulnerabilities found" of packages that the database does not know, too, and so of all of
them where nothing answers. Here each package has to be answered for, or the audit fails and says of how many nothing
is known. Run by `make audit`; ``ARGS="--service osv"`` asks OSV instead of PyPI.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_SHOWN = 5


class Audited(NamedTuple):
    """What an audit found.

    Attributes:
        asked: packages that were asked about.
        unknown: those that the database did not answer for.
        vulnerable: {package and version: the vulnerabilities' ids and where they are mended}.
    """

    asked: int
    unknown: list[str]
    vulnerable: dict[str, list[str]]


def read(text: str) -> Audited:
    """Return what a report of `pip-audit` says.

    Args:
        text: its JSON; "" where it could not write one.
    """
    packages: list[dict[str, Any]] = json.loads(text)["dependencies"] if text.strip() else []
    vulnerable: dict[str, list[str]] = {}
    for package in packages:
        if found := package.get("vulns"):
            named = f"{package['name']} {package['version']}"
            vulnerable[named] = [
                f"{one['id']}, mended in {' or '.join(one['fix_versions']) or 'no version yet'}" for one in found
            ]
    return Audited(len(packages), [package["name"] for package in packages if "skip_reason" in package], vulnerable)


def verdict(found: Audited, said: str) -> tuple[int, str]:
    """Return the exit status and what to print.

    Args:
        found: what the audit found.
        said: what `pip-audit` wrote to stderr.
    """
    lines = [f"{package}: {one}" for package, ids in found.vulnerable.items() for one in ids]
    answered = found.asked - len(found.unknown)
    if not answered:
        why = said.strip().splitlines()[-1:] if not found.asked else []
        asked = f" about {found.asked} packages" if found.asked else ""
        lines.append(": ".join([f"no database of vulnerabilities answered{asked}, so nothing is known", *why])[:300])
    elif found.unknown:
        shown = ", ".join(found.unknown[:_SHOWN]) + (", ..." if len(found.unknown) > _SHOWN else "")
        lines.append(f"the database does not know {len(found.unknown)} of {found.asked} packages: {shown}")
    if not lines:
        return 0, f"{answered} packages, no known vulnerability"
    return 1, "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Ask, and print what is known."""
    command = ["-r", "constraints.txt", "--no-deps", "--disable-pip", "-f", "json", "--progress-spinner", "off"]
    ran = subprocess.run(  # noqa: S603 - our own arguments
        [sys.executable, "-m", "pip_audit", *command, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    status, text = verdict(read(ran.stdout), ran.stderr)
    print(text, file=sys.stderr if status else sys.stdout)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
