"""The operators' routes, and the one page to sign in that they share with the auditors."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from urllib.parse import quote

import msgspec
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pipelines.evaluation.standing import TO_DO, alarms_key
from pipelines.fairness.store import Governance
from pipelines.registry.tracking import RegistryError
from pipelines.reports.night import night_told
from pipelines.state.failures import StateError
from pipelines.state.state import State
from serving.console.changes import changes
from serving.console.counted import Counted
from serving.console.explaining import view_of
from serving.console.frame import Form, policy_words
from serving.console.lag import Lag
from serving.console.loop import (
    SHOWN_NIGHTS,
    guard_of,
    health_of,
    legs_of,
    published_of,
    rungs_of,
    value_chart,
    versions_of,
)
from serving.console.nights import Nights
from serving.console.operating import Operating, ways
from serving.console.overview import Glance, alarms_in, glance
from serving.console.rates import Rates
from serving.console.site import HOME, LOGIN, LOGOUT, SESSION, Sessions, Site, asked, set_cookie
from serving.core import Core
from serving.errors import UnavailableError, UnknownLoopError
from serving.problems import ProblemError, unavailable
from serving.routes import Call, Route
from serving.wire import check_id

EXPLAINS = "Show how a decision came about"
MOST_SLOTS, MOST_OUTCOMES = 50, 100
_LONGEST_KEY = 4_096


class Operators:
    """The operators' pages.

    Args:
        core: of the service.
        sessions: who signed in.

    Attributes:
        home: where an operator begins.
    """

    home = HOME

    def __init__(self, core: Core, sessions: Sessions) -> None:
        self._core, self._sessions, self._site = core, sessions, Site(sessions)
        self._state = State(core.settings.state_url)
        self._nights, self._rates, self._counted = Nights(self._state), Rates(core), Counted(core)
        self._lag, self._operating = Lag(core), Operating(core, self._site)
        self._governance: Governance | None = None
        self._opening = threading.Lock()

    def close(self) -> None:
        """Close what was opened."""
        self._rates.close()
        self._counted.close()
        self._lag.close()
        if self._governance is not None:
            self._governance.close()
        self._state.close()

    def routes(self) -> list[Route]:
        """Return the routes."""
        route = self._site.route
        return [
            route("GET", HOME, self.loops, "showLoops", "Show the loops at a glance", "read"),
            route("GET", f"{HOME}/{{loop}}", self.loop, "showLoop", "Show a loop", "read"),
            route("GET", f"{HOME}/{{loop}}/find", self.find, "findDecision", "Go to a decision's page", "explain"),
            route("GET", f"{HOME}/{{loop}}/decisions/{{event_id}}", self.decision, "showDecision", EXPLAINS, "explain"),
            route(
                "GET", f"{HOME}/{{loop}}/nights/{{run_id}}", self.night, "showNight", "Show a night's report", "read"
            ),
            *self._operating.routes(),
            route("POST", LOGOUT, self.sign_out, "signOutOperator", "Sign an operator out", "read"),
        ]

    async def sign_in(self, request: Request, key: str) -> Response | None:
        """Open a session for an API key; None for what is none, which may be an auditor's.

        Raises:
            ProblemError: 422, a token of an issuer; 503, State cannot be reached.
        """
        if not 0 < len(key) <= _LONGEST_KEY:
            return None
        try:
            token = await asyncio.to_thread(self._sessions.sign_in, key.encode())
        except StateError as error:
            raise unavailable("State does not answer, so nobody can sign in") from error
        except ProblemError as problem:
            if problem.status == 401:
                return None
            raise
        answer = RedirectResponse(HOME, 303)
        set_cookie(dict(request.scope["headers"]), request.url.scheme, answer, SESSION, token)
        return answer

    def sign_out(self, call: Call, form: Form) -> Response:
        """End the session."""
        self._sessions.sign_out(call.session)
        answer = RedirectResponse(LOGIN, 303)
        answer.delete_cookie(SESSION, path="/console")
        return answer

    def loops(self, call: Call, form: Form) -> Response:
        """Show the loops at a glance."""
        sample, found = self._rates.watch(), list[Glance]()
        for name in call.loops():
            with suppress(UnknownLoopError, UnavailableError):  # it went meanwhile
                found.append(glance(self._core, self._nights.of(name), self._counted, self._rates, name))
        known = {one.name for one in found}
        errors = self._core.loops.errors().items()
        broken = [pair for pair in errors if pair[0] not in known] if call.caller.sees_all() else []
        # what asks for the most comes first; of others the alphabet decides
        found.sort(key=lambda one: (not one.alarms and not one.says.error, -(one.per_second or 0.0), one.name))
        return self._site.render(
            call,
            "loops.html",
            title="Loops",
            loops=found,
            broken=broken,
            sample=sample,
            lag=self._lag.messages(sample.gauges.get("ingest_lag")),
            ready=self._core.ready(),
            address=address_of(call),
        )

    def loop(self, call: Call, form: Form) -> Response:
        """Show a loop."""
        core, name = self._core, call.path["loop"]
        core.snapshot(name)
        # What somebody did a moment ago is shown, though the service has not looked since.
        entry = self._state.get(alarms_key(name))
        standing = alarms_in(core, name, None if entry is None else entry.value)
        guard, published = guard_of(core, name), published_of(self._state, name)
        nights = self._nights.of(name)
        seen = glance(core, nights, self._counted, self._rates, name, standing, published)
        loop = core.snapshot(name).loop
        try:
            verdicts = core.registry.verdicts(name)
            champion = core.registry.aliases(name).get("champion", core.snapshot(name).baseline_version)
            versions = versions_of(core, name, nights, verdicts)
        except RegistryError as error:
            raise unavailable(f"the registry does not answer: {error}") from error
        governance = self._opened() if loop.fairness.enabled else None
        return self._site.render(
            call,
            "loop.html",
            title=name,
            it=seen,
            coming="" if champion == seen.says.policy_version or seen.says.error else policy_words(champion),
            acts=ways(core, name, guard) if call.caller.holds("operate") else [],
            operates=call.caller.holds("operate"),
            explains=call.caller.holds("explain"),
            chart=Markup(value_chart(nights, loop)),  # noqa: S704 - drawn here, every text in it escaped
            guard=guard if loop.guard.enabled else msgspec.structs.replace(guard, status="off"),
            stale=published is not None and published.expires_at < core.clock(),
            rungs=rungs_of(guard),
            legs=legs_of(guard),
            versions=versions,
            health=health_of(nights),
            drift=self._nights.drift(name, nights),
            changes=changes(core, name, guard.history, verdicts, seen.standing.clearings, governance),
            nights=nights[: -SHOWN_NIGHTS - 1 : -1],
            kept={night.run_id for night in nights},
            notice=asked(call, "done"),
        )

    def night(self, call: Call, form: Form) -> Response:
        """Show what a night did, in words."""
        loop, run_id = call.path["loop"], call.path["run_id"]
        self._core.snapshot(loop)
        run = self._nights.run(loop, run_id)
        if run is None:
            raise ProblemError(404, f"there is no night {run_id[:80]!r}", field="run_id", wanted="a night that is kept")
        try:
            told = night_told(run, TO_DO)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            said = f"the manifest of night {run_id[:80]!r} is of another release: {error!r}"
            raise ProblemError(422, said, field="run_id", wanted="a night of this release") from error
        return self._site.render(call, "night.html", title=told.title, loop=loop, told=told)

    def find(self, call: Call, form: Form) -> Response:
        """Go to the page of the decision whose id was typed."""
        loop, event_id = call.path["loop"], asked(call, "event_id").strip()
        self._core.snapshot(loop)
        check_id("event_id", event_id)
        return RedirectResponse(f"{HOME}/{quote(loop, safe='')}/decisions/{quote(event_id, safe='')}", 303)

    def decision(self, call: Call, form: Form) -> Response:
        """Show how a decision came about."""
        loop, event_id = call.path["loop"], call.path["event_id"]
        self._core.snapshot(loop)
        found = self._core.explain(event_id, loop)
        return self._site.render(
            call,
            "decision.html",
            title=f"Decision {event_id}",
            loop=loop,
            event_id=event_id,
            views=[view_of(self._core, record) for record in found.decisions[:MOST_SLOTS]],
            outcomes=found.outcomes[:MOST_OUTCOMES],
        )

    def _opened(self) -> Governance:
        with self._opening:
            if self._governance is None:
                self._governance = Governance.at(self._core.settings)
            return self._governance


def address_of(call: Call) -> str:
    """Return the address under which the service was asked."""
    host = call.headers.get(b"host", b"localhost").decode("latin-1")
    scheme = call.headers.get(b"x-forwarded-proto", b"").decode("latin-1") or call.scope["scheme"]
    return f"{'https' if scheme == 'https' else 'http'}://{host}"


def console(core: Core, sessions: Sessions) -> Operators:
    """Return the operators' pages of a core."""
    return Operators(core, sessions)
