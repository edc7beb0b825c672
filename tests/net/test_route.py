"""Drops by routes: what tells them from other backends (the suite of all is test_backends.py)."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from scrubber.enforce import netlink
from scrubber.enforce.backend import ROUTE_PROTO, ROUTE_TABLE, Drop, Settings, Unavailable
from scrubber.enforce.net import Net, net_of
from scrubber.enforce.netlink import NLM_F_DUMP, RTM_GETLINK, RTM_NEWROUTE, Netlink, RouteMaker, decoded
from scrubber.enforce.route import RULE_PRIORITY, TUN, Route
from scrubber.enforce.table import OF_ANOTHER, RouteTable
from tests.e2e.support import SANITIZED_SLOW
from tests.net.space import Space
from tests.net.stage import FIRST, KINS, NS, V4, V6, Holder, Kin, Stage, door, now, until
from tests.wanted import program

ROOT = Path(__file__).resolve().parents[2]
MANY = 100_000
ONE_DOOR = Settings((door(FIRST),), hosts_max=MANY)

of_both = pytest.mark.parametrize("kin", KINS, ids=["v4", "v6"])


@contextlib.contextmanager
def opened(gate: Space, settings: Settings = ONE_DOOR) -> Iterator[Route]:
    with gate.inside():
        made = Route(settings)
    try:
        yield made
    finally:
        made.close(withdraw=True)


def asker(gate: Space) -> Netlink:
    """A socket of somebody else's."""
    with gate.inside():
        return Netlink()


def many(count: int, kin: Kin, seconds: float = 600) -> dict[Net, Drop]:
    drop = until(seconds)
    return {kin.many(number): drop for number in range(count)}


def rules(gate: Space) -> list[str]:
    both = (gate.ip("-4", "rule") + gate.ip("-6", "rule")).splitlines()
    return [line for line in both if f"lookup {ROUTE_TABLE}" in line]


def routes(gate: Space, family: str) -> list[dict[str, str]]:
    """An unknown table is an error to ip."""
    shown = json.loads(gate.ip("-j", "-N", family, "route", "show", "table", "all"))
    return [each for each in shown if each.get("table") == str(ROUTE_TABLE)]


# What a drop does


class Heard(contextlib.ExitStack):
    """UDP between the clients of a stage and its gate, one socket each."""

    def __init__(self, stage: Stage, kin: Kin) -> None:
        super().__init__()
        self.kin = kin
        family = socket.AF_INET if kin is V4 else socket.AF_INET6
        with stage.gate.inside():
            self.gate = self.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        with stage.peer.inside():
            self.client, self.witness = (self.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2))
        for one, address in ((self.gate, kin.gate), (self.client, kin.client), (self.witness, kin.neighbour)):
            one.bind((address, FIRST))
            one.settimeout(10)

    def arrive(self, count: int) -> list[str]:
        """Who is heard of client and, after it, witness."""
        for one in (self.client, self.witness):
            one.sendto(b"hello", (self.kin.gate, FIRST))
        return [self.gate.recvfrom(100)[1][0] for _ in range(count)]


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_no_ipv4_packet_gets_in_whatever_rp_filter_is(stage: Stage, mode: int) -> None:
    for name in ("all", "wan"):
        stage.gate.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter={mode}")
    with opened(stage.gate) as backend, Heard(stage, V4) as heard:
        assert backend.replies_only == {6}
        assert heard.arrive(2) == [V4.client, V4.neighbour]
        backend.apply({V4.net: until(60)}, (), now())
        assert heard.arrive(1) == [V4.neighbour]
        backend.apply({V4.prefix: until(60)}, [V4.net], now())
        assert stage.shut(V4.client, FIRST, witness=V4.outsider)
        backend.apply({}, [V4.prefix], now())
        assert heard.arrive(2) == [V4.client, V4.neighbour]


