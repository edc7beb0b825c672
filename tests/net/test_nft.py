"""What is nftables' own, beyond what every backend promises (tests/net/test_backends.py): whose the table is, packets
of odd shapes, the kernel's word about one element of many, figures.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable

import pytest

from scrubber.enforce import nft as nft_module
from scrubber.enforce import nft_layout
from scrubber.enforce.backend import TABLE, Drop, Settings, Unavailable
from scrubber.enforce.net import Net, net_of
from scrubber.enforce.nft import Nft
from scrubber.enforce.nft_batch import BATCH, FULL, Batches, Refused
from scrubber.enforce.nft_layout import Cut, Put, Slot, cut_text, put_text, slot_named
from tests.e2e.support import SANITIZED_SLOW
from tests.net.space import Space
from tests.net.stage import FIRST, NS, SECOND, V4, V6, Kin, Stage, door, eventually, now, until
from tests.net.test_backends import of_both, same
from tests.wanted import program

MANY = 100_000
RATE_MIN = 50_000  # hosts put in a second of CPU
NOBODY = 65534
both_hooks = pytest.mark.parametrize("name", ["nft", "nft-ingress"])


def opened(gate: Space, **settings: object) -> Nft:
    with gate.inside():
        return Nft(Settings(**{"doors": (door(FIRST), door(SECOND)), **settings}))  # type: ignore[arg-type]


def rules(gate: Space, script: str) -> str:
    """Another's nft."""
    return gate.run(program("nft"), "-f", "-", input=script)


def listing(gate: Space) -> str:
    return gate.run(program("nft"), "list", "ruleset")


# Figures


def test_a_hundred_thousand_hosts(gate: Space) -> None:
    """Put; dumped while the kernel still rehashes; read by a process that starts with nothing, and taken out by it."""
    first = opened(gate, hosts_max=MANY)
    wanted = {V4.many(number): until(3600) for number in range(MANY)}
    put_s = _cpu_s(lambda: first.apply(wanted, (), now()))
    dump = first._reader.elements("inet", TABLE, Slot(4, 32, 0).name)
    assert len(dump.elements) == MANY or not dump.sound, "a dump that leaves some out shows it"
    first.close(withdraw=False)
    begun = time.monotonic()
    second = opened(gate, hosts_max=MANY)
    found = second.listed(now())
    read_s = time.monotonic() - begun
    cut_s = _cpu_s(lambda: second.apply({}, wanted, now()))
    print(f"{MANY} hosts: {put_s:.2f} s of CPU to put, {cut_s:.2f} to take out; {read_s:.2f} s to read from cold")
    assert same(found, wanted)
    assert second.listed(now()) == {}
    assert MANY / max(put_s, cut_s) >= RATE_MIN / SANITIZED_SLOW
    second.close(withdraw=True)


def _cpu_s(change: Callable[[], dict[Net, str]]) -> float:
    """Of this process, kernel and all: others on the machine do not count."""
    begun = time.process_time()
    assert change() == {}
    return time.process_time() - begun


def test_one_is_in_the_kernel_within_milliseconds(gate: Space) -> None:
    """Among fifty thousand, and networks within one another."""
    backend = opened(gate)
    backend.apply({V4.many(number): until(3600) for number in range(50_000)}, (), now())
    took = []
    for number in range(200):
        begun = time.process_time()
        assert backend.apply({V6.many(number): until(60), V4.net: until(60, 0b11)}, (), now()) == {}
        took.append(time.process_time() - begun)
    assert sorted(took)[len(took) // 2] < 0.005
    backend.close(withdraw=True)


# Packets


@both_hooks
@of_both
def test_options_do_not_carry_a_packet_past(stage: Stage, name: str, kin: Kin) -> None:
    """Behind options of IPv4 and headers of IPv6 the port stands elsewhere."""
    backend = stage.open(name)
    backend.apply({kin.net: until(60)}, (), now())
    before = backend.counted().get(kin.net)
    with stage.peer.inside():
        call = socket.socket(socket.AF_INET if kin is V4 else socket.AF_INET6, socket.SOCK_STREAM)
    with call:
        if kin is V4:
            call.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 12)
        else:
            call.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, b"\x00\x00\x01\x04" + bytes(4))
            call.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, b"\x00\x00\x01\x04" + bytes(4))
        call.setblocking(False)
        call.bind((kin.client, 0))
        call.connect_ex((kin.gate, FIRST))
        assert before is None
        assert eventually(lambda: kin.net in backend.counted())
        assert not select.select([], [call], [], 0.1)[1]


