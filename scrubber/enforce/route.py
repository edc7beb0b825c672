"""Drops here by routes: where there is no nftables, the next best.

Owns table 666 (its protocol 200), the rules that look it up, and the tun device "scrub0". How it drops: the way back to
a source leads to a device that nobody reads, so no handshake completes. IPv4 packets are not even let in: the route is
of the anycast type, and no packet may come from such an address. The kernel holds that against every packet as soon as
it has a rule of somebody's, whatever rp_filter is (a unicast route needs rp_filter 1 for it, a blackhole route 1 or 2).
IPv6 has no such check: packets come in, answers die.

Invariants: all routes are on the tun, so all of them go with this process. The kernel ends no route by itself, so a
process that hangs would keep them: call `apply` or `listed` when `due_ns` says (a keeper ends a process that does not
beat). A killed process leaves its rules behind: they look up an empty table, and the next one takes them over.
A route knows no ports, so a source is dropped only where all doors are shut to it, and then nothing else on this
machine answers it either. No packets are counted.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from scrubber.enforce.backend import ROUTE_PROTO, ROUTE_TABLE, Backend, Count, Door, Drop, Settings, Unavailable
from scrubber.enforce.net import Net, is_host, is_v4, net_of
from scrubber.enforce.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    RTM_DELRULE,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWRULE,
    RTN_ANYCAST,
    Netlink,
    decoded,
)
from scrubber.enforce.routes import Key, Routes
from scrubber.enforce.table import FAMILIES

TUN = "scrub0"
RULE_PRIORITY = 666  # after the local table, before what the machine has of its own
_TO_TABLE = 1  # FR_ACT_TO_TBL
_DROPS = "drops"
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
_PROBE = net_of("192.0.2.1")  # of documentation (RFC 5737): nobody's


class Route(Backend):
    """`replies_only`: address families of which packets still come in."""

    name: ClassVar[str] = "route"

    def __init__(self, settings: Settings, *, tun: str = TUN, table: int = ROUTE_TABLE) -> None:
        self._settings = settings
        self._routes = Routes(tun, {_DROPS: table}, self._room, v4_type=RTN_ANYCAST)
        self._rules = Rules(self._routes.netlink, table)
        try:
            self._rules.withdraw()  # of one who was killed
            self._families = self._rules.ensure()
            self._routes.repair = self._rules.ensure
            self.replies_only = self._probed()
        except OSError as error:
            self.close(withdraw=True)
            raise Unavailable(f"no rule that looks up table {table}: {error.strerror or error}") from error

    def apply(self, put: Mapping[Net, Drop], remove: Collection[Net], now_ns: int) -> dict[Net, str]:
        refused = {net: "unsupported" for net, drop in put.items() if not self._supported(net, drop)}
        wanted = {(net, _DROPS): drop for net, drop in put.items() if net not in refused}
        gone = [(net, _DROPS) for net in (*remove, *refused)]
        failed = self._routes.apply(wanted, gone, now_ns)
        return refused | {net: why for (net, _), why in failed.items()}

    def listed(self, now_ns: int) -> dict[Net, Drop]:
        return {net: drop for (net, _), drop in self._routes.listed(now_ns).items()}

    def counted(self) -> dict[Net, Count]:
        return {}

    def close(self, *, withdraw: bool) -> None:
        """Either way all is gone: no route can stay until its time."""
        with contextlib.suppress(OSError):  # rules without routes do no harm
            self._rules.withdraw()
        self._routes.close()

    def use_doors(self, doors: Sequence[Door]) -> None:
        """What was dropped at all of the old doors, but not at all of the new ones, is let go."""
        self._settings = replace(self._settings, doors=tuple(doors))
        self._routes.remove([key for key, drop in self._routes.entries.items() if not self._all_doors(drop)])

    def fileno(self) -> int:
        return self._routes.fileno()

    def disturbed(self) -> bool:
        return self._routes.disturbed()

    def due_ns(self) -> int | None:
        """When the first of what is in force ends: `apply` or `listed` then takes it out. The kernel does not."""
        return self._routes.due_ns()

    def _supported(self, net: Net, drop: Drop) -> bool:
        return self._all_doors(drop) and (socket.AF_INET if is_v4(net) else socket.AF_INET6) in self._families

    def _all_doors(self, drop: Drop) -> bool:
        every = (1 << len(self._settings.doors)) - 1
        return bool(every) and drop.doors & every == every

    def _room(self, key: Key) -> tuple[Hashable, int]:
        host, v4 = is_host(key[0]), is_v4(key[0])
        return (host, v4), self._settings.hosts_max if host else self._settings.prefixes_max

    def _probed(self) -> frozenset[int]:
        """Families of which packets still come in: asks the kernel what it would do with one from the probe."""
        table, device = self._routes.tables[_DROPS], self._routes.tun.index
        question = rtmsg()
        question["family"], question["dst_len"], question["src_len"] = socket.AF_INET, 32, 32
        question["attrs"] = [
            ("RTA_SRC", socket.inet_ntoa(_PROBE[:-1])),
            ("RTA_DST", "255.255.255.255"),  # taken in on every interface, after a look at where it comes from
            ("RTA_IIF", device),
        ]
        if table.put([_PROBE], device):
            return frozenset({4, 6})
        try:
            self._routes.netlink.ask(RTM_GETROUTE, question)
        except OSError as error:
            return frozenset({6} if error.errno in (errno.EINVAL, errno.EXDEV) else {4, 6})
        finally:
            table.remove([_PROBE])
        return frozenset({4, 6})


class Rules:
    """Those that look our table up, one a family, known by their protocol number."""

    def __init__(self, netlink: Netlink, table: int) -> None:
        self._netlink = netlink
        self._table = table

    def ensure(self) -> tuple[int, ...]:
        """Families that have it now. OSError: none can."""
        made = []
        for family in FAMILIES:
            try:
                self._change(RTM_NEWRULE, family, NLM_F_CREATE | NLM_F_EXCL)
            except OSError as error:
                if error.errno in _NO_SUCH_FAMILY:
                    continue
                if error.errno != errno.EEXIST:
                    raise
            made.append(family)
        return tuple(made)

    def withdraw(self) -> None:
        for family in FAMILIES:
            for _ in range(self._there(family)):
                self._change(RTM_DELRULE, family)

    def _there(self, family: int) -> int:
        question = fibmsg()
        question["family"] = family
        try:
            found = self._netlink.ask(RTM_GETRULE, question, NLM_F_DUMP)
        except OSError as error:
            if error.errno in _NO_SUCH_FAMILY:
                return 0
            raise
        rules = [decoded(fibmsg, body) for body in found]
        ours = (RULE_PRIORITY, self._table, ROUTE_PROTO)
        return sum((r.get("priority"), r.get("table"), r.get("FRA_PROTOCOL")) == ours for r in rules)

    def _change(self, kind: int, family: int, flags: int = 0) -> None:
        rule = fibmsg()
        rule["family"], rule["action"] = family, _TO_TABLE
        rule["attrs"] = [
            ("FRA_TABLE", self._table),
            ("FRA_PRIORITY", RULE_PRIORITY),
            ("FRA_PROTOCOL", ROUTE_PROTO),
        ]
        self._netlink.ask(kind, rule, flags)
