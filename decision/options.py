"""What a loop's owner may choose: names of oracles and rules, the rules of a training's data, bounds and defaults.

Every bound and default of a setting that the loop's file shares with the core stands here once. No arrays here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from decision.errors import FieldError, Words
from decision.validation import Checked

RULES = {
    "falcon": "decision.exploration.falcon",
    "squarecb": "decision.exploration.squarecb",
    "fastcb": "decision.exploration.fastcb",
    "epsilon_greedy": "decision.exploration.epsilon_greedy",
    "softmax": "decision.exploration.softmax",
    "tilt": "decision.exploration.tilt",
    "regcb": "decision.exploration.regcb",
    "thompson": "decision.exploration.votes",
    "uniform": "decision.exploration.uniform",
}
"""Exploration rules: the module that holds each one's `RULE`, imported when it is asked for."""

ORACLES = {
    "logistic": "decision.oracles.logistic",
    "linear": "decision.oracles.linear",
    "vw": "decision.oracles.vw",
    "lightgbm": "decision.oracles.gradient_boosting",
    "neural": "decision.oracles.neural",
}
"""Oracles that a loop may ask for: the module that holds each one's `ORACLE`, imported with its library when it is
asked for."""

MAX_RANKED = 50
"""Actions and slots of a request to Personalizer's paths."""
LEAST_REWARD, LARGEST_REWARD = -1.0, 1.0
"""Rewards that Personalizer's paths take."""

SESSION = "session"
"""What a loop asks for as its oracle to have a policy with memory, taught on trajectories."""

if TYPE_CHECKING:
    RuleKind = str
    OracleKind = str
    PolicyKind = str
else:  # the names above, so that whoever reads settings can say which there are
    RuleKind = Literal[tuple(RULES)]
    OracleKind = Literal[tuple(ORACLES)]
    PolicyKind = Literal[(*ORACLES, SESSION)]
Importance = Literal["none", "clipped", "sqrt"]

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Steepness = Annotated[float, msgspec.Meta(ge=0, le=100)]
"""Power of the place in a ranking, see `decision.exploration.tilt`."""
ErrorRate = Annotated[float, msgspec.Meta(gt=0, lt=0.5)]
"""Error probability of a one-sided test, or a share that stays the smaller part."""
Count = Annotated[int, msgspec.Meta(ge=1)]
Seed = Annotated[int, msgspec.Meta(ge=0)]

Bits = Annotated[int, msgspec.Meta(ge=10, le=28)]
Bag = Annotated[int, msgspec.Meta(ge=1, le=64)]
Passes = Annotated[int, msgspec.Meta(ge=1, le=20)]
Decay = Annotated[float, msgspec.Meta(gt=0, le=1)]
Generations = Annotated[int, msgspec.Meta(ge=0, le=1_000)]
Samples = Annotated[int, msgspec.Meta(ge=2, le=1_000)]
Average = Annotated[int, msgspec.Meta(ge=1, le=16)]

Cap = Annotated[float, msgspec.Meta(ge=1, le=1_000_000)]

Fraction = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Spacing = Annotated[float, msgspec.Meta(ge=0.01, le=0.5)]
DriftBatch = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Auditors = Annotated[int, msgspec.Meta(ge=1, le=99)]
Quorum = Annotated[float, msgspec.Meta(gt=0, le=1)]

PASSES = 3