@pytest.mark.parametrize(
    ("tags", "fragment"), [(0, 0), (1, 0), (0, 0x2000)], ids=["plain", "VLAN tag", "first fragment"]
)
def test_frames_at_ingress(stage: Stage, tags: int, fragment: int) -> None:
    backend = stage.open("nft-ingress")
    backend.apply({V4.net: until(60)}, (), now())
    with stage.peer.inside():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    source, target = (socket.inet_aton(address) for address in (V4.client, V4.gate))
    tcp = struct.pack("!HHIIBBHHH", 4000, FIRST, 1, 0, 5 << 4, 2, 1024, 0, 0)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, fragment, 64, socket.IPPROTO_TCP, 0) + source + target
    with wire:
        wire.bind(("eth0", 0))
        wire.send(b"\xff" * 6 + b"\x02" * 6 + b"\x81\0\0\x07" * tags + b"\x08\0" + ip + tcp + bytes(20))
    assert eventually(lambda: backend.counted().get(V4.net) is not None)
    assert backend.counted()[V4.net].packets == 1


def test_every_length_of_prefix(gate: Space) -> None:
    backend = opened(gate, hosts_max=10, prefixes_max=200)
    wanted = {(0).to_bytes(4, "big") + bytes([plen]): until(60) for plen in range(33)}
    wanted |= {bytes(16) + bytes([plen]): until(60) for plen in range(129)}
    assert backend.apply(wanted, (), now()) == {}
    assert same(backend.listed(now()), wanted)
    assert backend.apply({}, wanted, now()) == {}
    assert backend.listed(now()) == {}
    backend.close(withdraw=True)


@both_hooks
def test_prefixes_of_odd_lengths_shut(stage: Stage, name: str) -> None:
    backend = stage.open(name)
    for text, kin in (("198.18.0.0/23", V4), ("0.0.0.0/0", V4), ("2001:db8:1:1::4/126", V6), ("::/0", V6)):
        net = net_of(text)
        backend.apply({net: until(60)}, (), now())
        assert _is_shut(stage, kin.client, FIRST)
        backend.apply({}, [net], now())
        assert stage.reaches(kin.client, FIRST)


def _is_shut(stage: Stage, source: str, port: int) -> bool:
    other = V6 if source == V4.client else V4
    return stage.shut(source, port, witness=other.outsider)


# Whose the table is


@pytest.mark.parametrize("comment", ["", 'comment "their own";'])
def test_a_table_of_our_name_that_is_not_ours_is_left_alone(gate: Space, comment: str) -> None:
    rules(gate, f"table inet {TABLE} {{ {comment} set v4_32_door0 {{ type ipv4_addr; }}; }}")
    before = listing(gate)
    with pytest.raises(Unavailable, match="not ours: rename or delete it"):
        opened(gate)
    assert listing(gate) == before


def test_a_table_that_becomes_anothers_is_left_alone(gate: Space) -> None:
    backend = opened(gate)
    backend.apply({V4.net: until(60)}, (), now())
    rules(gate, f"delete table inet {TABLE}; table inet {TABLE} {{ set mine {{ type ipv4_addr; }}; }}")
    before = listing(gate)
    assert backend.disturbed()
    with pytest.raises(OSError, match="not ours any more"):
        backend.listed(now())
    refused = backend.apply({V4.net: until(60)}, [V6.net], now())
    assert refused.keys() == {V4.net, V6.net} and "not ours" in refused[V4.net]
    with pytest.raises(OSError, match="not ours any more"):
        backend.use_doors((door(SECOND),))
    backend.close(withdraw=True)
    assert listing(gate) == before


