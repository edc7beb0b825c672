"""Blocks written down and brought back: what time is left, what a mandate of today allows, what the core takes."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scrubber import _native
from scrubber.control.policy import PolicyInForce, compile_files
from scrubber.control.saved import Pages, Restored, SavedBlock, restore
from scrubber.enforce.net import net_text
from scrubber.mandate.compile import rule_id
from scrubber.mandate.load import load_all
from scrubber.server import secret
from tests.unit.files import HEAD, MINIMAL_GATEWAY, write
from tests.unit.images import opened
from tests.unit.regions import make_memory

S = 1_000_000_000
HAND = rule_id("m", "")
LONG = HEAD.replace("2026-05-01", "2020-01-01").replace("2026-07-01", "2099-01-01")
TWO = MINIMAL_GATEWAY + '\n[[area]]\nname = "other"\nhosts = ["other.example"]\norigins = ["127.0.0.1:8001"]\n'
PROPORTION = '\n[proportion]\nblock_ttl_max = "1h"\nblocks_max = 50\n'


@dataclass
class Gateway:
    """What a start makes of its files."""

    memory: _native.Memory
    policy: PolicyInForce
    image: _native.Policy

    def put(self, source: str, ttl_s: int = 600, areas: tuple[str, ...] = ("site",), kind: str = "client") -> None:
        ids = [self.policy.area_ids[name] for name in areas]
        assert self.memory.block_put(kind, source, ids, ttl_s * S, 3600 * S, 50, HAND) == "new"

    def written(self) -> list[SavedBlock]:
        pages = Pages(self.memory)
        pages.use(self.policy)
        return [block for page in pages.pages(changed=False) for block in page]

    def restore(self, blocks: list[SavedBlock], now_ns: int | None = None) -> Restored:
        return restore(self.memory, self.image, self.policy, blocks, now_ns)

    def blocks(self) -> dict[str, dict[str, Any]]:
        return {block["source"]: block for block in self.memory.blocks()}

    def left_s(self, source: str) -> float:
        return (self.blocks()[source]["expires_ns"] - time.monotonic_ns()) / S


Start = Callable[..., Gateway]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def made(
        mandate: str = LONG + PROPORTION, gateway: str = MINIMAL_GATEWAY, now: datetime.datetime | None = None
    ) -> Gateway:
        loaded = load_all(write(tmp_path, gateway, m=mandate), now=now)
        policy, compiled = compile_files(loaded.gateway, loaded.mandates, {}, 1)
        return Gateway(make_memory()[0], policy, opened(compiled))

    return made


def test_they_come_back_as_they_were(start: Start) -> None:
    first = start()
    first.put("203.0.114.7")
    first.put("2001:db8::/64", 60)
    first.put("203.0.115.0/24", kind="prefix")
    first.put("0123456789abcdef", kind="fingerprint")
    before = first.blocks()
    blocks = first.written()
    assert {(b.clause, b.authority, b.mandate) for b in blocks} == {("m/powers.block", "Example CERT", "m")}
    second = start()
    restored = second.restore(blocks)
    assert (restored.back, restored.dropped.total(), restored.text()) == (4, 0, "4 blocks are back")
    after = second.blocks()
    assert after.keys() == before.keys()
    for source, block in after.items():
        for name in ("kind", "areas", "case_id", "rule_id"):
            assert block[name] == before[source][name]
        assert abs(block["since_ns"] - before[source]["since_ns"]) < S
        assert before[source]["expires_ns"] - S < block["expires_ns"] <= before[source]["expires_ns"] + S // 1000
    assert second.memory.blocks_count()[0] == 4


@pytest.mark.parametrize(
    ("step_s", "left_s"),
    [(0, 600), (100, 500), (-100, 600), (-(10**8), 600), (599, 1)],
    ids=["still", "100 s later", "100 s back", "years back", "at its end"],
)
def test_the_clock_may_have_been_set(start: Start, step_s: int, left_s: float) -> None:
    """Never for longer than was left; a clock set back does not lengthen a block."""
    first, second = start(), start()
    first.put("203.0.114.7")
    assert second.restore(first.written(), time.time_ns() + step_s * S).back == 1
    assert left_s - 5 < second.left_s("203.0.114.7") <= left_s


def test_what_is_over_stays_away(start: Start) -> None:
    first, second = start(), start()
    first.put("203.0.114.7")
    assert second.restore(first.written(), time.time_ns() + 601 * S).dropped == {"expired": 1}
    assert second.blocks() == {}


@pytest.mark.parametrize(
    ("mandate", "reason"),
    [
        (LONG.replace('id = "m"', 'id = "n"'), "of a mandate that is gone"),
        (LONG.replace("Example CERT", "Another"), "of a mandate that is gone"),
        (LONG.replace('"drop", "block", ', '"drop", '), "of a mandate without the power to block"),
        (LONG + '\n[proportion]\nnever_block = ["203.0.114.0/28"]\n', "never-block"),
        (LONG + '\n[proportion]\nblock_ttl_max = "30s"\n', "over block_ttl_max"),
    ],
)
def test_a_mandate_of_today_says_which(start: Start, mandate: str, reason: str) -> None:
    first = start()
    first.put("203.0.114.7")
    (block,) = first.written()
    block = msgspec.structs.replace(block, first_ns=block.first_ns - 60 * S)
    second = start(mandate)
    restored = second.restore([block])
    assert (restored.back, restored.dropped) == (0, {reason: 1})
    assert restored.text() == f"0 blocks are back; dropped: 1 {reason}"
    assert second.blocks() == {}


def test_none_outlives_its_mandate(start: Start) -> None:
    first = start()
    first.put("203.0.114.7")
    ended = start(LONG.replace("2099", "2021"), now=datetime.datetime(2020, 6, 1, tzinfo=datetime.UTC))
    assert ended.restore(first.written()).dropped == {"of a mandate that is not in force": 1}
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    ending = start(LONG.replace("2099-01-01T00:00:00Z", soon.isoformat()))
    assert ending.restore(first.written()).back == 1
    assert 50 < ending.left_s("203.0.114.7") <= 60


def test_bounds_of_today_apply(start: Start) -> None:
    first = start(LONG + PROPORTION)
    for number in range(5):
        first.put(f"203.0.114.{number}", 600 + number)
    first.put("203.0.116.0/24", 60, kind="prefix")
    second = start(LONG + '\n[proportion]\nblock_ttl_max = "100s"\nblocks_max = 3\nprefix_v4_widest = 28\n')
    restored = second.restore(first.written())
    assert restored.dropped == {"too wide": 1, "over blocks_max or without room in the table": 2}
    assert len(second.blocks()) == restored.back == 3
    assert all(second.left_s(source) <= 100 for source in second.blocks())


def test_where_not_all_may_come_back_those_with_most_left_do(start: Start) -> None:
    first = start(LONG + PROPORTION)
    for number in range(5):
        first.put(f"203.0.114.{number}", 600 + number)
    second = start(LONG + '\n[proportion]\nblock_ttl_max = "1h"\nblocks_max = 3\n')
    second.restore(first.written())
    assert set(second.blocks()) == {"203.0.114.2", "203.0.114.3", "203.0.114.4"}


def test_areas_that_are_gone_are_no_longer_bound(start: Start) -> None:
    both = LONG.replace('areas = ["site"]', 'areas = ["site", "other"]')
    first = start(both, TWO)
    first.put("203.0.114.7", areas=("site", "other"))
    first.put("203.0.114.8", areas=("other",))
    second = start()
    restored = second.restore(first.written())
    assert (restored.back, restored.dropped) == (1, {"of areas that are gone": 1})
    assert second.blocks()["203.0.114.7"]["areas"] == [second.policy.area_ids["site"]]


def test_the_evidence_counts_from_its_beginning_also_before_the_boot(start: Start) -> None:
    """block_ttl_max is cumulative: a block that came back cannot be extended beyond it, whenever the boot was."""
    first = start()
    first.put("203.0.114.7", 60)
    (block,) = first.written()
    uptime_ns = time.monotonic_ns()
    wide = LONG + '\n[proportion]\nblock_ttl_max = "31d"\n'
    for began_ns in (1800 * S, min(uptime_ns + 1800 * S, 30 * 86400 * S)):
        second = start(wide)
        old = msgspec.structs.replace(block, first_ns=block.first_ns - began_ns, since_ns=block.since_ns - began_ns)
        assert second.restore([old]).back == 1
        assert time.monotonic_ns() - second.blocks()["203.0.114.7"]["since_ns"] == pytest.approx(began_ns, abs=5 * S)
        ttl_max_ns = began_ns + 600 * S
        second.memory.block_put("client", "203.0.114.7", [0], 1800 * S, ttl_max_ns, 50, HAND)
        assert 590 < second.left_s("203.0.114.7") <= 600


def test_only_what_changed_is_taken_again(start: Start) -> None:
    gateway = start()
    for number in range(3):
        gateway.put(f"203.0.114.{number}")
    pages = Pages(gateway.memory)
    pages.use(gateway.policy)

    def changed() -> set[str]:
        return {block.source for page in pages.pages(changed=True) for block in page}

    assert changed() == {"203.0.114.0", "203.0.114.1", "203.0.114.2"}
    assert changed() == set()
    gateway.put("203.0.114.9")
    assert gateway.memory.block_put("client", "203.0.114.1", [0], 900 * S, 3600 * S, 50, HAND) == "extended"
    gateway.memory.block_remove("client", "203.0.114.2")
    assert changed() == {"203.0.114.9", "203.0.114.1"}
    gateway.put("203.0.114.2")
    assert changed() == {"203.0.114.2"}
    assert len(gateway.written()) == 4
    assert changed() == set()


def test_more_than_a_page(start: Start) -> None:
    gateway = start()
    answers = [
        gateway.memory.block_put("client", f"203.0.{114 + (n >> 8)}.{n & 255}", [0], 600 * S, 3600 * S, 10**6, HAND)
        for n in range(700)
    ]
    found: list[str] = []
    at: int | None = 0
    while at is not None:
        rows, at = _native.blocks_taken(gateway.memory, at, 16, True)
        assert len(rows) <= 16
        found += [row[1] for row in rows]
    assert sorted(found) == sorted(gateway.blocks())
    assert answers.count("new") >= len(found) == len(set(found))


def test_what_the_enforcer_gets(start: Start) -> None:
    gateway = start(gateway=TWO, mandate=LONG.replace('areas = ["site"]', 'areas = ["site", "other"]') + PROPORTION)
    memory = gateway.memory

    def put(kind: str, source: str, *, ttl_s: int = 600, proven: bool = True) -> str:
        return memory.block_put(kind, source, [0, 1], ttl_s * S, 3600 * S, 50, HAND, proven=proven)

    def taken(*, changed: bool) -> dict[str, int]:
        rows, at = _native.blocks_enforced(memory, 0, 10**6, changed)
        assert at is None
        assert all((areas, rule, hits) == ((0, 1), HAND, 0) for _, areas, _, rule, hits in rows)
        return {net_text(row[0]): row[2] for row in rows}

    for kind, source in (("client", "203.0.114.1"), ("client", "2001:db8::1"), ("prefix", "203.0.112.0/24")):
        assert put(kind, source) == "new"
    assert put("fingerprint", "00ff" * 4) == "new"
    assert put("client", "203.0.114.2", proven=False) == "new"  # a proxy's word
    assert set(taken(changed=True)) == {"203.0.114.1", "2001:db8::/64", "203.0.112.0/24"}
    assert taken(changed=True) == {}
    assert len(gateway.written()) == 5  # what one reader has taken, the other has not
    assert put("client", "203.0.114.2") == "extended"  # now by a socket, though for no longer
    assert set(taken(changed=True)) == {"203.0.114.2"}
    assert put("client", "203.0.114.1", ttl_s=1200) == "extended"
    (expires_ns,) = taken(changed=True).values()
    assert expires_ns - time.monotonic_ns() > 1100 * S
    assert len(taken(changed=False)) == 4
    back = start()
    back.restore([block for block in gateway.written() if block.kind != "fingerprint"])
    assert len(_native.blocks_enforced(back.memory, 0, 10, False)[0]) == 4  # whose word it was is on disk, too


def test_what_the_core_does_not_understand_is_left_out(start: Start) -> None:
    gateway = start()
    gateway.put("203.0.114.7")
    (block,) = gateway.written()
    strange = msgspec.structs.replace(block, source="nobody")
    assert start().restore([strange]).dropped == {"not understood": 1}


def test_the_secret_is_made_once_and_nobody_elses(tmp_path: Path) -> None:
    keys = secret.make(str(tmp_path))
    assert secret.make(str(tmp_path)) == secret.read(str(tmp_path)) == keys
    assert (len(keys.memory), len(keys.blocks)) == (16, 32)
    path = tmp_path / secret.NAME
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(BlockingIOError):
        [secret.lock(str(tmp_path)), secret.lock(str(tmp_path))]
    for spoil in (lambda: path.chmod(0o640), lambda: path.write_text("zz"), lambda: path.write_text("00" * 8)):
        path.unlink()
        secret.make(str(tmp_path))
        spoil()
        with pytest.raises(secret.OperatorError) as refused:
            secret.read(str(tmp_path))
        assert "rm " in refused.value.hint
