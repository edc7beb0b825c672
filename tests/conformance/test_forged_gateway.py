"""Forged claims about who somebody is, through a running gateway: log, origin and rules know the socket's address."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from tests.conformance.through import Seen, send_all, source
from tests.e2e.proxy import Proxy
from tests.e2e.support import until
from tests.reference import forged

COUNT = 400
LISTENER = 'trusted_proxies = ["127.0.6.1", "10.0.0.0/8"]\nproxy_protocol = ["127.0.6.2"]'
ONCE = '[[rule]]\nname = "once"\nper = "client"\nlimit = "1/h burst 1"\nthen = ["throttle"]\n'


def test_nobody_becomes_somebody_else(proxy: type[Proxy]) -> None:
    """Each address asks twice, with other claims, where once is allowed: a forged key would get a second answer."""
    r = random.Random(7239)
    with proxy(listener=LISTENER, rules=ONCE) as found:
        first = [forged.head(r, f"/first/{i}") for i in range(COUNT)]
        second = [forged.head(r, f"/second/{i}") for i in range(COUNT)]
        headers = [forged.proxy(r) + forged.head(r, f"/proxy/{i}") for i in range(COUNT // 2)]
        seen = [asyncio.run(send_all(found.port, payloads, wait_s=5)) for payloads in (first, second)]
        refused = asyncio.run(send_all(found.port, headers, first=COUNT, wait_s=5))

        assert [one.statuses for one in seen[0]] == [(200,)] * COUNT
        assert [one.statuses for one in seen[1]] == [(429,)] * COUNT
        assert [one for one in refused if one != Seen((one.first or 0,), closed=True) or (one.first or 0) < 400] == []

        arrived = {request.target: request.all("x-forwarded-for") for request in found.origin.requests}
        assert arrived == {f"/first/{i}": [source(i)] for i in range(COUNT)}

        def requests() -> list[dict[str, Any]]:
            return [line for line in found.running.log_lines() if "http.response.status_code" in line]

        lines = until(lambda: len(got := requests()) >= 2 * COUNT + len(headers) and got, 10)
        told = {line["url.path"]: line["client.ip"] for line in lines if line.get("url.path", "").startswith("/")}
        for i in range(COUNT):
            assert told[f"/first/{i}"] == told[f"/second/{i}"] == source(i), i
        unread = sorted(line["source.ip"] for line in lines if line.get("http.response.status_code") == 400)
        assert all("client.ip" not in line for line in lines if line.get("http.response.status_code") == 400)
        assert unread == sorted(source(COUNT + i) for i, one in enumerate(refused) if one.first == 400)
        found.whole()
