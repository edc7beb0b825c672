"""A process driven by ptrace: made to ask the kernel for what its own program never asks for. x86_64, as root.

(A debugger's inferior calls do the same, but not every gdb can write the registers of every CPU.)
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Sequence

_SINGLESTEP, _GETREGS, _SETREGS, _ATTACH, _DETACH = 9, 12, 13, 16, 17
_RAX, _ORIG_RAX, _RIP, _RSP = 10, 15, 16, 19
_ARGUMENTS = (14, 13, 12, 7, 9, 8)  # rdi, rsi, rdx, r10, r8, r9
_WALL = 0x40000000
_SYSCALL = b"\x0f\x05"
Argument = int | bytes
Call = tuple[int, Sequence[Argument]]


def _ptrace(request: int, pid: int, data: object = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(0), data or ctypes.c_void_p(0)) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def drive(pid: int, keeper: int, calls: Sequence[Call]) -> list[int]:
    """What each of these system calls returned there (-errno: refused); shorter where one ended the process. Bytes are
    put onto its stack, and passed by address. The keeper is held meanwhile: it would kill a worker that does not
    beat."""
    os.kill(keeper, signal.SIGSTOP)
    try:
        _attach(pid)
        return _drive(pid, calls)
    finally:
        os.kill(keeper, signal.SIGCONT)


def _attach(pid: int) -> None:
    """Stopped inside a system call, as nearly always."""
    for _ in range(200):
        _ptrace(_ATTACH, pid)
        os.waitpid(pid, _WALL)
        with open(f"/proc/{pid}/mem", "rb") as memory:
            memory.seek(_registers(pid)[_RIP] - len(_SYSCALL))
            if memory.read(len(_SYSCALL)) == _SYSCALL:
                return
        _ptrace(_DETACH, pid)
        time.sleep(0.01)
    raise AssertionError("the process never waits")


def _registers(pid: int) -> ctypes.Array[ctypes.c_uint64]:
    found = (ctypes.c_uint64 * 27)()
    _ptrace(_GETREGS, pid, ctypes.byref(found))
    return found


def _drive(pid: int, calls: Sequence[Call]) -> list[int]:
    before, results = _registers(pid), []
    for number, arguments in calls:
        registers = type(before)(*before)
        registers[_RAX], registers[_ORIG_RAX], registers[_RIP] = number, 2**64 - 1, before[_RIP] - len(_SYSCALL)
        for at, each in zip(_ARGUMENTS, [*arguments, *[0] * 6][:6], strict=True):
            value = each if isinstance(each, int) else _put(pid, before[_RSP] - 4096, each)
            registers[at] = value % 2**64
        _ptrace(_SETREGS, pid, ctypes.byref(registers))
        _ptrace(_SINGLESTEP, pid)
        _, status = os.waitpid(pid, _WALL)
        if os.WIFSIGNALED(status):
            return results
        results.append(ctypes.c_int64(_registers(pid)[_RAX]).value)
    _ptrace(_SETREGS, pid, ctypes.byref(before))
    _ptrace(_DETACH, pid)
    return results


def _put(pid: int, address: int, text: bytes) -> int:
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        memory.write(text + b"\0")
    return address
