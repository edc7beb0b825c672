"""What is printed for BIRD: it parses, shows what configs/ shows, and refuses what could write lines of its own."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scrubber.enforce.announce import SOURCES_TABLE, VICTIMS_TABLE
from scrubber.enforce.bird_config import Neighbour, Side, bird_config, provider_config
from scrubber.enforce.net import net_of
from scrubber.errors import ValueRefused
from tests.wanted import program

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
OWNED = (net_of("203.0.113.0/24"), net_of("2001:db8:7::/48"))
SIDE = Side(
    router_id="192.0.2.1",
    asn=64512,
    protects=OWNED,
    neighbours=(Neighbour("192.0.2.2", 64513), Neighbour("2001:db8:ffff::2", 64513)),
    victims_table=VICTIMS_TABLE,
    sources_table=SOURCES_TABLE,
    source_community=(64513, 667),
)
CUSTOMERS = (Neighbour("192.0.2.1", 64512), Neighbour("2001:db8:ffff::1", 64512))
AROUND = "router id 192.0.2.2;\nprotocol device { }\n"


def accepts(text: str, home: Path) -> str:
    """What BIRD has against it."""
    file = home / "bird.conf"
    file.write_text(text)
    command = [program("bird"), "-p", "-c", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stderr


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"source_community": None},
        {"source_community": (4200000000, 666, 1)},
        {"protects": ()},
        {"protects": OWNED[:1]},
        {"protects": (net_of("203.0.113.7"), net_of("2001:db8:7::1"), *OWNED)},
        {"neighbours": ()},
        {"neighbours": (Neighbour("192.0.2.9", 1, "192.0.2.1", 2, 'a}b;#c', "192.0.2.250"),)},
        {"neighbours": (Neighbour("2001:db8::9", 1, "2001:db8::1", 0, "", "100::1"),) * 2},
    ],
)  # fmt: skip
def test_bird_takes_it(change: dict[str, Any], tmp_path: Path) -> None:
    assert accepts(bird_config(dataclasses.replace(SIDE, **change)), tmp_path) == ""


@pytest.mark.parametrize("source", [None, (64513, 667), (64513, 666, 1)])
@pytest.mark.parametrize("owns", [OWNED, OWNED[:1], ()])
def test_the_providers_bird_takes_it(owns: tuple[bytes, ...], source: Any, tmp_path: Path) -> None:
    parts = [provider_config(64513, each, owns, source) for each in CUSTOMERS]
    assert accepts(AROUND + "\n".join(parts), tmp_path) == ""


def test_bird_would_have_said_so(tmp_path: Path) -> None:
    assert "syntax error" in accepts(bird_config(SIDE).replace("learn;", "lern;"), tmp_path)


def test_configs_has_what_is_printed() -> None:
    assert (CONFIGS / "bird-gateway.conf").read_text() == bird_config(SIDE)
    parts = [provider_config(64513, each, OWNED, SIDE.source_community) for each in CUSTOMERS]
    assert (CONFIGS / "bird-provider.conf").read_text() == "\n".join(parts)


@pytest.mark.parametrize(
    "change",
    [
        {"router_id": "::1"},
        {"router_id": "1; include"},
        {"asn": 0},
        {"asn": 1 << 32},
        {"asn": True},
        {"protects": (net_of("0.0.0.0/0"),)},
        {"protects": (b"\xcb\x00\x71\x07\x18",)},
        {"victims_table": 0},
        {"source_community": (65536, 1)},
        {"source_community": (1, 2, 3, 4)},
        {"announced_max": 0},
    ],
)
def test_a_value_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueRefused) as refused:
        bird_config(dataclasses.replace(SIDE, **change))
    assert refused.value.expected


@pytest.mark.parametrize(
    "neighbour",
    [
        Neighbour("provider.example", 1),
        Neighbour("192.0.2.2; }", 1),
        Neighbour("fe80::1%eth0", 1),
        Neighbour("192.0.2.2", 1, local_address="2001:db8::1"),
        Neighbour("192.0.2.2", 1, multihop=2),
        Neighbour("192.0.2.2", 1, "192.0.2.1", 256),
        Neighbour("192.0.2.2", 1, "", 0, '"; include "/etc/shadow'),
        Neighbour("192.0.2.2", 1, "", 0, "line\nbreak"),
        Neighbour("192.0.2.2", -1),
    ],
)
def test_a_neighbour_that_is_none_is_refused(neighbour: Neighbour) -> None:
    with pytest.raises(ValueRefused):
        bird_config(dataclasses.replace(SIDE, neighbours=(neighbour,)))
    with pytest.raises(ValueRefused):
        provider_config(64513, neighbour, OWNED)


def test_a_next_hop_of_the_other_family_is_refused() -> None:
    with pytest.raises(ValueRefused, match="does not fit"):
        bird_config(dataclasses.replace(SIDE, neighbours=(Neighbour("192.0.2.2", 1, next_hop="100::1"),)))
