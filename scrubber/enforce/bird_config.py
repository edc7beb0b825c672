"""BIRD 2 configuration: for the gateway, which announces our blackholes, and for the provider's side that obeys them.

Owns both texts. Invariants: victims are announced only from within `protects`, and sources only where they share no
address with it, whatever is in the kernel tables; nothing is imported from the provider, and nothing of these tables
gets into the machine's own routing; every value was checked, so that none can add a line of its own.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import Template

from scrubber.enforce.backend import ROUTE_PROTO
from scrubber.enforce.envelope import SOURCE_PLEN_MIN
from scrubber.enforce.net import Net, is_v4, net_text, plen, sound
from scrubber.errors import ValueRefused

Community = tuple[int, int] | tuple[int, int, int]  # RFC 1997, RFC 8092

BLACKHOLE: Community = (65535, 666)  # RFC 7999
_HOST_PLEN = {4: 32, 6: 128}
_PASSWORD = re.compile(r"[!#-\[\]-~]{1,80}")  # visible, without quotation mark and backslash


def community(parts: Sequence[int]) -> Community:
    """ValueRefused: neither of two numbers nor of three."""
    if len(parts) == 2:
        return parts[0], parts[1]
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    raise ValueRefused(f"{parts} is no community", expected="two numbers, or three")


@dataclass(frozen=True)
class Neighbour:
    """The router at the other end of a session. A session carries the family of its addresses."""

    address: str
    asn: int
    local_address: str = ""  # a multihop session needs it
    multihop: int = 0  # at most so many hops away; 0: on the same link
    password: str = ""  # RFC 2385
    next_hop: str = ""  # what is announced as such; empty: our end of the session


@dataclass(frozen=True)
class Side:
    """What our side announces, and as whom."""

    router_id: str
    asn: int
    protects: tuple[Net, ...]
    neighbours: tuple[Neighbour, ...]
    victims_table: int
    sources_table: int
    source_community: Community | None = None  # None: the provider takes no sources
    announced_max: int = 1024


def bird_config(side: Side) -> str:
    """For a BIRD on the gateway that does nothing else. ValueRefused: a value that is none."""
    head = _GATEWAY.substitute(
        victims=_number(side.victims_table),
        sources=_number(side.sources_table),
        router_id=ipaddress.IPv4Address(_address(side.router_id, 4)),
    )
    families = sorted({_family(each.address) for each in side.neighbours})
    tables = [text for family in families for text in _tables(side, family)]
    sessions = [
        _GATEWAY_SESSION.substitute(
            ends=_ends(f"scrubber_upstream{at}", each, side.asn),
            family=_family(each.address),
            next_hop=f"next hop address {_address(each.next_hop, _family(each.address))}"
            if each.next_hop
            else "next hop self",
            most=_number(side.announced_max),
        )
        for at, each in enumerate(side.neighbours, 1)
    ]
    return "\n".join([head, *tables, *sessions])


def provider_config(
    asn: int, customer: Neighbour, owns: Sequence[Net], source: Community | None = None, *, passive: bool = False
) -> str:
    """For the router at the other end, whose customer is the gateway: drops what that may have dropped, takes nothing
    else from this session. `passive`: it waits for the customer to connect."""
    family = _family(customer.address)
    mine = _of_family(owns, family)
    rules = [_rule(_victim(mine, family), [(_has(BLACKHOLE))], ["dest = RTD_BLACKHOLE", _adding((65535, 65281))])]
    if source is not None:
        rules.append(_rule(_source(mine, family), [_has(source)], ["dest = RTD_BLACKHOLE", _adding((65535, 65281))]))
    ends = _ends(f"customer{family}", customer, asn) + ("\n\tpassive;" if passive else "")
    return _PROVIDER.substitute(family=family, rules="\n".join(rules), ends=ends)


def _tables(side: Side, family: int) -> Iterable[str]:
    mine = _of_family(side.protects, family)
    yield f"ipv{family} table scrubber{family};  # what sessions announce\n"
    learned = f"krt_source = {ROUTE_PROTO}"
    rule = _rule(_victim(mine, family), [learned], [_adding(BLACKHOLE)])
    yield _KERNEL.substitute(family=family, what="victims", table=_number(side.victims_table), rule=rule)
    if side.source_community is not None:
        rule = _rule(_source(mine, family), [learned], [_adding(side.source_community)])
        yield _KERNEL.substitute(family=family, what="sources", table=_number(side.sources_table), rule=rule)


def _victim(mine: Sequence[Net], family: int) -> list[str]:
    """Conditions on a victim: one address of ours."""
    return [f"net.len = {_HOST_PLEN[family]}", f"net ~ [ {_patterns(mine, '+')} ]" if mine else "false"]


def _source(mine: Sequence[Net], family: int) -> list[str]:
    """Conditions on a source: none that holds one of ours, or that one of ours holds."""
    least, most = SOURCE_PLEN_MIN[family], _HOST_PLEN[family]
    around = f"! (net ~ [ {_patterns(mine, f'{{0,{most}}}')} ])" if mine else "true"
    return [f"net.len >= {least}", around]


def _rule(conditions: Sequence[str], more: Sequence[str], acts: Sequence[str]) -> str:
    test = " && ".join([*more, *conditions])
    return "\n".join([f"\t\t\tif {test} then {{", *(f"\t\t\t\t{act};" for act in acts), "\t\t\t\taccept;", "\t\t\t}"])


def _patterns(nets: Sequence[Net], suffix: str) -> str:
    return ", ".join(f"{ipaddress.ip_network(net_text(net))}{suffix}" for net in nets)


def _of_family(nets: Sequence[Net], family: int) -> list[Net]:
    for net in nets:
        if not sound(net) or plen(net) == 0:
            raise ValueRefused("a prefix of ours that is none, or everything", expected="a prefix as 203.0.113.0/24")
    return [net for net in nets if is_v4(net) == (family == 4)]


def _ends(name: str, neighbour: Neighbour, asn: int) -> str:
    """The lines of a session that say who talks with whom."""
    family = _family(neighbour.address)
    local = f"local {_address(neighbour.local_address, family)} " if neighbour.local_address else "local "
    lines = [
        f"protocol bgp {name} {{",
        f"\t{local}as {_number(asn)};",
        f"\tneighbor {_address(neighbour.address, family)} as {_number(neighbour.asn)};",
    ]
    if neighbour.multihop:
        if not neighbour.local_address:
            raise ValueRefused(
                "a multihop session has no local address", expected="local_address", hint="name the address it is from"
            )
        lines.append(f"\tmultihop {_number(neighbour.multihop, 255)};")
    if neighbour.password:
        if not _PASSWORD.fullmatch(neighbour.password):
            raise ValueRefused(
                "the password of a session cannot be written down",
                expected='up to 80 visible ASCII characters but " and \\',
            )
        lines.append(f'\tpassword "{neighbour.password}";')
    return "\n".join(lines)


def _has(community: Community) -> str:
    return f"{_community(community)} ~ {_attribute(community)}"


def _adding(community: Community) -> str:
    return f"{_attribute(community)}.add({_community(community)})"


def _attribute(community: Community) -> str:
    return "bgp_community" if len(community) == 2 else "bgp_large_community"


def _community(community: Community) -> str:
    most = 65535 if len(community) == 2 else 2**32 - 1
    if len(community) not in (2, 3) or not all(isinstance(part, int) and 0 <= part <= most for part in community):
        raise ValueRefused(f"{community} is no community", expected="two numbers up to 65535, or three 32-bit ones")
    return f"({', '.join(map(str, community))})"


def _number(value: int, most: int = 2**32 - 1) -> int:
    if type(value) is not int or not 0 < value <= most:
        raise ValueRefused(f"{value!r} is out of range", expected=f"a whole number from 1 to {most}")
    return value


def _family(address: str) -> int:
    try:
        return ipaddress.ip_address(address).version
    except ValueError as error:
        raise ValueRefused(f"{address!r} is no address", expected="an IPv4 or IPv6 address") from error


def _address(text: str, family: int) -> str:
    if _family(text) != family or "%" in text:
        raise ValueRefused(f"{text!r} does not fit", expected=f"an IPv{family} address without a zone")
    return str(ipaddress.ip_address(text))


_GATEWAY = Template("""\
# Printed by `scrubber enforce bird-config`. Announces the blackholes that the enforcer puts into the kernel tables
# $victims (victims) and $sources (sources); withdraws them with the enforcer. Imports nothing, and routes nothing here.
router id $router_id;

protocol device {
	scan time 2;  # devices that come or go are noticed at once; this is for a lost message
}
""")

_KERNEL = Template("""\
ipv$family table scrubber_$what$family;

protocol kernel scrubber_kernel_$what$family {
	kernel table $table;
	learn;
	scan time 2;
	ipv$family {
		table scrubber_$what$family;
		export none;
		import filter {
$rule
			print "not announced: ", net;
			reject;
		};
	};
}

protocol pipe scrubber_pipe_$what$family {
	table scrubber$family;
	peer table scrubber_$what$family;
	import all;
	export none;
}
""")

_GATEWAY_SESSION = Template("""\
$ends
	connect delay time 1;
	connect retry time 5;
	error wait time 1, 10;
	hold time 30;
	ipv$family {
		table scrubber$family;
		import none;
		export all;
		export limit $most action block;
		$next_hop;
	};
}
""")

_PROVIDER = Template("""\
$ends
	ipv$family {
		import filter {
$rules
			print "refused from a customer: ", net, " ", bgp_community;
			reject;
		};
		import limit 1024 action block;
		export none;
	};
}
""")
