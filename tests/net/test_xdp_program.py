"""The XDP program on frames made byte by byte: headers, doors, times, prefixes, counts."""

from __future__ import annotations

import random
import struct
import threading

import pytest

from scrubber.enforce.backend import DOORS_MAX, Drop
from scrubber.enforce.net import Net, net_of
from scrubber.enforce.xdp import DOOR_ADDRESSES_MAX
from scrubber.enforce.xdp_program import DOOR_BITS, DROP, EXTENSIONS_MAX, PASS
from scrubber.errors import ValueRefused
from tests.net import frames
from tests.net.frames import (
    C_TAG,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    PORT,
    ROUTING,
    S_TAG,
    UDP,
    extended,
    ipv4,
    ipv6,
    tcp,
)
from tests.net.xdp_stage import (
    CLIENT4,
    CLIENT6,
    DOORS,
    GATE4,
    GATE6,
    HOSTS,
    HOUR_NS,
    OTHER4,
    OTHER6,
    Opener,
    answer,
    at,
    now,
    put,
    until,
)
from tests.reference.xdp import dropped_for

# Frames


@pytest.mark.parametrize("tags", [b"", C_TAG, S_TAG, S_TAG + C_TAG, C_TAG + C_TAG], ids=["none", "c", "s", "sc", "cc"])
def test_tcp_of_a_source_to_a_door_is_dropped_and_nothing_else(opened: Opener, tags: bytes) -> None:
    backend = opened()
    backend.apply({net: until() for net in HOSTS}, (), now())
    assert answer(backend, ipv4(CLIENT4, GATE4, tcp(), tags=tags)) == DROP
    assert answer(backend, ipv6(CLIENT6, GATE6, tcp(), tags=tags)) == DROP
    assert answer(backend, ipv6("2001:db8:1:1:ffff::1", GATE6, tcp(), tags=tags)) == DROP, "one client is its /64"
    for passing in (
        ipv4(OTHER4, GATE4, tcp(), tags=tags),
        ipv6(OTHER6, GATE6, tcp(), tags=tags),
        ipv4(CLIENT4, GATE4, tcp(80), tags=tags),
        ipv6(CLIENT6, GATE6, tcp(80), tags=tags),
        ipv4(CLIENT4, "198.18.0.2", tcp(), tags=tags),
        ipv6(CLIENT6, "2001:db8::2", tcp(), tags=tags),
        ipv4(CLIENT4, GATE4, tcp(), protocol=UDP, tags=tags),
        ipv6(CLIENT6, GATE6, tcp(), first=UDP, tags=tags),
        ipv4(GATE4, CLIENT4, tcp(), tags=tags),
    ):
        assert answer(backend, passing) == PASS


def test_what_has_more_than_two_tags_passes(opened: Opener) -> None:
    backend = opened()
    put(backend, CLIENT4)
    assert answer(backend, ipv4(CLIENT4, GATE4, tcp(), tags=S_TAG + C_TAG + C_TAG)) == PASS


def test_ports_stand_behind_ipv4_options(opened: Opener) -> None:
    backend = opened()
    put(backend, CLIENT4)
    for words in range(11):
        # Options that look like ports of another service, then of the door.
        options = struct.pack("!HH", 40000, 80) * words
        assert answer(backend, ipv4(CLIENT4, GATE4, tcp(), options=options)) == DROP
        assert answer(backend, ipv4(CLIENT4, GATE4, tcp(80), options=struct.pack("!HH", 40000, PORT) * words)) == PASS
    frame = bytearray(ipv4(CLIENT4, GATE4, tcp()))
    for words in range(5):
        frame[14] = 4 << 4 | words
        seeming = int.from_bytes(frame[14 + 4 * words + 2 : 14 + 4 * words + 4], "big")
        backend.use_doors([at((GATE4, PORT), (GATE4, seeming))])
        assert answer(backend, bytes(frame)) == PASS, "a header shorter than there can be"


