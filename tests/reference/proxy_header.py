"""The PROXY protocol, slow and obvious: one regular expression for the line, slices for the binary form."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

from tests.reference.chain import parse_address
from tests.reference.prefixes import packed

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BYTES_MAX = 8192
LINE_BYTES_MAX = 107
OTHERS_MAX = 8
LINE = re.compile(rb"PROXY TCP([46]) (\S+) (\S+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
UNKNOWN = re.compile(rb"PROXY UNKNOWN( [\x20-\x7e]*)?")
ADDRESS_BYTES = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}

Found = dict[str, Any] | str


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def parse(data: bytes) -> Found:
    """ "more", "bad", or what the header says."""
    return parse_line(data) if data[:1] == b"P" else parse_binary(data)


def parse_line(data: bytes) -> Found:
    begun = data[:LINE_BYTES_MAX]
    if not (begun.startswith(b"PROXY ") or b"PROXY ".startswith(begun)):
        return "bad"
    line, feed, _ = begun.partition(b"\n")
    if not feed:
        return "more" if len(data) < LINE_BYTES_MAX else "bad"
    if not line.endswith(b"\r"):
        return "bad"
    found: dict[str, Any] = {"version": 1, "length": len(line) + 1}
    if UNKNOWN.fullmatch(line[:-1]):
        return found
    match = LINE.fullmatch(line[:-1])
    if match is None:
        return "bad"
    for name, text, port in (("source", match[2], match[4]), ("destination", match[3], match[5])):
        address = parse_address(text.decode("latin-1")) if (b":" in text) == (match[1] == b"6") else None
        if address is None or int(port) > 65535:
            return "bad"
        found[name] = (packed(address), int(port))
    return found


def parse_binary(data: bytes) -> Found:
    if data[:12] != SIGNATURE[: len(data)]:
        return "bad"
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        return "bad"
    if len(data) > 13 and data[12] == 0x21 and data[13] not in ADDRESS_BYTES:
        return "bad"
    if len(data) < 16:
        return "more"
    local, family = data[12] == 0x20, data[13]
    at = 16 + (0 if local else ADDRESS_BYTES[family])
    length = 16 + struct.unpack_from("!H", data, 14)[0]
    if not at <= length <= BYTES_MAX:
        return "bad"
    if len(data) < length:
        return "more"
    found: dict[str, Any] = {"version": 2, "length": length}
    if local or family == 0:
        return found
    if family in (0x11, 0x21):
        form = "!4s4sHH" if family == 0x11 else "!16s16sHH"
        source, destination, port, destination_port = struct.unpack_from(form, data, 16)
        mapped = bytes(10) + b"\xff\xff" if family == 0x11 else b""
        found |= {"source": (mapped + source, port), "destination": (mapped + destination, destination_port)}
    tlvs = take_tlvs(data[at:length])
    if tlvs is None:
        return "bad"
    offset, sums = at, 0
    for kind, value in tlvs:
        if kind == 0x03:
            zeroed = data[: offset + 3] + bytes(4) + data[offset + 7 : length]
            sums += 1
            if len(value) != 4 or sums > 1 or crc32c(zeroed) != int.from_bytes(value):
                return "bad"
        if kind == 0x05 and len(value) > 128:
            return "bad"
        if kind == 0x20 and (len(value) < 5 or take_tlvs(value[5:]) is None):
            return "bad"
        offset += 3 + len(value)
    return found | named(tlvs)


def take_tlvs(data: bytes) -> list[tuple[int, bytes]] | None:
    found = []
    while data:
        if len(data) < 3 or len(data) - 3 < int.from_bytes(data[1:3]):
            return None
        size = int.from_bytes(data[1:3])
        found.append((data[0], data[3 : 3 + size]))
        data = data[3 + size :]
    return found


def named(tlvs: list[tuple[int, bytes]]) -> dict[str, Any]:
    """By name, the first that is not empty; and those without a name, in order."""
    inner = [pair for kind, value in tlvs if kind == 0x20 for pair in take_tlvs(value[5:]) or []]
    vpc = [(0, value[1:]) for kind, value in tlvs if kind == 0xEA and value[:1] == b"\x01"]
    places = {
        "alpn": (tlvs, 0x01),
        "authority": (tlvs, 0x02),
        "unique_id": (tlvs, 0x05),
        "tls_version": (inner, 0x21),
        "tls_name": (inner, 0x22),
        "tls_cipher": (inner, 0x23),
        "tls_signature": (inner, 0x24),
        "tls_key": (inner, 0x25),
        "netns": (tlvs, 0x30),
        "vpc_endpoint": (vpc, 0),
    }
    found = {name: next((v for k, v in among if k == kind and v), b"") for name, (among, kind) in places.items()}
    said: dict[str, Any] = {name: value for name, value in found.items() if value}
    for value in [value for kind, value in tlvs if kind == 0x20][:1]:
        said["tls"] = (value[0], int.from_bytes(value[1:5]))
    others = list(without_name(tlvs))
    if others:
        said |= {"others": others[:OTHERS_MAX], "others_left_out": max(len(others) - OTHERS_MAX, 0)}
    return said


def without_name(tlvs: list[tuple[int, bytes]]) -> Iterator[tuple[bool, int, bytes]]:
    for kind, value in tlvs:
        if kind == 0x20:
            inside = take_tlvs(value[5:]) or []
            yield from ((True, each, inner) for each, inner in inside if each not in range(0x21, 0x26))
        elif kind not in (0x01, 0x02, 0x03, 0x04, 0x05, 0x30) and not (kind == 0xEA and value[:1] == b"\x01" < value):
            yield (False, kind, value)


def binary(
    command: int = 0x21,
    family: int = 0x11,
    addresses: bytes = bytes([192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x34, 0, 80]),
    tlvs: list[tuple[int, bytes]] | None = None,
    *,
    summed: bool = False,
) -> bytes:
    """A v2 header; `summed`: with its CRC32C at the end."""
    block = addresses + b"".join(tlv(kind, value) for kind, value in tlvs or [])
    block += tlv(0x03, bytes(4)) if summed else b""
    whole = SIGNATURE + bytes([command, family]) + len(block).to_bytes(2) + block
    return whole[:-4] + crc32c(whole).to_bytes(4) if summed else whole


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2) + value
