"""People: browsers that load pages with their assets, think, search, log in; each from its own loopback address.

Owns: one process with all people in it (`python -m bench.load.people`, spec on stdin, see child.py).
Invariants: latency counts from the moment that a request was meant to be made, not from when it could be sent, so a
slow site cannot hide by holding people up; an answer counts only with the 2xx or 3xx that was expected and every byte
of its body; nothing is retried; what a failed page would have asked for counts as failed with it.
"""
import asyncio
import contextlib
import gc
import hashlib
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import uvloop

from bench.load.browsers import BROWSERS, Browser
from bench.load.child import REPORT_NS, read_spec, report, told_to_stop
from bench.load.guard import Bounds, Meter, Route, raise_nofile

TIMEOUT_S = 5.0
LOGIN_BODY = b"user=visitor&password=correct-horse"


@dataclass(slots=True)
class Answer:
    """A whole response."""

    status: int
    location: str
    cookie: str
    body: bytes
    close: bool


class Failed(Exception):
    """A request that did not get its answer; the word says how."""


class Wire(asyncio.Protocol):
    """One connection, one request at a time. Answers must be framed by Content-Length, as the site's are."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[Answer] | None = None
        self.buffer = bytearray()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, data: bytes) -> asyncio.Future[Answer]:
        """Send a request; the future is its answer."""
        assert self.transport is not None
        self.waiter = asyncio.get_running_loop().create_future()
        if self.lost:
            self.waiter.set_exception(Failed("closed"))
        else:
            self.transport.write(data)
        return self.waiter

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.waiter is None or self.waiter.done():
            self.abort()
            return
        try:
            answer = self._parse()
        except (ValueError, IndexError):
            self._fail("framing")
            self.abort()
            return
        if answer is not None:
            self.waiter.set_result(answer)
            self.waiter = None

    def _parse(self) -> Answer | None:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split(" ", 2)[1])
        length = 0 if status in (204, 304) else int(headers["content-length"]) if "content-length" in headers else -1
        if length < 0:
            raise ValueError("no Content-Length")
        if len(self.buffer) < end + 4 + length:
            return None
        if len(self.buffer) > end + 4 + length:
            raise ValueError("bytes after the answer")
        answer = Answer(
            status, headers.get("location", ""), headers.get("set-cookie", "").split(";")[0],
            bytes(self.buffer[end + 4:]), headers.get("connection", "").lower() == "close",
        )
        self.buffer.clear()
        return answer

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        refused, reset = isinstance(exc, ConnectionRefusedError), isinstance(exc, OSError)
        self._fail("refused" if refused else "reset" if reset else "closed")

    def _fail(self, word: str) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(Failed(word))
        self.waiter = None

    def abort(self) -> None:
        """Close at once, whatever was under way."""
        self.lost = True
        if self.transport is not None:
            self.transport.abort()


class Ledger:
    """What became of every request: (meant at, ms after t0; latency, ms; "" or how it failed; whose)."""

    def __init__(self, t0_ns: int, meter: Meter) -> None:
        self.t0_ns = t0_ns
        self.meter = meter
        self.rows: list[tuple[float, float, str, str]] = []

    def note(self, meant_ns: int, word: str, source: str) -> None:
        """A request that ended now."""
        latency_ms = (time.monotonic_ns() - meant_ns) / 1e6
        if not word and latency_ms > TIMEOUT_S * 1000:
            word = "late"  # answered, but not to somebody who still waits
        self.rows.append((round((meant_ns - self.t0_ns) / 1e6, 3), round(latency_ms, 3), word, source))

    def flush(self) -> None:
        """Report the rows so far."""
        if self.rows:
            report({"type": "people", "rows": self.rows})
            self.rows = []


class Person:
    """Somebody with a browser: a few connections, a cache, a cookie, and a plan made before the site has answered."""

    def __init__(self, spec: dict[str, Any], site: dict[str, Any], ledger: Ledger, rng: random.Random) -> None:
        self.route = Route(spec["source"], site["target"], site["port"])
        self.browser: Browser = BROWSERS[spec["browser"] % len(BROWSERS)]
        self.start_s: float = spec["start_s"]
        self.site = site
        self.ledger = ledger
        self.rng = rng
        self.slots = asyncio.Semaphore(self.browser.connections)
        self.idle: list[Wire] = []
        self.cached: set[str] = set()
        self.cookie = ""
        self.arrived = False

    def plan(self) -> Iterator[float]:
        """When each view is meant to begin, in seconds after t0."""
        at, (least, most) = self.start_s, self.site["think_s"]
        while at < self.site["seconds"]:
            yield at
            at += self.rng.uniform(least, most)

    async def live(self) -> None:
        """Every view of the plan, one after the other; one that begins late counts from when it was meant to, and one
        that never came about counts as failed."""
        planned = deque(self.ledger.t0_ns + int(at * 1e9) for at in self.plan())
        try:
            while planned and time.monotonic_ns() < self.ledger.meter.ends_ns:
                await asyncio.sleep(max(0.0, (planned[0] - time.monotonic_ns()) / 1e9))
                await self.view(planned[0])
                planned.popleft()
        finally:
            for meant_ns in planned:
                self.note(meant_ns, "never")
            for wire in self.idle:
                wire.abort()

    async def view(self, meant_ns: int) -> None:
        """One page with what belongs to it: at first the home page, then any, now and then a search or a login."""
        first, self.arrived = not self.arrived, True
        dice = 1.0 if first else self.rng.random()
        if dice < 0.12:
            page, assets = self.rng.choice(self.site["searches"]), []
        elif dice < 0.16:
            if not await self.fetch(meant_ns, "POST", self.site["login"], page=True):
                self.note(time.monotonic_ns(), "page")
                return
            page, assets = self.site["account"], self.site["pages"][0]["assets"]
            meant_ns = time.monotonic_ns()
        else:
            chosen = self.site["pages"][0] if first else self.rng.choice(self.site["pages"])
            page, assets = chosen["path"], chosen["assets"]
        wanted = [path for path in self.site["shared"] if path not in self.cached] + list(assets)
        got_page = await self.fetch(meant_ns, "GET", page, page=True)
        asked_ns = time.monotonic_ns()
        if not got_page:
            for _ in wanted:
                self.note(asked_ns, "page")
            return
        whole = await asyncio.gather(*(self.fetch(asked_ns, "GET", p, page=False, referer=page) for p in wanted))
        self.cached.update(path for path, good in zip(wanted, whole, strict=True) if good)

    async def fetch(self, meant_ns: int, method: str, path: str, *, page: bool, referer: str = "") -> bool:
        """One request, counted. True where the answer was right in every byte."""
        if not self.ledger.meter.take():
            return False
        body = LOGIN_BODY if method == "POST" else b""
        head = self.browser.head(
            method, self.site["host"], path, page=page, referer=referer, cookie=self.cookie,
            body_type="application/x-www-form-urlencoded" if body else "", body_bytes=len(body),
        )
        word = ""
        try:
            async with asyncio.timeout(TIMEOUT_S), self.slots:
                word = self.check(f"{method} {path}", await self.exchange(head + body))
        except TimeoutError:
            word = "timeout"
        except Failed as failure:
            word = str(failure)
        except OSError as error:
            word = "refused" if isinstance(error, ConnectionRefusedError) else "connect"
        self.note(meant_ns, word)
        return not word

    def note(self, meant_ns: int, word: str) -> None:
        """A request of this person has ended."""
        self.ledger.note(meant_ns, word, self.route.source)

    async def exchange(self, data: bytes) -> Answer:
        """Over an idle connection, else a new one. A connection is kept only after a whole answer that allows it."""
        wire = self.idle.pop() if self.idle else None
        while wire is not None and wire.lost:
            wire = self.idle.pop() if self.idle else None
        if wire is None:
            _, wire = await asyncio.get_running_loop().create_connection(Wire, sock=self.route.open())
        try:
            answer = await wire.ask(data)
        except BaseException:
            wire.abort()
            raise
        if answer.close:
            wire.abort()
        else:
            self.idle.append(wire)
        return answer

    def check(self, what: str, answer: Answer) -> str:
        """"" where this is the site's own answer, whole; else what is wrong with it."""
        status, size, digest, location = self.site["expect"][what]
        if answer.status != status:
            return f"status {answer.status}"
        if answer.location != location or len(answer.body) != size or hashlib.sha256(answer.body).hexdigest() != digest:
            return "body"
        if answer.cookie:
            self.cookie = answer.cookie
        return ""


async def run(spec: dict[str, Any]) -> None:
    """All people of the spec, until each has gone through the plan, or the bounds, or the parent's word."""
    site = spec["site"]
    meter = Meter(Bounds(spec["requests_max"], spec["seconds_max"]), spec["t0_ns"])
    ledger = Ledger(spec["t0_ns"], meter)
    rng = random.Random(spec["seed"])
    people = [Person(one, site, ledger, random.Random(rng.random())) for one in spec["people"]]
    tasks = [asyncio.create_task(person.live()) for person in people]
    gc.collect()
    gc.freeze()
    everyone = asyncio.gather(*tasks)
    while not everyone.done():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(everyone), REPORT_NS / 1e9)
        ledger.flush()
        if told_to_stop() or time.monotonic_ns() >= meter.ends_ns:
            everyone.cancel()
            break
    with contextlib.suppress(asyncio.CancelledError):
        await everyone
    ledger.flush()
    report({"type": "done"})


def main() -> None:
    """Run as a process of its own."""
    raise_nofile()
    uvloop.run(run(read_spec()))


if __name__ == "__main__":
    main()
