"""From checked files to a plan that the keeper can be exec'ed with.

Owns: the state directory, the lock on the admin socket's name, the shared memory, the first policy. Everything here may
fail with a hint; nothing runs yet. Invariant: two gateways never share an admin socket or a state directory's token.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import msgspec

from scrubber import _native
from scrubber.admin import token
from scrubber.config.enforcer import Enforcer
from scrubber.config.gateway import Gateway
from scrubber.config.listener import listener_keys
from scrubber.config.origins import ORIGINS_IDLE, streams_of_worker
from scrubber.control.blackholes import own_addresses
from scrubber.control.policy import PolicyInForce, compile_files, unresolved
from scrubber.control.saved import Restored, SavedBlock, restore
from scrubber.enforce.envelope import Floor
from scrubber.enforce.net import net_of
from scrubber.errors import KernelError, OperatorError
from scrubber.mandate.compile_gateway import share_of_worker
from scrubber.mandate.layout import LAYOUT_VERSION
from scrubber.mandate.load import Loaded
from scrubber.mandate.never_block import machine_addresses, never_block
from scrubber.mandate.resolved import names_of
from scrubber.mandate.serials import Accepted
from scrubber.mandate.slots import Slots
from scrubber.server import block_file, images, memfd, outputs, privilege, secret, users
from scrubber.server.handover import Handover
from scrubber.server.plan import ListenerPlan, Plan
from scrubber.server.precheck import files_needed
from scrubber.units import NS_PER_S

FIRST_GENERATION = 1
BUFFERS_MIN = 8192
COUNT_CELLS_MIN = 1024
# What lies in a state directory.
OURS = re.compile(r"admin\.(sock|sock\.lock|token)|(access|acts)\.log.*|blocks|upstream|bgp|secret")


@dataclass(frozen=True)
class Former:
    """The keeper before us, the indexes that its memory speaks of, and the mandates that it accepted."""

    handover: Handover
    area_ids: dict[str, int]
    slots: Slots
    accepted: tuple[Accepted, ...]


def prepare(
    loaded: Loaded,
    former: Former | None = None,
    inherited: Mapping[int, str] | None = None,
    *,
    as_json: bool = False,
) -> Plan:
    """Everything made, and the plan of it. `former`: the keeper that we are to succeed; `inherited`: sockets of the
    service manager; `as_json`: how the keeper says why it cannot start. OperatorError, KernelError."""
    gateway = loaded.gateway
    enforcer = gateway.enforcer if enforces(gateway) else None
    whose = users.look_up(gateway.users, enforcer=enforcer is not None)
    supervisor = whose.get("supervisor")
    make_directory(gateway.state_dir, supervisor)
    make_directory(str(Path(gateway.admin.socket).parent), supervisor)
    lock = former.handover.lock if former else take_lock(gateway.admin.socket)
    token.make(gateway.admin.token_file, supervisor)
    token.read(gateway.admin.token_file)
    keys = secret.make(gateway.state_dir, supervisor)
    outputs.check_files(gateway.log, supervisor)
    answers, failed = _answers(gateway)
    for problem in unresolved(gateway, failed):
        print(problem, file=sys.stderr)
    ids, slots, accepted = (former.area_ids, former.slots, former.accepted) if former else ({}, None, ())
    generation = former.handover.generation + 1 if former else FIRST_GENERATION
    policy, compiled = compile_files(
        gateway, loaded.mandates, ids, generation, slots=slots, answers=answers, accepted=accepted
    )
    try:
        regions, gauges = make_memory(gateway, former.handover.regions if former else {}, keys.memory)
        policy_fd, prefix_fds = images.seal(compiled.image, compiled.prefix_images)
        floor = memfd.sealed("scrubber-floor", msgspec.json.encode(floor_of(policy, enforcer))) if enforcer else -1
    except OSError as error:
        hint = "choose smaller tables in [memory], or raise the limits on memory and open files"
        raise KernelError(f"no memory for the tables: {error.strerror or error}", hint=hint) from None
    restored = "" if former else bring_back(gateway.state_dir, keys, regions, (policy_fd, prefix_fds), policy)
    return Plan(
        roles={
            role: python(f"scrubber.server.{role}")
            for role in ("worker", "supervisor", "upgrade", *(["enforcer"] if enforcer else []))
        },
        workers=gateway.workers,
        listeners=listener_plans(policy),
        regions=regions,
        policy=policy_fd,
        prefixes=prefix_fds,
        generation=policy.generation,
        gauges_offset=gauges[0],
        gauges_slot_bytes=gauges[1],
        lock=lock,
        stop_deadline_s=gateway.stop_deadline_ns / NS_PER_S,
        protects=protects(gateway),
        admin_socket=gateway.admin.socket,
        settings={
            "engine": engine_sizes(gateway),
            "connections_max": gateway.limits.connections_max,
            "restored": restored,
            "tls": bool(users.tls_files(gateway)),
            "enforcer": {
                "drop": list(enforcer.drop),
                "interfaces": list(enforcer.interfaces),
                "xdp_mode": enforcer.xdp_mode,
                "on_stop": enforcer.on_stop,
                "announces": enforcer.upstream is not None,
            }
            if enforcer
            else None,
        },
        floor=floor,
        gateway_file=gateway.file,
        inherited={str(fd): name for fd, name in (inherited or {}).items()},
        handed=former.handover.listeners if former else {},
        kept=former.handover.inherited if former else {},
        predecessor=former.handover.channel if former else -1,
        serving=former.handover.serving if former else -1,
        waiter_pid=former.handover.waiter_pid if former else 0,
        users=whose,
        as_json=as_json,
    )


def _answers(gateway: Gateway) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Addresses of origins' names, and what failed."""
    if not names_of(gateway):
        return {}, {}
    from scrubber.server.resolve import answer_all  # noqa: PLC0415 - takes a moment; mostly nobody asks

    return answer_all(gateway, {})


