"""What `scrubber run` hands to the keeper, and the keeper to its children.

Owns: the plan (JSON in a sealed memfd that survives exec) and the start message, each with its only reader and writer.
Invariant: no parser beyond json is needed to read either, so that the keeper stays small.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from scrubber.server import memfd
from scrubber.server.channel import Received
from scrubber.server.handover import HandedSocket

PLAN_VERSION = 1
BEAT_BYTES = 8  # a beat is one little-endian 64-bit CLOCK_MONOTONIC time in ns; 0: none yet


@dataclass(frozen=True, slots=True)
class ListenerPlan:
    """An address to listen on. port 0: the kernel chooses, once for all worker slots. A Unix socket has its path as
    host. `index`: the listener's in every policy; `key`: by what it is known from one gateway file to the next."""

    host: str
    port: int
    scheme: str = "http"
    index: int = 0
    mode: int = 0o660
    key: str = ""

    @property
    def unix(self) -> bool:
        return self.host.startswith("/")

    @property
    def where(self) -> str:
        """As the gateway file has it."""
        if self.unix:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return self.where if self.unix else f"{self.scheme}://{self.where}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the keeper needs. Descriptors are numbers in the keeper's own table."""

    roles: dict[str, list[str]]  # argv by role; the channel's descriptor is appended. "enforcer": where there is one
    workers: int
    listeners: list[ListenerPlan]
    regions: dict[str, int]  # kind -> memfd
    policy: int  # sealed memfd of the policy image in force
    prefixes: list[int]  # sealed memfds of its prefix images, in order
    generation: int
    gauges_offset: int  # of slot 0 in the region "gauges"; the beat is a slot's first field
    gauges_slot_bytes: int
    lock: int  # descriptor that holds the lock on the admin socket's name
    stop_deadline_s: float
    protects: str  # "site (127.0.0.1:8000)", for the ready line
    admin_socket: str
    settings: dict[str, Any] = field(default_factory=dict)  # given to the children as it is
    gateway_file: str = ""
    inherited: dict[str, str] = field(default_factory=dict)  # descriptor -> name: sockets that a service manager bound
    handed: dict[str, HandedSocket] = field(default_factory=dict)  # by key: sockets of the keeper before us
    kept: dict[str, list[int]] = field(default_factory=dict)  # by key: the manager's, as the keeper before us had them
    predecessor: int = -1  # channel to it
    serving: int = -1  # memfd with the pid of the keeper that serves, shared by all that succeed one another
    waiter_pid: int = 0  # who waits for the gateway to end, other than a service manager; 0: nobody
    users: dict[str, tuple[int, int]] = field(default_factory=dict)  # role -> uid, gid; empty: all are who we are
    floor: int = -1  # sealed memfd: what the enforcer may never do, whoever asks; -1: there is none
    as_json: bool = False  # how to say why it cannot start

    def to_fd(self) -> int:
        """A sealed memfd with this plan, inheritable as are the descriptors it names."""
        fd = memfd.sealed("scrubber-plan", json.dumps({"version": PLAN_VERSION, **asdict(self)}).encode())
        for each in (fd, *self.descriptors()):
            os.set_inheritable(each, True)
        return fd

    def descriptors(self) -> list[int]:
        sockets = [fd for each in self.handed.values() for fd in each.fds]
        more = [fd for fd in (self.predecessor, self.serving, self.floor) if fd >= 0]
        inherited = [int(fd) for fd in self.inherited] + [fd for fds in self.kept.values() for fd in fds]
        return [*self.regions.values(), self.policy, *self.prefixes, self.lock, *inherited, *sockets, *more]

    @classmethod
    def from_fd(cls, fd: int) -> Plan:
        """Read a plan, close its descriptor, and keep the ones it names out of the children. ValueError: another
        version's."""
        raw = json.loads(memfd.read_all(fd))
        os.close(fd)
        if raw.pop("version", None) != PLAN_VERSION:
            raise ValueError("the plan was written by another version")
        raw["listeners"] = [ListenerPlan(**each) for each in raw["listeners"]]
        raw["handed"] = {key: HandedSocket(**each) for key, each in raw["handed"].items()}
        raw["users"] = {role: (int(uid), int(gid)) for role, (uid, gid) in raw["users"].items()}
        plan = cls(**raw)
        for each in plan.descriptors():
            os.set_inheritable(each, False)
        return plan


def listener_fds(fds: Mapping[str, int]) -> dict[int, int]:
    """Of descriptors by name: those of listeners, by index."""
    return {int(name.removeprefix("listener.")): fd for name, fd in fds.items() if name.startswith("listener.")}


@dataclass(slots=True)
class Start:
    """A child's first message: who it is and everything it works with."""

    role: str
    slot: int  # -1: not a worker
    keeper_pid: int
    workers: int
    generation: int
    listeners: list[ListenerPlan]  # with the ports really bound
    settings: dict[str, Any]
    children: list[dict[str, Any]]
    fds: dict[str, int]  # "beat", "policy", "prefix.0"…, "region.KIND", "listener.0"…; the enforcer's: "beat", "floor"
    user: tuple[int, int] | None = None  # uid and gid to become; None: stays who the keeper is
    held: bool = False  # a predecessor still serves: no listeners and no admin side until "go"

    def to_message(self) -> tuple[dict[str, Any], list[int]]:
        body = asdict(self)
        names = body.pop("fds")
        return {"type": "start", **body, "names": list(names)}, list(names.values())

    @classmethod
    def from_received(cls, received: Received) -> Start:
        """ValueError: not a start message."""
        body = dict(received.message)
        if body.pop("type") != "start":
            raise ValueError("the first message of a channel is start")
        names = body.pop("names")
        body["listeners"] = [ListenerPlan(**each) for each in body["listeners"]]
        body["user"] = (int(body["user"][0]), int(body["user"][1])) if body["user"] else None
        fds, received.fds = received.fds, []
        return cls(**body, fds=dict(zip(names, fds, strict=True)))

    def regions(self) -> dict[str, int]:
        return {name.removeprefix("region."): fd for name, fd in self.fds.items() if name.startswith("region.")}

    def prefixes(self) -> list[int]:
        return self._numbered("prefix.")

    def listener_fds(self) -> dict[int, int]:
        """By the listener's index."""
        return listener_fds(self.fds)

    def _numbered(self, start: str) -> list[int]:
        found = {int(name.removeprefix(start)): fd for name, fd in self.fds.items() if name.startswith(start)}
        return [found[index] for index in sorted(found)]
