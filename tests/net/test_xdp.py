"""Who holds the XDP program and its maps, what others can do to them, what privilege it takes, and how many fit.

The program itself: test_xdp_program.py. What clients see: test_backends.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from scrubber.enforce import bpf
from scrubber.enforce.backend import Settings, Unavailable
from scrubber.enforce.net import net_of
from scrubber.enforce.xdp import Xdp
from scrubber.enforce.xdp_program import DROP, PASS, Assembler
from tests.e2e.support import SANITIZED_SLOW
from tests.net.backends import DEVICE
from tests.net.frames import (
    ipv4,
    tcp,
)
from tests.net.intruder import detach, shown
from tests.net.space import Space, wire
from tests.net.stage import FIRST, KINS, SECOND, build
from tests.net.xdp_stage import (
    CLIENT4,
    DOORS,
    GATE4,
    OTHER4,
    PATIENCE_S,
    Opener,
    Spaces,
    answer,
    at,
    demand_bpf,
    now,
    put,
    until,
)
from tests.wanted import program

# Who holds it


@pytest.fixture
def pair(spaces: Spaces) -> Space:
    """A namespace with an end of a veth pair, "wan"."""
    gate, peer = spaces("gate"), spaces("peer")
    demand_bpf()
    wire(gate, f"wan {GATE4}/15", peer, "eth0")
    return gate


def on(gate: Space, *interfaces: str, mode: str = "auto") -> Xdp:
    with gate.inside():
        return Xdp(Settings(DOORS, interfaces, 1024, 256, mode))


@pytest.mark.parametrize(
    ("mode", "got", "kernels"), [("auto", "native", 1), ("native", "native", 1), ("generic", "generic", 2)]
)
def test_it_is_where_it_says_it_is(pair: Space, mode: str, got: str, kernels: int) -> None:
    backend = on(pair, "wan", mode=mode)
    assert backend.modes == {"wan": got}
    assert shown(pair, "wan")["mode"] == kernels
    backend.close(withdraw=False)
    assert shown(pair, "wan") == {}


def test_what_is_generic_drops_as_well(spaces: Spaces) -> None:
    """The suite of all backends runs it natively."""
    demand_bpf()
    with contextlib.ExitStack() as stack:
        stage = build(spaces)
        stack.callback(stage.end)
        backend = on(stage.gate, DEVICE, mode="generic")
        backend.use_doors(stage.doors)
        backend.apply({kin.net: until() for kin in KINS}, (), now())
        for kin in KINS:
            assert stage.shut(kin.client, FIRST, witness=kin.neighbour)
            assert stage.reaches(kin.client, SECOND)
        assert backend.counted().keys() == {kin.net for kin in KINS}
        backend.close(withdraw=True)


def test_where_the_driver_cannot_it_is_generic_or_not_at_all(pair: Space) -> None:
    backend = on(pair, "wan", "lo", "wan")
    assert backend.modes == {"wan": "native", "lo": "generic"}
    backend.close(withdraw=True)
    with pytest.raises(Unavailable, match="lo takes no program"):
        on(pair, "wan", "lo", mode="native")
    assert shown(pair, "wan") == {}, "nor on the other"


def test_the_program_goes_with_its_holder(pair: Space) -> None:
    ready, tell = os.pipe()
    holder = os.fork()
    if holder == 0:
        try:
            backend = on(pair, "wan")
            put(backend, CLIENT4)
            os.write(tell, b"held")
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(ready, 16) == b"held"
    os.close(ready)
    os.close(tell)
    assert shown(pair, "wan")
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    assert shown(pair, "wan") == {}, "its descriptors were closed when it could be waited for"


@pytest.mark.parametrize("how", ["netlink", "link"])
def test_the_program_of_another_stays(pair: Space, how: str) -> None:
    theirs = Assembler()
    theirs.exit(PASS)
    held = [bpf.load_xdp(theirs.assembled(), "theirs")]
    with pair.inside(), IPRoute() as ip:
        index = ip.link_lookup(ifname="wan")[0]
        if how == "netlink":
            ip.link("set", index=index, xdp_fd=held[0])
        else:
            held.append(bpf.link_xdp(held[0], index, bpf.GENERIC))
    before = shown(pair, "wan")
    for mode in ("auto", "native", "generic"):
        with pytest.raises(Unavailable, match="another program is on wan"):
            on(pair, "wan", mode=mode)
    assert shown(pair, "wan") == before
    for fd in held:
        os.close(fd)


def test_another_does_not_take_our_place(pair: Space) -> None:
    backend = on(pair, "wan")
    before = shown(pair, "wan")
    theirs = Assembler()
    theirs.exit(PASS)
    with contextlib.closing(os.fdopen(bpf.load_xdp(theirs.assembled(), "theirs"), "rb")) as held:
        with pair.inside(), IPRoute() as ip, pytest.raises(Exception, match="busy"):
            ip.link("set", index=ip.link_lookup(ifname="wan")[0], xdp_fd=held.fileno())
        with pytest.raises(Unavailable, match="another program"):
            on(pair, "wan")
    assert shown(pair, "wan") == before
    backend.close(withdraw=True)


def test_an_interface_that_comes_back_gets_the_program_again(pair: Space, spaces: Spaces) -> None:
    backend = on(pair, "wan", "lo")
    put(backend, CLIENT4)
    watching = backend.fileno()
    assert not backend.disturbed()
    pair.ip("link", "delete", "wan")
    assert readable(watching)
    assert backend.disturbed()
    assert backend.modes == {"lo": "generic"}
    assert backend.listed(now()).keys() == {net_of(CLIENT4)}
    pair.ip("link", "add", "wan", "type", "veth", "peer", "name", "elsewhere")
    assert readable(watching)
    assert backend.disturbed()
    other = spaces("other")
    other.ip("link", "add", "wan", "type", "veth", "peer", "name", "elsewhere")
    with other.inside():
        backend.listed(now())
    assert shown(other, "wan") == {}, "names are those of the namespace that it was opened in"
    with pair.inside():
        backend.listed(now())
    assert backend.modes == {"wan": "native", "lo": "generic"}
    assert shown(pair, "wan")["mode"] == 1
    assert not backend.disturbed()
    backend.close(withdraw=True)


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], PATIENCE_S)[0])


def test_a_link_that_somebody_took_is_made_again(pair: Space) -> None:
    backend = on(pair, "wan")
    for change in (lambda: backend.listed(now()), lambda: backend.apply({}, (), now())):
        detach(pair, "wan")
        assert shown(pair, "wan") == {}
        assert backend.disturbed()
        with pair.inside():
            change()
        assert shown(pair, "wan")
    backend.close(withdraw=True)


def test_what_somebody_wrote_into_the_maps_is_undone(opened: Opener) -> None:
    backend = opened()
    put(backend, CLIENT4, OTHER4, "198.18.1.0/24")
    hosts = backend._tables[0]
    hosts.map.delete_all(net_of(CLIENT4)[:4])
    hosts.map.set(b"\xcb\0\x71\x09", struct.pack("=I", hosts.slots[net_of(OTHER4)]))
    hosts.map.set(b"\xcb\0\x71\x0a", struct.pack("=I", 1 << 30))
    assert answer(backend, ipv4("203.0.113.10", GATE4, tcp())) == PASS, "a slot that is none"
    assert backend.listed(now()).keys() == {net_of(OTHER4), net_of("198.18.1.0/24")}
    for text in ("203.0.113.9", "203.0.113.10"):
        assert answer(backend, ipv4(text, GATE4, tcp())) == PASS
    backend.apply({}, [net_of("198.18.1.0/24")], now())
    assert answer(backend, ipv4(CLIENT4, GATE4, tcp())) == PASS
    hosts.map.delete_all(net_of(OTHER4)[:4])
    put(backend, CLIENT4, OTHER4)
    assert answer(backend, ipv4(CLIENT4, GATE4, tcp())) == DROP
    assert answer(backend, ipv4(OTHER4, GATE4, tcp())) == DROP, "put again without a look at what is there"


# Privilege


def test_once_opened_it_needs_no_capability(pair: Space) -> None:
    backend = on(pair, "wan")
    child = os.fork()
    if child == 0:
        try:
            with pair.inside():  # and never out of it: that takes privilege
                as_nobody(backend)
                os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    backend.close(withdraw=True)


def as_nobody(backend: Xdp) -> None:
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    status = Path("/proc/thread-self/status").read_text()
    assert "CapEff:\t0000000000000000" in status and "CapPrm:\t0000000000000000" in status
    with pytest.raises(PermissionError):
        bpf.load_xdp(bytes(8), "refused")
    nets = {net_of(text): until() for text in (CLIENT4, "2001:db8:1:1::/64", "198.18.1.0/24", "2001:db8::/32")}
    assert backend.apply(nets, (), now()) == {}
    assert backend.listed(now()).keys() == nets.keys()
    backend.use_doors([at((GATE4, 80))])
    assert answer(backend, ipv4(CLIENT4, GATE4, tcp(80))) == DROP
    assert answer(backend, ipv4(CLIENT4, GATE4, tcp())) == PASS
    assert backend.counted().keys() == {net_of(CLIENT4)}
    backend.apply({}, nets, now())
    assert backend.listed(now()) == {}
    # An interface that went and came back: the link is lost, and made again.
    for interface in list(backend._links):
        os.close(backend._links.pop(interface))
    backend.listed(now())
    assert backend.modes == {"wan": "native"}


@pytest.mark.parametrize(
    ("interfaces", "mode", "why"),
    [
        ((), "auto", "needs interfaces"),
        (("nowhere",), "auto", "no interface nowhere"),
        (("lo",), "fast", "xdp_mode 'fast'"),
    ],
)
def test_what_it_cannot_do_is_said_in_one_line(pair: Space, interfaces: tuple[str, ...], mode: str, why: str) -> None:
    with pytest.raises(Unavailable, match=why) as refused:
        on(pair, *interfaces, mode=mode)
    assert "\n" not in str(refused.value)


def test_without_the_privilege_it_says_which(spaces: Spaces) -> None:
    """In a user namespace nobody has it, whatever their capabilities there."""
    code = (
        "from scrubber.enforce.backend import *\n"
        "from scrubber.enforce.xdp import Xdp\n"
        "try: Xdp(Settings((), ('lo',)))\n"
        "except Unavailable as why: print(why)\n"
    )
    words = [program("unshare"), "--user", "--map-root-user", "--net", sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN" in done.stdout, done.stderr


# Many


@pytest.mark.parametrize("family", [4, 6])
def test_a_hundred_thousand_hosts(opened: Opener, family: int) -> None:
    """By this process's own time: others share the machine."""
    backend = opened(hosts_max=100_000)
    if family == 4:
        nets = [(0x0A000000 + number).to_bytes(4, "big") + b"\x20" for number in range(100_000)]
    else:
        nets = [(0x20010DB800000000 + number).to_bytes(8, "big") + bytes(8) + b"\x40" for number in range(100_000)]
    drops = dict.fromkeys(nets, until())
    taken_s = []
    for _ in range(2):
        backend.apply({}, nets, now())
        begun = time.process_time()
        assert backend.apply(drops, (), now()) == {}
        taken_s.append(time.process_time() - begun)
    found = backend.listed(now())
    assert found.keys() == drops.keys()
    assert {drop.doors for drop in found.values()} == {1}
    assert len(nets) / min(taken_s) > 300_000 / SANITIZED_SLOW
