"""Drops by nftables: one table of ours, sets of networks with a timeout each, looked up for TCP to the doors alone.

Owns `table inet scrubber` (no devices named: prerouting, before connection tracking) or `table netdev scrubber` (at the
ingress of the devices in Settings). Invariants: a table of that name without our comment is never touched; every
element carries the kernel's own timeout; a change is transactions of at most BATCH elements, and what one of them is
refused for does not keep the others out.

`_held` is what we put and did not take out, so that no change has to ask the kernel which sets a network is in. When it
may be wrong (another changed our table, a transaction was refused) it is read anew and the rules are laid anew.

Before it is said which doors there are (Settings without any, until use_doors) the rules that an earlier process left
stay as they are: what it dropped is dropped all the while.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from scrubber.enforce.backend import DOORS_MAX, TABLE, Backend, Count, Door, Drop, Settings, Unavailable
from scrubber.enforce.held import Held
from scrubber.enforce.net import V4_HOST_PLEN, V6_HOST_PLEN, Net, demand_sound
from scrubber.enforce.nfnetlink import FAMILIES, NETFILTER, Monitor, Reader
from scrubber.enforce.nft_batch import FULL, Batches, Refused
from scrubber.enforce.nft_layout import (
    Cut,
    Put,
    Slot,
    cut_text,
    family_of,
    is_ours,
    put_text,
    renew_text,
    same_layout,
    slot_named,
    slot_of,
    table_text,
    tag_of,
)

DUMPS_MAX = 10  # of one set, until one confirms another
FOREVER_NS = 2**63 - 1
NS_PER_MS = 1_000_000
BITS = [[bit for bit in range(DOORS_MAX) if mask >> bit & 1] for mask in range(1 << DOORS_MAX)]

_LIBRARY = "libnftables.so.1"
_OWN_FDS = "/proc/self/fd"

Clock = Callable[[], int]


class Nft(Backend):
    name: ClassVar[str] = "nft"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._family = family_of(settings)
        self._place = f"{self._family} {TABLE}"
        self._doors: tuple[Door, ...] | None = tuple(settings.doors) or None  # None: not said yet
        self._slots: set[Slot] = set()
        self._held = Held(settings)
        self._unsure = self._told = False
        with contextlib.ExitStack() as opened:
            try:
                self._reader = opened.enter_context(contextlib.closing(Reader()))
                self._reader.probe()
                self._library, port = _library()
                self._monitor = opened.enter_context(contextlib.closing(Monitor(port)))
                self._renews = True
                self._adopt(_clock(time.monotonic_ns()))
                self._renews = self._tries_to_renew()
            except (OSError, Refused) as error:
                raise Unavailable(f"nftables: {_words(error)}") from error
            self._opened = opened.pop_all()

    # What is asked of a backend

    def apply(self, put: Mapping[Net, Drop], remove: Collection[Net], now_ns: int) -> dict[Net, str]:
        demand_sound(put)
        demand_sound(remove)
        clock = _clock(now_ns)
        try:
            self._attend(clock)
            return self._change(put, remove, clock, Batches(self._run, patient=False))
        except (OSError, Refused):
            pass  # the table or an element of it is gone, or another fills a set: see what there is, and try again
        try:
            return self._change_patiently(put, remove, clock)
        except (OSError, Refused) as error:
            self._unsure = True
            return dict.fromkeys([*put, *remove], _words(error))

    def listed(self, now_ns: int) -> dict[Net, Drop]:
        """Also lays the rules anew where another has changed them: what is listed is in force."""
        clock = _clock(now_ns)
        try:
            if not self._attend(clock):
                self._held.replace(self._read(clock))
        except Refused as error:
            raise OSError(errno.EIO, _words(error)) from error
        return dict(self._held.all_alive(clock()))

    def counted(self) -> dict[Net, Count]:
        """A put again keeps what was counted, on kernels that renew an element in place (6.12)."""
        counts: dict[Net, Count] = {}
        for slot in self._slots:
            end, elements = bytes([slot.plen]), {}
            with contextlib.suppress(FileNotFoundError):  # another has just taken it away
                elements = self._reader.elements(self._family, TABLE, slot.name).elements
            for key, element in elements.items():
                if element.packets:
                    packets, octets = counts.get(key + end, (0, 0))
                    counts[key + end] = Count(packets + element.packets, octets + element.bytes)
        return counts

    def close(self, *, withdraw: bool) -> None:
        """Left there it is an empty table when all times are up; the next process of ours adopts it."""
        try:
            if withdraw and self._whose() == tag_of(self._settings):
                self._run(f"delete table {self._place}")
        finally:
            self._opened.close()
            del self._library

    def use_doors(self, doors: Sequence[Door]) -> None:
        """OSError: the kernel did not take them; those before stay."""
        try:
            self._attend(_clock(time.monotonic_ns()))  # whose the table is may have changed
            self._lay(doors, self._slots | _host_slots(doors))
        except Refused as error:
            raise OSError(errno.EIO, _words(error)) from error
        self._doors = tuple(doors)

    def fileno(self) -> int:
        return self._monitor.fileno()

    def disturbed(self) -> bool:
        self._hear()
        told, self._told = self._told, False
        return told

    # Changes

    def _change(
        self, put: Mapping[Net, Drop], remove: Collection[Net], clock: Clock, batches: Batches
    ) -> dict[Net, str]:
        now_ns = clock()
        refused: dict[Net, str] = {}
        goes: dict[Net, int] = {net: ~0 for net in remove if net not in put}
        stays: dict[Net, Drop] = {}
        for net, drop in put.items():
            if drop.doors >> len(self._doors or ()):
                refused[net] = "there is no such door"
            elif not drop.doors or drop.until_ns - now_ns < NS_PER_MS:
                goes[net] = ~0
            else:
                stays[net] = drop
                goes[net] = ~drop.doors
        self._cut(goes, now_ns, batches)
        self._put(stays, clock, batches, refused)
        return refused | batches.refused

    def _change_patiently(self, put: Mapping[Net, Drop], remove: Collection[Net], clock: Clock) -> dict[Net, str]:
        """From what there is; a network that went in at one door and was refused at another is taken out again."""
        self._settle(clock)
        new = [net for net in put if self._held.alive(net, clock()) is None]
        batches = Batches(self._run, patient=True)
        refused = self._change(put, remove, clock, batches)
        if batches.refused:
            self._settle(clock)
            self._change({}, [net for net in new if net in batches.refused], clock, Batches(self._run, patient=True))
        return refused

    def _cut(self, goes: Mapping[Net, int], now_ns: int, batches: Batches) -> None:
        """Networks out of those of the doors that they are held at."""
        cuts: list[Cut] = []
        for net, doors in goes.items():
            drop = self._held.alive(net, now_ns)
            if drop is None or not drop.doors & doors:
                continue
            cuts += [Cut(slot_of(net, door), net) for door in BITS[drop.doors & doors]]
            if drop.doors & ~doors:
                self._held.put(net, drop._replace(doors=drop.doors & ~doors))
            else:
                self._held.cut(net)
        batches.send(_by_slot(cuts), lambda part: cut_text(self._place, part))

    def _put(self, stays: Mapping[Net, Drop], clock: Clock, batches: Batches, refused: dict[Net, str]) -> None:
        """New times first: a full set takes those."""
        now_ns = clock()
        again: list[Put] = []
        fresh: list[Put] = []
        for net, drop in stays.items():
            held = self._held.alive(net, now_ns)
            if held is None and not self._held.fits(net, now_ns):
                refused[net] = FULL
                continue
            for door in BITS[drop.doors]:
                slot = slot_of(net, door)
                if held is not None and held.doors >> door & 1:
                    again.append(Put(slot, net, drop.until_ns))
                else:
                    fresh.append(Put(slot, net, drop.until_ns))
            self._held.put(net, drop)
        slots = {each.slot for each in fresh}
        if not slots <= self._slots:
            self._lay(self._doors, self._slots | slots)
        renew = put_text if self._renews else renew_text
        batches.send(_by_slot(again), lambda part: renew(self._place, part, clock()))
        batches.send(_by_slot(fresh), lambda part: put_text(self._place, part, clock()))

    def _run(self, script: str) -> None:
        """One transaction."""
        status, _, said = self._library.cmd(script)
        if status:
            raise Refused(said)

    # The table

    def _lay(self, doors: Sequence[Door] | None, slots: set[Slot], before: str = "") -> None:
        """Sets and rules as they shall be. Where one of ours is in the way of itself (another's set under its name),
        the whole table goes first."""
        text = before + table_text(self._settings, doors, slots)
        try:
            self._run(text)
        except Refused:
            if not is_ours(self._whose() or ""):
                raise
            self._run(f"delete table {self._place}\n{text}")
            self._unsure = True
        self._slots = set(slots)

    def _whose(self) -> str | None:
        return self._reader.comment(self._family, TABLE)

    def _adopt(self, clock: Clock) -> None:
        """What an earlier process of ours left: kept as it is, or carried over where its table has other measures; a
        table of another version is replaced."""
        for device in self._settings.interfaces:
            _demand_device(device)
        before, carried = "", {}
        for family in FAMILIES:
            comment = self._reader.comment(family, TABLE)
            if comment is None:
                continue
            if not is_ours(comment):
                if family == self._family:
                    raise OSError(errno.EEXIST, f"table {family} {TABLE} is not ours: rename or delete it")
            elif family != self._family or comment != tag_of(self._settings):
                if same_layout(comment):
                    carried.update(self._read(clock, family, self._found_slots(family)))
                before += f"delete table {family} {TABLE}\n"
            else:
                self._slots = self._found_slots(family)
        self._lay(self._doors, self._slots | _host_slots(self._doors), before)
        if carried:
            self._change(carried, (), clock, Batches(self._run, patient=True))
        self._unsure = True  # who first asks waits until it is read

    def _found_slots(self, family: str) -> set[Slot]:
        return {slot for name in self._reader.sets(family, TABLE) if (slot := slot_named(name))}

    def _attend(self, clock: Clock) -> bool:
        """Whether what is held was read anew, because it had to be."""
        self._hear()
        if self._unsure:
            self._settle(clock)
            return True
        return False

    def _hear(self) -> None:
        if self._monitor.touched(self._family, TABLE):
            self._unsure = self._told = True

    def _settle(self, clock: Clock) -> None:
        """After this the rules are ours, and what is held is what there is."""
        comment = self._whose()
        if comment not in (None, tag_of(self._settings)):
            raise OSError(errno.EEXIST, f"table {self._place} is not ours any more")
        found = self._found_slots(self._family) if comment is not None else set()
        self._lay(self._doors, found | _host_slots(self._doors))
        self._held.replace(self._read(clock))
        self._unsure = False

    def _tries_to_renew(self) -> bool:
        """Whether an element put again takes its new time: kernels before 6.12 let it keep the old one."""
        name = "probe"
        add = f"add element {self._place} {name} {{ 192.0.2.1 timeout"
        make = f"add set {self._place} {name} {{ type ipv4_addr; flags timeout;}}\nflush set {self._place} {name}"
        self._run(f"{make}\n{add} 10s }}")
        self._run(f"{add} 1h }}")
        found = self._reader.elements(self._family, TABLE, name).elements.values()
        self._run(f"delete set {self._place} {name}")
        return any((element.left_ms or 0) > 60_000 for element in found)

    # Reading

    def _read(self, clock: Clock, family: str = "", slots: Iterable[Slot] = ()) -> dict[Net, Drop]:
        expected: dict[Slot, set[bytes]] = defaultdict(set)
        for net, drop in self._held.all_alive(clock()):
            for door in BITS[drop.doors]:
                expected[slot_of(net, door)].add(net[:-1])
        found: dict[Net, Drop] = {}
        for slot in slots or self._slots:
            end = bytes([slot.plen])
            for key, until_ns in self._exactly(family or self._family, slot, expected[slot], clock).items():
                net = key + end
                if other := found.get(net):
                    found[net] = Drop(max(until_ns, other.until_ns), other.doors | 1 << slot.door)
                else:
                    found[net] = Drop(until_ns, 1 << slot.door)
        return found

    def _exactly(self, family: str, slot: Slot, expected: set[bytes], clock: Clock) -> dict[bytes, int]:
        """A dump says nothing untrue but may leave elements out, without a word: it is believed when it has just what
        we hold; else dumps of one generation are joined until one brings nothing new. (The generation alone says
        nothing: it stays while the kernel rehashes and sweeps.)"""
        found: dict[bytes, int] = {}
        generation = -1
        for _ in range(DUMPS_MAX):
            now_ns = clock()
            dump = self._reader.elements(family, TABLE, slot.name)
            ends = {
                key: FOREVER_NS if left_ms is None else now_ns + left_ms * NS_PER_MS
                for key, (left_ms, _, _) in dump.elements.items()
            }
            if dump.sound and ends.keys() == expected:
                return ends
            if dump.generation != generation:
                found, generation = {}, dump.generation
            elif dump.sound and ends.keys() <= found.keys():
                return found | ends
            found |= ends
        raise OSError(errno.EAGAIN, f"set {slot.name} does not hold still")


def _clock(now_ns: int) -> Clock:
    """Goes on from the caller's time: what is sent last of many has less time left."""
    ahead_ns = now_ns - time.monotonic_ns()
    return lambda: time.monotonic_ns() + ahead_ns


def _host_slots(doors: Sequence[Door] | None) -> set[Slot]:
    """Sets that are always there."""
    plens = ((4, V4_HOST_PLEN), (6, V6_HOST_PLEN))
    return {Slot(family, plen, door) for door in range(len(doors or ())) for family, plen in plens}


def _by_slot(changes: Sequence[Any]) -> list[Any]:
    """Those of one set side by side: a command each time that it changes."""
    parts: dict[Slot, list[Any]] = defaultdict(list)
    for change in changes:
        parts[change.slot].append(change)
    return [change for part in parts.values() for change in part]


def _demand_device(name: str) -> None:
    """Kernels from 6.16 take any name, and wait for a device of that name to come."""
    try:
        socket.if_nametoindex(name)
    except OSError as error:
        raise OSError(errno.ENODEV, f"there is no device {name}") from error


def _library() -> tuple[Any, int]:
    """Libnftables, and the port id of the socket that it made for itself: changes with that id are ours."""
    try:
        ctypes.CDLL(_LIBRARY)
        import nftables  # type: ignore[import-untyped]  # noqa: PLC0415
    except (OSError, ImportError) as error:
        raise OSError(
            errno.ENOENT, f"{_LIBRARY} or its Python module is missing: apt-get install libnftables1"
        ) from error
    before = _own_sockets()
    library = nftables.Nftables()
    library.cmd("list tables")  # the kernel gives a socket its port id when it first speaks
    for inode, fd in _own_sockets().items():
        if inode in before:
            continue
        with socket.socket(fileno=os.dup(fd)) as made:
            if made.family == socket.AF_NETLINK and made.proto == NETFILTER:
                return library, made.getsockname()[0]
    raise OSError(errno.ENOTSOCK, f"{_LIBRARY} made no socket that can be found")


def _own_sockets() -> dict[str, int]:
    """File descriptors of this process's sockets, by inode."""
    found = {}
    for name in os.listdir(_OWN_FDS):
        with contextlib.suppress(OSError):  # the one of the listing itself is gone by now
            found[os.readlink(f"{_OWN_FDS}/{name}")] = int(name)
    return {inode: fd for inode, fd in found.items() if inode.startswith("socket:")}


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno == errno.EPERM:
            return "not permitted: it takes CAP_NET_ADMIN"
        return error.strerror or str(error)
    return str(error)
