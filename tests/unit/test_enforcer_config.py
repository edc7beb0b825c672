"""[enforcer] and [enforcer.upstream]: what is refused, and what `scrubber enforce bird-config` makes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from scrubber.cli import main
from scrubber.config.gateway import load_gateway
from tests.unit.files import ROOT
from tests.wanted import program

AREA = '[[listener]]\naddress = "127.0.0.1:0"\n[[area]]\nname = "a"\ndefault = true\norigins = ["127.0.0.1:1"]\n'
UPSTREAM = '[enforcer]\nprotects = ["203.0.113.0/24"]\n[enforcer.upstream]\nrouter_id = "192.0.2.1"\nasn = 64512\n'
NEIGHBOUR = '[[enforcer.upstream.neighbour]]\naddress = "192.0.2.2"\nasn = 64513\n'


def problems(text: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "gateway.toml"
    file.write_text(text + AREA)
    return [f"{each.path}: {each.message}" for each in load_gateway(file)[1] if each.severity == "error"]


@pytest.mark.parametrize(
    ("lines", "path", "message"),
    [
        ('drop = ["xdp"]', "enforcer.interfaces", "where clients come in"),
        ('drop = ["nft", "nft"]', "enforcer.drop[1]", "twice"),
        ('drop = ["iptables"]', "enforcer.drop[0]", "no backend"),
        ("drop = []", "enforcer.drop", ""),
        ('interfaces = ["eth 0"]', "enforcer.interfaces[0]", "not an interface"),
        ('interfaces = ["../../etc"]', "enforcer.interfaces[0]", "not an interface"),
        ('interfaces = ["a-name-of-17-byte"]', "enforcer.interfaces[0]", "not an interface"),
        ("aggregate = 7", "enforcer.aggregate", "no evidence against their neighbours"),
        ("aggregate = 257", "enforcer.aggregate", ""),
        ("prefix_v4_widest = 4", "enforcer.prefix_v4_widest", ""),
        ('ttl_max = "40d"', "enforcer.ttl_max", ""),
        ('on_stop = "stay"', "enforcer.on_stop", ""),
        ('protects = ["203.0.113.1/24"]', "enforcer.protects[0]", ""),
    ],
)
def test_what_is_refused(lines: str, path: str, message: str, tmp_path: Path) -> None:
    (found,) = problems(f"[enforcer]\n{lines}\n", tmp_path)
    assert found.startswith(f"{path}: ")
    assert message in found


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (UPSTREAM.replace('protects = ["203.0.113.0/24"]\n', "") + NEIGHBOUR, "enforcer.protects"),
        (UPSTREAM, "enforcer.upstream.neighbour"),
        (UPSTREAM.replace('"192.0.2.1"', '"2001:db8::1"') + NEIGHBOUR, "enforcer.upstream.router_id"),
        (UPSTREAM.replace("asn = 64512", "asn = 0") + NEIGHBOUR, "enforcer.upstream.asn"),
        (UPSTREAM + 'source_community = "1:2:3:4"\n' + NEIGHBOUR, "enforcer.upstream.source_community"),
        (UPSTREAM + 'source_community = "70000:1"\n' + NEIGHBOUR, "enforcer.upstream.source_community"),
        (UPSTREAM + NEIGHBOUR + "multihop = 2\n", "enforcer.upstream.neighbour[0].local_address"),
        (UPSTREAM + NEIGHBOUR + 'next_hop = "2001:db8::1"\n', "enforcer.upstream.neighbour[0].next_hop"),
        (UPSTREAM + NEIGHBOUR + "password = 'a\"; }'\n", "enforcer.upstream.neighbour[0].password"),
        (UPSTREAM + NEIGHBOUR + 'password = "two words"\n', "enforcer.upstream.neighbour[0].password"),
        (UPSTREAM + NEIGHBOUR.replace("192.0.2.2", "0.0.0.0"), "enforcer.upstream.neighbour[0].address"),
    ],
)
def test_what_is_refused_of_upstream(text: str, path: str, tmp_path: Path) -> None:
    (found,) = problems(text, tmp_path)
    assert found.startswith(f"{path}: ")


def test_bird_takes_what_is_printed_for_the_example(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["enforce", "bird-config", str(ROOT / "configs/upstream.toml")])
    assert done.exit_code == 0
    file = tmp_path / "bird.conf"
    file.write_text(done.stdout)
    checked = subprocess.run([program("bird"), "-p", "-c", str(file)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    for wanted in ("65535, 666", "64513, 667", "203.0.113.0/24+", "2001:db8:7::/48+", 'password "as-agreed"'):
        assert wanted in done.stdout


def test_bird_takes_what_is_printed_for_each_router(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["enforce", "bird-config", "--provider", str(ROOT / "configs/upstream.toml")])
    assert done.exit_code == 0, done.stderr
    _, *parts = done.stdout.split("# of the router ")
    assert [part.split()[0] for part in parts] == ["192.0.2.2", "2001:db8:fffe::9"]
    for number, part in enumerate(parts):
        file = tmp_path / f"bird{number}.conf"
        file.write_text(f"router id 192.0.2.200;\n# {part}")
        checked = subprocess.run([program("bird"), "-p", "-c", str(file)], capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")
        assert "RTD_BLACKHOLE" in part
        assert 'password "as-agreed"' in part or number
    assert "neighbor 192.0.2.1 as 64512" in parts[0] and "neighbor 2001:db8:ffff::1 as 64512" in parts[1]


def test_a_gateway_without_an_upstream() -> None:
    done = CliRunner().invoke(main, ["enforce", "bird-config", str(ROOT / "configs/minimal.toml")])
    assert done.exit_code != 0
    assert "upstream.toml" in done.stderr
