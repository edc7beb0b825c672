"""Blackholes upstream, with BIRD at both ends: gateway - the provider's router - somebody out there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scrubber.enforce.announce import SOURCES_TABLE, TUN, VICTIMS_TABLE, Announcer
from scrubber.enforce.backend import Unavailable
from scrubber.enforce.bird_config import Neighbour, Side, bird_config, provider_config
from scrubber.enforce.net import Net, net_of
from tests.net.bird import GONE, NEW, Bird, Told, until
from tests.net.conftest import why_not
from tests.net.space import Space, wire

ROOT = Path(__file__).resolve().parents[2]
OWNED = ("203.0.113.0/24", "2001:db8:7::/48")
PROTECTED = (net_of("203.0.113.0/25"), net_of("2001:db8:7:1::/64"))
VICTIMS = ("203.0.113.7", "2001:db8:7:1::7")
BESIDE = ("203.0.113.8", "2001:db8:7:1::8")
OUTSIDE = ("198.18.0.5", "2001:db8:f::5")
OUTSIDE_TOO = ("198.18.0.6", "2001:db8:f::6")
SOURCE_COMMUNITY = (64513, 667)
WORD = "not-much-of-one"  # TCP MD5 over IPv4
TTL_NS = 10**12
ROUNDS = 50


class Net3:
    """The three of them, two BIRDs, and routes to everybody."""

    def __init__(self, home: Path, close: contextlib.ExitStack) -> None:
        self.gateway, self.upstream, self.out = (Space(label) for label in ("gateway", "upstream", "out"))
        for space in (self.gateway, self.upstream, self.out):
            close.callback(space.close)
        wire(self.gateway, "north 10.1.0.1/24 fd00:1::1/64", self.upstream, "south 10.1.0.2/24 fd00:1::2/64")
        wire(self.upstream, "abroad 10.2.0.1/24 fd00:2::1/64", self.out, "home 10.2.0.2/24 fd00:2::2/64")
        # A provider that drops by source does so by reverse path; IPv6 has no such setting.
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.abroad.rp_filter"):
            self.upstream.run("sysctl", "-qw", f"{name}=1")
        for address in (*VICTIMS, *BESIDE):
            self.gateway.ip("address", "add", address, "dev", "lo")
        for address in (*OUTSIDE, *OUTSIDE_TOO):
            self.out.ip("address", "add", address, "dev", "lo")
        self.gateway.ip("route", "add", "default", "via", "10.1.0.2")
        self.gateway.ip("route", "add", "default", "via", "fd00:1::2")
        self.out.ip("route", "add", "default", "via", "10.2.0.1")
        self.out.ip("route", "add", "default", "via", "fd00:2::1")
        for prefix, via in zip((*OWNED, "198.18.0.0/15", "2001:db8:f::/48"), DOORSTEPS, strict=True):
            self.upstream.ip("route", "add", prefix, "via", via)
        self.ours = Bird(self.gateway, home, gateway_text())
        close.callback(self.ours.kill)
        self.theirs = Bird(self.upstream, home, upstream_text())
        close.callback(self.theirs.kill)
        self.ours.wait_established(2)

    def blackholes(self) -> set[str]:
        """That the provider's kernel has, as it prints them."""
        found = []
        for family in ("-4", "-6"):
            found += json.loads(self.upstream.ip("-j", family, "route", "show", "proto", "bird") or "[]")
        return {each["dst"] for each in found if each.get("type") == "blackhole"}

    def reached(self, source: str, targets: tuple[str, ...]) -> list[str]:
        """Which of these of the gateway's addresses a packet from there gets to, sent in this order; the last one has
        to be among them: what was sent before has then arrived or never will."""
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        with contextlib.ExitStack() as close:
            with self.gateway.inside():
                inside = close.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            with self.out.inside():
                outside = close.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            inside.bind(("::" if ":" in source else "0.0.0.0", 9))
            inside.settimeout(5)
            outside.bind((source, 0))
            for target in targets:
                outside.sendto(target.encode(), (target, 9))
            found: list[str] = []
            while targets[-1] not in found:
                found.append(inside.recv(100).decode())
            return found


DOORSTEPS = ("10.1.0.1", "fd00:1::1", "10.2.0.2", "fd00:2::2")


def gateway_text() -> str:
    upstream = (Neighbour("10.1.0.2", 64513, password=WORD), Neighbour("fd00:1::2", 64513))
    side = Side("10.1.0.1", 64512, PROTECTED, upstream, VICTIMS_TABLE, SOURCES_TABLE, SOURCE_COMMUNITY)
    return bird_config(side)


