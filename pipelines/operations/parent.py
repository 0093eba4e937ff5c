"""A process that ends with the one that started it, also where that one was killed and could not say so."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, MutableMapping

_LOOK_S, _AGAIN_S = 1.0, 5.0
_STARTED_BY = "SERVING_STARTED_BY"


def started_by_us() -> dict[str, str]:
    """Return the variable that tells a process who started it: that one may be gone before it can ask."""
    return {_STARTED_BY: str(os.getpid())}


def end_with_parent(then: Callable[[], object], environ: MutableMapping[str, str] = os.environ) -> None:
    """Call `then` from a thread when the process that `started_by_us` names is no longer this one's parent.

    It is called again every five seconds, since a process that still starts may not hear the first.

    Without that variable nobody promised to stay, and nothing is done. It is taken out of `environ`: what this process
    starts has another parent.
    """
    named = environ.pop(_STARTED_BY, None)
    if named is None:
        return
    parent = int(named)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        while True:
            then()
            time.sleep(_AGAIN_S)

    threading.Thread(target=watch, name="parent", daemon=True).start()
