"""The upgrade of the running program, as the keeper that goes sees it.

The successor is started beside us from the installed program, with our listeners, memory and lock; it reads the files,
starts its processes and says `ready`. Then it is told `go`: its workers accept on the same sockets, ours accept no
more and end with their requests. Until `go` nothing of ours has changed: a successor that refuses, dies or is late is
killed, and we go on.

Owns: that successor, and what comes of its failure; afterwards the wait for it, so that whoever started us keeps its
child. Invariant: at every moment one of the two accepts.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

from scrubber.server.channel import Channel, ChannelClosed, ChannelError, Received
from scrubber.server.child import name_process
from scrubber.server.handover import Handover

READY_S = 45.0  # for the successor to read the files and start its processes
GO_S = 5.0  # and then to accept
EXPORT_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

Answer = dict[str, Any]


class Succession:
    """At most one successor at a time. `tell`: what came of it; `export`: asks for the blocks; `taken_over`: the
    successor accepts, and its enforcer has these backends."""

    def __init__(
        self,
        logger: logging.Logger,
        selector: selectors.BaseSelector,
        *,
        tell: Callable[[Answer], None],
        export: Callable[[], bool],
        ready: Callable[[int], None],
        taken_over: Callable[[Collection[str]], None],
    ) -> None:
        self.log, self._selector = logger, selector
        self._tell, self._export, self._ready, self._taken_over = tell, export, ready, taken_over
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._channel: Channel | None = None
        self._deadline_ns = 0
        self._export_deadline_ns = 0
        self._refusal: Answer | None = None
        self.done = False  # the successor has taken over

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def begin(self, argv: list[str], make: Callable[[int], Handover], environ: Mapping[str, str]) -> None:
        """Start the successor. `make` says what it is handed, given its end of the channel."""
        channel, theirs = Channel.pair()
        fd = -1
        try:
            with theirs:
                handover = make(theirs.fileno())
                fd = handover.to_fd()
                self._process = subprocess.Popen(
                    [*argv, str(fd)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[fd, *handover.descriptors()],
                    env=dict(environ),
                    process_group=0,  # a terminal's ^C is for us alone, who forward it once
                )
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            channel.close()
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                self._process = None
            self._say_failed({"message": f"the successor cannot be started: {error}", "hint": "see the log (stderr)"})
            return
        finally:
            if fd >= 0:
                os.close(fd)
        self._channel, self._refusal = channel, None
        self._deadline_ns = time.monotonic_ns() + int(READY_S * 1e9)
        self._selector.register(self._pidfd, selectors.EVENT_READ, self._ended)
        self._selector.register(channel, selectors.EVENT_READ, self._readable)
        self.log.info("upgrade: the successor (pid %d) prepares", self._process.pid)

    def check(self, now_ns: int) -> None:
        """Often: what takes too long."""
        if self._export_deadline_ns and now_ns >= self._export_deadline_ns:
            self.exported([])
        if self._process is not None and not self.done and now_ns >= self._deadline_ns:
            hint = "the log (stderr) says how far it came; the running program goes on"
            self._refusal = self._refusal or {"message": "the successor was not ready in time", "hint": hint}
            self.abandon()

    def abandon(self) -> None:
        """End a successor that has not taken over."""
        if self._process is not None and not self.done:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._process.wait()
            self._ended()

    def forward(self, serving: int, number: int) -> None:
        """A signal that is meant for whoever is keeper now: `serving` says which process that is."""
        pid = int.from_bytes(os.pread(serving, 8, 0), "little")
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def exported(self, fds: list[int]) -> None:
        """The blocks that the successor asked for; none: they cannot be had."""
        self._export_deadline_ns = 0
        if self._channel is not None:
            with contextlib.suppress(ChannelError):
                self._channel.send({"type": "exported"}, fds)

    def release(self) -> None:
        """No enforcer of ours is left."""
        if self._channel is not None:
            with contextlib.suppress(ChannelError):
                self._channel.send({"type": "released"})

    def _readable(self) -> None:
        try:
            while self._channel is not None and (received := self._channel.receive()) is not None:
                try:
                    self._received(received)
                finally:
                    received.close()
        except ChannelClosed:
            self._drop_channel()  # its end follows, through the pidfd
        except ChannelError as error:
            self.log.error("upgrade: the successor broke the protocol: %s", error)
            self.abandon()

    def _received(self, received: Received) -> None:
        if received.type == "refused":
            self._refusal = {key: received.message[key] for key in ("message", "hint", "problems")}
        elif received.type == "export":
            if self._export():
                self._export_deadline_ns = time.monotonic_ns() + int(EXPORT_S * 1e9)
            else:
                self.exported([])
        elif received.type == "ready" and self._channel is not None:
            self._deadline_ns = time.monotonic_ns() + int(GO_S * 1e9)
            self._ready(self.pid)
            self._channel.send({"type": "go"})
        elif received.type == "serving":
            self.done = True
            self.log.info("upgrade: the successor (pid %d) has taken over", self.pid)
            self._tell({"ok": True, "pid": self.pid})
            self._taken_over(received.message.get("drops", ()))

    def _ended(self) -> None:
        """Our successor's end, before or after it took over."""
        if self._process is None or self._process.poll() is None:
            return
        self._readable_to_end()
        self._selector.unregister(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._drop_channel()
        if self.done:
            self.log.error("upgrade: the successor has ended (exit %d)", self._process.returncode)
            return
        code = self._process.returncode
        self._process, self._export_deadline_ns = None, 0
        hint = "the log (stderr) has the reason; the running program goes on"
        self._say_failed(self._refusal or {"message": f"the successor ended (exit {code})", "hint": hint})

    def _readable_to_end(self) -> None:
        """Why it ended may still lie in its channel."""
        with contextlib.suppress(ChannelError):
            while self._channel is not None and (received := self._channel.receive()) is not None:
                if received.type == "refused":
                    self._received(received)
                received.close()

    def _say_failed(self, refusal: Answer) -> None:
        self.log.error("upgrade: %s (%s); this program goes on", refusal["message"], refusal["hint"])
        self._tell({"ok": False, "problems": [], **refusal})

    def _drop_channel(self) -> None:
        if self._channel is not None:
            self._selector.unregister(self._channel)
            self._channel.close()
            self._channel = None

    # ── afterwards ──

    def wait(self, serving: int) -> int:
        """In the place of a keeper: until the last of its successors has ended; its exit code. Signals are theirs."""
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # the successor's own successor becomes our child
        name_process("waits")
        for each in FORWARDED:
            signal.signal(each, lambda number, _: self.forward(serving, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        code = _exit_code(self._process.returncode or 0) if self._process is not None else 0
        while True:
            try:
                _, status = os.wait()
            except ChildProcessError:
                return code
            code = _exit_code(os.waitstatus_to_exitcode(status))

    def leave(self, serving: int, code: int) -> NoReturn:
        """End this process; signals are blocked, and what came since is the successor's."""
        sys.stdout.flush()
        for number in signal.sigpending() & set(FORWARDED):
            self.forward(serving, number)
        os._exit(code)


def _exit_code(code: int) -> int:
    return 128 - code if code < 0 else code
