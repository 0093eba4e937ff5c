"""Who reaches a service that asks for no key: programs of this machine, and no page of another site in its browsers.

What counts is the socket that a request came through, whoever bound it: not what the settings say of it.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from functools import lru_cache

from pipelines.operations.processes import is_loopback
from serving.problems import ProblemError
from serving.routes import Scope


def check_reach(scope: Scope) -> None:
    """Check a request that shows no key.

    Raises:
        ProblemError: 403, others than programs of this machine reach the socket that it came through.
    """
    host, port = scope.get("server") or ("", None)
    if port is not None and _is_public(host, port):
        raise ProblemError(403, "without API keys the service answers on loopback only; set DECISION_API_KEYS")


@lru_cache(maxsize=64)
def _is_public(host: str, port: int) -> bool:
    return (_is_address(host) and not is_loopback(host)) or not all(map(is_loopback, _listening(port)))


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return True
    return False


def _listening(port: int) -> Iterator[str]:
    """Yield the addresses at which sockets of this process accept connections to `port`."""
    for name in os.listdir("/dev/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as held:
                if held.family in (socket.AF_INET, socket.AF_INET6) and held.getsockopt(
                    socket.SOL_SOCKET, socket.SO_ACCEPTCONN
                ):
                    address = held.getsockname()
                    if address[1] == port:
                        yield address[0]
        except OSError:
            continue  # closed meanwhile
