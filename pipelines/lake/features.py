"""Features of JSON texts as columns: row for row what `decision.features` makes of each text, for all of them at once.

Plain objects - numbers, texts, booleans and nulls, nothing nested, nothing escaped - are cut out of their bytes by
passes over flat arrays. A text in any doubt goes the slow way, where `flatten` has the last word; the fast way accepts
nothing that the slow way would refuse or read otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from decision.columns import Codes, FeatureRows, Features, joined
from decision.errors import FieldError
from decision.features import MAX_FEATURES, MAX_NAME_CHARS, MAX_TEXT_CHARS, PREFIX, VERSION, flatten, looked_up
from decision.ragged import Floats, Ints, ragged_offsets, ragged_rows
from pipelines.lake.schemas import DOUBLES, FEATURE_FIELDS, STRINGS

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode

_AT_ONCE = 4_096  # rows: what is computed of them stays in the processor's cache
_PASSES = 4

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]

_QUOTE, _COLON, _COMMA, _OPEN, _CLOSE, _MINUS, _DOT, _ZERO, _SPACE, _BACKSLASH = b'":,{}-.0 \\'
_NONE = np.zeros(1, np.int64)
_IS_DIGIT = np.isin(np.arange(256), np.frombuffer(b"0123456789", np.uint8))
_WORDS = {b"true": 1.0, b"false": 0.0, b"null": np.nan}


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


def contexts_of(table: pa.Table) -> Flattened:
    """Return the features of the contexts in [n] rows of decisions, with what was looked up for them.

    They are taken from the columns of features where this version of flattening wrote them, else from the texts.
    """
    stored = _stored(table)
    written = np.zeros(len(table), np.bool_) if stored is None else stored.ok
    if stored is not None and written.all():
        return Flattened(stored.columns, {})
    rest = np.flatnonzero(~written)
    some = table.select(["context", "feature_snapshot"])
    rows, errors = flat_contexts(*(some if stored is None else some.take(pa.array(rest))).columns)
    errors = {int(rest[row]): error for row, error in errors.items()}
    return Flattened(rows if stored is None else _placed(stored.columns, rest, rows), errors)


def flat_contexts(contexts: pa.Array | pa.ChunkedArray, snapshots: pa.Array | pa.ChunkedArray) -> Flattened:
    """Return the features of [n] contexts with what was looked up for them, as `context_features` reads each.

    Args:
        contexts: [n] JSON texts, without nulls.
        snapshots: [n] JSON texts, without nulls.
    """
    parts, errors = list[FeatureRows](), dict[int, FieldError]()
    start = 0
    for table in pa.table({"context": contexts, "snapshot": snapshots}).to_batches(max_chunksize=_AT_ONCE):
        rows, failed = _flat_contexts(table["context"], table["snapshot"])
        parts.append(rows)
        errors |= {start + row: error for row, error in failed.items()}
        start += len(rows)
    return Flattened(joined(parts), errors)


def flat_actions(texts: pa.Array | pa.ChunkedArray, sizes: Ints) -> Flattened:
    """Return the features of the actions that [n] decisions offered, as `action_features` reads each list.

    Equal texts are read once, and so are equal objects in different texts.

    Args:
        texts: [n] JSON texts, without nulls.
        sizes: [n] int64 how many actions each decision offered.

    Returns:
        [m] rows, the sum of `sizes`; errors by decision.
    """
    names, codes = _interned(texts)
    lists = _split(names)
    errors: dict[int, FieldError] = {}
    counts = np.diff(lists.offsets)
    wrong = np.flatnonzero(counts[codes] != sizes)
    for row in wrong.tolist():
        try:
            action_features(names[int(codes[row])].as_py(), int(sizes[row]))
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


def context_features(context: str | bytes, snapshot: str | bytes) -> Features:
    """Return the flattened features of a context, the looked-up ones among them.

    Args:
        context: JSON object.
        snapshot: JSON object of the features that were looked up for the decision.

    Raises:
        FieldError: either is no object of features.
    """
    try:
        features = flatten(_decode_object(context), field="context")
        if len(snapshot) > 2:  # not "{}"
            features |= looked_up(_decode_object(snapshot))
    except (msgspec.DecodeError, RecursionError) as error:
        raise FieldError("context", wanted="a JSON object of features", got=error) from error
    return features


def action_features(actions: str | bytes, k: int) -> list[Features]:
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
        return [flatten(action, field=f"actions[{index}]") for index, action in enumerate(offered)]
    except RecursionError as error:
        raise FieldError("actions", wanted="objects that are nested less deeply", got=error) from error


def _flat_contexts(contexts: pa.Array, snapshots: pa.Array) -> Flattened:
    n = len(contexts)
    looked = np.flatnonzero(pc.binary_length(snapshots).to_numpy() > 2)
    texts = _bytes_of([contexts, snapshots.take(pa.array(looked))] if looked.size else [contexts])
    plain = _plain(*texts)
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
            read.append(context_features(contexts[row].as_py(), snapshots[row].as_py()))
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


def _stored(table: pa.Table) -> _Plain | None:
    """Return the columns of features, and which rows have them; None where no row has."""
    if any(field.name not in table.column_names for field in FEATURE_FIELDS):
        return None
    version, names, values = (table[field.name] for field in FEATURE_FIELDS)
    ok = pc.fill_null(pc.equal(version, VERSION), False)
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
    return _Plain(columns, ok)


class _Lists(NamedTuple):
    objects: FeatureRows  # distinct objects
    rows: Ints  # which of them each place of each text has
    offsets: Ints  # [d + 1] where the places of each distinct text begin; none where it cannot be read


def _interned(texts: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """Return the distinct texts, and which of them each is."""
    chunked = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([texts])
    encoded = chunked.cast(pa.large_string()).dictionary_encode()
    if not encoded.num_chunks:
        return pa.array([], pa.large_string()), np.zeros(0, np.int64)
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
    return encoded.chunk(encoded.num_chunks - 1).dictionary, codes.astype(np.int64)


def _split(texts: pa.Array) -> _Lists:
    """Return the objects in `texts` ([d] lists of them), equal ones once."""
    data, offsets = _bytes_of([texts])
    opens, closes = np.flatnonzero(data == _OPEN), np.flatnonzero(data == _CLOSE)
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
    fits[later] &= data[end[later - 1] + 1] == _COMMA
    last = np.ones(row.size, np.bool_)
    last[later - 1] = False
    fits[last] &= end[last] == offsets[row[last] + 1] - 2
    ok[row[~fits]] = False
    keep = ok[row]
    begin, end, row = begin[keep], end[keep], row[keep]
    objects, codes = _cut(data, begin, end + 1)
    plain = _plain(*_bytes_of([objects]))
    readable = plain.ok
    readable[_repeating(plain.columns)] = False
    ok[row[~readable[codes]]] = False
    keep = ok[row]
    codes, row = codes[keep], row[keep]
    places = [codes]
    counts = np.bincount(row, minlength=len(texts)).astype(np.int64)
    slow, read, known = np.flatnonzero(~ok), list[Features](), dict[bytes, int]()
    for text in slow.tolist():
        found = _read_list(texts[text].as_py(), known, read)
        counts[text] = len(found)
        places.append(np.array(found, np.int64) + plain.columns.distinct)
    offsets = ragged_offsets(counts)
    rows = np.empty(int(offsets[-1]), np.int64)
    order = np.concatenate((np.flatnonzero(ok), slow))
    rows[ragged_rows(offsets[order], ragged_offsets(counts[order]))] = np.concatenate(places)
    return _Lists(joined([plain.columns, FeatureRows.of(read)]) if read else plain.columns, rows, offsets)


def _read_list(text: str, known: dict[bytes, int], read: list[Features]) -> list[int]:
    """Return the places in `read` of the objects in a JSON list, which are added to it; [] where it cannot be read."""
    try:
        found: list[int] = []
        for raw in _decode_raws(text):
            place = known.get(bytes(raw))
            if place is None:
                read.append(flatten(_decode_object(raw), field="actions"))
                place = known[bytes(raw)] = len(read) - 1
            found.append(place)
        return found
    except (FieldError, msgspec.DecodeError, RecursionError):
        return []


def _cut(data: Bytes, starts: Ints, stops: Ints) -> tuple[pa.Array, Ints]:
    """Return the distinct texts among ``data[starts[i]:stops[i]]``, and which of them each is.

    Args:
        data: all bytes.
        starts: [k] ascending.
        stops: [k] each at or before the next start.
    """
    encoded = _alternate(data, starts, stops).dictionary_encode()
    used, codes = np.unique(encoded.indices.to_numpy()[::2], return_inverse=True)
    return encoded.dictionary.take(pa.array(used)), codes.astype(np.int64)


class _Plain(NamedTuple):
    columns: FeatureRows  # [n] rows, each held once, in order; without entries where not `ok`
    ok: Bools


class _Entries(NamedTuple):
    names: list[str]
    name: Codes
    value: Floats
    sizes: Ints


def _plain(data: Bytes, offsets: Ints) -> _Plain:
    """Return the features of the objects that are plain, and which of ``data[offsets[i]:offsets[i + 1]]`` these are."""
    n = offsets.size - 1
    chosen, found = np.arange(n), _strange(data, offsets)
    for _ in range(_PASSES):
        if isinstance(found, np.ndarray):  # leave out those in doubt
            data, offsets = _bytes_of([_array(data, offsets).filter(pa.array(~found))])
            chosen = chosen[~found]
        found = _entries(data, offsets)
        if not isinstance(found, np.ndarray):
            break
    ok, sizes = np.zeros(n, np.bool_), np.zeros(n, np.int64)
    if not isinstance(found, _Entries):
        return _Plain(FeatureRows([], np.zeros(0, np.int32), np.zeros(0), np.zeros(n + 1, np.int64), np.arange(n)), ok)
    ok[chosen], sizes[chosen] = True, found.sizes
    return _Plain(FeatureRows(found.names, found.name, found.value, ragged_offsets(sizes), np.arange(n)), ok)


def _strange(data: Bytes, offsets: Ints) -> Bools | None:
    """Return which texts have escapes or control characters; None where none has."""
    strange = (data < _SPACE) | (data == _BACKSLASH)
    return np.diff(np.searchsorted(np.flatnonzero(strange), offsets)) > 0 if strange.any() else None


def _entries(data: Bytes, offsets: Ints, *, spaced: bool = True) -> _Entries | Bools:
    """Return the entries of all texts, which hold no escapes, or which of the texts are in doubt.

    Without escapes every second quote ends a string. A text is plain when its first key stands behind its first brace,
    every later one behind a comma, and every value between a key's colon and that comma or the last brace.
    """
    starts, stops = offsets[:-1], offsets[1:]
    doubt = stops - starts < 2
    if doubt.any():
        return doubt
    quotes = np.flatnonzero(data == _QUOTE)
    quoted = np.diff(np.searchsorted(quotes, offsets))
    doubt = (data[starts] != _OPEN) | (data[stops - 1] != _CLOSE) | (quoted % 2 == 1)
    if doubt.any():
        return doubt
    if spaced and (spaces := _spaces(data, quotes)).size:
        return _entries(np.delete(data, spaces), offsets - np.searchsorted(spaces, offsets), spaced=False)
    opens, closes = quotes[::2], quotes[1::2]
    keys = np.flatnonzero(data[closes + 1] == _COLON)
    key_open, key_close = opens[keys], closes[keys]
    cuts = np.searchsorted(key_open, offsets)
    sizes = np.diff(cuts)
    filled = np.flatnonzero(sizes)
    row, first, last = np.repeat(np.arange(sizes.size), sizes), cuts[filled], cuts[filled + 1] - 1
    start = key_close + 2
    stop = np.empty_like(start)
    stop[:-1] = key_open[1:] - 1
    stop[last] = stops[filled] - 1
    wrong = (data[stop] != _COMMA) | (stop <= start)
    wrong[last] = stop[last] <= start[last]
    wrong[first] |= key_open[first] != starts[filled] + 1
    wrong |= key_close - key_open > MAX_NAME_CHARS  # bytes are as many as characters, or more
    texts = np.flatnonzero(data[start] == _QUOTE)
    wrong[texts] |= (closes[keys[texts] + 1] != stop[texts] - 1) | (stop[texts] - start[texts] > MAX_TEXT_CHARS)
    doubt = (quoted != 2 * (sizes + np.bincount(row[texts], minlength=sizes.size))) | (sizes > MAX_FEATURES)
    doubt |= (sizes == 0) & (stops - starts > 2)
    doubt[row[wrong]] = True
    if doubt.any():
        return doubt
    value = np.ones(keys.size)
    others = np.flatnonzero(data[start] != _QUOTE)
    value[others], wrong = _numbers(data, start[others], stop[others])
    if wrong.any():
        doubt[row[others[wrong]]] = True
        return doubt
    kept = value == value  # null is absent
    if not kept.all():
        at = np.flatnonzero(kept)
        key_open, start, stop, value = key_open[at], start[at], stop[at], value[at]
        sizes = np.bincount(row[at], minlength=sizes.size).astype(np.int64)
    return _Entries(*_names(data, key_open + 1, start, stop), value, sizes)


def _spaces(data: Bytes, quotes: Ints) -> Ints:
    """Return where a space stands behind a colon or comma outside of strings."""
    found = np.flatnonzero((data[1:] == _SPACE) & ((data[:-1] == _COLON) | (data[:-1] == _COMMA))) + 1
    return found[np.searchsorted(quotes, found) % 2 == 0]


def _names(data: Bytes, start: Ints, value_start: Ints, value_stop: Ints) -> tuple[list[str], Codes]:
    """Return the features' names, and which of them each entry has: the key, or key and text around an "="."""
    texts = data[value_start] == _QUOTE
    # What stands between key and text is the same everywhere, and no part of either: it is replaced in distinct names.
    encoded = _pieces(data, start, np.where(texts, value_stop - 1, value_start - 2)).dictionary_encode()
    known: dict[str, int] = {}
    codes = [known.setdefault(name.replace('":"', "=", 1), len(known)) for name in encoded.dictionary.to_pylist()]
    name: Codes = encoded.indices.to_numpy()
    return list(known), name if len(known) == len(codes) else np.array(codes, np.int32)[name]


