"""What is routed to our tun device, until when: the part that drops here and blackholes upstream have in common.

Owns the device, the socket, the monitor and the tables that it is given, of these what carries our protocol number.
Invariants: what is remembered is what the kernel holds, and looked up again as soon as another may have changed it; the
kernel ends no route by itself, so each `apply` and `listed` first takes out what is over; and all goes with the device.
"""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping

from scrubber.enforce.backend import Drop, Unavailable
from scrubber.enforce.ends import Ends
from scrubber.enforce.net import Net, demand_sound, plen
from scrubber.enforce.netlink import DUMPS_MAX, RTN_UNICAST, Monitor, Netlink
from scrubber.enforce.table import RouteTable
from scrubber.enforce.tun import Tun

Key = tuple[Net, str]  # a network, and in which of the tables


class Routes:
    """Used by one thread. `tables`: number by name. `room`: what a key shares its room with, and how many that takes.
    Raises Unavailable."""

    def __init__(
        self,
        tun: str,
        tables: Mapping[str, int],
        room: Callable[[Key], tuple[Hashable, int]],
        *,
        v4_type: int = RTN_UNICAST,
    ) -> None:
        self._room = room
        self.repair: Callable[[], object] = lambda: None  # of what else another may have broken
        self.entries: dict[Key, Drop] = {}
        self._ends: Ends[Key] = Ends()
        self._count: Counter[Hashable] = Counter()
        self._doubt = False  # whether another may have changed something since we last looked
        self._untold = False  # and our caller was not told yet
        with contextlib.ExitStack() as opened:
            self.netlink = Netlink()
            opened.callback(self.netlink.close)
            self.tun = Tun(tun, self.netlink)  # first: it is there while another enforcer lives
            opened.callback(self.tun.close)
            self.tables = {name: RouteTable(self.netlink, table, v4_type=v4_type) for name, table in tables.items()}
            try:
                self._monitor = Monitor(self.netlink.port, list(tables.values()))
                opened.callback(self._monitor.close)
                for table in self.tables.values():
                    table.clear()
            except OSError as error:
                raise Unavailable(f"no routes of our own: {error.strerror or error}") from error
            opened.pop_all()

    def apply(self, put: Mapping[Key, Drop], remove: Iterable[Key], now_ns: int) -> dict[Key, str]:
        """As Backend.apply; "over" is another reason."""
        asked = list(remove)
        demand_sound(net for net, _ in (*put, *asked))
        self._hear()
        try:
            if self._doubt:
                self._mend()
        except OSError as error:
            return dict.fromkeys(put, error.strerror or str(error))
        self._take_out([key for key in asked if key not in put])
        self._take_out(self._ends.over(now_ns))
        refused: dict[Key, str] = {}
        fresh: list[Key] = []
        for key, drop in put.items():
            if why := self._unfit(key, drop, now_ns):
                refused[key] = why
            elif key in self.entries:
                self._note(key, drop)
            else:
                bucket, most = self._room(key)
                if self._count[bucket] >= most:
                    refused[key] = "full"
                else:
                    self._count[bucket] += 1
                    fresh.append(key)
        self._take_out(refused)  # not as it is now wanted, so not as it was either
        return refused | self._make(fresh, put)

    def listed(self, now_ns: int) -> dict[Key, Drop]:
        """All of ours, as the kernel says. OSError: it does not."""
        self._hear()
        self._take_out(self._ends.over(now_ns))
        self._mend()
        return dict(self.entries)

    def remove(self, keys: Iterable[Key]) -> None:
        self._take_out(list(keys))

    def close(self) -> None:
        self.tun.close()
        self._monitor.close()
        self.netlink.close()

    def due_ns(self) -> int | None:
        return self._ends.next_ns()

    def fileno(self) -> int:
        return self._monitor.fileno()

    def disturbed(self) -> bool:
        self._hear()
        told, self._untold = self._untold, False
        return told

    def _mend(self) -> None:
        """What another took from under us is there again, and we remember what the kernel holds; what of ours it holds
        beyond that has no end, so it goes. A dump of IPv6 routes that are removed and made meanwhile misses others, and
        has no mark of it: so one counts only if nobody was heard of while it was made."""
        for _ in range(DUMPS_MAX):
            self.tun.mend()
            self.repair()
            there = {name: table.held() for name, table in self.tables.items()}
            if not self._monitor.disturbed(self.tun.index):
                break
        else:
            raise OSError(errno.EAGAIN, "the table changed during every dump")
        for name, table in self.tables.items():
            ours = {net for net, its in self.entries if its == name}
            for net in ours - there[name]:
                self._forget((net, name))
            table.remove(there[name] - ours)
        self._doubt = False

    def _hear(self) -> None:
        if self._monitor.disturbed(self.tun.index):
            self._doubt = self._untold = True

    def _unfit(self, key: Key, drop: Drop, now_ns: int) -> str:
        net, name = key
        if name not in self.tables or plen(net) == 0:
            return "unsupported"
        return "over" if drop.until_ns <= now_ns else ""

    def _make(self, fresh: Collection[Key], put: Mapping[Key, Drop]) -> dict[Key, str]:
        """Routes for what has room already. Returns what the kernel refused."""
        refused: dict[Key, str] = {}
        for name, table in self.tables.items():
            failed = table.put([net for net, its in fresh if its == name], self.tun.index)
            refused |= {(net, name): why for net, why in failed.items()}
        for key in fresh:
            if key in refused:
                self._count[self._room(key)[0]] -= 1
            else:
                self._note(key, put[key])
        return refused

    def _take_out(self, keys: Collection[Key]) -> None:
        """What the kernel does not let go stays remembered, so that it is said and tried again."""
        for name, table in self.tables.items():
            ours = {key[0] for key in keys if key[1] == name and key in self.entries}
            stays = table.remove(ours)
            for net in ours - stays.keys():
                self._forget((net, name))

    def _note(self, key: Key, drop: Drop) -> None:
        self.entries[key] = drop
        self._ends.put(key, drop.until_ns)

    def _forget(self, key: Key) -> None:
        del self.entries[key]
        self._ends.remove(key)
        self._count[self._room(key)[0]] -= 1