class Range(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rewards that are possible.

    Attributes:
        low: smallest reward.
        high: largest reward.
    """

    low: float = 0.0
    high: float = 1.0

    def _relations(self) -> None:
        if not self.low < self.high:
            raise FieldError("high", wanted=f"above low = {self.low}", got=self.high)


class PolicySettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Oracle and exploration rule of newly trained policies.

    Attributes:
        oracle: reward model; ``lightgbm`` and ``neural`` need the extras ``lightgbm`` and ``sim2rec``. ``session`` is
            a policy with memory of its users, see the section ``session``; its training needs ``sim2rec``.
        action_ids: an action's id is one of its features; a new id starts from the action's other features and earns a
            weight of its own with evidence.
        interactions: learn a weight for each pair of context and action feature.
        ridge: prior precision of the ``logistic`` and ``linear`` oracles.
        learning_rate: step size of the ``vw`` oracle.
        bits: size of its weight table, as a power of two.
        bag: models fitted on bootstrapped rows, whose mean predicts; 1 for a single one.
        exploration: rule that turns expected rewards into probabilities.
        gamma: of ``squarecb`` and ``fastcb``; larger explores less. Per sigma, the standard deviation of rewards
            about the model, for ``fastcb`` per range of rewards: the unit that rewards are stated in does not matter.
        falcon_scale: c of ``falcon``, whose gamma is c sqrt(actions x rows learned from) per sigma; exploration costs
            at most 1 / c of the standard error of one action's mean in a uniform log of as many rows.
        epsilon: share explored uniformly by ``epsilon_greedy``.
        inverse_temperature: of ``softmax`` and ``tilt``, per sigma; larger explores less.
        floor: largest share of decisions drawn uniformly under every rule (the uniform stratum), so logs keep support.
        floor_minimum: its smallest share, reached once the log holds what it should; never more than ``floor``.
        floor_rows: uniform draws that the log should hold, so that any policy can be judged on it; while the share
            ``floor`` of its rows is fewer, so many.
        cap: where ``features.supplied_by_caller`` names features: what they say raises no probability above cap + 1
            times that of a policy trained without them.
    """

    oracle: PolicyKind = "logistic"
    action_ids: bool = True
    interactions: bool = True
    ridge: Positive = 0.1
    learning_rate: Positive = 0.5
    bits: Bits = 18
    bag: Bag = 1
    exploration: RuleKind = "falcon"
    gamma: NotNegative = 3000.0
    falcon_scale: NotNegative = 5.0
    epsilon: Share = 0.1
    inverse_temperature: NotNegative = 30.0
    floor: Share = 0.05
    floor_minimum: Share = 0.01
    floor_rows: NotNegative = 250.0
    cap: Cap = 4.0


SHIPPED = PolicySettings()
"""The policy that ships: where the core's own settings take their defaults from."""


class DataRules(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules of a training's data. A generation is what was logged between two trainings; the newest has age 0.

    Attributes:
        generation_rows: decisions that make a generation at least; trainings closer together count as one.
        generations: generations that count in full strength, but for `decay`; 0 for all.
        decay: factor by which a row counts less with every generation, in (0, 1]; 1 for none.
        reservoir: further generations of which the uniformly drawn part is kept; 0 for none.
        importance: weight of a row against the policy that drew it: none, ``clipped`` 1 / (p K), or its root.
        clip: largest such weight, >= 1.
        average: newest models whose mean is served; 1 for the new one alone.
        warm_start: resume the last generation's model on the newest generation's rows alone.
    """

    generation_rows: Count = 5_000
    generations: Generations = 0
    decay: Decay = 0.8
    reservoir: Generations = 0
    importance: Importance = "none"
    clip: Annotated[float, msgspec.Meta(ge=1)] = 10.0
    average: Average = 1
    warm_start: bool = False

    def _relations(self) -> None:
        if self.warm_start and self.average > 1:
            raise FieldError("warm_start", wanted="false where average is above 1", got=Words("true"))


SessionMethod = Literal["clone", "sim2rec", "parametric"]


class SessionRules(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a policy with memory is trained, where the oracle is `session`.

    Attributes:
        method: ``clone``, from the log alone: better decisions are imitated more; ``sim2rec``, in simulators learned
            from the log; ``parametric``, in worlds of a known `form`, whose numbers are fitted to the log.
        also: further methods whose policies are made and judged the same night; one that is better, by a paired
            interval in a simulator held out, goes to the gate instead.
        horizon: decisions of a user that are looked at as one trajectory.
        users: trajectories that are learned from, at most; of more, a fixed sample.
        candidates: actions that the policy may show: those that the log showed (``executed``), or all it offered.
        members: simulators in the set.
        held: steps that an action is held in a simulator to value it.
        penalty: weight of what is not known, which is taken off the reward; 0 takes none off.
        penalty_kind: what that is: the ``disagreement`` of the simulators on the reward, or the dynamics ``gap`` of
            each to the others, in nats times the rewards' deviation.
        trend: what is known of the first feature of the actions (by name): nothing, that more of it pays more at once
            (``rises``), or that besides much of it makes the same pay less later (``wears_out``). Simulators that do
            not behave so are left out.
        weights: whose decisions ``clone`` imitates more: of the versions that did better than others on the same days
            (``pw``), of users who brought more than their first response let expect (``aw``; ``pw`` where users explain
            more than .3 of what is brought), or of all alike (``uniform``).
        gated: whether ``clone`` begins without a critic, and follows one in steps that a simulator of users apart has
            to prove: where several versions drew (``mixed``), ``always``, or ``never``; else it follows it at once.
            Where no step is proven, no decision is imitated more than others.
        effort: gradient steps and rounds, in shares of the usual.
        sharpness: what the policy's logits are multiplied by when it serves; 1 is what it was taught.
        form: of the world, for ``parametric``: ``lts``, ``driver-programme``, or ``module:name`` of one's own, which is
            imported by trainings; "" where it is not known.
        group: the context's field that says which group a user is of, as ``context.city``: text or whole numbers. The
            groups are embedded at every training, and published with the version; the policy sees that of its user,
            or the mean of all where it does not know the group. "" for none.
    """

    method: SessionMethod = "sim2rec"
    also: Annotated[tuple[SessionMethod, ...], msgspec.Meta(max_length=3)] = ("clone",)
    horizon: Annotated[int, msgspec.Meta(ge=2, le=1_000)] = 140
    users: Annotated[int, msgspec.Meta(ge=20, le=100_000)] = 5_000
    candidates: Literal["executed", "all"] = "executed"
    members: Annotated[int, msgspec.Meta(ge=2, le=6)] = 4
    held: Annotated[int, msgspec.Meta(ge=1, le=200)] = 25
    penalty: NotNegative = 1.0
    penalty_kind: Literal["disagreement", "gap"] = "disagreement"
    trend: Literal["none", "rises", "wears_out"] = "none"
    weights: Literal["pw", "aw", "uniform"] = "pw"
    gated: Literal["mixed", "always", "never"] = "mixed"
    effort: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0
    sharpness: Positive = 1.0
    form: Annotated[str, msgspec.Meta(max_length=200)] = ""
    group: Annotated[str, msgspec.Meta(max_length=200)] = ""

    def _relations(self) -> None:
        if self.group and not (self.group.startswith("context.") and len(self.group) > len("context.")):
            raise FieldError("group", wanted="a field of the context, as context.city", got=self.group)
        if "parametric" in (self.method, *self.also) and not self.form:
            raise FieldError("form", wanted="the form of the world, for the method parametric", got=self.form)
