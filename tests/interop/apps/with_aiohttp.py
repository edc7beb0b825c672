"""The origin for tests of clients: shapes.py, interim answers, and a gate that shows whether streams stream.

`python -m tests.interop.apps.with_aiohttp` prints its port on 127.0.0.1.
/gate/KEY  sends "first", and "second" only once /open/KEY was asked for (on any connection)
/page/N    a page with N scripts, /script/I each     /ws  a WebSocket that says back what it hears
"""

from __future__ import annotations

import asyncio
import signal

from aiohttp import web

from tests.interop.apps import shapes


class Origin:
    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}

    def gate(self, key: str) -> asyncio.Event:
        return self.gates.setdefault(key, asyncio.Event())

    async def streamed(self, request: web.Request, headers: shapes.Headers) -> web.StreamResponse:
        response = web.StreamResponse(headers=dict(headers))
        response.enable_chunked_encoding()
        await response.prepare(request)
        return response

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse(protocols=["echo"])
        await response.prepare(request)
        async for message in response:
            await (response.send_str if message.type == web.WSMsgType.TEXT else response.send_bytes)(message.data)
        return response

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/ws":
            return await self.websocket(request)
        if path.startswith("/page/"):
            tags = "".join(f'<script src="/script/{i}"></script>' for i in range(int(path.rpartition("/")[2])))
            return web.Response(text=f"<!doctype html><title>scripts</title>{tags}", content_type="text/html")
        if path.startswith("/script/"):
            text = f"window.seen = (window.seen || 0) + 1; /* {path} {'.' * 3000} */"
            return web.Response(text=text, content_type="text/javascript")
        if path.startswith("/echo"):
            body = await request.read()
            pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
            return web.Response(body=shapes.echo(request.method, request.raw_path, pairs, body))
        if path == "/upload":
            return web.Response(body=shapes.parts(request.headers["Content-Type"], await request.read()))
        if path == "/chunked":
            response = await self.streamed(request, [("Content-Type", "text/plain"), ("Trailer", "X-Sum")])
            for piece in shapes.PIECES if request.method != "HEAD" else []:
                await response.write(piece)
            await response.write_eof()
            return response
        if path == "/hints":
            assert request.transport is not None
            hints = f"HTTP/1.1 103 Early Hints\r\nLink: {shapes.LINK}\r\n\r\n".encode()
            request.transport.write(hints)  # type: ignore[attr-defined]
            request.transport.write(hints)  # type: ignore[attr-defined]
        if path.startswith("/gate/"):
            response = await self.streamed(request, [("Content-Type", "text/plain")])
            await response.write(b"first\n")
            await self.gate(path.rpartition("/")[2]).wait()
            await response.write(b"second\n")
            await response.write_eof()
            return response
        if path.startswith("/open/"):
            self.gate(path.rpartition("/")[2]).set()
        await request.read()  # answers before the body is there may end the connection: other tests are about that
        headers = {name.lower(): value for name, value in request.headers.items()}
        known = "/small" if path.startswith(("/open/", "/hints")) else path
        status, pairs, body = shapes.plain(request.method, known, headers, request.host)
        answer = web.Response(status=status, body=body)
        for name, value in pairs:
            answer.headers.add(name, value)
        return answer


async def main() -> None:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{tail:.*}", Origin().handle)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=3600)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