def upstream_text() -> str:
    customer = Neighbour("10.1.0.1", 64512, password=WORD), Neighbour("fd00:1::1", 64512)
    owned = [net_of(text) for text in OWNED]
    parts = [provider_config(64513, each, owned, SOURCE_COMMUNITY) for each in customer]
    parts += [f"protocol kernel {{ ipv{family} {{ import none; export all; }}; }}" for family in (4, 6)]
    return "\n".join(["router id 10.1.0.2;", "protocol device { }", *parts])


@pytest.fixture(scope="module")
def net3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net3]:
    """One for all of this file: a session takes seconds to come up."""
    refused = why_not()
    if refused:
        pytest.skip(refused)
    with contextlib.ExitStack() as close:
        yield Net3(tmp_path_factory.mktemp("bird"), close)


@pytest.fixture
def announcer(net3: Net3) -> Iterator[Announcer]:
    """The gateway's. Afterwards nothing is announced."""
    with net3.gateway.inside():
        made = Announcer()
    yield made
    made.close()
    until(lambda: not net3.blackholes(), "the provider has lifted all")


def now() -> int:
    return time.monotonic_ns()


def both(kind: str, addresses: tuple[str, ...]) -> list[tuple[Net, str]]:
    return [(net_of(text), kind) for text in addresses]


def put(announcer: Announcer, kind: str, addresses: tuple[str, ...]) -> None:
    assert announcer.apply(dict.fromkeys(both(kind, addresses), now() + TTL_NS), [], now()) == {}


def test_a_victim_is_dropped_upstream_and_lifted_in_a_moment(
    net3: Net3, announcer: Announcer, record_property: Callable[[str, object], None]
) -> None:
    """Both families; those beside it are reached throughout."""
    told = Told(net3.upstream)
    taken: dict[str, list[float]] = {"announced": [], "withdrawn": []}
    for _ in range(ROUNDS):
        for address in VICTIMS:
            key = (net_of(address), "victim")
            begun = time.monotonic()
            assert announcer.apply({key: now() + TTL_NS}, [], now()) == {}
            taken["announced"].append(told.wait(NEW, {key[0]}) - begun)
            begun = time.monotonic()
            announcer.apply({}, [key], now())
            taken["withdrawn"].append(told.wait(GONE, {key[0]}) - begun)
    told.close()
    for what, times in taken.items():
        median, p99 = statistics.median(times) * 1000, statistics.quantiles(times, n=100)[98] * 1000
        record_property(what, f"p50 {median:.1f} ms, p99 {p99:.1f} ms, worst {max(times) * 1000:.1f} ms")
        print(f"{what}: p50 {median:.1f} ms, p99 {p99:.1f} ms, worst {max(times) * 1000:.1f} ms")
        assert p99 <= 1000


def test_packets_to_a_victim_stop_and_its_neighbours_get_theirs(net3: Net3, announcer: Announcer) -> None:
    for source, victim, beside in zip(OUTSIDE, VICTIMS, BESIDE, strict=True):
        assert net3.reached(source, (victim, beside)) == [victim, beside]
    put(announcer, "victim", VICTIMS)
    until(lambda: net3.blackholes() == set(VICTIMS), "victims are dropped upstream")
    for source, victim, beside in zip(OUTSIDE, VICTIMS, BESIDE, strict=True):
        assert net3.reached(source, (victim, beside)) == [beside]
    announcer.apply({}, both("victim", VICTIMS), now())
    until(lambda: not net3.blackholes(), "victims are lifted")
    for source, victim, beside in zip(OUTSIDE, VICTIMS, BESIDE, strict=True):
        assert net3.reached(source, (victim, beside)) == [victim, beside]


def test_a_source_is_dropped_upstream(net3: Net3, announcer: Announcer) -> None:
    put(announcer, "source", ("198.18.0.5", "2001:db8:f::/64"))
    until(lambda: net3.blackholes() == {"198.18.0.5", "2001:db8:f::/64"}, "sources are dropped upstream")
    assert "(65535,666)" not in net3.theirs.ask("show route all")
    with net3.gateway.inside():
        inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with inside:
        inside.bind((BESIDE[0], 9))
        inside.settimeout(5)
        for source in (OUTSIDE[0], OUTSIDE_TOO[0]):
            with net3.out.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
                outside.bind((source, 0))
                outside.sendto(source.encode(), (BESIDE[0], 9))
        assert inside.recv(100) == OUTSIDE_TOO[0].encode()


