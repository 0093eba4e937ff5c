"""Training straight from a dsjson file, for those who bring years of one: in constant memory, nothing imported.

A line is decoded only as far as training needs it, the drawn action's features and not the others'. Every line counts
alike: what a loop's rules say about generations needs the loop's own log. One line in twenty is not learned from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from decision.artifact import Manifest, pack
from decision.batch import Batch, Features, Interactions, Ints
from decision.columns import Codes, FeatureRows, Texts, joined
from decision.errors import FieldError, SupportError, Words
from decision.exploration.sigma import Spread
from decision.features import MAX_FEATURES, flatten
from decision.options import Range
from decision.oracles.action_ids import drawn_with_ids
from decision.oracles.factory import new_oracle
from decision.policy import OraclePolicy
from decision.protocols import FitsChunks
from decision.ragged import ragged_offsets
from decision.records import MAX_RECORD_BYTES
from decision.reward import Rewards
from pipelines.formats.dsjson.shape import LISTED, action_of, context_of
from pipelines.formats.store import check_file
from pipelines.lake.plain_objects import Plain, read_plain
from pipelines.logs import step
from pipelines.registry.registry import Registry
from pipelines.scratch import scratch
from pipelines.settings import LoopSettings, Variant
from pipelines.training.train import exploration_of, no_cap_of_a_file
from pipelines.training.trained import POLICY, code_version, libraries
from pipelines.training.unseen import Newest, held_out
from pipelines.training.variants import configuration

CHUNK = 10_000
_AT_ONCE = 1_024  # contexts: what is computed of them stays in the processor's cache
_COST = re.compile(rb'"_label_cost"\s*:\s*(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)')
_BARE = ""
_COSTS = 100_000  # that are held at once
CATALOGUE_BYTES = 16 << 20
"""Lists of actions that are kept, in bytes of JSON: applications offer the same ones again and again."""
STREAMING = ("logistic", "vw", "linear")
"""Oracles that keep no rows in memory: they fit chunks, or go on from the last one."""


class Line(msgspec.Struct, kw_only=True):
    """What training needs of a line; the other actions' features are never decoded."""

    cost: float = msgspec.field(name="_label_cost")
    probability: float = msgspec.field(name="_label_probability")
    index: int = msgspec.field(name="_labelIndex")
    c: dict[str, msgspec.Raw]
    skip_learn: bool | None = msgspec.field(name="_skipLearn", default=None)
    pdrop: float | None = None


