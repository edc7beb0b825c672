"""Gateway and mandates → image: what is written where, and that it comes back."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import struct
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from scrubber import _native
from scrubber.config.network import Endpoint
from scrubber.errors import OperatorError, PolicyRefused
from scrubber.mandate import layout
from scrubber.mandate.compile import CompiledPolicy, next_expiry, restore, rule_id
from scrubber.mandate.compile_gateway import sockaddr_of
from scrubber.mandate.load import Loaded, load_all
from scrubber.mandate.never_block import machine_addresses, never_block, touching
from scrubber.mandate.slots import Slots, assign_area_ids, assign_slots
from tests.unit.files import GOOD, HEAD, MINIMAL_GATEWAY, NOW, write
from tests.unit.images import MONO_NS, compiled, opened

S = 1_000_000_000


@pytest.fixture(scope="module")
def full() -> Loaded:
    return load_all(GOOD / "full-gateway.toml", now=NOW)


class Rule(NamedTuple):
    """The fields of RuleSpec by name."""

    id: int
    name: str
    conditions: list[tuple[Any, ...]]
    rungs: list[tuple[Any, ...]]
    keys: tuple[int, int]
    unit: int
    area_wide: int
    rate: tuple[int, int, int]
    calm_ns: int
    debt_max_ns: int
    areas: int
    newcomer_share_ppm: int
    mandate: int
    bounds: tuple[int, int, int]
    expires_ns: int


class Read:
    """An image taken apart by scrubber.mandate.layout alone."""

    def __init__(self, policy: CompiledPolicy) -> None:
        self.data = policy.image
        fields = layout.HEADER.unpack_from(self.data)
        self.start = fields[:6]
        self.sections = {name: (fields[6 + 2 * i], fields[7 + 2 * i]) for i, name in enumerate(layout.SECTIONS)}
        self.end = fields[6 + 2 * len(layout.SECTIONS) :]

    def rows(self, name: str, form: struct.Struct) -> list[tuple[Any, ...]]:
        offset, count = self.sections[name]
        return [form.unpack_from(self.data, offset + i * form.size) for i in range(count)]

    def text(self, off: int, length: int) -> str:
        start = self.sections["text"][0] + off
        return self.data[start : start + length].decode()

    def rules(self) -> dict[str, Rule]:
        rungs, conditions = self.rows("rungs", layout.RUNG), self.rows("conditions", layout.CONDITION)
        found = {}
        for r in self.rows("rules", layout.RULE):
            name = self.text(r[1], r[2])
            areas = sum(word << (64 * i) for i, word in enumerate(r[16:20]))
            found[name] = Rule(
                r[0], name, conditions[r[3] : r[3] + r[4]], rungs[r[5] : r[5] + r[6]], (r[7], r[8]), r[9], r[10],
                (r[11], r[12], r[13]), r[14], r[15], areas, r[20], r[21], (r[22], r[23], r[24]), r[25],
            )  # fmt: skip
        return found

    def rule_names(self, span: tuple[int, int]) -> list[str]:
        names = list(self.rules())
        return [names[i] for (i,) in self.rows("area_rules", layout.AREA_RULE)[span[0] : sum(span)]]


def test_what_was_compiled_comes_back(full: Loaded) -> None:
    policy = compiled(full, generation=41)
    back = restore(policy.image)
    assert (back.gateway, back.mandates, back.generation) == (full.gateway, full.mandates, 41)
    assert back.area_ids == {"portal": 0, "api": 1, "files": 2}


def test_equal_input_gives_equal_bytes(full: Loaded) -> None:
    again = load_all(GOOD / "full-gateway.toml", now=NOW)
    assert compiled(full) == compiled(again)


def test_an_image_that_was_changed_is_not_restored(full: Loaded) -> None:
    image = bytearray(compiled(full).image)
    for data in (b"", image[:100], image[:-8], bytes(image[:400]) + b"\xff" + bytes(image[401:])):
        with pytest.raises(PolicyRefused):
            restore(bytes(data))


def test_the_core_takes_it_and_names_the_same_rules(full: Loaded) -> None:
    policy = compiled(full)
    core = opened(policy)
    assert core.rules == policy.rules == list(Read(policy).rules())
    assert core.areas == {"portal": 0, "api": 1, "files": 2}
    assert core.generation == 1
    assert not core.enforce


def test_limits_are_shared_out_among_workers(full: Loaded) -> None:
    read = Read(compiled(full))
    _, enforce, connections, client, tarpit, default, _, log_lines, log_pass, *handshakes, streams = read.end
    assert handshakes == [50, 1_000_000_000, 400]
    assert streams == 100
    assert (enforce, connections, client, tarpit, default) == (0, 1000, 64, 100, 0)
    assert (log_lines, log_pass) == (1, 251)  # 1001/s over four workers, rounded up
    portal, api, _ = read.rows("areas", layout.AREA)
    assert portal[25:27] == (10, 25)
    assert api[25:27] == (64, 256)
    origins = read.rows("origins", layout.ORIGIN)
    assert [o[0] for o in origins] == [0, 1, 2, 3, 4]
    assert [o[3] for o in origins] == [0, 2, 0, 0, 0]
    assert [read.text(o[5], o[6]) for o in origins] == [
        "127.0.0.1:8000",
        "inner.example.org",
        "localhost",
        "127.0.0.1:8003",
        "127.0.0.1:8004",
    ]


def test_limits_never_share_out_to_nothing(tmp_path: Path) -> None:
    text = MINIMAL_GATEWAY.replace("mandates", "workers = 64\n#") + "[area.limits]\norigin_connections_max = 1\n"
    read = Read(compiled(load_all(write(tmp_path, text), now=NOW)))
    assert read.rows("areas", layout.AREA)[0][25] == 1


def test_rules_stand_where_they_are_asked(full: Loaded) -> None:
    read = Read(compiled(full))
    first, second = "portal-2026-06", "api"
    areas = {read.text(a[2], a[3]): a for a in read.rows("areas", layout.AREA)}
    asked = {name: read.rule_names(a[4:6]) for name, a in areas.items()}
    every = ["login", "search", "flood", "bytes", "parallel", "all", "probe", "pipe"]
    assert asked["portal"] == [f"{first}/{r}" for r in every]
    assert asked["api"] == [f"{first}/{r}" for r in every] + [f"{second}/{r}" for r in ("flood", "accounts", "paths")]
    assert asked["files"] == [f"{second}/{r}" for r in ("flood", "accounts", "paths")]
    at_connection = {name: read.rule_names(a[6:8]) for name, a in areas.items()}
    assert at_connection == {"portal": [f"{first}/connections"], "api": [f"{first}/connections"], "files": []}
    own, other, _ = read.rows("listeners", layout.LISTENER)
    assert read.rule_names(own[8:10]) == [f"{first}/connections"], "its areas are all the mandate's"
    assert read.rule_names(other[8:10]) == [], "files is not: there the rule waits for the first request"


def test_a_connection_rule_that_needs_the_head_waits_for_it(tmp_path: Path) -> None:
    rules = ""
    for name, more in (
        ("plain", ""),
        ("prefix", 'when = { client = "10.0.0.0/8" }\n'),
        ("known", "when = { known = false }\n"),
        ("path", 'when = { path = "/x" }\n'),
    ):
        rules += f'[[rule]]\nname = "{name}"\nper = "client"\nlimit = "1 connections/s"\nthen = ["throttle"]\n{more}'
    rules += '[[rule]]\nname = "face"\nper = "fingerprint"\nlimit = "1 connections/s"\nthen = ["throttle"]\n'
    read = Read(compiled(load_all(write(tmp_path, MINIMAL_GATEWAY, m=HEAD + rules), now=NOW)))
    (listener,) = read.rows("listeners", layout.LISTENER)
    (area,) = read.rows("areas", layout.AREA)
    assert read.rule_names(listener[8:10]) == ["m/plain", "m/prefix"]
    assert read.rule_names(area[6:8]) == ["m/plain", "m/prefix", "m/known", "m/path", "m/face"]
    assert read.rule_names(area[4:6]) == []


def test_a_rule_in_the_core_s_terms(full: Loaded) -> None:
    rules = Read(compiled(full)).rules()
    flood = rules["portal-2026-06/flood"]
    assert flood.id == rule_id("portal-2026-06", "flood")
    assert flood.id == int.from_bytes(hashlib.sha256(b"portal-2026-06\0flood").digest()[:8], "little")
    assert flood.keys == (layout.KEYS["client"], 0)
    assert (flood.unit, flood.rate, flood.calm_ns, flood.area_wide) == (
        layout.UNITS["requests"],
        (50, S, 100),
        20 * S,
        0,
    )
    assert flood.areas == 0b011
    assert [(r[0], r[2], r[3]) for r in flood.rungs] == [
        (layout.MEASURES["observe"], 2 * S, 0),
        (layout.MEASURES["throttle"], 3 * S, 0),
        (layout.MEASURES["tarpit"], 5 * S, 0),
        (layout.MEASURES["drop"], 3 * S, 0),
        (layout.MEASURES["block"], 3 * S, 300 * S),
    ]
    everyone = rules["portal-2026-06/all"]
    assert (everyone.keys, everyone.area_wide, everyone.newcomer_share_ppm) == ((layout.KEYS["area"], 0), 1, 250_000)
    assert rules["api/paths"].area_wide == 1
    assert rules["portal-2026-06/login"].keys == (layout.KEYS["account"], layout.KEYS["client"])
    assert rules["portal-2026-06/search"].rate == (2 * S, 60 * S, 2 * S)
    assert rules["portal-2026-06/bytes"].debt_max_ns == 60 * S
    assert rules["portal-2026-06/pipe"].unit == 0
    assert {r.mandate for n, r in rules.items() if n.startswith("api/")} == {1}


def test_conditions_in_the_core_s_terms(full: Loaded) -> None:
    read = Read(compiled(full))
    rows = read.rules()["portal-2026-06/probe"].conditions
    kinds = {number: name for name, number in layout.CONDITIONS.items()}
    matches = {number: name for name, number in layout.MATCHES.items()}
    told = [(kinds[c[0]], matches[c[1]], c[2], c[3], c[4], read.text(c[5], c[6]), read.text(c[7], c[8])) for c in rows]
    assert told == [
        ("method", "exact", 0, 0, 0b11, "", ""),
        ("host", "suffix", 0, 0, 0, "", ".example.org"),
        ("query", "contains", 0, 0, 0, "", "union"),
        ("header", "contains", 0, 1, 0, "user-agent", "sqlmap"),
        ("header", "prefix", 0, 0, 0, "user-agent", "curl/"),
        ("header", "present", 1, 0, 0, "accept", ""),
        ("header", "present", 0, 0, 0, "cookie", ""),
        ("header", "exact", 0, 0, 0, "x-a", "b"),
        ("fingerprint", "exact", 0, 1, 0x0123456789ABCDEF, "", ""),
        ("fingerprint", "exact", 0, 0, 0xFEDCBA9876543210, "", ""),
        ("known", "exact", 1, 0, 0, "", ""),
        ("account", "exact", 1, 0, 0, "", ""),
        ("rush", "exact", 0, 0, 0, "", ""),
    ]
    assert read.rules()["portal-2026-06/pipe"].conditions[0][0] == layout.CONDITIONS["never"]


def test_the_tightest_bound_wins_where_mandates_meet(full: Loaded) -> None:
    read = Read(compiled(full))
    bounds = {read.text(a[2], a[3]): a[29:32] for a in read.rows("areas", layout.AREA)}
    assert bounds == {
        "portal": (20_000, 50_000, 6 * 3600 * S),
        "api": (20_000, 100, 3600 * S),
        "files": (50_000, 100, 3600 * S),
    }
    rules = read.rules()
    assert rules["portal-2026-06/flood"].bounds == (3600 * S, 100, 20_000), "its blocks bind api as well"
    assert rules["api/flood"].bounds == (3600 * S, 100, 20_000)


def test_an_area_that_no_mandate_may_block_in_has_no_room_for_blocks(tmp_path: Path) -> None:
    text = HEAD.replace('"block", ', "")
    read = Read(compiled(load_all(write(tmp_path, MINIMAL_GATEWAY, m=text), now=NOW)))
    assert read.rows("areas", layout.AREA)[0][29:32] == (0, 0, 0)


def test_what_is_left_after_expiry(full: Loaded) -> None:
    rules = Read(compiled(full)).rules()
    left = {name: [r[1] for r in rule.rungs] for name, rule in rules.items()}
    assert left["portal-2026-06/flood"] == [3, 3, 1, 1, 1], "on_expiry = limits: observe and throttle"
    assert left["portal-2026-06/login"] == [3, 0, 1], "challenge is not available here"
    assert left["portal-2026-06/pipe"] == [0]
    assert left["api/flood"] == [0 | 1, 1], "on_expiry = observe"
    hours = (datetime.datetime(2026, 7, 1, tzinfo=datetime.UTC) - NOW) // datetime.timedelta(hours=1)
    assert rules["api/flood"].expires_ns == MONO_NS + hours * 3600 * S


def test_a_mandate_that_has_expired_meanwhile_ended_in_the_past(full: Loaded) -> None:
    later = datetime.datetime(2026, 7, 2, tzinfo=datetime.UTC)
    rules = Read(compiled(full, now=later)).rules()
    assert rules["api/flood"].expires_ns == MONO_NS - 86400 * S
    assert rules["portal-2026-06/flood"].expires_ns > MONO_NS


def test_the_next_expiry(full: Loaded) -> None:
    first, second = (m.head.expires for m in full.mandates)
    assert next_expiry(full.mandates, NOW) == second
    assert next_expiry(full.mandates, second) == first
    assert next_expiry(full.mandates, first) is None


def test_hosts_are_sorted_by_length_and_bytes(full: Loaded) -> None:
    read = Read(compiled(full))
    names = [(read.text(h[0], h[1]), h[2]) for h in read.rows("hosts", layout.HOST)]
    assert names == sorted(names, key=lambda n: (len(n[0]), n[0]))
    assert (".example.org", 0) in names
    assert (".api.example.org", 1) in names


def test_area_indexes_are_kept(full: Loaded) -> None:
    ids = assign_area_ids(full.gateway, {"gone": 0, "api": 7})
    assert ids == {"gone": 0, "api": 7, "portal": 1, "files": 2}
    assert assign_area_ids(full.gateway, ids) == ids
    mask = Read(compiled(full, area_ids=ids)).rules()["portal-2026-06/flood"].areas
    assert mask == 1 << 7 | 1 << 1
    with pytest.raises(OperatorError) as refused:
        assign_area_ids(full.gateway, {f"gone{i}": i for i in range(254)})
    assert "stop and start" in refused.value.hint


def test_high_area_indexes_reach_the_last_word(full: Loaded) -> None:
    policy = compiled(full, area_ids={"portal": 255, "api": 64, "files": 63})
    assert Read(policy).rules()["portal-2026-06/flood"].areas == 1 << 255 | 1 << 64
    assert opened(policy).areas == {"portal": 255, "api": 64, "files": 63}


def test_lists_of_prefixes_are_written_once(tmp_path: Path) -> None:
    rule = '[[rule]]\nname = "{}"\nper = "client"\nlimit = "1/s"\nthen = ["throttle"]\nwhen = {{ client = {} }}\n'
    rules = rule.format("a", '["10.0.0.0/8", "192.0.2.0/24"]') + rule.format("b", '["192.0.2.0/24", "10.0.0.0/8"]')
    policy = compiled(load_all(write(tmp_path, MINIMAL_GATEWAY, m=HEAD + rules), now=NOW))
    assert len(policy.prefix_images) == 2
    read = Read(policy)
    assert [read.rules()[f"m/{n}"].conditions[0][4] for n in "ab"] == [2, 2]
    assert read.end[6] == 1, "never-block comes first"


def test_never_block_is_gathered_from_everywhere(full: Loaded) -> None:
    found = never_block(full.gateway, full.mandates, ["192.0.2.77", "127.0.0.53", "0.0.0.0", "rubbish", "fe80::1"])
    assert {
        "127.0.0.1/32", "::1/128", "198.51.100.0/24", "2001:db8:ffff::/48", "203.0.113.0/24", "192.0.2.128/25",
        "203.0.113.9/32", "192.0.2.0/24", "2001:db8:1::/48", "198.51.100.7/32", "192.0.2.77/32", "fe80::1/128",
    } <= set(found)  # fmt: skip
    assert "127.0.0.53/32" not in found, "of 127.0.0.0/8 only 127.0.0.1 is ours"
    assert len(found) == len(set(found))
    assert "0.0.0.0/32" not in found


def test_touching_is_overlap_within_a_family() -> None:
    never = [ipaddress.ip_network(p) for p in ("192.0.2.128/25", "2001:db8::/32")]
    assert touching(never, ipaddress.ip_network("192.0.2.0/24")) == never[0]
    assert touching(never, ipaddress.ip_network("192.0.2.0/25")) is None
    assert touching(never, ipaddress.ip_network("2001:db8:1:2::/64")) == never[1]


def test_what_a_machine_says_of_itself(tmp_path: Path) -> None:
    net, etc = tmp_path / "proc" / "net", tmp_path / "etc"
    net.mkdir(parents=True)
    etc.mkdir()
    (net / "fib_trie").write_text(
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n"
        "     |-- 192.0.2.10\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n"
    )
    (net / "if_inet6").write_text("20010db8000000000000000000000010 02 40 00 80 eth0\nrubbish\n")
    (net / "route").write_text("Iface Destination Gateway\neth0 00000000 FE0200C0 0003\neth0 000200C0 00000000 0001\n")
    (net / "ipv6_route").write_text(f"{'0' * 32} 00 {'0' * 32} 00 fe80{'0' * 27}1 00000400 0 0 0 eth0\n")
    (etc / "resolv.conf").write_text(
        "# comment\nsearch x\nnameserver 192.0.2.53\nnameserver fe80::53%eth0\nnameserver\n"
    )
    found = machine_addresses(tmp_path)
    assert {"192.0.2.10", "2001:db8::10", "192.0.2.254", "fe80::1", "192.0.2.53", "fe80::53"} <= set(found)
    assert "192.0.2.255" not in found
    assert machine_addresses(tmp_path / "nothing") == ()
    assert machine_addresses() != (), "this machine has at least a loopback address"


@pytest.mark.parametrize(
    ("endpoint", "length", "packed"),
    [
        (Endpoint("inet", "192.0.2.1", 80), 16, b"\x00\x50\xc0\x00\x02\x01"),
        (Endpoint("inet6", "::1", 443), 28, b"\x01\xbb" + bytes(4) + bytes(15) + b"\x01"),
        (Endpoint("unix", "/run/a", 0), 9, b"/run/a\x00"),
    ],
)
def test_socket_addresses(endpoint: Endpoint, length: int, packed: bytes) -> None:
    family, data = sockaddr_of(endpoint)
    assert len(data) == length
    assert struct.unpack_from("=H", data) == (family,)
    assert data[2:].startswith(packed)


def test_source_json_carries_all_of_the_mandates(full: Loaded) -> None:
    read = Read(compiled(full))
    offset, count = read.sections["source"]
    source = msgspec.json.decode(read.data[offset : offset + count])
    assert [m["mandate"]["id"] for m in source["mandates"]] == ["portal-2026-06", "api"]
    assert source["area_ids"] == {"portal": 0, "api": 1, "files": 2}
    assert _native.probe_policy_load(read.data) is None


POOLS = (
    MINIMAL_GATEWAY.replace("mandates", "#")
    + """
