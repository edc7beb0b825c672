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


FOREIGN_MAX = 0.05  # share of the proxy's core that others may take before a run is called disturbed
STEAL_MAX = 0.02


@dataclass(frozen=True, slots=True)
class Use:
    """What a process with all below it, and a core, did between two moments."""

    cpu_ns: int  # of the processes
    core_ns: int  # the core was busy, whoever made it so
    task_ns: int  # of this, in processes: these and any other
    steal_ns: int
    wall_ns: int
    pids_changed: bool = False

    def disturbance(self) -> str:
        """What else had the core meanwhile; empty where the processes had it to themselves."""
        said = []
        steal = self.steal_ns / max(self.wall_ns, 1)
        if steal > STEAL_MAX:
            said.append(f"{steal:.0%} of the core was stolen")
        foreign = (self.task_ns - self.cpu_ns) / max(self.wall_ns, 1)
        if foreign > FOREIGN_MAX:
            said.append(f"others had {foreign:.0%} of the core")
        return ", ".join(said)


class Meter:
    """Begun when made: what the process `root` with all below it, and its core, do until `stop`."""

    def __init__(self, root: int, core: int) -> None:
        self.root, self.core = root, core
        self.pids = descendants(root)
        self.core_before, self.cpu_before = core_time(core), cpu_ns(self.pids)

    def stop(self) -> Use:
        cpu = cpu_ns(self.pids) - self.cpu_before
        busy, task, steal, wall = difference(self.core_before, core_time(self.core))
        return Use(cpu, busy, task, steal, wall, sorted(self.pids) != sorted(descendants(self.root)))


def difference(before: CoreTime, after: CoreTime) -> tuple[int, int, int, int]:
    """Busy, task, steal and wall time between two readings of a core, ns."""
    busy, steal = after.busy_ns - before.busy_ns, after.steal_ns - before.steal_ns
    return busy, after.task_ns - before.task_ns, steal, busy + steal + after.idle_ns - before.idle_ns


def memory_bytes(pids: Iterable[int]) -> int:
    """User space of these processes: anonymous and shared memory, each page once (smaps_rollup, proc_pid_smaps(5))."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) * 1024
    return total


def usable_cores() -> list[int]:
    """Those that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def cores() -> tuple[int, int]:
    """The core for the proxy and the core for load and origin; the same one twice where there is only one."""
    usable = usable_cores()
    return usable[0], usable[-1]
