"""What processes and cores did: CPU time from /proc, and where processes run.

Invariant: a process's time is that of all its threads and of all its descendants that still live; times are in
nanoseconds, from /proc/PID/task/TID/schedstat, which counts them exactly where /proc/PID/stat counts ticks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CoreTime:
    """A core's time since boot, ns. `busy`: tasks and interrupts, without what the hypervisor took; that is `steal`."""

    busy_ns: int
    task_ns: int
    idle_ns: int
    steal_ns: int


def parse_core_line(line: str) -> CoreTime:
    """A "cpuN …" line of /proc/stat: user nice system idle iowait irq softirq steal guest guest_nice (proc_stat(5))."""
    ticks = [int(word) for word in line.split()[1:]]
    user, nice, system, idle, iowait, irq, softirq, steal = (ticks + [0] * 8)[:8]
    task = user + nice + system
    return CoreTime((task + irq + softirq) * TICK_NS, task * TICK_NS, (idle + iowait) * TICK_NS, steal * TICK_NS)


def core_time(core: int) -> CoreTime:
    """The time of one core by now."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        if line.startswith(f"cpu{core} "):
            return parse_core_line(line)
    raise LookupError(f"/proc/stat knows no core {core}")


def parse_schedstat(text: str) -> int:
    """Time on a CPU, ns: the first of the three numbers."""
    return int(text.split(maxsplit=1)[0])


def descendants(root: int) -> list[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def cpu_ns(pids: Iterable[int]) -> int:
    """CPU time of these processes, all threads."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += parse_schedstat((task / "schedstat").read_text(encoding="ascii"))
    return total


def cores() -> tuple[int, int]:
    """The core for the proxy and the core for load and origin; the same one twice where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]
