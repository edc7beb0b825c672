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

from scrubber.config.cache import Cache, check_cache
from scrubber.config.dns import Dns
from scrubber.config.enforcer import Enforcer, check_enforcer
from scrubber.config.header_edits import HeaderEdits
from scrubber.config.heads import AreaServerField, AreaViaName, AreaViaResponse, ServerField, ViaName, ViaResponse
from scrubber.config.listener import Listener, check_listeners
from scrubber.config.log import Log, check_log, resolve_log
from scrubber.config.names import NAME
from scrubber.config.network import HOST, UNIX_PATH_BYTES_MAX
from scrubber.config.origins import ORIGIN, Origin, Pool, PoolSettings, check_origins
from scrubber.config.pages import MAINTENANCE, PAGE, Maintenance, Page
from scrubber.config.routes import Route
from scrubber.config.routes_check import PageReader, check_area, check_patterns
from scrubber.config.tls import AreaTls, TlsReader, check_tls
from scrubber.config.tunnel import Tunnel, Upgrades
from scrubber.config.users import Users
from scrubber.config.walk import Derived, Doc, OneOrMore, Reads, Report, integer, measured, nearest, read
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
HEADERS_MAX = 128
HEAD_BYTES_MAX = 16384

ACCOUNT_EXPECTED = '"header:NAME", "cookie:NAME", "bearer", "basic" or "certificate"'
AccountKind = Literal["none", "header", "cookie", "bearer", "basic", "certificate"]
ACCOUNT_KINDS: tuple[AccountKind, ...] = ("none", "header", "cookie", "bearer", "basic", "certificate")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")

S = NS_PER_S
KIB = 1024
MIB = 1024 * KIB


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a request's account is read from. `name`: of the header (lower case) or the cookie."""

    kind: AccountKind = "none"
    name: str = ""


def _parse_account(value: Any) -> Account:
    word, colon, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    kind = next((k for k in ACCOUNT_KINDS if k == word), None)
    if kind in ("bearer", "basic", "certificate", "none") and not colon:
        return Account(kind)
    if kind in ("header", "cookie") and _TOKEN.fullmatch(name):
        return Account(kind, name.lower() if kind == "header" else name)
    hint = f'write "{kind}:NAME"' if kind in ("header", "cookie") else nearest(word, ACCOUNT_KINDS)
    raise ValueRefused(f"{value!r} does not say where the account is", expected=ACCOUNT_EXPECTED, hint=hint)


def _show_account(account: Account) -> str:
    return f'"{account.kind}:{account.name}"' if account.name else f'"{account.kind}"'


ACCOUNT = Reads(
    _parse_account,
    Account(),
    '`"header:NAME"`, `"cookie:NAME"`, `"bearer"`, `"basic"`, `"certificate"` (the subject of the client\'s)',
    _show_account,
)


def _time(low: str, high: str) -> Reads:
    return measured(parse_duration_ns, format_duration, parse_duration_ns(low), parse_duration_ns(high))


def _size(low: str, high: str) -> Reads:
    return measured(parse_bytes, format_bytes, parse_bytes(low), parse_bytes(high))


class AreaLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one request may take. Bytes, counts, nanoseconds."""

    line_bytes_max: Annotated[
        int,
        integer(64, HEAD_BYTES_MAX),
        Doc(
            "Bytes of the request line (414). A path is refused (414) from 2,048 bytes on, as rules and routes see it: "
            "without its query, decoded where safe, without dot segments.",
            unit="bytes",
        ),
    ] = 8192
    head_bytes_max: Annotated[int, integer(256, HEAD_BYTES_MAX), Doc("Bytes of a whole head (431).", unit="bytes")] = (
        16384
    )
    headers_max: Annotated[int, integer(1, HEADERS_MAX), Doc("Header fields of a head (431).", unit="fields")] = 100
    ranges_max: Annotated[
        int,
        integer(1, 4096),
        Doc(
            "Byte ranges that one request may ask for (416); browsers ask for one, readers of large documents for a "
            "few, and an origin answers each with a part of its own.",
            unit="ranges",
        ),
    ] = 16
    body_bytes_max: Annotated[int, _size("0B", "1TiB"), Doc("A request's body (413).")] = 64 * MIB
    head_timeout_ns: Annotated[
        int, _time("10ms", "10m"), Doc("From a head's first byte until it is complete; slowloris ends here (408).")
    ] = msgspec.field(default=10 * S, name="head_timeout")
    idle_timeout_ns: Annotated[int, _time("10ms", "1h"), Doc("Between two requests of a connection.")] = msgspec.field(
        default=60 * S, name="idle_timeout"
    )
    connect_timeout_ns: Annotated[int, _time("10ms", "1m"), Doc("Until an origin takes a connection.")] = msgspec.field(
        default=3 * S, name="connect_timeout"
    )
    read_timeout_ns: Annotated[
        int, _time("10ms", "1h"), Doc("Until the origin's first byte, and between its bytes (504).")
    ] = msgspec.field(default=60 * S, name="read_timeout")
    write_timeout_ns: Annotated[int, _time("10ms", "1h"), Doc("Without progress on an answer.")] = msgspec.field(
        default=30 * S, name="write_timeout"
    )
    body_grace_ns: Annotated[int, _time("0s", "10m"), Doc("Before the minimum rate of a body is asked for.")] = (
        msgspec.field(default=5 * S, name="body_grace")
    )
    body_bytes_per_s_min: Annotated[
        int,
        measured(parse_bytes_per_s, format_bytes_per_s, 0, 2**30),
        Doc("Minimum rate of request bodies, and of answers as the client reads them."),
    ] = msgspec.field(default=500, name="body_rate_min")
    tarpit_time_ns: Annotated[int, _time("100ms", "10m"), Doc("How long the tarpit holds a request.")] = msgspec.field(
        default=10 * S, name="tarpit_time"
    )
    origin_connections_max: Annotated[
        int,
        integer(1, 65535),
        Doc(
            "Connections to each origin (of each pool) that has no `connections_max` of its own, in use and idle, "
            "tunnels apart; workers share them out.",
            unit="connections",
        ),
    ] = 256
    origin_wait_max: Annotated[
        int,
        integer(0, 65535),
        Doc(
            "Requests that wait for one, in each pool (for each origin where it balances by hash); 503 beyond. Workers "
            "share them out.",
            unit="requests",
        ),
    ] = 1024
    origin_wait_ns: Annotated[int, _time("0s", "5m"), Doc("How long they wait (503).")] = msgspec.field(
        default=5 * S, name="origin_wait"
    )
    origin_idle_ns: Annotated[
        int,
        _time("0s", "1h"),
        Doc(
            "How long a pooled connection is kept; `0s`: not at all. One is used again only where nothing is left "
            "over: request and answer are whole, and not a byte came behind the answer."
        ),
    ] = msgspec.field(default=30 * S, name="origin_idle")


class Area(PoolSettings, frozen=True, forbid_unknown_fields=True):
    """A safe area: the hosts it answers for, the origins behind it, its limits."""

    name: Annotated[str, NAME, Doc("What mandates and logs call it.", '"portal"')]
    origins: Annotated[
        tuple[Annotated[Origin, ORIGIN], ...],
        OneOrMore(),
        Doc(
            "The protected servers, each as its address or as a table (at most 64 in a pool, 1,024 in all areas).",
            '["127.0.0.1:8000", { address = "[::1]:8001", host = "app.internal" }]',
        ),
    ]
    hosts: Annotated[
        tuple[Annotated[str, HOST], ...],
        OneOrMore(at_least=0),
        Doc(
            'Hosts that it answers for; `"*.example.org"` is all names below. The exact name wins, then the longest '
            'wildcard. IP literals as a Host header has them: `"192.0.2.1"`, `"[2001:db8::1]"`.',
            '["example.org", "*.example.org"]',
        ),
    ] = ()
    default: Annotated[bool, Doc("Answers for hosts that nobody names (else 421); at most one area.")] = False
    account: Annotated[
        Account,
        ACCOUNT,
        Doc("Where the account of a request is read: the key `account` of mandates.", '"cookie:session"'),
    ] = Account()
    keep_host: Annotated[bool, Doc("Pass the client's Host on; else the origin's own.")] = True
    pools: Annotated[
        tuple[Pool, ...],
        Doc("Further origin pools of the area, by name; its `origins` are the one without a name."),
    ] = msgspec.field(default=(), name="pool")
    routes: Annotated[
        tuple[Route, ...],
        OneOrMore(at_least=0),
        Doc(
            "Requests that are treated in a way of their own, after the rules. The first that matches wins, in the "
            "order of the file; none: the area's own origins."
        ),
    ] = msgspec.field(default=(), name="route")
    request_headers: Annotated[
        HeaderEdits | None,
        Doc(
            "Fields of requests on their way to the origin. Values may name `{client_ip}`, `{request_id}`, `{host}`, "
            "`{area}` and `{scheme}`.",
            '{ set = { X-Area = "{area}" }, remove = ["X-Debug"] }',
        ),
    ] = None
    response_headers: Annotated[
        HeaderEdits | None,
        Doc(
            "Fields of answers on their way to the client, those of routes included, refusals not. Values as above, "
            "but for `{host}`.",
            '{ set = { X-Frame-Options = "DENY" }, remove = ["X-Powered-By"] }',
        ),
    ] = None
    maintenance: Annotated[
        Maintenance | None,
        MAINTENANCE,
        Doc("Answer everything with a page that says so.", '{ file = "pages/maintenance.html", retry_after = "1h" }'),
    ] = None
    error_pages: Annotated[
        dict[str, Annotated[Page, PAGE]],
        Doc(
            "Pages for the gateway's own answers, by status or `default`; `{request_id}`, `{case}` and `{status}` in "
            "them are filled in. Clients that ask for JSON get problem details (RFC 9457) all the same.",
            '{ "502" = "pages/502.html", default = "pages/error.html" }',
            default="plain ones",
        ),
    ] = msgspec.field(default_factory=dict)
    ratelimit_fields: Annotated[bool, Doc("Send `RateLimit` and `RateLimit-Policy` with answers that throttle.")] = (
        False
    )
    via: AreaViaName = None
    via_response: AreaViaResponse = None
    server: AreaServerField = None
    limits: Annotated[AreaLimits, Doc("What one request may take.")] = AreaLimits()
    upgrade: Upgrades = ("websocket",)
    tunnel: Annotated[Tunnel, Doc("What an upgraded connection may take.")] = Tunnel()
    tls: Annotated[
        AreaTls | None, Doc("TLS: the area's certificates. Without it, it is served in clear text only.")
    ] = None
    splice: Annotated[
        bool, Doc("Move large bodies from socket to socket inside the kernel; `false`: copy them, for comparison.")
    ] = True
    cache: Annotated[Cache, Doc("Answers that are kept for a short time, so that a flood asks the origin once.")] = (
        Cache()
    )


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the whole gateway; workers share them out."""

    connections_max: Annotated[
        int,
        integer(16, 2**24),
        Doc(
            "Open client connections, tunnels among them; workers share them out. It bounds the connections to origins "
            "and the buffers (24 KiB) of a worker as well, which is why a reload cannot raise it.",
            unit="connections",
        ),
    ] = 16384
    connections_client_max: Annotated[
        int,
        integer(1, 2**24),
        Doc(
            "Of one client (IPv4 address, IPv6 /64), over all workers; trusted proxies are not counted.",
            unit="connections",
        ),
    ] = 128
    handshakes_client_per_s: Annotated[
        int,
        integer(1, 1_000_000),
        Doc(
            "TLS handshakes a second of one client, over all workers, and eight times as many at once; more are cut "
            "off before they cost anything. Trusted proxies are not counted.",
            unit="handshakes",
        ),
    ] = 50
    http2_streams_max: Annotated[
        int,
        integer(1, 1000),
        Doc("Requests of one HTTP/2 connection that are open at once.", unit="streams"),
    ] = 100
    tarpit_max: Annotated[
        int,
        integer(0, 2**24),
        Doc(
            "Requests held in the tarpit; workers share them out. Beyond it they are denied.",
            unit="requests",
        ),
    ] = 1024


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Capacities of the shared tables, in entries; rings in bytes a worker."""

    limiter_cells: Annotated[int, integer(1024, 2**30), Doc("Limits by key; 16 bytes each.", unit="cells")] = 2**20
    blocks: Annotated[int, integer(1024, 2**26), Doc("Blocked sources; 128 bytes each.", unit="entries")] = 2**17
    known: Annotated[int, integer(1024, 2**28), Doc("Known clients; 64 bytes each.", unit="entries")] = 2**18
    ladder: Annotated[int, integer(1024, 2**28), Doc("Sources on a rung; 32 bytes each.", unit="entries")] = 2**17
    ring_bytes: Annotated[int, _size("256KiB", "1GiB"), Doc("Log lines on their way out, a worker.")] = 4 * MIB
    cache: Annotated[
        int,
        _size("0B", "64GiB"),
        Doc("Answers kept by `[area.cache]`, rounded up to a power of two from 64 KiB on; `0B`: no cache.", '"64MiB"'),
    ] = 0


class Admin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The admin side: a Unix socket; its token file lies beside it."""

    socket: Annotated[
        str,
        Doc(
            "Path of the Unix socket, relative to `state_dir` (at most 107 bytes); `admin.token` (0600) lies beside "
            "it.",
            '"admin.sock"',
            default='`"admin.sock"`',
        ),
    ] = ""

    @property
    def token_file(self) -> str:
        """Where the token lies (mode 0600): admin.token beside the socket."""
        return str(Path(self.socket).parent / "admin.token")


