"""Other people's proxies as neighbours of the gateway: nginx and HAProxy, before it and behind it.

Owns their processes, files and listening sockets; each ends with its context.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from tests import wanted
from tests.e2e.support import SLOW, until


class Neighbour:
    """`with Haproxy(config) as found`: it listens on `found.port`; {port}, {directory}, {fd} are filled in."""

    inherits = True  # the socket; else it opens one of its own at that port

    def __init__(self, config: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="nb-"))
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self.socket.getsockname()[1]
        self.file = self.directory / "config"
        text = config.replace("{port}", str(self.port)).replace("{directory}", str(self.directory))
        self.file.write_text(text.replace("{fd}", str(self.socket.fileno())))
        self.log = (self.directory / "said").open("wb")

    def command(self) -> list[str]:
        raise NotImplementedError

    def __enter__(self) -> Neighbour:
        if not self.inherits:
            self.socket.close()
        self.process = subprocess.Popen(
            self.command(),
            stdout=self.log,
            stderr=self.log,
            pass_fds=[self.socket.fileno()] if self.inherits else [],
        )
        self.socket.close()
        until(self.listens, 10, f"{type(self).__name__} listens")
        return self

    def listens(self) -> bool:
        assert self.process.poll() is None, self.said
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2):
            return True
        return False

    @property
    def said(self) -> str:
        return (self.directory / "said").read_text(errors="replace")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10 * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        print(self.said[-4000:])
        shutil.rmtree(self.directory, ignore_errors=True)


class Haproxy(Neighbour):
    """On the socket that it is given: `bind fd@{fd}`."""

    def command(self) -> list[str]:
        return [wanted.program("haproxy"), "-db", "-f", str(self.file)]


class Nginx(Neighbour):
    """On 127.0.0.1:{port}; "{common}" is what keeps it inside its directory."""

    inherits = False

    def __init__(self, config: str) -> None:
        inside = " ".join(f"{kind}_temp_path {{directory}}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        common = f"access_log off; client_body_temp_path {{directory}}/body; {inside}"
        top = "daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log stderr warn;\n"
        super().__init__(top + "events { worker_connections 512; }\n" + config.replace("{common}", common))

    def command(self) -> list[str]:
        return [wanted.program("nginx"), "-c", str(self.file), "-p", str(self.directory), "-e", "stderr"]
