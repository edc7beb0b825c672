"""The guard of every load tool: where traffic may go, and how much of it.

Owns: the only place in bench/load that makes a socket (Route.open), and the bounds of a run (Bounds, Meter).
Invariants: source and target are literal loopback addresses (127.0.0.0/8 or ::1), or addresses that nobody has
(198.18.0.0/15, 203.0.113.0/24) where the kernel says that this process is in a network that its run has made and that
leads nowhere (sealed.py); names are never resolved; a run ends by itself after so many requests or seconds, whichever
comes first; no setting lifts the ceilings.
"""
import contextlib
import errno
import ipaddress
import resource
import socket
import time
from dataclasses import dataclass, field

from bench.load.sealed import unsealed

REQUESTS_CEILING = 2_000_000  # a process and run
SECONDS_CEILING = 120.0
BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT (ip(7)): the port is chosen at connect, by the whole 4-tuple

NOBODYS = tuple(ipaddress.IPv4Network(text) for text in ("198.18.0.0/15", "203.0.113.0/24"))  # RFC 2544, RFC 5737


class LoadRefused(Exception):
    """A load tool was asked for something that it must not do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(f"{what} ({hint})")
        self.hint = hint


def loopback(host: str) -> str:
    """The address in its canonical form; LoadRefused for everything that is not literally 127.0.0.0/8 or ::1."""
    hint = "load goes to and comes from 127.0.0.0/8 or ::1 only, written as an address"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise LoadRefused(f"{host!r} is not an IP address", hint) from None
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped is not None or address.scope_id is not None):
        raise LoadRefused(f"{host} is not plain loopback", hint)
    if not address.is_loopback:
        raise LoadRefused(f"{host} is outside loopback", hint)
    return str(address)


def allowed(host: str) -> str:
    """The address in its canonical form; LoadRefused for what is not loopback, nor nobody's in a sealed network."""
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        return loopback(host)
    if not any(address in network for network in NOBODYS):
        return loopback(host)
    if why := unsealed():
        hint = "load goes to and comes from 127.0.0.0/8 or ::1 only, but in networks that the run has made for itself"
        raise LoadRefused(f"{host} is outside loopback, and {why}", hint)
    return str(address)


@dataclass(frozen=True, slots=True)
class Route:
    """From a source address to a target, both proven to be allowed when the route was made."""

    source: str
    target: str
    port: int
    _family: socket.AddressFamily = field(init=False, repr=False)

    def __post_init__(self) -> None:
        source, target = allowed(self.source), allowed(self.target)
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        if (":" in source) != (family is socket.AF_INET6):
            raise LoadRefused(f"{source} and {target} are of different families", "give both as IPv4 or both as IPv6")
        if not 0 < self.port < 65536:
            raise LoadRefused(f"port {self.port} is not a TCP port", "1 to 65535")
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "_family", family)

    def open(self) -> socket.socket:
        """A non-blocking TCP socket bound to the source, its connect under way. OSError where the kernel says no."""
        sock = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(OSError):  # without it the port is chosen at bind: more of them are used, no more
                sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
            sock.bind((self.source, 0))
            code = sock.connect_ex((self.target, self.port))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, errno.errorcode.get(code, "connect"))
        except BaseException:
            sock.close()
            raise
        return sock


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a run may do. Refused above the ceilings, refused without an end."""

    requests_max: int
    seconds_max: float

    def __post_init__(self) -> None:
        if not 0 < self.requests_max <= REQUESTS_CEILING:
            raise LoadRefused(f"requests_max {self.requests_max} is out of bounds", f"1 to {REQUESTS_CEILING}")
        if not 0 < self.seconds_max <= SECONDS_CEILING:
            raise LoadRefused(f"seconds_max {self.seconds_max} is out of bounds", f"up to {SECONDS_CEILING:g}")


class Meter:
    """Counts a run against its bounds."""

    __slots__ = ("bounds", "ends_ns", "taken")

    def __init__(self, bounds: Bounds, start_ns: int | None = None) -> None:
        self.bounds = bounds
        self.taken = 0
        self.ends_ns = (time.monotonic_ns() if start_ns is None else start_ns) + int(bounds.seconds_max * 1e9)

    def take(self) -> bool:
        """One more request or connection: may it be made?"""
        if self.taken >= self.bounds.requests_max:
            return False
        self.taken += 1
        return True

    def spent(self, now_ns: int) -> bool:
        """The run is over: out of requests or out of time."""
        return self.taken >= self.bounds.requests_max or now_ns >= self.ends_ns


def raise_nofile() -> int:
    """As many open files as this process may have; returns that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
