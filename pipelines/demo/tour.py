"""A living installation to look around in: a week of traffic, a rollout under way, a refused version, a panel, a feed.

Decisions and outcomes have past times and go the way of all others: the event log, ingestion, the join, and nights that
are those of `decision nightly`, told that it is the end of their day. Nothing is written by hand but the log.
"""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from decision.artifact import unpack
from decision.fairness.clamp import ClampedPolicy
from decision.policy import OraclePolicy, UniformPolicy
from decision.protocols import Policy
from pipelines.access.keys import EVERY, new_key
from pipelines.demo.panel import AUDITORS, Panel, seat, work
from pipelines.demo.past import UNIFORM, Serving, feed_days, shop_day
from pipelines.fairness.anchors import anchors_key, published
from pipelines.fairness.mine import mine
from pipelines.fairness.people import add_key
from pipelines.fairness.publish import publish
from pipelines.fairness.store import Governance
from pipelines.fairness.tasks import assign
from pipelines.fairness.verdicts import appeal
from pipelines.fairness.views.effect import decided_pairs, effect_of
from pipelines.guard.step import guard
from pipelines.guard.store import GuardStore
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.join import join
from pipelines.nightly import nightly
from pipelines.operations.edit import edit, settings_text
from pipelines.operations.init import SESSIONS, init_loop, loop_toml
from pipelines.operations.installation import Installation
from pipelines.progress import Progress, silent
from pipelines.runs import Run
from pipelines.settings import load_settings
from pipelines.state.state import State

SHOP, FEED = "shop", "feed"
_DAY = timedelta(days=1)
_BY = "ada"
_MINED, _PROBED, _MOST = 10, 6, 100
"""Pairs that the panel judges, largest gaps and a probe; and more than there are."""
_LITTLE = 0.2
"""What the gate lets go without proof, in purchases a decision: a tour should not depend on luck."""


class TourPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a tour leaves behind.

    Attributes:
        seed: of everything.
        decisions: of the shop, a day.
        readers: of the feed.
        visits: of each reader.
        effort: of the training of the feed's policy, 1 for all of it.
    """

    seed: int = 1
    decisions: int = 1_000
    readers: int = 80
    visits: int = 20
    effort: float = 0.05


QUICK = TourPlan(decisions=400, readers=40, visits=10, effort=0.02)
"""A small tour with all that a whole one has."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may sign in: as what, with which key, and where to go then."""

    role: str
    key: str
    page: str


class Tour(msgspec.Struct, frozen=True, kw_only=True):
    """What a tour left behind.

    Attributes:
        home: of the installation.
        address: of the console once the service runs.
        serve: command that starts it.
        logins: who may sign in.
        verdicts: of the shop's nights, in order.
        weight: the candidate's share in the shop.
        refused: the refused version and why.
        alarms: those that stand in the shop.
        pairs: that wait for the panel.
        judged: how many pairs of the panel stand how, {status: pairs}.
        changed: of the latest decisions, those that the verdict shown first answers otherwise.
        feed: what the feed's policy is, in words.
        seconds: it took.
    """

    home: str
    address: str
    serve: str
    logins: list[Login]
    verdicts: list[str]
    weight: float
    refused: dict[str, str]
    alarms: list[str]
    pairs: int
    judged: dict[str, int]
    changed: int
    feed: str
    seconds: float


def run_tour(plan: TourPlan, *, home: Path, now: datetime, console: Console, progress: Progress = silent) -> Tour:
    """Make the installation.

    Args:
        plan: what to leave behind.
        home: home folder of the installation.
        now: the present, UTC; the week ends then.
        console: where it says what it does.
        progress: told how far long steps have come.

    Raises:
        FieldError: `home` holds loops of these names already.
    """
    begun = time.monotonic()
    settings = load_settings(home=str(home), log="local:")
    with Installation(settings) as parts:
        init_loop(settings, SHOP, values=_shop())
        tour = _Tour(plan, parts, now, console, progress)
        tour.week()
        feed = tour.feed()
        pairs, logins = tour.panels()
        refused = {
            one.version: one.reasons[0]
            for one in parts.registry.verdicts(SHOP)
            if one.verdict == "refused" and one.reasons
        }
    address = f"http://127.0.0.1:{settings.port}/console/"
    return Tour(
        home=str(home),
        address=address,
        serve=f"decision serve --home {home}",
        logins=logins,
        verdicts=tour.verdicts,
        weight=tour.weight,
        refused=refused,
        alarms=tour.alarms,
        pairs=pairs,
        judged=tour.judged,
        changed=tour.changed,
        feed=feed,
        seconds=time.monotonic() - begun,
    )


