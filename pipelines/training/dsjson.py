"""Training straight from a dsjson file, for those who bring years of one: in constant memory, nothing imported.

A line is decoded only as far as training needs it, the drawn action's features and not the others'. Every line counts
alike: what a loop's rules say about generations needs the loop's own log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from decision.artifact import Manifest, pack
from decision.batch import Batch, Features, Interactions
from decision.errors import FieldError, SupportError, Words
from decision.features import flatten
from decision.oracles.factory import new_oracle
from decision.policy import OraclePolicy
from decision.protocols import FitsChunks
from decision.records import MAX_RECORD_BYTES
from pipelines.formats.store import check_file
from pipelines.logs import step
from pipelines.registry.registry import Registry
from pipelines.settings import LoopSettings, Variant
from pipelines.training.train import POLICY, code_version, exploration_of, libraries
from pipelines.training.variants import configuration

CHUNK = 10_000
STREAMING = ("logistic", "vw", "linear")
"""Oracles that keep no rows in memory: they fit chunks, or go on from the last one."""


class Line(msgspec.Struct, kw_only=True):
    """What training needs of a line; the other actions' features are never decoded."""

    cost: float = msgspec.field(name="_label_cost")
    probability: float = msgspec.field(name="_label_probability")
    index: int = msgspec.field(name="_labelIndex")
    c: dict[str, msgspec.Raw]
    skip_learn: bool | None = msgspec.field(name="_skipLearn", default=None)


class TrainedFromFile(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version.

    Attributes:
        version: its version.
        rows: lines it learned from.
        skipped: deferred lines that were never activated.
    """

    version: str
    rows: int
    skipped: int


_decode_line = msgspec.json.Decoder(Line).decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_decode_object = msgspec.json.Decoder(dict[str, object]).decode


def chunks(path: Path, *, rows: int = CHUNK) -> Iterator[tuple[Interactions, int]]:
    """Yield the lines of a dsjson file as decisions with the drawn action alone, and how many were left out.

    The propensity is the logged one; the distribution over the drawn action alone is 1.

    Raises:
        FieldError: a line that is no single decision, named by its number.
    """
    check_file(path)
    contexts: list[Features] = []
    actions: list[Features] = []
    numbers: list[tuple[float, float]] = []
    skipped = number = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_RECORD_BYTES + 1):
            number += 1
            try:
                if len(line) > MAX_RECORD_BYTES:
                    raise FieldError("line", wanted=f"at most {MAX_RECORD_BYTES} bytes", got=Words("longer"))
                if line.isspace():
                    continue
                parsed = _decode_line(line)
                if parsed.skip_learn:
                    skipped += 1
                    continue
                if not 0.0 < parsed.probability <= 1.0:
                    raise FieldError("_label_probability", wanted="a number in (0, 1]", got=parsed.probability)
                multi = parsed.c.pop("_multi", None)
                offered = None if multi is None else _decode_raws(multi)
                if offered is None or "_slots" in parsed.c or not 0 <= parsed.index < len(offered):
                    raise FieldError("_labelIndex", wanted="the place of an action in c._multi", got=parsed.index)
                drawn = _decode_object(offered[parsed.index])
                drawn.pop("_tag", None)
                actions.append(flatten(drawn, field="action"))
                contexts.append(flatten({name: _decode_any(raw) for name, raw in parsed.c.items()}, field="c"))
            except msgspec.DecodeError as error:
                raise FieldError(f"line {number}", wanted="a decision", got=error) from error
            except FieldError as error:
                raise error.under(f"line {number}: ") from error
            numbers.append((-parsed.cost + 0.0, parsed.probability))
            if len(numbers) == rows:
                yield _interactions(contexts, actions, numbers), skipped
                contexts, actions, numbers, skipped = [], [], [], 0
    if numbers or skipped:
        yield _interactions(contexts, actions, numbers), skipped


@step("trained from a file")
def train_from_dsjson(
    path: Path,
    registry: Registry,
    loop: LoopSettings,
    *,
    seed: int,
    now: datetime,
    progress: Callable[[int], None] | None = None,
) -> TrainedFromFile:
    """Learn a version from a dsjson file and register it; nobody is promoted.

    Args:
        path: the file; it is gone through once.
        registry: where the version goes.
        loop: the loop; its oracle must be one that streams, ``logistic``, ``vw`` or ``linear``.
        seed: of every random choice.
        now: time of the training, UTC, for the manifest.
        progress: told the number of lines learned from so far.

    Raises:
        FieldError: the oracle does not stream, or a line is no decision.
        SupportError: the file holds no decision.
        RegistryError: the registry cannot be reached.
    """
    if loop.policy.oracle not in STREAMING or loop.policy.bag > 1:
        raise FieldError("policy.oracle", wanted=f"one of {list(STREAMING)}, not bagged", got=loop.policy.oracle)
    made = configuration(loop, Variant(passes=1), seed)
    oracle = new_oracle(made.oracle)
    rows = skipped = 0

    def read() -> Iterator[Interactions]:
        nonlocal rows, skipped
        for interactions, left_out in chunks(path):
            yield interactions
            rows, skipped = rows + len(interactions), skipped + left_out
            if progress is not None:
                progress(rows)

    if isinstance(oracle, FitsChunks):
        oracle.fit_chunks(read())
    else:
        for interactions in read():
            oracle.fit(interactions)
    if not rows:
        raise SupportError(f"{path.name} holds no decision to learn from")
    policy = OraclePolicy(oracle, exploration_of(loop, float(rows)))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = Manifest(
        loop=loop.name,
        oracle=made.oracle.kind,
        exploration=policy.exploration,
        reward=msgspec.to_builtins(loop.reward),
        training={**msgspec.to_builtins(loop.policy), "passes": 1},
        data={"file": path.name, "sha256": digest, "rows": rows, "skipped": skipped},
        seed=seed,
        code_version=code_version(),
        libraries=libraries(),
        created_at=now.astimezone(UTC).isoformat(),
        parent=registry.aliases(loop.name).get("champion", ""),
    )
    version = registry.register(
        loop.name,
        pack(policy, manifest),
        metrics={"train.rows": float(rows)},
        params={"seed": seed, "code_version": manifest.code_version, "data.file": path.name, "data.sha256": digest},
        tags={"kind": POLICY, "code_version": manifest.code_version, "parent": manifest.parent},
    )
    return TrainedFromFile(version=version, rows=rows, skipped=skipped)


def _interactions(
    contexts: list[Features], actions: list[Features], numbers: list[tuple[float, float]]
) -> Interactions:
    n = len(numbers)
    reward, propensity = np.array(numbers, dtype=np.float64).reshape(n, 2).T
    batch = Batch(contexts, actions, ["drawn"] * n, np.arange(n + 1, dtype=np.int64))
    return Interactions(batch, np.arange(n, dtype=np.int64), propensity, reward, np.ones(n))
