"""Connections that have asked once and are kept, in clear text or over TLS: `python -m bench.macro.held SPEC` opens
them, says so, and holds on to them until its stdin closes.

Invariants: source and target are loopback or it refuses (bench.load.guard); a connection that was not answered, or did
not stay, is told of.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from bench.load.guard import Bounds, Route, raise_nofile
from bench.macro.load import Ask
from bench.macro.systems import ROOT, BenchError

ANSWER_S = 10.0


@contextlib.contextmanager
def held(port: int, what: Ask, core: int) -> Iterator[None]:
    """All connections of `what` to 127.0.0.1, each answered once and idle since. BenchError: not all of them."""
    spec = json.dumps({"port": port, "ask": asdict(what)})
    argv = ["taskset", "-c", str(core), sys.executable, "-m", "bench.macro.held", spec]
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise BenchError(f"not every connection was answered: {process.communicate()[1].strip()[-500:]}")
        yield
        said, error = process.communicate(timeout=60)
        if process.returncode or said.strip() != "all":
            raise BenchError(f"connections did not stay: {said} {error.strip()[-500:]}")
    finally:
        process.kill()
        process.wait()


def sealed(sock: socket.socket) -> ssl.SSLSocket:
    """The same over TLS 1.3, its handshake done; nobody asks who signed the certificate. OSError: it failed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    waiting = select.poll()
    waiting.register(sock, select.POLLOUT)
    waiting.poll(ANSWER_S * 1000)  # for its connect
    sock.settimeout(ANSWER_S)
    return context.wrap_socket(sock, server_hostname="site.test")


def answered(sock: socket.socket) -> None:
    """Read one whole answer; ValueError, OSError: there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise ValueError(f"closed after {data!r}")
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"answered {head[:40]!r}")
    left = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]) - len(body)
    while left:
        piece = sock.recv(min(left, 65536))
        if not piece:
            raise ValueError(f"closed {left} bytes before its end")
        left -= len(piece)


def quiet(sock: socket.socket) -> bool:
    """It is still open, and nothing came."""
    sock.setblocking(False)
    try:
        sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):  # session tickets are nothing, either
        return True
    except OSError:
        return False
    return False


def main(argv: Sequence[str]) -> None:
    """The process that holds them."""
    spec = json.loads(argv[0])
    what = Ask(**spec["ask"])
    Bounds(what.connections, 60)
    raise_nofile()
    request, kept = what.request(), []
    for number in range(what.connections):
        sock = Route(what.sources[number % len(what.sources)], "127.0.0.1", spec["port"]).open()
        sock.settimeout(ANSWER_S)
        if what.tls:
            sock = sealed(sock)
        sock.sendall(request)
        answered(sock)
        kept.append(sock)
    print("held", flush=True)
    sys.stdin.read()
    print("all" if all(map(quiet, kept)) else f"{sum(map(quiet, kept))} of {len(kept)}")


if __name__ == "__main__":
    main(sys.argv[1:])
