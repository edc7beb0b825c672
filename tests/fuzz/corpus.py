"""Seed corpora: corpus/TARGET.txt, an input a line as a bytes literal; TARGET.found.txt has those that found something.

Owns their form, and the directories of files that libFuzzer works on.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

from tests.fuzz.targets import TARGETS

FOLDER = Path(__file__).with_name("corpus")
KEPT_BYTES_MAX = 48 * 1024  # of a target's inputs; the shortest are kept


def load(target: str, folder: Path = FOLDER) -> list[bytes]:
    """What was kept, and what once found something."""
    return [*_lines(folder / f"{target}.txt"), *_lines(folder / f"{target}.found.txt")]


def _lines(file: Path) -> list[bytes]:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return []
    return [ast.literal_eval(line) for line in lines if not line.startswith("#")]


def save(target: str, inputs: Iterable[bytes], folder: Path = FOLDER) -> int:
    """Keep the shortest inputs, as many as there is room for. How many those are."""
    kept, left = [], KEPT_BYTES_MAX
    for each in sorted(set(inputs), key=lambda data: (len(data), data)):
        left -= len(each)
        if left < 0:
            break
        kept.append(each)
    folder.mkdir(exist_ok=True)
    (folder / f"{target}.txt").write_text("".join(f"{each!r}\n" for each in kept), encoding="ascii")
    return len(kept)


def unpack(target: str, folder: Path) -> None:
    """Seeds and what was kept, a file each named by its content."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in (*TARGETS[target].seeds(), *load(target)):
        (folder / hashlib.sha1(each, usedforsecurity=False).hexdigest()).write_bytes(each)


def packed(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.iterdir()]
