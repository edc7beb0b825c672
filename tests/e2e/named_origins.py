"""Origins that say who they are: threads in the test's own process, so that many start quickly and each can be steered.

Owns: their listening sockets. `Named.healthy` decides what /healthz answers; while `gate` is clear, answers are held.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    named: Named


class _UnixServer(_Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's asks for the name of a host
        os.chmod(str(self.server_address), 0o666)  # workers are other users
        self.server_name, self.server_port = "", 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.named.open.add(self.connection)

    def finish(self) -> None:
        self.server.named.open.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        named = self.server.named
        if self.path == "/healthz":
            named.checks.append(dict(self.headers.items()))
            self._answer(200 if named.healthy else 503, b"")
            return
        with named.lock:
            named.paths.append(self.path)
            named.hosts.append(self.headers.get("Host", ""))
        named.gate.wait(30)
        self._answer(named.status, named.name.encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Named:
    """An origin that answers every request with its name. `address`: of a host, or "unix:/path"."""

    def __init__(self, name: str, address: str = "127.0.0.1", port: int = 0) -> None:
        self.name, self.address = name, address
        self.healthy, self.status = True, 200
        self.paths: list[str] = []
        self.hosts: list[str] = []
        self.checks: list[dict[str, str]] = []
        self.open: set[socket.socket] = set()
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()
        self.port = port
        self._server: _Server | None = None
        self.start()

    def start(self) -> None:
        """Listen, again at the same port."""
        assert self._server is None
        if self.address.startswith("unix:"):
            path = self.address.removeprefix("unix:")
            Path(path).unlink(missing_ok=True)
            self._server = _UnixServer(path, _Handler)  # type: ignore[arg-type]
        else:
            self._server = _Server((self.address, self.port), _Handler)
            self.port = self._server.server_address[1]
        self._server.named = self
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and end those that there are."""
        if self._server is not None:
            self._server.shutdown()
            self._server.socket.shutdown(socket.SHUT_RDWR)
            self._server.server_close()
            for each in list(self.open):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self._server = None

    @property
    def at(self) -> str:
        return self.address if self.address.startswith("unix:") else f"{self.address}:{self.port}"
