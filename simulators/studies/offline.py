"""The study of policies made from a log alone: whose trajectories are imitated, and what a critic adds.

Two logs mix a tenth of a good version's trajectories into those of a bad one, in long-term satisfaction at mu 14: the
bad one shows clickbait between .6 and 1; the good one is the planner with a fifth at random (`m1`), or the habit of the
study of learned simulators (`m2`). The third log is that study's own. Policies serve fresh users as the service draws.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from decision.batch import Floats
from decision.errors import FieldError
from simulators.environments.lts.env import LtsUsers, draw_users
from simulators.environments.lts.planner import plan, returns_of_plan
from simulators.environments.lts.tasks import TARGET
from simulators.learned.groups import GroupView
from simulators.learned.logs import logged, mixed
from simulators.learned.lookahead import returns_in_truth
from simulators.learned.trajectories import Trajectories
from simulators.offline.cloning import CloneRecipe, cloned, followed
from simulators.offline.critic import CriticRecipe, critic_of
from simulators.offline.gated import apart_of, in_steps
from simulators.offline.weights import Kind, effective_of, share_of_users, weights_of
from simulators.sim2rec.network import ContextPolicy
from simulators.studies import interval
from simulators.trainers.contract import executed_in

MIXED = ("m1", "m2")
STUDY_LOG = "study_log"
WORLDS = (*MIXED, STUDY_LOG)
BAD = (18, 29)
"""First and last document that the bad version shows."""
SAMPLERS: tuple[Kind, ...] = ("uniform", "pw", "aw")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run.

    Attributes:
        users: in each log.
        deployed: fresh users of the true world.
        effort: gradient steps, in shares of the usual.
        worlds: some of `WORLDS`.
    """

    users: int = 400
    deployed: int = 1_000
    effort: float = 1.0
    worlds: tuple[str, ...] = WORLDS

    def count(self, usual: int) -> int:
        """Return `usual` times the effort, 1 or more."""
        return max(1, round(usual * self.effort))


QUICK = Size(users=200, deployed=300, effort=0.25)


@dataclass(frozen=True, slots=True)
class Job:
    """All methods on one log with one seed: they share the log and the users deployed to."""

    world: str
    seed: int

    @property
    def name(self) -> str:
        """Unique among a study's jobs."""
        return f"offline-{self.world}-{self.seed}"


def jobs(seeds: Sequence[int], size: Size) -> list[Job]:
    """Return what has to be run."""
    return [Job(world, seed) for seed in seeds for world in size.worlds]


