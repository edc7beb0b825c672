"""From blocks to drops: which doors are shut to whom, until when, and what mandates leave of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scrubber.control.policy import PolicyInForce, compile_files
from scrubber.control.shut import Shut, doors_of, terms_of
from scrubber.enforce.backend import DOORS_MAX, Drop
from scrubber.enforce.net import net_of
from scrubber.mandate.load import load_all
from tests.unit.files import HEAD, write

S = 1_000_000_000
LONG = HEAD.replace("2026-05-01", "2020-01-01").replace("2026-07-01", "2099-01-01")
TOP = 'mandates = ["m.toml"]\nallow_unsigned = true\n'
A, B = net_of("198.51.100.1"), net_of("2001:db8::/64")

Policy = Callable[..., PolicyInForce]


def listener(address: str, *areas: str) -> str:
    named = f"areas = {list(areas)}\n".replace("'", '"') if areas else ""
    return f'[[listener]]\naddress = "{address}"\n{named}'


def area(name: str) -> str:
    return f'[[area]]\nname = "{name}"\nhosts = ["{name}.example"]\norigins = ["10.0.0.1:80"]\n'


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    def made(*parts: str, proportion: str = "", areas: str = '["site"]') -> PolicyInForce:
        mandate = LONG.replace('areas = ["site"]', f"areas = {areas}") + f"\n[proportion]\n{proportion}\n"
        loaded = load_all(write(tmp_path, TOP + "".join(parts), m=mandate))
        return compile_files(loaded.gateway, loaded.mandates, {}, 1)[0]

    return made


def test_listening_addresses_are_doors_by_what_they_lead_to(policy: Policy) -> None:
    found = policy(
        listener("0.0.0.0:80"),
        listener("[::1]:443"),
        listener("192.0.2.1:8080", "site"),
        listener("unix:/run/x.sock"),
        listener("127.0.0.1:0", "other"),
        area("site"),
        area("other"),
    )
    site, other = found.area_ids["site"], found.area_ids["other"]
    bound = {
        "0.0.0.0:80": ("0.0.0.0", 80),
        "[::1]:443": ("::1", 443),
        "192.0.2.1:8080": ("192.0.2.1", 8080),
        "127.0.0.1:0": ("127.0.0.1", 40123),
    }
    doors, areas = doors_of(found, bound)
    assert areas == [frozenset({site, other}), frozenset({site}), frozenset({other})]
    assert doors[0].addresses == ((4, b"", 80), (6, bytes(15) + b"\1", 443))
    assert doors[1].addresses == ((4, bytes([192, 0, 2, 1]), 8080),)
    assert doors[2].addresses == ((4, bytes([127, 0, 0, 1]), 40123),)  # what any port became
    again, kept = doors_of(found, {"127.0.0.1:0": ("127.0.0.1", 40123)}, areas)
    assert kept == [frozenset(), frozenset(), frozenset({other})]  # a drop that names the third means the same
    assert [bool(door.addresses) for door in again] == [False, False, True]
    assert doors_of(found, bound, kept)[1][2] == frozenset({other})


def test_what_there_is_no_door_for_stays_open(policy: Policy) -> None:
    names = [f"a{n}" for n in range(DOORS_MAX + 3)]
    found = policy(
        *(listener(f"127.0.0.1:{1000 + n}", name) for n, name in enumerate(names)),
        *map(area, names),
        areas=str(names).replace("'", '"'),
    )
    bound = {f"127.0.0.1:{1000 + n}": ("127.0.0.1", 1000 + n) for n in range(len(names))}
    doors, areas = doors_of(found, bound)
    assert len(doors) == len(areas) == DOORS_MAX


def test_a_door_is_shut_where_everything_behind_it_is_bound() -> None:
    shut = Shut([frozenset({0}), frozenset({0, 1}), frozenset({2}), frozenset()])
    assert shut.take([(A, (0,), 50 * S, 0, 0)]) == {A}
    assert shut.drop(A, S) == Drop(50 * S, 0b1)
    assert shut.drop(B, S) is None
    shut.take([(A, (1, 3), 40 * S, 0, 0)])
    assert shut.drop(A, S) == Drop(40 * S, 0b11)  # until the first of those that it takes
    assert shut.drop(A, 41 * S) == Drop(50 * S, 0b1)
    shut.take([(A, (0, 1), 90 * S, 0, 0)])
    assert shut.drop(A, S) == Drop(90 * S, 0b11)  # by one block alone
    shut.take([(B, (3,), 90 * S, 0, 0)])
    assert shut.drop(B, S) is None  # of an area that no door leads to
    assert shut.nets() == {A, B}
    assert shut.drop(A, 90 * S) is None
    assert shut.nets() == {B}
    shut.lift(B)
    assert shut.nets() == set()


def test_terms_are_the_tightest_of_all_mandates(policy: Policy) -> None:
    proportion = 'block_ttl_max = "2h"\nprefix_v4_widest = 28\nnever_block = ["198.51.100.0/24"]'
    found = terms_of(policy(listener("127.0.0.1:0"), area("site"), area("other"), proportion=proportion))
    assert (found.ttl_ns_max, found.v4_widest, found.v6_widest) == (7200 * S, 28, 48)
    assert {net_of("198.51.100.0/24"), net_of("10.0.0.1"), net_of("127.0.0.1")} <= set(found.never)
    assert found.hosts_max > 0


def test_without_a_power_to_block_nothing_is_allowed(policy: Policy, tmp_path: Path) -> None:
    powerless = LONG.replace('"block", ', "").replace(', "block"', "").replace(', "blackhole"', "")
    loaded = load_all(write(tmp_path, TOP + listener("127.0.0.1:0") + area("site"), m=powerless))
    assert "block" not in loaded.mandates[0].head.powers
    found = terms_of(compile_files(loaded.gateway, loaded.mandates, {}, 1)[0])
    assert (found.ttl_ns_max, found.hosts_max, found.prefixes_max) == (0, 0, 0)
    assert (found.announcements_max, found.announcements_per_min, found.flows_max) == (0, 0, 0)
