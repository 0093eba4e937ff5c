"""Applications go on deciding by the Python client while the service is killed: one answer an id, no outcome lost.

``python -m tests.soak.clients [--decisions N] [--kills N] [--seed S]``. Threads share one client whose queue is a file.
At equal parts of the way every process of the service is killed and started again a moment later. In the end every
decision that the service answered is asked for again, under its id, and the log is read: each is there once, as it was
answered, and each outcome once, the fallback's among them. The first fault ends it with an error.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections import Counter
from itertools import count, islice
from pathlib import Path
from typing import Any

from decision.records import Outcome, decode_decision, decode_outcome
from decision_client import Action, Client, DecideRequest, DecideResponse, Settings
from pipelines.log.protocol import DECISIONS, OUTCOMES
from pipelines.log.sqlite.log import LocalLog
from pipelines.operations.processes import process, serve_command, wait_until_ready
from tests.e2e.test_kill_service import kill_all
from tests.worlds.fleet import processes_of
from tests.worlds.running import new_installation

LOOP = "news"
THREADS = 4
BATCH = 20
_ASKED_AGAIN = 500
_USER_S = 0.5
"""Seconds until the next user comes, while the service is away: the fallback answers at once."""
_AWAY_S = (0.2, 2.5)
"""Seconds for which the service is away, at least and at most; shorter and longer than a call's deadline."""


def question(number: int) -> DecideRequest:
    """Return the decision of a number: every third offers another set of actions."""
    offered = [Action(f"a{n}", {"price": n}) for n in range(2 + number % 3)]
    return DecideRequest({"hour": number % 24}, offered, event_id=f"e-{number}")


class Application(threading.Thread):
    """Decides and reports, one number after the other; one in `THREADS` asks for many at once.

    Attributes:
        answers: what it was answered, by event id.
        queued: whether its outcome was queued rather than taken at once, by event id.
        error: what ended it before its time.
    """

    def __init__(self, client: Client, numbers: count[int], decisions: int, *, many: bool) -> None:
        super().__init__(daemon=True)
        self.answers: dict[str, DecideResponse] = {}
        self.queued: dict[str, bool] = {}
        self.error: BaseException | None = None
        self._client, self._numbers, self._decisions, self._size = client, numbers, decisions, BATCH if many else 1

    def run(self) -> None:
        """Go on until all numbers are given out."""
        try:
            while numbers := [n for n in islice(self._numbers, self._size) if n < self._decisions]:
                self._decide([question(n) for n in numbers])
        except BaseException as error:  # told by whoever waits for this thread
            self.error = error
            raise

    def _decide(self, asked: list[DecideRequest]) -> None:
        single = len(asked) == 1
        found = [self._client.decide(LOOP, asked[0])] if single else self._client.decide_batch(LOOP, asked)
        answers = [answer for answer in found if isinstance(answer, DecideResponse)]
        assert len(answers) == len(asked), [str(answer) for answer in found if answer not in answers]
        self.answers |= {answer.event_id: answer for answer in answers}
        told = self._client.outcome(LOOP, *[one.outcome(1.0, key=f"k-{one.event_id}") for one in answers])
        self.queued |= {one.event_id: bool(told.queued) for one in answers}
        if any(one.fallback is not None for one in answers):
            time.sleep(_USER_S)


