"""Windows of users' histories as arrays: who decided what, how likely it was, and what came of it, step after step.

Every settled decision is in exactly one window. A window ends with its episode, or when it is full; one that is not
full says so by its mask, so nobody is left out for having left early.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.errors import FieldError, SupportError
from decision.ragged import ragged_offsets, ragged_rows
from pipelines.lake.lake import Lake
from pipelines.settings import LoopSettings
from pipelines.trajectories.catalogue import Catalogue, catalogue_of
from pipelines.trajectories.histories import KNOWN, ROWS_AT_ONCE, begins_of, histories

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

MAX_STEPS = 10_000
_COLUMNS = (
    *("episode_id", "context", "action_ids", "action_index", "propensity", "pmf", "guard_weight", "policy_version"),
    *("reward", "outcomes", "matured_at", KNOWN),
)

Bools = NDArray[np.bool_]
Singles = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Trajectories:
    """n windows of at most T decisions.

    The ragged columns belong to the D decisions where the mask is true, window after window.

    Attributes:
        catalogue: the actions.
        users: [n] whose each window is.
        episodes: [n] its episode, "" for none.
        groups: [n] the user's group, "" where none was asked for or the decision does not say.
        first: [n] how many settled decisions the user had before the window.
        mask: [n, T] where there is a decision; a window has its own in front.
        actions: [n, T] numbers in the catalogue; 0 outside of the mask, as everything else.
        rewards: [n, T] of any scale and sign.
        propensities: [n, T] probability of what was shown, in (0, 1].
        guard_weights: [n, T] share of the candidate in the distribution it was drawn from, in [0, 1].
        versions: [n, T] who decided, numbers in `version_names`.
        version_names: [V] registry versions, ascending.
        ts_us: [n, T] when it was decided, microseconds since 1970.
        known_us: [n, T] when something was first known of its reward: an outcome came in, or the window was over.
        offsets: [D + 1] decision i offered ``offered[offsets[i]:offsets[i + 1]]``.
        offered: [m] numbers of the actions offered.
        pmf: [m] the probability of each; NaN where it was not logged.
    """

    catalogue: Catalogue
    users: NDArray[Any]
    episodes: NDArray[Any]
    groups: NDArray[Any]
    first: Ints
    mask: Bools
    actions: Ints
    rewards: Floats
    propensities: Floats
    guard_weights: Floats
    versions: Ints
    version_names: Sequence[str]
    ts_us: Ints
    known_us: Ints
    offsets: Ints
    offered: Ints
    pmf: Floats

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def decisions(self) -> int:
        """D."""
        return len(self.offsets) - 1

    def dense_pmf(self) -> Singles:
        """Return [n, T, A] the distributions, 0 for what was not offered and outside of the mask."""
        out = np.zeros((*self.mask.shape, len(self.catalogue)), np.float32)
        out.reshape(-1, out.shape[-1])[self._places(), self.offered] = self.pmf
        return out

    def dense_offered(self) -> Bools:
        """Return [n, T, A] whether each action was offered, whatever its probability."""
        out = np.zeros((*self.mask.shape, len(self.catalogue)), np.bool_)
        out.reshape(-1, out.shape[-1])[self._places(), self.offered] = True
        return out

    def _places(self) -> Ints:
        return np.repeat(np.flatnonzero(self.mask), np.diff(self.offsets))

    def take(self, rows: Ints) -> Trajectories:
        """Return the windows at `rows` ([r]); the same may come twice."""
        begins = ragged_offsets(self.mask.sum(axis=1))
        sizes = np.diff(begins)[rows]
        decisions = ragged_rows(begins[:-1][rows], ragged_offsets(sizes))
        offsets = ragged_offsets(np.diff(self.offsets)[decisions])
        flat = ragged_rows(self.offsets[:-1][decisions], offsets)
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in (*_PER_WINDOW, *_PER_STEP)},
            offsets=offsets,
            offered=self.offered[flat],
            pmf=self.pmf[flat],
        )


_PER_WINDOW = ("users", "episodes", "groups", "first")
_PER_STEP = ("mask", "actions", "rewards", "propensities", "guard_weights", "versions", "ts_us", "known_us")


def windows(
    lake: Lake,
    loop: LoopSettings,
    *,
    length: int,
    by: Literal["user", "episode"] = "user",
    group: str = "",
    catalogue: Catalogue | None = None,
    version: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    rows_at_once: int = ROWS_AT_ONCE,
) -> Iterator[Trajectories]:
    """Yield the windows of the loop's settled decisions; memory is bounded by `rows_at_once`, not by the lake.

    Args:
        lake: the tables.
        loop: the loop.
        length: T, most decisions in a window, 1 to 10,000.
        by: ``user`` cuts a user's history every `length` decisions, ``episode`` each of his episodes.
        group: path of the context field that says which group a user is of, as ``context.city``; "" for none.
        catalogue: numbers of the actions; None for those of the lake.
        version: version of the interactions table; None for the present one.
        since: earliest time of decision.
        until: first time of decision that is left out.
        rows_at_once: about how many decisions come together; a user's come in one part.

    Yields:
        Windows of all users of a part, a user's in order of time, each in steps of `length`.

    Raises:
        FieldError: an argument does not fit, or an action is not in `catalogue`.
    """
    if not 1 <= length <= MAX_STEPS:
        raise FieldError("length", wanted=f"1 to {MAX_STEPS}", got=length)
    if by not in ("user", "episode"):
        raise FieldError.choice("by", ["user", "episode"], by)
    version = lake.version("interactions") if version is None else version
    when: Any = {"version": version, "since": since, "until": until}
    catalogue = catalogue_of(lake, loop.name, **when) if catalogue is None else catalogue
    for rows in histories(lake, loop.name, _COLUMNS, rows_at_once=rows_at_once, **when):
        yield _windows(rows, catalogue, loop.reward.outcome, length, by, group)


def gathered(parts: Iterable[Trajectories]) -> Trajectories:
    """Return all of `parts`, which share a catalogue and a length, as one.

    Raises:
        SupportError: there are none.
    """
    held = list(parts)
    if not held:
        raise SupportError("no user has a settled decision")
    names = sorted({name for part in held for name in part.version_names})
    code = {name: number for number, name in enumerate(names)}
    columns = {name: np.concatenate([getattr(part, name) for part in held]) for name in (*_PER_WINDOW, *_PER_STEP)}
    columns["versions"] = np.concatenate(
        [np.where(part.mask, np.array([code[n] for n in part.version_names])[part.versions], 0) for part in held]
    )
    return Trajectories(
        held[0].catalogue,
        **columns,
        version_names=names,
        offsets=ragged_offsets(np.concatenate([np.diff(part.offsets) for part in held])),
        offered=np.concatenate([part.offered for part in held]),
        pmf=np.concatenate([part.pmf for part in held]),
    )


def _windows(rows: pa.Table, catalogue: Catalogue, outcome: str, length: int, by: str, group: str) -> Trajectories:
    n, users = len(rows), begins_of(rows)
    owner = np.repeat(np.arange(len(users) - 1), np.diff(users))
    position = np.arange(n) - users[owner]
    run = owner
    if by == "episode":
        # Two of a user's episodes may go on at once; each is in order of time, and they by their beginnings.
        names = pc.dictionary_encode(rows["episode_id"].fill_null("").combine_chunks())
        both = owner * len(names.dictionary) + names.indices.to_numpy()
        _, begins, run = np.unique(both, return_index=True, return_inverse=True)
        run = begins[run]
        order = np.argsort(run, kind="stable")
        rows, run, position = rows.take(pa.array(order)), run[order], position[order]
    cut = np.ones(n, np.bool_)
    cut[1:] = run[1:] != run[:-1]
    begins = np.flatnonzero(cut)
    within = np.arange(n) - np.repeat(begins, np.diff([*begins.tolist(), n]))
    begins = np.flatnonzero(cut | (within % length == 0))
    sizes = np.diff([*begins.tolist(), n])
    mask = np.arange(length) < sizes[:, None]

    def steps(column: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros(mask.shape, column.dtype)
        out[mask] = column
        return out

    offered = rows["action_ids"].combine_chunks()
    offsets = ragged_offsets(pc.list_value_length(offered).to_numpy().astype(np.int64))
    codes = catalogue.codes(pc.list_flatten(offered))
    index = rows["action_index"].to_numpy().astype(np.int64)
    names = rows["policy_version"].combine_chunks().dictionary_encode()
    ordered = sorted(names.dictionary.to_pylist())
    number = np.array([ordered.index(name) for name in names.dictionary.to_pylist()], np.int64)
    return Trajectories(
        catalogue,
        users=rows["who"].to_numpy()[begins],
        episodes=rows["episode_id"].fill_null("").to_numpy()[begins],
        groups=_groups(rows["context"].take(pa.array(begins)).to_pylist(), group),
        first=position[begins],
        mask=mask,
        actions=steps(codes[offsets[:-1] + index]),
        rewards=steps(rows["reward"].to_numpy().astype(np.float64)),
        propensities=steps(rows["propensity"].to_numpy()),
        guard_weights=steps(rows["guard_weight"].fill_null(0.0).to_numpy()),
        versions=steps(number[names.indices.to_numpy()]),
        version_names=ordered,
        ts_us=steps(rows["ts"].cast(pa.int64()).to_numpy()),
        known_us=steps(_first_known(rows, outcome)),
        offsets=offsets,
        offered=codes,
        pmf=_pmf(rows["pmf"].combine_chunks(), offsets),
    )


def _first_known(rows: pa.Table, outcome: str) -> Ints:
    sizes = pc.list_value_length(rows[KNOWN].combine_chunks()).to_numpy().astype(np.int64)
    named = pc.equal(rows["outcomes"].combine_chunks().flatten().field("name"), outcome)
    named = pc.fill_null(named, False).to_numpy(zero_copy_only=False)
    owner, at = np.repeat(np.arange(len(rows)), sizes)[named], pc.list_flatten(rows[KNOWN]).to_numpy()[named]
    decided, over = (rows[name].cast(pa.int64()).to_numpy() for name in ("ts", "matured_at"))
    known = np.full(len(rows), np.iinfo(np.int64).max)
    np.minimum.at(known, owner, at)
    return np.where(known < np.iinfo(np.int64).max, np.maximum(known, decided), over)


def _pmf(column: pa.Array, offsets: Ints) -> Floats:
    flat = pc.list_flatten(column).to_numpy().astype(np.float64)
    if not column.null_count:
        return flat
    pmf = np.full(int(offsets[-1]), np.nan)
    pmf[np.repeat(column.is_valid().to_numpy(zero_copy_only=False), np.diff(offsets))] = flat
    return pmf


def _groups(contexts: Sequence[str], path: str) -> NDArray[Any]:
    if not path:
        return np.full(len(contexts), "", object)
    keys = path.removeprefix("context.").split(".")
    return np.array([_at(msgspec.json.decode(text), keys) for text in contexts], object)


def _at(value: Any, keys: Sequence[str]) -> str:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode()
