"""A trained policy tried before it is registered: packed, loaded again, asked, and compared with the one in memory.

A model that cannot be loaded, or that gives no distribution on some request, would stop every service and every night
that met it. Here it stops its own training, with the reason, and the loop keeps its champion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from decision.artifact import Manifest, pack, unpack
from decision.batch import Batch, Features, Interactions, Ints
from decision.columns import FeatureRows, joined
from decision.errors import SupportError
from decision.exploration.mix import check_pmf
from decision.features import MAX_NUMBER
from decision.oracles.encoder import NOTHING_LEFT_OUT, LeftOut
from decision.oracles.ensemble import EnsembleOracle
from decision.policy import CappedPolicy, OraclePolicy
from decision.protocols import Oracle
from decision.ragged import ragged_offsets

ROWS = 64
"""Rows that were learned from, on which a policy is tried."""
_NAMES = 32
_NUMBERS = (MAX_NUMBER, -MAX_NUMBER, 1e-300, 0.0)
_CLOSE = 1e-9
_NAMED, _SHOWN = 20, 80


class Probe:
    """The first rows that a training reads, kept on their way; and requests at the limits, made of their names."""

    def __init__(self) -> None:
        self._rows: Batch | None = None

    def watching(self, chunks: Iterable[tuple[Interactions, Ints]]) -> Iterator[tuple[Interactions, Ints]]:
        """Yield `chunks` as they are."""
        for chunk in chunks:
            if self._rows is None and len(chunk[0]):
                self._rows = chunk[0].batch.take(np.arange(min(ROWS, len(chunk[0])), dtype=np.int64))
            yield chunk

    def batch(self) -> Batch:
        """Return the rows, and behind them the first one's actions under contexts, and with features, at the limits."""
        rows = self._rows
        if rows is None:
            raise SupportError("there is no row to try the policy on")
        names = list(dict.fromkeys(name for context in rows.contexts for name in context))[:_NAMES]
        own = list(dict.fromkeys(name for action in rows.actions for name in action))[:_NAMES]
        k = int(rows.offsets[1])
        ids = list(rows.action_ids[:k])
        contexts: list[Features] = [{}, {"never seen |: \u00fc": 1.0}]
        actions: list[Features] = [*[dict(action) for action in rows.actions[:k]], *[{}] * k]
        for number in _NUMBERS:
            contexts.append(dict.fromkeys(names, number))
            actions += [dict.fromkeys(own, number)] * k
        sizes = np.append(np.diff(rows.offsets), np.full(len(contexts), k))
        return Batch(
            joined([FeatureRows.of(rows.contexts), FeatureRows.of(contexts)]),
            joined([FeatureRows.of(rows.actions), FeatureRows.of(actions)]),
            [*rows.action_ids, *ids * len(contexts)],
            ragged_offsets(sizes.astype(np.int64)),
        )


@contextmanager
def unfit_is_refused(loop: str) -> Iterator[None]:
    """Turn what a learner raises into a `SupportError`: rows that cannot be learned from stop no night."""
    try:
        yield
    except (SupportError, OSError, MemoryError):
        raise
    except Exception as error:
        raise SupportError(f"loop {loop} could not be trained: {type(error).__name__}: {error}") from error


def alarms_of(oracle: Oracle, unread: Mapping[str, str]) -> list[str]:
    """Return what a training left out, in words.

    Args:
        oracle: as it was fitted; its members, where it has some, are looked at in turn.
        unread: {event id: why the row could not be read}.
    """
    alarms: list[str] = []
    if unread:
        event, why = next(iter(unread.items()))
        alarms.append(f"{len(unread)} rows could not be read and were left out, among them {event}: {why}")
    members = [each for _, each in oracle.members_by_kind] if isinstance(oracle, EnsembleOracle) else [oracle]
    for side in LeftOut._fields:
        names = list(dict.fromkeys(name for each in members for name in getattr(left_out_of(each), side)))
        if names:
            shown = ", ".join(name[:_SHOWN] for name in names[:_NAMED])
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            alarms.append(
                f"{len(names)} {side} features found no room and were left out, the most frequent of them {shown}{more}"
            )
    return alarms


def left_out_of(oracle: Oracle) -> LeftOut:
    """Return the names of the columns that the last fit of `oracle` had no room for."""
    found: object = getattr(oracle, "left_out", NOTHING_LEFT_OUT)
    return found if isinstance(found, LeftOut) else NOTHING_LEFT_OUT


def packed(
    policy: OraclePolicy, manifest: Manifest, probe: Probe, beside: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    """Return the policy's files, tried.

    Args:
        policy: as it was trained.
        manifest: of the version.
        probe: what it learned from.
        beside: {name: bytes} of files that no model reads, see `pack`.

    Raises:
        SupportError: the files do not load, or the loaded policy is not the one that was trained.
    """
    batch = probe.batch()
    try:
        files = pack(policy, manifest, beside)
        again, _ = unpack(files)
        scores, wanted = again.scores(batch), policy.scores(batch)
        check_pmf(again.pmf_of(scores, batch), batch.offsets)
        if isinstance(again, CappedPolicy) and isinstance(policy, CappedPolicy):
            scores = np.append(scores, again.trusted.scores(batch))
            wanted = np.append(wanted, policy.trusted.scores(batch))
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise SupportError(f"the trained policy cannot be served: {type(error).__name__}: {error}") from error
    if not np.allclose(scores, wanted, rtol=_CLOSE, atol=_CLOSE):
        off = float(np.abs(scores - wanted).max())
        raise SupportError(f"the trained policy scores otherwise once it is loaded, by up to {off:.3g}")
    return files