def log_of(world: str, seed: int, users: int) -> Trajectories:
    """Return the log of a world.

    Raises:
        FieldError: there is no such world.
    """
    if world not in WORLDS:
        raise FieldError.choice("world", list(WORLDS), world)
    people = draw_users(np.random.default_rng([seed, 1]), np.array([TARGET]), users)
    if world == STUDY_LOG:
        return logged(people, seed)
    many, few = people.take(np.arange(users * 9 // 10)), people.take(np.arange(users * 9 // 10, users))
    return mixed([logged(many, seed, shown=BAD), _good(world, few, seed)])


def _good(world: str, users: LtsUsers, seed: int) -> Trajectories:
    """Return what the good version of a mixed log, or the logging policy of the study, does with `users`."""
    return logged(users, seed + 1_000, plan=plan(users) if world == "m1" else None)


def run_job(job: Job, size: Size) -> dict[str, Any]:
    """Return, per method, ``returns`` of the users deployed to and what there is to tell; the ``optimum``.

    A ``cloning`` imitates the decisions of the trajectories it draws; an ``extraction`` follows a critic from there;
    ``gated`` follows it in steps that users apart have to prove.
    """
    torch.set_num_threads(1)
    started, seed = time.perf_counter(), job.seed
    log = log_of(job.world, seed, size.users)
    fresh = draw_users(np.random.default_rng([seed, 2]), np.array([TARGET]), size.deployed)
    good = _good(job.world, fresh, seed).rewards.sum(axis=1, dtype=np.float64)
    methods: dict[str, Any] = {"good" if job.world in MIXED else "logged": {"returns": _plain(good)}}
    view, offered = GroupView(None), executed_in(log)
    critic, recipe = CriticRecipe(steps=size.count(2_500)), CloneRecipe(steps=size.count(1_500))
    judged, alike = critic_of(log, offered, critic, seed), np.zeros(log.actions.shape, np.float32)

    def earned(policy: ContextPolicy) -> list[float]:
        return _plain(returns_in_truth(policy, view, tuple(offered.tolist()), fresh, seed, log, greedy=False))

    def made(kind: Kind, *, led: bool = False) -> dict[str, Any]:
        weights = weights_of(log, kind)
        if led:
            policy = followed(log, view, offered, judged, weights, recipe, seed)
        else:
            policy = cloned(log, view, offered, alike, weights, recipe, seed)
        out = {"returns": earned(policy), "ess": effective_of(weights)}
        if log.versions is not None:
            out["on_good"] = float(weights[log.versions[:, 0] == 1].sum())
        return out

    def gated(kind: Kind) -> dict[str, Any]:
        apart = apart_of(len(log), np.zeros(0, np.int64), seed)
        policy, told = in_steps(log, view, offered, kind, apart, critic, recipe, seed)
        return {"returns": earned(policy), "told": told}

    if job.world in MIXED:
        methods |= {f"cloning_{kind}": made(kind) for kind in SAMPLERS}
        methods |= {f"extraction_{kind}": made(kind, led=True) for kind in ("uniform", "pw")}
        methods["gated_pw"] = gated("pw")
    else:
        methods |= {"cloning": made("uniform"), "extraction": made("uniform", led=True)}
        methods["gated"] = gated("uniform")
    told: dict[str, Any] = {
        "optimum": float(returns_of_plan(fresh, plan(fresh)).mean()),
        "share_of_users": share_of_users(log),
    }
    return told | {"methods": methods, "seconds": time.perf_counter() - started}


def _plain(returns: Floats) -> list[float]:
    return [round(float(value), 2) for value in returns]


def summary(size: Size, results: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Return ``mixed`` and ``study_log``: per method returns, shares of the good policy or gains over the log.

    Intervals are those of a bootstrap over seeds and, within them, users. Methods are compared user by user.
    """
    rng, out = np.random.default_rng(0), dict[str, Any]()
    for world in size.worlds:
        runs = [results[Job(world, seed).name] for seed in seeds]
        returns = {name: np.array([run["methods"][name]["returns"] for run in runs]) for name in runs[0]["methods"]}
        reference = returns["good" if world in MIXED else "logged"]
        rows: dict[str, Any] = {}
        for name, values in returns.items():
            found = [run["methods"][name] for run in runs]
            row: dict[str, Any] = {
                "return": float(values.mean()),
                "return_ci": interval.of_users(values, rng),
                "by_seed": [float(each.mean()) for each in values],
            }
            if "told" in found[0]:
                row["told"] = [one["told"] for one in found]
            for key in ("ess", "on_good"):
                if key in found[0]:
                    row[key] = float(np.mean([one[key] for one in found]))
            if world in MIXED:
                row["share_of_good"] = float(values.mean() / reference.mean())
            elif name != "logged":
                for other in ("logged", "cloning"):
                    if other != name:
                        label = "over_log" if other == "logged" else f"over_{other}"
                        gain = values - returns[other]
                        row[label], row[f"{label}_ci"] = float(gain.mean()), interval.of_users(gain, rng)
            rows[name] = row
        if world in MIXED:
            out.setdefault("mixed", {})[world] = rows
        else:
            out[STUDY_LOG] = rows
        out.setdefault("share_of_users", {})[world] = float(np.mean([run["share_of_users"] for run in runs]))
    return out
