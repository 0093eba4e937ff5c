"""A policy with memory from end to end: a bandit takes over, wears its users out, and hands over to Sim2Rec.

Everything is the shipped thing: the service is a process of its own, the nights are those of `decision nightly`, and a
guard rolls the version out by episodes. The world is long-term satisfaction, whose optimum is known; the service
sees what users read, and nothing else.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from rich.console import Console
from scipy import stats

from decision.batch import Floats
from pipelines.demo.feed import Books, Feed, Visit, name_of
from pipelines.demo.recomputed import differing
from pipelines.demo.session_result import Cohort, Night, Served, SessionPlan, SessionProof, SessionResult
from pipelines.guard.step import guard
from pipelines.ingestion.ingest import ingest
from pipelines.interactions.counters import counters
from pipelines.interactions.join import join
from pipelines.nightly import nightly
from pipelines.operations.init import SESSIONS, init_loop
from pipelines.operations.installation import Installation
from pipelines.operations.processes import free_port, process, serve_command, wait_until_ready
from pipelines.progress import Progress, silent
from pipelines.replay.propensities import check_propensities
from pipelines.runs import Run
from pipelines.settings import Settings, load_settings
from pipelines.training.promises import promises
from simulators.environments.lts.env import LtsUsers, draw_users
from simulators.environments.lts.planner import plan as planned

LOOP = "feed"
_MU = np.array([14.0])
_MARGIN_S = 0.3


def run_sessions(
    plan: SessionPlan, *, out: Path, home: Path | None = None, console: Console, progress: Progress = silent
) -> SessionResult:
    """Run the demo and write its report.

    Args:
        plan: what to do.
        out: folder of the report.
        home: home folder of the installation, kept; None for a temporary one.
        console: where it says what it does.
        progress: told of cohorts that have come and gone.

    Raises:
        FieldError: `home` holds a loop of that name already.
        ServiceError: the service did not start or did not live, or refused a decision.
    """
    begun = time.monotonic()
    with ExitStack() as stack:
        root = home if home is not None else Path(stack.enter_context(tempfile.TemporaryDirectory("-decision-demo")))
        settings = load_settings(home=str(root), port=free_port(), host="127.0.0.1", reload_s=0.3, log="local:")
        parts = stack.enter_context(Installation(settings))
        init_loop(settings, LOOP, values=_as_a_bandit(plan))
        with ExitStack() as processes:
            feed = _started(processes, settings, plan, console)
            demo = _Demo(plan, parts, feed, console, progress)
            demo.go()
            demo.close()
        rows, champion = parts.lake.interactions(LOOP), parts.registry.aliases(LOOP).get("champion")
        out.mkdir(parents=True, exist_ok=True)
        report = out / "sessions.html"
        served, cohorts, gain = _measured(plan, feed.books.visits, rows, demo)
        result = SessionResult(
            plan=plan,
            decided=counters(parts.lake, parts.loop(LOOP), datetime.now(UTC)).decided,
            nights=demo.nights,
            served=served,
            gain=gain,
            optimum=float(planned(demo.users(plan.first, 0), horizon=plan.steps).value.mean()),
            cohorts=cohorts,
            promises=promises(parts.lake, LOOP, parts.registry.versions(LOOP), parts.registry.verdicts(LOOP)),
            champion=champion,
            guard=demo.guard,
            proof=_proof(parts, feed.books, rows, demo),
            report=str(report),
            seconds=time.monotonic() - begun,
        )
        from pipelines.demo.session_report import session_report

        report.write_text(session_report(result, parts.lake.decisions(LOOP)))
    return msgspec.structs.replace(result, seconds=time.monotonic() - begun)


class _Demo:
    """The demo under way."""

    def __init__(
        self, plan: SessionPlan, parts: Installation, feed: Feed, console: Console, progress: Progress
    ) -> None:
        self.plan, self.parts, self.feed, self.console, self.progress = plan, parts, feed, console, progress
        self.nights: list[Night] = []
        self.weights: list[float] = []
        self.guard = ""
        self.longest = 0.0
        self.candidates: list[str] = []

    def users(self, count: int, number: int) -> LtsUsers:
        """Return users whom nobody has seen yet."""
        return draw_users(np.random.default_rng([self.plan.seed, number]), _MU, count)

    def go(self) -> None:
        """Go from the first visit to the last."""
        plan = self.plan
        self.come(plan.first, 0, "without a policy")
        self.night("a bandit is trained")
        self.come(plan.bandit, 1, "under the bandit")
        init_loop(self.parts.settings, LOOP, values=_with_memory(plan, self.longest), replace=True)
        self.night("a policy with memory is trained from the loop's own log")
        self.rolled()
        for number in range(plan.cohorts):
            self.come(plan.cohort, 2 + number, f"cohort {number + 1} of {plan.cohorts}, share {self.weights[-1]:.2f}")
            self.progress("cohorts of the rollout", number + 1, plan.cohorts)
            if number == plan.again:
                self.night("the policy is trained again, its own decisions among the log")
            if number + 1 < plan.cohorts:
                self.rolled()

    def come(self, count: int, number: int, under: str) -> None:
        seconds = self.feed.cohort(self.users(count, number), self.plan.steps)
        self.longest = max(self.longest, seconds)
        made = count * self.plan.steps
        self.console.print(f"  {made} decisions in {seconds:.1f} s, {under}", highlight=False)

    def night(self, what: str) -> None:
        """Let the reward windows end, and run a night."""
        self.console.print(what, style="bold")
        time.sleep(self.plan.window_s + _MARGIN_S)
        parts, loop = self.parts, self.parts.loop(LOOP)
        run = nightly(
            parts.settings,
            parts.log,
            parts.lake,
            parts.registry,
            loop,
            now=datetime.now(UTC),
            seed=self.plan.seed,
            progress=self.progress,
        )
        told = _told(run, loop.policy.oracle)
        self.nights.append(told)
        self.console.print(f"  version {told.version or '-'}: {told.verdict}", highlight=False, markup=False)
        if told.verdict == "rolling_out":
            self.candidates.append(told.version)
            self.aggregated()
        if told.verdict in ("promoted", "rolling_out"):
            self.feed.wait_for(told.version)

    def rolled(self) -> None:
        """Let the guard look at what was settled, and note the share that the next cohort gets."""
        self.weights.append(self.aggregated())

    def aggregated(self) -> float:
        parts, now = self.parts, datetime.now(UTC)
        loop = parts.loop(LOOP)
        ingest(parts.log, parts.lake, loops=parts.loops)
        join(parts.lake, loop, now)
        state = guard(parts.settings, loop, parts.lake, parts.registry, now)
        self.guard = f"{state.status}{': ' if state.reason else ''}{state.reason}"
        if state.status == "promoted":
            self.feed.wait_for(state.candidate_version)
            return 1.0
        time.sleep(2 * parts.settings.reload_s)  # until the service has seen what was published
        return state.weight

    def close(self) -> None:
        """Close the books: everything is settled, and in the lake."""
        self.console.print("closing the books", style="bold")
        time.sleep(self.plan.window_s + _MARGIN_S)
        self.aggregated()
        self.feed.close()


def _as_a_bandit(plan: SessionPlan) -> dict[str, Any]:
    return {"reward.window_s": plan.window_s, "gate.minimum_ess": plan.minimum_ess}


def _with_memory(plan: SessionPlan, longest: float) -> dict[str, Any]:
    return {
        **SESSIONS,
        **_as_a_bandit(plan),
        "policy.floor": 0.02,
        "session.horizon": plan.steps,
        "session.trend": "wears_out",
        "session.effort": plan.effort,
        "guard.alpha": plan.alpha,
        # Longer than any stay, so that nobody's policy changes on the way.
        "guard.episode_s": round(plan.window_s + 2.0 * longest, 1),
    }


def _started(processes: ExitStack, settings: Settings, plan: SessionPlan, console: Console) -> Feed:
    output = settings.root / "demo" / "service.log"
    console.print("starting the service", style="bold")
    service = processes.enter_context(process("service", serve_command(settings), settings, output))
    seconds = wait_until_ready(service, settings, output)
    console.print(f"  ready after {seconds:.1f} s at http://{settings.host}:{settings.port}", highlight=False)
    return Feed(settings.host, settings.port, LOOP, documents=plan.documents, seed=plan.seed)


def _told(run: Run, oracle: str) -> Night:
    trained, promoted = (run.result(step) or {} for step in ("train", "promote"))
    return Night(
        version=trained.get("version", ""),
        oracle=trained.get("session", {}).get("chosen", oracle),
        learned_from=trained.get("rows", 0),
        verdict=run.verdict,
        reasons=promoted.get("reasons", [promoted.get("skipped", "")]),
    )


def _measured(
    plan: SessionPlan, visits: list[Visit], rows: pa.Table, demo: _Demo
) -> tuple[list[Served], list[Cohort], tuple[float, float, float, float]]:
    """Return what each kind of policy brought, the cohorts, and the gain over the bandit."""
    oracle = {"baseline:uniform": "uniform"} | {
        night.version: "session" if night.version not in ("", demo.nights[0].version) else "bandit"
        for night in demo.nights
    }
    by_event = dict(zip(rows["event_id"].to_pylist(), _kinds(rows, oracle), strict=True))
    kinds = np.array([by_event.get(visit.event_id, "") for visit in visits], object).reshape(-1)
    user = np.array([visit.user for visit in visits])
    order = np.lexsort((np.array([visit.step for visit in visits]), user))
    shape = (-1, plan.steps)
    reward = np.array([visit.reward for visit in visits])[order].reshape(shape)
    satisfaction = np.array([visit.satisfaction for visit in visits])[order].reshape(shape)
    cohort = np.array([visit.cohort for visit in visits])[order].reshape(shape)[:, 0]
    kind = kinds[order].reshape(shape)
    alone = np.where((kind == kind[:, :1]).all(axis=1), kind[:, 0], "")
    served = [_served(plan, name, reward[alone == name], satisfaction[alone == name]) for name in oracle_names(alone)]
    returns = reward.sum(axis=1)

    def mean(number: int, name: str) -> float | None:
        mine = returns[(cohort == number + 2) & (alone == name)]
        return float(mine.mean()) if mine.size else None

    cohorts = [
        Cohort(number=number + 1, weight=weight, bandit=mean(number, "bandit"), session=mean(number, "session"))
        for number, weight in enumerate(demo.weights)
    ]
    later = cohort >= 2
    gain = _over(returns[later & (alone == "session")], returns[(cohort >= 1) & (alone == "bandit")])
    return served, cohorts, gain


def oracle_names(alone: np.ndarray[Any, Any]) -> list[str]:
    """Return the kinds of policies that had users of their own, in the order in which they came."""
    return [name for name in ("uniform", "bandit", "session") if (alone == name).any()]


def _kinds(rows: pa.Table, oracle: dict[str, str]) -> list[str]:
    """Return [n] what kind of policy made each decision: of an episode, the one that its coin fell to."""
    out: list[str] = []
    columns = ("policy_version", "pmf", "pmf_baseline", "pmf_candidate", "guard_weight")
    for row in rows.select(columns).to_pylist():
        kind = oracle.get(row["policy_version"], "")
        if row["guard_weight"] > 0.0 and row["pmf_candidate"] is not None and row["pmf"] == row["pmf_candidate"]:
            kind = "session"
        out.append(kind)
    return out


def _served(plan: SessionPlan, name: str, reward: Floats, satisfaction: Floats) -> Served:
    returns = reward.sum(axis=1)
    half = _half(returns)
    days = [slice(first, first + plan.visits_a_day) for first in range(0, plan.steps, plan.visits_a_day)]
    return Served(
        policy=name,
        users=len(returns),
        value=float(returns.mean()),
        low=float(returns.mean()) - half,
        high=float(returns.mean()) + half,
        reward=[float(reward[:, day].mean()) for day in days],
        satisfaction=[float(satisfaction[:, day].mean()) for day in days],
    )


def _half(values: Floats) -> float:
    if len(values) < 2:
        return 0.0
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def _over(session: Floats, bandit: Floats) -> tuple[float, float, float, float]:
    """Return the difference of mean returns, its 95% interval (Welch), and the difference as a share."""
    if min(len(session), len(bandit)) < 2:
        return 0.0, 0.0, 0.0, 0.0
    interval = stats.ttest_ind(session, bandit, equal_var=False).confidence_interval(0.95)
    gap = float(session.mean() - bandit.mean())
    return gap, float(interval.low), float(interval.high), gap / float(bandit.mean())


def _proof(parts: Installation, books: Books, rows: pa.Table, demo: _Demo) -> SessionProof:
    decisions, outcomes = parts.lake.decisions(LOOP), parts.lake.outcomes(LOOP)
    logged = {
        row["event_id"]: (row["action_ids"][row["action_index"]], row["propensity"], row["policy_version"])
        for row in decisions.select(
            ["event_id", "action_ids", "action_index", "propensity", "policy_version"]
        ).to_pylist()
    }
    answered = {visit.event_id: (name_of(visit.document), visit.propensity, visit.version) for visit in books.visits}
    reported = set(books.reports) - set(outcomes["idempotency_key"].to_pylist())
    return SessionProof(
        lost=len(answered.keys() - logged.keys()) + len(reported),
        failed_requests=books.failed,
        repeated_outcomes=len(books.reports) - len(set(books.reports)),
        differing_answers=sum(logged.get(event, said) != said for event, said in answered.items()),
        differing_propensities=differing(rows, parts.registry, LOOP, demo.candidates),
        propensities=check_propensities(decisions),
        median_ms=float(np.median(books.waits_ms)),
    )
