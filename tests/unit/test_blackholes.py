"""Which mandates allow a blackhole, of what, and for how long."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from scrubber.control.blackholes import (
    FlowOrder,
    Grant,
    all_areas,
    allowed,
    areas_at,
    flow_meant,
    load_rules,
    net_meant,
    own_addresses,
)
from scrubber.control.blocks import Refusal
from scrubber.control.policy import PolicyInForce, compile_files
from scrubber.enforce.net import net_of, net_text
from scrubber.errors import ValueRefused
from scrubber.mandate.load import load_all
from scrubber.units import NS_PER_S

NOW = datetime.datetime.now(datetime.UTC)
M = 60 * NS_PER_S
GATEWAY = """
workers = 1
state_dir = "state"
mandates = ["one.toml", "two.toml"]
allow_unsigned = true
[enforcer]
protects = ["203.0.113.0/24"]
[[listener]]
address = "203.0.113.10:8080"
areas = ["shop"]
[[listener]]
address = "0.0.0.0:8081"
areas = ["news"]
[[area]]
name = "shop"
default = true
origins = ["127.0.0.1:1"]
[[area]]
name = "news"
origins = ["127.0.0.1:2"]
"""
MANDATE = """
[mandate]
id = "{id}"
serial = 1
authority = "the tests"
basis = "a test"
not_before = {begins}
expires = {ends}
on_expiry = "limits"
areas = {areas}
powers = ["block"{more}]
[proportion]
block_ttl_max = "{longest}"
never_block = ["203.0.113.7", "198.51.100.0/24"]
blackhole_signatures = {signatures}
{rules}
"""
PIPE = """
[[rule]]
name = "pipe"
when = { link_load = ">= 80%" }
then = ["blackhole 5m"]
"""


def mandate(name: str, areas: str, *, power: bool = True, **how: object) -> str:
    values = {
        "begins": "2020-01-01T00:00:00Z", "ends": "2099-01-01T00:00:00Z", "longest": "1h", "signatures": 2, "rules": "",
        "more": ', "blackhole"' if power else "", **how,
    }  # fmt: skip
    return MANDATE.format(id=name, areas=areas, **values)


def policy(tmp_path: Path, one: str, two: str) -> PolicyInForce:
    (tmp_path / "gateway.toml").write_text(GATEWAY)
    (tmp_path / "one.toml").write_text(one)
    (tmp_path / "two.toml").write_text(two)
    loaded = load_all(tmp_path / "gateway.toml", now=NOW)
    return compile_files(loaded.gateway, loaded.mandates, {}, 1)[0]


SHOP, NEWS = '["shop"]', '["news"]'


def test_every_area_that_is_cut_off_has_to_allow_it(tmp_path: Path) -> None:
    found = policy(tmp_path, mandate("one", SHOP), mandate("two", NEWS, power=False))
    answer = allowed(found, all_areas(found), M, NOW)
    assert isinstance(answer, Refusal) and "area news" in answer.reason
    assert allowed(found, ["shop"], M, NOW) == Grant("one/powers.blackhole", M, 2)
    assert allowed(found, [], M, NOW) == Grant("one/powers.blackhole", M, 2), "where nothing of ours is served"
    both = policy(tmp_path, mandate("one", SHOP), mandate("two", NEWS, longest="10m", signatures=3))
    assert allowed(both, all_areas(both), 10 * M, NOW) == Grant("one/powers.blackhole", 10 * M, 3)
    answer = allowed(both, all_areas(both), 11 * M, NOW)
    assert isinstance(answer, Refusal) and "10m at most" in answer.reason, "the tightest counts"
    assert allowed(both, ["shop"], 11 * M, NOW) == Grant("one/powers.blackhole", 11 * M, 2)


def test_nothing_outlives_its_mandate(tmp_path: Path) -> None:
    soon = (NOW + datetime.timedelta(minutes=3)).replace(microsecond=0)
    found = policy(tmp_path, mandate("one", SHOP, ends=soon.isoformat()), mandate("two", NEWS, power=False))
    grant = allowed(found, ["shop"], 10 * M, NOW)
    assert isinstance(grant, Grant) and 2 * M < grant.ttl_ns <= 3 * M
    assert isinstance(allowed(found, ["shop"], M, NOW + datetime.timedelta(minutes=4)), Refusal)


def test_a_rule_is_cut_to_what_is_allowed_and_cited(tmp_path: Path) -> None:
    found = policy(tmp_path, mandate("one", SHOP, longest="5m", rules=PIPE), mandate("two", NEWS, longest="2m"))
    ((clause, rule),) = load_rules(found.mandates)
    assert clause == "one/pipe"
    grant = allowed(found, all_areas(found), rule.then[0].ttl_ns, NOW, rule=clause)
    assert grant == Grant("one/pipe", 2 * M, 2)


def test_areas_at_an_address(tmp_path: Path) -> None:
    found = policy(tmp_path, mandate("one", SHOP), mandate("two", NEWS))
    assert areas_at(found, net_of("203.0.113.10")) == ["shop", "news"]
    assert areas_at(found, net_of("203.0.113.11")) == ["news"]
    assert areas_at(found, net_of("203.0.113.8/30")) == ["shop", "news"]


@pytest.mark.parametrize(
    ("text", "meant", "kind"),
    [
        ("203.0.113.7", "203.0.113.7", "victim"),
        (" 198.18.1.1 ", "198.18.1.1", "source"),
        ("198.18.1.0/24", "198.18.1.0/24", "source"),
        ("2001:db8:7::9", "2001:db8:7::9", "victim"),
        ("2001:db8:9::9", "2001:db8:9::/64", "source"),
        ("203.0.0.0/16", "203.0.0.0/16", "victim"),  # touches ours: never a source
    ],
)
def test_what_a_text_names(text: str, meant: str, kind: str) -> None:
    net, found = net_meant(text, ["203.0.113.0/24", "2001:db8:7::/48"])
    assert (net_text(net), found) == (meant, kind)


def test_a_network_has_no_host_bits() -> None:
    with pytest.raises(ValueRefused):
        net_meant("198.18.1.1/24", [])


def test_what_is_ours_without_having_been_named(tmp_path: Path) -> None:
    found = policy(tmp_path, mandate("one", SHOP), mandate("two", NEWS))
    never = ["198.51.100.0/24", "198.51.100.9/32", "203.0.113.7/32", "203.0.113.10/32", "10.0.0.1/32"]
    assert [net_text(net) for net in own_addresses(found.mandates, never)] == ["203.0.113.10", "10.0.0.1"]


def test_an_order_of_a_rule() -> None:
    order = FlowOrder(
        destination="203.0.113.7", ttl_s=60, reason="a test", source="198.18.0.0/24", protocols=(17, 6),
        source_ports=("123", "53"), destination_ports=("1024-65535",), packet_lengths=("0-63",), action="1MB/s",
    )  # fmt: skip
    flow = flow_meant(order, 9)
    assert flow.match == (
        "destination 203.0.113.7/32 source 198.18.0.0/24 protocol [ =6 =17 ] source-port [ =53 =123 ] "
        "destination-port [ >=1024&<=65535 ] packet-length [ >=0&<=63 ]"
    )
    assert (flow.action, flow.until_ns) == (1_000_000, 9)
    for wrong in ("", "-", "5-", "-5", "a", "9-5", "70000", "\u0661"):
        with pytest.raises(ValueRefused):
            flow_meant(FlowOrder("203.0.113.7", 60, "a test", source_ports=(wrong,)), 9)
