"""Policies from a log alone: what the trainer ``clone`` makes, beside what d3rlpy's learners make of the same log.

Inputs are equal: trajectories of long-term satisfaction, rewards in deviations, the actions in the log, gamma, layers,
gradient steps. Our critic and d3rlpy's nets, which have no memory, see the same summary of a user's past
(`simulators.learned.responses.SummaryResponse`); our clone sees the events. The logs are those of `decision study
offline`. On ``m2`` all trajectories count alike; on ``m2_pw`` those of the better version count more, and d3rlpy gets
the log drawn anew with these weights. ``CASE_over_d3rlpy`` is our return over that of d3rlpy's best learner, chosen
after the fact. Ours is served as the service draws; d3rlpy's by their best action, and behaviour cloning drawn as well
(``bc_drawn``, without its penalty of logits). d3rlpy's IQL and AWAC take continuous actions only.

Processor time is that of a gradient step with the sampling of its batch, on one thread, in alternation: our critic
against discrete CQL at 256 logged steps (``critic_cpu``), our clone against discrete behaviour cloning at as many
decisions (``clone_cpu``), the mean over the plain clone and the policy that follows the critic from there.

``python -m tests.bench.offline``; ``QUICK=1`` for a twentieth of the steps on one seed, ``SEEDS=7,8`` for some of the
seeds. Without d3rlpy (extra ``compare``) ours alone is run, the ratios are those over the log's own return, and
``left_out`` says so.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from decision.batch import Floats
from simulators.environments.lts.env import LtsEnv, LtsUsers, draw_users
from simulators.environments.lts.tasks import TARGET
from simulators.learned.groups import GroupView
from simulators.learned.lookahead import drawn, returns_in_truth
from simulators.learned.responses import SummaryResponse
from simulators.learned.trajectories import Counts, Trajectories
from simulators.offline.cloning import CloneRecipe, followed
from simulators.offline.critic import CriticRecipe, critic_of
from simulators.offline.weights import Kind, weights_of
from simulators.studies.offline import log_of
from simulators.trainers import clone
from simulators.trainers.contract import Plan, executed_in

if TYPE_CHECKING:
    from simulators.learned.ensembles import Ensemble

QUICK = os.environ.get("QUICK") == "1"
SEEDS = [7] if QUICK else [int(seed) for seed in os.environ.get("SEEDS", "7,8,9").split(",")]
USERS, DEPLOYED, EFFORT = (100, 200, 0.05) if QUICK else (400, 1_000, 1.0)
ROUNDS, TIMED = (2, 20) if QUICK else (5, 200)
CASES: dict[str, tuple[str, Kind]] = {
    "m2": ("m2", "uniform"),
    "m2_pw": ("m2", "pw"),
    "study_log": ("study_log", "uniform"),
}
CRITIC = CriticRecipe(steps=max(1, round(2_500 * EFFORT)))
RATE, TARGET_EVERY, LAYERS = 1e-3, 100, [64, 64]


def main() -> None:
    """Run the benchmark and print its line."""
    torch.set_num_threads(1)
    theirs = importlib.util.find_spec("d3rlpy") is not None
    returns: dict[str, dict[str, list[float]]] = {}
    for seed in SEEDS:
        for case, (world, kind) in CASES.items():
            for method, found in returns_of(world, kind, seed, theirs).items():
                returns.setdefault(case, {}).setdefault(method, []).append(round(float(found.mean()), 2))
                print(case, seed, method, returns[case][method][-1], file=sys.stderr, flush=True)
    means = {case: {name: float(np.mean(each)) for name, each in row.items()} for case, row in returns.items()}
    ratios = {f"{case}_over_log": round(row["ours"] / row["logged"], 4) for case, row in means.items()}
    detail: dict[str, Any] = {"returns": returns, "seeds": SEEDS, "left_out": [] if theirs else ["d3rlpy"]}
    if theirs:
        best = {case: max(row.keys() - {"ours", "logged"}, key=row.__getitem__) for case, row in means.items()}
        ratios |= {f"{case}_over_d3rlpy": round(row["ours"] / row[best[case]], 4) for case, row in means.items()}
        cpu = processor_time(log_of("m2", SEEDS[0], USERS), SEEDS[0])
        middle = {name: float(np.median(each)) for name, each in cpu.items()}
        ratios |= {f"{part}_cpu": round(middle[part] / middle[f"{part}_d3rlpy"], 4) for part in ("critic", "clone")}
        detail |= {"best": best, "ms_per_step": {name: round(each * 1e3, 3) for name, each in middle.items()}}
    print(json.dumps({"name": "offline", "ratios": ratios, "detail": detail}))


def returns_of(world: str, kind: Kind, seed: int, theirs: bool) -> dict[str, Floats]:
    """Return per method [m] returns of fresh users, and the [n] returns of the log's own (``logged``)."""
    log = log_of(world, seed, USERS)
    fresh = draw_users(np.random.default_rng([seed, 2]), np.array([TARGET]), DEPLOYED)
    nobody = cast("Ensemble", SimpleNamespace(apart=np.zeros(0, np.int64)))  # `clone` asks no simulator of a set
    taught = clone.train(log, nobody, Plan(weights=kind, effort=EFFORT), seed)
    offered = taught.offered
    out = {
        "logged": log.rewards.sum(axis=1, dtype=np.float64),
        "ours": returns_in_truth(taught.policy, taught.view, tuple(offered.tolist()), fresh, seed, log, greedy=False),
    }
    if not theirs:
        return out
    counted = log
    if kind != "uniform":
        weights = weights_of(log, kind)
        counted = log.take(np.random.default_rng([seed, 3]).choice(len(log), len(log), p=weights))
    seeded(seed)
    data = dataset_of(counted, offered)
    for name, learner in learners(CRITIC.batch).items():
        seeded(seed)
        for _ in range(CRITIC.steps):
            learn(learner, data)
        greedy = name != "bc_drawn"
        out[name] = returns_of_theirs(learner, offered, fresh, seed, log, greedy=greedy)
    return out


