"""The core's loader of policy images: any unsound one is refused by name, and nothing beyond it is read."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber import _native
from scrubber.errors import PolicyRefused
from scrubber.mandate import layout
from scrubber.mandate.compile import CompiledPolicy
from scrubber.mandate.load import load_all
from scrubber.server.memfd import plain, sealed
from tests.reference import judge as reference
from tests.unit.example_certificates import examples
from tests.unit.files import GOOD, MINIMAL_GATEWAY, NOW
from tests.unit.images import compiled, opened, policy_of, sealed_fds

FULL = compiled(load_all(GOOD / "full-gateway.toml", now=NOW))
FORMS = {
    "listeners": layout.LISTENER,
    "areas": layout.AREA,
    "hosts": layout.HOST,
    "pools": layout.POOL,
    "origins": layout.ORIGIN,
    "rules": layout.RULE,
    "area_rules": layout.AREA_RULE,
    "conditions": layout.CONDITION,
    "rungs": layout.RUNG,
    "routes": layout.ROUTE,
    "pages": layout.PAGE,
    "edits": layout.EDIT,
    "parts": layout.PART,
    "certificates": layout.CERTIFICATE,
}


def changed(section: str, row: int, *, of: bytes = FULL.image, **fields: Any) -> bytes:
    """An image, the full one, with fields (f0, f1, … by place) of one entry changed and its digest made good again."""
    image = bytearray(of)
    head = list(layout.HEADER.unpack_from(image))
    if section == "header":
        for name, value in fields.items():
            head[int(name[1:])] = value
    else:
        at, count = head[6 + 2 * layout.SECTIONS.index(section) :][:2]
        assert row < count
        form = FORMS[section]
        entry = list(form.unpack_from(image, at + row * form.size))
        for name, value in fields.items():
            entry[int(name[1:])] = value
        form.pack_into(image, at + row * form.size, *entry)
    head[5] = hashlib.sha256(image[layout.HEADER.size :]).digest()
    layout.HEADER.pack_into(image, 0, *head)
    return bytes(image)


def test_sizes_and_numbers_are_the_compiler_s() -> None:
    core = _native.probe_policy_layout()
    assert {name: getattr(layout, name).size for name in core["sizes"]} == core["sizes"]
    for name in ("MEASURES", "KEYS", "UNITS", "CONDITIONS", "MATCHES", "METHODS", "BALANCES", "CLIENT_CERTIFICATES"):
        assert getattr(layout, name) == core[name]
    for name, number in (core["RUNGS"] | core["FLAGS"]).items():
        assert getattr(layout, name) == number
    assert core["CAPACITIES"]["LAYOUT_VERSION"] == layout.LAYOUT_VERSION
    assert core["CAPACITIES"]["AREA_WORDS"] == layout.AREA_WORDS


def test_a_compiled_image_is_sound() -> None:
    assert _native.probe_policy_load(FULL.image) is None


def _offset(section: str) -> str:
    """The header's field with a section's offset."""
    return f"f{6 + 2 * layout.SECTIONS.index(section)}"


def _count(section: str) -> str:
    return f"f{7 + 2 * layout.SECTIONS.index(section)}"


def _last(place: int) -> str:
    """A field behind the sections."""
    return f"f{6 + 2 * len(layout.SECTIONS) + place}"


# Section, row, fields by place, what the core calls it.
UNSOUND: list[tuple[str, int, dict[str, Any], str]] = [
    ("header", 0, {"f0": b"SCRUBPFX"}, "magic"),
    ("header", 0, {"f1": layout.LAYOUT_VERSION + 1}, "layout version"),
    ("header", 0, {"f2": 248}, "size"),
    ("header", 0, {"f3": len(FULL.image) + 8}, "size"),
    ("header", 0, {"f6": 8}, "a section lies outside"),
    ("header", 0, {"f8": 257}, "a section lies outside"),
    ("header", 0, {_offset("text"): len(FULL.image)}, "a section lies outside"),
    ("header", 0, {"f7": 0}, "number of listeners"),
    ("header", 0, {"f9": 257}, "number of areas"),
    ("header", 0, {_count("pools"): 2}, "number of pools"),
    ("header", 0, {_count("pools"): 513}, "number of pools"),
    ("header", 0, {_count("origins"): 1025}, "number of origins"),
    ("header", 0, {"f9": 200}, "number of pools"),
    ("header", 0, {_count("hosts"): 20000}, "a section lies outside"),
    ("header", 0, {_count("rules"): 1025}, "number of rules"),
    ("header", 0, {_count("text"): 2**32 - 1}, "text: too large"),
    ("header", 0, {_last(0): 65}, "prefix sets"),
    ("header", 0, {_last(1): 2}, "enforce"),
    ("header", 0, {_last(2): 0}, "connection limits"),
    ("header", 0, {_last(5): 3}, "default area"),
    ("header", 0, {_last(6): 9}, "prefix sets"),
    ("listeners", 0, {"f0": 64}, "listener"),
    ("listeners", 0, {"f1": 9}, "listener"),
    ("listeners", 0, {"f2": 3}, "listener: default area"),
    ("listeners", 0, {"f11": 9}, "listener: PROXY peers"),
    ("listeners", 0, {"f8": 60000}, "listener: rules"),
    ("listeners", 1, {"f8": 0, "f9": 1}, "not about connections"),
    ("areas", 0, {"f0": 256}, "area: index"),
    ("areas", 1, {"f0": 0}, "area: index"),
    ("areas", 0, {"f1": 2**31}, "flags or account"),
    ("areas", 0, {"f13": 6}, "flags or account"),
    ("areas", 0, {"f3": 2**31}, "area: text"),
    ("areas", 0, {"f4": 2**31}, "area: rules"),
    ("areas", 0, {"f5": 65}, "area: rules"),
    ("areas", 2, {"f6": 0, "f7": 1}, "not about connections"),
    ("areas", 0, {"f8": 4}, "area: pool"),
    ("areas", 0, {"f8": 1}, "area: pool"),
    ("areas", 1, {"f8": 0}, "area: pool"),
    ("areas", 0, {"f9": 1}, "area: pool"),
    ("pools", 0, {"f0": 512}, "pool: index"),
    ("pools", 0, {"f0": 1}, "pool: index"),
    ("pools", 0, {"f1": 4}, "pool: balance"),
    ("pools", 0, {"f1": 2}, "pool: balance"),
    ("pools", 1, {"f1": 3}, "pool: balance"),
    ("pools", 1, {"f7": 1}, "pool: balance"),
    ("pools", 0, {"f3": 2**31}, "pool: text"),
    ("pools", 0, {"f5": 5}, "pool: origins"),
    ("pools", 0, {"f5": 1}, "pool: origins"),
    ("pools", 0, {"f4": 1}, "pool: origins"),
    ("pools", 0, {"f8": 5 * 10**17}, "pool: times"),
    ("pools", 0, {"f9": 2, "f10": 1}, "pool: times"),
    ("pools", 0, {"f12": 1000001}, "pool: retries or reserved bytes"),
    ("routes", 0, {"f0": 3}, "route"),
    ("routes", 0, {"f1": 256}, "route"),
    ("routes", 0, {"f3": 0}, "route: path"),
    ("routes", 0, {"f2": 2**31}, "route: path"),
    ("routes", 0, {"f5": 300}, "route: text"),
    ("routes", 0, {"f6": 1}, "route: pattern"),
    ("routes", 1, {"f6": 1}, "route: pattern"),
    ("routes", 0, {"f7": 1}, "route: pattern"),
    ("routes", 1, {"f7": 0}, "route: groups"),
    ("routes", 1, {"f7": 10}, "route"),
    ("routes", 0, {"f8": 0}, "route: pool"),
    ("routes", 0, {"f8": 999}, "route: pool"),
    ("routes", 0, {"f9": 99}, "route: page"),
    ("routes", 0, {"f10": 99}, "route: maintenance"),
    ("routes", 4, {"f10": 1}, "route: maintenance"),
    ("routes", 0, {"f11": 2}, "route"),
    ("routes", 4, {"f14": 2**31}, "route: rewrite"),
    ("routes", 5, {"f7": 1}, "route: rewrite"),
    ("routes", 0, {"f17": 97}, "route: edits"),
    ("routes", 0, {"f16": 2**31}, "route: edits"),
    ("routes", 0, {"f21": 0}, "route: times or reserved bytes"),
    ("pages", 0, {"f0": 199}, "page"),
    ("pages", 0, {"f1": 2}, "page"),
    ("pages", 0, {"f3": 257}, "page: text"),
    ("pages", 0, {"f9": 1}, "page: validators"),
    ("pages", 0, {"f5": 257}, "page: body"),
    ("pages", 0, {"f14": 99}, "page: prefix set"),
    ("edits", 0, {"f0": 2}, "edit"),
    ("edits", 0, {"f2": 0}, "edit: name"),
    ("edits", 0, {"f2": 129}, "edit: name"),
    ("edits", 0, {"f4": 1}, "edit"),
    ("edits", 0, {"f0": 1}, "route: edits"),
    ("parts", 0, {"f0": 12}, "part"),
    ("parts", 0, {"f1": 1}, "part: group"),
    ("parts", 0, {"f3": 2**31}, "part"),
    ("areas", 2, {"f53": 2**31}, "area: routes"),
    ("areas", 2, {"f55": 2**31}, "area: edits"),
    ("areas", 2, {"f60": 99}, "area: error pages"),
    ("areas", 2, {"f61": 1}, "area: maintenance"),
    ("areas", 0, {"f11": 16385}, "limits of a head"),
    ("areas", 0, {"f12": 129}, "limits of a head"),
    ("areas", 0, {"f17": 2**63}, "area: limits"),
    ("areas", 0, {"f25": 0}, "area: limits"),
    ("areas", 0, {"f29": 10**6 + 1}, "area: limits"),
    ("areas", 0, {"f33": 2**31}, "area: tunnel"),
    ("areas", 0, {"f33": 3}, "area: tunnel"),  # no comma at the end
    ("areas", 0, {"f35": 0}, "area: tunnel"),
    ("areas", 0, {"f37": 2**63}, "area: tunnel"),
    ("areas", 0, {"f38": 0}, "area: tunnel"),
    ("areas", 0, {"f41": 129}, "area: via or server"),
    ("areas", 0, {"f42": 2**31}, "area: via or server"),
    ("areas", 0, {"f44": 0}, "area: limits"),
    ("areas", 0, {"f45": 1}, "area: via or server"),
    ("hosts", 0, {"f2": 3}, "host: area"),
    ("hosts", 0, {"f1": 0}, "host: text"),
    ("hosts", 0, {"f1": 200}, "host: "),
    ("origins", 0, {"f0": 1024}, "origin"),
    ("origins", 0, {"f1": 10}, "origin"),
    ("origins", 0, {"f2": 28}, "origin: address"),
    ("origins", 0, {"f5": 2**31}, "origin"),
    ("origins", 0, {"f0": 1}, "origin: index"),
    ("origins", 0, {"f7": 0}, "origin: key, weight or flags"),
    ("origins", 0, {"f8": 0}, "origin: key, weight or flags"),
    ("origins", 0, {"f8": 257}, "origin: key, weight or flags"),
    ("origins", 0, {"f9": 6}, "origin: key, weight or flags"),
    ("origins", 0, {"f9": 64}, "origin: key, weight or flags"),
    ("origins", 0, {"f9": 40}, "origin: key, weight or flags"),  # HTTP/2 in clear text, through TLS
    ("origins", 0, {"f9": 16}, "origin: key, weight or flags"),  # unverified TLS without TLS
    ("origins", 0, {"f10": 2**31}, "origin: TLS"),
    ("origins", 0, {"f13": 256}, "origin: TLS"),
    ("origins", 0, {"f14": 9}, "origin: TLS"),
    ("origins", 0, {"f14": 1}, "origin: TLS"),  # a certificate without TLS
    ("listeners", 0, {"f12": 2**63}, "listener: TLS"),
    ("listeners", 0, {"f13": 16}, "listener: TLS"),
    ("listeners", 0, {"f13": 2}, "listener: TLS"),
    ("areas", 0, {"f62": 99}, "area: TLS"),
    ("areas", 0, {"f62": 1}, "area: TLS"),  # a page that leads nowhere
    ("areas", 0, {"f64": 9}, "area: TLS"),
    ("areas", 0, {"f66": 2**31}, "area: TLS"),
    ("areas", 0, {"f67": 0, "f68": 1}, "area: TLS"),  # a rule that is not asked with a ClientHello
    ("areas", 0, {"f69": 3}, "area: TLS"),
    ("areas", 0, {"f69": 1}, "area: TLS"),  # nobody may vouch for clients
    ("header", 0, {_last(9): 0}, "header: handshakes"),
    ("header", 0, {_last(10): 2**63}, "header: handshakes"),
    ("header", 0, {_last(12): 0}, "header: HTTP/2"),
    ("header", 0, {_last(12): 1001}, "header: HTTP/2"),
    ("rules", 0, {"f0": 0}, "rule"),
    ("rules", 0, {"f1": 2**32 - 1, "f2": 2}, "rule: text or conditions"),
    ("rules", 0, {"f3": 2**31}, "rule: text or conditions"),
    ("rules", 0, {"f5": 2**31}, "rule: rungs"),
    ("rules", 0, {"f6": 0}, "rule: rungs"),
    ("rules", 0, {"f6": 9}, "rule: rungs"),
    ("rules", 0, {"f7": 11}, "rule"),
    ("rules", 0, {"f8": 0}, "rule: key"),  # an account alone
    ("rules", 1, {"f7": 0}, "rule: key"),
    ("rules", 0, {"f9": 8}, "rule"),
    ("rules", 6, {"f10": 0}, "rule: area-wide"),
    ("rules", 0, {"f10": 1}, "rule: area-wide"),
    ("rules", 0, {"f11": 0}, "rule: rate"),
    ("rules", 0, {"f13": 0}, "rule: rate"),
    ("rules", 0, {"f14": 2**63}, "rule: times"),
    ("rules", 0, {"f20": 10**6 + 1}, "rule: shares"),
    ("rules", 2, {"f7": 7, "f10": 1}, "cannot aim"),  # tarpit, drop, block of an area
    ("rules", 2, {"f7": 4, "f8": 3}, "a block that its key cannot aim"),
    ("area_rules", 0, {"f0": 60000}, "rule index"),
    ("conditions", 0, {"f0": 0}, "condition"),
    ("conditions", 0, {"f0": max(layout.CONDITIONS.values()) + 1}, "condition"),
    ("conditions", 0, {"f1": 6}, "condition"),
    ("conditions", 0, {"f3": 2}, "condition"),
    ("conditions", 0, {"f7": 2**31}, "condition: text"),
    ("conditions", 1, {"f3": 1}, "its conditions do not end"),
    ("rungs", 0, {"f0": 8}, "rung"),
    ("rungs", 0, {"f1": 4}, "rung"),
    ("rungs", 1, {"f1": 1}, "a measure that this core does not have"),
    ("rungs", 2, {"f1": 3}, "too severe for an expired mandate"),
    ("rungs", 2, {"f3": 0}, "rung: times"),
    ("rungs", 0, {"f2": 2**63}, "rung: times"),
]


@pytest.mark.parametrize(("section", "row", "fields", "reason"), UNSOUND)
def test_what_is_out_of_bounds_is_refused_by_name(section: str, row: int, fields: dict[str, Any], reason: str) -> None:
    assert reason in str(_native.probe_policy_load(changed(section, row, **fields)))


@pytest.mark.parametrize(("section", "row", "fields"), [
    ("certificates", 0, {"f1": 0}),
    ("certificates", 0, {"f3": 0}),
    ("certificates", 0, {"f4": 2**31}),
    ("certificates", 2, {"f5": 2**20 + 1}),
    ("origins", 0, {"f9": 0}),  # a certificate for an origin in clear text
    ("origins", 0, {"f14": 5}),
    ("areas", 0, {"f64": 5}),
    ("areas", 1, {"f66": 0}),
])  # fmt: skip
def test_certificates_out_of_bounds_are_refused(section: str, row: int, fields: dict[str, Any]) -> None:
    image = compiled(load_all(examples() / "certificates.toml")).image
    assert _native.probe_policy_load(image) is None
    assert _native.probe_policy_load(changed(section, row, of=image, **fields)) is not None


def test_an_image_cut_anywhere_is_refused() -> None:
    for length in (*range(0, 600), *range(600, len(FULL.image), 97)):
        assert _native.probe_policy_load(FULL.image[:length]) == "size"


@given(st.lists(st.tuples(st.integers(8, len(FULL.image) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_bytes_are_refused_or_safe_to_walk(changes: list[tuple[int, int]]) -> None:
    image = bytearray(FULL.image)
    for place, value in changes:
        image[place] = value
    digest = hashlib.sha256(image[layout.HEADER.size :]).digest()
    image[32:64] = digest
    if _native.probe_policy_load(bytes(image)) is None:
        try:
            policy = opened(CompiledPolicy(bytes(image), FULL.prefix_images, FULL.rules))
        except PolicyRefused:
            return
        for host in (b"example.org", b"a.b.api.example.org", b"", b"x" * 300, b"..."):
            assert -1 <= _native.probe_policy_area(policy, 0, host) < 256


@given(st.binary(max_size=2000))
def test_random_bytes_are_no_image(data: bytes) -> None:
    assert _native.probe_policy_load(data) is not None
    assert _native.probe_policy_load(FULL.image[: layout.HEADER.size] + data) is not None


def test_only_sealed_memory_is_mapped() -> None:
    with sealed_fds(FULL) as (image, *prefixes):
        assert _native.Policy(image, prefixes).generation == 1
        loose = plain("loose", len(FULL.image))
        os.pwrite(loose, FULL.image, 0)
        with pytest.raises(PolicyRefused, match="not sealed"):
            _native.Policy(loose, prefixes)
        with pytest.raises(PolicyRefused, match="prefix set 0: not sealed"):
            _native.Policy(image, [loose, *prefixes[1:]])
        os.close(loose)
    reader, writer = os.pipe()
    with pytest.raises(PolicyRefused, match="not a memfd"):
        _native.Policy(reader, [])
    os.close(reader)
    os.close(writer)


def test_digests_are_compared() -> None:
    image = bytearray(FULL.image)
    image[-20] ^= 1  # in the source, which the core does not walk
    with pytest.raises(PolicyRefused, match="policy: digest"):
        opened(CompiledPolicy(bytes(image), FULL.prefix_images, FULL.rules))
    prefixes = bytearray(FULL.prefix_images[0])
    prefixes[-8] ^= 1
    with pytest.raises(PolicyRefused, match="prefix set 0"):
        opened(CompiledPolicy(FULL.image, [bytes(prefixes), *FULL.prefix_images[1:]], FULL.rules))


def test_prefix_images_belong_to_their_policy() -> None:
    for images in (FULL.prefix_images[:-1], [*FULL.prefix_images, FULL.prefix_images[0]]):
        with pytest.raises(PolicyRefused, match="prefix images came with it"):
            opened(CompiledPolicy(FULL.image, images, FULL.rules))
    with pytest.raises(PolicyRefused, match="prefix set 0"):
        opened(CompiledPolicy(FULL.image, FULL.prefix_images[::-1], FULL.rules))


def test_many_policies_come_and_go() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with sealed_fds(FULL) as (image, *prefixes):
        for _ in range(200):
            with pytest.raises(PolicyRefused):
                _native.Policy(image, prefixes[:-1])
            _native.Policy(image, prefixes)
    assert len(os.listdir("/proc/self/fd")) == before
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        assert sum("memfd:image" in line for line in maps) < 20, "mappings go with their policy"


HOSTS = """
[[area]]
name = "a"
default = true
hosts = ["example.org", "*.example.org", "192.0.2.1", "[2001:db8::1]"]
origins = ["127.0.0.1:1"]
[[area]]
name = "b"
hosts = ["*.api.example.org", "www.example.org", "xn--bcher-kva.example"]
origins = ["127.0.0.1:1"]
[[area]]
name = "c"
hosts = ["c.test", "*.sub.api.example.org"]
origins = ["127.0.0.1:1"]
[[listener]]
address = "127.0.0.1:0"
[[listener]]
address = "127.0.0.2:0"
areas = ["b", "c"]
[[listener]]
address = "127.0.0.3:0"
areas = ["a", "c"]
default = "c"
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> _native.Policy:
    return policy_of(tmp_path_factory.mktemp("hosts"), HOSTS)


@pytest.mark.parametrize(
    ("host", "areas"),
    [
        ("example.org", (0, -1, 0)),
        ("EXAMPLE.org.", (0, -1, 0)),
        ("x.example.org", (0, -1, 0)),
        ("x.y.example.org", (0, -1, 0)),
        ("www.example.org", (1, 1, 0)),  # unreachable there: the wildcard of an area that is
        ("api.example.org", (0, -1, 0)),
        ("v1.api.example.org", (1, 1, 0)),
        ("v1.sub.api.example.org", (2, 2, 2)),
        ("sub.api.example.org", (1, 1, 0)),
        ("192.0.2.1", (0, -1, 0)),
        ("[2001:db8::1]", (0, -1, 0)),
        ("c.test", (2, 2, 2)),
        ("other.test", (0, -1, 2)),
        ("", (0, -1, 2)),
        (".", (0, -1, 2)),
        (".example.org", (0, -1, 2)),
        ("..example.org", (0, -1, 2)),
        ("notexample.org", (0, -1, 2)),
        ("x" * 300, (0, -1, 2)),
        ("x" * 240 + ".example.org", (0, -1, 0)),
    ],
)
def test_areas_by_host(hosts: _native.Policy, host: str, areas: tuple[int, int, int]) -> None:
    assert tuple(_native.probe_policy_area(hosts, i, host.encode()) for i in range(3)) == areas


LABELS = st.sampled_from(["example", "org", "api", "sub", "www", "c", "test", "", "EXAMPLE", "xn--bcher-kva"])


@given(st.lists(LABELS, max_size=6).map(".".join), st.integers(0, 2))
def test_areas_by_host_as_the_reference_has_them(hosts: _native.Policy, host: str, listener: int) -> None:
    gateway = reference.gateway_of(HOSTS)
    assert _native.probe_policy_area(hosts, listener, host.encode()) == reference.area_of(gateway, listener, host)


def prefix_texts() -> st.SearchStrategy[str]:
    v4 = st.builds(
        lambda n, p: str(ipaddress.ip_network((n, p), strict=False)),
        st.sampled_from([0x0A000000, 0x0A000080, 0x0A0000FF, 0xFFFFFFFF, 0x0B000000]),
        st.integers(20, 32),
    )
    v6 = st.builds(
        lambda n, p: str(ipaddress.ip_network((n, p), strict=False)),
        st.sampled_from([0x20010DB8 << 96, (0x20010DB8 << 96) + 1, (0x20010DB8 << 96) + (5 << 64), 2**128 - 1]),
        st.integers(40, 128),
    )
    return v4 | v6


@given(st.lists(prefix_texts(), min_size=1, max_size=5), prefix_texts())
def test_what_touches_a_never_block_prefix(
    tmp_path_factory: pytest.TempPathFactory, never: list[str], asked: str
) -> None:
    folder = tmp_path_factory.mktemp("never")
    gateway = MINIMAL_GATEWAY.replace("mandates", "#").replace(
        'address = "127.0.0.1:0"', f'address = "127.0.0.1:0"\ntrusted_proxies = {never}'
    )
    policy = policy_of(folder, gateway)
    network = ipaddress.ip_network(asked)
    packed = network.network_address.packed
    plen = network.prefixlen
    if network.version == 4:
        packed, plen = bytes(10) + b"\xff\xff" + packed, plen + 96
    known = [ipaddress.ip_network(n) for n in [*never, "127.0.0.1/32", "::1/128"]]
    expected = any(n.version == network.version and n.overlaps(network) for n in known)  # type: ignore[arg-type]
    assert _native.probe_policy_never_touches(policy, packed, plen) == expected


def test_a_sealed_file_of_nothing_is_no_policy() -> None:
    fd = sealed("empty", b"")
    with pytest.raises(PolicyRefused, match="size"):
        _native.Policy(fd, [])
    os.close(fd)
    fd = sealed("short", struct.pack("<8s", layout.MAGIC))
    with pytest.raises(PolicyRefused, match="size"):
        _native.Policy(fd, [])
    os.close(fd)
