"""A real MLflow server on a free port."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.operations.processes import free_port


@contextmanager
def own_mlflow(folder: Path) -> Iterator[str]:
    """Yield the address of a server that keeps its tables and artifacts in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log = folder / "server.log"
    address = f"http://127.0.0.1:{port}"
    command = ["server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with log.open("wb") as out:
        # Its job runners outlive it when it is killed, and nobody here runs jobs.
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        process = subprocess.Popen([sys.executable, "-m", "mlflow", *command], env=environment, stdout=out, stderr=out)
        try:
            while True:  # until it answers or ends
                assert process.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"{address}/health").close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait()
