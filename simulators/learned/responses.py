"""Models of how a user responds, fitted to logged trajectories: recurrent nets, feed-forward nets, trees.

Each predicts the logarithm of the next reward as a Gaussian, given what it remembers of the user and the action. What
differs between users is nowhere given: it shows in their first rewards, and a model that draws those draws a user.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor, nn
from torch.nn import functional

from simulators.environments.lts.env import Singles
from simulators.learned.logs import Trajectories

DECAYS = np.array([0.0, 0.6, 0.85, 0.95], np.float32)
_USUAL, _FINE = 0.4, 5.0
"""Clickbait enters the nets as its distance from the usual, times this, so that it spreads as much as responses do."""
_BLANK = np.float32(1.5)
"""Logarithm of a usual reward, subtracted everywhere and remembered before the first."""


class Response(Protocol):
    """One simulator."""

    def start(self, users: int) -> Singles:
        """Return memories [n, w] of users nothing is known of."""
        ...

    def predict(self, memory: Singles, clickbait: Singles) -> tuple[Singles, Singles]:
        """Return mean and deviation [n] of the logarithm of the next reward."""
        ...

    def advance(self, memory: Singles, clickbait: Singles, response: Singles) -> Singles:
        """Return memories [n, w] after actions [n] and the logarithms [n] of what came of them."""
        ...


class RecurrentResponse(nn.Module):
    """A GRU over (action, response). The memory is its state, and the last response, action and whether there was one.

    It predicts the change from the last response: most of a response is what the user gave before.
    """

    def __init__(self, hidden: int, seed: int, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.hidden, self.bounds = hidden, bounds
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.memory = nn.GRU(2, hidden, batch_first=True)
            self.cell = nn.GRUCell(2, hidden)
            self.head = nn.Sequential(nn.Linear(hidden + 5, 32), nn.Tanh(), nn.Linear(32, 2))
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):  # one step at a time, with the same weights
            setattr(self.cell, name, getattr(self.memory, f"{name}_l0"))

    def start(self, users: int) -> Singles:
        """Return [n, hidden + 3] zeros."""
        return np.zeros((users, self.hidden + 3), np.float32)

    def predict(self, memory: Singles, clickbait: Singles) -> tuple[Singles, Singles]:
        """See `Response`."""
        with torch.no_grad():
            mean, sd = self._moments(torch.from_numpy(memory), torch.from_numpy(clickbait))
        return np.clip(mean.numpy(), *self.bounds), sd.numpy()

    def advance(self, memory: Singles, clickbait: Singles, response: Singles) -> Singles:
        """See `Response`."""
        seen = np.stack([(clickbait - _USUAL) * _FINE, response - _BLANK], axis=1).astype(np.float32)
        with torch.no_grad():
            state = self.cell(torch.from_numpy(seen), torch.from_numpy(memory[:, : self.hidden])).numpy()
        return np.concatenate([state, seen, np.ones((len(seen), 1), np.float32)], axis=1)

    def loss(self, clickbait: Tensor, response: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of trajectories [n, T], early steps counting for more."""
        seen = torch.stack([(clickbait - _USUAL) * _FINE, response - float(_BLANK)], dim=2)
        found = torch.cat([self.memory(seen)[0], seen, torch.ones_like(seen[..., :1])], dim=2)
        before = torch.cat([torch.zeros_like(found[:, :1]), found[:, :-1]], dim=1)
        weight = 1.0 + 10.0 * torch.exp(-torch.arange(clickbait.shape[1]) / 4.0)
        misfit = _misfit(*self._moments(before, clickbait), response)
        return (misfit * weight).sum(dim=1).mean() / weight.sum()

    def _moments(self, memory: Tensor, clickbait: Tensor) -> tuple[Tensor, Tensor]:
        # Given the change of action outright, the net need not find it out of two numbers.
        action = (clickbait[..., None] - _USUAL) * _FINE
        changed = action - memory[..., self.hidden : self.hidden + 1]
        outputs = self.head(torch.cat([memory, action, changed], dim=-1))
        return _split(outputs, memory[..., self.hidden + 1])


