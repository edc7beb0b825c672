"""Servers that the bench's load tools are tried against, each in threads of this process."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator

from bench.macro import native


class Answering:
    """A server that gives each request the next of these answers (b"": none) and closes after it where it says so."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = itertools.cycle(answers)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.sources: set[str] = set()
        self.connections = 0
        self.requests: list[bytes] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self.server.close()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, address = self.server.accept()
                self.sources.add(address[0])
                self.connections += 1
                threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            data = b""
            while piece := sock.recv(65536):
                data += piece
                while b"\r\n\r\n" in data:
                    request, data = data.split(b"\r\n\r\n", 1)
                    self.requests.append(request)
                    answer = next(self.answers)
                    sock.sendall(answer)
                    if not answer or b"close" in answer:
                        return


def reply(status: str, body: bytes = b"", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextlib.contextmanager
def native_origin() -> Iterator[int]:
    """The port of the bench's origin, in a thread."""
    stop, stopper = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener, stop, stopper:
        listener.setblocking(False)
        args = (listener.fileno(), stop.fileno(), reply("200 OK", b"page"))
        thread = threading.Thread(target=native.serve, args=args)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopper.send(b"x")
            thread.join(5)
            assert not thread.is_alive()
