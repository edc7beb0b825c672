"""What clients claim about who they are: a seeded generator of X-Forwarded-For, Forwarded and PROXY inputs, sound ones
among them, for tests in which nobody may be believed."""

from __future__ import annotations

import ipaddress
import random
import socket

from tests.reference.proxy_header import binary, tlv

FIELDS = ("X-Forwarded-For", "Forwarded", "X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Client-IP", "True-Client-IP",
          "CF-Connecting-IP", "X-Forwarded", "Client-IP", "Via", "X-Forwarded-Proto", "X-Forwarded-Host")  # fmt: skip
RUBBISH = (
    "", " ", ",", ";", "=", '"', "\\", "unknown", "_hidden", "_SEVKISEK", "null", "-1", "0", "999.1.2.3", "1.2.3",
    "0x7f.1", "017700000001", "[", "]", "[::1", "::", ":::1", "%00", "<a>", "\xff\xfe", "a" * 70, "for=",
)  # fmt: skip


def address(r: random.Random) -> str:
    """An address in any of the ways in which people and programs write one."""
    bits = r.choice((0x7F000001, 0x0A000001, 0xC0000201, r.getrandbits(32)))
    four = ".".join(str(bits >> shift & 255) for shift in (24, 16, 8, 0))
    six = f"2001:db8:{r.randrange(65536):x}::{r.randrange(65536):X}"
    ways = (four, six, f"::ffff:{four}", f"[{six}]", f"{four}:{r.randrange(70_000)}", f"[{six}]:{r.randrange(70_000)}",
            f"[::ffff:{four}]:80", f"fe80::{r.randrange(65536):x}%eth0", f"{four}%1", f"{four}:_port", f"0{four}",
            f"{four}.")  # fmt: skip
    return r.choice(ways)


def element(r: random.Random, name: str) -> str:
    node = address(r) if r.random() < 0.8 else r.choice(RUBBISH)
    if name != "Forwarded":
        return node
    text = f'"{node}"' if r.random() < 0.7 else node
    pairs = [f"{r.choice(('for', 'For', 'FOR'))}={text}"]
    pairs += r.sample(["proto=https", "host=site.test", f'by="{address(r)}"', 'ext="a,b;c"'], r.randrange(3))
    r.shuffle(pairs)
    return ";".join(pairs)


def fields(r: random.Random) -> list[tuple[str, str]]:
    """One to four header lines."""
    found = []
    for name in r.choices(FIELDS, k=r.randrange(1, 5)):
        elements = [element(r, name) for _ in range(r.randrange(1, 6))]
        found.append((name, r.choice((", ", ",", " ,\t")).join(elements).strip()))
    return found


def head(r: random.Random, target: str = "/") -> bytes:
    """A request with such lines, the only one of its connection."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields(r))
    return f"GET {target} HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n{lines}\r\n".encode("latin-1")


def proxy(r: random.Random) -> bytes:
    """A PROXY header, v1 or v2; half of them damaged."""
    four = [str(ipaddress.IPv4Address(r.getrandbits(32))) for _ in range(2)]
    six = [str(ipaddress.IPv6Address(r.getrandbits(128))) for _ in range(2)]
    ports = (r.randrange(65536), r.randrange(65536))
    if r.random() < 0.5:
        family, pair = r.choice((("TCP4", four), ("TCP6", six), ("UNKNOWN", four)))
        data = f"PROXY {family} {pair[0]} {pair[1]} {ports[0]} {ports[1]}\r\n".encode()
    else:
        kind, pair, family_id = r.choice(((socket.AF_INET, four, 0x11), (socket.AF_INET6, six, 0x21)))
        addresses = b"".join(socket.inet_pton(kind, each) for each in pair)
        addresses += b"".join(port.to_bytes(2) for port in ports)
        data = binary(family=family_id, addresses=addresses, tlvs=[(5, tlv(1, b"x"))], summed=r.random() < 0.5)
    if r.random() < 0.5:
        at = r.randrange(len(data))
        data = data[:at] + r.randbytes(r.randrange(3)) + data[at + r.randrange(4) :]
    return data
