"""A set of simulators learned from one log: other users (bootstrap), other seeds, other forms of model.

Where the log has support the members agree, having seen the same; where it has none each goes on in its own way. So
their disagreement measures what is not known, and is a penalty on the reward of who goes there (Yu et al. 2020, MOPO;
Sim2Rec's handling of prediction errors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from decision.errors import FieldError
from simulators.learned.responses import (
    PlainResponse,
    ReservoirResponse,
    Response,
    TreeResponse,
    bounds_of,
    fit_recurrent,
)
from simulators.learned.trajectories import Catalogue, Counts, Scale, Singles, Trajectories

KINDS = (("plain", 300), ("reservoir", 100), ("trees", 0), ("gru", 16), ("plain", 200), ("reservoir", 60))
"""Form and width of the members, in the order in which they are taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Simulators to train on, and one that training never sees.

    Attributes:
        members: to train on.
        names: of the members.
        held_out: fitted to users that no member saw; judges policies before they are deployed.
        catalogue: the actions they know.
        scale: of the rewards.
        apart: [m] users of the log that the held-out one is fitted to.
    """

    members: Sequence[Response]
    names: Sequence[str]
    held_out: Response
    catalogue: Catalogue
    scale: Scale
    apart: Counts

    def keep(self, passed: Sequence[bool]) -> Ensemble:
        """Return the ensemble of the members that `passed`; all of them when none did."""
        if not any(passed):
            return self
        rows = [i for i, ok in enumerate(passed) if ok]
        return replace(self, members=[self.members[i] for i in rows], names=[self.names[i] for i in rows])


def fit_ensemble(log: Trajectories, seed: int, *, members: int = 4, steps: int = 250) -> Ensemble:
    """Fit an ensemble.

    Args:
        log: at least 20 users; a quarter of them goes to the held-out simulator.
        seed: of bootstrap, weights and batches.
        members: 2 to 6.
        steps: gradient steps of the recurrent net.

    Raises:
        FieldError: too few users, or members out of range.
    """
    if len(log) < 20:
        raise FieldError("log", wanted="20 users or more", got=len(log))
    if not 2 <= members <= len(KINDS):
        raise FieldError("members", wanted=f"2 to {len(KINDS)}", got=members)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(log))
    apart, rest = order[: len(log) // 4], order[len(log) // 4 :]
    fitted: list[Response] = []
    for number, (kind, width) in enumerate(KINDS[:members]):
        drawn = log.take(rng.choice(rest, len(rest)))
        fitted.append(_fit(kind, width, drawn, 1000 * seed + number, steps, bounds_of(log)))
    held_out = ReservoirResponse(log.take(apart), 120, 1000 * seed + 999, bounds_of(log))
    names = [f"{kind}{width or ''}" for kind, width in KINDS[:members]]
    return Ensemble(fitted, names, held_out, log.catalogue, log.scale, apart)


def _fit(kind: str, width: int, log: Trajectories, seed: int, steps: int, bounds: tuple[float, float]) -> Response:
    if kind == "gru":
        return fit_recurrent(log, width, seed, steps=steps, bounds=bounds)
    if kind == "plain":
        return PlainResponse(log, width, seed, bounds)
    if kind == "reservoir":
        return ReservoirResponse(log, width, seed, bounds)
    return TreeResponse(log, seed, bounds)


def errors_of(model: Response, log: Trajectories) -> Singles:
    """Return [T] the root mean square error of one-step predictions of the reward, by step; NaN where nobody was."""
    memory, out = model.start(len(log)), []
    shown, response = log.shown, log.responses
    for time in range(log.steps):
        mean, _ = model.predict(memory, shown[:, time])
        missed = (log.scale.reward(mean) - log.rewards[:, time])[log.inside[:, time]]
        out.append(np.sqrt(np.square(missed).mean()) if missed.size else np.nan)
        memory = model.advance(memory, shown[:, time], response[:, time])
    return np.array(out, np.float32)


def error_of(model: Response, log: Trajectories) -> float:
    """Return the root mean square error of one-step predictions of the reward, over all decisions of `log`."""
    count = log.inside.sum(axis=0)
    some = count > 0
    return float(np.sqrt(np.average(np.square(errors_of(model, log)[some]), weights=count[some])))


def residual_of(ensemble: Ensemble, log: Trajectories) -> float:
    """Return the least one-step error of a member, for users it has not seen, over the deviation of their rewards."""
    apart = log.take(ensemble.apart)
    spread = float(apart.rewards[apart.inside].std()) or 1.0
    return min(error_of(member, apart) for member in ensemble.members) / spread
