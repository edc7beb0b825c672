"""What a captured supervisor could send: nothing of it ends the enforcer, or does what the floor forbids.

The enforcer runs as it does below a keeper; the test has both other ends of its sockets.
"""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from scrubber.enforce.backend import Door
from scrubber.enforce.envelope import Floor, Terms
from scrubber.enforce.flow import Flow
from scrubber.enforce.messages import (
    Allowed,
    Announce,
    Announcing,
    Change,
    Counted,
    Hello,
    NotAMessage,
    Peer,
    Resync,
    Ruled,
    Rules,
    Standing,
)
from scrubber.enforce.net import net_of
from scrubber.server import memfd
from scrubber.server.channel import Channel
from scrubber.server.plan import Start
from tests.e2e.support import environment, until
from tests.net.space import Space

S = 1_000_000_000
NEVER, OURS, GOOD = net_of("198.18.7.0/24"), net_of("203.0.113.0/24"), net_of("198.18.1.1")
FLOOR = Floor(
    never=(NEVER,),
    protects=(OURS,),
    v4_widest=24,
    v6_widest=48,
    ttl_ns_max=600 * S,
    hosts_max=50,
    prefixes_max=5,
    announcements_max=4,
    announcements_per_min=8,
    flows_max=2,
)
DOOR = Door(((4, b"", 8080), (6, b"", 8080)))
MANY = {"hosts_max": 1 << 40, "prefixes_max": 1 << 40, "announcements_max": 1 << 40, "announcements_per_min": 1 << 40}
WIDE = Terms(v4_widest=1, v6_widest=1, victim_v4_widest=1, victim_v6_widest=1, ttl_ns_max=1 << 61, flows_max=99, **MANY)


