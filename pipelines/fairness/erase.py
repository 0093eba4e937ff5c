"""Erasure of a subject from the panels: what auditors were shown of them goes, what was judged and its hash stay.

The audit log never held a feature of a person, so the chain stays whole. A pair whose decision is gone from the lake
can no longer be scored and lapses; one that is still open is shown to nobody any more.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow.compute as pc
import sqlalchemy as sa

from pipelines.fairness import tables as t
from pipelines.fairness.anchors import anchors_key
from pipelines.fairness.publish import publish
from pipelines.fairness.store import Governance
from pipelines.lake.lake import Lake
from pipelines.settings import LOOP_NAME, LOOPS, FairnessSettings, LoopSettings, Settings, load_loops
from pipelines.state.state import State


def erase_payloads(settings: Settings, lake: Lake, subject_id: str, *, now: datetime, by: str) -> int:
    """Remove what was shown of a subject and return the number of pairs; call it before the lake forgets them.

    Args:
        settings: the installation; one without panels is left as it is.
        lake: where the subject's decisions still are.
        subject_id: whom to erase.
        now: time, UTC.
        by: who asks.
    """
    elsewhere = settings.governance or settings.state
    if not elsewhere and not Path(settings.root / "governance" / "governance.db").is_file():
        return 0
    theirs = pc.field("subject_id") == subject_id
    found = lake.read("decisions", lambda table: table.to_pyarrow_dataset().to_table(["event_id"], filter=theirs))
    events = set(found["event_id"].to_pylist())
    erased = 0
    with Governance.at(settings) as store, store.write(now, by) as writing:
        for event_id in sorted(events):
            theirs = sa.or_(t.tasks.c.favoured == event_id, t.tasks.c.disfavoured == event_id)
            shown = writing.rows(sa.select(t.tasks.c.task_id).where(theirs, t.tasks.c.payload.is_not(None)))
            for row in shown:
                change = sa.update(t.tasks).where(t.tasks.c.task_id == row["task_id"]).values(payload=None)
                writing.connection.execute(change)
                writing.log("payload_erased", row["task_id"], {})
                erased += 1
    with Governance.at(settings) as store:
        loops, errors = load_loops(settings)
        with State(settings.state_url) as state:
            pointers = state.versions(LOOPS)
        for name in errors:  # a loop whose settings cannot be read: what it published still must not hold the subject
            if LOOP_NAME.fullmatch(name) and (anchors_key(name) in pointers or settings.anchors_path(name).exists()):
                loops[name] = LoopSettings(name=name, fairness=FairnessSettings(enabled=True, clamp=True))
        for loop in loops.values():
            publish(settings, store, lake, loop, without=events)
    return erased
