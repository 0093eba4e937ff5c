"""The columns of the lake's four tables.

`decisions` and `outcomes` hold the records as they stood on the log, with their position there; `interactions` holds
each settled decision again, with what came of it; `dead_letters` holds what fits no schema, with its bytes. All but
the last are partitioned by loop and log partition, so the join never moves a row.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

Table = Literal["decisions", "outcomes", "interactions", "dead_letters"]

TIME = pa.timestamp("us", "UTC")
STRINGS = pa.list_(pa.field("element", pa.string()))
DOUBLES = pa.list_(pa.field("element", pa.float64()))

_POSITION = [
    pa.field("loop", pa.string()),
    pa.field("partition", pa.int32()),
    pa.field("offset", pa.int64()),
    pa.field("appended_at", TIME),
]

DECISION_FIELDS = [
    pa.field("schema_version", pa.int32()),
    pa.field("event_id", pa.string()),
    pa.field("slot", pa.string()),
    pa.field("ts", TIME),
    pa.field("subject_id", pa.string()),
    pa.field("episode_id", pa.string()),
    pa.field("step", pa.int64()),
    pa.field("context", pa.string()),
    pa.field("actions", pa.string()),
    pa.field("action_ids", STRINGS),
    pa.field("pmf", DOUBLES),
    pa.field("action_index", pa.int32()),
    pa.field("propensity", pa.float64()),
    pa.field("pmf_baseline", DOUBLES),
    pa.field("pmf_candidate", DOUBLES),
    pa.field("guard_weight", pa.float64()),
    pa.field("guard_version", pa.int64()),
    pa.field("mode", pa.string()),
    pa.field("deferred", pa.bool_()),
    pa.field("policy_version", pa.string()),
    pa.field("baseline_version", pa.string()),
    pa.field("feature_snapshot", pa.string()),
    pa.field("seed", pa.int64()),
    pa.field("pass_probability", pa.float64()),
    pa.field("settings_version", pa.int64()),  # null in rows of older code
]

FEATURE_FIELDS = [
    # Context and snapshot, flattened by this version of `decision.features`; null in rows that were written before
    # there were such columns, and where the texts cannot be read. They follow from the texts and can be made again.
    pa.field("features_version", pa.int32()),
    pa.field("context_names", STRINGS),
    pa.field("context_values", DOUBLES),
]

OUTCOME_FIELDS = [
    pa.field("schema_version", pa.int32()),
    pa.field("event_id", pa.string()),
    pa.field("slot", pa.string()),
    pa.field("name", pa.string()),
    pa.field("value", pa.float64()),
    pa.field("ts", TIME),
    pa.field("idempotency_key", pa.string()),
    pa.field("action_id", pa.string()),
]

COUNTED = pa.struct(
    [
        pa.field("name", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("ts", TIME),
        pa.field("offset", pa.int64()),
    ]
)

LOGGED = pa.schema([*_POSITION, *DECISION_FIELDS])
"""What a decision's message says; `pipelines.lake.features` makes the rest of it."""
DECISIONS = pa.schema([*LOGGED, *FEATURE_FIELDS])
OUTCOMES = pa.schema(
    [
        *_POSITION,
        *OUTCOME_FIELDS,
        # where a spool held it before it was forwarded: what tells a repeated copy from a second report
        pa.field("spool", pa.string()),
        pa.field("spool_offset", pa.int64()),
    ]
)
INTERACTIONS = pa.schema(
    [
        *DECISIONS,
        pa.field("state", pa.string()),  # joined, expired or dropped
        pa.field("reason", pa.string()),  # why it was dropped
        pa.field("reward", pa.float64()),  # null when dropped
        pa.field("clipped", pa.bool_()),
        pa.field("outcomes", pa.list_(pa.field("element", COUNTED))),
        pa.field("matured_at", TIME),  # end of the reward window
        pa.field("reward_version", pa.string()),
        # The join's view of the outcomes: log offsets below `outcomes_until`, at most `window_us` after the decision
        # (null: no limit). Any other outcome of the decision is late.
        pa.field("outcomes_until", pa.int64()),
        pa.field("window_us", pa.int64()),
        # Its view of the decisions: of other answers to the same event, it knew those below this offset.
        pa.field("decisions_until", pa.int64()),
    ]
)
DEAD_LETTERS = pa.schema(
    [
        pa.field("topic", pa.string()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
        pa.field("appended_at", TIME),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("reason", pa.string()),
        pa.field("field", pa.string()),
    ]
)

SCHEMAS: dict[Table, pa.Schema] = {
    "decisions": DECISIONS,
    "outcomes": OUTCOMES,
    "interactions": INTERACTIONS,
    "dead_letters": DEAD_LETTERS,
}
PARTITIONED_BY: dict[Table, list[str]] = {
    "decisions": ["loop", "partition"],
    "outcomes": ["loop", "partition"],
    "interactions": ["loop", "partition"],
    "dead_letters": ["topic", "partition"],
}
