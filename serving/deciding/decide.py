"""From requests to decision records: pure, each on one snapshot of policy and versions.

Whatever is answered comes from one snapshot, is validated before it is drawn from, and is drawn by the event's own
seed; the record holds everything that is needed to draw it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import msgspec

from decision.batch import Features
from decision.draw import draw, seed_of
from decision.errors import DecisionError, FieldError
from decision.exploration.mix import check_one, with_floor_few
from decision.exploration.slate import Completion
from decision.features import VERSION, flatten
from decision.features import looked_up as prefixed
from decision.guard.coin import candidate_has
from decision.guard.snapshot import segment_of, weight_at
from decision.policy import features_version_of
from decision.protocols import Policy
from decision.records import SCHEMA_VERSION, Decision
from pipelines.log.slates import in_slot
from pipelines.settings import LoopSettings
from serving.deciding.question import Catalogue, Question
from serving.snapshot import Snapshot
from serving.wire import DecideResponse, Ranked, Slot, SlotAnswer

_encode = msgspec.json.encode
_NO_FEATURES = msgspec.Raw(b"{}")
_T = TypeVar("_T")


class Ask(NamedTuple):
    """One request and what answers it.

    Attributes:
        question: what is asked.
        snapshot: what answers.
        event_id: the decision's id.
        looked_up: features of the subject.
    """

    question: Question
    snapshot: Snapshot
    event_id: str
    looked_up: Mapping[str, Any]


def decide(asks: Sequence[Ask], ts: datetime) -> list[list[Decision] | Exception]:
    """Return the records of each request, one or one per slot, or why it has none.

    Those that offer the same actions to the same policy are scored together; each one's records are, bit for bit, what
    they would be if it came alone.

    Args:
        asks: the requests.
        ts: now, UTC.

    Returns:
        For each the records or an error: a `FieldError` where a feature does not fit or nothing is left to choose from,
        and whatever the policy raised.
    """
    ready = [_kept(_ready, ask, ts) for ask in asks]
    _score_together([each for each in ready if not isinstance(each, Exception)])
    return [each if isinstance(each, Exception) else _kept(_records, each) for each in ready]


def _kept(call: Callable[..., _T], *args: Any) -> _T | Exception:
    try:
        return call(*args)
    except Exception as error:
        return error


def _ready(ask: Ask, ts: datetime) -> _Asked:
    question, snapshot, event_id, looked_up = ask
    context = flatten(question.context, field="context")
    snapshot_json = _NO_FEATURES
    if looked_up:
        context |= prefixed(looked_up)
        snapshot_json = msgspec.Raw(_encode(looked_up))
    seen = Seen(context, question.context, looked_up)
    return _Asked(question, snapshot, _share(question, snapshot, event_id, ts), event_id, ts, snapshot_json, seen, {})


def _score_together(asked: Sequence[_Asked]) -> None:
    """Fill in the probabilities of those that ask one policy about the same actions."""
    together: dict[tuple[int, int], list[_Asked]] = {}
    policies: dict[int, Policy] = {}
    for each in asked:
        if each.question.slots is not None or each.snapshot.loop.mode == "logging_only":
            continue
        for policy in (each.snapshot.policy, each.snapshot.candidate if each.share.weight > 0.0 else None):
            if policy is not None:
                policies[id(policy)] = policy
                together.setdefault((id(policy), id(each.question.actions)), []).append(each)
    for (policy_id, _), some in together.items():
        if len(some) == 1:
            continue
        pmfs = _kept(_pmfs, policies[policy_id], some)
        if not isinstance(pmfs, Exception):  # else one of them is at fault, and each is asked alone
            for each, pmf in zip(some, pmfs, strict=True):
                each.known[policy_id] = pmf


def _pmfs(policy: Policy, asked: Sequence[_Asked]) -> list[list[float]]:
    return asked[0].question.actions.pmfs_of(policy)([each.seen.by(policy) for each in asked])


def _records(asked: _Asked) -> list[Decision]:
    question, seen = asked.question, asked.seen
    if question.slots is None:
        return [_record(asked, "", question.raw_context, seen, question.actions)]
    records: list[Decision] = []
    for position, eligible in _eligible(question.actions, question.slots, records):
        slot = question.slots[position]
        raw, own = question.raw_context, seen
        if slot.features:
            value = {**question.context, "slot": slot.features}
            plain = "slot" not in question.context
            raw = msgspec.Raw(in_slot(bytes(raw), _encode(slot.features)) if plain else _encode(value))
            own = seen.in_slot(value, f"slots[{position}].features")
        records.append(_record(asked, slot.id, raw, own, eligible, slot.baseline_action))
    return records


def _eligible(
    offered: Catalogue, slots: Sequence[Slot], records: Sequence[Decision]
) -> Iterator[tuple[int, Catalogue]]:
    """Yield each slot's position and what it may be given, so that every later slot can still be filled.

    Whoever iterates appends the slot's record to `records` before asking for the next.

    Raises:
        FieldError: the slots cannot all be filled; names the first that cannot, beside those before it.
    """
    excluding = any(slot.excluded_actions for slot in slots)
    bits = {action_id: 1 << i for i, action_id in enumerate(offered.ids)} if excluding else {}
    everything = (1 << len(offered.ids)) - 1
    allowed = [everything & ~sum({bits.get(out, 0) for out in slot.excluded_actions}) for slot in slots]
    completion = Completion(allowed) if excluding else None
    missing = len(offered.ids) if completion is None else completion.missing
    if missing is not None and missing < len(slots):
        raise FieldError(
            f"slots[{missing}]",
            wanted="an action of its own",
            got=None,
            says="must leave at least one action to choose, beside those of the slots before",
        )
    drawn: list[str] = []
    for position in range(len(slots)):
        out = drawn
        if completion is not None:
            choices = completion.choices(position)
            out = [action_id for action_id, bit in bits.items() if not bit & choices]
        left = offered.without(out)
        if left is None:
            raise AssertionError("an action was left")
        yield position, left
        last = records[-1]
        drawn = [*drawn, last.action_ids[last.action_index]]
        if completion is not None:
            completion.give(position, bits[drawn[-1]])


class Seen(NamedTuple):
    """What is known of the context, in one slot or in all.

    Attributes:
        features: flattened, the looked-up ones among them.
        value: the context as it came, the slot's features in it.
        looked_up: what was looked up.
    """

    features: Features
    value: Mapping[str, Any]
    looked_up: Mapping[str, Any]

    def by(self, policy: Policy) -> Features:
        """Return the features flattened as those that `policy` learned from."""
        version = features_version_of(policy)
        if version == VERSION:
            return self.features
        return flatten(self.value, field="context", version=version) | prefixed(self.looked_up, version=version)

    def in_slot(self, value: Mapping[str, Any], field: str) -> Seen:
        """Return the same with the slot's features, which `value` has under "slot" and a request at `field`.

        Raises:
            FieldError: one of them does not fit.
        """
        own = flatten({"slot": value["slot"]}, field=field)
        if any(name.startswith("slot") for name in self.value):  # names may meet: flattened as the record will be
            features = flatten(value, field="context") | prefixed(self.looked_up)
        else:
            features = self.features | own
        return Seen(features, value, self.looked_up)


class _Asked(NamedTuple):
    """What all slots of a request share; `known` has the probabilities that are there already, by the policy's `id`."""

    question: Question
    snapshot: Snapshot
    share: _Share
    event_id: str
    ts: datetime
    looked_up: msgspec.Raw
    seen: Seen
    known: dict[int, list[float]]


