"""A worker: a uvloop process that hosts the engine. Python here only swaps policies and hears the keeper.

Owns: the worker's loop and its obedience; everything that touches traffic is in `_native.Engine`.
Invariants: no Python work for a connection or a request; no log line while serving well; a policy that does not load
leaves the one in force; the garbage collector never runs.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys

import uvloop

from scrubber import _native
from scrubber.errors import PolicyRefused, ScrubberError
from scrubber.server import child, images, log
from scrubber.server.channel import Channel, ChannelClosed, ChannelError, Received
from scrubber.server.plan import Start

DRAIN_LOOK_S = 0.05
DRAIN_PASSES_MAX = 64


class Worker:
    """One slot. Ends the process through `ended`."""

    def __init__(self, channel: Channel, start: Start, logger: logging.Logger) -> None:
        self.log = logger
        self.channel = channel
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.memory = _native.Memory(start.regions(), start.slot)
        self.listeners = start.listener_fds()
        policy = _native.Policy(start.fds["policy"], start.prefixes())
        numbered = [(fd, index) for index, fd in enumerate(self.listeners)]
        self.engine = _native.Engine(self.memory, policy, numbered, start.settings["engine"])
        images.close([start.fds["policy"], *start.prefixes(), *start.regions().values()])  # all are mapped
        self.loop.add_reader(self.engine.fileno(), self.on_ready)
        self.loop.add_reader(channel.fileno(), self.on_message)

    def on_ready(self) -> None:
        """One bounded pass; again at once where work is left, after whatever else the loop has to do."""
        if self.engine.run_pass():
            self.loop.call_soon(self.on_ready)

    def on_message(self) -> None:
        try:
            while (received := self.channel.receive()) is not None:
                try:
                    self.obey(received)
                finally:
                    received.close()
        except ChannelClosed:
            self.end()  # the keeper is gone, and so are we
        except ChannelError as error:
            self.log.error("the keeper broke the protocol: %s", error)
            self.end()

    def obey(self, received: Received) -> None:
        if received.type == "publish":
            self.swap(int(received.message["generation"]), received.fds)
        elif received.type == "drain":
            self.drain(float(received.message["deadline_s"]))

    def drain(self, deadline_s: float) -> None:
        """Take what waits to be accepted, then accept no more: the port refuses once every worker closed its
        listeners."""
        for _ in range(DRAIN_PASSES_MAX):
            if not self.engine.run_pass():
                break
        self.engine.drain(deadline_s)
        images.close(self.listeners)
        self.look_drained()

    def swap(self, generation: int, fds: list[int]) -> None:
        """Between two passes, as everything in this loop is."""
        try:
            self.engine.swap(_native.Policy(fds[0], fds[1:]))
        except (PolicyRefused, _native.EngineError) as error:
            self.memory.refuse_generation(generation)
            self.log.error("policy %d was refused, the one in force stays: %s", generation, error)

    def look_drained(self) -> None:
        if self.engine.drained:
            self.end()
        else:
            self.loop.call_later(DRAIN_LOOK_S, self.look_drained)

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def serve(channel: Channel, start: Start, logger: logging.Logger) -> None:
    """Until the keeper says drain, or is gone."""
    worker = Worker(channel, start, logger)
    gc.collect()
    gc.freeze()
    gc.disable()
    await worker.ended


def main(argv: list[str]) -> int:
    """`python -m scrubber.server.worker FD`, FD being the channel to the keeper."""
    channel, start = child.begin(argv)
    logger = log.setup("worker", start.slot)
    try:
        uvloop.run(serve(channel, start, logger))
    except ScrubberError as error:
        logger.error("%s (%s)", error.message, error.hint)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
