"""FlowSpec rules announced through ExaBGP: a process of its own, started, watched and restarted here.

Owns which rules ExaBGP announces, its life, and when a rule's time is up. Fits a poll loop: `fileno` is readable when
there is something to do, `step` does it and says when it has to be called again at the latest. The envelope is the
caller's to ask. Invariants: at most `flows_max` rules are announced; withdrawing comes before all else; whatever ends
(this process, the relay, ExaBGP), the sessions end with it, and a router forgets what a session told it: graceful
restart, by which it would not, is never negotiated.

What ExaBGP 4.2 makes necessary (the second and third are in the tests, the others in its source):
- "done" does not say that a rule was announced: neither when its family is not configured, nor when no session is up.
- Commands about one rule that pile up are not sent in their order: announce, withdraw, announce ends in withdrawn, and
  an action changed and changed back, while a router is away, in the one between. Hence one command at a time, and a
  withdrawal before each change.
- Some commands that it cannot carry out are never answered: hence a deadline.
- What it says of a session going down holds text that the router chose, newlines included: sessions are asked for.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from scrubber.enforce.exabgp_life import Gone, Life
from scrubber.enforce.exabgp_settings import Settings, check, configuration, environment, remove_files, write_files
from scrubber.enforce.flow import Action, Family, Flow, announcement, withdrawal
from scrubber.units import NS_PER_S

ANSWER_NS = 10 * NS_PER_S
LINK_NS = 30 * NS_PER_S  # from the start to the relay: it looks its own name up in the DNS before
LOOK_DOWN_NS, LOOK_UP_NS = NS_PER_S, 5 * NS_PER_S  # between questions about the sessions; well below SILENCE_S
PAUSE_NS_MIN, PAUSE_NS_MAX = NS_PER_S, 60 * NS_PER_S  # before a restart; doubled each time
STEADY_NS = 60 * NS_PER_S  # who lived that long starts over with the shortest pause
LOG_LINES, ANSWER_LINES_MAX = 64, 4096
LOOK = "show neighbor extensive"


@dataclass(frozen=True)
class _Asked:
    """A command that waits for its answer. `match` of None: how the sessions are."""

    text: str
    match: str | None = None
    action: Action | None = None  # None: withdrawn

    @property
    def withdraws(self) -> bool:
        return self.match is not None and self.action is None


class ExaBgp:
    """Used by one thread, in whose network namespace ExaBGP runs. Nothing is started before the first `step`."""

    def __init__(self, settings: Settings) -> None:
        check(settings)
        self._settings = settings
        self._paths = write_files(settings.directory, configuration(settings), environment())
        self._epoll = select.epoll()
        self._wanted: dict[str, Flow] = {}
        self._told: dict[str, Action] = {}  # in this life, and acknowledged
        self._asked: _Asked | None = None
        self._said: list[str] = []  # the answer so far
        self._by_ns = 0  # when an answer, or the relay, has to be there
        self._look_ns = 0
        self._life: Life | None = None
        self._born_ns = 0
        self._start_ns = 0
        self._pause_ns = PAUSE_NS_MIN
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.starts = 0
        self.refused: dict[str, str] = {}  # what ExaBGP did not take, by `Flow.match`; the latest
        self.sessions: dict[str, frozenset[Family]] = {}  # that are up, by address: what each takes

    def fileno(self) -> int:
        return self._epoll.fileno()

    @property
    def pid(self) -> int:
        """Of ExaBGP; 0: there is none at present."""
        return self._life.pid if self._life else 0

    def apply(self, put: Iterable[Flow], remove: Collection[str], now_ns: int) -> dict[str, str]:
        """These rules are wanted (those that are there get their new time and action), and those, by `Flow.match`, no
        longer. Returns what was not taken, and why. Carried out by `step`, which is called here."""
        refused = {}
        for match in remove:
            self._wanted.pop(match, None)
        for flow in put:
            match = flow.match
            if flow.family not in self._settings.families:
                refused[match] = f"no session is meant to carry {flow.family}"
            elif flow.until_ns <= now_ns:
                refused[match] = "its time is over"
            elif match not in self._wanted and len(self._wanted) >= self._settings.flows_max:
                refused[match] = "full"
            else:
                self._wanted[match] = flow
                self.refused.pop(match, None)
        self.step(now_ns)
        return refused

    def in_force(self) -> dict[str, Flow]:
        """What ExaBGP has taken: announced in every session that is up and takes the family."""
        return {match: flow for match, flow in self._wanted.items() if self._told.get(match) == flow.action}

    def step(self, now_ns: int) -> int:
        """Does what there is to do, without waiting. Returns when it wants to be called at the latest."""
        over = [match for match, flow in self._wanted.items() if flow.until_ns <= now_ns]
        for match in over:
            del self._wanted[match]
        try:
            if self._life is None:
                if now_ns < self._start_ns:
                    return self._start_ns
                self._start(now_ns)
            else:
                self._listen(self._life, now_ns)
            return self._speak(now_ns)
        except Gone as gone:
            return self._lost(str(gone), now_ns)

    def close(self) -> None:
        """Ends ExaBGP, within seconds: with its sessions all is withdrawn."""
        self._wanted.clear()
        if self._life is not None:
            self._life.end(gently=True)
        self._forget()
        self._epoll.close()
        remove_files(self._paths)

    def _start(self, now_ns: int) -> None:
        self.starts += 1
        self._born_ns, self._by_ns = now_ns, now_ns + LINK_NS
        self._life = Life(self._paths, self._epoll, self.log)

    def _listen(self, life: Life, now_ns: int) -> None:
        for line in life.lines():
            if line not in ("done", "error"):
                self._said.append(line)
                if len(self._said) > ANSWER_LINES_MAX:
                    raise Gone("it answers without end")
            elif self._asked is None:
                raise Gone("it answered what nobody had asked")
            else:
                self._answered(self._asked, line == "done", now_ns)

    def _answered(self, asked: _Asked, done: bool, now_ns: int) -> None:
        said, self._said, self._asked = self._said, [], None
        if asked.match is None:
            self.sessions = sessions(said)
            down = len(self.sessions) < len(self._settings.neighbours)
            self._look_ns = now_ns + (LOOK_DOWN_NS if down else LOOK_UP_NS)
            return
        if asked.withdraws and not done:
            raise Gone("it did not withdraw a rule")  # its end does
        if asked.action is None:
            self._told.pop(asked.match, None)
        elif done:
            self._told[asked.match] = asked.action
        else:
            self._not_taken(asked.match)

    def _not_taken(self, match: str) -> None:
        """Asking again would bring the same answer; the rule is let go."""
        self._wanted.pop(match, None)
        self.refused[match] = f"ExaBGP refused it: {self.log[-1] if self.log else 'it did not say why'}"
        while len(self.refused) > self._settings.flows_max:
            del self.refused[next(iter(self.refused))]

    def _speak(self, now_ns: int) -> int:
        """Sends the next command. Returns when there is something to do without having heard anything."""
        if self._life is None or not self._life.linked or self._asked is not None:
            if now_ns >= self._by_ns:
                raise Gone(f"no answer to: {self._asked.text}" if self._asked else "its relay did not come")
            return self._by_ns
        self._asked, due_ns = self._next(now_ns)
        if self._asked is None:
            return due_ns
        self._by_ns = now_ns + ANSWER_NS
        self._life.say(self._asked.text)
        return self._by_ns

    def _next(self, now_ns: int) -> tuple[_Asked | None, int]:
        """What has to be said now; if nothing, when."""
        for match, action in self._told.items():
            if match not in self._wanted or self._wanted[match].action != action:
                return _Asked(withdrawal(match), match), now_ns
        for match, flow in self._wanted.items():
            if match not in self._told:
                return _Asked(announcement(flow), match, flow.action), now_ns
        if self._look_ns <= now_ns:
            return _Asked(LOOK), now_ns
        return None, min([self._look_ns, *(flow.until_ns for flow in self._wanted.values())])

    def _lost(self, why: str, now_ns: int) -> int:
        self.log.append(f"ended: {why}")
        if self._life is not None:
            self._life.end(gently=False)
        if now_ns - self._born_ns >= STEADY_NS:
            self._pause_ns = PAUSE_NS_MIN
        self._start_ns = now_ns + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, PAUSE_NS_MAX)
        self._forget()
        return self._start_ns

    def _forget(self) -> None:
        """What the next life knows nothing of."""
        self._life = None
        self._told.clear()
        self._asked = None
        self._said = []
        self._look_ns = 0
        self.sessions = {}


def sessions(lines: Iterable[str]) -> dict[str, frozenset[Family]]:
    """Which are up, and the families that both sides named, from ExaBGP's table of its neighbours."""
    found: dict[str, set[Family]] = {}
    address = ""
    for line in lines:
        match line.lower().split():
            case ["neighbor", address]:
                pass
            case ["state", "established"]:
                found[address] = set()
            case ["ipv4" | "ipv6" as family, "flow:", "enabled", "enabled", *_] if address in found:
                found[address].add("ipv4" if family == "ipv4" else "ipv6")
    return {address: frozenset(families) for address, families in found.items()}
