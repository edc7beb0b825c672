"""Addresses, prefixes, endpoints and host names as they stand in files.

Owns their text forms. IPv4-mapped IPv6 is IPv4 everywhere; prefixes are canonical (no host bits); zone ids are refused,
and names that would have to be looked up, but for those of origins, which the supervisor resolves.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Literal

from scrubber.config.walk import Reads
from scrubber.errors import ValueRefused

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PREFIX_EXPECTED = 'a prefix as "198.51.100.0/24" or "2001:db8::/32", or an address'
ENDPOINT_EXPECTED = 'ADDRESS:PORT as "127.0.0.1:8080" or "[::1]:8080"'
ORIGIN_EXPECTED = f'{ENDPOINT_EXPECTED}, or "app.internal:8080", or "unix:/run/app.sock"'
INTERFACE_EXPECTED = 'a network interface as "eth0"'
HOST_EXPECTED = 'a host name as "example.org", or "*.example.org" for all below it'
PORT_MAX = 65535
PORT_DIGITS_MAX = 5
NAMES_HINT = "names are not looked up: write the address"
NAME_BYTES_MAX = 253
UNIX_PATH_BYTES_MAX = 107  # sun_path of sockaddr_un less its NUL

_INTERFACE = re.compile(r"[!-.0-9;-~]{1,15}")  # the kernel: IFNAMSIZ less the zero, no slash, no colon, no space
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen or to connect. For unix, `address` is the path and `port` 0; for name, a host name."""

    family: Literal["inet", "inet6", "unix", "name"]
    address: str
    port: int

    def __str__(self) -> str:
        if self.family == "unix":
            return f"unix:{self.address}"
        return f"[{self.address}]:{self.port}" if self.family == "inet6" else f"{self.address}:{self.port}"


