"""`scrubber check` on this machine: what would hurt is said, with its place and a hint; nothing is changed."""

from __future__ import annotations

import json
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scrubber.cli import main
from scrubber.config.gateway import Gateway, load_gateway
from scrubber.config.origins import ORIGINS_IDLE, STREAMS_MIN
from scrubber.errors import Problem
from scrubber.server import precheck as module
from scrubber.server.precheck import is_running, precheck
from scrubber.server.start import take_lock
from tests.e2e.support import gateway_text, mandate_text, open_way


@pytest.fixture(autouse=True)
def _way(tmp_path: Path) -> None:
    """As root: the supervisor's user reaches the files."""
    open_way(tmp_path)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield int(sock.getsockname()[1])


def load(folder: Path, text: str) -> Gateway:
    (folder / "mandate.toml").write_text(mandate_text())
    (folder / "gateway.toml").write_text(text)
    gateway, problems = load_gateway(folder / "gateway.toml")
    assert gateway is not None, problems
    return gateway


def check(folder: Path, text: str, *args: str, mandate: str | None = None) -> tuple[int, dict[str, Any]]:
    (folder / "mandate.toml").write_text(mandate or mandate_text())
    (folder / "gateway.toml").write_text(text)
    result = CliRunner().invoke(main, ["check", "--json", *args, str(folder / "gateway.toml")])
    return result.exit_code, json.loads(result.stdout)


def places(problems: list[Problem]) -> list[str]:
    assert all(problem.severity == "warning" and problem.message and problem.hint for problem in problems)
    return [problem.path for problem in problems]


def test_sound_files_on_a_sound_machine(tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    assert precheck(load(tmp_path, gateway_text(9))).problems == []
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "gateway.toml", tmp_path / "mandate.toml"])
    assert check(tmp_path, gateway_text(9), "--strict") == (0, {"ok": True, "problems": [], "notes": []})


def test_open_files_against_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = "[limits]\nconnections_max = 4000\n"
    gateway = load(tmp_path, gateway_text(9, workers=2, area="upgrade = []", more=more))
    assert module.files_needed(gateway) == 2000 + 128 + module.FILES_OWN
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 2000))
    (problem,) = precheck(gateway).problems
    assert problem.path == "limits.connections_max"
    assert "limited to 2000, a worker may need 2228" in problem.message
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    assert precheck(gateway).problems == []


def test_open_files_of_several_origins_and_of_tunnels(tmp_path: Path) -> None:
    def needed(area: str, connections: int = 8000) -> int:
        more = f"{area}\n[limits]\nconnections_max = {connections}\n"
        gateway = load(tmp_path, gateway_text('127.0.0.1:9", "127.0.0.1:8', workers=2, area=more))
        return module.files_needed(gateway) - connections // 2 - module.FILES_OWN

    none, few = "upgrade = []\n", "[area.limits]\norigin_connections_max = 10\n"
    assert needed(none) == 256, "the limit is one for each origin"
    pool = '[[area.pool]]\nname = "more"\norigins = ["127.0.0.1:7", {address = "127.0.0.1:6", connections_max = 30}]\n'
    assert needed(none + few + pool) == (10 + 10 + 10 + 30) // 2
    assert needed(few + "[area.tunnel]\ntotal_max = 500\n") == 10 + 500, "one worker may have all tunnels"
    assert needed(few + "[area.tunnel]\ntotal_max = 500\n", 200) == 10 + 100, "and each has a client"
    many = none + "[area.limits]\norigin_connections_max = 10000\n"
    assert needed(many, 200) == 100 + STREAMS_MIN + ORIGINS_IDLE, "what a worker's pool holds"


def test_a_port_that_another_program_has(tmp_path: Path, taken: int) -> None:
    gateway = load(tmp_path, gateway_text(9, address=f"127.0.0.1:{taken}"))
    (problem,) = precheck(gateway).problems
    assert problem.path == "listener[0].address"
    assert "another program listens there" in problem.message
    assert f":{taken}" in problem.hint


def test_an_address_that_is_not_this_machine_s(tmp_path: Path) -> None:
    gateway = load(tmp_path, gateway_text(9, address="192.0.2.7:8080"))
    (problem,) = precheck(gateway).problems
    assert "no such address" in problem.message


def test_a_port_of_the_running_gateway_is_only_noted(tmp_path: Path, taken: int) -> None:
    gateway = load(tmp_path, gateway_text(9, address=f"127.0.0.1:{taken}"))
    (tmp_path / "state").mkdir(mode=0o700)
    assert not is_running(gateway)
    lock = take_lock(gateway.admin.socket)
    try:
        assert is_running(gateway)
        found = precheck(gateway, listening=lambda: [f"http://127.0.0.1:{taken}"])
        assert found.problems == []
        assert found.notes == [f"127.0.0.1:{taken} is in use by the running gateway"]
        assert "could not be asked" in precheck(gateway).notes[0]
        wide = load(tmp_path, gateway_text(9, address=f"0.0.0.0:{taken}"))
        assert precheck(wide, listening=lambda: [f"http://127.0.0.1:{taken}"]).problems == []
        assert precheck(gateway, listening=lambda: [f"http://0.0.0.0:{taken}"]).problems == []
        for elsewhere in ("http://0.0.0.0:1", f"http://[::]:{taken}", f"http://127.0.0.2:{taken}"):
            assert places(precheck(gateway, listening=lambda at=elsewhere: [at]).problems), elsewhere
        other = precheck(gateway, listening=lambda: ["http://127.0.0.1:1"])
        assert places(other.problems) == ["listener[0].address"], "it runs, and listens elsewhere"
    finally:
        os.close(lock)
    assert not is_running(gateway)


