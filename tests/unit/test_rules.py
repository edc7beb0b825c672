"""The judge: which rules are asked, what is charged, which verdict wins, and what no order of events may do."""

from __future__ import annotations

import datetime
import functools
from pathlib import Path
from typing import Any

import pytest

from scrubber import _native
from tests.unit.files import HEAD, MINIMAL_GATEWAY, NOW
from tests.unit.judging import TWO_AREAS, Bench, S, bench, build, packed, rule
from tests.unit.regions import make_memory


@pytest.fixture
def make(tmp_path: Path) -> Any:
    return functools.partial(build, tmp_path)


# ── the walk ──


def test_without_rules_everything_passes(make: Any) -> None:
    told = make("").ask()
    assert (told["verdict"], told["rule"], told["rung"]) == ("PASS", "", -1)


def test_over_the_limit_is_throttled_and_told_when_to_come_back(make: Any) -> None:
    b = make(rule("r", "2/min burst 3", '["throttle"]'))
    assert b.verdicts(3) == ["PASS"] * 3
    told = b.ask()
    assert (told["verdict"], told["rule"], told["measure"]) == ("THROTTLE", "m/r", "throttle")
    assert told["retry_ns"] == 30 * S
    assert (told["limit_count"], told["limit_period_ns"], told["remaining"]) == (2, 60 * S, 0)
    b.wait(30)
    assert b.verdicts(2) == ["PASS", "THROTTLE"]
    assert b.verdicts(1, client="192.0.2.2") == ["PASS"], "each client has its own"


def test_a_strict_rule_does_not_hide_a_source_from_the_others(make: Any) -> None:
    b = make(
        rule("login", "1/min", '["throttle"]', more='when = { path = "/login" }')
        + rule("flood", "5/min burst 5", '["deny"]')
    )
    assert b.verdicts(5, "/login") == ["PASS"] + ["THROTTLE"] * 4
    told = b.ask("/login")
    assert (told["verdict"], told["rule"]) == ("DENY", "m/flood"), "all six were charged to both"


def test_the_severest_verdict_wins_and_the_earlier_rule_on_a_tie(make: Any) -> None:
    limits = [("a", "throttle"), ("b", "deny"), ("c", "deny"), ("d", "observe")]
    b = make("".join(rule(name, "1/min", f'["{measure}"]') for name, measure in limits))
    b.ask()
    told = b.ask()
    assert (told["verdict"], told["rule"], told["measure"]) == ("DENY", "m/b", "deny")


def test_the_longest_wait_of_all_that_throttle_is_told(make: Any) -> None:
    b = make(rule("short", "1/s", '["throttle"]') + rule("long", "1/h", '["throttle"]'))
    b.ask()
    told = b.ask()
    assert (told["rule"], told["retry_ns"]) == ("m/short", 3600 * S)


def test_observe_counts_and_touches_nothing(make: Any) -> None:
    b = make(rule("r", "1/min", '["observe"]'))
    assert b.verdicts(3) == ["PASS"] * 3
    assert b.ask()["rule"] == "m/r"
    assert [(a["event.action"], a["scrubber.measure"]) for a in b.acts()] == [("rung", "observe")]
    assert b.measures() == {"observe": 1}


def test_a_rule_without_limit_meets_whatever_matches(make: Any) -> None:
    b = make(rule("r", "", '["deny"]', more='when = { path = "*.php" }'))
    assert b.verdicts(2, "/xmlrpc.php") == ["DENY"] * 2
    assert b.ask("/")["verdict"] == "PASS", "that the rule does not cover"


# ── ladders ──

CLIMB = '["observe 2s", "throttle 2s", "tarpit 2s", "deny 2s", "drop 2s", "block 1m"]'


def test_a_source_that_keeps_on_climbs_and_then_is_blocked(make: Any) -> None:
    b = make(rule("r", "1/h", CLIMB))
    seen = []
    for _ in range(14):
        seen.append(b.ask()["verdict"])
        b.wait(1)
    assert seen == ["PASS"] * 3 + ["THROTTLE"] * 2 + ["TARPIT"] * 2 + ["DENY"] * 2 + ["DROP"] * 5
    assert [a["scrubber.measure"] for a in b.acts()] == ["observe", "throttle", "tarpit", "deny", "drop", "block"]
    assert b.measures() == dict.fromkeys(["observe", "throttle", "tarpit", "deny", "drop", "block"], 1)
    assert b.connect()["verdict"] == "DROP"
    assert b.connect()["blocked"]


