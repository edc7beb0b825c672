"""What supervisor and enforcer say to each other: MessagePack over one SOCK_SEQPACKET pair.

Owns the forms and their bounds. Invariants: what does not decode into one of these is no message, and changes nothing;
no message is longer than MESSAGE_BYTES_MAX; a network that is none is left to the envelope, which says why.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import msgspec

from scrubber.enforce.backend import DOORS_MAX, Door
from scrubber.enforce.envelope import Kind, Terms
from scrubber.enforce.flow import Flow
from scrubber.enforce.net import Net
from scrubber.units import NS_PER_S

MESSAGE_BYTES_MAX = 64 * 1024
ENTRIES_MAX = 1000  # of a message
REASON_CHARS = 200
REFUSED_MAX = 200  # of a message; the rest is counted
RULES_MAX = 100  # FlowSpec rules of a message, which then fits

Number = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Doors = Annotated[int, msgspec.Meta(ge=1, lt=1 << DOORS_MAX)]
Named = Annotated[bytes, msgspec.Meta(min_length=1, max_length=32)]
Put = tuple[Named, Number, Doors]  # network, until_ns (CLOCK_MONOTONIC), doors


class Allowed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag="allowed"):
    """Supervisor: what the policy in force allows, and where we listen. Comes before any Change. `more`: the next one
    has more of the never-block list, and the numbers."""

    terms: Terms
    doors: Annotated[tuple[Door, ...], msgspec.Meta(max_length=DOORS_MAX)]
    more: bool = False


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag="change"):
    """Supervisor: drops that are wanted, and no more wanted. `base`: the revision that this follows; 0: all that was
    wanted before is not. `more`: it is not whole yet, and counts with the last of its parts."""

    revision: Number
    base: Number
    put: Annotated[list[Put], msgspec.Meta(max_length=ENTRIES_MAX)] = []
    remove: Annotated[list[Named], msgspec.Meta(max_length=ENTRIES_MAX)] = []
    more: bool = False


class Announce(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag="announce"):
    """Supervisor: every blackhole that is wanted upstream; what is not among them is withdrawn. `more`: as of
    Change."""

    revision: Number
    put: Annotated[list[tuple[Named, Kind, Number]], msgspec.Meta(max_length=ENTRIES_MAX)] = []  # until_ns last
    more: bool = False


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag="rules"):
    """Supervisor: every FlowSpec rule that is wanted. It has them announced itself, those that are not refused."""

    revision: Number
    flows: Annotated[list[Flow], msgspec.Meta(max_length=RULES_MAX)] = []


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag="hello"):
    """Enforcer, first: backends in the order in which they are asked, with "" or why this machine has it not. And the
    same of blackholes upstream; None: they are not configured."""

    backends: tuple[tuple[str, str], ...]
    upstream: str | None = None


class Standing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag="standing"):
    """Enforcer: what of `revision` is in force, by backend; what was refused since the last Standing, and why."""

    revision: Number
    in_force: dict[str, Number]
    waiting: Number = 0
    refused: list[tuple[bytes, str]] = []
    refused_more: Number = 0
    healed: Number = 0  # differences between what was wanted and what the kernel had, made good so far


class Counted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag="counted"):
    """Enforcer: packets and bytes dropped of a network since its entry was made. Those that have changed. `every_ns`:
    within so long, each of those that go on changing is told again. `earlier`: they were there when the two met."""

    rows: list[tuple[bytes, int, int]]
    every_ns: Number = NS_PER_S
    earlier: bool = False


class Announcing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag="announcing"):
    """Enforcer: of `revision`, what the kernel has for the daemon to announce; what was refused since the last one."""

    revision: Number
    in_force: list[tuple[bytes, str]] = []
    refused: list[tuple[bytes, str, str]] = []
    more: bool = False  # the next one has more of either


class Ruled(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag="ruled"):
    """Enforcer: which of the rules of `revision`, by their place there, may not be announced, and why."""

    revision: Number
    refused: list[tuple[Number, str]] = []


class Resync(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="is", tag="resync"):
    """Enforcer: it does not know what `Change` follows. Say everything."""

    reason: str


ToEnforcer = Allowed | Change | Announce | Rules
ToSupervisor = Hello | Standing | Counted | Announcing | Ruled | Resync

_encode = msgspec.msgpack.Encoder().encode
_to_enforcer = msgspec.msgpack.Decoder(ToEnforcer)
_to_supervisor = msgspec.msgpack.Decoder(ToSupervisor)


class NotAMessage(Exception):
    """Why it is none."""


class Gone(Exception):
    """The other side is no more."""


class Peer:
    """One end of the pair, non-blocking. What the socket does not take waits, up to `waiting_max` messages."""

    def __init__(self, sock: socket.socket, *, enforcer: bool, waiting_max: int = 10_000) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MESSAGE_BYTES_MAX)
        self._sock = sock
        self._decode: Callable[[memoryview], ToEnforcer | ToSupervisor]
        self._decode = _to_enforcer.decode if enforcer else _to_supervisor.decode
        self._waiting: list[bytes] = []
        self._waiting_max = waiting_max
        self._buffer = bytearray(MESSAGE_BYTES_MAX + 1)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    @property
    def waits(self) -> bool:
        """Whether there is something that the socket has not taken."""
        return bool(self._waiting)

    def send(self, message: ToEnforcer | ToSupervisor) -> bool:
        """False: too much waits already, and this was let fall. Gone."""
        if len(self._waiting) >= self._waiting_max:
            return False
        data = _encode(message)
        if len(data) > MESSAGE_BYTES_MAX:
            raise ValueError(f"a message of {len(data)} bytes")
        self._waiting.append(data)
        self.flush()
        return True

    def flush(self) -> None:
        """As far as the socket takes it. Gone."""
        sent = 0
        try:
            while sent < len(self._waiting):
                self._sock.send(self._waiting[sent])
                sent += 1
        except BlockingIOError:
            pass
        except OSError as error:
            raise Gone(str(error)) from None
        finally:
            del self._waiting[:sent]

    def receive(self) -> ToEnforcer | ToSupervisor | None:
        """The next; None: none now. NotAMessage, after which the next may be one; Gone."""
        try:
            size, _, flags, _ = self._sock.recvmsg_into(
                [self._buffer]
            )  # descriptors beside it are closed by the kernel
        except BlockingIOError:
            return None
        except OSError as error:
            raise Gone(str(error)) from None
        if not size:
            raise Gone("it has closed its end")
        if flags & socket.MSG_TRUNC or size > MESSAGE_BYTES_MAX:
            raise NotAMessage(f"longer than {MESSAGE_BYTES_MAX} bytes")
        try:
            return self._decode(memoryview(self._buffer)[:size])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise NotAMessage(str(error)[:REASON_CHARS]) from None


def allowed_parts(terms: Terms, doors: tuple[Door, ...]) -> Iterator[Allowed]:
    """What is allowed, in as many messages as it takes."""
    never = terms.never
    for at in range(0, max(len(never), 1), ENTRIES_MAX):
        end = at + ENTRIES_MAX
        yield Allowed(msgspec.structs.replace(terms, never=never[at:end]), doors, more=end < len(never))


def parts(revision: int, base: int, put: Iterable[tuple[Net, int, int]], remove: Iterable[Net]) -> Iterator[Change]:
    """One change, in as many messages as it takes."""
    puts, removes = list(put), list(remove)
    count = max(len(puts), len(removes), 1)
    for at in range(0, count, ENTRIES_MAX):
        end = at + ENTRIES_MAX
        yield Change(revision, base, puts[at:end], removes[at:end], more=end < count)


def announce_parts(revision: int, wanted: Iterable[tuple[Net, Kind, int]]) -> Iterator[Announce]:
    """All that is to be announced, in as many messages as it takes."""
    put = list(wanted)
    for at in range(0, max(len(put), 1), ENTRIES_MAX):
        end = at + ENTRIES_MAX
        yield Announce(revision, put[at:end], more=end < len(put))
