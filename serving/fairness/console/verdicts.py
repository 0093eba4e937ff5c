"""What the panels decided in a loop and what each verdict changed, for its owner."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from decision.errors import FieldError
from pipelines.fairness.people import Person
from pipelines.fairness.verdicts import appeal
from pipelines.fairness.views.effect import decided_pair, decided_pairs, effect_of
from pipelines.lake.lake import Lake
from serving.console.frame import Form, in_words, one
from serving.fairness.console.own import place_of
from serving.fairness.console.site import Site
from serving.fairness.desk import Desk, allowed, own_loop
from serving.routes import Route

STEP = 25


class Verdicts:
    """The pages.

    Args:
        desk: what the panels' parts share.
        site: the frame around the pages.
    """

    def __init__(self, desk: Desk, site: Site) -> None:
        self._desk, self._site = desk, site

    def routes(self) -> list[Route]:
        """Return the routes."""
        route, pairs = self._site.route, "/console/fairness/{loop}/pairs"
        return [
            route("GET", pairs, self.pairs, "showVerdicts", "Show what a loop's panels decided"),
            route("GET", f"{pairs}/{{task_id}}", self.pair, "showVerdict", "Show what a verdict changed"),
            route("POST", f"{pairs}/{{task_id}}/appeal", self.appeal, "submitOwnersAppeal", "Appeal a verdict"),
        ]

    async def pairs(self, request: Request, person: Person, form: Form) -> Response:
        """Show the decided pairs, the latest first."""
        loop, first = self._own(request, person), place_of(request)
        # one more than is shown tells whether there are more
        found = await run_in_threadpool(decided_pairs, self._desk.store, loop, first=first, limit=STEP + 1)
        return await self._site.render(
            request,
            "verdicts.html",
            title=f"Verdicts on {loop}",
            loop_name=loop,
            rows=found[:STEP],
            first=first,
            step=STEP,
            more=len(found) > STEP,
        )

    async def pair(self, request: Request, person: Person, form: Form) -> Response:
        """Show one of them and what follows from it."""
        return await self._pair(request, person)

    async def appeal(self, request: Request, person: Person, form: Form) -> Response:
        """Take the owner's or an administrator's appeal."""
        loop = self._own(request, person)
        allowed(person, "administrator", "owner")
        task_id, reason = request.path_params["task_id"], one(form, "reason")
        try:
            await run_in_threadpool(
                appeal,
                self._desk.store,
                loop,
                reason=reason,
                now=self._desk.now(),
                by=person.person_id,
                task_id=task_id,
                person=person,
            )
        except FieldError as error:
            return await self._pair(request, person, reason=reason, error=in_words(error), status=422)
        return RedirectResponse(f"/console/fairness/{loop}/pairs/{task_id}?appealed=1", 303)

    def _own(self, request: Request, person: Person) -> str:
        allowed(person, "administrator", "adjudicator", "owner")
        loop = self._desk.known_loop(request.path_params["loop"])
        own_loop(person, loop)
        return loop

    async def _pair(
        self, request: Request, person: Person, *, reason: str = "", error: str = "", status: int = 200
    ) -> Response:
        loop, task_id = self._own(request, person), request.path_params["task_id"]

        def work() -> dict[str, Any]:
            core, store = self._desk.core, self._desk.store
            settings, lake = core.settings, Lake(core.settings.lake_url)
            found = decided_pair(store, loop, task_id)
            effect = effect_of(settings, store, lake, core.registry, core.snapshot(loop).loop, task_id)
            return {"pair": found, "effect": effect}

        values = await run_in_threadpool(work)
        pair = values["pair"]
        appealed = any(given.kind == "appealed" and given.by == person.person_id for given in pair.verdicts)
        may_appeal = person.may("administrator") or loop in person.owns
        return await self._site.render(
            request,
            "verdict.html",
            status=status,
            title=pair.name,
            loop_name=loop,
            me=person.person_id,
            reason=reason,
            error=error,
            shows_events=person.may("administrator"),
            may_appeal=may_appeal and pair.status in ("upheld", "dismissed") and not appealed,
            notice="Your appeal is written down; an adjudicator decides." if "appealed" in request.query_params else "",
            **values,
        )
