"""Many blocked hosts of one prefix: which prefix is named in their stead, for how long, and how often."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from scrubber.control.aggregate import ASK_AGAIN_NS, LOOK_AGAIN_NS, RANGES_A_LOOK, Aggregate, Crowd
from scrubber.control.shut import Row, Shut
from scrubber.enforce.net import RANGE_BITS, host_in_range, net_of, net_text, prefix_in_range, range_of, spare_bits

S = 1_000_000_000
RULE, OTHER, HAND = 1, 2, 3
SITE = (0,)
END = 600 * S


class Table:
    """Blocks, and who looks at them."""

    def __init__(self, least: int = 64, v4_widest: int = 24, v6_widest: int = 48) -> None:
        self.shut = Shut([frozenset(SITE)])
        self.aggregate = Aggregate()
        self.aggregate.use(least, v4_widest, v6_widest, {RULE, OTHER})

    def block(
        self, hosts: Iterable[str], *, until_ns: int = END, rule: int = RULE, areas: tuple[int, ...] = SITE
    ) -> None:
        rows: list[Row] = [(net_of(host), areas, until_ns, rule, 0) for host in hosts]
        self.aggregate.touched(self.shut.take(rows))

    def found(self, now_ns: int = S) -> list[Crowd]:
        return self.aggregate.found(self.shut, now_ns)

    def names(self, now_ns: int = S) -> list[str]:
        return sorted(net_text(crowd.prefix) for crowd in self.found(now_ns))


def v4(count: int, first: int = 0) -> list[str]:
    return [f"198.18.7.{first + n}" for n in range(count)]


def v6(count: int) -> list[str]:
    return [f"2001:db8:0:7{n:02x}::/64" for n in range(count)]


def test_enough_hosts_are_a_prefix_and_one_fewer_are_none() -> None:
    for hosts, name in ((v4, "198.18.7.0/24"), (v6, "2001:db8:0:700::/56")):
        table = Table()
        table.block(hosts(63))
        assert table.names() == []
        table.block(hosts(64))
        (crowd,) = table.found(S + LOOK_AGAIN_NS)
        assert net_text(crowd.prefix) == name
        assert crowd[1:] == (SITE, RULE, 64, 256, END)


def test_a_quarter_of_the_prefix_has_to_be_blocked() -> None:
    for hosts, name in (
        (v4(31), "198.18.7.0/26"),  # of 64; not of 128
        (v4(32), "198.18.7.0/25"),
        (v4(63), "198.18.7.0/25"),
        (v4(64), "198.18.7.0/24"),
        (v4(8, 248), "198.18.7.224/27"),
    ):
        table = Table(least=8)
        table.block(hosts)
        assert table.names() == [name], len(hosts)


def test_no_wider_than_the_mandate_says_nor_than_a_range() -> None:
    wide = Table(v4_widest=8, v6_widest=16)
    wide.block(f"198.18.{n}.{m}" for n in (6, 7) for m in range(128))
    assert wide.names() == ["198.18.6.0/24", "198.18.7.0/24"]
    narrow = Table(v4_widest=26, v6_widest=58)
    narrow.block([*v4(256), *v6(256)])
    assert [spare_bits(crowd.prefix) for crowd in narrow.found()] == [6] * 8  # of either family
    hosts_alone = Table(least=8, v4_widest=32, v6_widest=64)
    hosts_alone.block([*v4(256), *v6(256)])
    assert hosts_alone.names() == []


def test_what_does_not_count() -> None:
    off = Table(least=0)
    off.block(v4(256))
    assert off.names() == []
    table = Table()
    table.block(v4(63))
    table.block(v4(50, 63), rule=HAND)
    table.block(v4(50, 113), areas=(0, 1))  # binds something else
    table.block(v4(50, 163), until_ns=S)  # over
    table.block(["198.18.7.224/27", "198.18.8.1"])
    assert table.names() == []
    table.block(v4(1, 163))
    assert table.names(S + LOOK_AGAIN_NS) == ["198.18.7.0/24"]


def test_the_areas_and_the_rule_of_most_of_them() -> None:
    table = Table()
    table.block(v4(100), areas=(0, 1))
    table.block(v4(64, 100), rule=OTHER)
    table.block(v4(30, 164))
    found = sorted(table.found())
    assert [(crowd.areas, crowd.rule_id, crowd.hosts) for crowd in found] == [((0,), OTHER, 94), ((0, 1), RULE, 100)]


def test_it_ends_when_too_few_would_be_left() -> None:
    table = Table()
    for n, host in enumerate(v4(100)):
        table.block([host], until_ns=(100 + n) * S)
    (crowd,) = table.found()
    assert crowd.until_ns == 136 * S  # the 64th of them ends; 63 are left
    soon = Table()
    soon.block(v4(64), until_ns=4 * S)
    assert soon.names() == []


def test_hosts_that_are_lifted_count_no_more() -> None:
    table = Table()
    table.block(v4(64))
    table.shut.lift(net_of("198.18.7.9"))
    table.shut.lift(net_of("198.18.7.9"))
    assert table.names() == []
    assert table.shut.count(range_of(net_of("198.18.7.1"))) == 63
    table.block(["198.18.7.9"])
    assert table.names(S + LOOK_AGAIN_NS) == ["198.18.7.0/24"]


def test_one_that_was_made_is_not_named_again_before_its_evidence_is_gone() -> None:
    table = Table()
    table.block(v4(128))
    (crowd,) = table.found()
    table.aggregate.made(crowd, crowd.until_ns)
    table.block(v4(128, 128), until_ns=2 * END)
    assert table.names(S + LOOK_AGAIN_NS) == []  # nor a part of it
    table.aggregate.all_touched(table.shut, END - 1)
    assert table.names(END - 1) == []
    table.aggregate.all_touched(table.shut, END)
    (again,) = table.found(END + LOOK_AGAIN_NS)
    assert (again.prefix, again.hosts, again.until_ns) == (crowd.prefix, 128, 2 * END)


def test_of_one_that_is_refused_the_halves_are_asked_about() -> None:
    table = Table()
    table.block(v4(80))
    now_ns = S
    for name in ("198.18.7.0/24", "198.18.7.0/25", "198.18.7.0/26"):
        (crowd,) = table.found(now_ns)
        assert net_text(crowd.prefix) == name
        table.aggregate.refused(crowd, now_ns)
        now_ns += S // 50  # the next look
    assert table.names(now_ns) == []
    table.aggregate.all_touched(table.shut, S + ASK_AGAIN_NS)
    assert table.names(S + ASK_AGAIN_NS) == ["198.18.7.0/24"]  # it may be allowed by now


def test_no_look_is_long() -> None:
    table = Table()
    table.block(f"198.18.{n}.{m}" for n in range(3 * RANGES_A_LOOK) for m in range(64))
    looks = [len(table.found()) for _ in range(4)]
    assert looks == [RANGES_A_LOOK, RANGES_A_LOOK, RANGES_A_LOOK, 0]


def test_other_bounds_ask_anew() -> None:
    table = Table()
    table.block(v4(80))
    (crowd,) = table.found()
    table.aggregate.refused(crowd, S)
    table.aggregate.use(64, 24, 48, {RULE})
    assert table.names(S + LOOK_AGAIN_NS) == ["198.18.7.0/24"]


@given(st.integers(0, 255), st.integers(0, RANGE_BITS))
def test_places_in_a_range(index: int, bits: int) -> None:
    for common, first, host_bits in ((b"\xc6\x12\x07", "198.18.7.0", 32), (bytes(6) + b"\1", "0:0:0:100::", 64)):
        host = host_in_range(common, index)
        step = 1 << (0 if host_bits == 32 else 64)
        address = ipaddress.ip_address(first) + index * step
        wanted = ipaddress.ip_network(f"{address}/{host_bits - bits}", strict=False)
        assert prefix_in_range(common, index, bits) == net_of(str(wanted))
        assert host == net_of(f"{address}/{host_bits}")
        assert range_of(host) == common


Run = tuple[int, int, int, tuple[int, ...], int, int]  # first host, how many, how far apart, areas, rule, end in s
Known = dict[tuple[int, tuple[int, ...]], tuple[int, int]]  # by host and areas: rule, end
runs = st.lists(
    st.tuples(
        st.integers(0, 511),
        st.integers(1, 120),
        st.integers(1, 4),
        st.sampled_from([(0,), (0, 1)]),
        st.sampled_from([RULE, RULE, OTHER, HAND]),
        st.integers(5, 40),
    ),
    max_size=8,
)


@given(runs, st.lists(st.integers(0, 511), max_size=20), st.integers(8, 64), st.integers(23, 32))
def test_it_is_what_a_naive_search_finds(made: list[Run], lifted: list[int], least: int, widest: int) -> None:
    table = Table(least=least, v4_widest=widest)
    known: Known = {}
    for first, count, apart, areas, rule, end_s in made:
        hosts = [host for host in range(first, first + count * apart, apart) if host < 512]
        table.block(map(named, hosts), until_ns=end_s * S, rule=rule, areas=areas)
        known.update({(host, areas): (rule, end_s * S) for host in hosts})
    for host in lifted:
        table.shut.lift(net_of(named(host)))
        known = {key: value for key, value in known.items() if key[0] != host}
    now_ns = 10 * S
    assert sorted(table.found(now_ns)) == sorted(naive(known, least, widest, now_ns))


def named(host: int) -> str:
    return f"198.18.{host >> 8}.{host & 255}"


def naive(known: Known, least: int, widest: int, now_ns: int) -> list[Crowd]:
    """Every prefix of every length, the widest first; those inside one that was found are not."""
    crowds: list[Crowd] = []
    for areas in ((0,), (0, 1)):
        taken: set[int] = set()
        for length in range(max(widest, 24), 33):
            clients = 1 << (32 - length)
            needed = max(least, (clients + 3) // 4)
            for first in range(0, 512, clients):
                inside = [known[host, areas] for host in range(first, first + clients) if (host, areas) in known]
                ends = sorted(end_ns for rule, end_ns in inside if rule != HAND and end_ns > now_ns)
                if first in taken or len(ends) < needed or ends[-needed] - now_ns < 5 * S:
                    continue
                counts = Counter(rule for rule, end_ns in inside if end_ns > now_ns)
                rule_id = RULE if counts[RULE] >= counts[OTHER] else OTHER
                prefix = net_of(f"{named(first)}/{length}") if clients > 1 else net_of(named(first))
                crowds.append(Crowd(prefix, areas, rule_id, len(ends), clients, ends[-needed]))
                taken.update(range(first, first + clients))
    return crowds
