"""Published upheld pairs as the service reads them; without the database, which it does not need for that."""

from __future__ import annotations

from pathlib import Path

import msgspec

from decision.errors import FieldError
from decision.fairness.clamp import Anchor

MAX_BYTES = 64 << 20
_decoder = msgspec.json.Decoder(list[Anchor])


def published(path: Path) -> list[Anchor]:
    """Return the anchors of a published file.

    Raises:
        FieldError: it is too large or holds something else.
        FileNotFoundError: there is none.
    """
    if path.stat().st_size > MAX_BYTES:
        raise FieldError("anchors", wanted=f"at most {MAX_BYTES} bytes", got=path.stat().st_size)
    try:
        return _decoder.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise FieldError("anchors", wanted="upheld pairs", got=error) from error
