"""Whether the audit log is whole: the chain, the heads that were noted of it, and the tables that it tells of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from decision.fairness.audit_log import Anchor, Entry, Fault, check
from pipelines.fairness import tables as t
from pipelines.fairness.differences import Tables, differences
from pipelines.fairness.heads import Head, Noted
from pipelines.fairness.store import SIGNER_ADDED, Governance
from pipelines.progress import Progress, counted, silent

_PAGE = 1_000
_ALWAYS = (
    "names of people: the log, which is never erased, does not hold them",
    "a history written anew by who has this home's signing key besides the databases, from the last head on that "
    "somebody else keeps: give them `decision audit head`",
)


class Verified(NamedTuple):
    """The result of a check.

    Attributes:
        entries: how many were read.
        head: hash of the last one.
        faults: what is wrong; none when all is whole.
        unknown: what no check can tell, in words.
    """

    entries: int
    head: str
    faults: tuple[Fault, ...]
    unknown: tuple[str, ...]


def verify(store: Governance, *anchors: Anchor, heads: Sequence[Head] = (), progress: Progress = silent) -> Verified:
    """Check the chain, every head that was noted, and that the tables say what the log tells.

    Args:
        store: whose log.
        anchors: heads noted elsewhere, checked beside those of the file and of State.
        heads: likewise, signed.
        progress: told of the entries gone through, once for the chain and once for the tables.

    Raises:
        StateError: State cannot be reached.
    """
    file, state, total = store.noted_in_file(), store.noted_in_state(), store.head().entries  # first: entries may come

    def told(what: str) -> Iterator[Entry]:
        return counted(store.entries(), progress, f"entries of the audit log {what}", total=total, every=_PAGE)

    noted = [head for place in (file, state) if place is not None for head in place.heads]
    every = [head.anchor if isinstance(head, Head) else head for head in (*noted, *heads)]
    checked = check(told("checked"), [*every, *anchors])
    signers = {entry.subject for entry in store.entries(kind=SIGNER_ADDED)}
    faults = [
        *checked.faults,
        *_file_faults(file, total if store.alone else 0),
        *(() if state is None else state.faults),
        *_unsigned(file, "anchors.jsonl"),
        *_unsigned(state, "State"),
        *_signed_wrongly([*noted, *heads], signers),
        *differences(_tables(store), told("compared")),
    ]
    return Verified(checked.entries, checked.head, tuple(faults), (*_unknown(store, every, total), *_ALWAYS))


def _file_faults(file: Noted | None, entries: int) -> list[Fault]:
    """Return what is wrong with the file of a home that holds the log itself, of so many entries; 0 elsewhere."""
    if file is None or not (file.heads or file.faults):
        gone = "is missing" if file is None else "is empty"
        return [Fault(0, f"anchors.jsonl {gone}, and {entries} entries were noted there")] if entries else []
    return file.faults


def _unsigned(noted: Noted | None, where: str) -> list[Fault]:
    """Return where heads without a signature, as earlier releases noted them, follow one that has it."""
    heads = [] if noted is None else noted.heads
    signed = [isinstance(head, Head) for head in heads]
    if True not in signed:
        return []
    count = signed[signed.index(True) :].count(False)
    return [Fault(0, f"{count} heads in {where} are not signed, after others that are")] if count else []


def _signed_wrongly(heads: Sequence[Head | Anchor], signers: set[str]) -> list[Fault]:
    faults: dict[str, Fault] = {}
    for head in heads:
        if not isinstance(head, Head):
            continue
        if not head.fits:
            what = f"the head noted of entry {head.entries} is not what was signed"
        elif head.key not in signers:
            what = f"the head noted of entry {head.entries} is signed by a key that the log does not name"
        else:
            continue
        faults.setdefault(what, Fault(head.entries, what))
    return list(faults.values())


def _unknown(store: Governance, heads: Sequence[Anchor], entries: int) -> list[str]:
    unknown: list[str] = []
    noted = max((head.entries for head in heads), default=0)
    if noted < entries:
        unknown.append(f"whether the entries after {noted} are the ones that were written: no head of them is noted")
    unbound = sum("key" not in msgspec.json.decode(entry.body) for entry in store.entries(kind="person_added"))
    if unbound:
        unknown.append(f"the keys of {unbound} people, who were added before the log held a hash of them")
    keys = store.api_keys()
    if keys and not list(store.entries(kind="api_key_added")):
        unknown.append(f"the {len(keys)} API keys, which were made before the log told of them")
    return unknown


def _tables(store: Governance) -> Tables:
    return Tables(
        judgements=store.rows(sa.select(t.judgements)),
        tasks=store.rows(sa.select(t.tasks)),
        rules=store.rows(sa.select(t.rules).order_by(t.rules.c.rule_id)),
        people=store.rows(sa.select(t.people)),
        verdicts=store.rows(sa.select(t.verdicts).order_by(t.verdicts.c.verdict_id)),
        assignments=store.rows(sa.select(t.assignments)),
        appeals=store.rows(sa.select(t.appeals)),
        sessions=store.rows(sa.select(t.sessions)),
        api_keys=store.api_keys(),
    )
