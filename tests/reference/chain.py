"""The trusted chain, slow and obvious: lists are taken apart from the right, hop by hop."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

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


def parse_forwarded(text: str) -> Address | None:
    found = []
    at = 0
    while at < len(text):
        pair = PAIR.match(text, at)
        if pair is None:
            return None
        if pair[1].lower() == "for":
            value = pair[2]
            found.append(re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL) if value.startswith('"') else value)
        at = pair.end()
    return parse_node(found[0], bare_v6=False) if len(found) == 1 else None


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


def client(headers: list[tuple[str, str]], trusted: Callable[[Address], bool], peer: Address) -> tuple[Address, int]:
    """(client, hops walked)."""
    if not trusted(peer):
        return peer, 0
    names = [name.lower() for name, _ in headers]
    wanted = "x-forwarded-for" if "x-forwarded-for" in names else "forwarded"
    found, hops = peer, 0
    for name, value in reversed(headers):
        if name.lower() != wanted:
            continue
        for element in elements_from_the_right(value.strip(" \t"), wanted == "forwarded"):
            hop = parse_forwarded(element) if wanted == "forwarded" else parse_node(element, bare_v6=True)
            if hop is None:
                return found, hops
            found, hops = hop, hops + 1
            if hops == HOPS_MAX or not trusted(hop):
                return found, hops
    return found, hops


def trusted_by(networks: list[str]) -> Callable[[Address], bool]:
    parsed = [ipaddress.ip_network(text) for text in networks]
    return lambda address: any(address in network for network in parsed)
