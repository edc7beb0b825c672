"""What TLS wants looked after: the keys of session tickets, and certificates that are about to expire.

Owns: when a ticket key is renewed, and when an expiry is said (once a day a certificate, 14 days ahead). Invariant: a
ticket lives shorter than its key: 12 hours (ext/tls_context.pyx) against three keys of 8 hours.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from scrubber import _native
from scrubber.config.gateway import Gateway
from scrubber.config.tls import expiry_said
from scrubber.control import acts
from scrubber.units import NS_PER_S

TICKET_KEY_NS = 8 * 3600 * NS_PER_S
SAID_AGAIN = datetime.timedelta(days=1)


def certificates(gateway: Gateway) -> Iterator[tuple[str, str, datetime.datetime]]:
    """(area, file, when it expires) of every certificate that clients are shown."""
    for area in gateway.areas:
        for each in area.tls.certificates if area.tls is not None else ():
            if each.expires is not None:
                yield area.name, each.chain, each.expires


def expiries(gateway: Gateway) -> dict[str, float]:
    """By area, the Unix time at which the first of its certificates expires."""
    found: dict[str, float] = {}
    for area, _, expires in certificates(gateway):
        found[area] = min(found.get(area, expires.timestamp()), expires.timestamp())
    return found


def expiry_notices(gateway: Gateway, now: datetime.datetime) -> list[str]:
    """A line for each certificate that has expired, or is about to."""
    return [
        f"certificate {file} of area {area} {said}"
        for area, file, expires in certificates(gateway)
        if (said := expiry_said(expires, now))
    ]


@dataclass
class TlsUpkeep:
    """`say` records an act and logs it."""

    memory: _native.Memory
    say: Callable[[dict[str, Any]], None]
    said: dict[str, datetime.datetime] = field(default_factory=dict)  # notice -> when

    def look(self, gateway: Gateway) -> None:
        """From time to time."""
        if time.monotonic_ns() - self.memory.tickets_born_ns >= TICKET_KEY_NS:
            self.memory.renew_tickets(time.monotonic_ns())
        now = datetime.datetime.now(datetime.UTC)
        due = {each: self.said.get(each) for each in expiry_notices(gateway, now)}
        for notice, before in due.items():
            if before is None or now - before >= SAID_AGAIN:
                self.said[notice] = now
                self.say(acts.made("certificate_expires", notice))
        self.said = {notice: when for notice, when in self.said.items() if notice in due}
