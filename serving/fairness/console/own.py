"""An auditor's own pages: the tour, what they judged and what became of it, and appeals."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from decision.errors import FieldError
from decision.fairness.agreement import BANDS
from decision.fairness.blinding import payload
from pipelines.fairness.people import Person
from pipelines.fairness.verdicts import appeal
from pipelines.fairness.views.judged import PAGE, count_judged, is_new, judged_by, judged_pair, shares, take_tour
from serving.console.frame import Form, in_words, one
from serving.fairness.console.site import Site
from serving.fairness.desk import Desk, allowed
from serving.routes import Route

EXAMPLE = payload(
    {"income": 41_200.0, "debt": 3_100.0, "job.years": 6.0, "housing": "rents"},
    {"income": 40_900.0, "debt": 3_100.0, "job.years": 6.0, "housing": "owns"},
    (0.83, 0.31),
    treatment="getting the loan",
)
"""A pair that nobody judges, for the tour."""


def place_of(request: Request) -> int:
    """Return the place from which a list is shown, as its address says; 0 where it says none."""
    text = request.query_params.get("from", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0


class Own:
    """The pages.

    Args:
        desk: what the panels' parts share.
        site: the frame around the pages.
    """

    def __init__(self, desk: Desk, site: Site) -> None:
        self._desk, self._site = desk, site

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self._site.route
        return [
            route("GET", "/console/tour", self.tour, "showTour", "Show how an auditor works"),
            route("POST", "/console/tour", self.toured, "submitTour", "Begin to judge"),
            route("GET", "/console/judged", self.judged, "showJudged", "Show what one judged"),
            route("GET", "/console/judged/{task_id}", self.pair, "showJudgedPair", "Show a pair that one judged"),
            route("POST", "/console/judged/{task_id}/appeal", self.appeal, "submitAppeal", "Appeal a verdict"),
        ]

    async def tour(self, request: Request, person: Person, form: Form) -> Response:
        """Show how an auditor works, on an example."""
        allowed(person, "auditor")
        new = await run_in_threadpool(is_new, self._desk.store, person)
        return await self._site.render(request, "tour.html", title="How it works", payload=EXAMPLE, new=new)

    async def toured(self, request: Request, person: Person, form: Form) -> Response:
        """Remember that they saw it, and show the first pair."""
        allowed(person, "auditor")
        await run_in_threadpool(take_tour, self._desk.store, person, now=self._desk.now())
        return RedirectResponse("/console/review", 303)

    async def judged(self, request: Request, person: Person, form: Form) -> Response:
        """Show what they judged, the latest first."""
        allowed(person, "auditor")
        first = place_of(request)

        def work() -> dict[str, Any]:
            store = self._desk.store
            total = count_judged(store, person)
            return {"rows": judged_by(store, person, first=first), "total": total, "shares": shares(store, person)}

        values = await run_in_threadpool(work)
        return await self._site.render(
            request,
            "judged.html",
            title="What I judged",
            first=first,
            step=PAGE,
            me=person.person_id,
            bands=BANDS,
            **values,
        )

    async def pair(self, request: Request, person: Person, form: Form) -> Response:
        """Show one of the pairs, as it was shown then, with what became of it."""
        return await self._pair(request, person)

    async def appeal(self, request: Request, person: Person, form: Form) -> Response:
        """Take an appeal against a verdict on one of the pairs."""
        allowed(person, "auditor")
        task_id, reason = request.path_params["task_id"], one(form, "reason")

        def work() -> None:
            store = self._desk.store
            found = judged_pair(store, person, task_id)
            now, by = self._desk.now(), person.person_id
            appeal(store, found.loop, reason=reason, now=now, by=by, task_id=task_id, person=person)

        try:
            await run_in_threadpool(work)
        except FieldError as error:
            return await self._pair(request, person, reason=reason, error=in_words(error), status=422)
        return RedirectResponse(f"/console/judged/{task_id}?appealed=1", 303)

    async def _pair(
        self, request: Request, person: Person, *, reason: str = "", error: str = "", status: int = 200
    ) -> Response:
        allowed(person, "auditor")
        found = await run_in_threadpool(judged_pair, self._desk.store, person, request.path_params["task_id"])
        appealed = "appealed" in request.query_params
        return await self._site.render(
            request,
            "judged_pair.html",
            status=status,
            title=found.name,
            pair=found,
            me=person.person_id,
            reason=reason,
            error=error,
            notice="Your appeal is written down; an adjudicator decides." if appealed else "",
        )
