"""A process that ends with the one that started it, also where that one was killed and could not say so.

    python -m pipelines.operations.parent MODULE ARGUMENT...

runs a module as ``python -m MODULE`` does, and ends so from before its imports on: they take seconds, and minutes where
the machine is busy.
"""

from __future__ import annotations

import logging
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import MutableMapping

_log = logging.getLogger(__name__)
_LOOK_S, _AGAIN_S = 1.0, 5.0
_STARTED_BY = "SERVING_STARTED_BY"


def started_by_us() -> dict[str, str]:
    """Return the variable that tells a process who started it: that one may be gone before it can ask."""
    return {_STARTED_BY: str(os.getpid())}


def end_with_parent(environ: MutableMapping[str, str] = os.environ) -> None:
    """Have a thread send SIGTERM to this process when the one that `started_by_us` names is no longer its parent.

    It is sent again every five seconds, since a process that still starts may not hear the first.

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
        _log.critical("what started this process has gone, and so does this one")
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_AGAIN_S)

    threading.Thread(target=watch, name="parent", daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
