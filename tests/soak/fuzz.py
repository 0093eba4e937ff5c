"""A million requests that follow the table of routes until they do not, on a running service, with keys of every role.

``python -m tests.soak.fuzz [--requests N] [--seed S] [--threads T] [--only NUMBER]``. Each request is made from the
seed and its number alone, so one that went wrong can be made again (`tests/worlds/requests.py`). Paths, queries,
headers and bodies begin as the table has them and are then changed: values of any kind and size, names left out, added
and doubled, bytes cut and turned; some requests are no HTTP. Ends with an error where an answer is a 5xx other than 503
with ``Retry-After``, where a request has no answer and no end of its connection in time, where the log tells of a
failure, or where the service no longer decides.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from pipelines.access.keys import ROLES, add, new_key
from pipelines.fairness.people import add_person
from pipelines.fairness.store import Governance
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.settings import Settings, load_settings
from pipelines.state.state import State
from serving.http.app import App
from serving.http.door import ANSWER_S
from serving.routes import Route
from serving.start import open_core
from tests.worlds.requests import LOOPS, Grammar, Sent

HANGS_S = ANSWER_S + 10.0
SHOWN = 40
"""Wrong ones of a tenth of the requests that are shown."""


@dataclass(slots=True)
class Found:
    """What came of requests.

    Attributes:
        statuses: answers, and connections that were ended without one.
        wrong: what should not have been, with the number of the request.
        slowest: seconds of the slowest, and its number.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)

    def add(self, other: Found) -> None:
        """Take what another part found as well."""
        self.statuses += other.statuses
        self.wrong += other.wrong
        self.slowest = max(self.slowest, other.slowest)