def test_an_ipv6_packet_gets_in_but_no_answer_out(stage: Stage) -> None:
    with opened(stage.gate) as backend, Heard(stage, V6) as heard:
        backend.apply({V6.net: until(60)}, (), now())
        assert heard.arrive(2) == [V6.client, V6.neighbour]
        for address in (V6.client, V6.neighbour):
            heard.gate.sendto(b"hello", (address, FIRST))
        assert heard.witness.recv(100) == b"hello"
        heard.client.setblocking(False)
        with pytest.raises(BlockingIOError):
            heard.client.recv(100)


@of_both
def test_what_is_connected_already_is_cut_off_and_goes_on_afterwards(stage: Stage, kin: Kin) -> None:
    family = socket.AF_INET if kin is V4 else socket.AF_INET6
    with contextlib.ExitStack() as close:
        with stage.gate.inside():
            ear = close.enter_context(socket.create_server((kin.gate, 9000), family=family))
        pairs = []
        for address in (kin.client, kin.neighbour):
            with stage.peer.inside():
                near = close.enter_context(socket.create_connection((kin.gate, 9000), 10, (address, 0)))
            far = close.enter_context(ear.accept()[0])
            far.settimeout(10)
            pairs.append((near, far))
        backend = close.enter_context(opened(stage.gate))
        backend.apply({kin.net: until(60)}, (), now())
        for near, far in reversed(pairs):
            far.send(b"down")  # the witness is the first to be sent to: the client had its turn if that arrives
            near.setblocking(False)
        pairs[1][0].setblocking(True)
        assert pairs[1][0].recv(10) == b"down"
        with pytest.raises(BlockingIOError):
            pairs[0][0].recv(10)
        backend.apply({}, [kin.net], now())
        pairs[0][0].settimeout(10)
        assert pairs[0][0].recv(10) == b"down", "TCP sends it again"


def test_nothing_queues_on_the_device(stage: Stage) -> None:
    """Nobody reads it: what is sent there is freed at once."""
    with opened(stage.gate) as backend:
        backend.apply({net_of("192.0.2.1"): until(60), net_of("2001:db8:9::/64"): until(60)}, (), now())
        with stage.gate.inside():
            out = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with out:
            for number in range(4000):
                out.sendto(bytes(1400), (("::ffff:192.0.2.1", "2001:db8:9::1")[number % 2], 9))
        device = json.loads(stage.gate.ip("-s", "-j", "link", "show", TUN))[0]
        assert device["stats64"]["tx"]["dropped"] >= 4000
        assert device["stats64"]["tx"]["packets"] == 0


# Ends of it


def test_what_is_due_is_taken_out_when_it_is_asked(stage: Stage) -> None:
    with opened(stage.gate) as backend:
        assert backend.due_ns() is None
        first, second = now() + NS // 5, now() + 60 * NS
        backend.apply({V4.net: Drop(first, 1), V6.net: Drop(second, 1)}, (), now())
        assert backend.due_ns() == first
        assert stage.shut(V4.client, FIRST, witness=V4.neighbour)
        assert backend.listed(first) == {V6.net: Drop(second, 1)}
        assert stage.reaches(V4.client, FIRST)
        assert backend.due_ns() == second


def test_a_killed_process_drops_nobody_and_the_next_one_cleans_up(stage: Stage) -> None:
    put = {net: until(600) for kin in KINS for net in (kin.net, kin.prefix)}
    before = stage.gate.ip("rule"), stage.gate.ip("-6", "rule")
    Holder(stage, "route", put).kill()
    for kin in KINS:
        assert stage.reaches(kin.client, FIRST)
    assert not routes(stage.gate, "-4") and not routes(stage.gate, "-6")
    assert len(rules(stage.gate)) == 2, "they look up nothing"
    with opened(stage.gate) as backend:
        assert len(rules(stage.gate)) == 2
        assert backend.listed(now()) == {}
        assert backend.apply(put, (), now()) == {}
        assert stage.shut(V4.client, FIRST, witness=V4.outsider)
    assert (stage.gate.ip("rule"), stage.gate.ip("-6", "rule")) == before


def test_there_is_one_at_a_time(gate: Space) -> None:
    with opened(gate) as backend:
        backend.apply({V4.net: until(60)}, (), now())
        with gate.inside(), pytest.raises(Unavailable, match="still runs"):
            Route(ONE_DOOR)
        assert backend.listed(now()).keys() == {V4.net}
        assert len(rules(gate)) == 2


