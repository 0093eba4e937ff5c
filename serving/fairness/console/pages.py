"""The console's pages: sign in, review, disputes, panels and people, and each loop's dashboard.

What an auditor judged is in `own`, what verdicts changed in `verdicts`.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from decision.errors import FieldError
from decision.fairness.agreement import BANDS
from decision.fairness.pair_name import pair_name
from decision.validation import prepared
from pipelines.fairness import tables as t
from pipelines.fairness.errors import NoTaskError
from pipelines.fairness.frontier import draw, frontier
from pipelines.fairness.judges.judge_types import noted
from pipelines.fairness.people import ROLES, Person, add_person, by_key, close_session, list_people, open_session
from pipelines.fairness.people import revoke as revoke_key
from pipelines.fairness.report import fold, status
from pipelines.fairness.tasks import LIMITS, Judgement, assign, judge, queue
from pipelines.fairness.verdicts import adjudicate, close_overdue
from pipelines.fairness.views.judged import count_judged, is_new
from serving.console.app import Operators
from serving.console.frame import Form, in_words, one
from serving.fairness.console.own import Own
from serving.fairness.console.site import COOKIE, LOGIN, Site, difference, points
from serving.fairness.console.verdicts import Verdicts
from serving.fairness.desk import Desk, allowed, own_loop
from serving.problems import ProblemError
from serving.routes import Route

QUORUMS = (0.2, 0.4, 0.6, 0.8, 1.0)
_EMPTY = {"verdict": "", "acceptable": "", "reason": ""}

_PANELS = (
    "Panels have people of their own: auditors, adjudicators, owners and administrators. Sign in with the key of one "
    "of them; decision audit people add makes it."
)


class Pages:
    """The pages.

    Args:
        desk: what the panels' parts share.
        operators: the console's other pages; one page to sign in is for both.
    """

    def __init__(self, desk: Desk, operators: Operators) -> None:
        self._desk, self._operators = desk, operators
        self._site = Site(desk)

    def routes(self) -> list[Route]:
        """Return the routes."""
        route, people = self._site.route, "/console/people"
        return [
            route("GET", "/console", self.home, "openConsole", "Go where one works", signed_in=False),
            route("GET", "/console/", self.home, "openConsoleHome", "Go where one works", signed_in=False),
            route("GET", LOGIN, self.login, "showLogin", "Show the page to sign in", signed_in=False),
            route("POST", LOGIN, self.sign_in, "signIn", "Sign in", signed_in=False),
            route("POST", "/console/logout", self.logout, "signOut", "Sign out"),
            route("GET", "/console/review", self.review, "showReview", "Show the pair to judge"),
            route("POST", "/console/review/{task_id}", self.judge, "submitReview", "Judge a pair"),
            route("GET", "/console/disputes", self.disputes, "showDisputes", "Show the disputes"),
            route("POST", "/console/disputes/{task_id}", self.adjudicate, "submitVerdict", "Decide a dispute"),
            route("GET", "/console/panels", self.panels, "showPanels", "Show the panels and the people"),
            route("POST", "/console/panels/{loop}/assign", self.assign, "submitAssignment", "Draw a loop's panels"),
            route("POST", people, self.add_person, "submitPerson", "Add someone"),
            route("POST", f"{people}/{{person_id}}/revoke", self.revoke, "submitRevocation", "Revoke a key"),
            route("GET", "/console/fairness/{loop}", self.dashboard, "showFairness", "Show how a loop's panels stand"),
            *Own(self._desk, self._site).routes(),
            *Verdicts(self._desk, self._site).routes(),
        ]

    async def home(self, request: Request, person: Person, form: Form) -> Response:
        """Go where the person works: an operator to the loops."""
        if not person.active:
            return RedirectResponse(self._operators.home, 303)
        if person.may("auditor") and await run_in_threadpool(is_new, self._desk.store, person):
            return RedirectResponse("/console/tour", 303)
        place = "review" if person.may("auditor") else "disputes" if person.may("adjudicator") else "panels"
        if not person.may("auditor", "adjudicator", "administrator") and person.owns:
            place = f"fairness/{person.owns[0]}"
        return RedirectResponse(f"/console/{place}", 303)

    async def login(self, request: Request, person: Person, form: Form) -> Response:
        """Ask for a key; who comes from the loops to the panels is told whose, or goes where they work."""
        if "panels" not in request.query_params:
            return await self._site.render(request, "login.html", title="Sign in")
        if person.active:
            return await self.home(request, person, form)
        loops = [(self._operators.home, "Loops")]
        return await self._site.render(
            request, "login.html", title="Sign in to the panels", pages=loops, notice=_PANELS
        )

    async def sign_in(self, request: Request, person: Person, form: Form) -> Response:
        """Open a session for a key."""
        key = one(form, "key").strip()
        if (signed_in := await self._operators.sign_in(request, key)) is not None:
            return signed_in
        known = await run_in_threadpool(by_key, self._desk.store, key) if 20 <= len(key) <= 100 else None
        if known is None:
            told = "This key opens nothing."
            return await self._site.render(request, "login.html", status=401, title="Sign in", error=told)
        token = await run_in_threadpool(open_session, self._desk.store, known, now=self._desk.now())
        answer = RedirectResponse("/console/", 303)
        # a proxy ends TLS and says so; whoever else says it gets a cookie that a browser keeps back from plain HTTP
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, path="/console")
        return answer

    async def logout(self, request: Request, person: Person, form: Form) -> Response:
        """End the session."""
        token = request.cookies.get(COOKIE, "")
        now = self._desk.now()
        await run_in_threadpool(close_session, self._desk.store, token, now=now, by=person.person_id)
        answer = RedirectResponse(LOGIN, 303)
        answer.delete_cookie(COOKIE, path="/console")
        return answer

    async def review(self, request: Request, person: Person, form: Form) -> Response:
        """Show the pair to judge."""
        return await self._review(request, person, request.query_params.get("task", ""))

    async def judge(self, request: Request, person: Person, form: Form) -> Response:
        """Take a judgement and show the next pair, or the same one with what is wrong."""
        allowed(person, "auditor")
        task_id = request.path_params["task_id"]
        said = {name: one(form, name) for name in _EMPTY}
        try:
            judgement = _judgement(said, one(form, "payload_hash"))
            await run_in_threadpool(judge, self._desk.store, person, task_id, judgement, now=self._desk.now())
        except FieldError as error:
            return await self._review(request, person, task_id, said=said, error=error, status=422)
        return RedirectResponse(f"/console/review?saved={task_id}", 303)

    async def disputes(self, request: Request, person: Person, form: Form) -> Response:
        """Show the pairs on which panels are divided."""
        allowed(person, "adjudicator")
        tasks = await run_in_threadpool(self._disputed, person)
        notice = "Your verdict is written down." if "saved" in request.query_params else ""
        return await self._site.render(request, "disputes.html", title="Disputes", tasks=tasks, notice=notice)

    async def adjudicate(self, request: Request, person: Person, form: Form) -> Response:
        """Take an adjudicator's verdict."""
        await run_in_threadpool(
            adjudicate,
            self._desk.store,
            request.path_params["task_id"],
            one(form, "verdict"),
            note=one(form, "note"),
            now=self._desk.now(),
            by=person.person_id,
            person=allowed(person, "adjudicator"),
        )
        return RedirectResponse("/console/disputes?saved=1", 303)

    async def panels(self, request: Request, person: Person, form: Form) -> Response:
        """Show every loop's queue, and the people."""
        allowed(person, "administrator")
        return await self._panels(request)

    async def assign(self, request: Request, person: Person, form: Form) -> Response:
        """Draw the missing panels of a loop, and close what is overdue."""
        allowed(person, "administrator")
        loop = self._desk.known_loop(request.path_params["loop"])

        def work() -> str:
            store, now, by = self._desk.store, self._desk.now(), person.person_id
            closed = close_overdue(store, now=now, by=by)
            counts = assign(store, loop, now=now, by=by, rng=np.random.default_rng())
            return f"{counts['assigned']} panels drawn, {counts['waiting']} wait for auditors, {closed} pairs closed."

        return await self._panels(request, notice=await run_in_threadpool(work))

    async def add_person(self, request: Request, person: Person, form: Form) -> Response:
        """Add someone and show their key, this once."""
        allowed(person, "administrator")
        owns = [loop.strip() for loop in one(form, "owns").split(",") if loop.strip()]
        try:
            made, key = await run_in_threadpool(
                add_person,
                self._desk.store,
                name=one(form, "name"),
                roles=form.get("roles", []),
                owns=owns,
                now=self._desk.now(),
                by=person.person_id,
            )
        except FieldError as error:
            return await self._panels(request, error=in_words(error), status=422)
        return await self._panels(request, key=(made.name, key))

    async def revoke(self, request: Request, person: Person, form: Form) -> Response:
        """Take someone's key away."""
        allowed(person, "administrator")
        who = request.path_params["person_id"]
        if who == person.person_id:
            raise ProblemError(422, "Nobody revokes their own key; ask another administrator.")
        await run_in_threadpool(revoke_key, self._desk.store, who, now=self._desk.now(), by=person.person_id)
        return RedirectResponse("/console/panels", 303)

    async def dashboard(self, request: Request, person: Person, form: Form) -> Response:
        """Show how a loop stands."""
        allowed(person, "administrator", "adjudicator", "owner")
        loop = self._desk.known_loop(request.path_params["loop"])
        own_loop(person, loop)

        def work() -> dict[str, Any]:
            store = self._desk.store
            seen = status(store, loop, now=self._desk.now())
            found = frontier(store, loop)
            svg = Markup(draw(found)) if found else ""  # noqa: S704 - drawn here; versions are escaped by the drawing
            quorums = fold(store, loop, QUORUMS) if seen.judgements else []
            told = {"types": noted(store, loop)}
            return {"seen": seen, "frontier": found, "frontier_svg": svg, "quorums": quorums, **told}

        values = await run_in_threadpool(work)
        return await self._site.render(request, "dashboard.html", title=f"Fairness of {loop}", bands=BANDS, **values)

    async def _review(
        self,
        request: Request,
        person: Person,
        wanted: str,
        *,
        said: dict[str, str] | None = None,
        error: FieldError | None = None,
        status: int = 200,
    ) -> Response:
        allowed(person, "auditor")
        tasks = await run_in_threadpool(queue, self._desk.store, person, now=self._desk.now())
        ids = [task["task_id"] for task in tasks]
        if wanted and wanted not in ids:
            raise NoTaskError("There is no such pair for you to judge.")
        at = ids.index(wanted) if wanted else 0
        saved = request.query_params.get("saved", "")[:32]
        told = f"Your judgement of {pair_name(saved)} is saved. {len(tasks)} left." if saved else ""
        judged = await run_in_threadpool(count_judged, self._desk.store, person)
        return await self._site.render(
            request,
            "review.html",
            status=status,
            title="Review",
            task=tasks[at] if tasks else None,
            at=at,
            left=len(tasks),
            judged=judged,
            before=ids[at - 1] if at > 0 else "",
            after=ids[at + 1] if at + 1 < len(ids) else "",
            limits=LIMITS,
            said=said or _EMPTY,
            error="" if error is None else _told(error, said or _EMPTY, tasks[at]["payload"]),
            notice=told,
        )

    async def _panels(
        self,
        request: Request,
        *,
        key: tuple[str, str] | None = None,
        notice: str = "",
        error: str = "",
        status: int = 200,
    ) -> Response:
        def work() -> dict[str, Any]:
            return {"loops": self._queues(), "people": list_people(self._desk.store)}

        values = await run_in_threadpool(work)
        return await self._site.render(
            request,
            "panels.html",
            status=status,
            title="Panels",
            key=key,
            notice=notice,
            error=error,
            roles=ROLES,
            **values,
        )

    def _queues(self) -> list[dict[str, Any]]:
        now, core = self._desk.now(), self._desk.core
        loops = [name for name in core.loops.names() if core.snapshot(name).loop.fairness.enabled]
        return [msgspec.to_builtins(status(self._desk.store, loop, now=now)) for loop in loops]

    def _disputed(self, person: Person) -> list[dict[str, Any]]:
        store = self._desk.store
        own = store.rows(sa.select(t.judgements.c.task_id).where(t.judgements.c.person_id == person.person_id))
        judged = {row["task_id"] for row in own}
        query = sa.select(t.tasks).where(t.tasks.c.status == "disputed", t.tasks.c.payload.is_not(None))
        out: list[dict[str, Any]] = []
        for row in store.rows(query.order_by(t.tasks.c.opened_at, t.tasks.c.task_id)):
            if row["task_id"] in judged or row["loop"] in person.owns:
                continue
            of_task = t.verdicts.c.task_id == row["task_id"]
            last = store.rows(sa.select(t.verdicts).where(of_task).order_by(t.verdicts.c.verdict_id.desc()).limit(1))
            said = store.rows(sa.select(t.judgements).where(t.judgements.c.task_id == row["task_id"]))
            reasons = [(entry["verdict"], entry["reason"]) for entry in said if entry["reason"]]
            votes = {name: last[0][name] for name in ("unfair", "fair", "abstained", "needed")}
            payload = msgspec.json.decode(row["payload"])
            appealed = "" if last[0]["by"] == "panel" else last[0]["note"]
            told = {"task_id": row["task_id"], "payload": payload, "reasons": reasons, "appealed": appealed}
            out.append(told | votes)
        return out


def _told(error: FieldError, said: dict[str, str], payload: dict[str, Any]) -> str:
    """Return what is wrong with a judgement in the units of the page."""
    if error.field != "acceptable" or said["verdict"] not in ("unfair", "fair"):
        return in_words(error)
    side = "less than" if said["verdict"] == "unfair" else "no less than"
    return (
        f"You call the difference {said['verdict']}, so the largest one that you would accept must be {side} the "
        f"{points(difference(payload))} of this pair."
    )


def _judgement(said: dict[str, str], payload_hash: str) -> Judgement:
    acceptable: float | None = None
    if said["acceptable"] and said["verdict"] != "cannot_tell":
        try:
            acceptable = float(said["acceptable"])
        except ValueError as error:
            raise FieldError("acceptable", wanted="a number in [0, 1]", got=said["acceptable"]) from error
    values = {"verdict": said["verdict"], "payload_hash": payload_hash, "reason": said["reason"].strip()}
    try:
        return msgspec.convert(values | {"acceptable": acceptable}, prepared(Judgement))
    except msgspec.ValidationError as error:
        raise FieldError("verdict", wanted="one of the three", got=said["verdict"]) from error
