"""Programs that people use, through the gateway and straight: the same bytes, the same headers, the same redirects."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.e2e.proxy import Proxy
from tests.interop import battery
from tests.interop.clients import CLIENTS, Client, run
from tests.interop.conftest import Program, settled
from tests.interop.same import check_all

BATTERY = [*battery.of_any_origin(), *battery.of_applications(), *battery.of_clients()]
every_client = pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
numbers = itertools.count()


@pytest.fixture(autouse=True)
def there(request: pytest.FixtureRequest) -> None:
    client = request.node.callspec.params.get("client") if hasattr(request.node, "callspec") else None
    if client is not None:
        client.needs()


def compare(client: Client, front: Proxy, shaped: Program, tmp_path: Path, source: str | None) -> None:
    calls = client.calls(BATTERY)
    found = []
    for where, port in ("straight", shaped.port), ("through", front.port):
        (tmp_path / where).mkdir()
        found.append(client.run(calls, port, tmp_path / where, source if where == "through" else None))
    check_all(found[0], found[1], calls, (shaped.port, front.port))


@every_client
def test_answers_are_the_same(client: Client, front: Proxy, shaped: Program, tmp_path: Path) -> None:
    before = front.metric("scrubber_connections_accepted_total")
    compare(client, front, shaped, tmp_path, None)
    opened = front.metric("scrubber_connections_accepted_total") - before
    assert 1 <= opened <= client.connections_max, "connections are not reused"
    settled(front)


@pytest.mark.parametrize("client", [c for c in CLIENTS if c.sources], ids=lambda client: client.name)
def test_answers_are_the_same_under_a_mandate(client: Client, front: Proxy, shaped: Program, tmp_path: Path) -> None:
    """127.0.0.1 is never-block, whatever the rules say; 127.0.0.2 is judged by them."""
    compare(client, front, shaped, tmp_path, "127.0.0.2")
    settled(front)


@every_client
def test_streams_stream(client: Client, front: Proxy, shaped: Program) -> None:
    """The second piece is sent only after the client had the first: whoever holds back waits for ever."""
    if client.name == "raw":
        pytest.skip("test_proxy_forwarding shows it on the wire")
    key = next(numbers)
    found, opened = b"", False
    for piece in client.stream(front.port, f"/gate/{key}"):
        found += piece
        if found == b"first\n" and not opened:
            run(["curl", "--silent", f"http://127.0.0.1:{shaped.port}/open/{key}"])
            opened = True
    assert opened and found == b"first\nsecond\n"
