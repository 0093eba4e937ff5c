"""The BentoML service: starts the core in each worker and mounts the HTTP application at the root.

    python -m bentoml serve serving.service:DecisionService --host 127.0.0.1 --port 8080

Settings come from ``DECISION_*`` variables (see `pipelines.settings`). `decision serve` sets them and BentoML's own:
tracing samples nothing and access logs are off, because both cost more than a decision.
"""

from __future__ import annotations

import bentoml

from pipelines.logs import set_up
from pipelines.settings import load_settings
from serving.http.app import App
from serving.start import open_core

settings = load_settings()
set_up(settings.log_format, settings.log_level)
app = App(lambda: open_core(settings))


@bentoml.service(
    name="decision",
    workers=settings.workers,
    traffic={"timeout": 30},
    metrics={"enabled": True},
    logging={"access": {"enabled": False}},
    tracing={"sample_rate": 0.0},
)
@bentoml.asgi_app(app, path="/")
class DecisionService:
    """Holds the core of one worker."""

    def __init__(self) -> None:
        self.core = app.core

    def __is_ready__(self) -> bool:
        """Return whether decisions can be taken now."""
        return self.core.ready() is None

    @bentoml.on_shutdown
    def close(self) -> None:
        """Write what waits and close everything before the process ends."""
        app.close()
