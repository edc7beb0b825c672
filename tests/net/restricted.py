"""`python tests/net/restricted.py PROGRAM…` runs it as our systemd unit restricts it, without systemd: by a filter of
seccomp as RestrictAddressFamilies= makes one (AF_INET AF_INET6 AF_UNIX AF_NETLINK), by prctl(2) as
MemoryDenyWriteExecute= does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys

_SOCKET_CALL = {"x86_64": 41, "aarch64": 198}
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK)
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
_PR_SET_NO_NEW_PRIVS = 38
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT, _FIRST_ARGUMENT_AT = 0, 16  # in struct seccomp_data


def main(argv: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    jumps = [(_EQUAL, len(_FAMILIES) - at, 0, family) for at, family in enumerate(_FAMILIES)]
    steps = [
        (_LOAD, 0, 0, _NUMBER_AT),
        (_EQUAL, 0, len(_FAMILIES) + 2, _SOCKET_CALL[os.uname().machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        *jumps,
        (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    filter_of = struct.pack("HP", len(steps), ctypes.addressof(program))
    calls = [
        (_PR_SET_NO_NEW_PRIVS, 1, 0),
        (_PR_SET_MDWE, _PR_MDWE_REFUSE_EXEC_GAIN, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(filter_of)),
    ]
    for option, second, third in calls:
        if libc.prctl(option, ctypes.c_ulong(second), third, 0, 0):
            sys.exit(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
    os.execvp(argv[1], argv[1:])  # noqa: S606 - it is what this is for


if __name__ == "__main__":
    main(sys.argv)
