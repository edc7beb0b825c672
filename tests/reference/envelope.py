"""The safety envelope, slow and obvious: every list is walked with ipaddress, every announcement remembered."""

from __future__ import annotations

import ipaddress

from scrubber.enforce.envelope import Floor, Terms

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MINUTE_NS = 60_000_000_000
NOBODY = [
    *map(ipaddress.ip_network, ("0.0.0.0/8", "127.0.0.1", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255")),
    *map(ipaddress.ip_network, ("::", "::1", "::ffff:0:0/96", "fe80::/10", "ff00::/8")),
]
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


def read(net: bytes) -> Network | None:
    """None: these bytes are no network."""
    if len(net) not in (5, 17):
        return None
    try:
        return ipaddress.ip_network((net[:-1], net[-1]), strict=True)
    except ValueError:
        return None


def known(net: bytes) -> Network:
    """Of a list that was read before."""
    found = read(net)
    assert found is not None
    return found


def any_overlap(one: Network, others: list[Network]) -> bool:
    return any(one.version == other.version and one.overlaps(other) for other in others)


def all_within(one: Network, others: list[Network]) -> bool:
    """Whether each address is in one of them, however they are cut."""
    same = list(ipaddress.collapse_addresses([other for other in others if other.version == one.version]))
    return any(one.subnet_of(other) for other in same)


class Envelope:
    """Whether each act is allowed, without a reason."""

    def __init__(self, floor: Floor, terms: Terms) -> None:
        self.never = [known(net) for net in (*floor.never, *terms.never)]
        self.named = [known(net) for each in (floor, terms) for net in each.never if net not in each.own]
        self.protects = [known(net) for net in floor.protects]
        self.widest = {4: max(floor.v4_widest, terms.v4_widest), 6: max(floor.v6_widest, terms.v6_widest)}
        self.victim_widest = {
            4: max(floor.victim_v4_widest, terms.victim_v4_widest),
            6: max(floor.victim_v6_widest, terms.victim_v6_widest),
        }
        self.both = (floor, terms)
        self.announced: list[int] = []

    def most(self, name: str) -> int:
        return min(getattr(one, name) for one in self.both)

    def allows_time(self, until_ns: int, now_ns: int) -> bool:
        return now_ns < until_ns <= now_ns + self.most("ttl_ns_max")

    def allows_source(self, net: bytes, *, local: bool, finer: bool = False) -> bool:
        one = read(net)
        if one is None or one.prefixlen < self.widest[one.version] or one.prefixlen == 0:
            return False
        if one.version == 6 and one.prefixlen > 64 and not finer:
            return False
        forbidden = [*NOBODY, *self.never, *self.protects, *([] if local else [LOOPBACK])]
        return not any_overlap(one, forbidden)

    def allows_victim(self, net: bytes) -> bool:
        one = read(net)
        if one is None or one.prefixlen < self.victim_widest[one.version]:
            return False
        rest = [other for other in self.protects if other.version == one.version]
        everything = all(other.subnet_of(one) for other in rest)
        return all_within(one, self.protects) and not everything and not any_overlap(one, [*NOBODY, *self.named])

    def allows_drop(self, net: bytes, until_ns: int, doors: int, now_ns: int, in_force: int) -> bool:
        if not self.allows_time(until_ns, now_ns) or doors not in range(1, 256):
            return False
        host = (len(net), net[-1:]) in ((5, b"\x20"), (17, b"\x40"))
        return self.allows_source(net, local=True) and in_force < self.most("hosts_max" if host else "prefixes_max")

    def allows_announcement(  # noqa: PLR0917 - as Envelope.refuse_announcement
        self, net: bytes, kind: str, until_ns: int, now_ns: int, in_force: int, again: bool
    ) -> bool:
        allowed = self.allows_victim(net) if kind == "victim" else self.allows_route(net)
        allowed = allowed and self.allows_time(until_ns, now_ns) and in_force < self.most("announcements_max")
        return allowed and (again or self.allows_pace(now_ns))

    def allows_route(self, net: bytes) -> bool:
        one = read(net)
        return one is not None and one.prefixlen >= {4: 24, 6: 48}[one.version] and self.allows_source(net, local=False)

    def allows_flow(  # noqa: PLR0917 - as Envelope.refuse_flow
        self, destination: bytes, source: bytes | None, until_ns: int, now_ns: int, in_force: int, again: bool
    ) -> bool:
        if source is None:
            allowed = self.allows_victim(destination)
        else:
            scope = read(destination)
            allowed = scope is not None and all_within(scope, self.protects) and not any_overlap(scope, NOBODY)
            allowed = allowed and self.allows_source(source, local=False, finer=True)
        allowed = allowed and self.allows_time(until_ns, now_ns) and in_force < self.most("flows_max")
        return allowed and (again or self.allows_pace(now_ns))

    def allows_pace(self, now_ns: int) -> bool:
        if sum(then > now_ns - MINUTE_NS for then in self.announced) >= self.most("announcements_per_min"):
            return False
        self.announced.append(now_ns)
        return True
