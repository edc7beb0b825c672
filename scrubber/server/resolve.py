"""Names of origins → addresses: the hosts file first, then DNS (A and AAAA), with the time for which an answer holds.

Owns: asking, and when to ask again. Invariants: an answer that fails leaves what was known as it is; addresses come
sorted, so that a server that turns them around changes nothing; CNAMEs are followed by the library, and the shortest
TTL on the way counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver

from scrubber.config.dns import Dns
from scrubber.config.gateway import Gateway
from scrubber.mandate.resolved import names_of
from scrubber.units import NS_PER_S

HOSTS = Path("/etc/hosts")
HOSTS_TTL_S = 60.0
AGAIN_S = 5.0  # after an answer that failed


@dataclass(frozen=True)
class Answer:
    """`addresses`: empty where `error` says why."""

    addresses: tuple[str, ...]
    ttl_s: float
    error: str = ""


def in_hosts(name: str, file: Path = HOSTS) -> tuple[str, ...]:
    """What the hosts file says of a name."""
    found: set[str] = set()
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    for line in lines:
        words = line.partition("#")[0].split()
        if name in (word.lower() for word in words[1:]):
            with contextlib.suppress(ValueError):
                found.add(str(ipaddress.ip_address(words[0])))
    return _sorted(found)


def _sorted(addresses: set[str]) -> tuple[str, ...]:
    """IPv4 first, each in order of number."""
    parsed = [ipaddress.ip_address(text) for text in addresses]
    return tuple(str(a) for a in sorted(parsed, key=lambda a: (a.version, int(a))))


async def ask(name: str, settings: Dns) -> Answer:
    """The addresses of a name. Never raises: `error` says what failed."""
    known = in_hosts(name)
    if known:
        return Answer(known, HOSTS_TTL_S)
    try:
        resolver = _resolver(settings)
    except dns.exception.DNSException as error:
        return Answer((), AGAIN_S, f"no resolver: {error}")
    kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
    answers = await asyncio.gather(*(_ask_one(resolver, name, kind) for kind in kinds))
    addresses: set[str] = set()
    for each in answers:
        addresses.update(each.addresses)
    if not addresses:
        return Answer((), AGAIN_S, next((each.error for each in answers if each.error), "it has no address"))
    ttl_s = min(each.ttl_s for each in answers if each.addresses)
    # One kind may have failed while the other answered: look again soon.
    if any(each.error for each in answers):
        ttl_s = min(ttl_s, AGAIN_S)
    return Answer(_sorted(addresses), min(max(ttl_s, settings.ttl_min_ns / NS_PER_S), settings.ttl_max_ns / NS_PER_S))


def _resolver(settings: Dns) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=not settings.servers)
    if settings.servers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(each.address, each.port) for each in settings.servers]
    resolver.lifetime = settings.timeout_ns / NS_PER_S
    resolver.timeout = resolver.lifetime / max(len(resolver.nameservers), 1)
    return resolver


async def _ask_one(resolver: dns.asyncresolver.Resolver, name: str, kind: dns.rdatatype.RdataType) -> Answer:
    try:
        found = await resolver.resolve(name, kind, search=True, raise_on_no_answer=False)
    except (dns.exception.DNSException, OSError) as error:
        return Answer((), AGAIN_S, str(error).splitlines()[0] if str(error) else type(error).__name__)
    left_s = max(found.expiration - time.time(), 0.0)
    addresses = tuple(record.address for record in found.rrset or ())
    return Answer(addresses, left_s)


class Names:
    """What names stand for, and until when that holds."""

    def __init__(self, answers: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.answers: dict[str, tuple[str, ...]] = dict(answers or {})
        self.errors: dict[str, str] = {}
        self._due_s: dict[str, float] = {}

    async def refresh(self, gateway: Gateway, now_s: float) -> bool:
        """Ask for the names that are due; whether any answer changed. Names that are gone are forgotten."""
        names = names_of(gateway)
        for gone in set(self._due_s) - set(names):
            del self._due_s[gone]
            self.errors.pop(gone, None)
        due = [name for name in names if self._due_s.get(name, 0.0) <= now_s]
        found = await asyncio.gather(*(ask(name, gateway.dns) for name in due))
        changed = False
        for name, answer in zip(due, found, strict=True):
            self._due_s[name] = now_s + answer.ttl_s
            if answer.addresses:
                self.errors.pop(name, None)
                changed = changed or self.answers.get(name) != answer.addresses
                self.answers[name] = answer.addresses
            else:
                self.errors[name] = answer.error
        return changed


def answer_all(
    gateway: Gateway, known: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Addresses of all names that are not known yet, and what failed: before a policy is made of them. Blocks; not for
    an event loop."""
    names = [name for name in names_of(gateway) if name not in known]

    async def every() -> list[Answer]:
        return list(await asyncio.gather(*(ask(name, gateway.dns) for name in names)))

    found = dict(zip(names, asyncio.run(every()), strict=True)) if names else {}
    answers = {name: known[name] for name in names_of(gateway) if name in known}
    answers |= {name: answer.addresses for name, answer in found.items() if answer.addresses}
    return answers, {name: answer.error for name, answer in found.items() if not answer.addresses}
