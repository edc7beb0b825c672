"""The conformance suite: what scrubber/enforce/backend.py promises, asked of every backend in tests/net/backends.py.

Each case has a gateway and clients in namespaces of its own; what is dropped is what their connections show.
"""

from __future__ import annotations

import random
import select
import time

import pytest

from scrubber.enforce.backend import ROUTE_TABLE, Drop
from scrubber.enforce.net import Net, net_of
from tests.net.backends import (
    BACKENDS,
    BY_DOOR,
    BY_PORT,
    COUNTS,
    EXPIRES,
    FLUSH,
    NOTICES,
    SURVIVES,
    able,
    of_others,
)
from tests.net.space import Space
from tests.net.stage import (
    FIRST,
    KINS,
    NO_DOOR,
    NS,
    SECOND,
    V4,
    V6,
    Holder,
    Kin,
    Stage,
    door,
    eventually,
    now,
    until,
)
from tests.wanted import program

BULK = 20_000

every = pytest.mark.parametrize("name", BACKENDS)
of_both = pytest.mark.parametrize("kin", KINS, ids=["v4", "v6"])


def those(*wanted: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", able(*wanted))


def same(found: dict[Net, Drop], wanted: dict[Net, Drop]) -> bool:
    """Times within a second, all else exactly."""
    return found.keys() == wanted.keys() and all(
        found[net].doors == drop.doors and abs(found[net].until_ns - drop.until_ns) <= 1.1 * NS
        for net, drop in wanted.items()
    )


def hosts(count: int, start: int = 0) -> list[Net]:
    """Of both families by turns."""
    return [(V4, V6)[number % 2].many(start + number) for number in range(count)]


# Put, and take out


@every
@of_both
def test_a_drop_shuts_out_one_client_alone(stage: Stage, name: str, kin: Kin) -> None:
    backend = stage.open(name)
    assert stage.reaches(kin.client, FIRST)
    drop = until(60)
    assert backend.apply({kin.net: drop}, (), now()) == {}
    assert stage.shut(kin.client, FIRST, witness=kin.neighbour)
    assert same(backend.listed(now()), {kin.net: drop})
    assert backend.apply({}, [kin.net], now()) == {}
    assert stage.reaches(kin.client, FIRST)
    assert backend.listed(now()) == {}


@those(BY_PORT)
@of_both
def test_nothing_else_of_the_machine_is_shut(stage: Stage, name: str, kin: Kin) -> None:
    backend = stage.open(name)
    backend.apply({kin.net: until(60, 0b11), kin.prefix: until(60, 0b11)}, (), now())
    assert stage.shut(kin.client, FIRST, witness=kin.outsider)
    assert stage.reaches(kin.client, NO_DOOR)
    assert stage.datagram_arrives(kin.client, FIRST), "a door is TCP"


@those(BY_DOOR)
@of_both
def test_each_door_is_shut_alone(stage: Stage, name: str, kin: Kin) -> None:
    backend = stage.open(name)
    for doors, shut in ((0b01, (FIRST,)), (0b10, (SECOND,)), (0b11, (FIRST, SECOND))):
        drop = until(60, doors)
        assert backend.apply({kin.net: drop}, (), now()) == {}
        for port in (FIRST, SECOND):
            if port in shut:
                assert stage.shut(kin.client, port, witness=kin.neighbour)
            else:
                assert stage.reaches(kin.client, port)
        assert same(backend.listed(now()), {kin.net: drop})


@every
@of_both
def test_a_prefix_and_a_host_in_it_do_not_hinder_each_other(stage: Stage, name: str, kin: Kin) -> None:
    backend = stage.open(name)
    wanted = {kin.net: until(60), kin.prefix: until(50)}
    for part in (wanted, {kin.prefix: wanted[kin.prefix]}, wanted):
        backend.apply(part, wanted.keys() - part.keys(), now())
        assert same(backend.listed(now()), part)
        assert stage.shut(kin.client, FIRST, witness=kin.outsider)
        assert stage.shut(kin.neighbour, FIRST, witness=kin.outsider)
    backend.apply({}, [kin.prefix], now())
    assert stage.shut(kin.client, FIRST, witness=kin.neighbour)


@every
def test_prefixes_within_prefixes_are_listed_as_they_were_put(stage: Stage, name: str) -> None:
    texts = ("198.18.0.0/15", "198.18.1.0/24", "198.18.1.0/25", "198.18.1.128/25", "2001:db8:1::/48", "2001:db8::/32")
    wanted = {net_of(text): until(60) for text in texts}
    backend = stage.open(name)
    for order in (list(wanted), list(reversed(wanted))):
        for net in order:
            assert backend.apply({net: wanted[net]}, (), now()) == {}
        assert same(backend.listed(now()), wanted)
        assert backend.apply({}, order[:3], now()) == {}
        assert same(backend.listed(now()), {net: wanted[net] for net in order[3:]})
        backend.apply({}, order, now())
        assert backend.listed(now()) == {}


@every
def test_to_take_out_what_is_not_there_is_no_matter(stage: Stage, name: str) -> None:
    backend = stage.open(name)
    wanted = {net: until(60) for net in hosts(50)}
    backend.apply(wanted, (), now())
    gone = hosts(40)
    absent = [*hosts(500, start=1000), net_of("192.0.2.0/24"), net_of("2001:db8:77::/56")]
    assert backend.apply({}, [*absent, *gone], now()) == {}
    assert same(backend.listed(now()), {net: drop for net, drop in wanted.items() if net not in gone})


# Time


@every
def test_to_put_again_gives_the_new_time(stage: Stage, name: str) -> None:
    backend = stage.open(name)
    for seconds in (60, 90, 30):
        wanted = {net: until(seconds) for kin in KINS for net in (kin.net, kin.prefix)}
        assert backend.apply(wanted, (), now()) == {}
        assert same(backend.listed(now()), wanted)


@those(EXPIRES)
def test_a_drop_ends_at_its_time_with_nobody_there(stage: Stage, name: str) -> None:
    """Put again meanwhile, longer and shorter, for that is where timers are forgotten."""
    backend = stage.open(name)
    for seconds in (0.4, 60.0, 0.7):
        backend.apply({net: until(seconds) for kin in KINS for net in (kin.net, kin.prefix)}, (), now())
    begun = time.monotonic()
    for kin in KINS:
        assert stage.shut(kin.client, FIRST, witness=kin.outsider)
    for kin in KINS:
        for source in (kin.client, kin.neighbour):
            assert eventually(lambda source=source: stage.reaches(source, FIRST, within_s=0.05))  # type: ignore[misc]
    assert time.monotonic() - begun < 6
    assert backend.listed(now()) == {}


@those(EXPIRES)
def test_what_a_killed_process_held_ends_at_its_time(stage: Stage, name: str) -> None:
    put = {net: until(0.8) for kin in KINS for net in (kin.net, kin.prefix)}
    Holder(stage, name, put).kill()
    for kin in KINS:
        assert eventually(lambda kin=kin: stage.reaches(kin.client, FIRST, within_s=0.05))  # type: ignore[misc]
    backend = stage.open(name)
    assert eventually(lambda: backend.listed(now()) == {})


@every
def test_what_is_over_is_not_put(stage: Stage, name: str) -> None:
    backend = stage.open(name)
    backend.apply({V4.net: Drop(now() - NS, 1), V6.net: Drop(now(), 1)}, (), now())
    assert backend.listed(now()) == {}
    backend.apply({V4.net: until(60)}, (), now())
    backend.apply({V4.net: Drop(now() - NS, 1)}, (), now())
    assert backend.listed(now()) == {}
    assert stage.reaches(V4.client, FIRST)


# Many


@every
def test_what_is_listed_after_a_bulk_change_is_exact(stage: Stage, name: str) -> None:
    backend = stage.open(name)
    put = {net: until(600) for net in hosts(BULK)}
    assert backend.apply(put, (), now()) == {}
    assert same(backend.listed(now()), put)
    gone = random.Random(1).sample(sorted(put), BULK * 9 // 10)
    out = set(gone)
    more = {net: until(300) for net in hosts(BULK // 2, start=BULK)}
    assert backend.apply(more, gone, now()) == {}
    left = {net: drop for net, drop in put.items() if net not in out} | more
    assert same(backend.listed(now()), left)
    assert backend.apply({}, left, now()) == {}
    assert backend.listed(now()) == {}


@every
@of_both
def test_what_does_not_fit_is_refused_and_what_is_there_stays(stage: Stage, name: str, kin: Kin) -> None:
    backend = stage.open(name, hosts_max=100, prefixes_max=8)
    first = {kin.many(number): until(60) for number in range(90)}
    assert backend.apply(first, (), now()) == {}
    more = {kin.many(number): until(60) for number in range(80, 130)}
    refused = backend.apply(more, (), now())
    assert set(refused.values()) == {"full"} and len(refused) == 30
    assert refused.keys() < more.keys() - first.keys()
    there = first | {net: drop for net, drop in more.items() if net not in refused}
    assert same(backend.listed(now()), there)
    again = {net: until(30) for net in there}
    assert backend.apply(again, (), now()) == {}, "a full table takes new times"
    swapped = backend.apply({net: until(60) for net in list(refused)[:5]}, list(there)[:5], now())
    assert swapped == {}, "what is taken out makes room in the same call"
    wide = {
        net_of(f"203.0.{number}.0/24" if kin is V4 else f"2001:db8:{number:x}::/48"): until(60) for number in range(12)
    }
    refused = backend.apply(wide, (), now())
    assert set(refused.values()) == {"full"} and len(refused) == 4
    assert len(backend.listed(now())) == 108


@every
def test_bytes_that_are_no_network_are_the_callers_error(stage: Stage, name: str) -> None:
    backend = stage.open(name)
    wanted = {V4.net: until(60)}
    backend.apply(wanted, (), now())
    for bad in (
        b"",
        V4.net[:-1],
        V4.net[:-1] + b"\x21",
        V4.client.encode(),
        bytes([10, 0, 0, 1, 24]),
        bytes(16) + b"\x81",
    ):
        with pytest.raises(ValueError, match="not a network"):
            backend.apply({V6.net: until(60), bad: until(60)}, (), now())
        with pytest.raises(ValueError, match="not a network"):
            backend.apply({}, [V4.net, bad], now())
    assert same(backend.listed(now()), wanted), "nothing of such a call is done"


# Processes that come and go


@those(SURVIVES)
def test_the_next_process_adopts_what_a_killed_one_left(stage: Stage, name: str) -> None:
    put = {net: until(60, doors) for kin in KINS for net, doors in ((kin.net, 0b01), (kin.prefix, 0b11))}
    Holder(stage, name, put).kill()
    assert stage.shut(V4.client, FIRST, witness=V4.outsider)
    backend = stage.open(name)
    assert same(backend.listed(now()), put)
    for kin in KINS:
        assert stage.shut(kin.client, FIRST, witness=kin.outsider)
    assert backend.apply({V4.net: until(30, 0b10)}, [V4.prefix, V6.net, V6.prefix], now()) == {}
    for kin in KINS:
        assert stage.reaches(kin.client, FIRST)
    assert stage.shut(V4.client, SECOND, witness=V4.neighbour)


@those(SURVIVES)
def test_closed_it_leaves_what_is_in_force(stage: Stage, name: str) -> None:
    backend = stage.open(name)
    put = {V4.net: until(60), V6.net: until(60)}
    backend.apply(put, (), now())
    stage.close(backend, withdraw=False)
    for kin in KINS:
        assert stage.shut(kin.client, FIRST, witness=kin.neighbour)
    assert same(stage.open(name).listed(now()), put)


@every
def test_withdrawn_nothing_of_ours_is_left(stage: Stage, name: str) -> None:
    before = everything(stage.gate)
    backend = stage.open(name)
    backend.apply({net: until(60) for kin in KINS for net in (kin.net, kin.prefix)}, (), now())
    stage.close(backend, withdraw=True)
    assert everything(stage.gate) == before
    for kin in KINS:
        assert stage.reaches(kin.client, FIRST)
    assert stage.open(name).listed(now()) == {}


def everything(gate: Space) -> str:
    routes = [gate.ip(family, "route", "show", "table", "all") for family in ("-4", "-6")]
    rules = [gate.ip(family, "rule") for family in ("-4", "-6")]
    return "\n".join([gate.run(program("nft"), "list", "ruleset"), *routes, *rules])


# Others


def furnish(gate: Space) -> None:
    """Objects that look a little like ours."""
    gate.run(
        program("nft"),
        "-f",
        "-",
        input="""
        table inet operator {
            set hosts4 { type ipv4_addr; elements = { 203.0.113.9, 203.0.113.10 }; }
            chain in { type filter hook prerouting priority raw; ip saddr 203.0.113.77 drop; }
        }
        table ip scrubber2 { chain c { tcp dport 8001 accept; }; }
        """,
    )
    for words in (
        "blackhole 203.0.113.1/32",
        f"blackhole 203.0.113.2/32 table {ROUTE_TABLE} proto static",
        f"unreachable 203.0.113.3/32 table {ROUTE_TABLE + 1}",
        f"blackhole 2001:db8:bad::/64 table {ROUTE_TABLE} proto static",
        "blackhole 2001:db8:bad:1::/64",
    ):
        gate.ip("route", "add", *words.split())
    gate.ip("rule", "add", "from", "203.0.113.4", "lookup", str(ROUTE_TABLE + 1))


@every
def test_what_belongs_to_others_is_not_touched(stage: Stage, name: str) -> None:
    furnish(stage.gate)
    before = of_others(stage.gate)
    assert "operator" in before and "203.0.113.2" in before
    backend = stage.open(name)
    assert backend.listed(now()) == {}, "theirs are not ours"
    theirs = [net_of(text) for text in ("203.0.113.1", "203.0.113.2", "203.0.113.3", "2001:db8:bad::/64")]
    backend.apply({V4.net: until(60), theirs[0]: until(60)}, theirs[1:], now())
    backend.use_doors(stage.doors)
    backend.apply({}, [V4.net, *theirs], now())
    assert of_others(stage.gate) == before
    stage.close(backend, withdraw=True)
    assert of_others(stage.gate) == before


@those(NOTICES)
def test_what_somebody_flushes_is_noticed_and_put_back(stage: Stage, name: str) -> None:
    backend = stage.open(name)
    wanted = {net: until(60) for kin in KINS for net in (kin.net, kin.prefix)}
    backend.apply(wanted, (), now())
    assert not noticed(backend.fileno(), 0.2) or not backend.disturbed(), "our own changes disturb nobody"
    FLUSH[name](stage.gate)
    assert noticed(backend.fileno(), 10) and backend.disturbed()
    assert backend.listed(now()) == {}
    assert stage.reaches(V4.client, FIRST)
    assert backend.apply(wanted, (), now()) == {}
    assert same(backend.listed(now()), wanted)
    for kin in KINS:
        assert stage.shut(kin.client, FIRST, witness=kin.outsider)


@every
def test_apply_mends_what_somebody_flushed(stage: Stage, name: str) -> None:
    """Without a look at `listed` or `disturbed` before."""
    backend = stage.open(name)
    backend.apply({V4.net: until(60), V6.net: until(60), V4.prefix: until(60)}, (), now())
    FLUSH[name](stage.gate)
    wanted = {V4.net: until(60), V6.prefix: until(60)}
    assert backend.apply(wanted, [V6.net, V4.prefix], now()) == {}
    assert same(backend.listed(now()), wanted)
    assert stage.shut(V4.client, FIRST, witness=V4.neighbour)


def noticed(fileno: int, wait_s: float) -> bool:
    return bool(select.select([fileno], [], [], wait_s)[0])


# Doors that move


@those(BY_PORT)
def test_other_listening_addresses_take_over_what_is_in_force(stage: Stage, name: str) -> None:
    backend = stage.open(name)
    wanted = {V4.net: until(60), V6.prefix: until(60)}
    backend.apply(wanted, (), now())
    for port, other in ((NO_DOOR, FIRST), (FIRST, NO_DOOR)):
        backend.use_doors((door(port),))
        assert same(backend.listed(now()), wanted)
        for kin in KINS:
            assert stage.shut(kin.client, port, witness=kin.outsider)
            assert stage.reaches(kin.client, other)


@those(BY_DOOR)
def test_doors_become_more_and_fewer(stage: Stage, name: str) -> None:
    backend = stage.open(name)
    backend.apply({V4.net: until(60, 0b11)}, (), now())
    backend.use_doors((door(FIRST),))
    assert stage.reaches(V4.client, SECOND)
    assert stage.shut(V4.client, FIRST, witness=V4.neighbour)
    assert {net: drop.doors & 1 for net, drop in backend.listed(now()).items()} == {V4.net: 1}
    backend.use_doors((door(FIRST), door(SECOND), door(NO_DOOR)))
    wanted = {V4.net: until(60, 0b100), V6.net: until(60, 0b110)}
    assert backend.apply(wanted, (), now()) == {}
    assert same(backend.listed(now()), wanted)
    assert stage.shut(V4.client, NO_DOOR, witness=V4.neighbour)
    assert stage.reaches(V4.client, FIRST)


# Counts


@those(COUNTS)
@of_both
def test_what_was_dropped_is_counted_by_network(stage: Stage, name: str, kin: Kin) -> None:
    backend = stage.open(name)
    backend.apply({kin.net: until(60), kin.neighbour_net: until(60)}, (), now())
    assert stage.shut(kin.client, FIRST, witness=kin.outsider)
    first = backend.counted()[kin.net]
    assert first.packets >= 1 and first.bytes >= 40 * first.packets
    assert kin.neighbour_net not in backend.counted() or backend.counted()[kin.neighbour_net].packets == 0
    assert stage.shut(kin.client, FIRST, witness=kin.outsider)
    assert backend.counted()[kin.net].packets > first.packets
    backend.apply({kin.prefix: until(60)}, [kin.net, kin.neighbour_net], now())
    assert stage.shut(kin.neighbour, FIRST, witness=kin.outsider)
    assert backend.counted()[kin.prefix].packets >= 1
