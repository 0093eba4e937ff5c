"""Features of JSON texts as columns: row for row what `decision.features` makes of each text, for all of them at once.

Plain objects are cut out of their bytes (`plain_objects`). A text in any doubt goes the slow way, where `flatten` has
the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute

from decision.columns import FeatureRows, Features, joined
from decision.errors import FieldError
from decision.features import PREFIX, VERSION, flatten, looked_up
from decision.ragged import Ints, ragged_offsets, ragged_rows
from pipelines.lake.plain_objects import CLOSE, COMMA, OPEN, Plain, bytes_of, cut, read_plain
from pipelines.lake.schemas import DOUBLES, FEATURE_FIELDS, STRINGS

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode

_AT_ONCE = 4_096  # rows: what is computed of them stays in the processor's cache
_BOTH = pa.schema([("context", pa.string()), ("snapshot", pa.string())])


class Reading(NamedTuple):
    """How texts are read.

    Attributes:
        version: of the rules of flattening.
        cut: what is on record is read even where a request would be refused: a number beyond the limit is the limit.
    """

    version: int = VERSION
    cut: bool = True


RECORDED = Reading()
"""How the lake is read."""


class Flattened(NamedTuple):
    """What texts came to.

    Attributes:
        rows: their features; none where a text cannot be read.
        errors: {number of the text or of its decision: why it cannot be read}.
    """

    rows: FeatureRows
    errors: dict[int, FieldError]


def with_features(table: pa.Table) -> pa.Table:
    """Return the rows of `table` with `FEATURE_FIELDS` made from ``context`` and ``feature_snapshot``.

    Where these cannot be read, the fields are null.
    """
    columns, errors = flat_contexts(table["context"], table["feature_snapshot"])
    name, value, offsets = columns.entries()
    known = np.ones(len(table), np.bool_)
    known[list(errors)] = False
    missing = pa.array(~known) if errors else None
    names, ends = pa.array(columns.names, pa.string()).take(pa.array(name)), pa.array(offsets.astype(np.int32))
    arrays = (
        pa.array(np.full(len(table), VERSION, np.int32), mask=~known if errors else None),
        pa.ListArray.from_arrays(ends, names, type=STRINGS, mask=missing),
        pa.ListArray.from_arrays(ends, pa.array(value), type=DOUBLES, mask=missing),
    )
    for field, array in zip(FEATURE_FIELDS, arrays, strict=True):
        at = table.schema.get_field_index(field.name)
        table = table.append_column(field, array) if at < 0 else table.set_column(at, field, array)
    return table


def without_features(table: pa.Table) -> pa.Table:
    """Return the rows of `table` with null in place of features whose texts were changed."""
    if "features_version" not in table.column_names:
        return table
    nulls = pa.nulls(len(table), FEATURE_FIELDS[0].type)
    return table.set_column(table.column_names.index("features_version"), FEATURE_FIELDS[0], nulls)


def contexts_of(table: pa.Table, reading: Reading = RECORDED) -> Flattened:
    """Return the features of the contexts in [n] rows of decisions, with what was looked up for them.

    They are taken from the columns of features where this version of flattening wrote them, else from the texts.
    """
    stored = _stored(table, reading.version)
    written = np.zeros(len(table), np.bool_) if stored is None else stored.ok
    if stored is not None and written.all():
        return Flattened(stored.columns, {})
    rest = np.flatnonzero(~written)
    some = table.select(["context", "feature_snapshot"])
    contexts, snapshots = (some if stored is None else some.take(pa.array(rest))).columns
    rows, errors = flat_contexts(contexts, snapshots, reading)
    errors = {int(rest[row]): error for row, error in errors.items()}
    return Flattened(rows if stored is None else _placed(stored.columns, rest, rows), errors)


def flat_contexts(
    contexts: pa.Array | pa.ChunkedArray, snapshots: pa.Array | pa.ChunkedArray, reading: Reading = RECORDED
) -> Flattened:
    """Return the features of [n] contexts with what was looked up for them, as `context_features` reads each.

    Args:
        contexts: [n] JSON texts, without nulls.
        snapshots: [n] JSON texts, without nulls.
        reading: how.
    """
    parts, errors = list[FeatureRows](), dict[int, FieldError]()
    start = 0
    texts = pa.table({"context": contexts, "snapshot": snapshots}).cast(_BOTH)
    for table in texts.to_batches(max_chunksize=_AT_ONCE):
        rows, failed = _flat_contexts(table["context"], table["snapshot"], reading)
        parts.append(rows)
        errors |= {start + row: error for row, error in failed.items()}
        start += len(rows)
    return Flattened(joined(parts), errors)


def flat_actions(texts: pa.Array | pa.ChunkedArray, sizes: Ints, reading: Reading = RECORDED) -> Flattened:
    """Return the features of the actions that [n] decisions offered, as `action_features` reads each list.

    Equal texts are read once, and so are equal objects in different texts.

    Args:
        texts: [n] JSON texts, without nulls.
        sizes: [n] int64 how many actions each decision offered.
        reading: how.

    Returns:
        [m] rows, the sum of `sizes`; errors by decision.
    """
    names, codes = _interned(texts)
    lists = _split(names, reading)
    errors: dict[int, FieldError] = {}
    counts = np.diff(lists.offsets)
    wrong = np.flatnonzero(counts[codes] != sizes)
    for row in wrong.tolist():
        try:
            action_features(names[int(codes[row])].as_py(), int(sizes[row]), reading)
        except FieldError as error:
            errors[row] = error
    empty = lists.objects.distinct  # one more distinct row, for what cannot be read
    offsets = ragged_offsets(sizes)
    flat = np.full(int(offsets[-1]), empty, np.int64)
    right = np.flatnonzero(counts[codes] == sizes)
    places = ragged_rows(offsets[right], ragged_offsets(sizes[right]))
    flat[places] = lists.rows[ragged_rows(lists.offsets[codes[right]], ragged_offsets(sizes[right]))]
    objects = lists.objects
    held = np.append(objects.offsets, objects.offsets[-1])
    return Flattened(FeatureRows(objects.names, objects.name, objects.value, held, flat), errors)


def context_features(context: str | bytes, snapshot: str | bytes, reading: Reading = RECORDED) -> Features:
    """Return the flattened features of a context, the looked-up ones among them.

    Args:
        context: JSON object.
        snapshot: JSON object of the features that were looked up for the decision.
        reading: how.

    Raises:
        FieldError: either is no object of features.
    """
    try:
        features = flatten(_decode_object(context), field="context", version=reading.version, cut=reading.cut)
        if len(snapshot) > 2:  # not "{}"
            features |= looked_up(_decode_object(snapshot), version=reading.version)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FieldError("context", wanted="a JSON object of features", got=error) from error
    return features


def action_features(actions: str | bytes, k: int, reading: Reading = RECORDED) -> list[Features]:
    """Return the flattened features of `k` actions, which stand in a JSON list.

    Raises:
        FieldError: it is no list of `k` objects of features.
    """
    try:
        offered = _decode_objects(actions)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FieldError("actions", wanted="a JSON list of objects of features", got=error) from error
    if len(offered) != k:
        raise FieldError("actions", wanted=f"{k} objects, one per action", got=len(offered))
    try:
        version, cut = reading
        return [
            flatten(action, field=f"actions[{index}]", version=version, cut=cut) for index, action in enumerate(offered)
        ]
    except RecursionError as error:
        raise FieldError("actions", wanted="objects that are nested less deeply", got=error) from error


def _flat_contexts(contexts: pa.Array, snapshots: pa.Array, reading: Reading) -> Flattened:
    n = len(contexts)
    looked = np.flatnonzero(pc.binary_length(snapshots).to_numpy() > 2)
    texts = bytes_of([contexts, snapshots.take(pa.array(looked))] if looked.size else [contexts])
    plain = read_plain(*texts)
    ok, columns = plain.ok[:n], plain.columns
    if looked.size:
        ok[looked] &= plain.ok[n:]
        columns = _with_looked_up(columns, n, looked)
    ok[_repeating(columns)] = False
    slow = np.flatnonzero(~ok)
    if not slow.size:
        return Flattened(columns, {})
    read, errors = list[Features](), dict[int, FieldError]()
    for row in slow.tolist():
        try:
            read.append(context_features(contexts[row].as_py(), snapshots[row].as_py(), reading))
        except FieldError as error:
            errors[row] = error
            read.append({})
    return Flattened(_placed(columns, slow, read), errors)


def _placed(columns: FeatureRows, where: Ints, rows: Sequence[Features]) -> FeatureRows:
    """Return `columns` with `rows` at `where`."""
    both = joined([columns, FeatureRows.of(rows)])
    place = both.rows[: len(columns)].copy()
    place[where] = both.rows[len(columns) :]
    return FeatureRows(both.names, both.name, both.value, both.offsets, place)


def _with_looked_up(columns: FeatureRows, n: int, looked: Ints) -> FeatureRows:
    """Return the first `n` rows, each with the entries of its snapshot behind its own.

    Args:
        columns: the contexts and then the snapshots, each row held once, in order.
        n: how many contexts there are.
        looked: the rows that the snapshots belong to.
    """
    first = int(columns.offsets[n])
    known = {name: code for code, name in enumerate(columns.names)}
    used, codes = np.unique(columns.name[first:], return_inverse=True)
    renamed = [known.setdefault(PREFIX + columns.names[code], len(known)) for code in used.tolist()]
    name = np.concatenate((columns.name[:first], np.array(renamed, np.int32)[codes]))
    sizes = np.diff(columns.offsets)
    own, more = sizes[:n], np.zeros(n, np.int64)
    more[looked] = sizes[n:]
    begins = np.zeros(n, np.int64)
    begins[looked] = columns.offsets[n:-1]
    pieces = np.stack((columns.offsets[:n], begins), axis=1).reshape(-1)
    lengths = np.stack((own, more), axis=1).reshape(-1)
    flat = ragged_rows(pieces, ragged_offsets(lengths))
    return FeatureRows(list(known), name[flat], columns.value[flat], ragged_offsets(own + more), np.arange(n))


def _repeating(columns: FeatureRows) -> Ints:
    """Return the rows that have a name twice: in a dictionary, the later value is at the earlier place."""
    sizes = np.diff(columns.offsets)
    filled = sizes[sizes > 0]
    if not filled.size:
        return np.zeros(0, np.int64)
    if (filled == filled[0]).all():
        by_row = np.sort(columns.name.reshape(-1, int(filled[0])), axis=1)
        return np.flatnonzero(sizes)[(by_row[:, 1:] == by_row[:, :-1]).any(axis=1)]
    row = np.repeat(np.arange(sizes.size), sizes)
    pairs = np.sort(row * len(columns.names) + columns.name)
    return np.unique(pairs[1:][pairs[1:] == pairs[:-1]] // max(len(columns.names), 1))


def _stored(table: pa.Table, wanted: int) -> Plain | None:
    """Return the columns of features of the `wanted` version, and which rows have them; None where no row has."""
    if any(field.name not in table.column_names for field in FEATURE_FIELDS):
        return None
    version, names, values = (table[field.name] for field in FEATURE_FIELDS)
    ok = pc.fill_null(pc.equal(version, wanted), False)
    for part in (names, values):
        ok = pc.and_(ok, part.is_valid())
    ok = ok.to_numpy()
    if not ok.any():
        return None
    if not ok.all():
        at = pa.array(np.flatnonzero(ok))
        names, values = names.take(at), values.take(at)
    texts, value = pc.list_flatten(names), pc.list_flatten(values)
    known, codes = _interned(texts)
    sizes = np.zeros(len(table), np.int64)
    sizes[ok] = pc.list_value_length(names).to_numpy()
    columns = FeatureRows(
        known.to_pylist(),
        codes.astype(np.int32),
        value.to_numpy(),
        ragged_offsets(sizes),
        np.arange(len(table), dtype=np.int64),
    )
    return Plain(columns, ok)


class _Lists(NamedTuple):
    objects: FeatureRows  # distinct objects
    rows: Ints  # which of them each place of each text has
    offsets: Ints  # [d + 1] where the places of each distinct text begin; none where it cannot be read


def _interned(texts: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """Return the distinct texts, and which of them each is."""
    chunked = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([texts])
    read = pa.types.is_dictionary(chunked.type)
    encoded = chunked.unify_dictionaries() if read else chunked.cast(pa.large_string()).dictionary_encode()
    if not encoded.num_chunks:
        return pa.array([], pa.large_string()), np.zeros(0, np.int64)
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
    return encoded.chunk(encoded.num_chunks - 1).dictionary.cast(pa.large_string()), codes.astype(np.int64)


def _split(texts: pa.Array, reading: Reading) -> _Lists:
    """Return the objects in `texts` ([d] lists of them), equal ones once."""
    data, offsets = bytes_of([texts])
    opens, closes = np.flatnonzero(data == OPEN), np.flatnonzero(data == CLOSE)
    upto = np.searchsorted(opens, offsets)
    sizes = np.diff(upto)
    ok = (sizes > 0) & (sizes == np.diff(np.searchsorted(closes, offsets)))
    # "[" at the beginning, "]" at the end, and objects that are a comma apart
    ok &= np.diff(offsets) >= 4
    index = np.flatnonzero(ok)
    begins, ends = offsets[index], offsets[index + 1]
    ok[index] = (data[begins] == ord("[")) & (data[ends - 1] == ord("]"))
    index = index[ok[index]]
    flat = ragged_rows(upto[index], ragged_offsets(sizes[index]))
    row = np.repeat(index, sizes[index])
    begin = opens[flat]
    closed = np.searchsorted(closes, offsets)
    end = closes[ragged_rows(closed[index], ragged_offsets(sizes[index]))]
    expected = offsets[row] + 1
    later = np.flatnonzero(row[1:] == row[:-1]) + 1
    expected[later] = end[later - 1] + 2
    fits = (begin == expected) & (begin < end)
    fits[later] &= data[end[later - 1] + 1] == COMMA
    last = np.ones(row.size, np.bool_)
    last[later - 1] = False
    fits[last] &= end[last] == offsets[row[last] + 1] - 2
    ok[row[~fits]] = False
    keep = ok[row]
    begin, end, row = begin[keep], end[keep], row[keep]
    objects, codes = cut(data, begin, end + 1)
    plain = read_plain(*bytes_of([objects]))
    readable = plain.ok
    readable[_repeating(plain.columns)] = False
    ok[row[~readable[codes]]] = False
    keep = ok[row]
    codes, row = codes[keep], row[keep]
    places = [codes]
    counts = np.bincount(row, minlength=len(texts)).astype(np.int64)
    slow, read, known = np.flatnonzero(~ok), list[Features](), dict[bytes, int]()
    for text in slow.tolist():
        found = _read_list(texts[text].as_py(), known, read, reading)
        counts[text] = len(found)
        places.append(np.array(found, np.int64) + plain.columns.distinct)
    offsets = ragged_offsets(counts)
    rows = np.empty(int(offsets[-1]), np.int64)
    order = np.concatenate((np.flatnonzero(ok), slow))
    rows[ragged_rows(offsets[order], ragged_offsets(counts[order]))] = np.concatenate(places)
    return _Lists(joined([plain.columns, FeatureRows.of(read)]) if read else plain.columns, rows, offsets)


def _read_list(text: str, known: dict[bytes, int], read: list[Features], reading: Reading) -> list[int]:
    """Return the places in `read` of the objects in a JSON list, which are added to it; [] where it cannot be read."""
    try:
        found: list[int] = []
        for raw in _decode_raws(text):
            place = known.get(bytes(raw))
            if place is None:
                read.append(flatten(_decode_object(raw), field="actions", version=reading.version, cut=reading.cut))
                place = known[bytes(raw)] = len(read) - 1
            found.append(place)
        return found
    except (FieldError, msgspec.DecodeError, RecursionError):
        return []
