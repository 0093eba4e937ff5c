"""The panels' routes: their endpoints and their pages, with the one store both use."""

from __future__ import annotations

from collections.abc import Callable

from serving.console.app import Operators
from serving.core import Core
from serving.fairness.api import Api
from serving.fairness.console.pages import Pages
from serving.fairness.desk import Desk
from serving.routes import Route


def panels(core: Core, operators: Operators) -> tuple[list[Route], Callable[[], None]]:
    """Return the routes of a core's panels, and what closes their store."""
    desk = Desk(core)
    return [*Api(desk).routes(), *Pages(desk, operators).routes()], desk.close