def test_only_the_first_fragment_has_ports(opened: Opener) -> None:
    backend = opened()
    backend.apply({net: until() for net in HOSTS}, (), now())
    more = 1 << 13
    for fragment in (0, more, 1 << 14):
        assert answer(backend, ipv4(CLIENT4, GATE4, tcp(), fragment=fragment)) == DROP
    for offset in (*(1 << bit for bit in range(13)), 185, 0x1FFF):
        assert answer(backend, ipv4(CLIENT4, GATE4, tcp(), fragment=more | offset)) == PASS
        assert answer(backend, ipv6(CLIENT6, GATE6, extended([FRAGMENT], tcp(), offset=offset), first=FRAGMENT)) == PASS
    assert answer(backend, ipv6(CLIENT6, GATE6, extended([FRAGMENT], tcp()), first=FRAGMENT)) == DROP


@pytest.mark.parametrize("eights", [0, 1, 255])
def test_ipv6_extension_headers_hide_nothing(opened: Opener, eights: int) -> None:
    backend = opened()
    backend.apply({net: until() for net in HOSTS}, (), now())
    for kinds in ([HOP_BY_HOP], [ROUTING], [DESTINATION], [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION], [FRAGMENT] * 2):
        frame = ipv6(CLIENT6, GATE6, extended(kinds, tcp(), eights=eights), first=kinds[0])
        if len(frame) < 3500:  # one page is the most that a run takes
            assert answer(backend, frame) == DROP
            assert answer(backend, frame.replace(tcp(), tcp(80))) == PASS
    assert answer(backend, ipv6(CLIENT6, GATE6, extended([51], tcp()), first=51)) == PASS, (
        "ends at what it does not know"
    )


def test_too_many_extension_headers_are_at_every_door(opened: Opener) -> None:
    backend = opened()
    backend.apply({net: until(doors=0b1000_0000) for net in HOSTS}, (), now())
    for count, of_the_client in ((EXTENSIONS_MAX, PASS), (EXTENSIONS_MAX + 1, DROP), (40, DROP)):
        chain = extended([DESTINATION] * count, tcp(80))
        assert answer(backend, ipv6(CLIENT6, "2001:db8::99", chain, first=DESTINATION)) == of_the_client
        assert answer(backend, ipv6(OTHER6, "2001:db8::99", chain, first=DESTINATION)) == PASS
    datagram = extended([DESTINATION] * EXTENSIONS_MAX, bytes(8), last=UDP)
    assert answer(backend, ipv6(CLIENT6, GATE6, datagram, first=DESTINATION)) == PASS


def test_frames_cut_short_at_every_length(opened: Opener) -> None:
    backend = opened()
    drops = {net: until() for net in HOSTS}
    backend.apply(drops, (), now())
    whole = [
        ipv4(CLIENT4, GATE4, tcp(), tags=S_TAG + C_TAG, options=bytes(40)),
        ipv6(CLIENT6, GATE6, extended([HOP_BY_HOP, FRAGMENT, DESTINATION], tcp(), eights=1), tags=C_TAG),
        ipv6(CLIENT6, GATE6, extended([DESTINATION] * 9, tcp()), first=DESTINATION),
        *(ipv4(CLIENT4, GATE4, tcp()), ipv6(CLIENT6, GATE6, tcp())),
    ]
    seen = set()
    for frame in whole:
        for length in range(14, len(frame) + 1):
            cut = frame[:length]
            expected = dropped_for(cut, DOORS, drops, now())
            assert answer(backend, cut) == (DROP if expected else PASS), cut.hex()
            seen.add(expected is None)
    assert seen == {True, False}


# Doors, times, prefixes


