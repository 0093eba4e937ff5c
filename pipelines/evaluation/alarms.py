"""Alarms of a night: what its decisions look like beside those of the nights before, whatever a training makes of them.

Each kind has the error `ERROR` a night: that often it is raised by chance where nothing changed; the tests in
`decision.ope.diagnostics.shift` keep it at any rarity and skew. Rewards enter by their order and differences alone, so
a loop whose rewards are scaled or shifted has the same alarms. A fall must also lie below every one of the nights
before, so that the worst day of a week is no alarm in itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
from deltalake import DeltaTable
from numpy.typing import NDArray

from decision.batch import Floats, Ints
from decision.ope.diagnostics.shift import clipped, fall, never_tried
from decision.ragged import group_sum, ragged_offsets
from pipelines.evaluation.drift import NOTHING, Drifted, Trained, drift_alarms, drift_since, origin
from pipelines.evaluation.feature_alarms import feature_alarms
from pipelines.evaluation.rewards import Rewards, rewards_of
from pipelines.evaluation.standing import Alarm
from pipelines.interactions.observed import COLUMNS as OBSERVED
from pipelines.interactions.observed import evenly, with_few_texts
from pipelines.lake.lake import Lake, dataset
from pipelines.logs import step
from pipelines.settings import LoopSettings

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

ERROR = 0.001
"""Chance of each kind of alarm on a quiet night."""
NIGHTS = 7
"""Nights before that a night is held against: a week."""
LEAST = 100
"""Decisions without which nothing is compared; fewer are looked at together with those of the night before."""
MOST = 200_000
"""Decisions that are looked at; of more, an even share."""
MOST_TEXTS = 20_000
"""Decisions of a night whose actions' features are looked at; of more, an even share."""
COLLAPSED, COLLAPSED_TO = 0.01, 0.1
"""Exploration died below this entropy, as a share of the uniform policy's, or below this share of its former one."""
FAIR = 0.05
"""Share of fair draws that every action should have had at least."""
_NAMED = 20
_COLUMNS = (
    *("partition", "offset", "state", "reward", "policy_version", "mode", "action_ids", "action_index", "pmf"),
    *("context_names", "context_values", "pass_probability"),
)
_READ = tuple(dict.fromkeys((*_COLUMNS, *OBSERVED)))
_Bools = NDArray[np.bool_]
Positions = Mapping[str, int]
"""Log partition, as text -> offset before which a night's decisions lie."""


class Alarmed(msgspec.Struct, frozen=True, kw_only=True):
    """What a night's decisions look like.

    Attributes:
        rows: its decisions.
        before: those of the nights that it was held against.
        positions: where it ends on the log, by partition.
        value: mean reward; None without a settled decision.
        value_before: the same before.
        join_rate: share of decisions that met an outcome.
        join_rate_before: the same before.
        entropy: mean entropy of what was drawn from, as a share of the uniform policy's; None where it is not known.
        entropy_before: the same before.
        rewards: what the night's own settled rewards add up to; of a night with more than `MOST` decisions, an even
            share of them.
        alarms: what should be looked at.
        drift: the night beside what the version in charge was trained on.
    """

    rows: int = 0
    before: int = 0
    positions: dict[str, int] = {}
    value: float | None = None
    value_before: float | None = None
    join_rate: float | None = None
    join_rate_before: float | None = None
    entropy: float | None = None
    entropy_before: float | None = None
    rewards: Rewards = Rewards()
    alarms: list[Alarm] = []
    drift: Drifted = Drifted()


class Rows(NamedTuple):
    """Decisions of a night and of those before, in the order of the log.

    Attributes:
        table: [n] rows of the interactions.
        late: [n] those of the night.
        night: [n] the number of each one's night, rising.
    """

    table: pa.Table
    late: _Bools
    night: Ints

    def where(self, keep: _Bools) -> Rows:
        """Return the rows for which `keep` ([n]) is true."""
        return Rows(self.table.filter(pa.array(keep)), self.late[keep], self.night[keep])