class Gateway(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole gateway file, resolved."""

    listeners: Annotated[tuple[Listener, ...], OneOrMore(), Doc("Where clients come in (at most 64).")] = msgspec.field(
        name="listener"
    )
    areas: Annotated[tuple[Area, ...], OneOrMore(), Doc("A safe area (at most 256).")] = msgspec.field(name="area")
    workers: Annotated[
        int,
        integer(0, WORKERS_MAX),
        Doc("Processes that carry traffic.", "2", "processes", default="0: one a core"),
    ] = 0  # in the end at least 1
    state_dir: Annotated[
        str,
        Doc(
            "Directory of socket, token, access log and the blocks on disk.",
            '"/var/lib/scrubber"',
            default="`/run/scrubber` for root, else `$XDG_RUNTIME_DIR/scrubber`, else `/tmp/scrubber-UID`",
        ),
    ] = ""
    mandates: Annotated[
        tuple[str, ...],
        OneOrMore(at_least=0),
        Doc(
            "Paths of mandate files; without any, nothing may be done to anybody (a warning).",
            '["mandate.toml"]',
            default="none",
        ),
    ] = ()
    allow_unsigned: Annotated[bool, Doc("Accept mandates without a signature; every start says so.")] = False
    enforce: Annotated[bool, Doc("`false` is a dry run: everything is decided and recorded, nothing is touched.")] = (
        True
    )
    stop_deadline_ns: Annotated[
        int,
        _time("0s", "1h"),
        Doc("How long requests may take to end when the gateway stops, is upgraded, or loses a listener.", '"30s"'),
    ] = msgspec.field(default=10 * S, name="stop_deadline")
    via: ViaName = "scrubber"
    via_response: ViaResponse = False
    server: ServerField = "keep"
    admin: Annotated[Admin, Doc("The admin side.")] = Admin()
    log: Annotated[Log, Doc("Access lines and acts: see [operations](operations.md#logs).")] = Log()
    limits: Annotated[Limits, Doc("The whole gateway.")] = Limits()
    users: Annotated[Users, Doc("As whom the processes run: see [operations](operations.md#privileges).")] = Users()
    dns: Annotated[Dns, Doc("How names of origins are resolved.")] = Dns()
    enforcer: Annotated[
        Enforcer | None,
        Doc("Blocks go down into the kernel: see [operations](operations.md#the-enforcer). Without it they stay here."),
    ] = None
    memory: Annotated[
        Memory,
        Doc(
            "Capacities of the shared tables. Made at the start, never grown: `scrubber upgrade` takes up a change. "
            "When a table is full, the least harmful entry goes."
        ),
    ] = Memory()
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
    check_listeners(gateway.listeners, area_names(gateway, report), report)
    _check_areas(gateway, report)
    check_origins(gateway, report)
    check_cache(gateway, report)
    check_log(gateway.log, report)
    check_enforcer(gateway.enforcer, report)
    check_patterns(gateway.areas, report)
    for i, area in enumerate(gateway.areas):
        any_host = area.default or _is_listener_default(gateway, area.name)
        check_area(area, report, f"area[{i}]", any_host=any_host)
    home = Path(path).absolute().parent
    pages, tls = PageReader(home, report), TlsReader(home, report)
    areas = (pages.area(area, f"area[{i}]") for i, area in enumerate(gateway.areas))
    gateway = msgspec.structs.replace(
        gateway, areas=tuple(_with_tls(area, f"area[{i}]", tls) for i, area in enumerate(areas))
    )
    check_tls(gateway.areas, any(each.tls and each.tls.on for each in gateway.listeners), report)
    resolved = _resolve(gateway, Path(path).absolute())
    socket_bytes = len(resolved.admin.socket.encode())
    if socket_bytes > UNIX_PATH_BYTES_MAX:
        hint = "choose a shorter state_dir, or an absolute admin.socket"
        report.error("admin.socket", f"its path has {socket_bytes} bytes", f"at most {UNIX_PATH_BYTES_MAX}", hint)
    return resolved


def _with_tls(area: Area, here: str, tls: TlsReader) -> Area:
    """With what the files of its certificates, and of its origins', hold."""
    replace = msgspec.structs.replace

    def origins(of: tuple[Origin, ...], place: str) -> tuple[Origin, ...]:
        single = len(of) == 1
        places = [f"{place}.origins" if single else f"{place}.origins[{k}]" for k in range(len(of))]
        return tuple(replace(each, tls=tls.origin(each.tls, f"{at}.tls")) for at, each in zip(places, of, strict=True))

    return replace(
        area,
        tls=tls.area(area.tls, f"{here}.tls"),
        origins=origins(area.origins, here),
        pools=tuple(
            replace(pool, origins=origins(pool.origins, f"{here}.pool[{k}]")) for k, pool in enumerate(area.pools)
        ),
    )


def area_names(gateway: Gateway, report: Report) -> list[str] | None:
    """The names of all areas; None: not all of them could be read, so that nobody can say which do not exist."""
    if report.lost("area") or any(report.spoiled(f"area[{i}].name") for i in range(len(gateway.areas))):
        return None
    return [area.name for area in gateway.areas]


def _check_areas(gateway: Gateway, report: Report) -> None:
    names: dict[str, int] = {}
    hosts: dict[str, str] = {}
    defaults: list[int] = []
    if len(gateway.areas) > AREAS_MAX:
        report.error("area", f"{len(gateway.areas)} areas", f"at most {AREAS_MAX}")
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
        line, head = f"{here}.limits.line_bytes_max", f"{here}.limits.head_bytes_max"
        if area.limits.line_bytes_max > area.limits.head_bytes_max and not report.spoiled(line, head):
            report.error(line, "is more than the head's", "at most head_bytes_max")
        if not area.hosts and not area.default and not _may_be_default(gateway, area.name, i, report):
            hint = 'add hosts = ["…"], or default = true'
            report.warning(f"{here}.hosts", f"no request can reach area {area.name!r}", "hosts, or a default", hint)
    for i in defaults[1:]:
        report.error(f"area[{i}].default", f"area[{defaults[0]}] is the default already", "at most one default area")


def _may_be_default(gateway: Gateway, name: str, index: int, report: Report) -> bool:
    """Whether it is the default somewhere, or what would say so could not be read."""
    holes = [f"area[{index}].{key}" for key in ("name", "hosts", "default")]
    holes += [f"listener[{k}].default" for k in range(len(gateway.listeners))]
    return report.spoiled(*holes) or _is_listener_default(gateway, name)


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
    every = tuple(a.name for a in gateway.areas)
    replace = msgspec.structs.replace
    return replace(
        gateway,
        file=str(file),
        workers=gateway.workers or min(len(os.sched_getaffinity(0)), WORKERS_MAX),
        state_dir=str(state_dir),
        mandates=tuple(str(home / m) for m in gateway.mandates),
        admin=replace(gateway.admin, socket=str(state_dir / (gateway.admin.socket or "admin.sock"))),
        log=resolve_log(gateway.log, state_dir),
        listeners=tuple(li if li.areas else replace(li, areas=every) for li in gateway.listeners),
    )
