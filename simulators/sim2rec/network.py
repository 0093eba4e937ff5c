"""The context-aware policy: a recurrent extractor of the environment's parameters, and a head on what it found.

Sim2Rec (Chen et al. 2023): z_t = phi(s_t, a_{t-1}, v_t, z_{t-1}), a_t ~ pi(a | s_t, z_t), v_t being the group's
embedding. The extractor is a GRU; without memory the same head sees the inputs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decision.errors import FieldError
from simulators.sim2rec.recurrence import SLOPE, Stepper, through_time

HIDDEN, HEAD = 48, 64


class ContextPolicy(nn.Module):
    """Inputs of a user over time -> numbers per step (a logit, a mean, values: the learner decides).

    Attributes:
        inputs: numbers per step.
        outputs: numbers returned per step.
        hidden: length of a user's state; 0 without memory.
        remembered: of the inputs, how many from the first on enter the state; the head sees all.
    """

    def __init__(
        self, inputs: int, outputs: int = 1, *, hidden: int = HIDDEN, seed: int = 0, remembered: int | None = None
    ) -> None:
        """Set up untrained; `hidden` 0 makes a policy without memory, `remembered` None has all inputs remembered."""
        super().__init__()
        self.remembered = inputs if remembered is None else remembered
        if inputs < 1 or outputs < 1 or hidden < 0:
            raise FieldError("inputs", wanted="1 input, 1 output or more", got=(inputs, outputs, hidden))
        self.inputs, self.outputs, self.hidden = inputs, outputs, hidden
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.extractor = nn.GRU(inputs, hidden, batch_first=True) if hidden else None
            self.head = nn.Sequential(nn.Linear(inputs + hidden, HEAD), nn.LeakyReLU(SLOPE), nn.Linear(HEAD, outputs))
        if self.extractor is not None:
            with torch.no_grad():  # they stay 0: no gradient reaches them
                next(self.extractor.parameters())[:, self.remembered :] = 0.0

    def start(self, users: int) -> Tensor:
        """Return the state [n, h] of users nothing is known of."""
        return torch.zeros(users, self.hidden)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return outputs [n, T, o] for `inputs` [n, T, f], and the state [n, h] after them; `state` None starts."""
        if self.extractor is None:
            return self.head(inputs), inputs.new_zeros(len(inputs), 0)
        first = self.start(len(inputs)) if state is None else state
        if torch.is_grad_enabled():
            weights: list[Tensor] = [*self.extractor.parameters()]
            if self.remembered < self.inputs:
                weights[0] = weights[0] * (torch.arange(self.inputs) < self.remembered)
            return through_time(inputs, first, weights, [*self.head.parameters()])
        found, last = self.extractor(inputs, first[None])
        return self.head(torch.cat([inputs, found], dim=-1)), last[0]

    def stepper(self, users: int) -> Callable[[Tensor], Tensor]:
        """Return what makes outputs [n, o] of each step's inputs [n, f] in turn, for `users` nothing is known of."""
        if self.extractor is None:
            return self.head
        return Stepper([*self.extractor.parameters()], [*self.head.parameters()], users)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs [n, o] and next state [n, h] for one step's `inputs` [n, f]."""
        outputs, state = self(inputs[:, None], state)
        return outputs[:, 0], state


def arrays_of(module: nn.Module) -> dict[str, np.ndarray]:
    """Return the parameters and buffers of `module` by name."""
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def load_arrays(module: nn.Module, arrays: Mapping[str, Any]) -> None:
    """Set the parameters of `module`.

    Raises:
        FieldError: names or shapes are not those of `module`.
    """
    wanted = module.state_dict()
    if set(arrays) != set(wanted):
        raise FieldError("arrays", wanted=f"{sorted(wanted)}", got=sorted(arrays))
    for name, value in wanted.items():
        if arrays[name].shape != tuple(value.shape):
            raise FieldError(f"arrays.{name}", wanted=f"shape {tuple(value.shape)}", got=arrays[name].shape)
    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
