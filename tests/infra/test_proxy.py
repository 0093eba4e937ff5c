"""The configuration of nginx that is shipped, before a real service: TLS, kept connections, sizes, cookies."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pipelines.operations.processes import free_port
from pipelines.operations.waiting import wait_until
from serving.http.door import Door
from tests.debian import program
from tests.worlds.panel_service import House
from tests.worlds.panels import LOOP

CONFIGURATION = Path(__file__).resolve().parents[2] / "infra/nginx/decision.conf"
NAME = "localhost"
WHOLE = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/decision.conf;
}}
"""
BODY = {"context": {}, "actions": [{"id": "a"}, {"id": "b"}]}


class Site(NamedTuple):
    """A service behind the proxy.

    Attributes:
        house: the service.
        tls: port of the proxy.
        plain: its port without TLS.
        trust: what a client takes the proxy's certificate by.
        connections: the proxy's to the service.
    """

    house: House
    tls: int
    plain: int
    trust: ssl.SSLContext
    connections: set[Any]

    def client(self) -> closing[http.client.HTTPSConnection]:
        return closing(http.client.HTTPSConnection(NAME, self.tls, context=self.trust, timeout=300))


def certificate(folder: Path) -> ssl.SSLContext:
    """Write a certificate and its key to a folder, and return what trusts it."""
    key, now = generate_private_key(SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return ssl.create_default_context(cafile=str(folder / "tls.crt"))


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@contextmanager
def proxy(nginx: str, folder: Path, *, service: int, tls: int, plain: int) -> Iterator[None]:
    text = CONFIGURATION.read_text()
    for was, becomes in {
        "127.0.0.1:8080": f"127.0.0.1:{service}",
        "listen 443 ssl": f"listen 127.0.0.1:{tls} ssl",
        "listen 80": f"listen 127.0.0.1:{plain}",
        "api.example.com": NAME,
        "/etc/nginx/tls": str(folder),
    }.items():
        assert was in text
        text = text.replace(was, becomes)
    (folder / "decision.conf").write_text(text)
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(WHOLE.format(folder=folder, user=user))
    command = [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: process.poll() is not None or answers(tls), "nginx to listen")
        assert process.poll() is None, (folder / "error.log").read_text()
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    nginx = program("nginx", "usr/sbin/nginx")
    folder, connections = tmp_path_factory.mktemp("proxy"), set[Any]()
    house = House(tmp_path_factory.mktemp("house"))
    trust, port, tls, plain = certificate(folder), free_port(), free_port(), free_port()

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        connections.add(tuple(scope["client"]))
        await house.app(scope, receive, send)

    opened, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        door = Door(counted, host="127.0.0.1", port=port)
        await door.open()
        opened.set()
        await asyncio.to_thread(ended.wait)
        await door.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    opened.wait()
    try:
        with proxy(nginx, folder, service=port, tls=tls, plain=plain):
            yield Site(house, tls, plain, trust, connections)
    finally:
        ended.set()
        thread.join()
        house.close()


def test_decisions_come_through_over_connections_that_are_kept(site: Site) -> None:
    site.connections.clear()
    with site.client() as client:
        for number in range(60):
            client.request("POST", f"/v1/loops/{LOOP}/decide", json.dumps(BODY | {"event_id": f"p{number}"}))
            answer = client.getresponse()
            assert answer.status == 200
            assert json.loads(answer.read())["event_id"] == f"p{number}"
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert len(site.connections) == 1


def test_signing_in_gives_a_cookie_for_tls_alone_whatever_a_caller_says_of_it(site: Site) -> None:
    sent = {
        "content-type": "application/x-www-form-urlencoded",
        "origin": f"https://{NAME}:{site.tls}",
        "x-forwarded-proto": "http",
    }
    with site.client() as client:
        client.request("POST", "/console/login", urlencode({"key": site.house.panel.keys[0]}), sent)
        answer = client.getresponse()
        answer.read()
        assert (answer.status, answer.headers["location"]) == (303, "/console/")
        cookie, *attributes = [part.strip() for part in answer.headers["set-cookie"].split(";")]
        assert {"secure", "httponly", "samesite=strict", "path=/console"} <= {each.lower() for each in attributes}
        client.request("GET", "/console/review", headers={"cookie": cookie})
        answer = client.getresponse()
        assert (answer.status, b"Sign in" in answer.read()) == (200, False)


def test_large_batches_and_long_tokens_reach_the_service_and_what_is_beyond_its_limits_does_not(site: Site) -> None:
    for size, is_refused_before in ((15 << 20, False), (17 << 20, True)):
        with site.client() as client:
            client.request("POST", f"/v1/loops/{LOOP}/decide/batch", b'{"decisions":"' + b"x" * size + b'"}')
            answer = client.getresponse()
            answer.read()
            assert answer.headers["content-type"].startswith(
                "text/html" if is_refused_before else "application/problem"
            )
    with site.client() as client:
        client.request("GET", "/v1/loops", headers={"authorization": "Bearer " + "x" * (8 << 10)})
        answer = client.getresponse()
        answer.read()
        assert answer.headers["content-type"].startswith("application/")


def test_plain_http_is_sent_to_tls(site: Site) -> None:
    with closing(http.client.HTTPConnection(NAME, site.plain, timeout=300)) as client:
        client.request("POST", f"/v1/loops/{LOOP}/decide?x=1", json.dumps(BODY))
        answer = client.getresponse()
        answer.read()
    assert (answer.status, answer.headers["location"]) == (308, f"https://{NAME}/v1/loops/{LOOP}/decide?x=1")
