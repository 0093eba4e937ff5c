"""Under which licences the packages of `constraints.txt` stand, written to `infra/docs/licences.md`.

Read from what is installed, in SPDX's words. A package that this machine does not install keeps the row that it has.
Run by `make licences`.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "infra" / "docs" / "licences.md"
ALONE = ("study", "dev", "compare")
"""Extras for studies and tests: nobody installs them to serve."""
_SAID = {
    "apache": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0", "apache software license": "Apache-2.0", "apache-2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause", "bsd license": "BSD-3-Clause", "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause", "bsd 2-clause license": "BSD-2-Clause", "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause", "gpl-3.0": "GPL-3.0-only", "gnu general public license v3 (gplv3)": "GPL-3.0-only",
    "isc license": "ISC", "isc license (iscl)": "ISC", "lgpl-2.1-or-later": "LGPL-2.1-or-later", "mit": "MIT",
    "mit license": "MIT", "mpl-2.0": "MPL-2.0", "mpl-2.0 and mit": "MPL-2.0 AND MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0", "psf-2.0": "PSF-2.0",
    "licenseref-nvidia-proprietary": "LicenseRef-NVIDIA-Proprietary",
    "nvidia proprietary software": "LicenseRef-NVIDIA-Proprietary", "python software foundation license": "PSF-2.0",
}  # fmt: skip
_UNSAID = {
    "axe-playwright-python": "MIT AND MPL-2.0",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "huey": "MIT",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "skops": "MIT",
    "uvloop": "Apache-2.0 OR MIT",
}
"""Packages whose metadata do not say it; read from their licence files."""

_HEAD = """# Licences

The packages of `constraints.txt` and the licences under which they stand, in SPDX's words. Written by `make licences`;
a test holds it against what is installed. The service itself is under Apache-2.0.

*service*: what `pip install decision-service` brings. *An extra's name*: what that extra adds. *development*: tests,
studies and checks, never part of a wheel, an image or a bento. No package of a service or its extras is under the GPL
or AGPL. Those under the LGPL, the MPL or NVIDIA's terms are used as they are published: say so in your own notices when
you pass an image on.

| package | licence | part of |
| --- | --- | --- |
"""


def licence_of(name: str, found: PackageMetadata) -> str:
    """Return the SPDX expression of an installed package.

    Raises:
        ValueError: its metadata say none that is known here.
    """
    expression, text = found.get("License-Expression"), (found.get("License") or "").strip()
    classes = [
        entry.rpartition(" :: ")[2] for entry in found.get_all("Classifier") or [] if entry.startswith("License")
    ]
    for said in (expression and expression.strip(), _UNSAID.get(name), _SAID.get(text.lower())):
        if said:
            return said
    known = {_SAID[entry.lower()] for entry in classes if entry.lower() in _SAID}
    if len(known) != 1:
        raise ValueError(f"{name}: add its licence to _UNSAID or _SAID; it says {text[:60]!r} and {classes}")
    return known.pop()


def packages() -> list[str]:
    """Return the names of `constraints.txt`, sorted."""
    lines = (ROOT / "constraints.txt").read_text().split()
    return sorted({canonicalize_name(line.partition("==")[0]) for line in lines})


def parts() -> dict[str, str]:
    """Return what each package is part of: ``service``, an extra, or ``development``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: wants for name, wants in project["optional-dependencies"].items() if name not in ALONE}
    found = dict.fromkeys(packages(), "development")
    for part, wants in [*sorted(extras.items(), reverse=True), ("service", project["dependencies"])]:
        found |= dict.fromkeys(_reached(wants) & found.keys(), part)
    return found


def _reached(wants: list[str]) -> set[str]:
    """Return all packages that are installed for these requirements on this machine."""
    reached, waiting = set[tuple[str, str]](), [Requirement(want) for want in wants]
    while waiting:
        want = waiting.pop()
        name = str(canonicalize_name(want.name))
        for extra in ("", *sorted(want.extras)):
            if (name, extra) in reached:
                continue
            reached.add((name, extra))
            try:
                needed = [Requirement(text) for text in requires(name) or []]
            except PackageNotFoundError:
                continue
            waiting += [need for need in needed if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name for name, _ in reached}


def rows() -> dict[str, tuple[str, str]]:
    """Return (licence, part) by package as the table has them."""
    lines = TABLE.read_text().splitlines() if TABLE.is_file() else []
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {row[0]: (row[1], row[2]) for row in cells[2:]}


def made() -> dict[str, tuple[str, str]]:
    """Return (licence, part) by package as they should be.

    Raises:
        ValueError: the licence of a package is not known.
    """
    before, part, found = rows(), parts(), dict[str, tuple[str, str]]()
    for name in packages():
        try:
            found[name] = (licence_of(name, metadata(name)), part[name])
        except PackageNotFoundError:
            if name not in before:
                raise ValueError(f"{name}: not installed here; add its row to {TABLE.name} by hand") from None
            found[name] = before[name]
    return found


def main() -> int:
    """Write the table."""
    try:
        found = made()
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's error
        return 1
    lines = [f"| {name} | {licence} | {part} |" for name, (licence, part) in found.items()]
    TABLE.write_text(_HEAD + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
