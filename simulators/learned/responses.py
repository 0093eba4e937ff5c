"""Models of how a user responds, fitted to logged trajectories: recurrent nets, feed-forward nets, trees.

Each predicts the next response (`simulators.learned.trajectories.Scale`) as a Gaussian, given what it remembers of the
user and the action's features. What differs between users is nowhere given: it shows in their first responses, and a
model that draws those draws a user.
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

from simulators.learned.trajectories import Singles, Trajectories

DECAYS = np.array([0.0, 0.6, 0.85, 0.95], np.float32)
_LEAST_SD = 1e-4


class Response(Protocol):
    """One simulator."""

    def start(self, users: int) -> Singles:
        """Return memories [n, w] of users nothing is known of."""
        ...

    def predict(self, memory: Singles, shown: Singles) -> tuple[Singles, Singles]:
        """Return mean and deviation [n] of the next response, to actions of features [n, d]."""
        ...

    def advance(self, memory: Singles, shown: Singles, response: Singles) -> Singles:
        """Return memories [n, w] after actions of features [n, d] and the responses [n] to them."""
        ...


class RecurrentResponse(nn.Module):
    """A GRU over (action, response). The memory is its state, and the last action, response and whether there was one.

    It predicts the change from the last response: most of a response is what the user gave before.
    """

    def __init__(self, features: int, hidden: int, seed: int, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.features, self.hidden, self.bounds = features, hidden, bounds
        seen = features + 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.memory = nn.GRU(seen, hidden, batch_first=True)
            self.cell = nn.GRUCell(seen, hidden)
            self.head = nn.Sequential(nn.Linear(hidden + 3 * features + 2, 32), nn.Tanh(), nn.Linear(32, 2))
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):  # one step at a time, with the same weights
            setattr(self.cell, name, getattr(self.memory, f"{name}_l0"))

    def start(self, users: int) -> Singles:
        """Return [n, hidden + d + 2] zeros."""
        return np.zeros((users, self.hidden + self.features + 2), np.float32)

    def predict(self, memory: Singles, shown: Singles) -> tuple[Singles, Singles]:
        """See `Response`."""
        with torch.no_grad():
            mean, sd = self._moments(torch.from_numpy(memory), torch.from_numpy(shown))
        return np.clip(mean.numpy(), *self.bounds), sd.numpy()

    def advance(self, memory: Singles, shown: Singles, response: Singles) -> Singles:
        """See `Response`."""
        seen = np.concatenate([shown, response[:, None]], axis=1).astype(np.float32)
        with torch.no_grad():
            state = self.cell(torch.from_numpy(seen), torch.from_numpy(memory[:, : self.hidden])).numpy()
        return np.concatenate([state, seen, np.ones((len(seen), 1), np.float32)], axis=1)

    def loss(self, shown: Tensor, response: Tensor, inside: Tensor) -> Tensor:
        """Return the mean negative log-likelihood of trajectories [n, T, d], early steps counting for more.

        Args:
            shown: [n, T, d].
            response: [n, T].
            inside: [n, T] 1 for the steps that count.
        """
        seen = torch.cat([shown, response[..., None]], dim=2)
        found = torch.cat([self.memory(seen)[0], seen, torch.ones_like(seen[..., :1])], dim=2)
        before = torch.cat([torch.zeros_like(found[:, :1]), found[:, :-1]], dim=1)
        weight = inside * (1.0 + 10.0 * torch.exp(-torch.arange(shown.shape[1]) / 4.0))
        misfit = _misfit(*self._moments(before, shown), response)
        return (misfit * weight).sum() / weight.sum()

    def _moments(self, memory: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        # Given the change of action outright, the net need not find it out of two numbers.
        last = memory[..., self.hidden : self.hidden + self.features]
        outputs = self.head(torch.cat([memory, shown, shown - last], dim=-1))
        return _split(outputs, memory[..., self.hidden + self.features])


class SummaryResponse:
    """What nets without recurrence and trees share: the memory is moving averages of actions and responses.

    Attributes:
        features: d, numbers per action.
        before: columns of the memory before the summary.
    """

    features: int
    before = 0

    @property
    def last(self) -> int:
        """Column of the last response: the average whose decay is 0."""
        return self.before + len(DECAYS) * self.features

    def start(self, users: int) -> Singles:
        """Return [n, w] zeros, w = before + (k + 2) (d + 1) + 2.

        They are k averages of action and of response, two lags of both, the first response, and steps counted.
        """
        return np.zeros((users, self.before + (len(DECAYS) + 2) * (self.features + 1) + 2), np.float32)

    def advance(self, memory: Singles, shown: Singles, response: Singles) -> Singles:
        """See `Response`."""
        k, d, b, at = len(DECAYS), self.features, self.before, self.last
        after, lags = memory.copy(), memory.shape[1] - 2 * d - 4
        actions = memory[:, b:at].reshape(-1, k, d)
        averaged = DECAYS[:, None] * actions + (1.0 - DECAYS[:, None]) * shown[:, None]
        after[:, b:at] = averaged.reshape(-1, k * d)
        after[:, at : at + k] = DECAYS * memory[:, at : at + k] + (1.0 - DECAYS) * response[:, None]
        # Second and third last: what successive changes are made of, and they tell how fast a user forgets.
        after[:, lags : lags + d], after[:, lags + d : -4] = memory[:, b : b + d], memory[:, lags : lags + d]
        after[:, -4], after[:, -3] = memory[:, at], memory[:, -4]
        after[:, -2] = np.where(memory[:, -1] == 0.0, response, memory[:, -2])
        after[:, -1] = np.minimum(memory[:, -1] + 0.05, 1.0)
        return after

    def memories_of(self, log: Trajectories) -> Singles:
        """Return [T, n, w] what is remembered before each logged step."""
        memory, found = self.start(len(log)), []
        shown, response = log.shown, log.responses
        for time in range(log.steps):
            found.append(memory)
            memory = self.advance(memory, shown[:, time], response[:, time])
        return np.stack(found)

    def rows_of(self, log: Trajectories) -> tuple[Singles, Singles]:
        """Return inputs [m, w + d] and responses [m] of all logged steps, the first step's users first."""
        inside = log.inside.T
        inputs = np.concatenate([self.memories_of(log), log.shown.transpose(1, 0, 2)], axis=2)
        return inputs[inside], log.responses.T[inside]

    def with_change(self, inputs: Singles) -> Singles:
        """Return inputs [m, w + d] and successive differences, which drown in the levels that they are of."""
        d, b, w = self.features, self.before, inputs.shape[1] - self.features
        lags = w - 2 * d - 4
        actions = [inputs[:, w:], inputs[:, b : b + d], inputs[:, lags : lags + d], inputs[:, lags + d : w - 4]]
        responses = [inputs[:, [self.last]], inputs[:, [w - 4]], inputs[:, [w - 3]]]
        changes = [one - other for row in (actions, responses) for one, other in pairwise(row)]
        return np.concatenate([inputs, *changes], axis=1)