def enforces(gateway: Gateway) -> bool:
    """Whether there is to be an enforcer, and may be one here."""
    return gateway.enforcer is not None and gateway.enforce and privilege.may_administer()


def enforcer_notice(gateway: Gateway) -> str:
    """What the start says of it."""
    if gateway.enforcer is None:
        return "without an enforcer: blocks stay inside the gateway"
    if not gateway.enforce:
        return "without an enforcer, as this is a dry run"
    if not privilege.may_administer():
        return "without an enforcer, as nobody gave us CAP_NET_ADMIN: blocks stay inside the gateway"
    return f"with an enforcer: blocks go down into the kernel ({', '.join(gateway.enforcer.drop)})"


def floor_of(policy: PolicyInForce, enforcer: Enforcer) -> Floor:
    """What the enforcer may never do, from the files and this machine as they are now."""
    never = never_block(policy.resolved, policy.mandates, machine_addresses())
    upstream = enforcer.upstream
    return Floor(
        never=tuple(net_of(text) for text in never),
        own=own_addresses(policy.mandates, never),
        protects=tuple(net_of(text) for text in enforcer.protects),
        v4_widest=enforcer.prefix_v4_widest,
        v6_widest=enforcer.prefix_v6_widest,
        ttl_ns_max=enforcer.ttl_max_ns,
        hosts_max=enforcer.hosts_max,
        prefixes_max=enforcer.prefixes_max,
        announcements_max=upstream.announcements_max if upstream else 0,
        announcements_per_min=upstream.announcements_per_min if upstream else 0,
        flows_max=upstream.flowspec.rules_max if upstream and upstream.flowspec else 0,
    )


