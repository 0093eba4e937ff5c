"""Pages for operators: who is asking, what their forms show, and errors as pages to who asked for one."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import parse_qs, quote

from starlette.responses import RedirectResponse, Response

from decision.errors import FieldError
from pipelines.access.callers import Caller
from pipelines.state.failures import DamagedRowError, StateError
from serving.console.frame import Form, check_form, environment, form_of, form_token, one, rendered
from serving.problems import ProblemError, unavailable
from serving.routes import Application, Call, Role, Route

HOME, LOGIN, LOGOUT = "/console/loops", "/console/login", "/console/signout"
SESSION, FORMS = "operator_session", "operator_form"
"""Cookies: of who signed in, and of who need not."""
_TOKEN_CHARS = 43
_MOST_QUERY, _LONGEST_QUERY = 8, 400
_STATUSES = (303, 401, 403, 404, 409, 410, 422, 429, 500, 503)
_ANYBODY_HERE = "somebody on this machine"

Work = Callable[[Call, Form], Response]


class Sessions(Protocol):
    """Opens and closes sessions."""

    def sign_in(self, given: bytes) -> str:
        """Return what a browser has to show in place of a key."""
        ...

    def sign_out(self, token: str) -> None:
        """End a session."""
        ...

    def of_session(self, token: str) -> Caller:
        """Return who shows a session's token."""
        ...


def figure(value: float) -> str:
    """Return a number as people read it: three digits that say something."""
    if not math.isfinite(value):
        return "–"
    if value != 0 and abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1e-3 and value != 0 else f"{value:.4f}".rstrip("0").rstrip(".")


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return figure(value) if value < 0 or value == 0 else f"+{figure(value)}"


def sentence(text: str) -> str:
    """Return a text that begins with a capital and ends with a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text[-1:] in (".", "!", "?", "") else ".")


templates = environment(
    Path(__file__).parent / "templates",
    figure=figure,
    signed=signed,
    sentence=sentence,
    count=lambda value: f"{int(value):,}",
    part=lambda value: quote(str(value), safe=""),
)


class Site:
    """What the operators' pages share.

    Args:
        sessions: who signed in.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def route(
        self, method: Literal["GET", "POST"], path: str, work: Work, name: str, summary: str, role: Role
    ) -> Route:
        """Return a page's row in the table of routes; `work` is called in a thread, with the form that was sent."""

        async def answer(call: Call) -> Application:
            def run() -> Response:
                form: Form = {}
                if method == "POST":
                    form = form_of(call.headers.get(b"content-type", b"").decode("latin-1"), call.body)
                    by_key = call.asks and not call.session
                    if not by_key:  # whoever shows a key itself is no browser that another page could use
                        check_form(call.session or cookie(call, FORMS), form)
                try:
                    return work(call, form)
                except DamagedRowError as error:
                    raise unavailable(str(error)) from error
                except StateError as error:
                    raise unavailable(f"State does not answer: {error}") from error

            return await asyncio.to_thread(run)

        return Route(
            method=method,
            path=path,
            name=name,
            tag="console",
            summary=summary,
            answer=answer,
            role=role,
            request=dict[str, str] if method == "POST" else None,
            response=str,
            also=_STATUSES,
            content="text/html; charset=utf-8",
            form=True,
            page=self.told,
        )

    def render(self, call: Call, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page for who is asking."""
        held, fresh = call.session, ""
        if not held:
            held = cookie(call, FORMS)
            if len(held) != _TOKEN_CHARS:
                held = fresh = secrets.token_urlsafe(32)
        frame = {
            "pages": [(HOME, "Loops"), (f"{LOGIN}?panels", "Panels")],
            "who": who(call),
            "signs_out": LOGOUT if call.session else "",
            "here": call.scope["path"],
            "form_token": form_token(held),
        }
        answer = rendered(templates, template, status=status, **frame | values)
        if fresh:
            set_cookie(call.headers, call.scope["scheme"], answer, FORMS, fresh)
        return answer

    def told(self, call: Call, problem: ProblemError) -> Response | None:
        """Return an error as a page; the way to sign in where that would help; None to who wants no page."""
        if b"text/html" not in call.headers.get(b"accept", b""):
            return None
        if problem.status == 401 and call.scope["method"] in ("GET", "HEAD"):
            return RedirectResponse(LOGIN, 303)
        values = {"title": problem.problem.title, "detail": str(problem), "who": "", "signs_out": ""}
        if problem.status == 403:
            values["signs_out"] = LOGOUT if call.session else ""
        answer = self.render(call, "problem.html", status=problem.status, **values)
        for name, value in problem.headers:
            answer.headers[name.decode()] = value.decode()
        return answer


def who(call: Call) -> str:
    """Return who is asking, for the record and the page's head."""
    return call.caller.name if call.asks else _ANYBODY_HERE


def cookie(call: Call, name: str) -> str:
    """Return what a cookie holds, "" without it."""
    try:
        found = SimpleCookie(call.headers.get(b"cookie", b"")[:8_192].decode("latin-1")).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def asked(call: Call, name: str) -> str:
    """Return a value of the query, "" without it."""
    try:
        found = parse_qs(call.scope.get("query_string", b"").decode("latin-1"), max_num_fields=_MOST_QUERY)
    except ValueError:
        return ""
    return found.get(name, [""])[0][:_LONGEST_QUERY]


def set_cookie(headers: dict[bytes, bytes], scheme: str, answer: Response, name: str, value: str) -> None:
    """Give a browser a cookie that scripts cannot read and other sites cannot send."""
    # a proxy ends TLS and says so; whoever else says it gets a cookie that a browser keeps back from plain HTTP
    secure = "https" in (scheme, headers.get(b"x-forwarded-proto", b"").decode("latin-1"))
    answer.set_cookie(name, value, httponly=True, samesite="strict", secure=secure, path="/console")


def fields(form: Form, *names: str) -> dict[str, str]:
    """Return the values of some fields, without the blanks around them.

    Raises:
        FieldError: a field is there that the form does not have.
    """
    for name in form:
        if name not in names and name != "form":
            raise FieldError.unknown(name, names, noun="field")
    return {name: one(form, name).strip() for name in names}
