"""Drops before the kernel has made a packet of them: an XDP program on each interface, and the maps that it reads.

Owns maps, program and links, all of them by descriptors that nobody else holds: they go when this process goes, however
it ends. So the next one starts empty, and a fork without exec that is to outlive it must close them. What the program
does stands in xdp_program.py.

How it is held: each network has a slot. A map leads from the network to the slot, an array from the slot to until when,
for which doors, and what was dropped. That array is mapped into this process: a new time is one store into memory that
the program reads, which leaves the counts alone.

Invariants:
- An entry is filled before its key is there, and silenced before its key goes; slots that were freed first are taken
  first. (A packet under way on another core may still meet a slot as it was: one packet, dropped or let through.)
- Another's program is never replaced: neither side of a link can take an interface that has one.
- Construction is all that takes privilege. Afterwards only links that got lost are made again, which takes none.

The program compares times by itself; keys of what is over are taken out when listing, and when room is needed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scrubber.enforce import bpf
from scrubber.enforce.backend import DOORS_MAX, Backend, Count, Door, Drop, Settings, Unavailable
from scrubber.enforce.net import V4_BYTES, V4_HOST_PLEN, V6_BYTES, V6_HOST_PLEN, Net, demand_sound, within
from scrubber.enforce.xdp_program import DOOR_BITS, DOOR_KEY, ENTRY, PREFIX4_BYTES, PREFIX6_BYTES, Maps, program
from scrubber.errors import ValueRefused

DOOR_ADDRESSES_MAX = 1024

_MODES = {"auto": ("native", "generic"), "native": ("native",), "generic": ("generic",)}
_FLAGS = {"native": bpf.NATIVE, "generic": bpf.GENERIC}
_FIELDS = ENTRY.size // 8  # of an entry, each 64 bits
_WORD, _PACKETS, _BYTES, _AROUND = range(_FIELDS)
_FULL = (errno.E2BIG, errno.ENOSPC)
_LINK_CHANGES = 1  # RTMGRP_LINK
_U32 = struct.Struct("=I")


@dataclass
class _Table:
    """Networks of one kind: their map, how they are written there, and the slot of each."""

    map: bpf.Map
    keys_of: Callable[[Sequence[Net]], bytes | bytearray]
    nets_of: Callable[[bytes], list[Net]]
    ending: bytes = b""  # of every host
    nested: bool = False  # prefixes
    slots: dict[Net, int] = field(default_factory=dict)


class Xdp(Backend):
    """`modes`: how the program runs, "native" or "generic", on each interface that it is on. `program`: descriptor."""

    name = "xdp"

    def __init__(self, settings: Settings) -> None:
        if not settings.interfaces:
            raise Unavailable("xdp needs interfaces: name those that clients come in by")
        if settings.xdp_mode not in _MODES:
            raise Unavailable(f"xdp_mode {settings.xdp_mode!r} is none of {', '.join(_MODES)}")
        self.modes: dict[str, str] = {}
        self._settings = settings
        self._interfaces = tuple(dict.fromkeys(settings.interfaces))
        self._links: dict[str, int] = {}
        with contextlib.ExitStack() as undo:
            self._undo = undo
            try:
                self._make_maps()
                self.use_doors(settings.doors)
                self._load()
                for interface in self._interfaces:
                    self._link(interface)
            except OSError as error:
                raise Unavailable(_refusal(error)) from error
            self._undo = undo.pop_all()

    def _make_maps(self) -> None:
        hosts, prefixes = self._settings.hosts_max, self._settings.prefixes_max
        doors = bpf.Shape(bpf.HASH, "scrub_doors", DOOR_KEY.size, _U32.size, DOOR_ADDRESSES_MAX)
        self._doors, self._spare_doors = self._map(doors), self._map(doors)
        one = bpf.Shape(bpf.ARRAY_OF_MAPS, "scrub_doors_now", _U32.size, _U32.size, 1, inner=self._doors.fd)
        self._doors_now = self._map(one)
        slots = 1 + 2 * (hosts + prefixes)  # slot 0 is none
        entries = bpf.Shape(bpf.ARRAY, "scrub_entries", _U32.size, ENTRY.size, slots, bpf.MMAPABLE)
        self._entries = self._map(entries)
        self._free = deque(range(1, slots))
        self._memory = self._undo.enter_context(memoryview(self._undo.enter_context(self._entries.mapped())))
        self._fields = self._undo.enter_context(self._memory.cast("Q"))
        hosts4 = bpf.Shape(bpf.HASH, "scrub_hosts4", 4, _U32.size, hosts)
        hosts6 = bpf.Shape(bpf.HASH, "scrub_hosts6", 8, _U32.size, hosts)
        self._tables = [
            _Table(self._map(hosts4), _host4_keys, _host4_nets, _HOST4_END),
            _Table(self._map(hosts6), _host6_keys, _host6_nets, _HOST6_END),
            self._trie("scrub_prefixes4", PREFIX4_BYTES, prefixes),
            self._trie("scrub_prefixes6", PREFIX6_BYTES, prefixes),
        ]
        # By length in bytes, then by prefix length: index of the table that a network is in.
        self._table_of = {V4_BYTES: [2] * (32 + 1), V6_BYTES: [3] * (128 + 1)}
        self._table_of[V4_BYTES][V4_HOST_PLEN] = 0
        self._table_of[V6_BYTES][V6_HOST_PLEN] = 1

    def _map(self, shape: bpf.Shape) -> bpf.Map:
        made = bpf.Map(shape)
        self._undo.callback(made.close)
        return made

    def _trie(self, name: str, key_bytes: int, most: int) -> _Table:
        made = self._map(bpf.Shape(bpf.LPM_TRIE, name, key_bytes, _U32.size, most, bpf.NO_PREALLOC))
        address_bytes = key_bytes - _U32.size

        def nets_of(keys: bytes) -> list[Net]:
            return [address + bytes([plen]) for plen, address in struct.iter_unpack(f"=I{address_bytes}s", keys)]

        return _Table(made, _prefix_keys, nets_of, nested=True)

    def _load(self) -> None:
        tables = (table.map.fd for table in self._tables)
        self.program = bpf.load_xdp(program(Maps(self._doors_now.fd, self._entries.fd, *tables)), "scrubber")
        self._undo.callback(os.close, self.program)
        self._undo.callback(self._unlink)
        self._namespace = _network_namespace()
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._watch = self._undo.enter_context(socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE))
        self._watch.bind((0, _LINK_CHANGES))

    # What is dropped

    def apply(self, put: Mapping[Net, Drop], remove: Collection[Net], now_ns: int) -> dict[Net, str]:
        self._link_again()
        over = {net for net, drop in put.items() if drop.until_ns <= now_ns}
        parts = self._parted([net for net in put if net not in over] if over else put)
        self._take_out([*remove, *over])
        refused: dict[Net, str] = {}
        for table, nets in parts:
            refused |= self._put(table, nets, put, now_ns)
        return refused

    def _parted(self, nets: Iterable[Net]) -> list[tuple[_Table, list[Net]]]:
        """By table. ValueRefused: what is no network; most can be told by how they end."""
        table_of = self._table_of
        parts: list[list[Net]] = [[] for _ in self._tables]
        for net in nets:
            try:
                parts[table_of[len(net)][net[-1]]].append(net)
            except (KeyError, IndexError):
                demand_sound([net])
        for table, part in zip(self._tables, parts, strict=True):
            demand_sound(part if table.nested else [net for net in part if not net.endswith(table.ending)])
        return [(table, part) for table, part in zip(self._tables, parts, strict=True) if part]

    def _put(self, table: _Table, nets: list[Net], put: Mapping[Net, Drop], now_ns: int) -> dict[Net, str]:
        """Keys that should be there are set again too, so what somebody took out is mended."""
        slots, fields = table.slots, self._fields
        fresh = [net for net in nets if net not in slots]
        room = self._room(table, len(fresh), now_ns)
        refused = dict.fromkeys(fresh[room:], "full")
        for net in fresh[:room]:
            slots[net] = slot = self._free.popleft()
            self._memory[slot * ENTRY.size : (slot + 1) * ENTRY.size] = bytes(ENTRY.size)
        if refused:
            nets = [net for net in nets if net not in refused]
        places = [slots[net] for net in nets]
        for net, slot in zip(nets, places, strict=True):
            until_ns, doors = put[net]
            fields[slot * _FIELDS] = until_ns - DOOR_BITS & ~DOOR_BITS | doors  # never later than asked
        if table.nested and fresh:
            self._nest(table)
        failed = table.map.set_all(table.keys_of(nets), array("I", places).tobytes())
        refused |= {nets[at]: "full" if number in _FULL else os.strerror(number) for at, number in failed.items()}
        self._take_out([nets[at] for at in failed])
        return refused

    def _room(self, table: _Table, wanted: int, now_ns: int) -> int:
        """For how many more; what is over makes room."""
        if wanted > table.map.entries_max - len(table.slots):
            self._take_out([net for net, slot in table.slots.items() if self._fields[slot * _FIELDS] <= now_ns])
        return table.map.entries_max - len(table.slots)

    def _take_out(self, nets: Iterable[Net]) -> None:
        for table, part in self._parted(nets):
            going = {net: table.slots.pop(net) for net in part if net in table.slots}
            if going:
                for slot in going.values():
                    self._fields[slot * _FIELDS + _WORD] = 0
                if table.nested:
                    self._nest(table)
                table.map.delete_all(table.keys_of(list(going)))
                self._free.extend(going.values())

    def _nest(self, table: _Table) -> None:
        """Every prefix names the one around it: in order of their bytes, that one is the last that still holds it."""
        holding: list[Net] = []
        for net in sorted(table.slots):
            while holding and not within(net, holding[-1]):
                holding.pop()
            around = table.slots[holding[-1]] if holding else 0
            self._fields[table.slots[net] * _FIELDS + _AROUND] = around
            holding.append(net)

    def listed(self, now_ns: int) -> dict[Net, Drop]:
        self._link_again()
        found: dict[Net, Drop] = {}
        over: list[Net] = []
        for table in self._tables:
            keys, values = table.map.all()
            self._learn(table, dict(zip(table.nets_of(keys), array("I", values), strict=True)))
            for net, slot in table.slots.items():
                word = self._fields[slot * _FIELDS]
                if word > now_ns:
                    found[net] = Drop(word & ~DOOR_BITS, word & DOOR_BITS)
                else:
                    over.append(net)
        self._take_out(over)
        return found

    def _learn(self, table: _Table, there: dict[Net, int]) -> None:
        """Where somebody wrote into our maps: what they added goes, what they took is not ours any more."""
        if there == table.slots:
            return
        strange = [net for net, slot in there.items() if table.slots.get(net) != slot]
        table.map.delete_all(table.keys_of(strange))
        lost = table.slots.keys() - (there.keys() - set(strange))
        self._take_out(lost)

    def counted(self) -> dict[Net, Count]:
        fields, now_ns = self._fields, time.monotonic_ns()
        return {
            net: Count(fields[at + _PACKETS], fields[at + _BYTES])
            for table in self._tables
            for net, slot in table.slots.items()
            if fields[(at := slot * _FIELDS) + _PACKETS] and fields[at] > now_ns
        }

    def use_doors(self, doors: Sequence[Door]) -> None:
        """The kernel returns from the exchange when no packet is judged by the old ones any more."""
        masks = _door_masks(doors)
        self._spare_doors.delete_all(self._spare_doors.all()[0])
        for number in self._spare_doors.set_all(b"".join(masks), array("I", masks.values()).tobytes()).values():
            raise OSError(number, os.strerror(number))
        self._doors_now.set(_U32.pack(0), _U32.pack(self._spare_doors.fd))
        self._doors, self._spare_doors = self._spare_doors, self._doors

    def close(self, *, withdraw: bool) -> None:
        """Nothing is left either way: an enforcer that is gone shuts nobody out here."""
        self._undo.close()

    # Interfaces, which come and go

    def _link(self, interface: str) -> None:
        try:
            index = socket.if_nametoindex(interface)
        except OSError as error:
            raise Unavailable(f"xdp: there is no interface {interface}") from error
        said: list[str] = []
        for mode in _MODES[self._settings.xdp_mode]:
            try:
                self._links[interface] = bpf.link_xdp(self.program, index, _FLAGS[mode])
            except OSError as error:
                if error.errno in (errno.EBUSY, errno.EEXIST):
                    raise Unavailable(f"xdp: another program is on {interface}, and stays there") from error
                said.append(f"{mode}: {error.strerror}")
            else:
                self.modes[interface] = mode
                return
        raise Unavailable(f"xdp: {interface} takes no program ({'; '.join(said)})")

    def _linked(self) -> bool:
        """Whether the program is on all interfaces; lets go of links that are on none."""
        for interface, link in list(self._links.items()):
            if not bpf.linked_to(link):
                os.close(link)
                del self._links[interface], self.modes[interface]
        return len(self._links) == len(self._interfaces)

    def _link_again(self) -> None:
        """An interface that was gone is another one, with no program. Names are those of the first namespace."""
        if self._linked() or _network_namespace() != self._namespace:
            return
        for interface in self._interfaces:
            if interface not in self._links:
                with contextlib.suppress(Unavailable):
                    self._link(interface)

    def _unlink(self) -> None:
        for link in self._links.values():
            os.close(link)
        self._links.clear()
        self.modes.clear()

    def fileno(self) -> int:
        return self._watch.fileno()

    def disturbed(self) -> bool:
        """Maps and links are changed by nobody without CAP_SYS_ADMIN; interfaces go with their program."""
        while True:
            try:
                self._watch.recv(65536)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # messages that were lost said no more than those that came
                    raise
        return not self._linked()


def _refusal(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        wanted = "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN outside of user namespaces"
        return f"xdp: loading takes {wanted} ({error.strerror})"
    return f"xdp: this kernel refused it, Linux 5.19 or later would not ({error.strerror})"


def _network_namespace() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


def _door_masks(doors: Sequence[Door]) -> dict[bytes, int]:
    """Key in the map of doors → bits of the doors that listen there."""
    masks: dict[bytes, int] = {}
    for bit, door in enumerate(doors):
        for family, address, port in door.addresses:
            key = DOOR_KEY.pack(address, socket.htons(port), family)
            masks[key] = masks.get(key, 0) | 1 << bit
    if len(doors) > DOORS_MAX or len(masks) > DOOR_ADDRESSES_MAX:
        raise ValueRefused(
            f"{len(doors)} doors with {len(masks)} addresses",
            expected=f"at most {DOORS_MAX} doors with {DOOR_ADDRESSES_MAX} addresses",
            hint="listen on every address of a family instead of each by itself",
        )
    return masks


# Networks as keys, and back. By whole lists: a hundred thousand come at once.


_HOST4_END = bytes([V4_HOST_PLEN])
_HOST6_END = bytes([*bytes(8), V6_HOST_PLEN])


def _host4_keys(nets: Sequence[Net]) -> bytearray:
    keys = bytearray().join(nets)
    del keys[4::V4_BYTES]  # the prefix lengths
    return keys


def _host4_nets(keys: bytes) -> list[Net]:
    return [key + _HOST4_END for (key,) in struct.iter_unpack("4s", keys)]


def _host6_keys(nets: Sequence[Net]) -> bytes:
    return b"".join([net[:8] for net in nets])


def _host6_nets(keys: bytes) -> list[Net]:
    return [key + _HOST6_END for (key,) in struct.iter_unpack("8s", keys)]


def _prefix_keys(nets: Sequence[Net]) -> bytes:
    return b"".join([_U32.pack(net[-1]) + net[:-1] for net in nets])
