"""Temporary files of the tests stand in memory where the system has room: hundreds of fsyncs would bound the run.

What the tests show does not rest on the disk: `kill -9` leaves written pages to the kernel either way.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")
_NEEDED = 2 << 30

if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _NEEDED:
    os.environ["TMPDIR"] = str(_MEMORY)  # for processes that tests start
    tempfile.tempdir = str(_MEMORY)
