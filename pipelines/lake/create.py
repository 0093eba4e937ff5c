"""A table of the lake where there is none yet."""

from __future__ import annotations

import contextlib

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError

from pipelines.lake.schemas import PARTITIONED_BY, SCHEMAS, Table
from pipelines.lake.statistics import STATISTICS

_CONFIGURATION = {
    "delta.dataSkippingStatsColumns": ",".join(STATISTICS),  # what files are skipped by
}


def create_table(uri: str, name: Table) -> None:
    """Make the table `name` at `uri`, unless another process does just now."""
    with contextlib.suppress(DeltaError):  # whoever opens it next sees any other error
        DeltaTable.create(
            uri,
            schema=SCHEMAS[name],  # pyright: ignore[reportArgumentType]
            mode="error",
            partition_by=PARTITIONED_BY[name],
            # a reader begins at the last checkpoint: on object storage every commit after it is a request or two
            configuration={**_CONFIGURATION, "delta.checkpointInterval": "10" if "://" in uri else "50"},
            commit_properties=CommitProperties(max_commit_retries=0),
        )
