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
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_PERMITTED, _INHERITABLE = 1, 2  # words of capset's data (the first 32 capabilities)
CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL = 0, 1, 3, 5
CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN = 6, 7, 8, 10, 12
CAP_SYS_RESOURCE, CAP_PERFMON, CAP_BPF = 24, 38, 39
# Of a keeper that root started: the state directory and Unix listeners are others' to own, children become others, low
# ports are bound at a reload.
KEPT_AS_ROOT = (
    CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_NET_BIND_SERVICE,
)  # fmt: skip
# What the enforcer is given more: its one capability, and until it has loaded its program what that takes.
FOR_ENFORCER = (CAP_NET_ADMIN,)
FOR_XDP = (CAP_SYS_RESOURCE, CAP_PERFMON, CAP_BPF)
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


def drop_capabilities(but: Collection[int] = ()) -> None:
    """All that are held but these, of the first 32; those that are not held are not gained."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if but:
        _libc_call("capget", ctypes.byref(header), data)
    kept = data[_PERMITTED] & sum(1 << each for each in but)
    _libc_call("capset", ctypes.byref(header), (ctypes.c_uint32 * 6)(kept, kept))


def keep_for_successors() -> None:
    """The keeper's part: nothing is gained by an exec any more, so what we hold for low ports and for the enforcer,
    perhaps from the interpreter's file, is handed on by us: the successor of an upgrade needs it, and so does the
    enforcer; our other children drop it."""
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _libc_call("capget", ctypes.byref(header), data)
    for capability in (CAP_NET_BIND_SERVICE, CAP_NET_ADMIN):
        if os.geteuid() != 0 and data[_PERMITTED] & 1 << capability:
            data[_INHERITABLE] |= 1 << capability
            _libc_call("capset", ctypes.byref(header), data)
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)
    no_new_privileges()
    not_dumpable()


def give_up(user: tuple[int, int] | None = None, keep: Collection[int] = ()) -> None:
    """What a child of the keeper does before it looks at anything of a client's. `user`: uid and gid to become;
    `keep`: capabilities that stay."""
    no_new_privileges()
    drop_bounding(keep)
    if user is not None:
        if keep:
            _prctl(_PR_SET_KEEPCAPS, 1)
        become(*user)
    drop_capabilities(keep)
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


def may_administer() -> bool:
    """Whether we hold what an enforcer needs: CAP_NET_ADMIN."""
    found = Privileges.of(os.getpid())
    return found is not None and bool(found.capabilities >> CAP_NET_ADMIN & 1)


def keep_as_root(more: Collection[int] = ()) -> None:
    """What is left of root in a keeper that is executed after this."""
    drop_bounding((*KEPT_AS_ROOT, *more))


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
