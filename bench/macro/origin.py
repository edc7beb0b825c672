"""The origin of every run: `python -m bench.macro.origin PORT` answers with one page, of about 1 KB or as many
bytes as a second argument says, until its stdin closes."""

from __future__ import annotations

import socket
import sys

from bench.macro import native

BODY = b"<!doctype html><title>A page</title>" + b"<p>It is what it is.</p>" * 40
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: no-cache\r\nContent-Length: %d\r\n\r\n"


def main(argv: list[str]) -> None:
    """Listen on 127.0.0.1 and serve."""
    body = BODY if len(argv) == 1 else bytes(range(256)) * (int(argv[1]) // 256)
    with socket.create_server(("127.0.0.1", int(argv[0])), backlog=4096) as listener:
        listener.setblocking(False)
        native.serve(listener.fileno(), sys.stdin.fileno(), HEAD % len(body) + body)


if __name__ == "__main__":
    main(sys.argv[1:])