def bring_back(
    directory: str,
    keys: secret.Secret,
    regions: Mapping[str, int],
    image: tuple[int, list[int]],
    policy: PolicyInForce,
) -> str:
    """The blocks on disk into a new table. What came of it, in one line that stderr has, too; empty: there were
    none."""
    found = block_file.read(directory, keys.blocks)
    restored = put_back(regions, image, policy, found.blocks)
    said = "; ".join(filter(None, [found.damage(), restored.text()]))
    if said:
        print(f"note: {said}", file=sys.stderr)
    return said


def put_back(
    regions: Mapping[str, int], image: tuple[int, list[int]], policy: PolicyInForce, blocks: list[SavedBlock]
) -> Restored:
    """Those that may come back, into the table."""
    if not blocks:
        return Restored()
    return restore(_native.Memory(dict(regions), -1), _native.Policy(*image), policy, blocks)


def engine_sizes(gateway: Gateway) -> dict[str, int]:
    """Objects in a worker's pools; what is not used costs address space only. They outlive reloads, so they follow from
    connections_max, which no reload raises: a client, or a stream of one, has one origin connection at most, be it a
    tunnel's, and needs one buffer at least to be read."""
    clients = share_of_worker(gateway.limits.connections_max, gateway.workers)
    streams = streams_of_worker(clients)
    return {
        "connections_max": clients,
        "streams_max": streams,
        "origins_max": clients + streams + ORIGINS_IDLE,
        "buffers_max": max(clients, BUFFERS_MIN),
    }


def listener_plans(policy: PolicyInForce) -> list[ListenerPlan]:
    """What the keeper is to listen on for a policy, in the order of the file."""
    listeners = policy.slots.listeners
    return [
        ListenerPlan(
            host=each.address.address,
            port=each.address.port,
            scheme="https" if each.tls is not None and each.tls.on else "http",
            index=listeners.index(key),
            mode=each.mode,
            key=key,
        )
        for key, each in zip(listener_keys(policy.gateway.listeners), policy.gateway.listeners, strict=True)
    ]


def python(module: str) -> list[str]:
    """Words that run a module of ours. -P: whatever lies in the working directory is not imported."""
    return [sys.executable, "-P", "-m", module]


def become_keeper(plan: Plan) -> NoReturn:
    """Exec: the keeper starts with nothing of us in its memory but the plan."""
    raise_file_limit()
    home = str(Path(__file__).parents[2])
    if not sys.flags.safe_path and sys.path[0] == home:  # `python -m scrubber` in a source tree: children find it too
        os.environ["PYTHONPATH"] = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    fd = plan.to_fd()
    if plan.users:
        enforcer = plan.settings["enforcer"]
        xdp = privilege.FOR_XDP if enforcer and "xdp" in enforcer["drop"] else ()
        privilege.keep_as_root((*privilege.FOR_ENFORCER, *xdp) if enforcer else ())
    os.execv(sys.executable, [*python("scrubber.server.keeper"), str(fd)])  # noqa: S606


def protects(gateway: Gateway) -> str:
    """As in "site (127.0.0.1:8000), portal (unix:/run/app.sock)"."""
    return ", ".join(
        f"{area.name} ({', '.join(str(origin.address) for origin in area.origins)})" for area in gateway.areas
    )


def make_directory(path: str, owner: users.User | None = None) -> None:
    """The supervisor's alone to write: mode 0700 where we make it. `owner`: whom it is to belong to, if not us; what
    root made for itself alone in an earlier version is handed over. OperatorError: it is another's, others may write
    there, or its owner cannot reach it."""
    uid = owner[0] if owner else os.geteuid()
    try:
        made = _make_directory(path, owner)
        found = os.lstat(path)
        if owner and not made and stat.S_ISDIR(found.st_mode) and (found.st_uid, found.st_mode & 0o777) == (0, 0o700):
            _hand_over(path, owner)
            found = os.lstat(path)
    except OSError as error:
        hint = "set state_dir in the gateway file to a directory that this user may write"
        raise OperatorError(f"cannot make the directory {path}: {error.strerror}", hint=hint) from None
    writable_by_others = stat.S_IMODE(found.st_mode) & 0o022
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or writable_by_others:
        hint = f"it must be a directory of uid {uid} that nobody else may write (chown {uid} {path}; chmod 700 {path})"
        raise OperatorError(f"{path} is not safe to keep state in", hint=hint)
    if owner and users.ask_as(owner, lambda: "" if os.access(path, os.W_OK | os.X_OK) else "no"):
        hint = "put state_dir where that user gets to, as below /run or /var/lib, or chmod o+x the directories above it"
        raise OperatorError(f"the supervisor, uid {uid}, does not reach {path}", hint=hint)