def show_tour(tour: Tour, out: Console) -> None:
    """Print where to look, and as whom."""
    shop = (
        f"a week of nights in the shop: {', '.join(tour.verdicts)}; the candidate has {100 * tour.weight:.0f} % of it"
    )
    out.print(shop, highlight=False, markup=False)
    for version, why in tour.refused.items():
        out.print(f"version {version} was refused: {why}", highlight=False, markup=False)
    for text in tour.alarms:
        out.print(f"alarm: {text}", highlight=False, markup=False)
    out.print(f"the feed: {tour.feed}", highlight=False, markup=False)
    stand = ", ".join(f"{pairs} {status}" for status, pairs in tour.judged.items())
    out.print(f"the panel of the shop judged pairs: {stand}; {tour.pairs} more wait for it", highlight=False)
    if tour.changed:
        out.print(f"a verdict in force answers {tour.changed} of the latest decisions otherwise", highlight=False)
    out.print(f"start the service:  {tour.serve}", highlight=False, markup=False, soft_wrap=True)
    out.print(f"and sign in at      {tour.address}", highlight=False, markup=False, soft_wrap=True)
    for login in tour.logins:
        out.print(f"  {login.role:<14} {login.key}  {login.page}", highlight=False, markup=False, soft_wrap=True)


class _Tour:
    def __init__(
        self, plan: TourPlan, parts: Installation, now: datetime, console: Console, progress: Progress
    ) -> None:
        self.plan, self.parts, self.now, self.console, self.progress = plan, parts, now, console, progress
        self.verdicts: list[str] = []
        self.alarms: list[str] = []
        self.weight = 0.0
        self.judged: dict[str, int] = {}
        self.changed = 0
        self.people: Panel | None = None
        self.values = _shop()

    def week(self) -> None:
        """Let seven days pass in the shop."""
        # What the gate asks for changes on the way: little, then a proven gain, then little again, and the guard is on.
        self._days(7, 6, "by chance", later=False)
        self._night(6)
        self._changed({"gate.margin": None, "gate.share": 0.0})
        self._days(6, 4, "by the first version", later=False)
        self._night(4)
        self._days(4, 2, "while more customers come by phone, and want other offers", later=True)
        self._night(2)
        self._changed({"gate.margin": _LITTLE, "guard.enabled": True, "guard.alpha": 0.2, "guard.cap": 0.5})
        self._days(2, 1, "the same", later=True)
        self._night(1)
        self._step(1)
        self._judged(1)
        self._days(1, 0, "by a mixture with the candidate, clamped for the people of upheld pairs", later=True)
        self._step(0)

    def feed(self) -> str:
        """Let readers visit a feed, and train a policy that remembers them, where torch is installed."""
        plan, parts = self.plan, self.parts
        torch = find_spec("torch") is not None
        values: dict[str, Any] = {"reward.window_s": 600.0, "gate.minimum_ess": 5.0}
        if torch:
            values |= {
                **SESSIONS,
                "policy.floor": 0.02,
                "session.horizon": plan.visits,
                "session.trend": "wears_out",
                "session.effort": plan.effort,
                "guard.episode_s": 3_600.0 * (plan.visits + 1),
            }
        init_loop(parts.settings, FEED, values=values)
        start = self.now - timedelta(hours=plan.visits + 1)
        self.console.print(f"{plan.readers * plan.visits} visits of readers of a feed", highlight=False)
        feed_days(parts.log, FEED, start, plan.readers, plan.visits, Serving(UniformPolicy(), UNIFORM), seed=plan.seed)
        run = self._run(FEED, self.now)
        trained = run.result("train") or {}
        if "version" not in trained:
            return f"nothing was learned: {trained.get('skipped', '')}"
        loop, verdict = parts.loop(FEED), run.verdict.replace("_", " ")
        if loop.guard.enabled:
            guard(parts.settings, loop, parts.lake, parts.registry, self.now)
        named = f"version {trained['version']}: {verdict}"
        if not torch:
            return f"torch is not installed, so that a policy without memory was trained; {named}"
        return f"a policy that remembers its readers, taught by {trained['session']['chosen']}; {named}"

    def panels(self) -> tuple[int, list[Login]]:
        """Open pairs that wait for the panel, and return how many, with the keys of everybody."""
        parts, now, people = self.parts, self.now, self.people
        if people is None:
            raise RuntimeError("the week comes before")
        loop, page = parts.loop(SHOP), f"/console/fairness/{SHOP}"
        with Governance.at(parts.settings) as store, State(parts.settings.state_url) as state:
            appealed = parts.lake.decisions(SHOP, latest=1)["event_id"][0].as_py()
            found = mine(store, parts.lake, parts.registry, loop, now=now, by=_BY, seed=self.plan.seed)
            assign(store, SHOP, now=now, by=_BY, rng=np.random.default_rng(self.plan.seed))
            appeal(store, SHOP, reason="I got no discount, and a friend did.", now=now, by=_BY, event_id=appealed)
            decided = decided_pairs(store, SHOP, limit=_MOST)
            for pair in decided:
                self.judged[pair.status] = self.judged.get(pair.status, 0) + 1
            upheld = [pair for pair in decided if pair.status == "upheld"]
            effects = (
                effect_of(parts.settings, store, parts.lake, parts.registry, loop, one.task_id) for one in upheld
            )
            shown = next(((one, effect) for one, effect in zip(upheld, effects, strict=True) if effect.changed), None)
            if shown is not None:
                page, self.changed = f"{page}/pairs/{shown[0].task_id}", shown[1].changed
            roles = ("decide", "report", "explain", "read", "operate")
            key, token = new_key(roles=roles, loops=[EVERY], now=now, by=_BY)
            add_key(store, state, key, now=now, by=_BY)
        seats = [(f"auditor {number}", one, "/console/review") for number, one in enumerate(people.auditors, 1)]
        seats += [
            ("adjudicator", people.adjudicator, "/console/disputes"),
            ("administrator", people.administrator, "/console/panels"),
            ("owner", people.owner, page),
        ]
        logins = [Login(role=role, key=one.key, page=where) for role, one, where in seats]
        return len(found.tasks), [Login(role="operator", key=token, page="/console/loops"), *logins]

    def _judged(self, ago: int) -> None:
        """Seat a panel before the end of a day, let it judge pairs, and clamp around those that it upholds."""
        parts, now = self.parts, self.now - ago * _DAY - timedelta(minutes=55)
        self._changed(
            {
                "fairness.enabled": True,
                "fairness.protected": ("sex",),
                "fairness.action": "ten_percent",
                "fairness.treatment": "being offered a discount",
                "fairness.auditors": AUDITORS,
                "fairness.clamp": True,
            }
        )
        loop = parts.loop(SHOP)
        with Governance.at(parts.settings) as store:
            self.people = seat(store, SHOP, now=now, by=_BY)
            seed = self.plan.seed + ago
            found = mine(
                store, parts.lake, parts.registry, loop, now=now, by=_BY, seed=seed, mined=_MINED, probe=_PROBED
            )
            assign(store, SHOP, now=now, by=_BY, rng=np.random.default_rng(seed))
            work(store, SHOP, self.people, now=now)
            clamped = publish(parts.settings, store, parts.lake, loop)
        self.console.print(
            f"{len(found.tasks)} pairs judged by {AUDITORS} auditors; {clamped} are clamped", highlight=False
        )

    def _days(self, first: int, last: int, under: str, *, later: bool) -> None:
        plan = self.plan
        for ago in range(first, last, -1):
            start = self.now - ago * _DAY
            # The last day's reward windows are over by now.
            shop_day(
                self.parts.log,
                SHOP,
                start,
                plan.decisions,
                self._serving(),
                seed=plan.seed,
                day=ago,
                later=later,
                length=_DAY - timedelta(hours=1),
            )
        self.console.print(
            f"{(first - last) * plan.decisions} decisions of {first - last} days, {under}", highlight=False
        )

    def _night(self, ago: int) -> None:
        run = self._run(SHOP, self.now - ago * _DAY)
        self.verdicts.append(run.verdict.replace("_", " "))
        self.alarms = [alarm["text"] for alarm in (run.result("alarms") or {}).get("alarms", [])]
        version = (run.result("train") or {}).get("version", "-")
        self.console.print(f"  night: version {version}, {self.verdicts[-1]}", highlight=False, markup=False)

    def _step(self, ago: int) -> None:
        """Let the guard look at what is settled, as between nights."""
        parts, loop, now = self.parts, self.parts.loop(SHOP), self.now - ago * _DAY
        ingest(parts.log, parts.lake, loops=parts.loops)
        join(parts.lake, loop, now)
        self.weight = guard(parts.settings, loop, parts.lake, parts.registry, now).weight

    def _run(self, loop: str, now: datetime) -> Run:
        parts = self.parts
        return nightly(
            parts.settings,
            parts.log,
            parts.lake,
            parts.registry,
            parts.loop(loop),
            now=now,
            seed=self.plan.seed,
            progress=self.progress,
        )

    def _serving(self) -> Serving:
        parts = self.parts
        champion = parts.registry.aliases(SHOP).get("champion")
        if champion is None:
            return Serving(UniformPolicy(), UNIFORM)
        store = GuardStore(parts.settings, SHOP)
        try:
            state = store.load()
        finally:
            store.close()
        if state.status != "climbing":
            return Serving(self._policy(champion), champion)
        candidate = self._policy(state.candidate_version)
        return Serving(self._policy(champion), champion, candidate, state.weight, state.guard_version)

    def _policy(self, version: str) -> Policy:
        parts = self.parts
        policy, fairness = unpack(parts.registry.files(SHOP, version))[0], parts.loop(SHOP).fairness
        with State(parts.settings.state_url) as state:
            entry = state.get(anchors_key(SHOP))
        if entry is None or not isinstance(policy, OraclePolicy):
            return policy
        return ClampedPolicy(policy, published(parts.settings, SHOP, entry.value), fairness.protected)

    def _changed(self, values: dict[str, Any]) -> None:
        settings = self.parts.settings
        stands = settings_text(settings, SHOP)
        self.values = {name: value for name, value in {**self.values, **values}.items() if value is not None}
        edit(settings, loop_toml(SHOP, self.values), SHOP, before=stands, by=_BY, environ=os.environ)


def _shop() -> dict[str, Any]:
    return {
        "reward.window_s": 600.0,
        "reward.minimum": 0.0,
        "reward.maximum": 1.0,
        "training.holdout": 0.3,
        "gate.margin": _LITTLE,
        "gate.minimum_ess": 20.0,
    }
