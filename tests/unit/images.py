"""Policies for tests: files in a folder → images → a policy that the core has checked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from scrubber import _native
from scrubber.mandate.compile import CompiledPolicy, compile_policy
from scrubber.mandate.load import Loaded, load_all
from scrubber.mandate.slots import assign_area_ids
from scrubber.server.memfd import sealed
from tests.unit.files import NOW, write

MONO_NS = 10**18  # later than any uptime: what a test makes has not run out for those who ask the real clock


def compiled(loaded: Loaded, **changes: object) -> CompiledPolicy:
    """Compiled at NOW, which is MONO_NS, on a machine without addresses."""
    arguments: dict[str, object] = {"generation": 1, "area_ids": assign_area_ids(loaded.gateway, {})}
    arguments |= {"now": NOW, "mono_ns": MONO_NS, "machine": ()} | changes
    return compile_policy(loaded.gateway, loaded.mandates, **arguments)  # type: ignore[arg-type]


def opened(policy: CompiledPolicy) -> _native.Policy:
    """What the core makes of it; the memory files are closed, the mappings stay."""
    with sealed_fds(policy) as (image, *prefixes):
        return _native.Policy(image, prefixes)


@contextlib.contextmanager
def sealed_fds(policy: CompiledPolicy) -> Iterator[list[int]]:
    """Sealed memory files of an image and its prefix images."""
    fds = [sealed("image", data) for data in (policy.image, *policy.prefix_images)]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def policy_of(folder: Path, gateway: str, **mandates: str) -> _native.Policy:
    """The policy of a gateway text and its mandates' texts."""
    return opened(compiled(load_all(write(folder, gateway, **mandates), now=NOW)))
