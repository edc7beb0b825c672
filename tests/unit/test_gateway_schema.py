"""The gateway file: every key, every default, every error at once."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from scrubber import _native
from scrubber.config import gateway as schema
from scrubber.config import tls
from scrubber.config.gateway import Account, Gateway, default_state_dir, load_gateway
from scrubber.config.listener import LISTENERS_MAX
from scrubber.config.network import Endpoint, parse_endpoint, parse_origin_endpoint
from scrubber.errors import FilesRefused, ValueRefused, errors_of
from scrubber.mandate.load import check_files, load_all
from tests.unit.example_certificates import examples
from tests.unit.files import GOOD, MINIMAL_GATEWAY, ROOT, write

S = 1_000_000_000


def load(path: Path) -> Gateway:
    gateway, problems = load_gateway(path)
    assert gateway is not None, problems
    return gateway


def test_every_config_loads() -> None:
    configs = sorted(examples().glob("*.toml"))
    assert {"minimal.toml", "minimal-mandate.toml"} <= {p.name for p in configs}
    assert [str(p) for p in errors_of(check_files(configs))] == []


def test_the_minimal_file_has_the_documented_defaults() -> None:
    gateway = load(ROOT / "configs" / "minimal.toml")
    (listener,) = gateway.listeners
    (area,) = gateway.areas
    assert str(listener.address) == "127.0.0.1:8080"
    assert listener.areas == ("site",)
    assert str(area.origins[0].address) == "127.0.0.1:8000"
    assert area.account == Account("none")
    assert area.keep_host
    assert not area.ratelimit_fields
    assert gateway.enforce
    assert gateway.workers == min(len(os.sched_getaffinity(0)), 64)
    assert gateway.limits == schema.Limits(16384, 128, 50, 100, 1024)
    assert gateway.memory == schema.Memory(2**20, 2**17, 2**18, 2**17, 4 * 2**20)
    limits = area.limits
    assert limits.head_timeout_ns == 10 * S
    assert (limits.line_bytes_max, limits.head_bytes_max, limits.headers_max) == (8192, 16384, 100)
    assert (limits.body_bytes_max, limits.body_bytes_per_s_min, limits.body_grace_ns) == (64 * 2**20, 500, 5 * S)
    assert (limits.origin_connections_max, limits.origin_wait_max, limits.origin_wait_ns) == (256, 1024, 5 * S)


def test_every_key_is_read() -> None:
    gateway = load(GOOD / "full-gateway.toml")
    assert gateway.workers == 4
    assert not gateway.enforce
    assert gateway.state_dir == str(GOOD / "state")
    assert gateway.admin.socket == str(GOOD / "state" / "a.sock")
    assert gateway.admin.token_file == str(GOOD / "state" / "admin.token")
    template = "{client} {request:json} {{{status}}}"
    assert [(str(each.to), each.format) for each in gateway.log.access] == [
        ("-", template),
        (str(GOOD / "state" / "combined.log"), "combined"),
        ("syslog:/dev/log", template),
        ("syslog+udp://127.0.0.1:514", template),
        ("syslog+tcp://[::1]:601", "ecs"),
    ]
    assert (gateway.log.access[2].facility, gateway.log.access[2].tag) == ("daemon", "gate")
    assert [str(each.to) for each in gateway.log.acts] == ["/var/log/scrubber/acts.log", "syslog:/dev/log"]
    assert gateway.log.sample_pass_per_s == 1001
    assert gateway.mandates == (str(GOOD / "full-mandate.toml"), str(GOOD / "second-mandate.toml"))
    assert gateway.listeners[0].trusted_proxies == ("192.0.2.0/24", "2001:db8:1::/48", "198.51.100.7/32")
    assert gateway.listeners[0].default == "api"
    assert gateway.listeners[1].address == Endpoint("inet6", "::1", 0)
    assert gateway.listeners[1].areas == ("portal", "api", "files")
    portal, api, files = gateway.areas
    assert portal.hosts == ("example.org", "*.example.org", "www.example.net")
    inner = schema.Origin(Endpoint("inet6", "::1", 8001), "inner.example.org", 8, weight=3, backup=True)
    assert portal.origins[1] == inner
    assert (portal.balance, portal.slow_start_ns, portal.retry_budget_ppm) == ("hash:header:x-session", 30 * S, 100_000)
    assert (portal.eject_after, portal.eject_time_ns, portal.eject_time_max_ns) == (5, 2 * S, 120 * S)
    health = portal.health
    assert (health.http, [str(each) for each in health.expect]) == ("/healthz", ["200", "300-399"])
    assert (health.host, health.interval_ns, health.timeout_ns) == ("check.example.org", 10 * S, S)
    assert (health.rise, health.fall) == (1, 5)
    assert [str(server) for server in gateway.dns.servers] == ["192.0.2.53:53", "[2001:db8::53]:5353"]
    assert (gateway.dns.timeout_ns, gateway.dns.ttl_min_ns, gateway.dns.ttl_max_ns) == (3 * S, 10 * S, 3600 * S)
    assert [a.account for a in gateway.areas] == [
        Account("cookie", "Session"),
        Account("header", "x-user"),
        Account("bearer"),
    ]
    assert api.origins[0].address == Endpoint("unix", "/run/api.sock", 0)
    assert files.limits == schema.AreaLimits()
    changed = [
        n for n in msgspec.structs.asdict(portal.limits) if getattr(portal.limits, n) == getattr(files.limits, n)
    ]
    assert changed == [], "the fixture gives every limit a value that is not its default"
    assert portal.limits.body_bytes_per_s_min == 1024


def test_a_gateway_survives_json() -> None:
    gateway = load(GOOD / "full-gateway.toml")
    assert msgspec.json.decode(msgspec.json.encode(gateway), type=Gateway) == gateway


def test_capacities_are_the_core_s() -> None:
    core = _native.probe_policy_layout()["CAPACITIES"]
    for name in ("WORKERS_MAX", "AREAS_MAX", "HEADERS_MAX", "HEAD_BYTES_MAX"):
        assert getattr(schema, name) == core[name]
    assert core["LISTENERS_MAX"] == LISTENERS_MAX
    assert (core["TLS_CHAINS_MAX"], core["PEM_BYTES_MAX"]) == (tls.CHAINS_MAX, tls.PEM_BYTES_MAX)


def test_paths_stand_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 'state_dir = "s"\n' + MINIMAL_GATEWAY.replace("mandates", "#") + '[log]\naccess = "a.log"\n')
    monkeypatch.chdir("/")
    gateway = load(path)
    assert gateway.file == str(path)
    assert [str(each.to) for each in gateway.log.access] == [str(tmp_path / "s" / "a.log")]
    assert gateway.log.acts == gateway.log.access
    assert gateway.admin.socket == str(tmp_path / "s" / "admin.sock")


def test_the_state_directory_is_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert default_state_dir() == "/run/user/1000/scrubber"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_state_dir() == "/tmp/scrubber-1000"


def test_a_socket_path_that_the_kernel_cannot_hold(tmp_path: Path) -> None:
    _, problems = load_gateway(write(tmp_path, f'state_dir = "{"x" * 120}"\n' + MINIMAL_GATEWAY))
    assert [(p.path, p.severity) for p in problems] == [("admin.socket", "error")]
    assert "shorter state_dir" in problems[0].hint


def test_an_area_that_nobody_can_reach_is_a_warning(tmp_path: Path) -> None:
    gateway, problems = load_gateway(write(tmp_path, MINIMAL_GATEWAY.replace("default = true\n", "")))
    assert gateway is not None
    assert [(p.path, p.severity) for p in problems] == [("area[0].hosts", "warning")]


def test_a_missing_file_is_one_problem(tmp_path: Path) -> None:
    gateway, problems = load_gateway(tmp_path / "none.toml")
    assert gateway is None
    assert [p.path for p in problems] == [""]
    with pytest.raises(FilesRefused) as refused:
        load_all(tmp_path / "none.toml")
    assert refused.value.problems == tuple(problems)
    assert "check" in refused.value.hint


def test_trusting_everybody_is_warned_about(tmp_path: Path) -> None:
    text = MINIMAL_GATEWAY.replace('address = "127', 'trusted_proxies = ["10.0.0.0/8", "::/0"]\naddress = "127')
    gateway, problems = load_gateway(write(tmp_path, text))
    assert gateway is not None
    assert [(p.path, p.severity) for p in problems] == [("listener[0].trusted_proxies[1]", "warning")]


def test_an_area_has_named_pools(tmp_path: Path) -> None:
    text = MINIMAL_GATEWAY + '[[area.pool]]\nname = "api"\norigins = "127.0.0.1:8101"\n'
    gateway, problems = load_gateway(write(tmp_path, text))
    assert gateway is not None, problems
    (pool,) = gateway.areas[0].pools
    assert (pool.name, str(pool.origins[0].address)) == ("api", "127.0.0.1:8101")


def test_pools_are_told_apart_by_name_and_origins_by_address(tmp_path: Path) -> None:
    pool = '[[area.pool]]\nname = "api"\norigins = ["127.0.0.1:8101", "127.0.0.1:8101"]\n'
    gateway, problems = load_gateway(write(tmp_path, MINIMAL_GATEWAY + pool + pool))
    assert gateway is None
    assert [p.path for p in problems if p.severity == "error"] == [
        "area[0].pool[0].origins[1]",
        "area[0].pool[1].name",
        "area[0].pool[1].origins[1]",
    ]


ENDPOINTS = {
    "127.0.0.1:99999": ("'127.0.0.1:99999': '99999' is not a port", "a port is a number from 0 to 65535"),
    "127.0.0.1:http": ("'127.0.0.1:http': 'http' is not a port", "a port is a number from 0 to 65535"),
    "127.0.0.1:": ("'127.0.0.1:': '' is not a port", "a port is a number from 0 to 65535"),
    f"[::1]:{'9' * 5000}": ("is not a port", "65535"),
    "127.0.0.1": ("'127.0.0.1' has no port", 'write "127.0.0.1:PORT"'),
    "[::1]": ("'[::1]' has no port", 'write "[::1]:PORT"'),
    "2001:db8::f00d": ("stands in brackets", 'write "[2001:db8::f00d]:PORT"'),
    "::1:80": ("stands in brackets", 'write "[::1]:80"'),
    "localhost:80": ("'localhost' is not an IP address", "names are not looked up"),
}


@pytest.mark.parametrize("text", ENDPOINTS, ids=lambda text: text[:20])
def test_what_is_wrong_with_an_endpoint_is_said_as_it_is(text: str) -> None:
    with pytest.raises(ValueRefused) as refused:
        parse_endpoint(text)
    message, hint = ENDPOINTS[text]
    assert message in refused.value.message
    assert hint in refused.value.hint
    assert "99999:PORT" not in refused.value.hint


def test_names_of_origins_are_looked_up_and_hints_do_not_deny_it() -> None:
    for text in ("http://app.test:80", "-app.test:80", "app.test:99999"):
        with pytest.raises(ValueRefused) as refused:
            parse_origin_endpoint(text)
        assert "not looked up" not in refused.value.hint
    assert "is not a port" in refused.value.message


@pytest.mark.parametrize(
    ("old", "new", "place", "expected"),
    [
        ('origins = ["127.0.0.1:8000"]', "origins = []", "area[0].origins", "a list of: an address or a table, as "),
        ('origins = ["127.0.0.1:8000"]', "", "area[0].origins", "a list of: an address or a table, as "),
        ('origins = ["127.0.0.1:8000"]', "origins = [3]", "area[0].origins[0]", "an address or a table, as "),
        ("default = true", "maintenance = 3\ndefault = true", "area[0].maintenance", "true, false or a table, as "),
        (
            "allow_unsigned",
            "log = { access = [] }\nallow_unsigned",
            "log.access",
            "a list of: a destination or a table",
        ),
    ],
)
def test_what_may_be_written_shorter_is_expected_shorter(
    tmp_path: Path, old: str, new: str, place: str, expected: str
) -> None:
    gateway, problems = load_gateway(write(tmp_path, MINIMAL_GATEWAY.replace(old, new)))
    assert gateway is None
    (problem,) = [problem for problem in problems if problem.severity == "error"]
    assert problem.path == place
    assert problem.expected.startswith(expected)
