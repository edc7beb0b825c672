"""Blocks outlive every process of the gateway; what was lifted stays lifted."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scrubber.control.saved import SavedBlock
from scrubber.mandate.compile import rule_id
from scrubber.server import block_file, secret
from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import SLOW, Gateway, alive, until

CUT = (OSError, http.client.HTTPException)
ON_DISK_S = 1.0  # what is promised
FLOOD = """
[[rule]]
name = "flood"
per = "client"
limit = "3/min burst 3"
then = ["block 10m"]
"""


def shut_out(running: Gateway, source: str) -> bool:
    with contextlib.suppress(*CUT):
        running.get("/", source=source)
        return False
    return True


def blocks(running: Gateway) -> dict[str, dict[str, Any]]:
    return {block["source"]: block for block in running.admin("GET", "/v1/blocks")[1]["blocks"]}


def by_hand(running: Gateway, source: str, ttl_s: float = 600) -> None:
    order = {"source": source, "ttl_s": ttl_s, "reason": "a test"}
    assert running.admin("POST", "/v1/blocks", order)[0] == 201


def processes(running: Gateway) -> list[int]:
    return [running.process.pid, *(child["pid"] for child in running.status()["children"])]


def kill_all(running: Gateway, pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    running.kill()
    until(lambda: not any(alive(pid) for pid in pids), what="all of it is gone")


def cpu_time_s(pid: int) -> float:
    """What a process has used; an exec does not begin anew."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def acts(running: Gateway, action: str) -> list[dict[str, Any]]:
    return [act for act in running.admin("GET", "/v1/acts?since=0")[1]["acts"] if act["event.action"] == action]


def test_blocks_are_back_after_a_kill_of_everything(gateway: GatewayFactory) -> None:
    running = gateway(rules=FLOOD)
    pids = processes(running)
    by_hand(running, "127.0.0.70")
    by_hand(running, "127.0.8.0/24")
    time.sleep(ON_DISK_S * SLOW)
    assert running.admin("DELETE", "/v1/blocks?source=127.0.0.70")[0] == 200
    by_hand(running, "127.0.0.66", 900)
    until(lambda: shut_out(running, "127.0.0.5"), what="the rule blocks")
    before = blocks(running)
    time.sleep(ON_DISK_S * SLOW)
    kill_all(running, pids)

    again = gateway(rules=FLOOD, directory=running.directory)
    after = blocks(again)
    assert after.keys() == before.keys() == {"127.0.0.66", "127.0.8.0/24", "127.0.0.5"}
    for source, block in after.items():
        was = before[source]
        assert {name: block[name] for name in ("kind", "areas", "rule", "case")} == {
            name: was[name] for name in ("kind", "areas", "rule", "case")
        }
        assert was["ttl_left_s"] - 30 * SLOW < block["ttl_left_s"] < was["ttl_left_s"]
        assert block["since"][:19] == was["since"][:19]
    assert all(shut_out(again, source) for source in ("127.0.0.66", "127.0.8.9", "127.0.0.5"))
    assert again.get("/", source="127.0.0.70")[0] == 200
    (act,) = acts(again, "restore")
    assert act["message"] == "3 blocks are back"


def test_a_stop_and_a_start_keep_them_as_well(gateway: GatewayFactory) -> None:
    running = gateway()
    by_hand(running, "127.0.0.66")
    assert running.stop() == 0
    again = gateway(directory=running.directory)
    assert shut_out(again, "127.0.0.66")


def test_a_damaged_file_gives_its_sound_part(gateway: GatewayFactory) -> None:
    running = gateway()
    for source in ("127.0.0.66", "127.0.0.67"):
        by_hand(running, source)
    assert running.stop() == 0
    path = running.state / block_file.NAME
    kept = path.read_bytes()
    first, second = sorted((b"127.0.0.66", b"127.0.0.67"), key=kept.index)
    path.write_bytes(kept.replace(first, b"127.0.0.99") + b"torn")
    again = gateway(directory=running.directory)
    assert blocks(again).keys() == {second.decode()}
    assert "the file of blocks is damaged (lines: 2 unsound, 1 missing); 1 blocks are back" in again.stderr
    assert "damaged" in acts(again, "restore")[0]["message"]


def test_a_killed_supervisor_loses_none(gateway: GatewayFactory) -> None:
    """Not even what it had taken from the table, or had not, when it died; nor what was lifted."""
    running = gateway()
    by_hand(running, "127.0.0.70")
    time.sleep(ON_DISK_S * SLOW)
    pids = processes(running)
    old = running.child("supervisor")["pid"]
    by_hand(running, "127.0.0.66")
    assert running.admin("DELETE", "/v1/blocks?source=127.0.0.70")[0] == 200
    os.kill(old, signal.SIGKILL)

    def answers() -> bool:
        with contextlib.suppress(*CUT):
            return running.child("supervisor")["pid"] not in (0, old)
        return False

    until(answers, what="another supervisor")
    assert acts(running, "restore") == []
    time.sleep(ON_DISK_S * SLOW)
    kill_all(running, [*pids, *processes(running)])
    again = gateway(directory=running.directory)
    assert blocks(again).keys() == {"127.0.0.66"}


