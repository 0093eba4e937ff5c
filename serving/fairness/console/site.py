"""Sessions, forms and templates of the console.

Pages work without JavaScript; what scripts there are is inline under a nonce, and nothing is loaded from elsewhere. A
session is a random token in a cookie that scripts cannot read and other sites cannot send; every form carries a second
token derived from it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from decision.fairness.agreement import in_words
from decision.fairness.pair_name import pair_name
from pipelines.fairness.people import Person, by_session
from serving.console.frame import Form, check_form, environment, form_of, form_token, rendered
from serving.fairness.desk import Desk, answering, body
from serving.problems import ProblemError, failed, problem_of
from serving.routes import Route

_log = logging.getLogger(__name__)

COOKIE = "panel_session"
LOGIN = "/console/login"
Page = Callable[[Request, Person, Form], Awaitable[Response]]


def points(gap: float) -> str:
    """Return a difference of two probabilities in percentage points, as every page has it: ``52 points``."""
    shown = f"{100 * gap:.1f}".removesuffix(".0")
    return f"{shown} point{'' if shown == '1' else 's'}"


def difference(payload: dict[str, Any]) -> float:
    """Return the difference of a pair's probabilities."""
    first, second = (card["probability"] for card in payload["cards"])
    return abs(first - second)


def accepted(limit: float) -> str:
    """Return an acceptable difference in words."""
    if limit == 0.0:
        return "none at all"
    return "any" if limit >= 1.0 else points(limit)


_templates = environment(
    Path(__file__).parent / "templates",
    points=points,
    difference=difference,
    accepted=accepted,
    pair_name=pair_name,
    does=in_words,
    said=lambda verdict: str(verdict).replace("_", " "),
)


class Site:
    """The console's frame around its pages.

    Args:
        desk: what the panels' parts share.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def page(self, work: Page, *, signed_in: bool = True) -> Callable[[Request], Awaitable[Response]]:
        """Return `work` as an endpoint: with a person, a checked form, and errors as pages."""

        @wraps(work)
        async def run(request: Request) -> Response:
            try:
                form = await self._form(request) if request.method == "POST" else {}
                person = await self.person(request)
                if person is None and signed_in:
                    if request.method == "POST":
                        raise ProblemError(401, "Sign in first; nothing was saved.")
                    return RedirectResponse(LOGIN, 303)
                if request.method == "POST" and signed_in:
                    check_form(request.cookies.get(COOKIE, ""), form)
                return await work(request, person or _NOBODY, form)
            except Exception as error:
                problem = problem_of(error)
                if problem is None:
                    _log.exception("%s %s failed", request.method, request.url.path[:200])
                    problem = failed()
                return await self.render(
                    request, "problem.html", status=problem.status, title=problem.problem.title, detail=str(problem)
                )

        return run

    def route(
        self,
        method: Literal["GET", "POST"],
        path: str,
        work: Page,
        name: str,
        summary: str,
        *,
        signed_in: bool = True,
    ) -> Route:
        """Return a page as a route."""
        return Route(
            method=method,
            path=path,
            name=name,
            tag="console",
            summary=summary,
            answer=answering(self.page(work, signed_in=signed_in)),
            role="visitor",
            request=dict[str, str] if method == "POST" else None,
            response=str,
            also=(303, 401, 403, 404, 413, 422, 500),
            content="text/html; charset=utf-8",
            form=True,
            reads_body=False,
        )

    async def person(self, request: Request) -> Person | None:
        """Return who is signed in."""
        token = request.cookies.get(COOKIE, "")
        if not 20 <= len(token) <= 100:
            return None
        return await run_in_threadpool(by_session, self.desk.store, token, now=self.desk.now())

    async def render(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page."""
        person = values.pop("person", None) or await self.person(request)
        frame = {
            "pages": _pages_of(person),
            "who": "" if person is None else person.name,
            "signs_out": "" if person is None else "/console/logout",
            "here": request.url.path,
            "form_token": form_token(request.cookies.get(COOKIE, "")),
        }
        return await run_in_threadpool(rendered, _templates, template, status=status, **frame | values)

    async def _form(self, request: Request) -> Form:
        return form_of(request.headers.get("content-type", ""), await body(request))


def _pages_of(person: Person | None) -> list[tuple[str, str]]:
    if person is None:
        return []
    out: list[tuple[str, str]] = []
    if person.may("auditor"):
        out += [("/console/review", "Review"), ("/console/judged", "What I judged"), ("/console/tour", "How it works")]
    if person.may("adjudicator"):
        out.append(("/console/disputes", "Disputes"))
    if person.may("administrator"):
        out.append(("/console/panels", "Panels"))
    return out + [(f"/console/fairness/{loop}", f"Fairness of {loop}") for loop in person.owns]


_NOBODY = Person(person_id="", name="", roles=(), owns=(), active=False)