class _Read(SummaryResponse):
    """A summary with a readout of it: what the plain net and the reservoir share."""

    def _fit(self, log: Trajectories, width: int, seed: int, bounds: tuple[float, float]) -> None:
        inputs, response = self.rows_of(log)
        change = response - inputs[:, self.last]
        changing = self.with_change(inputs)
        self._readout = _Readout(changing, change, width, seed)
        self._deviation = _Deviation(change - self._readout(changing), inputs[:, -1 - self.features] == 0.0)
        self.bounds = bounds

    def predict(self, memory: Singles, shown: Singles) -> tuple[Singles, Singles]:
        """See `Response`."""
        inputs = self.with_change(np.concatenate([memory, shown], axis=1))
        mean = np.clip(self._readout(inputs) + memory[:, self.last], *self.bounds)
        return mean, self._deviation.at(memory[:, -1] == 0.0)


class PlainResponse(_Read):
    """A net with one hidden layer of random features and a fitted readout (Rahimi and Recht 2008) on the summary."""

    def __init__(self, log: Trajectories, width: int, seed: int, bounds: tuple[float, float]) -> None:
        self.features = log.shown.shape[2]
        self._fit(log, width, seed, bounds)


class ReservoirResponse(_Read):
    """Random leaky recurrent units and a fitted readout: an echo state network (Jaeger 2001), before the summary."""

    def __init__(self, log: Trajectories, units: int, seed: int, bounds: tuple[float, float]) -> None:
        rng, self.features, self.before = np.random.default_rng(seed), log.shown.shape[2], units
        self._leak = np.exp(rng.uniform(np.log(0.03), 0.0, units)).astype(np.float32)
        self._seen = rng.normal(0.0, 1.0, (self.features + 1, units)).astype(np.float32)
        mixing = rng.normal(0.0, 1.0, (units, units)) * (rng.random((units, units)) < 0.2)
        self._mixing = (0.8 * mixing / np.abs(np.linalg.eigvals(mixing)).max()).astype(np.float32)
        self._fit(log, 150, seed, bounds)

    def advance(self, memory: Singles, shown: Singles, response: Singles) -> Singles:
        """See `Response`."""
        after, state = super().advance(memory, shown, response), memory[:, : self.before]
        seen = np.concatenate([shown, 2.0 * response[:, None]], axis=1).astype(np.float32)
        after[:, : self.before] += self._leak * (np.tanh(seen @ self._seen + state @ self._mixing) - state)
        return after


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
    """Deviation of what a readout leaves over, that of first steps apart."""

    def __init__(self, residual: Singles, first: NDArray[np.bool_]) -> None:
        later = residual[~first] if (~first).any() else residual
        self._first, self._later = (np.float32(part.std() + _LEAST_SD) for part in (residual[first], later))

    def at(self, first: NDArray[np.bool_]) -> Singles:
        return np.where(first, self._first, self._later)