def test_unix_sockets_to_listen_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    gateway = load(tmp_path, gateway_text(9, address=f"unix:{path}"))
    assert precheck(gateway).problems == []
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        assert precheck(gateway).problems == [], "left over: nobody answers there"
        sock.listen()
        assert "another program" in precheck(gateway).problems[0].message
    path.unlink()
    path.write_text("")
    assert "no socket" in precheck(gateway).problems[0].message
    gone = load(tmp_path, gateway_text(9, address=f"unix:{tmp_path}/none/s"))
    assert "no directory" in precheck(gone).problems[0].message


def test_a_state_directory_that_is_not_safe(tmp_path: Path) -> None:
    gateway = load(tmp_path, gateway_text(9))
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    assert "not safe" in precheck(gateway).problems[0].message
    (tmp_path / "state").chmod(0o700)
    assert precheck(gateway).problems == []
    (tmp_path / "state" / "admin.token").write_text("x" * 40)
    (tmp_path / "state" / "admin.token").chmod(0o644)
    (problem,) = precheck(gateway).problems
    assert "may be read by others" in problem.message
    elsewhere = load(tmp_path, gateway_text(9, state_dir="gateway.toml"))
    assert any("not a directory" in problem.message for problem in precheck(elsewhere).problems)


def test_what_may_not_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = load(tmp_path, gateway_text(9, state_dir="a/b/state"))
    assert precheck(gateway).problems == []
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    found = precheck(gateway).problems
    assert "state_dir" in places(found)
    assert "no permission to write in" in found[0].message


def test_logs_that_nobody_takes(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    more = f'[log]\naccess = ["{tmp_path}/none/a.log", "{tmp_path}/dir", "syslog:{tmp_path}/devlog", "-"]\n'
    gateway = load(tmp_path, gateway_text(9, more=more))
    found = precheck(gateway).problems
    assert places(found) == ["log.access[0].to", "log.access[1].to", "log.access[2].to"]
    assert ["will not start" in problem.hint for problem in found] == [True, True, False]
    assert "lost, and counted" in found[2].hint


def test_origins_are_asked_only_where_that_is_wanted(tmp_path: Path, taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = gone.getsockname()[1]
    more = f"""[[area.pool]]
name = "spare"
origins = ["unix:{tmp_path}/none.sock", "127.0.0.1:{nobody}"]
[log]
access = ["syslog+tcp://127.0.0.1:{nobody}", "access.log"]
acts = ["acts.log", "syslog+tcp://127.0.0.1:{nobody}"]
"""
    text = gateway_text(f'127.0.0.1:{taken}", "127.0.0.1:{nobody}', area=more)
    gateway = load(tmp_path, text)
    assert precheck(gateway).problems == []
    found = precheck(gateway, probe=True).problems
    assert places(found) == [
        "area[0].origins[1]",
        "area[0].pool[0].origins[0]",
        "area[0].pool[0].origins[1]",
        "log.access[0].to",
        "log.acts[1].to",
    ]
    assert "refused" in found[0].message
    code, answer = check(tmp_path, text, "--probe")
    assert (code, len(answer["problems"]), answer["ok"]) == (0, 5, True)
    code, answer = check(tmp_path, text, "--probe", "--strict")
    assert (code, len(answer["problems"]), answer["ok"]) == (1, 5, False)


def test_an_origin_that_does_not_answer_is_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_S", 0.1)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        held = []
        for _ in range(8):  # the queue of who waits to be accepted is full: SYNs are not answered any more
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
            held.append(waiting)
        (problem,) = precheck(load(tmp_path, gateway_text(port)), probe=True).problems
        assert "no answer within 0.1 s" in problem.message
        for each in held:
            each.close()


# ── what the files alone say ──


def test_an_area_without_a_mandate_and_a_mandate_without_rules(tmp_path: Path) -> None:
    more = '[[area]]\nname = "bare"\nhosts = ["bare.example.org"]\norigins = ["127.0.0.1:9"]\n'
    code, answer = check(tmp_path, gateway_text(9, more=more), mandate=mandate_text(""))
    assert (code, answer["ok"]) == (0, True)
    found = {problem["path"]: problem["message"] for problem in answer["problems"]}
    assert "no mandate covers area 'bare'" in found["area[1].name"]
    assert "has no rules" in found["rule"]


def test_warnings_end_in_zero_unless_strict(tmp_path: Path) -> None:
    text = gateway_text(9)
    assert check(tmp_path, text, mandate=mandate_text(""))[0] == 0
    assert check(tmp_path, text, "--strict", mandate=mandate_text(""))[0] == 1


def test_files_with_errors_are_not_asked_about_the_machine(tmp_path: Path, taken: int) -> None:
    code, answer = check(tmp_path, gateway_text(9, address=f"127.0.0.1:{taken}", top="wrokers = 1"))
    assert code == 1
    assert [problem["path"] for problem in answer["problems"]] == ["wrokers"]
