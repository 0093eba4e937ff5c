"""Training of a generation: the window's rows, a cold oracle, the loop's exploration rule, and a version registered.

The same rows, settings, code and seed give the same model bytes; the manifest says which they were. Generations start
cold: an oracle that resumes from its parent forgets and remembers at the pleasure of the order of the data.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

import decision
from decision.artifact import Manifest, pack
from decision.contracts import Oracle
from decision.errors import SupportError
from decision.oracles.linear import LinearOracle, LinearSettings
from decision.policy import Exploration, OraclePolicy
from pipelines.interactions import to_interactions
from pipelines.lake import Lake
from pipelines.registry import Registry
from pipelines.settings import LoopSettings
from pipelines.window import Data, window

POLICY = "policy"
"""Value of the tag ``kind`` of versions that a training made."""

_LIBRARIES = ("numpy", "scipy", "vowpalwabbit")


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """A registered generation.

    Attributes:
        version: its version.
        rows: decisions it learned from.
        metrics: ``train.*`` numbers.
        data: where its rows come from.
    """

    version: str
    rows: int
    metrics: dict[str, float]
    data: Data


def train(
    lake: Lake,
    registry: Registry,
    loop: LoopSettings,
    *,
    seed: int,
    now: datetime,
    table_version: int | None = None,
    key: str = "",
) -> Trained:
    """Learn a policy from the loop's window and register it; nobody is promoted.

    Args:
        lake: the tables.
        registry: where the version goes.
        loop: the loop; its policy and training settings decide what is learned.
        seed: of every random choice.
        now: time of the training, UTC, for the manifest.
        table_version: version of the interactions table to read; None for the present one.
        key: a training repeated under the same key returns the version of the first.

    Raises:
        SupportError: there are fewer rows than the loop's minimum.
        RegistryError: the registry cannot be reached.
    """
    rows = window(lake, loop, table_version)
    if rows.data.rows < loop.training.minimum or not len(rows.training):
        raise SupportError(f"loop {loop.name} has {rows.data.rows} interactions, {loop.training.minimum} are needed")
    interactions = to_interactions(rows.training)
    oracle = _new_oracle(loop, seed)
    oracle.fit(interactions)
    policy = OraclePolicy(oracle, _exploration(loop))
    parent = registry.aliases(loop.name).get("champion", "")
    manifest = Manifest(
        loop=loop.name,
        oracle=loop.policy.oracle,
        exploration=policy.exploration,
        reward=msgspec.to_builtins(loop.reward),
        training={**msgspec.to_builtins(loop.training), **msgspec.to_builtins(loop.policy)},
        data=msgspec.to_builtins(rows.data),
        seed=seed,
        code_version=code_version(),
        libraries={name: importlib.metadata.version(name) for name in _LIBRARIES},
        created_at=now.astimezone(UTC).isoformat(),
        parent=parent,
    )
    metrics = {
        "train.rows": float(len(interactions)),
        "train.mean_reward": float(interactions.reward.mean()),
        "train.holdout_rows": float(rows.data.holdout),
    }
    version = registry.register(
        loop.name,
        pack(policy, manifest),
        metrics=metrics,
        params=_params(manifest),
        tags={"kind": POLICY, "code_version": manifest.code_version, "parent": parent},
        key=key,
    )
    return Trained(version=version, rows=len(interactions), metrics=metrics, data=rows.data)


@cache
def code_version() -> str:
    """Return this code's version: the release, and a digest of the sources that shape a model."""
    folder = Path(str(decision.__file__)).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\x00".encode() + path.read_bytes())
    return f"{importlib.metadata.version('decision-service')}+{digest.hexdigest()[:12]}"


def _new_oracle(loop: LoopSettings, seed: int) -> Oracle:
    low, high = loop.reward.minimum, loop.reward.maximum
    if loop.policy.oracle == "linear":
        return LinearOracle(LinearSettings(interactions=loop.policy.interactions, low=low, high=high))
    from decision.oracles.vw import VwOracle, VwSettings

    return VwOracle(
        VwSettings(
            interactions=loop.policy.interactions,
            learning_rate=loop.policy.learning_rate,
            bits=loop.policy.bits,
            passes=loop.training.passes,
            seed=seed,
            low=low,
            high=high,
        )
    )


def _exploration(loop: LoopSettings) -> Exploration:
    rule = loop.policy
    return Exploration(kind=rule.exploration, gamma=rule.gamma, epsilon=rule.epsilon, floor=rule.floor)


def _params(manifest: Manifest) -> dict[str, Any]:
    data = {f"data.{name}": value for name, value in manifest.data.items()}
    return {"seed": manifest.seed, "code_version": manifest.code_version, **manifest.training, **data}
