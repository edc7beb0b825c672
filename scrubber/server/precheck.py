"""What would hurt on this machine, asked before a gateway is started: open files, ports, permissions, origins.

Owns the questions that a file alone cannot answer. Everything found is a warning: the machine that checks need not be
the one that runs. Invariants: nothing is left behind or changed; a gateway that runs is asked, never disturbed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from scrubber.admin import token
from scrubber.config.gateway import Area, Gateway
from scrubber.config.log import Target
from scrubber.config.network import Endpoint
from scrubber.config.origins import ORIGINS_IDLE, streams_of_worker
from scrubber.errors import Problem, ScrubberError
from scrubber.server import users
from scrubber.server.listen import EVERYWHERE

FILES_OWN = 100  # listeners, epoll, memory, logs
PROBE_S = 3.0
PROBES_AT_ONCE = 16

LOG_HINTS = {
    True: "the gateway will not start: name another file in [log], or make its directory",
    False: "lines for it will be lost, and counted",
}
BIND_HINTS = {
    errno.EADDRINUSE: ("another program listens there", "find it with: ss -ltnp 'sport = :{port}'"),
    errno.EACCES: ("ports below 1024 need a privilege", "a port from 1024 on, or CAP_NET_BIND_SERVICE"),
    errno.EADDRNOTAVAIL: ("this machine has no such address", "see: ip address"),
    errno.EAFNOSUPPORT: ("this machine has no such kind of address", "see: ip address"),
}


@dataclass
class Findings:
    """Warnings about a gateway file, and what is merely worth knowing."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def warn(self, path: str, message: str, hint: str = "", expected: str = "") -> None:
        self.problems.append(Problem(self.file, path, message, expected, hint, "warning"))


Running = Callable[[], list[str] | None]


def precheck(gateway: Gateway, *, probe: bool = False, listening: Running = lambda: None) -> Findings:
    """All of it. `listening`: addresses that the running gateway of these files listens on; None: it does not say."""
    found = Findings(gateway.file)
    _check_files(gateway, found)
    whose = _check_users(gateway, found)
    _check_state(gateway, found, whose)
    _check_log(gateway, found, whose)
    _check_listeners(gateway, found, listening)
    if probe:
        _probe(gateway, found)
    return found


def files_needed(gateway: Gateway) -> int:
    """Open files that a worker may come to need. A name counts as one origin, however many addresses it has."""
    clients = gateway.limits.connections_max // gateway.workers
    origins = sum(map(origin_connections, gateway.areas)) // gateway.workers
    # Tunnels are counted over all workers, so that one of them may have them all; each has a client.
    tunnels = min(clients, sum(area.tunnel.total_max for area in gateway.areas if area.upgrade))
    return clients + min(origins + tunnels, clients + streams_of_worker(clients) + ORIGINS_IDLE) + FILES_OWN


def origin_connections(area: Area) -> int:
    """Connections to all origins of an area, tunnels apart: the area's limit is one for each origin."""
    origins = [*area.origins, *(origin for pool in area.pools for origin in pool.origins)]
    return sum(origin.connections_max or area.limits.origin_connections_max for origin in origins)


def _check_files(gateway: Gateway, found: Findings) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = files_needed(gateway)
    if hard != resource.RLIM_INFINITY and hard < needed:
        message = f"open files are limited to {hard}, a worker may need {needed} (clients, origins, tunnels, its own)"
        hint = "raise the limit (ulimit -Hn; systemd: LimitNOFILE=), or lower connections_max"
        found.warn("limits.connections_max", message, hint)


# ── users ──


def _check_users(gateway: Gateway, found: Findings) -> dict[str, users.User]:
    """As whom processes would run, and what they could not read again."""
    try:
        whose = users.look_up(gateway.users)
        notice = users.unread_notice(gateway, whose)
    except ScrubberError as error:
        found.warn("users", f"the gateway will not start: {error.message}", error.hint)
        return {}
    if notice:
        found.warn("users.supervisor", notice, "let that user read them, and pass through the directories above")
    return whose


# ── the state directory ──


def _check_state(gateway: Gateway, found: Findings, whose: Mapping[str, users.User]) -> None:
    uid = whose["supervisor"][0] if whose else os.geteuid()
    _check_directory(gateway.state_dir, "state_dir", uid, found)
    home = str(Path(gateway.admin.socket).parent)
    if home != gateway.state_dir:
        _check_directory(home, "admin.socket", uid, found)
    if os.path.lexists(gateway.admin.token_file):
        try:
            token.read(gateway.admin.token_file)
        except ScrubberError as error:
            found.warn("admin.socket", error.message, error.hint)


def _check_directory(path: str, place: str, uid: int, found: Findings) -> None:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        if why := not_creatable(path):
            found.warn(place, f"the directory {path} cannot be made: {why}", "choose one that this user may write")
        return
    except OSError as error:
        found.warn(place, f"the directory {path} cannot be looked at: {error.strerror}", "run this as its user")
        return
    if not stat.S_ISDIR(there.st_mode):
        found.warn(place, f"{path} is not a directory", "choose another one")
    elif there.st_uid not in (uid, os.geteuid()) or stat.S_IMODE(there.st_mode) & 0o022:
        hint = f"it must be a directory of uid {uid} that nobody else may write (chmod 700 {path})"
        found.warn(place, f"{path} is not safe to keep state in", hint)


def not_creatable(path: str) -> str:
    """Why nothing can be made under that name; "": it can."""
    parent = Path(path).parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        return f"{parent} is not a directory"
    return "" if os.access(parent, os.W_OK | os.X_OK) else f"no permission to write in {parent}"


# ── the log ──


