"""Tables of the governance store. What people said and the audit log can be added to, and nothing else.

Rows of `audit_log`, `judgements` and `verdicts` refuse to be updated or deleted by triggers in the database. They stop
slips, not the owner of the database: that is what the chain of hashes and its anchors are for.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

people = sa.Table(
    "people",
    metadata,
    sa.Column("person_id", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("roles", sa.String(200), nullable=False),  # comma separated
    sa.Column("owns", sa.Text, nullable=False),  # names of loops, comma separated
    sa.Column("key_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("added_at", sa.String(32), nullable=False),
    sa.Column("revoked_at", sa.String(32)),
)
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True),
    sa.Column("person_id", sa.String(32), sa.ForeignKey("people.person_id"), nullable=False),
    sa.Column("expires_at", sa.String(32), nullable=False),
)
rules = sa.Table(
    "rules",
    metadata,
    sa.Column("rule_id", sa.Integer, primary_key=True),
    sa.Column("loop", sa.String(64), nullable=False, index=True),
    sa.Column("auditors", sa.Integer, nullable=False),
    sa.Column("quorum", sa.Float, nullable=False),
    sa.Column("sensitivity", sa.Float, nullable=False),
    sa.Column("minimum", sa.Integer, nullable=False),
    sa.Column("deadline_s", sa.Float, nullable=False),
    sa.Column("set_at", sa.String(32), nullable=False),
)
tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("task_id", sa.String(32), primary_key=True),
    sa.Column("loop", sa.String(64), nullable=False, index=True),
    sa.Column("rule_id", sa.Integer, sa.ForeignKey("rules.rule_id"), nullable=False),
    sa.Column("stream", sa.String(16), nullable=False),  # mined, probe, types, gold or appeal
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("favoured", sa.String(300), nullable=False),  # event id of the better treated person
    sa.Column("disfavoured", sa.String(300), nullable=False),
    sa.Column("action_id", sa.String(300), nullable=False),  # whose probability is compared
    sa.Column("high", sa.Float, nullable=False),  # the favoured person's probability
    sa.Column("low", sa.Float, nullable=False),
    sa.Column("gap", sa.Float, nullable=False),
    sa.Column("distance", sa.Float, nullable=False),
    sa.Column("policy_version", sa.String(100), nullable=False),
    sa.Column("window_id", sa.String(32), nullable=False, index=True),  # the mining that found it
    sa.Column("rank", sa.Integer, nullable=False),  # its place in that mining; 0 for probes
    sa.Column("stratum", sa.Integer),  # probes: stratum, probability of having been drawn, pairs drawn from
    sa.Column("inclusion", sa.Float),
    sa.Column("population", sa.Integer),
    sa.Column("expected", sa.String(16)),  # gold: the known answer
    sa.Column("favoured_first", sa.Boolean, nullable=False),  # which of the two is the left card
    sa.Column("payload", sa.Text),  # what auditors see; null once erased
    sa.Column("payload_hash", sa.String(64), nullable=False),
    sa.Column("opened_at", sa.String(32), nullable=False),
    sa.Column("due_at", sa.String(32)),  # null until assigned
)
assignments = sa.Table(
    "assignments",
    metadata,
    sa.Column("task_id", sa.String(32), sa.ForeignKey("tasks.task_id"), primary_key=True),
    sa.Column("person_id", sa.String(32), sa.ForeignKey("people.person_id"), primary_key=True, index=True),
    sa.Column("assigned_at", sa.String(32), nullable=False),
)
judgements = sa.Table(
    "judgements",
    metadata,
    sa.Column("task_id", sa.String(32), sa.ForeignKey("tasks.task_id"), primary_key=True),
    sa.Column("person_id", sa.String(32), sa.ForeignKey("people.person_id"), primary_key=True, index=True),
    sa.Column("verdict", sa.String(16), nullable=False),  # unfair, fair or cannot_tell
    sa.Column("acceptable", sa.Float),  # largest acceptable gap; null when they could not tell
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("payload_hash", sa.String(64), nullable=False),
    sa.Column("judged_at", sa.String(32), nullable=False),
)
verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("verdict_id", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.String(32), sa.ForeignKey("tasks.task_id"), nullable=False, index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("by", sa.String(100), nullable=False),  # panel, or the adjudicator
    sa.Column("unfair", sa.Integer, nullable=False),
    sa.Column("fair", sa.Integer, nullable=False),
    sa.Column("abstained", sa.Integer, nullable=False),
    sa.Column("needed", sa.Integer, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("decided_at", sa.String(32), nullable=False),
)
appeals = sa.Table(
    "appeals",
    metadata,
    sa.Column("appeal_id", sa.String(32), primary_key=True),
    sa.Column("loop", sa.String(64), nullable=False, index=True),
    sa.Column("event_id", sa.String(300)),  # a decision that its subject appeals
    sa.Column("task_id", sa.String(32)),  # or a verdict that is appealed
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),  # open, reviewed or unmatched
    sa.Column("made_at", sa.String(32), nullable=False),
)
audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False, index=True),
    sa.Column("subject", sa.String(300), nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)

COUNTED = (  # what a year's counts read: the columns, and neither payloads nor reasons
    sa.Index(
        "ix_tasks_counted", *(tasks.c[n] for n in ("loop", "task_id", "rule_id", "stream", "status", "gap", "expected"))
    ),
    sa.Index("ix_judgements_counted", *(judgements.c[n] for n in ("task_id", "person_id", "verdict", "acceptable"))),
)
"""Indexes that stores of earlier releases lack; opening one adds them."""

APPEND_ONLY = ("audit_log", "judgements", "verdicts")


def triggers(dialect: str) -> list[str]:
    """Return the statements that make the append-only tables so."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            for table in APPEND_ONLY
            for verb in ("UPDATE", "DELETE")
        ]
    function = (
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only'; END $$"
    )
    return [
        function,
        *(
            f"CREATE OR REPLACE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "EXECUTE FUNCTION refuse_change()"
            for table in APPEND_ONLY
        ),
    ]