@step("alarms looked for")
def alarms(
    lake: Lake,
    loop: LoopSettings,
    nights: Sequence[Positions],
    *,
    seed: int,
    table_version: int | None = None,
    trained: Trained = NOTHING,
) -> Alarmed:
    """Return what the decisions settled since the last night look like beside those of the nights before.

    Without a night before, the later half of the decisions is held against the earlier one.

    Args:
        lake: the tables.
        loop: the loop.
        nights: where the nights before ended, oldest first: their `Alarmed.positions`.
        seed: of the permutations.
        table_version: of the interactions; None for the latest.
        trained: what the version in charge was trained on.
    """
    return lake.read("interactions", lambda table: _looked_for(table, loop, nights, seed, trained), table_version)


def _looked_for(
    table: DeltaTable, loop: LoopSettings, nights: Sequence[Positions], seed: int, trained: Trained
) -> Alarmed:
    data = dataset("interactions", table)
    mine = pc.field("loop") == loop.name
    place = data.to_table(["partition", "offset"], filter=mine)
    partition, offset = place["partition"].to_numpy().astype(np.int64), place["offset"].to_numpy()
    if not offset.size:
        return Alarmed()
    ends = {str(p): int(offset[partition == p].max()) + 1 for p in np.unique(partition)}
    before = list(nights)
    ago = _night_of(partition, offset, nights)
    first = _first(np.bincount(ago, minlength=len(nights) + 1))
    if first == 0:  # no night before has enough: halves of what there is
        nights = [{str(p): int(np.median(offset[partition == p])) for p in np.unique(partition)}]
        first = 1
    since = max(0, first - NIGHTS)
    start = nights[since - 1] if since else {}
    wanted = pc.scalar(False)
    for p in ends:
        wanted |= (pc.field("partition") == int(p)) & (pc.field("offset") >= start.get(p, 0))
    share = min(1.0, MOST / max(1, np.count_nonzero(ago >= since)))

    def late(p: Ints, at: Ints) -> _Bools:
        return _night_of(p, at, nights) >= first

    described = min(1.0, MOST_TEXTS / max(1, np.count_nonzero(late(partition, offset))))
    found = _some(data, mine & wanted, share, described, late)
    places = found["partition"].to_numpy().astype(np.int64), found["offset"].to_numpy()
    night = _night_of(*places, nights)
    rows = Rows(found, night >= first, np.minimum(night, first))
    looked = looked_at(rows, loop, ends, np.random.default_rng([seed, len(nights)]), trained)
    tonight = Rows(found, _night_of(*places, before) == len(before), night)
    return msgspec.structs.replace(looked, rewards=_rewards(tonight))


def _rewards(rows: Rows) -> Rewards:
    """Return what the settled rewards of the late rows add up to."""
    settled = pc.is_in(rows.table["state"], pa.array(["joined", "expired"])).to_numpy()
    return rewards_of(rows.table["reward"].to_numpy()[settled & rows.late])


def _night_of(partition: Ints, offset: Ints, nights: Sequence[Positions]) -> Ints:
    """Return [n] how many of the nights had ended before each row."""
    out = np.zeros(offset.size, np.int64)
    for p in np.unique(partition).tolist():
        own = np.flatnonzero(partition == p)
        ends = np.array([ended.get(str(p), 0) for ended in nights], np.int64)
        out[own] = np.searchsorted(ends, offset[own], side="right")
    return out


def _first(sizes: Ints) -> int:
    """Return the first night of those to be looked at together, 0 where there are too few rows on either side."""
    late = np.cumsum(sizes[::-1])[::-1]
    for night in range(len(sizes) - 1, 0, -1):
        if late[night] >= LEAST and sizes[:night].sum() >= LEAST:
            return night
    return 0


