"""Backends by name, and which of those that the gateway file names this machine has.

A new backend is one file, and one line here.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from scrubber.enforce.backend import Backend, Settings, Unavailable

BACKENDS = {
    "xdp": ("scrubber.enforce.xdp", "Xdp"),
    "nft": ("scrubber.enforce.nft", "Nft"),
    "route": ("scrubber.enforce.route", "Route"),
}


def open_backends(names: Sequence[str], settings: Settings) -> tuple[list[Backend], list[tuple[str, str]]]:
    """Those that there are, in this order; and of each name "" or why it is not there."""
    opened: list[Backend] = []
    said: list[tuple[str, str]] = []
    for name in names:
        module, kind = BACKENDS[name]
        try:
            opened.append(getattr(import_module(module), kind)(settings))
            said.append((name, ""))
        except Unavailable as why:
            said.append((name, str(why)))
        except ImportError as why:
            said.append((name, f"not installed: {why}"))
    return opened, said
