"""Health checks: asks origins whether they serve, and says so in shared memory.

Owns: one task an origin that is to be checked, the counts of good and bad answers in a row, the words up and down.
Invariants: an origin counts as up until it was found down (`fall` times in a row), so that a gateway that has just
started serves; a check never lasts longer than its time-out and reads a bounded head; nothing here follows a redirect.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterable
from typing import Any

from scrubber import _native
from scrubber.config.network import Endpoint
from scrubber.config.origins import Health
from scrubber.control import acts
from scrubber.server.journal import Journal
from scrubber.server.origins import Place
from scrubber.units import NS_PER_S

HEAD_BYTES_MAX = 16384
AGENT = "scrubber-health"
HELLO = {"off": b"", "v1": b"PROXY UNKNOWN\r\n", "v2": b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"}


class Unhealthy(Exception):
    """Why an origin does not count as serving."""


class HealthChecks:
    """`set` with the origins of each policy; `end` at the end."""

    def __init__(self, memory: _native.Memory, journal: Journal) -> None:
        self._memory = memory
        self._journal = journal
        self._tasks: dict[tuple[int, Health, str, bytes], asyncio.Task[None]] = {}

    def set(self, places: Iterable[Place]) -> None:
        """Check these and no others; one that stays as it is goes on undisturbed."""
        wanted = {(place.key, place.settings.health, _host(place), _hello(place)): place for place in places}
        for known in [each for each in self._tasks if each not in wanted or not each[1].asked]:
            self._tasks.pop(known).cancel()
        for known, place in wanted.items():
            if place.settings.health.asked and known not in self._tasks:
                self._tasks[known] = asyncio.get_running_loop().create_task(self._repeat(place))
            elif not place.settings.health.asked:
                self._forget(place)

    async def end(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _forget(self, place: Place) -> None:
        """It is no longer checked: what was found before counts no more."""
        if self._memory.origin_state(place.index, place.key).get("health", "unknown") != "unknown":
            self._memory.origin_health(place.index, "unknown", time.monotonic_ns())

    async def _repeat(self, place: Place) -> None:
        health = place.settings.health
        good = bad = 0
        while True:
            began = time.monotonic()
            try:
                said = await check(place.origin.address, health, _host(place), _hello(place))
                good, bad = good + 1, 0
            except Unhealthy as error:
                said = str(error)
                good, bad = 0, bad + 1
            self._found(place, good, bad, said)
            # Not all at once: a tenth of the interval either way.
            pause_s = health.interval_ns / NS_PER_S * random.uniform(0.9, 1.1)
            await asyncio.sleep(max(pause_s - (time.monotonic() - began), 0.01))

    def _found(self, place: Place, good: int, bad: int, said: str) -> None:
        state = self._memory.origin_state(place.index, place.key)
        if not state:
            return  # the place is another's by now
        before, health = state["health"], place.settings.health
        # From unknown, one good answer is enough: it served before, as far as anybody knows.
        if before != "up" and good >= (health.rise if before == "down" else 1):
            self._change(place, "up", said, before)
        elif before != "down" and bad >= health.fall:
            self._change(place, "down", said, before)

    def _change(self, place: Place, word: str, said: str, before: str) -> None:
        self._memory.origin_health(place.index, word, time.monotonic_ns())
        if word == "up" and before == "unknown":
            return
        fields: dict[str, Any] = {
            "scrubber.areas": [place.area],
            "scrubber.pool": place.pool,
            "scrubber.origin": place.written,
            "scrubber.reason": said,
        }
        self._journal.record(acts.made(f"origin_{word}", f"origin {place.title} is {word}: {said}", **fields))


def _host(place: Place) -> str:
    """What a check sends as Host."""
    return place.settings.health.host or place.origin.host or place.origin.via or _address_host(place.origin.address)


def _hello(place: Place) -> bytes:
    """What a connection begins with: a PROXY header that names nobody, where the origin expects one."""
    return HELLO[place.origin.proxy_protocol]


def _address_host(endpoint: Endpoint) -> str:
    return "localhost" if endpoint.family == "unix" else str(endpoint)


async def check(endpoint: Endpoint, health: Health, host: str, hello: bytes = b"") -> str:
    """One check; what was found. Unhealthy: why not."""
    try:
        async with asyncio.timeout(health.timeout_ns / NS_PER_S):
            if endpoint.family == "unix":
                reader, writer = await asyncio.open_unix_connection(endpoint.address, limit=HEAD_BYTES_MAX)
            else:
                reader, writer = await asyncio.open_connection(endpoint.address, endpoint.port, limit=HEAD_BYTES_MAX)
            try:
                writer.write(hello)
                return await _ask(reader, writer, health, host) if health.http else "it takes connections"
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise Unhealthy(f"no answer within {health.timeout_ns / NS_PER_S:g} s") from None
    except (OSError, EOFError, asyncio.LimitOverrunError) as error:
        raise Unhealthy(str(error) or type(error).__name__) from None


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, health: Health, host: str) -> str:
    fields = f"Host: {host}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\nConnection: close"
    writer.write(f"GET {health.http} HTTP/1.1\r\n{fields}\r\n\r\n".encode("latin-1"))
    await writer.drain()
    line = await reader.readuntil(b"\n")
    words = line.decode("latin-1").split(" ", 2)
    status = words[1].strip() if len(words) > 1 else ""
    if not words[0].startswith("HTTP/1.") or len(status) != 3 or not status.isdigit():
        raise Unhealthy(f"its answer is no HTTP: {line[:40]!r}")
    if not any(each.low <= int(status) <= each.high for each in health.expect):
        raise Unhealthy(f"it answers {status}, expected {', '.join(str(each) for each in health.expect)}")
    with contextlib.suppress(EOFError):
        await reader.readuntil(b"\r\n\r\n")
    return f"it answers {status}"
