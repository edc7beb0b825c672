"""Several processes against one table, in C loops: what the races of the shared memory have in common."""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

PARTIES = 2


def _run(job: Callable[[], Any], pipe: Connection) -> None:
    pipe.send(job())
    pipe.close()


def together(*jobs: Callable[[], Any]) -> list[Any]:
    """Each job in a forked process; what they return, in order. A job that dies raises EOFError here."""
    fork = multiprocessing.get_context("fork")
    pipes, children = [], []
    for job in jobs:
        ours, theirs = fork.Pipe(duplex=False)
        children.append(fork.Process(target=_run, args=(job, theirs)))
        children[-1].start()
        theirs.close()
        pipes.append(ours)
    try:
        return [pipe.recv() for pipe in pipes]
    finally:
        for child, pipe in zip(children, pipes, strict=True):
            child.join()
            pipe.close()


def page() -> mmap.mmap:
    """A page of zeros that children share."""
    return mmap.mmap(-1, mmap.PAGESIZE)