def test_a_table_of_another_version_is_replaced(gate: Space) -> None:
    rules(gate, f'table inet {TABLE} {{ comment "scrubber layout 0 whatever"; set old {{ type ipv4_addr; }}; }}')
    backend = opened(gate)
    assert "set old" not in listing(gate)
    assert backend.listed(now()) == {}
    backend.close(withdraw=True)


def test_what_is_in_force_is_carried_over_to_other_measures(gate: Space) -> None:
    """Sets have another size, or the hook is another: a new table, in one transaction with the end of the old one."""
    gate.ip("link", "add", "in0", "type", "veth", "peer", "name", "in1")
    wanted = {V4.net: until(600), V6.prefix: until(600, 0b11)}
    for settings in ({}, {"hosts_max": 100}, {"interfaces": ("in0",)}, {"interfaces": ("in0", "lo")}, {}):
        backend = opened(gate, **settings)  # type: ignore[arg-type]
        if not settings:
            backend.apply(wanted, (), now())
        assert same(backend.listed(now()), wanted)
        assert listing(gate).count(f" {TABLE} {{") == 1
        backend.close(withdraw=False)


def test_a_set_that_another_put_in_the_place_of_ours(gate: Space) -> None:
    backend = opened(gate)
    name = Slot(4, 32, 0).name
    rules(gate, f"flush chain inet {TABLE} door0_v4; delete set inet {TABLE} {name}")
    rules(gate, f"add set inet {TABLE} {name} {{ type inet_service; }}")
    wanted = {V4.net: until(60)}
    assert backend.apply(wanted, (), now()) == {}
    assert same(backend.listed(now()), wanted)
    backend.close(withdraw=True)


# Others at work


@both_hooks
def test_rules_that_somebody_flushed_are_laid_again(stage: Stage, name: str) -> None:
    backend = stage.open(name)
    wanted = {V4.net: until(60), V6.net: until(60)}
    backend.apply(wanted, (), now())
    family = "inet" if name == "nft" else "netdev"
    rules(stage.gate, f"flush table {family} {TABLE}")
    assert stage.reaches(V4.client, FIRST)
    assert backend.disturbed() and not backend.disturbed()
    assert same(backend.listed(now()), wanted)
    assert stage.shut(V4.client, FIRST, witness=V4.neighbour)


def test_what_another_put_into_our_sets_is_listed(gate: Space) -> None:
    backend = opened(gate)
    rules(gate, f"add element inet {TABLE} {Slot(4, 32, 1).name} {{ 192.0.2.1, 192.0.2.2 timeout 1m }}")
    assert backend.disturbed()
    found = backend.listed(now())
    assert found[net_of("192.0.2.1")] == Drop(nft_module.FOREVER_NS, 0b10)
    assert abs(found[net_of("192.0.2.2")].until_ns - until(60).until_ns) < NS
    assert backend.apply({}, found, now()) == {}
    assert backend.listed(now()) == {}
    backend.close(withdraw=True)


def test_other_tables_wake_but_do_not_disturb(gate: Space) -> None:
    backend = opened(gate)
    rules(gate, "table inet operator { chain c { tcp dport 80 accept; }; }")
    rules(gate, f"table ip {TABLE} {{ chain c {{ tcp dport 80 accept; }}; }}")
    assert select.select([backend.fileno()], [], [], 10)[0]
    assert not backend.disturbed()
    assert not select.select([backend.fileno()], [], [], 0)[0]
    backend.apply({V4.many(number): until(60) for number in range(5 * BATCH)}, (), now())
    assert not select.select([backend.fileno()], [], [], 0.05)[0], "our own changes do not even wake"
    backend.close(withdraw=True)


