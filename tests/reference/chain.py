"""The trusted chain, slow and obvious: lists are taken apart from the right, hop by hop."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.reference.prefixes import Address, normal_address

HOPS_MAX = 32
CHARS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
QUOTED = r'"(?:[^"\\]|\\.)*"'
PAIR = re.compile(rf"({CHARS})=({CHARS}|{QUOTED})[ \t]*(?:;[ \t]*|$)", re.DOTALL)


def parse_address(text: str) -> Address | None:
    if "%" in text:
        return None
    try:
        return normal_address(text)
    except ValueError:
        return None


def sound_port(text: str) -> bool:
    if re.fullmatch(r"[0-9]{1,5}", text):
        return int(text) <= 65535
    return re.fullmatch(rf"_{CHARS}", text) is not None


def parse_node(text: str, bare_v6: bool) -> Address | None:
    if len(text) > 64:
        return None
    bracketed = re.fullmatch(r"\[([^\]]*:[^\]]*)\](?::(.*))?", text, re.DOTALL)
    if bracketed:
        return parse_address(bracketed[1]) if bracketed[2] is None or sound_port(bracketed[2]) else None
    if text.count(":") > 1:
        return parse_address(text) if bare_v6 else None
    host, colon, port = text.partition(":")
    if colon and not sound_port(port):
        return None
    return parse_address(host)


def sound_host(text: str) -> bool:
    """uri-host [ ":" port ], as a Host field may have it."""
    found = re.fullmatch(r"(\[[^\]]*:[^\]]*\]|[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]+)*\.?)(?::([0-9]{1,5}))?", text)
    if found is None or len(found[1]) > 255 or (found[2] and not 1 <= int(found[2]) <= 65535):
        return False
    return not text.startswith("[") or parse_address(found[1][1:-1]) is not None


def parse_forwarded(text: str) -> tuple[Address, str, str] | None:
    """The address, proto and host of one element; "" where it says none that is sound."""
    pairs: dict[str, str] = {}
    at = 0
    while at < len(text):
        pair = PAIR.match(text, at)
        if pair is None:
            return None
        name, value = pair[1].lower(), pair[2]
        if name in pairs and name in ("for", "proto", "host"):
            return None
        pairs[name] = value[1:-1] if value.startswith('"') else value
        at = pair.end()
    if "for" not in pairs:
        return None
    hop = parse_node(re.sub(r"\\(.)", r"\1", pairs["for"], flags=re.DOTALL), bare_v6=False)
    proto, host = pairs.get("proto", ""), pairs.get("host", "")
    sound_proto = re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,31}", proto) is not None
    return hop and (hop, proto if sound_proto else "", host if sound_host(host) else "")


def elements_from_the_right(text: str, quotes: bool) -> list[str]:
    found = []
    element = ""
    quoted = False
    for i in range(len(text) - 1, -1, -1):
        escapes = len(text[:i]) - len(text[:i].rstrip("\\"))
        if quotes and text[i] == '"' and not (quoted and escapes % 2):
            quoted = not quoted
        if text[i] == "," and not quoted:
            found.append(element)
            element = ""
        else:
            element = text[i] + element
    return [part.strip(" \t") for part in [*found, element]]


@dataclass
class Walked:
    """Who the client is, how many hops that took, and what the one that named it says of how it came."""

    client: Address
    hops: int = 0
    proto: str = ""
    host: str = ""


def client(headers: list[tuple[str, str]], trusted: Callable[[Address], bool], peer: Address) -> Walked:
    out = walk(headers, trusted, peer)
    if out.hops:
        firsts = {name.lower(): value.strip(" \t") for name, value in reversed(headers)}
        out.proto = out.proto or firsts.get("x-forwarded-proto", "")
        out.host = out.host or firsts.get("x-forwarded-host", "")
    return out


def walk(headers: list[tuple[str, str]], trusted: Callable[[Address], bool], peer: Address) -> Walked:
    out = Walked(peer)
    if not trusted(peer):
        return out
    names = [name.lower() for name, _ in headers]
    wanted = "x-forwarded-for" if "x-forwarded-for" in names else "forwarded"
    for name, value in reversed(headers):
        if name.lower() != wanted:
            continue
        for element in elements_from_the_right(value.strip(" \t"), wanted == "forwarded"):
            if wanted == "forwarded":
                read = parse_forwarded(element)
            else:
                node = parse_node(element, bare_v6=True)
                read = node and (node, "", "")
            if read is None:
                return out
            out = Walked(read[0], out.hops + 1, *read[1:])
            if out.hops == HOPS_MAX or not trusted(out.client):
                return out
    return out


def trusted_by(networks: list[str]) -> Callable[[Address], bool]:
    parsed = [ipaddress.ip_network(text) for text in networks]
    return lambda address: any(address in network for network in parsed)
