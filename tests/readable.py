"""Which of some sockets can be read. select(2) knows none above 1,023, and a process of tests may have more."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable


def readable(sockets: Iterable[socket.socket], timeout_s: float) -> list[socket.socket]:
    """Those with something to read, an end or an error; none once the time is over."""
    poll = select.poll()
    by_fd = {each.fileno(): each for each in sockets}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poll.poll(timeout_s * 1000)]
