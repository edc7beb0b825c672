"""Blocks by hand: the clause, its bounds, and what the tables say against a block."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

import pytest

from scrubber import _native
from scrubber.control.blocks import HINTS, BlockGrant, Refusal, Source, allowed_block, parse_source, put_block
from scrubber.errors import ValueRefused
from scrubber.mandate.compile import rule_id
from scrubber.mandate.load import Loaded, load_all
from scrubber.mandate.slots import assign_area_ids
from tests.unit.files import GOOD, HEAD, MINIMAL_GATEWAY, NOW, write
from tests.unit.regions import make_memory

S = 1_000_000_000


@pytest.fixture(scope="module")
def full() -> Loaded:
    return load_all(GOOD / "full-gateway.toml", now=NOW)


def asked(loaded: Loaded, source: str, ttl_s: float = 60, area: str = "", **more: object) -> BlockGrant | Refusal:
    arguments: dict[str, object] = {"now": NOW, "machine": ("192.0.2.53",), **more}
    return allowed_block(loaded.mandates, loaded.gateway, source, ttl_s, area, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("203.0.114.7", Source("client", "203.0.114.7")),
        ("203.0.114.7/32", Source("client", "203.0.114.7")),
        ("::ffff:203.0.114.7", Source("client", "203.0.114.7")),
        (" 203.0.114.0/24 ", Source("prefix", "203.0.114.0/24")),
        ("2001:db8::1", Source("client", "2001:db8::/64")),
        ("2001:db8:0:5::/64", Source("client", "2001:db8:0:5::/64")),
        ("2001:db8::/48", Source("prefix", "2001:db8::/48")),
        ("h1_0123456789ABCDEF", Source("fingerprint", "0123456789abcdef")),
        ("fingerprint:0123456789abcdef", Source("fingerprint", "0123456789abcdef")),
    ],
)
def test_sources(text: str, source: Source) -> None:
    assert parse_source(text) == source
    assert parse_source(str(source)) == source


@pytest.mark.parametrize(
    "text", ["", "example.org", "203.0.114.1/24", "h1_12", "account:x", "1.2.3", "fe80::1%lo"]
)
def test_what_is_no_source(text: str) -> None:
    with pytest.raises(ValueRefused) as refused:
        parse_source(text)
    assert refused.value.hint


def test_a_grant_cites_the_mandate_that_covers_most(full: Loaded) -> None:
    grant = asked(full, "203.0.114.7", 600)
    assert grant == BlockGrant(
        source=Source("client", "203.0.114.7"),
        mandate="portal-2026-06",
        clause="portal-2026-06/powers.block",
        rule_id=rule_id("portal-2026-06", ""),
        areas=("portal", "api"),
        ttl_ns=600 * S,
        ttl_max_ns=3600 * S,  # api's other mandate is tighter
        blocks_max=100,
        clients_share_max_ppm=20_000,
    )
    only = asked(full, "203.0.114.7", 600, "files")
    assert isinstance(only, BlockGrant)
    assert (only.mandate, only.areas) == ("api", ("files",))


@pytest.mark.parametrize(
    ("source", "ttl_s", "area", "reason", "hint"),
    [
        ("203.0.114.7", 3601, "", "blocks of 1h at most", "--for 1h"),
        ("203.0.114.7", 0, "", "lasts some time", "--for"),
        ("203.0.114.7", 60, "portl", "no area 'portl'", "did you mean 'portal'"),
        ("203.0.114.0/23", 60, "", "203.0.114.0/23 is wider than", "/24"),
        ("2001:db8::/47", 60, "", "2001:db8::/47 is wider than", "/48"),
        ("0.0.0.0/0", 60, "", "wider", "/24"),
        ("198.51.100.9", 60, "", "198.51.100.0/24 is never-block", "narrow"),
        ("203.0.113.0/24", 60, "", "never-block", "narrow"),
        ("192.0.2.53", 60, "", "never-block", "narrow"),
        ("127.0.0.1", 60, "", "127.0.0.1/32 is never-block", "narrow"),
        ("::1", 60, "", "::1/128 is never-block", "narrow"),  # its /64 holds it
        ("2001:db8:ffff:1::", 60, "", "never-block", "narrow"),
    ],
)
def test_refusals_say_why_and_what_to_do(
    full: Loaded, source: str, *, ttl_s: float, area: str, reason: str, hint: str
) -> None:
    answer = asked(full, source, ttl_s, area)
    assert isinstance(answer, Refusal)
    assert reason in answer.reason
    assert hint in answer.hint


def test_a_block_never_outlives_its_mandate(full: Loaded) -> None:
    end = datetime.datetime(2026, 7, 31, 22, tzinfo=datetime.UTC)
    grant = asked(full, "203.0.114.7", 600, "portal", now=end - datetime.timedelta(seconds=30))
    assert isinstance(grant, BlockGrant)
    assert grant.ttl_ns == 30 * S
    late = asked(full, "203.0.114.7", 600, "portal", now=end)
    assert isinstance(late, Refusal)


def test_without_power_or_mandate_there_is_no_block(tmp_path: Path) -> None:
    loaded = load_all(write(tmp_path, MINIMAL_GATEWAY, m=HEAD.replace('"block", ', "")), now=NOW)
    answer = asked(loaded, "203.0.114.7")
    assert isinstance(answer, Refusal)
    assert "no power to block" in answer.reason
    loaded = load_all(write(tmp_path, MINIMAL_GATEWAY.replace("mandates", "#")), now=NOW)
    answer = asked(loaded, "203.0.114.7")
    assert isinstance(answer, Refusal)
    assert "no mandate" in answer.reason


def test_a_block_is_made_in_the_grant_s_areas(full: Loaded) -> None:
    (memory,) = make_memory()
    ids = assign_area_ids(full.gateway, {"gone": 0})
    grant = asked(full, "203.0.114.0/24", 600)
    assert isinstance(grant, BlockGrant)
    assert put_block(memory, grant, ids) == "new"
    (block,) = memory.blocks()
    assert (block["kind"], block["source"], block["areas"]) == ("prefix", "203.0.114.0/24", [ids["portal"], ids["api"]])
    assert block["rule_id"] == f"{grant.rule_id:016x}"
    assert block["expires_ns"] - block["since_ns"] == 600 * S
    assert put_block(memory, grant, ids) == "extended"


def make_known(memory: _native.Memory, area: int, last: int) -> None:
    """A well-behaved client 203.0.114.LAST."""
    address = bytes(10) + b"\xff\xff" + bytes([203, 0, 114, last])
    for i in range(9):
        _native.probe_known_note(memory, area, address, True, time.monotonic_ns() - 10 * S + i * S)


def test_more_known_clients_than_the_share_are_not_blocked(full: Loaded) -> None:
    (memory,) = make_memory()
    ids = assign_area_ids(full.gateway, {})
    for last in range(1, 101):
        make_known(memory, ids["portal"], last)
    assert memory.area_state(ids["portal"])["known_total"] == 100
    prefix = asked(full, "203.0.114.0/24")
    assert isinstance(prefix, BlockGrant)
    answer = put_block(memory, prefix, ids)
    assert answer == Refusal("clients_share_max", HINTS["clients_share_max"])
    assert memory.blocks() == []
    for last, outcome in ((1, "new"), (2, "new"), (3, "clients_share_max")):  # 2 % of 100
        grant = asked(full, f"203.0.114.{last}")
        assert isinstance(grant, BlockGrant)
        made = put_block(memory, grant, ids)
        assert (made.reason if isinstance(made, Refusal) else made) == outcome
    memory.sweep()
    assert memory.area_state(ids["portal"])["known_blocked"] == 2
    newcomer = asked(full, "203.0.114.200")
    assert isinstance(newcomer, BlockGrant)
    assert put_block(memory, newcomer, ids) == "new"
