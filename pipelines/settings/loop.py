"""The settings of a loop, by section of its ``loop.toml``."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from decision.errors import FieldError, Words
from decision.fairness.rule import Rule
from decision.guard.rules import GuardRules
from decision.options import (
    PASSES,
    SESSION,
    Auditors,
    Average,
    Bag,
    Count,
    DataRules,
    Decay,
    DriftBatch,
    ErrorRate,
    Generations,
    Importance,
    NotNegative,
    OracleKind,
    Passes,
    PolicySettings,
    Positive,
    Quorum,
    SessionRules,
    Share,
    Spacing,
    Steepness,
)
from decision.records import Mode
from decision.validation import Checked

_GUARD, _PANEL = GuardRules(), Rule()


class AuxiliaryOutcome(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An outcome that may be learned from beside the reward.

    Attributes:
        outcome: its name.
        weights: what a training may give it, in deviations of the reward per deviation of the outcome; 0 is always
            tried, and a weight below 0 says that less is better.
        aggregation: how several of a decision become one number; without any it is 0.
    """

    outcome: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    weights: Annotated[tuple[Annotated[float, msgspec.Meta(ge=-100, le=100)], ...], msgspec.Meta(max_length=16)] = (
        *(0.03, 0.1, 0.3),
        *(1.0, 3.0),
    )
    aggregation: Literal["sum", "earliest", "latest", "min", "max", "mean"] = "sum"


class RewardSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How outcomes become a reward.

    Attributes:
        outcome: name of the outcome that is aggregated.
        window_s: how long after a decision outcomes count, in seconds.
        default: reward of a decision without an outcome in its window.
        aggregation: how several outcomes become one number.
        minimum: smallest possible reward; smaller ones are cut to it. Without it, a training learns it from the
            rewards it sees.
        maximum: largest possible reward, likewise.
        version: name of this definition, stored with every row; change it when you change the definition.
        others: names of outcomes that are recorded beside it and change no reward. With any listed, an outcome of
            another name, but for those of `auxiliary`, is refused; without, it is counted as doubtful.
        activates: a reward activates its deferred decision, all slots of it; without, only an outcome named
            ``activation`` does.
        auxiliary: outcomes that come sooner or more often, as ``[{outcome = "click"}]``: a training learns from them
            too, as far as that earns more of the reward itself on decisions that it has not seen. The gate, the guard
            and every report go by the reward alone.
    """

    outcome: str = "reward"
    window_s: Positive = 600.0
    default: float = 0.0
    aggregation: Literal["sum", "earliest", "latest", "min", "max", "mean"] = "sum"
    minimum: float | None = None
    maximum: float | None = None
    version: str = "1"
    others: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=256)], ...], msgspec.Meta(max_length=100)
    ] = ()
    activates: bool = True
    auxiliary: Annotated[tuple[AuxiliaryOutcome, ...], msgspec.Meta(max_length=4)] = ()

    @property
    def beside(self) -> tuple[str, ...]:
        """Names of the outcomes that are known beside the reward's."""
        return (*self.others, *(one.outcome for one in self.auxiliary))

    def _relations(self) -> None:
        low, high = self.minimum, self.maximum
        if low is not None and high is not None and not low < high:
            raise FieldError("maximum", wanted=f"above minimum = {low}", got=high)
        if low is not None and self.default < low:
            raise FieldError("default", wanted=f"at least minimum = {low}", got=self.default)
        if high is not None and self.default > high:
            raise FieldError("default", wanted=f"at most maximum = {high}", got=self.default)
        names = [one.outcome for one in self.auxiliary]
        if self.outcome in names:
            raise FieldError("auxiliary", wanted="outcomes other than the reward's", got=self.outcome)
        if len(set(names)) != len(names):
            raise FieldError("auxiliary", wanted="outcomes that differ from each other", got=names)


class BaselineSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reference that the policy is measured against, and that decides when there is no policy.

    Attributes:
        kind: ``uniform``, ``first`` for the first action offered (the application's own choice), ``ranking`` for the
            order offered as the application's own ranking, or ``auto``, which is ``first`` in apprentice mode and
            ``uniform`` otherwise.
        steepness: of ``ranking``: the action at place r is drawn in proportion to r to the power of minus this.
        explore: share of uniform draws mixed into the baseline while it answers online, so that there is something to
            learn from the first request on: Personalizer's exploration percentage, divided by 100. Other modes return
            what the baseline says.
    """

    kind: Literal["auto", "uniform", "first", "ranking"] = "auto"
    steepness: Steepness = 1.0
    explore: Share = 0.2


class Variant(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What another configuration of a training does differently; what is not given is as in the loop's settings.

    Attributes:
        oracle: see `PolicySettings`.
        interactions: see there.
        ridge: see there.
        learning_rate: see there.
        bag: see there.
        generations: see `TrainingSettings`.
        decay: see there.
        reservoir: see there.
        importance: see there.
        average: see there.
        warm_start: see there.
        passes: see there.
    """

    oracle: OracleKind | None = None
    interactions: bool | None = None
    ridge: Positive | None = None
    learning_rate: Positive | None = None
    bag: Bag | None = None
    generations: Generations | None = None
    decay: Decay | None = None
    reservoir: Generations | None = None
    importance: Importance | None = None
    average: Average | None = None
    warm_start: bool | None = None
    passes: Passes | None = None


class TrainingSettings(DataRules, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a generation learns from.

    Attributes:
        days: how far back interactions are looked at, in days before the newest; 0 for all.
        sample: how many decisions after which nothing happened are learned from at most, and how many of the others:
            of more, a sample is taken in which every row counts as often as it has to; 0 for all. It bounds the memory
            of a training whose oracle is not ``logistic``.
        window: former setting: look at this many of the latest interactions, whatever their age, in place of `days`;
            0 for all.
        passes: times the ``vw`` oracle goes through the data.
        holdout: share of the interactions kept out of training for evaluation and the gate.
        minimum: interactions below which no generation is trained.
        margin: a version keeps the champion's best action where its own model expects at most so much less of it than
            of the best one, in deviations of rewards about the model (sigma); 0 to keep nothing. .04 more than halves
            how often best actions change at night.
        variants: further configurations, as ``[{decay = 1.0}, {oracle = "vw"}]``: each learns from all but the
            newest generation, and the one that predicts that best is trained on everything and goes to the gate.
    """

    days: NotNegative = 90.0
    sample: Annotated[int, msgspec.Meta(ge=0)] = 500_000
    window: Annotated[int, msgspec.Meta(ge=0)] | None = None
    passes: Passes = PASSES
    holdout: Annotated[float, msgspec.Meta(gt=0, lt=0.9)] = 0.2
    minimum: Count = 200
    margin: NotNegative = 0.0
    variants: Annotated[tuple[Variant, ...], msgspec.Meta(max_length=16)] = ()


class GateSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a candidate is promoted.

    Attributes:
        alpha: error probability, between two proven versions, of letting one take over that loses more than the margin.
        share: of what the champion and the last proven version gain over the baseline, so much may be lost; 0 asks for
            a proven gain.
        margin: in place of `share`, so many reward units may be lost; left out, `share` decides.
        minimum_ess: smallest effective sample size on which a verdict is given.
        session_steps: for a policy with memory: first decisions of each user that are weighed as one trajectory; 0 for
            as many as the number of users allows, at most 20.
    """

    alpha: ErrorRate = 0.05
    share: Share = 0.05
    margin: NotNegative | None = None
    minimum_ess: Positive = 50.0
    session_steps: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0


class FeatureSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Online features, looked up by ``subject_id`` at decision time, and which of the context's are not to be believed.

    Attributes:
        enabled: look features up and log the snapshot.
        stream: push decayed statistics of each subject's outcomes back as features.
        half_life_s: half-life of those statistics, in seconds.
        cache_s: how long what was looked up for a subject may be served again, in seconds, where nobody has written to
            the store meanwhile; 0 for not at all.
        supplied_by_caller: features of the context that whom the decision is about can write, as ``["age",
            "device.model"]``, with all that stands below them: ``policy.cap`` bounds what they can do.
    """

    enabled: bool = False
    stream: bool = True
    half_life_s: Positive = 3600.0
    cache_s: NotNegative = 10.0
    supplied_by_caller: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=200)], ...], msgspec.Meta(max_length=100)
    ] = ()


class GuardSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a version that passed the gate is rolled out: mixed in only as far as the evidence allows.

    Attributes:
        enabled: the gate makes a version the candidate, and the guard decides what becomes of it; without, the gate
            makes it the champion.
        alpha: share of the expected reward of the policy in charge that may be given up; also the weight that a
            candidate gets without evidence.
        delta: error probability of each test: of serving a weight that breaks the promise, of stopping a candidate
            that is no worse, of promoting one that is no better.
        holdout: share that the policy in charge keeps at the top, so that it stays measurable.
        spacing: distance between weights.
        cap: largest weight that is served; below the top a candidate is never promoted.
        ttl_s: how long a published weight holds, in seconds. Then the candidate gets alpha at most, and nothing ten
            times later: choose it longer than the time between two runs of `decision guard`.
        fresh_s: how long a replica that State does not answer goes on serving the candidate, in seconds: it cannot
            know whether the candidate was stopped.
        batch: decisions between two looks of the drift detector.
        segment: path of a context field, dotted, whose listed values have weights of their own; "" for one weight.
        segments: those values, at most 16; all others share a weight. The error is shared evenly.
        unit: what is drawn from the mixture at once: each `decision`, or by one coin all of a `slate` (the slots of a
            request, whose rewards are averaged) or of an `episode` (the requests of an ``episode_id``, pinned to the
            versions and the weight at its first one, whose rewards are added).
        episode_s: how long after its first decision an episode is over, in seconds.
        episode_maximum: largest sum of the rewards of an episode; what is above is cut. Left out, it is the largest
            that the training of a policy with memory saw, and 1 for others.
    """

    enabled: bool = False
    alpha: ErrorRate = _GUARD.alpha
    delta: ErrorRate = _GUARD.delta
    holdout: ErrorRate = 0.05
    spacing: Spacing = _GUARD.spacing
    cap: Share = 1.0
    ttl_s: Positive = 90_000.0
    fresh_s: Positive = 60.0
    batch: DriftBatch = _GUARD.batch
    segment: Annotated[str, msgspec.Meta(max_length=200)] = ""
    segments: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=200)], ...], msgspec.Meta(max_length=16)
    ] = ()
    unit: Literal["decision", "slate", "episode"] = "decision"
    episode_s: Positive = 1800.0
    episode_maximum: Positive | None = None

    def _relations(self) -> None:
        if bool(self.segment) != bool(self.segments):
            wanted = "given where segment names a field, and only there"
            raise FieldError("segments", wanted=wanted, got=self.segments)
        if len(set(self.segments)) != len(self.segments):
            raise FieldError("segments", wanted="values that differ from each other", got=self.segments)


class FairnessSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The panel of auditors who review pairs of similar people treated differently.

    Attributes:
        enabled: pairs are mined for the panel; upheld ones cost in training and count at the gate.
        protected: names of context features that auditors never see and similarity never uses: protected attributes,
            names, ids. A name hides every feature with it anywhere in its path.
        treatment: the compared action in words, as auditors read it; it should not be the name of an action.
        action: the action whose probability is compared; "" for whichever differs most.
        unit: what is compared: the probability of an `action`, or its `exposure` over the slots of a decision.
        auditors: members drawn for each pair.
        quorum: share of those who judged that must see a violation.
        sensitivity: what a gap must exceed the largest acceptable one by.
        minimum: judgements without which a panel gives no verdict.
        deadline_s: time to judge a pair, in seconds.
        cost: multiplier of the upheld pairs' penalty at the start of a training; raised while their gaps stay.
        standing: share of the upheld pairs that may still violate when a version is promoted.
        rate: largest violation rate among near pairs that the probe's upper bound may reach at the gate.
        evidence: judged probe pairs without which the gate says that the evidence is too little.
        agreement: Krippendorff's alpha of the panel without which it says the same.
        clamp: keep upheld pairs alike at decision time too: requests that look like one of their people are answered
            with probabilities within what the panel accepts.
        clamp_by: whose word a clamp takes: the ``panel``'s alone, or beside it that of ``each_type`` of three auditors
            or more who call some pairs unfair, where there are several: what one of them holds to be fair is not
            clamped.
    """

    enabled: bool = False
    protected: tuple[str, ...] = ()
    treatment: str = "being given the treatment under review"
    action: str = ""
    unit: Literal["action", "exposure"] = "action"
    auditors: Auditors = _PANEL.auditors
    quorum: Quorum = _PANEL.quorum
    sensitivity: Share = _PANEL.sensitivity
    minimum: Auditors = _PANEL.minimum
    deadline_s: Positive = _PANEL.deadline_s
    cost: Positive = 8.0
    standing: Share = 0.02
    rate: Share = 0.05
    evidence: Annotated[int, msgspec.Meta(ge=0)] = 300
    agreement: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.2
    clamp: bool = False
    clamp_by: Literal["panel", "each_type"] = "each_type"

    def _relations(self) -> None:
        if self.minimum > self.auditors:
            raise FieldError("minimum", wanted=f"at most auditors = {self.auditors}", got=self.minimum)


class RetentionSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long `decision tidy`, the last step of a night, leaves things; what loops share stays as long as any asks.

    Attributes:
        log_days: a message of a log in the home folder that is in the lake, in days; longer where a reward window is,
            and until the memories of users have read it; 0 for ever. A broker has a retention of its own.
        lake_days: earlier versions of the lake's tables, which a night that is resumed and a replay by version read, in
            days; 0 for ever. Rows of the latest version stay.
        runs_days: manifests of nights, in days; the latest 30 stay; 0 for ever.
        imports_days: imported logs, in days after the import; 0 for ever.
        versions_days: files and plots of a version, in days since it was made, was in charge or rolled out, or a
            verdict was passed on it; 0 for ever. The latest 30 stay, and those that are in charge or that a rollback or
            the gate goes back to.
        features_days: what a stream's features were before they changed, in days; 0 for ever. What they are stays.
        access_days: how often a subject of the issuer asked, in days since it last did; 0 for ever.
    """

    log_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 7
    lake_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 7
    runs_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 90
    imports_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 0
    versions_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 90
    features_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 365
    access_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 90

    def _relations(self) -> None:
        if self.lake_days == 1:
            raise FieldError("lake_days", wanted="0, or 2 and more: a night is resumed for a day", got=1)


class LoopSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One loop: a decision point with its actions, reward definition, baseline, policy and gate.

    Attributes:
        name: the loop's name, that of its folder.
        tenant: whose it is: keys of another tenant do not see it; "" for the installation's own.
        hosts: host names, in small letters and without a port, under which Personalizer's paths lead to this loop.
        mode: what is returned: the drawn action (``online``), or the baseline's while the policy's distribution is
            logged beside it (``apprentice``) or is not asked for (``logging_only``).
        deferred: a decision counts only once an outcome named ``activation`` was reported for it.
        reward: how outcomes become a reward.
        baseline: the reference policy.
        policy: oracle and exploration rule of newly trained policies.
        training: what a generation learns from.
        session: how a policy with memory is trained, where the oracle is `session`.
        gate: when a candidate is promoted.
        guard: how a candidate is rolled out.
        features: online features, looked up at decision time.
        fairness: the panel of auditors, and what their verdicts change.
        retention: how long things are kept.
    """

    name: str
    tenant: Annotated[str, msgspec.Meta(pattern="^([a-z0-9][a-z0-9_-]{0,63})?$")] = ""
    hosts: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9.:\[\]_-]{1,253}$")], ...], msgspec.Meta(max_length=64)
    ] = ()
    mode: Mode = "online"
    deferred: bool = False
    reward: RewardSettings = RewardSettings()
    baseline: BaselineSettings = BaselineSettings()
    policy: PolicySettings = PolicySettings()
    training: TrainingSettings = TrainingSettings()
    session: SessionRules = SessionRules()
    gate: GateSettings = GateSettings()
    guard: GuardSettings = GuardSettings()
    features: FeatureSettings = FeatureSettings()
    fairness: FairnessSettings = FairnessSettings()
    retention: RetentionSettings = RetentionSettings()

    @property
    def reference(self) -> Literal["uniform", "first", "ranking"]:
        """The kind of the baseline."""
        if self.baseline.kind == "auto":
            return "first" if self.mode == "apprentice" else "uniform"
        return self.baseline.kind

    @property
    def steepness(self) -> float:
        """How fast the ranking of the order offered falls; 0 where the order is none."""
        return self.baseline.steepness if self.reference == "ranking" else 0.0

    @property
    def explored(self) -> float:
        """Share of uniform draws in what the baseline answers in charge: in online mode, unless it is uniform."""
        return self.baseline.explore if self.mode == "online" and self.reference != "uniform" else 0.0

    def _relations(self) -> None:
        if self.policy.exploration == "tilt" and self.reference != "ranking":
            wanted = "'ranking' where policy.exploration is 'tilt', which re-weights one; without, it is 'softmax'"
            raise FieldError("baseline.kind", wanted=wanted, got=self.baseline.kind)
        if self.guard.unit == "episode" and self.reward.minimum not in (None, 0.0):
            wanted = f"'decision' or 'slate' where reward.minimum is {self.reward.minimum}, not 0"
            raise FieldError("guard.unit", wanted=wanted, got=self.guard.unit)
        if self.training.margin:
            self._margin_relations()
        if self.reward.auxiliary:
            self._auxiliary_relations()
        if self.policy.oracle == SESSION:
            self._session_relations()

    def _margin_relations(self) -> None:
        beside = {
            "policy.oracle": (self.policy.oracle == SESSION, "a session policy decides by its memories"),
            "policy.exploration": (
                self.policy.exploration in ("thompson", "regcb"),
                f"{self.policy.exploration} asks each model of many, and not for a best action",
            ),
            "fairness.enabled": (self.fairness.enabled, "an action that is kept could part an upheld pair again"),
            "features.supplied_by_caller": (
                bool(self.features.supplied_by_caller),
                "what is kept would follow what callers wrote to former models",
            ),
        }
        for field, (clashes, why) in beside.items():
            if clashes:
                raise FieldError("training.margin", wanted=f"0 beside {field}: {why}", got=self.training.margin)
        for one in (self.training, *self.training.variants):
            if one.warm_start or (one.average or 1) > 1:
                wanted = "0 beside warm_start or average, which go on with former models in their own way"
                raise FieldError("training.margin", wanted=wanted, got=self.training.margin)

    def _auxiliary_relations(self) -> None:
        if self.policy.oracle == SESSION:
            wanted = "empty where policy.oracle is 'session', which learns from the reward alone"
            raise FieldError("reward.auxiliary", wanted=wanted, got=Words("given"))
        for one in (self.training, *self.training.variants):
            if one.warm_start or (one.average or 1) > 1:
                wanted = "empty beside warm_start or average: models of other nights have learned other sums"
                raise FieldError("reward.auxiliary", wanted=wanted, got=Words("given"))

    def _session_relations(self) -> None:
        if self.policy.exploration != "softmax":
            wanted = "'softmax' where policy.oracle is 'session', whose head is one"
            raise FieldError("policy.exploration", wanted=wanted, got=self.policy.exploration)
        if not self.features.enabled:
            wanted = "true where policy.oracle is 'session': memories are looked up like features"
            raise FieldError("features.enabled", wanted=wanted, got=Words("false"))
        if self.training.variants:
            wanted = "empty where policy.oracle is 'session'; session.also names further methods"
            raise FieldError("training.variants", wanted=wanted, got=Words("given"))
        if self.features.supplied_by_caller:
            wanted = "empty where policy.oracle is 'session', which reads no features of the context"
            raise FieldError("features.supplied_by_caller", wanted=wanted, got=Words("given"))
