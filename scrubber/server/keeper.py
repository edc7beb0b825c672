"""The keeper: parent of all. Holds listeners, shared memory and the policy in force; starts the others, restarts them.

Owns: every descriptor that must outlive a child, what each child is told, signals, and the order of the end. Has no
parser beyond json, no web server, no `_native`.
Invariants: a child is replaced at once when it dies or stops beating (children.py); nothing here waits for a child
before the end.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict
from typing import Any

from scrubber.errors import InternalError, ScrubberError
from scrubber.server import activation, listen, log, memfd, notify, privilege
from scrubber.server.channel import Channel, ChannelError, Received
from scrubber.server.child import end_with_parent, name_process
from scrubber.server.children import Child, Children
from scrubber.server.handover import Handover
from scrubber.server.plan import ListenerPlan, Plan, Start
from scrubber.server.succession import FORWARDED, Succession

CHECK_S = 0.05  # between two looks at the beats
DRAIN_GRACE_S = 1.0  # workers cut what is open at the deadline, and need a moment to record it
SUPERVISOR_END_S = 3.0  # for its last look at the rings after the workers ended
ENFORCER_END_S = 5.0  # to take out of the kernel what is ours
ENFORCER_WAIT_S = 2 * ENFORCER_END_S  # for the one before ours to be gone
ENFORCER_WEDGED_NS = 10_000_000_000  # a list of all that the kernel has may take seconds


class Keeper:
    """One gateway's processes. `run` returns the exit code."""

    def __init__(self, plan: Plan, logger: logging.Logger) -> None:
        self.plan = plan
        self.log = logger
        self.policy, self.prefixes, self.generation = plan.policy, list(plan.prefixes), plan.generation
        self.ports = listen.Ports(plan.workers, self._inherited())
        self.notifier = notify.Notifier(os.environ)
        given = {
            key: listen.Given([socket.socket(fileno=fd) for fd in each.fds], each.ours)
            for key, each in plan.handed.items()
        }
        self.ports.bind(plan.listeners, given)
        self.unwanted = [each for key, each in given.items() if key not in {plan.key for plan in plan.listeners}]
        self.ports.commit([each.index for each in plan.listeners])
        self.stop_deadline_s = plan.stop_deadline_s
        self.gauges = mmap.mmap(plan.regions["gauges"], 0)
        self.beat_fd = memfd.plain("scrubber-beat", mmap.PAGESIZE)
        beat_page = mmap.mmap(self.beat_fd, mmap.PAGESIZE)
        self.supervisor = Child("supervisor", -1, beat_page, 0)
        self.workers = [
            Child(
                "worker",
                slot,
                self.gauges,
                plan.gauges_offset + slot * plan.gauges_slot_bytes,
                plan.gauges_slot_bytes,
            )
            for slot in range(plan.workers)
        ]
        self.enforcer = None
        if "enforcer" in plan.roles:
            page_fd = memfd.plain("scrubber-enforcer-beat", mmap.PAGESIZE)
            self.enforcer_beat_fd = page_fd
            self.enforcer = Child("enforcer", -1, mmap.mmap(page_fd, mmap.PAGESIZE), 0, wedged_ns=ENFORCER_WEDGED_NS)
        self.selector = selectors.DefaultSelector()
        self.children = Children(
            [self.supervisor, *self.workers, *filter(None, [self.enforcer])],
            self,
            self.selector,
            logger,
            commands=plan.roles,
            environment=notify.for_children(os.environ),
        )
        self.ready = False
        self.draining = False
        self.drain_end_ns = 0  # when workers cut what is open; those that run DRAIN_GRACE_S later are killed
        self.supervisor_end_ns = 0  # the same for the supervisor; 0: it was not told yet
        self.enforcer_end_ns = 0  # and the enforcer
        self.exit_code: int | None = None
        self.reload_wanted = False
        self.predecessor = Channel.from_fd(plan.predecessor) if plan.predecessor >= 0 else None
        self.held = self.predecessor is not None  # it still serves
        self.serving = plan.serving if plan.serving >= 0 else memfd.plain("scrubber-serving", 8)
        self.bound = False  # whether we end with the process that waits for us
        self.upgrade_number = 0  # of the question that asked for the upgrade under way
        self.succession = Succession(
            logger,
            self.selector,
            tell=self._tell_upgraded,
            export=self._export,
            ready=lambda pid: self.notifier.say(f"MAINPID={pid}"),
            taken_over=self._taken_over,
        )

    def _inherited(self) -> dict[str, list[socket.socket]]:
        """The service manager's sockets by key: its own to us, or those that the keeper before us got.
        activation.NotOurs."""
        found = activation.match({int(fd): name for fd, name in self.plan.inherited.items()}, self.plan.listeners)
        return found | {key: [socket.socket(fileno=fd) for fd in fds] for key, fds in self.plan.kept.items()}

    # ── the loop ──

    def run(self) -> int:
        """Until the gateway has ended. 0: asked to; 1: it could not start."""
        with self._signals():
            if self.predecessor is not None:
                self.selector.register(self.predecessor, selectors.EVENT_READ, self._predecessor_readable)
            for child in self.children.every:
                if child is not self.enforcer or not self.held:  # two would take what is ours from one another
                    self.children.start(child)
            self.changed()
            next_check = time.monotonic()
            while self.exit_code is None:
                for key, _ in self.selector.select(max(next_check - time.monotonic(), 0)):
                    # each bears being called for nothing: an earlier one of this round may have replaced its child
                    key.data()
                if time.monotonic() >= next_check:
                    next_check = time.monotonic() + CHECK_S
                    self._check()
            if self.succession.done:  # no signal is lost on the way out: it is the successor's
                signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        self._close()
        if self.succession.done and not self.plan.waiter_pid and not self.notifier.managed:
            return self.succession.wait(self.serving)
        if self.succession.done:
            self.succession.leave(self.serving, self.exit_code)
        return self.exit_code

    def _check(self) -> None:
        now_ns = time.monotonic_ns()
        self.children.check(now_ns)
        needed = [self.supervisor, *self.workers]  # who serve without an enforcer, if need be
        if not self.ready and not self.draining and all(child.pulse.started for child in needed):
            self.ready = True
            if self.predecessor is None:
                self._say_ready()
            else:
                self._tell_predecessor("ready")
        if not self.bound and self.plan.waiter_pid and self.plan.waiter_pid == os.getppid():
            self.bound = True
            end_with_parent()  # perhaps it became our parent only now, our predecessor being gone
        self.notifier.beat(now_ns)
        self.succession.check(now_ns)
        if self.draining:
            self._check_enforcer_ends(now_ns)
            self._check_drain(now_ns)

    def _say_ready(self) -> None:
        where = ", ".join(listener.url for listener in self.ports.plans())
        workers = f"{self.plan.workers} worker" + ("s" if self.plan.workers != 1 else "")
        with contextlib.suppress(OSError):
            print(f"ready: {where} → {self.plan.protects}, {workers}, admin {self.plan.admin_socket}", flush=True)
        self.notifier.say("READY=1", f"STATUS={where} → {self.plan.protects}")

    # ── children: what children.py asks of their parent ──

    def started(self, child: Child) -> None:
        """What it missed; and who is new to whom."""
        if child is self.supervisor and self.reload_wanted:
            self.reload_wanted = False
            self.children.send(child, {"type": "reload"})
        if child.slot < 0:
            self._pair_up()

    def _pair_up(self) -> None:
        """One of the two is new: supervisor and enforcer speak over a pair that nobody else holds."""
        if self.enforcer is None or self.enforcer.channel is None or self.supervisor.channel is None:
            return
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for child, end in zip((self.supervisor, self.enforcer), pair, strict=True):
            with end:
                self.children.send(child, {"type": "peer"}, [end.fileno()])

    def start_message(self, child: Child) -> Start:
        """With no more descriptors than it needs."""
        fds = {"policy": self.policy}
        fds.update({f"prefix.{index}": fd for index, fd in enumerate(self.prefixes)})
        fds.update({f"region.{kind}": fd for kind, fd in self.plan.regions.items()})
        if child is self.enforcer:
            fds = {"beat": self.enforcer_beat_fd, "floor": self.plan.floor}  # no secret
        elif child.slot >= 0:
            fds.update({} if self.held else self.ports.fds(child.slot))
        else:
            fds["beat"] = self.beat_fd
        return Start(
            child.role,
            child.slot,
            os.getpid(),
            self.plan.workers,
            self.generation,
            self.ports.plans(),
            self.plan.settings,
            self.children.describe(),
            fds,
            self.plan.users.get(child.role),
            self.held,
        )

    def given_up(self, child: Child) -> bool:
        """Where it never came up."""
        if self.ready or child is self.enforcer:
            return False
        hint = "the reason is in its log (stderr)"
        say_error(InternalError(f"{child.name} does not come up: giving up", hint=hint), as_json=self.plan.as_json)
        self._stop_now(1)
        return True

    def gone(self, child: Child) -> None:
        """The enforcer's place is its successor's."""
        if child is self.enforcer and self.succession.done:
            self.succession.release()

    def ending(self, child: Child) -> bool:
        """Whether this child, once gone, stays gone. While workers drain, the supervisor still reads their rings. Of a
        successor the enforcer starts when it serves."""
        if child is self.enforcer and (self.held or self.enforcer_end_ns):
            return True
        return self.exit_code is not None or (
            self.draining and (child is not self.supervisor or not self._workers_alive())
        )

    def _workers_alive(self) -> bool:
        return any(worker.process for worker in self.workers)

    # ── channels ──

    def received(self, child: Child, received: Received) -> None:
        """Obeyed where it is the supervisor's to say."""
        obey: dict[str, Callable[[Received], None]] = {
            "listen": self._listen,
            "publish": self._publish,
            "settled": self._settled,
            "reloading": lambda _: self.notifier.reloading(),
            "reloaded": lambda _: self.notifier.say("READY=1"),
            "upgrade": lambda received: self._upgrade(int(received.message["number"])),
            "exported": lambda received: self.succession.exported(received.fds),
        }
        obeyed = obey.get(received.type)
        if child is self.supervisor and obeyed is not None:
            obeyed(received)
        else:
            self.log.error("%s sent a message that is not its own: %s", child.name, received.type)

    def _listen(self, received: Received) -> None:
        """Bind what the next policy wants; a refusal leaves everything as it is."""
        number = received.message.get("number")
        plans = [ListenerPlan(**each) for each in received.message["listeners"]]
        try:
            bound = [asdict(each) for each in self.ports.bind(plans)]
            answer: dict[str, Any] = {"ok": True, "listeners": bound}
        except listen.CannotListen as error:
            answer = {"ok": False, "message": str(error), "hint": error.hint}
        self.children.send(self.supervisor, {"type": "listening", "number": number, **answer})

    def _publish(self, received: Received) -> None:
        generation = received.message.get("generation")
        if not isinstance(generation, int) or generation <= self.generation or not received.fds:
            self.log.error("a policy was refused: it is not newer than generation %d", self.generation)
            return
        if not all(memfd.is_sealed(fd) for fd in received.fds):
            self.log.error("policy %d was refused: an image is not sealed", generation)
            return
        old = [self.policy, *self.prefixes]
        self.policy, *self.prefixes = received.fds
        received.fds = []
        self.generation = generation
        for fd in old:
            os.close(fd)
        self.stop_deadline_s = float(received.message["stop_deadline_s"])
        new = self.ports.commit(received.message["listeners"])
        names = ["policy", *(f"prefix.{index}" for index in range(len(self.prefixes)))]
        for worker in self.workers:
            fds = {f"listener.{index}": self.ports.held[index].fd(worker.slot) for index in new}
            message = {"type": "publish", "generation": generation, "names": [*names, *fds]}
            self.children.send(worker, message, [self.policy, *self.prefixes, *fds.values()])

    def _settled(self, received: Received) -> None:
        """Every worker obeys that policy: nobody goes back to the listeners that it does not name."""
        if received.message.get("generation") != self.generation:
            return
        gone = self.ports.release()
        if gone:
            message = {"type": "retire", "listeners": gone, "deadline_s": self.stop_deadline_s}
            for worker in self.workers:
                self.children.send(worker, message)

    def changed(self) -> None:
        """The supervisor says who there is."""
        self.children.send(self.supervisor, {"type": "children", "children": self.children.describe()})

    # ── signals and the end ──

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        for each in handled:
            signal.signal(each, lambda *_: None)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self.selector.register(ours, selectors.EVENT_READ, lambda: self._signalled(ours))
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            with contextlib.suppress(BlockingIOError):
                if self.succession.done:
                    self._signalled(ours)
            self.selector.unregister(ours)
            ours.close()
            theirs.close()

    def _signalled(self, sock: socket.socket) -> None:
        for number in sock.recv(64):
            if self.succession.done:
                self.succession.forward(self.serving, number)
            elif number == signal.SIGHUP:
                self._reload()
            elif number == signal.SIGUSR2:
                self._upgrade(0)
            elif number == signal.SIGUSR1:
                self.children.send(self.supervisor, {"type": "reopen"})  # one that starts opens its files anyway
            elif self.draining:
                self.log.warning("told to end a second time: at once")
                self._stop_now(0)
            else:
                self._drain()

    def _reload(self) -> None:
        self.notifier.reloading()
        if self.supervisor.channel is None:
            self.reload_wanted = True
        else:
            self.children.send(self.supervisor, {"type": "reload"})

    def _drain(self) -> None:
        self.succession.abandon()
        self.notifier.say("STOPPING=1")
        self._let_go(remove=True)

    def _let_go(self, *, remove: bool) -> None:
        """Workers end with their requests. remove: nobody serves after us."""
        self.draining = True
        self.drain_end_ns = time.monotonic_ns() + int(self.stop_deadline_s * 1e9)
        self.log.info("draining: %g s at most", self.stop_deadline_s)
        self.ports.close(remove=remove)  # the workers accept what is queued and close theirs: then the port refuses
        for worker in self.workers:
            self.children.send(worker, {"type": "drain", "deadline_s": self.stop_deadline_s, "queued": True})

    def _check_drain(self, now_ns: int) -> None:
        if self._workers_alive():
            if now_ns >= self.drain_end_ns + int(DRAIN_GRACE_S * 1e9):
                for worker in self.workers:
                    self.children.kill_late(worker)
            return
        if self.supervisor.process is None:
            if self.enforcer is None or self.enforcer.process is None:
                self.exit_code = 0
            elif not self.enforcer_end_ns:
                self._end_enforcer(leave=False)
        elif not self.supervisor_end_ns:
            self.supervisor_end_ns = now_ns + int(SUPERVISOR_END_S * 1e9)
            self.children.send(self.supervisor, {"type": "drain", "deadline_s": SUPERVISOR_END_S})
        elif self.supervisor.channel is None or now_ns >= self.supervisor_end_ns:
            self.supervisor.kill()

    def _end_enforcer(self, *, leave: bool) -> None:
        """The last to go where nobody follows, else the first. leave: what is in the kernel is the successor's."""
        if self.enforcer is not None:
            self.enforcer_end_ns = time.monotonic_ns() + int(ENFORCER_END_S * 1e9)
            self.children.send(self.enforcer, {"type": "drain", "leave": leave})

    def _check_enforcer_ends(self, now_ns: int) -> None:
        late = self.enforcer_end_ns and now_ns >= self.enforcer_end_ns
        if late and self.enforcer is not None:
            self.children.kill_late(self.enforcer)

    # ── upgrades: as the one that goes, and as the one that comes ──

    def _upgrade(self, number: int) -> None:
        if not self.ready or self.held or self.draining or self.succession.running:
            self.upgrade_number, before = number, self.upgrade_number
            hint = "ask again when that is over"
            message = "the gateway is starting, ending or being upgraded"
            self._tell_upgraded({"ok": False, "message": message, "hint": hint, "problems": []})
            self.upgrade_number = before
            return
        self.upgrade_number = number
        self.succession.begin(self.plan.roles["upgrade"], self._handover, notify.for_successor(os.environ))

    def _handover(self, channel: int) -> Handover:
        held = [self.ports.held[index] for index in self.ports.wanted]
        waiter = self.plan.waiter_pid or (0 if self.notifier.managed else os.getpid())
        return Handover(
            gateway_file=self.plan.gateway_file,
            admin_socket=self.plan.admin_socket,
            generation=self.generation,
            policy=self.policy,
            regions=self.plan.regions,
            lock=self.plan.lock,
            channel=channel,
            serving=self.serving,
            waiter_pid=waiter,
            listeners={each.plan.key: each.handed() for each in held},
            inherited={key: [each.fileno() for each in sockets] for key, sockets in self.ports.inherited.items()},
        )

    def _export(self) -> bool:
        """Whether the supervisor is there to be asked for the blocks."""
        self.children.send(self.supervisor, {"type": "export"})
        return self.supervisor.channel is not None

    def _tell_upgraded(self, answer: dict[str, Any]) -> None:
        self.children.send(self.supervisor, {"type": "upgraded", "number": self.upgrade_number, **answer})

    def _taken_over(self, drops: Collection[str]) -> None:
        """`drops`: the backends of the successor's enforcer, which starts once ours is gone."""
        if self.enforcer is None or self.enforcer.process is None:
            self.succession.release()
        else:  # what it would not find, nobody could lift
            self._end_enforcer(leave=set(self._drops()) <= set(drops))
        if not self.draining:
            self._let_go(remove=False)

    def _drops(self) -> list[str]:
        """Backends of our enforcer."""
        return list((self.plan.settings.get("enforcer") or {}).get("drop", ()))

    def _tell_predecessor(self, kind: str, **more: Any) -> None:
        if self.predecessor is not None:
            with contextlib.suppress(ChannelError):
                self.predecessor.send({"type": kind, **more})

    def _predecessor_readable(self) -> None:
        if self.predecessor is None:
            return
        try:
            received = self.predecessor.receive()
        except ChannelError:
            received = None
            if self.held:
                self.log.error("the keeper before us is gone, and never said go")
                self._stop_now(1)
            self._drop_predecessor()
            self._start_enforcer()
        if received is not None:
            if received.type == "go" and self.held:
                self._go()
            elif received.type == "released":
                self._start_enforcer()
            received.close()

    def _go(self) -> None:
        """From now on we serve."""
        os.pwrite(self.serving, os.getpid().to_bytes(8, "little"), 0)
        self.held = False
        for worker in self.workers:
            fds = self.ports.fds(worker.slot)
            self.children.send(worker, {"type": "listen", "names": list(fds)}, list(fds.values()))
        self.children.send(self.supervisor, {"type": "go"})
        if self.enforcer is not None:  # as soon as the one before it has let go, or then
            self.enforcer.restart_ns = time.monotonic_ns() + int(ENFORCER_WAIT_S * 1e9)
        for given in self.unwanted:
            given.close()
        self.unwanted = []
        self._say_ready()
        self._tell_predecessor("serving", drops=self._drops())

    def _start_enforcer(self) -> None:
        """The one before it is gone: two would take what is ours from one another."""
        if self.enforcer is not None and self.enforcer.process is None and not self.ending(self.enforcer):
            self.children.start(self.enforcer)
            self.changed()

    def _drop_predecessor(self) -> None:
        if self.predecessor is not None:
            self.selector.unregister(self.predecessor)
            self.predecessor.close()
            self.predecessor = None

    def _stop_now(self, code: int) -> None:
        self.exit_code = code
        self.children.kill()

    def _close(self) -> None:
        """Reap what was killed and give everything back."""
        self.children.reap()
        self.ports.close(remove=not self.held)
        self._drop_predecessor()
        if not self.succession.done:
            self.selector.close()
        beats = [self.beat_fd, *([self.enforcer_beat_fd] if self.enforcer is not None else [])]
        for fd in (self.policy, *self.prefixes, *self.plan.regions.values(), *beats, self.plan.lock):
            os.close(fd)


def say_error(error: ScrubberError, *, as_json: bool) -> None:
    """Why there is no gateway: as the commands say it (scrubber.cli.output), without what they are made of."""
    if as_json:
        print(json.dumps(error.document(), indent=2, ensure_ascii=False), flush=True)
    else:
        sys.stderr.write(f"scrubber: {error}\nTry: {error.hint}\n")


def main(argv: list[str]) -> int:
    """`python -m scrubber.server.keeper FD`, FD being the plan's."""
    logger = log.setup("keeper")
    name_process("keeper")
    privilege.keep_for_successors()
    try:
        plan = Plan.from_fd(int(argv[-1]))
    except (OSError, ValueError, IndexError, TypeError) as error:
        sys.stderr.write(
            f"scrubber: the keeper is started by `scrubber run` only ({error})\nTry: scrubber run GATEWAY.toml\n"
        )
        return 2
    try:
        keeper = Keeper(plan, logger)
    except (listen.CannotListen, activation.NotOurs) as error:
        say_error(error, as_json=plan.as_json)
        return 1
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
