"""The blocks on disk: `blocks` in the state directory, a line for each that was made, extended or lifted.

A line is `MAC NUMBER JSON`, the MAC keyed by the gateway's secret over the two behind it; numbers go up by one. So a
line that is torn or altered is noticed and lost alone, one that is gone leaves a gap, and one that was moved still
counts where its number puts it. What no line can show is that the last ones were cut off whole.

Owns: that form. Invariants: lines are only appended, and are on disk when `append` returns; a file that is written anew
takes the old one's place when all of it is on disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from scrubber.control.saved import SavedBlock

NAME = "blocks"
FORMAT = 1
_MAC_BYTES = 16


class Lifted(msgspec.Struct, frozen=True, tag_field="is", tag="lifted"):
    """All blocks of a source before this line are no more."""

    kind: str
    source: str


class Head(msgspec.Struct, frozen=True, tag_field="is", tag="head"):
    """The first line. Lines with a lower number are of another file."""

    format: int = FORMAT


Record = SavedBlock | Lifted | Head
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


@dataclass(frozen=True)
class Found:
    """What a file held. `unsound`: lines that are torn, altered or not of this file; `missing`: lines that ought to be
    there and are not (an altered one is both); `misplaced`: sound ones out of their order."""

    blocks: list[SavedBlock]
    unsound: int = 0
    missing: int = 0
    misplaced: int = 0
    error: str = ""  # it could not be read at all

    def damage(self) -> str:
        """In words; empty: there was none."""
        if self.error:
            return f"the file of blocks cannot be read: {self.error}"
        counts = {"unsound": self.unsound, "missing": self.missing, "out of place": self.misplaced}
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"the file of blocks is damaged (lines: {said})" if said else ""


class BlockFile:
    """For the one process that holds the lock. Errors are OSError; after one, only `rewrite` makes it whole again."""

    def __init__(self, directory: str, key: bytes) -> None:
        self._path = Path(directory) / NAME
        self._key = key
        self._fd = -1
        self._number = 0
        self.lines = 0

    def append(self, records: Iterable[Record]) -> None:
        """Onto the disk, and only then back."""
        _write(self._fd, self._lines(records))
        os.fdatasync(self._fd)

    def rewrite(self, batches: Iterable[Sequence[Record]]) -> None:
        """These and no others, in the place of what was there."""
        self.close()
        temporary = f"{self._path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # Unlike those of any file before, so that none of its lines passes for one of ours.
        self._number, self.lines = time.time_ns(), 0
        try:
            _write(fd, self._lines([Head()]))
            for batch in batches:
                _write(fd, self._lines(batch))
            os.fsync(fd)
            os.rename(temporary, self._path)
            _sync_directory(self._path.parent)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        self._fd = fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lines(self, records: Iterable[Record]) -> bytes:
        found = []
        for record in records:
            text = b"%d %s" % (self._number, _encode(record))
            found.append(seal(text, self._key) + b"\n")
            self._number += 1
        self.lines += len(found)
        return b"".join(found)


def read(directory: str, key: bytes) -> Found:
    """The sound part of the file of a state directory; nothing where there is none."""
    try:
        fd = os.open(Path(directory) / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(fd, "rb") as file:
            return parse(file.read(), key)
    except FileNotFoundError:
        return Found([])
    except OSError as error:
        return Found([], error=str(error.strerror))


def parse(data: bytes, key: bytes) -> Found:
    """The sound part of a file's bytes."""
    records: dict[int, Record] = {}
    unsound = misplaced = first = last = 0
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    for line in lines:
        number, record = _sound(line, key)
        if record is None or number in records:
            unsound += 1
            continue
        records[number] = record
        misplaced += number < last
        last = max(last, number)
        if isinstance(record, Head):
            first = max(first, number)
    strangers = [number for number in records if number < first]
    for number in strangers:
        del records[number]
    missing = last - min(records) + 1 - len(records) if records else 0
    blocks = _in_force(records)
    return Found(blocks, unsound + len(strangers), missing + (first == 0), max(misplaced - len(strangers), 0))


def _in_force(records: dict[int, Record]) -> list[SavedBlock]:
    """What is left when all of it has happened in its order: of each source and its areas, the last."""
    found: dict[tuple[str, str], dict[tuple[str, ...], SavedBlock]] = {}
    for number in sorted(records):
        record = records[number]
        if isinstance(record, Lifted):
            found.pop((record.kind, record.source), None)
        elif isinstance(record, SavedBlock):
            found.setdefault((record.kind, record.source), {})[record.areas] = record
    return [block for blocks in found.values() for block in blocks.values()]


def _sound(line: bytes, key: bytes) -> tuple[int, Record | None]:
    try:
        number, _, body = unsealed(line, key).partition(b" ")
        return int(number), _decode(body)
    except (ValueError, msgspec.MsgspecError):  # of a later program
        return 0, None


def seal(text: bytes, key: bytes) -> bytes:
    """A line of the file: its number and record, under a MAC."""
    return b"%s %s" % (_mac(key, text), text)


def unsealed(line: bytes, key: bytes) -> bytes:
    """The inverse of `seal`. ValueError: it is not of this key, or was altered."""
    mac, _, text = line.partition(b" ")
    if not hmac.compare_digest(mac, _mac(key, text)):
        raise ValueError("not under our MAC")
    return text


def _mac(key: bytes, text: bytes) -> bytes:
    return hashlib.blake2s(text, key=key, digest_size=_MAC_BYTES).hexdigest().encode()


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
