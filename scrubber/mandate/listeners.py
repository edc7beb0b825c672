"""Indexes of listeners: a policy speaks of each by one, and so do workers and the keeper.

Owns: which listener has which. Invariant: an index means the same address for the gateway's whole life, so that a
connection made before a reload still finds its listener in the policy after it, moved about in the file or gone.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scrubber.config.listener import LISTENERS_MAX, Listener, listener_keys
from scrubber.errors import OperatorError


class Listeners(msgspec.Struct, frozen=True):
    """All listeners by index. `open`: those that the gateway file has, in its order; of the others, connections end."""

    keys: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    open: tuple[int, ...] = ()

    def index(self, key: str) -> int:
        """The index of a listener that the gateway file has."""
        return self.keys.index(key)


def assign_listeners(wanted: Sequence[Listener], areas: Sequence[str], previous: Listeners | None = None) -> Listeners:
    """Indexes for the listeners of a gateway file with these areas, those of earlier files kept.

    OperatorError: all indexes are used up.
    """
    former = previous or Listeners()
    keys, listeners = list(former.keys), [_closed(each, areas) for each in former.listeners]
    found: list[int] = []
    for key, listener in zip(listener_keys(wanted), wanted, strict=True):
        if key in keys:
            index = keys.index(key)
            listeners[index] = listener
        else:
            index = len(keys)
            keys.append(key)
            listeners.append(listener)
        found.append(index)
    if len(keys) > LISTENERS_MAX:
        hint = "scrubber upgrade forgets those that are gone"
        raise OperatorError(f"more than {LISTENERS_MAX} listeners since the gateway started", hint=hint)
    return Listeners(tuple(keys), tuple(listeners), tuple(found))


def _closed(listener: Listener, areas: Sequence[str]) -> Listener:
    """One that is gone, as far as its areas are still there."""
    left = tuple(name for name in listener.areas if name in areas)
    default = listener.default if listener.default in left else ""
    return msgspec.structs.replace(listener, areas=left, default=default)
