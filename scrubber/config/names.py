"""Names that an operator gives: areas, pools, and whatever else has one."""

from __future__ import annotations

import re
from typing import Any

from scrubber.config.walk import Reads
from scrubber.errors import ValueRefused

NAME_EXPECTED = 'a name of letters, digits, "-", "_" and ".", at most 64, beginning with a letter or digit'
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def parse_name(value: Any) -> str:
    """A name as it is. ValueRefused."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueRefused(f"{value!r} is not a name", expected=NAME_EXPECTED)
    return value


NAME = Reads(parse_name, "", "name: letters, digits, `-`, `_`, `.`; at most 64")
