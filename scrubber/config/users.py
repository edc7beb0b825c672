"""[users]: as whom the processes run that root starts."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from scrubber.config.walk import Doc, Reads
from scrubber.errors import ValueRefused

# Where nobody of the default names exists; below 60000, where neither systemd nor adduser gives any away.
SUPERVISOR_UID = 57801
WORKER_UID = 57802
ENFORCER_UID = 57803
UID_MAX = 2**32 - 2
EXPECTED = 'a user\'s name as "scrubber", or a uid'


def _parse_user(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= UID_MAX:
        return str(value)
    if isinstance(value, str) and value and value not in ("root", "nobody") and not value.isspace():
        return value
    hint = "root and nobody are none: these processes need a user that owns nothing else"
    raise ValueRefused(f"{value!r} is not a user to run as", expected=EXPECTED, hint=hint)


USER = Reads(_parse_user, "", "user name, or uid", lambda value: f'"{value}"' if value else "none")


class Users(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Only where the gateway is started by root; a change takes `scrubber upgrade`. All different."""

    supervisor: Annotated[
        str,
        USER,
        Doc(
            "Of the process that reads files, writes logs and serves the admin side: owns `state_dir`.",
            '"scrubber"',
            default=f"`scrubber` where there is such a user, else the uid {SUPERVISOR_UID}",
        ),
    ] = ""
    worker: Annotated[
        str,
        USER,
        Doc(
            "Of the processes that carry traffic: owns nothing.",
            '"scrubber-worker"',
            default=f"`scrubber-worker` where there is such a user, else the uid {WORKER_UID}",
        ),
    ] = ""
    enforcer: Annotated[
        str,
        USER,
        Doc(
            "Of the process that may change the kernel's filters (only with `[enforcer]`): owns nothing.",
            '"scrubber-enforcer"',
            default=f"`scrubber-enforcer` where there is such a user, else the uid {ENFORCER_UID}",
        ),
    ] = ""
