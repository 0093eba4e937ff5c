"""The Open Bandit logs evaluated off-policy, each policy on the other's log, beside what it really earned.

Both policies ran in the same week on the same site, so an estimate can be held against the click rate of the policy
itself. The random policy is known exactly. Of the other, Thompson sampling without context, only propensities of shown
items are published: it is replayed as the shares with which it showed each item at each position, its average.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pyarrow as pa

from decision.batch import Batch, Floats
from decision.ope.diagnostics.propensities import PropensityReport
from decision.ope.estimate import Estimate
from decision.policy import UniformPolicy
from decision.protocols import Policy
from pipelines.formats.open_bandit import ATTRIBUTION, CAMPAIGNS, POLICIES, find_logs, read_open_bandit, shipped_sample
from pipelines.formats.store import load_import, save_import
from pipelines.replay.propensities import check_propensities
from pipelines.replay.replay import Replay, replay
from pipelines.settings import Settings

POSITIONS = ("1", "2", "3")


class LogStudy(msgspec.Struct, frozen=True, kw_only=True):
    """One log with the other policy evaluated on it.

    Attributes:
        log: name of the import.
        campaign: ``all``, ``men`` or ``women``.
        logging: the policy that drew it.
        clicks: rewards of 1 in it.
        propensities: whether its propensities can be believed.
        replay: the other policy on this log.
        own: the other policy's click rate in its own log, what the estimates should come to.
    """

    log: str
    campaign: str
    logging: str
    clicks: int
    propensities: PropensityReport
    replay: Replay
    own: Estimate


class PositionShares:
    """A policy that knows nothing but the position: each item with a fixed probability at each position.

    Args:
        shares: {position: {action_id: probability}}.
    """

    def __init__(self, shares: dict[str, dict[str, float]]) -> None:
        self._shares = shares

    def pmf(self, batch: Batch) -> Floats:
        """Return [m] probabilities."""
        out = np.empty(len(batch.actions))
        cuts = batch.offsets.tolist()
        table: dict[str, Floats] = {}
        for row, context in enumerate(batch.contexts):
            position = next(name for name in POSITIONS if f"position={name}" in context)
            if position not in table:
                ids = batch.action_ids[cuts[row] : cuts[row + 1]]
                table[position] = np.array([self._shares[position].get(action_id, 0.0) for action_id in ids])
            out[cuts[row] : cuts[row + 1]] = table[position]
        return out

    @classmethod
    def of(cls, rows: pa.Table) -> PositionShares:
        """Return the shares with which the items of a log were shown at each position."""
        shares: dict[str, dict[str, float]] = {}
        positions = [msgspec.json.decode(text)["position"] for text in rows["context"].to_pylist()]
        for position, ids, index in zip(
            positions, rows["action_ids"].to_pylist(), rows["action_index"].to_pylist(), strict=True
        ):
            counts = shares.setdefault(position, {})
            counts[ids[index]] = counts.get(ids[index], 0.0) + 1.0
        return cls(
            {
                position: {action_id: count / sum(counts.values()) for action_id, count in counts.items()}
                for position, counts in shares.items()
            }
        )


def study_open_bandit(
    settings: Settings, *, prefix: str = "open-bandit", progress: Callable[[str], None] | None = None
) -> list[LogStudy]:
    """Import the shipped sample and evaluate each policy on the other's log.

    Args:
        settings: the installation that the logs are imported into.
        prefix: of the imports' names.
        progress: told of each log.
    """
    names: dict[tuple[str, str], str] = {}
    for policy, campaign, folder in find_logs(shipped_sample()):
        name = names[policy, campaign] = f"{prefix}-{policy}-{campaign}"
        save_import(
            settings,
            name,
            read_open_bandit(folder, name=name),
            format="open-bandit",
            source=f"sample/{policy}/{campaign}",
            attribution=ATTRIBUTION,
        )
    studies: list[LogStudy] = []
    for campaign in CAMPAIGNS:
        logs = {policy: load_import(settings, names[policy, campaign]) for policy in POLICIES}
        policies: dict[str, tuple[str, Policy]] = {
            "bts": ("uniform", UniformPolicy()),
            "random": ("average Thompson sampling", PositionShares.of(logs["bts"])),
        }
        for logging, rows in logs.items():
            if progress is not None:
                progress(f"{campaign}, logged by {logging}")
            words, policy = policies[logging]
            other = logs["random" if logging == "bts" else "bts"]
            studies.append(_study(names[logging, campaign], campaign, logging, rows, other, words, policy))
    return studies


def _study(
    name: str, campaign: str, logging: str, rows: pa.Table, other: pa.Table, words: str, policy: Policy
) -> LogStudy:
    result = replay(rows, policy, log=name, policy_name=words, reward_model="means", force=True)
    report = result.propensities if result.propensities is not None else check_propensities(rows)
    return LogStudy(
        log=name,
        campaign=campaign,
        logging=logging,
        clicks=int(rows["reward"].to_numpy().sum()),
        propensities=report,
        replay=result,
        own=_mean(other["reward"].to_numpy()),
    )


def _mean(reward: Floats) -> Estimate:
    mean, error = float(reward.mean()), float(reward.std(ddof=1) / np.sqrt(len(reward)))
    return Estimate(mean, mean - 1.96 * error, mean + 1.96 * error, 0.95, len(reward), float(len(reward)))
