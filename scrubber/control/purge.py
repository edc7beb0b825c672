"""Forgetting what the cache keeps: one URL, an area, or a URL in one area.

Owns what an order means: which areas, and how a URL is split as clients send it. A URL counts as it is written, but for
the case of its host; http and https are forgotten alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from scrubber import _native
from scrubber.config.walk import nearest
from scrubber.errors import ValueRefused

URL_EXPECTED = "an http or https URL with a host, as http://example.org/page?x=1"


class PurgeOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Someone asks to forget. `area`: empty means all; `url`: empty means everything of it."""

    area: Annotated[str, msgspec.Meta(max_length=64)] = ""
    url: Annotated[str, msgspec.Meta(max_length=16384)] = ""


@dataclass(frozen=True)
class Purge:
    """What is forgotten. No `target`: all of the areas."""

    area_ids: tuple[int, ...]
    authority: bytes = b""
    target: bytes = b""


def meant(order: PurgeOrder, area_ids: Mapping[str, int]) -> Purge:
    """The order in the core's terms. ValueRefused: no such area, no such URL, or neither."""
    if not order.area and not order.url:
        raise ValueRefused("neither an area nor a URL", expected="an area, a URL, or both")
    if order.area and order.area not in area_ids:
        raise ValueRefused(
            f"no area {order.area!r}", expected="the name of an [[area]]", hint=nearest(order.area, area_ids)
        )
    areas = (area_ids[order.area],) if order.area else tuple(area_ids.values())
    return Purge(areas, *_split(order.url)) if order.url else Purge(areas)


def _split(url: str) -> tuple[bytes, bytes]:
    try:
        parts = urlsplit(url)
        data = url.encode("ascii")
    except ValueError:
        raise ValueRefused(f"{url!r} is not a URL", expected=URL_EXPECTED) from None
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc or set(data) & set(b" \t#"):
        raise ValueRefused(f"{url!r} is not a URL of a site", expected=URL_EXPECTED)
    rest = url[url.index("//") + 2 + len(parts.netloc) :]
    return parts.netloc.encode(), (rest if rest.startswith("/") else "/" + rest).encode()


def forget(memory: _native.Memory, purge: Purge) -> int:
    """Do it; how many kept answers of the URL there were (areas are not counted)."""
    return sum(memory.cache_purge(area_id, purge.authority, purge.target) for area_id in purge.area_ids)
