"""Pages on which an operator acts: a confirmation for each action, and settings with what would change."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from difflib import unified_diff
from typing import NamedTuple
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from decision.errors import FieldError
from pipelines.evaluation.standing import standing
from pipelines.guard.report import GuardReport
from pipelines.guard.store import FencedError
from pipelines.operations.apply import SettingsMovedError, differing
from pipelines.operations.edit import edit, settings_text, tried
from pipelines.registry.registry import AliasMovedError
from pipelines.registry.tracking import RegistryError
from pipelines.settings import parse_loop
from serving.console.actions import ACTIONS, Action, Asked
from serving.console.frame import Form, in_words
from serving.console.loop import guard_of
from serving.console.site import HOME, Site, Work, asked, fields, who
from serving.core import Core
from serving.problems import ProblemError, unavailable
from serving.routes import Call, Route

_SHOWN_NOTICE = 300


class Way(NamedTuple):
    """A way to an action from a loop's page."""

    name: str
    label: str
    danger: bool


def ways(core: Core, loop: str, seen: GuardReport) -> list[Way]:
    """Return what can be done to a loop now."""
    enabled = core.snapshot(loop).loop.guard.enabled
    has_champion = core.snapshot(loop).policy is not None
    found = [
        Way(action.name, action.label, action.danger)
        for action in ACTIONS
        if action.listed and (enabled and action.fits(seen) if action.guarded else has_champion)
    ]
    return [*found, Way("settings", "Change settings", danger=False)]


class Operating:
    """The pages.

    Args:
        core: of the service.
        site: what operators' pages share.
    """

    def __init__(self, core: Core, site: Site) -> None:
        self._core, self._site = core, site

    def routes(self) -> list[Route]:
        """Return the routes."""
        made: list[Route] = []
        for action in ACTIONS:
            path, name = f"{HOME}/{{loop}}/{action.name}", action.name.capitalize()
            ask, act = self._asking(action), self._acting(action)
            made.append(
                self._site.route("GET", path, ask, f"confirm{name}", f"Ask: {action.label.lower()}?", "operate")
            )
            made.append(self._site.route("POST", path, act, f"submit{name}", action.label, "operate"))
        path = f"{HOME}/{{loop}}/settings"
        return [
            *made,
            self._site.route("GET", path, self.settings, "editSettings", "Show a loop's settings to change", "operate"),
            self._site.route("POST", path, self.change, "submitSettings", "Change a loop's settings", "operate"),
        ]

    def _asking(self, action: Action) -> Work:
        return lambda call, form: self._confirm(
            call, action, values={name: asked(call, name) for name in action.fields}
        )

    def _acting(self, action: Action) -> Work:
        def act(call: Call, form: Form) -> Response:
            loop = call.path["loop"]
            self._core.snapshot(loop)
            values = fields(form, *action.fields)
            now = datetime.fromtimestamp(self._core.clock(), UTC)
            try:
                done = action.do(Asked(self._core, loop, values, who(call), now))
            except FieldError as error:
                return self._confirm(call, action, values=values, error=in_words(error), status=422)
            except (FencedError, AliasMovedError) as error:
                said = "Somebody else moved it at this moment; look again"
                return self._confirm(call, action, values=values, error=f"{said}: {error}", status=409)
            except RegistryError as error:
                raise unavailable(str(error)) from error
            return _back(loop, done)

        return act

    def _confirm(
        self,
        call: Call,
        action: Action,
        *,
        values: dict[str, str] | None = None,
        error: str = "",
        status: int = 200,
    ) -> Response:
        loop = call.path["loop"]
        snapshot, seen = self._core.snapshot(loop), guard_of(self._core, loop)
        can_do = not action.guarded or snapshot.loop.guard.enabled
        return self._site.render(
            call,
            "confirm.html",
            status=status,
            title=f"{action.label}: {loop}",
            loop=loop,
            action=action,
            can_do=can_do,
            guard=seen,
            policy_version=snapshot.policy_version,
            versions=self._versions(loop) if action.name == "rollback" else [],
            alarms=standing(self._core.settings, loop).alarms if action.name == "clear" else [],
            values=values or {},
            error=error,
        )

    def _versions(self, loop: str) -> list[str]:
        try:
            champion = self._core.registry.aliases(loop).get("champion")
            known = [one.version for one in self._core.registry.versions(loop)]
        except RegistryError as error:
            raise unavailable(str(error)) from error
        return [version for version in reversed(known) if version != champion]

    def settings(self, call: Call, form: Form) -> Response:
        """Show a loop's settings to change."""
        text = self._text(call.path["loop"])
        return self._settings(call, text, text)

    def change(self, call: Call, form: Form) -> Response:
        """Show what a change would do, or, once that was confirmed, make it."""
        loop = call.path["loop"]
        stands = self._text(loop)
        said = fields(form, "settings", "before", "confirmed")
        # browsers send lines that end with CR LF, and the blanks around a text are no part of it
        text, before = (f"{said[name]}\n".replace("\r\n", "\n") for name in ("settings", "before"))
        if before.strip() != stands.strip():
            error = "Somebody else changed the settings meanwhile; your text is below, compared with theirs"
            return self._settings(call, text, stands, error=error, status=409)
        try:
            now = tried(text, loop, os.environ)
            tenant = self._core.snapshot(loop).loop.tenant
            if now.tenant != tenant and not call.caller.sees_all():  # a loop is nobody's to give away but its owner's
                raise FieldError("tenant", wanted=f"{tenant!r}, as it is: its key sees no other", got=now.tenant)
            if not said["confirmed"]:
                changed = differing(parse_loop(stands, loop, os.environ), now)
                lines = unified_diff(stands.splitlines(), text.splitlines(), "in force", "yours", lineterm="", n=2)
                return self._settings(call, text, stands, changed=changed, lines=list(lines)[2:])
            edit(self._core.settings, text, loop, before=stands, by=who(call), environ=os.environ)
        except FieldError as error:
            return self._settings(call, text, stands, error=f"{str(error).rstrip('.')}.", status=422)
        except SettingsMovedError as error:
            return self._settings(call, text, stands, error=f"{error}.", status=409)
        return _back(loop, "The settings are in force; every replica takes them within seconds")

    def _text(self, loop: str) -> str:
        self._core.snapshot(loop)
        try:
            return settings_text(self._core.settings, loop)
        except OSError as error:
            raise ProblemError(503, f"the settings of {loop} cannot be read: {error.strerror}") from error

    def _settings(
        self,
        call: Call,
        text: str,
        stands: str,
        *,
        changed: dict[str, tuple[object, object]] | None = None,
        lines: list[str] | None = None,
        error: str = "",
        status: int = 200,
    ) -> Response:
        loop = call.path["loop"]
        return self._site.render(
            call,
            "settings.html",
            status=status,
            title=f"Settings: {loop}",
            loop=loop,
            text=text,
            before=stands,
            changed=changed,
            lines=lines or [],
            error=error,
            shared=bool(self._core.settings.state),
        )


def _back(loop: str, done: str) -> Response:
    return RedirectResponse(f"{HOME}/{quote(loop, safe='')}?done={quote(done[:_SHOWN_NOTICE])}", 303)
