"""A load generator: keep-alive connections on raw sockets, one request outstanding on each.

Run as a process of its own, ``python -m tests.bench.load PORT PATH SECONDS CONNECTIONS``, with one JSON body per line
on standard input; prints one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time


async def _connection(
    port: int, requests: list[bytes], start: int, until: float, out: list[float], bad: list[int]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    position = start
    try:
        while (begun := time.perf_counter()) < until:
            writer.write(requests[position % len(requests)])
            position += 7
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200"):
                bad.append(1)
            out.append(time.perf_counter() - begun)
    finally:
        writer.close()


async def main(port: int, path: str, seconds: float, connections: int, bodies: list[bytes]) -> dict[str, float]:
    """Return requests per second and latencies of one burst."""
    requests = [
        b"POST %s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
        % (path.encode(), len(body), body)
        for body in bodies
    ]
    times: list[float] = []
    bad: list[int] = []
    begun = time.perf_counter()
    until = begun + seconds
    await asyncio.gather(*(_connection(port, requests, i, until, times, bad) for i in range(connections)))
    took = time.perf_counter() - begun
    times.sort()
    return {
        "requests_per_second": len(times) / took,
        "p50_ms": 1e3 * times[len(times) // 2],
        "p99_ms": 1e3 * times[int(len(times) * 0.99)],
        "errors": len(bad),
    }


if __name__ == "__main__":
    bodies = [line for line in sys.stdin.buffer.read().split(b"\n") if line]
    port, path, seconds, connections = sys.argv[1:5]
    print(json.dumps(asyncio.run(main(int(port), path, float(seconds), int(connections), bodies))))