# Doors


def test_it_takes_only_what_is_shut_out_everywhere(gate: Space) -> None:
    with opened(gate, Settings((door(1), door(2)))) as backend:
        assert backend.apply({V4.net: until(60, 0b01), V6.net: until(60, 0b11)}, (), now()) == {V4.net: "unsupported"}
        assert backend.listed(now()).keys() == {V6.net}
        assert backend.apply({V6.net: until(60, 0b10)}, (), now()) == {V6.net: "unsupported"}
        assert backend.listed(now()) == {}, "one door opened to it, so all do"
        backend.apply({V4.net: until(60, 0b11), V6.net: until(60, 0b111)}, (), now())
        backend.use_doors((door(1), door(2), door(3)))
        assert backend.listed(now()).keys() == {V6.net}, "the third is not shut to the other one"
        backend.use_doors((door(1),))
        assert backend.listed(now()).keys() == {V6.net}
        everything = {net_of("0.0.0.0/0"): until(60), net_of("::/0"): until(60)}
        assert backend.apply(everything, (), now()) == dict.fromkeys(everything, "unsupported")


# Others


@of_both
def test_a_route_of_anothers_is_left_and_said(gate: Space, kin: Kin) -> None:
    rule = f"priority {RULE_PRIORITY} lookup {ROUTE_TABLE} protocol static".split()
    gate.ip("rule", "add", *rule)
    theirs, text = kin.net, (V4.client, "2001:db8:1:1::/64")[kin is V6]
    gate.ip("route", "add", text, "dev", "lo", "table", str(ROUTE_TABLE), "proto", "static")
    family = "-6" if kin is V6 else "-4"
    shown = routes(gate, family)
    with opened(gate) as backend:
        assert backend.apply({theirs: until(60), kin.prefix: until(60)}, (), now()) == {theirs: OF_ANOTHER}
        assert backend.listed(now()).keys() == {kin.prefix}
        backend.apply({}, [theirs], now())
        assert [each for each in routes(gate, family) if each["dst"] == text] == shown
        gate.ip("route", "delete", text, "table", str(ROUTE_TABLE))
        assert backend.apply({theirs: until(60)}, (), now()) == {}
        assert backend.listed(now()).keys() == {theirs, kin.prefix}
    assert rules(gate) == [f"{RULE_PRIORITY}:\tfrom all lookup {ROUTE_TABLE} proto static"]


@of_both
def test_what_has_our_number_and_no_end_goes(gate: Space, kin: Kin) -> None:
    """Left by one of us that made routes of another type, or put by hand."""
    prefix = ("198.18.1.0/24", "2001:db8:1::/48")[kin is V6]
    stray = f"blackhole {prefix} table {ROUTE_TABLE} proto {ROUTE_PROTO}".split()
    gate.ip("route", "add", *stray)
    with opened(gate) as backend:
        assert not routes(gate, "-6" if kin is V6 else "-4")
        gate.ip("route", "add", *stray)
        assert backend.apply({kin.prefix: until(60)}, (), now()) == {}
        assert [each["dev"] for each in routes(gate, "-6" if kin is V6 else "-4")] == [TUN]
        backend.apply({}, [kin.prefix], now())
        gate.ip("route", "add", *stray)
        assert backend.listed(now()) == {}
        assert not routes(gate, "-6" if kin is V6 else "-4")


def test_what_somebody_replaced_is_not_ours_any_more(gate: Space) -> None:
    with opened(gate) as backend:
        backend.apply({V4.net: until(60), V4.neighbour_net: until(60)}, (), now())
        gate.ip("route", "replace", "unreachable", V4.client, "table", str(ROUTE_TABLE), "proto", "static")
        assert backend.disturbed() and not backend.disturbed()
        assert backend.listed(now()).keys() == {V4.neighbour_net}
        assert backend.apply({V4.net: until(60)}, (), now()) == {V4.net: OF_ANOTHER}


