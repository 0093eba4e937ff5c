"""What the service makes in its home folder is its owner's alone, whatever the umask."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.operations.init import init_loop
from pipelines.settings import load_settings
from serving.start import open_core


def test_a_new_home_and_the_databases_that_are_opened_in_it_are_their_owners_alone(tmp_path: Path) -> None:
    settings = load_settings({}, home=str(tmp_path / "new" / "home"))
    before = os.umask(0)
    try:
        init_loop(settings, "news")
        core = open_core(settings)
    finally:
        os.umask(before)
    try:
        assert settings.root.stat().st_mode & 0o777 == 0o700
        opened = {path.name: oct(path.stat().st_mode & 0o777) for path in settings.root.glob("*.db*")}
        assert {"log.db", "state.db"} <= opened.keys()
        assert {mode for name, mode in opened.items() if not name.startswith("mlflow.db")} == {"0o600"}
    finally:
        core.close()
