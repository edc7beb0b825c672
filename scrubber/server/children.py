"""The children of the keeper: how one is started, heard, and replaced when it ends.

Owns: each child's process, pidfd and channel. Who is to be replaced, and what is said to whom, is the keeper's to know
(`Parent`).
Invariants: a child that dies is replaced at once, and with a pause where it did so again and again; a dead worker's
gauges are zero before its successor starts; no descriptor, process or zombie is left behind; nothing here waits for a
child but `reap`.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from scrubber.server.channel import Channel, ChannelClosed, ChannelError, Received
from scrubber.server.child import Beat
from scrubber.server.plan import Start
from scrubber.server.pulse import WEDGED_NS, Pulse, read_schedule

FAST_DEATH_S = 5.0  # a child that lived shorter died fast
FAST_DEATHS = 5  # so many in a row are replaced at once; then with a pause
PAUSE_S = 0.1
PAUSE_S_MAX = 2.0
BEAT_BYTES = 8


@dataclass(slots=True)
class Child:
    """A place for a child, and the child that fills it (process None: none now).

    `beats`, `beat_offset`: where it says that it lives; `own_bytes` from there are zero when a new one starts.
    """

    role: str
    slot: int
    beats: mmap.mmap
    beat_offset: int
    own_bytes: int = BEAT_BYTES
    process: subprocess.Popen[bytes] | None = None
    pidfd: int = -1
    channel: Channel | None = None
    wedged_ns: int = WEDGED_NS
    pulse: Pulse = field(default_factory=lambda: Pulse(0))
    started_ns: int = 0
    restart_ns: int = 0
    restarts: int = 0
    fast_deaths: int = 0

    @property
    def name(self) -> str:
        return self.role if self.slot < 0 else f"{self.role}[{self.slot}]"

    def beat_ns(self) -> int:
        return Beat.read(self.beats, self.beat_offset)

    def clear(self) -> None:
        """What it said of itself is gone with it."""
        self.beats[self.beat_offset : self.beat_offset + self.own_bytes] = bytes(self.own_bytes)

    def kill(self) -> None:
        """SIGKILL by pidfd: never the wrong process."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def describe(self) -> dict[str, Any]:
        pid = self.process.pid if self.process else 0
        return {"role": self.role, "slot": self.slot, "pid": pid, "restarts": self.restarts}


class Parent(Protocol):
    """Whose children they are."""

    def start_message(self, child: Child) -> Start:
        """The first that it hears, with all descriptors that it gets."""

    def started(self, child: Child) -> None:
        """It runs, and can be spoken to."""

    def received(self, child: Child, received: Received) -> None:
        """It said something; its descriptors are closed afterwards."""

    def ending(self, child: Child) -> bool:
        """Whether this child, once gone, stays gone."""

    def gone(self, child: Child) -> None:
        """One that stays gone has ended."""

    def given_up(self, child: Child) -> bool:
        """It died fast too often. Whether that is the end."""

    def changed(self) -> None:
        """Others fill the places than before."""


class Children:
    """All of one keeper's, by their places."""

    def __init__(
        self,
        every: Sequence[Child],
        parent: Parent,
        selector: selectors.BaseSelector,
        logger: logging.Logger,
        *,
        commands: Mapping[str, Sequence[str]],
        environment: Mapping[str, str],
    ) -> None:
        self.every = every
        self._parent, self._selector, self._log = parent, selector, logger
        self._commands, self._environment = commands, environment

    def describe(self) -> list[dict[str, Any]]:
        """For the supervisor, which tells who there is."""
        return [each.describe() for each in self.every]

    def start(self, child: Child) -> None:
        """A process for this place, now; where none can be had, later."""
        channel, theirs = Channel.pair()
        child.restart_ns, child.started_ns = 0, time.monotonic_ns()
        child.pulse = Pulse(child.started_ns, child.wedged_ns)
        child.clear()
        try:
            with theirs:
                channel.send(*self._parent.start_message(child).to_message())
                child.process = subprocess.Popen(
                    [*self._commands[child.role], str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=None if child.role == "supervisor" else subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=self._environment,
                )
            child.pidfd = os.pidfd_open(child.process.pid)
        except (OSError, ChannelError) as error:  # out of processes, memory or descriptors: later, perhaps
            self._log.error("cannot start %s: %s", child.name, error)
            channel.close()
            if child.process is not None:
                child.process.kill()
                child.process.wait()
                child.process = None
            self._plan_restart(child, fast=True)
            return
        child.channel = channel
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._died(child))
        self._selector.register(channel, selectors.EVENT_READ, lambda: self._readable(child))
        self._parent.started(child)

    def check(self, now_ns: int) -> None:
        """Start whose pause is over; kill whoever does not beat."""
        for child in self.every:
            if child.process is None:
                if child.restart_ns and now_ns >= child.restart_ns and not self._parent.ending(child):
                    self.start(child)
                    self._parent.changed()
            elif child.pulse.wedged(child.beat_ns(), read_schedule(child.process.pid), now_ns):
                self._log.error("%s (pid %d) does not beat: killed", child.name, child.process.pid)
                child.kill()

    def send(self, child: Child, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """To one that is there. It is killed where it does not read."""
        if child.channel is None:
            return
        try:
            child.channel.send(message, fds)
        except ChannelClosed:
            pass  # its end follows, through the pidfd
        except ChannelError as error:
            self._log.error("%s: %s: killed", child.name, error)
            child.kill()

    def kill(self) -> None:
        """All of them, at once."""
        for child in self.every:
            child.kill()

    def kill_late(self, child: Child) -> None:
        """One that had time to end."""
        if child.process is not None:
            self._log.error("%s (pid %d) does not end: killed", child.name, child.process.pid)
            child.kill()

    def reap(self) -> None:
        """Wait for those that are left."""
        for child in self.every:
            if child.process is not None:
                child.process.wait()
                self._died(child)

    def _readable(self, child: Child) -> None:
        try:
            while child.channel is not None and (received := child.channel.receive()) is not None:
                try:
                    self._parent.received(child, received)
                finally:
                    received.close()
        except ChannelClosed:
            self._drop_channel(child)  # its end follows, through the pidfd
        except ChannelError as error:
            self._log.error("%s broke the protocol (%s): killed", child.name, error)
            child.kill()

    def _drop_channel(self, child: Child) -> None:
        if child.channel is not None:
            self._selector.unregister(child.channel)
            child.channel.close()
            child.channel = None

    def _died(self, child: Child) -> None:
        process = child.process
        if process is None or process.poll() is None:
            return
        lived_s = (time.monotonic_ns() - child.started_ns) / 1e9
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        child.pidfd = -1
        self._drop_channel(child)
        child.process = None
        child.clear()
        if self._parent.ending(child):
            self._parent.gone(child)
            return
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit {process.returncode}"
        self._log.error("%s (pid %d) ended by %s after %.1f s", child.name, process.pid, how, lived_s)
        self._plan_restart(child, fast=lived_s < FAST_DEATH_S)

    def _plan_restart(self, child: Child, *, fast: bool) -> None:
        child.fast_deaths = child.fast_deaths + 1 if fast else 0
        child.restarts += 1
        late = child.fast_deaths - FAST_DEATHS
        if late >= 0 and self._parent.given_up(child):
            return
        pause_s = min(PAUSE_S * 2 ** min(late, 10), PAUSE_S_MAX) if late >= 0 else 0.0
        if pause_s:
            child.restart_ns = time.monotonic_ns() + int(pause_s * 1e9)
        else:
            self.start(child)
        self._parent.changed()
