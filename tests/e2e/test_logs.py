"""The log of a running gateway: formats, destinations, rotation, sampling, reloads; with real receivers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scrubber.config.users import SUPERVISOR_UID
from tests import wanted
from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import ROOT, SLOW, Gateway, Origin, until
from tests.unit.test_log_format import COMBINED, SYSLOG
from tests.unit.test_syslog import frames

TIGHT = """
[[rule]]
name = "tight"
per = "client"
limit = "1/min burst 5"
then = ["throttle"]
"""
BLOCKING = """
[[rule]]
name = "flood"
per = "client"
limit = "1/min burst 2"
then = ["block 5m"]
"""


def requests_of(running: Gateway) -> list[dict[str, Any]]:
    return [line for line in running.log_lines() if "scrubber.kind" not in line]


# ── fields ──


def test_a_line_says_who_what_how_long_and_by_which_origin(gateway: GatewayFactory, origin: Origin) -> None:
    running = gateway(workers=1)
    running.get("/slow/0.2?x=1", source="127.0.0.9", headers={"User-Agent": "the test", "Referer": "http://a/b"})
    (line,) = until(lambda: requests_of(running))
    assert line["client.ip"] == line["source.ip"] == "127.0.0.9"
    assert line["scrubber.proof"] == "socket"
    assert (line["http.request.method"], line["url.path"], line["url.query"]) == ("GET", "/slow/0.2", "x=1")
    assert (line["user_agent.original"], line["http.request.referrer"]) == ("the test", "http://a/b")
    assert (line["scrubber.area"], line["scrubber.verdict"], line["scrubber.known"]) == ("site", "PASS", False)
    assert line["scrubber.origin"] == f"127.0.0.1:{origin.port}"
    assert line["scrubber.fingerprint"].startswith("h1_")
    assert len(line["http.request.id"]) == 16
    assert 0 < line["scrubber.connect_ns"] < line["event.duration"]
    assert 2e8 <= line["scrubber.origin_ns"] <= line["event.duration"]
    assert line["http.request.bytes"] > line["http.request.body.bytes"] == 0
    assert line["http.response.bytes"] > line["http.response.body.bytes"] > 0
    assert "scrubber.retries" not in line
    assert "scrubber.weight" not in line


def test_bytes_of_heads_and_bodies_are_the_wire_s(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    with socket.create_connection(("127.0.0.1", running.port), timeout=20 * SLOW) as sock:
        sock.sendall(request)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    (line,) = until(lambda: requests_of(running))
    assert line["http.request.bytes"] == len(request)
    assert line["http.request.body.bytes"] == 5
    if b"chunked" not in answer.partition(b"\r\n\r\n")[0].lower():
        assert line["http.response.bytes"] == len(answer)


def test_waiting_for_an_origin_connection_and_other_origins_are_told(gateway: GatewayFactory, origin: Origin) -> None:
    area = "[area.limits]\norigin_connections_max = 1\n"
    running = gateway(workers=1, area=area)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert [each[0] for each in pool.map(running.get, ["/slow/0.4", "/slow/0.4"])] == [200, 200]
    lines = until(lambda: len(found := requests_of(running)) == 2 and found)
    assert [line.get("scrubber.queue_ns", 0) > 1e8 for line in lines] == [False, True]
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    text = (running.directory / "gateway.toml").read_text()
    two = text.replace(f'["127.0.0.1:{origin.port}"]', f'["127.0.0.1:{port}", "127.0.0.1:{origin.port}"]')
    other = gateway(workers=1, text=two)
    assert {other.get("/")[0] for _ in range(6)} == {200}
    lines = until(lambda: len(found := requests_of(other)) == 6 and found)
    assert {line["scrubber.origin"] for line in lines} == {f"127.0.0.1:{origin.port}"}
    assert any(line.get("scrubber.retries") == 1 for line in lines)


def test_bytes_that_are_no_request_make_a_line_that_is_json(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    for junk in (b"\x16\x03\x01\x00\xff\xfe\r\n\r\n", b'GET /"\\\xc3\xa4\x7f HTTP/1.1\r\nHost: "\r\n\r\n'):
        with socket.create_connection(("127.0.0.1", running.port), timeout=20 * SLOW) as sock:
            sock.sendall(junk)
            assert b" 400 " in sock.recv(4096)
    lines = until(lambda: len(found := requests_of(running)) == 2 and found)
    assert all(line["error.code"] and line["http.response.status_code"] == 400 for line in lines)


# ── formats ──


def test_combined_beside_json_and_a_template(gateway: GatewayFactory) -> None:
    running = gateway(
        workers=1,
        rules=BLOCKING,
        more="""[log]
