"""Interpreter and package within reach of another user, where they lie below a directory that only root enters.

Owns the words that do it, in mounts of their own (`ip netns exec` makes some): nothing of it is seen outside.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.support import ROOT, environment

# $1: a directory to keep things in meanwhile. Up to "--" closed directories, to "--" again what is needed in them.
_OPEN = """
set -e
stash=$1; shift
closed=; while [ "$1" != -- ]; do closed="$closed $1"; shift; done; shift
needed=; while [ "$1" != -- ]; do needed="$needed $1"; shift; done; shift
number=0
for each in $needed; do
    number=$((number + 1)); mkdir -p "$stash/$number"; mount --bind "$each" "$stash/$number"
done
for each in $closed; do mount -t tmpfs -o mode=755 none "$each"; done
number=0
for each in $needed; do
    number=$((number + 1)); mkdir -p "$each"; mount --bind "$stash/$number" "$each"
done
exec "$@"
"""


def opened(stash: Path) -> list[str]:
    """Words before a program that is to run in mounts of its own."""
    stash.mkdir()
    paths = {Path(each).resolve() for each in (sys.base_prefix, sys.prefix, ROOT)}
    closed = {path: shut for path in paths if (shut := _closed(path))}
    needed = sorted(
        str(path) for path in closed if not any(path.is_relative_to(each) for each in closed if each != path)
    )
    doors = sorted({str(shut) for shut in closed.values()})
    return ["sh", "-c", _OPEN, "sh", str(stash), *doors, "--", *needed, "--"]


def demand(words: list[str]) -> None:
    """Skips where a program behind these words cannot import the package."""
    program = [sys.executable, "-c", "import scrubber._native, scrubber.server.start"]
    done = subprocess.run([*words, *program], check=False, env=environment(), capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"interpreter or package cannot be brought within another user's reach: {done.stderr[-200:]}")


def _closed(path: Path) -> Path | None:
    """The first directory on the way there that others do not enter."""
    way = [*reversed(path.parents), path]
    return next((each for each in way if not os.stat(each).st_mode & 0o001), None)
