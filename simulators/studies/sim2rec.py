"""The study of Sim2Rec on long-term satisfaction: one policy trained in many simulators, deployed to a group unseen.

A job is one method on one task with one seed; jobs share nothing, so that they run in any order and any process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from decision.batch import Floats
from decision.errors import FieldError
from simulators.environments.lts.env import GROUP_STD, LtsUsers, Singles, draw_users
from simulators.environments.lts.planner import plan, returns_of_constants, returns_of_plan
from simulators.environments.lts.tasks import ALPHAS, GROUPS, TARGET, LtsTask, task
from simulators.sim2rec import ppo
from simulators.sim2rec.identification import returns_of_identification
from simulators.sim2rec.ppo import PpoRecipe, Training, returns_of_actor
from simulators.sim2rec.sadae import Sadae, divergence_of_normals, fit
from simulators.sim2rec.student import Progress, Recipe, beginner, teach
from simulators.sim2rec.views import GroupMean, SadaeEmbedding, View, returns_of_policy
from simulators.studies import interval

EVALUATION_USERS, EVALUATION_SEED = 3000, 99
IDENTIFIED_USERS = 750
PAPER = {
    "1": {"sim2rec": 760.9, "dr_osi": 738.6, "dr_uni": 684.0, "direct": 653.2, "upper_bound": 769.9},
    "2": {"sim2rec": 749.6, "dr_osi": 712.4, "dr_uni": 681.9, "direct": 636.0, "upper_bound": 769.8},
    "3": {"sim2rec": 751.3, "dr_osi": 718.0, "dr_uni": 652.8, "direct": 626.2, "upper_bound": 769.7},
}
"""Returns that the authors report after 2e9 user-steps, read off the curves of their slides to about 1."""

LEARNERS = ("sim2rec", "dr_osi", "dr_uni", "direct", "upper_bound")
ABLATIONS = ("sim2rec_code", "sim2rec_mean")
STILL = ("identification", "identification_discrete", "constant")
SHIFTED = ("sim2rec", "dr_osi")
ALL = (*LEARNERS, "sim2rec_ppo", *ABLATIONS, *STILL)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run.

    Attributes:
        tasks: names of the tasks.
        iterations: of every student.
        updates: of PPO; 0 leaves it out.
        methods: run on every task.
        ablations: methods run on the last task only.
        users: deployed to.
        sadae_steps: gradient steps of the autoencoder.
        shifts: kale shifts of the users trained on, with `SHIFTED` on the last task.
    """

    tasks: tuple[str, ...] = tuple(ALPHAS)
    iterations: int = 64
    updates: int = 128
    methods: tuple[str, ...] = (*LEARNERS, *STILL)
    ablations: tuple[str, ...] = (*ABLATIONS, "sim2rec_ppo")
    users: int = EVALUATION_USERS
    sadae_steps: int = 500
    shifts: tuple[float, ...] = (1.0, 2.0)


QUICK = Size(("3",), 16, 4, ("sim2rec", "dr_osi", "direct", "upper_bound", "constant"), ("sim2rec_ppo",), 1000, 300, ())


@dataclass(frozen=True, slots=True)
class Job:
    """One method on one task with one seed.

    Attributes:
        task: name of the task, with a kale shift after a hyphen; the upper bound has none, it is the same for all.
        method: one of `ALL`.
        seed: of training; deployment is the same for all.
    """

    task: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Unique among a study's jobs."""
        return f"lts{self.task}-{self.method}-{self.seed}"


def jobs(seeds: Sequence[int], size: Size) -> list[Job]:
    """Return what has to be run, seed by seed, so that a part of them is a smaller study."""
    out: list[Job] = []
    for seed in seeds:
        for name in size.tasks:
            methods = size.methods + (size.ablations if name == size.tasks[-1] else ())
            out += [Job(name, method, seed) for method in methods if method != "upper_bound"]
        if "upper_bound" in size.methods:
            out.append(Job("0", "upper_bound", seed))
        out += [Job(shifted(size, shift), method, seed) for shift in size.shifts for method in SHIFTED]
    return out


