"""``/fairness/...``: what auditors, adjudicators, administrators, owners and their programs ask over HTTP.

GET  /fairness/tasks                       own tasks that are open                                  auditor
GET  /fairness/tasks/next                  the most urgent of them; 204 without                     auditor
GET  /fairness/tasks/{id}                  one of them                                              auditor
POST /fairness/tasks/{id}/judgements       {verdict, payload_hash, acceptable?, reason?}            auditor
GET  /fairness/reports?loop=&status=       pairs with their votes, without identities               adjudicator, ...
POST /fairness/reports/{id}/adjudicate     {verdict: upheld | dismissed, note}                      adjudicator
GET  /fairness/pairs/{id}                  a pair's lineage: decisions, version, entries of the log administrator
POST /fairness/replay                      {loop, quorum, sensitivity}                              administrator, owner
GET  /fairness/metrics?loop=               tasks, backlog, agreement, violation rate                administrator, owner
POST /fairness/appeals                     {loop, reason, event_id | task_id}                       administrator, owner
GET  /fairness/export                      the audit log as JSON lines                              administrator
GET  /fairness/verify                      whether it is whole                                      administrator
GET  /fairness/people, POST /fairness/people                                                        administrator
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pipelines.fairness import tables as t
from pipelines.fairness.people import add_person, list_people
from pipelines.fairness.report import export, replay, reports, status
from pipelines.fairness.tasks import Judgement, judge, queue, task_for
from pipelines.fairness.verdicts import NoTaskError, adjudicate, appeal
from serving.fairness.desk import Desk, answered, json, own_loop, query, read


class Adjudication(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An adjudicator's verdict on a disputed pair, and why."""

    verdict: str
    note: str


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another rule for the stored judgements."""

    loop: str
    quorum: float = 0.6
    sensitivity: float = 0.0


class Appeal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An appeal against a decision or a verdict."""

    loop: str
    reason: str
    event_id: str = ""
    task_id: str = ""


