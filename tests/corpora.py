"""Where the corpora of others are: SCRUBBER_CORPORA, else ../shared/corpora. They are no part of this tree."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORPORA = Path(os.environ.get("SCRUBBER_CORPORA") or ROOT.parent / "shared" / "corpora")


def corpora_line(folder: Path = CORPORA) -> str:
    """What a test run says at its start."""
    found = list(folder.glob("*.*"))
    if not found:
        return f"corpora: none at {folder}, their tests are skipped (set SCRUBBER_CORPORA)"
    return f"corpora: found at {folder} ({len(found)})"
