"""The bill of materials of a release, CycloneDX 1.6 in JSON: `constraints.txt`, with licences and what is part of what.

Made by `cyclonedx-py`; licences and scopes are those of `infra/docs/licences.md`. The same files give the same bytes.
Run by `make sbom`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from infra.supply.licences import ROOT, rows

BILL = ROOT / "dist" / "sbom.cdx.json"
_SCOPES = {"service": "required", "development": "excluded"}
"""CycloneDX's words; what extras bring is optional."""


def bill() -> dict[str, Any]:
    """Return the bill.

    Raises:
        CalledProcessError: `cyclonedx-py` fails.
        ValueError: a package has no row in the table of licences, or the bill does not fit CycloneDX's schema.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bill.json"
        command = ["requirements", "constraints.txt", "--pyproject", "pyproject.toml", "--output-reproducible"]
        command += ["--sv", "1.6", "--of", "JSON", "-o", str(path)]
        # It warns that the list says nothing of who needs whom.
        subprocess.run(  # noqa: S603 - our own arguments
            [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", *command], cwd=ROOT, check=True, capture_output=True
        )
        found: dict[str, Any] = json.loads(path.read_text())
    known = rows()
    for component in found["components"]:
        name = str(canonicalize_name(component["name"]))
        if name not in known:
            raise ValueError(f"{name}: not in infra/docs/licences.md; run `make licences`")
        licence, part = known[name]
        component["licenses"] = [{"expression": licence}]
        component["scope"] = _SCOPES.get(part, "optional")
        # Where it came from is a setting of who installs; the package's name and version say what it is.
        del component["externalReferences"], component["description"]
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found))
    if wrong is not None:
        raise ValueError(f"no CycloneDX 1.6: {wrong}")
    return found


def main(path: Path = BILL) -> int:
    """Write the bill."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found := bill(), indent=2) + "\n")
    print(f"{path}: {len(found['components'])} packages")  # noqa: T201 - a command's result
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
