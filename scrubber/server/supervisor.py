"""The supervisor: reads files, compiles policies, writes the log, serves the admin side. Traffic does not need it.

Owns: the policy in force and its replacement; the order of things at start and end. A new supervisor finds all it needs
in the images and regions that the keeper holds. Invariants: a reload that is not wholly sound changes nothing;
compiling and writing happen in threads, so that the loop beats; the beat comes from that loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, ParamSpec, TypeVar

import msgspec
import uvloop

from scrubber import _native
from scrubber.admin import metrics, token
from scrubber.control import acts
from scrubber.control.blackholes import BlackholeOrder, FlowOrder, WithdrawOrder
from scrubber.control.blocks import BlockOrder, UnblockOrder
from scrubber.control.drain import DrainOrder
from scrubber.control.policy import (
    PolicyInForce,
    compile_again,
    compile_answers,
    compile_files,
    from_image,
    read_again,
)
from scrubber.control.purge import PurgeOrder, forget, meant
from scrubber.errors import FilesRefused, InternalError, OperatorError, Problem, ScrubberError, ValueRefused
from scrubber.mandate.compile import CompiledPolicy
from scrubber.server import child, images, log, memfd, outputs
from scrubber.server.announcements import Announcements
from scrubber.server.by_hand import ByHand
from scrubber.server.channel import Channel, ChannelClosed, ChannelError, Received
from scrubber.server.child import Beat
from scrubber.server.enforcement import Enforcement
from scrubber.server.health import HealthChecks
from scrubber.server.journal import Journal
from scrubber.server.origins import Origins, places_of
from scrubber.server.overview import Overview
from scrubber.server.plan import ListenerPlan, Start
from scrubber.server.requests import Requests
from scrubber.server.resolve import Names, answer_all
from scrubber.server.saver import Saver
from scrubber.server.start import floor_of, listener_plans
from scrubber.server.tls_upkeep import TlsUpkeep
from scrubber.server.trouble import Trouble
from scrubber.server.upgrade import export
from scrubber.units import NS_PER_S

P = ParamSpec("P")
T = TypeVar("T")

Close = Callable[[], Awaitable[None]]
Serve = Callable[["Supervisor", str, str], Awaitable[Close]]

BEAT_S = 0.1
SAMPLE_S = 1.0
TAKEN_S = 2.0  # for all workers to put a policy in force
TAKEN_LOOK_S = 0.02
LISTEN_S = 5.0  # for the keeper to bind
UPGRADE_S = 60.0  # longer than the keeper waits for its successor
EXPIRY_LOOK_S = 1.0
TLS_LOOK_S = 30.0
NAMES_LOOK_S = 0.5
# Imported late, by us or by what we import: the interpreter may lie where nobody but root can read.
LATER = (
    "scrubber.admin.app",
    "concurrent.futures.thread",
    "dns._asyncio_backend",
    "dns.resolver",
    "dns.rdtypes.ANY.CNAME",
    "dns.rdtypes.ANY.SOA",
    "dns.rdtypes.IN.A",
    "dns.rdtypes.IN.AAAA",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.unicode_escape",
    "traceback",
)
LATER_TLS = ("cryptography.hazmat.primitives.serialization", "cryptography.x509.ocsp")
CLOCK_SET_NS = 2_000_000_000


class Supervisor:
    """What stands behind the admin API (scrubber.admin.app.Served)."""

    def __init__(self, channel: Channel, start: Start, logger: logging.Logger) -> None:
        self.channel = channel
        self.logger = logger
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.beat = Beat(start.fds["beat"])
        self.memory = _native.Memory(start.regions(), -1)
        self.policy = from_image(memfd.read_all(start.fds["policy"]))
        self.workers = start.workers
        self.journal = Journal(self.memory, start.workers, self.policy.gateway.log, logger)
        self.journal.area_names = self.policy.area_names()
        self.saver = Saver(self.memory, self.journal, self.policy.gateway.state_dir, self.policy, logger)
        enforcer = self.policy.gateway.enforcer
        quiet_ns = enforcer.quiet_ns if enforcer is not None else 0
        self.enforcement = Enforcement(self.memory, self.journal, logger, quiet_ns=quiet_ns, lift=self.saver.lifted)
        self.enforces = start.settings.get("enforcer") is not None
        if self.enforces and enforcer is not None and enforcer.upstream is not None:
            self.enforcement.announcements = Announcements(
                enforcer.upstream,
                floor_of(self.policy, enforcer),
                self.journal,
                logger,
                directory=self.policy.gateway.state_dir,
                tell=self.enforcement.tell,
            )
        self.enforcement.use(self.policy, start.listeners)
        self.by_hand = ByHand(self.memory, self.journal, self._lifted)
        self.origins = Origins(self.memory, self.journal)
        self.origins.claim(self.policy, begun=True)
        self.health = HealthChecks(self.memory, self.journal)
        self.names = Names(self.policy.answers)
        self.tls = TlsUpkeep(self.memory, self._say)
        self.unresolved: dict[str, Trouble] = {}  # by name
        self.overview = Overview(self.memory, self.journal, self.saver, start.workers, start.listeners)
        self.overview.children = start.children
        self.connections_max = int(start.settings["connections_max"])
        self.requests = Requests(channel)
        self._say_restored(start)
        self.held = start.held
        self.go: asyncio.Future[None] = self.loop.create_future()
        self.changing = asyncio.Lock()
        self.looked_at = datetime.datetime.now(datetime.UTC)
        self.offset_ns = time.time_ns() - time.monotonic_ns()
        self.tasks: list[asyncio.Task[None]] = []
        images.close([start.fds["beat"], start.fds["policy"], *start.prefixes(), *start.regions().values()])

    def _say_restored(self, start: Start) -> None:
        """What came of the blocks on disk: on the record of the first supervisor, for whoever read them had none."""
        restored = str(start.settings.get("restored", ""))
        if restored and all(child["restarts"] == 0 for child in start.children if child["role"] == "supervisor"):
            self.journal.record(acts.made("restore", restored))

    def _lifted(self, kind: str, source: str) -> None:
        self.saver.lifted(kind, source)
        self.enforcement.lifted(kind, source)

    # ── life ──

    async def run(self) -> None:
        """Until the keeper says drain, or is gone. The first beat says that all of it stands."""
        self._watch(self.loop.create_task(self.journal.run()))  # first: rings fill while nobody reads them
        close_admin = None
        try:
            serve = await self._import_admin()
            self.loop.add_reader(self.channel.fileno(), self.on_message)
            if self.held:  # the admin socket is our predecessor's until we are told
                self.every(BEAT_S, self._beat)
                await asyncio.wait([self.go, self.ended], return_when=asyncio.FIRST_COMPLETED)
            if not self.ended.done():
                admin = self.policy.gateway.admin
                close_admin = await serve(self, token.read(admin.token_file), admin.socket)
            if not self.held:
                self.every(BEAT_S, self._beat)
            if not self.ended.done():
                self._watch(self.loop.create_task(self.saver.run()))
                if self.enforces:
                    self._watch(self.loop.create_task(self.enforcement.run()))
                if (announcements := self.enforcement.announcements) is not None:
                    self._watch(self.loop.create_task(announcements.run()))
            self.every(SAMPLE_S, self._sample)
            self.every(EXPIRY_LOOK_S, self._look_expired)
            self.every(TLS_LOOK_S, lambda: self.tls.look(self.policy.gateway))
            self._watch(self.loop.create_task(self._settle_first()))
            self.every(NAMES_LOOK_S, self._look_names)
            self.health.set(places_of(self.policy))
            await self.ended
        finally:
            tasks = list(self.tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.every(BEAT_S, self._beat)  # what is left to be written may take longer than we may be silent
            await self.health.end()
            if self.enforcement.announcements is not None:
                await self.enforcement.announcements.finish()
            await self.saver.finish()
            await self.journal.finish()
            if close_admin is not None:
                await close_admin()

    async def _import_admin(self) -> Serve:
        """The admin API. Imported in a thread: aiohttp takes longer than all the rest of a start."""

        def imported() -> Serve:
            from scrubber.admin.app import serve  # noqa: PLC0415

            return serve

        return await self._in_thread(imported)

    def every(self, period_s: float, work: Callable[[], Awaitable[None] | None]) -> None:
        """Call `work` again and again. Errors of ours are logged and it goes on; a defect ends this supervisor."""

        async def repeat() -> None:
            while True:
                try:
                    done = work()
                    if done is not None:
                        await done
                except ScrubberError as error:
                    self.logger.error("%s (%s)", error.message, error.hint)
                await asyncio.sleep(period_s)

        self._watch(self.loop.create_task(repeat()))

    def _watch(self, task: asyncio.Task[None]) -> None:
        """A task whose failure is this supervisor's: the keeper then starts a new one."""

        def over(task: asyncio.Task[None]) -> None:
            self.tasks.remove(task)
            if not task.cancelled() and (error := task.exception()) and not self.ended.done():
                self.ended.set_exception(error)

        self.tasks.append(task)
        task.add_done_callback(over)

    def _beat(self) -> None:
        self.beat()

    def _sample(self) -> None:
        self.memory.sweep()
        self.overview.sample(self.policy)
        self.origins.look(self.policy)

    # ── the keeper ──

    def on_message(self) -> None:
        try:
            while (received := self.channel.receive()) is not None:
                self._obey(received)
                received.close()
        except ChannelClosed:
            self.end()
        except ChannelError as error:
            self.logger.error("the keeper broke the protocol: %s", error)
            self.end()

    def _obey(self, received: Received) -> None:
        if received.type == "children":
            self.overview.children = received.message["children"]
        elif received.type == "reopen":
            self._watch(self.loop.create_task(self._reopen_by_signal()))
        elif received.type == "reload":
            self._watch(self.loop.create_task(self._reload_by_signal()))
        elif received.type == "drain":
            self.end()
        elif received.type == "export":
            self._watch(self.loop.create_task(self._export()))
        elif received.type == "peer" and received.fds:
            self.enforcement.meet(received.fds.pop())
        elif received.type == "go":
            if not self.go.done():
                self.go.set_result(None)
        else:
            if received.type == "upgraded" and received.message["ok"]:
                self.saver.let_go()
            self.requests.answered(received.message)

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    # ── policies ──

    async def _reload_by_signal(self) -> None:
        try:
            await self.reload()
        except FilesRefused as error:
            for problem in error.problems:
                self.logger.error("%s", problem)
        except ScrubberError as error:
            self.logger.error("reload: %s (%s)", error.message, error.hint)
        except Exception:
            self.logger.exception("reload: a defect; what is in force stays")

    async def _reopen_by_signal(self) -> None:
        with contextlib.suppress(OperatorError):  # it has been logged
            await self.reopen()

    async def reopen(self) -> dict[str, Any]:
        """Served.reopen: log files that were moved away are let go, their names opened."""
        failed = await self.journal.reopen()
        if failed:
            message = f"not every log file could be opened: {'; '.join(failed)}"
            self.logger.error("%s", message)
            raise OperatorError(message, hint="see that the directory exists and may be written; it is tried again")
        self.logger.info("log files opened anew")
        return {"reopened": [each["to"] for each in self.journal.outputs.describe()]}

    def _say_keeper(self, kind: str) -> None:
        with contextlib.suppress(ChannelError):
            self.channel.send({"type": kind})

    async def upgrade(self) -> dict[str, Any]:
        """Served.upgrade: the installed program takes over; where it cannot, nothing has changed."""
        answer = await self.requests.ask({"type": "upgrade"}, "upgraded", UPGRADE_S)
        if answer["ok"]:
            self.journal.record(acts.made("upgrade", f"the keeper with pid {answer['pid']} has taken over"))
            return {"pid": answer["pid"]}
        self.journal.record(acts.made("upgrade_refused", answer["message"]))
        if answer["problems"]:
            raise FilesRefused([msgspec.convert(each, Problem) for each in answer["problems"]])
        raise OperatorError(answer["message"], hint=answer["hint"])

    async def _export(self) -> None:
        """Blocks and accepted mandates, for a successor whose memory has another form."""

        def written() -> int:
            return memfd.sealed("scrubber-export", export(self.memory, self.policy))

        fd = await self._in_thread(written)
        try:
            with contextlib.suppress(ChannelError):
                self.channel.send({"type": "exported"}, [fd])
        finally:
            images.close([fd])

    async def reload(self) -> dict[str, Any]:
        """Served.reload: read the files again; on any problem keep what is in force."""
        self._say_keeper("reloading")
        try:
            return await self._reload()
        finally:
            self._say_keeper("reloaded")

    async def _reload(self) -> dict[str, Any]:
        async with self.changing:
            try:
                policy, compiled, problems = await self._in_thread(
                    read_again, self.policy, self.connections_max, answer_all
                )
                await self._in_thread(outputs.check_files, policy.gateway.log)
                listeners = await self._listen(policy)
                workers = await self._put_in_force(policy, compiled)
                self.overview.listeners = listeners
                self.enforcement.use(policy, listeners)
                await self.journal.use(policy.gateway.log)
            except ScrubberError as error:
                self._reloaded(ok=False, message=error.message)
                raise
        self._reloaded(ok=True, message=f"policy {policy.generation} in force")
        shown = [msgspec.to_builtins(problem) for problem in problems]
        return {"generation": policy.generation, "workers": workers, "problems": shown}

    def _reloaded(self, *, ok: bool, message: str) -> None:
        self.overview.reloads["done" if ok else "refused"] += 1
        self.overview.last_reload = {"at": acts.timestamp(time.time_ns()), "ok": ok, "message": message}
        self.logger.log(logging.INFO if ok else logging.ERROR, "reload: %s", message if ok else f"refused: {message}")
        self.journal.record(acts.made("reload" if ok else "reload_refused", message))

    async def _listen(self, policy: PolicyInForce) -> list[ListenerPlan]:
        """The keeper binds what is not bound yet. OperatorError: it cannot, and nothing has changed."""
        plans = [asdict(each) for each in listener_plans(policy)]
        answer = await self.requests.ask({"type": "listen", "listeners": plans}, "listening", LISTEN_S)
        if not answer["ok"]:
            raise OperatorError(answer["message"], hint=answer["hint"])
        return [ListenerPlan(**each) for each in answer["listeners"]]

    async def _put_in_force(self, policy: PolicyInForce, compiled: CompiledPolicy) -> int:
        """Hand a policy to all workers; how many have it now. InternalError: refused, and the former is back in
        force."""
        former = self.policy
        self._now_in_force(policy)
        await self._publish(policy, compiled)
        taken, refused = await self._taken(policy.generation)
        if refused:
            back, compiled = await self._in_thread(
                compile_files,
                former.gateway,
                former.mandates,
                policy.area_ids,
                policy.generation + 1,
                slots=policy.slots,
                answers=former.answers,
                accepted=former.accepted,
            )
            self._now_in_force(back)
            await self._publish(back, compiled)
            await self._taken(back.generation)
            self._settled(back.generation)
            hint = "the former policy stays in force; the reason is in the workers' log (stderr)"
            raise InternalError(f"policy {policy.generation} was refused by {refused} workers", hint=hint)
        self._settled(policy.generation)
        return taken

    def _settled(self, generation: int) -> None:
        """The keeper may close the listeners that this policy does not name."""
        with contextlib.suppress(ChannelError):
            self.channel.send({"type": "settled", "generation": generation})

    async def _settle_first(self) -> None:
        """What a supervisor before us may have left: the policy that we found is in force everywhere."""
        async with self.changing:
            await self._taken(self.policy.generation)
            self._settled(self.policy.generation)

    def _now_in_force(self, policy: PolicyInForce) -> None:
        self.policy = policy
        self.journal.area_names = policy.area_names()
        self.saver.use(policy)
        self.names.answers = dict(policy.answers)
        self.origins.claim(policy)
        self.health.set(places_of(policy))
        self.enforcement.use(policy, self.overview.listeners)

    async def _publish(self, policy: PolicyInForce, compiled: CompiledPolicy) -> None:
        """To the keeper, which keeps it and hands it on. PolicyRefused: the core does not find it sound."""
        policy_fd, prefix_fds = await self._in_thread(images.seal, compiled.image, compiled.prefix_images)
        try:
            await self._in_thread(_native.Policy, policy_fd, prefix_fds)
            message = {
                "type": "publish",
                "generation": policy.generation,
                "listeners": list(policy.slots.listeners.open),
                "stop_deadline_s": policy.gateway.stop_deadline_ns / NS_PER_S,
            }
            self.channel.send(message, [policy_fd, *prefix_fds])
        except ChannelError as error:
            raise InternalError(f"the keeper did not take the policy: {error}", hint="try again") from None
        finally:
            images.close([policy_fd, *prefix_fds])

    async def _taken(self, generation: int) -> tuple[int, int]:
        """How many workers took and how many refused it, once all said so or time is over. A dead one takes it
        later."""
        end = self.loop.time() + TAKEN_S
        while True:
            gauges = [self.memory.gauges(slot) for slot in range(self.workers)]
            taken = sum(each["generation"] >= generation for each in gauges)
            refused = sum(each["generation_refused"] >= generation for each in gauges)
            if taken + refused >= self.workers or self.loop.time() >= end:
                return taken, refused
            await asyncio.sleep(TAKEN_LOOK_S)

    async def _look_expired(self) -> None:
        """Images carry the end of mandates in monotonic time: made anew when one ends, or when the clock was set."""
        now = datetime.datetime.now(datetime.UTC)
        offset_ns = time.time_ns() - time.monotonic_ns()
        expired = [each for each in self.policy.mandates if self.looked_at < each.head.expires <= now]
        was_set = abs(offset_ns - self.offset_ns) > CLOCK_SET_NS
        self.looked_at = now
        if not expired and not was_set:
            return
        self.offset_ns = offset_ns
        if was_set:
            self.saver.rewrite()
        for mandate in expired:
            self._say(
                acts.made("mandate_expired", f"mandate {mandate.id} has expired: {mandate.head.on_expiry} from now on")
            )
        if was_set:
            self._say(acts.made("clock_set", "the wall clock was set: ends of mandates are computed anew"))
        async with self.changing:
            await self._put_in_force(*await self._in_thread(compile_again, self.policy))

    async def _look_names(self) -> None:
        """Names of origins whose time is over are asked for again; other addresses are another policy."""
        before = dict(self.names.errors)
        changed = await self.names.refresh(self.policy.gateway, self.loop.time())
        for name, error in sorted(self.names.errors.items()):
            if self.unresolved.setdefault(name, Trouble()).tell(1, self.loop.time()):
                self._say(acts.made("origin_unresolved", f"origin {name} does not resolve: {error}"))
        for name in sorted(set(before) - set(self.names.errors)):
            if name in self.policy.answers and self.names.answers.get(name) == self.policy.answers[name]:
                self._say(acts.made("origin_resolved", f"origin {name} resolves again, to what it did before"))
        if not changed:
            return
        found = dict(self.names.answers)
        async with self.changing:
            answers = {**self.policy.answers, **found}
            for name in sorted(answers):
                if answers[name] != self.policy.answers.get(name):
                    self._say(acts.made("origin_resolved", f"origin {name} resolves to {', '.join(answers[name])}"))
            await self._put_in_force(*await self._in_thread(compile_answers, self.policy, answers))

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **how: P.kwargs) -> T:
        return await self.loop.run_in_executor(None, functools.partial(work, *args, **how))

    def _say(self, done: dict[str, Any]) -> None:
        self.logger.warning("%s", done["message"])
        self.journal.record(done)

    # ── what the admin side asks for ──

    async def status(self) -> dict[str, Any]:
        """Served.status."""
        found = await self.overview.status(self.policy, self.origins, self.names.errors)
        return {**found, "enforcer": self.enforcement.describe() if self.enforces else None}

    def metrics(self) -> str:
        """Served.metrics."""
        found = self.overview.snapshot(self.policy, self.origins)
        found.enforcer = self.enforcement.describe() if self.enforces else None
        return metrics.render(found)

    def acts(self, since: int) -> list[dict[str, Any]]:
        """Served.acts."""
        return self.journal.acts.since(since)

    async def block(self, order: BlockOrder) -> dict[str, Any]:
        """Served.block."""
        return self.by_hand.block(order, self.policy)

    async def unblock(self, order: UnblockOrder) -> dict[str, Any]:
        """Served.unblock."""
        return self.by_hand.unblock(order)

    async def drain(self, order: DrainOrder) -> dict[str, Any]:
        """Served.drain."""
        return self.origins.drain(order, self.policy)

    async def purge(self, order: PurgeOrder) -> dict[str, Any]:
        """Served.purge."""
        names = {name: area_id for area_id, name in self.policy.area_names().items()}
        try:
            wanted = meant(order, names)
        except ValueRefused as error:
            raise OperatorError(error.message, hint=error.hint or error.expected) from None
        found = await self._in_thread(forget, self.memory, wanted)
        what = order.url or f"all of {order.area}"
        self.journal.record(acts.made("purge", f"purge {what} by hand", **{"url.full": order.url}))
        return {
            "did": "purged",
            "what": what,
            "areas": [n for n in names if names[n] in wanted.area_ids],
            "found": found,
        }

    async def blackhole(self, order: BlackholeOrder) -> dict[str, Any]:
        """Served.blackhole."""
        return await self._announcements().blackhole(order)

    async def flow(self, order: FlowOrder) -> dict[str, Any]:
        """Served.flow."""
        return await self._announcements().flow(order)

    async def withdraw(self, order: WithdrawOrder) -> dict[str, Any]:
        """Served.withdraw."""
        return self._announcements().withdraw(order)

    def blackholes(self) -> list[dict[str, Any]]:
        """Served.blackholes."""
        announcements = self.enforcement.announcements
        return announcements.listed() if announcements is not None else []

    def _announcements(self) -> Announcements:
        if self.enforcement.announcements is not None:
            return self.enforcement.announcements
        raise OperatorError(
            "this gateway announces nothing upstream",
            hint="[enforcer.upstream] says to whom, and it takes CAP_NET_ADMIN: docs/upstream.md",
        )

    def blocks(self) -> list[dict[str, Any]]:
        """Served.blocks."""
        return self.by_hand.listed(self.policy)


def import_later(start: Start) -> None:
    """See child.begin."""
    child.import_as_root((*LATER, *(LATER_TLS if start.settings.get("tls") else ())))


async def serve(channel: Channel, start: Start, logger: logging.Logger) -> None:
    """Until the keeper says drain, or is gone."""
    await Supervisor(channel, start, logger).run()


def main(argv: list[str]) -> int:
    """`python -m scrubber.server.supervisor FD`, FD being the channel to the keeper."""
    channel, start = child.begin(argv, import_later)
    logger = log.setup("supervisor")
    try:
        uvloop.run(serve(channel, start, logger))
    except ScrubberError as error:
        logger.error("%s (%s)", error.message, error.hint)
        return 1
    except OSError as error:
        logger.error("%s", error)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "start new thread" not in str(error):
            raise
        logger.error("no memory for what a supervisor needs (raise the limit on memory)")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
