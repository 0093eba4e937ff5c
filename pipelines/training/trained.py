"""What a training leaves behind: the version it registered, and what went into it, told alike by every trainer."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

import decision
from pipelines.training.variants import Compared
from pipelines.training.window import Data

POLICY = "policy"
"""Value of the tag ``kind`` of versions that a training made."""

_LIBRARIES = ("numpy", "scipy", "vowpalwabbit", "lightgbm", "torch")


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """A registered generation.

    Attributes:
        version: its version.
        rows: decisions it learned from.
        metrics: ``train.*`` numbers.
        data: where its rows come from.
        compared: the configurations that were tried, the chosen one marked.
        alarms: what the training left out or cut, in words; empty when nothing.
        session: for a policy with memory: what each method's policy is judged to be worth, which was chosen, and what
            became of the versions of earlier nights beside what was expected of them.
    """

    version: str
    rows: int
    metrics: dict[str, float]
    data: Data
    compared: list[Compared] = []
    alarms: list[str] = []
    session: dict[str, Any] = {}


@cache
def code_version(*beside: str) -> str:
    """Return this code's version: the release, and a digest of the sources that shape a model.

    The digest is one of contents, whatever files they stand in: a module that moves changes nothing. Imports, which
    name places, and comments do not count.

    Args:
        beside: packages that shape the model beside ``decision``.
    """
    root = Path(str(decision.__file__)).parent.parent
    files = [path for package in ("decision", *beside) for path in (root / package).rglob("*.py")]
    parts = sorted(_digest(path.read_text()) for path in files)
    return f"{importlib.metadata.version('decision-service')}+{hashlib.sha256(b''.join(parts)).hexdigest()[:12]}"


def _digest(source: str) -> bytes:
    module = ast.parse(source)
    for node in ast.walk(module):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [each for each in body if not isinstance(each, ast.Import | ast.ImportFrom)]
    return hashlib.sha256(ast.unparse(module).encode()).digest()


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that shape models, those that are installed."""
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
