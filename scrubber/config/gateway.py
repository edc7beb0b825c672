"""The gateway file: the operator's. Its schema, its defaults, its own checks; docs/gateway.md is the reference.

Owns what a gateway is made of. A `Gateway` that `load_gateway` hands out is sound and resolved: paths absolute,
defaults filled in, names known. Mandates are named here but read elsewhere (scrubber.mandate.load).
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from scrubber.config.network import ENDPOINT, HOST, ORIGIN_ENDPOINT, PREFIX, UNIX_PATH_BYTES_MAX, Endpoint
from scrubber.config.walk import Derived, OneOrMore, Reads, Report, integer, measured, nearest, read
from scrubber.errors import Problem, ValueRefused
from scrubber.units import (
    NS_PER_S,
    format_bytes,
    format_bytes_per_s,
    format_duration,
    parse_bytes,
    parse_bytes_per_s,
    parse_duration_ns,
)

# ext/capacity.pxd; tests/unit/test_gateway_schema.py compares.
WORKERS_MAX = 64
AREAS_MAX = 256
LISTENERS_MAX = 64
ORIGINS_MAX = 256
HEADERS_MAX = 128
HEAD_BYTES_MAX = 16384

NAME_EXPECTED = 'a name of letters, digits, "-", "_" and ".", at most 64, beginning with a letter or digit'
ACCOUNT_EXPECTED = '"header:NAME", "cookie:NAME", "bearer" or "basic"'
AccountKind = Literal["none", "header", "cookie", "bearer", "basic"]
ACCOUNT_KINDS: tuple[AccountKind, ...] = ("none", "header", "cookie", "bearer", "basic")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")

S = NS_PER_S
KIB = 1024
MIB = 1024 * KIB


def _parse_name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueRefused(f"{value!r} is not a name", expected=NAME_EXPECTED)
    return value


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a request's account is read from. `name`: of the header (lower case) or the cookie."""

    kind: AccountKind = "none"
    name: str = ""


def _parse_account(value: Any) -> Account:
    word, colon, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    kind = next((k for k in ACCOUNT_KINDS if k == word), None)
    if kind in ("bearer", "basic", "none") and not colon:
        return Account(kind)
    if kind in ("header", "cookie") and _TOKEN.fullmatch(name):
        return Account(kind, name.lower() if kind == "header" else name)
    hint = f'write "{kind}:NAME"' if kind in ("header", "cookie") else nearest(word, ACCOUNT_KINDS)
    raise ValueRefused(f"{value!r} does not say where the account is", expected=ACCOUNT_EXPECTED, hint=hint)


NAME = Reads(_parse_name, "")
ACCOUNT = Reads(_parse_account, Account())


def _time(low: str, high: str) -> Reads:
    return measured(parse_duration_ns, format_duration, parse_duration_ns(low), parse_duration_ns(high))


def _size(low: str, high: str) -> Reads:
    return measured(parse_bytes, format_bytes, parse_bytes(low), parse_bytes(high))


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A protected server. `host`: sent as Host where the area does not keep the client's; empty: its address."""

    address: Annotated[Endpoint, ORIGIN_ENDPOINT]
    host: Annotated[str, HOST] = ""
    connections_max: Annotated[int, integer(0, 65535)] = 0  # a worker; 0: the area's


class AreaLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one request may take. Bytes, counts, nanoseconds."""

    line_bytes_max: Annotated[int, integer(64, HEAD_BYTES_MAX)] = 8192
    head_bytes_max: Annotated[int, integer(256, HEAD_BYTES_MAX)] = 16384
    headers_max: Annotated[int, integer(1, HEADERS_MAX)] = 100
    body_bytes_max: Annotated[int, _size("0B", "1TiB")] = 64 * MIB
    head_timeout_ns: Annotated[int, _time("10ms", "10m")] = msgspec.field(default=10 * S, name="head_timeout")
    idle_timeout_ns: Annotated[int, _time("10ms", "1h")] = msgspec.field(default=60 * S, name="idle_timeout")
    connect_timeout_ns: Annotated[int, _time("10ms", "1m")] = msgspec.field(default=3 * S, name="connect_timeout")
    read_timeout_ns: Annotated[int, _time("10ms", "1h")] = msgspec.field(default=60 * S, name="read_timeout")
    write_timeout_ns: Annotated[int, _time("10ms", "1h")] = msgspec.field(default=30 * S, name="write_timeout")
    body_grace_ns: Annotated[int, _time("0s", "10m")] = msgspec.field(default=5 * S, name="body_grace")
    body_bytes_per_s_min: Annotated[int, measured(parse_bytes_per_s, format_bytes_per_s, 0, 2**30)] = msgspec.field(
        default=500, name="body_rate_min"
    )
    tarpit_time_ns: Annotated[int, _time("100ms", "10m")] = msgspec.field(default=10 * S, name="tarpit_time")
    origin_connections_max: Annotated[int, integer(1, 65535)] = 256  # a worker
    origin_wait_max: Annotated[int, integer(0, 65535)] = 1024  # requests, a worker
    origin_wait_ns: Annotated[int, _time("0s", "5m")] = msgspec.field(default=5 * S, name="origin_wait")
    origin_idle_ns: Annotated[int, _time("0s", "1h")] = msgspec.field(default=30 * S, name="origin_idle")


def _origin_table(value: Any) -> Any:
    return {"address": value} if isinstance(value, str) else value


class Area(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A safe area: the hosts it answers for, the origins behind it, its limits."""

    name: Annotated[str, NAME]
    origins: Annotated[tuple[Origin, ...], OneOrMore(prepare=_origin_table)]
    hosts: Annotated[tuple[Annotated[str, HOST], ...], OneOrMore(at_least=0)] = ()
    default: bool = False
    account: Annotated[Account, ACCOUNT] = Account()
    keep_host: bool = True
    ratelimit_fields: bool = False
    limits: AreaLimits = AreaLimits()


