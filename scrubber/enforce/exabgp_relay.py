"""Between ExaBGP and who commands it: whole lines, both ways. ExaBGP starts it, as its API process.

Run as a file: standard library only, nothing of the package. Invariant: when who commands has ended or fallen silent,
ExaBGP ends, its sessions with it, and so its routers forget what was announced.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

GOING_S = 2.0
COMMANDS, ANSWERS = 1, 0  # standard output is what ExaBGP reads


def relay(link: socket.socket, silence_s: float) -> bool:
    """Until one side is gone, or who commands said nothing for so long: whether it was ExaBGP that went."""
    poll = select.poll()
    poll.register(ANSWERS, select.POLLIN)
    poll.register(link, select.POLLIN)
    begun = b""  # a rule cut short could be a wider one
    heard = time.monotonic()
    while time.monotonic() - heard < silence_s:
        for fd, _ in poll.poll(200):
            data = os.read(fd, 65536)
            if not data:
                return fd == ANSWERS
            if fd == ANSWERS:
                link.sendall(data)
                continue
            heard = time.monotonic()
            whole, newline, begun = (begun + data).rpartition(b"\n")
            os.write(COMMANDS, whole + newline)
    return False


def end(exabgp: int) -> None:
    """It ends this process when it has ended its sessions; it is killed if it does neither."""
    with contextlib.suppress(OSError):
        os.write(COMMANDS, b"\nshutdown\n")
    deadline = time.monotonic() + GOING_S
    while (left_s := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select([ANSWERS], [], [], left_s)
        if readable and not os.read(ANSWERS, 65536):
            return
    if os.getppid() == exabgp:
        os.kill(exabgp, signal.SIGKILL)


def main() -> None:
    exabgp = os.getppid()
    path, silence_s = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as link, contextlib.suppress(OSError):
        link.settimeout(GOING_S)
        link.connect(path)
        if relay(link, float(silence_s)):
            return
    end(exabgp)


if __name__ == "__main__":
    main()
