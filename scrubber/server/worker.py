"""A worker: a uvloop process that hosts the engine. Python here only swaps policies and hears the keeper.

Owns: the worker's loop and its obedience; everything that touches traffic is in `_native.Engine`.
Invariants: no Python work for a connection or a request; no log line while serving well; a policy that does not load
leaves the one in force; the garbage collector never runs; nothing of a client's is read before the process is confined.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable

import uvloop

from scrubber import _native
from scrubber.errors import PolicyRefused, ScrubberError
from scrubber.server import child, images, log
from scrubber.server.channel import Channel, ChannelClosed, ChannelError, Received
from scrubber.server.plan import Start, listener_fds

DRAIN_LOOK_S = 0.05


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
        numbered = [(fd, index) for index, fd in self.listeners.items()]
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
            self.swap(int(received.message["generation"]), received)
        elif received.type == "listen":
            self.listen(received, listener_fds(dict(zip(received.message["names"], received.fds, strict=True))))
        elif received.type == "retire":
            self.retire(received.message["listeners"], float(received.message["deadline_s"]))
        elif received.type == "drain":
            self.drain(float(received.message["deadline_s"]), queued=bool(received.message["queued"]))

    def drain(self, deadline_s: float, *, queued: bool) -> None:
        """Accept no more. queued: but take first what waits to be accepted, for nobody will after us; the port refuses
        once every worker closed its listeners."""
        self.engine.drain(deadline_s, queued)
        images.close(list(self.listeners.values()))
        self.listeners = {}
        self.look_drained()

    def retire(self, indexes: list[int], deadline_s: float) -> None:
        """These listeners are gone from the files, and the keeper has closed them."""
        for index in indexes:
            self.engine.retire(index, deadline_s)
            if index in self.listeners:
                os.close(self.listeners.pop(index))

    def swap(self, generation: int, received: Received) -> None:
        """Between two passes, as everything in this loop is."""
        fds = dict(zip(received.message["names"], received.fds, strict=True))
        prefixes = [fd for name, fd in fds.items() if name.startswith("prefix.")]
        try:
            self.engine.swap(_native.Policy(fds["policy"], prefixes))
            self.listen(received, listener_fds(fds))
        except (PolicyRefused, _native.EngineError, MemoryError) as error:
            self.memory.refuse_generation(generation)
            self.log.error("policy %d was refused, the one in force stays: %s", generation, error)

    def listen(self, received: Received, fds: dict[int, int]) -> None:
        """Accept on further descriptors, which are taken over. EngineError."""
        for index, fd in fds.items():
            self.engine.listen(fd, index)
            self.listeners[index] = fd
            received.fds.remove(fd)

    def look_drained(self) -> None:
        if self.engine.drained:
            if left := self.engine.left():
                self.log.error("pools are not whole at the end: %s", left)
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
    confine(_native.confine, logger)
    await worker.ended


def confine(step: Callable[[], None], logger: logging.Logger) -> None:
    """In the end only the system calls of serving are left: no file, no program, no other process (ext/confine.h)."""
    try:
        step()
    except OSError as error:
        logger.error("this kernel does not confine system calls (seccomp): %s; serving without", error.strerror)


def main(argv: list[str]) -> int:
    """`python -m scrubber.server.worker FD`, FD being the channel to the keeper."""
    channel, start = child.begin(argv)
    logger = log.setup("worker", start.slot)
    confine(_native.confine_start, logger)
    try:
        uvloop.run(serve(channel, start, logger))
    except ScrubberError as error:
        logger.error("%s (%s)", error.message, error.hint)
        return 1
    except MemoryError as error:
        hint = "choose smaller pools (connections_max in [limits]), or raise the limit on memory"
        logger.error("no memory for what a worker allocates at its start: %s (%s)", error, hint)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