class NewPerson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Someone to add."""

    name: str
    roles: list[str]
    owns: list[str] = []


_judgement = msgspec.json.Decoder(Judgement)
_adjudication = msgspec.json.Decoder(Adjudication)
_replay = msgspec.json.Decoder(Replay)
_appeal = msgspec.json.Decoder(Appeal)
_person = msgspec.json.Decoder(NewPerson)


class Api:
    """The endpoints.

    Args:
        desk: what they share.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Return the routes."""
        made = [
            ("/fairness/tasks", "GET", self.tasks),
            ("/fairness/tasks/next", "GET", self.next_task),
            ("/fairness/tasks/{task_id}", "GET", self.task),
            ("/fairness/tasks/{task_id}/judgements", "POST", self.judge),
            ("/fairness/reports", "GET", self.reports),
            ("/fairness/reports/{task_id}/adjudicate", "POST", self.adjudicate),
            ("/fairness/pairs/{task_id}", "GET", self.pair),
            ("/fairness/replay", "POST", self.replay),
            ("/fairness/metrics", "GET", self.metrics),
            ("/fairness/appeals", "POST", self.appeal),
            ("/fairness/export", "GET", self.export),
            ("/fairness/verify", "GET", self.verify),
            ("/fairness/people", "GET", self.people),
            ("/fairness/people", "POST", self.add_person),
        ]
        return [Route(path, answered(work), methods=[method]) for path, method, work in made]

    async def tasks(self, request: Request) -> Response:
        """Answer the auditor's open tasks."""
        person = await self._desk.who(request, "auditor")
        found = await run_in_threadpool(queue, self._desk.store, person, now=self._desk.now())
        return json({"tasks": found})

    async def next_task(self, request: Request) -> Response:
        """Answer the most urgent of them."""
        person = await self._desk.who(request, "auditor")
        found = await run_in_threadpool(queue, self._desk.store, person, now=self._desk.now())
        return json(found[0] | {"left": len(found)}) if found else Response(status_code=204)

    async def task(self, request: Request) -> Response:
        """Answer one of them."""
        person = await self._desk.who(request, "auditor")
        task_id = request.path_params["task_id"]
        return json(await run_in_threadpool(task_for, self._desk.store, person, task_id, now=self._desk.now()))

    async def judge(self, request: Request) -> Response:
        """Take a judgement; the same one again gets the same answer."""
        person = await self._desk.who(request, "auditor")
        said = await read(request, _judgement)
        task_id = request.path_params["task_id"]
        done = await run_in_threadpool(judge, self._desk.store, person, task_id, said, now=self._desk.now())
        return json(done, 201)

    async def reports(self, request: Request) -> Response:
        """Answer the pairs of a loop with their votes."""
        person = await self._desk.who(request, "administrator", "adjudicator", "owner")
        asked = query(request, "loop", "status", required=("loop",))
        loop = self._desk.known_loop(asked["loop"])
        own_loop(person, loop)
        found = await run_in_threadpool(reports, self._desk.store, loop, wanted=asked.get("status"))
        return json({"reports": found})

    async def adjudicate(self, request: Request) -> Response:
        """Decide a dispute."""
        person = await self._desk.who(request, "adjudicator")
        said = await read(request, _adjudication)
        done = await run_in_threadpool(
            adjudicate,
            self._desk.store,
            request.path_params["task_id"],
            said.verdict,
            note=said.note,
            now=self._desk.now(),
            by=person.person_id,
            person=person,
        )
        return json(done, 201)

    async def pair(self, request: Request) -> Response:
        """Answer where a pair comes from and what became of it."""
        await self._desk.who(request, "administrator")
        return json(await run_in_threadpool(self._lineage, request.path_params["task_id"]))

    async def replay(self, request: Request) -> Response:
        """Fold the stored judgements under another rule; changes nothing."""
        person = await self._desk.who(request, "administrator", "adjudicator", "owner")
        asked = await read(request, _replay)
        loop = self._desk.known_loop(asked.loop)
        own_loop(person, loop)
        done = await run_in_threadpool(
            replay, self._desk.store, loop, quorum=asked.quorum, sensitivity=asked.sensitivity
        )
        return json(done)

    async def metrics(self, request: Request) -> Response:
        """Answer how a loop's panels stand; what single auditors did is for administrators."""
        person = await self._desk.who(request, "administrator", "adjudicator", "owner")
        loop = self._desk.known_loop(query(request, "loop", required=("loop",))["loop"])
        own_loop(person, loop)
        seen = await run_in_threadpool(status, self._desk.store, loop, now=self._desk.now())
        if not person.may("administrator"):
            seen = msgspec.structs.replace(seen, gold={}, reports={})
        return json(seen)

    async def appeal(self, request: Request) -> Response:
        """Take an appeal."""
        person = await self._desk.who(request, "administrator", "owner")
        asked = await read(request, _appeal)
        loop = self._desk.known_loop(asked.loop)
        own_loop(person, loop)
        made = await run_in_threadpool(
            appeal,
            self._desk.store,
            loop,
            reason=asked.reason,
            event_id=asked.event_id,
            task_id=asked.task_id,
            now=self._desk.now(),
            by=person.person_id,
        )
        return json({"appeal_id": made}, 201)

    async def export(self, request: Request) -> Response:
        """Stream the audit log."""
        await self._desk.who(request, "administrator")
        store = self._desk.store
        return StreamingResponse(
            (line + "\n" for line in export(store)),
            media_type="application/jsonl",
            headers={"content-disposition": 'attachment; filename="audit.jsonl"', "cache-control": "no-store"},
        )

    async def verify(self, request: Request) -> Response:
        """Check the audit log."""
        await self._desk.who(request, "administrator")
        checked = await run_in_threadpool(self._desk.store.verify)
        faults = [{"entry": fault.seq, "what": fault.what} for fault in checked.faults]
        return json({"ok": not faults, "entries": checked.entries, "head": checked.head, "faults": faults})

    async def people(self, request: Request) -> Response:
        """Answer everyone."""
        await self._desk.who(request, "administrator")
        return json({"people": await run_in_threadpool(list_people, self._desk.store)})

    async def add_person(self, request: Request) -> Response:
        """Add someone and answer their key, this once."""
        person = await self._desk.who(request, "administrator")
        asked = await read(request, _person)
        for loop in asked.owns:
            self._desk.known_loop(loop)
        made, key = await run_in_threadpool(
            add_person,
            self._desk.store,
            name=asked.name,
            roles=asked.roles,
            owns=asked.owns,
            now=self._desk.now(),
            by=person.person_id,
        )
        return json({**msgspec.to_builtins(made), "key": key}, 201)

    def _lineage(self, task_id: str) -> dict[str, Any]:
        store = self._desk.store
        found = store.rows(sa.select(t.tasks).where(t.tasks.c.task_id == task_id))
        if not found:
            raise NoTaskError("there is no such pair")
        row = found[0]
        entries = [entry._asdict() for entry in store.entries(subject=task_id)]
        return {name: value for name, value in row.items() if name != "payload"} | {"log": entries}
