"""What is wanted upstream against what is announced: the difference is applied, each act after the envelope's leave.

Owns which blackholes are announced, which FlowSpec rules may be, and how long either lasts without a supervisor.
Invariants: the envelope is asked right before each announcement and whenever what it allows has changed; what nobody
asks for any more is withdrawn, and with the supervisor gone for LOST_NS nobody asks for anything. Blackholes are
carried out here (`Announcer`); rules are the supervisor's to carry out, and it does what this says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scrubber.enforce.announce import Announcer, Blackhole
from scrubber.enforce.envelope import Envelope
from scrubber.enforce.flow import Action, Flow
from scrubber.enforce.messages import REASON_CHARS
from scrubber.units import NS_PER_S

LOST_NS = 60 * NS_PER_S


class Upstream:
    """Used by one thread. `step` after each change, and when `due_ns` says."""

    def __init__(self, announcer: Announcer | None, envelope: Envelope) -> None:
        """Without an announcer every blackhole is refused."""
        self._announcer, self._envelope = announcer, envelope
        self._wanted: dict[Blackhole, int] = {}  # until_ns
        self._announced: dict[Blackhole, int] = {}
        self._rules: dict[str, Action] = {}  # that may be announced, by what they match
        self._asked = False  # whether something is to be settled
        self._lost_ns = 0  # when the supervisor was last there; 0: it is
        self.refused: dict[Blackhole, str] = {}  # since it was last taken

    # ── what is wanted ──

    def want(self, wanted: Mapping[Blackhole, int]) -> None:
        """This, and nothing else."""
        self._wanted = dict(wanted)
        self._asked = True

    def ask_again(self) -> None:
        """What the envelope allows has changed."""
        self._asked = True

    def lost(self, now_ns: int) -> None:
        """There is no supervisor."""
        self._lost_ns = self._lost_ns or now_ns

    def found(self) -> None:
        """There is one."""
        self._lost_ns = 0

    def judge(self, flows: Sequence[Flow], now_ns: int) -> list[tuple[int, str]]:
        """These rules, and no others, are wanted: which of them, by place, may not be, and why."""
        allowed: dict[str, Action] = {}
        refused: list[tuple[int, str]] = []
        for place, flow in enumerate(flows):
            again = self._rules.get(flow.match) == flow.action
            why = self._envelope.refuse_flow(flow, now_ns, len(allowed), again=again)
            if why or flow.match in allowed:
                refused.append((place, why[:REASON_CHARS] or "it is there twice"))
            else:
                allowed[flow.match] = flow.action
        self._rules = allowed
        return refused

    # ── doing it ──

    @property
    def in_force(self) -> list[Blackhole]:
        return list(self._announced)

    def due_ns(self) -> int | None:
        """When there is something to do without having been asked."""
        ends = [min(self._announced.values())] if self._announced else []
        return min([*ends, *([self._lost_ns + LOST_NS] if self._lost_ns and self._wanted else [])], default=None)

    def fileno(self) -> int:
        return self._announcer.fileno() if self._announcer is not None else -1

    def disturbed(self) -> bool:
        """Whether somebody may have changed what is announced: then `compare`."""
        return self._announcer is not None and self._announcer.disturbed()

    def step(self, now_ns: int) -> bool:
        """Does what is to be done. Whether something has changed."""
        if self._lost_ns and now_ns - self._lost_ns >= LOST_NS:
            self._wanted = {}
            self._rules = {}
            self._asked = True
        over = [key for key, until_ns in self._wanted.items() if until_ns <= now_ns]
        for key in over:
            del self._wanted[key]
        if not (self._asked or over):
            return False
        self._asked = False
        self._settle(now_ns)
        return True

    def compare(self, now_ns: int) -> int:
        """What the kernel has against what is remembered; how many it has lost. OSError: it does not say."""
        if self._announcer is None:
            return 0
        has = self._announcer.listed(now_ns)
        lost = [key for key in self._announced if key not in has]
        for key in lost:
            del self._announced[key]
        self._asked = self._asked or bool(lost)
        return len(lost)

    def close(self) -> None:
        """All is withdrawn."""
        if self._announcer is not None:
            self._announcer.close()

    def _settle(self, now_ns: int) -> None:
        gone = [key for key in self._announced if key not in self._wanted]
        for key in gone:
            del self._announced[key]
        put: dict[Blackhole, int] = {}
        fresh = 0
        for key, until_ns in list(self._wanted.items()):
            known = key in self._announced
            why = self._refused(key, until_ns, now_ns, len(self._announced) + fresh - known)
            if why:
                self._refuse(key, why)
                if self._announced.pop(key, None) is not None:
                    gone.append(key)
            elif self._announced.get(key) != until_ns:
                put[key] = until_ns
                fresh += not known
        self._carry_out(put, gone, now_ns)

    def _refused(self, key: Blackhole, until_ns: int, now_ns: int, others: int) -> str:
        net, kind = key
        if self._announcer is None:
            return "nothing can be announced here"
        if kind not in ("victim", "source"):
            return f"{kind!r} is no kind of blackhole"
        return self._envelope.refuse_announcement(
            net, "victim" if kind == "victim" else "source", until_ns, now_ns, others, again=key in self._announced
        )

    def _carry_out(self, put: dict[Blackhole, int], gone: list[Blackhole], now_ns: int) -> None:
        if self._announcer is None or not (put or gone):
            return
        failed = self._announcer.apply(put, gone, now_ns)
        for key, until_ns in put.items():
            if key in failed:
                self._refuse(key, failed[key])
                self._announced.pop(key, None)
            else:
                self._announced[key] = until_ns

    def _refuse(self, key: Blackhole, why: str) -> None:
        self._wanted.pop(key, None)
        self.refused[key] = why[:REASON_CHARS]
