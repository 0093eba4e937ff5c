"""Ingestion on several cores: one process per share of the log's partitions, told what to do by lines of JSON.

Workers share nothing but the tables, where each commits its own partitions' positions; one that dies is an error of
the run and leaves nothing half done. A worker is ``python -m pipelines.ingestion.workers``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import IO, cast

import msgspec

from decision.errors import FieldError
from decision.validation import prepared
from pipelines.ingestion.ingest import ROWS_PER_COMMIT, Ingested, Ingester, IngestError
from pipelines.lake.lake import Lake
from pipelines.log.open import open_log
from pipelines.log.protocol import DECISIONS

MAX_WORKERS = 64


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker does.

    Attributes:
        log_url: address of the event log, as `open_log` takes it.
        lake_url: folder or address of the tables.
        partitions: the log partitions of the share.
        loops: the loops that exist; None accepts every name.
        rows_per_commit: messages that are committed together.
    """

    log_url: str
    lake_url: str
    partitions: list[int]
    loops: list[str] | None
    rows_per_commit: int


class _Answer(msgspec.Struct):
    ingested: Ingested | None = None
    error: str = ""


class IngestWorkers:
    """Processes that ingest disjoint partitions of a log; started by the constructor, ready when it returns.

    Args:
        log_url: address of the event log, as `open_log` takes it.
        lake: the tables.
        workers: how many processes; never more than the log has partitions.
        loops: the loops that exist; None accepts every name.
        rows_per_commit: messages that a worker commits together.

    Raises:
        FieldError: `workers` is not in 1..64.
        IngestError: a worker could not start.
    """

    def __init__(
        self,
        log_url: str,
        lake: Lake,
        workers: int,
        *,
        loops: Collection[str] | None = None,
        rows_per_commit: int = ROWS_PER_COMMIT,
    ) -> None:
        if not 1 <= workers <= MAX_WORKERS:
            raise FieldError("workers", wanted=f"1 to {MAX_WORKERS}", got=workers)
        log = open_log(log_url)
        partitions = log.partitions(DECISIONS)
        log.close()
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "pipelines.ingestion.workers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for _ in range(min(workers, partitions))
        ]
        try:
            for number, process in enumerate(self._processes):
                share = Share(
                    log_url=log_url,
                    lake_url=lake.path,
                    partitions=list(range(number, partitions, len(self._processes))),
                    loops=None if loops is None else sorted(loops),
                    rows_per_commit=rows_per_commit,
                )
                _tell(process, msgspec.json.encode(share))
            for process in self._processes:
                _hear(process)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> IngestWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [process.pid for process in self._processes]

    def run(self) -> Ingested:
        """Ingest what the log holds now.

        Raises:
            IngestError: a worker failed or died. The others finished their share; run again.
        """
        for process in self._processes:
            _tell(process, b"run")
        total, problems = Ingested(), list[str]()
        for process in self._processes:
            try:
                total += _hear(process)
            except IngestError as error:
                problems.append(str(error))
        if problems:
            raise IngestError("; ".join(problems))
        return total

    def close(self) -> None:
        """End the workers, after what they are committing."""
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):
                    cast("IO[bytes]", pipe).close()
        for process in self._processes:
            process.wait()


def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    pipe = cast("IO[bytes]", process.stdin)
    with suppress(BrokenPipeError):  # it died: `_hear` says so
        pipe.write(line + b"\n")
        pipe.flush()


def _hear(process: subprocess.Popen[bytes]) -> Ingested:
    line = cast("IO[bytes]", process.stdout).readline()
    if not line:
        raise IngestError(f"worker {process.pid}: ended with status {process.wait()}")
    answer = msgspec.json.decode(line, type=prepared(_Answer))
    if answer.ingested is None:
        raise IngestError(f"worker {process.pid}: {answer.error}")
    return answer.ingested


def main() -> None:
    """Work on the share that the first line of standard input describes, once for every further line."""
    lines = sys.stdin.buffer
    share = msgspec.json.decode(lines.readline(), type=prepared(Share))
    try:
        ingester = Ingester(
            open_log(share.log_url),
            Lake(share.lake_url),
            partitions=share.partitions,
            loops=share.loops,
            rows_per_commit=share.rows_per_commit,
        )
    except Exception as error:
        _answer(_Answer(error=f"{type(error).__name__}: {error}"))
        return
    _answer(_Answer(ingested=Ingested()))
    for _ in lines:
        try:
            _answer(_Answer(ingested=ingester.run()))
        except Exception as error:
            _answer(_Answer(error=f"{type(error).__name__}: {error}"))


def _answer(answer: _Answer) -> None:
    try:
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        sys.exit(1)  # nobody listens any more


if __name__ == "__main__":
    main()
