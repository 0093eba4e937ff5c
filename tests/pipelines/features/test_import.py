"""What a process pays for when it opens features."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import typeguard
from pipelines.features.repository import import_feast
before = typeguard.typechecked
feast = import_feast()
assert feast is import_feast() is sys.modules["feast"]
assert "torch" not in sys.modules
assert typeguard.typechecked is before
names = feast.Entity.__init__.__code__.co_names
assert "join_key" in names  # it is Feast's own
assert "check_argument_types_internal" not in names, names
"""


def test_feast_is_imported_without_torch_and_compiles_no_checks_and_others_have_theirs() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