def test_from_tarpit_upwards_the_measure_stands_until_the_source_is_calm(make: Any) -> None:
    b = make(rule("r", "1/s", '["deny"]', more='calm = "5s"'))
    assert b.verdicts(2) == ["PASS", "DENY"]
    for _ in range(2):
        b.wait(2)
        assert b.ask()["verdict"] == "DENY", "within the limit, not yet calm"
    b.wait(2)
    assert b.ask()["verdict"] == "PASS", "five seconds since it was last over the limit"


def test_throttle_touches_only_what_is_over(make: Any) -> None:
    b = make(rule("r", "1/s", '["throttle"]'))
    assert b.verdicts(3) == ["PASS", "THROTTLE", "THROTTLE"]
    b.wait(1)
    assert b.ask()["verdict"] == "PASS"


def test_a_rung_that_is_not_available_is_passed_over_in_place_and_recorded(make: Any) -> None:
    b = make(rule("r", "1/h", '["throttle 2s", "challenge 2s", "deny"]'))
    seen = []
    for _ in range(6):
        seen.append(b.ask()["verdict"])
        b.wait(1)
    assert seen == ["PASS", "THROTTLE", "THROTTLE", "THROTTLE", "THROTTLE", "DENY"]
    told = [(a["event.action"], a["scrubber.measure"], a.get("scrubber.reason")) for a in b.acts()]
    assert told == [("rung", "throttle", None), ("skip", "challenge", "not available here"), ("rung", "deny", None)]


def test_acts_are_recorded_when_a_rung_is_entered_and_not_again(make: Any) -> None:
    b = make(rule("r", "1/h", '["throttle"]'))
    b.verdicts(500)
    assert len(b.acts()) == 1


# ── blocks ──

BLOCK = rule("r", "1/h", '["block 1m"]')


def test_what_a_block_leaves_behind(make: Any) -> None:
    b = make(BLOCK)
    b.ask()
    told = b.ask()
    assert (told["verdict"], told["measure"]) == ("DROP", "block")
    (act,) = b.acts()
    (block,) = b.blocks()
    assert act == {
        "ns": b.now_ns,
        "event.kind": "act",
        "event.action": "block",
        "rule.name": "m/r",
        "scrubber.rung": 0,
        "scrubber.measure": "block",
        "scrubber.source_kind": "client",
        "scrubber.source": "192.0.2.1",
        "client.ip": "192.0.2.1",
        "scrubber.proof": "SOCKET",
        "scrubber.areas": [0],
        "scrubber.ttl_s": 60,
        "scrubber.case": f"{told['case_id']:016x}",
        "scrubber.enforced": True,
    }
    assert (block["source"], block["areas"], block["case_id"]) == ("192.0.2.1", [0], act["scrubber.case"])
    assert (block["since_ns"], block["expires_ns"]) == (b.now_ns, b.now_ns + 60 * S)
    again = b.ask()
    assert (again["verdict"], again["blocked"], again["case_id"], again["rule"]) == (
        "DROP",
        True,
        told["case_id"],
        "m/r",
    )
    assert b.connect()["verdict"] == "DROP"
    assert b.blocks()[0]["hits"] == 2
    b.wait(60)
    assert b.connect()["verdict"] == "PASS"


@pytest.mark.parametrize(
    ("per", "source", "kind", "sibling", "stranger"),
    [
        ("client", "2001:db8:0:1::/64", "client", "2001:db8:0:1:9::9", "2001:db8:0:2::1"),
        ("prefix", "2001:db8::/48", "prefix", "2001:db8:0:2::1", "2001:db8:1::1"),
    ],
)
def test_ipv6_is_blocked_by_its_64_and_48(
    make: Any, *, per: str, source: str, kind: str, sibling: str, stranger: str
) -> None:
    b = make(rule("r", "1/h", '["block 1m"]', per=per))
    b.verdicts(2, client="2001:db8:0:1::1")
    assert [(x["kind"], x["source"]) for x in b.blocks()] == [(kind, source)]
    assert b.connect(sibling)["verdict"] == "DROP"
    assert b.connect(stranger)["verdict"] == "PASS"


