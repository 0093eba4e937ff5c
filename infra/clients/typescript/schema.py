"""Draws `src/schema.ts` from the service's own description of its ``/v1`` paths: ``make client-schema``.

The description is what ``/openapi.json`` has of these paths. Types come from it alone, so a field that the service
gains or loses is found when the client is compiled.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from serving.http import openapi, v1

HERE = Path(__file__).parent
SCHEMA = HERE / "src" / "schema.ts"
HEAD = "/** Drawn from /openapi.json by `make client-schema`; changes are made there. */\n"


def drawn(tool: Path, scratch: Path) -> str:
    """Return the types of requests and answers.

    Args:
        tool: the program that writes types of a description, as ``package.json`` has it.
        scratch: a folder for its input and output.
    """
    description, types = scratch / "v1.json", scratch / "schema.ts"
    description.write_bytes(openapi.document(v1.ROUTES))
    command = ["node", str(tool), str(description), "-o", str(types)]
    subprocess.run(command, check=True, capture_output=True, cwd=scratch)  # noqa: S603 - arguments of our own
    _, _, text = types.read_text("utf-8").partition("*/\n")
    return HEAD + text


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        SCHEMA.write_text(drawn(HERE / "node_modules/openapi-typescript/bin/cli.js", Path(folder)), "utf-8")
