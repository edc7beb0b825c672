"""The engine in this process: requests, answers, refusals, swaps. After every test all pools are whole."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from bench.macro import native
from tests.readable import readable
from tests.unit.hosted import Bench, TinyOrigin, bench, origin, read_all

__all__ = ["bench", "origin"]

GET = b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\n\r\n"


def test_a_request_reaches_the_origin_and_its_answer_the_client(
    bench: Callable[..., Bench], origin: TinyOrigin
) -> None:
    answer = bench().ask(GET)
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"ok"
    assert origin.requests[0].startswith(b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\n")
    assert b"X-Forwarded-For: 127.0.0.2\r\n" in origin.requests[0] + b"\r\n"


def test_pipelined_requests_are_answered_in_order(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    origin.respond = lambda head: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + head.split(b" ")[1][1:3]
    answer = bench().ask(b"".join(b"GET /%02d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(40)))
    assert [part[:2] for part in answer.split(b"\r\n\r\n")[1:]] == [b"%02d" % i for i in range(40)]


def test_bad_bytes_are_refused_once_and_never_forwarded(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    answer = bench().ask(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + GET)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert origin.requests == []


def test_a_chunked_answer_is_framed_anew(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    origin.respond = lambda head: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n"
    )
    answer = bench().ask(GET)
    assert answer.endswith(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


def test_a_large_body_arrives_whole_through_a_slow_reader(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    body = os.urandom(1_000_000)
    origin.respond = lambda head: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    running = bench()
    with running.connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        s.sendall(GET)
        got = bytearray()
        while len(got) < len(body):
            got += s.recv(65536)
            time.sleep(0.0005)
        s.settimeout(0.3)
        got += read_all(s)
    assert bytes(got).partition(b"\r\n\r\n")[2] == body


def test_connections_are_kept_however_answers_come_in_pieces(bench: Callable[..., Bench]) -> None:
    """Bodies that come between the look at the edges and the reading are told of once more when they have been read."""
    accepted = []

    def answer(conn: socket.socket) -> None:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with conn, contextlib.suppress(OSError):
            while conn.recv(65536):
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
                conn.sendall(b"ok")

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted.append(server.accept()[0])
                threading.Thread(target=answer, args=(accepted[-1],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        running = bench(port=server.getsockname()[1])
        found = native.load("127.0.0.1", running.port, ["127.0.0.2"], 32, GET, True, 20_000, 30.0)
        assert found["good"] == 20_000
        assert len(accepted) <= 32


def test_a_dead_origin_is_a_502(bench: Callable[..., Bench]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert bench(port=port).ask(GET).startswith(b"HTTP/1.1 502 ")


def test_an_origin_that_breaks_off_breaks_the_answer_off(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    def half(head: bytes) -> bytes | None:
        if len(origin.requests) > 1:
            return None
        return b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"

    origin.respond = half
    running = bench()
    with running.connect() as s:
        s.sendall(GET)
        s.settimeout(1)
        first = s.recv(65536)
        assert first.endswith(b"half")


def test_an_answer_that_comes_before_the_request_answers_nothing(bench: Callable[..., Bench]) -> None:
    """Pass by pass, so that the origin speaks between its accept and the gateway's request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = bench(port=listener.getsockname()[1])
        running.stop()
        with running.connect() as s:
            s.sendall(GET)
            for _ in range(100):
                running.engine.run_pass()
                if readable([listener], 0.01):
                    break
            conn, _ = listener.accept()
            with conn:
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSTOLEN")
                time.sleep(0.02)
                running.start()
                assert s.recv(65536).startswith(b"HTTP/1.1 502 ")
                conn.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    assert conn.recv(65536) == b"", "the request was sent all the same"


def test_throttle_answers_429_and_the_connection_stays(bench: Callable[..., Bench], origin: TinyOrigin) -> None:
    running = bench(rules='[[rule]]\nname = "r"\nper = "client"\nlimit = "2/min burst 2"\nthen = ["throttle"]\n')
    answer = running.ask(GET * 5)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.count(b"HTTP/1.1 429") == 3
    assert b"Retry-After: " in answer
    assert len(origin.requests) == 2


def test_block_shuts_out_new_connections_with_a_reset(bench: Callable[..., Bench]) -> None:
    running = bench(rules='[[rule]]\nname = "r"\nper = "client"\nlimit = "1/min burst 1"\nthen = ["block 1m"]\n')
    running.ask(GET)
    running.ask(GET)

    def again() -> None:
        with running.connect() as s, contextlib.suppress(BrokenPipeError):
            s.sendall(GET)
            s.recv(1)

    with pytest.raises(ConnectionResetError):  # it may come before connect() has returned
        again()
    assert running.memory.totals([0])["dropped_blocked"] >= 1
    (block,) = running.memory.blocks()
    assert block["source"] == "127.0.0.2"


def test_a_swap_loses_nothing_and_frees_the_old_policy(bench: Callable[..., Bench]) -> None:
    running = bench()
    with running.connect() as s:
        for turn in range(20):
            s.sendall(GET)
            assert s.recv(65536).startswith(b"HTTP/1.1 200")
            with running.lock:
                running.engine.swap(running.policy())
            assert running.memory.gauges(0)["generation"] == turn + 2


def test_an_access_line_is_json_whatever_the_client_sent(bench: Callable[..., Bench]) -> None:
    running = bench()
    running.ask(b'GET /%00%22 HTTP/1.1\r\nHost: a\r\nUser-Agent: "\xff\\\tx\r\n\r\n')
    lines = [json.loads(line) for line in running.lines()]
    assert lines[-1]["user_agent.original"] == '"\xff\\\tx'
    assert lines[-1]["url.path"] == "/%00%22"
    assert lines[-1]["http.response.status_code"] == 200
