"""A feed's application, for the demo of policies with memory: its users come back, and outcomes are reported late.

Its readers are those of long-term satisfaction: what pulls most wears them out. All users of a cohort visit once, then
all of them again, and so on; the application asks the service over HTTP which document to show, as one batch, and
reports how long it was read: most reports before the next visit, some visits later, some twice.
"""

from __future__ import annotations

import http.client
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from pipelines.operations.processes import ServiceError
from pipelines.operations.waiting import wait_until
from simulators.environments.lts.env import DOCUMENTS, LtsEnv, LtsUsers

_BATCH = 100
_TIMEOUT_S = 60.0
_TWICE = 0.03
_LATE = (0.80, 0.95)
"""Shares reported before the next visit, and before the one after that; the others come three visits late."""


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """One visit, as the application saw it.

    Attributes:
        event_id: of its decision.
        user: number of the user.
        cohort: number of the cohort.
        step: 0-based number of the visit.
        document: what was shown.
        propensity: the probability returned with it.
        version: policy version of the answer.
        reward: how long it was read.
        satisfaction: the user's before the visit, in (0, 1); nobody but the world knows it.
    """

    event_id: str
    user: int
    cohort: int
    step: int
    document: int
    propensity: float
    version: str
    reward: float
    satisfaction: float


class Books(msgspec.Struct, kw_only=True):
    """What was acknowledged.

    Attributes:
        visits: all of them.
        reports: idempotency keys of the outcomes; one that was sent twice stands twice.
        failed: requests that were not answered with success.
        waits_ms: how long each batch of decisions took, in milliseconds.
    """

    visits: list[Visit] = []
    reports: list[str] = []
    failed: int = 0
    waits_ms: list[float] = []


class Feed:
    """The application.

    Args:
        host: of the service.
        port: of the service.
        loop: name of the loop.
        documents: numbers of the documents that may be shown.
        seed: of everything it does at random, and prefix of its event ids.
    """

    def __init__(self, host: str, port: int, loop: str, *, documents: tuple[int, ...], seed: int) -> None:
        self.books = Books()
        self._connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        self._loop, self._seed, self._rng = loop, seed, np.random.default_rng([seed, 77])
        self._actions = [{"id": name_of(number), "features": {"clickbait": number / DOCUMENTS}} for number in documents]
        self._cohorts = self._users = 0

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def cohort(self, users: LtsUsers, steps: int) -> float:
        """Let `users` visit `steps` times each and return how long it took, in seconds."""
        begun, n, env = time.monotonic(), len(users), LtsEnv(users, horizon=steps)
        env.reset(seed=int(self._rng.integers(1 << 31)))
        due: list[tuple[int, dict[str, Any]]] = []
        for step in range(steps):
            satisfaction = 1.0 / (1.0 + np.exp(-users.sensitivity * env.npe))
            answers = self._decide(n, step)
            documents = np.array([int(answer["action_id"].rpartition("-")[2]) for answer in answers])
            rewards = env.step(documents)[1]
            at = datetime.now(UTC).isoformat()
            for user, (answer, reward) in enumerate(zip(answers, rewards.tolist(), strict=True)):
                event = answer["event_id"]
                visit = Visit(
                    event_id=event,
                    user=self._users + user,
                    cohort=self._cohorts,
                    step=step,
                    document=int(documents[user]),
                    propensity=answer["propensity"],
                    version=answer["policy_version"],
                    reward=reward,
                    satisfaction=float(satisfaction[user]),
                )
                self.books.visits.append(visit)
                said = {"event_id": event, "value": reward, "idempotency_key": f"{event}-read", "ts": at}
                later = (0, 1, 3)[int(np.searchsorted(_LATE, self._rng.random(), side="right"))]
                due += [(step + later, said)] * (1 + (self._rng.random() < _TWICE))
            self._report([said for when, said in due if when <= step])
            due = [entry for entry in due if entry[0] > step]
        self._report([said for _, said in due])
        self._cohorts, self._users = self._cohorts + 1, self._users + n
        return time.monotonic() - begun

    def wait_for(self, version: str) -> None:
        """Wait until the service decides by a version, or has it as its candidate."""

        def there() -> bool:
            told = self._ask("GET", "", None)
            return version in (told["policy_version"], told["candidate_version"])

        wait_until(there, f"version {version} in the service")

    def _decide(self, n: int, step: int) -> list[dict[str, Any]]:
        questions = [
            {
                "event_id": f"feed-{self._seed}-{user}-{step}",
                "subject_id": f"reader-{user}",
                "episode_id": f"stay-{user}",
                "step": step,
                "context": {},
                "actions": self._actions,
            }
            for user in range(self._users, self._users + n)
        ]
        answers: list[dict[str, Any]] = []
        for first in range(0, n, _BATCH):
            begun = time.perf_counter()
            found = self._ask("POST", "/decide/batch", {"decisions": questions[first : first + _BATCH]})["decisions"]
            self.books.waits_ms.append((time.perf_counter() - begun) * 1e3)
            refused = [answer for answer in found if "event_id" not in answer]
            if refused:
                raise ServiceError(f"a decision was refused: {refused[0]}")
            answers += found
        return answers

    def _report(self, said: list[dict[str, Any]]) -> None:
        for first in range(0, len(said), _BATCH):
            some = said[first : first + _BATCH]
            self._ask("POST", "/outcomes", some)
            self.books.reports += [report["idempotency_key"] for report in some]

    def _ask(self, method: str, path: str, body: Any) -> Any:
        """Return the answer; a request that failed is counted, and sent again under the same ids."""
        data = None if body is None else msgspec.json.encode(body)
        why = ""
        for attempt in range(4):
            try:
                headers = {"content-type": "application/json"}
                self._connection.request(method, f"/v1/loops/{self._loop}{path}", data, headers)
                response = self._connection.getresponse()
                found = response.read()
                if response.status < 300:
                    return msgspec.json.decode(found) if found else {}
                why = f"{response.status} {found[:300].decode(errors='replace')}"
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()
                why = f"{type(error).__name__}: {error}"
                if not attempt:
                    continue  # the server had closed the idle connection
            self.books.failed += 1
            time.sleep(0.1 * 2**attempt)
        raise ServiceError(f"{method} {path}: {why}")


def name_of(number: int) -> str:
    """Return the id of a document."""
    return f"document-{number:02}"