def _some(data: Any, where: Any, share: float, described: float, late: Callable[[Ints, Ints], _Bools]) -> pa.Table:
    """Return an even share of the rows, chosen by their offsets.

    Args:
        data: the table.
        where: a condition on its rows.
        share: of those that fulfil it.
        described: share of them that keep the texts of their actions, if they are late: texts are most of a row.
        late: whether rows are, by partition and offset.
    """

    def read() -> Iterator[pa.Table]:
        for batch in data.to_batches(columns=list(_READ), filter=where, batch_size=16_384):
            table = pa.Table.from_batches([batch])
            if share < 1.0:
                table = table.filter(pa.array(evenly(table["offset"].to_numpy(), share)))
            offset = table["offset"].to_numpy()
            looked = evenly(offset, described) & late(table["partition"].to_numpy().astype(np.int64), offset)
            texts = pc.if_else(pa.array(looked), table["actions"], pa.scalar(None, pa.string()))
            yield table.set_column(table.column_names.index("actions"), "actions", texts)

    return (
        pa.concat_tables(with_few_texts(read()))
        .combine_chunks()
        .sort_by([("partition", "ascending"), ("offset", "ascending")])
    )


def looked_at(
    rows: Rows, loop: LoopSettings, ends: dict[str, int], rng: np.random.Generator, trained: Trained = NOTHING
) -> Alarmed:
    """Return what the late rows look like beside the others.

    Args:
        rows: the decisions.
        loop: their loop.
        ends: where the night ends on the log.
        rng: draws permutations.
        trained: what the version in charge was trained on.
    """
    if min(np.count_nonzero(rows.late), np.count_nonzero(~rows.late)) < LEAST:
        none = "the night has too few decisions"
        return Alarmed(rows=int(np.count_nonzero(rows.late)), positions=ends, drift=Drifted(skipped=none))
    like = _alike(rows)
    settled = like.where(pc.is_in(like.table["state"], pa.array(["joined", "expired"])).to_numpy())
    found, value = list[Alarm](), (None, None)
    if settled.late.any() and not settled.late.all():
        reward = settled.table["reward"].to_numpy()
        value = _means(reward, settled.late)
        if any(_fell(of, settled, ERROR / 2, rng) for of in (reward, clipped(reward))):
            where = origin(settled.table.filter(pa.array(~settled.late)), settled.table.filter(pa.array(settled.late)))
            text = f"rewards fell from {value[1]:.4g} to {value[0]:.4g} a decision{where}"
            found.append(Alarm(kind="value", text=text))
    met = pc.equal(rows.table["state"], "joined").to_numpy().astype(np.float64)
    joins = _means(met, rows.late)
    if _fell(met, rows, ERROR, rng):
        text = f"decisions that met an outcome fell from {joins[1]:.2%} to {joins[0]:.2%}"
        found.append(Alarm(kind="joins", text=text))
    entropy, died = _exploration(like, loop)
    found += [*died, *_features(rows), *_untried(rows, loop)]
    drifted = drift_since(trained, rows.table.filter(pa.array(rows.late)), loop, error=ERROR)
    known = {alarm.subject for alarm in found if alarm.kind in ("feature_gone", "feature_grown")}
    found += [alarm for alarm in drift_alarms(drifted) if alarm.kind != "feature_drift" or alarm.subject not in known]
    return Alarmed(
        rows=int(np.count_nonzero(rows.late)),
        before=int(np.count_nonzero(~rows.late)),
        positions=ends,
        value=value[0],
        value_before=value[1],
        join_rate=joins[0],
        join_rate_before=joins[1],
        entropy=entropy[0],
        entropy_before=entropy[1],
        alarms=found,
        drift=drifted,
    )


