"""The metrics that a service has: one row each, from which all that names them is made.

`serving.metrics` counts by it, so `/metrics` has its names, labels and help. The reference (``infra/docs/metrics.md``)
and the descriptions of the dashboards' panels are written from it by ``infra/monitoring``. No label comes from a path
or an id: their values are the table of routes, the loops, and lists that are fixed here or in the code.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]
Mode = Literal["", "livesum", "min", "max", "mostrecent"]
Group = Literal["answers", "records", "learning"]
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of a histogram's buckets."""


class Metric(NamedTuple):
    """A metric.

    Attributes:
        name: what stands after ``decision_``.
        kind: of Prometheus' kinds.
        group: the question that it answers: are requests answered, is every record safe, how do loops learn.
        unit: of its values.
        help: what it is, as `/metrics` says it.
        action: what to make of it: which values ask for something, and for what.
        labels: names of its labels.
        mode: how a gauge's values of several workers become one; "" for the other kinds, which are added up.
    """

    name: str
    kind: Kind
    group: Group
    unit: str
    help: str
    action: str
    labels: tuple[str, ...] = ()
    mode: Mode = ""

    @property
    def family(self) -> str:
        """The name on `/metrics`, without the ending of a sample."""
        return f"decision_{self.name}"

    @property
    def shown(self) -> str:
        """The name to ask Prometheus for; a histogram's has ``_bucket``, ``_sum`` and ``_count`` after it."""
        return f"{self.family}_total" if self.kind == "counter" else self.family


