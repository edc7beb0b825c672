"""What the XDP program has to say of a frame, slow and obvious: slices, addresses as text, every network asked."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from scrubber.enforce.backend import Door, Drop
from scrubber.enforce.net import Net

EXTENSIONS_MAX = 8
ALL_DOORS = 0xFF


class Passes(Exception):
    """Nothing to drop it for."""


def dropped_for(frame: bytes, doors: Sequence[Door], drops: Mapping[Net, Drop], now_ns: int) -> tuple[Net, int] | None:
    """The network that this frame is dropped for and counted at, and the bytes counted; None: it passes."""
    try:
        family, packet = _network(frame)
        source, shut = (_ipv4 if family == 4 else _ipv6)(packet, doors)
    except Passes:
        return None
    client = 32 if family == 4 else 64  # its own entry comes first
    holding = [(net[-1] == client, net[-1], net) for net in drops if _holds(net, source)]
    for _, _, net in sorted(holding, reverse=True):
        if drops[net].until_ns > now_ns and drops[net].doors & shut:
            return net, len(packet)
    return None


def _network(frame: bytes) -> tuple[int, bytes]:
    at = 12
    for _ in range(2):
        if frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
            at += 4
    families = {b"\x08\x00": 4, b"\x86\xdd": 6}
    kind = frame[at : at + 2]
    if kind not in families:
        raise Passes
    return families[kind], frame[at + 2 :]


def _ipv4(packet: bytes, doors: Sequence[Door]) -> tuple[str, int]:
    if len(packet) < 20:
        raise Passes
    version, words = packet[0] >> 4, packet[0] & 0xF
    offset = int.from_bytes(packet[6:8], "big") & 0x1FFF
    if version != 4 or words < 5 or packet[9] != 6 or offset:
        raise Passes
    return _text(packet[12:16]), _shut(4, packet[16:20], packet[4 * words :], doors)


def _ipv6(packet: bytes, doors: Sequence[Door]) -> tuple[str, int]:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        raise Passes
    source, following, rest = _text(packet[8:24]), packet[6], packet[40:]
    extensions = 0
    while following in (0, 43, 44, 60):
        extensions += 1
        if extensions > EXTENSIONS_MAX:
            return source, ALL_DOORS
        if len(rest) < 8:
            raise Passes
        if following == 44:
            if int.from_bytes(rest[2:4], "big") >> 3:
                raise Passes
            following, rest = rest[0], rest[8:]
        else:
            following, rest = rest[0], rest[8 * (rest[1] + 1) :]
    if following != 6:
        raise Passes
    return source, _shut(6, packet[24:40], rest, doors)


def _shut(family: int, address: bytes, segment: bytes, doors: Sequence[Door]) -> int:
    """Bits of the doors at that address; those at every address only where none is at that one."""
    if len(segment) < 4:
        raise Passes
    port = int.from_bytes(segment[2:4], "big")
    for there in (address, b""):
        bits = [1 << bit for bit, door in enumerate(doors) if (family, there, port) in door.addresses]
        if bits:
            return sum(bits)
    raise Passes


def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def _holds(net: Net, source: str) -> bool:
    network = ipaddress.ip_network((net[:-1], net[-1]))
    return ipaddress.ip_address(source) in network