def test_a_door_at_the_address_comes_before_one_at_every_address(opened: Opener) -> None:
    backend = opened(at((GATE4, PORT)), at(("4", PORT), ("6", PORT)), at((GATE4, PORT), ("6", 80)))
    for doors, at_the_gate, elsewhere, six, six_80 in (
        (0b001, DROP, PASS, PASS, PASS),
        (0b010, PASS, DROP, DROP, PASS),
        (0b100, DROP, PASS, PASS, DROP),
        (0b111, DROP, DROP, DROP, DROP),
        (0b000, PASS, PASS, PASS, PASS),
    ):
        backend.apply({net: until(doors=doors) for net in HOSTS}, (), now())
        assert answer(backend, ipv4(CLIENT4, GATE4, tcp())) == at_the_gate
        assert answer(backend, ipv4(CLIENT4, "203.0.113.9", tcp())) == elsewhere
        assert answer(backend, ipv6(CLIENT6, GATE6, tcp())) == six
        assert answer(backend, ipv6(CLIENT6, GATE6, tcp(80))) == six_80
        assert answer(backend, ipv4(CLIENT4, GATE4, tcp(80))) == PASS


def test_more_doors_than_fit_are_refused(opened: Opener) -> None:
    assert 1 << DOORS_MAX == DOOR_BITS + 1
    with pytest.raises(ValueRefused, match="9 doors"):
        opened(*DOORS * 9)
    backend = opened()
    with pytest.raises(ValueRefused):
        backend.use_doors([at(*((GATE4, port) for port in range(1, DOOR_ADDRESSES_MAX + 2)))])
    put(backend, CLIENT4)
    assert answer(backend, ipv4(CLIENT4, GATE4, tcp())) == DROP, "the doors stay as they were"
    many = at(*((GATE4, port) for port in range(1, DOOR_ADDRESSES_MAX + 1)))
    for _ in range(3):
        backend.use_doors([many])
        assert answer(backend, ipv4(CLIENT4, GATE4, tcp(DOOR_ADDRESSES_MAX))) == DROP


def test_an_entry_drops_until_its_time_and_is_listed_until_then(opened: Opener) -> None:
    backend = opened()
    frame = ipv4(CLIENT4, GATE4, tcp())
    drop = until(0.6)
    put(backend, CLIENT4, "198.18.1.0/24", drop=drop)
    assert answer(backend, frame) == DROP
    assert backend.listed(now()).keys() == {net_of(CLIENT4), net_of("198.18.1.0/24")}
    begun = now()
    while answer(backend, frame) == DROP:
        assert begun < drop.until_ns + 100_000_000, "the coarse clock lags by a tick, not more"
        begun = now()
    assert now() > drop.until_ns - 1_000
    assert backend.listed(max(now(), drop.until_ns)) == {}


def test_what_is_over_makes_room(opened: Opener) -> None:
    backend = opened(hosts_max=4)
    first = [net_of(f"203.0.113.{number}") for number in range(4)]
    backend.apply(
        {net: Drop(10 * HOUR_NS, 1) for net in first[:2]} | {net: Drop(HOUR_NS, 1) for net in first[2:]}, (), 0
    )
    later = {net_of(f"192.0.2.{number}"): Drop(10 * HOUR_NS, 1) for number in range(3)}
    refused = backend.apply(later, (), HOUR_NS)
    assert list(refused.values()) == ["full"]
    assert backend.listed(HOUR_NS).keys() == {*first[:2], *(later.keys() - refused.keys())}


def test_a_host_and_all_prefixes_around_it_are_asked(opened: Opener) -> None:
    """A trie alone would stop at the narrowest, whatever that one says."""
    backend = opened()
    for nested, frame in (
        (["198.18.1.1", "198.18.1.0/31", "198.18.1.0/24", "198.18.0.0/16"], ipv4(CLIENT4, GATE4, tcp())),
        (["2001:db8:1:1::/64", "2001:db8:1:1::7/128", "2001:db8:1::/48", "2001:db8::/32"], ipv6(CLIENT6, GATE6, tcp())),
    ):
        nets = [net_of(text) for text in nested]
        for shutting in nets:
            for order in (nets, nets[::-1]):
                for net in order:
                    drop = until() if net == shutting else until(doors=0b10)
                    backend.apply({net: drop}, [net], now())
                assert answer(backend, frame) == DROP
                assert backend.counted().keys() == {shutting}
                for net in order:  # the others come and go
                    if net != shutting:
                        backend.apply({}, [net], now())
                        assert answer(backend, frame) == DROP
                backend.apply({}, [shutting], now())
                assert answer(backend, frame) == PASS


