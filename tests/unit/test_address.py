"""Addresses: text forms, masks, client keys; Python's ipaddress is the reference."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scrubber import _native
from tests.reference.prefixes import Address, normal_address, packed

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def reference_parse(text: str) -> bytes | None:
    """ipaddress, without what we refuse: zone ids."""
    if "%" in text:
        return None
    try:
        return packed(normal_address(text))
    except ValueError:
        return None


def reference_format(address: Address) -> str:
    return str(normal_address(str(address)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("::", "::"),
        ("::1", "::1"),
        ("1::", "1::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("0:0:0:0:0:ffff:192.0.2.1", "192.0.2.1"),
        ("::192.0.2.1", "::c000:201"),
        ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
        ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("1:0:0:2:0:0:0:3", "1:0:0:2::3"),
        ("0:1:2:3:4:5:6:7", "0:1:2:3:4:5:6:7"),
        ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
        ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
        ("fe80::0001", "fe80::1"),
    ],
)
def test_text_forms(text: str, expected: str) -> None:
    address = _native.probe_address_parse(text.encode())
    assert address is not None
    assert _native.probe_address_format(address).decode() == expected
    assert address == reference_parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "", ".", ":", ":::", "1", "1.2.3", "1.2.3.4.5", "1.2.3.4 ", " 1.2.3.4", "01.2.3.4", "1.2.3.00", "1.2.3.256",
        "1.2.3.-1", "1.2.3.", ".1.2.3", "1..2.3", "0x1.2.3.4", "1.2.3.4:80", "[::1]", "::1]", "fe80::1%eth0",
        "fe80::1%25eth0", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8:", ":1:2:3:4:5:6:7:8", "1::2::3",
        "12345::", "::g", "1:2:3:4:5:6:7:1.2.3.4", "::1.2.3", "::1.2.3.04", "::1.2.3.4:5", "1:2:3:4:5:6:7:8::",
        "::1:2:3:4:5:6:7:8", "::ffff:1.2.3.4.5", "2001:db8::/32", "1\x00.2.3.4", "\u0661.2.3.4", "a" * 60,
    ],
)  # fmt: skip
def test_no_address(text: str) -> None:
    assert _native.probe_address_parse(text.encode()) is None


@given(ADDRESSES)
@example(ipaddress.IPv6Address("::ffff:0:0"))
def test_round_trip(address: Address) -> None:
    parsed = _native.probe_address_parse(str(address).encode())
    assert parsed == packed(normal_address(str(address)))
    assert _native.probe_address_format(parsed).decode() == reference_format(address)
    if isinstance(address, ipaddress.IPv6Address):
        assert _native.probe_address_parse(address.exploded.upper().encode()) == parsed


@given(st.text(alphabet="0123456789abcdefABCDEF:.%g/[] ", max_size=48))
def test_any_text_as_the_reference_says(text: str) -> None:
    assert _native.probe_address_parse(text.encode()) == reference_parse(text)


@given(ADDRESSES, st.integers(min_value=-1, max_value=130))
def test_mask(address: Address, plen: int) -> None:
    raw = packed(address)
    bits = min(max(plen, 0), 128)
    mask = ((1 << bits) - 1) << (128 - bits)
    assert int.from_bytes(_native.probe_address_mask(raw, plen), "big") == int.from_bytes(raw, "big") & mask


@given(ADDRESSES)
def test_client_is_the_address_or_its_64(address: Address) -> None:
    normal = normal_address(str(address))
    assert _native.probe_address_is_v4(packed(address)) == isinstance(normal, ipaddress.IPv4Address)
    expected = packed(normal) if isinstance(normal, ipaddress.IPv4Address) else normal.packed[:8] + b"\0" * 8
    assert _native.probe_address_client(packed(address)) == expected


def test_all_addresses_of_one_64_are_one_client() -> None:
    net = int(ipaddress.IPv6Address("2001:db8:1:2::"))
    clients = {_native.probe_address_client((net + (i << 48) + i).to_bytes(16, "big")) for i in range(65536)}
    assert clients == {net.to_bytes(16, "big")}