def test_lost_messages_count_as_a_disturbance(gate: Space) -> None:
    backend = opened(gate)
    rules(gate, "table inet operator { set s { type ipv4_addr; }; }")
    elements = ",".join(f"10.{number >> 8}.{number & 255}.1" for number in range(20_000))
    rules(gate, f"add element inet operator s {{ {elements} }}")
    assert backend.disturbed()
    assert backend.listed(now()) == {} and not backend.disturbed()
    backend.close(withdraw=True)


def test_what_is_listed_is_exact_while_others_change_theirs(gate: Space) -> None:
    """Each of their transactions makes a new generation, which tears dumps."""
    backend = opened(gate)
    wanted = {V4.many(number): until(600) for number in range(5000)}
    backend.apply(wanted, (), now())
    script = "add table inet operator; delete table inet operator;" * 20
    busy = gate.popen("sh", "-c", f"while :; do {program('nft')} '{script}'; done")
    try:
        for number in range(10):
            extra = net_of(f"192.0.2.{number}")
            wanted[extra] = until(600)
            backend.apply({extra: wanted[extra]}, (), now())
            assert same(backend.listed(now()), wanted)
    finally:
        os.kill(busy.pid, signal.SIGKILL)
        busy.wait()
    backend.close(withdraw=True)


# One of many


def test_what_the_kernel_refuses_does_not_keep_the_others_out(gate: Space) -> None:
    """A set with room for seven, and elements to take out that are not there among those that are."""
    backend = opened(gate)
    tiny, roomy = Slot(4, 31, 0), Slot(4, 30, 0)
    place = f"inet {TABLE}"
    for slot, size in ((tiny, 7), (roomy, 100)):
        rules(gate, f"add set {place} {slot.name} {{ type ipv4_addr; flags timeout; size {size}; }}")
    nets = [(0x0A000000 + 4 * number).to_bytes(4, "big") for number in range(30)]
    puts = [Put(slot, net + bytes([slot.plen]), until(60).until_ns) for net in nets for slot in (tiny, roomy)]
    batches = Batches(backend._run, patient=True)
    batches.send(puts, lambda part: put_text(place, part, now()))
    assert set(batches.refused.values()) == {FULL} and len(batches.refused) == 23
    assert all(net[-1] == tiny.plen for net in batches.refused)
    cuts = [Cut(roomy, net + bytes([roomy.plen])) for net in [*nets, b"\xc0\0\2\0", b"\xc0\0\2\4"]]
    with pytest.raises(Refused, match="No such file"):
        Batches(backend._run, patient=False).send(cuts, lambda part: cut_text(place, part))
    batches = Batches(backend._run, patient=True)
    batches.send(cuts, lambda part: cut_text(place, part))
    assert batches.refused == {}
    assert backend._reader.elements("inet", TABLE, roomy.name).elements == {}
    backend.close(withdraw=True)


