"""FlowSpec rules from ExaBGP, as BIRD receives them; and every way in which one of the two can be lost."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scrubber.enforce import exabgp
from scrubber.enforce.flow import FLOWS_MAX, Action, Flow
from scrubber.enforce.net import net_of
from scrubber.units import NS_PER_S
from tests.e2e.support import ROOT, until
from tests.net.flow_peer import Gateway, Router
from tests.net.space import Space, wire
from tests.wanted import package

package("exabgp")

LONG_S = 600


class Link:
    """A gateway and the provider's router, with a wire between."""

    def __init__(self, spaces: Callable[[str], Space], place: Path) -> None:
        self.inner, self.outer = spaces("gateway"), spaces("router")
        wire(self.inner, "uplink 10.9.0.1/24 fd09::1/64", self.outer, "customer 10.9.0.2/24 fd09::2/64")
        self.place = place
        self.router = Router(self.outer, place)
        self.gateway = Gateway(self.inner, place)

    def put(self, *flows: Flow, remove: tuple[Flow, ...] = ()) -> dict[str, str]:
        with self.inner.inside():
            return self.gateway.exabgp.apply(flows, [flow.match for flow in remove], time.monotonic_ns())


@pytest.fixture
def link(spaces: Callable[[str], Space], tmp_path: Path) -> Iterator[Link]:
    found = Link(spaces, tmp_path)
    yield found
    pid = found.gateway.exabgp.pid
    found.gateway.exabgp.close()
    found.router.kill()
    assert not pid or gone(pid)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rule(number: int, action: Action = "discard", left_s: float = LONG_S) -> Flow:
    """One of many that are alike."""
    until_ns = time.monotonic_ns() + int(left_s * NS_PER_S)
    return Flow(destination=net_of("192.0.2.7"), until_ns=until_ns, action=action, source=net_of(f"198.18.0.{number}"))


def written(number: int) -> str:
    return f"flow4 {{ dst 192.0.2.7/32; src 198.18.0.{number}/32; }}"


def rate(bytes_per_s: int) -> str:
    """The traffic-rate-bytes community: AS 0, then a float (RFC 8955, 7.1)."""
    return f"(generic, 0x80060000, {int.from_bytes(struct.pack('!f', bytes_per_s), 'big'):#x})"


def test_rules_arrive_and_leave_exactly(link: Link) -> None:
    soon = time.monotonic_ns() + LONG_S * NS_PER_S
    four = Flow(
        destination=net_of("192.0.2.0/24"),
        until_ns=soon,
        source=net_of("198.18.0.0/15"),
        protocols=(6, 17),
        source_ports=((53, 53), (123, 123)),
        destination_ports=((1, 79), (443, 443), (1024, 65535)),
        packet_lengths=((0, 63), (1200, 1500)),
    )
    limited = Flow(destination=net_of("192.0.2.7"), until_ns=soon, action=1_250_000, protocols=(1,))
    six = Flow(
        destination=net_of("2001:db8::7"),
        until_ns=soon,
        source=net_of("2001:db8:bad::/48"),
        protocols=(17,),
        source_ports=((53, 53),),
        packet_lengths=((1000, 1400),),
    )
    assert link.put(four, limited, six) == {}
    wanted = {
        "flow4 { dst 192.0.2.0/24; src 198.18.0.0/15; proto 6,17; dport 1..79,443,1024..65535; sport 53,123; "
        "length 0..63,1200..1500; }": rate(0),
        "flow4 { dst 192.0.2.7/32; proto 1; }": rate(1_250_000),
    }
    wanted6 = {
        "flow6 { dst 2001:db8::7/128; src 2001:db8:bad::/48; next header 17; sport 53; length 1000..1400; }": rate(0)
    }
    router, exabgp = link.router, link.gateway.exabgp
    link.gateway.until(
        lambda: router.rules() == router.rules("new") == wanted and router.rules("new", "six") == wanted6
    )
    link.gateway.until(link.gateway.up)
    assert exabgp.sessions == {"10.9.0.2": {"ipv4"}, "fd09::2": {"ipv4", "ipv6"}}
    assert exabgp.in_force() == {flow.match: flow for flow in (four, limited, six)}

    faster = Flow(destination=limited.destination, until_ns=soon, action=5_000_000, protocols=(1,))
    link.put(faster, remove=(four,))
    wanted = {"flow4 { dst 192.0.2.7/32; proto 1; }": rate(5_000_000)}
    link.gateway.until(lambda: router.rules() == router.rules("new") == wanted)
    assert router.rules("new", "six") == wanted6, "the neighbour of what was withdrawn stays"
    link.put(remove=(six, faster))
    link.gateway.until(lambda: not router.rules() and not router.rules("new", "six"))


def test_a_rule_that_comes_and_goes_ends_as_it_was_asked_last(link: Link) -> None:
    """ExaBGP itself ends withdrawn where announce, withdraw, announce reach it at once."""
    flow = rule(1)
    for _ in range(3):
        link.put(flow)
        link.put(remove=(flow,))
    link.put(flow)
    link.gateway.until(lambda: link.gateway.exabgp.in_force() and link.router.rules() == {written(1): rate(0)})
    for _ in range(5):
        link.put(remove=(flow,))
        link.put(rule(2))
        link.gateway.until(lambda: written(2) in link.router.rules())
        link.put(flow, remove=(rule(2),))
        link.gateway.until(lambda: link.router.rules() == {written(1): rate(0)})


