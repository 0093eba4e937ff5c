"""Plain JSON objects - numbers, texts, booleans and nulls, nothing nested, escaped or hidden - cut out of their bytes.

All objects are read at once, by passes over flat arrays. One in any doubt is said to be so and not read: whoever asks
has `decision.features.flatten` read it, so nothing is accepted here that would be refused or read otherwise there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from decision.columns import Codes, FeatureRows
from decision.features import MAX_FEATURES, MAX_NAME_CHARS, MAX_NUMBER, MAX_TEXT_CHARS
from decision.ragged import Floats, Ints, ragged_offsets

_PASSES = 4

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]

_QUOTE, _COLON, COMMA, OPEN, CLOSE, _MINUS, _DOT, _ZERO, _SPACE, _BACKSLASH, _HIDDEN = b'":,{}-.0 \\_'
_NONE = np.zeros(1, np.int64)
_IS_DIGIT = np.isin(np.arange(256), np.frombuffer(b"0123456789", np.uint8))
_WORDS = {b"true": 1.0, b"false": 0.0, b"null": np.nan}


def cut(data: Bytes, starts: Ints, stops: Ints) -> tuple[pa.Array, Ints]:
    """Return the distinct texts among ``data[starts[i]:stops[i]]``, and which of them each is.

    Args:
        data: all bytes.
        starts: [k] ascending.
        stops: [k] each at or before the next start.
    """
    encoded = _alternate(data, starts, stops).dictionary_encode()
    used, codes = np.unique(encoded.indices.to_numpy()[::2], return_inverse=True)
    return encoded.dictionary.take(pa.array(used)), codes.astype(np.int64)


class Plain(NamedTuple):
    """What objects came to.

    Attributes:
        columns: [n] their features, each row held once, in order; without entries where not `ok`.
        ok: [n] which are plain.
    """

    columns: FeatureRows
    ok: Bools


class _Entries(NamedTuple):
    names: list[str]
    name: Codes
    value: Floats
    sizes: Ints


def read_plain(data: Bytes, offsets: Ints) -> Plain:
    """Return the features of the objects that are plain, and which of ``data[offsets[i]:offsets[i + 1]]`` these are."""
    n = offsets.size - 1
    chosen, found = np.arange(n), _strange(data, offsets)
    for _ in range(_PASSES):
        if isinstance(found, np.ndarray):  # leave out those in doubt
            data, offsets = bytes_of([_array(data, offsets).filter(pa.array(~found))])
            chosen = chosen[~found]
        found = _entries(data, offsets)
        if not isinstance(found, np.ndarray):
            break
    ok, sizes = np.zeros(n, np.bool_), np.zeros(n, np.int64)
    if not isinstance(found, _Entries):
        return Plain(FeatureRows([], np.zeros(0, np.int32), np.zeros(0), np.zeros(n + 1, np.int64), np.arange(n)), ok)
    ok[chosen], sizes[chosen] = True, found.sizes
    return Plain(FeatureRows(found.names, found.name, found.value, ragged_offsets(sizes), np.arange(n)), ok)


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
    doubt = (data[starts] != OPEN) | (data[stops - 1] != CLOSE) | (quoted % 2 == 1)
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
    wrong = (data[stop] != COMMA) | (stop <= start)
    wrong[last] = stop[last] <= start[last]
    wrong[first] |= key_open[first] != starts[filled] + 1
    wrong |= key_close - key_open > MAX_NAME_CHARS  # bytes are as many as characters, or more
    wrong |= data[key_open + 1] == _HIDDEN
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
    found = np.flatnonzero((data[1:] == _SPACE) & ((data[:-1] == _COLON) | (data[:-1] == COMMA))) + 1
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
    return value, wrong | ~(np.abs(value) <= MAX_NUMBER) | ((value == 0) & np.signbit(value))


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


def bytes_of(arrays: Sequence[pa.Array]) -> tuple[Bytes, Ints]:
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
