"""Which versions of mandates were accepted: a mandate never goes back.

Owns the memory of it, (authority, id) → serial and digest of the content. It travels in the policy image's source, so
that reloads, new supervisors and upgrades find it; the mandate may have been out of the gateway file meanwhile.
Invariant: a serial is given to one content only, and what follows it is higher.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from scrubber.errors import Problem
from scrubber.mandate.schema import Mandate


class Accepted(msgspec.Struct, frozen=True):
    """The last accepted version of one mandate."""

    authority: str
    id: str
    serial: int
    digest: str


def content_digest(tree: Mapping[str, Any]) -> str:
    """Of what a mandate's TOML says, lists by their digests included: comments and layout do not count, nor where the
    file lies. Not of the structs: they grow fields from one version of the program to the next."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()


def accepted_with(before: Iterable[Accepted], mandates: Iterable[Mandate]) -> tuple[Accepted, ...]:
    """What is remembered once these are in force."""
    found = {(each.authority, each.id): each for each in before}
    for m in mandates:
        found[m.head.authority, m.id] = Accepted(m.head.authority, m.id, m.head.serial, m.digest)
    return tuple(found[key] for key in sorted(found))


def rolled_back(before: Iterable[Accepted], mandates: Iterable[Mandate]) -> list[Problem]:
    """What speaks against these mandates, after the ones that were accepted."""
    last = {(each.authority, each.id): each for each in before}
    problems = []
    for m in mandates:
        known, serial = last.get((m.head.authority, m.id)), m.head.serial
        if known is None or (serial, m.digest) == (known.serial, known.digest) or serial > known.serial:
            continue
        if serial == known.serial:
            message = f"serial {serial} was accepted with another content"
            hint = "a change needs a higher serial, also one that goes back to what was before"
        else:
            message = f"serial {known.serial} was accepted before {serial}"
            hint = "an old version comes back only as a new one, with a higher serial"
        problems.append(Problem(m.file, "mandate.serial", message, f"{known.serial + 1} or higher", hint))
    return problems
