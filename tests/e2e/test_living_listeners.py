"""Listeners come and go with a reload; Unix sockets; what a stop or a removed listener leaves its connections."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import GatewayFactory
from tests.e2e.recorder import Recorder
from tests.e2e.support import SLOW, Gateway, Origin, UnixConnection, free_port, gateway_text, refused, until
from tests.e2e.test_living_upgrade import settled, upgraded


def listener(address: str, more: str = "") -> str:
    return f'[[listener]]\naddress = "{address}"\n{more}\n'


def text_of(origin: Origin | int, *listeners: str, top: str = "", workers: int = 2) -> str:
    port = origin if isinstance(origin, int) else origin.port
    whole = gateway_text(port, workers=workers, top=top)
    head, rest = whole.split("[[listener]]")
    area = rest[rest.index("[[area]]") :]
    return head + "".join(listeners) + area


def ask(port: int, path: str = "/", host: str = "127.0.0.1") -> int:
    connection = http.client.HTTPConnection(host, port, timeout=20 * SLOW)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def reload(running: Gateway, text: str) -> None:
    running.file.write_text(text)
    done = running.cli("reload")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose paths are short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="scr-") as found:
        yield Path(found)


def test_a_listener_is_added_and_removed_by_a_reload(gateway: GatewayFactory, origin: Origin) -> None:
    first, second = listener(f"127.0.0.1:{free_port()}"), free_port()
    running = gateway(text=text_of(origin, first))
    assert refused(second)
    reload(running, text_of(origin, first, listener(f"127.0.0.1:{second}")))
    assert [ask(second) for _ in range(20)] == [200] * 20
    assert running.status()["listeners"][1] == f"http://127.0.0.1:{second}"
    keep = http.client.HTTPConnection("127.0.0.1", second, timeout=20)
    keep.request("GET", "/")
    assert keep.getresponse().read() is not None
    reload(running, text_of(origin, first))
    until(lambda: refused(second), what="the removed listener's port refuses")
    assert running.get("/")[0] == 200
    assert len(running.status()["listeners"]) == 1
    keep.close()


def told_to_end(connection: http.client.HTTPConnection) -> bool:
    """Whether the answer to a further request says that it is the last one here."""
    connection.request("GET", "/")
    response = connection.getresponse()
    response.read()
    return response.getheader("Connection") == "close"


def test_what_runs_on_a_removed_listener_ends_and_what_waits_there_is_served(
    gateway: GatewayFactory, origin: Origin
) -> None:
    first, second = listener(f"127.0.0.1:{free_port()}"), free_port()
    running = gateway(text=text_of(origin, first, listener(f"127.0.0.1:{second}"), workers=1))
    keep = http.client.HTTPConnection("127.0.0.1", second, timeout=20)
    keep.request("GET", "/")
    response = keep.getresponse()
    response.read()
    assert response.getheader("Connection") != "close"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(ask, second, "/slow/2") for _ in range(3)]
        time.sleep(0.5)
        worker = running.worker_pid()
        running.file.write_text(text_of(origin, first, workers=1))
        running.process.send_signal(signal.SIGHUP)
        os.kill(worker, signal.SIGSTOP)  # for a moment, so that something waits in the queue while it is taken away
        waiting = [socket.create_connection(("127.0.0.1", second)) for _ in range(5)]
        time.sleep(0.2)
        os.kill(worker, signal.SIGCONT)
        for each in waiting:
            each.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert each.recv(1000).startswith(b"HTTP/1.1 200")
            each.close()
        until(lambda: refused(second))
        with contextlib.suppress(http.client.HTTPException, OSError):  # gone already where the machine is slow
            until(lambda: told_to_end(keep))  # the worker hears of it after the port is closed
        assert [each.result() for each in slow] == [200] * 3
    until(lambda: refused(second))
    assert running.worker_pid() == worker
    keep.close()


def test_a_removed_listener_s_connections_are_told_to_end(gateway: GatewayFactory, origin: Origin) -> None:
    first, second = listener(f"127.0.0.1:{free_port()}"), free_port()
    running = gateway(text=text_of(origin, first, listener(f"127.0.0.1:{second}"), workers=1))
    with socket.create_connection(("127.0.0.1", second), timeout=20 * SLOW) as half:
        half.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
        time.sleep(0.2)
        reload(running, text_of(origin, first, workers=1))
        until(lambda: refused(second))
        half.sendall(b"\r\n")
        answer = b""
        while piece := half.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"\r\nconnection: close\r\n" in answer.lower()


def test_silent_connections_of_a_removed_listener_are_closed(gateway: GatewayFactory, origin: Origin) -> None:
    first, second = listener(f"127.0.0.1:{free_port()}"), free_port()
    running = gateway(text=text_of(origin, first, listener(f"127.0.0.1:{second}"), workers=1))
    with (
        socket.create_connection(("127.0.0.1", second), timeout=20 * SLOW) as gone,
        socket.create_connection(("127.0.0.1", running.port), timeout=20 * SLOW) as stays,
    ):
        for each in (gone, stays):
            each.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert each.recv(10_000).startswith(b"HTTP/1.1 200")
        reload(running, text_of(origin, first, workers=1))
        assert gone.recv(1) == b""
        stays.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert stays.recv(10_000).startswith(b"HTTP/1.1 200")


def test_the_deadline_cuts_what_does_not_end(gateway: GatewayFactory, origin: Origin) -> None:
    first, second = listener(f"127.0.0.1:{free_port()}"), free_port()
    top = 'stop_deadline = "500ms"'
    running = gateway(text=text_of(origin, first, listener(f"127.0.0.1:{second}"), workers=1, top=top))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ask, second, "/slow/8")
        time.sleep(0.3)
        began = time.monotonic()
        reload(running, text_of(origin, first, workers=1, top=top))
        with pytest.raises((OSError, http.client.HTTPException)):
            slow.result()
    assert time.monotonic() - began < 6 * SLOW


def test_reordering_changes_nothing(gateway: GatewayFactory, origin: Origin) -> None:
    one, two = free_port(), free_port()
    first, second = listener(f"127.0.0.1:{one}"), listener(f"127.0.0.1:{two}", 'trusted_proxies = ["127.0.0.1"]')
    running = gateway(text=text_of(origin, first, second), rules="")
    keep = [http.client.HTTPConnection("127.0.0.1", port, timeout=20) for port in (one, two)]

    def clients() -> list[str]:
        seen = []
        for index, each in enumerate(keep):
            path = f"/{index}/{time.monotonic_ns()}"
            each.request("GET", path, headers={"X-Forwarded-For": "203.0.113.7"})
            response = each.getresponse()
            response.read()
            assert response.getheader("Connection") != "close"

            def lines(path: str = path) -> list[str]:
                return [line["client.ip"] for line in running.log_lines() if line.get("url.path") == path]

            seen += until(lines)
        return seen

    assert clients() == ["127.0.0.1", "203.0.113.7"]
    reload(running, text_of(origin, second, first))
    assert clients() == ["127.0.0.1", "203.0.113.7"]
    assert running.status()["listeners"] == [f"http://127.0.0.1:{two}", f"http://127.0.0.1:{one}"]
    for each in keep:
        each.close()


def test_any_port_is_kept_over_a_reload(gateway: GatewayFactory, origin: Origin) -> None:
    two = [listener("127.0.0.1:0"), listener("127.0.0.1:0", 'areas = ["site"]')]
    running = gateway(text=text_of(origin, *two))
    before = running.status()["listeners"]
    assert len(set(before)) == 2
    reload(running, text_of(origin, *two, listener("[::1]:0")))
    assert running.status()["listeners"][:2] == before
    assert ask(int(running.status()["listeners"][2].rpartition(":")[2]), host="::1") == 200


def test_an_address_that_cannot_be_bound_refuses_the_whole_reload(gateway: GatewayFactory, origin: Origin) -> None:
    first, good = listener(f"127.0.0.1:{free_port()}"), free_port()
    running = gateway(text=text_of(origin, first))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        more = [listener(f"127.0.0.1:{good}"), listener(f"127.0.0.1:{taken}")]
        running.file.write_text(text_of(origin, first, *more).replace("origins", "ratelimit_fields = true\norigins"))
        done = running.cli("reload", "--json")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["message"] == f"cannot listen on 127.0.0.1:{taken}: another program listens there"
    assert error["hint"]
    assert refused(good)
    status = running.status()
    assert status["generation"] == 1
    assert len(status["listeners"]) == 1
    assert status["reload"]["ok"] is False
    reload(running, text_of(origin, first, *more))
    assert ask(good) == ask(taken) == 200


def test_new_workers_and_supervisors_get_the_present_listeners(gateway: GatewayFactory, origin: Origin) -> None:
    first, second, third = listener(f"127.0.0.1:{free_port()}"), free_port(), free_port()
    running = gateway(text=text_of(origin, first, listener(f"127.0.0.1:{third}")))
    reload(running, text_of(origin, first, listener(f"127.0.0.1:{second}")))
    pids = [child["pid"] for child in running.status()["children"]]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            children = running.status()["children"]
            return all(child["pid"] not in (0, *pids) and child["beat_age_ms"] is not None for child in children)
        return False

    until(back, 20)
    assert [ask(second) for _ in range(20)] == [200] * 20
    assert refused(third)
    assert [url.rpartition(":")[2] for url in running.status()["listeners"]] == [str(running.port), str(second)]
    reload(running, text_of(origin, first))
    until(lambda: refused(second))


def test_many_reloads_leave_no_descriptor(gateway: GatewayFactory, origin: Origin) -> None:
    first, port = listener(f"127.0.0.1:{free_port()}"), free_port()
    limits = '[area.limits]\norigin_idle = "0s"\n'
    running = gateway(text=text_of(origin, first) + limits)
    pids = [running.process.pid, *(child["pid"] for child in running.status()["children"])]

    def opened() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]

    def turn() -> None:
        reload(running, text_of(origin, first, listener(f"127.0.0.1:{port}")) + limits)
        assert ask(port) == 200
        reload(running, text_of(origin, first) + limits)

    turn()
    until(lambda: refused(port))
    time.sleep(1.5)
    before = opened()
    for _ in range(4):
        turn()
    until(lambda: all(now <= then for now, then in zip(opened(), before, strict=True)), what="as many as before")


def test_fewer_connections_need_no_restart_more_need_an_upgrade(gateway: GatewayFactory, origin: Origin) -> None:
    first = listener(f"127.0.0.1:{free_port()}")
    running = gateway(text=text_of(origin, first, workers=1), rules="")
    limits = "[limits]\nconnections_max = {}\nconnections_client_max = 1000\n"
    reload(running, text_of(origin, first, workers=1) + limits.format(16))
    with contextlib.ExitStack() as opened:
        for _ in range(16):
            held = opened.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=5))
            held.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert held.recv(1000).startswith(b"HTTP/1.1 200")
        with pytest.raises((OSError, http.client.HTTPException)):
            running.get("/")
    running.file.write_text(text_of(origin, first, workers=1) + limits.format(1_000_000))
    done = running.cli("reload")
    assert done.returncode == 1
    assert "limits.connections_max" in done.stderr
    assert "scrubber upgrade" in done.stderr


# ── Unix sockets ──


def ask_unix(path: Path, target: str = "/", headers: dict[str, str] | None = None) -> int:
    connection = UnixConnection(str(path))
    try:
        connection.request("GET", target, headers=headers or {})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


FIVE = """
[[rule]]
name = "five"
per = "client"
limit = "5/min burst 5"
then = ["throttle"]
"""


def test_a_unix_socket_serves_with_its_mode_and_goes_with_a_clean_stop(
    gateway: GatewayFactory, origin: Origin, short: Path
) -> None:
    path = short / "http.sock"
    running = gateway(text=text_of(origin, listener(f"unix:{path}"), listener("127.0.0.1:0")))
    assert f"unix:{path}" in running.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda _: ask_unix(path), range(200))) == {200}
    accepted = [child["slot"] for child in running.status()["children"] if child["role"] == "worker"]
    assert accepted == [0, 1]
    reload(running, text_of(origin, listener(f"unix:{path}", 'mode = "0600"'), listener("127.0.0.1:0")))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ask_unix(path) == 200
    assert running.stop() == 0
    assert not path.exists()


def test_a_unix_socket_is_removed_with_its_listener(gateway: GatewayFactory, origin: Origin, short: Path) -> None:
    path, first = short / "http.sock", listener(f"127.0.0.1:{free_port()}")
    running = gateway(text=text_of(origin, first))
    for _ in range(2):
        reload(running, text_of(origin, first, listener(f"unix:{path}")))
        assert ask_unix(path) == 200
        reload(running, text_of(origin, first))
        assert not path.exists()


def test_a_stale_socket_is_replaced_anything_else_is_not(gateway: GatewayFactory, origin: Origin, short: Path) -> None:
    path = short / "http.sock"
    text = text_of(origin, listener(f"unix:{path}"))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
        busy = gateway(text=text, wait=False)
        assert busy.process.wait(20 * SLOW) == 1
        assert f"cannot listen on unix:{path}: another program listens there" in busy.stderr
        assert path.exists()
    stale = gateway(text=text)
    assert ask_unix(path) == 200
    assert stale.stop() == 0
    path.write_text("a file of somebody's")
    blocked = gateway(text=text, wait=False)
    assert blocked.process.wait(20 * SLOW) == 1
    assert "there is a file that is no socket" in blocked.stderr
    assert path.read_text() == "a file of somebody's"


def test_clients_over_a_unix_socket_are_one_and_never_blocked(
    gateway: GatewayFactory, origin: Origin, short: Path
) -> None:
    path = short / "http.sock"
    running = gateway(text=text_of(origin, listener(f"unix:{path}"), listener("127.0.0.1:0")), rules=FIVE)
    assert {ask_unix(path, headers={"X-Forwarded-For": "203.0.113.7"}) for _ in range(20)} == {200}
    done = running.cli("block", "::", "--reason", "not possible")
    assert done.returncode != 0
    assert "never-block" in done.stderr
    until(lambda: len([line for line in running.log_lines() if line.get("url.path") == "/"]) == 20)
    assert {line["client.ip"] for line in running.log_lines() if "url.path" in line} == {"::"}
    # more at once than one address may have
    with contextlib.ExitStack() as opened:
        for _ in range(200):
            sock = opened.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(20 * SLOW)
            sock.connect(str(path))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_trusted_unix_socket_s_header_names_the_client(gateway: GatewayFactory, short: Path) -> None:
    path = short / "http.sock"
    with Recorder() as recorder:
        trusted = listener(f"unix:{path}", 'trusted_proxies = ["unix", "198.51.100.0/24"]')
        running = gateway(text=text_of(recorder.port, trusted, workers=1), rules=FIVE)
        answers = [ask_unix(path, headers={"X-Forwarded-For": "203.0.113.7"}) for _ in range(8)]
        assert answers == [200] * 5 + [429] * 3
        assert ask_unix(path, headers={"X-Forwarded-For": "203.0.113.8, 198.51.100.3"}) == 200
        head = recorder.requests[-1]
        assert head.one("x-forwarded-for") == "203.0.113.8, 198.51.100.3, unknown"
        assert [part.split(";")[0] for part in (head.one("forwarded") or "").split(", ")] == [
            "for=203.0.113.8",
            "for=198.51.100.3",
            "for=unknown",
        ]
        assert ask_unix(path) == 200
        assert recorder.requests[-1].one("x-forwarded-for") == "unknown"
        assert running.cli("block", "203.0.113.8", "--reason", "test").returncode == 0
        assert ask_unix(path, headers={"X-Forwarded-For": "203.0.113.8"}) == 403
        assert ask_unix(path) == 200


# ── the end ──


def test_the_stop_deadline_is_the_file_s_and_changes_by_reload(gateway: GatewayFactory, origin: Origin) -> None:
    first = listener(f"127.0.0.1:{free_port()}")
    running = gateway(text=text_of(origin, first, top='stop_deadline = "1h"'))
    reload(running, text_of(origin, first, top='stop_deadline = "500ms"'))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ask, running.port, "/slow/9")
        time.sleep(0.5)
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 6 * SLOW
        with pytest.raises((OSError, http.client.HTTPException)):
            slow.result()
    assert "draining: 0.5 s at most" in running.stderr


def test_keep_alive_connections_end_with_connection_close(gateway: GatewayFactory, origin: Origin) -> None:
    running = gateway(workers=1)
    answers: list[str | None] = []
    problems: list[str] = []

    def hammer() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20 * SLOW)
        try:
            while not answers or answers[-1] != "close":
                connection.request("GET", "/")
                response = connection.getresponse()
                response.read()
                answers.append(response.getheader("Connection"))
        except (OSError, http.client.HTTPException) as error:
            problems.append(repr(error))
        finally:
            connection.close()

    thread = threading.Thread(target=hammer)
    thread.start()
    until(lambda: len(answers) > 20)
    assert running.stop() == 0
    thread.join()
    assert problems == []
    assert answers[-1] == "close"


def test_every_ipv6_address_is_no_ipv4_one(gateway: GatewayFactory, origin: Origin) -> None:
    port = free_port()
    gateway(text=text_of(origin, listener(f"[::]:{port}")))
    assert ask(port, host="::1") == 200
    assert refused(port)


def test_a_single_address_beside_all_of_them(gateway: GatewayFactory, origin: Origin) -> None:
    """By start, reload and upgrade; each takes its own connections, and no check says otherwise."""
    port = free_port()
    wide = listener(f"0.0.0.0:{port}")
    narrow = listener(f"127.0.0.1:{port}", 'default = "other"')
    other = '[[area]]\nname = "other"\norigins = ["127.0.0.1:9"]\n'
    other += '[[area.route]]\npath_prefix = "/"\nanswer = { status = 418 }\n'

    def text(*listeners: str) -> str:
        return text_of(origin, *listeners) + other

    def apart() -> bool:
        found = []
        for host in ("127.0.0.1", "127.0.0.2"):
            connection = http.client.HTTPConnection(host, port, timeout=20 * SLOW)
            connection.request("GET", "/", headers={"Host": "any"})
            found.append(connection.getresponse().status)
            connection.close()
        return found == [418, 200]

    running = gateway(text=text(wide, narrow))
    assert apart()
    checked = running.cli("check", str(running.file))
    assert "another program" not in checked.stdout
    reload(running, text(narrow))
    until(lambda: refused_at("127.0.0.2", port))
    reload(running, text(narrow, wide))
    assert apart()
    reload(running, text(narrow))
    running.file.write_text(text(wide, narrow))
    old = [child["pid"] for child in running.status()["children"]]
    upgraded(running)
    settled(running, old)
    assert apart()


def refused_at(host: str, port: int) -> bool:
    """As `refused`, of another address."""
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection((host, port), timeout=1):
        return False
    return True
