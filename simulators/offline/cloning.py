"""A policy with memory cloned from logged trajectories, better decisions counting for more, or led by a critic.

    cloned:     minimise - sum_t min(exp(beta A_t / sd), 100) log pi(a_t | h_t)
    followed:   minimise - sum_t sum_a w_t(a) log pi(a | h_t),    w_t(a) ~ p(a | h_t) exp(beta A(s_t, a) / sd)

over the decisions of the trajectories. The first is advantage-weighted regression (Peng et al. 2019; the extraction of
implicit Q-learning); A_t is the critic's advantage of what was logged, sd the deviation of those, and beta 0 makes a
plain clone. The second asks the critic about every action that was offered; p is a plain clone, sd the deviation of all
these advantages, and w the best policy at a given divergence from p (Abdolmaleki et al. 2018, MPO, the E-step). Where a
log is mostly of bad decisions, few logged ones weigh anything, and none says what would have been better.

The memory of h_t is set (`simulators.offline.memory`), and what is learned is the head on it: a recurrent net that
learned both from forty trajectories knew them by heart and nobody else. The head is a softmax over the actions of the
log, which is the form that is served: its propensities are exact. Actions that were not offered at a step have no part
in its loss. Those that were offered and that the version in charge never draws have one, or its trajectories would say
nothing against them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from decision.batch import Floats
from decision.errors import FieldError
from simulators.learned.groups import GroupView
from simulators.learned.trajectories import Counts, Singles, Trajectories
from simulators.offline.critic import Critic
from simulators.offline.memory import set_memory
from simulators.sim2rec.network import ContextPolicy

_LARGEST = 100.0
_NEVER = -1e9
_LEAST_SPREAD = 0.03
_AT_ONCE = 256
"""Trajectories whose memories are made at a time."""
_ROWS, _MOST = 65_536, 1 << 25
"""Decisions of which a critic is asked at once, and the most numbers that are kept of what it leads to."""


@dataclass(frozen=True, slots=True)
class CloneRecipe:
    """How a policy is cloned.

    Attributes:
        steps: gradient steps.
        batch: decisions in each.
        rate: learning rate at the start; falls to 3%.
        beta: how much better actions count, per standard deviation of the advantages; 0 clones all alike.
    """

    steps: int = 1_500
    batch: int = 256
    rate: float = 2e-3
    beta: float = 3.0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.beta < 0.0:
            raise FieldError("clone", wanted="steps and a batch, beta of 0 or more", got=self)


def cloned(
    log: Trajectories,
    view: GroupView,
    offered: Counts,
    advantages: Singles,
    weights: Floats,
    recipe: CloneRecipe,
    seed: int,
) -> ContextPolicy:
    """Return a policy of one logit per action offered.

    Args:
        log: the trajectories.
        view: what the policy sees.
        offered: [k] codes of the actions in the log, ascending.
        advantages: [n, T] of what was logged.
        weights: [n] probabilities of drawing the decisions of each trajectory.
        recipe: how much is learned.
        seed: of the memory, weights and batches.

    Raises:
        FieldError: no decision of the trajectories that count is about an action in `offered`.
    """
    lessons = _lessons_of(log, view, offered, weights, recipe, seed)
    spread = float(advantages[log.inside].std()) or 1.0
    counts = np.minimum(np.exp(recipe.beta * advantages.ravel()[lessons.places] / spread), _LARGEST)
    return lessons.taught(lessons.logged, torch.from_numpy((counts / counts.max()).astype(np.float32)))


def followed(
    log: Trajectories, view: GroupView, offered: Counts, critic: Critic, weights: Floats, recipe: CloneRecipe, seed: int
) -> ContextPolicy:
    """Return the policy that follows `critic`, of `log` and `offered`, from a plain clone; see `cloned`."""
    lessons = _lessons_of(log, view, offered, weights, recipe, seed)
    alike, asked = torch.ones(len(lessons.places)), torch.from_numpy(lessons.places)
    plain = lessons.taught(lessons.logged, alike, served=False)

    def led(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return tilted(lessons.logits(plain, rows), critic.advantages(asked[rows]), recipe.beta)

    if len(alike) * len(offered) > _MOST:
        return lessons.taught(led, alike)
    every = torch.cat([led(rows) for rows in torch.arange(len(alike)).split(_ROWS)])  # each is drawn several times
    return lessons.taught(lambda rows: every[rows], alike)


def tilted(logits: Tensor, advantages: Tensor, beta: float) -> Tensor:
    """Return [m, k] p exp(beta A), made to sum to 1, for the `logits` [m, k] of p and `advantages` [m, k]."""
    return torch.softmax(logits + beta * advantages, dim=1)


@dataclass(frozen=True, slots=True)
class _Lessons:
    """What heads are taught on.

    Attributes:
        blank: makes a policy that has learned nothing.
        recipe: how much is learned.
        places: [m] of n T, the decisions that are drawn.
        batches: [steps, batch] which of them.
        seen: [m, f + h] what a head sees there, by `centre` and `scale`.
        centre: [f + h] means.
        scale: [f + h] deviations.
        chosen: [m] what was logged.
        closed: [m, k] what was not offered; None where all was.
    """

    blank: Callable[[], ContextPolicy]
    recipe: CloneRecipe
    places: Counts
    batches: Tensor
    seen: Tensor
    centre: Tensor
    scale: Tensor
    chosen: Tensor
    closed: Tensor | None

    def logged(self, rows: Tensor) -> Tensor:
        """Return what was logged."""
        return self.chosen[rows]

    def logits(self, policy: ContextPolicy, rows: Tensor) -> Tensor:
        """Return [b, k] what a head makes of `rows`; it has not been put in its own units."""
        logits = policy.head(self.seen[rows])
        return logits if self.closed is None else logits.masked_fill(self.closed[rows], _NEVER)

    def taught(self, wanted: Callable[[Tensor], Tensor], counts: Tensor, *, served: bool = True) -> ContextPolicy:
        """Return a policy.

        Args:
            wanted: actions [b], or probabilities [b, k], at rows [b].
            counts: [m] how much each decision does.
            served: whether its head takes what it sees as it is, and not by centre and scale.
        """
        policy, recipe = self.blank(), self.recipe
        optimizer = torch.optim.Adam(policy.head.parameters(), lr=recipe.rate, fused=True)
        for step, rows in enumerate(self.batches):
            optimizer.param_groups[0]["lr"] = recipe.rate * (1.0 - 0.97 * step / recipe.steps)
            missed = functional.cross_entropy(self.logits(policy, rows), wanted(rows), reduction="none")
            loss = (missed * counts[rows]).sum() / counts[rows].sum().clamp(min=1e-6)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if served:
            _in_own_units(policy.head, self.centre, self.scale)
        return policy


def _lessons_of(
    log: Trajectories, view: GroupView, offered: Counts, weights: Floats, recipe: CloneRecipe, seed: int
) -> _Lessons:
    """Return what `cloned` is taught on, of which its arguments and errors are."""

    def blank() -> ContextPolicy:
        policy = ContextPolicy(view.width, len(offered), hidden=48, seed=seed, remembered=view.remembered)
        set_memory(policy, view.features, seed)
        return policy

    rng = np.random.default_rng(seed)
    known = log.inside & np.isin(log.actions, offered)
    chances = np.cumsum((weights[:, None] * known).ravel())
    if chances[-1] <= 0.0:
        raise FieldError("log", wanted="decisions about actions that may be shown", got="none in what is imitated")
    draws = np.searchsorted(chances, rng.random((recipe.steps, recipe.batch)) * chances[-1], side="right")
    places, batches = np.unique(np.minimum(draws, np.flatnonzero(known)[-1]), return_inverse=True)
    seen = _seen(cast("nn.GRU", blank().extractor), inputs_of(log, view), places)
    centre, scale = seen.mean(dim=0), seen.std(dim=0, correction=0).clamp(min=_LEAST_SPREAD)
    closed = None
    if log.offered is not None:
        closed = torch.from_numpy(~log.offered.reshape(-1, len(log.catalogue))[places][:, offered])
    return _Lessons(
        blank=blank,
        recipe=recipe,
        places=places,
        batches=torch.from_numpy(batches.reshape(draws.shape)),
        seen=(seen - centre) / scale,
        centre=centre,
        scale=scale,
        chosen=torch.from_numpy(codes_in(offered, log.actions).ravel()[places]),
        closed=closed,
    )


def _seen(extractor: nn.GRU, inputs: Singles, places: Counts) -> Tensor:
    """Return [m, f + h] what the head sees at `places` (ascending, of n T) of `inputs` [n, T, f]."""
    n, steps, _ = inputs.shape
    found = list[Tensor]()
    for first in range(0, n, _AT_ONCE):
        rows = torch.from_numpy(inputs[first : first + _AT_ONCE])
        with torch.no_grad():
            both = torch.cat([rows, extractor(rows)[0]], dim=-1).flatten(0, 1)
        low, high = np.searchsorted(places, [first * steps, (first + _AT_ONCE) * steps])
        found.append(both[torch.from_numpy(places[low:high] - first * steps)])
    return torch.cat(found)


def _in_own_units(head: nn.Sequential, centre: Tensor, scale: Tensor) -> None:
    """Have a `head` that was taught on (x - centre) / scale take x itself."""
    weight, bias, *_ = head.parameters()
    with torch.no_grad():
        weight.div_(scale)
        bias.sub_(weight @ centre)


def codes_in(offered: Counts, actions: Counts) -> Counts:
    """Return the places of `actions` among those `offered`; any place for one that is not."""
    return np.minimum(np.searchsorted(offered, actions), len(offered) - 1)


def inputs_of(log: Trajectories, view: GroupView) -> Singles:
    """Return [n, T, width] what the policy sees before each logged step."""
    response, shown = log.responses, log.shown
    seen = [
        view.inputs(response[:, max(time - 1, 0)], shown[:, max(time - 1, 0)], log.group_codes, first=time == 0)
        for time in range(log.steps)
    ]
    return np.stack(seen, axis=1)
