"""Logged trajectories of any loop: which action was shown to whom, how likely it was, and what came of it.

Actions are known by their features, standardised over the log, and rewards enter as responses, about 0 for a usual one.
So nothing that learns from a trajectory knows a unit: rewards times a constant, or features in other units, are the
same trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from decision.errors import FieldError

Singles = NDArray[np.float32]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

_POSITIVE, _CUT = 0.995, 0.1
"""Share of the rewards that must be positive for their logarithm to be taken; how far below the rare ones it is cut."""


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """The actions of a log.

    Attributes:
        ids: A of them.
        raw: [A, d] features as the application sends them.
        centre: [d] what is subtracted.
        spread: [d] what is divided by, above 0.
    """

    ids: tuple[str, ...]
    raw: Singles
    centre: Singles
    spread: Singles

    def __post_init__(self) -> None:
        if not self.ids or len(set(self.ids)) != len(self.ids):
            raise FieldError("catalogue.ids", wanted="ids, each once", got=self.ids)
        if self.raw.ndim != 2 or len(self.raw) != len(self.ids) or not self.raw.shape[1]:
            raise FieldError("catalogue.raw", wanted=f"[{len(self.ids)}, d] features", got=self.raw.shape)
        if not np.isfinite(self.raw).all():
            raise FieldError("catalogue.raw", wanted="finite numbers", got=self.raw)
        per_feature = self.raw.shape[1:]
        if self.centre.shape != per_feature or self.spread.shape != per_feature or (self.spread <= 0).any():
            raise FieldError("catalogue.spread", wanted="a centre and a positive spread per feature", got=self.spread)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def features(self) -> Singles:
        """[A, d] float32, standardised."""
        return ((self.raw - self.centre) / self.spread).astype(np.float32)


def catalogue_of(ids: Sequence[str], raw: Singles, shown: Counts) -> Catalogue:
    """Return a catalogue whose features have mean 0 and deviation 1 over the actions `shown` (codes).

    Actions without features ([A, 0]) are told apart by one number each.
    """
    if not raw.shape[1]:
        raw = np.eye(len(ids), dtype=np.float32)
    seen = raw[shown.ravel()]
    spread = seen.std(axis=0)
    spread = np.where(spread > 1e-6 * np.maximum(np.abs(seen).max(axis=0), 1e-30), spread, 1.0)
    return Catalogue(tuple(ids), raw.astype(np.float32), seen.mean(axis=0), spread.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Scale:
    """How a reward becomes a response, which is about 0 for a usual reward, and a response a reward.

    Attributes:
        form: ``log``, the logarithm of the reward less that of a usual one, for what is positive; else ``linear``.
        usual: what is subtracted: a logarithm, or a reward.
        spread: what is divided by, above 0; 1 where logarithms are taken.
        least: rewards are cut below at this before their logarithm is taken.
        values: the two rewards there are, where there are two only; responses are then drawn as one of them.
    """

    form: Literal["log", "linear"]
    usual: float
    spread: float = 1.0
    least: float = 0.0
    values: tuple[float, float] | None = None

    def response(self, rewards: NDArray[np.floating]) -> Singles:
        """Return the responses of `rewards`."""
        found = np.log(np.maximum(rewards, np.float32(self.least))) if self.form == "log" else rewards
        return ((found - np.float32(self.usual)) / np.float32(self.spread)).astype(np.float32)

    def reward(self, responses: Singles) -> Singles:
        """Return the rewards of `responses`."""
        found = responses * np.float32(self.spread) + np.float32(self.usual)
        return (np.exp(found) if self.form == "log" else found).astype(np.float32)

    def drawn(self, mean: Singles, sd: Singles, rng: np.random.Generator) -> Singles:
        """Return [n] responses drawn around `mean` [n] with deviation `sd` [n]."""
        if self.values is None:
            return (mean + sd * rng.standard_normal(len(mean))).astype(np.float32)
        low, high = self.response(np.array(self.values, np.float32))
        return np.where(rng.random(len(mean)) * (high - low) < mean - low, high, low).astype(np.float32)


def scale_of(rewards: NDArray[np.floating]) -> Scale:
    """Return the scale of a log's `rewards` [m]: logarithms where (nearly) all are positive, else standardised."""
    values = np.unique(rewards)
    two = (float(values[0]), float(values[1])) if len(values) == 2 else None
    if two is None and (rewards > 0.0).mean() >= _POSITIVE:
        least = _CUT * float(np.quantile(rewards[rewards > 0.0], 1.0 - _POSITIVE))
        return Scale("log", float(np.log(np.maximum(rewards, least)).mean()), least=least)
    spread = float(rewards.std())
    return Scale("linear", float(rewards.mean()), spread=spread if spread > 0.0 else 1.0, values=two)


