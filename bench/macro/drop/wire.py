"""The gate's network and its wire: a veth pair whose other end is the attacker's, each end with a core of its own.

What comes in at an end is taken in by a thread of the kernel's (threaded NAPI), which is pinned: so the sender's core
does nothing for the receiver, and what receiving and dropping cost is the time of one thread.

Owns the network and the mounts of this process, which go with it. Invariant: nothing is made in any other network but
the end that is put into the attacker's.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import time
from pathlib import Path
from typing import NamedTuple

from pyroute2 import IPRoute

from bench.macro.drop.attack import ATTACKER, BENCHMARKS, ENDS_PLEN, GATE
from bench.macro.drop.attacker import PERMANENT
from bench.macro.network import fresh_network
from bench.macro.procs import parse_schedstat
from bench.macro.systems import BenchError

GATE_MAC, ATTACKER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
NOBODYS_MAC = bytes.fromhex("020000000003")  # answers to a flood go there, and no further
THREADS_S = 10.0

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x2_0000, 1 << 14, 1 << 18  # unshare(2), mount(2)
_SIOCETHTOOL, _ETHTOOL_SGRO, _ETHTOOL_STSO = 0x8946, 0x2C, 0x1F  # linux/sockios.h, linux/ethtool.h
_libc = ctypes.CDLL(None, use_errno=True)


def own_network(sysfs: Path) -> None:
    """From now on this process has a network of its own; its devices' knobs are in `sysfs`, for it alone."""
    if not fresh_network():
        raise BenchError("no network namespace may be made here", "run as root")
    sysfs.mkdir()
    private = _libc.unshare(_CLONE_NEWNS) or _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    if private or _libc.mount(b"sysfs", os.fsencode(sysfs), b"sysfs", 0, None):
        raise BenchError(f"no sysfs of our own: {os.strerror(ctypes.get_errno())}", "it takes CAP_SYS_ADMIN")
    Path("/proc/sys/net/ipv4/tcp_syncookies").write_text("1", encoding="ascii")


class Arrived(NamedTuple):
    """Packets at the gate's end: those that it took in, and those for which its ring (256) had no room."""

    taken: int
    lost: int


class Wire:
    """`gate` and `far`: names of its ends, which no other device of this machine has."""

    def __init__(self, sysfs: Path) -> None:
        self.gate, self.far = f"gate{os.getpid()}", f"far{os.getpid()}"
        with IPRoute() as network:
            far = {"ifname": self.far, "address": ATTACKER_MAC.hex(":")}
            network.link("add", ifname=self.gate, kind="veth", address=GATE_MAC.hex(":"), peer=far)
            for name in (self.gate, self.far):
                _receive_by_napi(name)
                network.link("set", index=socket.if_nametoindex(name), state="up")
            for name in (self.gate, self.far):
                knob = sysfs / "class/net" / name / "threaded"
                try:
                    knob.write_text("1", encoding="ascii")
                except OSError as error:
                    raise BenchError(f"no threaded NAPI: {error.strerror}", "it takes Linux 5.13") from None

    def lead_to(self, attacker: int, *, answers: bool) -> None:
        """The far end becomes that process's. `answers`: what is sent to sources comes to it, else to nobody."""
        mac = ATTACKER_MAC if answers else NOBODYS_MAC
        with IPRoute() as network:
            network.link("set", index=socket.if_nametoindex(self.far), net_ns_pid=attacker)
            index = socket.if_nametoindex(self.gate)
            network.addr("add", index=index, address=GATE, prefixlen=ENDS_PLEN)
            network.neigh("add", dst=ATTACKER, lladdr=mac.hex(":"), ifindex=index, state=PERMANENT)
            network.route("add", dst=str(BENCHMARKS), gateway=ATTACKER, oif=index)

    def pin(self, gate_core: int, far_core: int) -> int:
        """Each end's thread to its core. The gate's thread."""
        end = time.monotonic() + THREADS_S
        while time.monotonic() < end:
            gate, far = _napi_threads(self.gate), _napi_threads(self.far)
            if len(gate) == len(far) == 1:
                os.sched_setaffinity(gate[0], {gate_core})
                os.sched_setaffinity(far[0], {far_core})
                return gate[0]
            time.sleep(0.02)
        raise BenchError("the kernel's NAPI threads are not to be seen", "not in a PID namespace")

    def arrived(self) -> Arrived:
        with IPRoute() as network:
            (link,) = network.get_links(socket.if_nametoindex(self.gate))
        counts = link.get("stats64")
        return Arrived(counts["rx_packets"], counts["rx_dropped"])


def _receive_by_napi(name: str) -> None:
    """A veth end takes in by NAPI, as cards do, where GRO is asked of it; of what sockets send only what comes from an
    end without TSO."""
    with socket.socket() as sock:
        for command, value in ((_ETHTOOL_SGRO, 1), (_ETHTOOL_STSO, 0)):
            wanted = ctypes.create_string_buffer(struct.pack("=II", command, value), 8)
            request = struct.pack("16sP16x", name.encode(), ctypes.addressof(wanted))
            try:
                fcntl.ioctl(sock, _SIOCETHTOOL, request)
            except OSError as error:
                raise BenchError(f"no NAPI on a veth pair: {error.strerror}", "it takes Linux 5.13") from None


def _napi_threads(device: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text(errors="replace").startswith(f"napi/{device}-"):
                found.append(int(entry.name))
        except OSError:  # it has just ended
            continue
    return found


def thread_ns(thread: int) -> int:
    """CPU time of a thread of the kernel's."""
    return parse_schedstat(Path(f"/proc/{thread}/schedstat").read_text(encoding="ascii"))


def protocol_counts(protocol: str) -> dict[str, int]:
    """Of this network, from /proc/net/snmp: what "Ip" or "Tcp" counts."""
    text = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii")
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith(f"{protocol}: "))
    return dict(zip(names, map(int, values), strict=True))
