"""What every test gets.

Temporary files stand in memory where the system has room: hundreds of fsyncs would bound the run. What the tests show
does not rest on the disk: `kill -9` leaves written pages to the kernel either way. Hypothesis tries the same examples
on every run, and asks of none how long it took.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import hypothesis

_MEMORY = Path("/dev/shm")
_NEEDED = 2 << 30

if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _NEEDED:
    os.environ["TMPDIR"] = str(_MEMORY)  # for processes that tests start
    tempfile.tempdir = str(_MEMORY)

hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")
