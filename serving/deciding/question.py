"""What is asked, read once: the context as it came and as features, and the offered actions, parsed before or now.

Applications offer the same catalogue again and again. Actions are known by the bytes they came as; what depends on
them alone (ids, flattened features, how a policy scores them) is made once and shared by all requests that bring the
same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import msgspec

from decision.batch import Features, one
from decision.errors import FieldError
from decision.features import VERSION, flatten
from decision.policy import Pmfs, features_version_of
from decision.protocols import Policy
from serving.wire import MAX_BATCH, Action, BatchRequest, DecideRequest, Slot, check_action_ids, check_decide, decode

_MAX_CATALOGUES, _MAX_BYTES = 1_000, 16 << 20
_FORMS, _SUBSETS = 3, 8
_encode = msgspec.json.encode
_NO_FEATURES = msgspec.Raw(b"{}")


class _RawAction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    features: msgspec.Raw = _NO_FEATURES


def _raw_field(field: msgspec.structs.FieldInfo) -> Any:
    if field.required:
        return field.name, msgspec.Raw if field.name in {"context", "actions"} else field.type
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = msgspec.field(default_factory=cast("Callable[[], Any]", field.default_factory))
    return field.name, field.type, default


_RawRequest = msgspec.defstruct(
    "_RawRequest",
    [_raw_field(field) for field in msgspec.structs.fields(DecideRequest)],
    forbid_unknown_fields=True,
    gc=False,
)
_decode_request = msgspec.json.Decoder(_RawRequest).decode
_decode_batch = msgspec.json.Decoder(
    msgspec.defstruct("_RawBatch", [("decisions", list[_RawRequest])], forbid_unknown_fields=True)
).decode
_whole_batch = msgspec.json.Decoder(BatchRequest)
_whole_request = msgspec.json.Decoder(DecideRequest)
_decode_actions = msgspec.json.Decoder(list[_RawAction]).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


@runtime_checkable
class _Prepares(Protocol):
    def prepare(self, actions: Sequence[Features], action_ids: Sequence[str]) -> Pmfs: ...


class Catalogue:
    """Actions as offered, in their order.

    Args:
        ids: [k] their ids, distinct.
        features: [k] their flattened features.
        objects: [k] their features as JSON objects.

    Attributes:
        ids: [k].
        features: [k].
        raw: JSON list of the feature objects.
    """

    __slots__ = ("_forms", "_objects", "_subsets", "features", "ids", "raw")

    def __init__(self, ids: list[str], features: Sequence[Features], objects: Sequence[bytes]) -> None:
        self.ids = ids
        self.raw = msgspec.Raw(b"[" + b",".join(objects) + b"]")
        self.features, self._objects = features, objects
        self._forms: list[tuple[Policy, Pmfs]] = []
        self._subsets: dict[frozenset[str], Catalogue] = {}

    def pmfs_of(self, policy: Policy) -> Pmfs:
        """Return what gives `policy`'s probabilities of these actions in any contexts."""
        for known, form in self._forms:
            if known is policy:
                return form
        form: Pmfs
        version, features = features_version_of(policy), self.features
        if version != VERSION:
            features = [flatten(_decode_object(each), field="features", version=version) for each in self._objects]
        if isinstance(policy, _Prepares):
            form = policy.prepare(features, self.ids)
        else:
            form = _unprepared(policy, features, self.ids)
        # the policy in charge, a candidate and the baseline; what was swapped out goes
        self._forms = [*self._forms[-_FORMS + 1 :], (policy, form)]
        return form

    def without(self, excluded: Sequence[str]) -> Catalogue | None:
        """Return what is left when the ids in `excluded` are taken out; None for nothing."""
        out = frozenset(excluded).intersection(self.ids)
        if not out:
            return self
        if len(out) == len(self.ids):
            return None
        known = self._subsets.get(out)
        if known is None:
            kept = [i for i, action_id in enumerate(self.ids) if action_id not in out]
            known = Catalogue(
                [self.ids[i] for i in kept], [self.features[i] for i in kept], [self._objects[i] for i in kept]
            )
            if len(self._subsets) < _SUBSETS:
                self._subsets[out] = known
        return known

    def led_by(self, action_id: str) -> Catalogue:
        """Return the same actions with one of them, `action_id`, at the head."""
        at = self.ids.index(action_id)
        order = [at, *(i for i in range(len(self.ids)) if i != at)]
        return Catalogue(
            [self.ids[i] for i in order], [self.features[i] for i in order], [self._objects[i] for i in order]
        )


class Catalogues:
    """Parsed actions by their bytes: the latest thousand, at most 16 MB of JSON. Safe to share between threads."""

    def __init__(self) -> None:
        self._young: dict[bytes, Catalogue] = {}
        self._old: dict[bytes, Catalogue] = {}
        self._bytes = 0

    def of(self, text: bytes) -> Catalogue:
        """Return the actions in the JSON list `text`.

        Raises:
            FieldError: an id or a feature does not fit.
            msgspec.DecodeError: it is no list of actions.
        """
        known = self._young.get(text)
        if known is not None:
            return known
        known = self._old.get(text) or _parsed(text)
        # Two halves, of which the older is dropped whole: the least recently used go without a list of uses.
        if len(self._young) >= _MAX_CATALOGUES // 2 or self._bytes > _MAX_BYTES // 2:
            self._old, self._young, self._bytes = self._young, {}, 0
        self._young[text] = known
        self._bytes += len(text)
        return known


