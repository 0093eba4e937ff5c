"""The service at an address, by httpx, for threads; with `async_http` the only module that imports it."""

from __future__ import annotations

import httpx

from decision_client.effects import NoReply, Reply, Send

CONNECTIONS = 20
"""Most connections of a client: httpx's pool takes time that grows with their number times that of the requests."""
FAILURES = (httpx.HTTPError, httpx.InvalidURL, RuntimeError)
"""What is no answer; the last where the client was closed meanwhile."""
LIMITS = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=30.0)
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
_LONGEST_WAIT_S = 3600.0


class Http:
    """A service, for threads.

    Args:
        address: its address, for example ``http://127.0.0.1:8080``; a path before the service's own is kept.
        key: API key, where the service has keys.

    Raises:
        ValueError: the address is not one of http or https.
    """

    def __init__(self, address: str, key: str | None) -> None:
        self._client = httpx.Client(base_url=checked(address), headers=headers(key), limits=LIMITS)

    def send(self, send: Send) -> Reply | NoReply:
        """Return the answer; raises nothing where there is none."""
        try:
            answer = self._client.request(send.method, send.path, content=send.body, timeout=send.timeout_s)
        except FAILURES as error:
            return no_reply(error)
        return reply(answer)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def checked(address: str) -> str:
    """Return an address, if it is one of http or https."""
    url = httpx.URL(address)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"address: must be one of http or https, for example http://127.0.0.1:8080, is {address!r}")
    return address


def headers(key: str | None) -> dict[str, str]:
    """Return the headers of every request."""
    said = {"content-type": "application/json", "user-agent": "decision-client"}
    return said | {"authorization": f"Bearer {key}"} if key else said


def reply(answer: httpx.Response) -> Reply:
    """Return an answer of the service."""
    try:
        wait = float(answer.headers.get("retry-after", 0))
    except ValueError:  # a date, as proxies send it: our own wait will do
        wait = 0.0
    return Reply(answer.status_code, answer.content, min(wait, _LONGEST_WAIT_S) if wait > 0 else 0.0)


def no_reply(error: Exception) -> NoReply:
    """Return why there is no answer."""
    return NoReply(f"{type(error).__name__}: {error}".rstrip(": "), maybe_taken=not isinstance(error, _NEVER_SENT))