def test_refused_at_one_door_it_is_at_none(gate: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's sets have room for five, less than we think."""
    monkeypatch.setattr(nft_layout, "_SLACK", -95)
    backend = opened(gate, hosts_max=100)
    there = {V4.many(number): until(60, 0b10) for number in range(4)}
    assert backend.apply(there, (), now()) == {}
    more = {V4.many(number): until(60, 0b11) for number in range(3, 8)}
    refused = backend.apply(more, (), now())
    assert set(refused.values()) == {FULL} and len(refused) == 3 and not refused.keys() & there.keys()
    assert same(backend.listed(now()), there | {net: drop for net, drop in more.items() if net not in refused})
    backend.close(withdraw=True)


def test_a_door_that_is_not_there_is_refused(gate: Space) -> None:
    backend = opened(gate)
    assert backend.apply({V4.net: until(60, 0b100), V6.net: until(60)}, (), now()) == {V4.net: "there is no such door"}
    assert backend.listed(now()).keys() == {V6.net}
    backend.close(withdraw=True)


def test_a_kernel_that_does_not_renew_is_told_to_take_out_first(gate: Space) -> None:
    """This one does renew; what is sent to the others leads to the same."""
    backend = opened(gate)
    assert backend._renews
    backend._renews = False
    for doors, seconds in ((0b01, 60), (0b11, 90), (0b10, 30), (0b10, 30)):
        wanted = {V4.many(number): until(seconds, doors) for number in range(2500)} | {V6.net: until(seconds, doors)}
        assert backend.apply(wanted, (), now()) == {}
        assert same(backend.listed(now()), wanted)
    backend.close(withdraw=True)


def test_times_of_years_and_of_a_moment(gate: Space) -> None:
    backend = opened(gate)
    wanted = {V4.net: until(10 * 366 * 86400), V6.net: until(0.5)}
    assert backend.apply(wanted, (), now()) == {}
    assert same(backend.listed(now()), wanted)
    assert eventually(lambda: backend.listed(now()).keys() == {V4.net})
    backend.close(withdraw=True)


def test_names_of_sets() -> None:
    for slot in (Slot(4, 32, 0), Slot(6, 0, 7), Slot(6, 128, 1)):
        assert slot_named(slot.name) == slot
    for name in (
        "probe",
        "v4_32",
        "v4_032_door0",
        "v5_32_door0",
        "v4_32_door",
        "v4_x_door0",
        "v4_32_door0x",
        "v4_32_door8",
    ):
        assert slot_named(name) is None


# Privilege, and machines that cannot


def test_one_capability_is_enough_once_it_is_open(gate: Space) -> None:
    assert _in_a_child(lambda: _works_unprivileged(gate)) == "works"


def _works_unprivileged(gate: Space) -> str:
    backend = opened(gate)
    _drop_to_net_admin()
    if os.geteuid() != NOBODY or os.access("/etc/shadow", os.R_OK):
        return "still privileged"
    wanted = {V4.net: until(60, 0b11), V6.net: until(60), net_of("192.0.2.0/25"): until(60)}
    steps = [backend.apply(wanted, (), now()) == {}, same(backend.listed(now()), wanted), backend.counted() == {}]
    backend.use_doors((door(SECOND),))
    steps += [backend.apply({}, wanted, now()) == {}, backend.listed(now()) == {}, not backend.disturbed()]
    backend.close(withdraw=True)
    return "works" if all(steps) else repr(steps)


def test_without_the_capability_it_is_said(gate: Space) -> None:
    def unprivileged() -> str:
        entered = gate.inside()  # never left again: that would take privilege
        entered.__enter__()
        os.setresuid(NOBODY, NOBODY, NOBODY)
        Nft(Settings((door(FIRST),)))
        return "opened"

    assert "nftables: not permitted: it takes CAP_NET_ADMIN" in _in_a_child(unprivileged)


def test_without_the_library_it_is_said(gate: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft_module, "_LIBRARY", "libnftables.so.none")
    with pytest.raises(Unavailable, match=r"libnftables\.so\.none .*missing: apt-get install libnftables1"):
        opened(gate)


def test_a_device_that_is_not_there_is_said(gate: Space) -> None:
    before = listing(gate)
    with pytest.raises(Unavailable, match="none0"):
        opened(gate, interfaces=("none0",))
    assert listing(gate) == before


def _drop_to_net_admin() -> None:
    """As the enforcer does: another user, no_new_privs, CAP_NET_ADMIN alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    keep_caps, no_new_privs, net_admin = 8, 38, 12
    libc.prctl(keep_caps, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)(1 << net_admin, 1 << net_admin, 0, 0, 0, 0)
    assert libc.capset(head, sets) == 0, os.strerror(ctypes.get_errno())
    assert libc.prctl(no_new_privs, 1, 0, 0, 0) == 0


def _in_a_child(what: Callable[[], str]) -> str:
    """What it returns, or raises, in a process of its own."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(tell, what().encode())
        except BaseException as error:
            os.write(tell, repr(error).encode()[:4000])
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(ready, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said
