"""The panels as one ASGI application, which the service's dispatcher hands ``/fairness`` and ``/console`` to."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from serving.core import Core
from serving.fairness.api import Api
from serving.fairness.console.pages import Pages
from serving.fairness.desk import Desk
from serving.problems import ProblemError


def panels(core: Core) -> Starlette:
    """Return the application of a core."""
    desk = Desk(core)

    async def missing(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        told = "there is nothing here" if status == 404 else "this path does not take that method"
        problem = ProblemError(status, told)
        return Response(problem.body(), status, media_type="application/problem+json")

    return Starlette(
        routes=[*Api(desk).routes(), *Pages(desk).routes()], exception_handlers={404: missing, 405: missing}
    )
