"""Origins that people run, each behind one name: gunicorn, uvicorn, nginx, Node.

Owns: how each is started with the same paths (apps/), restarted without losing a request, and ended. Invariants: each
listens on a port of its own on 127.0.0.1; what it cannot do is in `cannot`, by name, and the battery leaves that out.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
from pathlib import Path

from tests import wanted
from tests.e2e.support import until
from tests.interop.apps import shapes
from tests.interop.conftest import Program

APPS = Path(__file__).parent / "apps"


def free_port() -> int:
    """For programs that cannot say which port they took: below those that the kernel gives to connections, so that it
    stays free while its program is restarted."""
    below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(max(1024, below - 12_000), below)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Kind:
    """`start(directory, port, idle_s)`: running, and answering."""

    name = ""
    module = ""  # a Python package that must be there
    program = ""
    idle_s_min = 1.0  # the shortest time it can be told to keep an idle connection
    graceful = False  # `reload` loses no request
    ending = signal.SIGTERM  # ends it in good order
    cannot: frozenset[str] = frozenset()

    def needs(self) -> None:
        """No test where it is missing."""
        if self.module:
            wanted.package(self.module)
        if self.program:
            wanted.program(self.program)

    def start(self, directory: Path, port: int = 0, idle_s: float = 5.0, **env: str) -> Program:
        tries = 1 if port else 3  # somebody else may take a free port first
        for _ in range(tries):
            at = port or free_port()
            found = self.launch(directory, at, idle_s, **env)
            until(lambda at=at, found=found: listening(at) or found.process.poll() is not None, 20, f"{self.name}")
            if found.process.poll() is None:
                return found
        raise AssertionError(f"{self.name} ended")

    def launch(self, directory: Path, port: int, idle_s: float, **env: str) -> Program:
        raise NotImplementedError

    def reload(self, running: Program) -> None:
        raise NotImplementedError


class Gunicorn(Kind):
    module = "gunicorn"
    graceful = True
    # WSGI has no raw bytes beyond Latin-1 in status 418's way: all paths are there.

    def __init__(self, worker: str, *words: str) -> None:
        self.name = f"gunicorn-{worker}"
        self.words = ["--worker-class", worker, *words]

    def launch(self, directory: Path, port: int, idle_s: float, **env: str) -> Program:
        words = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--keep-alive", str(int(idle_s))]
        words += ["--log-level", "warning", "--graceful-timeout", "10", "--no-control-socket", *self.words]
        return Program([*words, "tests.interop.apps.with_wsgi:application"], port=port, **env)

    def reload(self, running: Program) -> None:
        """New workers, then the old ones end (HUP)."""
        before = children(running.process.pid)
        running.process.send_signal(signal.SIGHUP)
        until(lambda: (now := children(running.process.pid)) and not now & before, 20, "new workers of gunicorn")


class Uvicorn(Kind):
    module = "uvicorn"

    def __init__(self, parser: str) -> None:
        self.name = f"uvicorn-{parser}"
        self.parser = parser

    def launch(self, directory: Path, port: int, idle_s: float, **env: str) -> Program:
        words = [sys.executable, "-m", "uvicorn", "--port", str(port), "--http", self.parser, "--lifespan", "off"]
        words += ["--timeout-keep-alive", str(int(idle_s)), "--no-access-log", "--log-level", "warning"]
        return Program([*words, "tests.interop.apps.with_asgi:application"], port=port, **env)


class Node(Kind):
    name = "node"
    program = "node"
    idle_s_min = 0.004
    cannot = frozenset({"upload"})

    def launch(self, directory: Path, port: int, idle_s: float, **env: str) -> Program:
        words = ["node", str(APPS / "with_node.mjs"), str(port), str(max(1, int(idle_s * 1000)))]
        return Program(words, port=port, first_line=True, **env)


class Nginx(Kind):
    """Files and `return`: no application behind it. `line`: of the http block; `logs`: into access.log."""

    name = "nginx"
    program = "nginx"
    idle_s_min = 0.004
    graceful = True
    ending = signal.SIGQUIT
    cannot = frozenset(
        {"echo", "form", "post-empty", "post-large", "post-chunked", "put", "patch", "delete", "options", "upload"}
        | {"chunked", "long-head", "many-fields"}
    )

    def __init__(self, line: str = "gzip_proxied any;", *, logs: bool = False) -> None:
        self.line, self.logs = line, logs

    def launch(self, directory: Path, port: int, idle_s: float, **env: str) -> Program:
        root = directory / "www"
        root.mkdir(parents=True, exist_ok=True)
        for name, data in (("small", shapes.SMALL), ("large", shapes.LARGE), ("gzip", shapes.SMALL * 500)):
            (root / name).write_bytes(data)
            os.utime(root / name, (1_793_700_000, 1_793_700_000))
        conf = directory / "nginx.conf"
        conf.write_text(self.conf(directory, port, idle_s))
        for each in [directory, *directory.parents]:
            if each != each.parent and each.stat().st_uid == os.getuid() and each.is_relative_to("/tmp"):
                each.chmod(each.stat().st_mode | 0o011)
        return Program(
            [wanted.program("nginx"), "-p", str(directory), "-c", str(conf), "-e", "stderr"], port=port
        )

    def conf(self, directory: Path, port: int, idle_s: float) -> str:
        statuses = "\n".join(
            f'location = /status/{s} {{ default_type text/plain; return {s} "as asked\\n"; }}'
            for s in shapes.STATUSES
            if s != 200
        )
        redirects = "\n".join(f"location = /redirect/{s} {{ return {s} /echo?redirected; }}" for s in shapes.REDIRECTS)
        user = "user root;" if os.getuid() == 0 else ""
        return f"""
daemon off; worker_processes 2; pid {directory}/nginx.pid; error_log stderr error; {user}
events {{ worker_connections 512; }}
http {{
  access_log {f"{directory}/access.log" if self.logs else "off"};
  root {directory}/www; default_type text/plain; absolute_redirect off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  keepalive_timeout {int(idle_s * 1000)}ms; gzip on; {self.line} gzip_min_length 100; gzip_types text/plain;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location = /redirect-absolute/302 {{ return 302 http://$http_host/small; }}
    location = /status/200 {{ return 200 "as asked\\n"; }}
    location = /status/204 {{ return 204; }}
    {statuses}
    {redirects}
  }}
}}
"""

    def reload(self, running: Program) -> None:
        before = children(running.process.pid)
        running.process.send_signal(signal.SIGHUP)
        until(lambda: children(running.process.pid) - before, 20, "new workers of nginx")


def children(pid: int) -> set[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(each) for each in found}


KINDS: list[Kind] = [
    Gunicorn("sync", "--workers", "2"),
    Gunicorn("gthread", "--workers", "2", "--threads", "8"),
    Uvicorn("httptools"),
    Uvicorn("h11"),
    Nginx(),
    Node(),
]