def test_a_pair_blocks_its_client_and_a_fingerprint_itself(make: Any) -> None:
    b = make(
        rule("pair", "1/h", '["block 1m"]', per="fingerprint+client")
        + rule("face", "3/h", '["block 1m"]', per="fingerprint")
    )
    b.verdicts(2, client="192.0.2.1", face=1)
    assert [(x["kind"], x["source"]) for x in b.blocks()] == [("client", "192.0.2.1")]
    b.verdicts(1, client="192.0.2.2", face=1)
    assert b.verdicts(2, client="192.0.2.3", face=1) == ["DROP", "DROP"]
    assert {x["kind"] for x in b.blocks()} == {"client", "fingerprint"}
    assert b.ask(client="192.0.2.4", face=1)["blocked"]
    assert b.ask(client="192.0.2.4", face=2)["verdict"] == "PASS"


def test_a_block_binds_only_its_mandate_s_areas(make: Any) -> None:
    b = make(BLOCK, gateway=TWO_AREAS)
    assert b.verdicts(2) == ["PASS", "DENY"], "so does the request that it was made for"
    told = b.ask(host="site.test")
    assert (told["verdict"], told["measure"]) == ("DENY", "block"), "after the head: the connection is other's, too"
    assert told["case_id"]
    assert b.ask(host="other.test")["verdict"] == "PASS"
    assert b.connect(listener=0)["verdict"] == "PASS", "other is reached here, too"
    assert b.connect(listener=1)["verdict"] == "DROP", "nothing but site is reached here"
    assert b.ask(listener=1)["verdict"] == "DROP"


def test_a_fingerprint_s_block_spares_the_listener_s_other_areas(make: Any) -> None:
    b = make(rule("r", "1/h", '["block 1m"]', per="fingerprint"), gateway=TWO_AREAS)
    b.verdicts(2, client="192.0.2.1", face=1)
    assert b.ask(client="192.0.2.2", face=1)["verdict"] == "DENY"
    assert b.ask(client="192.0.2.2", face=1, listener=1)["verdict"] == "DROP"
    assert b.ask(client="192.0.2.2", face=1, host="other.test")["verdict"] == "PASS"


def test_a_dry_run_decides_as_softly(make: Any) -> None:
    b = make(BLOCK, gateway="enforce = false\n" + TWO_AREAS)
    assert [b.ask()["decided"] for _ in range(3)] == ["PASS", "DENY", "DENY"]
    assert [b.ask(listener=1, client="192.0.2.2")["decided"] for _ in range(3)] == ["PASS", "DROP", "DROP"]


def test_two_mandates_that_block_one_source_cover_the_whole_listener(tmp_path: Path) -> None:
    gateway = TWO_AREAS.replace('["m.toml"]', '["m.toml", "n.toml"]')
    second = HEAD.replace('id = "m"', 'id = "n"').replace('areas = ["site"]', 'areas = ["other"]')
    b = bench(tmp_path, gateway, m=HEAD + BLOCK, n=second + BLOCK)
    b.verdicts(2, host="site.test")
    assert b.connect()["verdict"] == "PASS"
    assert b.ask(host="site.test")["verdict"] == "DENY"
    b.verdicts(2, host="other.test")
    assert b.connect()["verdict"] == "DROP"
    assert b.ask(host="site.test")["verdict"] == "DROP", "blocks cover all of it: a reset takes nothing from anybody"
    assert sorted(x["areas"] for x in b.blocks()) == [[0], [1]]


def test_an_address_from_a_chain_is_denied_after_the_head(make: Any) -> None:
    gateway = MINIMAL_GATEWAY.replace(
        'address = "127.0.0.1:0"', 'address = "127.0.0.1:0"\ntrusted_proxies = "198.51.100.0/24"'
    )
    b = make(BLOCK, gateway=gateway)
    chain = (("X-Forwarded-For", "192.0.2.1"),)
    b.ask(client="198.51.100.1", more=chain)
    told = b.ask(client="198.51.100.1", more=chain)
    assert (told["verdict"], told["measure"]) == ("DENY", "block")
    assert [x["source"] for x in b.blocks()] == ["192.0.2.1"]
    assert b.ask(client="198.51.100.2", more=chain)["verdict"] == "DENY"
    assert b.connect("198.51.100.1")["verdict"] == "PASS"
    assert b.ask(client="198.51.100.1", more=(("X-Forwarded-For", "192.0.2.2"),))["verdict"] == "PASS"
    assert b.connect("192.0.2.1")["verdict"] == "DROP", "by itself, its address is proven by the socket"