format = "combined"
access = ["combined.log", { to = "ecs.log", format = "ecs" },
          { to = "own.log", format = '{{"id":{request_id:json},"ms":{total_ms:json},"u":"{url.path}"}}' }]
""",
    )
    assert running.get("/page?a=1", headers={"User-Agent": 'a "b" \\'})[0] == 200
    with contextlib.suppress(OSError, http.client.HTTPException):  # blocked, sooner or later
        for _ in range(6):
            running.get("/", source="127.0.0.9")
    own = [json.loads(line) for line in until(lambda: (running.state / "own.log").read_text().splitlines())]
    until(lambda: b'"block"' in (running.state / "ecs.log").read_bytes())
    ecs = [json.loads(line) for line in (running.state / "ecs.log").read_text().splitlines()]
    combined = (running.state / "combined.log").read_bytes().splitlines()
    found = COMBINED.fullmatch(combined[0])
    assert found is not None
    assert (found["client"], found["request"], found["status"]) == (b"127.0.0.1", b"GET /page?a=1 HTTP/1.1", b"200")
    assert found["agent"] == b"a \\x22b\\x22 \\x5C"
    at = datetime.datetime.strptime(found["time"].decode(), "%d/%b/%Y:%H:%M:%S %z")
    assert abs((datetime.datetime.now(datetime.UTC) - at).total_seconds()) < 600
    assert all(COMBINED.fullmatch(line) for line in combined), "acts do not go among combined lines"
    assert own[0]["u"] == "/page"
    assert own[0]["id"] == ecs[0]["http.request.id"]
    assert any(line.get("event.action") == "block" for line in ecs), "acts are JSON, where JSON goes"


def test_acts_have_a_file_of_their_own_where_nothing_else_is_json(gateway: GatewayFactory) -> None:
    running = gateway(workers=1, more='[log]\nformat = "combined"\n')
    assert running.get("/")[0] == 200
    assert running.cli("block", "127.0.0.9", "--reason", "for the record").returncode == 0
    path = running.state / "acts.log"
    (act,) = [json.loads(line) for line in until(lambda: path.exists() and path.read_text().splitlines())]
    assert act["event.reason"] == "for the record"
    assert b"for the record" not in (running.state / "access.log").read_bytes()


# ── stdout ──


def test_stdout_takes_whole_lines_beside_what_the_gateway_says(gateway: GatewayFactory) -> None:
    """Also over a `reopen`, which has nothing to open there, and a supervisor that dies."""
    running = gateway(workers=2, more='[log]\naccess = ["-", { to = "own.log", format = "{path}" }]\n')

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in running.stdout.splitlines() if not line.startswith("ready: ")]

    def paths() -> list[str]:
        return sorted(line["url.path"] for line in lines() if "url.path" in line)

    wanted = [f"/page/{i:02}" for i in range(40)]
    assert {running.get(path)[0] for path in wanted[:20]} == {200}
    until(lambda: paths() == wanted[:20])
    done = running.cli("reopen")
    assert done.returncode == 0, done.stderr
    assert running.cli("block", "127.0.0.9", "--reason", "for the record").returncode == 0
    until(lambda: any(line.get("event.action") == "block" for line in lines()))
    os.kill(running.child("supervisor")["pid"], signal.SIGKILL)
    assert {running.get(path)[0] for path in wanted[20:]} == {200}
    until(lambda: paths() == wanted)
    assert [line["event.reason"] for line in lines() if line.get("event.action") == "block"] == ["for the record"]
    assert sorted((running.state / "own.log").read_text().split()) == wanted
    assert running.stdout.startswith("ready: ")
    assert not (running.state / "access.log").exists()


# ── syslog ──


def test_syslog_over_tcp_counts_octets_and_comes_back(gateway: GatewayFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20 * SLOW)
        port = server.getsockname()[1]
        running = gateway(workers=1, more=f'[log]\naccess = "syslog+tcp://127.0.0.1:{port}"\n')
        assert running.get("/one")[0] == 200
        first, _ = server.accept()
        until(lambda: running.status()["log"]["lines"] == 1)
        first.close()
    assert running.get("/while-away")[0] == 200
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(20 * SLOW)
        second, _ = server.accept()
        until(lambda: running.status()["log"]["lines"] == 2)
        assert running.stop() == 0
        second.settimeout(20 * SLOW)
        data = b"".join(iter(lambda: second.recv(65536), b""))
        second.close()
    messages = [SYSLOG.fullmatch(frame) for frame in frames(data)]
    assert all(messages)
    lines = [json.loads(message[7]) for message in messages if message]
    assert [line["url.path"] for line in lines] == ["/while-away"]


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A real rsyslogd without privileges of its own: Unix socket, UDP and TCP, everything into one file."""
    program = wanted.program("rsyslogd")
    ports = {}
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        ports = {"tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1]}
    out, local = tmp_path / "received", tmp_path / "devlog"
    (tmp_path / "rsyslog.conf").write_text(f"""
global(workDirectory="{tmp_path}" maxMessageSize="16k")
module(load="imuxsock" SysSock.Use="off")
module(load="imudp")
module(load="imtcp")
template(name="all" type="string" string="%syslogfacility-text% %syslogseverity-text% %app-name% %msgid% %msg%\\n")
ruleset(name="keep") {{ action(type="omfile" file="{out}" template="all") }}
input(type="imuxsock" Socket="{local}" UseSpecialParser="off" ParseHostname="on" CreatePath="off"
      RateLimit.Interval="0" ruleset="keep")
input(type="imudp" address="127.0.0.1" port="{ports["udp"]}" ruleset="keep")
input(type="imtcp" address="127.0.0.1" port="{ports["tcp"]}" SupportOctetCountedFraming="on" ruleset="keep")
""")
    with (tmp_path / "rsyslog.err").open("wb") as err:
        process = subprocess.Popen(
            [program, "-n", "-f", str(tmp_path / "rsyslog.conf"), "-i", str(tmp_path / "rsyslog.pid")],
            stdin=subprocess.DEVNULL, stdout=err, stderr=err,
        )  # fmt: skip
    try:
        until(local.exists, 20, (tmp_path / "rsyslog.err").read_text())
        yield {**ports, "socket": str(local), "received": out}
    finally:
        process.terminate()
        process.wait(20 * SLOW)


def test_a_real_rsyslogd_takes_all_transports(gateway: GatewayFactory, rsyslog: dict[str, Any]) -> None:
    running = gateway(
        workers=1,
        more=f"""[log]
access = [{{ to = "syslog:{rsyslog["socket"]}", facility = "local1" }},
          {{ to = "syslog+udp://127.0.0.1:{rsyslog["udp"]}", facility = "local2", format = "combined" }},
          {{ to = "syslog+tcp://127.0.0.1:{rsyslog["tcp"]}", facility = "local3", tag = "gate" }}]
""",
    )
    for index in range(20):
        assert running.get(f"/page/{index}")[0] == 200
    assert running.cli("block", "127.0.0.9", "--reason", "an act").returncode == 0

    def rows() -> list[list[str]]:
        text = rsyslog["received"].read_text() if rsyslog["received"].exists() else ""
        return [line.split(" ", 4) for line in text.splitlines()]

    until(lambda: len(rows()) >= 62, 30, "20 lines thrice, the act twice")
    of = {name: [row for row in rows() if row[0] == name] for name in ("local1", "local2", "local3")}
    assert [len(found) for found in of.values()] == [21, 20, 21]
    for name, tag in (("local1", "scrubber"), ("local3", "gate")):
        lines = [(row[1], row[2], row[3], json.loads(row[4])) for row in of[name]]
        assert {line[1] for line in lines} == {tag}
        assert [line[3]["url.path"] for line in lines if line[2] == "access"] == [f"/page/{i}" for i in range(20)]
        (act,) = [line for line in lines if line[2] == "act"]
        assert (act[0], act[3]["event.reason"]) == ("notice", "an act")
    assert all(COMBINED.fullmatch(row[4].strip().encode()) for row in of["local2"])
    assert running.status()["log"]["lines_lost"] == 0


# ── rotation ──


@pytest.mark.parametrize("how", ["command", "signal"])
def test_reopening(gateway: GatewayFactory, how: str) -> None:
    running = gateway(workers=1)
    path = running.state / "access.log"
    running.get("/one")
    until(lambda: path.exists() and "/one" in path.read_text())
    path.rename(running.state / "moved")
    if how == "command":
        done = running.cli("reopen")
        assert done.returncode == 0, done.stderr
        assert str(path) in done.stdout
        assert path.exists(), "open when the command ends"
    else:
        running.process.send_signal(signal.SIGUSR1)
        until(path.exists)
    running.get("/two")
    until(lambda: "/two" in path.read_text())
    assert "/two" not in (running.state / "moved").read_text()


def test_reopening_where_it_cannot_be_says_why(gateway: GatewayFactory) -> None:
    running = gateway(workers=1, more='[log]\naccess = "logs/access.log"\n', wait=False)
    assert running.process.wait(20 * SLOW) == 1  # no such directory
    (running.state / "logs").mkdir()
    if os.geteuid() == 0:
        os.chown(running.state / "logs", SUPERVISOR_UID, SUPERVISOR_UID)
    again = gateway(directory=running.directory, text=running.file.read_text())
    again.get("/one")
    until(lambda: requests_in(running.state / "logs" / "access.log") == 1)
    (running.state / "logs").rename(running.state / "away")
    refused = again.cli("reopen")
    assert refused.returncode == 1
    assert "No such file" in refused.stderr
    assert "Try: " in refused.stderr
    (running.state / "away").rename(running.state / "logs")
    assert again.cli("reopen").returncode == 0


def requests_in(*paths: Path) -> int:
    lines = [line for path in paths if path.exists() for line in path.read_bytes().splitlines()]
    return sum(b'"scrubber.kind":"act"' not in line for line in lines)


def test_logrotate_under_traffic_loses_no_line(gateway: GatewayFactory, tmp_path: Path) -> None:
    program = wanted.program("logrotate")
    running = gateway()
    path = running.state / "access.log"
    conf = tmp_path / "logrotate.conf"
    ours = (ROOT / "configs" / "logrotate.conf").read_text().replace("/var/log/scrubber/*.log", str(path))
    assert "scrubber reopen --gateway /etc/scrubber/gateway.toml" in ours
    command = f"PYTHONPATH={ROOT} {sys.executable} -m scrubber reopen --gateway {running.file}"
    ours = ours.replace("scrubber reopen --gateway /etc/scrubber/gateway.toml", command)
    conf.write_text("\n".join(line for line in ours.splitlines() if "compress" not in line or line.startswith("#")))
    conf.chmod(0o600)
    sent = [0, 0]
    stop = threading.Event()

    def traffic(slot: int) -> None:
        while not stop.is_set():
            assert running.get(f"/page/{slot}")[0] == 200
            sent[slot] += 1

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = [pool.submit(traffic, slot) for slot in range(2)]
        for round_ in range(3):
            want = 50 * (round_ + 1)
            until(lambda want=want: sum(sent) >= want and requests_in(path), 60)
            subprocess.run([program, "-f", "-s", str(tmp_path / "status"), str(conf)], check=True)
        stop.set()
        for each in both:
            each.result()
    files = [path, *running.state.glob("access.log.*")]
    assert len(files) == 4
    until(lambda: requests_in(*files) >= sum(sent))
    assert requests_in(*files) == sum(sent)
    assert all(requests_in(each) > 0 for each in files[1:])
    assert running.status()["log"]["lines_lost"] == 0


# ── sampling ──


def test_sampling_leaves_out_and_counts_exactly(gateway: GatewayFactory) -> None:
    running = gateway(workers=1, rules=TIGHT.replace("burst 5", "burst 300"), more='[log]\nsample_pass = "20/s"\n')
    asked = 340
    answers = [running.get(f"/page/{index}", source="127.0.0.9")[0] for index in range(asked)]
    assert (answers.count(200), answers.count(429)) == (300, 40)
    metric = running.admin("GET", "/metrics")[1]["text"]
    sampled = int(float(metric.partition("\nscrubber_log_sampled_total ")[2].split()[0]))
    assert sampled > 0, "300 requests within a few seconds, and 20 lines a second"

    def lines() -> dict[str, list[dict[str, Any]]]:
        found = requests_of(running)
        return {verdict: [x for x in found if x["scrubber.verdict"] == verdict] for verdict in ("PASS", "THROTTLE")}

    until(lambda: len(lines()["THROTTLE"]) == 40, what="refusals are always written")
    passed = until(lambda: len(found := lines()["PASS"]) == 300 - sampled and found)
    stood_for = sum(line.get("scrubber.weight", 1) for line in passed)
    assert stood_for <= 300
    assert 300 - stood_for < sampled, "only what came after the last line has no line to stand for it"
    time.sleep(0.3)
    assert running.get("/last", source="127.0.0.7")[0] == 200
    (last,) = until(lambda: [line for line in requests_of(running) if line["url.path"] == "/last"])
    assert stood_for + last.get("scrubber.weight", 1) == 301, "with one more line, every request is accounted for"
    status = running.status()["log"]
    assert status["sampled"] == sampled
    assert f"{sampled:,} of requests that passed left out" in running.cli("status").stdout


def test_workers_share_the_rate_and_together_stand_for_all(gateway: GatewayFactory) -> None:
    running = gateway(workers=3, more='[log]\nsample_pass = "30/s"\n')
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [each[0] for each in pool.map(running.get, [f"/page/{i}" for i in range(600)])]
    took_s = time.monotonic() - began
    assert answers == [200] * 600

    def sampled() -> int:
        return int(running.status()["log"]["sampled"])

    written = until(lambda: len(found := requests_of(running)) + sampled() == 600 and found, what="all accounted for")
    assert sampled() > 0, "600 requests within a few seconds, and 30 lines a second"
    # At once each worker may write one line, and those of a tenth of a second (LOG_BURST_NS).
    assert len(written) <= 30 * (took_s + 0.1) + 3, "the rate is the gateway's, not each worker's"
    asked = 600

    def whole() -> bool:
        """One more request, at a pace at which none is left out, tells what its worker left out before."""
        nonlocal asked
        time.sleep(0.15)
        assert running.get("/last")[0] == 200
        asked += 1
        until(lambda: len(requests_of(running)) + sampled() == asked)
        return sum(line.get("scrubber.weight", 1) for line in requests_of(running)) == asked

    until(whole, 30, "every worker has said for how many its lines stand")


# ── reloads ──


def test_the_log_changes_on_a_reload(gateway: GatewayFactory) -> None:
    running = gateway(workers=2)
    running.get("/one")
    first = running.state / "access.log"
    until(lambda: requests_in(first) == 1)
    text = running.file.read_text()
    running.file.write_text(text + '[log]\naccess = { to = "other.log", format = "{path} {status}" }\n')
    assert running.cli("reload").returncode == 0
    running.get("/two")
    other = running.state / "other.log"
    until(lambda: other.read_text() == "/two 200\n")
    assert requests_in(first) == 1
    running.file.write_text(text + '[log]\naccess = "off"\n')
    assert running.cli("reload").returncode == 0
    running.get("/three")
    running.file.write_text(text)
    assert running.cli("reload").returncode == 0
    running.get("/four")
    until(lambda: requests_in(first) == 2)
    assert b"/three" not in first.read_bytes() + other.read_bytes()


def test_a_reload_to_a_log_that_cannot_be_written_changes_nothing(gateway: GatewayFactory) -> None:
    running = gateway(workers=1)
    running.file.write_text(running.file.read_text() + '[log]\naccess = "none/access.log"\n')
    refused = running.cli("reload")
    assert refused.returncode == 1
    assert "cannot write the access log" in refused.stderr
    running.get("/one")
    until(lambda: requests_in(running.state / "access.log") == 1)


def test_a_new_supervisor_goes_on_with_the_same_log(gateway: GatewayFactory) -> None:
    running = gateway(workers=1, more='[log]\naccess = { to = "text.log", format = "{path}" }\n')
    running.get("/one")
    path = running.state / "text.log"
    until(lambda: path.read_text() == "/one\n")
    before = running.child("supervisor")["pid"]
    os.kill(before, signal.SIGKILL)
    running.get("/two")
    until(lambda: path.read_text() == "/one\n/two\n")
