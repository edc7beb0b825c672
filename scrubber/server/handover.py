"""What one keeper hands to its successor when the running program is upgraded.

Owns: the form of it (JSON in a sealed memfd, the descriptors inherited), the one thing that an older and a newer
program must both understand. Invariant: nothing of it depends on the layout of images or regions: the successor looks
at those itself.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from scrubber.server import memfd

HANDOVER_VERSION = 1


@dataclass(frozen=True, slots=True)
class HandedSocket:
    """A listener's sockets, by worker slot or one for all. `ours`: its Unix socket is removed when nobody serves it."""

    fds: list[int]
    path: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Handover:
    """Descriptors are numbers in the successor's table."""

    gateway_file: str
    admin_socket: str
    generation: int
    policy: int
    regions: dict[str, int]
    lock: int
    channel: int  # between the two
    serving: int  # memfd with the pid of the keeper that serves, 8 bytes: signals are its
    waiter_pid: int  # the process that waits for whoever is keeper; 0: a service manager does
    listeners: dict[str, HandedSocket] = field(default_factory=dict)  # by key
    inherited: dict[str, list[int]] = field(default_factory=dict)  # the same, of the service manager; also unused ones

    def descriptors(self) -> list[int]:
        sockets = [fd for each in self.listeners.values() for fd in each.fds]
        inherited = [fd for fds in self.inherited.values() for fd in fds]
        return [self.policy, *self.regions.values(), self.lock, self.channel, self.serving, *sockets, *inherited]

    def to_fd(self) -> int:
        """A sealed memfd with this; it is to be inherited, as all that it names."""
        return memfd.sealed("scrubber-handover", json.dumps({"version": HANDOVER_VERSION, **asdict(self)}).encode())

    @classmethod
    def from_fd(cls, fd: int) -> Handover:
        """ValueError: another form of it."""
        raw = json.loads(memfd.read_all(fd))
        os.close(fd)
        if raw.pop("version", None) != HANDOVER_VERSION:
            raise ValueError("handed over by a version that this one does not follow")
        raw["listeners"] = {key: HandedSocket(**each) for key, each in raw["listeners"].items()}
        handover = cls(**raw)
        for each in handover.descriptors():
            os.set_inheritable(each, False)
        return handover