@dataclass(frozen=True, slots=True, eq=False)
class Trajectories:
    """n users, or windows of users, over at most T steps.

    Attributes:
        actions: [n, T] int64 codes of what was shown, into the catalogue; beyond a user's last step any.
        rewards: [n, T] what came of it.
        propensities: [n, T] probability with which each was shown, in (0, 1].
        catalogue: the actions.
        scale: of the rewards.
        lengths: [n] steps of each user, 1 to T; None when all have T.
        versions: [n, T] int64 codes of the policy that drew, into `names`; None when not known.
        names: of the policies.
        days: [n] int64 number of the day in whose course each trajectory was half over; None for one day.
        pmf: [n, T, A] the whole distribution, 0 for what was not offered or never drawn; None when not known.
        offered: [n, T, A] whether an action could have been shown; None when all could, or it is not known.
        groups: [n] int64 codes of each user's group; None for one group.
        group_names: of the groups; "" is that of users whose group is not known.
        grouped_by: path of the context's field that holds it, without "context."; "" where nothing does.
    """

    actions: Counts
    rewards: Singles
    propensities: Singles
    catalogue: Catalogue
    scale: Scale
    lengths: Counts | None = None
    versions: Counts | None = None
    names: tuple[str, ...] = ()
    days: Counts | None = None
    pmf: Singles | None = None
    offered: Flags | None = None
    groups: Counts | None = None
    group_names: tuple[str, ...] = ()
    grouped_by: str = ""
    inside: Flags = field(init=False)
    """[n, T] whether a step is one of the user's."""

    def __post_init__(self) -> None:
        shape = self.actions.shape
        if len(shape) != 2 or not len(self.actions) or self.rewards.shape != shape or self.propensities.shape != shape:
            raise FieldError("trajectories", wanted="three arrays of one shape [n, T]", got=shape)
        lengths = np.full(shape[0], shape[1], np.int64) if self.lengths is None else self.lengths
        if lengths.shape != shape[:1] or lengths.min() < 1 or lengths.max() > shape[1]:
            raise FieldError("trajectories.lengths", wanted=f"[n] numbers from 1 to {shape[1]}", got=lengths)
        inside = np.arange(shape[1]) < lengths[:, None]
        object.__setattr__(self, "inside", inside)
        if not np.isfinite(self.rewards[inside]).all():
            raise FieldError("trajectories.rewards", wanted="finite numbers", got=self.rewards)
        seen = self.propensities[inside]
        if seen.min() <= 0.0 or seen.max() > 1.0:
            raise FieldError("trajectories.propensities", wanted="numbers in (0, 1]", got=self.propensities)
        if self.actions.min() < 0 or self.actions.max() >= len(self.catalogue):
            wanted = f"codes from 0 to {len(self.catalogue) - 1}"
            raise FieldError("trajectories.actions", wanted=wanted, got=self.actions)

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def steps(self) -> int:
        """T."""
        return self.actions.shape[1]

    @property
    def shown(self) -> Singles:
        """[n, T, d] standardised features of what was shown."""
        return self.catalogue.features[self.actions]

    @property
    def responses(self) -> Singles:
        """[n, T] responses; 0 beyond a user's last step."""
        return np.where(self.inside, self.scale.response(self.rewards), np.float32(0.0))

    @property
    def group_codes(self) -> Counts:
        """[n] codes of each user's group; 0 where there is one group."""
        return np.zeros(len(self), np.int64) if self.groups is None else self.groups

    @property
    def executed(self) -> Counts:
        """Codes of the actions in the log, ascending: of others nothing was seen."""
        return np.unique(self.actions[self.inside])

    def take(self, rows: Counts) -> Trajectories:
        """Return the users at `rows`; the same user may come twice."""

        def of(values: NDArray[np.generic] | None) -> NDArray[np.generic] | None:
            return None if values is None else values[rows]

        parts = {name: of(getattr(self, name)) for name in ("lengths", "versions", "days", "pmf", "offered", "groups")}
        return replace(
            self,
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            propensities=self.propensities[rows],
            **parts,
        )
