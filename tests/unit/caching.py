"""What tests of the cache in an engine of their own ask, and what their origin answers."""

from __future__ import annotations

import threading

from tests.unit.hosted import Bench, TinyOrigin, read_all

ON = """
[area.cache]
enabled = true
cache_status = true
"""
MICRO = ON + 'ttl_default = "60s"\n'


def answer(*fields: str, body: bytes = b"hello", status: str = "200 OK") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body


def counted(origin: TinyOrigin, *fields: str, body: bytes = b"page") -> None:
    """Answers are numbered, so that it shows which fetch one came from."""
    lock, made = threading.Lock(), [0]

    def respond(_: bytes) -> bytes:
        with lock:
            made[0] += 1
            return answer(*fields, body=body + b" %d" % made[0])

    origin.respond = respond


def get(
    running: Bench, path: str = "/", *fields: str, method: str = "GET", host: str = "site.test"
) -> tuple[int, dict[str, str], bytes]:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "Connection: close", "", ""]
    with running.connect() as s:
        s.sendall("\r\n".join(lines).encode())
        data = read_all(s)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = [line.split(": ", 1) for line in rest]
    return int(first.split()[1]), {name.lower(): value for name, value in pairs}, body


def get_slowly(running: Bench, path: str = "/", wait_s: float = 10) -> bytes:
    with running.connect() as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n".encode())
        s.settimeout(wait_s)
        return read_all(s)
