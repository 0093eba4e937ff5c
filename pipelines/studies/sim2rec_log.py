"""The study of Sim2Rec on a loop's own log: what the simulators learned from it know, and where not to believe them.

The simulators are those that a training with the same seed learns. They are judged by the users that no training sees,
whom the loop holds out: one decision ahead, many ahead, action by action.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch

from decision.errors import FieldError, SupportError
from decision.ope.diagnostics.untried import SHOWN
from pipelines.lake.lake import Lake
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings
from pipelines.studies.jobs import Progress
from pipelines.studies.report import Findings
from pipelines.studies.sim2rec_log_tables import HELD_OUT, figures, sheets
from pipelines.training.promises import promises
from pipelines.training.session_log import log_of
from pipelines.training.sessions import FEWEST, FIT_STEPS, plan_of
from simulators.learned.ensembles import Ensemble, fit_ensemble
from simulators.learned.interventions import PASS, trend_of
from simulators.learned.knowledge import Ahead, Known, ahead, disagreement, horizons_of, known, last_error
from simulators.learned.trajectories import Trajectories
from simulators.offline.weights import TRUSTED, share_of_users
from simulators.trainers.contract import MOST_ACTIONS, executed_in
from simulators.trainers.sim2rec import WORST, passing

ABOUT = (
    "Simulators learned from the log of loop {}, judged by users that none of them has seen: how large their errors "
    "are, whether they know that, how far ahead they hold, and for which actions."
)
APART = 20
"""Users held out without whom nothing is judged."""
_SURE = 1.5
"""Squared errors so many times as large as stated: a simulator that is too sure."""
_TWICE = 2.0


def of_log(
    lake: Lake, registry: Registry, loop: LoopSettings, seed: int, *, quick: bool, progress: Progress
) -> Findings:
    """Learn the simulators of a loop and judge them.

    Args:
        lake: the tables.
        registry: the versions, whose promises are shown beside what came true.
        loop: the loop; its ``session`` and ``training`` settings are those of its trainings.
        seed: of the simulators, as a training's.
        quick: a third of the gradient steps.
        progress: called with what is running and the share done.

    Raises:
        SupportError: there are too few users.
    """
    rules, version = loop.session, lake.version("interactions")
    learned = log_of(lake, loop, version)
    if len(learned) < FEWEST:
        raise SupportError(f"loop {loop.name} has the trajectories of {len(learned)} users, {FEWEST} are needed")
    apart = log_of(lake, loop, version, apart_from=learned)
    if len(apart) < APART:
        raise SupportError(f"loop {loop.name} holds out {len(apart)} users, {APART} are needed to judge by")
    progress("trajectories read", 0.1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as a training, whose simulators these are
    try:
        steps = max(1, round(FIT_STEPS * rules.effort * (0.3 if quick else 1.0)))
        simulators = fit_ensemble(learned, seed, members=rules.members, steps=steps)
        progress("simulators learned", 0.6)
        result = {
            "loop": loop.name,
            "table_version": version,
            "seeds": [seed],
            "log": _log(learned, apart),
            **_judged(simulators, learned, apart, loop, seed),
        }
    finally:
        torch.set_num_threads(before)
    progress("simulators judged", 0.9)
    versions = registry.versions(loop.name)
    kept = promises(lake, loop.name, versions, registry.verdicts(loop.name), table_version=version)
    result["versions"] = msgspec.to_builtins(kept)
    result["doubts"] = doubts(result)
    progress("versions compared", 1.0)
    return Findings("sim2rec-log", ABOUT.format(loop.name), result, sheets(result), figures(result))


def _log(learned: Trajectories, apart: Trajectories) -> dict[str, Any]:
    rewards = apart.rewards[apart.inside].astype(np.float64)
    found: dict[str, Any] = {
        "users": len(learned),
        "users_apart": len(apart),
        "decisions": int(learned.inside.sum()),
        "mean_reward": float(rewards.mean()),
        "deviation": float(rewards.std()),
        "last_error": last_error(apart),
        "share_of_users": share_of_users(learned),
    }
    if learned.pmf is not None:
        pmf = learned.pmf[learned.inside].astype(np.float64)
        entropy = -(pmf * np.log(np.where(pmf > 0.0, pmf, 1.0))).sum(axis=1)
        found["effective_actions"] = float(np.exp(entropy).mean())
    return found


def _judged(
    simulators: Ensemble, learned: Trajectories, apart: Trajectories, loop: LoopSettings, seed: int
) -> dict[str, Any]:
    before, horizons = horizons_of(apart)
    plan = plan_of(loop.session)
    kept = passing(simulators, learned, plan)
    models = dict(zip(_unique(simulators.names), simulators.members, strict=True)) | {HELD_OUT: simulators.held_out}
    found = {name: known(model, apart) for name, model in models.items()}
    later = {name: ahead(model, apart, seed, before, horizons) for name, model in models.items()}
    first = learned.catalogue.features[learned.executed, 0]
    low, high = int(learned.executed[first.argmin()]), int(learned.executed[first.argmax()])
    members: dict[str, Any] = {}
    for name, ok in zip(models, [*kept, True], strict=True):
        members[name] = _plain(found[name], later[name]) | {"kept": ok, "gap": _told(found[name].mean_gap(apart))}
        if plan.trend != "none":
            trend = trend_of(models[name], learned, low, high, after=min(30, learned.steps // 4))
            members[name] |= {"at_once": trend.at_once, "worn": trend.worn}
    count = np.bincount(learned.actions[learned.inside], minlength=len(learned.catalogue))
    most = np.sort(np.argsort(-count, kind="stable")[:MOST_ACTIONS])
    apart_on = {
        steps: disagreement(simulators.members, apart, most, before, steps) for steps in (1, min(25, horizons[-1]))
    }
    once, held = apart_on.values()
    judged = [each for name, each in found.items() if name != HELD_OUT]
    least = np.min([each.by_action[most] for each in judged], axis=0)
    gap = np.min([each.gap[most] for each in judged], axis=0)
    share, executed = count / count.sum(), set(executed_in(learned).tolist())
    actions = [
        {
            "id": learned.catalogue.ids[code],
            "share": float(share[code]),
            "executed": code in executed,
            "error": _told(least[place]),
            "gap": _told(gap[place]),
            "disagreement": float(once[place]),
            "disagreement_held": float(held[place]),
        }
        for place, code in enumerate(most.tolist())
    ]
    return {"members": members, "followed": before, "horizons": list(horizons), "held": max(apart_on)} | {
        "actions": actions,
        "actions_offered": len(count),
    }


def _told(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _plain(one: Known, later: list[Ahead]) -> dict[str, Any]:
    return {
        "error": one.error,
        "explained": one.explained,
        "surprise": one.surprise,
        "within_90": one.within,
        "ahead": {str(each.steps): {"off": each.off, "off_ci": [each.low, each.high]} for each in later},
        "logged": {str(each.steps): each.logged for each in later},
    }


def _unique(names: Any) -> list[str]:
    return [f"{number + 1} {name}" for number, name in enumerate(names)]


def trained_in(result: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a result that a student is taught in."""
    return {name: row for name, row in result["members"].items() if row["kept"] and name != HELD_OUT}


