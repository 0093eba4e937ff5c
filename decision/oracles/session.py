"""A policy with memory as numbers: one step of a GRU per outcome, a head per decision, no library but numpy.

What a user's past means to the policy is a vector. Advancing it is the affair of whoever sees the outcomes; at decision
time it comes as features ``feature.session[i]`` like any other that is looked up. So what a decision rested on is in
its record, the same answer can be computed from it for ever, and evaluation on logged decisions needs nothing new.

Scores are the head's logits; the rule to serve them under is ``softmax`` with inverse temperature 1 and a floor.

A net may see the group of its user too: the context says which it is, the version holds the group's embedding, and one
it does not know has the mean of those it does. It enters the head alone, by itself and times the features of the last
action. So a memory is one function of a user's events, whichever group each was of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from decision.batch import Batch, Features, Floats, Interactions
from decision.errors import FieldError, SupportError, Words
from decision.features import PREFIX
from decision.options import Positive
from decision.oracles.kind import Kind, OracleSettings
from decision.validation import Checked

MODEL_FILE, NUMBERS_FILE = "session.json", "session.f32"
MAX_STATE = 1_024
NAME = "session"
"""What memories are looked up as: those of the policy in charge; another's are under `SessionOracle.name`."""
FEATURE = PREFIX + NAME + "[{}]"
FARTHEST = 30.0
"""A response is cut at this on either side: no outcome, however large, moves a memory for good."""
UNKNOWN = -5.0
"""Logit of an action that the policy was never taught, below the least of those it was."""

Singles = NDArray[np.float32]
_NAMES = (
    *("extractor.weight_ih_l0", "extractor.weight_hh_l0", "extractor.bias_ih_l0", "extractor.bias_hh_l0"),
    *("head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"),
)
_OF_GROUPS = ("group", "groups", "elsewhere")
_SLOPE = np.float32(0.01)
_STEEPEST = np.float32(80.0)


class SessionSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the numbers mean.

    Attributes:
        actions: ids of the actions taught, one per logit.
        levels: the number that each action was shown to the net as, where it was one number.
        features: the numbers that each action was shown to the net as, where they are several.
        response: what the net sees of a reward: its logarithm, or itself (``linear``); less `usual`, over `spread`.
        least: rewards are cut below at this, before their logarithm is taken.
        usual: logarithm of a usual reward, or a usual reward.
        spread: what a response of 1 is, in logarithms or rewards.
        group: name of the context's feature that says which group a user is of; "" where the net sees none.
        groups: embedding of each group known, z numbers.
        elsewhere: embedding of any other, z numbers.
    """

    actions: list[str]
    levels: tuple[float, ...] = ()
    features: tuple[tuple[float, ...], ...] = ()
    response: Literal["log", "linear"] = "log"
    least: Positive = 0.05
    usual: float = 1.5
    spread: Positive = 1.0
    group: str = ""
    groups: Mapping[str, tuple[float, ...]] = msgspec.field(default_factory=dict[str, tuple[float, ...]])
    elsewhere: tuple[float, ...] = ()

    def embedded(self, context: Features) -> tuple[float, ...]:
        """Return the embedding of the group that `context` names: a text, or a whole number."""
        for name in context:
            if name.startswith(self.group) and name[len(self.group) : len(self.group) + 1] == "=":
                return self.groups.get(name[len(self.group) + 1 :], self.elsewhere)
        number = context.get(self.group)
        named = str(int(number)) if number is not None and float(number).is_integer() else ""
        return self.groups.get(named, self.elsewhere)


def response_of(settings: SessionSettings, reward: float) -> float:
    """Return what the net sees of a finite `reward`: about 0 for a usual one, and no farther from it than 30."""
    seen = float(np.log(max(reward, settings.least))) if settings.response == "log" else reward
    return min(max((seen - settings.usual) / settings.spread, -FARTHEST), FARTHEST)


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    settings: SessionSettings
    shapes: dict[str, list[int]]


_stored = msgspec.json.Decoder(_Stored).decode  # made at import, which one thread does


class SessionOracle:
    """The recurrent policy.

    Attributes:
        settings: what the numbers mean.
        inputs: numbers per outcome.
        hidden: length of the memory.
        name: what its own memories are looked up as, beside those of another policy in charge.
    """

    def __init__(self, settings: SessionSettings, arrays: Mapping[str, Singles]) -> None:
        """Take the weights by the names that the training library gives them.

        Raises:
            FieldError: an array is missing, does not fit the others, or holds what is no number.
        """
        if set(arrays) != set(_NAMES):
            raise FieldError("arrays", wanted=f"{sorted(_NAMES)}", got=sorted(arrays))
        self.settings = settings
        self._arrays = {name: np.ascontiguousarray(arrays[name], np.float32) for name in _NAMES}
        w = self._arrays
        count, shown = len(settings.actions), settings.features or [[level] for level in settings.levels]
        if count < 1 or len(shown) != count or len(set(settings.actions)) != count:
            raise FieldError("settings.actions", wanted="ids, each once and each with a level", got=settings.actions)
        if len({len(row) for row in shown}) != 1:
            raise FieldError("settings.features", wanted="equally many numbers per action", got=settings.features)
        described = np.array(shown, np.float64)
        if not (np.abs(described) <= np.finfo(np.float32).max).all():
            raise FieldError("settings.features", wanted="numbers of single precision", got=Words("larger ones"))
        self._shown = described.astype(np.float32)
        self._unknown = described.mean(axis=0).astype(np.float32)
        d = self._shown.shape[1]
        self.hidden, self.inputs = w[_NAMES[1]].shape[-1], w[_NAMES[0]].shape[-1]
        head = len(w[_NAMES[5]])
        h, f = self.hidden, self.inputs
        wanted = ((3 * h, f), (3 * h, h), (3 * h,), (3 * h,), (head, f + h), (head,), (count, head), (count,))
        for name, shape in zip(_NAMES, wanted, strict=True):
            if w[name].shape != shape:
                raise FieldError(f"arrays.{name}", wanted=f"shape {shape}", got=w[name].shape)
            if not np.isfinite(w[name]).all():
                raise FieldError(f"arrays.{name}", wanted="finite numbers", got=Words("not"))
        if not 2 + d <= f <= MAX_STATE or h > MAX_STATE:
            raise FieldError("arrays", wanted=f"{2 + d} to {MAX_STATE} inputs and at most that much memory", got=(f, h))
        self._own_inputs = 2 + d
        if settings.group:
            z = len(settings.elsewhere)
            if f != 2 + d + z * (1 + d) or any(len(row) != z for row in settings.groups.values()):
                raise FieldError("settings.groups", wanted=f"{z} numbers each, and {2 + d + z * (1 + d)} inputs", got=f)
            if w[_NAMES[0]][:, 2 + d :].any():
                raise FieldError(f"arrays.{_NAMES[0]}", wanted="0 for what the group says", got=Words("not"))
        self._position = {action: index for index, action in enumerate(settings.actions)}
        self._start = self._after(np.zeros(f, np.float32), np.zeros(h, np.float32))
        self.name = f"{NAME}_{sha256(b''.join(self.save().values())).hexdigest()[:12]}"
        self._own = tuple(f"{PREFIX}{self.name}[{index}]" for index in range(f + h))
        self._plain = tuple(FEATURE.format(index) for index in range(f + h))

    @property
    def usual(self) -> float:
        """A usual reward: all that is expected of an action, since the logits are no rewards."""
        settings = self.settings
        return float(np.exp(settings.usual)) if settings.response == "log" else settings.usual

    def start(self) -> Singles:
        """Return the state [f + h] of a user of whom nothing is known."""
        return self._start.copy()

    def advance(self, state: Singles, action: str, reward: float, group: Sequence[float] = ()) -> Singles:
        """Return the state [f + h] after `action` brought `reward`.

        Args:
            state: as `start` or this function returned it.
            action: id of what was shown; one never taught counts as the mean of those that were.
            reward: what came of it, finite.
            group: embedding of the user's group, for a policy that sees one.

        Raises:
            FieldError: sizes differ or the reward is no number.
        """
        if state.shape != (self.inputs + self.hidden,):
            raise FieldError("state", wanted=f"{self.inputs + self.hidden} numbers", got=state.shape)
        if not np.isfinite(reward):
            raise FieldError("reward", wanted="a finite number", got=reward)
        wanted = self.inputs - self._own_inputs
        if self.settings.group:  # looked up when a decision is made
            group = (0.0,) * wanted
        if len(group) != wanted:
            raise FieldError("group", wanted=f"{wanted} numbers", got=len(group))
        at = self._position.get(action)
        shown = self._unknown if at is None else self._shown[at]
        seen = np.array([1.0, response_of(self.settings, reward), *shown, *group], np.float32)
        return self._after(seen, state[self.inputs :])

    def fit(self, interactions: Interactions) -> None:
        """Refuse: this policy is taught in simulators, not on single interactions."""
        raise SupportError("a session policy learns from simulated episodes, not from interactions")

    def predict(self, batch: Batch) -> Floats:
        """Return [m] logits of the offered actions."""
        out = np.empty(len(batch.actions))
        for row, context in enumerate(batch.contexts):
            logits = self.logits(self.seen_in(context, self._state_of(context)))
            lowest = float(logits.min()) + UNKNOWN
            first, last = batch.offsets[row], batch.offsets[row + 1]
            for index, action in enumerate(batch.action_ids[first:last]):
                at = self._position.get(action)
                out[first + index] = lowest if at is None else logits[at]
        return out

    def seen_in(self, context: Features, state: Singles) -> Singles:
        """Return `state` [f + h] with what the group that `context` names is like; the same where none is seen."""
        if not self.settings.group:
            return state
        of_group = np.array(self.settings.embedded(context), np.float32)
        crossed = of_group[:, None] * state[2 : self._own_inputs]
        return np.concatenate([state[: self._own_inputs], of_group, crossed.ravel(), state[self.inputs :]])

    def logits(self, state: Singles) -> Singles:
        """Return the logits of all actions taught, in `state` [f + h]."""
        w = self._arrays
        found = w["head.0.weight"] @ state + w["head.0.bias"]
        return w["head.2.weight"] @ np.where(found > 0.0, found, _SLOPE * found) + w["head.2.bias"]

    def save(self) -> dict[str, bytes]:
        """Return settings and shapes as JSON, the weights as little-endian singles."""
        shapes = {name: list(value.shape) for name, value in self._arrays.items()}
        numbers = np.concatenate([value.ravel() for value in self._arrays.values()]).astype("<f4")
        settings = msgspec.to_builtins(self.settings)
        if not self.settings.group:  # what earlier releases wrote, byte for byte: a memory's name is made of it
            settings = {name: value for name, value in settings.items() if name not in _OF_GROUPS}
        stored = msgspec.json.encode({"settings": settings, "shapes": shapes})
        return {MODEL_FILE: stored, NUMBERS_FILE: numbers.tobytes()}

    @classmethod
    def load(cls, files: dict[str, bytes]) -> SessionOracle:
        """Return the oracle that `save` described.

        Raises:
            FieldError: a file is missing or does not fit.
        """
        try:
            stored = _stored(files[MODEL_FILE])
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(MODEL_FILE, wanted="a session policy", got=error) from error
        data, at = files.get(NUMBERS_FILE, b""), 0
        if any(side < 0 for shape in stored.shapes.values() for side in shape):
            raise FieldError("shapes", wanted="sides of 0 or more", got=stored.shapes)
        sizes = {name: math.prod(stored.shapes.get(name, [0])) for name in _NAMES}
        if len(data) != 4 * sum(sizes.values()):
            raise FieldError(NUMBERS_FILE, wanted=f"{4 * sum(sizes.values())} bytes", got=len(data))
        arrays: dict[str, Singles] = {}
        for name in _NAMES:
            numbers = np.frombuffer(data, "<f4", sizes[name], at).astype(np.float32)
            try:
                arrays[name] = numbers.reshape(stored.shapes.get(name, [0]))
            except ValueError as error:  # too many sides, or sides too long beside one of 0
                raise FieldError("shapes", wanted="those of the weights", got=error) from error
            at += 4 * sizes[name]
        return cls(stored.settings, arrays)

    def remembering(self, context: Features, state: Singles) -> Features:
        """Return `context` with the memory `state` [f + h] for this policy, whatever others it holds."""
        return context | dict(zip(self._own, state.tolist(), strict=True))

    def _state_of(self, context: Features) -> Singles:
        for names in (self._own, self._plain):
            if names[0] in context and names[-1] in context:
                return np.array([context.get(name, 0.0) for name in names], np.float32)
        return self._start

    def _after(self, inputs: Singles, memory: Singles) -> Singles:
        w, h = self._arrays, self.hidden
        seen = w["extractor.weight_ih_l0"] @ inputs + w["extractor.bias_ih_l0"]
        kept = w["extractor.weight_hh_l0"] @ memory + w["extractor.bias_hh_l0"]
        # A gate that is shut is shut: beyond the steepest, the exponential would leave the range of singles.
        gates = 1.0 / (1.0 + np.exp(np.minimum(-(seen[: 2 * h] + kept[: 2 * h]), _STEEPEST)))
        new = np.tanh(seen[2 * h :] + gates[:h] * kept[2 * h :])
        after = (1.0 - gates[h:]) * new + gates[h:] * memory
        return np.concatenate([inputs, after]).astype(np.float32)


def _new(settings: OracleSettings) -> SessionOracle:
    raise FieldError("oracle", wanted="one that learns from interactions; session policies are taught", got="session")


ORACLE = Kind(_new, SessionOracle.load)