class SummaryResponse:
    """What nets without recurrence and trees share: the memory is moving averages of actions and responses."""

    def start(self, users: int) -> Singles:
        """Return [n, 14]: averages of action and response, two lags of both, the first response, steps counted."""
        k = len(DECAYS)
        memory = np.zeros((users, 2 * k + 6), np.float32)
        memory[:, :k] = memory[:, 2 * k : 2 * k + 2] = _USUAL
        return memory

    def advance(self, memory: Singles, clickbait: Singles, response: Singles) -> Singles:
        """See `Response`."""
        k = len(DECAYS)
        after = memory.copy()
        after[:, :k] = DECAYS * memory[:, :k] + (1.0 - DECAYS) * clickbait[:, None]
        after[:, k : 2 * k] = DECAYS * memory[:, k : 2 * k] + (1.0 - DECAYS) * (response - _BLANK)[:, None]
        # Second and third last: what successive changes are made of, and they tell how fast a user forgets.
        after[:, 2 * k], after[:, 2 * k + 1] = memory[:, 0], memory[:, 2 * k]
        after[:, 2 * k + 2], after[:, 2 * k + 3] = memory[:, k], memory[:, 2 * k + 2]
        first = memory[:, -1] == 0.0
        after[:, -2] = np.where(first, response - _BLANK, memory[:, -2])
        after[:, -1] = np.minimum(memory[:, -1] + 0.05, 1.0)
        return after

    def rows_of(self, log: Trajectories) -> tuple[Singles, Singles]:
        """Return inputs [T n, 15] and responses [T n] of all logged steps, the first step's users first."""
        memory, inputs = self.start(len(log)), []
        clickbait, response = log.clickbait, log.logs
        for time in range(clickbait.shape[1]):
            inputs.append(np.concatenate([memory, clickbait[:, time : time + 1]], axis=1))
            memory = self.advance(memory, clickbait[:, time], response[:, time])
        return np.concatenate(inputs), response.T.ravel()


_LAST = len(DECAYS)
"""Column of the last response in a summary; its decay is 0."""


class PlainResponse(SummaryResponse):
    """A net with one hidden layer of random features and a fitted readout (Rahimi and Recht 2008) on the summary."""

    def __init__(self, log: Trajectories, width: int, seed: int, bounds: tuple[float, float]) -> None:
        inputs, response = self.rows_of(log)
        self._readout = _Readout(_with_change(inputs), response - _BLANK - inputs[:, _LAST], width, seed)
        self._deviation = _Deviation(self._readout, inputs, response, log)
        self.bounds = bounds

    def predict(self, memory: Singles, clickbait: Singles) -> tuple[Singles, Singles]:
        """See `Response`."""
        inputs = _with_change(np.concatenate([memory, clickbait[:, None]], axis=1))
        mean = np.clip(self._readout(inputs) + memory[:, _LAST] + _BLANK, *self.bounds)
        return mean, self._deviation.at(memory[:, -1] == 0.0)


class ReservoirResponse(SummaryResponse):
    """Random leaky recurrent units and a fitted readout: an echo state network (Jaeger 2001), after the summary."""

    def __init__(self, log: Trajectories, units: int, seed: int, bounds: tuple[float, float]) -> None:
        rng = np.random.default_rng(seed)
        self.units, self.bounds = units, bounds
        self._leak = np.exp(rng.uniform(np.log(0.03), 0.0, units)).astype(np.float32)
        self._seen = rng.normal(0.0, 1.0, (2, units)).astype(np.float32)
        mixing = rng.normal(0.0, 1.0, (units, units)) * (rng.random((units, units)) < 0.2)
        self._mixing = (0.8 * mixing / np.abs(np.linalg.eigvals(mixing)).max()).astype(np.float32)
        inputs, response = self.rows_of(log)
        self._readout = _Readout(_with_change(inputs), response - _BLANK - inputs[:, _LAST], 150, seed)
        self._deviation = _Deviation(self._readout, inputs, response, log)

    def start(self, users: int) -> Singles:
        """Return [n, 14 + units]."""
        return np.concatenate([super().start(users)[:, :-1], np.zeros((users, self.units + 1), np.float32)], axis=1)

    def advance(self, memory: Singles, clickbait: Singles, response: Singles) -> Singles:
        """See `Response`."""
        w = 2 * len(DECAYS) + 6
        summary = np.concatenate([memory[:, : w - 1], memory[:, -1:]], axis=1)
        after = super().advance(summary, clickbait, response)
        seen = np.stack([(clickbait - _USUAL) * _FINE, 2.0 * (response - _BLANK)], axis=1).astype(np.float32)
        state = memory[:, w - 1 : -1]
        state = state + self._leak * (np.tanh(seen @ self._seen + state @ self._mixing) - state)
        return np.concatenate([after[:, :-1], state, after[:, -1:]], axis=1)

    def predict(self, memory: Singles, clickbait: Singles) -> tuple[Singles, Singles]:
        """See `Response`."""
        inputs = _with_change(np.concatenate([memory, clickbait[:, None]], axis=1))
        mean = np.clip(self._readout(inputs) + memory[:, _LAST] + _BLANK, *self.bounds)
        return mean, self._deviation.at(memory[:, -1] == 0.0)


