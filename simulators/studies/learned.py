"""The study of simulators learned from logs: fitted where the log has support, judged in the true world.

The true world is long-term satisfaction at mu 14. The log knows 400 of its users under a policy that shows clickbait
between .2 and .6; the simulators see nothing else, neither the dynamics nor the parameters.
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
from simulators.environments.lts.env import DOCUMENTS, HORIZON, LtsEnv, LtsUsers, Singles, draw_users
from simulators.environments.lts.planner import plan, returns_of_constants, returns_of_plan
from simulators.environments.lts.tasks import TARGET
from simulators.learned.ensembles import Ensemble, errors_of, fit_ensemble
from simulators.learned.groups import GroupView, new_sadae
from simulators.learned.interventions import trend_of
from simulators.learned.knowledge import share_of_best
from simulators.learned.logs import SHOWN, habitual, logged
from simulators.learned.lookahead import Lookahead, PenaltyKind, returns_in_model, returns_in_truth, teach
from simulators.learned.parameters import fitted_choc
from simulators.learned.responses import Response
from simulators.learned.trajectories import Trajectories
from simulators.sim2rec import student
from simulators.sim2rec.sadae import Sadae, fit
from simulators.sim2rec.views import View, returns_of_policy
from simulators.studies import interval

TRAINED = ("sim2rec", "without_filters", "without_penalty", "gap_penalty", "ensemble", "maple_like")
STILL = ("logged", "cloning", "constant", "oracle_in_range")
PARAMETRIC = "fitted_parameters"
ALL = (*TRAINED, PARAMETRIC, *STILL)
EVERYTHING = (0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 29)
PENALTY, RELAXED = 1.0, 0.25
"""The disagreement, or the gap in deviations of the rewards, is taken off with this weight; MAPLE has the second."""
_BEFORE, _STEPS = 30, 60
"""Steps of a user that are followed, and those that are simulated, where a simulator says what a policy earns."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run.

    Attributes:
        users: in the log.
        members: of the ensemble.
        fit_steps: gradient steps of the recurrent net.
        iterations: of every student.
        deployed: users of the true world.
        methods: run.
    """

    users: int = 400
    members: int = 4
    fit_steps: int = 120
    iterations: int = 20
    deployed: int = 1000
    methods: tuple[str, ...] = ALL


QUICK = Size(200, 3, 0, 4, 500, ("sim2rec", "ensemble", "logged", "cloning", "oracle_in_range"))


@dataclass(frozen=True, slots=True)
class Job:
    """All methods with one seed: they share the log, its simulators and the users deployed to."""

    seed: int

    @property
    def name(self) -> str:
        """Unique among a study's jobs."""
        return f"learned-{self.seed}"


def jobs(seeds: Sequence[int], size: Size) -> list[Job]:
    """Return what has to be run."""
    return [Job(seed) for seed in seeds]


def run_job(job: Job, size: Size) -> dict[str, Any]:
    """Return, per method, ``returns`` of the users deployed to and what there is to tell; the ``oracle``; the members.

    Raises:
        FieldError: a method is unknown.
    """
    for method in size.methods:
        if method not in ALL:
            raise FieldError("methods", wanted=f"some of {', '.join(ALL)}", got=method)
    torch.set_num_threads(1)
    started, seed = time.perf_counter(), job.seed
    log = logged(draw_users(np.random.default_rng([seed, 1]), np.array([TARGET]), size.users), seed)
    users = draw_users(np.random.default_rng([seed, 2]), np.array([TARGET]), size.deployed)
    ensemble = fit_ensemble(log, seed, members=size.members, steps=size.fit_steps)
    low, high = SHOWN
    trends = [trend_of(member, log, low, high) for member in ensemble.members]
    beyond = [trend_of(member, log, 0, DOCUMENTS - 1) for member in ensemble.members]
    told: dict[str, Any] = {
        "members": list(ensemble.names),
        "passed": [trend.passed for trend in trends],
        "trends": [[trend.at_once, trend.worn] for trend in trends],
        "trends_beyond": [[trend.at_once, trend.worn] for trend in beyond],
        "rmse": [float(errors_of(member, log)[10:].mean()) for member in ensemble.members],
        "oracle": float(returns_of_plan(users, plan(users)).mean()),
    }
    methods: dict[str, Any] = {}
    for method in size.methods:
        if method in TRAINED:
            out, returns = _trained(method, seed, size, ensemble, told["passed"], log, users)
        elif method == PARAMETRIC:
            out, returns = _parametric(seed, size, log, users)
        else:
            out, returns = {"user_steps": 0}, _still(method, seed, log, users)
        methods[method] = out | {"returns": [round(float(value), 2) for value in returns]}
    return told | {"methods": methods, "seconds": time.perf_counter() - started}