class Listener(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address to accept on. Port 0: any free one. `areas`: names reachable here, in the end never empty."""

    address: Annotated[Endpoint, ENDPOINT]
    trusted_proxies: Annotated[tuple[Annotated[str, PREFIX], ...], OneOrMore(at_least=0)] = ()
    areas: Annotated[tuple[str, ...], OneOrMore()] = ()
    default: str = ""  # area for hosts that nobody names; empty: the gateway's default


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the whole gateway; workers share them out."""

    connections_max: Annotated[int, integer(16, 2**24)] = 16384
    connections_client_max: Annotated[int, integer(1, 2**24)] = 128
    tarpit_max: Annotated[int, integer(0, 2**24)] = 1024


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Capacities of the shared tables, in entries; rings in bytes a worker."""

    limiter_cells: Annotated[int, integer(1024, 2**30)] = 2**20
    blocks: Annotated[int, integer(1024, 2**26)] = 2**17
    known: Annotated[int, integer(1024, 2**28)] = 2**18
    ladder: Annotated[int, integer(1024, 2**28)] = 2**17
    ring_bytes: Annotated[int, _size("256KiB", "1GiB")] = 4 * MIB


class Admin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The admin side: a Unix socket; its token file lies beside it."""

    socket: str = ""  # in the end absolute; empty in the file: STATE_DIR/admin.sock

    @property
    def token_file(self) -> str:
        """Where the token lies (mode 0600): admin.token beside the socket."""
        return str(Path(self.socket).parent / "admin.token")


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`access`: a path (in the end absolute), "-" for stdout, "off"."""

    access: str = "access.log"


class Gateway(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole gateway file, resolved."""

    listeners: Annotated[tuple[Listener, ...], OneOrMore()] = msgspec.field(name="listener")
    areas: Annotated[tuple[Area, ...], OneOrMore()] = msgspec.field(name="area")
    workers: Annotated[int, integer(0, WORKERS_MAX)] = 0  # in the end at least 1; 0 in the file: one a core
    state_dir: str = ""
    mandates: Annotated[tuple[str, ...], OneOrMore(at_least=0)] = ()
    allow_unsigned: bool = False
    enforce: bool = True
    admin: Admin = Admin()
    log: Log = Log()
    limits: Limits = Limits()
    memory: Memory = Memory()
    file: Annotated[str, Derived()] = ""  # absolute path of the gateway file

    def area(self, name: str) -> Area | None:
        """The area of that name."""
        return next((a for a in self.areas if a.name == name), None)


def read_toml(path: str | Path, report: Report) -> dict[str, Any] | None:
    """The tree of a TOML file; None, with a problem reported, where it cannot be read."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        report.error("", f"cannot be read: {e.strerror}", "a TOML file that can be read", "check path and permissions")
    except UnicodeDecodeError as e:
        report.error("", f"is not UTF-8 (byte {e.start})", "a TOML file in UTF-8")
    except tomllib.TOMLDecodeError as e:
        report.error("", f"is not TOML: {e}", "a TOML file (https://toml.io)")
    return None


def load_gateway(path: str | Path) -> tuple[Gateway | None, list[Problem]]:
    """The gateway of a file, or None with at least one error among the problems. Its mandates are not read."""
    report = Report(str(path))
    tree = read_toml(path, report)
    gateway = read_gateway(tree, path, report) if tree is not None else None
    return (gateway if report.ok else None), report.problems


def read_gateway(tree: dict[str, Any], path: str | Path, report: Report) -> Gateway:
    """The resolved gateway of a TOML tree; of use only for further checks where `report` has an error."""
    gateway = read(Gateway, tree, report)
    _check_listeners(gateway, report)
    _check_areas(gateway, report)
    resolved = _resolve(gateway, Path(path).absolute())
    socket_bytes = len(resolved.admin.socket.encode())
    if socket_bytes > UNIX_PATH_BYTES_MAX:
        hint = "choose a shorter state_dir, or an absolute admin.socket"
        report.error("admin.socket", f"its path has {socket_bytes} bytes", f"at most {UNIX_PATH_BYTES_MAX}", hint)
    return resolved


def _check_listeners(gateway: Gateway, report: Report) -> None:
    names = {a.name for a in gateway.areas}
    seen: dict[Endpoint, int] = {}
    if len(gateway.listeners) > LISTENERS_MAX:
        report.error("listener", f"{len(gateway.listeners)} listeners", f"at most {LISTENERS_MAX}")
    for i, listener in enumerate(gateway.listeners):
        here = f"listener[{i}]"
        if listener.address.port and listener.address in seen and not report.spoiled(f"{here}.address"):
            first = seen[listener.address]
            report.error(f"{here}.address", f"{listener.address} is also listener[{first}]", "each address once")
        seen.setdefault(listener.address, i)
        for k, text in enumerate(listener.trusted_proxies):
            if text.endswith("/0"):
                hint = "anybody can forge an address then, and nobody can be blocked"
                place = f"{here}.trusted_proxies[{k}]"
                report.warning(place, f"{text} trusts everybody", "your proxies' prefixes", hint)
        for k, name in enumerate(listener.areas):
            if name not in names:
                report.error(f"{here}.areas[{k}]", f"no area {name!r}", "the name of an [[area]]", nearest(name, names))
        if listener.default and listener.default not in names:
            hint = nearest(listener.default, names)
            report.error(f"{here}.default", f"no area {listener.default!r}", "the name of an [[area]]", hint)
        elif listener.default and listener.areas and listener.default not in listener.areas:
            report.error(
                f"{here}.default", f"{listener.default!r} is not reachable here", "one of the listener's areas"
            )


def _check_areas(gateway: Gateway, report: Report) -> None:
    names: dict[str, int] = {}
    hosts: dict[str, str] = {}
    defaults: list[int] = []
    if len(gateway.areas) > AREAS_MAX:
        report.error("area", f"{len(gateway.areas)} areas", f"at most {AREAS_MAX}")
    if sum(len(a.origins) for a in gateway.areas) > ORIGINS_MAX:
        report.error("area", "too many origins", f"at most {ORIGINS_MAX} in all areas together")
    for i, area in enumerate(gateway.areas):
        here = f"area[{i}]"
        if area.name in names and not report.spoiled(f"{here}.name"):
            report.error(f"{here}.name", f"{area.name!r} is also area[{names[area.name]}]", "each name once")
        names.setdefault(area.name, i)
        for k, host in enumerate(area.hosts):
            if host and host in hosts:
                report.error(f"{here}.hosts[{k}]", f"{host!r} also belongs to area {hosts[host]!r}", "each host once")
            hosts.setdefault(host, area.name)
        if area.default:
            defaults.append(i)
        limits = area.limits
        if limits.line_bytes_max > limits.head_bytes_max and not report.spoiled(f"{here}.limits"):
            report.error(f"{here}.limits.line_bytes_max", "is more than the head's", "at most head_bytes_max")
        if not area.hosts and not area.default and not _is_listener_default(gateway, area.name):
            hint = 'add hosts = ["…"], or default = true'
            report.warning(f"{here}.hosts", f"no request can reach area {area.name!r}", "hosts, or a default", hint)
    for i in defaults[1:]:
        report.error(f"area[{i}].default", f"area[{defaults[0]}] is the default already", "at most one default area")


def _is_listener_default(gateway: Gateway, name: str) -> bool:
    return any(listener.default == name for listener in gateway.listeners)


def default_state_dir() -> str:
    """/run/scrubber for root, else a directory of the user's own."""
    if os.geteuid() == 0 and os.access("/run", os.W_OK):
        return "/run/scrubber"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return f"{runtime}/scrubber" if runtime else f"/tmp/scrubber-{os.getuid()}"  # noqa: S108 - made 0700 and checked by run


def _resolve(gateway: Gateway, file: Path) -> Gateway:
    home = file.parent
    state_dir = home / gateway.state_dir if gateway.state_dir else Path(default_state_dir())
    access = gateway.log.access
    every = tuple(a.name for a in gateway.areas)
    replace = msgspec.structs.replace
    return replace(
        gateway,
        file=str(file),
        workers=gateway.workers or min(len(os.sched_getaffinity(0)), WORKERS_MAX),
        state_dir=str(state_dir),
        mandates=tuple(str(home / m) for m in gateway.mandates),
        admin=replace(gateway.admin, socket=str(state_dir / (gateway.admin.socket or "admin.sock"))),
        log=replace(gateway.log, access=access if access in ("-", "off") else str(state_dir / access)),
        listeners=tuple(li if li.areas else replace(li, areas=every) for li in gateway.listeners),
    )
