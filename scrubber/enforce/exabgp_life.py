"""One ExaBGP process, from its start to its end: its relay's socket, its log, its pid.

Owns these descriptors, all non-blocking and in the caller's epoll set. Invariant: after `end` the process is gone and
waited for. One relay is let in; a second one (ExaBGP starts another when the first dies) finds nobody, and ends ExaBGP.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
from collections import deque

from scrubber.enforce.exabgp_settings import Paths

READ_BYTES = 65536
LINE_CHARS_MAX = 300
GOING_MS = 2000


class Gone(Exception):
    """This ExaBGP is of no use any more, and why."""


class Life:
    """Used by one thread."""

    def __init__(self, paths: Paths, epoll: select.epoll, log: deque[str]) -> None:
        self._paths, self._epoll, self._log = paths, epoll, log
        self._link: socket.socket | None = None
        self._begun = self._log_begun = b""  # lines that have no end yet
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            paths.socket.unlink(missing_ok=True)
            self._listener.bind(str(paths.socket))
            paths.socket.chmod(0o600)
            self._listener.listen(1)
            self._process = self._started()
        except OSError as error:
            self._listener.close()
            raise Gone(f"it could not be started: {error}") from error
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._pidfd = os.pidfd_open(self._process.pid)
        for each in (self._listener.fileno(), self._process.stdout.fileno(), self._pidfd):
            epoll.register(each, select.EPOLLIN)

    def _started(self) -> subprocess.Popen[bytes]:
        """Nothing of our environment reaches it, nor any descriptor; a terminal's signals do not either."""
        argv = [
            sys.executable,
            "-I",
            "-m",
            "exabgp",
            "--env",
            str(self._paths.environment),
            str(self._paths.configuration),
        ]
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.defpath},
            cwd="/",
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def linked(self) -> bool:
        return self._link is not None

    def lines(self) -> list[str]:
        """What its API has said since. Gone: it, or its relay, has ended."""
        self._read_log()
        if self._link is None:
            self._let_in()
        heard = self._heard() if self._link is not None else []
        if (status := self._process.poll()) is not None:
            raise Gone(f"it ended by itself ({status})")
        return heard

    def say(self, line: str) -> None:
        """One at a time is never more than the socket takes."""
        assert self._link is not None
        data = f"{line}\n".encode("ascii")
        try:
            sent = self._link.send(data)
        except OSError as error:
            raise Gone(f"its relay takes nothing: {error}") from error
        if sent < len(data):
            raise Gone("its relay takes no whole line")

    def end(self, *, gently: bool) -> None:
        """SIGTERM first, or SIGKILL at once. Either closes the sessions."""
        if gently:
            self._process.terminate()
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(GOING_MS)
        self._process.kill()
        self._process.wait()
        self._read_log()
        assert self._process.stdout is not None
        self._epoll.unregister(self._process.stdout)
        self._process.stdout.close()
        self._epoll.unregister(self._pidfd)
        os.close(self._pidfd)
        self._stop_listening()
        if self._link is not None:
            self._link.close()

    def _let_in(self) -> None:
        try:
            link, _ = self._listener.accept()
        except BlockingIOError:
            return
        link.setblocking(False)
        _, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid():
            link.close()
            return
        self._stop_listening()
        self._epoll.register(link.fileno(), select.EPOLLIN)
        self._link = link

    def _stop_listening(self) -> None:
        if self._listener.fileno() < 0:
            return
        self._epoll.unregister(self._listener.fileno())
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            self._paths.socket.unlink()

    def _heard(self) -> list[str]:
        assert self._link is not None
        try:
            data = self._link.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Gone(f"its relay: {error}") from error
        if not data:
            raise Gone("its relay ended")
        *whole, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > READ_BYTES:
            raise Gone("it says a line without end")
        return [line.decode("ascii", "replace").rstrip() for line in whole]

    def _read_log(self) -> None:
        """The last lines are kept, cut; what it writes faster than it is read waits in the pipe."""
        assert self._process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._process.stdout.fileno(), READ_BYTES)
            *whole, rest = (self._log_begun + data).split(b"\n")
            self._log_begun = rest[-READ_BYTES:]
            for line in whole[-64:]:
                if text := line.decode("utf-8", "replace").strip():
                    self._log.append(text[:LINE_CHARS_MAX])
