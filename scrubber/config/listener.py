"""`[[listener]]`: where clients come in. Its keys, its own checks, and by what a listener is told from another.

Owns the identity of a listener, its address: a reload that moves listeners about in the file changes nothing. A Unix
socket's peers have no address; `UNIX_PEER` stands for them wherever one is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any

import msgspec

from scrubber.config.network import ENDPOINT, Endpoint, parse_endpoint, parse_origin_endpoint, parse_prefix
from scrubber.config.tls import LISTENER_TLS, ListenerTls
from scrubber.config.walk import Doc, OneOrMore, Reads, Report, nearest
from scrubber.errors import ValueRefused

LISTENERS_MAX = 64  # ext/capacity.pxd; tests/unit/test_gateway_schema.py compares
LISTENER_EXPECTED = 'ADDRESS:PORT as "127.0.0.1:8080" or "[::1]:8080", or "unix:/run/scrubber/http.sock"'
TRUSTED_EXPECTED = 'a prefix as "198.51.100.0/24" or "2001:db8::/32", an address, or "unix"'
MODE_EXPECTED = 'permissions in octal, as "0660"'
UNIX_PEER = "::/128"  # no machine has this address


def _parse_address(value: Any) -> Endpoint:
    try:
        if isinstance(value, str) and value.startswith("unix:"):
            return parse_origin_endpoint(value)
        return parse_endpoint(value)
    except ValueRefused as e:
        raise ValueRefused(e.message, expected=LISTENER_EXPECTED, hint=e.hint) from None


def _parse_trusted(value: Any) -> str:
    if value == "unix":
        return UNIX_PEER
    try:
        return parse_prefix(value)
    except ValueRefused as e:
        raise ValueRefused(e.message, expected=TRUSTED_EXPECTED, hint=e.hint) from None


def _parse_mode(value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
        raise ValueRefused(f"{value!r} is not a mode", expected=MODE_EXPECTED, hint="in quotes: TOML has no octal 0660")
    return int(value, 8)


def _show_mode(value: Any) -> str:
    return f'"{value:04o}"'


ADDRESS = Reads(_parse_address, ENDPOINT.hole, 'endpoint or `"unix:/path"`', ENDPOINT.show)
TRUSTED = Reads(_parse_trusted, "0.0.0.0/32", 'prefix or `"unix"`')
MODE = Reads(_parse_mode, 0o660, "permissions, octal", _show_mode)


class Listener(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address to accept on. Port 0: any free one. `areas`: names reachable here, in the end never empty."""

    address: Annotated[
        Endpoint,
        ADDRESS,
        Doc(
            'Where to listen: an endpoint, or a Unix socket as `"unix:/run/scrubber/http.sock"`. Port 0 takes any free '
            "one; the gateway says which. `[::]` is every IPv6 address and no IPv4 one: `0.0.0.0` is a listener of its "
            "own. Beside either of them a single address may stand with the same port, and takes what comes to it. "
            "Sockets that a service manager bound (`LISTEN_FDS`) serve the listener that has their address; one "
            "that no listener has ends the start.",
            '"127.0.0.1:8080"',
        ),
    ]
    mode: Annotated[
        int,
        MODE,
        Doc("Permissions of a Unix socket: who may write to it may connect.", '"0660"', default='`"0660"`'),
    ] = 0o660
    trusted_proxies: Annotated[
        tuple[Annotated[str, TRUSTED], ...],
        OneOrMore(at_least=0),
        Doc(
            "Peers whose `Forwarded` or `X-Forwarded-For` is believed, hop by hop from the right, and whose "
            "`X-Request-Id` is taken over (of anybody else it is replaced); they are never blocked. "
            '`"unix"`: whoever connects to a Unix socket.',
            '["192.0.2.0/24"]',
        ),
    ] = ()
    proxy_protocol: Annotated[
        tuple[Annotated[str, TRUSTED], ...],
        OneOrMore(at_least=0),
        Doc(
            "Peers that name their client by the PROXY protocol (v1 or v2). From these a header is required, from "
            'anybody else none is ever read; they are never blocked. `"unix"`: whoever connects to a Unix socket.',
            '["192.0.2.10"]',
        ),
    ] = ()
    tls: Annotated[
        ListenerTls | None,
        LISTENER_TLS,
        Doc("Speak TLS, with the certificates of the areas.", "true", default="clear text"),
    ] = None
    http2: Annotated[
        bool | None,
        Doc(
            "Speak HTTP/2: over TLS as the client chooses (ALPN), in clear text to who begins with its preface (prior "
            "knowledge). HTTP/1.1 is spoken besides.",
            "true",
            default="`true` with TLS, `false` in clear text",
        ),
    ] = None
    areas: Annotated[
        tuple[str, ...],
        OneOrMore(),
        Doc(
            "What can be reached here. Connections are refused at accept only where all of these areas allow it.",
            '["portal"]',
            default="all areas",
        ),
    ] = ()
    default: Annotated[str, Doc("The area for hosts that no area names.", '"portal"', default="the default area")] = ""


