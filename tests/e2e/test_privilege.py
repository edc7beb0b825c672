"""What the processes of a gateway may do: as the kernel says it, and as a captured worker would find it.

A real worker is driven by ptrace (as root) to call what it must not; a process that confines itself in the
same way tries a whole table of system calls.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scrubber.config.users import SUPERVISOR_UID, WORKER_UID
from scrubber.server.privilege import KEPT_AS_ROOT
from tests import wanted
from tests.e2e.conftest import GatewayFactory
from tests.e2e.dns_server import DnsServer
from tests.e2e.driven import drive
from tests.e2e.named_origins import Named
from tests.e2e.support import ROOT, SANITIZED, Gateway, alive, environment, until
from tests.e2e.test_origin_names import names_text

pytestmark = pytest.mark.timeout(120)

DRIVEN = pytest.mark.skipif(os.geteuid() != 0 or os.uname().machine != "x86_64", reason="needs root, and x86_64")
EPERM = 1
KEPT = sum(1 << each for each in KEPT_AS_ROOT)


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status, by word."""
    return dict(re.findall(r"^(\w+):[ \t]*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))


def pids(running: Gateway) -> dict[str, int]:
    """Of each role."""
    return {"keeper": running.process.pid} | {each["role"]: each["pid"] for each in running.status()["children"]}


def test_every_process_as_the_kernel_has_it(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    for role, pid in pids(running).items():
        found = status(pid)
        assert found["NoNewPrivs"] == "1", role
        assert found["Seccomp"] == ("2" if role == "worker" else "0"), role
        assert Path(f"/proc/{pid}/fd").stat().st_uid == 0  # /proc says so of what is not dumpable
        if role != "keeper":
            assert {found[word] for word in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}, role
            assert os.geteuid() != 0 or found["CapBnd"] == "0" * 16, role


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make processes of other users")
def test_processes_of_a_roots_gateway_are_other_users(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    for role, pid in pids(running).items():
        found, uid = status(pid), {"keeper": 0, "supervisor": SUPERVISOR_UID, "worker": WORKER_UID}[role]
        assert found["Uid"].split() == [str(uid)] * 4
        assert found["Gid"].split() == [str(uid)] * 4
        assert role == "keeper" or found["Groups"].split() == []
    keeper = status(running.process.pid)
    assert {keeper["CapEff"], keeper["CapPrm"], keeper["CapBnd"]} == {f"{KEPT:016x}"}
    assert f"supervisor uid {SUPERVISOR_UID}, worker uid {WORKER_UID}" in running.stderr
    assert [(each["uid"], each["seccomp"]) for each in running.status()["children"]] == [
        (SUPERVISOR_UID, ""),
        (WORKER_UID, "filter"),
    ]
    assert {each.stat().st_uid for each in (running.state, *running.state.iterdir()) if each.suffix != ".lock"} == {
        SUPERVISOR_UID
    }
    assert running.cli("reload").returncode == 0
    assert running.get("/hello")[0] == 200


def test_without_root_all_are_one_user_and_confined_all_the_same(gateway: GatewayFactory, tmp_path: Path) -> None:
    uid = SUPERVISOR_UID if os.geteuid() == 0 else os.geteuid()
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if os.geteuid() == 0 else []
    again = "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'import scrubber._native'])"
    can = subprocess.run([*become, sys.executable, "-c", again], check=False, env=environment(), capture_output=True)
    if can.returncode:
        pytest.skip("the interpreter or the package can be read by root only")
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, uid, uid)
    running = gateway(workers=1, command=become, directory=own)
    assert f"all processes run as uid {uid}" in running.stderr
    for role, pid in pids(running).items():
        found = status(pid)
        assert (found["Uid"].split()[0], found["CapEff"], found["NoNewPrivs"]) == (str(uid), "0" * 16, "1"), role
        assert found["Seccomp"] == ("2" if role == "worker" else "0"), role
        assert Path(f"/proc/{pid}/fd").stat().st_uid == 0
    assert running.get("/hello")[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make processes of other users")
def test_an_earlier_versions_state_is_handed_over(gateway: GatewayFactory, tmp_path: Path) -> None:
    state = tmp_path / "g0" / "state"
    state.mkdir(parents=True, mode=0o700)
    (state / "access.log").write_text("")
    (state / "access.log").chmod(0o640)
    running = gateway(workers=1)
    assert state.stat().st_uid == (state / "access.log").stat().st_uid == SUPERVISOR_UID
    assert running.get("/hello")[0] == 200
    until(running.log_lines, 10, "a line in the log that was there")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make processes of other users")
def test_a_directory_that_only_root_reaches_is_refused_before(gateway: GatewayFactory, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    running = gateway(workers=1, state_dir=str(closed / "state"), wait=False)
    assert running.process.wait(30) == 1
    assert f"the supervisor, uid {SUPERVISOR_UID}, does not reach {closed}/state" in running.stderr
    assert "chmod o+x" in running.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make processes of other users")
@pytest.mark.parametrize(
    ("users", "why"),
    [
        ('worker = "no-such-user-here"', "there is no user no-such-user-here"),
        ('worker = "57801"', "supervisor and workers have the same user"),
        ('worker = "root"', "is not a user to run as"),
        ("supervisor = 65534", "the supervisor may not run as 65534"),
    ],
)
def test_users_that_are_refused(gateway: GatewayFactory, users: str, why: str) -> None:
    running = gateway(workers=1, more=f"[users]\n{users}", wait=False)
    assert running.process.wait(30) == 1
    assert why in running.stderr


def test_a_worker_has_no_ring_that_passes_the_filter(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    fds = Path(f"/proc/{running.worker_pid()}/fd")
    if os.access(fds, os.R_OK):
        assert not [fd for fd in fds.iterdir() if "io_uring" in os.readlink(fd)]


@DRIVEN
def test_a_captured_worker_is_refused(gateway: GatewayFactory, tmp_path: Path) -> None:
    running = gateway(workers=1)
    pid, keeper = running.worker_pid(), running.process.pid
    place = tmp_path / "written"
    opens: list[tuple[str, tuple[int | bytes, ...]]] = [
        ("openat", (-100, str(place).encode(), os.O_CREAT | os.O_WRONLY, 0o644)),
        ("openat", (-100, b"/etc/passwd", os.O_RDONLY)),
    ]
    others: list[tuple[str, tuple[int | bytes, ...]]] = [
        ("socket", (16, 3, 0)),  # AF_NETLINK
        ("socket", (2, 3, 1)),  # a raw one
        ("socket", (2, 2, 0)),  # UDP
        ("kill", (keeper, 9)),
        ("kill", (-1, 9)),
        ("setuid", (0,)),
        ("bind", (0, 0, 0)),
        ("fchmodat", (-100, b"/tmp", 0o777)),
        ("memfd_create", (b"x", 0)),
        ("clone", (17, 0, 0, 0, 0)),
        ("mprotect", (0x10000, 4096, 5)),
        ("mmap", (0, 4096, 7, 0x22, -1, 0)),
        ("ioctl", (2, 0x5412, b"x")),  # TIOCSTI
        ("tgkill", (keeper, keeper, 9)),
    ]
    # A sanitizer reads files for its reports.
    calls = [*([] if SANITIZED else opens), *others]
    found = drive(pid, keeper, [(NUMBERS[name], arguments) for name, arguments in calls])
    assert found == [-EPERM] * len(calls)
    assert not place.exists()
    assert alive(pid) and running.get("/hello")[0] == 200
    assert running.worker_pid() == pid


@DRIVEN
@pytest.mark.parametrize("name", ["execve", "ptrace", "bpf", "process_vm_readv", "io_uring_setup"])
def test_what_no_worker_ever_asks_for_ends_it(gateway: GatewayFactory, name: str) -> None:
    running = gateway(workers=1)
    pid = running.worker_pid()
    assert drive(pid, running.process.pid, [(NUMBERS["getpid"], ()), (NUMBERS[name], (b"/bin/true",))]) == [pid]
    until(lambda: running.worker_pid() not in (0, pid), 10, "another worker")
    assert "ended by signal 31" in running.stderr  # SIGSYS
    until(lambda: running.get("/hello")[0] == 200, 10, "traffic again")


# ── a process of our own, confined in the same way ──

NUMBERS_X86_64 = {
    "open": 2, "openat": 257, "creat": 85, "unlink": 87, "rename": 82, "mkdir": 83, "chmod": 90, "fchmodat": 268,
    "truncate": 76, "ftruncate": 77, "pwrite64": 18, "link": 86, "symlink": 88, "mknod": 133, "chdir": 80,
    "kill": 62, "tkill": 200, "rt_sigqueueinfo": 129, "pidfd_open": 434, "pidfd_send_signal": 424,
    "setuid": 105, "setgid": 106, "setresuid": 117, "setgroups": 116, "capset": 126, "prctl": 157, "seccomp": 317,
    "bind": 49, "listen": 50, "fork": 57, "vfork": 58, "clone": 56, "clone3": 435, "memfd_create": 319,
    "mprotect": 10, "shmget": 29, "setrlimit": 160, "sched_setaffinity": 203, "inotify_init1": 294, "settimeofday": 164,
    "socket": 41, "execve": 59, "execveat": 322, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
    "bpf": 321, "perf_event_open": 298, "mount": 165, "unshare": 272, "setns": 308, "chroot": 161, "keyctl": 250,
    "getpid": 39, "mmap": 9, "ioctl": 16, "tgkill": 234, "io_uring_setup": 425,
    "userfaultfd": 323, "pidfd_getfd": 438, "personality": 135, "init_module": 175,
}  # fmt: skip
NUMBERS_AARCH64 = {
    "openat": 56, "fchmodat": 53, "truncate": 45, "ftruncate": 46, "pwrite64": 68, "unlinkat": 35, "renameat2": 276,
    "kill": 129, "tkill": 130, "pidfd_open": 434, "setuid": 146, "setgid": 144, "capset": 91, "prctl": 167,
    "seccomp": 277, "bind": 200, "listen": 201, "clone": 220, "clone3": 435, "memfd_create": 279, "mprotect": 226,
    "socket": 198, "execve": 221, "execveat": 281, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271,
    "bpf": 280, "perf_event_open": 241, "mount": 40, "unshare": 97, "setns": 268, "chroot": 51, "keyctl": 219,
    "io_uring_setup": 425, "userfaultfd": 282, "pidfd_getfd": 438, "personality": 92, "init_module": 105,
}  # fmt: skip
NUMBERS = {"x86_64": NUMBERS_X86_64, "aarch64": NUMBERS_AARCH64}[os.uname().machine]
KILLED = (
    "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "bpf", "perf_event_open", "mount",
    "unshare", "setns", "chroot", "keyctl", "io_uring_setup", "userfaultfd", "pidfd_getfd", "personality",
    "init_module",
)  # fmt: skip
NEEDS_ARGUMENTS = ("mprotect", "socket", "getpid", "mmap", "ioctl", "tgkill")  # refused for what they ask: see above
OPENS = ("open", "openat")
CONFINED = """
import ctypes, errno, json, sys
from scrubber import _native
from scrubber.server import privilege
libc = ctypes.CDLL(None, use_errno=True)
numbers = json.loads(sys.argv[1])
privilege.give_up()
_native.confine_start()
_native.confine()
found = {}
for name, number in numbers.items():
    ctypes.set_errno(0)
    libc.syscall(number, 0, 0, 0, 0, 0, 0)
    found[name] = ctypes.get_errno()
print(json.dumps(found))
"""


def confined(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, timeout=60, check=False, env=environment(),
    )  # fmt: skip


def test_a_table_of_calls_is_refused() -> None:
    refused = {
        name: number
        for name, number in NUMBERS.items()
        if name not in (*KILLED, *NEEDS_ARGUMENTS, *(OPENS if SANITIZED else ()))
    }
    done = confined(CONFINED, json.dumps(refused))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == dict.fromkeys(refused, EPERM)


@pytest.mark.parametrize("name", KILLED)
def test_and_these_end_the_process(name: str) -> None:
    assert confined(CONFINED, json.dumps({name: NUMBERS[name]})).returncode == -31


def test_an_exception_is_still_told() -> None:
    """Its traceback without the lines of the source, which cannot be read; and the end is an ordinary one."""
    done = confined(CONFINED.partition("found =")[0] + "\nraise ValueError('told')", "{}")
    assert done.returncode == 1 and "ValueError: told" in done.stderr


def test_the_filter_is_for_threads_as_well() -> None:
    program = CONFINED.partition("privilege.give_up")[0] + """
import threading
go, found = threading.Event(), []
def late():
    go.wait()
    libc.syscall(numbers["kill"], 0, 0)
    found.append(ctypes.get_errno())
thread = threading.Thread(target=late)
privilege.no_new_privileges()
thread.start()
_native.confine()
go.set()
thread.join()
print(found)
"""
    done = confined(program, json.dumps({"kill": NUMBERS["kill"]}))
    assert done.stdout.strip() == f"[{EPERM}]", done.stderr


# The tree is at $1, and nowhere else: a place that root alone may look into.
CLOSED = """
set -e
mount -t tmpfs -o mode=700 none "$1"
mkdir "$1/tree"
mount --bind "$0" "$1/tree"
mount -t tmpfs none "$0"
shift
exec "$@"
"""


@DRIVEN
def test_everything_is_imported_before_a_process_becomes_somebody_else(
    gateway: GatewayFactory, named: Callable[..., Named], tmp_path: Path
) -> None:
    """Root's files may be out of its reach: a source tree in /root, for one."""
    if not Path(sys.prefix).is_relative_to(ROOT):
        pytest.skip("the environment is not in the tree")
    closed = tmp_path / "closed"
    closed.mkdir()
    tree = closed / "tree"
    python = tree / Path(sys.executable).relative_to(ROOT)
    names, first, second = DnsServer(), named("first"), named("second", address="127.0.0.3", port=0)
    names.table["app.test"] = [first.address]
    text = names_text(names, f"app.test:{first.port}", area="[area.cache]\nenabled = true\n", workers=1)
    running = gateway(
        text=text.replace("[[listener]]", '[memory]\ncache = "1MiB"\n[[listener]]', 1),
        command=[*wanted.own_mounts(), "sh", "-c", CLOSED, str(ROOT), str(closed)],
        program=[str(python), "-m", "scrubber", "run"],
        env={"PYTHONPATH": str(tree)},
    )
    pids = [child["pid"] for child in running.status()["children"]]
    assert running.get("/hello")[0] == 200
    names.table["app.test"] = [first.address, second.address]
    until(lambda: len(running.status()["origins"]) == 2, 15)
    del names.table["app.test"]
    until(lambda: any("does not resolve" in notice for notice in running.status()["notices"]), 15)
    assert running.admin("POST", "/v1/reload")[0] == 200
    sound = running.file.read_text()
    running.file.write_text(sound + 'nonsense = "yes"\n[area.limits]\nhead_timeout = 5\n')
    assert running.admin("POST", "/v1/reload")[0] == 409
    running.file.write_text("not = [toml")
    assert running.admin("POST", "/v1/reload")[0] == 409
    running.file.write_text(sound)
    order = {"source": "198.51.100.7", "ttl_s": 60, "reason": "a test"}
    code, said = running.admin("POST", "/v1/blocks", order)
    assert code == 201, said
    assert running.admin("POST", "/v1/blocks", {**order, "source": "nobody"})[0] == 409
    assert running.admin("GET", "/v1/blocks")[1]["count"] == 1
    assert running.admin("DELETE", "/v1/blocks?source=198.51.100.7&reason=over")[0] == 200
    assert running.admin("POST", "/v1/purge", {"area": "site"})[0] == 200
    assert running.admin("POST", "/v1/reopen")[0] == 200
    assert running.admin("GET", "/v1/acts?since=0")[0] == 200
    assert running.admin("GET", "/metrics")[0] == 200
    assert running.admin("GET", "/nowhere")[0] == 404
    assert running.admin("GET", "/v1/status", token="")[0] == 401
    running.process.send_signal(signal.SIGHUP)
    running.process.send_signal(signal.SIGUSR1)
    until(lambda: [line for line in running.log_lines() if line.get("url.path") == "/hello"])
    assert [child["pid"] for child in running.status()["children"]] == pids
    names.close()