class _Caller:
    """One connection, opened anew where it was ended."""

    def __init__(self, port: int, found: Found) -> None:
        self._port, self.found = port, found
        self._socket: socket.socket | None = None
        self.said = b""

    def ask(self, number: int, sent: Sent) -> None:
        begun, self.said = time.monotonic(), b""
        try:
            status = self._answer(sent)
        except TimeoutError:
            self.close()
            status = "hangs"
        except (OSError, http.client.HTTPException):
            self.close()
            status = "ended"
        self.found.slowest = max(self.found.slowest, (time.monotonic() - begun, number))
        self.found.statuses[status] += 1
        if status[0] == "5" or status == "hangs" or (status == "ended" and sent.told):
            took = f"{time.monotonic() - begun:.1f} s"
            self.found.wrong.append(
                f"{number} {sent.route or '-'}: {status} {self.said!r} in {took} to {sent.data[:120]!r}"
            )

    def _answer(self, sent: Sent) -> str:
        fresh = self._socket is None
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=HANGS_S)
        try:
            self._socket.sendall(sent.data)
            response = http.client.HTTPResponse(self._socket, method=sent.method)
            response.begin()
        except (OSError, http.client.HTTPException) as error:
            if fresh or isinstance(error, TimeoutError) or not sent.told:
                raise
            self.close()  # the connection kept from before was at its end: once more on a new one
            return self._answer(sent)
        status = response.status
        retry = response.getheader("retry-after")
        body = response.read()
        if response.will_close or not sent.told:
            self.close()
        self.said = body[:200]
        return "unavailable" if status == 503 and retry else str(status)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def fuzz(port: int, grammar: Grammar, numbers: range, threads: int) -> Found:
    """Send the requests of these numbers by so many threads, and return what came of them."""
    parts = [Found() for _ in range(threads)]

    def run(which: int) -> None:
        caller = _Caller(port, parts[which])
        for number in numbers[which::threads]:
            caller.ask(number, grammar.request(number))
        caller.close()

    running = [threading.Thread(target=run, args=(which,)) for which in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    total = Found()
    for part in parts:
        total.add(part)
    return total


def prepare(settings: Settings) -> dict[str, str]:
    """Make loops, keys of every role and a member of the panels; return what each shows."""
    for loop, text in LOOPS.items():
        path = settings.loop_path(loop)
        path.parent.mkdir(parents=True)
        path.write_text(text)
    now = datetime.now(UTC)
    keys = {"none": "", "wrong": "dk_abcdefghijkl_" + "x" * 43, "all": settings.api_keys}
    with State(settings.state_url) as state:
        for role in ROLES:
            key, keys[role] = new_key(roles=[role], loops=[], now=now, by="fuzz")
            add(state, key, by="fuzz")
        key, keys["tenant"] = new_key(roles=["admin"], loops=[], tenant="acme", now=now, by="fuzz")
        add(state, key, by="fuzz")
        key, keys["limited"] = new_key(roles=["decide"], loops=["news"], per_second=5.0, now=now, by="fuzz")
        add(state, key, by="fuzz")
    roles = ["auditor", "adjudicator", "administrator", "owner"]
    with Governance.at(settings) as store:
        _, keys["panels"] = add_person(store, name="All", roles=roles, owns=["news"], now=now, by="fuzz")
    return keys


def table(home: Path) -> list[Route]:
    """Return the rows of the table of routes, those of the panels too."""
    core = open_core(load_settings({}, home=str(home), api_keys="x"))
    app = App(lambda: core)
    try:
        app.document()  # the panels' routes come with it
        return list(app._routes)  # pyright: ignore[reportPrivateUsage]
    finally:
        app.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--only", type=int, help="send this one alone, and show it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        settings = load_settings({}, home=str(home), port=free_port(), api_keys="of-the-environment")
        keys = prepare(settings)
        grammar = Grammar(table(Path(folder) / "table"), keys, given.seed)
        output = Path(folder) / "service.log"
        with process("service", serve_command(settings), settings, output) as running:
            wait_until_ready(running, settings, output)
            print("the service answers; requests begin", flush=True)
            top = psutil.Process(running.pid)
            workers = {part.pid for part in top.children(recursive=True)}

            def held() -> float:
                return sum(part.memory_info().rss for part in (top, *top.children(recursive=True))) / (1 << 20)

            def worked() -> float:
                return sum(sum(part.cpu_times()[:2]) for part in (top, *top.children(recursive=True)))

            if given.only is not None:
                print(grammar.request(given.only).data)
            numbers = range(given.requests) if given.only is None else range(given.only, given.only + 1)
            found, memory, begun = Found(), [held()], time.perf_counter()
            step = max(1, len(numbers) // 10)
            for start in range(0, len(numbers), step):
                before, since = worked(), time.perf_counter()
                part = fuzz(settings.port, grammar, numbers[start : start + step], given.threads)
                found.add(part)
                memory.append(held())
                done, rate = found.statuses.total(), found.statuses.total() / (time.perf_counter() - begun)
                cores = (worked() - before) / (
                    time.perf_counter() - since
                )  # of a service that gets none nothing is heard
                print(
                    f"{done:>9} requests  {rate:>6.0f}/s  {memory[-1]:>7.1f} MiB  {cores:.3f} cores  "
                    f"{len(found.wrong)} wrong {dict(Counter(line.split()[2] for line in part.wrong))}",
                    flush=True,
                )
                for line in part.wrong[:SHOWN]:  # now: a run that is broken off has told what it found
                    print("wrong:", line, flush=True)
            alive = workers <= {part.pid for part in top.children(recursive=True)}
            after = Found()
            decide = b'{"event_id":"the last","context":{},"actions":[{"id":"a"}]}'
            head = "POST /v1/loops/news/decide HTTP/1.1\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n"
            last = Sent("decide", "POST", head.format(keys["all"], len(decide)).encode() + decide, True)
            _Caller(settings.port, after).ask(-1, last)
        failures = [line for line in output.read_text(errors="replace").splitlines() if "Traceback" in line]
    shown = {
        "seed": given.seed,
        "requests": found.statuses.total(),
        "statuses": dict(sorted(found.statuses.items())),
        "wrong": len(found.wrong),
        "slowest_s": round(found.slowest[0], 2),
        "slowest": found.slowest[1],
        "mib": [round(each, 1) for each in memory],
        "failures_in_log": len(failures),
        "workers_lived": alive,
        "decides_after": dict(after.statuses) == {"200": 1},
    }
    print(json.dumps({"name": "fuzz", **shown}))
    sys.exit(bool(found.wrong or failures) or not alive or not shown["decides_after"])


if __name__ == "__main__":
    main()