class Question(NamedTuple):
    """One request, checked.

    Attributes:
        context: JSON object of features.
        raw_context: the same as JSON.
        actions: what may be chosen, less the excluded.
        event_id: the decision's id, if the caller chose one.
        subject_id: whom it is for.
        episode_id: session it belongs to.
        step: 0-based position in the session.
        deferred: counts only once activated; the loop's setting when None.
        slots: positions to fill one after another.
    """

    context: Mapping[str, Any]
    raw_context: msgspec.Raw
    actions: Catalogue
    event_id: str | None = None
    subject_id: str | None = None
    episode_id: str | None = None
    step: int | None = None
    deferred: bool | None = None
    slots: Sequence[Slot] | None = None


def read_question(body: bytes, catalogues: Catalogues) -> Question:
    """Return the question in the JSON `body`.

    Raises:
        FieldError: naming the first field that does not fit.
    """
    try:
        return raw_question(_decode_request(body), catalogues)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return question_of(decode(_whole_request, body), catalogues)  # which says what is wrong


def read_questions(body: bytes, catalogues: Catalogues) -> list[Question | Exception]:
    """Return the questions in the JSON `body` of a batch; where one does not fit, the error that says why.

    Raises:
        FieldError: it is no batch, or one of its parts has another type than it must.
    """
    try:
        requests: list[Any] = _decode_batch(body).decisions  # pyright: ignore[reportAttributeAccessIssue]
        _check_batch(requests)
        return [_kept(raw_question, request, catalogues) for request in requests]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        whole = decode(_whole_batch, body).decisions
        _check_batch(whole)
        return [_kept(question_of, request, catalogues) for request in whole]


def _check_batch(requests: Sequence[Any]) -> None:
    if not 1 <= len(requests) <= MAX_BATCH:
        raise FieldError("decisions", wanted=f"1 to {MAX_BATCH} decisions", got=len(requests))


def _kept(read: Callable[[Any, Catalogues], Question], request: Any, catalogues: Catalogues) -> Question | Exception:
    try:
        return read(request, catalogues)
    except FieldError as error:
        return error


def raw_question(request: Any, catalogues: Catalogues) -> Question:
    """Return the question of a request whose context and actions are raw JSON.

    Raises:
        FieldError: naming the first field that does not fit.
        msgspec.DecodeError: context or actions are not what they must be.
    """
    context = _decode_object(request.context)
    check_decide(request)
    return _question(request, context, request.context, catalogues.of(bytes(request.actions)))


def question_of(request: DecideRequest, catalogues: Catalogues) -> Question:
    """Return the question of a request in memory.

    Raises:
        FieldError: naming the first field that does not fit.
    """
    check_decide(request)
    try:
        text, raw = _encode(request.actions), msgspec.Raw(_encode(request.context))
    except (TypeError, ValueError, OverflowError, RecursionError):
        flatten(request.context, field="context")  # say what is no feature
        _offered(request.actions)
        raise
    # JSON has no NaN and says null for it, so such actions cannot be known by their bytes
    offered = _offered(request.actions) if b"null" in text else catalogues.of(text)
    return _question(request, request.context, raw, offered)


def _question(
    request: DecideRequest, context: Mapping[str, Any], raw_context: msgspec.Raw, actions: Catalogue
) -> Question:
    for position, slot in enumerate(request.slots or ()):
        if slot.baseline_action is not None and slot.baseline_action not in actions.ids:
            raise FieldError(f"slots[{position}].baseline_action", wanted="an offered action", got=slot.baseline_action)
    if request.excluded_actions:
        left = actions.without(request.excluded_actions)
        if left is None:
            raise FieldError(
                "excluded_actions",
                wanted="at least one action left to choose",
                got=request.excluded_actions,
                says="must leave at least one action to choose",
            )
        actions = left
    return Question(
        context,
        raw_context,
        actions,
        request.event_id,
        request.subject_id,
        request.episode_id,
        request.step,
        request.deferred,
        request.slots,
    )


def _parsed(text: bytes) -> Catalogue:
    actions = _decode_actions(text)
    ids = [action.id for action in actions]
    check_action_ids(ids)
    features = [
        flatten(_decode_object(action.features), field=f"actions[{i}].features") for i, action in enumerate(actions)
    ]
    return Catalogue(ids, features, [bytes(action.features) for action in actions])


def _offered(actions: Sequence[Action]) -> Catalogue:
    ids = [action.id for action in actions]
    check_action_ids(ids)
    features = [flatten(action.features, field=f"actions[{i}].features") for i, action in enumerate(actions)]
    return Catalogue(ids, features, [_encode(action.features) for action in actions])


def _unprepared(policy: Policy, features: Sequence[Features], ids: Sequence[str]) -> Pmfs:
    return lambda contexts: [policy.pmf(one(each, features, ids)).tolist() for each in contexts]
