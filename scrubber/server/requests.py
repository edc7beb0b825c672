"""Questions of the supervisor to its keeper: a message, and the answer that carries the same number.

Owns: who waits for which answer. Invariants: an answer that nobody waits for any more is dropped; every question ends,
by its answer or by time.
"""

from __future__ import annotations

import asyncio
from typing import Any

from scrubber.errors import InternalError
from scrubber.server.channel import Channel, ChannelError


class Requests:
    """One channel's, in the running loop."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._number = 0
        self._waiting: dict[tuple[str, int], asyncio.Future[dict[str, Any]]] = {}

    async def ask(self, message: dict[str, Any], answer: str, timeout_s: float) -> dict[str, Any]:
        """Send, and wait for a message of type `answer`. InternalError: none came."""
        self._number += 1
        key = (answer, self._number)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        try:
            self._channel.send({**message, "number": self._number})
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise InternalError(f"the keeper did not answer within {timeout_s:g} s", hint="try again") from None
        except ChannelError as error:
            raise InternalError(f"the keeper was not asked: {error}", hint="try again") from None
        finally:
            del self._waiting[key]

    def answered(self, message: dict[str, Any]) -> None:
        """A message from the keeper, perhaps one of the answers."""
        future = self._waiting.get((str(message.get("type")), message.get("number", 0)))
        if future is not None and not future.done():
            future.set_result(message)
