"""A shop's week: traffic with past times, drawn by the policies of its days and appended to the log as a service does.

Its customers come back and have a device, a country, a tenure and an income. Halfway through the week many more of them
come by phone, and those prefer another offer than before.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np

from decision.batch import Batch, Floats, Ints
from decision.draw import draw, seed_of
from decision.features import flatten
from decision.protocols import Policy
from decision.records import SCHEMA_VERSION, Decision, Outcome, encode
from pipelines.log.protocol import DECISIONS, OUTCOMES, EventLog
from simulators.environments.lts.env import DOCUMENTS, LtsEnv, draw_users

OFFERS: dict[str, dict[str, Any]] = {
    "free_shipping": {"kind": "service", "cost": 4.0},
    "ten_percent": {"kind": "discount", "cost": 6.0},
    "gift": {"kind": "gift", "cost": 5.0},
    "newsletter": {"kind": "service", "cost": 0.5},
}
UNIFORM = "baseline:uniform"
"""Who decides before there is a version."""
_CUSTOMERS = 300
_DOCUMENTS = (0, 7, 14, 22, 29)
_MU = np.array([14.0])


class Serving(NamedTuple):
    """Who decides.

    Attributes:
        policy: in charge.
        version: of it.
        candidate: being rolled out; None for nobody.
        weight: the candidate's share.
        guard_version: of what the guard published.
    """

    policy: Policy
    version: str
    candidate: Policy | None = None
    weight: float = 0.0
    guard_version: int = 0


class Customers:
    """People who come back.

    Args:
        seed: of who they are.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        self.country = rng.choice(["AT", "DE", "CH"], _CUSTOMERS, p=[0.5, 0.3, 0.2])
        self.sex = rng.choice(["f", "m"], _CUSTOMERS)
        self.tenure = rng.gamma(2.0, 2.0, _CUSTOMERS).round(1)
        self.income = rng.normal(38.0, 9.0, _CUSTOMERS).clip(15.0, 90.0).round(0)

    def contexts(self, who: Ints, device: Sequence[str], hour: Ints) -> list[dict[str, Any]]:
        """Return what is known of customers when they come."""
        return [
            {
                "device": on,
                "hour": at,
                "country": str(self.country[one]),
                "tenure": float(self.tenure[one]),
                "income": float(self.income[one]),
                "sex": str(self.sex[one]),
            }
            for one, on, at in zip(who.tolist(), device, hour.tolist(), strict=True)
        ]


def bought(context: dict[str, Any], offer: str, *, later: bool) -> float:
    """Return the probability that an offer is taken; `later` in the week phones prefer a gift."""
    phone, regular = context["device"] == "phone", context["tenure"] > 3.0
    best = ("gift" if later else "free_shipping") if phone else ("ten_percent" if regular else "newsletter")
    chance = 0.42 if offer == best else 0.14
    return chance * (1.15 if context["country"] == "AT" else 0.95)


