"""A service pays for no library that it does not need: each costs start-up time and memory in every worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.worlds.running import new_installation

HEAVY = (
    *("pyarrow", "pandas", "duckdb", "scipy", "sklearn", "altair", "mlflow", "sqlalchemy", "feast", "kafka"),
    *("vowpalwabbit", "torch", "ray", "lightgbm", "redis"),
)


def test_a_service_without_a_version_starts_without_tables_oracles_and_feature_stores(tmp_path: Path) -> None:
    settings = new_installation(tmp_path)
    code = (
        "import sys, serving.service; from pipelines.settings import load_settings; "
        "from serving.start import open_core; open_core(load_settings({})).close(); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    home = os.environ | {"DECISION_HOME": str(settings.root)}
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
