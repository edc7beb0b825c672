"""What is announced upstream, on disk: `upstream` in the state directory, so that it outlives the supervisor.

One line, `MAC JSON`, written whole each time. Owns that form. Invariant: what was torn or altered is not read at all,
and nothing of it is announced then.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from scrubber.control.blackholes import Announced
from scrubber.server import block_file

NAME = "upstream"
BYTES_MAX = 1 << 24
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Announced]).decode


def write(directory: str, key: bytes, announced: list[Announced]) -> None:
    """In the place of what was there. OSError."""
    path = Path(directory) / NAME
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(block_file.seal(_encode(announced), key) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read(directory: str, key: bytes) -> tuple[list[Announced], str]:
    """What was announced; and what is wrong with the file, empty: nothing, or there is none."""
    try:
        fd = os.open(Path(directory) / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(fd, "rb") as file:
            data = file.read(BYTES_MAX)
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], f"what was announced upstream cannot be read: {error.strerror}"
    try:
        return _decode(block_file.unsealed(data.removesuffix(b"\n"), key)), ""
    except (ValueError, msgspec.MsgspecError):
        return [], "the file of what was announced upstream is damaged: nothing of it is announced again"