def _trained(
    method: str,
    seed: int,
    size: Size,
    ensemble: Ensemble,
    passed: Sequence[bool],
    log: Trajectories,
    users: LtsUsers,
) -> tuple[dict[str, Any], Floats]:
    low, high = SHOWN
    filtered = method in ("sim2rec", "without_penalty")
    trained_in = ensemble.keep(passed) if filtered else ensemble
    view = GroupView(None if method == "maple_like" else _group_code(trained_in, log, seed))
    penalty = {"sim2rec": PENALTY, "without_filters": PENALTY, "maple_like": RELAXED}.get(method, 0.0)
    kind: PenaltyKind = "disagreement"
    if method == "gap_penalty":
        penalty, kind = PENALTY * float(log.rewards[log.inside].std()), "gap"
    offered = tuple(range(low, high + 1, 2)) if filtered else EVERYTHING
    how = Lookahead(offered, iterations=size.iterations, penalty=penalty, penalty_kind=kind)
    policy, user_steps = teach(trained_in, log, view, how, seed)

    def in_model(model: Response) -> Floats:
        earned = returns_in_model(policy, view, offered, model, log, seed, before=_BEFORE, steps=_STEPS)
        return earned.astype(np.float64)

    believed = [in_model(member) for member in trained_in.members]
    codes = np.array(offered)
    out = {
        "user_steps": user_steps,
        "believed": HORIZON * float(np.mean([earned.mean() for earned in believed])),
        "held_out": HORIZON * float(in_model(ensemble.held_out).mean()),
        "shares": {
            name: share_of_best(member, log, codes, _BEFORE, _STEPS, earned)
            for name, member, earned in zip(trained_in.names, trained_in.members, believed, strict=True)
        },
    }
    return out, returns_in_truth(policy, view, offered, users, seed, log)


def _group_code(ensemble: Ensemble, log: Trajectories, seed: int) -> Sadae:
    """Return an autoencoder of (response, action) sets, trained on the members under documents held at random."""
    rng, (low, high), users, steps = np.random.default_rng(seed), SHOWN, 200, 60
    features = log.catalogue.features
    seen: list[Singles] = []
    for member in ensemble.members:
        memory, documents = member.start(users), rng.integers(low, high + 1, users)
        for time_ in range(steps):
            documents = np.where(rng.random(users) < 0.3, rng.integers(low, high + 1, users), documents)
            shown = features[documents]
            response = log.scale.drawn(*member.predict(memory, shown), rng)
            memory = member.advance(memory, shown, response)
            if time_ % 5 == 0:
                seen.append(np.concatenate([response[:, None], shown], axis=1))
    sets = np.stack(seen).astype(np.float32)

    def draw(rng: np.random.Generator) -> Singles:
        return sets[rng.integers(0, len(sets), 8)][:, rng.integers(0, users, 48)]

    model = new_sadae(seed)
    fit(model, draw, seed, steps=300, penalty=1e-2)
    return model


def _parametric(seed: int, size: Size, log: Trajectories, users: LtsUsers) -> tuple[dict[str, Any], Floats]:
    """Simulators of the true form, with the distribution of their parameters fitted to the log."""
    centre, spread = fitted_choc(log, seed)
    chocs = centre + np.linspace(-2.0, 2.0, 7) * max(spread, 0.25)
    view, recipe = View(context=False), student.Recipe(iterations=max(size.iterations, 5), users=252)
    progress = student.teach(student.beginner(view, recipe, seed), view, chocs, recipe)
    returns = returns_of_policy(progress.average, view, users, seed, noise=recipe.noise)
    return {"user_steps": progress.user_steps, "fitted": [centre, spread]}, returns


def _still(method: str, seed: int, log: Trajectories, users: LtsUsers) -> Floats:
    if method == "logged":
        return _habitual(users, seed)
    low, high = SHOWN
    constants = returns_of_constants(users)
    if method == "oracle_in_range":
        return constants[low : high + 1].max(axis=0)
    if method == "cloning":
        # The habit does not depend on the user, so its likeliest clone without noise is the mean document.
        return constants[round(float(log.actions.mean()))]
    best = {document: float(np.mean(log.rewards[log.actions == document])) for document in range(low, high + 1)}
    return constants[max(best, key=lambda document: best[document])]


def _habitual(users: LtsUsers, seed: int) -> Floats:
    rng, env = np.random.default_rng([seed, 3]), LtsEnv(users)
    env.reset(seed=seed)
    last, total = None, np.zeros(len(users))
    for _ in range(env.horizon):
        last, _ = habitual(last, len(users), rng)
        total += env.step(last)[1]
    return total


def summary(size: Size, results: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the ``learned`` part of the result: per method ``return``, ``over_logged`` and their intervals, and more.

    Methods are compared user by user: the logging policy and every method are run on the same users of a seed. The
    intervals come from a bootstrap over seeds and, within them, users.
    """
    out: dict[str, Any] = {}
    rng = np.random.default_rng(0)
    runs = [results[Job(seed).name] for seed in seeds]
    oracle = float(np.mean([run["oracle"] for run in runs]))
    returns = {name: np.array([run["methods"][name]["returns"] for run in runs]) for name in size.methods}
    for method in size.methods:
        found = [run["methods"][method] for run in runs]
        row: dict[str, Any] = {
            "return": float(returns[method].mean()),
            "return_ci": interval.of_users(returns[method], rng),
            "ratio_oracle": float(returns[method].mean()) / oracle,
            "user_steps": int(found[0]["user_steps"]),
        }
        for other in ("logged", "cloning", "ensemble"):
            if other != method and other in returns:
                gain = returns[method] - returns[other]
                row[f"over_{other}"], row[f"over_{other}_ci"] = float(gain.mean()), interval.of_users(gain, rng)
        for key in ("believed", "held_out"):
            if key in found[0]:
                row[key] = float(np.mean([one[key] for one in found]))
                row[f"{key}_ci"] = interval.of_mean([one[key] for one in found])
        if "shares" in found[0]:
            row["worst"], row["worst_share"] = interval.worst_of([one["shares"] for one in found])
        if "fitted" in found[0]:
            row["fitted"] = [one["fitted"] for one in found]
        out[method] = row
    return out


def simulators_of(results: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return, per seed, the members fitted, their errors and whether they passed the intervention tests."""
    keys = ("members", "passed", "trends", "trends_beyond", "rmse")
    return [{key: results[Job(seed).name][key] for key in keys} for seed in seeds]
