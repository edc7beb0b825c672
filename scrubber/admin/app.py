"""The admin side: JSON over HTTP on a Unix socket (mode 0600), a token always.

Owns: paths, shapes and codes of the admin API; what they do is the supervisor's (`Served`). Errors are RFC 9457
problems with a hint. Invariants: no request is answered without the token; none lasts longer than REQUEST_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from aiohttp import web

from scrubber.admin.metrics import CONTENT_TYPE
from scrubber.config.network import UNIX_PATH_BYTES_MAX
from scrubber.control.blackholes import BlackholeOrder, FlowOrder, WithdrawOrder
from scrubber.control.blocks import BlockOrder, UnblockOrder
from scrubber.control.drain import DrainOrder
from scrubber.control.purge import PurgeOrder
from scrubber.errors import FilesRefused, ScrubberError

BODY_BYTES_MAX = 64 * 1024
REQUEST_S = 30.0
UPGRADE_S = 65.0  # that of /v1/upgrade: a whole program starts
KEEP_ALIVE_S = 75.0
END_S = 1.0  # for requests in flight when the supervisor ends
LISTED_MAX = 10_000
LOGGER = logging.getLogger("admin")
PROBLEM_TYPE = "application/problem+json"


class Served(Protocol):
    """What stands behind the API. Each may raise ScrubberError."""

    async def status(self) -> dict[str, Any]:
        """The whole state, as docs/operations.md describes it."""

    def metrics(self) -> str:
        """OpenMetrics text."""

    def blocks(self) -> list[dict[str, Any]]:
        """Blocks in force."""

    async def block(self, order: BlockOrder) -> dict[str, Any]:
        """What was done: source, expiry, case id, clause."""

    async def unblock(self, order: UnblockOrder) -> dict[str, Any]:
        """What was done."""

    def blackholes(self) -> list[dict[str, Any]]:
        """Blackholes and FlowSpec rules that are wanted upstream."""

    async def blackhole(self, order: BlackholeOrder) -> dict[str, Any]:
        """What was done: target, time, clause, and what became of it."""

    async def flow(self, order: FlowOrder) -> dict[str, Any]:
        """The same of a FlowSpec rule."""

    async def withdraw(self, order: WithdrawOrder) -> dict[str, Any]:
        """What was done."""

    async def drain(self, order: DrainOrder) -> dict[str, Any]:
        """What was done, and to which origins."""

    async def reload(self) -> dict[str, Any]:
        """The new generation and the warnings. FilesRefused: nothing changed."""

    async def purge(self, order: PurgeOrder) -> dict[str, Any]:
        """What of the cache was forgotten."""

    async def reopen(self) -> dict[str, Any]:
        """Log files opened anew, for who moved them away."""

    async def upgrade(self) -> dict[str, Any]:
        """The pid of the new keeper. OperatorError: it did not come up, nothing changed."""

    def acts(self, since: int) -> list[dict[str, Any]]:
        """Acts after that number."""


SERVED: web.AppKey[Served] = web.AppKey("served")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_STATUS = {"client": 400, "operator": 409, "kernel": 503, "origin": 502, "internal": 500}


def make_app(served: Served, token: str) -> web.Application:
    """The application; start it with `serve`."""
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, expected):
            hint = "send Authorization: Bearer TOKEN; the token lies beside the socket in admin.token"
            return problem(401, "the token is missing or wrong", hint)
        try:
            async with asyncio.timeout(UPGRADE_S if request.path == "/v1/upgrade" else REQUEST_S):
                return await handler(request)
        except TimeoutError:
            return problem(504, f"not done within {REQUEST_S:g} s", "ask for the status: it may still be at work")
        except ScrubberError as error:
            more: dict[str, Any] = {}
            if isinstance(error, FilesRefused):
                more["problems"] = [msgspec.to_builtins(each) for each in error.problems]
            return problem(_STATUS[error.fault], error.message, error.hint, **more)
        except web.HTTPException as error:  # no such path, no such method, body too large
            return problem(error.status, error.reason, "the paths are in docs/operations.md")
        except Exception:
            LOGGER.exception("%s %s failed", request.method, request.path)
            return problem(500, "a defect of ours", "the log (stderr) has the details")

    app = web.Application(middlewares=[guard], client_max_size=BODY_BYTES_MAX)
    app[SERVED] = served
    app.add_routes(
        [
            web.get("/v1/status", _status),
            web.get("/v1/blocks", _blocks),
            web.post("/v1/blocks", _block),
            web.delete("/v1/blocks", _unblock),
            web.get("/v1/blackholes", _blackholes),
            web.post("/v1/blackholes", _blackhole),
            web.post("/v1/flows", _flow),
            web.delete("/v1/blackholes", _withdraw),
            web.post("/v1/drain", _drain),
            web.post("/v1/reload", _reload),
            web.post("/v1/upgrade", _upgrade),
            web.post("/v1/purge", _purge),
            web.post("/v1/reopen", _reopen),
            web.get("/v1/acts", _acts),
            web.get("/metrics", _metrics),
        ]
    )
    return app


def problem(status: int, detail: str, hint: str, **more: Any) -> web.Response:
    """An RFC 9457 answer."""
    body = {"type": "about:blank", "status": status, "detail": detail, "hint": hint, **more}
    return web.Response(status=status, body=msgspec.json.encode(body), content_type=PROBLEM_TYPE)


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


async def _status(request: web.Request) -> web.Response:
    return _json(await request.app[SERVED].status())


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[SERVED].metrics().encode(), headers={"Content-Type": CONTENT_TYPE})


async def _blocks(request: web.Request) -> web.Response:
    blocks = request.app[SERVED].blocks()
    return _json({"count": len(blocks), "blocks": blocks[:LISTED_MAX]})


async def _block(request: web.Request) -> web.Response:
    try:
        order = msgspec.json.decode(await request.read(), type=BlockOrder)
    except msgspec.MsgspecError as error:
        return problem(400, str(error), 'send {"source": "198.51.100.7", "ttl_s": 600, "reason": "…"}')
    return _json(await request.app[SERVED].block(order), 201)


async def _unblock(request: web.Request) -> web.Response:
    try:
        order = msgspec.convert(dict(request.query), UnblockOrder)
    except msgspec.MsgspecError as error:
        return problem(400, str(error), "DELETE /v1/blocks?source=198.51.100.7")
    return _json(await request.app[SERVED].unblock(order))


async def _blackholes(request: web.Request) -> web.Response:
    found = request.app[SERVED].blackholes()
    return _json({"count": len(found), "blackholes": found[:LISTED_MAX]})


async def _blackhole(request: web.Request) -> web.Response:
    try:
        order = msgspec.json.decode(await request.read(), type=BlackholeOrder)
    except msgspec.MsgspecError as error:
        return problem(400, str(error), 'send {"net": "203.0.113.7", "ttl_s": 600, "reason": "…", "loss": "…"}')
    return _json(await request.app[SERVED].blackhole(order), 201)


async def _flow(request: web.Request) -> web.Response:
    try:
        order = msgspec.json.decode(await request.read(), type=FlowOrder)
    except msgspec.MsgspecError as error:
        hint = 'send {"destination": "203.0.113.7", "source": "198.51.100.0/24", "ttl_s": 600, "reason": "…"}'
        return problem(400, str(error), hint)
    return _json(await request.app[SERVED].flow(order), 201)


async def _withdraw(request: web.Request) -> web.Response:
    try:
        order = msgspec.convert(dict(request.query), WithdrawOrder)
    except msgspec.MsgspecError as error:
        return problem(400, str(error), "DELETE /v1/blackholes?target=203.0.113.7")
    return _json(await request.app[SERVED].withdraw(order))


async def _drain(request: web.Request) -> web.Response:
    try:
        order = msgspec.json.decode(await request.read(), type=DrainOrder)
    except msgspec.MsgspecError as error:
        return problem(400, str(error), 'send {"target": "127.0.0.1:8000", "drained": true, "reason": "…"}')
    return _json(await request.app[SERVED].drain(order))


async def _purge(request: web.Request) -> web.Response:
    try:
        order = msgspec.json.decode(await request.read(), type=PurgeOrder)
    except msgspec.MsgspecError as error:
        return problem(400, str(error), 'send {"url": "http://example.org/page"} or {"area": "site"}')
    return _json(await request.app[SERVED].purge(order))


async def _reload(request: web.Request) -> web.Response:
    return _json(await request.app[SERVED].reload())


async def _reopen(request: web.Request) -> web.Response:
    return _json(await request.app[SERVED].reopen())


async def _upgrade(request: web.Request) -> web.Response:
    return _json(await request.app[SERVED].upgrade())


async def _acts(request: web.Request) -> web.Response:
    since = request.query.get("since", "0")
    if not since.isascii() or not since.isdigit() or len(since) > 18:
        return problem(400, "since is not a number", "/v1/acts?since=0, then the number of the last act")
    return _json({"acts": request.app[SERVED].acts(int(since))})


async def serve(served: Served, token: str, path: str) -> Callable[[], Awaitable[None]]:
    """Answer on the Unix socket at `path`. Await what is returned, called, to end it. OSError.

    It takes its name by rename, once it listens: whoever asks meets a predecessor's or this one, never none.
    """
    sock, fresh = _bind(path)
    ours = os.lstat(fresh).st_ino
    runner = web.AppRunner(
        make_app(served, token), access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=END_S
    )
    await runner.setup()
    await web.SockSite(runner, sock).start()
    os.rename(fresh, path)

    async def close() -> None:
        with contextlib.suppress(OSError):
            if os.lstat(path).st_ino == ours:  # else a successor answers there
                os.unlink(path)
        await runner.cleanup()

    return close


def _bind(path: str) -> tuple[socket.socket, bytes]:
    """A socket of mode 0600 beside `path`, and its name; a socket there may be replaced, another kind of file not."""
    fresh = os.fsencode(path)[: UNIX_PATH_BYTES_MAX - 1] + b"~"
    for each in (os.fsencode(path), fresh):
        if os.path.lexists(each) and not stat.S_ISSOCK(os.lstat(each).st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file that is no socket", os.fsdecode(each))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(fresh)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock, fresh