def test_rules_end_by_themselves_and_are_no_more_than_agreed(link: Link) -> None:
    flows = [rule(number) for number in range(FLOWS_MAX)]
    short = rule(200, left_s=2.5)
    assert link.put(short, *flows) == {flows[-1].match: "full"}
    assert link.put(flows[0], rule(1, action=9600)) == {}, "those that are there are no more than before"
    everything = {written(200)} | {written(number) for number in range(FLOWS_MAX - 1)}
    link.gateway.until(lambda: link.router.rules().keys() == everything)
    assert link.router.rules()[written(1)] == rate(9600)
    assert link.put(rule(201, left_s=-1)) == {rule(201).match: "its time is over"}
    link.gateway.until(lambda: link.router.rules().keys() == everything - {written(200)})
    assert time.monotonic_ns() >= short.until_ns
    assert link.put(flows[-1]) == {}, "there is room again"
    link.gateway.until(lambda: written(FLOWS_MAX - 1) in link.router.rules())


def test_what_was_announced_is_announced_again(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the next ExaBGP, and to the next router, as it was asked last."""
    monkeypatch.setattr(exabgp, "LOOK_UP_NS", NS_PER_S // 4)
    kept, left = rule(1), rule(2, action=20_000)
    link.put(kept, left)
    link.gateway.until(lambda: len(link.router.rules()) == 2)
    before = link.gateway.exabgp.pid
    os.kill(before, signal.SIGKILL)
    link.gateway.until(lambda: not link.router.rules())
    link.gateway.until(lambda: link.router.rules() == {written(1): rate(0), written(2): rate(20_000)})
    assert link.gateway.exabgp.starts == 2 and link.gateway.exabgp.pid != before and gone(before)

    link.router.kill()
    link.put(remove=(left,))
    link.gateway.until(lambda: not link.gateway.exabgp.sessions)
    last = rule(1, action=9600)
    for changed in (last, kept, last):
        link.put(changed)
        link.gateway.until(lambda changed=changed: link.gateway.exabgp.in_force() == {changed.match: changed})
    link.router.start()
    link.gateway.until(lambda: link.router.rules("new") == {written(1): rate(9600)})
    link.gateway.until(lambda: link.router.rules() == {written(1): rate(9600)})
    assert link.gateway.exabgp.starts == 2


def test_a_relay_that_is_killed_takes_exabgp_with_it(link: Link) -> None:
    link.put(rule(1))
    link.gateway.until(link.router.rules)
    before = link.gateway.exabgp.pid
    (relay,) = children(before)
    os.kill(relay, signal.SIGKILL)
    link.gateway.until(lambda: gone(before) and not link.router.rules())


def test_what_exabgp_refuses_or_never_answers_holds_up_nothing(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules cannot be made that it would not take: the text of two is spoilt on its way."""
    right = exabgp.announcement
    spoilt = {
        rule(2).match: "announce flow route destination 192.0.2.7",
        rule(3).match: "announce flow route nonsense 1",
    }
    monkeypatch.setattr(exabgp, "announcement", lambda flow: spoilt.get(flow.match) or right(flow))
    monkeypatch.setattr(exabgp, "ANSWER_NS", NS_PER_S // 2)
    link.put(rule(1), rule(2), rule(4))
    link.gateway.until(lambda: link.router.rules().keys() == {written(1), written(4)})
    assert "ExaBGP refused it" in link.gateway.exabgp.refused[rule(2).match]
    assert link.gateway.exabgp.in_force().keys() == {rule(1).match, rule(4).match}
    link.put(rule(3))
    link.gateway.until(lambda: any("no answer to" in line for line in link.gateway.exabgp.log))
    del spoilt[rule(3).match]
    link.gateway.until(lambda: link.router.rules().keys() == {written(1), written(3), written(4)})


ENFORCER = """
import sys, time
from pathlib import Path
from tests.net.flow_peer import Gateway
from tests.net.test_flowspec import rule

class Here:
    def inside(self):
        import contextlib
        return contextlib.nullcontext()

gateway = Gateway(Here(), Path(sys.argv[1]))
gateway.exabgp.apply([rule(1)], [], time.monotonic_ns())
gateway.until(lambda: gateway.exabgp.in_force())
print(gateway.exabgp.pid, flush=True)
gateway.until(lambda: False, 60)
"""


@pytest.mark.parametrize("relay_too", [False, True])
def test_nothing_is_left_of_an_enforcer_that_is_killed(link: Link, relay_too: bool) -> None:
    """Neither ExaBGP, nor its relay, nor what they had announced."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    enforcer = link.inner.popen(
        sys.executable, "-c", ENFORCER, str(link.place), stdout=subprocess.PIPE, env=environment, cwd=ROOT
    )
    assert enforcer.stdout is not None
    with enforcer.stdout:
        pid = int(enforcer.stdout.readline())
    until(link.router.rules, what="the rule reaches the router")
    (relay,) = children(pid)
    enforcer.kill()
    if relay_too:
        os.kill(relay, signal.SIGKILL)
    enforcer.wait()
    until(lambda: gone(pid) and gone(relay), what="ExaBGP ends")
    until(lambda: not link.router.rules(), what="the router forgets")
