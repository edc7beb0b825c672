"""The admin side of a running gateway: status, blocks, reload, metrics, acts; by HTTP and by command."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import ROOT, SLOW, Gateway, Origin, gateway_text, mandate_text, until

CUT = (ConnectionError, http.client.HTTPException)  # RST at accept

TIGHT = """
[[rule]]
name = "tight"
per = "client"
limit = "1/min burst 5"
then = ["throttle"]
"""


def ask(running: Gateway, count: int, source: str = "127.0.0.2") -> list[int]:
    return [running.get("/", source=source)[0] for _ in range(count)]


# ── status ──


def test_first_line_of_the_status(gateway: GatewayFactory) -> None:
    running = gateway()
    assert running.cli("status").stdout.startswith("Do people get through? yes, nobody asked in the last 60 s")
    ask(running, 30)
    until(lambda: running.status()["people"]["requests"] >= 30)
    first = running.cli("status").stdout.splitlines()[0]
    assert first.startswith("Do people get through? yes, 100.00 % of 30 requests")
    assert "newcomers" in first
    assert first.endswith("got through in the last 60 s")


def test_status_as_json_and_as_tables(gateway: GatewayFactory) -> None:
    running = gateway()
    ask(running, 10)
    until(lambda: running.status()["areas"][0]["requests"] == 10)
    answer = json.loads(running.cli("status", "--json").stdout)
    (area,) = answer["areas"]
    assert (area["name"], area["served"], area["rush"], area["blocks"]) == ("site", 10, False, 0)
    assert answer["people"]["through"] is True
    assert answer["mandates"][0] | {"signed": False, "expired": False, "id": "test"} == answer["mandates"][0]
    assert any("unsigned" in notice for notice in answer["notices"])
    text = running.cli("status", env={"COLUMNS": "60"}).stdout
    assert "worker[1]" in text
    assert "site" in text
    assert "mandate test" in text
    heads = [line.split() for line in text.splitlines() if line.lstrip().startswith(("area ", "process "))]
    assert heads == [
        ["area", "req/s", "served", "throttle", "deny", "drop", "tarpit", "blocks", "p50", "ms", "p99", "ms", "state"],
        ["process", "pid", "uid", "seccomp", "beat", "restarts", "policy", "connections", "in", "flight"],
    ]  # whole in a narrow terminal


def test_a_dead_origin_is_a_no(gateway: GatewayFactory, origins: object) -> None:
    dead = origins()  # type: ignore[operator]
    running = gateway(origin=dead.port)
    assert running.get("/")[0] == 200
    dead.stop()
    status, body = running.get("/")
    assert status == 502
    assert body
    for _ in range(60):
        running.get("/")
    until(lambda: running.status()["people"]["through"] is False)
    assert running.cli("status").stdout.startswith("Do people get through? no, ")


def test_a_dead_origin_is_seen_even_if_nobody_asks(gateway: GatewayFactory, origins: object) -> None:
    dead = origins()  # type: ignore[operator]
    running = gateway(origin=dead.port)
    assert running.status()["people"]["through"] is True
    dead.stop()
    people = running.status()["people"]
    assert people["through"] is False
    assert "no connection to the origin of site" in people["text"]


def test_dry_run_is_said(gateway: GatewayFactory) -> None:
    running = gateway(top="enforce = false", rules=TIGHT)
    assert set(ask(running, 20)) == {200}
    assert "dry run" in running.stderr
    assert any("dry run" in notice for notice in running.status()["notices"])
    until(lambda: sum(line.get("scrubber.verdict") == "THROTTLE" for line in running.log_lines()) == 15)


# ── blocks ──


def test_block_and_unblock_by_command(gateway: GatewayFactory) -> None:
    running = gateway()
    assert ask(running, 1, "127.0.0.9") == [200]
    done = running.cli("block", "127.0.0.9", "--for", "10m", "--reason", "flooding the search")
    assert done.returncode == 0, done.stderr
    assert "127.0.0.9" in done.stdout
    assert "10m" in done.stdout
    with pytest.raises(CUT):
        running.get("/", source="127.0.0.9")
    assert ask(running, 1, "127.0.0.10") == [200]
    _, listed = running.admin("GET", "/v1/blocks")
    (block,) = listed["blocks"]
    assert block["source"] == "127.0.0.9"
    assert block["areas"] == ["site"]
    assert 500 < block["ttl_left_s"] <= 600
    assert block["case"]
    assert running.status()["blocks"]["in_force"] == 1
    shown = running.cli("blocks").stdout
    assert all(word in shown for word in ("127.0.0.9", "site", "test/powers.block", block["case"]))
    assert re.search(r"\b(?:9m \d+s|10m)\b", shown)
    assert "1 block in force" in shown
    assert json.loads(running.cli("blocks", "--json").stdout)["blocks"][0]["case"] == block["case"]
    until(lambda: any("flooding the search" in json.dumps(line) for line in running.log_lines()))
    record = next(line for line in running.log_lines() if "flooding the search" in json.dumps(line))
    assert record["scrubber.case"] == block["case"]
    assert record["rule.name"] == block["rule"] == "test/powers.block"
    assert "under test/powers.block" in done.stdout
    lifted = running.cli("unblock", "127.0.0.9", "--reason", "was a mistake")
    assert lifted.returncode == 0, lifted.stderr
    assert ask(running, 1, "127.0.0.9") == [200]
    assert running.admin("GET", "/v1/blocks")[1] == {"count": 0, "blocks": []}
    again = running.cli("unblock", "127.0.0.9")
    assert again.returncode == 1
    assert "Try: scrubber blocks" in again.stderr


SOURCES = (
    ("127.9.9.0/24", "prefix", "127.9.9.0/24"),
    ("2001:db8:1:2::7", "client", "2001:db8:1:2::/64"),
    ("::ffff:198.51.100.7", "client", "198.51.100.7"),
    ("fingerprint:00112233aabbccdd", "fingerprint", "h1_00112233aabbccdd"),
)


def test_sources_of_every_kind(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    for source, kind, listed in SOURCES:
        code, answer = running.admin("POST", "/v1/blocks", {"source": source, "ttl_s": 60, "reason": "x"})
        assert (code, answer["did"], answer["source"]) == (201, "blocked", listed), answer
        again = running.admin("POST", "/v1/blocks", {"source": listed, "ttl_s": 90, "reason": "x"})[1]
        assert (again["did"], again["case"]) == ("extended the block of", answer["case"])
        (block,) = running.admin("GET", "/v1/blocks")[1]["blocks"]
        assert (block["kind"], block["source"], block["rule"]) == (kind, listed, "test/powers.block")
        assert running.cli("unblock", source).returncode == 0
        assert running.status()["blocks"]["in_force"] == 0


def test_who_is_covered_by_a_wider_block_is_told(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    assert running.cli("block", "127.9.9.0/24", "--reason", "x").returncode == 0
    with pytest.raises(CUT):
        running.get("/", source="127.9.9.9")
    refused = running.cli("unblock", "127.9.9.9")
    assert refused.returncode == 1
    assert "127.9.9.9 is not blocked" in refused.stderr
    assert "it is covered by: 127.9.9.0/24" in refused.stderr


def test_a_refused_block_is_on_the_record(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    assert running.cli("block", "127.0.0.1", "--reason", "by mistake").returncode == 1
    until(lambda: any(line.get("event.action") == "refuse" for line in running.log_lines()))
    record = next(line for line in running.log_lines() if line.get("event.action") == "refuse")
    assert record["event.reason"] == "by mistake"
    assert "never-block" in record["scrubber.reason"]


def test_in_a_dry_run_a_block_is_recorded_and_not_made(gateway: GatewayFactory) -> None:
    running = gateway(top="enforce = false")
    done = running.cli("block", "127.0.0.9", "--reason", "rehearsal")
    assert done.returncode == 0
    assert done.stdout.startswith("dry run: would block 127.0.0.9")
    assert ask(running, 1, "127.0.0.9") == [200]
    until(lambda: any(line.get("scrubber.enforced") is False for line in running.log_lines()))
    assert running.status()["blocks"]["in_force"] == 0


def test_a_block_ends_by_itself(gateway: GatewayFactory) -> None:
    running = gateway()
    assert running.cli("block", "127.0.0.9", "--for", "2s", "--reason", "short").returncode == 0
    with pytest.raises(CUT):
        running.get("/", source="127.0.0.9")
    until(lambda: running.admin("GET", "/v1/blocks")[1]["count"] == 0)
    assert ask(running, 1, "127.0.0.9") == [200]


BEYOND = (
    ("127.0.0.1", "10m", "never-block"),  # ours
    ("10.0.0.0/8", "10m", "wider"),  # than the mandate's widest prefix
    ("127.0.0.9", "7h", "6h at most"),  # block_ttl_max
    ("198.51.100.7", "10m", "never-block"),  # the mandate's
    ("198.51.100.0/25", "10m", "never-block"),
    ("example.org", "10m", "not a source"),
    ("0.0.0.0/0", "10m", "wider"),
    ("::/0", "10m", "wider"),
    ("::ffff:127.0.0.1", "10m", "never-block"),
)


def test_a_block_beyond_proportion_is_refused_with_a_hint(gateway: GatewayFactory) -> None:
    running = gateway(workers=1, proportion='block_ttl_max = "6h"\nnever_block = ["198.51.100.0/24"]')
    for source, duration, why in BEYOND:
        refused = running.cli("block", source, "--for", duration, "--reason", "x")
        assert refused.returncode == 1, refused.stdout
        assert why in refused.stderr
        assert "Try: " in refused.stderr
    assert running.admin("GET", "/v1/blocks")[1]["count"] == 0


def test_a_mandate_without_the_power_allows_no_block(gateway: GatewayFactory) -> None:
    running = gateway(mandate=mandate_text().replace(', "block", "blackhole"]', "]"))
    refused = running.cli("block", "127.0.0.9", "--reason", "x")
    assert refused.returncode == 1
    assert "block" in refused.stderr


def test_blocks_survive_kills_and_reloads(gateway: GatewayFactory) -> None:
    running = gateway()
    assert running.cli("block", "127.0.0.9", "--reason", "x").returncode == 0
    for child in running.status()["children"]:
        os.kill(child["pid"], signal.SIGKILL)
    until(lambda: running.get("/")[0] == 200)
    until(lambda: running.cli("reload").returncode == 0)
    with pytest.raises(CUT):
        running.get("/", source="127.0.0.9")


# ── reload ──


def test_reload_keeps_cells_and_connections(gateway: GatewayFactory) -> None:
    running = gateway(rules=TIGHT)
    assert ask(running, 6) == [200] * 5 + [429]
    mandate = running.directory / "mandate.toml"
    other = TIGHT.replace('"tight"', '"other"').replace("burst 5", "burst 50")
    mandate.write_text(mandate_text(TIGHT + other, serial=2))
    done = running.cli("reload")
    assert done.returncode == 0, done.stderr
    assert "policy 2 in force in 2 workers" in done.stdout
    assert ask(running, 1) == [429]
    assert ask(running, 1, "127.0.0.3") == [200]
    assert running.status()["generation"] == 2


def test_reload_changes_the_origin_without_losing_a_request(
    gateway: GatewayFactory, origins: object, origin: Origin
) -> None:
    other = origins("other")  # type: ignore[operator]
    running = gateway()
    assert json.loads(running.get("/")[1])["origin"] == "origin"
    running.file.write_text(gateway_text(other.port))
    running.process.send_signal(signal.SIGHUP)
    until(lambda: running.status()["generation"] == 2)
    until(lambda: json.loads(running.get("/")[1])["origin"] == "other", what="every worker has it")


@pytest.mark.parametrize("how", ["command", "signal"])
def test_a_bad_file_keeps_the_old_one_and_says_why(gateway: GatewayFactory, how: str) -> None:
    running = gateway(rules=TIGHT)
    running.file.write_text(running.file.read_text().replace("workers = 2", 'workers = "two"\nwrokers = 2'))
    (running.directory / "mandate.toml").write_text(mandate_text(TIGHT.replace("1/min burst 5", "fast")))
    if how == "command":
        refused = running.cli("reload")
        assert refused.returncode == 1
        said = refused.stderr
    else:
        running.process.send_signal(signal.SIGHUP)
        until(lambda: running.status()["reload"])
        said = running.stderr
    for place in ("workers", "wrokers", "rule[0].limit"):
        assert place in said
    assert running.status()["generation"] == 1
    assert running.status()["reload"]["ok"] is False
    assert ask(running, 6) == [200] * 5 + [429]
    until(lambda: any(line.get("event.action") == "reload_refused" for line in running.log_lines()))


def test_what_needs_a_restart_is_refused_and_named(gateway: GatewayFactory, origin: Origin) -> None:
    running = gateway()
    more = "[memory]\nblocks = 4096\n[admin]\nsocket = 'b'\n"
    running.file.write_text(gateway_text(origin.port, workers=1, address="127.0.0.1:1", more=more))
    code, answer = running.admin("POST", "/v1/reload")  # the command would look for it at the file's new socket
    assert code == 409
    problems = answer["problems"]
    assert {problem["path"] for problem in problems} == {"workers", "memory", "admin.socket"}
    hints = {problem["path"]: problem["hint"] for problem in problems}
    assert "scrubber upgrade" in hints["workers"]
    assert "start it again" in hints["admin.socket"]
    assert running.get("/")[0] == 200


def test_a_new_supervisor_has_the_reloaded_policy(gateway: GatewayFactory) -> None:
    running = gateway()
    mandate = running.directory / "mandate.toml"
    mandate.write_text(mandate_text(TIGHT, serial=2))
    assert running.cli("reload").returncode == 0
    old = running.child("supervisor")["pid"]
    mandate.write_text("nonsense")  # it is not read again
    os.kill(old, signal.SIGKILL)
    until(lambda: _answers(running, old))
    assert running.status()["generation"] == 2
    os.kill(running.worker_pid(0), signal.SIGKILL)
    os.kill(running.worker_pid(1), signal.SIGKILL)
    assert ask(running, 6) == [200] * 5 + [429]


def test_a_mandate_never_goes_back(gateway: GatewayFactory) -> None:
    """Not by way of leaving it out, not over a new supervisor, not over an upgrade."""
    running = gateway(mandate=mandate_text(TIGHT, serial=3))
    mandate, whole = running.directory / "mandate.toml", running.file.read_text()
    running.file.write_text(whole.replace('["mandate.toml"]', "[]"))
    assert running.cli("reload").returncode == 0
    assert running.status()["mandates"] == []
    running.file.write_text(whole)
    mandate.write_text(mandate_text(serial=2))
    for happened in ("", "a new supervisor", "an upgrade"):
        old = running.child("supervisor")["pid"]
        if happened == "a new supervisor":
            os.kill(old, signal.SIGKILL)
            until(lambda old=old: _answers(running, old))
        elif happened == "an upgrade":
            refused = running.cli("upgrade", "--gateway", str(running.file))
            assert refused.returncode == 1
            assert "serial 3 was accepted before 2" in refused.stderr
            running.file.write_text(whole.replace('["mandate.toml"]', "[]"))
            assert running.cli("upgrade", "--gateway", str(running.file)).returncode == 0
            until(lambda old=old: _answers(running, old))
            running.file.write_text(whole)
        refused = running.cli("reload")
        assert refused.returncode == 1, happened
        assert "mandate.serial" in refused.stderr
        assert "Try: " in refused.stderr
        assert running.status()["mandates"] == []
    mandate.write_text(mandate_text(serial=3))
    assert "with another content" in running.cli("reload").stderr
    mandate.write_text(mandate_text(TIGHT, serial=3))
    assert running.cli("reload").returncode == 0
    assert ask(running, 6) == [200] * 5 + [429]


def _answers(running: Gateway, old: int) -> bool:
    try:
        return bool(running.child("supervisor")["pid"] not in (0, old))
    except CUT:
        return False


def test_an_expired_mandate_is_said_and_limits_stay(gateway: GatewayFactory) -> None:
    end = time.gmtime(time.time() + 4 * SLOW)
    text = mandate_text(TIGHT).replace("2099-01-01T00:00:00Z", time.strftime("%Y-%m-%dT%H:%M:%SZ", end))
    running = gateway(mandate=text)
    until(lambda: running.status()["mandates"][0]["expired"], 15)
    until(lambda: running.status()["generation"] == 2)
    assert any("has expired" in notice for notice in running.status()["notices"])
    until(lambda: any(line.get("event.action") == "mandate_expired" for line in running.log_lines()))
    assert ask(running, 6) == [200] * 5 + [429]


# ── the API itself ──


def test_nothing_without_the_token(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    for token in ("", "wrong", "x" * 43, "ü" * 10):
        for path in ("/v1/status", "/metrics", "/none"):
            code, answer = running.admin("GET", path, token=token.encode().decode("latin-1"))
            assert code == 401, (token, path)
            assert "token" in answer["detail"]
            assert "areas" not in answer


def test_what_is_wrong_with_a_request_is_said(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    assert running.admin("GET", "/none")[0] == 404
    assert running.admin("PUT", "/v1/status")[0] == 405
    assert running.admin("POST", "/v1/blocks", {"source": "127.0.0.9"})[0] == 400
    assert running.admin("POST", "/v1/blocks", {"source": 3, "ttl_s": 1, "reason": "x"})[0] == 400
    assert running.admin("POST", "/v1/blocks", {"source": "127.0.0.9", "ttl_s": 1, "reason": "x", "y": 1})[0] == 400
    assert running.admin("POST", "/v1/blocks", {"source": "127.0.0.9", "ttl_s": 60, "reason": "x" * 100_000})[0] == 413
    assert running.admin("DELETE", "/v1/blocks")[0] == 400
    assert running.admin("GET", "/v1/acts?since=x")[0] == 400
    code, answer = running.admin("POST", "/v1/blocks", {"source": "127.0.0.9", "ttl_s": -5, "reason": "x"})
    assert code in (400, 409)
    assert answer["hint"]
    assert running.status()["blocks"]["in_force"] == 0


def test_metrics_of_a_running_gateway(gateway: GatewayFactory) -> None:
    running = gateway(rules=TIGHT)
    ask(running, 8)
    until(lambda: running.status()["areas"][0]["requests"] == 8)
    text = running.admin("GET", "/metrics")[1]["text"]
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["scrubber_requests_total", "site"] == 8
    assert found["scrubber_verdicts_total", "pass", "site"] == 5
    assert found["scrubber_verdicts_total", "site", "throttle"] == 3
    assert found["scrubber_latency_seconds_count", "site"] == 5
    assert found["scrubber_policy_generation",] == 1
    assert found["scrubber_worker_generation", "1"] == 1
    assert found["scrubber_origin_up", "", "0", "site"] == 1
    assert "127.0.0" not in text


def test_acts_are_numbered_and_asked_for_by_number(gateway: GatewayFactory) -> None:
    running = gateway()
    running.cli("block", "127.0.0.9", "--reason", "first")
    running.cli("block", "127.0.0.10", "--reason", "second")
    acts = running.admin("GET", "/v1/acts")[1]["acts"]
    numbers = [act["number"] for act in acts]
    assert numbers == sorted(set(numbers))
    later = running.admin("GET", f"/v1/acts?since={numbers[-2]}")[1]["acts"]
    assert [act["number"] for act in later] == numbers[-1:]
    assert "second" in json.dumps(later)


# ── the access log ──


def test_the_access_log_has_every_request(gateway: GatewayFactory) -> None:
    running = gateway()
    for index in range(50):
        running.get(f"/page/{index}?q=1")
    until(lambda: len([line for line in running.log_lines() if "url.path" in line]) == 50)
    lines = [line for line in running.log_lines() if "url.path" in line]
    assert {line["url.path"] for line in lines} == {f"/page/{index}" for index in range(50)}
    assert all(line["client.ip"] == "127.0.0.1" and line["scrubber.verdict"] == "PASS" for line in lines)


def test_a_rotated_log_is_opened_again(gateway: GatewayFactory) -> None:
    running = gateway()
    running.get("/one")
    path = running.state / "access.log"
    until(lambda: path.exists() and "/one" in path.read_text())
    path.rename(running.state / "access.log.1")
    time.sleep(1.2)
    running.get("/two")
    until(lambda: path.exists() and "/two" in path.read_text())
    assert "/two" not in (running.state / "access.log.1").read_text()


def test_a_full_disk_is_counted_and_said_and_traffic_goes_on(gateway: GatewayFactory) -> None:
    running = gateway(more='[log]\naccess = "/dev/full"\n')
    assert set(ask(running, 20)) == {200}
    until(lambda: running.status()["log"]["lines_lost"] >= 20)
    status = running.status()
    assert "No space left" in status["log"]["error"]
    assert any("/dev/full" in notice for notice in status["notices"])
    assert running.stderr.count("No space left") == 1
    assert set(ask(running, 20)) == {200}


def test_no_log_at_all(gateway: GatewayFactory) -> None:
    running = gateway(more='[log]\naccess = "off"\n')
    assert set(ask(running, 5)) == {200}
    assert not (running.state / "access.log").exists()


@pytest.mark.parametrize("where", [".", "missing/access.log"])
def test_a_log_that_cannot_be_written_ends_the_start(gateway: GatewayFactory, tmp_path: Path, where: str) -> None:
    """And `scrubber check` said so."""
    running = gateway(more=f'[log]\naccess = "{tmp_path}/{where}"\n', wait=False)
    assert running.process.wait(20 * SLOW) == 1
    assert "cannot write the access log" in running.stderr
    assert "Try: " in running.stderr
    assert "the gateway will not start" in running.cli("check", str(running.file)).stdout


def test_requests_in_flight_end_under_the_policy_they_began_with(gateway: GatewayFactory) -> None:
    running = gateway()
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        slow = []
        for _ in range(12):
            slow.append(pool.submit(running.get, "/slow/2"))
            assert running.admin("POST", "/v1/reload")[0] == 200
        assert [each.result()[0] for each in slow] == [200] * 12


def test_a_policy_that_a_worker_refuses_is_taken_back(gateway: GatewayFactory) -> None:
    running = gateway(workers=1, program=[sys.executable, str(ROOT / "tests/e2e/refusing.py")])
    code, answer = running.admin("POST", "/v1/reload")
    assert code == 500
    assert "policy 2 was refused by 1 worker" in answer["detail"]
    assert running.status()["generation"] == 3
    assert running.status()["reload"]["ok"] is False
    until(lambda: "was given policy 3" in running.stderr)
    os.kill(running.worker_pid(), signal.SIGKILL)
    until(lambda: "started with policy 3" in running.stderr)


def test_check_beside_the_running_gateway(gateway: GatewayFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    running = gateway(workers=1, address=f"127.0.0.1:{port}")
    checked = running.cli("check", "--strict", "--probe", str(running.file))
    assert checked.returncode == 0, checked.stdout
    assert f"note: 127.0.0.1:{port} is in use by the running gateway\n" in checked.stdout
    assert "no problems" in checked.stdout
    assert running.get("/")[0] == 200
