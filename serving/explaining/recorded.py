"""What is on record under an event id: in the spool, in the lake, or nowhere any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from decision.errors import DecisionError
from decision.protocols import Policy
from decision.records import Decision, Outcome, decode_decision, decode_outcome
from pipelines.log.protocol import DECISIONS, OUTCOMES, Message, of_loop, partition_of
from pipelines.log.slates import whole
from pipelines.settings import Settings
from serving.counters import LakeCounters
from serving.errors import ErasedDecisionError, UnknownDecisionError
from serving.explaining.explain import ExplainedDecision, Explanation, explained
from serving.loops import Loops
from serving.spool import Spool


class Recorded:
    """Finds decisions and outcomes by event id, and explains them. All of it blocks.

    Args:
        settings: the installation.
        loops: has the versions that are in use, and loads others.
        spool: what this process took.
        lake: what other replicas took, or this one long ago.
        erased: whether State tells of an erasure of an event.
    """

    def __init__(
        self, settings: Settings, loops: Loops, spool: Spool, lake: LakeCounters, erased: Callable[[bytes], bool]
    ) -> None:
        self._settings, self._loops, self._spool = settings, loops, spool
        self._lake, self._erased = lake, erased

    def kept(self, topic: str, event_id: str, loop: str) -> list[Message]:
        """Return what the spool has under `event_id`, of `loop`, or of all loops where that is ""."""
        return of_loop(self._spool.find(topic, event_id.encode()), loop)

    def stored(self, event_id: str, loop: str = "") -> list[Decision]:
        """Return the records on disk under `event_id`, of `loop`, or of the first that decided it.

        Raises:
            UnknownDecisionError: there are none.
            ErasedDecisionError: they were erased.
        """
        found = self.kept(DECISIONS, event_id, loop)
        if not found:
            return self._ingested(event_id, loop)
        records = records_in(event_id, found)
        return [record for record in records if record.loop == records[0].loop]

    def explain(self, event_id: str, loop: str = "") -> Explanation:
        """Return how each record under `event_id` came about, its draw repeated; arguments and errors as `stored`."""
        records = self.stored(event_id, loop)
        decisions = [self._explained(record) for record in records]
        return Explanation(event_id, records[0].loop, decisions, self._reported_of(event_id, records[0].loop))

    def policy_of(self, record: Decision) -> Policy | None:
        """Return the version that a record names; None for a baseline, or where it cannot be loaded."""
        with suppress(DecisionError, OSError, RuntimeError):
            return self._policy(record)
        return None

    def _ingested(self, event_id: str, loop: str) -> list[Decision]:
        """Return the records of a decision that another replica made, or this one long ago."""
        from pipelines.lake.records import decisions_under

        partition = self._partition(event_id)
        found = self._lake.read(lambda tables: decisions_under(tables, event_id, partition, loop))
        if found:
            return found
        if self._erased(event_id.encode()):
            raise ErasedDecisionError(event_id)
        raise UnknownDecisionError(event_id)

    def _partition(self, event_id: str) -> int:
        return partition_of(event_id.encode(), self._spool.partitions)

    def _reported_of(self, event_id: str, loop: str) -> list[Outcome]:
        """Return the outcomes of a decision: what the lake has, and then what this replica took that is not there."""
        from pipelines.lake.records import outcomes_under

        here = [decode_outcome(each.value) for each in self.kept(OUTCOMES, event_id, loop) if each.value]
        if self._settings.log == "local:":
            return here
        partition = self._partition(event_id)
        there = self._lake.read(lambda tables: outcomes_under(tables, event_id, partition, loop))
        return [*there, *(outcome for outcome in here if outcome not in there)]

    def _explained(self, record: Decision) -> ExplainedDecision:
        try:
            return explained(record, self._policy(record))
        except (DecisionError, OSError, RuntimeError):  # the version is gone, or asks for more than was logged
            return explained(record, None)

    def _policy(self, record: Decision) -> Policy | None:
        if record.policy_version.startswith("baseline:"):
            return None
        snapshot = self._loops.get(record.loop)
        if snapshot is not None and snapshot.policy_version == record.policy_version:
            return snapshot.policy
        return self._loops.load(record.loop, record.policy_version)


def records_in(event_id: str, messages: Sequence[Message]) -> list[Decision]:
    """Return the records of a decision from its messages; erased ones are empty.

    Raises:
        ErasedDecisionError: all are.
    """
    kept = [message for message in messages if message.value]
    if not kept:
        raise ErasedDecisionError(event_id)
    return [decode_decision(value) for value in whole(kept)]