[[area.pool]]
name = "api"
origins = ["127.0.0.1:8101", "127.0.0.1:8102"]
"""
)


def test_pools_stand_behind_their_area(tmp_path: Path) -> None:
    read = Read(compiled(load_all(write(tmp_path, POOLS), now=NOW)))
    (area,) = read.rows("areas", layout.AREA)
    pools = read.rows("pools", layout.POOL)
    assert area[8] == 0
    assert [(p[0], read.text(p[2], p[3]), p[4], p[5]) for p in pools] == [(0, "", 0, 1), (1, "api", 1, 2)]
    hosts = [read.text(o[5], o[6]) for o in read.rows("origins", layout.ORIGIN)]
    assert hosts == ["127.0.0.1:8000", "127.0.0.1:8101", "127.0.0.1:8102"]


def test_pools_and_origins_keep_their_places(tmp_path: Path) -> None:
    first = load_all(write(tmp_path, POOLS), now=NOW).gateway
    second = load_all(write(tmp_path, POOLS.replace('"127.0.0.1:8101", ', '"127.0.0.1:8103", ')), now=NOW).gateway
    before = assign_slots(first)
    after = assign_slots(second, before)
    kept = [name for name in after.origins if name.endswith(":8102")]
    assert [before.origins[name] for name in kept] == [after.origins[name] for name in kept] == [2]
    assert {name.rpartition(":")[2]: index for name, index in after.origins.items()} == {
        "8000": 0,
        "8101": 1,
        "8102": 2,
        "8103": 3,
    }
    assert after.pools == before.pools


def test_places_of_what_is_gone_are_given_out_last(tmp_path: Path) -> None:
    gateway = load_all(write(tmp_path, POOLS), now=NOW).gateway
    gone = {f"gone/{i}": i for i in range(1024)}
    origins = assign_slots(gateway, Slots({}, gone)).origins
    assert sorted(origins[name] for name in origins if not name.startswith("gone")) == [0, 1, 2]
    assert len(set(origins.values())) == len(origins) == 1024


def test_an_image_brings_the_places_back(tmp_path: Path) -> None:
    loaded = load_all(write(tmp_path, POOLS), now=NOW)
    slots = assign_slots(loaded.gateway, Slots({"site/api": 7}, {}))
    assert restore(compiled(loaded, slots=slots).image).slots == slots
