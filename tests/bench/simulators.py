"""User-steps per second of long-term satisfaction against RecSim's own loop over 500 users, alternating in one run.

The same dynamics on both sides, environment only: ours through `reset` and `step` of the gymnasium vector environment,
RecSim's through its `MultiUserEnvironment`, whose documents are drawn once, which is its faster setting.

``python -m tests.bench.simulators``, ``QUICK=1`` for less. Needs recsim-no-tf.
"""

from __future__ import annotations

import gc
import json
import os
import time
import warnings

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from recsim.environments import long_term_satisfaction as recsim
    from recsim.simulator.environment import MultiUserEnvironment

from simulators.environments.lts.env import DOCUMENTS, HORIZON, LtsEnv, draw_users

QUICK = os.environ.get("QUICK") == "1"
ROUNDS = 3 if QUICK else 12
THEIR_USERS, THEIR_STEPS = 500, 10 if QUICK else 40
OUR_USERS = (500, 5_000, 50_000)


def ours(users: int) -> float:
    """Return user-steps per second of one episode of ours."""
    env = LtsEnv(draw_users(np.random.default_rng(0), np.array([14.0]), users))
    env.reset(seed=1)
    actions = np.random.default_rng(2).integers(0, DOCUMENTS, (HORIZON, users))
    started = time.perf_counter()
    for action in actions:
        env.step(action)
    return HORIZON * users / (time.perf_counter() - started)


def theirs() -> float:
    """Return user-steps per second of RecSim's loop."""
    models = [
        recsim.LTSUserModel(1, user_state_ctor=recsim.LTSUserState, response_model_ctor=recsim.LTSResponse, seed=seed)
        for seed in range(THEIR_USERS)
    ]
    env = MultiUserEnvironment(models, recsim.LTSDocumentSampler(), DOCUMENTS, 1, resample_documents=False)
    env.reset()
    slates = np.random.default_rng(2).integers(0, DOCUMENTS, (THEIR_STEPS, THEIR_USERS, 1))
    started = time.perf_counter()
    for slate in slates:
        env.step(slate)
    return THEIR_STEPS * THEIR_USERS / (time.perf_counter() - started)


def main() -> None:
    """Run the benchmark and print its line."""
    rates: dict[str, list[float]] = {"recsim_500": []} | {f"ours_{users}": [] for users in OUR_USERS}
    gc.disable()
    for _ in range(ROUNDS):
        rates["recsim_500"].append(theirs())
        for users in OUR_USERS:
            rates[f"ours_{users}"].append(ours(users))
        gc.collect()
    middle = {name: float(np.median(values)) for name, values in rates.items()}
    ratios = {name: round(rate / middle["recsim_500"], 1) for name, rate in middle.items() if name.startswith("ours_")}
    detail = {
        "user_steps_per_s": {name: round(rate) for name, rate in middle.items()},
        "slowest": {name: round(min(values)) for name, values in rates.items()},
        "rounds": ROUNDS,
    }
    print(json.dumps({"name": "simulators", "ratios": ratios, "detail": detail}))


if __name__ == "__main__":
    main()