def run(folder: Path, decisions: int, kills: int, seed: int) -> dict[str, Any]:
    """Decide so often while the service is killed so many times, and return what was counted."""
    rng = random.Random(seed)
    settings = new_installation(folder / "home")
    output, begun, away = folder / "service.log", time.perf_counter(), 0.0
    client = Client(f"http://127.0.0.1:{settings.port}", settings=Settings(queue=folder / "outcomes.db", rest_s=0.2))
    numbers: count[int] = count()
    each = [Application(client, numbers, decisions, many=not n) for n in range(THREADS)]

    def answered() -> int:
        return sum(len(one.answers) for one in each)

    for number in range(kills):
        with process("service", serve_command(settings), settings, output) as running:
            wait_until_ready(running, settings, output)
            if not number:
                for one in each:
                    one.start()
            while answered() < decisions * (number + 1) / (kills + 1) and any(one.is_alive() for one in each):
                time.sleep(0.02)
            kill_all(settings.root)
            running.wait()
        while processes_of(settings.root):
            time.sleep(0.02)
        pause = rng.uniform(*_AWAY_S)
        time.sleep(pause)
        away += pause
    with process("service", serve_command(settings), settings, output) as running:
        wait_until_ready(running, settings, output)
        for one in each:
            one.join()
            assert one.error is None, one.error
        assert client.flush(120.0) == 0, "outcomes still wait for a service that is there"
        counts, refusals = client.counts(), client.refusals()
        client.close()
        seconds = time.perf_counter() - begun
        answers = {name: answer for one in each for name, answer in one.answers.items()}
        _asked_again(settings.port, answers)
    assert len(answers) == decisions
    assert not refusals, refusals[:3]
    seen, reports = _logged(settings.spool_path)
    _compared(answers, seen, reports, {name: queued for one in each for name, queued in one.queued.items()})
    return {
        "decisions": decisions,
        "kills": kills,
        "fallbacks": counts.fallbacks,
        "unseen": counts.maybe_logged,
        "of_these_logged": len(seen) - (decisions - counts.fallbacks),
        "queued": counts.queued,
        "outcomes": len(reports),
        "asked_again_under_another_answer": 0,
        "lost": decisions - len(reports),
        "seconds": round(seconds, 1),
        "away_s": round(away, 1),
    }


def _asked_again(port: int, answers: dict[str, DecideResponse]) -> None:
    """Ask for every decision of the service's again, by a client that knows nothing of the first time."""
    known = [name for name, answer in answers.items() if answer.fallback is None]
    patient = Settings(timeout_s=60.0, batch_timeout_s=60.0, deadline_s=120.0, fallback="none")
    with Client(f"http://127.0.0.1:{port}", settings=patient) as client:
        for start in range(0, len(known), _ASKED_AGAIN):
            names = known[start : start + _ASKED_AGAIN]
            again = client.decide_batch(LOOP, [question(int(name.removeprefix("e-"))) for name in names])
            assert again == [answers[name] for name in names], "an id has two answers"


def _logged(path: Path) -> tuple[dict[str, str], dict[str, Outcome]]:
    """Return the actions that the log has of each decision, and its outcomes by their keys; each is there once."""
    seen: dict[str, str] = {}
    reports: dict[str, Outcome] = {}
    log, times = LocalLog(path), Counter[str]()
    try:
        for topic in (DECISIONS, OUTCOMES):
            for partition in range(log.partitions(topic)):
                at = log.watermarks(topic, partition)[0]
                while messages := log.read(topic, partition, at, max_messages=1_000):
                    at = messages[-1].offset + 1
                    for message in messages:
                        if topic == DECISIONS:
                            record = decode_decision(message.value)
                            times[record.event_id] += 1
                            seen[record.event_id] = record.action_ids[record.action_index]
                        else:
                            outcome = decode_outcome(message.value)
                            reports[outcome.idempotency_key or ""] = outcome
    finally:
        log.close()
    assert set(times.values()) <= {1}, f"booked twice: {[name for name, n in times.items() if n > 1][:3]}"
    return seen, reports


def _compared(
    answers: dict[str, DecideResponse], seen: dict[str, str], reports: dict[str, Outcome], queued: dict[str, bool]
) -> None:
    lost = {
        name: ("queued" if queued[name] else "taken at once", answer.fallback)
        for name, answer in answers.items()
        if f"k-{name}" not in reports
    }
    assert not lost, f"{len(lost)} outcomes are lost, among them {list(lost.items())[:3]}"
    for name, answer in answers.items():
        if answer.fallback is None:
            assert seen.get(name) == answer.action_id, (
                f"{name} was answered {answer.action_id}, logged {seen.get(name)}"
            )
        elif not answer.fallback.maybe_logged:
            assert name not in seen, f"{name} is said not to be logged, and is"
        report = reports[f"k-{name}"]
        assert (report.event_id, report.action_id) == (name, answer.action_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), given.decisions, given.kills, given.seed)
    for name, number in found.items():
        print(f"{name.replace('_', ' '):<36}{number:>12,}")
    print(json.dumps({"name": "clients", "seed": given.seed, **found}))


if __name__ == "__main__":
    main()