class _Share(NamedTuple):
    """The candidate's weight, and where one coin decides for a whole slate or episode, whether it fell for it."""

    weight: float
    side: bool | None


_ALONE = _Share(0.0, None)
_CLOSE = 1e-9


def _share(question: Question, snapshot: Snapshot, event_id: str, ts: datetime) -> _Share:
    guard = snapshot.guard
    if snapshot.candidate is None or guard is None or snapshot.loop.mode != "online":
        return _ALONE
    unit_id: str | None = event_id
    if guard.unit == "episode":
        weight, unit_id = snapshot.pinned or 0.0, question.episode_id
    else:
        weight = weight_at(guard, ts.timestamp(), segment_of(question.context, guard.segment, guard.weights))
    if weight <= 0.0 or unit_id is None:
        return _ALONE
    return _Share(weight, None if guard.unit == "decision" else candidate_has(snapshot.loop.name, unit_id, weight))


def _record(
    asked: _Asked,
    slot: str,
    raw_context: msgspec.Raw,
    seen: Seen,
    offered: Catalogue,
    own: str | None = None,
) -> Decision:
    question, snapshot, share, event_id, ts, looked_up, _, known = asked
    loop = snapshot.loop
    pmf_baseline = _baseline_pmf(snapshot.baseline, offered, seen.features, own)
    pmf_candidate: list[float] | None = None
    weight = 0.0
    version = snapshot.policy_version
    if loop.mode == "logging_only":
        pmf = pmf_baseline
    elif loop.mode == "apprentice":
        # What is returned is the baseline's; the policy's own distribution is logged beside it.
        pmf = pmf_baseline
        if snapshot.policy is not None:
            pmf_candidate = _pmf(snapshot.policy, offered, seen, known)
            check_one(pmf_candidate)
    else:
        charge = snapshot.policy
        pmf = _exploring(loop, pmf_baseline) if charge is None else _pmf(charge, offered, seen, known)
        if share.weight > 0.0 and snapshot.candidate is not None:
            pmf_candidate = _candidate_pmf(snapshot.candidate, offered, seen, known)
            if pmf_candidate is not None:
                weight = share.weight
                # The guard compares the candidate with the policy in charge: that is the mixture's reference.
                check_one(pmf)
                pmf_baseline = pmf
                if share.side is None:
                    pmf = [(1.0 - weight) * p + weight * q for p, q in zip(pmf, pmf_candidate, strict=True)]
                elif share.side:
                    pmf = pmf_candidate
    check_one(pmf)
    seed = seed_of(loop.name, event_id, slot)
    index = draw(pmf, seed)
    return Decision(
        schema_version=SCHEMA_VERSION,
        loop=loop.name,
        event_id=event_id,
        slot=slot,
        ts=ts,
        subject_id=question.subject_id,
        episode_id=question.episode_id,
        step=question.step,
        context=raw_context,
        actions=offered.raw,
        action_ids=offered.ids,
        pmf=pmf,
        action_index=index,
        propensity=pmf[index],
        pmf_baseline=pmf_baseline,
        pmf_candidate=pmf_candidate,
        guard_weight=weight,
        guard_version=snapshot.guard_version,
        mode=loop.mode,
        deferred=loop.deferred if question.deferred is None else question.deferred,
        policy_version=version,
        baseline_version=snapshot.baseline_version,
        feature_snapshot=looked_up,
        seed=seed,
        settings_version=snapshot.settings_version,
    )


