"""The demo's origin: a small real site on aiohttp, with a search that costs time and a login.

Owns: one process (`python -m bench.demo.origin`, spec on stdin: {"port": …}). Invariant: it counts whom it served by
the last X-Forwarded-For element, the one that the gateway before it has written, and knows nothing of who is who.
"""
import asyncio
import resource
import time
from collections import Counter
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from bench.demo.site import ACCOUNT, SESSION, Resource, Site, build, password_is
from bench.load.child import REPORT_NS, read_spec, report, told_to_stop

WRONG = b"<!doctype html><title>Log in</title><p>That password is not right.</p><form method=post>...</form>"


class Origin:
    """Handlers, and the count of what was served to whom."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.served: Counter[tuple[int, str]] = Counter()

    def answer(self, request: web.Request, one: Resource) -> web.Response:
        """Send a resource and count it."""
        forwarded = request.headers.get("X-Forwarded-For", request.remote or "")
        self.served[int(time.monotonic()), forwarded.rsplit(",", 1)[-1].strip()] += 1
        headers = {"Cache-Control": "no-store", "Content-Type": one.kind, **one.headers}
        return web.Response(status=one.status, body=one.body, headers=headers)

    async def page(self, request: web.Request) -> web.Response:
        """Whatever the site has under that path."""
        one = self.site.get(request.path)
        if one is None:
            raise web.HTTPNotFound
        return self.answer(request, one)

    async def search(self, request: web.Request) -> web.Response:
        """Walks all records for each search."""
        return self.answer(request, self.site.search(request.query.get("q", "")))

    async def login(self, request: web.Request) -> web.Response:
        """303 with a session for the right password; the form again, at 200, for any other."""
        fields = parse_qs((await request.read()).decode("utf-8", "replace"))
        if not password_is("".join(fields.get("password", []))):
            return self.answer(request, Resource(200, "text/html; charset=utf-8", WRONG))
        headers = {"Location": ACCOUNT, "Set-Cookie": f"{SESSION}; HttpOnly; SameSite=Lax"}
        return self.answer(request, Resource(303, "text/plain", b"", headers))

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application()
        app.add_routes([
            web.get("/search", self.search), web.post("/login", self.login), web.get("/{path:.*}", self.page),
        ])
        return app

    def figures(self) -> dict[str, Any]:
        """Totals, and the CPU time that serving took."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {"served": self.served.total(), "cpu_s": round(usage.ru_utime + usage.ru_stime, 3)}


async def run(spec: dict[str, Any]) -> None:
    """Serve until the parent says stop; then say who was served. On asyncio's own loop and with a queue as production
    has it: both take connections as fast as they come, so that a flood meets the site and not its accept queue."""
    origin = Origin(build())
    runner = web.AppRunner(origin.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", spec["port"], backlog=2048).start()
    report({"type": "ready"})
    while not told_to_stop():
        await asyncio.sleep(REPORT_NS / 1e9)
        report({"type": "origin", **origin.figures()})
    await runner.cleanup()
    clients = [[second, client, count] for (second, client), count in origin.served.items()]
    report({"type": "clients", "rows": clients, **origin.figures()})


if __name__ == "__main__":
    asyncio.run(run(read_spec()))
