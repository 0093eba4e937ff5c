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
from decision.oracles.factory import load_oracle
from decision.policy import OraclePolicy

MANIFEST_FILE = "manifest.json"
MAX_BYTES = 512 << 20
BESIDE = (PROFILE_FILE,)
"""Files of a version that are none of its model's."""


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
    files: dict[str, str] = {}


def pack(policy: OraclePolicy, manifest: Manifest, beside: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Return the policy's files with its manifest, whose `files` are filled in.

    Args:
        policy: what is packed.
        manifest: where it comes from.
        beside: {name: bytes} of files that no model reads, `BESIDE`.
    """
    files = {**policy.oracle.save(), **(beside or {})}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    stored = msgspec.structs.replace(
        manifest,
        files=hashes,
        exploration=policy.exploration,
        features_version=policy.features_version,
        action_ids=policy.action_ids,
    )
    return {**files, MANIFEST_FILE: msgspec.json.format(msgspec.json.encode(stored), indent=2)}


def manifest_of(files: dict[str, bytes]) -> Manifest:
    """Return the manifest in `files`; the other files are not looked at.

    Raises:
        FieldError: there is none, or it cannot be read.
    """
    try:
        return msgspec.json.decode(files[MANIFEST_FILE], type=Manifest)
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
    oracle = load_oracle(manifest.oracle, {name: data for name, data in files.items() if name not in BESIDE})
    policy = OraclePolicy(
        oracle,
        manifest.exploration,
        features_version=manifest.features_version,
        action_ids=manifest.action_ids,
    )
    return policy, manifest