def test_prefixes_within_one_another_as_deep_as_they_go(opened: Opener) -> None:
    backend = opened()
    address = net_of(f"{CLIENT6}")[:-1]
    nets = [masked(address, plen) for plen in range(129)]
    random.Random(3).shuffle(nets)
    widest = masked(address, 0)
    backend.apply({net: until(doors=1 if net == widest else 2) for net in nets}, (), now())
    assert answer(backend, ipv6(CLIENT6, GATE6, tcp())) == DROP
    assert backend.counted().keys() == {widest}


def masked(address: bytes, plen: int) -> Net:
    bits = 8 * len(address)
    spare = bits - plen
    return (int.from_bytes(address, "big") >> spare << spare).to_bytes(len(address), "big") + bytes([plen])


# Counts


def test_counts_start_with_the_entry_and_outlive_its_renewal(opened: Opener) -> None:
    backend = opened()
    net = net_of(CLIENT4)
    frame = ipv4(CLIENT4, GATE4, tcp(data=bytes(100)), tags=C_TAG)
    put(backend, CLIENT4)
    assert backend.counted() == {}
    for packets in (1, 2, 3):
        assert answer(backend, frame) == DROP
        assert backend.counted() == {net: (packets, packets * (len(frame) - 18))}, "from the IP header on"
        put(backend, CLIENT4, drop=until(doors=0b11))
        assert backend.counted()[net].packets == packets
    backend.apply({}, [net], now())
    assert backend.counted() == {}


def test_a_slot_that_is_taken_again_knows_nothing_of_before(opened: Opener) -> None:
    backend = opened(hosts_max=1, prefixes_max=3)
    outer, middle, inner, other = (
        net_of(t) for t in ("198.18.0.0/16", "198.18.1.0/24", "198.18.1.0/31", "203.0.113.0/24")
    )
    drops = {outer: until(), middle: until(doors=2), inner: until(doors=2)}
    backend.apply(drops, (), now())
    backend.apply({}, [middle], now())
    for turn in range(1, 31):  # round all slots; a host alone at first, which does not set the prefixes right
        takers = [HOSTS[1]] if turn < 15 else [other, HOSTS[1]]
        backend.apply({net: until() for net in takers}, (), now())
        assert answer(backend, ipv4(CLIENT4, GATE4, tcp())) == DROP
        assert backend.counted().keys() == {outer}
        assert backend.counted()[outer].packets == turn
        assert answer(backend, ipv4("203.0.113.1", GATE4, tcp())) == (DROP if other in takers else PASS)
        assert answer(backend, ipv6(CLIENT6, GATE6, tcp())) == DROP
        assert [backend.counted()[net].packets for net in takers] == [1] * len(takers)
        backend.apply({}, takers, now())


def test_changes_under_fire_let_nothing_through_and_lose_no_count(opened: Opener) -> None:
    backend = opened()
    net, frame = net_of(CLIENT4), ipv4(CLIENT4, GATE4, tcp())
    others = [(at((f"203.0.113.{number}", 80)), at((GATE4, PORT))) for number in range(3)]
    put(backend, CLIENT4, drop=until(doors=0b11))
    answers: list[int] = []
    stop = threading.Event()

    def fire() -> None:
        while not stop.is_set():
            answers.append(frames.run(backend.program, frame, repeat=1000)[0])

    shooter = threading.Thread(target=fire)
    shooter.start()
    try:
        for turn in range(30):
            backend.use_doors(DOORS if turn % 4 == 3 else others[turn % 4])
            for _ in range(20):
                backend.apply({net: until(doors=0b11)}, (), now())
    finally:
        stop.set()
        shooter.join()
    assert len(answers) > 30
    assert backend.counted() == {net: (1000 * len(answers), 1000 * len(answers) * (len(frame) - 14))}
