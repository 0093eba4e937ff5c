"""Columns of CSV files, read as text and made numbers, lists or features afterwards, so that a bad value has its row.

Commas, semicolons or tabs stand between the columns, whichever the line of names has most of. Files may be compressed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pv

from decision.errors import FieldError
from pipelines.formats.store import check_file

pc: Any = pyarrow.compute  # its functions are made when it is imported; type checkers do not see them

CONTEXT = "context."
BETWEEN = "|"
"""What stands between the ids in a column of offered actions that is no list."""
_CSV = "a CSV file in UTF-8 with a line of names"
_BLOCK_BYTES = 4 << 20
_HEAD_BYTES = 64 << 10
_NULLS = ["", "NA", "NaN", "nan", "null", "NULL", "None"]
_DELIMITERS = (",", ";", "\t")
_WRONG_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
_NUMBER = r"^-?(0|[1-9]\d{0,14})(\.\d*)?([eE][+-]?\d{1,2})?$"
"""A feature that is a number: 007 is a code, and so are sixteen digits."""
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_QUOTED = re.compile(r"\[\s*'[^'\\]*'(\s*,\s*'[^'\\]*')*\s*\]")
"""A list of texts as Python prints it, which is what pandas writes."""


class CsvFile:
    """A CSV file with a line of names.

    Attributes:
        path: of the file.
        names: of its columns.

    Raises:
        FieldError: there is no such file, it is no CSV file in UTF-8, or a name stands there twice.
    """

    def __init__(self, path: Path) -> None:
        check_file(path)
        self.path = path
        self._delimiter = _delimiter_of(path)
        with self._opened(()) as reader:
            self.names: list[str] = reader.schema.names
        for name in self.names:
            if self.names.count(name) > 1:
                raise FieldError(name, wanted="one column of that name", got=self.names.count(name))

    def numbered(self, known: Mapping[str, str]) -> Iterator[pa.Table]:
        """Yield the rows, part by part: the columns of the fields `known` as text, and ``#``, each row's number from 0.

        Args:
            known: {field: column}.

        Raises:
            FieldError: a row has more or fewer columns, or is no UTF-8.
        """
        first = 0
        with self._opened(sorted(set(known.values()))) as reader:
            while True:
                try:
                    rows = pa.Table.from_batches([reader.read_next_batch()])
                except StopIteration:
                    return
                except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
                    raise _refused(error, f"row {first} or after", "whole rows in UTF-8") from error
                number = pa.array(np.arange(first, first + len(rows)))
                first += len(rows)
                yield pa.table({field: rows[column] for field, column in known.items()} | {"#": number})

    def kinds(self, columns: Sequence[str]) -> dict[str, str]:
        """Return what each column holds from its first row to its last: ``truth``, ``number`` or ``text``."""
        found = dict.fromkeys(columns, "truth")
        truth = pa.array(list(_TRUTH))
        for rows in self.numbered({name: name for name in found}) if found else ():
            for name in found:
                texts = pc.drop_null(rows[name])
                if found[name] == "truth" and not _all(pc.is_in(texts, value_set=truth)):
                    found[name] = "number"
                if found[name] == "number" and not _all(pc.match_substring_regex(texts, _NUMBER)):
                    found[name] = "text"
        return found

    def _opened(self, columns: Sequence[str]) -> pv.CSVStreamingReader:
        try:
            return pv.open_csv(
                self.path,
                # Errors have the number of the row where one thread reads.
                read_options=pv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
                parse_options=pv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                convert_options=pv.ConvertOptions(
                    include_columns=columns or None,
                    column_types=dict.fromkeys(columns, pa.string()),
                    null_values=_NULLS,
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
        except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
            raise _refused(error, "path", _CSV).from_source(self.path.name) from error


def _refused(error: Exception, place: str, wanted: str) -> FieldError:
    """Return the error of a row with too many columns or too few; of anything else, that `place` is not `wanted`."""
    found = _WRONG_ROW.search(str(error))
    if found is None:
        return FieldError(place, wanted=wanted, got=error)
    row, expected, got = map(int, found.groups())
    # Arrow counts the line of names, from 1; rows do not.
    return FieldError(f"row {row - 2}", wanted=f"of {expected} columns", got=got)


def _all(true: pa.ChunkedArray) -> bool:
    return pc.all(true, min_count=0).as_py()


def _delimiter_of(path: Path) -> str:
    try:
        with pa.input_stream(str(path)) as file:
            head = bytes(file.read(_HEAD_BYTES)).partition(b"\n")[0]
        names = head.decode("utf-8-sig")
    except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as error:
        raise FieldError("path", wanted=_CSV, got=error).from_source(path.name) from error
    return max(_DELIMITERS, key=names.count)


def numbers_of(texts: pa.ChunkedArray, rows: Sequence[int], field: str) -> pa.Array:
    """Return the numbers that [n] texts say, true and false as 1 and 0; a null stays null.

    Args:
        texts: see above.
        rows: [n] number of each row, for the message.
        field: what the column holds, for the message.

    Raises:
        FieldError: a text is no number.
    """
    truth = pc.index_in(texts, value_set=pa.array(list(_TRUTH)))
    # 1, 1, 1, 0, 0, 0: see the order of _TRUTH.
    plain = pc.if_else(pc.is_valid(truth), pc.if_else(pc.less(truth, 3), "1", "0"), pc.utf8_trim_whitespace(texts))
    try:
        return plain.cast(pa.float64()).combine_chunks()
    except pa.ArrowInvalid:
        for row, text in zip(rows, plain.to_pylist(), strict=True):
            if text is not None and not _is_number(text):
                raise FieldError(f"row {row}: {field}", wanted="a number", got=text) from None
        raise


def _is_number(text: str) -> bool:
    try:
        pa.array([text]).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def lists_of(texts: pa.ChunkedArray) -> list[list[str] | None]:
    """Return the ids in [n] texts: a JSON list, a list as Python prints it, or ids with | between them."""
    codes = texts.combine_chunks().dictionary_encode()
    read = [_ids(text) for text in codes.dictionary.to_pylist()]
    return [None if code is None else read[code] for code in codes.indices.to_pylist()]


def _ids(text: str) -> list[str]:
    listed = text.strip()
    if listed.startswith("[") and listed.endswith("]"):
        if _QUOTED.fullmatch(listed):
            return re.findall(r"'([^'\\]*)'", listed)
        try:
            found: Any = msgspec.json.decode(listed)
        except msgspec.DecodeError:
            found = None
        if isinstance(found, list) and all(isinstance(each, str | int) and each is not True for each in found):
            return [str(each) for each in found]
    return text.split(BETWEEN)


def contexts_of(rows: pa.Table, kinds: Mapping[str, str]) -> list[str]:
    """Return the JSON of each row's columns ``context.NAME``.

    Args:
        rows: columns by field, as text.
        kinds: {field: what its column holds}, see `CsvFile.kinds`.
    """
    names = [field for field in rows.column_names if field.startswith(CONTEXT)]
    if not names:
        return ["{}"] * len(rows)
    features = {name.removeprefix(CONTEXT): _features(rows[name], kinds[name]) for name in names}
    return [
        msgspec.json.encode(dict(zip(features, values, strict=True))).decode()
        for values in zip(*features.values(), strict=True)
    ]


def _features(texts: pa.ChunkedArray, kind: str) -> list[Any]:
    if kind == "truth":
        return [None if text is None else _TRUTH[text] for text in texts.to_pylist()]
    if kind == "number":
        whole = not pc.any(pc.match_substring_regex(texts, r"[.eE]"), min_count=0).as_py()
        return texts.cast(pa.int64() if whole else pa.float64()).to_pylist()
    return texts.to_pylist()