def _numbers(data: Bytes, start: Ints, stop: Ints) -> tuple[Floats, Bools]:
    """Return [k] the numbers at ``data[start:stop]``, NaN for null, and which are in doubt."""
    lead = data[start]
    words = np.flatnonzero(lead >= ord("A"))
    if words.size:
        value, wrong = np.full(start.size, np.nan), np.zeros(start.size, np.bool_)
        wrong[words] = True
        for text, number in _WORDS.items():
            same = words[stop[words] - start[words] == len(text)]
            for place, byte in enumerate(text):
                same = same[data[start[same] + place] == byte]
            value[same], wrong[same] = number, False
        others = np.flatnonzero(lead < ord("A"))
        value[others], wrong[others] = _numbers(data, start[others], stop[others])
        return value, wrong
    # What a cast takes and JSON does not: no digit in front or at the end, a needless zero, no digit behind a point.
    first = start + (lead == _MINUS)
    second = np.minimum(first + 1, data.size - 1)
    wrong = ~_IS_DIGIT[data[first]] | ~_IS_DIGIT[data[stop - 1]]
    wrong |= (data[first] == _ZERO) & _IS_DIGIT[data[second]] & (second < stop)
    bare = np.flatnonzero((data[:-1] == _DOT) & ((data[1:] == ord("e")) | (data[1:] == ord("E"))))
    if bare.size:
        wrong |= np.diff(np.searchsorted(bare, np.append(start, data.size))) > 0
    try:
        value: Floats = _pieces(data, start, stop).cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return np.zeros(start.size), np.ones(start.size, np.bool_)
    # -0 is the integer 0, and -0.0 is not; the slow way tells them apart
    return value, wrong | ~np.isfinite(value) | ((value == 0) & np.signbit(value))