def _baseline_pmf(baseline: Policy, offered: Catalogue, context: Features, own: str | None) -> list[float]:
    """Return the reference's distribution; the application's `own` choice, where it named one, counts as first."""
    if own is None or own == offered.ids[0] or own not in offered.ids:
        return offered.pmfs_of(baseline)((context,))[0]
    first, *others = offered.led_by(own).pmfs_of(baseline)((context,))[0]
    at = offered.ids.index(own)
    return [*others[:at], first, *others[at:]]


def _exploring(loop: LoopSettings, pmf: list[float]) -> list[float]:
    """Return what answers where nothing was learned yet: the baseline's `pmf`, mixed with uniform draws."""
    return pmf if loop.reference == "uniform" else with_floor_few(pmf, loop.baseline.explore)


def _pmf(policy: Policy, offered: Catalogue, seen: Seen, known: Mapping[int, list[float]]) -> list[float]:
    found = known.get(id(policy))
    return offered.pmfs_of(policy)((seen.by(policy),))[0] if found is None else found


def _candidate_pmf(
    candidate: Policy, offered: Catalogue, seen: Seen, known: Mapping[int, list[float]]
) -> list[float] | None:
    """Return the candidate's distribution, None when it has none: then the policy in charge answers alone."""
    try:
        pmf = _pmf(candidate, offered, seen, known)
        check_one(pmf)
    except (DecisionError, RuntimeError, ArithmeticError, LookupError):
        return None
    return pmf


def answer(records: Sequence[Decision]) -> DecideResponse:
    """Return the response that tells of `records`."""
    first = records[0]
    slots = None
    if first.slot:
        slots = [SlotAnswer(r.slot, r.action_ids[r.action_index], r.propensity, ranking(r)) for r in records]
    return DecideResponse(
        first.event_id,
        first.action_ids[first.action_index],
        first.propensity,
        ranking(first),
        first.policy_version,
        first.mode,
        slots,
    )


def ranking(record: Decision) -> list[Ranked]:
    """Return the drawn action first, the others by falling probability."""
    ids, pmf, drawn = record.action_ids, record.pmf, record.action_index
    order = sorted(range(len(pmf)), key=pmf.__getitem__, reverse=True)  # stable: those alike stay as they were offered
    order.remove(drawn)
    return [Ranked(ids[i], pmf[i]) for i in (drawn, *order)]


def is_same_request(stored: Sequence[Decision], fresh: Sequence[Decision], question: Question) -> bool:
    """Return whether two sets of records answer the same question, whatever policy drew them.

    Args:
        stored: the records on disk.
        fresh: the records that the repeated request would make.
        question: the repeated request. Where it leaves `deferred` to the loop, whose setting may have changed, that is
            not compared.
    """
    if [r.slot for r in stored] != [r.slot for r in fresh]:
        return False
    if _question(stored[0], question.deferred) != _question(fresh[0], question.deferred):
        return False
    if question.slots is None:
        return True
    # Later slots depend on earlier draws: each must have been offered what this request leaves after the stored ones.
    given: list[Decision] = []
    for (_, left), record in zip(_eligible(question.actions, question.slots, given), stored, strict=True):
        if left.ids != record.action_ids:
            return False
        given.append(record)
    return all(
        msgspec.json.decode(a.context) == msgspec.json.decode(b.context) and not _other_choice(a, b)
        for a, b in zip(stored, fresh, strict=True)
    )


def _other_choice(stored: Decision, fresh: Decision) -> bool:
    """Return whether two records of a slot tell of different choices of the application's own: all else is the same."""
    alike = ("baseline_version", "mode", "guard_weight", "action_ids", "feature_snapshot")
    if any(getattr(stored, name) != getattr(fresh, name) for name in alike) or fresh.guard_weight > 0.0:
        return False
    one, other = stored.pmf_baseline, fresh.pmf_baseline
    return one is not None and other is not None and max(abs(p - q) for p, q in zip(one, other, strict=True)) > _CLOSE


def _question(record: Decision, given_deferred: bool | None) -> tuple[Any, ...]:
    return (
        record.loop,
        record.subject_id,
        record.episode_id,
        record.step,
        record.action_ids,
        msgspec.json.decode(record.context),
        msgspec.json.decode(record.actions),
        None if given_deferred is None else record.deferred,
    )