def test_a_source_that_an_operator_unblocked_is_not_dropped_while_it_keeps_to_the_limit(make: Any) -> None:
    b = make(rule("r", "1/s", '["block 1m"]'))
    b.verdicts(2)
    assert b.memory.block_remove("client", "192.0.2.1")
    b.wait(1)
    assert b.ask()["verdict"] == "PASS"


def refusals(b: Bench) -> list[str]:
    return [a["scrubber.reason"] for a in b.acts() if a["event.action"] == "refuse"]


NEVER = HEAD + '[proportion]\nnever_block = ["192.0.2.0/25", "2001:db8::5"]\n'


def test_never_block_passes_whatever_it_does(make: Any) -> None:
    b = make(BLOCK + rule("d", "1/h", '["drop"]'), head=NEVER)
    assert b.verdicts(5) == ["PASS"] * 5
    assert refusals(b) == ["never-block"]
    assert b.blocks() == []
    assert b.ask()["rule"] == "m/d", "what it does is seen all the same"
    assert b.measures() == {}


def test_a_block_that_would_reach_a_never_block_address_is_refused(make: Any) -> None:
    b = make(rule("r", "1/h", '["block 1m"]', per="prefix"), head=NEVER)
    assert b.verdicts(3, client="192.0.2.200") == ["PASS", "THROTTLE", "THROTTLE"], (
        "its /24 holds never-block addresses"
    )
    assert b.verdicts(3, client="2001:db8::6") == ["PASS", "THROTTLE", "THROTTLE"], "its /48 does"
    assert refusals(b) == ["never-block", "never-block"]
    assert b.blocks() == []


def test_a_block_made_before_its_address_became_never_block_reaches_nobody(make: Any) -> None:
    b = make(rule("r", "1/h", '["throttle"]'), head=NEVER)
    assert b.memory.block_put("client", "192.0.2.1", [0], 60 * S, 60 * S, 100, 1) == "new"
    b.now_ns = b.blocks()[0]["since_ns"] + 1
    assert b.connect()["verdict"] == "PASS"
    assert b.ask()["verdict"] == "PASS"
    assert b.blocks()[0]["hits"] == 0


def test_proportion_bounds_number_and_time(make: Any) -> None:
    head = HEAD + '[proportion]\nblocks_max = 1\nblock_ttl_max = "1m"\n'
    b = make(rule("r", "1/h", '["block 1m"]'), head=head)
    b.verdicts(2, client="192.0.2.1")
    assert b.verdicts(3, client="192.0.2.2") == ["PASS", "THROTTLE", "THROTTLE"]
    assert refusals(b) == ["blocks_max"]
    assert [x["source"] for x in b.blocks()] == ["192.0.2.1"]


def test_known_clients_are_blocked_up_to_their_share(make: Any) -> None:
    head = HEAD + '[proportion]\nclients_share_max = "25%"\n'
    b = make(rule("r", "2/s burst 20", '["block 1m"]'), head=head)
    people = [f"192.0.2.{i}" for i in range(1, 9)]
    for client in people:
        b.befriend(client)
    assert b.memory.area_state(0)["known_total"] == 8
    outcome = [b.verdicts(40, client=client)[-1] for client in people[:4]]
    assert outcome == ["DROP", "DROP", "THROTTLE", "THROTTLE"]
    assert refusals(b) == ["clients_share_max"] * 2
    assert b.memory.area_state(0)["known_blocked"] == 2
    assert b.verdicts(40, client="192.0.2.99")[-1] == "DROP", "who was never seen healthy does not count"


def test_a_shared_address_is_throttled_by_the_pair(make: Any) -> None:
    b = make(rule("r", "100/s burst 50", '["block 1m"]'))
    for face in (0, 1, 2):
        b.befriend("192.0.2.1", face=face)
    for face in (0, 1, 2):
        b.befriend(f"192.0.2.{face + 10}", face=face)  # so that clients who are known have these faces
    seen = b.verdicts(150, face=0)
    assert seen[:50] == ["PASS"] * 50
    assert seen[-1] == "THROTTLE"
    assert b.verdicts(10, face=1) == ["PASS"] * 10, "another pair, within its own limit"
    assert b.blocks() == []
    assert refusals(b) == ["shared address"]
    strange = [b.ask(face=3 + i % 3)["verdict"] for i in range(120)]
    assert strange[-1] == "THROTTLE", "faces that no known client has share one pair"