def shifted(size: Size, shift: float) -> str:
    """Return the name of the last task with a kale shift."""
    return f"{size.tasks[-1]}-{shift:g}"


def deployed(size: Size) -> LtsUsers:
    """Return the users of the unseen group, the same for every method and seed."""
    return draw_users(np.random.default_rng(EVALUATION_SEED), np.array([TARGET]), size.users)


def run_job(job: Job, size: Size) -> dict[str, Any]:
    """Run one job; return ``return``, ``cvar10``, ``train_return``, ``user_steps``, ``seconds`` and curves.

    Raises:
        FieldError: the method is unknown.
    """
    if job.method not in ALL:
        raise FieldError.choice("method", list(ALL), job.method)
    torch.set_num_threads(1)
    started, users = time.perf_counter(), deployed(size)
    name, _, shift = job.task.partition("-")
    here = LtsTask(name, np.array([TARGET]))
    chosen = task(name, kale_shift=float(shift or 0.0)) if name in ALPHAS else here
    if job.method in STILL:
        out: dict[str, Any] = _still(job, chosen, users)
    elif job.method == "sim2rec_ppo":
        out = _ppo(job, chosen, users, size)
    else:
        out = _student(job, chosen, users, size)
    return out | {"seconds": time.perf_counter() - started}


def sets_of(chosen: LtsTask, users: int, rng: np.random.Generator) -> Singles:
    """Return sets [2 g, users, 1] of contexts of the training groups."""
    chocs = np.repeat(chosen.chocs, 2)[:, None, None]
    return (chocs + GROUP_STD * rng.standard_normal((len(chocs), users, 1))).astype(np.float32)


def trained_sadae(chosen: LtsTask, seed: int, steps: int) -> tuple[Sadae, list[float]]:
    """Return an autoencoder trained on the groups of `chosen`, and its evidence bound over training."""
    model = Sadae(np.array([TARGET], np.float32), np.array([8.0], np.float32), seed=seed)
    return model, fit(model, lambda rng: sets_of(chosen, 72, rng), seed, steps=steps).bound


def _still(job: Job, chosen: LtsTask, users: LtsUsers) -> dict[str, Any]:
    if job.method == "constant":
        rng = np.random.default_rng(job.seed)
        best = returns_of_constants(draw_users(rng, chosen.chocs, 200)).mean(axis=1).argmax()
        return _scores(returns_of_constants(users)[best], 0) | {"users": len(users)}
    some = users.take(np.arange(min(IDENTIFIED_USERS, len(users))))
    discrete = job.method == "identification_discrete"
    prior = chosen.chocs if discrete else np.random.default_rng(job.seed).uniform(6.0, 22.0, 4000)
    # Fewer users: the particles of each are followed apart. The oracle on the same users puts them on one scale.
    oracle = float(returns_of_plan(some, plan(some)).mean())
    return _scores(returns_of_identification(some, prior, job.seed), 0) | {"users": len(some), "oracle": oracle}


