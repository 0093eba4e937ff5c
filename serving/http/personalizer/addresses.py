"""Where Personalizer's operations stand, and which loop a request to one of them means.

A resource of Personalizer was a host name and a key. Here it is a loop, named by whatever the client can say: the path,
a header, the host that it asked, or its key.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from serving.http.personalizer.errors import PREFIX, REFUSALS, TAG, RefusedError
from serving.problems import ProblemError
from serving.routes import Answer, Call, Query, Role, Route

VERSIONS = ("v1.0", "v1.1-preview", "v1.1-preview.1", "v1.1-preview.2", "v1.1-preview.3")
IN_QUERY = "2022-09-01-preview"
"""The version whose paths have none; clients name it in the query."""
_MAX_QUERY = 16
_LOOP = Query(
    name="X-Decision-Loop",
    text="The loop; not needed where the path, the host or the key leads to one, or there is one only",
    where="header",
)


def operation(
    path: str, name: str, summary: str, answer: Answer, *, role: Role, since: str = "v1.0", **rest: Any
) -> Route:
    """Return the route of an operation, which answers under every version and every loop's prefix.

    Args:
        path: what follows the version.
        name: see `Route`.
        summary: see `Route`.
        answer: see `Route`.
        role: see `Route`.
        since: first version that published it; documented there.
        rest: further fields of `Route`.
    """

    async def checked(call: Call) -> Any:
        _check_version(call)
        return await answer(call)

    places = [f"{PREFIX}/{version}{path}" for version in VERSIONS] + [f"{PREFIX}{path}"]
    first = f"{PREFIX}{path}" if since == IN_QUERY else f"{PREFIX}/{since}{path}"
    others = [place for place in places if place != first]
    return Route(
        path=first,
        also_at=(*others, *(f"/loops/{{loop}}{place}" for place in places)),
        name=name,
        tag=TAG,
        summary=summary,
        answer=checked,
        role=role,
        refusals=REFUSALS,
        parameters=(*rest.pop("parameters", ()), _LOOP),
        **rest,
    )


def in_query(call: Call) -> bool:
    """Return whether a request is of the version that stands in the query: there is none in its path."""
    _, _, rest = call.scope["path"].partition(f"{PREFIX}/")
    return rest.partition("/")[0] not in VERSIONS


def query(call: Call) -> dict[str, str]:
    """Return the fields of a request's query, each by its last value.

    Raises:
        RefusedError: they are too many.
    """
    try:
        text = call.scope.get("query_string", b"").decode("latin-1")
        return {name: values[-1] for name, values in parse_qs(text, max_num_fields=_MAX_QUERY).items()}
    except ValueError as error:
        raise RefusedError(400, "InvalidRequest", f"query: must have at most {_MAX_QUERY} fields") from error


def _check_version(call: Call) -> None:
    """Refuse a version that the query names and nobody published; one in the path is known, for the path was found."""
    if not call.scope.get("query_string"):
        return
    named = query(call).get("api-version", IN_QUERY)
    if named != IN_QUERY and named not in VERSIONS:
        known = ", ".join((*VERSIONS, IN_QUERY))
        raise RefusedError(400, "InvalidRequest", f"api-version: there is no {named[:80]!r}; known: {known}")


def loop_of(call: Call) -> str:
    """Return the loop that a request means: of its path, its header, its host, or the one that its key sees.

    Raises:
        UnknownLoopError: it is not there for the caller.
        ProblemError: 404, nothing says which one.
    """
    named = call.path.get("loop")
    if named is None:
        header = call.headers.get(b"x-decision-loop")
        named = None if header is None else header.decode("latin-1")
    if named is not None:
        call.check_loop(named)
        call.core.snapshot(named)
        return named
    names = call.loops()
    if len(names) == 1:
        return names[0]
    host = _host(call)
    of_host = [name for name in names if host and host in call.core.snapshot(name).loop.hosts]
    if len(of_host) == 1:
        return of_host[0]
    raise ProblemError(
        404,
        "name the loop: in the path (/loops/LOOP/personalizer/...), in the header X-Decision-Loop, "
        "by one of the `hosts` of its settings, or use a key of one loop",
        field="X-Decision-Loop",
        wanted="a loop",
        got=f"{len(of_host)} loops of this host" if of_host else "absent",
    )


def _host(call: Call) -> str:
    """Return the host that a request was sent to, in small letters and without a port."""
    host = call.headers.get(b"host", b"").decode("latin-1").lower()
    return host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