def _pieces(data: Bytes, starts: Ints, stops: Ints) -> pa.Array:
    """Return [k] the texts ``data[starts[i]:stops[i]]``, which follow one another."""
    return _alternate(data, starts, stops).take(pa.array(np.arange(0, 2 * starts.size, 2)))


def _alternate(data: Bytes, starts: Ints, stops: Ints) -> pa.Array:
    """Return the same texts, with what stands between two of them as every second one; no copy is made."""
    if not starts.size:
        return pa.array([], pa.large_string())
    bounds = np.empty(2 * starts.size, np.int64)
    bounds[::2], bounds[1::2] = starts, stops
    return _array(data, bounds)


def _bytes_of(arrays: Sequence[pa.Array]) -> tuple[Bytes, Ints]:
    """Return the bytes of the texts of all `arrays`, and where each text begins."""
    parts, sizes = list[Bytes](), list[Ints]()
    for array in arrays:
        large = array.cast(pa.large_string())
        offsets = np.frombuffer(large.buffers()[1], np.int64, len(large) + 1, 8 * large.offset) if len(large) else _NONE
        data = large.buffers()[2]
        parts.append(np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data else np.zeros(0, np.uint8))
        sizes.append(np.diff(offsets))
    return parts[0] if len(parts) == 1 else np.concatenate(parts), ragged_offsets(np.concatenate(sizes))


def _array(data: Bytes, offsets: Ints) -> pa.Array:
    buffers = pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(data)
    return pa.LargeStringArray.from_buffers(offsets.size - 1, *buffers)
