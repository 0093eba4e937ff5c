"""Ties go to the champion: a new model leaves its action only for one that it expects clearly more of.

    b = argmax f,      a = the champion's action;      where f_a >= f_b - margin, the scores of a and b change places.

Which of two equally good actions a model finds best is the noise of its last fit, and a policy that follows it jumps
from night to night for nothing. A policy is a discontinuous function of the reward only where optimal actions tie
("policy cliff": Xu 2025, arXiv 2507.20150), so that is where to hold on to it; a softmax that is as calm costs reward
everywhere.

The champion's action is that of its own rule, which may have kept its predecessor's. So the predecessors' models are
asked, too, up to `MOST` of them; the oldest one follows its scores. What probabilities the actions have is the
exploration rule's business: it gets the same scores, two of them exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from decision.batch import Batch, Floats, Interactions, Ints
from decision.errors import FieldError
from decision.options import NotNegative
from decision.oracles.files.members import LoadMember, load_members, member_files
from decision.protocols import Oracle
from decision.ragged import group_argmax

SETTINGS_FILE = "kept.json"
MOST = 6
"""Former models that are asked: each costs as much as the new one."""


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    kinds: list[str]
    margins: list[NotNegative]


_stored = msgspec.json.Decoder(_Stored).decode  # made at import, which one thread does


class KeptOracle:
    """The newest of some models, with ties for the action that those before it led to.

    Attributes:
        members_by_kind: [s] models, oldest first, each with the name that its class is loaded by.
        margins: [s] what each forgoes for its predecessor's action at most, in reward units; the first is not used.
    """

    def __init__(self, members_by_kind: Sequence[tuple[str, Oracle]], margins: Sequence[float]) -> None:
        if not 1 <= len(members_by_kind) <= MOST + 1:
            raise FieldError("members", wanted=f"1 to {MOST + 1}", got=len(members_by_kind))
        if len(margins) != len(members_by_kind) or not all(0.0 <= each < np.inf for each in margins):
            raise FieldError("margins", wanted=f"{len(members_by_kind)} finite numbers of 0 or more", got=margins)
        self.members_by_kind, self.margins = list(members_by_kind), [*margins]

    def fit(self, interactions: Interactions) -> None:
        """Fit the newest model; the others stay as they decided."""
        self.members_by_kind[-1][1].fit(interactions)

    def predict(self, batch: Batch) -> Floats:
        """Return [m] expected rewards of the newest model, two of a decision exchanged where it keeps an action."""
        scores = [member.predict(batch) for _, member in self.members_by_kind]
        return kept(scores, batch.offsets, margins=self.margins)

    def save(self) -> dict[str, bytes]:
        """Return the models' files, numbered, and what they are as JSON."""
        stored = _Stored([kind for kind, _ in self.members_by_kind], self.margins)
        files = {SETTINGS_FILE: msgspec.json.encode(stored)}
        return files | member_files((member for _, member in self.members_by_kind), "kept")

    @classmethod
    def load(cls, files: dict[str, bytes], load_member: LoadMember) -> KeptOracle:
        """Return the oracle that `save` described.

        Args:
            files: by name.
            load_member: kind and files -> oracle.

        Raises:
            FieldError: a file is missing or does not fit, or a member keeps actions itself.
        """
        try:
            stored = _stored(files[SETTINGS_FILE])
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(SETTINGS_FILE, wanted="models and margins", got=error) from error
        if "kept" in stored.kinds or len(stored.kinds) > MOST + 1:
            raise FieldError(SETTINGS_FILE, wanted=f"at most {MOST + 1} models that keep nothing", got=stored.kinds)
        members = load_members(files, stored.kinds, "kept", load_member)
        return cls(members, stored.margins)


def kept(scores: Sequence[Floats], offsets: Ints, *, margins: Sequence[float]) -> Floats:
    """Return [m] the newest scores, in each decision the best and the kept action's exchanged.

    Args:
        scores: [s] of [m] expected rewards under each model, oldest first, s >= 1.
        offsets: [n + 1].
        margins: [s], as `KeptOracle`.
    """
    taken = group_argmax(scores[0], offsets)
    best = taken
    for one, margin in zip(scores[1:], margins[1:], strict=True):
        best = group_argmax(one, offsets)
        with np.errstate(over="ignore"):
            taken = np.where(one[best] - one[taken] <= margin, taken, best)
    found = scores[-1].copy()
    found[taken], found[best] = scores[-1][best], scores[-1][taken]
    return found


def kept_after(former: tuple[str, Oracle], new: tuple[str, Oracle], margin: float) -> KeptOracle:
    """Return `new` with ties for what `former`, each the name of its class and the oracle, does.

    Args:
        former: the champion's; of one that keeps actions itself, the newest `MOST` models.
        new: the model of this training.
        margin: what may be forgone for the champion's action, in reward units, 0 or more.
    """
    kind, oracle = former
    if isinstance(oracle, KeptOracle):
        members, margins = oracle.members_by_kind[-MOST:], oracle.margins[-MOST:]
    else:
        members, margins = [(kind, oracle)], [0.0]
    return KeptOracle([*members, new], [*margins, margin])
