"""dsjson as a format of `decision import` and `decision export`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from decision.errors import FieldError
from pipelines.formats.dsjson.read import read_dsjson
from pipelines.formats.dsjson.write import write_dsjson
from pipelines.formats.registry import Format, Found, Reason


def find(path: Path | None, name: str, *, strict: bool = False) -> Iterable[Found]:
    """Return the log of a file, a folder, a pattern or standard input."""
    if path is None:
        raise FieldError("path", wanted="a file, a folder, a pattern, or - for standard input", got=None)
    left_out = Counter[Reason]()
    source = "standard input" if str(path) == "-" else path.name
    return [Found(name, source, read_dsjson(path, left_out, strict=strict), left_out=lambda: left_out)]


FORMAT = Format(find, write_dsjson)