def _alike(rows: Rows) -> Rows:
    """Return the rows that a trained policy answered, where there are enough late ones, else those of the baseline.

    Where only the late ones were, their later half is held against the earlier one.
    """
    trained = np.logical_not(pc.starts_with(rows.table["policy_version"], pattern="baseline").to_numpy())
    keep = trained if np.count_nonzero(trained & rows.late) >= LEAST else ~trained
    some = rows.where(keep)
    if np.count_nonzero(~some.late) >= LEAST or some.late.size < 2 * LEAST:
        return some
    partition = some.table["partition"].to_numpy()
    late = np.zeros(some.late.size, np.bool_)
    for p in np.unique(partition):
        own = np.flatnonzero(partition == p)  # in the order of their offsets
        late[own[own.size // 2 :]] = True
    return Rows(some.table, late, late.astype(np.int64))


def _means(value: Floats, late: _Bools) -> tuple[float, float]:
    return float(value[late].mean()), float(value[~late].mean())


def _fell(value: Floats, rows: Rows, error: float, rng: np.random.Generator) -> bool:
    now = value[rows.late]
    for night in np.unique(rows.night[~rows.late]):
        of = value[~rows.late & (rows.night == night)]
        if of.size >= LEAST and now.mean() >= of.mean():
            return False
    return fall(now, value[~rows.late], error=error, rng=rng) <= error


def _exploration(rows: Rows, loop: LoopSettings) -> tuple[tuple[float | None, float | None], list[Alarm]]:
    sizes = pc.list_value_length(rows.table["pmf"])
    known = pc.fill_null(pc.greater(sizes, 1), False).to_numpy()
    some = rows.where(known)
    if loop.mode != "online" or np.count_nonzero(some.late) < LEAST:
        return (None, None), []
    sizes = pc.list_value_length(some.table["pmf"]).to_numpy().astype(np.int64)
    pmf = pc.list_flatten(some.table["pmf"]).to_numpy()
    terms = np.zeros(pmf.size)
    terms[pmf > 0] = -pmf[pmf > 0] * np.log(pmf[pmf > 0])
    entropy = group_sum(terms, ragged_offsets(sizes)) / np.log(sizes)
    now, before = entropy[some.late], entropy[~some.late]
    high = float(now.mean() + 3.3 * now.std() / np.sqrt(now.size))
    low = float(before.mean() - 3.3 * before.std() / np.sqrt(before.size)) if before.size >= LEAST else 0.0
    means = (float(now.mean()), float(before.mean()) if before.size else None)
    if high < max(COLLAPSED, COLLAPSED_TO * low):
        was = "" if means[1] is None else f", from {means[1]:.3f}"
        text = f"exploration died: an entropy of {means[0]:.3f} of the uniform policy's{was}"
        return means, [Alarm(kind="exploration", text=text)]
    return means, []


def _features(rows: Rows) -> list[Alarm]:
    some = rows.where(rows.table["context_names"].is_valid().to_numpy())
    if min(np.count_nonzero(some.late), np.count_nonzero(~some.late)) < LEAST:
        return []
    return feature_alarms(some.table, some.late, error=ERROR, least=LEAST)


def _untried(rows: Rows, loop: LoopSettings) -> list[Alarm]:
    if loop.mode != "online":
        return []
    sizes = pc.list_value_length(rows.table["action_ids"]).to_numpy().astype(np.int64)
    encoded = pc.list_flatten(rows.table["action_ids"]).combine_chunks().dictionary_encode()
    code, names = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    offered = np.bincount(code, weights=np.repeat(1.0 / sizes, sizes), minlength=len(names)).astype(np.float64)
    chosen = ragged_offsets(sizes)[:-1] + rows.table["action_index"].to_numpy().astype(np.int64)
    drawn = np.bincount(code[chosen], minlength=len(names))
    times = np.bincount(code, minlength=len(names))
    return [
        Alarm(
            kind="untried",
            subject=names[action],
            text=f"action {names[action]!r} was offered {times[action]} times and never tried",
        )
        for action in np.flatnonzero(never_tried(offered, drawn, error=ERROR, share=FAIR))[:_NAMED].tolist()
    ]