class _Readout:
    """Ridge regression on inputs and random features of them."""

    def __init__(self, inputs: Singles, targets: Singles, width: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._mean, self._scale = inputs.mean(axis=0), inputs.std(axis=0) + np.float32(1e-3)
        d = inputs.shape[1]
        self._weights = (rng.normal(0.0, 1.5 / np.sqrt(d), (d, width))).astype(np.float32)
        self._shift = rng.uniform(-1.5, 1.5, width).astype(np.float32)
        features = self._features(inputs)
        gram = features.T @ features + 1e-6 * len(features) * np.eye(features.shape[1], dtype=np.float32)
        self._readout = np.linalg.solve(gram.astype(np.float64), (features.T @ targets).astype(np.float64))
        self._readout = self._readout.astype(np.float32)

    def __call__(self, inputs: Singles) -> Singles:
        return self._features(inputs) @ self._readout

    def _features(self, inputs: Singles) -> Singles:
        scaled = np.clip((inputs - self._mean) / self._scale, -6.0, 6.0)
        hidden = np.tanh(scaled @ self._weights + self._shift)
        return np.concatenate([np.ones((len(inputs), 1), np.float32), scaled, hidden], axis=1)


class _Deviation:
    """Deviation of what a readout leaves over, the first step's apart."""

    def __init__(self, readout: _Readout, inputs: Singles, response: Singles, log: Trajectories) -> None:
        residual = response - _BLANK - inputs[:, _LAST] - readout(_with_change(inputs))
        first = np.arange(len(inputs)) < len(log)
        self._first, self._later = np.float32(residual[first].std()), np.float32(residual[~first].std())

    def at(self, first: NDArray[np.bool_]) -> Singles:
        return np.where(first, self._first, self._later)


class TreeResponse(SummaryResponse):
    """Boosted trees on the summary, one number at a time; deviations from the residuals, the first step's apart."""

    def __init__(self, log: Trajectories, seed: int, bounds: tuple[float, float], *, rows: int = 40_000) -> None:
        self.bounds = bounds
        inputs, response = self.rows_of(log)
        chosen = np.random.default_rng(seed).choice(len(inputs), min(rows, len(inputs)), replace=False)
        chosen = np.union1d(chosen, np.arange(len(log)))  # first steps are few and decide who the user is
        inputs, response = inputs[chosen], response[chosen]
        change = response - _BLANK - inputs[:, _LAST]
        inputs = _with_change(inputs)
        self._model = HistGradientBoostingRegressor(
            max_iter=50,
            learning_rate=0.2,
            max_leaf_nodes=24,
            early_stopping=False,  # pyright: ignore[reportArgumentType] the stub knows "auto" only
            random_state=seed,
        )
        self._model.fit(inputs, change)
        residual = change - self._model.predict(inputs)
        early = inputs[:, 2 * len(DECAYS) + 5] == 0.0
        self._first, self._later = float(residual[early].std()), float(residual[~early].std())

    def predict(self, memory: Singles, clickbait: Singles) -> tuple[Singles, Singles]:
        """See `Response`."""
        inputs = _with_change(np.concatenate([memory, clickbait[:, None]], axis=1))
        change = self._model.predict(inputs).astype(np.float32)
        mean = np.clip(change + memory[:, _LAST] + _BLANK, *self.bounds)
        return mean, np.where(memory[:, -1] == 0.0, self._first, self._later).astype(np.float32)


def _with_change(inputs: Singles) -> Singles:
    """Return inputs and successive differences of actions and responses, which would drown in their levels."""
    k = len(DECAYS)
    actions = [inputs[:, -1], inputs[:, 0], inputs[:, 2 * k], inputs[:, 2 * k + 1]]
    responses = [inputs[:, k], inputs[:, 2 * k + 2], inputs[:, 2 * k + 3]]
    changes = [one - other for row in (actions, responses) for one, other in pairwise(row)]
    return np.concatenate([inputs, np.stack(changes, axis=1)], axis=1)


def fit_recurrent(log: Trajectories, hidden: int, seed: int, *, steps: int, rate: float = 1e-2) -> RecurrentResponse:
    """Return a recurrent model after `steps` gradient steps on 64 whole trajectories each."""
    model = RecurrentResponse(hidden, seed, bounds_of(log))
    clickbait, response = torch.from_numpy(log.clickbait), torch.from_numpy(log.logs)

    def loss(rng: np.random.Generator) -> Tensor:
        rows = torch.from_numpy(rng.integers(0, len(log), 64))
        return model.loss(clickbait[rows], response[rows])

    _descend(model, loss, seed, steps, rate)
    return model


def bounds_of(log: Trajectories) -> tuple[float, float]:
    """Return the least and the greatest logged response: no simulator answers with what was never seen."""
    response = log.logs
    return float(response.min()), float(response.max())


def _descend(
    model: nn.Module, loss_of: Callable[[np.random.Generator], Tensor], seed: int, steps: int, rate: float
) -> None:
    rng, optimizer = np.random.default_rng(seed), torch.optim.Adam(model.parameters(), lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1.0 - 0.97 * step / steps)
        loss = loss_of(rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def _split(outputs: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    change, spread = outputs.unbind(dim=-1)
    return last + 0.3 * change + float(_BLANK), functional.softplus(spread - 2.0) + 2e-3


def _misfit(mean: Tensor, sd: Tensor, response: Tensor) -> Tensor:
    return 0.5 * ((response - mean) / sd).square() + sd.log()
