"""The frame around every page of the console: templates, headers, tokens of forms.

Pages work without JavaScript; what scripts there are is inline under a nonce, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from decision.errors import FieldError
from decision.fairness.audit_log import digest
from serving.problems import ProblemError
from serving.routes import FORM

Form = dict[str, list[str]]
_MOST_FIELDS = 100
_POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SHARED = Path(__file__).parent / "templates"


def percent(value: float) -> str:
    """Return a share as people read it."""
    return f"{100 * value:.1f} %"


def share(value: float) -> str:
    """Return a share of traffic as operators set it; a small one is not none."""
    return f"{100 * value:.3g} %"


def shown(value: object) -> str:
    """Return the value of a feature or a setting as people read it; what is empty has a word, too."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, cast("Sequence[object]", value))) or "none"
    if value == "":
        return "empty"
    return f"{value:,.6g}" if isinstance(value, float | int) else str(value)


def day(stamp: str | datetime) -> str:
    """Return a time as people read it."""
    at = datetime.fromisoformat(stamp) if isinstance(stamp, str) else stamp
    return at.strftime("%-d %B %Y, %H:%M UTC")


def policy_words(version: str) -> str:
    """Return the policy that a version's name stands for, in words."""
    kind, _, name = version.partition(":")
    return f"the baseline ({name})" if kind == "baseline" else f"version {version}"


def environment(folder: Path, **filters: Callable[..., object]) -> Environment:
    """Return what renders the templates of `folder` and those that all pages share."""
    made = Environment(loader=FileSystemLoader([folder, _SHARED]), autoescape=True, undefined=StrictUndefined)
    made.filters.update(percent=percent, share=share, shown=shown, day=day, policy=policy_words, **filters)
    return made


def rendered(templates: Environment, template: str, *, status: int = 200, **values: Any) -> Response:
    """Return a page; blocking.

    Args:
        templates: what renders it.
        template: its file.
        status: of the answer.
        values: of the template: ``title``, ``here`` (its path), and its own.
    """
    nonce = secrets.token_urlsafe(16)
    frame = {"nonce": nonce, "pages": [], "who": "", "signs_out": "", "error": "", "notice": "", "form_token": ""}
    text = templates.get_template(template).render(**frame | values)
    headers = {
        "content-security-policy": _POLICY.format(nonce=nonce),
        "cache-control": "no-store",
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
    }
    return Response(text, status, headers, "text/html; charset=utf-8")


def form_of(kind: str, body: bytes) -> Form:
    """Return a form's fields.

    Args:
        kind: media type of the body, as it was sent.
        body: the body.

    Raises:
        ProblemError: 422, it is none.
    """
    kind = kind.partition(";")[0].strip().lower()
    if kind != FORM:
        raise ProblemError(422, "a form was expected", field="content-type", wanted="a form", got=kind[:80])
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise ProblemError(422, "the form cannot be read", field="body") from error


def one(form: Form, name: str) -> str:
    """Return a form's value, "" without."""
    return form.get(name, [""])[0]


def form_token(session: str) -> str:
    """Return the token that forms of a session carry."""
    return digest(f"form:{session}")


def check_form(session: str, form: Form) -> None:
    """Check that a form is from a page of the session.

    Raises:
        ProblemError: 403, it is not.
    """
    given, wanted = one(form, "form").encode(), form_token(session).encode()
    if not hmac.compare_digest(given, wanted):  # bytes: of text it takes ASCII alone
        raise ProblemError(403, "This form is not from your session; open the page again. Nothing was saved.")


def in_words(error: FieldError) -> str:
    """Return an error of a form's field as a sentence."""
    return f"{error.field.replace('_', ' ').capitalize()} must be {error.wanted}, is {error.got}."
