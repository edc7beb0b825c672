"""Fixture files and what is expected of them, in lines "# expect: PATH | part of the message | part of the hint"."""

from __future__ import annotations

import datetime
from pathlib import Path

from scrubber.errors import Problem

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
GOOD = FIXTURES / "good"
BAD = sorted((FIXTURES / "bad").glob("*.toml"))
Row = tuple[str, str, str]
NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.UTC)

MINIMAL_GATEWAY = """
mandates = ["m.toml"]
allow_unsigned = true
[[listener]]
address = "127.0.0.1:0"
[[area]]
name = "site"
default = true
origins = ["127.0.0.1:8000"]
"""

HEAD = """
[mandate]
id = "m"
serial = 1
authority = "Example CERT"
basis = "a letter"
not_before = 2026-05-01T00:00:00Z
expires = 2026-07-01T00:00:00Z
on_expiry = "limits"
areas = ["site"]
powers = ["observe", "throttle", "challenge", "tarpit", "deny", "drop", "block", "blackhole"]
"""


def write(folder: Path, gateway: str, **mandates: str) -> Path:
    """A gateway file in `folder`, and mandates as NAME.toml beside it."""
    for name, text in mandates.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    path = folder / "gateway.toml"
    path.write_text(gateway, encoding="utf-8")
    return path


def wanted(path: Path, mark: str) -> list[Row]:
    """(path, part of the message, part of the hint) of each marked line."""
    rows = [line.removeprefix(mark) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(mark)]
    cells = [[cell.strip() for cell in row.split("|")] + ["", ""] for row in rows]
    return [(c[0], c[1], c[2]) for c in cells]


def unmatched(problems: list[Problem], rows: list[Row]) -> tuple[list[Problem], list[Row]]:
    """Problems that no row expects, and rows that no problem meets; each row meets one."""
    left = list(problems)
    missing = []
    for place, message, hint in rows:
        found = next((p for p in left if p.path == place and message in p.message and hint in p.hint), None)
        if found is None:
            missing.append((place, message, hint))
        else:
            left.remove(found)
    return left, missing
