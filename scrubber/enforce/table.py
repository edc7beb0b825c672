"""A routing table of ours: routes on our tun device, which go when that goes.

Owns what carries our protocol number in that table, nothing else there. Invariant: a route of another's for the same
network is left as it is, and said.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterable

from scrubber.enforce.net import Net
from scrubber.enforce.netlink import RTM_DELROUTE, RTM_NEWROUTE, RTN_UNICAST, Netlink, RouteMaker

FAMILIES = (socket.AF_INET, socket.AF_INET6)
OF_ANOTHER = "another's route is there"


class RouteTable:
    """`v4_type`: of the IPv4 routes; those of IPv6 are unicast."""

    def __init__(self, netlink: Netlink, table: int, *, v4_type: int = RTN_UNICAST) -> None:
        # 0 means none, the last three before 256 are the machine's own.
        if not 0 < table < 1 << 32 or table in (252, 253, 254, 255):
            raise ValueError(f"{table} is no routing table of one's own")
        self.number = table
        self._netlink = netlink
        self._v4_type = v4_type
        self._gone = RouteMaker(RTM_DELROUTE, table)

    def put(self, nets: Collection[Net], device: int) -> dict[Net, str]:
        """Routes to that device, for networks that have none. Returns what was refused, and why."""
        maker = RouteMaker(RTM_NEWROUTE, self.number, oif=device, v4_type=self._v4_type)
        refused = self._netlink.change(maker, list(nets))
        # There already: ours and forgotten, as by one who died, or another's.
        if there := [net for net, code in refused.items() if code == errno.EEXIST]:
            self._netlink.change(self._gone, there)
            refused = {net: code for net, code in refused.items() if code != errno.EEXIST}
            refused |= self._netlink.change(maker, there)
        return {net: OF_ANOTHER if code == errno.EEXIST else os.strerror(code) for net, code in refused.items()}

    def remove(self, nets: Iterable[Net]) -> dict[Net, str]:
        """Take ours out. Returns what could not be; what is not there is no matter."""
        refused = self._netlink.change(self._gone, list(nets))
        return {net: os.strerror(code) for net, code in refused.items() if code not in (errno.ESRCH, errno.ENOENT)}

    def held(self) -> set[Net]:
        """Ours, as the kernel says. OSError: it does not."""
        return set[Net]().union(*(self._netlink.held(self.number, family) for family in FAMILIES))

    def clear(self) -> None:
        """Take out all of ours, whoever left it. OSError: some stays."""
        if left := self.remove(self.held()):
            net, why = next(iter(left.items()))
            raise OSError(f"{len(left)} routes stay in table {self.number}, {net.hex()} for one: {why}")