def _make_directory(path: str, owner: users.User | None) -> bool:
    """Whether it was not there. Directories above it stay ours."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        return False
    if owner:
        os.chown(path, *owner, follow_symlinks=False)
    return True


def _hand_over(path: str, owner: users.User) -> None:
    """Where nothing lies in it but what an earlier version put there, if anything; only root could write in it."""
    with os.scandir(path) as entries:
        found = list(entries)
    if not all(OURS.fullmatch(each.name) for each in found):
        return
    for each in found:
        if each.is_file(follow_symlinks=False):
            os.chown(each.path, *owner, follow_symlinks=False)
    os.chown(path, *owner, follow_symlinks=False)


def take_lock(socket_path: str) -> int:
    """A descriptor that holds the lock on this admin socket; it survives exec. OperatorError: another gateway has
    it."""
    path = f"{socket_path}.lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise OperatorError(f"cannot open {path}: {error.strerror}", hint="see state_dir in the gateway file") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        hint = "stop that one first (scrubber status shows it), or give this one its own state_dir in the gateway file"
        raise OperatorError(f"another gateway runs with the admin socket {socket_path}", hint=hint) from None
    return fd


def make_memory(gateway: Gateway, former: Mapping[str, int], key: bytes) -> tuple[dict[str, int], tuple[int, int]]:
    """The shared regions (kind -> memfd), and where the gauges' slots lie: offset of the first, bytes of each. `key`:
    of all hashes in them.

    Those of the former gateway go on where their layout and size are ours; what has slots of workers is always new, for
    its workers are still at work. OSError.
    """
    workers, memory = gateway.workers, gateway.memory
    shapes = {
        "control": (0, 0),
        "limiter": (memory.limiter_cells, 0),
        "ladder": (memory.ladder, 0),
        "known": (memory.known, 0),
        "blocks": (memory.blocks, 0),
        "totals": (0, workers),
        "gauges": (max(4 * gateway.limits.connections_max // workers, COUNT_CELLS_MIN), workers),
        "rings": (memory.ring_bytes, workers),
        "cache": (memory.cache, 0),
        "origins": (0, 0),
    }
    regions: dict[str, int] = {}
    same_layout = all(layout_of(fd) == LAYOUT_VERSION for fd in former.values())
    for kind, (capacity, slots) in shapes.items():
        bytes_wanted = _native.region_bytes(kind, capacity, slots)
        if same_layout and not slots and kind in former and os.fstat(former[kind]).st_size == bytes_wanted:
            regions[kind] = former[kind]
            continue
        regions[kind] = memfd.plain(f"scrubber-{kind}")
        _native.region_init(regions[kind], kind, capacity, slots, key)
    return regions, _native.Memory(regions, -1).gauges_layout()


def layout_of(region: int) -> int:
    """The layout version in a region's header: magic, then this."""
    head = os.pread(region, 12, 0)
    return int.from_bytes(head[8:12], "little")


def raise_file_limit() -> None:
    """As many open files as we may have: every connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def files_notice(gateway: Gateway) -> str | None:
    """What to say where a worker may run out of open files before it runs out of connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files_needed(gateway)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return None
    return f"open files are limited to {hard}, a worker may need {needed}: raise the limit, or lower connections_max"
