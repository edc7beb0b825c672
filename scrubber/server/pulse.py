"""When is a child wedged? When its beat has not moved although it had the time to move it.

Owns: that judgement, from numbers only, and how the numbers are read from /proc.
Invariants: time spent waiting for a CPU is never held against a child, nor is time in which the keeper itself did
not run.
"""

from __future__ import annotations

from dataclasses import dataclass

WEDGED_NS = 450_000_000  # of opportunity without a beat
START_NS = 5_000_000_000  # of opportunity until the first beat
STEP_NS_MAX = 200_000_000  # most that one check may count: a late keeper proves nothing about its children


@dataclass(frozen=True, slots=True)
class Schedule:
    """A process' main thread as the scheduler sees it."""

    run_ns: int  # time on a CPU
    delay_ns: int  # time runnable, waiting for one; grows only when it gets one
    runnable: bool


def read_schedule(pid: int) -> Schedule | None:
    """None: the process is gone or the kernel does not say (then only wall time counts)."""
    try:
        with open(f"/proc/{pid}/schedstat", "rb") as file:
            run, delay = file.read().split()[:2]
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return None
    return Schedule(int(run), int(delay), state == b"R")


class Pulse:
    """One child's beat over time."""

    def __init__(self, now_ns: int, wedged_ns: int = WEDGED_NS) -> None:
        self._checked_ns = now_ns
        self._wedged_ns = wedged_ns
        self._beat = 0
        self._idle_ns = 0
        self._last: Schedule | None = None

    @property
    def started(self) -> bool:
        """Whether there was a beat at all."""
        return self._beat != 0

    def wedged(self, beat_ns: int, schedule: Schedule | None, now_ns: int) -> bool:
        """Take one look; True: it had its opportunity and did nothing with it."""
        step_ns = min(now_ns - self._checked_ns, STEP_NS_MAX)
        last, self._last, self._checked_ns = self._last, schedule, now_ns
        if beat_ns != self._beat:
            self._beat, self._idle_ns = beat_ns, 0
            return False
        if schedule is not None and last is not None:
            if schedule.runnable and schedule.run_ns == last.run_ns:
                return False  # in the queue all along; its delay is added when it runs
            step_ns -= schedule.delay_ns - last.delay_ns
        self._idle_ns += max(step_ns, 0)
        return self._idle_ns >= (self._wedged_ns if self.started else START_NS)
