"""Health checks against real sockets: what counts as serving, and what is said of what does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from scrubber import _native
from scrubber.config.network import Endpoint
from scrubber.config.origins import Health, Statuses
from scrubber.server.health import HELLO, Unhealthy, check

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def checked(serve: Serve, health: Health, path: Path | None = None) -> tuple[str, bytes]:
    """One check against this server: what it found, and what it asked."""
    asked = bytearray()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if health.http:
            asked.extend(await reader.readuntil(b"\r\n\r\n"))
        await serve(reader, writer)
        writer.close()

    if path is None:
        server = await asyncio.start_server(one, "127.0.0.1", 0)
        endpoint = Endpoint("inet", "127.0.0.1", server.sockets[0].getsockname()[1])
    else:
        server = await asyncio.start_unix_server(one, path)
        endpoint = Endpoint("unix", str(path), 0)
    try:
        return await check(endpoint, health, "app.test"), bytes(asked)
    finally:
        server.close()


def says(data: bytes) -> Serve:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return serve


def test_a_good_answer(tmp_path: Path) -> None:
    health = Health(http="/healthz?deep=1")
    for path in (None, tmp_path / "s"):
        found, asked = asyncio.run(checked(says(b"HTTP/1.1 204 No Content\r\n\r\n"), health, path))
        assert found == "it answers 204"
        assert asked.startswith(b"GET /healthz?deep=1 HTTP/1.1\r\nHost: app.test\r\n")


def test_a_connection_is_enough_where_it_is() -> None:
    assert asyncio.run(checked(says(b""), Health(tcp=True)))[0] == "it takes connections"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "it answers 503, expected 200-299, 401"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "it answers 302"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "its answer is no HTTP"),
        (b"HTTP/1.1 \r\n\r\n", "its answer is no HTTP"),
        (b"HTTP/1.1 20", "bytes read"),
        (b"", "bytes read"),
        (b"x" * 100_000, "limit"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, "limit"),
    ],
)
def test_an_answer_that_is_none(data: bytes, why: str) -> None:
    health = Health(http="/", expect=(Statuses(200, 299), Statuses(401, 401)))
    with pytest.raises(Unhealthy, match=why):
        asyncio.run(checked(says(data), health))


def test_an_answer_that_does_not_come() -> None:
    async def serve(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)

    with pytest.raises(Unhealthy, match=r"no answer within 0\.05 s"):
        asyncio.run(checked(serve, Health(http="/", timeout_ns=50_000_000)))


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unhealthy, match="No such file"):
        asyncio.run(check(Endpoint("unix", str(tmp_path / "none"), 0), Health(tcp=True), "x"))


def test_an_origin_that_expects_the_proxy_protocol_is_told_that_nobody_is_behind_a_check() -> None:
    """What the supervisor says is what the core would say of nobody."""
    assert [HELLO["v1"], HELLO["v2"]] == [_native.probe_proxy_write(1), _native.probe_proxy_write(2)]