def listener_keys(listeners: Sequence[Listener]) -> list[str]:
    """By what each is known from one reload to the next: its address; where several ask for any port, by number."""
    keys: list[str] = []
    for listener in listeners:
        key = base = str(listener.address)
        count = 1
        while key in keys:
            count += 1
            key = f"{base}#{count}"
        keys.append(key)
    return keys


def check_listeners(listeners: Sequence[Listener], areas: Collection[str] | None, report: Report) -> None:
    """What is wrong among them; `areas`: the names that there are, None: unknown."""
    seen: dict[Endpoint, int] = {}
    if len(listeners) > LISTENERS_MAX:
        report.error("listener", f"{len(listeners)} listeners", f"at most {LISTENERS_MAX}")
    for i, listener in enumerate(listeners):
        here = f"listener[{i}]"
        address = listener.address
        fixed = address.port or address.family == "unix"
        if fixed and address in seen and not report.spoiled(f"{here}.address"):
            report.error(f"{here}.address", f"{address} is also listener[{seen[address]}]", "each address once")
        seen.setdefault(address, i)
        _check_trusted(listener, here, report)
        _check_areas(listener, here, areas, report)


def _check_trusted(listener: Listener, here: str, report: Report) -> None:
    listed = [(f"{here}.trusted_proxies[{k}]", text) for k, text in enumerate(listener.trusted_proxies)]
    listed += [(f"{here}.proxy_protocol[{k}]", text) for k, text in enumerate(listener.proxy_protocol)]
    for place, text in listed:
        if text.endswith("/0"):
            hint = "anybody can forge an address then, and nobody can be blocked"
            report.warning(place, f"{text} trusts everybody", "your proxies' prefixes", hint)
        if text == UNIX_PEER and listener.address.family != "unix" and not report.spoiled(f"{here}.address"):
            hint = "name it where the address is a Unix socket"
            report.error(place, "nobody comes from a Unix socket here", "your proxies' prefixes", hint)


def _check_areas(listener: Listener, here: str, names: Collection[str] | None, report: Report) -> None:
    for k, name in enumerate(listener.areas):
        place = f"{here}.areas[{k}]"
        if names is not None and name not in names and not report.spoiled(place):
            report.error(place, f"no area {name!r}", "the name of an [[area]]", nearest(name, names))
    if listener.default and names is not None and listener.default not in names:
        hint = nearest(listener.default, names)
        report.error(f"{here}.default", f"no area {listener.default!r}", "the name of an [[area]]", hint)
    elif listener.default not in {"", *listener.areas} and listener.areas and not report.spoiled(f"{here}.areas"):
        report.error(f"{here}.default", f"{listener.default!r} is not reachable here", "one of the listener's areas")
