"""What peers that nobody trusts say of themselves never changes a key; a /64 is one client, however it is walked."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path

from scrubber import _native
from scrubber.mandate.prefixes import compile_prefixes
from tests.reference import forged
from tests.reference.prefixes import normal_address, packed
from tests.unit.files import MINIMAL_GATEWAY
from tests.unit.judging import Bench, build, head_of, rule

ADDRESS = 'address = "127.0.0.1:0"'
TRUSTING = MINIMAL_GATEWAY.replace(
    ADDRESS, f'{ADDRESS}\ntrusted_proxies = ["10.0.0.0/8"]\nproxy_protocol = ["10.1.0.0/16"]'
)
TABLE = _native.ProbePrefixes(compile_prefixes({"10.0.0.0/8": 1}, 1))
SOCKET, CHAIN = 0, 2
ONCE = rule("once", "1/min burst 1", '["throttle"]')
PEERS = ["192.0.2.9", "2001:db8:9::9", "::ffff:192.0.2.10", "11.0.0.1", "9.255.255.255", "127.0.0.2"]


def judged(bench: Bench, peer: str, head: bytes) -> tuple[str, str, bytes]:
    """Verdict, proof and client of a request."""
    found = bench.judge.request(0, packed(normal_address(peer)), head, bench.now_ns, False)
    bench.judge.done(found, bench.now_ns)
    return found.told["verdict"], found.facts["proof"], found.facts["client"]


def test_ten_thousand_forged_inputs_change_no_key(tmp_path: Path) -> None:
    """Each peer may ask once: any other key than its own would let it ask again."""
    r = random.Random(7239)
    bench = build(tmp_path, ONCE, gateway=TRUSTING)
    passed = {peer: 0 for peer in PEERS}
    for number in range(10_000):
        peer = r.choice(PEERS)
        at = packed(normal_address(peer))
        if number % 4 == 0:
            data = forged.proxy(r) + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
            assert _native.probe_request(data)[0] not in ("ok", "more"), f"{number}: a PROXY header is read: {data!r}"
            continue
        head = forged.head(r)
        assert _native.probe_chain(head, TABLE, at, SOCKET) == (SOCKET, at, b"", b""), f"{number} of {peer}: {head!r}"
        verdict, proof, client = judged(bench, peer, head)
        assert (proof, client) == ("SOCKET", at), f"{number} of {peer}: {head!r}"
        passed[peer] += verdict == "PASS"
    assert passed == dict.fromkeys(PEERS, 1)


def test_what_a_client_sends_through_a_trusted_proxy_stays_left_of_the_proof() -> None:
    """The proxy writes whom it saw behind whatever came: that is who it is, whatever stands before it."""
    r = random.Random(239)
    proxy = packed(normal_address("10.0.0.1"))
    for number in range(2_000):
        real = r.choice(("192.0.2.77", "2001:db8:77::1"))
        lines = [(name, value) for name, value in forged.fields(r) if name == "X-Forwarded-For"]
        if lines and r.random() < 0.7:
            name, value = lines.pop()
            lines.append((name, f"{value}, {real}"))
        else:
            lines.append(("X-Forwarded-For", real))
        text = "".join(f"{name}: {value}\r\n" for name, value in lines)
        head = f"GET / HTTP/1.1\r\nHost: a\r\n{text}\r\n".encode("latin-1")
        found = _native.probe_chain(head, TABLE, proxy, SOCKET)[:2]
        assert found == (CHAIN, packed(normal_address(real))), f"{number}: {head!r}"


NET = int(ipaddress.IPv6Address("2001:db8:1:2::"))
ALL = [(NET | (i * 0x9E3779B97F4A7C15 & (2**64 - 1))).to_bytes(16) for i in range(2**16)]


def walked(bench: Bench) -> list[str]:
    """The verdicts of one request from each of 2^16 addresses of a /64."""
    head = head_of()
    verdicts = []
    for address in ALL:
        found = bench.judge.request(0, address, head, bench.now_ns, False)
        bench.judge.done(found, bench.now_ns)
        verdicts.append(found.told["verdict"])
    return verdicts


def test_all_of_a_64_is_one_limiter_key(tmp_path: Path) -> None:
    """One burst for all of them together."""
    assert len(set(ALL)) == 2**16
    bench = build(tmp_path, rule("ten", "10/min burst 10", '["throttle"]'))
    assert walked(bench) == ["PASS"] * 10 + ["THROTTLE"] * (2**16 - 10)
    assert bench.ask(client="2001:db8:1:3::1")["verdict"] == "PASS", "the next /64 is somebody else"


def test_all_of_a_64_is_one_block(tmp_path: Path) -> None:
    bench = build(tmp_path, rule("flood", "10/min burst 10", '["block 10m"]'))
    assert walked(bench) == ["PASS"] * 10 + ["DROP"] * (2**16 - 10)
    assert [(block["kind"], block["source"]) for block in bench.blocks()] == [("client", "2001:db8:1:2::/64")]
    assert [act["event.action"] for act in bench.acts()] == ["block"]
    assert bench.connect("2001:db8:1:2:ffff:ffff:ffff:ffff")["verdict"] == "DROP"
    assert bench.connect("2001:db8:1:3::1")["verdict"] == "PASS"
