"""Long-term satisfaction (LTS): content that pulls now wears its reader out; many users in one set of arrays.

The choc/kale world of RecSim (Ie et al. 2019, arXiv 1909.04847) with the settings under which Sim2Rec was measured
(Chen et al. 2023, arXiv 2305.04832): users differ in memory m and sensitivity s, groups in how much clickbait ("choc")
engages. One action is one of 30 documents; document i has clickbait c = i / 30.

    reward_t = (c mu_c + (1 - c) mu_k) sigmoid(s npe_t) + N(0, noise),    npe_{t+1} = m npe_t - 2 (c - 1/2)

with npe_0 = 1 / (2 (1 - m)). The satisfaction is that before the document's effect, and a document of less clickbait
than 1/2 raises it (RecSim's code; its docstring has the other sign).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from decision.errors import FieldError

DOCUMENTS = 30
HORIZON = 140
KALE = 4.0
GROUP_STD = 3.0
REWARD_NOISE = 0.01
MAX_REWARD = 100.0
"""Where the observation of the reward is cut."""
MAX_USERS = 1_000_000
TRAIT_LOW, TRAIT_HIGH = 1.01, 2.6
"""Memory and sensitivity are the logarithms of numbers uniform between these."""

Singles = NDArray[np.float32]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class LtsUsers:
    """n users of one or more groups.

    Attributes:
        memory: [n] m, in (0, 1).
        sensitivity: [n] s, above 0.
        choc: [n] mu_c of the user's group, reward units.
        kale: [n] mu_k, reward units.
        group: [n] int64 index of the group.
    """

    memory: Singles
    sensitivity: Singles
    choc: Singles
    kale: Singles
    group: Counts

    def __post_init__(self) -> None:
        n = len(self.memory)
        if not 1 <= n <= MAX_USERS:
            raise FieldError("users", wanted=f"1 to {MAX_USERS:,} users", got=n)
        for name in ("memory", "sensitivity", "choc", "kale", "group"):
            values = getattr(self, name)
            if values.shape != (n,) or not np.isfinite(values).all():
                raise FieldError(f"users.{name}", wanted=f"{n} finite numbers", got=values)
        if self.memory.min() <= 0.0 or self.memory.max() >= 1.0:
            raise FieldError("users.memory", wanted="numbers in (0, 1)", got=self.memory)
        if self.sensitivity.min() <= 0.0:
            raise FieldError("users.sensitivity", wanted="numbers above 0", got=self.sensitivity)

    def __len__(self) -> int:
        return len(self.memory)

    def in_group(self, choc: float) -> LtsUsers:
        """Return the same users, all in one group of mean `choc`, with the usual kale."""
        n = len(self)
        level = np.full(n, choc, np.float32)
        return LtsUsers(self.memory, self.sensitivity, level, np.full(n, KALE, np.float32), np.zeros(n, dtype=np.int64))

    def take(self, rows: Counts) -> LtsUsers:
        """Return the users at `rows`."""
        return LtsUsers(self.memory[rows], self.sensitivity[rows], self.choc[rows], self.kale[rows], self.group[rows])


def draw_users(
    rng: np.random.Generator, chocs: NDArray[np.float64], per_group: int, *, kale_shift: float = 0.0
) -> LtsUsers:
    """Return `per_group` fresh users in a group for each of `chocs`.

    Args:
        rng: source of randomness.
        chocs: [g] group means mu_c.
        per_group: users in each group, 1 or more.
        kale_shift: half width b of a user's kale mean around 4 (the paper's omega_u), in [0, 4).

    Raises:
        FieldError: too many users, none, or a shift out of range.
    """
    if per_group < 1:
        raise FieldError("per_group", wanted="1 user or more", got=per_group)
    if not 0.0 <= kale_shift < KALE:
        raise FieldError("kale_shift", wanted=f"a number in [0, {KALE:g})", got=kale_shift)
    n = len(chocs) * per_group
    traits = np.log(rng.uniform(TRAIT_LOW, TRAIT_HIGH, (2, n))).astype(np.float32)
    group = np.repeat(np.arange(len(chocs)), per_group)
    kale = (KALE + rng.uniform(-kale_shift, kale_shift, n)).astype(np.float32)
    return LtsUsers(traits[0], traits[1], chocs[group].astype(np.float32), kale, group.astype(np.int64))


def users_on_grid(side: int, choc: float) -> LtsUsers:
    """Return `side` x `side` users at the quantile midpoints of memory and sensitivity; what golden values refer to."""
    axis = np.log(TRAIT_LOW + (TRAIT_HIGH - TRAIT_LOW) * (np.arange(side) + 0.5) / side).astype(np.float32)
    memory, sensitivity = np.repeat(axis, side), np.tile(axis, side)
    n = side * side
    return LtsUsers(
        memory,
        sensitivity,
        np.full(n, choc, np.float32),
        np.full(n, KALE, np.float32),
        np.zeros(n, dtype=np.int64),
    )


def document_of(level: Singles) -> Counts:
    """Return the documents that continuous actions `level` ([n], cut to [-1, 1]) mean, as the authors map them."""
    return ((np.clip(level, -1.0, 1.0) + 1.0) / 2.0 * (DOCUMENTS - 1)).astype(np.int64)


class LtsEnv(VectorEnv):
    """All users of a population at once, as a gymnasium vector environment; nothing loops over users.

    Observation of a user: the group's context (one draw of N(mu_c, 3) per episode), whether the last document was
    clicked (always, after the first), and the last reward, cut to [0, 100]. Episodes are 140 steps long and end by
    truncation for everyone at once; `reset` starts the next one with the same users.

    Attributes:
        users: who they are; privileged, no observation holds it.
        npe: [n] float32 net positive exposure, the hidden state.
        time: steps taken in this episode.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}  # noqa: RUF012 as gymnasium declares it

    def __init__(self, users: LtsUsers, *, horizon: int = HORIZON, noise: float = REWARD_NOISE) -> None:
        """Set up.

        Args:
            users: the population.
            horizon: steps of an episode, 1 or more.
            noise: standard deviation of the reward, 0 or more.

        Raises:
            FieldError: `horizon` or `noise` is out of range.
        """
        if horizon < 1:
            raise FieldError("horizon", wanted="1 step or more", got=horizon)
        if not (np.isfinite(noise) and noise >= 0.0):
            raise FieldError("noise", wanted="a number of 0 or more", got=noise)
        n = len(users)
        self.users, self.horizon, self.noise = users, horizon, noise
        self.num_envs = n
        high = np.array([np.inf, 1.0, MAX_REWARD], np.float32)
        low = np.array([-np.inf, 0.0, 0.0], np.float32)
        self.single_observation_space = spaces.Box(low, high, dtype=np.float32)
        self.single_action_space = spaces.Discrete(DOCUMENTS)
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)
        self._spread = users.choc - users.kale
        self._start = (0.5 / (1.0 - users.memory)).astype(np.float32)
        self._minus_sensitivity = -users.sensitivity
        self.npe = self._start.copy()
        self._context = np.zeros(n, np.float32)
        self._noise_draws, self._satisfaction = np.empty(n, np.float32), np.empty(n, np.float32)
        self._clickbait = np.empty(n, np.float32)
        self.time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Singles, dict[str, Any]]:
        """Start an episode with the same users; return observations [n, 3] and nothing else.

        Args:
            seed: of the contexts and the rewards to come; None goes on with the stream there is.
            options: none are known.
        """
        super().reset(seed=seed)
        self.npe[:] = self._start
        self.time = 0
        draws = self.np_random.standard_normal(self.num_envs, dtype=np.float32)
        self._context = self.users.choc + np.float32(GROUP_STD) * draws
        observed = np.zeros((self.num_envs, 3), np.float32)
        observed[:, 0] = self._context
        return observed, {}

    def step(self, actions: Any) -> tuple[Singles, Singles, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Show everyone a document.

        Args:
            actions: [n] integers in [0, 30).

        Returns:
            Observations [n, 3], rewards [n], terminations [n] (never), truncations [n] (at the horizon), nothing.

        Raises:
            FieldError: actions of another shape or out of range, or the episode is over.
        """
        actions = np.asarray(actions)
        n = self.num_envs
        if actions.shape != (n,) or actions.dtype.kind not in "iu":
            raise FieldError("actions", wanted=f"{n} whole numbers", got=actions)
        if actions.min() < 0 or actions.max() >= DOCUMENTS:
            raise FieldError("actions", wanted=f"documents in [0, {DOCUMENTS})", got=actions)
        if self.time >= self.horizon:
            raise FieldError(
                "actions",
                wanted="of an episode that is not over",
                got=None,
                says=f"the episode is over at step {self.time}: call reset",
            )
        clickbait, satisfaction = self._clickbait, self._satisfaction
        np.multiply(actions, np.float32(1.0 / DOCUMENTS), out=clickbait, casting="unsafe")
        np.multiply(self._minus_sensitivity, self.npe, out=satisfaction)
        np.exp(satisfaction, out=satisfaction)
        satisfaction += np.float32(1.0)
        reward: Singles = np.multiply(clickbait, self._spread, dtype=np.float32)
        reward += self.users.kale
        reward /= satisfaction
        if self.noise > 0.0:
            self.np_random.standard_normal(out=self._noise_draws, dtype=np.float32)
            self._noise_draws *= np.float32(self.noise)
            reward += self._noise_draws
        self.npe *= self.users.memory
        self.npe -= np.float32(2.0) * clickbait
        self.npe += np.float32(1.0)
        self.time += 1
        observed = np.empty((n, 3), np.float32)
        observed[:, 0] = self._context
        observed[:, 1] = 1.0
        np.clip(reward, 0.0, MAX_REWARD, out=observed[:, 2])
        over = np.full(n, self.time >= self.horizon)
        return observed, reward, np.zeros(n, np.bool_), over, {}
