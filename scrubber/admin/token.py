"""The admin side's token: made once, kept in a file that only its owner reads.

Owns: that file's form and mode.
"""

from __future__ import annotations

import os
import secrets

from scrubber.errors import OperatorError


def make(path: str, owner: tuple[int, int] | None = None) -> None:
    """Write a new token unless the file is there. `owner`: uid and gid, not ours. OperatorError: it cannot be
    written."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        hint = "choose a state_dir that this user may write"
        raise OperatorError(f"cannot write {path}: {error.strerror}", hint=hint) from None
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            if owner is not None:
                os.fchown(fd, *owner)
            file.write(secrets.token_urlsafe(32) + "\n")
    except OSError as error:
        os.unlink(path)  # else the next start finds half of one
        raise OperatorError(f"cannot write {path}: {error.strerror}", hint="make room on its disk") from None


def read(path: str) -> str:
    """The token. OperatorError: it cannot be read, or others could."""
    try:
        with open(path, encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            token = file.read(1024).strip()
    except FileNotFoundError:
        hint = "is the gateway running? start it with: scrubber run GATEWAY.toml"
        raise OperatorError(f"there is no token at {path}", hint=hint) from None
    except (OSError, UnicodeDecodeError) as error:
        hint = "run this as the user that runs the gateway"
        raise OperatorError(f"cannot read the token {path}: {error}", hint=hint) from None
    if mode & 0o077:
        hint = f"remove it (rm {path}) and start the gateway again: a new one is made"
        raise OperatorError(f"the token {path} may be read by others (mode {mode:03o})", hint=hint)
    if len(token) < 16:
        raise OperatorError(f"the token {path} is too short", hint=f"remove it (rm {path}) and start the gateway again")
    return token