class TreeResponse(SummaryResponse):
    """Boosted trees on the summary, one number at a time; deviations from the residuals, the first step's apart."""

    def __init__(self, log: Trajectories, seed: int, bounds: tuple[float, float], *, rows: int = 40_000) -> None:
        self.bounds, self.features = bounds, log.shown.shape[2]
        inputs, response = self.rows_of(log)
        chosen = np.random.default_rng(seed).choice(len(inputs), min(rows, len(inputs)), replace=False)
        chosen = np.union1d(chosen, np.arange(len(log)))  # first steps are few and decide who the user is
        inputs, response = inputs[chosen], response[chosen]
        change, first = response - inputs[:, self.last], inputs[:, -1 - self.features] == 0.0
        inputs = self.with_change(inputs)
        self._model = HistGradientBoostingRegressor(
            max_iter=50,
            learning_rate=0.2,
            max_leaf_nodes=24,
            early_stopping=False,  # pyright: ignore[reportArgumentType] the stub knows "auto" only
            random_state=seed,
        )
        self._model.fit(inputs, change)
        self._deviation = _Deviation((change - self._model.predict(inputs)).astype(np.float32), first)

    def predict(self, memory: Singles, shown: Singles) -> tuple[Singles, Singles]:
        """See `Response`."""
        inputs = self.with_change(np.concatenate([memory, shown], axis=1))
        change = self._model.predict(inputs).astype(np.float32)
        return np.clip(change + memory[:, self.last], *self.bounds), self._deviation.at(memory[:, -1] == 0.0)


def fit_recurrent(
    log: Trajectories, hidden: int, seed: int, *, steps: int, bounds: tuple[float, float], rate: float = 1e-2
) -> RecurrentResponse:
    """Return a recurrent model after `steps` gradient steps on 64 whole trajectories each."""
    model = RecurrentResponse(log.shown.shape[2], hidden, seed, bounds)
    parts = [torch.from_numpy(part) for part in (log.shown, log.responses, log.inside.astype(np.float32))]

    def loss(rng: np.random.Generator) -> Tensor:
        rows = torch.from_numpy(rng.integers(0, len(log), 64))
        shown, response, inside = (part[rows] for part in parts)
        return model.loss(shown, response, inside)

    _descend(model, loss, seed, steps, rate)
    return model


def bounds_of(log: Trajectories) -> tuple[float, float]:
    """Return the least and the greatest logged response: no simulator answers with what was never seen."""
    response = log.responses[log.inside]
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
    return last + 0.3 * change, functional.softplus(spread - 2.0) + 2e-3


def _misfit(mean: Tensor, sd: Tensor, response: Tensor) -> Tensor:
    return 0.5 * ((response - mean) / sd).square() + sd.log()
