"""The gateway's secret: made once, kept in a file of the state directory that only its owner reads.

Owns: that file, and what is derived of it: the key of all hashes in shared memory (so that blocks by hashed keys hold
over a stop), and the keys of the files of blocks and announcements. Whoever writes the former holds a lock on this one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from scrubber.errors import OperatorError

NAME = "secret"
BYTES = 32


@dataclass(frozen=True)
class Secret:
    """Keys, each for one purpose."""

    memory: bytes  # 16 bytes, of the hashes in shared memory
    blocks: bytes  # 32 bytes, of the file of blocks
    upstream: bytes  # 32 bytes, of the file of what is announced upstream


def make(directory: str, owner: tuple[int, int] | None = None) -> Secret:
    """The secret of a state directory, made where there is none; `owner`: (uid, gid) of who is to read it.
    OperatorError."""
    path = Path(directory) / NAME
    temporary = f"{path}.{os.getpid()}"
    try:
        if not path.exists():
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if owner is not None:
                    os.fchown(fd, *owner)
                os.write(fd, secrets.token_hex(BYTES).encode() + b"\n")
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, path)
    except OSError as error:
        hint = "choose a state_dir that this user may write"
        raise OperatorError(f"cannot write {path}: {error.strerror}", hint=hint) from None
    return read(directory)


def read(directory: str) -> Secret:
    """OperatorError: it cannot be read, is none of ours, or others could read it."""
    path = Path(directory) / NAME
    hint = f"remove it (rm {path}) and start the gateway again: a new one is made, and blocks on disk are let go"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            raw = bytes.fromhex(os.read(fd, 4 * BYTES).decode("ascii"))
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        raise OperatorError(f"cannot read the secret {path}: {error}", hint=hint) from None
    if mode & 0o077:
        raise OperatorError(f"the secret {path} may be read by others (mode {mode:03o})", hint=hint)
    if len(raw) != BYTES:
        raise OperatorError(f"the secret {path} has {len(raw)} bytes, not {BYTES}", hint=hint)
    return Secret(
        memory=hashlib.blake2s(key=raw, person=b"memory", digest_size=16).digest(),
        blocks=hashlib.blake2s(key=raw, person=b"blocks").digest(),
        upstream=hashlib.blake2s(key=raw, person=b"upstream").digest(),
    )


def lock(directory: str) -> int:
    """A descriptor that holds the lock on it, until it is closed or this process ends. BlockingIOError: another has it;
    OSError."""
    fd = os.open(Path(directory) / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd
