"""Prefix images: compiled in Python, checked and searched in the core, compared with the slow reference."""

from __future__ import annotations

import hashlib
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber import _native
from scrubber.config.network import network as parse_prefix
from scrubber.mandate.layout import LAYOUT_VERSION
from scrubber.mandate.prefixes import HEADER, compile_prefixes
from tests.reference import prefixes as reference
from tests.reference.prefixes import Address, Network, normal_address, packed


def value_of(table: _native.ProbePrefixes, text: str) -> int:
    return int(table.find(packed(normal_address(text))))


@st.composite
def crowded_networks(draw: st.DrawFn) -> Network:
    """Prefixes that nest and touch: few distinct bits."""
    if draw(st.booleans()):
        first = draw(st.sampled_from([0, 0x0A000000, 0x0A800000, 0xFFFFFFFF, 0x0A0000FF]))
        return ipaddress.IPv4Network((first, draw(st.integers(0, 32))), strict=False)
    net = 0x20010DB8 << 96
    first = draw(st.sampled_from([0, 1 << 64, (1 << 128) - 1, net, 0xFFFF << 32 | 5, net + (1 << 63)]))
    return ipaddress.IPv6Network((first, draw(st.integers(0, 128))), strict=False)


def edges(networks: list[Network]) -> list[Address]:
    """Addresses just inside and just outside each prefix."""
    found: list[Address] = [ipaddress.IPv4Address(0), ipaddress.IPv6Address(0)]
    for network in networks:
        make = type(network.network_address)
        last = int(network.broadcast_address)
        for number in (int(network.network_address) - 1, int(network.network_address), last, last + 1):
            if 0 <= number < 1 << network.max_prefixlen:
                found.append(make(number))
    return [normal_address(str(address)) for address in found]


def normal_prefixes(prefixes: dict[Network, int]) -> dict[Network, int]:
    return {parse_prefix(str(network)): value for network, value in prefixes.items()}


@given(st.dictionaries(crowded_networks(), st.integers(1, 2**32 - 1), max_size=12))
def test_as_the_reference(prefixes: dict[Network, int]) -> None:
    normal = normal_prefixes(prefixes)
    table = _native.ProbePrefixes(compile_prefixes(normal, 1))
    for address in edges(list(prefixes)):
        assert table.find(packed(address)) == reference.find(normal, address)


@given(
    st.dictionaries(crowded_networks(), st.integers(1, 9), max_size=8),
    st.lists(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), max_size=8),
)
def test_any_address_as_the_reference(prefixes: dict[Network, int], addresses: list[Address]) -> None:
    normal = normal_prefixes(prefixes)
    table = _native.ProbePrefixes(compile_prefixes(normal, 1))
    for address in addresses:
        assert table.find(packed(address)) == reference.find(normal, normal_address(str(address)))


def test_longest_wins_at_any_depth() -> None:
    prefixes = {"0.0.0.0/0": 1, "10.0.0.0/8": 2, "10.1.0.0/16": 3, "10.1.1.1": 4, "2001:db8::/32": 5, "2001:db8::1": 6}
    table = _native.ProbePrefixes(compile_prefixes(prefixes, 7))
    expected = {
        "9.255.255.255": 1, "10.0.0.0": 2, "10.1.0.0": 3, "10.1.1.0": 3, "10.1.1.1": 4, "10.1.1.2": 3, "10.2.0.0": 2,
        "11.0.0.0": 1, "255.255.255.255": 1, "2001:db7:ffff::": 0, "2001:db8::": 5, "2001:db8::1": 6, "2001:db8::2": 5,
        "2001:db9::": 0,
    }  # fmt: skip
    assert {address: value_of(table, address) for address in expected} == expected


def test_ipv6_prefixes_never_reach_ipv4() -> None:
    table = _native.ProbePrefixes(compile_prefixes({"::/0": 1}, 1))
    assert value_of(table, "192.0.2.1") == 0
    assert value_of(table, "::fffe:0:0") == 1


def test_mapped_prefixes_are_ipv4() -> None:
    table = _native.ProbePrefixes(compile_prefixes({"::ffff:192.0.2.0/120": 9}, 1))
    assert value_of(table, "192.0.2.77") == 9
    assert value_of(table, "192.0.3.0") == 0


def test_empty_set() -> None:
    table = _native.ProbePrefixes(compile_prefixes({}, 1))
    assert value_of(table, "192.0.2.1") == 0
    assert value_of(table, "::1") == 0


BAD = ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0/8", "fe80::1%eth0", "2001:db8::1/32", "::/129", "10.0.0.0/-1"]


@pytest.mark.parametrize("text", BAD)
def test_bad_prefix_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a prefix"):
        compile_prefixes({text: 1}, 1)


@pytest.mark.parametrize("value", [0, -1, 2**32])
def test_bad_value(value: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        compile_prefixes({"10.0.0.0/8": value}, 1)


def test_two_values_for_one_prefix() -> None:
    with pytest.raises(ValueError, match="two values"):
        compile_prefixes({"192.0.2.0/24": 1, "::ffff:192.0.2.0/120": 2}, 1)


def test_header_and_digest() -> None:
    image = compile_prefixes({"192.0.2.0/24": 1, "2001:db8::/32": 2}, 77)
    magic, version, prefix_id, total, v4, v6, digest = HEADER.unpack_from(image)
    assert (magic, version, prefix_id, total, v4, v6) == (b"SCRUBPFX", LAYOUT_VERSION, 77, len(image), 3, 3)
    assert digest == hashlib.sha256(image[128:]).digest()
    assert HEADER.size == 128


SOUND = compile_prefixes({"10.0.0.0/8": 1, "10.1.0.0/16": 2, "2001:db8::/32": 3, "2001:db8:1::/48": 4}, 1)
V4_AT, V6_AT = 128, 128 + 8 * HEADER.unpack_from(SOUND)[4]


def altered(offset: int, fmt: str, value: int | bytes) -> bytes:
    image = bytearray(SOUND)
    struct.pack_into(fmt, image, offset, value)
    return bytes(image)


@pytest.mark.parametrize(
    "image",
    [
        b"",
        SOUND[:127],
        SOUND[:-1],
        SOUND + b"\0",
        altered(0, "<8s", b"SCRUBPFY"),
        altered(8, "<I", LAYOUT_VERSION + 1),
        altered(16, "<Q", len(SOUND) + 8),
        altered(24, "<I", 2**32 - 1),
        altered(24, "<I", 4),
        altered(28, "<I", 2**32 - 1),
        altered(28, "<I", 0),
        altered(64, "<B", 1),
        altered(127, "<B", 1),
        altered(V4_AT, "<I", 1),
        altered(V4_AT + 8, "<I", 0),
        altered(V4_AT + 16, "<I", 0x0A000000),
        altered(V4_AT + 16, "<I", 5),
        altered(V6_AT, "<Q", 1),
        altered(V6_AT + 8, "<Q", 1),
        altered(V6_AT + 16, "<Q", 2**32),
        altered(V6_AT + 24, "<Q", 0),
        altered(V6_AT + 48, "<Q", 0x20010DB8 << 32),
    ],
)
def test_unsound_images_are_refused(image: bytes) -> None:
    with pytest.raises(ValueError, match="refused"):
        _native.ProbePrefixes(image)
    assert _native.ProbePrefixes(SOUND).find(packed(ipaddress.ip_address("10.1.2.3"))) == 2


@given(st.data())
def test_any_altered_image_is_refused_or_searchable(data: st.DataObject) -> None:
    """The loader and the search never read outside, whatever the bytes (a sanitizer build sees it)."""
    image = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        table = _native.ProbePrefixes(bytes(image))
    except ValueError:
        return
    for text in ("0.0.0.1", "10.1.2.3", "255.255.255.255", "::", "2001:db8::1", "ffff::"):
        assert 0 <= value_of(table, text) < 2**32
