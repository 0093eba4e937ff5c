"""Requests that follow the table of routes until they do not; some are no HTTP."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import msgspec

from serving.http.door import MAX_REST
from serving.routes import Route

LOOPS = {"news": "", "shop": 'tenant = "acme"\n'}
TEXTS = (
    "",
    "a",
    "é",
    "日本",
    "\x00",
    "\U0001f600" * 9,
    "../../etc/passwd",
    "%2e%2e",
    "' OR 1=1 --",
    "{{7*7}}",
    "<b>",
    "\r\nx: y",
    "1e999",
    "x" * 5_000,
)
NUMBERS = (0, -1, 1, 2**31, 2**53 + 1, 2**64, 10**400, 0.5, -0.0, 1e-320, 1e308, 1e15, True)
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "QUERY")
NO_HTTP = (
    b"\r\n\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost x\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"POST /v1/loops/news/decide HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/loops/news/decide HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET http://other.example/livez HTTP/1.1\r\nhost: x\r\n\r\n",
    b"CONNECT other.example:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /livez HTTP/1.0\r\n\r\n",
)


class Sent(msgspec.Struct, frozen=True):
    """One request.

    Attributes:
        route: its operation's id; "" for what is no HTTP.
        method: as it was sent.
        data: all of it.
        told: whether it is a request that HTTP answers, and not one that may end the connection: so may a body of which
            more than `MAX_REST` comes after the answer, from whoever sends it all before reading.
    """

    route: str
    method: str
    data: bytes
    told: bool


class Grammar:
    """Makes requests.

    Args:
        routes: the table.
        keys: what callers show, by who they are.
        seed: of all of them.
    """

    def __init__(self, routes: Sequence[Route], keys: dict[str, str], seed: int) -> None:
        self._routes, self._keys, self._seed = list(routes), keys, seed

    def request(self, number: int) -> Sent:
        """Return the request of a number; always the same."""
        rng = random.Random(f"{self._seed}:{number}")
        if rng.random() < 0.005:
            return Sent("", "GET", rng.choice(NO_HTTP), False)
        route = rng.choice(self._routes)
        method = route.method if rng.random() < 0.95 else rng.choice(METHODS)
        target = "/".join(self._part(rng, part) for part in route.path.split("/")) + self._query(rng, route)
        body = self._body(rng, route)
        headers = self._headers(rng, route)
        if body and rng.random() < 0.05:
            headers.append((b"transfer-encoding", b"chunked"))
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            headers.append((b"content-length", b"%d" % len(body)))
        lines = [
            b"%s %s HTTP/1.1" % (method.encode(), target.encode()),
            b"host: x",
            *(b"%s: %s" % each for each in headers),
        ]
        return Sent(route.name, method, b"\r\n".join([*lines, b"", body]), len(body) <= MAX_REST)

    def _part(self, rng: random.Random, part: str) -> str:
        if part.startswith("{"):
            if rng.random() < 0.8:
                known = {"{loop}": tuple(LOOPS)}.get(part, ("e1", "e2", "known", "1"))
                return rng.choice(known)
            raw = rng.choice(TEXTS).encode() if rng.random() < 0.8 else rng.randbytes(rng.randrange(1, 40))
            return quote_from_bytes(raw[:2_000], safe="")
        return part if rng.random() < 0.995 else quote_from_bytes(rng.choice(TEXTS).encode()[:99], safe="")

    def _query(self, rng: random.Random, route: Route) -> str:
        named = [each.name for each in route.parameters if each.where == "query"]
        given = [(name, rng.choice((*LOOPS, *TEXTS, "1", "-1", "10"))) for name in named if rng.random() < 0.8]
        if rng.random() < 0.05:
            given += [(rng.choice(TEXTS), rng.choice(TEXTS)) for _ in range(rng.randrange(1, 20))]
        return "?" + urlencode(given) if given else ""

    def _headers(self, rng: random.Random, route: Route) -> list[tuple[bytes, bytes]]:
        key = self._keys[rng.choice(list(self._keys))]
        if rng.random() < 0.5:
            key = self._keys["panels" if route.role == "panel member" else "all"]
        headers = [(b"authorization", b"Bearer " + key.encode())] if key else []
        if rng.random() < 0.05:
            headers = [
                (
                    b"authorization",
                    rng.choice((b"Basic eDp5", b"Bearer", b"Bearer \xff\xfe", b"dk_", b"Bearer " + b"x" * 9_000)),
                )
            ]
        form = route.form and rng.random() < 0.9
        kind = b"application/x-www-form-urlencoded" if form else b"application/json"
        headers.append(
            (
                b"content-type",
                kind if rng.random() < 0.95 else rng.choice((b"text/plain", b"", b"\xff", b"multipart/form-data")),
            )
        )
        if "personalizer" in route.path or rng.random() < 0.05:
            headers.append((b"x-decision-loop", rng.choice((b"news", b"shop", b"none", b"\xff", b""))))
        if rng.random() < 0.1:
            name = rng.choice(
                (
                    b"cookie",
                    b"origin",
                    b"x-forwarded-proto",
                    b"accept",
                    b"range",
                    b"if-none-match",
                    b"sec-fetch-site",
                    b"accept-encoding",
                )
            )
            headers.append(
                (
                    name,
                    rng.choice(
                        (
                            b"session=x; token=y",
                            b"http://other.example",
                            b"null",
                            b"bytes=0-1",
                            b"\xff\xfe",
                            b"*/*",
                            b"cross-site",
                        )
                    ),
                )
            )
        return headers

    def _body(self, rng: random.Random, route: Route) -> bytes:
        if route.request is None:
            return b"" if rng.random() < 0.9 else b"{}"
        example = json.loads(msgspec.json.encode(route.example)) if route.example is not None else {}
        kind = rng.random()
        if kind < 0.3:
            pass
        elif kind < 0.9:
            for _ in range(rng.randrange(1, 5)):
                example = _changed(rng, example)
        if route.form and isinstance(example, dict):
            body = urlencode(
                {str(name): str(value)[:9_000] for name, value in example.items()}, errors="replace"
            ).encode()
        else:
            body = json.dumps(example, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
        if kind >= 0.9:
            body = _torn(rng, body)
        return body


def _value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(8)
    if kind < 2:
        return rng.choice(TEXTS)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind == 4:
        return None
    if depth > 3:
        return {}
    if kind == 5:
        return [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 6:
        return {rng.choice((*TEXTS, "id", "features")): _value(rng, depth + 1) for _ in range(rng.randrange(4))}
    deep: Any = 1
    for _ in range(rng.choice((5, 40, 600))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    return deep


def _changed(rng: random.Random, tree: Any) -> Any:
    """Return JSON with one thing in it that is another."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        name = rng.choice(list(tree))
        kind = rng.random()
        if kind < 0.15:
            return {each: value for each, value in tree.items() if each != name}
        if kind < 0.3:
            return tree | {rng.choice((*TEXTS, f"{name}s", "event_id", "slots", "deferred")): _value(rng)}
        return tree | {name: _changed(rng, tree[name])}
    if isinstance(tree, list) and tree and rng.random() < 0.85:
        at, kind = rng.randrange(len(tree)), rng.random()
        if kind < 0.15:
            return tree * rng.choice((0, 2, 3, 70))
        return [*tree[:at], _changed(rng, tree[at]), *tree[at + 1 :]]
    return _value(rng)


def _torn(rng: random.Random, body: bytes) -> bytes:
    """Return bytes that were something else."""
    some = bytearray(body)
    for _ in range(rng.randrange(1, 6)):
        if some:
            some[rng.randrange(len(some))] = rng.randrange(256)
    cut = bytes(some[: rng.randrange(len(some) + 1)]) if rng.random() < 0.5 else bytes(some)
    return rng.choice((cut, rng.randbytes(rng.randrange(200)), b"\xef\xbb\xbf" + body, body + body, b"[" * 20_000))
