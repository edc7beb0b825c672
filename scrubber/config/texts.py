"""Texts of the gateway file with placeholders in them: values of header fields, Location, rewritten paths, pages.

Owns how a text is cut into parts. `{word}` is a placeholder where the word is known; other braces are text, so that
JSON and style sheets need no escaping. `$1` to `$9` are groups of a pattern where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

PLACES_MAX = 64  # placeholders of one text; ext/route_spec.pxd bounds the parts between them

_PLACE = re.compile(r"\{([a-z_]+)\}|\$([1-9])")


@dataclass(frozen=True, slots=True)
class Part:
    """`kind`: "text", "group", or a placeholder's word. `text`: of "text"; `group`: number of "group"."""

    kind: str
    text: str = ""
    group: int = 0


def parts_of(text: str, words: Collection[str], *, groups: bool = False) -> list[Part]:
    """The parts of a text in order; words that are not known stay text."""
    found: list[Part] = []
    at = 0
    for match in _PLACE.finditer(text):
        word, group = match.groups()
        if (word is not None and word not in words) or (group is not None and not groups):
            continue
        if match.start() > at:
            found.append(Part("text", text[at : match.start()]))
        found.append(Part(word) if word is not None else Part("group", group=int(group)))
        at = match.end()
    if at < len(text):
        found.append(Part("text", text[at:]))
    return found


def words_in(text: str) -> list[str]:
    """Every word in braces, known or not."""
    return [word for word, _ in _PLACE.findall(text) if word]


def places_in(text: str) -> int:
    """How many placeholders and groups a text may turn out to have."""
    return len(_PLACE.findall(text))


def groups_in(text: str) -> int:
    """The highest group that is named; 0: none."""
    return max((int(group) for _, group in _PLACE.findall(text) if group), default=0)