def _student(job: Job, chosen: LtsTask, users: LtsUsers, size: Size) -> dict[str, Any]:
    recipe = Recipe(iterations=size.iterations, kale_shift=chosen.kale_shift)
    extra: dict[str, Any] = {}
    chocs, view = chosen.chocs, View()
    if job.method in ("sim2rec", "sim2rec_code"):
        model, bound = trained_sadae(chosen, job.seed, size.sadae_steps)
        view = View(embedding=SadaeEmbedding(model, decoded=job.method == "sim2rec"))
        extra = {"sadae": {"bound": bound, "trained": [f"{choc:g}" for choc in chocs]} | separation(model)}
    elif job.method == "sim2rec_mean":
        view = View(embedding=GroupMean())
    elif job.method == "direct":
        chocs, view = np.array([chosen.wrong]), View(context=False)
    curve: list[tuple[int, float]] = []
    few = users.take(np.arange(min(1000, len(users))))

    def watch(progress: Progress) -> None:
        if progress.iteration % 5 == 0:
            reached = returns_of_policy(progress.average, view, few, 1, noise=recipe.noise).mean()
            curve.append((progress.user_steps, float(reached)))

    progress = beginner(view, recipe, job.seed, recurrent=job.method != "dr_uni")
    teach(progress, view, chocs, recipe, watch=watch)
    trained_on = draw_users(np.random.default_rng(job.seed + 1), chocs, max(1, 1000 // len(chocs)))
    at_home = returns_of_policy(progress.average, view, trained_on, 2, noise=recipe.noise)
    planned = returns_of_plan(trained_on, plan(trained_on))
    best_at_home = float(planned.mean())
    out = _scores(returns_of_policy(progress.average, view, users, 3, noise=recipe.noise), progress.user_steps)
    gap = {
        "train_return": float(at_home.mean()),
        "train_ratio_oracle": float(at_home.mean()) / best_at_home,
        "shares": shares_of(at_home, planned, trained_on),
    }
    return out | gap | {"curve": curve} | extra


def _ppo(job: Job, chosen: LtsTask, users: LtsUsers, size: Size) -> dict[str, Any]:
    model, _ = trained_sadae(chosen, job.seed, size.sadae_steps)
    view = View(embedding=SadaeEmbedding(model, decoded=False))
    curve: list[tuple[int, float]] = []
    few = users.take(np.arange(min(1000, len(users))))

    def watch(training: Training) -> None:
        if training.update % 10 == 0:
            reached = float(returns_of_actor(training.actor, view, few, 1).mean())
            curve.append((training.actor.user_steps, reached))

    recipe = PpoRecipe(updates=size.updates)
    actor = ppo.train(ppo.begin(view, recipe, job.seed), view, chosen.chocs, recipe, watch=watch)
    return _scores(returns_of_actor(actor, view, users, 3), actor.user_steps) | {"curve": curve}


def separation(model: Sadae) -> dict[str, Any]:
    """Return what the autoencoder makes of every group, the unseen ones included, 1,000 fresh users each.

    ``groups`` holds, per mu_c, the ``code`` (posterior mean), the reconstructed ``mean`` and ``std`` and the
    ``divergence`` KL(real || reconstructed); ``correlation`` is that of mu_c and the first principal component of the
    codes over all groups; ``between`` says whether the target's reconstruction lies strictly between those of its
    neighbours 9 and 19; ``order`` is the share of neighbouring groups in the right order on that component.
    """
    rng = np.random.default_rng(EVALUATION_SEED)
    chocs = np.array(GROUPS, np.float64)
    sets = (chocs[:, None, None] + GROUP_STD * rng.standard_normal((len(chocs), 1000, 1))).astype(np.float32)
    with torch.no_grad():
        code, _ = model.posterior(torch.from_numpy(sets))
        mean, std = (part.numpy() for part in model.decoded(code))
    centred = code.numpy() - code.numpy().mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    components = centred @ axes.T
    if np.corrcoef(components[:, 0], chocs)[0, 1] < 0:
        components[:, 0] *= -1.0
    groups = {
        f"{choc:g}": {
            "components": components[i].tolist(),
            "mean": float(mean[i, 0]),
            "std": float(std[i, 0]),
            "divergence": divergence_of_normals(choc, GROUP_STD, float(mean[i, 0]), float(std[i, 0])),
        }
        for i, choc in enumerate(chocs)
    }
    first = {choc: float(components[i, 0]) for i, choc in enumerate(chocs)}
    return {
        "groups": groups,
        "correlation": float(np.corrcoef(components[:, 0], chocs)[0, 1]),
        "between": bool(max(first[c] for c in (6.0, 7.0, 8.0, 9.0)) < first[TARGET] < min(first[19.0], first[20.0])),
        "order": float((np.diff(components[:, 0]) > 0).mean()),
    }


def summary(size: Size, results: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the ``lts`` part of the result from the `results` of jobs by name.

    The oracle of ``ratio_oracle`` plans for the very users deployed to; ``ratio_upper_bound`` divides by the same
    learner trained in the target group, seed by seed.
    """
    users = deployed(size)
    planned = plan(users)
    oracle = float(returns_of_plan(users, planned).mean())
    bounds = {seed: results[Job("0", "upper_bound", seed).name]["return"] for seed in seeds} if _has_bound(size) else {}
    out: dict[str, Any] = {}
    for name in size.tasks:
        rows: dict[str, Any] = {"oracle": {"return": oracle, "ratio_oracle": 1.0, "user_steps": 0}}
        if bounds:
            rows["oracle"]["ratio_upper_bound"] = oracle / float(np.mean(list(bounds.values())))
        for method in size.methods + (size.ablations if name == size.tasks[-1] else ()):
            of = "0" if method == "upper_bound" else name
            rows[method] = _row([results[Job(of, method, seed).name] for seed in seeds], oracle, list(bounds.values()))
        out[name] = rows
    return out


def summary_of_shifts(
    size: Size, results: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Return ``[shift][method]`` as in `summary`: trained on users whose kale means are shifted, deployed without."""
    if not size.shifts:
        return {}
    users = deployed(size)
    oracle = float(returns_of_plan(users, plan(users)).mean())
    bounds = [results[Job("0", "upper_bound", seed).name]["return"] for seed in seeds] if _has_bound(size) else []
    return {
        f"{shift:g}": {
            method: _row([results[Job(shifted(size, shift), method, seed).name] for seed in seeds], oracle, bounds)
            for method in SHIFTED
        }
        for shift in size.shifts
    }


def _has_bound(size: Size) -> bool:
    return "upper_bound" in size.methods


def _row(found: Sequence[Mapping[str, Any]], oracle: float, bounds: Sequence[float]) -> dict[str, Any]:
    row: dict[str, Any] = {"user_steps": int(found[0]["user_steps"])}
    # Identification runs on fewer users; its return is put on the scale of all of them by the oracle's on both.
    returns = [one["return"] * oracle / one["oracle"] if "oracle" in one else one["return"] for one in found]
    ratios = {"return": returns, "ratio_oracle": [value / oracle for value in returns]}
    if bounds:
        ratios["ratio_upper_bound"] = [value / bound for value, bound in zip(returns, bounds, strict=True)]
    for key in ("cvar10", "train_return", "train_ratio_oracle", "seconds"):
        if key in found[0]:
            ratios[key] = [one[key] for one in found]
    for key, values in ratios.items():
        row[key], row[f"{key}_ci"] = float(np.mean(values)), interval.of_mean(values)
    if "shares" in found[0]:
        row["worst"], row["worst_share"] = interval.worst_of([one["shares"] for one in found])
    if "curve" in found[0]:
        row["curve"] = _mean_curve([one["curve"] for one in found])
    if "sadae" in found[0]:
        parts = [one["sadae"] for one in found]
        row["sadae"] = parts[0] | {
            "correlation": float(np.mean([part["correlation"] for part in parts])),
            "between": all(part["between"] for part in parts),
            "divergence_target": float(np.mean([part["groups"][f"{TARGET:g}"]["divergence"] for part in parts])),
        }
    return row


def shares_of(earned: Floats, planned: Floats, users: LtsUsers) -> dict[str, float]:
    """Return, per group of `users`, the share `earned` [n] of the optimum `planned` [n] for the very same users."""
    return {
        f"mu {users.choc[own][0]:g}": float(earned[own].mean()) / float(planned[own].mean())
        for own in (users.group == number for number in np.unique(users.group))
    }


def _scores(returns: Floats, user_steps: int) -> dict[str, Any]:
    worst = np.sort(returns)[: max(1, len(returns) // 10)]
    return {"return": float(returns.mean()), "cvar10": float(worst.mean()), "user_steps": user_steps}


def _mean_curve(curves: Iterable[Sequence[Sequence[float]]]) -> list[list[float]]:
    stacked = np.array(list(curves), np.float64)
    return [[int(steps), float(reached)] for steps, reached in stacked.mean(axis=0)]
