"""With tens of thousands of drops the kernel is rarely asked what it has counted: whoever sends stays out even so."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scrubber.control.saved import SavedBlock
from scrubber.mandate.compile import rule_id
from scrubber.server import secret
from scrubber.server.block_file import BlockFile
from tests.e2e.support import until
from tests.net.site import ATTACKER, FLOOD, Site, flooded
from tests.net.watch import Knocker

pytestmark = pytest.mark.timeout(120)

MANY = 20_000
ROOMY = "[memory]\nblocks = 1_048_576"
HOUR_NS = 3600 * 10**9
PROPORTION = f'blocks_max = {2 * MANY}\nblock_ttl_max = "1h"\nclients_share_max = "50%"'


def blocks_on_disk(state: Path, count: int) -> None:
    """Of so many clients, by hand, for an hour: as an earlier run left them."""
    state.mkdir(parents=True, mode=0o700)
    now_ns = time.time_ns()
    file = BlockFile(str(state), secret.make(str(state)).blocks)
    clause = {"rule_id": f"{rule_id('test', ''):016x}", "case": "0" * 16, "authority": "the tests", "mandate": "test"}
    times = {"since_ns": now_ns, "first_ns": now_ns, "until_ns": now_ns + HOUR_NS, "left_ns": HOUR_NS}
    sources = (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(count))
    file.rewrite([[SavedBlock("client", each, ("site",), **clause, **times, proven=True) for each in sources]])
    file.close()


def settled(found: Site) -> int:
    """How many are in force, once all that fit in the table are; else 0."""
    enforcer = found.enforcer()
    count = sum(enforcer["in_force"].values())
    return count if MANY * 0.9 < count == enforcer["wanted"] else 0


def test_who_goes_on_sending_is_extended_though_counts_come_rarely(site: Callable[..., Site], tmp_path: Path) -> None:
    blocks_on_disk(tmp_path / "g0" / "state", MANY)
    found = site(rules=FLOOD.replace("block 10m", "block 10s"), proportion=PROPORTION, top=ROOMY)
    count = until(lambda: settled(found), 30)
    until(lambda: flooded(found, ATTACKER, count + 1))
    with Knocker(found, ATTACKER):
        until(lambda: "extend" in [act["event.action"] for act in found.running.status()["acts"]], 20)
    assert found.shut_out(ATTACKER)