def test_a_fingerprint_that_known_clients_have_is_not_blocked(make: Any) -> None:
    b = make(rule("r", "10/s burst 20", '["block 1m"]', per="fingerprint"))
    b.befriend("192.0.2.1", face=1)
    assert b.verdicts(40, client="192.0.2.9", face=1)[-1] == "THROTTLE"
    assert refusals(b) == ["shared fingerprint"]
    assert b.verdicts(40, client="192.0.2.9", face=2)[-1] == "DROP"


def test_a_block_that_cannot_be_recorded_is_not_made(make: Any) -> None:
    b = make(rule("r", "1/h", '["throttle 1ms", "block 1m"]'))
    b.ask()
    b.ask()
    for size in (4000, 8):
        while _native.probe_ring_write(b.memory, 2, b"x" * size):
            pass
    b.wait(1)
    assert b.verdicts(3) == ["THROTTLE"] * 3
    assert b.blocks() == []
    assert b.memory.totals([0])["ring_acts_refused"] >= 1
    b.memory.ring_read(0, 1 << 24)
    b.wait(5)
    assert b.ask()["verdict"] == "DROP", "tried again when there is room"


def test_what_was_refused_is_tried_again_but_not_with_every_request(make: Any) -> None:
    b = make(rule("r", "1/h", '["block 1m"]'), head=HEAD + "[proportion]\nblocks_max = 1\n")
    b.verdicts(2, client="192.0.2.1")
    b.verdicts(50, client="192.0.2.2")
    assert len(b.acts()) == 2, "the block, and one refusal"
    assert _native.probe_area_totals(b.memory, 0)["refused_acts"] == 1


# ── dry run ──


def test_a_dry_run_decides_records_and_touches_nothing(make: Any) -> None:
    b = make(
        rule("r", "1/h", '["deny 2s", "block 1m"]'),
        gateway=MINIMAL_GATEWAY.replace("allow_uns", "enforce = false\nallow_uns"),
    )
    seen = []
    for _ in range(6):
        told = b.ask()
        seen.append((told["verdict"], told["decided"]))
        b.wait(1)
    assert seen == [("PASS", "PASS")] + [("PASS", "DENY")] * 2 + [("PASS", "DROP")] * 3
    assert b.blocks() == []
    acts = b.acts()
    assert [(a["event.action"], a["scrubber.enforced"]) for a in acts] == [("rung", False), ("block", False)]
    assert b.connect()["verdict"] == "PASS"


# ── units ──


def test_bytes_are_charged_when_the_answer_ends(make: Any) -> None:
    b = make(rule("r", "1kB/s burst 2kB", '["throttle"]'))
    assert b.ask(nbytes=5000)["verdict"] == "PASS"
    assert b.ask()["verdict"] == "THROTTLE"
    b.wait(0.9)
    assert b.ask()["verdict"] == "THROTTLE", "debt, up to one period beyond the burst"
    b.wait(0.2)
    assert b.ask()["verdict"] == "PASS"


