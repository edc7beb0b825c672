"""The recorded ClientHellos, sent to a TLS port: logged as others have them, though no handshake follows."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest

from tests.corpora import CORPORA
from tests.e2e.certificates import signed
from tests.e2e.conftest import GatewayFactory
from tests.e2e.support import SLOW, until

FILE = CORPORA / "clienthello.json"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there: set SCRUBBER_CORPORA to its folder")


def test_every_one_is_logged_as_others_have_it(gateway: GatewayFactory, tmp_path: Path) -> None:
    cases = json.loads(FILE.read_text())
    said = signed("site.test").write(tmp_path, "site")
    running = gateway(directory=tmp_path, listener="tls = true", area=f"[area.tls]\ncertificates = {said}")
    ports: dict[int, str] = {}
    for case in cases:
        with socket.create_connection(("127.0.0.1", running.port), timeout=10 * SLOW) as raw:
            ports[raw.getsockname()[1]] = case["id"]
            raw.sendall(bytes.fromhex(case["records_hex"]))
            raw.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while raw.recv(65536):
                    pass
    lines = until(lambda: (found := running.log_lines()) and len(found) >= len(cases) and found)
    found = {ports[each["source.port"]]: (each["tls.client.ja3"], each["tls.client.ja4"]) for each in lines}
    assert found == {case["id"]: (case["ja3"], case["ja4"]) for case in cases}
