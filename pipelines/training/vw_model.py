"""A model file of Vowpal Wabbit as a version of a loop, without one decision of its own.

It is what Personalizer's "model get" or VW's ``-f`` gave. It draws as its file says, ``--epsilon``; a file of
``--cb_adf`` says nothing of drawing, and the loop's share holds.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import msgspec
import numpy as np

from decision.artifact import Manifest, pack, unpack
from decision.batch import Batch
from decision.errors import FieldError
from decision.exploration.mix import check_pmf
from decision.exploration.rule import Exploration
from decision.oracles.adf.oracle import AdfOracle, AdfSettings
from decision.oracles.adf.shape import Shape
from decision.policy import OraclePolicy
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings
from pipelines.training.train import ENDS, exploration_of, no_cap_of_a_file
from pipelines.training.trained import POLICY, code_version, libraries

MAX_FILE = 64 << 20
"""Bytes of a model file."""
PERSONALIZER = (-1.0, 1.0)
"""Rewards that a file of Personalizer's may have learned from."""
_ORACLE = "vw"
_PROBE = Batch(
    [{}, {"hour": 1e15, "day=monday": 1.0}], [{}, {"size": -1e15}, {"size": 1.0}], ["a", "b", "a"], np.array([0, 1, 3])
)


class VwModel(msgspec.Struct, frozen=True, kw_only=True):
    """A file that became a version.

    Attributes:
        version: the version.
        bits: the table has 2^bits weights.
        epsilon: share of uniform draws under which it decides.
        sha256: of the file.
    """

    version: str
    bits: int
    epsilon: float
    sha256: str


def register_vw_model(
    registry: Registry, loop: LoopSettings, data: bytes, *, name: str, now: datetime, shape: Shape = "personalizer"
) -> VwModel:
    """Register a model file; it is nobody's champion yet. The same file is one version, however often it comes.

    Args:
        registry: where the version goes.
        loop: the loop that it will decide for.
        data: the file.
        name: of the file, for messages and the manifest.
        now: UTC; what is logged from now on is what a warm start goes on with.
        shape: of the lines that it learned from.

    Raises:
        FieldError: it is no model of ``--cb_adf`` or ``--cb_explore_adf``, has options that are not read, or the loop
            has features that the caller supplies.
        RegistryError: the registry cannot be reached.
    """
    if len(data) > MAX_FILE:
        raise FieldError(name, wanted=f"at most {MAX_FILE} bytes", got=len(data))
    no_cap_of_a_file(loop)
    oracle = AdfOracle(data, AdfSettings(shape=shape), name=name)
    exploration = _exploration(loop, oracle.head.epsilon)
    at, digest = now.astimezone(UTC).isoformat(), hashlib.sha256(data).hexdigest()
    policy = OraclePolicy(oracle, exploration)
    manifest = Manifest(
        loop=loop.name,
        oracle=_ORACLE,
        exploration=exploration,
        reward=msgspec.to_builtins(loop.reward),
        training={"oracle": _ORACLE, "vw_model": name, "sha256": digest, "shape": shape},
        seed=0,
        code_version=code_version(),
        libraries=libraries(),
        created_at=at,
    )
    files = pack(policy, manifest)
    again, _ = unpack(files)
    try:
        check_pmf(again.pmf(_PROBE), _PROBE.offsets)
    except FieldError as error:
        raise FieldError(name, wanted="a VW model that predicts finite costs", got=error) from error
    version = registry.register(
        loop.name,
        files,
        params={"vw_model": name, "sha256": digest, "bits": oracle.head.bits, "epsilon": exploration.epsilon},
        tags={"kind": POLICY, "code_version": manifest.code_version, "parent": "", ENDS: at},
        key=f"{_ORACLE}:{digest}:{shape}:{exploration.epsilon!r}",
    )
    return VwModel(version=version, bits=oracle.head.bits, epsilon=exploration.epsilon, sha256=digest)


def put_in_charge(
    registry: Registry, loop: str, version: str, *, by: str, now: datetime, reason: str, mirror: bool = True
) -> bool:
    """Make a version the champion without asking the gate, and return whether it was not.

    Args:
        registry: the versions.
        loop: name of the loop.
        version: which.
        by: who asks, for the record.
        now: time of the verdict, UTC.
        reason: where the version comes from, in words.
        mirror: as in `Registry.set_alias`.

    Raises:
        RegistryError: the registry cannot be reached.
    """
    if registry.aliases(loop).get("champion") == version:
        return False
    verdict = {"verdict": "set", "reasons": [reason], "by": by, "at": now.astimezone(UTC).isoformat()}
    registry.set_alias(loop, "champion", version, verdict, mirror=mirror)
    return True


def _exploration(loop: LoopSettings, epsilon: float | None) -> Exploration:
    """Return the rule that a file draws by; the loop's floor under one that would draw nothing uniformly."""
    given = exploration_of(loop, 0.0)
    share = loop.policy.epsilon if epsilon is None else epsilon
    return msgspec.structs.replace(
        given,
        kind="epsilon_greedy",
        epsilon=share,
        low=min(given.low, PERSONALIZER[0]),
        high=max(given.high, PERSONALIZER[1]),
        floor=0.0 if share > 0.0 else given.floor,
    )
