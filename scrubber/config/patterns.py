"""What RE2 says of a pattern: the one place of the configuration that asks the core, which alone knows what it
takes."""

from __future__ import annotations


def pattern_refused(pattern: str) -> str:
    """RE2's own words for what is wrong; empty: nothing is."""
    from scrubber import _native  # noqa: PLC0415 - loaded only where there is a pattern

    refused: str = _native.pattern_refused(pattern.encode())
    return refused


def pattern_groups(pattern: str) -> int:
    """How many capturing groups a sound pattern has."""
    from scrubber import _native  # noqa: PLC0415

    groups: int = _native.pattern_groups(pattern.encode())
    return groups
