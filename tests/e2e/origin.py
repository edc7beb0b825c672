"""A real origin for end-to-end tests, in a process of its own: says what it was sent, and answers in many shapes.

`python tests/e2e/origin.py [NAME]` prints its port on 127.0.0.1. Paths (any other echoes the request as JSON):
/bytes/N  a body of N bytes, by Content-Length     /chunked/N  the same, chunked, with a trailer-free end
/slow/S   answers after S seconds                  /status/N   that status
/drip/N/S N chunks, S seconds between them         /close      closes without an answer
/sink     reads the body, answers its size and SHA-256
/flow/N   N bytes that are never held                  /ws         a WebSocket that says back what it hears
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import sys

from aiohttp import web

NAME = sys.argv[1] if len(sys.argv) > 1 else "origin"
PATTERN = bytes(range(256)) * 256


def body_of(count: int) -> bytes:
    return (PATTERN * (count // len(PATTERN) + 1))[:count]


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response(
        {
            "origin": NAME,
            "method": request.method,
            "target": request.raw_path,
            "version": f"{request.version.major}.{request.version.minor}",
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.raw_headers],
            "body_bytes": len(body),
            "body_sha256": hashlib.sha256(body).hexdigest(),
        }
    )


async def sink(request: web.Request) -> web.Response:
    digest, count = hashlib.sha256(), 0
    async for part in request.content.iter_any():
        digest.update(part)
        count += len(part)
    return web.json_response({"body_bytes": count, "body_sha256": digest.hexdigest()})


async def fixed(request: web.Request) -> web.Response:
    return web.Response(body=body_of(int(request.match_info["count"])))


async def chunked(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    body = body_of(int(request.match_info["count"]))
    for start in range(0, len(body), 10_000):
        await response.write(body[start : start + 10_000])
    await response.write_eof()
    return response


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    for _ in range(int(request.match_info["count"])):
        await response.write(b"drop\n")
        await asyncio.sleep(float(request.match_info["pause"]))
    await response.write_eof()
    return response


async def flow(request: web.Request) -> web.StreamResponse:
    left = int(request.match_info["count"])
    response = web.StreamResponse(headers={"Content-Length": str(left)})
    await response.prepare(request)
    while left:
        await response.write(PATTERN[:left])
        left -= min(left, len(PATTERN))
    return response


async def websocket(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    async for message in response:
        await response.send_str(message.data)
    return response


async def slow(request: web.Request) -> web.Response:
    await asyncio.sleep(float(request.match_info["pause"]))
    return web.Response(text="late")


async def status(request: web.Request) -> web.Response:
    return web.Response(status=int(request.match_info["status"]), text="as asked")


async def close(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def make() -> web.Application:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/bytes/{count}", fixed)
    app.router.add_route("*", "/chunked/{count}", chunked)
    app.router.add_route("*", "/drip/{count}/{pause}", drip)
    app.router.add_route("*", "/slow/{pause}", slow)
    app.router.add_route("*", "/status/{status}", status)
    app.router.add_route("*", "/close", close)
    app.router.add_route("*", "/sink", sink)
    app.router.add_route("*", "/flow/{count}", flow)
    app.router.add_route("*", "/ws", websocket)
    app.router.add_route("*", "/{tail:.*}", echo)
    return app


async def main() -> None:
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # clients that break off are what tests are about
    runner = web.AppRunner(make(), access_log=None, keepalive_timeout=3600)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", int(os.environ.get("ORIGIN_PORT", "0")))
    await site.start()
    print(runner.addresses[0][1], flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
