"""``/fairness/...``: what auditors, adjudicators, administrators, owners and their programs ask over HTTP.

Which operation needs which role stands in the table of routes at the end of `Api.routes`.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pipelines.fairness import tables as t
from pipelines.fairness.errors import NoTaskError
from pipelines.fairness.people import add_person, list_people
from pipelines.fairness.report import Panels, Replayed, export, replay, reports, status
from pipelines.fairness.tasks import Judgement, judge, queue, task_for
from pipelines.fairness.verdicts import adjudicate, appeal
from pipelines.fairness.verify import verify
from serving.fairness.desk import Desk, Handler, allowed, answering, json, own_loop, query, read
from serving.fairness.shapes import (
    AddedPerson,
    Adjudication,
    Appeal,
    Appealed,
    Decided,
    Judged,
    Lineage,
    NewPerson,
    NextTask,
    People,
    Replay,
    Reports,
    Task,
    Tasks,
    Verified,
)
from serving.routes import JSON, Query, Route

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
        """Return the routes, each with the role it needs."""
        task = {
            "task_id": "t1f0c5a9b2d3e",
            "due_at": "2026-12-01T09:00:00.000000Z",
            "payload": {"question": "Is this fair?"},
            "payload_hash": "9f86d081884c7d65",
        }
        verdict = {"task_id": task["task_id"], "status": "upheld", "decided_at": task["due_at"]}
        judged = {"task_id": task["task_id"], "payload_hash": task["payload_hash"], "judged_at": task["due_at"]}
        person = {
            "person_id": "p1f0c5a9b2d3e",
            "name": "Ada",
            "roles": ["auditor"],
            "owns": [],
            "active": True,
        }
        loop = Query(name="loop", text="The loop", required=True)
        status = Query(name="status", text="Only pairs with this status")
        folded = {"quorum": 0.6, "sensitivity": 0.0, "upheld": 3, "dismissed": 9, "disputed": 1, "added": []}
        return [
            self._get("/tasks", self.tasks, "listTasks", "List one's open tasks (auditor)", Tasks, {"tasks": [task]}),
            self._get(
                "/tasks/next",
                self.next_task,
                "nextTask",
                "Get one's most urgent task; 204 without (auditor)",
                NextTask,
                {**task, "left": 4},
                also=(204,),
            ),
            self._get("/tasks/{task_id}", self.task, "readTask", "Get one of one's tasks (auditor)", Task, task),
            self._post(
                "/tasks/{task_id}/judgements",
                self.judge,
                "judge",
                "Judge a pair (auditor)",
                Judgement,
                Judged,
                {"verdict": "fair", "payload_hash": task["payload_hash"]},
                judged,
            ),
            self._get(
                "/reports",
                self.reports,
                "listReports",
                "List a loop's pairs with their votes (administrator, adjudicator, owner)",
                Reports,
                {"reports": []},
                (loop, status),
            ),
            self._post(
                "/reports/{task_id}/adjudicate",
                self.adjudicate,
                "adjudicate",
                "Decide a dispute (adjudicator)",
                Adjudication,
                Decided,
                {"verdict": "upheld", "note": "The only difference is the town."},
                verdict,
            ),
            self._get(
                "/pairs/{task_id}",
                self.pair,
                "readPair",
                "Get a pair's lineage (administrator)",
                Lineage,
                {"task_id": task["task_id"], "loop": "credit", "status": "open", "log": []},
            ),
            self._post(
                "/replay",
                self.replay,
                "replayJudgements",
                "Fold the judgements under another rule (administrator, adjudicator, owner)",
                Replay,
                Replayed,
                {"loop": "credit", "quorum": 0.6},
                {**folded, "removed": []},
                status=200,
            ),
            self._get(
                "/metrics",
                self.metrics,
                "readPanels",
                "Tell how a loop's panels stand (administrator, adjudicator, owner)",
                Panels,
                None,
                (loop,),
            ),
            self._post(
                "/appeals",
                self.appeal,
                "appeal",
                "Appeal a decision (administrator, owner), or a verdict (its panel, too)",
                Appeal,
                Appealed,
                {"loop": "credit", "reason": "The address is wrong.", "event_id": "e1"},
                {"appeal_id": "a1f0c5a9b2d3e"},
            ),
            self._get(
                "/export",
                self.export,
                "exportAuditLog",
                "Stream the audit log (administrator)",
                str,
                '{"seq": 1, "action": "person_added"}\n',
                content="application/jsonl",
            ),
            self._get(
                "/verify",
                self.verify,
                "verifyAuditLog",
                "Check the audit log (administrator)",
                Verified,
                {"ok": True, "entries": 12, "head": "9f86d081884c7d65", "faults": []},
            ),
            self._get(
                "/people", self.people, "listPeople", "List everyone (administrator)", People, {"people": [person]}
            ),
            self._post(
                "/people",
                self.add_person,
                "addPerson",
                "Add someone and tell their key, this once (administrator)",
                NewPerson,
                AddedPerson,
                {"name": "Ada", "roles": ["auditor"]},
                {**person, "key": "dsk_..."},
            ),
        ]

    @staticmethod
    def _get(
        path: str,
        work: Handler,
        name: str,
        summary: str,
        response: Any,
        answers: Any,
        parameters: tuple[Query, ...] = (),
        *,
        content: str = JSON,
        also: tuple[int, ...] = (),
    ) -> Route:
        return Route(
            method="GET",
            path=f"/fairness{path}",
            name=name,
            tag="fairness",
            summary=summary,
            answer=answering(work),
            role="panel member",
            response=response,
            errors=(401, 403, 404),
            answers=answers,
            parameters=parameters,
            content=content,
            also=also,
        )

    @staticmethod
    def _post(
        path: str,
        work: Handler,
        name: str,
        summary: str,
        request: Any,
        response: Any,
        example: Any,
        answers: Any,
        *,
        status: int = 201,
    ) -> Route:
        return Route(
            method="POST",
            path=f"/fairness{path}",
            name=name,
            tag="fairness",
            summary=summary,
            answer=answering(work),
            role="panel member",
            request=request,
            response=response,
            status=status,
            errors=(401, 403, 404),
            example=example,
            answers=answers,
            reads_body=False,
        )

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
        """Take an appeal; of a verdict, from a member of its panel too."""
        person = await self._desk.who(request, "administrator", "owner", "auditor")
        asked = await read(request, _appeal)
        loop = self._desk.known_loop(asked.loop)
        if not asked.task_id:
            own_loop(allowed(person, "administrator", "owner"), loop)
        made = await run_in_threadpool(
            appeal,
            self._desk.store,
            loop,
            reason=asked.reason,
            event_id=asked.event_id,
            task_id=asked.task_id,
            now=self._desk.now(),
            by=person.person_id,
            person=person,
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
        checked = await run_in_threadpool(verify, self._desk.store)
        faults = [{"entry": fault.seq, "what": fault.what} for fault in checked.faults]
        told = {"ok": not faults, "entries": checked.entries, "head": checked.head, "faults": faults}
        return json({**told, "unknown": checked.unknown})

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