class Held:
    """An enforcer in a namespace, held at both ends."""

    def __init__(self, space: Space, **more: Any) -> None:
        self.space = space
        self.channel, theirs = Channel.pair()
        beat = memfd.plain("beat", mmap.PAGESIZE)
        floor = memfd.sealed("floor", msgspec.json.encode(FLOOR))
        wanted = {"drop": ["nft"], "interfaces": [], "xdp_mode": "auto", "on_stop": "withdraw"}
        wanted |= {"announces": True, **more}
        with theirs:
            start = Start("enforcer", -1, 0, 1, 1, [], {"enforcer": wanted}, [], {"beat": beat, "floor": floor})
            start.user = (57803, 57803)
            self.process = subprocess.Popen(
                [*space.into(), sys.executable, "-m", "scrubber.server.enforcer", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment(),
                stderr=subprocess.PIPE,
            )
            start.keeper_pid = os.getpid()
            self.channel.send(*start.to_message())
        os.close(beat)
        os.close(floor)
        self.heard: list[Any] = []
        self.meet()

    def meet(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.channel.send({"type": "peer"}, [theirs.fileno()])
        self.raw = ours
        self.peer = Peer(ours, enforcer=False)
        until(lambda: self.hear(Hello))

    def hear(self, kind: type) -> list[Any]:
        """What of this kind has come so far."""
        while True:
            try:
                message = self.peer.receive()
            except NotAMessage as why:
                raise AssertionError(f"it sent what is no message: {why}") from None
            if message is None:
                return [each for each in self.heard if isinstance(each, kind)]
            self.heard.append(message)

    def allow(self, terms: Terms = WIDE) -> None:
        self.peer.send(Allowed(terms, (DOOR,)))

    def wish(self, *put: tuple[bytes, int, int], revision: int = 1, base: int = 0) -> Standing:
        """Say a change, and what became of it."""
        self.heard.clear()
        self.peer.send(Change(revision, base, list(put)))
        return until(lambda: next((each for each in self.hear(Standing) if each.revision == revision), None))  # type: ignore[no-any-return]

    def announce(self, *put: tuple[bytes, Any, int], revision: int) -> Announcing:
        """Say what is to be announced, and what became of it."""
        self.heard.clear()
        self.peer.send(Announce(revision, list(put)))
        return until(lambda: next((each for each in self.hear(Announcing) if each.revision == revision), None))  # type: ignore[no-any-return]

    def routes(self) -> str:
        """What a BGP daemon would announce."""
        every = "".join(self.space.ip(family, "route", "show", "table", "all") for family in ("-4", "-6"))
        return "\n".join(line for line in every.splitlines() if "scrub1" in line and "proto 200" in line)

    def sets(self) -> str:
        return self.space.run("nft", "list", "ruleset")

    def still_obeys(self) -> None:
        """It lives, and does what it may."""
        self.meet()
        self.allow()
        found = self.wish((GOOD, later(60), 1))
        assert found.in_force == {"nft": 1}, found
        assert "198.18.1.1" in self.sets()

    def end(self) -> str:
        """What it said on stderr; it has to end by itself, in order."""
        self.channel.send({"type": "drain", "leave": False})
        _, said = self.process.communicate(timeout=20)
        self.channel.close()
        self.raw.close()
        assert self.process.returncode == 0, said
        return said.decode()


def later(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * S)


@pytest.fixture
def held(spaces: Callable[[str], Space]) -> Iterator[Callable[..., Held]]:
    running: list[Held] = []

    def start(**more: Any) -> Held:
        running.append(Held(spaces("enf"), **more))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def packed(**fields: Any) -> bytes:
    return msgspec.msgpack.encode(fields)


# Each is sent as it stands, before anything else and again after it was said what is allowed.
BYTES = {
    "nothing that decodes": b"\xc1",
    "text": b"hello",
    "half a message": packed(**{"is": "change", "revision": 1})[:-3],
    "another kind": packed(**{"is": "route", "net": GOOD}),
    "no kind": packed(revision=1, base=0),
    "a list": msgspec.msgpack.encode([1, 2, 3]),
    "a field too many": packed(**{"is": "change", "revision": 1, "base": 0, "force": True}),
    "a field too few": packed(**{"is": "change", "revision": 1}),
    "a negative revision": packed(**{"is": "change", "revision": -1, "base": 0}),
    "a revision beyond all": packed(**{"is": "change", "revision": 1 << 63, "base": 0}),
    "text for a network": packed(**{"is": "change", "revision": 1, "base": 0, "put": [["198.18.1.1", later(60), 1]]}),
    "no doors": packed(**{"is": "change", "revision": 1, "base": 0, "put": [[GOOD, later(60), 0]]}),
    "doors that there are not": packed(**{"is": "change", "revision": 1, "base": 0, "put": [[GOOD, later(60), 256]]}),
    "a network of no length": packed(**{"is": "change", "revision": 1, "base": 0, "put": [[b"", later(60), 1]]}),
    "a network of 4 KiB": packed(**{"is": "change", "revision": 1, "base": 0, "put": [[b"a" * 4096, later(60), 1]]}),
    "a time that is text": packed(**{"is": "change", "revision": 1, "base": 0, "put": [[GOOD, "later", 1]]}),
    "more entries than a message has": packed(**{"is": "change", "revision": 1, "base": 0, "remove": [GOOD] * 5000}),
    "deep": msgspec.msgpack.encode("x") + b"\x91" * 5000 + b"\xc0",
    "another's words": packed(**{"is": "standing", "revision": 1, "in_force": {}}),
    "doors of no address": packed(**{"is": "allowed", "terms": {}, "doors": [[[[4, "x", 1]]]]}),
    "more doors than there may be": packed(**{"is": "allowed", "terms": {}, "doors": [[[]]] * 50}),
    "an announcement to a friend": packed(**{"is": "announce", "revision": 1, "put": [[GOOD, "friend", later(60)]]}),
    "more announcements than a message has": packed(
        **{"is": "announce", "revision": 1, "put": [[GOOD, "source", 1]] * 1001}
    ),
    "a rule to nowhere": packed(**{"is": "rules", "revision": 1, "flows": [[b"", later(60)]]}),
    "a rule with Python in it": packed(**{"is": "rules", "revision": 1, "flows": [[OURS, later(60), "discard; x"]]}),
    "a rule with ports that are none": packed(
        **{"is": "rules", "revision": 1, "flows": [[OURS, later(60), "discard", None, [], [[5, 70000]]]]}
    ),
    "more rules than a message has": packed(**{"is": "rules", "revision": 1, "flows": [[GOOD, 1]] * 101}),
    "what only it may say": packed(**{"is": "announcing", "revision": 1}),
    "terms that are numbers": packed(**{"is": "allowed", "terms": 5, "doors": []}),
    "as long as may be": b"\x00" * (64 * 1024),
    "longer than may be": b"\x00" * (65 * 1024),
}  # fmt: skip


def test_what_is_no_message(held: Callable[..., Held]) -> None:
    found = held()
    for allowed in (False, True):
        if allowed:
            found.allow()
        for name, data in BYTES.items():
            found.heard.clear()
            found.raw.send(data)
            assert until(lambda: found.hear(Resync), what=name)
    assert found.process.poll() is None
    assert "198.18" not in found.sets()
    found.still_obeys()
    assert "Traceback" not in found.end()


def test_what_may_not_be_done(held: Callable[..., Held]) -> None:
    """By a supervisor that claims that everything is allowed."""
    found = held()
    found.allow()
    soon = later(60)
    refused = {
        "a never-block address": net_of("198.18.7.9"),
        "a prefix around one": net_of("198.18.6.0/23"),
        "never-block itself": NEVER,
        "ours": net_of("203.0.113.9"),
        "everybody": net_of("0.0.0.0/0"),
        "everybody of IPv6": net_of("::/0"),
        "half of everybody": net_of("128.0.0.0/1"),
        "too wide": net_of("198.18.0.0/23"),
        "too wide, IPv6": net_of("2001:db8::/47"),
        "ourselves": net_of("127.0.0.1"),
        "IPv4 as IPv6": net_of("::ffff:198.18.1.1"),
        "narrower than a client": net_of("2001:db8::1"),
        "multicast": net_of("224.0.0.0/24"),
        "link-local": net_of("fe80::/64"),
        "host bits": b"\xc6\x12\x01\x01\x18",
        "no mask": b"\xc6\x12\x01\x01",
        "a mask that is none": b"\xc6\x12\x01\x01\x21",
        "zeroes": bytes(5),
    }
    said = found.wish(*((net, soon, 1) for net in refused.values()))
    assert {net for net, _ in said.refused} == set(refused.values())
    assert said.in_force == {"nft": 0}
    late = found.wish((GOOD, later(10_000), 1), (net_of("198.18.1.2"), 1, 1), revision=2, base=1)
    assert [net for net, _ in late.refused] == [GOOD]  # longer than may be; the other one is over already
    assert late.in_force == {"nft": 0}
    many = [(net_of(f"198.18.2.{n}"), soon, 1) for n in range(60)]
    full = found.wish(*many, revision=3, base=2)
    assert full.in_force == {"nft": 50}
    assert len(full.refused) == 10
    found.still_obeys()
    assert "Traceback" not in found.end()
    assert "scrubber" not in found.sets()


def test_what_may_not_be_announced(held: Callable[..., Held]) -> None:
    """fastnetmon's 0.0.0.0/0, the data centre's missing /128, and what else would be the attackers' joy."""
    found = held()
    assert [each.upstream for each in found.hear(Hello)] == [""]
    found.allow()
    soon = later(60)
    refused = {
        "everybody": (bytes(5), "victim"),
        "everybody, as a source": (bytes(5), "source"),
        "everybody of IPv6": (bytes(17), "source"),
        "all that is ours": (OURS, "victim"),
        "half of it": (net_of("203.0.113.0/25"), "victim"),
        "not ours": (net_of("198.51.100.7"), "victim"),
        "ours, as a source": (net_of("203.0.113.9"), "source"),
        "around ours": (net_of("203.0.112.0/23"), "source"),
        "a never-block address": (net_of("198.18.7.9"), "source"),
        "too wide": (net_of("198.18.0.0/23"), "source"),
        "no mask": (net_of("203.0.113.7")[:-1], "victim"),
        "a mask in its place": (b"\xcb\x00\x71\x07\x18", "victim"),
        "loopback": (net_of("127.0.0.9"), "source"),
    }
    said = found.announce(*((*each, soon) for each in refused.values()), revision=1)
    assert {(net, kind) for net, kind, _ in said.refused} == set(refused.values())
    assert said.in_force == [] and found.routes() == ""
    good = [(net_of(f"203.0.113.{n}"), "victim", soon) for n in range(1, 7)]
    full = found.announce(*good, revision=2)
    assert len(full.in_force) == 4 and len(full.refused) == 2
    fast = found.announce(*((net_of(f"203.0.113.{n}"), "victim", soon) for n in range(100, 106)), revision=3)
    assert len(fast.in_force) == 4 and {why.split(":")[0] for _, _, why in fast.refused} == {"full"}
    fast = found.announce(*good[:2], revision=4)
    assert fast.in_force == [] and {why.split(":")[0] for _, _, why in fast.refused} == {"too fast"}
    late = found.announce((net_of("203.0.113.100"), "victim", later(10_000)), revision=5)
    assert late.in_force == []
    found.still_obeys()
    assert "Traceback" not in found.end()
    assert found.routes() == ""


def test_rules_that_may_not_be(held: Callable[..., Held]) -> None:
    found = held()
    found.allow()
    soon = later(60)
    source, victim = net_of("198.18.1.0/24"), net_of("203.0.113.7")
    wrong = [
        Flow(OURS, soon),
        Flow(net_of("198.51.100.7"), soon, source=source),
        Flow(victim, soon, source=net_of("198.18.0.0/15")),
        Flow(victim, soon, source=net_of("198.18.7.0/25")),
        Flow(victim, later(10_000), source=source),
    ]
    found.peer.send(Rules(1, [*wrong, Flow(victim, soon, source=source), Flow(victim, soon)]))
    (ruled,) = until(lambda: found.hear(Ruled))
    assert [place for place, _ in ruled.refused] == [0, 1, 2, 3, 4]
    found.still_obeys()
    found.end()


def test_announcements_outlive_a_supervisor_for_a_minute_only(held: Callable[..., Held]) -> None:
    """The minute itself is tried in tests/unit/test_enforce_upstream.py; here, that one that comes in time is asked."""
    found = held()
    found.allow()
    victim = net_of("203.0.113.7")
    assert found.announce((victim, "victim", later(60)), revision=1).in_force == [(victim, "victim")]
    found.raw.close()
    found.meet()
    assert "203.0.113.7" in found.routes()
    assert found.announce(revision=1).in_force == []
    assert found.routes() == ""
    found.end()


def test_an_order_that_makes_no_sense(held: Callable[..., Held]) -> None:
    found = held()

    def asks_again(*messages: Any) -> bool:
        found.heard.clear()
        for message in messages:
            found.peer.send(message)
        return bool(until(lambda: found.hear(Resync)))

    assert asks_again(Change(1, 0, [(GOOD, later(60), 1)]))  # nobody said what is allowed
    found.allow()
    found.wish((GOOD, later(60), 1), revision=5)
    assert asks_again(Change(9, 8, [(net_of("198.18.1.2"), later(60), 1)]))  # of what it does not have
    assert asks_again(Change(6, 5, [(net_of("198.18.1.2"), later(60), 1)]))  # it has forgotten on purpose
    found.wish((GOOD, later(60), 1), revision=7)
    assert asks_again(Change(7, 7, []))  # again
    unsound = Terms(never=(b"\1\2\3\4\x18",), v4_widest=24, ttl_ns_max=600 * S, hosts_max=5)
    assert asks_again(Allowed(unsound, (DOOR,)))
    hosts = [[(net_of(f"198.18.{block}.{n}"), later(60), 1) for n in range(250)] for block in range(10, 16)]
    assert asks_again(*[Change(20, 0, each, more=True) for each in hosts])  # without an end
    assert "198.18.1.1" in found.sets()
    assert "198.18.1.2" not in found.sets()
    found.still_obeys()
    assert "Traceback" not in found.end()


def test_what_was_not_whole_does_not_count(held: Callable[..., Held]) -> None:
    """Each in two parts, the second of which never comes: what follows a resync begins anew."""
    found = held()

    def broken_off(part: Any) -> None:
        found.heard.clear()
        found.peer.send(part)
        found.raw.send(b"\xc1")
        until(lambda: found.hear(Resync))

    found.allow()
    mistaken, soon = net_of("198.18.9.0/24"), later(60)
    broken_off(Allowed(msgspec.structs.replace(WIDE, never=(mistaken,)), (DOOR,), more=True))
    found.allow()
    broken_off(Change(1, 0, [(net_of("198.18.1.2"), soon, 1)], more=True))
    assert found.wish((net_of("198.18.9.1"), soon, 1), revision=2).refused == []
    assert "198.18.9.1" in found.sets()
    assert "198.18.1.2" not in found.sets()
    broken_off(Announce(1, [(net_of("203.0.113.7"), "victim", soon)], more=True))
    victim = net_of("203.0.113.8")
    assert found.announce((victim, "victim", soon), revision=2).in_force == [(victim, "victim")]
    assert "203.0.113.7" not in found.routes()
    found.still_obeys()
    assert "Traceback" not in found.end()


def test_one_that_never_reads(held: Callable[..., Held]) -> None:
    found = held()
    found.allow()
    for revision in range(1, 3000):
        try:
            found.raw.send(msgspec.msgpack.encode(Change(revision, 0, [(net_of("0.0.0.0/0"), later(60), 1)])))
        except BlockingIOError:
            time.sleep(0.001)
    found.still_obeys()
    assert "Traceback" not in found.end()


def test_descriptors_are_not_taken(held: Callable[..., Held]) -> None:
    found = held()
    fds = f"/proc/{found.process.pid}/fd"
    before = len(os.listdir(fds))
    for _ in range(50):
        socket.send_fds(found.raw, [b"\xc1"], [0, 1, 2])
    until(lambda: found.hear(Resync))
    assert len(os.listdir(fds)) == before
    found.still_obeys()
    assert found.hear(Counted) == [] or all(row[0] == GOOD for each in found.hear(Counted) for row in each.rows)
    found.end()
