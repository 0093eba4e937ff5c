"""References of the serving benchmark: an application that does nothing, for uvicorn alone and mounted on BentoML.

``NOOP_METRICS=off`` switches BentoML's request metrics off; by default they are on, as BentoML has them.
"""

from __future__ import annotations

import os

import bentoml

_BODY = b'{"event_id":"0","action_id":"0","propensity":0.1,"ranking":[],"policy_version":"0","mode":"online"}'


async def app(scope, receive, send) -> None:
    """Read the request and answer with a constant."""
    if scope["type"] != "http":
        return
    message = await receive()
    while message.get("more_body"):
        message = await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})


@bentoml.service(
    name="noop",
    workers=1,
    metrics={"enabled": os.environ.get("NOOP_METRICS") != "off"},
    logging={"access": {"enabled": False}},
    tracing={"sample_rate": 0.0},
)
@bentoml.asgi_app(app, path="/")
class Noop:
    """Holds nothing."""