class TrainedFromFile(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version.

    Attributes:
        version: its version.
        rows: lines it learned from, and those held out to say how much noise the model leaves.
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

    The propensity is the logged one; the distribution over the drawn action alone is 1. Its id is its ``_tag``, ""
    where it has none.

    Raises:
        FieldError: a line that is no single decision, named by its number.
    """
    check_file(path)
    read = _Chunk()
    number = held = 0
    catalogues: dict[bytes, list[bytes | _Drawn]] = {}
    with path.open("rb") as file:
        while line := file.readline(MAX_RECORD_BYTES + 1):
            number += 1
            try:
                if len(line) > MAX_RECORD_BYTES:
                    raise FieldError("line", wanted=f"at most {MAX_RECORD_BYTES} bytes", got=Words("longer"))
                if line.isspace():
                    continue
                parsed = _decode_line(line)
                if parsed.skip_learn or parsed.pdrop == 1.0:
                    read.skipped += 1
                    continue
                if not 0.0 < parsed.probability <= 1.0:
                    raise FieldError("_label_probability", wanted="a number in (0, 1]", got=parsed.probability)
                multi = bytes(parsed.c.pop("_multi", b""))
                offered = catalogues.get(multi)
                if offered is None:
                    held += len(multi)
                    if held > CATALOGUE_BYTES:
                        catalogues, held = {}, len(multi)
                    offered = catalogues[multi] = [bytes(raw) for raw in _decode_raws(multi)] if multi else []
                if not offered or "_slots" in parsed.c or not 0 <= parsed.index < len(offered):
                    raise FieldError("_labelIndex", wanted="the place of an action in c._multi", got=parsed.index)
                drawn = offered[parsed.index]
                if isinstance(drawn, bytes):
                    decoded = _decode_object(drawn)
                    tag = decoded.get("_tag")
                    action_id = tag if isinstance(tag, str) else ""
                    drawn = offered[parsed.index] = _Drawn(flatten(action_of(decoded), field="action"), action_id)
                parsed.c = _bare(parsed.c)
                read.lines.append((number, parsed, drawn))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise FieldError(f"line {number}", wanted="a decision", got=error) from error
            except FieldError as error:
                raise error.under(f"line {number}: ") from error
            if len(read.lines) == rows:
                yield read.interactions(), read.skipped
                read = _Chunk()
    if read.lines or read.skipped:
        yield read.interactions(), read.skipped


class _Drawn(NamedTuple):
    """A drawn action: its features, and its ``_tag`` or ""."""

    features: Features
    action_id: str


class _Chunk:
    """Lines that are being read; their contexts are flattened together.

    Attributes:
        skipped: lines between them that were left out.
        lines: each with its number in the file and what was drawn.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self.lines: list[tuple[int, Line, _Drawn]] = []

    def interactions(self) -> Interactions:
        """Return the lines as decisions with the drawn action alone.

        Raises:
            FieldError: a context that is none, under the number of its line.
        """
        n = len(self.lines)
        reward = np.array([-line.cost + 0.0 for _, line, _ in self.lines], dtype=np.float64)
        propensity = np.array([line.probability for _, line, _ in self.lines], dtype=np.float64)
        actions = FeatureRows.of([drawn.features for _, _, drawn in self.lines])
        ids = Texts.of([drawn.action_id for _, _, drawn in self.lines])
        contexts = joined(_flat(self.lines[start : start + _AT_ONCE]) for start in range(0, n, _AT_ONCE))
        batch = Batch(contexts, actions, ids, np.arange(n + 1, dtype=np.int64))
        dropped = np.array([line.pdrop or 0.0 for _, line, _ in self.lines], dtype=np.float64)
        weight = 1.0 / (1.0 - dropped) if dropped.any() else None
        return Interactions(batch, np.arange(n, dtype=np.int64), propensity, reward, np.ones(n), weight)


def _flat(lines: list[tuple[int, Line, _Drawn]]) -> FeatureRows:
    """Return the contexts of `lines`: plain namespaces are read together, a line with anything else by itself."""
    contexts = [line.c for _, line, _ in lines]
    if any(name[:1] == "_" for c in contexts for name in c):
        contexts = [{name: raw for name, raw in c.items() if name[:1] != "_"} for c in contexts]
    ends = ragged_offsets(np.array([*map(len, contexts)], dtype=np.int64))
    spaces: dict[str, int] = {}
    space = np.array([spaces.setdefault(name, len(spaces)) for c in contexts for name in c], dtype=np.int64)
    pieces = [bytes(raw) for c in contexts for raw in c.values()]
    read, ok = _plain(pieces)
    names, name = _joined(list(spaces), read.names, np.repeat(space, np.diff(read.offsets)), read.name)
    rows = np.arange(len(contexts), dtype=np.int64)
    offsets = read.offsets[ends]
    sizes = np.diff(offsets)
    places = np.sort(np.repeat(rows, sizes) * max(len(names), 1) + name, kind="stable")
    doubt = (np.diff(ragged_offsets((~ok).astype(np.int64))[ends]) > 0) | (sizes > MAX_FEATURES)
    doubt[places[1:][places[1:] == places[:-1]] // max(len(names), 1)] = True
    if len(set(names)) < len(names):
        doubt[:] = True
    columns = FeatureRows(names, name, read.value, offsets, rows)
    slow = np.flatnonzero(doubt)
    if not slow.size:
        return columns
    rest = rows[~doubt]
    both = joined([columns.take(rest), FeatureRows.of([_context(*lines[row][:2]) for row in slow.tolist()])])
    place = np.empty_like(rows)
    place[rest], place[slow] = both.rows[: rest.size], both.rows[rest.size :]
    return FeatureRows(both.names, both.name, both.value, both.offsets, place)


def _bare(c: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """Return a context that Personalizer listed as a single object as that object alone."""
    listed = c.get(LISTED)
    if listed is None or len(c) > 1 or not bytes(listed).startswith(b"[{"):
        return c
    entries = _decode_raws(listed)
    return {_BARE: entries[0]} if len(entries) == 1 else c


def _context(number: int, line: Line) -> Features:
    try:
        c = {name: _decode_any(raw) for name, raw in line.c.items()}
        return flatten(c[_BARE] if _BARE in c else context_of(c), field="c")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FieldError(f"line {number}", wanted="a decision", got=error) from error
    except FieldError as error:
        raise error.under(f"line {number}: ") from error


def _plain(pieces: list[bytes]) -> Plain:
    """Return the features of the JSON texts that are plain objects."""
    data = b"".join(pieces)
    try:
        data.decode()
    except UnicodeDecodeError:
        pieces, data = [b""] * len(pieces), b""
    return read_plain(np.frombuffer(data, np.uint8), ragged_offsets(np.array([*map(len, pieces)], dtype=np.int64)))


def _joined(spaces: list[str], names: list[str], space: Ints, name: Codes) -> tuple[list[str], Codes]:
    """Return names with their namespaces, and which of them each entry has."""
    if len(spaces) <= 1:
        return [_in_space(first, text) for first in spaces for text in names], name
    codes, place = np.unique(space * max(len(names), 1) + name, return_inverse=True)
    pairs = (divmod(code, len(names)) for code in codes.tolist())
    return [_in_space(spaces[one], names[other]) for one, other in pairs], place.astype(np.int32)


def _in_space(space: str, name: str) -> str:
    return f"{space}.{name}" if space != _BARE else name


def _range(path: Path, loop: LoopSettings) -> Range:
    """Return the range of the rewards, by a look at the costs alone where the loop's settings leave a bound open."""
    given, rewards = loop.reward, Rewards()
    check_file(path)
    if (given.minimum is None or given.maximum is None) and path.stat().st_size:
        rng = np.random.default_rng(0)
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            found = (float(match[1]) for match in _COST.finditer(data))
            while costs := [*islice(found, _COSTS)]:
                reward = -np.array(costs) + 0.0
                rewards.add(reward[np.isfinite(reward)], rng.random(len(costs))[np.isfinite(reward)])
    return rewards.range(given.minimum, given.maximum)


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
        FieldError: the oracle does not stream, a line is no decision, or the loop's callers supply features.
        SupportError: the file holds no decision.
        RegistryError: the registry cannot be reached.
    """
    if loop.policy.oracle not in STREAMING or loop.policy.bag > 1:
        raise FieldError("policy.oracle", wanted=f"one of {list(STREAMING)}, not bagged", got=loop.policy.oracle)
    no_cap_of_a_file(loop)
    reward = _range(path, loop)
    made = configuration(loop, Variant(passes=1), seed, reward)
    oracle = new_oracle(made.oracle)
    rows = skipped = learned = 0
    spread, unseen = Spread(reward.low, reward.high), Newest()

    def read() -> Iterator[Interactions]:
        nonlocal rows, skipped, learned
        for interactions, left_out in chunks(path):
            shown = drawn_with_ids(interactions) if made.action_ids else interactions
            held = held_out(rows, len(shown))
            kept = shown.take(np.flatnonzero(~held))
            yield kept
            spread.add(np.clip(kept.reward, reward.low, reward.high), kept.weights)
            judged = shown.take(np.flatnonzero(held))
            unseen.add(replace(judged, reward=np.clip(judged.reward, reward.low, reward.high)))
            learned += len(kept)
            rows, skipped = rows + len(interactions), skipped + left_out
            if progress is not None:
                progress(rows)

    if isinstance(oracle, FitsChunks):
        with scratch() as place:
            oracle.fit_chunks(read(), place=place)
    else:
        for interactions in read():
            oracle.fit(interactions)
    if not rows:
        raise SupportError(f"{path.name} holds no decision to learn from")
    rule = exploration_of(loop, float(learned), reward)
    # the floor stays at its largest: these rows are in nobody's log, and their distributions are not read
    sigma = spread.sigma(*unseen.judged(oracle.predict))
    policy = OraclePolicy(oracle, msgspec.structs.replace(rule, sigma=sigma), action_ids=made.action_ids)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    manifest = Manifest(
        loop=loop.name,
        oracle=made.oracle.kind,
        exploration=policy.exploration,
        reward=msgspec.to_builtins(loop.reward),
        training={**msgspec.to_builtins(loop.policy), "passes": 1},
        data={
            "file": path.name,
            "sha256": digest,
            "rows": rows,
            "skipped": skipped,
            "holdout": rows - learned,
            "reward_low": reward.low,
            "reward_high": reward.high,
        },
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
