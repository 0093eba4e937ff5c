"""An S3 server on this machine: `moto` in a process of its own, which counts what it is asked.

Clients are part of the tests' process and hold its lock while they wait, so the server may not be.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

BUCKET = "bucket"
_ASKED = "/-/asked"


class S3:
    """The server with one bucket, from entering to leaving.

    Args:
        delay_s: how long it waits before it answers, as a server that is far away does.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s

    def __enter__(self) -> S3:
        command = [sys.executable, "-m", __name__, str(self._delay_s)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        with urllib.request.urlopen(urllib.request.Request(f"{self.address}/{BUCKET}", method="PUT")):
            pass
        self.asked()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which clients find it."""
        return self.environment_of(self.address)

    @staticmethod
    def environment_of(address: str) -> dict[str, str]:
        """Return the variables by which clients find the server at an address."""
        return {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def asked(self) -> list[str]:
        """Return the requests since the last call, each as its method and path."""
        with urllib.request.urlopen(self.address + _ASKED) as answer:
            return answer.read().decode().splitlines()


def main() -> None:
    """Serve on a free port, which is the only line on standard output."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    delay_s = float(sys.argv[1])
    serve, asked = DomainDispatcherApplication(create_backend_app), list[str]()

    def counting(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == _ASKED:
            told, asked[:] = "\n".join(asked).encode(), []
            start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(told)))])
            return [told]
        query = f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else ""
        asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{query}")
        time.sleep(delay_s)
        return serve(environ, start)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    server = make_server("127.0.0.1", 0, counting, threaded=True)
    print(server.server_port, flush=True)
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    server.serve_forever()


def _end_with_the_tests() -> None:
    sys.stdin.read()  # returns when whoever started this is gone, killed or not
    os._exit(0)


if __name__ == "__main__":
    main()
