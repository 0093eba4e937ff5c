"""An hour without the broker: what is acknowledged meanwhile waits in the spool, and arrives once, in order.

``python -m tests.soak.broker_away [--per-second N]``. The hour is compressed: the broker is killed until as many
decisions were acknowledged as N a second make in an hour, as fast as the spool takes them, and as many outcomes. Then
it is started, and the forwarder, which went on trying, catches up. `tests/e2e/test_kill_forwarder.py` has the short
form.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from pipelines.log.sqlite.log import LocalLog
from tests.e2e.test_kill_forwarder import PARTITIONS, TOPICS, broker_away

HOUR_S = 3_600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-second", type=int, default=50, help="decisions of the hour, and as many outcomes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = LocalLog(Path(folder) / "log.db")
        for topic in TOPICS:
            source.create(topic, PARTITIONS)
        began = time.perf_counter()
        away = broker_away(source, Path(folder), given.per_second * HOUR_S, per_second=1e9)
        seconds = round(time.perf_counter() - began)
        source.close()
    print(
        f"{2 * away} messages of an hour at {given.per_second} decisions a second, played in {seconds} s: all arrived"
    )
    print(json.dumps({"name": "broker_away", "decisions": away, "messages": 2 * away, "seconds": seconds, "lost": 0}))


if __name__ == "__main__":
    main()
