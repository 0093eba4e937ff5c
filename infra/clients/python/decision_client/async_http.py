"""The service at an address, by httpx, for tasks."""

from __future__ import annotations

import asyncio

import httpx

from decision_client.effects import NoReply, Reply, Send
from decision_client.http import CONNECTIONS, FAILURES, LIMITS, checked, headers, no_reply, reply


class AsyncHttp:
    """A service, for tasks of one event loop; otherwise as `Http`."""

    def __init__(self, address: str, key: str | None) -> None:
        self._client = httpx.AsyncClient(base_url=checked(address), headers=headers(key), limits=LIMITS)
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def send(self, send: Send) -> Reply | NoReply:
        """Return the answer; raises nothing where there is none."""
        try:
            async with asyncio.timeout(send.timeout_s):
                await self._turns.acquire()
        except TimeoutError:
            return NoReply(f"{CONNECTIONS} requests at once, and none was answered in {send.timeout_s:g} s", False)
        try:
            answer = await self._client.request(send.method, send.path, content=send.body, timeout=send.timeout_s)
        except FAILURES as error:
            return no_reply(error)
        finally:
            self._turns.release()
        return reply(answer)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
