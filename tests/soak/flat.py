"""A million decisions of subjects, actions and contexts that keep changing, and paths that are none: the memory.

``python -m tests.soak.flat [--decisions N] [--distinct N] [--seed S]``. One worker is asked by batches over HTTP, and
with each batch for a loop and a path that nobody has. Prints the memory of the service at every tenth, and its growth
over the second half, when everything that is kept on purpose is full.
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from pipelines.operations.init import init_loop
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.settings import load_settings

BATCH = 500


def batch(rng: np.random.Generator, distinct: int) -> bytes:
    """Return a batch of questions; each has an action, a feature and a subject out of so many."""
    numbers = rng.integers(distinct, size=(BATCH, 3)).tolist()
    asked = [
        {
            "context": {"x": one / distinct, "kind": f"k{one % 50}"},
            "actions": [{"id": "a"}, {"id": f"a{two}", "features": {"price": two % 7}}],
            "subject_id": f"s{three}",
        }
        for one, two, three in numbers
    ]
    return json.dumps({"decisions": asked}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--distinct", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng, begun = np.random.default_rng(given.seed), time.perf_counter()
    held: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = load_settings({}, home=folder, port=free_port())
        init_loop(settings, "news")
        with process("service", serve_command(settings), settings, home / "service.log") as running:
            wait_until_ready(running, settings, home / "service.log")
            parts = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
            connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=300)

            def ask(path: str, body: bytes) -> int:
                connection.request("POST", path, body)
                response = connection.getresponse()
                response.read()
                return response.status

            requests = given.decisions // BATCH
            print(f"{'decisions':>10}{'MiB':>9}")
            for number in range(requests):
                if ask("/v1/loops/news/decide/batch", batch(rng, given.distinct)) != 200:
                    raise RuntimeError("a batch was refused")
                for path in (f"/v1/loops/l{number}/decide", f"/nothing/{number}"):
                    ask(path, b"{}")
                if (number + 1) % max(1, requests // 10) == 0:
                    held.append(sum(part.memory_info().rss for part in parts) / (1 << 20))
                    print(f"{(number + 1) * BATCH:>10}{held[-1]:>9.1f}", flush=True)
            connection.close()
    growth = held[-1] - held[len(held) // 2]
    seconds = round(time.perf_counter() - begun)
    shown = {"decisions": given.decisions, "distinct": given.distinct, "seed": given.seed}
    mib = [round(each, 1) for each in held]
    print(json.dumps({"name": "flat", **shown, "mib": mib, "second_half_mib": round(growth, 1), "seconds": seconds}))


if __name__ == "__main__":
    main()
