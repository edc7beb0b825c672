"""The parts of an image while it is being written: sections that grow, texts and prefix sets that are kept once.

Owns how sections are laid out one behind the other and the header in front of them; what an entry means is its
compiler's business (compile.py, compile_gateway.py). Index 0 of a prefix set means none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from scrubber.mandate import layout
from scrubber.mandate.prefixes import compile_prefixes


class PrefixSets:
    """Sets of prefixes, each once however often it is named. Index 0 of the image means none."""

    def __init__(self) -> None:
        self.sets: dict[tuple[str, ...], int] = {}

    def add(self, prefixes: Iterable[str]) -> int:
        """Index + 1 of the set; 0 where it is empty."""
        key = tuple(sorted(set(prefixes)))
        return self.sets.setdefault(key, len(self.sets)) + 1 if key else 0

    def images(self) -> list[bytes]:
        return [compile_prefixes(dict.fromkeys(key, 1), index) for key, index in self.sets.items()]


@dataclass
class Image:
    """Sections as they grow."""

    bytes_of: dict[str, bytearray] = field(default_factory=lambda: {name: bytearray() for name in layout.SECTIONS})
    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def add(self, section: str, data: bytes) -> int:
        """Append one entry; its index."""
        self.bytes_of[section] += data
        index = self.counts.get(section, 0)
        self.counts[section] = index + 1
        return index

    def span(self, section: str, entries: Iterable[bytes]) -> tuple[int, int]:
        """Append entries side by side; (index of the first, how many)."""
        first = self.counts.get(section, 0)
        for entry in entries:
            self.add(section, entry)
        return first, self.counts.get(section, 0) - first

    def text(self, value: str) -> tuple[int, int]:
        """Where a text lies, (offset, bytes); each text once."""
        return self.data(value.encode())

    def data(self, data: bytes) -> tuple[int, int]:
        """As `text`, of bytes."""
        if data not in self.texts:
            self.texts[data] = (len(self.bytes_of["text"]), len(data))
            self.bytes_of["text"] += data
        return self.texts[data]

    def finish(self, generation: int, head: tuple[int, ...]) -> bytes:
        body = bytearray()
        places: list[int] = []
        for name in layout.SECTIONS:
            data = self.bytes_of[name]
            count = len(data) if name in ("text", "source") else self.counts.get(name, 0)
            places += (layout.HEADER.size + len(body), count)
            body += data
            body += bytes(-len(body) % 8)
        total = layout.HEADER.size + len(body)
        digest = hashlib.sha256(body).digest()
        start = (layout.MAGIC, layout.LAYOUT_VERSION, layout.HEADER.size, total, generation, digest)
        return layout.HEADER.pack(*start, *places, *head) + bytes(body)


def area_mask(indexes: Iterable[int]) -> tuple[int, ...]:
    words = [0] * layout.AREA_WORDS
    for index in indexes:
        words[index >> 6] |= 1 << (index & 63)
    return tuple(words)
