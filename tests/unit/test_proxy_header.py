"""PROXY protocol v1 and v2: golden cases, the slow reference beside the core, and what is written read again."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubber import _native
from tests.reference import proxy_header as reference
from tests.reference.hostile import mutated
from tests.reference.prefixes import normal_address, packed
from tests.reference.proxy_header import SIGNATURE, binary, tlv

V6 = ipaddress.IPv6Address("2001:db8::1").packed + ipaddress.IPv6Address("2001:db8::2").packed + b"\x00\x01\xff\xff"
MAPPED = bytes(10) + b"\xff\xff\xc0\x00\x02\x01" + bytes(10) + b"\xff\xff\xc6\x33\x64\x01" + b"\x12\x34\x00\x50"
SSL = (
    b"\x07\0\0\0\x09"
    + tlv(0x21, b"TLSv1.3")
    + tlv(0x23, b"TLS_AES_128_GCM_SHA256")
    + tlv(0x22, b"cn.example")
    + tlv(0x24, b"SHA256")
    + tlv(0x25, b"RSA2048")
    + tlv(0x26, b"X25519")
)
ALL_TLVS = [
    (0x01, b"h2"),
    (0x02, b"www.example.org"),
    (0x04, bytes(7)),
    (0x05, b"unique"),
    (0x20, SSL),
    (0x30, b"netns"),
    (0xEA, b"\x01vpce-08d2bf15fac5001c9"),
    (0xE3, b"custom"),
]


def parse(data: bytes) -> Any:
    found = _native.probe_proxy_header(data)
    assert found == reference.parse(data), data
    return found


def address(text: str) -> bytes:
    return packed(normal_address(text))


@pytest.mark.parametrize(
    ("line", "source", "destination"),
    [
        (b"TCP4 192.0.2.1 198.51.100.1 4660 80", ("192.0.2.1", 4660), ("198.51.100.1", 80)),
        (b"TCP4 0.0.0.0 255.255.255.255 0 65535", ("0.0.0.0", 0), ("255.255.255.255", 65535)),
        (b"TCP6 2001:db8::1 2001:DB8::2 1 2", ("2001:db8::1", 1), ("2001:db8::2", 2)),
        (b"TCP6 ::ffff:192.0.2.1 ::ffff:c633:6401 1 2", ("192.0.2.1", 1), ("198.51.100.1", 2)),
        (b"TCP6 " + b":".join([b"ffff"] * 8) + b" " + b":".join([b"ffff"] * 8) + b" 65535 65535",
         ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535), ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)),
    ],
)  # fmt: skip
def test_lines(line: bytes, source: tuple[str, int], destination: tuple[str, int]) -> None:
    whole = b"PROXY " + line + b"\r\n"
    assert parse(whole + b"GET / HTTP/1.1\r\n") == {
        "version": 1,
        "length": len(whole),
        "source": (address(source[0]), source[1]),
        "destination": (address(destination[0]), destination[1]),
    }
    assert all(parse(whole[:n]) == "more" for n in range(len(whole)))


@pytest.mark.parametrize("tail", [b"", b" ", b" TCP4 1.2.3.4 5.6.7.8 1 2", b" " + b"x" * 91])
def test_unknown_lines_name_nobody(tail: bytes) -> None:
    line = b"PROXY UNKNOWN" + tail + b"\r\n"
    assert len(line) <= 107
    assert parse(line) == {"version": 1, "length": len(line)}


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRoXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4\t1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r 2\r\n",
        b"PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 00 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 655360\r\n",
        b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
        b"PROXY TCP4 ::ffff:1.2.3.4 ::1 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP6 [::1] ::1 1 2\r\n",
        b"PROXY TCP6 :::1 ::1 1 2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY UNKNOW\r\n",
        b"PROXY UNKNOWN \x00\r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",  # 108 bytes
        b"PROXY " + b"x" * 200,
        b"\nPROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    ],
)
def test_lines_that_are_refused(line: bytes) -> None:
    assert parse(line) == "bad"


def test_the_binary_form() -> None:
    header = binary()
    assert parse(header + b"GET ") == {
        "version": 2,
        "length": 28,
        "source": (address("192.0.2.1"), 0x1234),
        "destination": (address("198.51.100.1"), 80),
    }
    assert all(parse(header[:n]) == "more" for n in range(len(header)))


def test_ipv6_and_mapped_addresses() -> None:
    assert parse(binary(family=0x21, addresses=V6))["source"] == (address("2001:db8::1"), 1)
    assert parse(binary(family=0x21, addresses=MAPPED))["source"] == (address("192.0.2.1"), 0x1234)
    assert _native.probe_address_is_v4(parse(binary(family=0x21, addresses=MAPPED))["source"][0])


@pytest.mark.parametrize(
    "header",
    [
        binary(command=0x20),
        binary(command=0x20, family=0x00, addresses=b""),
        binary(command=0x20, family=0xFF, addresses=b"anything that is not a TLV"),
        binary(family=0x00, addresses=b""),
        binary(family=0x00, addresses=b"ignored"),
        binary(family=0x12),
        binary(family=0x22, addresses=V6),
        binary(family=0x31, addresses=bytes(216)),
        binary(family=0x32, addresses=bytes(216), tlvs=[(0x05, b"x")]),
    ],
)
def test_headers_that_name_no_client(header: bytes) -> None:
    found = parse(header)
    assert found["length"] == len(header)
    assert "source" not in found


def test_every_tlv_is_found() -> None:
    found = parse(binary(tlvs=ALL_TLVS, summed=True))
    kept = {k: v for k, v in found.items() if k not in ("source", "destination", "length", "version")}
    assert kept == {
        "alpn": b"h2",
        "authority": b"www.example.org",
        "unique_id": b"unique",
        "tls_version": b"TLSv1.3",
        "tls_cipher": b"TLS_AES_128_GCM_SHA256",
        "tls_name": b"cn.example",
        "tls_signature": b"SHA256",
        "tls_key": b"RSA2048",
        "tls": (7, 9),
        "netns": b"netns",
        "vpc_endpoint": b"vpce-08d2bf15fac5001c9",
        "others": [(True, 0x26, b"X25519"), (False, 0xE3, b"custom")],
        "others_left_out": 0,
    }


def test_tlvs_without_a_name_are_kept_up_to_a_number() -> None:
    many = [(0xE0 + n % 8, bytes([n]) * n) for n in range(11)]
    found = parse(binary(tlvs=[*many, (0xEA, b""), (0xEA, b"\x01"), (0xEA, b"\x02x")]))
    assert found["others"] == [(False, kind, value) for kind, value in many[:8]]
    assert found["others_left_out"] == 6
    assert parse(binary(tlvs=[(0xEA, b"\x01"), (0xEA, b"\x02x")]))["others"] == [
        (False, 0xEA, b"\x01"),
        (False, 0xEA, b"\x02x"),
    ]


def test_what_the_first_ssl_tlv_says_of_the_connection_counts() -> None:
    assert parse(binary(tlvs=[(0x20, b"\x01\0\0\0\0"), (0x20, b"\x07\xff\0\0\x01")]))["tls"] == (1, 0)


def test_the_first_of_a_type_counts() -> None:
    assert parse(binary(tlvs=[(0x02, b""), (0x02, b"one"), (0x02, b"two")]))["authority"] == b"one"


def flipped(header: bytes, at: int) -> bytes:
    return header[:at] + bytes([header[at] ^ 1]) + header[at + 1 :]


def test_a_sum_that_is_wrong_is_refused_wherever_the_bit_is() -> None:
    header = binary(tlvs=[(0x04, b"padding")], summed=True)
    assert parse(header) != "bad"
    for at in (*range(16, 28), 31, len(header) - 1):
        assert parse(flipped(header, at)) == "bad"


@pytest.mark.parametrize(
    "header",
    [
        SIGNATURE[:11] + b"\r" + binary()[12:],
        SIGNATURE + b"\x11" + binary()[13:],
        SIGNATURE + b"\x22" + binary()[13:],
        SIGNATURE + b"\x31" + binary()[13:],
        binary(family=0x01),
        binary(family=0x10),
        binary(family=0x13),
        binary(family=0x41),
        binary(addresses=bytes(11)),
        binary(family=0x21, addresses=bytes(35)),
        binary(family=0x31, addresses=bytes(215)),
        binary(addresses=bytes(13)),
        binary(addresses=bytes(12) + b"\x02\x00\x05only"),
        binary(tlvs=[(0x03, bytes(3))]),
        binary(tlvs=[(0x03, bytes(4))]),
        binary(tlvs=[(0x05, bytes(129))]),
        binary(tlvs=[(0x20, bytes(4))]),
        binary(tlvs=[(0x20, bytes(5) + b"\x21\x00\x09short")]),
        binary(addresses=bytes(12) + bytes(8192 - 28 + 1)),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_binary_headers_that_are_refused(header: bytes) -> None:
    assert parse(header) == "bad"


def test_the_longest_header_that_is_taken() -> None:
    header = binary(tlvs=[(0x04, bytes(8192 - 28 - 3))])
    assert len(header) == 8192
    assert parse(header)["length"] == 8192


SEEDS = [
    b"PROXY TCP4 192.0.2.1 198.51.100.1 4660 80\r\nGET / HTTP/1.1\r\n\r\n",
    b"PROXY TCP6 2001:db8::1 ::ffff:198.51.100.1 4660 80\r\n",
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    binary() + b"GET / HTTP/1.1\r\n\r\n",
    binary(summed=True),
    binary(tlvs=ALL_TLVS, summed=True),
    binary(tlvs=ALL_TLVS),
    binary(family=0x21, addresses=V6, tlvs=[(0x20, SSL), (0x02, b"a")]),
    binary(command=0x20),
    binary(family=0x31, addresses=bytes(216), tlvs=[(0x05, b"x")]),
]


@given(mutated(SEEDS))
def test_altered_headers_as_the_reference(data: bytes) -> None:
    parse(data)


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_any_bytes_as_the_reference(data: bytes, begun: bytes) -> None:
    parse(begun + data)


TYPES = st.sampled_from([1, 2, 4, 5, 0x20, 0x21, 0x30, 0xEA, 0xFF])


@given(
    st.sampled_from([0x11, 0x12, 0x21, 0x22]),
    st.binary(min_size=36, max_size=36),
    st.lists(st.tuples(TYPES, st.binary(max_size=40)), max_size=12),
    st.booleans(),
)
def test_sound_headers_as_the_reference(
    family: int, addresses: bytes, tlvs: list[tuple[int, bytes]], summed: bool
) -> None:
    parse(binary(family=family, addresses=addresses[: 12 if family < 0x20 else 36], tlvs=tlvs, summed=summed))


@given(mutated(SEEDS))
def test_a_header_in_pieces_is_read_as_one_that_came_whole(data: bytes) -> None:
    whole = _native.probe_proxy_header(data)
    shorter = [_native.probe_proxy_header(data[:n]) for n in range(len(data))]
    if whole == "more":
        assert set(shorter) <= {"more"}
    elif whole == "bad":  # from some byte on
        assert sorted(map(str, shorter), key=["more", "bad"].index) == shorter
    else:
        assert shorter[: whole["length"]] == ["more"] * whole["length"]


PORTS = st.integers(0, 65535)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(lambda a: address(str(a)))


@given(st.sampled_from([1, 2]), ADDRESSES, PORTS, ADDRESSES, PORTS)
def test_what_is_written_is_read_again(version: int, source: bytes, port: int, destination: bytes, to: int) -> None:
    header = _native.probe_proxy_write(version, (source, port), (destination, to))
    assert len(header) <= 107
    assert parse(header) == {
        "version": version,
        "length": len(header),
        "source": (source, port),
        "destination": (destination, to),
    }


@pytest.mark.parametrize(("version", "header"), [(1, b"PROXY UNKNOWN\r\n"), (2, SIGNATURE + b"\x20\x00\x00\x00")])
def test_a_header_that_names_nobody_is_written(version: int, header: bytes) -> None:
    assert _native.probe_proxy_write(version) == header
    assert "source" not in parse(header)


def test_the_spelling_of_what_is_written() -> None:
    a, b, c = address("192.0.2.1"), address("198.51.100.1"), address("2001:db8::1")
    assert _native.probe_proxy_write(1, (a, 1), (b, 2)) == b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n"
    assert _native.probe_proxy_write(1, (c, 1), (c, 2)) == b"PROXY TCP6 2001:db8::1 2001:db8::1 1 2\r\n"
    assert _native.probe_proxy_write(1, (c, 1), (b, 2)) == b"PROXY TCP6 2001:db8::1 ::ffff:198.51.100.1 1 2\r\n"


def test_the_reference_s_sum_is_crc32c() -> None:
    assert reference.crc32c(b"123456789") == 0xE3069283
