"""Tell an embedded MLflow of the last moves, in a process of its own that nobody waits for.

`python -m pipelines.registry.mirror` does it for the installation that the environment names. Where it is cut short,
the next move makes it good.
"""

from __future__ import annotations

import os
import sys

from pipelines.registry.registry import Registry
from pipelines.settings import Settings, load_settings


def mirror_apart(settings: Settings) -> int:
    """Start the process, and return its number."""
    ours = {"DECISION_HOME": str(settings.root.absolute()), "DECISION_TRACKING_URI": settings.registry_uri}
    ours |= {"DECISION_STATE": settings.state} if settings.state else {}
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "pipelines.registry.mirror"],
        {**os.environ, **ours},
        file_actions=[(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1, 2)],
        setsid=True,
    )


if __name__ == "__main__":
    Registry(load_settings()).mirror()