def learners(batch: int) -> dict[str, Any]:
    """Return d3rlpy's learners for discrete actions, nothing learned."""
    from d3rlpy import algos
    from d3rlpy.models.encoders import VectorEncoderFactory

    common: dict[str, Any] = {"batch_size": batch, "learning_rate": RATE}
    common["encoder_factory"] = VectorEncoderFactory(hidden_units=LAYERS)
    valued = common | {"gamma": CRITIC.gamma, "target_update_interval": TARGET_EVERY}
    return {
        "bc": algos.DiscreteBCConfig(**common).create(),
        "bc_drawn": algos.DiscreteBCConfig(**common, beta=0.0).create(),
        "bcq": algos.DiscreteBCQConfig(**valued).create(),
        "cql": algos.DiscreteCQLConfig(**valued).create(),
    }


def seeded(seed: int) -> None:
    """Seed d3rlpy, whose nets and batches come of global randomness, and have it log errors alone."""
    import d3rlpy
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    d3rlpy.seed(seed)


def dataset_of(log: Trajectories, offered: Counts) -> Any:
    """Return the log as d3rlpy takes it; users go on after their last step, so nothing is terminal."""
    from d3rlpy.constants import ActionSpace
    from d3rlpy.dataset import MDPDataset

    if not np.isin(log.actions, offered).all() or not log.inside.all():
        raise ValueError("d3rlpy has no way to pass over a step: wanted users of equal length and actions offered")
    states = summary_of(log).memories_of(log).transpose(1, 0, 2)
    rewards = (log.rewards - log.rewards.mean()) / log.rewards.std()
    ends = np.zeros(log.rewards.shape, np.float32)
    ends[:, -1] = 1.0
    return MDPDataset(
        observations=np.ascontiguousarray(states.reshape(-1, states.shape[-1])),
        actions=np.searchsorted(offered, log.actions).reshape(-1, 1),
        rewards=rewards.reshape(-1, 1).astype(np.float32),
        terminals=np.zeros(log.rewards.size, np.float32),
        timeouts=ends.ravel(),
        action_space=ActionSpace.DISCRETE,
        action_size=len(offered),
    )


def learn(learner: Any, data: Any) -> None:
    """Take one gradient step; the first also makes the nets."""
    if learner.impl is None:
        learner.build_with_dataset(data)
    learner.update(data.sample_transition_batch(learner.batch_size))


def returns_of_theirs(
    learner: Any, offered: Counts, users: LtsUsers, seed: int, log: Trajectories, *, greedy: bool
) -> Floats:
    """Return [n] what a learner of d3rlpy's earns each user."""
    rng, env, summary = np.random.default_rng(seed), LtsEnv(users), summary_of(log)
    env.reset(seed=seed)
    memory, total = summary.start(len(users)), np.zeros(len(users))
    for _ in range(env.horizon):
        if greedy:
            documents = offered[learner.predict(memory)]
        else:
            with torch.no_grad():
                logits = learner.impl.modules.imitator(torch.from_numpy(memory)).logits.numpy()
            documents = drawn(logits, tuple(offered.tolist()), rng)
        _, reward, *_ = env.step(documents)
        memory = summary.advance(memory, log.catalogue.features[documents], log.scale.response(reward))
        total += reward
    return total


def summary_of(log: Trajectories) -> SummaryResponse:
    """Return what makes states of a user's past."""
    summary = SummaryResponse()
    summary.features = log.shown.shape[2]
    return summary


def processor_time(log: Trajectories, seed: int) -> dict[str, list[float]]:
    """Return seconds of processor time per gradient step, once a round, ours and d3rlpy's in alternation."""
    view, offered, weights = GroupView(None), executed_in(log), weights_of(log, "uniform")
    critic = critic_of(log, offered, CriticRecipe(steps=1), seed)
    seeded(seed)
    data = dataset_of(log, offered)
    cql, bc = learners(CRITIC.batch)["cql"], learners(CloneRecipe().batch)["bc"]
    for learner in (cql, bc):
        learn(learner, data)

    def ours_critic(steps: int) -> None:
        critic_of(log, offered, CriticRecipe(steps=steps), seed)

    def ours_clone(steps: int) -> None:
        followed(log, view, offered, critic, weights, CloneRecipe(steps=steps), seed)

    def of(learner: Any) -> Callable[[int], None]:
        def steps_of(steps: int) -> None:
            for _ in range(steps):
                learn(learner, data)

        return steps_of

    timed = {
        "critic": (ours_critic, TIMED),
        "critic_d3rlpy": (of(cql), TIMED),
        "clone": (ours_clone, TIMED),
        "clone_d3rlpy": (of(bc), TIMED),
    }
    out: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(ROUNDS):
        for name, (train, steps) in list(timed.items())[:: 1 if number % 2 else -1]:
            heads = 2 if name == "clone" else 1
            out[name].append((spent(train, steps + 1) - spent(train, 1)) / steps / heads)
    return out


def spent(train: Callable[[int], None], steps: int) -> float:
    """Return the seconds of processor time that so many gradient steps take, with what comes before them."""
    started = time.process_time()
    train(steps)
    return time.process_time() - started


if __name__ == "__main__":
    main()
