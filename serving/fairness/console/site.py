"""Sessions, forms and templates of the console.

Pages work without JavaScript; what scripts there are is inline under a nonce, and nothing is loaded from elsewhere. A
session is a random token in a cookie that scripts cannot read and other sites cannot send; every form carries a second
token derived from it.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from decision.fairness.audit_log import digest
from pipelines.fairness.people import Person, by_session
from serving.fairness.desk import Desk, body
from serving.problems import ProblemError, failed, problem_of

_log = logging.getLogger(__name__)

COOKIE = "panel_session"
LOGIN = "/console/login"
_POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

Form = dict[str, list[str]]
Page = Callable[[Request, Person, Form], Awaitable[Response]]


def percent(value: float) -> str:
    """Return a share as people read it."""
    return f"{100 * value:.1f} %"


def shown(value: object) -> str:
    """Return a feature's value as people read it."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.6g}" if isinstance(value, float | int) else str(value)


def day(stamp: str) -> str:
    """Return a time of the store as people read it."""
    return datetime.fromisoformat(stamp).strftime("%-d %B %Y, %H:%M UTC")


def points(payload: dict[str, Any]) -> str:
    """Return the difference of a pair's probabilities."""
    first, second = (card["probability"] for card in payload["cards"])
    return f"{100 * abs(first - second):.1f} percentage points"


def gap(limit: float) -> str:
    """Return an acceptable gap in words."""
    if limit == 0.0:
        return "None at all"
    return "Any" if limit >= 1.0 else f"{100 * limit:.0f} percentage points"


_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)
_templates.filters.update(percent=percent, shown=shown, day=day, points=points, gap=gap)


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
                    _check_form(request, form)
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

    async def person(self, request: Request) -> Person | None:
        """Return who is signed in."""
        token = request.cookies.get(COOKIE, "")
        if not 20 <= len(token) <= 100:
            return None
        return await run_in_threadpool(by_session, self.desk.store, token, now=self.desk.now())

    async def render(self, request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page."""
        person = values.pop("person", None) or await self.person(request)
        nonce = secrets.token_urlsafe(16)
        text = await run_in_threadpool(
            _templates.get_template(template).render,
            **{
                "person": person,
                "pages": _pages_of(person),
                "here": request.url.path,
                "nonce": nonce,
                "form_token": form_token(request.cookies.get(COOKIE, "")),
                "error": "",
                "notice": "",
                **values,
            },
        )
        headers = {
            "content-security-policy": _POLICY.format(nonce=nonce),
            "cache-control": "no-store",
            "referrer-policy": "same-origin",
            "x-content-type-options": "nosniff",
        }
        return Response(text, status, headers, "text/html; charset=utf-8")

    async def _form(self, request: Request) -> Form:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise ProblemError(422, "a form was expected", field="content-type", wanted="a form", got=kind[:80])
        try:
            return parse_qs((await body(request)).decode(), keep_blank_values=True, max_num_fields=100)
        except ValueError as error:
            raise ProblemError(422, "the form cannot be read", field="body") from error


def form_token(session: str) -> str:
    """Return the token that the session's forms carry."""
    return digest(f"form:{session}")


def one(form: Form, name: str) -> str:
    """Return a form's value, "" without."""
    return form.get(name, [""])[0]


def _check_form(request: Request, form: Form) -> None:
    given, wanted = one(form, "form").encode(), form_token(request.cookies.get(COOKIE, "")).encode()
    if not hmac.compare_digest(given, wanted):  # bytes: of text it takes ASCII alone
        raise ProblemError(403, "This form is not from your session; open the page again. Nothing was saved.")


def _pages_of(person: Person | None) -> list[tuple[str, str]]:
    if person is None:
        return []
    out: list[tuple[str, str]] = []
    if person.may("auditor"):
        out.append(("/console/review", "Review"))
    if person.may("adjudicator"):
        out.append(("/console/disputes", "Disputes"))
    if person.may("administrator"):
        out.append(("/console/panels", "Panels"))
    return out + [(f"/console/fairness/{loop}", f"Fairness of {loop}") for loop in person.owns]


_NOBODY = Person(person_id="", name="", roles=(), owns=(), active=False)