def shop_day(
    log: EventLog,
    loop: str,
    start: datetime,
    n: int,
    serving: Serving,
    *,
    seed: int,
    day: int,
    later: bool,
    length: timedelta,
) -> None:
    """Append `n` decisions of a day and their outcomes, and say nothing of it to anybody.

    Args:
        log: to append to.
        loop: its name.
        start: of the day, UTC.
        n: decisions.
        serving: who decides.
        seed: of the customers and what they do.
        day: its number, which with the seed says who comes and what they do, whenever the day is.
        later: the second half of the week, see `bought`.
        length: of the day.
    """
    rng = np.random.default_rng([seed, day])
    customers = Customers(seed)
    who = rng.integers(0, _CUSTOMERS, n)
    device = np.where(rng.random(n) < (0.75 if later else 0.4), "phone", "desk").tolist()
    times = [start + length * float(share) for share in np.sort(rng.random(n))]
    contexts = customers.contexts(who, device, np.array([(at - start).seconds // 3600 for at in times]))
    batch = Batch(
        [flatten(context, field="context") for context in contexts],
        [flatten(features, field="actions") for features in OFFERS.values()] * n,
        list(OFFERS) * n,
        np.arange(n + 1, dtype=np.int64) * len(OFFERS),
    )
    own = serving.policy.pmf(batch).reshape(n, -1)
    other = None if serving.candidate is None else serving.candidate.pmf(batch).reshape(n, -1)
    pmf = own if other is None else (1.0 - serving.weight) * own + serving.weight * other
    offers = list(OFFERS)
    actions = msgspec.Raw(msgspec.json.encode(list(OFFERS.values())))
    shown, outcomes = list[Decision](), list[Outcome]()
    for row in range(n):
        event = f"{loop}-{day}-{row:05}"
        told = _told(loop, event, times[row], pmf[row], own[row], None if other is None else other[row], serving)
        shown.append(
            Decision(
                subject_id=f"customer-{who[row]:03}",
                context=msgspec.Raw(msgspec.json.encode(contexts[row])),
                actions=actions,
                action_ids=offers,
                **told,
            )
        )
        if rng.random() < bought(contexts[row], offers[told["action_index"]], later=later):
            outcomes.append(_outcome(loop, event, 1.0, times[row] + timedelta(seconds=float(rng.uniform(20, 500)))))
    _append(log, shown, outcomes)


def feed_days(
    log: EventLog, loop: str, start: datetime, users: int, steps: int, serving: Serving, *, seed: int
) -> None:
    """Append the visits of readers, an hour apart, whom what pulls most wears out (long-term satisfaction).

    Args:
        log: to append to.
        loop: its name.
        start: of the first visit, UTC.
        users: readers.
        steps: visits of each.
        serving: who decides; it is told nothing of the readers.
        seed: of the readers and what they do.
    """
    env = LtsEnv(draw_users(np.random.default_rng([seed, 2]), _MU, users), horizon=steps)
    env.reset(seed=seed)
    ids = [f"document-{number:02}" for number in _DOCUMENTS]
    features = [{"clickbait": number / DOCUMENTS} for number in _DOCUMENTS]
    batch = Batch([{}] * users, features * users, ids * users, np.arange(users + 1, dtype=np.int64) * len(ids))
    pmf = serving.policy.pmf(batch).reshape(users, -1)
    actions = msgspec.Raw(msgspec.json.encode(features))
    for step in range(steps):
        shown, at = list[Decision](), start + timedelta(hours=step)
        for user in range(users):
            when = at + timedelta(seconds=user)
            told = _told(loop, f"{loop}-{user}-{step}", when, pmf[user], pmf[user], None, serving)
            shown.append(
                Decision(
                    subject_id=f"reader-{user}",
                    episode_id=f"stay-{user}",
                    step=step,
                    context=msgspec.Raw(b"{}"),
                    actions=actions,
                    action_ids=ids,
                    **told,
                )
            )
        rewards = env.step(np.array([_DOCUMENTS[one.action_index] for one in shown]))[1]
        _append(
            log,
            shown,
            [
                _outcome(loop, one.event_id, float(reward), one.ts + timedelta(seconds=60))
                for one, reward in zip(shown, rewards, strict=True)
            ],
        )


def _told(
    loop: str, event: str, ts: datetime, pmf: Floats, own: Floats, other: Floats | None, serving: Serving
) -> dict[str, Any]:
    seed = seed_of(loop, event)
    index = draw(pmf, seed)
    guarded: dict[str, Any] = {}
    if other is not None:
        guarded = {
            "pmf_baseline": own.tolist(),
            "pmf_candidate": other.tolist(),
            "guard_weight": serving.weight,
            "guard_version": serving.guard_version,
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "loop": loop,
        "event_id": event,
        "ts": ts,
        "pmf": pmf.tolist(),
        "action_index": index,
        "propensity": float(pmf[index]),
        "policy_version": serving.version,
        "baseline_version": UNIFORM,
        "seed": seed,
        **guarded,
    }


def _outcome(loop: str, event: str, value: float, ts: datetime) -> Outcome:
    return Outcome(
        schema_version=SCHEMA_VERSION,
        loop=loop,
        event_id=event,
        name="reward",
        value=value,
        ts=ts,
        idempotency_key=f"{event}-reward",
    )


def _append(log: EventLog, shown: Sequence[Decision], outcomes: Sequence[Outcome]) -> None:
    for topic, records in ((DECISIONS, shown), (OUTCOMES, outcomes)):
        log.append_many(topic, [(one.event_id.encode(), encode(one), ()) for one in records])
