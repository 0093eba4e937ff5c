"""Issuers of tokens: a real provider, and one whose keys a test holds, to sign what no provider would."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib.util
import json
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipelines.operations.processes import free_port
from pipelines.operations.waiting import wait_until
from tests.parts import require

AUDIENCE = "decision-service"
_BACK = "http://127.0.0.1/back"


class Provider:
    """A running oidc-provider-mock, which signs with a new key after each start.

    Args:
        folder: where its output goes.
        people: the claims of each, ``sub`` among them.
    """

    def __init__(self, folder: Path, people: list[dict[str, Any]]) -> None:
        require(importlib.util.find_spec("oidc_provider_mock"), "oidc-provider-mock is not installed")
        self._output, self._people, self._port = folder / "provider.txt", people, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it; returns when it answers."""
        people = [word for person in self._people for word in ("--user-claims", json.dumps(person))]
        command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(self._port), *people]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        wait_until(self._answers, "the provider to answer")

    def kill(self) -> None:
        """Kill it; does nothing when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def token(self, subject: str, audience: str = AUDIENCE) -> str:
        """Sign somebody in as a browser would, and return the token that the client gets."""
        asked = {"client_id": audience, "redirect_uri": _BACK, "response_type": "code", "scope": "openid", "state": "s"}
        with httpx.Client(base_url=self.address, timeout=300) as client:
            sent_back = client.post("/oauth2/authorize", params=asked, data={"sub": subject}).headers["location"]
            code = parse_qs(urlsplit(sent_back).query)["code"][0]
            given = {"grant_type": "authorization_code", "code": code, "redirect_uri": _BACK}
            return client.post("/oauth2/token", data=given, auth=(audience, "any")).json()["id_token"]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/jwks", timeout=5.0) as response:
                return response.status == 200
        except OSError:
            return False


class Issuer:
    """An issuer whose keys a test holds, on a socket from entering to leaving.

    Attributes:
        keys: private keys by their ids; their public halves are published.
        address: its own.
        asked: paths that were asked for.
        answers: what is answered at a path in place of what an issuer answers: status, headers, body.
    """

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, Any]] = {
            "rsa": ("RS256", generate_rsa(65537, 2048)),
            "ec": ("ES256", generate_private_key(SECP256R1())),
            "ed": ("EdDSA", Ed25519PrivateKey.generate()),
        }
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.asked: list[str] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Issuer:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Answer from now on."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                status, headers, body = issuer.answers.get(self.path) or (200, {}, issuer.answer(self.path))
                self.send_response_only(status)
                usual = {"date": self.date_time_string(), "content-length": str(len(body))}
                for name, value in {**usual, **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        """Answer nothing more; does nothing when closed."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def answer(self, path: str) -> bytes:
        """Return what an issuer answers."""
        if path.endswith("/.well-known/openid-configuration"):
            return json.dumps({"issuer": self.address, "jwks_uri": f"{self.address}/keys"}).encode()
        return self.key_set()

    def key_set(self) -> bytes:
        """Return the public halves of the keys."""
        return json.dumps({"keys": [self.public(name) for name in self.keys]}).encode()

    def public(self, name: str) -> dict[str, Any]:
        """Return the public half of a key, as it is published."""
        algorithm, key = self.keys[name]
        maker = jwt.get_algorithm_by_name(algorithm)
        return {**json.loads(maker.to_jwk(key.public_key())), "kid": name, "use": "sig", "alg": algorithm}

    def claims(self, **what: Any) -> dict[str, Any]:
        """Return claims that hold for an hour, changed as said; None leaves one out."""
        now = int(time.time())
        claims = {"iss": self.address, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 3_600, **what}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key: str = "rsa", *, headers: dict[str, Any] | None = None, **what: Any) -> str:
        """Return a token that is signed with a key."""
        algorithm, private = self.keys[key]
        return jwt.encode(self.claims(**what), private, algorithm, headers={"kid": key, **(headers or {})})

    def hmac_token(self, **what: Any) -> str:
        """Return a token that is signed with the public key as if it were a secret: an old confusion of verifiers."""
        _, private = self.keys["rsa"]
        secret = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        parts = [{"alg": "HS256", "kid": "rsa"}, self.claims(**what)]
        signed = b".".join(_encoded(json.dumps(part).encode()) for part in parts)
        return (signed + b"." + _encoded(hmac.digest(secret, signed, hashlib.sha256))).decode()


def _encoded(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")
