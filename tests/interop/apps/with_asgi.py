"""shapes.py as an ASGI application, for uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.interop.apps import shapes

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def read_all(receive: Receive) -> bytes:
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


async def start(send: Send, status: int, headers: shapes.Headers) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    path, method = scope["path"], scope["method"]
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    headers = dict(pairs)
    if path in ("/chunked", "/drip"):
        await start(send, 200, [("Content-Type", "text/plain")])
        for piece in shapes.PIECES:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if path == "/drip":
                await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b""})
        return
    if path in ("/echo", "/upload"):
        body = await read_all(receive)
        target = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        made = (
            shapes.echo(method, target, pairs, body) if path == "/echo" else shapes.parts(headers["content-type"], body)
        )
        status, answer = 200, [("Content-Type", "application/json")]
    else:
        status, answer, made = shapes.plain(method, path, headers, headers["host"])
    if status not in (204, 304):
        answer.append(("Content-Length", str(len(made))))
    await start(send, status, answer)
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else made})