def test_the_origin_s_time_is_charged(make: Any) -> None:
    b = make(rule("r", "2 origin_s/min", '["throttle"]', per="path", more='newcomer_share = "100%"'))
    for _ in range(4):
        assert b.ask("/slow", origin_ns=S // 2)["verdict"] == "PASS"
    assert b.ask("/slow", client="192.0.2.2")["verdict"] == "THROTTLE", "the path's, whoever asks"
    assert b.ask("/fast")["verdict"] == "PASS"
    b.wait(1)
    assert b.ask("/slow")["verdict"] == "PASS"


def test_concurrent_requests_are_counted_and_given_back(make: Any) -> None:
    b = make(rule("r", "2 concurrent", '["throttle"]') + rule("d", "1/h burst 4", '["deny"]'))
    held = [b.open(), b.open()]
    third = b.open()
    assert (third.told["verdict"], third.told["charges"]) == ("THROTTLE", 0)
    b.close(held.pop())
    fourth = b.open()
    assert fourth.told["verdict"] == "PASS"
    b.close(third)
    b.close(fourth)
    b.close(held.pop())
    denied = [b.open() for _ in range(4)]
    assert [j.told["verdict"] for j in denied] == ["DENY"] * 4
    for judged in denied:
        b.close(judged)
    key_free = [b.open(client="192.0.2.2"), b.open(client="192.0.2.2")]
    assert [j.told["verdict"] for j in key_free] == ["PASS", "PASS"]


def test_connections_are_asked_at_accept_once(make: Any) -> None:
    b = make(rule("r", "1 connections/h burst 3", '["throttle"]'))
    assert [b.connect()["verdict"] for _ in range(5)] == ["PASS"] * 3 + ["DROP"] * 2
    assert b.verdicts(3, first=True) == ["PASS"] * 3, "the first request of a connection does not count it again"


def test_connections_through_a_proxy_count_with_their_first_request(make: Any) -> None:
    gateway = MINIMAL_GATEWAY.replace(
        'address = "127.0.0.1:0"', 'address = "127.0.0.1:0"\ntrusted_proxies = "198.51.100.1"'
    )
    b = make(rule("r", "1 connections/h burst 2", '["throttle"]'), gateway=gateway)
    chain = (("X-Forwarded-For", "192.0.2.1"),)
    assert [b.connect("198.51.100.1")["verdict"] for _ in range(5)] == ["PASS"] * 5
    first = [b.ask(client="198.51.100.1", more=chain, first=True)["verdict"] for _ in range(3)]
    assert first == ["PASS", "PASS", "THROTTLE"]
    assert b.ask(client="198.51.100.1", more=chain)["verdict"] == "PASS", "not a first one"


def test_a_connection_flood_climbs_to_a_block(make: Any) -> None:
    b = make(rule("r", "1 connections/h burst 2", '["throttle 1s", "block 1m"]'))
    b.connect()
    b.connect()
    assert b.connect() | {"case_id": 0} == b.connect() | {"case_id": 0}
    b.wait(1)
    told = b.connect()
    assert (told["verdict"], told["measure"], told["blocked"]) == ("DROP", "block", False)
    assert b.connect()["blocked"]


# ── keys ──


@pytest.mark.parametrize(
    ("per", "same", "other"),
    [
        ("client", {"target": "/x"}, {"client": "192.0.2.2"}),
        ("prefix", {"client": "192.0.2.2"}, {"client": "192.0.3.1"}),
        ("fingerprint", {"client": "192.0.9.9"}, {"face": 1}),
        ("path", {"client": "192.0.9.9"}, {"target": "/x"}),
        ("host", {"client": "192.0.9.9", "host": "SITE.test"}, {"host": "b.test"}),
        ("area", {"client": "192.0.9.9", "target": "/x", "face": 2}, {"host": "other.test"}),
        ("client+path", {"face": 1}, {"target": "/x"}),
        ("path+client", {"face": 1}, {"client": "192.0.2.2"}),
        ("client+area", {"target": "/x"}, {"host": "other.test"}),
        ("account+client", {"target": "/x"}, {"more": (("Cookie", "sid=b"),)}),
    ],
)
def test_keys_tell_apart_what_they_name(make: Any, *, per: str, same: dict[str, Any], other: dict[str, Any]) -> None:
    head = HEAD.replace('areas = ["site"]', 'areas = ["site", "other"]')
    gateway = TWO_AREAS + 'account = "cookie:sid"\n'
    b = make(rule("r", "1/h", '["throttle"]', per=per, more='newcomer_share = "100%"'), head=head, gateway=gateway)
    base: dict[str, Any] = {"target": "/", "more": (("Cookie", "sid=a"),)}
    assert b.ask(**base)["verdict"] == "PASS"
    assert b.ask(**(base | same))["verdict"] == "THROTTLE"
    assert b.ask(**(base | other))["verdict"] == "PASS"


def test_without_an_account_a_rule_per_account_does_not_apply(make: Any) -> None:
    b = make(rule("r", "1/h", '["throttle"]', per="account+client"), gateway=TWO_AREAS)
    assert b.verdicts(3) == ["PASS"] * 3
    assert b.verdicts(2, more=(("Cookie", "sid=a"),)) == ["PASS", "THROTTLE"]


# ── area-wide ──

WIDE = rule("wide", "10/s burst 20", '["throttle"]', per="area")


def test_newcomers_are_shed_before_those_who_were_known(make: Any) -> None:
    b = make(WIDE)
    b.befriend("192.0.2.1")
    b.wait(5)
    seen = [b.ask(client=f"198.51.100.{i}") for i in range(15)]
    assert [t["verdict"] for t in seen] == ["PASS"] * 10 + ["THROTTLE"] * 5, "half of the burst is kept"
    assert (seen[-1]["shed"], seen[-1]["crowd"]) == (True, True)
    known = [b.ask(client="192.0.2.1") for _ in range(12)]
    assert [t["verdict"] for t in known] == ["PASS"] * 10 + ["THROTTLE"] * 2
    assert known[0]["known"]


def test_nobody_becomes_known_in_a_rush_and_nobody_loses_it(make: Any) -> None:
    b = make(WIDE)
    b.befriend("192.0.2.1")
    for _ in range(8):
        for i in range(25):
            b.ask(client=f"198.51.100.{i}")
        for _ in range(3):
            b.ask(client="192.0.2.1")
        b.wait(1)
    assert b.memory.area_state(0)["known_total"] == 1
    assert b.ask(client="192.0.2.1")["known"], "being shed by a crowd is not one's own doing"


def test_severe_rungs_of_an_area_wide_rule_are_for_newcomers(make: Any) -> None:
    b = make(rule("wide", "10/s burst 20", '["deny"]', per="area"))
    b.befriend("192.0.2.1")
    b.wait(5)
    newcomers = [b.ask(client=f"198.51.100.{i}")["verdict"] for i in range(12)]
    assert newcomers[-2:] == ["DENY", "DENY"]
    known = [b.ask(client="192.0.2.1")["verdict"] for _ in range(15)]
    assert known == ["PASS"] * 10 + ["THROTTLE"] * 5
    b.wait(1.5)
    assert b.ask(client="198.51.100.77")["verdict"] == "PASS", "who is within the limit is not met by anybody's rung"


def test_a_rush_can_be_a_condition(make: Any) -> None:
    b = make(WIDE + rule("r", "1/h", '["deny"]', more="when = { rush = true, known = false }"))
    assert b.verdicts(3, client="192.0.2.1") == ["PASS"] * 3
    for i in range(15):
        b.ask(client=f"198.51.100.{i}")
    b.wait(3)
    assert b.verdicts(2, client="192.0.2.1") == ["PASS", "DENY"]


# ── expiry ──


@pytest.mark.parametrize(("on_expiry", "verdict"), [("limits", "THROTTLE"), ("observe", "PASS")])
def test_an_expired_mandate_keeps_what_it_says_for_then(make: Any, on_expiry: str, verdict: str) -> None:
    head = HEAD.replace('on_expiry = "limits"', f'on_expiry = "{on_expiry}"')
    b = make(rule("r", "1/h", '["throttle 1ms", "drop"]'), head=head)
    b.ask()
    b.ask()
    b.wait(1)
    assert b.ask()["verdict"] == "DROP"
    b.now_ns += (datetime.datetime(2026, 7, 1, tzinfo=datetime.UTC) - NOW) // datetime.timedelta(microseconds=1) * 1000
    b.verdicts(2)
    b.wait(1)
    assert b.ask()["verdict"] == verdict


def test_no_block_outlives_its_mandate(make: Any) -> None:
    b = make(BLOCK)
    end_ns = (
        b.now_ns
        + (datetime.datetime(2026, 7, 1, tzinfo=datetime.UTC) - NOW) // datetime.timedelta(microseconds=1) * 1000
    )
    b.now_ns = end_ns - 10 * S
    b.verdicts(2)
    assert b.blocks()[0]["expires_ns"] == end_ns
    b.now_ns = end_ns
    assert b.connect()["verdict"] == "PASS"
    assert b.verdicts(3)[-1] == "PASS", "block is no measure any more, and there is none below it"


# ── keeping together ──


def test_limits_hold_across_workers(tmp_path: Path) -> None:
    b = bench(
        tmp_path,
        MINIMAL_GATEWAY,
        m=HEAD + rule("r", "1/h burst 4", '["throttle"]') + rule("c", "2 concurrent", '["deny"]'),
    )
    judges = [_native.ProbeJudge(memory, b.policy) for memory in make_memory(slots=2)]
    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    held = [judges[i % 2].request(0, packed("192.0.2.1"), head, b.now_ns, False) for i in range(3)]
    assert [j.told["verdict"] for j in held] == ["PASS", "PASS", "DENY"]
    for i, judged in enumerate(held):
        judges[i % 2].done(judged, b.now_ns)
    b.wait(11)
    more = [judges[i % 2].request(0, packed("192.0.2.1"), head, b.now_ns, False) for i in range(3)]
    assert [j.told["verdict"] for j in more] == ["PASS", "THROTTLE", "DENY"]
