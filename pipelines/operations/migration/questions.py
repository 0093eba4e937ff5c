"""What a line's request would be told by Personalizer's paths: its ids and their number."""

from __future__ import annotations

from decision.options import MAX_RANKED
from decision.records import MAX_ID_CHARS
from pipelines.formats.dsjson.line import DsjsonLine
from pipelines.operations.migration.findings import Tally


def check_question(line: DsjsonLine, place: str, tally: Tally) -> None:
    """Count what the service refuses of the request that a line was made from.

    Args:
        line: one whose ``c`` has a list of actions.
        place: where it stands.
        tally: counts.
    """
    c = line.c or {}
    actions, slots = c["_multi"], c.get("_slots") or []
    if len(actions) > MAX_RANKED:
        tally.add("too_many_actions", place, f"{len(actions)} actions")
    if len(slots) > MAX_RANKED:
        tally.add("too_many_slots", place, f"{len(slots)} slots")
    _check_ids([entry.get("_tag") for entry in actions], "repeated_actions", place, tally)
    _check_ids([entry.get("_id") for entry in slots], "repeated_slots", place, tally)
    if not all(isinstance(entry.get("_tag"), str) and entry["_tag"] for entry in actions):
        tally.add("no_action_id", place, "no _tag")
    if line.event_id is not None and not _fits(line.event_id):
        tally.add("bad_id", place, line.event_id, "EventId")
    if any(name[:1] == "_" for name in c.keys() - {"_multi", "_slots"}):
        tally.add(
            "hidden_feature",
            place,
            sorted(name for name in c if name[:1] == "_" and name[1:] not in ("multi", "slots"))[0],
        )


def _check_ids(found: list[object], repeated: str, place: str, tally: Tally) -> None:
    ids = [each for each in found if isinstance(each, str) and each]
    if len(set(ids)) < len(ids):
        tally.add(repeated, place, next(each for at, each in enumerate(ids) if each in ids[:at]))
    for each in ids:
        if not _fits(each):
            tally.add("bad_id", place, each, "actions" if repeated == "repeated_actions" else "slots")
            return


def _fits(id: str) -> bool:
    return 1 <= len(id) <= MAX_ID_CHARS and id.isprintable()
