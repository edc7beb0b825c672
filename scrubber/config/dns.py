"""[dns]: how names of origins are resolved."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

import msgspec

from scrubber.config.network import NAMES_HINT, Endpoint, parse_endpoint
from scrubber.config.walk import Doc, OneOrMore, Reads, measured
from scrubber.errors import ValueRefused
from scrubber.units import NS_PER_S, format_duration, parse_duration_ns

DNS_PORT = 53
SERVER_EXPECTED = 'an address as "192.0.2.53" or "[2001:db8::53]", with a port where it is not 53'


def _parse_server(value: Any) -> Endpoint:
    text = value if isinstance(value, str) else ""
    try:
        alone = str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        alone = ""
    if not alone and ":" not in text:
        raise ValueRefused(f"{value!r} is not an IP address", expected=SERVER_EXPECTED, hint=NAMES_HINT)
    try:
        endpoint = parse_endpoint((f"[{alone}]" if ":" in alone else alone) + f":{DNS_PORT}" if alone else text)
    except ValueRefused as error:
        raise ValueRefused(error.message, expected=SERVER_EXPECTED, hint=error.hint) from None
    if endpoint.port == 0:
        raise ValueRefused(f"{value!r}: a server has a port", expected=SERVER_EXPECTED)
    return endpoint


SERVER = Reads(_parse_server, Endpoint("inet", "0.0.0.0", DNS_PORT), "address, or address:port")  # noqa: S104


def _time(low: str, high: str) -> Reads:
    return measured(parse_duration_ns, format_duration, parse_duration_ns(low), parse_duration_ns(high))


class Dns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names that stand in the machine's hosts file are not asked for."""

    servers: Annotated[
        tuple[Annotated[Endpoint, SERVER], ...],
        OneOrMore(at_least=0),
        Doc("Whom to ask.", '["192.0.2.53", "127.0.0.1:5353"]', default="those of /etc/resolv.conf"),
    ] = ()
    timeout_ns: Annotated[int, _time("100ms", "30s"), Doc("For an answer, over all servers.")] = msgspec.field(
        default=2 * NS_PER_S, name="timeout"
    )
    ttl_min_ns: Annotated[
        int, _time("1s", "1h"), Doc("No name is asked for more often, however short its TTL.")
    ] = msgspec.field(default=5 * NS_PER_S, name="ttl_min")
    ttl_max_ns: Annotated[
        int, _time("1s", "1d"), Doc("Every name is asked for this often, however long its TTL.")
    ] = msgspec.field(default=300 * NS_PER_S, name="ttl_max")