def _check_log(gateway: Gateway, found: Findings, whose: Mapping[str, users.User]) -> None:
    for name, places in (("access", gateway.log.access), ("acts", gateway.log.acts)):
        for i, place in enumerate(places):
            if name == "acts" and place.to in {each.to for each in gateway.log.access}:
                continue
            if why := _log_refuses_as(whose.get("supervisor"), place.to, gateway.state_dir):
                found.warn(f"log.{name}[{i}].to", f"{place.to}: {why}", LOG_HINTS[place.to.kind == "file"])


def _log_refuses_as(user: users.User | None, to: Target, state_dir: str) -> str:
    """The state directory becomes the supervisor's at the start; others are as they are."""
    if str(Path(to.address).parent) == state_dir:
        user = None
    return users.ask_as(user, lambda: _log_refuses(to, state_dir))


def _log_refuses(to: Target, state_dir: str) -> str:
    if to.kind == "syslog_unix" and not _is_socket(to.address):
        return "there is no such socket"
    if to.kind != "file":
        return ""
    if os.path.isdir(to.address):
        return "is a directory"
    if os.path.lexists(to.address):
        return "" if os.access(to.address, os.W_OK) else "no permission to write it"
    home = str(Path(to.address).parent)
    if home != state_dir and not os.path.isdir(home):
        return f"there is no directory {home}"
    return not_creatable(to.address)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


# ── listeners ──


def _check_listeners(gateway: Gateway, found: Findings, listening: Running) -> None:
    running: list[str] | None = None
    asked = False
    for i, listener in enumerate(gateway.listeners):
        why, hint = _cannot_listen(listener.address)
        if not why:
            continue
        if why == BIND_HINTS[errno.EADDRINUSE][0] and is_running(gateway):
            if not asked:
                running, asked = listening(), True
            if running is None or any(_meets(text, listener.address) for text in running):
                how = "" if running is not None else " (it seems: it could not be asked)"
                found.notes.append(f"{listener.address} is in use by the running gateway{how}")
                continue
        found.warn(f"listener[{i}].address", f"cannot listen on {listener.address}: {why}", hint)


def _meets(url: str, address: Endpoint) -> bool:
    """Whether a URL of the status is this address, or one that connections to it could come to."""
    text = url.partition("://")[2] or url
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    wide = not {host, address.address}.isdisjoint(EVERYWHERE) and (":" in host) == (":" in address.address)
    return text == str(address) or (wide and port == str(address.port))


def _cannot_listen(address: Endpoint) -> tuple[str, str]:
    """Why, and what to do; "": it can."""
    if address.family == "unix":
        return _cannot_listen_unix(address.address)
    v6 = address.family == "inet6"
    try:
        with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if v6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address.address, address.port))
    except OSError as error:
        other = (error.strerror or str(error), "see the listener's address")
        why, hint = BIND_HINTS.get(error.errno or 0, other)
        return why, hint.replace("{port}", str(address.port))
    return "", ""


def _cannot_listen_unix(path: str) -> tuple[str, str]:
    if not os.path.lexists(path):
        home = str(Path(path).parent)
        why = f"there is no directory {home}" if not os.path.isdir(home) else not_creatable(path)
        return why, "make it, with permissions for this user"
    if not _is_socket(path):
        return "there is a file that is no socket", "remove it, or name another path"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        return BIND_HINTS[errno.EADDRINUSE][0], "name another path"
    return "", ""


def is_running(gateway: Gateway) -> bool:
    """Whether a gateway has the admin socket of these files: it holds a lock on its name."""
    try:
        fd = os.open(f"{gateway.admin.socket}.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


# ── origins ──


def _probe(gateway: Gateway, found: Findings) -> None:
    """A connection to each origin, and to each receiver of the log by TCP. The same address is asked once."""
    wanted = list(_endpoints(gateway))
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        each_once = list(dict.fromkeys(endpoint for _, endpoint, _ in wanted))
        answers = dict(zip(each_once, pool.map(cannot_connect, each_once), strict=True))
    for path, endpoint, hint in wanted:
        if answers[endpoint]:
            found.warn(path, f"no connection to {endpoint}: {answers[endpoint]}", hint)


def _endpoints(gateway: Gateway) -> Iterator[tuple[str, Endpoint, str]]:
    """Place in the file, address, what to do where nobody answers there."""
    hint = "is the origin running, and may this machine reach it?"
    for i, area in enumerate(gateway.areas):
        for k, origin in enumerate(area.origins):
            yield f"area[{i}].origins[{k}]", origin.address, hint
        for n, pool in enumerate(area.pools):
            for k, origin in enumerate(pool.origins):
                yield f"area[{i}].pool[{n}].origins[{k}]", origin.address, hint
    for name, places in (("access", gateway.log.access), ("acts", gateway.log.acts)):
        for i, place in enumerate(places):
            if place.to.kind == "syslog_tcp":
                family = "inet6" if ":" in place.to.address else "inet"
                endpoint = Endpoint(family, place.to.address, place.to.port)  # type: ignore[arg-type]
                yield f"log.{name}[{i}].to", endpoint, "is the receiver running?"


def cannot_connect(endpoint: Endpoint) -> str:
    """Why no connection comes about within PROBE_S; "": it does."""
    try:
        if endpoint.family == "unix":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PROBE_S)
                sock.connect(endpoint.address)
        else:
            socket.create_connection((endpoint.address, endpoint.port), PROBE_S).close()
    except TimeoutError:
        return f"no answer within {PROBE_S:g} s"
    except socket.gaierror as error:
        return f"the name does not resolve: {error.strerror}"
    except OSError as error:
        return error.strerror or str(error)
    return ""