CATALOGUE: tuple[Metric, ...] = (
    Metric(
        "decided",
        "counter",
        "answers",
        "decisions",
        "Decisions acknowledged",
        "Its rate is the traffic. A rate of 0 where applications run: look at `decision_request_seconds` by status.",
        ("loop",),
    ),
    Metric(
        "repeated",
        "counter",
        "answers",
        "requests",
        "Requests that repeated an event id",
        "A few are retries of clients. Many ask for a look at their time limits, beside the time of a decision.",
        ("loop",),
    ),
    Metric(
        "fallbacks",
        "counter",
        "answers",
        "decisions",
        "Decisions that the baseline took because the policy failed",
        "The log of the service has each reason once, with its place; `decision rollback LOOP` puts the version before "
        "in charge.",
        ("loop",),
    ),
    Metric(
        "unpinned",
        "counter",
        "answers",
        "answers",
        "Answers given while no other replica could be asked for theirs",
        "A rise that goes on means that Redis is away: until it is back two replicas may answer one id differently.",
        ("loop",),
    ),
    Metric(
        "request_seconds",
        "histogram",
        "answers",
        "seconds",
        "Seconds from a request's head to its answer, on both ports",
        "`route` is the operation's id in `/openapi.json`, `none` where there is no route. Of a slow `decide`, compare "
        "the commit (`decision_spool_fsync_seconds`) first. A rate of 5xx has its reasons in the log of the service.",
        ("route", "status"),
    ),
    Metric(
        "refused",
        "counter",
        "answers",
        "requests",
        "Requests answered with a problem document",
        "422 and 409: an application that sends what does not fit. 401 and 403: keys. 429 and 503: too much at a time.",
        ("status",),
    ),
    Metric(
        "heartbeat_age_seconds",
        "gauge",
        "answers",
        "seconds",
        "Age of the oldest heartbeat among the threads that keep something fresh",
        "Above ten times `DECISION_RELOAD_S` a rollback would not be served; `/readyz` gives 503 and names the thread.",
        mode="max",
    ),
    Metric(
        "thread_failures",
        "counter",
        "answers",
        "rounds",
        "Failures of threads that keep something fresh",
        "The thread goes on. Again and again: the log of the service has each reason once, beside the thread's name.",
        ("thread",),
    ),
    Metric(
        "loops_with_errors",
        "gauge",
        "answers",
        "loops",
        "Loops that do not run as configured",
        "Above 0: `GET /v1/loops/LOOP` says why. The loop goes on under its last good settings and policy.",
        mode="max",
    ),
    Metric(
        "model_reloads",
        "gauge",
        "answers",
        "policies",
        "Policies swapped since the start",
        "A step follows each promotion and rollback. Replicas that differ for longer than `DECISION_RELOAD_S`: look at "
        "the one that stays behind.",
        mode="max",
    ),
    Metric(
        "outcomes",
        "counter",
        "records",
        "outcomes",
        "Outcomes acknowledged",
        "Falls to 0 while decisions go on: the application reports no more, and nights will learn that nothing works.",
        ("loop",),
    ),
    Metric(
        "outcomes_doubtful",
        "counter",
        "records",
        "outcomes",
        "Outcomes acknowledged that say less than was meant, by the field in doubt",
        "`decision top` counts them by field, with what only ingestion sees: ask who reports. `event_id` is that of an "
        "activation.",
        ("loop", "field"),
    ),
    Metric(
        "spool_healthy",
        "gauge",
        "records",
        "1 or 0",
        "1 while the spool takes writes",
        "0: every decision gets 503. The log of the service says why; mostly the disk is full, or gone.",
        mode="min",
    ),
    Metric(
        "spool_depth",
        "gauge",
        "records",
        "groups",
        "Decisions and outcomes that wait for the disk",
        "Rises with the time of a commit. A loop may fill half of 20,000 a worker; beyond, it gets 503.",
        mode="livesum",
    ),
    Metric(
        "spool_fsync_seconds",
        "gauge",
        "records",
        "seconds",
        "Duration of the latest commit",
        "A decision waits for one commit, or two. Milliseconds are usual; at a tenth of a second a disk is at its end.",
        mode="max",
    ),
    Metric(
        "forward_lag",
        "gauge",
        "records",
        "messages",
        "Messages in the spool that the event log does not have yet",
        "They are on this machine alone: keep its volume. 0 where the spool is the log.",
        mode="mostrecent",
    ),
    Metric(
        "ingest_lag",
        "gauge",
        "records",
        "messages",
        "Messages on the event log that the lake does not have yet",
        "What followers, or the next night, have before them; a rise without an end asks for another follower. 0 where "
        "the spool is the log.",
        mode="mostrecent",
    ),
    Metric(
        "disk_free_ratio",
        "gauge",
        "records",
        "share",
        "Share of the home folder's disk that is free",
        "Below .1: make room, or get a larger volume. At 0 no decision is taken.",
        mode="mostrecent",
    ),
    Metric(
        "disk_bytes",
        "gauge",
        "records",
        "bytes",
        "Bytes of the files in the home folder, by part of the installation",
        "Parts are `log`, `lake`, `runs`, `imports`, `features`, `models`, `state`, `other`; looked at every five "
        "minutes. Says which part grows; `decision tidy LOOP --dry-run` says what of it is too old.",
        ("part",),
        "mostrecent",
    ),
    Metric(
        "night_timestamp_seconds",
        "gauge",
        "learning",
        "seconds since 1970",
        "When the loop's last night began that looked for alarms",
        "More than a day ago: nothing starts the nights, or they fail before that step; the run's report says where. "
        "It comes with the first night.",
        ("loop",),
        "mostrecent",
    ),
    Metric(
        "night_value",
        "gauge",
        "learning",
        "the loop's rewards",
        "Mean reward of the decisions that the last night settled",
        "A fall beyond chance is the alarm `value`; the nights' report says where it comes from.",
        ("loop",),
        "mostrecent",
    ),
    Metric(
        "night_join_rate",
        "gauge",
        "learning",
        "share",
        "Share of the decisions that the last night looked at which met an outcome; NaN where they were too few",
        "A fall beyond chance is the alarm `joins`: outcomes are not reported, come late, or under other ids.",
        ("loop",),
        "mostrecent",
    ),
    Metric(
        "night_decisions",
        "gauge",
        "records",
        "decisions",
        "The loop's decisions as of the last night, by what became of them",
        "`joined`, `pending`, `expired`, `dropped`. Many expired: see the join rate. Dropped ones: `decision top` and "
        "`GET /v1/loops/LOOP` give the reasons.",
        ("loop", "became"),
        "mostrecent",
    ),
    Metric(
        "night_stray_outcomes",
        "gauge",
        "records",
        "outcomes",
        "Outcomes as of the last night that count for no decision: late ones, and orphans, whose decision nobody has",
        "Late: a longer `reward.window_s`. Orphans: the application reports under other ids, or reports elsewhere. NaN "
        "of a long history; `decision verify LOOP` counts it.",
        ("loop", "why"),
        "mostrecent",
    ),
    Metric(
        "guard_weight",
        "gauge",
        "learning",
        "share",
        "Share of the served mixture that the loop's candidate has now, the largest of all segments; 0 without one",
        "Rises as evidence comes in. A fall to the floor: the guard is stale, or it saw harm; `decision guard LOOP` "
        "says which.",
        ("loop",),
        "mostrecent",
    ),
    Metric(
        "guard_left_seconds",
        "gauge",
        "learning",
        "seconds",
        "Seconds until the weight of the loop's candidate expires, negative after; +Inf without a candidate",
        "Below 0 the guard does not run: `decision guard LOOP`, and look at what should start it.",
        ("loop",),
        "mostrecent",
    ),
    Metric(
        "alarms",
        "gauge",
        "learning",
        "alarms",
        "Alarms of the loop's last night that nobody has cleared, by kind",
        "Above 0: `decision alarms LOOP` says what the night saw, and clears what is known.",
        ("loop", "kind"),
        "mostrecent",
    ),
)
BY_NAME = {metric.name: metric for metric in CATALOGUE}
"""Each metric by what stands after ``decision_``."""
OF_LOOPS = tuple(metric.name for metric in CATALOGUE if metric.kind == "counter" and metric.labels == ("loop",))
"""Counters that every loop has from the start."""
