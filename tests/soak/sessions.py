"""Through the command line alone: the study's log in a lake becomes a policy with memory, tried in the true world.

``python -m tests.soak.sessions [--seeds 0,1,2] [--methods sim2rec,clone] [--users 400] [--steps 140] [--effort 1]
[--trainings 2] [--out FOLDER]``. With `--out`, the installations are kept there, and a run goes on where one was cut
short. The method ``default`` is of a loop that names none: `sim2rec`, or `clone` where the night judges it better.

Every policy is served as its artifact says, floor included, to users it has not seen, and compared with the logging
policy user by user. Each training is run twice; other bytes end the run with an error. ``--trainings 1`` compares none.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from decision.artifact import MANIFEST_FILE, unpack
from decision.batch import Floats
from decision.exploration.softmax import softmax
from decision.oracles.session import SessionOracle
from decision.policy import OraclePolicy
from pipelines.operations.init import SESSIONS, init_loop
from pipelines.registry.registry import Registry
from pipelines.settings import TrainingSettings, load_settings
from simulators.environments.lts.env import LtsEnv, LtsUsers, draw_users
from simulators.learned.logs import habitual
from tests.worlds.satisfaction import MU, fill, habit
from tests.worlds.synthetic import open_parts

DEPLOYED = 1_000
DEFAULT = "default"
LOOPS = {DEFAULT: "clone"}
"""Names of loops, where they are not the methods'. By it users are held out: the default's are those of the clone."""


def decision(home: Path, *words: str) -> dict[str, Any]:
    """Run a command of the command line and return its result."""
    run = [sys.executable, "-m", "pipelines.cli", *words, "--home", str(home), "--json"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(run, capture_output=True, text=True, check=False, env=environ)
    if out.returncode:
        raise SystemExit(f"{' '.join(words)}: {out.stderr[-2000:]}")
    return msgspec.json.decode(out.stdout)


def returns_of_habit(users: LtsUsers, seed: int, steps: int) -> Floats:
    """Return [n] what the logging policy earns each user."""
    rng, env = np.random.default_rng([seed, 3]), LtsEnv(users, horizon=steps)
    env.reset(seed=seed)
    last, total = None, np.zeros(len(users))
    for _ in range(steps):
        last, _ = habitual(last, len(users), rng)
        total += env.step(last)[1]
    return total


def returns_as_served(policy: OraclePolicy, users: LtsUsers, seed: int, steps: int) -> Floats:
    """Return [n] what the policy of an artifact earns each user, drawn with its own probabilities."""
    oracle = policy.oracle
    if not isinstance(oracle, SessionOracle):
        raise SystemExit("the version has no memory")
    rng, env, n = np.random.default_rng([seed, 4]), LtsEnv(users, horizon=steps), len(users)
    env.reset(seed=seed)
    taught = oracle.settings.actions
    documents = np.array([int(name.rpartition("-")[2]) for name in taught])
    rule, total, states = policy.exploration, np.zeros(n), [oracle.start() for _ in range(n)]
    offsets = np.arange(n + 1) * len(taught)
    for _ in range(steps):
        logits = np.concatenate([oracle.logits(state) for state in states]).astype(np.float64)
        pmf = softmax(logits, offsets, inverse_temperature=rule.inverse_temperature).reshape(n, -1)
        pmf = rule.floor / len(taught) + (1.0 - rule.floor) * pmf
        drawn = np.minimum((pmf.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), len(taught) - 1)
        rewards = env.step(documents[drawn])[1]
        states = [
            oracle.advance(state, taught[at], float(reward))
            for state, at, reward in zip(states, drawn.tolist(), rewards, strict=True)
        ]
        total += rewards
    return total


def logged_returns(seed: int, steps: int) -> Floats:
    """Return [n] what the logging policy earns the users that nobody has seen."""
    return returns_of_habit(draw_users(np.random.default_rng([seed, 2]), MU, DEPLOYED), seed, steps)


def one(
    home: Path, seed: int, method: str, users: int, steps: int, effort: float, trainings: int
) -> tuple[Floats, str]:
    """Return [n] what the method's policy earns users that nobody has seen, and which method's it is.

    `home` may hold a part of the way.
    """
    loop = LOOPS.get(method, method)
    settings, registry = (made := load_settings({}, home=str(home))), Registry(made)
    if not settings.loop_path(loop).exists():
        log, _ = open_parts(settings)
        # As many more as are held out from training.
        fill(log, loop, habit(seed, round(users / (1.0 - TrainingSettings().holdout)), steps))
        log.close()
        own: dict[str, Any] = {"session.trend": "wears_out"}
        own |= {} if method == DEFAULT else {"session.method": method, "session.also": []}
        own |= {"session.horizon": steps, "session.effort": effort}
        init_loop(settings, loop, values={**SESSIONS, **own})
    if not registry.versions(loop):
        decision(home, "ingest")
        decision(home, "join", loop)
    while len(registry.versions(loop)) < trainings:
        decision(home, "train", loop, "--seed", str(seed))
    once, *others = (
        {name: part for name, part in registry.files(loop, version.version).items() if name != MANIFEST_FILE}
        for version in registry.versions(loop)
    )
    if any(again != once for again in others):
        raise SystemExit(f"{method}, seed {seed}: the same training gave other bytes")
    policy, _ = unpack(registry.files(loop, "1"))
    deployed = draw_users(np.random.default_rng([seed, 2]), MU, DEPLOYED)
    return returns_as_served(policy, deployed, seed, steps), registry.versions(loop)[0].tags["method"]


def kept(given: argparse.Namespace, seed: int, method: str) -> tuple[Floats, str]:
    """Return what `one` returns, with the folder of an earlier run where there is one."""
    size = (given.users, given.steps, given.effort)
    if given.out is None:
        with tempfile.TemporaryDirectory() as folder:
            return one(Path(folder), seed, method, *size, given.trainings)
    home = given.out / "-".join([method, *(f"{number:g}" for number in (seed, *size))])
    path, of = home / "returns.npy", home / "chosen"
    if not (path.exists() and of.exists()):
        found, chosen = one(home, seed, method, *size, given.trainings)
        np.save(path, found)
        of.write_text(chosen)
    return np.load(path, allow_pickle=False), of.read_text()


def main() -> None:
    """Run all seeds, print a table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="sim2rec,clone")
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--steps", type=int, default=140)
    parser.add_argument("--effort", type=float, default=1.0)
    parser.add_argument("--trainings", type=int, choices=(1, 2), default=2)
    parser.add_argument("--out", type=lambda name: Path(name).absolute())
    given = parser.parse_args()
    seeds, methods = [int(seed) for seed in given.seeds.split(",")], given.methods.split(",")
    found: dict[str, list[Floats]] = {name: [] for name in ("logged", *methods)}
    print(f"{'seed':<6}{'method':<10}{'return':>9}{'over the log':>14}  policy of", flush=True)
    for seed in seeds:
        logged = logged_returns(seed, given.steps)
        for name in found:
            each, chosen = (logged, "") if name == "logged" else kept(given, seed, name)
            found[name].append(each)
            print(f"{seed:<6}{name:<10}{each.mean():>9.1f}{(each - logged).mean():>+14.1f}  {chosen}", flush=True)
    rng, result = np.random.default_rng(0), {}
    for name, runs in found.items():
        gap = np.array(runs) - np.array(found["logged"])
        picked = rng.integers(0, len(seeds), (1000, len(seeds)))
        drawn = rng.integers(0, DEPLOYED, (1000, len(seeds), DEPLOYED))
        means = np.take_along_axis(gap[picked], drawn, axis=2).mean(axis=(1, 2))
        result[name] = {
            "return": float(np.mean(runs)),
            "over_log": float(gap.mean()),
            "over_log_ci": np.quantile(means, (0.025, 0.975)).tolist(),
        }
    print(
        json.dumps({"name": "sessions", "seeds": seeds, "methods": result, "same_bytes": given.trainings > 1 or None})
    )


if __name__ == "__main__":
    main()
