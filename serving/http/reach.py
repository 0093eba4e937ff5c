"""Who reaches a service that asks for no key: programs of this machine, and no page of another site in its browsers.

What counts is the socket that a request came through, whoever bound it: not what the settings say of it.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache

from pipelines.operations.processes import is_loopback
from serving.problems import ProblemError
from serving.routes import Scope

SESSION_COOKIE = b"operator_session"
_COOKIES = 8_192
_OWN = (b"none", b"same-origin")
"""What `Sec-Fetch-Site` says of what a person typed, and of the service's own pages."""


def check_reach(scope: Scope) -> None:
    """Check a request that shows no key.

    Raises:
        ProblemError: 403, others than programs of this machine reach the socket that it came through.
    """
    host, port = scope.get("server") or ("", None)
    if port is not None and _is_public(host, port):
        raise ProblemError(
            403, "without API keys the service answers on loopback only; `decision keys create` makes one"
        )


def check_page(scope: Scope, *, signs_in: bool) -> None:
    """Check a request that shows no key and changes something, for it may be a web page that sends it.

    Browsers let any page send forms and plain text anywhere, and say where it comes from; programs say nothing.

    Args:
        scope: of the request.
        signs_in: whether a session of its own shows who is asking; a proxy may then have changed `Host`.

    Raises:
        ProblemError: 403, a page of another site sent it.
    """
    origin, host, site = b"", b"", b""
    for name, value in scope["headers"]:
        if name == b"origin":
            origin = value
        elif name == b"host":
            host = value
        elif name == b"sec-fetch-site":
            site = value
    if site in _OWN and signs_in:
        return
    place = origin.partition(b"://")[2].lower()
    # Without `Sec-Fetch-Site` the browser does not trust the address: a name of another site may lead to loopback.
    named = site in _OWN or is_loopback(_name(place.decode("latin-1")))
    if (site and site not in _OWN) or (origin and not (place == host.lower() and named)):
        raise ProblemError(403, "a page of another site sent this; without API keys only programs and own pages may")


def check_name(scope: Scope, hosts: Callable[[], Collection[str]]) -> None:
    """Check by which name a request that shows no key asks for what is not anybody's.

    A browser lets a page read what comes from the page's own name, and whoever owns the name may lead it to loopback
    meanwhile (DNS rebinding). Such a request shows its name in `Host` and nothing else that a program would not. A
    name without a dot is nobody's in public: machines and containers of one network have such.

    Args:
        scope: of the request.
        hosts: returns further names by which the service is asked, those of its loops.

    Raises:
        ProblemError: 403, the name is not one of this machine's.
    """
    for name, value in scope["headers"]:
        if name == b"host":
            asked = _name(value.decode("latin-1").lower()).rstrip(".")
            if "." in asked and not is_loopback(asked) and asked not in hosts():
                wanted = "ask for localhost, put the name among the `hosts` of a loop, or show an API key"
                raise ProblemError(403, f"without API keys nothing is told by the name {asked[:80]!r}; {wanted}")


def check_origin(scope: Scope) -> None:
    """Check that a form comes from a page of this service, where a cookie shows who sends it.

    Raises:
        ProblemError: 403, it comes from elsewhere.
    """
    found = dict(scope["headers"])
    site, origin = found.get(b"sec-fetch-site", b""), found.get(b"origin", b"")
    elsewhere = origin.partition(b"://")[2].lower() != found.get(b"host", b"").lower()
    if (site and site not in _OWN) or (not site and origin and elsewhere):
        raise ProblemError(403, "a page of another site sent this; open the console's own page. Nothing was changed")


def session_in(headers: dict[bytes, bytes]) -> str:
    """Return what the console's cookie shows; "" without one, and where a key or token is shown as well."""
    if b"authorization" in headers or b"ocp-apim-subscription-key" in headers:
        return ""
    for part in headers.get(b"cookie", b"")[:_COOKIES].split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == SESSION_COOKIE:
            return value.decode("latin-1")
    return ""


def _name(place: str) -> str:
    """Return the host of ``host:port``."""
    return place[1:].partition("]")[0] if place.startswith("[") else place.partition(":")[0]


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
