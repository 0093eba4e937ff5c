"""A feed whose users are those of long-term satisfaction: logged trajectories as records on a real log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np

from decision.draw import seed_of
from decision.records import SCHEMA_VERSION, Decision, Outcome, encode
from pipelines.log.protocol import DECISIONS, OUTCOMES
from pipelines.log.sqlite.log import LocalLog
from simulators.environments.lts.env import DOCUMENTS, draw_users
from simulators.learned.logs import CHANGE, SHOWN, logged
from simulators.learned.trajectories import Trajectories

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + timedelta(days=60)
OFFERED = tuple(range(SHOWN[0] - 2, SHOWN[1] + 3))
"""Documents offered; the habit shows those of `SHOWN` alone."""
IDS = [f"document-{number:02}" for number in OFFERED]
TEXT = """
[reward]
maximum = 100.0
[policy]
oracle = "session"
exploration = "softmax"
floor = 0.02
[features]
enabled = true
stream = false
"""
MU = np.array([14.0])


def habit(seed: int, users: int, steps: int) -> Trajectories:
    """Return what the study's logging policy did with fresh users of the target group."""
    return logged(draw_users(np.random.default_rng([seed, 1]), MU, users), seed, horizon=steps)


def fill(
    log: LocalLog, loop: str, found: Trajectories, *, first: str = "u", day: int = 0, version: str = "baseline:uniform"
) -> int:
    """Write `found` to `log` as decisions a minute apart and their outcomes; return how many decisions."""
    items = [msgspec.json.encode({"clickbait": number / DOCUMENTS}) for number in OFFERED]
    actions = msgspec.Raw(b"[" + b",".join(items) + b"]")
    n, steps = found.actions.shape
    low, width = OFFERED.index(SHOWN[0]), SHOWN[1] - SHOWN[0] + 1
    for begin in range(0, n, 50):
        decisions: list[tuple[bytes, bytes, tuple[()]]] = []
        outcomes: list[tuple[bytes, bytes, tuple[()]]] = []
        for user in range(begin, min(n, begin + 50)):
            last = None
            for step in range(steps):
                event, index = f"{first}{user}-{step}", OFFERED.index(int(found.actions[user, step]))
                pmf = np.zeros(len(OFFERED))
                pmf[low : low + width] = 1.0 / width if last is None else CHANGE / width
                if last is not None:
                    pmf[last] += 1.0 - CHANGE
                last = index
                ts = START + timedelta(days=day, minutes=step, milliseconds=user)
                record = Decision(
                    schema_version=SCHEMA_VERSION,
                    loop=loop,
                    event_id=event,
                    ts=ts,
                    subject_id=f"{first}{user}",
                    context=msgspec.Raw(b"{}"),
                    actions=actions,
                    action_ids=IDS,
                    pmf=pmf.tolist(),
                    action_index=index,
                    propensity=float(pmf[index]),
                    policy_version=version,
                    baseline_version="uniform",
                    seed=seed_of(loop, event),
                )
                seen = Outcome(
                    schema_version=SCHEMA_VERSION,
                    loop=loop,
                    event_id=event,
                    value=float(found.rewards[user, step]),
                    ts=ts + timedelta(seconds=5),
                )
                key = event.encode()
                decisions.append((key, encode(record), ()))
                outcomes.append((key, encode(seen), ()))
        log.append_many(DECISIONS, decisions)
        log.append_many(OUTCOMES, outcomes)
    return n * steps
