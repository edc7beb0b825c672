"""Networks of the demo's own: outside (people, attackers), upstream (the provider's router), the gateway's.

Owns: their names, wires and addresses, and the question whether they may be made here. Invariants: nothing of this
machine's own network is touched or reached; what was made is gone after `close`, also after a failure halfway, and
what a run that was killed has left is taken away by the next.
"""

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from os import geteuid, getpid
from pathlib import Path
from types import TracebackType

from bench.load.sealed import PATH, PREFIX, space_name

SITE, VICTIM = "203.0.113.10", "203.0.113.66"
PROTECTED = "203.0.113.0/24"
GATEWAY_END, UPSTREAM_END = "192.0.2.1", "192.0.2.2"  # of the line between gateway and provider
ABROAD, HOME = "192.0.2.9", "192.0.2.10"  # of the wire beyond the provider
POOL = "198.18.0.0/15"
PACKAGES = {"ip": "iproute2", "nft": "nftables", "bird": "bird2", "unshare": "util-linux"}
TRIAL = "ip link add trial0 type veth peer name trial1 && nft add table inet trial"
# What the gateway's line brings to the victim is counted before anything else happens to it.
COUNTER = f"""
add table inet demo
add counter inet demo victim
add chain inet demo line {{ type filter hook prerouting priority -400; }}
add rule inet demo line ip daddr {VICTIM} counter name victim
"""


class NoNetwork(Exception):
    """Networks of its own cannot be made here; the message says why."""


def program(name: str) -> str:
    """The path of a program that `why_not` has found."""
    return shutil.which(name, path=PATH) or name


def why_not() -> str:
    """Why the run cannot have networks of its own; empty: it can."""
    if geteuid() != 0:
        return "it takes root"
    missing = [package for name, package in PACKAGES.items() if shutil.which(name, path=PATH) is None]
    if missing:
        return f"it takes {', '.join(missing)} (apt-get install {' '.join(missing)})"
    trial = [program("unshare"), "-n", "sh", "-c", TRIAL]
    done = subprocess.run(trial, capture_output=True, text=True, check=False, timeout=20, env={"PATH": PATH})
    return f"no network can be made here: {_first_line(done.stderr)}" if done.returncode else ""


class Space:
    """One network namespace."""

    def __init__(self, label: str) -> None:
        self.name = space_name(getpid(), label)
        _run(program("ip"), "netns", "add", self.name)

    @property
    def into(self) -> tuple[str, ...]:
        """Words before a command that is to run in it."""
        return program("ip"), "netns", "exec", self.name

    def ip(self, *words: str) -> None:
        """`ip WORDS` in it."""
        _run(program("ip"), "-n", self.name, *words)

    def run(self, *command: str, text: str = "") -> None:
        """A command in it, `text` on its stdin."""
        _run(*self.into, *command, text=text)


class Network:
    """All three, wired: outside - upstream - gateway. NoNetwork: they cannot be made here. A context manager."""

    def __init__(self) -> None:
        self._made: list[Space] = []
        try:
            for name in leftovers():
                _run(program("ip"), "netns", "delete", name)
            self.outside = self._make("outside")
            self.upstream = self._make("upstream")
            self.gateway = self._make("gateway")
            self._wire()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """All are gone, whoever presses Ctrl-C meanwhile. What runs in them has been ended before."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            while self._made:
                with contextlib.suppress(NoNetwork):
                    _run(program("ip"), "netns", "delete", self._made.pop().name)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _make(self, label: str) -> Space:
        space = Space(label)
        self._made.append(space)
        space.ip("link", "set", "lo", "up")
        return space

    def _wire(self) -> None:
        """Addresses and routes. All of the pool is at home outside, as one route: no address is set up by itself."""
        _wire(self.gateway, f"north {GATEWAY_END}/30", self.upstream, f"south {UPSTREAM_END}/30")
        _wire(self.upstream, f"abroad {ABROAD}/30", self.outside, f"home {HOME}/30")
        for address in (SITE, VICTIM):
            self.gateway.ip("address", "add", f"{address}/32", "dev", "lo")
        self.gateway.ip("route", "add", "default", "via", UPSTREAM_END)
        self.upstream.ip("route", "add", PROTECTED, "via", GATEWAY_END)
        self.upstream.ip("route", "add", POOL, "via", HOME)
        self.outside.ip("route", "add", "local", POOL, "dev", "lo")
        self.outside.ip("route", "add", "default", "via", ABROAD)
        self.upstream.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        self.gateway.run(program("nft"), "-f", "-", text=COUNTER)


def leftovers() -> Iterator[str]:
    """Networks of runs whose process is gone, in which nothing runs any more."""
    for path in sorted(Path("/run/netns").glob(f"{PREFIX}*")):
        maker = path.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", maker).exists() and not _run(program("ip"), "netns", "pids", path.name):
            yield path.name


def _wire(a: Space, a_end: str, b: Space, b_end: str) -> None:
    """A veth pair, up. An end is its name and address."""
    a_name, a_address = a_end.split()
    b_name, b_address = b_end.split()
    a.ip("link", "add", a_name, "type", "veth", "peer", "name", b_name, "netns", b.name)
    for space, name, address in ((a, a_name, a_address), (b, b_name, b_address)):
        space.ip("address", "add", address, "dev", name)
        space.ip("link", "set", name, "up")


def _run(*command: str, text: str = "") -> str:
    """What it printed. NoNetwork: it failed."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoNetwork(str(error)) from error
    if done.returncode:
        raise NoNetwork(f"{' '.join(command[-4:])}: {_first_line(done.stderr)}")
    return done.stdout


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["it does not say why"])[0]
