"""The cost of a decision by stage: each stage alone, on what the one before it made, in one process.

    question    the request's JSON is read, its actions known by their bytes
    look up     features of the subject
    features    the context is flattened
    score       the oracle's expected rewards
    explore     the rule, the floor and the check of its probabilities
    record      the coin, the seed, the draw and the record
    encode      the record as JSON
    spool       the record on disk; shared by all that are written together
    answer      the response as JSON

``python -m tests.bench.stages HOME LOOP TOGETHER`` on a home that the serving benchmark prepared; TOGETHER decisions
are made at a time, as a busy service does. Prints microseconds of processor time a decision, medians. ``QUICK=1`` for
fewer rounds.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec
import numpy as np

from decision.features import flatten
from decision.records import encode
from pipelines.log.protocol import DECISIONS
from pipelines.log.sqlite.log import Group
from pipelines.settings import load_settings
from serving.core import Core
from serving.deciding.decide import Ask, answer, decide
from serving.deciding.question import Question, read_question
from serving.start import open_core
from tests.bench.serving import questions

ROUNDS = 20 if os.environ.get("QUICK") == "1" else 200
TS = datetime(2026, 1, 1, tzinfo=UTC)
Call = Callable[[int], object]


def parts(core: Core, loop: str, read: Callable[[int], Question], total: int, together: int = 1) -> dict[str, Call]:
    """Return the parts of a decision; each takes the number of the first of `together` requests.

    Args:
        core: opened.
        loop: whose champion answers.
        read: gives the question of a request by its number.
        total: number of requests.
        together: requests at a time.
    """
    snapshot = core.snapshot(loop)
    policy: Any = snapshot.policy
    asked = [read(i) for i in range(total)]
    contexts = [flatten(question.context, field="context") for question in asked]
    found = core.looked_up([snapshot] * total, asked, TS)
    pmfs_of = asked[0].actions.pmfs_of(policy)
    scores_of = policy.oracle.prepare(asked[0].actions.features)
    asks = [Ask(question, snapshot, "0" * 32, features) for question, features in zip(asked, found, strict=True)]
    records: list[Any] = decide(asks, TS)
    values = [encode(record) for (record,) in records]
    numbers = count()

    def groups(first: int) -> list[Group]:
        return [
            Group(f"{loop}-{next(numbers)}".encode(), [(DECISIONS, value, ())], False)
            for value in values[first : first + together]
        ]

    return {
        "question": lambda i: [read(n) for n in range(i, i + together)],
        "look up": lambda i: core.looked_up([snapshot] * together, asked[i : i + together], TS),
        "features": lambda i: [flatten(question.context, field="context") for question in asked[i : i + together]],
        "score": lambda i: scores_of(contexts[i : i + together]),
        "score, explore": lambda i: pmfs_of(contexts[i : i + together]),
        "features, score, explore, record": lambda i: decide(asks[i : i + together], TS),
        "encode": lambda i: [encode(record) for (record,) in records[i : i + together]],
        "spool": lambda i: core.spool.submit(groups(i)).result(),
        "answer": lambda i: [encode_answer(each) for each in records[i : i + together]],
    }


def encode_answer(records: Any) -> bytes:
    """Return the response to one request."""
    return msgspec.json.encode(answer(records))


def by_stage(cost: dict[str, float]) -> dict[str, float]:
    """Return the cost of every stage alone, from that of the parts that were measured."""
    alone = {name: cost[name] for name in ("question", "look up", "features", "score")}
    alone["explore"] = cost["score, explore"] - cost["score"]
    alone["record"] = cost["features, score, explore, record"] - cost["features"] - cost["score, explore"]
    return alone | {name: cost[name] for name in ("encode", "spool", "answer")}


def main(home: str, loop: str, together: int) -> None:
    """Measure and print one line."""
    core = open_core(load_settings({}, home=home))
    bodies = questions(500).split(b"\n")
    total = len(bodies) // together * together
    calls = parts(core, loop, lambda i: read_question(bodies[i], core.catalogues), total, together)
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.disable()
    for number in range(ROUNDS):
        for name, call in calls.items():
            begun = time.process_time_ns()
            call(number * together % total)
            times[name].append((time.process_time_ns() - begun) / 1e3 / together)
    core.close()
    print(json.dumps(by_stage({name: float(np.median(values)) for name, values in times.items()})))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