@pytest.mark.parametrize(
    ("what", "disturbs"),
    [
        (f"route delete {V4.client} table {ROUTE_TABLE}", True),
        (f"route delete 2001:db8:1:1::/64 table {ROUTE_TABLE}", True),
        (f"-6 rule delete lookup {ROUTE_TABLE}", True),
        (f"link set {TUN} down", True),
        (f"link delete {TUN}", True),
        ("route add blackhole 192.0.2.0/24", False),
        ("route add blackhole 192.0.2.0/24 table 300", False),  # a table whose number takes four bytes, too
        ("-6 route add blackhole 2001:db8:7::/48 table 7", False),
        ("rule add from 192.0.2.1 lookup 300", False),
        ("link add other type veth", False),
    ],
)
def test_only_who_changes_what_is_ours_disturbs(gate: Space, what: str, disturbs: bool) -> None:
    wanted = {V4.net: until(60), V6.net: until(60)}
    with opened(gate) as backend:
        backend.apply(wanted, (), now())
        assert not backend.disturbed(), "our own changes disturb nobody"
        gate.ip(*what.split())
        assert backend.disturbed() == disturbs
        assert backend.apply(wanted, (), now()) == {}
        assert backend.listed(now()) == wanted
        assert not backend.disturbed(), "what we mended is no news"
        assert len(rules(gate)) == 2
        assert {each["dev"] for family in ("-4", "-6") for each in routes(gate, family)} == {TUN}


@pytest.mark.parametrize("what", [f"link set {TUN} down", f"link delete {TUN}"])
def test_ipv4_routes_go_in_silence_with_their_device(gate: Space, what: str) -> None:
    with opened(gate) as backend:
        backend.apply({V4.net: until(60)}, (), now())
        gate.ip(*what.split())
        assert backend.disturbed()
        assert backend.listed(now()) == {}


