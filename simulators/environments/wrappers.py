"""What goes wrong in production, around any vector environment: late outcomes, lost actions, drift."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from decision.errors import FieldError


class _Around(VectorEnv):
    """An environment with another one inside, whose spaces it shares."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}  # noqa: RUF012 as gymnasium declares it

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.single_observation_space, self.observation_space = env.single_observation_space, env.observation_space
        self.single_action_space, self.action_space = env.single_action_space, env.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode of the environment inside."""
        super().reset(seed=seed)
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step of the environment inside."""
        return self.env.step(actions)


class Delayed(_Around):
    """Observations come some steps late, those of the beginning being repeated meanwhile; rewards are not touched.

    A policy that learns from what it sees must do without the latest outcomes; how well it did is still told in time.
    """

    def __init__(self, env: VectorEnv, steps: int) -> None:
        """Delay `env` by `steps` (1 to 1,000)."""
        super().__init__(env)
        if not 1 <= steps <= 1000:
            raise FieldError("steps", wanted="1 to 1000", got=steps)
        self._late: deque[Any] = deque(maxlen=steps + 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observed, info = super().reset(seed=seed, options=options)
        self._late.clear()
        self._late.append(observed)
        return observed.copy(), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step; return an observation of before."""
        observed, reward, terminated, truncated, info = self.env.step(actions)
        self._late.append(observed)
        return self._late[0].copy(), reward, terminated, truncated, info


class Outage(_Around):
    """With some probability an action does not get through, and the user is given a fallback instead.

    ``info["replaced"]`` [n] tells for whom.
    """

    def __init__(self, env: VectorEnv, probability: float, fallback: Any) -> None:
        """Replace actions of `env` by `fallback` (one user's action) with `probability` in [0, 1]."""
        super().__init__(env)
        if not 0.0 <= probability <= 1.0:
            raise FieldError("probability", wanted="a number in [0, 1]", got=probability)
        if not env.single_action_space.contains(fallback):
            raise FieldError("fallback", wanted="an action of the environment", got=fallback)
        self.probability, self.fallback = probability, fallback

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a step with what gets through."""
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise FieldError("actions", wanted=f"shape {self.action_space.shape}", got=actions.shape)
        lost = self.np_random.random(self.num_envs) < self.probability
        through = np.where(lost.reshape((-1,) + (1,) * (actions.ndim - 1)), self.fallback, actions)
        *outcome, info = self.env.step(through.astype(actions.dtype))
        observed, reward, terminated, truncated = outcome
        return observed, reward, terminated, truncated, info | {"replaced": lost}


class Drifting(_Around):
    """From one episode to the next the world moves: `after` makes the environment of episode number 0, 1, ..."""

    def __init__(self, after: Callable[[int], VectorEnv]) -> None:
        """Start with ``after(0)``; all environments have the same spaces and users."""
        super().__init__(after(0))
        self._after, self.episode = after, -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Move on and start an episode. A `seed` starts the drift anew, too."""
        self.episode = 0 if seed is not None else self.episode + 1
        moved = self._after(self.episode)
        if moved.num_envs != self.num_envs or moved.single_action_space != self.single_action_space:
            raise FieldError("after", wanted="the users and actions of the first episode", got=self.episode)
        self.env = moved
        if seed is None:
            return self.env.reset(seed=int(self.np_random.integers(2**31)), options=options)
        return super().reset(seed=seed, options=options)
