"""What a process of ours may do, and how it gives up the rest. There is no way back from anything here.

Owns: the order of those steps, for it matters (a bounding set can be emptied by root only, a death signal is forgotten
with the uid), and how a process' privileges are read from /proc.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_PERMITTED, _INHERITABLE = 1, 2  # words of capset's data (the first 32 capabilities)
CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL = 0, 1, 3, 5
CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_NET_BIND_SERVICE = 6, 7, 8, 10
# Of a keeper that root started: the state directory and Unix listeners are others' to own, children become others, low
# ports are bound at a reload.
KEPT_AS_ROOT = (
    CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_NET_BIND_SERVICE,
)  # fmt: skip
_CAPABILITIES_MAX = 64  # more than any kernel has; the first that it does not know ends the list

SECCOMP_MODES = {0: "", 1: "strict", 2: "filter"}


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def _libc_call(name: str, *arguments: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _prctl(option: int, *arguments: int) -> None:
    _libc_call("prctl", option, *(ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]))


def no_new_privileges() -> None:
    """Nothing that is executed from here on gains any: no set-user-ID bit, no capability of a file."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def not_dumpable() -> None:
    """No core file, and nobody of the same user attaches a debugger or reads our memory. Forgotten with exec and with
    every change of uid."""
    _prctl(_PR_SET_DUMPABLE, 0)


def drop_bounding(but: Collection[int] = ()) -> None:
    """Capabilities that no exec brings back, where we may take them away: as root. (What we have not, nothing executed
    under no_new_privs gains either.)"""
    for capability in range(_CAPABILITIES_MAX):
        if capability not in but:
            try:
                _prctl(_PR_CAPBSET_DROP, capability)
            except OSError:  # not ours to take, or the kernel knows no more
                break


def drop_capabilities() -> None:
    """All that are held."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    _libc_call("capset", ctypes.byref(header), (ctypes.c_uint32 * 6)())


def keep_for_successors() -> None:
    """The keeper's part: nothing is gained by an exec any more, so what we hold for low ports, perhaps from the
    interpreter's file, is handed on by us: the successor of an upgrade needs it, our children drop it."""
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _libc_call("capget", ctypes.byref(header), data)
    bind = 1 << CAP_NET_BIND_SERVICE
    if os.geteuid() != 0 and data[_PERMITTED] & bind:
        data[_INHERITABLE] |= bind
        _libc_call("capset", ctypes.byref(header), data)
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE)
    no_new_privileges()
    not_dumpable()


def give_up(user: tuple[int, int] | None = None) -> None:
    """What a child of the keeper does before it looks at anything of a client's. `user`: uid and gid to become."""
    no_new_privileges()
    drop_bounding()
    if user is not None:
        become(*user)
    drop_capabilities()
    not_dumpable()


def become(uid: int, gid: int) -> None:
    """This user from now on, with no group but its own; of all threads."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def may_change_user() -> bool:
    """Whether we are root with what that takes: a container's root may have less."""
    wanted = 1 << CAP_SETUID | 1 << CAP_SETGID | 1 << CAP_CHOWN
    found = Privileges.of(os.getpid())
    return os.geteuid() == 0 and found is not None and found.capabilities & wanted == wanted


def keep_as_root() -> None:
    """What is left of root in a keeper that is executed after this."""
    drop_bounding(KEPT_AS_ROOT)


@dataclass(frozen=True, slots=True)
class Privileges:
    """Of a process, as the kernel says them."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: int  # in effect
    no_new_privs: bool
    seccomp: str  # "": none, else "filter"

    @classmethod
    def of(cls, pid: int) -> Privileges | None:
        """None: it is gone."""
        try:
            with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
                words = dict(re.findall(r"^(\w+):[ \t]*(.*)$", file.read(), re.MULTILINE))
        except OSError:
            return None
        return cls(
            uid=int(words["Uid"].split()[1]),
            gid=int(words["Gid"].split()[1]),
            groups=tuple(int(each) for each in words["Groups"].split()),
            capabilities=int(words["CapEff"], 16),
            no_new_privs=words.get("NoNewPrivs") == "1",
            seccomp=SECCOMP_MODES.get(int(words.get("Seccomp", "0")), "unknown"),
        )