def test_a_killed_keeper_ends_all_of_it(gateway: GatewayFactory) -> None:
    running = gateway()
    pids = processes(running)
    by_hand(running, "127.0.0.66")
    time.sleep(ON_DISK_S * SLOW)
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    until(lambda: not any(alive(pid) for pid in pids), what="no process outlives the keeper")
    again = gateway(directory=running.directory)
    assert shut_out(again, "127.0.0.66")


def test_a_disk_that_takes_nothing_is_said_and_made_up_for(gateway: GatewayFactory) -> None:
    running = gateway()
    in_the_way = running.state / f"{block_file.NAME}.new"
    until((running.state / block_file.NAME).exists)
    in_the_way.mkdir()  # nothing can be written anew
    (running.state / block_file.NAME).unlink()
    by_hand(running, "127.0.0.66")
    old = running.child("supervisor")["pid"]
    os.kill(old, signal.SIGKILL)  # its successor begins with a file written anew

    def notices() -> list[str]:
        with contextlib.suppress(*CUT):
            return [each for each in running.status()["notices"] if "blocks are not on disk" in each]
        return []

    until(notices, what="it is said")
    assert shut_out(running, "127.0.0.66")
    assert running.get("/")[0] == 200
    time.sleep(2.5)
    assert len(acts(running, "blocks_unsaved")) == 1, "once a minute"
    assert "scrubber_blocks_save_failures_total 0" not in running.admin("GET", "/metrics")[1]["text"]
    in_the_way.rmdir()
    until(lambda: acts(running, "blocks_saved"), what="it is made up for")
    assert notices() == []
    kill_all(running, processes(running))
    again = gateway(directory=running.directory)
    assert shut_out(again, "127.0.0.66")


def test_a_hundred_thousand_are_back_in_seconds(
    gateway: GatewayFactory, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    count = 103_000  # of which a table of 2^18 places has room for a little less
    where = tmp_path / "many"
    (where / "state").mkdir(parents=True, mode=0o700)
    now_ns = time.time_ns()
    hour_ns = 3600 * 10**9

    def block(number: int) -> SavedBlock:
        source = f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        times = (now_ns, now_ns, now_ns + hour_ns, hour_ns)
        clause = ("test/powers.block", "the tests", "test")
        return SavedBlock("client", source, ("site",), f"{rule_id('test', ''):016x}", f"{number:016x}", *times, *clause)

    file = block_file.BlockFile(str(where / "state"), secret.make(str(where / "state")).blocks)
    file.rewrite([[block(number) for number in range(count)]])
    file.close()
    how: dict[str, Any] = {
        "proportion": f'blocks_max = {count}\nclients_share_max = "50%"',
        "more": "[memory]\nblocks = 262144\n",
    }

    first = gateway(**how, directory=where)
    held = first.status()["blocks"]["in_force"]
    assert held > 100_000
    time.sleep(2 * SLOW)  # the file is written anew
    kill_all(first, processes(first))
    began = time.monotonic()
    running = gateway(**how, directory=where)
    took_s, cpu_s = time.monotonic() - began, cpu_time_s(running.process.pid)
    print(f"ready after {took_s:.2f} s, {cpu_s:.2f} s of a CPU (load {os.getloadavg()[0]:.1f})")
    record_property("ready_s", took_s)
    record_property("cpu_s", cpu_s)
    assert running.status()["blocks"]["in_force"] == held, "what had room has it again"
    assert f"{held} blocks are back" in running.stderr
    assert cpu_s < 5 * SLOW, "the whole start, on a machine that does nothing else"


def test_an_upgraded_gateway_goes_on_with_the_file(gateway: GatewayFactory) -> None:
    """Its predecessor lets go of it when it serves, not when its last request has ended: of the new table it knows
    nothing."""
    running = gateway(top='stop_deadline = "60s"')
    old = processes(running)
    by_hand(running, "127.0.0.66")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)) as slow:
        slow.request("GET", "/slow/20")
        until(lambda: sum(child["requests"] for child in running.status()["children"] if child["slot"] >= 0) == 1)
        running.file.write_text(running.file.read_text() + "[memory]\nblocks = 4096\n")  # a table of its own
        assert running.cli("upgrade").returncode == 0
        until(lambda: running.status()["children"][0]["pid"] not in old, what="another supervisor answers")
        by_hand(running, "127.0.0.67")
        path = running.state / block_file.NAME
        until(lambda: b"127.0.0.67" in path.read_bytes(), 5, "the new one writes it")
        assert any(alive(pid) for pid in old[1:]), "the former workers are still at it"
    new = processes(running)
    keeper = int(Path(f"/proc/{new[1]}/stat").read_text().rpartition(")")[2].split()[1])
    kill_all(running, [*old, keeper, *new])
    again = gateway(directory=running.directory)
    assert blocks(again).keys() == {"127.0.0.66", "127.0.0.67"}
