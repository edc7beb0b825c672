"""What is wanted against what the kernel has: the difference is applied, however it came about.

Owns which drops are wanted, which backend holds each, and the order in which backends are asked. Invariants: the
envelope is asked right before every act and whenever what it allows has changed; what the kernel lists, not what was
done before, says what is there; a net is held by one backend at most, but for the moment in which it moves.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

from scrubber.enforce.backend import Backend, Count, Door, Drop
from scrubber.enforce.envelope import Envelope, Terms
from scrubber.enforce.net import Net, is_host
from scrubber.units import NS_PER_S

BATCH = 1000
LATE_NS = 2 * NS_PER_S  # by how much the kernel's word on an expiry may differ from ours
REFUSED_KEPT = 10_000


class Reconciler:
    """`step` after each change and until it says that nothing is left; `compare` now and then."""

    def __init__(self, backends: Sequence[Backend], envelope: Envelope, say: Callable[[str], None]) -> None:
        self._backends = backends
        self._envelope = envelope
        self._say = say
        self.wanted: dict[Net, Drop] = {}
        self._holder: dict[Net, int] = {}  # index of the backend that has it
        self._put: dict[Net, Drop] = {}  # as the holder was told
        self._todo: deque[Net] = deque()
        self._queued: set[Net] = set()
        self._ends: list[tuple[int, Net]] = []
        self._kinds = {True: 0, False: 0}  # in force: hosts, prefixes
        self.refused: dict[Net, str] = {}  # since it was last taken
        self.refused_lost = 0
        self.healed = 0

    # ── what is wanted ──

    def change(self, put: Mapping[Net, Drop], remove: Collection[Net]) -> None:
        for net in remove:  # first: they make room
            if self.wanted.pop(net, None) is not None:
                self._queue(net)
        for net, drop in put.items():
            self.wanted[net] = drop
            heapq.heappush(self._ends, (drop.until_ns, net))
            self._queue(net)

    def replace(self, wanted: Mapping[Net, Drop]) -> None:
        """This, and nothing else."""
        gone = [net for net in self.wanted if net not in wanted]
        changed = {net: drop for net, drop in wanted.items() if self.wanted.get(net) != drop}
        self.change(changed, gone)

    def use(self, terms: Terms, doors: Sequence[Door], *, doors_changed: bool) -> None:
        """ValueRefused: nothing has changed. Otherwise all that is in force is asked about again."""
        self._envelope.use(terms)
        if doors_changed:
            for backend in self._backends:
                backend.use_doors(doors)
        for net in self.wanted:
            self._queue(net)

    def in_force(self) -> dict[str, int]:
        found = dict.fromkeys((backend.name for backend in self._backends), 0)
        for index in self._holder.values():
            found[self._backends[index].name] += 1
        return found

    @property
    def waiting(self) -> int:
        """How many nets have to be looked at."""
        return len(self._todo)

    def due_ns(self) -> int | None:
        """When the next drop ends."""
        return self._ends[0][0] if self._ends else None

    # ── doing it ──

    def step(self, now_ns: int, most: int = BATCH) -> bool:
        """Look at so many nets, and do what is to be done about them. False: none is left."""
        self._expire(now_ns)
        nets = [self._todo.popleft() for _ in range(min(most, len(self._todo)))]
        self._queued.difference_update(nets)
        ask: list[dict[Net, Drop]] = [{} for _ in self._backends]
        gone: list[list[Net]] = [[] for _ in self._backends]
        for net in nets:
            if net not in self.wanted:
                self._let_go(net, gone)
        for net in nets:
            drop = self.wanted.get(net)
            if drop is None:
                continue
            if not self._allowed(net, drop, now_ns):
                self._let_go(net, gone)
            elif self._put.get(net) != drop and self._backends:
                ask[self._holder.get(net, 0)][net] = drop
        self._apply(ask, gone, now_ns)
        return bool(self._todo)

    def _let_go(self, net: Net, gone: list[list[Net]]) -> None:
        holder = self._holder.get(net)
        if holder is not None:
            gone[holder].append(net)
            self._forget(net)

    def _apply(self, ask: list[dict[Net, Drop]], gone: list[list[Net]], now_ns: int) -> None:
        """Backends in their order; what one does not take is put to the next."""
        for index, backend in enumerate(self._backends):
            if not ask[index] and not gone[index]:
                continue
            failed = backend.apply(ask[index], gone[index], now_ns)
            for net, drop in ask[index].items():
                why = failed.get(net)
                if why is None:
                    self._hold(net, index, drop)
                    continue
                if self._holder.get(net) == index:  # it has it as it was before, or not at all
                    backend.apply({}, [net], now_ns)
                    self._forget(net)
                if index + 1 < len(self._backends):
                    ask[index + 1][net] = drop
                else:
                    self._refuse(net, f"{backend.name}: {why}")

    def _allowed(self, net: Net, drop: Drop, now_ns: int) -> bool:
        others = self._kinds[is_host(net)] - (net in self._holder)
        why = self._envelope.refuse_drop(net, drop, now_ns, others)
        if why:
            self._refuse(net, why)
        return not why

    def _refuse(self, net: Net, why: str) -> None:
        self.wanted.pop(net, None)
        if len(self.refused) < REFUSED_KEPT:
            self.refused[net] = why
        else:
            self.refused_lost += 1

    def _hold(self, net: Net, index: int, drop: Drop) -> None:
        if net not in self._holder:
            self._kinds[is_host(net)] += 1
        self._holder[net], self._put[net] = index, drop

    def _forget(self, net: Net) -> None:
        if self._holder.pop(net, None) is not None:
            self._kinds[is_host(net)] -= 1
            self._put.pop(net, None)

    def _queue(self, net: Net) -> None:
        if net not in self._queued:
            self._queued.add(net)
            self._todo.append(net)

    def _expire(self, now_ns: int) -> None:
        """What is over is no more wanted. The kernel lets go by itself; a backend that cannot is told."""
        while self._ends and self._ends[0][0] <= now_ns:
            _, net = heapq.heappop(self._ends)
            drop = self.wanted.get(net)
            if drop is not None and drop.until_ns <= now_ns:
                del self.wanted[net]
                self._queue(net)

    # ── what the kernel says ──

    def compare(self, now_ns: int) -> int:
        """Ask every backend what it has; differences are queued. How many there were. OSError: one did not say."""
        found = 0
        for index, backend in enumerate(self._backends):
            has = backend.listed(now_ns)
            for net, drop in has.items():
                if self._holder.get(net) != index:
                    self._hold_stray(net, index, drop)
                    found += 1
                elif drop.doors != self._put[net].doors or abs(drop.until_ns - self._put[net].until_ns) > LATE_NS:
                    self._put[net] = drop
                    self._queue(net)
                    found += 1
            lost = [net for net, holder in self._holder.items() if holder == index and net not in has]
            for net in lost:
                found += self._put[net].until_ns - LATE_NS > now_ns  # else it has only just ended
                self._forget(net)
                self._queue(net)
        self.healed += found
        return found

    def _hold_stray(self, net: Net, index: int, drop: Drop) -> None:
        """A backend has what it is not known to have: of an earlier process, or by somebody else's hand."""
        other = self._holder.get(net)
        if other is None:
            self._hold(net, index, drop)
        else:
            self._backends[index].apply({}, [net], 0)
        self._queue(net)

    def counted(self) -> dict[Net, Count]:
        found: dict[Net, Count] = {}
        for backend in self._backends:
            found.update(backend.counted())
        return found

    def close(self, *, withdraw: bool) -> None:
        for backend in self._backends:
            try:
                backend.close(withdraw=withdraw)
            except OSError as error:
                self._say(f"{backend.name}: {error}")
