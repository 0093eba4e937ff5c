"""Several oracles as one: the mean of the last generations' models, or a bag of models on bootstrapped rows.

Averaging damps what one generation's log happened to hold (Polyak and Juditsky 1992, on models instead of iterates). In
a bag every row counts Poisson(1) times for every member (Oza and Russell 2001; Eckles and Kaptein 2014), and the
members' disagreement is what Thompson-like rules explore by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from decision.batch import Batch, Floats, Interactions
from decision.errors import FieldError, Words
from decision.oracles.files.members import LoadMember, load_members, member_files
from decision.protocols import Oracle

SETTINGS_FILE = "ensemble.json"
MAX_MEMBERS = 64


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    kinds: list[str]
    bootstrap: bool
    seed: int
    fits: int


_stored = msgspec.json.Decoder(_Stored).decode  # made at import, which one thread does


class EnsembleOracle:
    """The mean of its members' predictions.

    Attributes:
        members_by_kind: each member with the name its class is loaded by.
    """

    def __init__(
        self, members_by_kind: Sequence[tuple[str, Oracle]], *, bootstrap: bool = False, seed: int = 0, fits: int = 0
    ) -> None:
        if not 1 <= len(members_by_kind) <= MAX_MEMBERS:
            raise FieldError("members", wanted=f"1 to {MAX_MEMBERS}", got=len(members_by_kind))
        self.members_by_kind = list(members_by_kind)
        self._bootstrap, self._seed, self._fits = bootstrap, seed, fits

    def fit(self, interactions: Interactions) -> None:
        """Fit every member, in a bag on rows that count Poisson(1) times; called again, each resumes."""
        for number, (_, member) in enumerate(self.members_by_kind):
            if self._bootstrap:
                times = np.random.default_rng([self._seed, self._fits, number]).poisson(1.0, len(interactions))
                member.fit(replace(interactions, weight=interactions.weights * times))
            else:
                member.fit(interactions)
        self._fits += 1

    def predict(self, batch: Batch) -> Floats:
        """Return [m] mean expected rewards."""
        return self.members(batch).mean(axis=0)

    def members(self, batch: Batch) -> Floats:
        """Return [S, m] expected rewards of every member."""
        return np.stack([member.predict(batch) for _, member in self.members_by_kind])

    def save(self) -> dict[str, bytes]:
        """Return the members' files, numbered, and what they are as JSON."""
        kinds = [kind for kind, _ in self.members_by_kind]
        stored = _Stored(kinds, self._bootstrap, self._seed, self._fits)
        files = {SETTINGS_FILE: msgspec.json.encode(stored)}
        return files | member_files((member for _, member in self.members_by_kind), "member")

    @classmethod
    def load(cls, files: dict[str, bytes], load_member: LoadMember) -> EnsembleOracle:
        """Return the ensemble that `save` described.

        Args:
            files: by name.
            load_member: kind and files -> oracle.

        Raises:
            FieldError: a file is missing or does not fit, or a member is an ensemble.
        """
        try:
            stored = _stored(files[SETTINGS_FILE])
        except (KeyError, msgspec.DecodeError) as error:
            raise FieldError(SETTINGS_FILE, wanted="an ensemble", got=error) from error
        if "ensemble" in stored.kinds or len(stored.kinds) > MAX_MEMBERS:
            raise FieldError(
                SETTINGS_FILE, wanted=f"at most {MAX_MEMBERS} members that are no ensembles", got=Words("not")
            )
        members = load_members(files, stored.kinds, "member", load_member)
        return cls(members, bootstrap=stored.bootstrap, seed=stored.seed, fits=stored.fits)
