"""What the envelope never lets through, by name; and against the slow reference, for whatever comes."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber.enforce.backend import Drop
from scrubber.enforce.envelope import MINUTE_NS, Envelope, Floor, Kind, Spans, Terms
from scrubber.enforce.flow import Flow
from scrubber.enforce.net import net_of, overlap
from scrubber.errors import ValueRefused
from scrubber.units import NS_PER_S
from tests.reference import envelope as reference

NOW = 1_000 * NS_PER_S
SOON = NOW + 60 * NS_PER_S
OURS = (net_of("192.0.2.0/24"), net_of("2001:db8:1::/48"))
NEVER = (net_of("198.51.100.0/24"), net_of("203.0.113.7"), net_of("2001:db8:aaaa::1"))
CAPS = {
    "ttl_ns_max": 3600 * NS_PER_S,
    "hosts_max": 10,
    "prefixes_max": 10,
    "announcements_max": 5,
    "announcements_per_min": 3,
    "flows_max": 64,
}
WIDE: dict[str, Any] = {"v4_widest": 16, "v6_widest": 40, **CAPS}


def opened(**floor: Any) -> Envelope:
    """All that the floor allows, the mandates do."""
    envelope = Envelope(Floor(**{"never": NEVER, "protects": OURS, **WIDE, **floor}))
    envelope.use(Terms(victim_v4_widest=1, victim_v6_widest=1, **WIDE))
    return envelope


def drop(envelope: Envelope, net: bytes, until_ns: int = SOON, doors: int = 1, in_force: int = 0) -> str:
    return envelope.refuse_drop(net, Drop(until_ns, doors), NOW, in_force)


def announce(envelope: Envelope, net: bytes, kind: Kind, now_ns: int = NOW, in_force: int = 0) -> str:
    return envelope.refuse_announcement(net, kind, now_ns + NS_PER_S, now_ns, in_force)


def rule(destination: str, source: str | None = None, until_ns: int = SOON) -> Flow:
    return Flow(
        destination=net_of(destination), until_ns=until_ns, source=net_of(source) if source is not None else None
    )


def test_a_route_to_everybody_is_never_announced() -> None:
    """fastnetmon once announced 0.0.0.0/0."""
    for text in ("0.0.0.0/0", "::/0"):
        everybody = net_of(text)
        for floor in ({}, {"protects": (everybody,)}, {"victim_v4_widest": 1, "victim_v6_widest": 1}):
            assert announce(opened(**floor), everybody, "victim")
            assert announce(opened(**floor), everybody, "source")
        assert "is everybody" in drop(opened(), everybody)
        assert opened().refuse_flow(Flow(destination=everybody, until_ns=SOON), NOW, 0)


@pytest.mark.parametrize("host", ["2001:db8:1::7", "192.0.2.7"])
def test_a_host_without_its_mask_is_never_announced(host: str) -> None:
    """A /128 that somebody forgot blackholed a data centre: bytes without a length, or with one that took its place."""
    whole = net_of(host)
    assert announce(opened(), whole, "victim") == ""
    for length in (b"", b"\0", b"\x18", b"\x30", b"\x40", b"\x7f"):
        assert announce(opened(), whole[:-1] + length, "victim"), length
    network = net_of("2001:db8:1::/64" if ":" in host else "192.0.2.0/25")
    assert "for a victim" in announce(opened(), network, "victim")


def test_what_is_wrong_in_form_is_refused_with_the_reason() -> None:
    for net in (b"", b"\x20", b"1234", b"12345678", bytes(16), bytes(18), net_of("198.18.0.0/15")[:-1] + b"\x08"):
        assert "not a network" in drop(opened(), net)
    assert "not a network" in drop(opened(), b"\xc6\x12\0\1\x21")  # /33
    assert "narrower than /64" in drop(opened(), net_of("2001:db8:2::1"))
    assert "wider than /16" in drop(opened(), net_of("198.0.0.0/15"))
    assert "wider than /40" in drop(opened(), net_of("2001:db8::/32"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0.0.0", "unspecified"),
        ("127.0.0.1", "loopback"),
        ("127.0.0.0/31", "loopback"),
        ("169.254.169.254", "link-local"),
        ("239.255.255.250", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("::/64", "unspecified"),
        ("fe80::/64", "link-local"),
        ("ff02::/64", "multicast"),
    ],
)
def test_addresses_that_are_nobodys_are_refused(text: str, why: str) -> None:
    assert why in drop(opened(), net_of(text))
    assert why in announce(opened(), net_of(text), "source")


def test_mapped_ipv4_is_ipv4_and_loopback_clients_are_clients() -> None:
    assert "IPv4" in announce(opened(protects=(net_of("::fffe:0:0/95"),)), net_of("::ffff:192.0.2.7"), "victim")
    assert drop(opened(), net_of("127.0.0.2")) == ""
    assert "loopback" in announce(opened(), net_of("127.0.0.2"), "source")


@pytest.mark.parametrize(
    "text", ["198.51.100.0/24", "198.51.100.9", "198.51.0.0/16", "203.0.113.7", "2001:db8:aaaa::/64"]
)
def test_never_block_wins_whichever_is_wider(text: str) -> None:
    assert "never blocked" in drop(opened(), net_of(text))
    assert "never blocked" in announce(opened(), net_of(text), "source")
    assert "never blocked" in opened().refuse_flow(
        rule("192.0.2.0/24" if "." in text else "2001:db8:1::/48", text), NOW, 0
    )


def test_a_source_upstream_is_no_wider_than_what_is_routed() -> None:
    for text, why in (("198.18.0.0/23", "/24"), ("198.18.0.0/24", ""), ("2001:db8:2::/47", "/48")):
        assert why in announce(opened(v6_widest=16), net_of(text), "source")
        assert drop(opened(v6_widest=40), net_of(text)) == ""


def test_this_machine_may_be_given_up_as_long_as_nobody_named_it() -> None:
    """Its address is never-block, as are all of this machine; a mandate's list, or the floor's, is another matter."""
    here = net_of("192.0.2.9")
    envelope = opened(never=(*NEVER, here), own=(here,))
    assert "ours" in drop(envelope, here)
    assert announce(envelope, here, "victim") == ""
    envelope.use(Terms(**{**WIDE, "never": (here,)}))
    assert "never blocked" in announce(envelope, here, "victim")
    envelope.use(Terms(**{**WIDE, "never": (here,), "own": (here,)}))
    assert announce(envelope, here, "victim") == ""
    named = opened(never=(here,))
    named.use(Terms(**{**WIDE, "never": (here,), "own": (here,)}))
    assert "never blocked" in announce(named, here, "victim"), "whatever the supervisor says"


def test_never_block_wins_over_a_victim_too() -> None:
    assert "never blocked" in announce(opened(never=(net_of("192.0.2.7"),)), net_of("192.0.2.7"), "victim")


def test_sources_lie_outside_of_what_is_ours_and_victims_inside() -> None:
    for text in ("192.0.2.9", "192.0.2.0/24", "192.0.0.0/16"):
        assert "is ours" in drop(opened(), net_of(text))
    assert "not ours" in announce(opened(), net_of("198.18.0.1"), "victim")
    assert "wider than /32" in announce(opened(), net_of("192.0.2.8/31"), "victim")
    assert announce(opened(victim_v4_widest=30), net_of("192.0.2.8/30"), "victim") == ""
    assert "all that we protect" in announce(opened(victim_v4_widest=8), net_of("192.0.2.0/24"), "victim")
    assert "all that we protect" in announce(opened(protects=(net_of("192.0.2.1"),)), net_of("192.0.2.1"), "victim")


def test_lists_mean_their_addresses_however_they_are_cut() -> None:
    """Halves are a whole, a prefix within another takes nothing from it, and the next one begins where it begins."""
    halves = opened(protects=tuple(map(net_of, ("192.0.2.128/25", "192.0.2.0/25", "192.0.4.0/24"))), victim_v4_widest=8)
    assert announce(halves, net_of("192.0.2.0/24"), "victim") == ""
    assert "not ours" in announce(halves, net_of("192.0.2.0/23"), "victim")
    assert "not ours" in announce(halves, net_of("192.0.4.0/23"), "victim")
    nested = opened(never=tuple(map(net_of, ("203.0.113.0/24", "203.0.113.0/25", "203.0.113.7", "203.0.114.8"))))
    assert "never" in drop(nested, net_of("203.0.113.255"))
    assert "never" in drop(nested, net_of("203.0.114.0/24"))
    assert drop(nested, net_of("203.0.114.7")) == ""


def test_a_rule_without_a_source_is_aimed_at_its_destination() -> None:
    assert opened().refuse_flow(rule("192.0.2.7"), NOW, 0) == ""
    assert "for a victim" in opened().refuse_flow(rule("192.0.2.0/25"), NOW, 0)
    assert opened().refuse_flow(rule("192.0.2.0/24", "198.18.0.1"), NOW, 0) == ""
    assert opened().refuse_flow(rule("2001:db8:1::/48", "2001:db8:2::1"), NOW, 0) == ""
    assert "not ours" in opened().refuse_flow(rule("198.18.0.0/24", "198.18.0.1"), NOW, 0)
    assert "wider" in opened().refuse_flow(rule("192.0.2.7", "198.0.0.0/8"), NOW, 0)


def test_times_are_within_the_longest() -> None:
    for until_ns in (NOW, NOW - 1, 0):
        assert "over" in drop(opened(), net_of("198.18.0.1"), until_ns)
    assert drop(opened(), net_of("198.18.0.1"), NOW + CAPS["ttl_ns_max"]) == ""
    assert "longer than 1h" in drop(opened(), net_of("198.18.0.1"), NOW + CAPS["ttl_ns_max"] + 1)
    assert "over" in opened().refuse_announcement(net_of("192.0.2.7"), "victim", NOW, NOW, 0)
    assert "longer" in opened().refuse_flow(rule("192.0.2.7", until_ns=2**62), NOW, 0)


def test_counts_and_doors() -> None:
    assert drop(opened(), net_of("198.18.0.1"), in_force=9) == ""
    assert "full" in drop(opened(), net_of("198.18.0.1"), in_force=10)
    assert "full" in drop(opened(prefixes_max=1), net_of("198.18.0.0/24"), in_force=1)
    assert "full" in announce(opened(), net_of("192.0.2.7"), "victim", in_force=5)
    assert "full" in opened().refuse_flow(rule("192.0.2.7"), NOW, 64)
    for doors in (0, 256, -1):
        assert "no doors" in drop(opened(), net_of("198.18.0.1"), doors=doors)


def test_no_minute_has_more_announcements_than_allowed() -> None:
    """Blackholes and rules together; what was refused for another reason counts for nothing."""
    envelope = opened()
    assert announce(envelope, net_of("198.18.0.1"), "victim")
    assert [announce(envelope, net_of("192.0.2.7"), "victim", NOW + at) for at in (0, 1)] == ["", ""]
    assert envelope.refuse_flow(rule("192.0.2.7"), NOW + 2, 0) == ""
    assert "too fast" in envelope.refuse_flow(rule("192.0.2.7"), NOW + 3, 0)
    assert "too fast" in announce(envelope, net_of("192.0.2.7"), "victim", NOW + MINUTE_NS - 1)
    assert announce(envelope, net_of("192.0.2.7"), "victim", NOW + MINUTE_NS) == ""
    assert "too fast" in announce(envelope, net_of("192.0.2.7"), "victim", NOW + MINUTE_NS)
    assert "too fast" in announce(envelope, net_of("192.0.2.7"), "victim", NOW)  # a clock that went back


def test_nothing_is_allowed_before_there_are_terms_or_without_a_floor() -> None:
    silent = Envelope(Floor(never=NEVER, protects=OURS, **WIDE))
    floorless = Envelope(Floor(protects=OURS))
    floorless.use(Terms(**WIDE))
    for envelope in (silent, floorless):
        assert drop(envelope, net_of("198.18.0.1"))
        assert announce(envelope, net_of("192.0.2.7"), "victim")
        assert envelope.refuse_flow(rule("192.0.2.7"), NOW, 0)


def test_terms_only_tighten() -> None:
    envelope = opened()
    envelope.use(Terms(never=(net_of("198.18.0.0/24"),), **{**WIDE, "v4_widest": 1, "hosts_max": 10**6}))
    assert (envelope.terms.v4_widest, envelope.terms.hosts_max) == (16, 10)
    assert "never" in drop(envelope, net_of("198.18.0.1")) and "never" in drop(envelope, net_of("203.0.113.7"))
    envelope.use(Terms(**{**WIDE, "v4_widest": 24, "hosts_max": 1}))
    assert drop(envelope, net_of("198.18.0.1")) == ""
    assert "wider than /24" in drop(envelope, net_of("198.18.0.0/23"))
    assert "full: 1 of 1" in drop(envelope, net_of("198.18.0.1"), in_force=1)


@pytest.mark.parametrize(
    "wrong", [{"never": (b"1234",)}, {"v4_widest": 0}, {"v6_widest": 65}, {"hosts_max": -1}, {"victim_v6_widest": 0}]
)
def test_lists_and_bounds_that_cannot_be_are_refused_and_the_old_ones_hold(wrong: dict[str, Any]) -> None:
    envelope = opened()
    with pytest.raises(ValueRefused):
        Envelope(Floor(**wrong))
    with pytest.raises(ValueRefused):
        envelope.use(Terms(**{**WIDE, **wrong}))
    assert drop(envelope, net_of("198.18.0.1")) == "" and "never" in drop(envelope, net_of("203.0.113.7"))
    with pytest.raises(ValueRefused):
        Envelope(Floor(protects=(b"\xc0\0\2\1\x18",)))


def test_terms_from_outside_cannot_say_what_is_ours() -> None:
    with pytest.raises(msgspec.ValidationError, match="protects"):
        msgspec.msgpack.decode(msgspec.msgpack.encode({"protects": [OURS[0]]}), type=Terms)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Floor(protects=OURS)), type=Floor).protects == OURS


def test_a_hundred_thousand_never_blocks_are_kept() -> None:
    """The index against each entry: whatever touches one is refused, its neighbours are not."""
    chance = random.Random(7)
    never = {(chance.getrandbits(30) | 1 << 30).to_bytes(4, "big")[:3] + b"\0\x18" for _ in range(100_000)}
    envelope = opened(never=tuple(never))
    for net in chance.sample(sorted(never), 2000):
        assert "never" in drop(envelope, net[:3] + b"\x09\x20")
        assert "never" in drop(envelope, net[:2] + b"\0\0\x10")
        beside = (int.from_bytes(net[:3], "big") + 1).to_bytes(3, "big")
        assert ("never" in drop(envelope, beside + b"\0\x20")) == (beside + b"\0\x18" in never), net.hex()


# Few addresses, close together: most pairs touch.
POOL = [
    net_of(text)[:-1]
    for text in ("192.0.2.4", "192.0.2.7", "192.0.3.0", "127.0.0.1", "127.0.0.3", "0.0.0.0", "224.0.0.1")
]
POOL += [
    net_of(text)[:-1]
    for text in ("2001:db8::", "2001:db8:0:1::", "2001:db8:0:1::7", "::ffff:192.0.2.4", "::1", "fe80::1")
]
RAW = st.one_of(
    st.binary(max_size=18), st.builds(lambda a, n: a + bytes([n]), st.sampled_from(POOL), st.integers(0, 130))
)


@st.composite
def sound_nets(draw: st.DrawFn) -> bytes:
    address = draw(st.sampled_from(POOL))
    bits = 8 * len(address)
    length = draw(st.one_of(st.integers(bits // 4, bits), st.sampled_from([bits, bits // 2, bits - 8])))
    masked = int.from_bytes(address, "big") >> (bits - length) << (bits - length)
    return masked.to_bytes(bits // 8, "big") + bytes([length])


# Sixteen addresses: lists nest, touch and overlap.
FEW = st.builds(
    lambda last, length: bytes([192, 0, 2, last >> (32 - length) << (32 - length), length]),
    st.integers(0, 15),
    st.integers(28, 32),
)
NETS = st.one_of(FEW, FEW, sound_nets(), RAW)
LISTS = st.one_of(st.lists(FEW, max_size=5), st.lists(sound_nets(), max_size=4)).map(tuple)
OFTEN_WIDE = {"v4_widest": (1, 1, 24, 32), "v6_widest": (1, 1, 48, 64)}
OFTEN_WIDE |= {"victim_v4_widest": (1, 1, 24, 32), "victim_v6_widest": (1, 1, 64, 128)}
NUMBERS = {
    **{name: st.sampled_from(lengths) for name, lengths in OFTEN_WIDE.items()},
    **{name: st.sampled_from([9, 9, 3]) for name in CAPS if name != "ttl_ns_max"},
    "ttl_ns_max": st.sampled_from([25, 25, 5]),
}


@given(nets=st.lists(FEW, max_size=6), asked=FEW)
def test_spans_are_sets_of_addresses(nets: list[bytes], asked: bytes) -> None:
    def addresses(net: bytes) -> set[int]:
        return set(range(net[3], net[3] + (1 << (32 - net[4]))))

    spans, every = Spans(nets), set().union(*map(addresses, nets))
    assert spans.touches(asked) == bool(every & addresses(asked))
    assert spans.holds(asked) == (addresses(asked) <= every)
    assert spans.lost_with(asked) == (bool(every) and every <= addresses(asked))
    assert not spans.touches(net_of("2001:db8::/32"))


ASKED = st.tuples(
    st.sampled_from(["drop", "victim", "source", "flow"]),
    NETS,
    st.one_of(st.none(), NETS),
    st.sampled_from([1, 2, 3, 4, 5, 6, 25, 26, 0, -1]),
    st.sampled_from([0, 0, 2, 3, 9]),
    st.sampled_from([0, 1, MINUTE_NS // 2, MINUTE_NS]),
    st.booleans(),
)


@settings(max_examples=250)
@given(
    floor=st.builds(Floor, never=LISTS, own=LISTS, protects=LISTS, **NUMBERS),
    terms=st.builds(Terms, never=LISTS, own=LISTS, **NUMBERS),
    asked=st.lists(ASKED, min_size=1, max_size=12),
)
def test_it_says_what_the_reference_says(floor: Floor, terms: Terms, asked: list[Any]) -> None:
    envelope, slow = Envelope(floor), reference.Envelope(floor, terms)
    envelope.use(terms)
    now = NOW
    for what, net, other, left, in_force, later, again in asked:
        now += later
        until = now + left
        if what == "drop":
            got = envelope.refuse_drop(net, Drop(until, left), now, in_force)
            wanted = slow.allows_drop(net, until, left, now, in_force)
        elif what == "flow":
            try:
                flow = Flow(destination=net, until_ns=until, source=other)
            except ValueRefused:
                continue
            got = envelope.refuse_flow(flow, now, in_force, again=again)
            wanted = slow.allows_flow(net, other, until, now, in_force, again)
        else:
            got = envelope.refuse_announcement(net, what, until, now, in_force, again=again)
            wanted = slow.allows_announcement(net, what, until, now, in_force, again)
        assert (got == "") == wanted, (what, net.hex(), got)
        if wanted and what in ("drop", "source"):
            assert not any(overlap(net, each) for each in (*floor.never, *terms.never, *floor.protects))