def network(text: str) -> Network:
    """The network of a canonical prefix text; mapped IPv4 comes out as IPv4. ValueRefused."""
    hint = ""
    try:
        if "%" in text:
            raise ValueError("zone ids mean something on one machine only")
        found = ipaddress.ip_network(text, strict=False)
        if found.network_address != ipaddress.ip_interface(text).ip:
            hint = f'the prefix is "{found}"'
            raise ValueError("bits are set beyond the prefix length")
    except ValueError as e:
        raise ValueRefused(f"{text!r} is not a prefix: {e}", expected=PREFIX_EXPECTED, hint=hint) from None
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        low = int(found.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((low, found.prefixlen - 96))
    return found


def parse_prefix(value: Any) -> str:
    """Canonical text of a prefix; an address alone is its /32 or /128."""
    if not isinstance(value, str):
        raise ValueRefused(f"{value!r} is not text", expected=PREFIX_EXPECTED)
    return str(network(value.strip()))


def parse_endpoint(value: Any) -> Endpoint:
    """An address and a port; port 0 asks for any free one."""
    if not isinstance(value, str):
        raise ValueRefused(f"{value!r} is not text", expected=ENDPOINT_EXPECTED)
    host, colon, port = value.rpartition(":")
    if not colon or value.endswith("]"):
        raise ValueRefused(f"{value!r} has no port", expected=ENDPOINT_EXPECTED, hint=f'write "{value}:PORT"')
    if _is_address(value):
        meant = f"[{host}]:{port}" if _is_address(host) else f"[{value}]:PORT"
        message = f"{value!r}: IPv6 stands in brackets"
        raise ValueRefused(message, expected=ENDPOINT_EXPECTED, hint=f'write "{meant}"')
    number = port_number(port)
    if number is None:
        hint = f"a port is a number from 0 to {PORT_MAX}"
        raise ValueRefused(f"{value!r}: {port[:20]!r} is not a port", expected=ENDPOINT_EXPECTED, hint=hint)
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueRefused(f"{host!r} is not an IP address", expected=ENDPOINT_EXPECTED, hint=NAMES_HINT) from None
    if "%" in host or bracketed != isinstance(address, ipaddress.IPv6Address):
        raise ValueRefused(f"{value!r}: IPv6 stands in brackets, IPv4 does not", expected=ENDPOINT_EXPECTED)
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        raise ValueRefused(
            f"{value!r} is an IPv4-mapped address", expected=ENDPOINT_EXPECTED, hint=f'write "{mapped}:{port}"'
        )
    return Endpoint("inet6" if bracketed else "inet", str(address), number)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def port_number(text: str) -> int | None:
    """None: it is none."""
    if not text.isascii() or not text.isdigit() or len(text) > PORT_DIGITS_MAX or int(text) > PORT_MAX:
        return None
    return int(text)


def parse_origin_endpoint(value: Any) -> Endpoint:
    """As `parse_endpoint`, or a host name and a port, or a Unix socket; port 0 is nowhere to connect to."""
    if isinstance(value, str) and value.startswith("unix:"):
        path = value[5:]
        if not path.startswith("/") or "\0" in path or len(path.encode()) > UNIX_PATH_BYTES_MAX:
            raise ValueRefused(f"{value!r} is not an absolute path of a socket", expected=ORIGIN_EXPECTED)
        return Endpoint("unix", path, 0)
    name = _named_endpoint(value)
    try:
        endpoint = name or parse_endpoint(value)
    except ValueRefused as e:
        hint = "without scheme and path" if "/" in str(value) else "" if e.hint == NAMES_HINT else e.hint
        raise ValueRefused(e.message, expected=ORIGIN_EXPECTED, hint=hint) from None
    if endpoint.port == 0:
        raise ValueRefused(f"{value!r}: an origin has a port", expected=ORIGIN_EXPECTED)
    return endpoint


def _named_endpoint(value: Any) -> Endpoint | None:
    """NAME:PORT, to be looked up while the gateway runs; None: it is none. A last label of digits is an address."""
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    number = port_number(port)
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    if number is None or len(name) > NAME_BYTES_MAX:
        return None
    if labels[-1].isdigit() or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    return Endpoint("name", name, number)


def parse_host(value: Any) -> str:
    """A host name in lower case, "*." before it for all names below; or an IP literal as a Host header has it."""
    if not isinstance(value, str):
        raise ValueRefused(f"{value!r} is not text", expected=HOST_EXPECTED)
    text = value.strip().lower()
    if text.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(text[1:-1])}]" if text.endswith("]") else ""
        except ValueError:
            raise ValueRefused(f"{value!r} is not an IPv6 literal", expected=HOST_EXPECTED) from None
    if ":" in text or "/" in text:
        raise ValueRefused(
            f"{value!r} is more than a host name", expected=HOST_EXPECTED, hint="without scheme, port and path"
        )
    name = text.removeprefix("*.")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        hint = (
            "a wildcard stands for whole labels at the front" if "*" in name else "non-ASCII names in their xn-- form"
        )
        raise ValueRefused(f"{value!r} is not a host name", expected=HOST_EXPECTED, hint=hint)
    return text


def _parse_interface(value: Any) -> str:
    if isinstance(value, str) and _INTERFACE.fullmatch(value) and value not in (".", ".."):
        return value
    raise ValueRefused(f"{value!r} is not an interface's name", expected=INTERFACE_EXPECTED, hint="ip link shows them")


PREFIX = Reads(parse_prefix, "0.0.0.0/32", "prefix")
_NOWHERE = Endpoint("inet", "0.0.0.0", 0)  # noqa: S104 - stands in for what could not be read
ENDPOINT = Reads(parse_endpoint, _NOWHERE, "endpoint", str)
ORIGIN_ENDPOINT = Reads(parse_origin_endpoint, _NOWHERE, 'endpoint, `"name:port"` or `"unix:/path"`', str)
HOST = Reads(parse_host, "", "host name")
INTERFACE = Reads(_parse_interface, "", INTERFACE_EXPECTED)
