"""The TypeScript client, compiled once, and programs of Node that use it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from tests.parts import require

SOURCE = Path(__file__).parents[2] / "infra/clients/typescript"
PROGRAMS = Path(__file__).parents[1] / "infra" / "clients" / "programs"
_SECONDS = 300


@cache
def tools() -> Path:
    """Return the folder of the packages that the client is compiled with, fetched once into a cache folder."""
    require(shutil.which("npm"), "npm is not installed")
    wanted = json.loads((SOURCE / "package.json").read_text())["devDependencies"]
    packages = [f"{name}@{version}" for name, version in wanted.items()]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "decision-service"
    cache_folder = root / "-".join(["typescript", *wanted.values()])
    if not all((cache_folder / "node_modules" / name).is_dir() for name in wanted):
        cache_folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--prefix", str(cache_folder), *packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        require(done.returncode == 0, f"npm cannot fetch {', '.join(packages)}: {done.stderr[-300:]}")
    return cache_folder / "node_modules"


def compiled(folder: Path) -> Path:
    """Return the compiled client, as ``npm run build`` makes it, below `folder`."""
    there = folder / "decision-client"
    shutil.copytree(SOURCE, there, ignore=shutil.ignore_patterns("node_modules", "dist", "__pycache__"))
    (there / "node_modules").symlink_to(tools())
    command = ["node", str(tools() / "typescript/bin/tsc"), "-p", str(there)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    assert done.returncode == 0, done.stdout[-2_000:]
    return there / "dist"


def ran(dist: Path, program: str, *arguments: Any, ends: int = 0) -> Any:
    """Return what a program of `PROGRAMS` prints as JSON.

    There `client` is the package, `file` its part for Node, `given` the arguments, and `error` what a call ends with.
    """
    text = f"""
import * as client from {json.dumps((dist / "index.js").as_uri())};
import * as file from {json.dumps((dist / "file.js").as_uri())};
const given = {json.dumps(arguments)};
const error = async (work) => {{
  try {{ return {{ done: await work() }}; }} catch (error) {{
    return {{ name: error.name, status: error.problem?.status, field: error.field, message: error.message }};
  }}
}};
{(PROGRAMS / f"{program}.mjs").read_text()}
"""
    command = ["node", "--input-type=module", "-e", text]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    assert done.returncode == ends, done.stderr[-2_000:]
    return json.loads(done.stdout) if done.stdout else None