def doubts(result: dict[str, Any]) -> list[str]:
    """Return where the simulators must not be believed, in sentences; empty when nothing speaks against them."""
    out: list[str] = []
    log, members, taught = result["log"], result["members"], trained_in(result)
    for name, row in members.items():
        if name not in taught and name != HELD_OUT:
            out.append(f"simulator {name} is left out: {_why(row, members)}")
        elif row["explained"] <= 0.0 or not row["error"] < log["last_error"]:
            last = f"the user's last reward again, {log['last_error']:.4g}, or their mean, {log['deviation']:.4g}"
            out.append(
                f"simulator {name} knows nothing of the next reward: its error {row['error']:.4g} is that of {last}"
            )
        if row["surprise"] > _SURE:
            out.append(f"simulator {name} is too sure: squared errors are {row['surprise']:.1f} times what it states")
    unknown = [row for row in result["actions"] if not row["executed"]]
    shown = [row["disagreement_held"] for row in result["actions"] if row["executed"]]
    if unknown:
        names = ", ".join(row["id"] for row in unknown[:10]) + (" and others" if len(unknown) > 10 else "")
        apart = float(np.mean([row["disagreement_held"] for row in unknown])) / (float(np.mean(shown)) or np.nan)
        out.append(
            f"{len(unknown)} actions were shown in fewer than 1 of {1 / SHOWN:.0f} decisions, and nothing is known of "
            f"them: {names}; held for {result['held']} decisions, simulators are {apart:.1f} times as far apart there"
        )
    far = [
        row["id"]
        for row in result["actions"]
        if row["executed"] and row["disagreement_held"] > _TWICE * np.median(shown)
    ]
    if far:
        out.append(f"simulators are more than twice as far apart as usual on {', '.join(far[:10])}")
    out += [text for name in (*taught, HELD_OUT) if (text := _off(name, members[name]))]
    if log["share_of_users"] > TRUSTED:
        out.append(
            f"who a user is explains {log['share_of_users']:.0%} of what he brings: returns of single users say little "
            "of a policy"
        )
    for one in result["versions"]:
        if one["gained"] is not None and one["gain"] is not None:
            said = f"{one['gain']:+.4g} over the log was promised of version {one['version']}"
            out.append(f"{said}, {one['gained']:+.4g} over others in the same hours came true")
    return out


def _why(row: dict[str, Any], members: dict[str, Any]) -> str:
    if row.get("at_once", 1.0) < PASS or row.get("worn", 1.0) < PASS:
        return "it contradicts the loop's trend"
    best = min(each["error"] for name, each in members.items() if name != HELD_OUT)
    return f"its error is {row['error'] / best:.1f} times the best one's here, beyond {WORST} times where it was chosen"


def _off(name: str, row: dict[str, Any]) -> str:
    """Return how far ahead a simulator is off on the logged actions, in a sentence; "" where it is not."""
    far = [steps for steps, each in row["ahead"].items() if not each["off_ci"][0] <= 0.0 <= each["off_ci"][1]]
    if not far:
        return ""
    last = far[-1]
    low, high = row["ahead"][last]["off_ci"]
    logged = row["logged"][last]
    share = f", {abs(row['ahead'][last]['off'] / logged):.1%} of what they bring" if logged else ""
    said = f"{row['ahead'][last]['off']:+.4g} per decision ({low:+.4g} to {high:+.4g}){share}"
    return f"simulator {name} is off on the logged actions over {', '.join(far)} decisions; over {last} by {said}"


def checked_seed(asked: list[int] | None) -> int:
    """Return the one seed of a study of a log, a training's default when none is asked for.

    Raises:
        FieldError: there are several.
    """
    if asked is not None and len(asked) != 1:
        raise FieldError("seeds", wanted="one seed for a loop's log, that of a training", got=asked)
    return 1 if asked is None else asked[0]
