"""The state-action distributional autoencoder (SADAE): what a whole group of users looks like, as one short vector.

Sim2Rec (Chen et al. 2023, arXiv 2305.04832): the input is the SET of its users' states and actions at one time. Every
element votes with a Gaussian, the posterior is their product, so that neither order nor number matters and certainty
grows with the number:

    1 / var = sum_i 1 / sd_i^2,    loc = var sum_i m_i / sd_i^2

and the objective is the evidence bound E_q[mean_i log p(s_i | v) + log p(a_i | s_i, v)] - KL(q(v | X) || N(0, I)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from decision.errors import FieldError
from simulators.environments.lts.env import Counts, Singles

LATENT, HIDDEN = 5, 64
PENALTY = 0.1
_TINY = 1e-6


class Sadae(nn.Module):
    """Encoder and decoder of sets.

    Attributes:
        states: numbers in an element's state.
        actions: numbers in its action; 0 models states alone.
        latent: length of the embedding.
    """

    def __init__(
        self,
        location: Singles,
        scale: Singles,
        *,
        actions: int = 0,
        latent: int = LATENT,
        hidden: int = HIDDEN,
        seed: int = 0,
    ) -> None:
        """Set up untrained.

        Args:
            location: [d] subtracted from every element; states first, then actions.
            scale: [d] every element is divided by, above 0.
            actions: how many of the d belong to the action.
            latent: length of the embedding.
            hidden: width of the two hidden layers.
            seed: of the weights.

        Raises:
            FieldError: shapes differ, a scale is not above 0, or nothing is left for the state.
        """
        super().__init__()
        d = len(location)
        if scale.shape != (d,) or not (scale > 0.0).all():
            raise FieldError("scale", wanted=f"{d} numbers above 0", got=scale)
        if not 0 <= actions < d:
            raise FieldError("actions", wanted=f"0 to {d - 1}", got=actions)
        self.states, self.actions, self.latent = d - actions, actions, latent
        self.location: Tensor
        self.scale: Tensor
        self.register_buffer("location", torch.as_tensor(np.asarray(location, np.float32)))
        self.register_buffer("scale", torch.as_tensor(np.asarray(scale, np.float32)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = _Bent(d, hidden, 2 * latent)
            self.state_decoder = _Bent(latent, hidden, 2 * self.states)
            self.action_decoder = _Bent(latent + self.states, hidden, 2 * actions) if actions else None

    def posterior(self, sets: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation [g, z] of the embedding of `sets` [g, n, d]."""
        voted, spread = self.encoder((sets - self.location) / self.scale).chunk(2, dim=-1)
        precision = 1.0 / (functional.softplus(spread).square() + _TINY)
        variance = 1.0 / precision.sum(dim=-2)
        return variance * (precision * voted).sum(dim=-2), variance.sqrt()

    def decoded(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation [..., s] of the states of groups embedded as `v` [..., z]."""
        centre, spread = self.state_decoder(v).chunk(2, dim=-1)
        location, scale = self.location[: self.states], self.scale[: self.states]
        return centre * scale + location, (functional.softplus(spread) + 1e-3) * scale

    def action_given(self, v: Tensor, states: Tensor) -> Tensor:
        """Return [n, a] the mean action of elements in `states` [n, s], in groups embedded as `v` [n, z]."""
        if self.action_decoder is None:
            raise FieldError("actions", wanted="1 or more", got=0)
        scaled = (states - self.location[: self.states]) / self.scale[: self.states]
        centre, _ = self.action_decoder(torch.cat([v, scaled], dim=-1)).chunk(2, dim=-1)
        return centre * self.scale[self.states :] + self.location[self.states :]

    def bound(self, sets: Tensor, noise: Tensor) -> Tensor:
        """Return the evidence bound per set [g], up to a constant; `noise` [g, z] is standard normal."""
        mean, sd = self.posterior(sets)
        v = (mean + sd * noise)[:, None, :].expand(-1, sets.shape[1], -1)
        scaled = (sets - self.location) / self.scale
        states = scaled[..., : self.states]
        likelihood = _log_density(states, self.state_decoder(v))
        if self.action_decoder is not None:
            given = self.action_decoder(torch.cat([v, states], dim=-1))
            likelihood = likelihood + _log_density(scaled[..., self.states :], given)
        divergence = 0.5 * (mean.square() + sd.square() - 1.0 - 2.0 * sd.log()).sum(dim=-1)
        # The set's log-likelihood is a mean, so its divergence is divided likewise, or it would be ignored.
        return likelihood.mean(dim=-1) - divergence / sets.shape[1]

    def embed(self, elements: Singles, group: Counts) -> Singles:
        """Return [n, z]: for each element ([n, d]) the posterior mean of its group's set; groups are 0..g-1."""
        with torch.no_grad():
            voted, spread = self.encoder((torch.from_numpy(elements) - self.location) / self.scale).chunk(2, dim=-1)
            precision = 1.0 / (functional.softplus(spread).square() + _TINY)
            index, groups = torch.from_numpy(group), int(group.max()) + 1
            total = torch.zeros(groups, self.latent).index_add_(0, index, precision)
            weighted = torch.zeros(groups, self.latent).index_add_(0, index, precision * voted)
            return (weighted / total)[index].numpy()


@dataclass(frozen=True, slots=True)
class Fit:
    """How training went.

    Attributes:
        steps: gradient steps taken.
        bound: evidence bound per element at each tenth of the run.
    """

    steps: int
    bound: list[float]


def fit(
    model: Sadae,
    draw: Callable[[np.random.Generator], Singles],
    seed: int,
    *,
    steps: int = 500,
    rate: float = 5e-3,
    penalty: float = PENALTY,
) -> Fit:
    """Train `model` on sets that `draw` returns.

    Args:
        model: changed in place.
        draw: returns fresh sets [g, n, d] of training groups.
        seed: of the sets and the codes.
        steps: gradient steps, one batch of sets each, 10 or more.
        rate: learning rate, falling to a twentieth.
        penalty: of the squared weights that bend the maps, halved; the authors penalise theirs too.
    """
    if steps < 10:
        raise FieldError("steps", wanted="10 or more", got=steps)
    rng, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    bends = [weight for name, weight in model.named_parameters() if "bend" in name and weight.ndim == 2]
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    curve: list[float] = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1.0 - 0.95 * step / steps)
        sets = torch.from_numpy(draw(rng))
        bound = model.bound(sets, torch.randn(len(sets), model.latent, generator=noise)).mean()
        optimizer.zero_grad()
        size = torch.stack([weight.square().sum() for weight in bends]).sum()
        (-bound + penalty / 2.0 * size).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % (steps // 10) == 0:
            curve.append(float(bound.detach()))
    return Fit(steps, curve)


def divergence_of_normals(mean: float, std: float, other_mean: float, other_std: float) -> float:
    """Return KL(N(mean, std) || N(other_mean, other_std)), by which reconstructions of one number are judged."""
    return float(math.log(other_std / std) + (std**2 + (mean - other_mean) ** 2) / (2.0 * other_std**2) - 0.5)


class _Bent(nn.Module):
    """A linear map and what two hidden layers add to it; only the addition is kept small by `fit`.

    Between training groups nothing but the form of the net decides what an unseen group is taken for. With the weights
    of plain layers the code bends there; a penalised bend leaves a straight line where the data do not ask for more.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.straight = nn.Linear(inputs, outputs)
        self.bend = nn.Sequential(
            nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, outputs)
        )

    def forward(self, values: Tensor) -> Tensor:
        return self.straight(values) + self.bend(values)


def _log_density(values: Tensor, parameters: Tensor) -> Tensor:
    centre, spread = parameters.chunk(2, dim=-1)
    sd = functional.softplus(spread) + 1e-3
    return (-0.5 * ((values - centre) / sd).square() - sd.log() - 0.5 * math.log(2.0 * math.pi)).sum(dim=-1)
