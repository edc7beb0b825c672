"""A judge for tests: real heads over shared memory that begins empty, at a time that the test says."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scrubber import _native
from scrubber.mandate.load import load_all
from scrubber.mandate.slots import assign_area_ids
from tests.unit.files import HEAD, MINIMAL_GATEWAY, NOW, write
from tests.unit.images import MONO_NS, compiled, opened
from tests.unit.regions import make_memory

S = 1_000_000_000
RECORD_ACT = 2
SECRET = b"sixteen bytes..."

# Headers in an order of their own each: programs that a fingerprint tells apart.
FACES: tuple[tuple[tuple[str, str], ...], ...] = (
    (("Host", ""), ("User-Agent", "a"), ("Accept", "*/*")),
    (("Host", ""), ("Accept", "*/*"), ("User-Agent", "a")),
    (("User-Agent", "a"), ("Host", ""), ("Accept", "*/*")),
    (("User-Agent", "a"), ("Accept", "*/*"), ("Host", "")),
    (("Accept", "*/*"), ("Host", ""), ("User-Agent", "a")),
    (("Accept", "*/*"), ("User-Agent", "a"), ("Host", "")),
)

TWO_AREAS = """
mandates = ["m.toml"]
allow_unsigned = true
[[listener]]
address = "127.0.0.1:0"
[[listener]]
address = "127.0.0.2:0"
areas = ["site"]
[[area]]
name = "site"
default = true
origins = ["127.0.0.1:1"]
account = "cookie:sid"
[[area]]
name = "other"
hosts = ["other.test"]
origins = ["127.0.0.1:1"]
"""


def packed(address: str) -> bytes:
    """16 bytes as the core has them."""
    found = ipaddress.ip_address(address)
    return bytes(10) + b"\xff\xff" + found.packed if found.version == 4 else found.packed


def head_of(
    target: str = "/",
    *,
    method: str = "GET",
    host: str = "site.test",
    face: int = 0,
    more: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """A request head; `more` headers after those of the face."""
    fields = [(name, value or host) for name, value in FACES[face]] + list(more)
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass
class Bench:
    """One worker's judge."""

    memory: _native.Memory
    policy: _native.Policy
    judge: _native.ProbeJudge
    areas: dict[str, int]
    now_ns: int = MONO_NS

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * S)

    def connect(self, client: str = "192.0.2.1", *, listener: int = 0) -> dict[str, Any]:
        """A connection's judgement."""
        return dict(self.judge.connection(listener, packed(client), self.now_ns).told)

    def open(
        self, target: str = "/", *, client: str = "192.0.2.1", listener: int = 0, first: bool = False, **head: Any
    ) -> Any:
        """A request that goes on; give it to `close`."""
        judged = self.judge.request(listener, packed(client), head_of(target, **head), self.now_ns, first)
        assert judged is not None, "no area"
        return judged

    def close(self, judged: Any, *, nbytes: int = 0, origin_ns: int = 0, good: bool = True) -> None:
        self.judge.done(judged, self.now_ns, nbytes, origin_ns, good)

    def ask(
        self, target: str = "/", *, nbytes: int = 0, origin_ns: int = 0, good: bool = True, **where: Any
    ) -> dict[str, Any]:
        """A whole request's judgement."""
        judged = self.open(target, **where)
        self.close(judged, nbytes=nbytes, origin_ns=origin_ns, good=good)
        return dict(judged.told)

    def verdicts(self, count: int, target: str = "/", **where: Any) -> list[str]:
        return [self.ask(target, **where)["verdict"] for _ in range(count)]

    def befriend(self, client: str, *, requests: int = 12, seconds: float = 6, **where: Any) -> None:
        """Make a client known: good requests over some time."""
        for _ in range(requests):
            self.ask(client=client, **where)
            self.wait(seconds / requests)

    def acts(self) -> list[dict[str, Any]]:
        """Acts recorded since the last call."""
        return [json.loads(data) for kind, data, _ in self.memory.ring_read(0, 1 << 20) if kind == RECORD_ACT]

    def blocks(self) -> list[dict[str, Any]]:
        return list(self.memory.blocks())

    def measures(self, area: str = "site") -> dict[str, int]:
        """Acts counted for an area, by measure; those that are none left out."""
        counts = _native.probe_area_totals(self.memory, self.areas[area])["measures"]
        return {name: n for name, n in zip(_native.MEASURE_NAMES, counts, strict=True) if n}


def bench(folder: Path, gateway: str, *, compile_with: dict[str, Any] | None = None, **mandates: str) -> Bench:
    """A judge over the policy of these texts. Memory sees real time only in `blocks()`: MONO_NS is far ahead of it."""
    memory_with = mandates.pop("memory", None)
    loaded = load_all(write(folder, gateway, **mandates), now=NOW)
    (memory,) = make_memory(secret=SECRET, **(json.loads(memory_with) if memory_with else {}))
    policy = opened(compiled(loaded, **(compile_with or {})))
    return Bench(memory, policy, _native.ProbeJudge(memory, policy), assign_area_ids(loaded.gateway, {}))


def rule(name: str, limit: str, then: str, per: str = "client", more: str = "") -> str:
    """One rule; an empty limit leaves it out."""
    line = f'limit = "{limit}"\n' if limit else ""
    return f'[[rule]]\nname = "{name}"\nper = "{per}"\n{line}then = {then}\n{more}\n'


def build(folder: Path, rules: str, *, gateway: str = MINIMAL_GATEWAY, head: str = HEAD, **more: Any) -> Bench:
    """A judge over one mandate with these rules."""
    return bench(folder, gateway, m=head + rules, **more)