def test_a_victim_loses_nothing_here(net3: Net3, announcer: Announcer) -> None:
    """Its route is in a table that nothing looks up: it answers, and is reached from this machine, as before."""
    put(announcer, "victim", VICTIMS)
    put(announcer, "source", OUTSIDE_TOO)
    for victim in VICTIMS:
        assert "local" in net3.gateway.ip("route", "get", victim)
    for source, via in zip(OUTSIDE_TOO, ("10.1.0.2", "fd00:1::2"), strict=True):
        assert via in net3.gateway.ip("route", "get", source)
    rules = net3.gateway.ip("rule") + net3.gateway.ip("-6", "rule")
    assert rules.count("lookup") == 5, "only those that every machine has"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("victim", "203.0.113.0/25"),  # not one address
        ("victim", "203.0.113.200"),  # not protected by us
        ("victim", "2001:db8:7:1::/64"),
        ("victim", "2001:db8:8::1"),
        ("source", "203.0.113.8"),  # ours
        ("source", "203.0.113.0/24"),  # holds ours
        ("source", "198.16.0.0/14"),  # too wide
        ("source", "2001:db8:7::/48"),
        ("source", "2001:db8::/32"),
    ],
)
def test_bird_announces_nothing_that_its_filter_does_not_know(
    net3: Net3, announcer: Announcer, kind: str, text: str
) -> None:
    """Should all that is above it fail."""
    good = both("victim", VICTIMS)
    assert announcer.apply({(net_of(text), kind): now() + TTL_NS}, [], now()) == {}
    assert announcer.apply(dict.fromkeys(good, now() + TTL_NS), [], now()) == {}
    until(lambda: net3.blackholes() == set(VICTIMS), "what is sound is announced")
    assert text not in net3.theirs.ask("show route")
    assert net3.ours.log.read_text().count(f"not announced: {net_of_text(text)}") >= 1


def net_of_text(text: str) -> str:
    """With its length, as BIRD says it."""
    return text if "/" in text else f"{text}/{128 if ':' in text else 32}"


def test_the_provider_takes_nothing_but_hosts_of_its_customer(net3: Net3, announcer: Announcer) -> None:
    """A customer's BIRD without any filter, over the session that ours has: refused there."""
    text = gateway_text().replace("net ~ [", "true || net ~ [").replace("net.len = 32", "true")
    with reconfigured(net3, text):
        wide = [(net_of("203.0.113.0/25"), "victim"), (net_of("192.0.2.0/24"), "victim")]
        sent = {**dict.fromkeys(wide, now() + TTL_NS), (net_of(VICTIMS[0]), "victim"): now() + TTL_NS}
        assert announcer.apply(sent, [], now()) == {}
        refused = [f"refused from a customer: {each}" for each in ("203.0.113.0/25", "192.0.2.0/24")]
        until(lambda: all(each in net3.theirs.log.read_text() for each in refused), "the wide ones were sent")
        until(lambda: net3.blackholes() == {VICTIMS[0]}, "and the host")
        for key in sent:  # before the filter is back
            announcer.apply({}, [key], now())


def test_the_session_that_exists_can_carry_them(net3: Net3, announcer: Announcer) -> None:
    """As docs/upstream.md has it: through the machine's own table, yet not into its kernel."""
    text = (ROOT / "docs/upstream.md").read_text()
    piped = text[text.index("protocol pipe { table master4") :].split("```", 1)[0]
    session = gateway_text().replace("\t\ttable scrubber4;", "\t\ttable master4;")
    own = "protocol static { ipv4; route 198.51.100.0/24 unreachable; }\n"
    with reconfigured(net3, session + piped + own):
        until(lambda: "198.51.100.0/24" in net3.theirs.log.read_text(), "the session carries what it did before")
        put(announcer, "victim", VICTIMS)
        until(lambda: net3.blackholes() == set(VICTIMS), "victims are dropped upstream")
        until(
            lambda: "198.51.100.0" in net3.gateway.ip("route", "show", "proto", "bird"), "our kernel gets what it did"
        )
        assert VICTIMS[0] not in net3.gateway.ip("route", "show", "table", "main")
        announcer.apply({}, both("victim", VICTIMS), now())
        until(lambda: not net3.blackholes(), "victims are lifted")


@contextlib.contextmanager
def reconfigured(net3: Net3, text: str) -> Iterator[None]:
    """Our BIRD, with another text for a while."""
    before = net3.ours.file.read_text()
    try:
        net3.ours.file.write_text(f'log "{net3.ours.log}" all;\n{text}')
        said = net3.ours.ask("configure")
        assert "Reconfigur" in said, said
        yield
    finally:
        net3.ours.file.write_text(before)
        net3.ours.ask("configure")
        net3.ours.wait_established(2)


def test_a_killed_bird_lifts_all_and_announces_all_when_it_is_back(net3: Net3, announcer: Announcer) -> None:
    put(announcer, "victim", VICTIMS)
    put(announcer, "source", OUTSIDE_TOO)
    wanted = {*VICTIMS, *OUTSIDE_TOO}
    until(lambda: net3.blackholes() == wanted, "all are dropped upstream")
    net3.ours.kill()
    try:
        until(lambda: not net3.blackholes(), "all are lifted")
    finally:
        net3.ours.start()
    until(lambda: net3.blackholes() == wanted, "all are dropped again")


