"""A trained policy as files: native model files and a manifest that says where they come from. Never a pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from decision.drift import PROFILE_FILE
from decision.errors import FieldError, Words
from decision.exploration.rule import Exploration
from decision.features import VERSION
from decision.options import Cap
from decision.oracles.factory import load_oracle
from decision.policy import CappedPolicy, OraclePolicy
from decision.validation import prepared

MANIFEST_FILE = "manifest.json"
MAX_BYTES = 512 << 20
BESIDE = (PROFILE_FILE,)
"""Files of a version that are none of its model's."""
TRUSTED = "trusted-"
"""What the names of the trusted model's files begin with."""


class Trusted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a policy with a cap that does not see what the caller supplies.

    Attributes:
        supplied: names of the context features that it was trained without, see `decision.exploration.cap`.
        cap: no probability is more than cap + 1 times this part's.
        oracle: kind of its reward model.
        exploration: its rule.
    """

    supplied: tuple[str, ...]
    cap: Cap
    oracle: str
    exploration: Exploration


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a policy comes from: enough to rebuild it.

    Attributes:
        schema_version: of this manifest.
        loop: the decision point.
        oracle: kind of reward model, see `decision.oracles.factory`.
        exploration: the rule under which it is served.
        action_ids: the model reads the actions' ids as features; versions of before do not.
        reward: definition of the reward it was trained on.
        training: settings of the training.
        data: table versions, offsets, time range and rows that were read.
        seed: of every random choice in training.
        code_version: version of this code.
        libraries: versions of the libraries that shaped the model.
        created_at: time of training, ISO 8601.
        parent: version it replaces, "" for none.
        features_version: of the rules by which the features it learned from were flattened, see `decision.features`.
        trusted: of a policy with a cap, the part that does not see what the caller supplies; None without a cap.
        files: SHA-256 by name.
    """

    schema_version: int = 1
    loop: str
    oracle: str
    exploration: Exploration
    action_ids: bool = False
    reward: dict[str, Any] = {}
    training: dict[str, Any] = {}
    data: dict[str, Any] = {}
    seed: int
    code_version: str
    libraries: dict[str, str] = {}
    created_at: str
    parent: str = ""
    features_version: int = 1
    trusted: Trusted | None = None
    files: dict[str, str] = {}


def pack(policy: OraclePolicy, manifest: Manifest, beside: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Return the policy's files with its manifest, whose `files` are filled in.

    Args:
        policy: what is packed.
        manifest: where it comes from; of a policy with a cap it has the kind of the `trusted` model.
        beside: {name: bytes} of files that no model reads, `BESIDE`.

    Raises:
        FieldError: the policy has a cap and the manifest does not say so, or the other way round.
    """
    files, trusted = {**policy.oracle.save(), **(beside or {})}, manifest.trusted
    if (trusted is None) == isinstance(policy, CappedPolicy):
        raise FieldError("trusted", wanted="given for a policy with a cap, and only there", got=trusted)
    if trusted is not None and isinstance(policy, CappedPolicy):
        files |= {TRUSTED + name: data for name, data in policy.trusted.oracle.save().items()}
        near = policy.trusted.exploration
        trusted = msgspec.structs.replace(trusted, supplied=policy.supplied, cap=policy.cap, exploration=near)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    stored = msgspec.structs.replace(
        manifest,
        files=hashes,
        exploration=policy.exploration,
        features_version=policy.features_version,
        action_ids=policy.action_ids,
        trusted=trusted,
    )
    body = msgspec.to_builtins(stored)
    # Releases that know of no cap and no ranking go on reading versions that have none.
    if trusted is None:
        del body["trusted"]
    if not policy.exploration.steepness:
        del body["exploration"]["steepness"]
    return {**files, MANIFEST_FILE: msgspec.json.format(msgspec.json.encode(body), indent=2)}


def manifest_of(files: dict[str, bytes]) -> Manifest:
    """Return the manifest in `files`; the other files are not looked at.

    Raises:
        FieldError: there is none, or it cannot be read.
    """
    try:
        return msgspec.json.decode(files[MANIFEST_FILE], type=prepared(Manifest))
    except (KeyError, msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FieldError(MANIFEST_FILE, wanted="a manifest", got=error) from error


def unpack(files: dict[str, bytes]) -> tuple[OraclePolicy, Manifest]:
    """Return the policy in `files` and its manifest, every hash verified.

    Raises:
        FieldError: a file is missing, unexpected, too large, changed, or of an unknown kind.
    """
    if sum(len(data) for data in files.values()) > MAX_BYTES:
        raise FieldError("files", wanted=f"at most {MAX_BYTES} bytes", got=sum(len(data) for data in files.values()))
    manifest = manifest_of(files)
    if manifest.schema_version != 1:
        raise FieldError("schema_version", wanted="1", got=manifest.schema_version)
    names = set(files) - {MANIFEST_FILE}
    if names != set(manifest.files):
        raise FieldError("files", wanted=f"{sorted(manifest.files)}", got=sorted(names))
    for name, digest in manifest.files.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise FieldError(f"files.{name}", wanted=f"a file of SHA-256 {digest}", got=Words("another"))
    if not 1 <= manifest.features_version <= VERSION:
        raise FieldError("features_version", wanted=f"between 1 and {VERSION}", got=manifest.features_version)
    policy = _loaded(manifest.oracle, model_of(files), manifest.exploration, manifest)
    trusted = manifest.trusted
    if trusted is None:
        return policy, manifest
    near = _loaded(trusted.oracle, model_of(files, trusted=True), trusted.exploration, manifest)
    return CappedPolicy(policy, near, supplied=trusted.supplied, cap=trusted.cap), manifest


def model_of(files: Mapping[str, bytes], *, trusted: bool = False) -> dict[str, bytes]:
    """Return the files of a version's model, or of its `trusted` one, under the names that the model gave them."""
    if trusted:
        return {name.removeprefix(TRUSTED): data for name, data in files.items() if name.startswith(TRUSTED)}
    others = (MANIFEST_FILE, *BESIDE)
    return {name: data for name, data in files.items() if name not in others and not name.startswith(TRUSTED)}


def _loaded(kind: str, files: dict[str, bytes], exploration: Exploration, manifest: Manifest) -> OraclePolicy:
    return OraclePolicy(
        load_oracle(kind, files),
        exploration,
        features_version=manifest.features_version,
        action_ids=manifest.action_ids,
    )