def test_more_changes_than_fit_disturb(gate: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them ours; what was lost may have been."""
    monkeypatch.setattr(netlink, "BUFFER_BYTES", 4096)
    with opened(gate) as backend:
        wanted = {V4.net: until(60)}
        backend.apply(wanted, (), now())
        lines = [f"rule {act} from 192.0.2.1 lookup 300\n" for act in ("add", "delete")] * 100
        gate.run(program("ip"), "-batch", "-", input="".join(lines))
        gate.ip("route", "delete", V4.client, "table", str(ROUTE_TABLE))
        assert backend.disturbed()
        assert backend.apply(wanted, (), now()) == {}
        assert len(routes(gate, "-4")) == 1


# Many


@of_both
def test_a_hundred_thousand_at_once(gate: Space, kin: Kin, record_property: Callable[[str, object], None]) -> None:
    put = many(MANY, kin)
    assert len(put) == MANY
    figures = {}

    def timed(name: str, what: Callable[[], object]) -> object:
        begun = time.monotonic()
        found = what()
        figures[name] = time.monotonic() - begun
        return found

    with opened(gate) as backend:
        assert timed("put", lambda: backend.apply(put, (), now())) == {}
        assert timed("listed", lambda: backend.listed(now())) == put
        assert timed("put again", lambda: backend.apply(put, (), now())) == {}
        assert not backend.disturbed(), "nothing was lost: our own are not even sent to us"
        timed("removed", lambda: backend.apply({}, put, now()))
        assert backend.listed(now()) == {}
    for name, seconds in figures.items():
        record_property(name, f"{MANY / seconds:.0f}/s")
        print(f"{kin.family} {name}: {seconds:.2f} s, {MANY / seconds:.0f}/s")
    assert MANY / figures["put"] >= 50_000 / SANITIZED_SLOW
    assert figures["listed"] <= 5


def test_each_refusal_is_heard_of_in_a_small_buffer(gate: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a user namespace, where it cannot be made larger."""
    monkeypatch.setattr(netlink, "BUFFER_BYTES", 65536)
    with opened(gate), contextlib.closing(asker(gate)) as other:
        assert other.batch <= 128
        maker = RouteMaker(RTM_NEWROUTE, ROUTE_TABLE, oif=1)
        nets = [(V4, V6)[number % 2].many(number) for number in range(5000)]
        assert other.change(maker, nets) == {}
        assert other.change(maker, nets).keys() == set(nets)


class Meddled:
    """A socket: what another does between the parts of its first answers."""

    def __init__(self, real: socket.socket, meddle: Callable[[], object], times: int) -> None:
        self._real, self._meddle = real, meddle
        self.left = times

    def recv(self, size: int) -> bytes:
        data = self._real.recv(size)
        if self.left:
            self.left -= 1
            self._meddle()
        return data

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


@of_both
def test_a_list_is_exact_though_the_table_changes_while_it_is_read(
    gate: Space, kin: Kin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removing and making routes during a dump of IPv6 hides others from it, and nothing says so."""
    put = many(4000, kin)
    gone = iter(list(put)[:1000])
    with opened(gate) as backend, contextlib.closing(asker(gate)) as other:
        table = RouteTable(other, ROUTE_TABLE)
        assert backend.apply(put, (), now()) == {}
        left = dict(put)

        def meddle() -> None:
            taken = [next(gone) for _ in range(50)]
            for net in taken:
                del left[net]
            table.remove(taken)
            table.put([kin.many(10_000 + len(left))], 1)

        mine = backend._routes.netlink
        real = mine._socket
        meddled = Meddled(real, meddle, 12)
        monkeypatch.setattr(mine, "_socket", meddled)
        assert backend.listed(now()) == left
        assert meddled.left == 0
        monkeypatch.setattr(mine, "_socket", real)
        assert backend.listed(now()) == left
        assert table.held() == left.keys(), "what has no end is gone"
        assert not backend.disturbed() or backend.listed(now()) == left


def test_a_dump_that_the_kernel_calls_inconsistent_is_asked_for_again(
    gate: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of devices: of what else there is it never says so."""
    lines = [f"link add a{number} type veth peer name b{number}\n" for number in range(40)]
    gate.run(program("ip"), "-batch", "-", input="".join(lines))
    with contextlib.closing(asker(gate)) as mine:

        def names() -> list[str]:
            return [decoded(ifinfmsg, body).get("ifname") for body in mine.ask(RTM_GETLINK, ifinfmsg(), NLM_F_DUMP)]

        before = names()
        assert len(before) == 81
        gone = iter([f"a{number}" for number in range(3)])
        meddled = Meddled(mine._socket, lambda: gate.ip("link", "delete", next(gone)), 3)
        monkeypatch.setattr(mine, "_socket", meddled)
        found = names()
        assert meddled.left == 0
        assert sorted(found) == sorted(set(before) - {f"{end}{number}" for end in "ab" for number in range(3)})


# Privilege

LIVE = """
from scrubber.enforce.backend import *
from scrubber.enforce.route import Route
from scrubber.enforce.net import net_of
try:
    backend = Route(Settings((Door(((4, b"", 80),)),)))
except Unavailable as error:
    raise SystemExit(f"unavailable: {error}")
net = net_of("192.0.2.7")
assert backend.apply({net: Drop(10**18, 1)}, (), 0) == {}
assert backend.listed(0) == {net: Drop(10**18, 1)}
backend.close(withdraw=True)
"""


@pytest.mark.parametrize(("bounds", "says"), [("-all,+net_admin", ""), ("-net_admin", "CAP_NET_ADMIN")])
def test_one_capability_is_enough_and_is_needed(gate: Space, bounds: str, says: str) -> None:
    command = [program("setpriv"), f"--bounding-set={bounds}", "--no-new-privs", sys.executable, "-c", LIVE]
    done = subprocess.run([*gate.into(), *command], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert says in done.stderr
    assert done.returncode == bool(says), done.stderr
    assert not rules(gate)


@pytest.mark.parametrize("number", [0, 253, 254, 255, 1 << 32])
def test_the_machines_own_tables_are_refused(gate: Space, number: int) -> None:
    with gate.inside(), pytest.raises(ValueError, match="no routing table"):
        Route(ONE_DOOR, table=number)
    assert not rules(gate)
    with gate.inside():
        Route(ONE_DOOR).close(withdraw=True)  # nothing of the refused one is in the way