def test_a_flapping_session_heals(net3: Net3, announcer: Announcer) -> None:
    put(announcer, "victim", VICTIMS)
    until(lambda: net3.blackholes() == set(VICTIMS), "victims are dropped upstream")
    net3.ours.ask("disable scrubber_upstream1")
    until(lambda: net3.blackholes() == {VICTIMS[1]}, "what went over that session is lifted")
    announcer.apply({(net_of(BESIDE[0]), "victim"): now() + TTL_NS}, [], now())  # meanwhile
    net3.ours.ask("enable scrubber_upstream1")
    until(lambda: net3.blackholes() == {*VICTIMS, BESIDE[0]}, "and all is back")


HOLDER = """
import signal, sys, time
from scrubber.enforce.announce import Announcer
from scrubber.enforce.net import net_of
announcer = Announcer()
now = time.monotonic_ns()
assert announcer.apply({(net_of(text), "victim"): now + 10**12 for text in sys.argv[1:]}, [], now) == {}
print("ready", flush=True)
signal.pause()
"""


def test_a_killed_enforcer_lifts_all(net3: Net3) -> None:
    told = Told(net3.upstream)
    holder = net3.gateway.popen(
        sys.executable, "-c", HOLDER, *VICTIMS, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        nets = {net_of(text) for text in VICTIMS}
        told.wait(NEW, nets)
        with net3.gateway.inside(), pytest.raises(Unavailable, match="scrub1"):
            Announcer()  # there is one
    finally:
        begun = time.monotonic()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    lifted = told.wait(GONE, nets) - begun
    told.close()
    print(f"lifted after {lifted * 1000:.0f} ms")
    assert lifted <= 5
    assert not net3.blackholes()
    with net3.gateway.inside():
        Announcer().close()  # nothing in the way of the next one


def test_what_is_over_is_withdrawn_and_what_is_renewed_stays(net3: Net3, announcer: Announcer) -> None:
    keys = both("victim", (VICTIMS[0], BESIDE[0]))
    at = now()
    announcer.apply({keys[0]: at + 1000, keys[1]: at + 1000}, [], at)
    announcer.apply({keys[1]: at + 5000}, [], at)
    assert announcer.due_ns() == at + 1000
    assert announcer.listed(at + 2000) == {keys[1]: at + 5000}
    assert announcer.due_ns() == at + 5000
    assert announcer.apply({}, [], at + 5000) == {}
    assert announcer.listed(at) == {}
    assert announcer.due_ns() is None


def test_what_is_no_network_or_all_of_them_is_refused(net3: Net3, announcer: Announcer) -> None:
    """The two that once went round: a default route, and a host whose mask was forgotten."""
    at = now()
    good = (net_of("203.0.113.9"), "victim")
    refused = [(bytes(5), "victim"), (bytes(17), "source"), (net_of("192.0.2.1"), "friend")]
    asked = dict.fromkeys([good, *refused], at + TTL_NS)
    assert announcer.apply(asked, [], at) == dict.fromkeys(refused, "unsupported")
    for bad in (b"", bytes(4), net_of("203.0.113.7")[:-1], b"\xcb\x00\x71\x07\x18", b"\xcb\x00\x71\x07\x21"):
        with pytest.raises(ValueError, match="not a network"):
            announcer.apply({(bad, "victim"): at + TTL_NS}, [good], at)
    assert announcer.listed(at).keys() == {good}, "nothing of such a call is done"
    assert announcer.apply({good: at}, [], at) == {good: "over"}
    assert announcer.listed(at) == {}


def test_no_more_than_agreed_are_announced(net3: Net3) -> None:
    with net3.gateway.inside():
        few = Announcer(announced_max=2)
    try:
        at = now()
        keys = both("victim", (*VICTIMS, *BESIDE))
        assert list(few.apply(dict.fromkeys(keys, at + TTL_NS), [], at).values()) == ["full", "full"]
        assert few.apply({keys[2]: at + TTL_NS}, [keys[0]], at) == {}, "what is withdrawn makes room in the same call"
        assert few.listed(at).keys() == set(keys[1:3])
    finally:
        few.close()
    until(lambda: not net3.blackholes(), "the provider has lifted all")


def test_what_another_takes_away_is_said_and_announced_again(net3: Net3, announcer: Announcer) -> None:
    put(announcer, "victim", VICTIMS)
    until(lambda: net3.blackholes() == set(VICTIMS), "victims are dropped upstream")
    net3.gateway.ip("link", "delete", TUN)
    until(lambda: not net3.blackholes(), "all are lifted")
    assert announcer.disturbed()
    assert announcer.listed(now()) == {}
    put(announcer, "victim", VICTIMS)
    until(lambda: net3.blackholes() == set(VICTIMS), "victims are dropped upstream again")
    assert not announcer.disturbed()
