"""The judge and its slow reference over the same random mandates and events; and what no order of events may do."""

from __future__ import annotations

import ipaddress
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber import _native
from scrubber.mandate.load import Loaded, load_all
from scrubber.mandate.never_block import never_block
from tests.reference import judge as reference
from tests.reference.judge import Request
from tests.unit.files import HEAD, NOW, write
from tests.unit.images import MONO_NS, compiled, opened
from tests.unit.judging import FACES, SECRET, S, head_of, packed
from tests.unit.regions import make_memory

GATEWAY = """
mandates = ["m.toml", "n.toml"]
allow_unsigned = true
enforce = {enforce}
[[listener]]
address = "127.0.0.1:0"
trusted_proxies = ["198.51.100.0/24"]
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
account = "cookie:sid"
"""
NEVER = ("192.0.2.7/32", "2001:db8:7::/64")
PROPORTION = f"""
[proportion]
block_ttl_max = "20s"
blocks_max = 4
clients_share_max = "50%"
never_block = {list(NEVER)!r}
"""
CLIENTS = (
    "192.0.2.1",
    "192.0.2.2",
    "192.0.3.1",
    "192.0.2.7",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8:7::1",
    "198.51.100.1",
)
ACCOUNTS = ("", "", "a", "b")
HOSTS = ("site.test", "other.test")
PATHS = ("/", "/login", "/a.php")

LIMITS = (
    "3/s",
    "1/10s burst 4",
    "8/min",
    "2 concurrent",
    "1kB/s burst 3kB",
    "1 origin_s/10s",
    "2 connections/s burst 3",
)
SOURCE_KEYS = ("client", "prefix", "fingerprint", "account+client", "client+fingerprint", "client+path", "area+client")
PLACE_KEYS = ("area", "path", "host", "host+path")
WHENS = (
    "",
    'path = "/login"',
    'path = ["*.php", "/login"]',
    "known = true",
    "known = false",
    "rush = true",
    "account = true",
)
MORE_WHENS = (
    'client = "192.0.2.0/24"',
    'host = "other*"',
    'method = "POST"',
    "header = { x-a = true }",
    "header = { x-a = false }",
)
RUNGS = ("observe 1s", "throttle 1s", "challenge 1s", "tarpit 1s", "deny 1s", "drop 1s", "block 8s")
SOFT = ("observe 1s", "throttle 1s", "challenge 1s", "deny 1s")


@st.composite
def rules(draw: st.DrawFn) -> str:
    """One to four rules that a check accepts."""
    text = ""
    for number in range(draw(st.integers(1, 4))):
        limit = draw(st.sampled_from(LIMITS))
        whole = draw(st.integers(0, 3)) == 0
        per = draw(st.sampled_from(PLACE_KEYS if whole else SOURCE_KEYS))
        if "connections" in limit and "path" in per:
            per = "client"
            whole = False
        can_block = len(per.split("+")) == 1 or "client" in per
        can_block = can_block and not whole
        ladder = SOFT if whole else RUNGS if can_block else RUNGS[:-1]
        picked = draw(st.lists(st.sampled_from(ladder), min_size=1, max_size=3, unique=True))
        if can_block and draw(st.booleans()):
            picked = [*picked, RUNGS[-1]]
        picked = list(dict.fromkeys(picked))
        when = draw(st.sampled_from(WHENS + MORE_WHENS))
        text += f'[[rule]]\nname = "r{number}"\nper = "{per}"\nlimit = "{limit}"\ncalm = "3s"\n'
        text += f"then = {sorted(picked, key=RUNGS.index)!r}\n" + (f"when = {{ {when} }}\n" if when else "")
    return text


def mandate(name: str, areas: str, text: str) -> str:
    return (
        HEAD.replace('id = "m"', f'id = "{name}"').replace('areas = ["site"]', f"areas = {areas}") + PROPORTION + text
    )


MANDATES = st.tuples(
    st.sampled_from(['["site"]', '["site", "other"]']),
    rules(),
    st.sampled_from(['["other"]', '["site", "other"]']),
    rules(),
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 40, 200, 400, 1200, 4000]),  # ms since the one before
        st.sampled_from(CLIENTS),
        st.integers(0, 1),  # listener
        st.sampled_from(["connect", "request", "request", "request", "first", "hold", "release", "befriend", "family"]),
        st.sampled_from(PATHS),
        st.sampled_from(HOSTS),
        st.integers(0, 2),  # face
        st.sampled_from(ACCOUNTS),
        st.sampled_from([0, 700, 5000]),  # bytes
        st.integers(1, 12),  # as often
    ),
    min_size=1,
    max_size=40,
)


class Both:
    """The core and the reference, side by side."""

    def __init__(self, loaded: Loaded) -> None:
        (self.memory,) = make_memory(secret=SECRET)
        self.policy = opened(compiled(loaded))
        self.core = _native.ProbeJudge(self.memory, self.policy)
        never = never_block(loaded.gateway, loaded.mandates, ())
        self.never = [ipaddress.ip_network(n) for n in never]
        self.slow = reference.Judge(loaded.gateway, loaded.mandates, never, NOW, MONO_NS)
        self.gateway = loaded.gateway
        self.mandates = loaded.mandates
        self.held: list[tuple[Any, reference.Judged]] = []
        self.now_ns = MONO_NS

    def event(self, event: tuple[Any, ...]) -> None:
        wait_ms, client, listener, what, path, host, face, account, nbytes, times = event
        self.now_ns += wait_ms * 1_000_000
        if what in ("befriend", "family"):  # slow enough for most limits, long enough to become known
            for turn in range(10 if what == "befriend" else 27):
                one = face if what == "befriend" else turn % 3
                self.request(client, listener, "request", (path, host, one, account, 0))
                self.now_ns += S
            return
        for _ in range(times):
            if what == "connect":
                self.connect(client, listener)
            elif what == "release":
                if self.held:
                    self.done(*self.held.pop(0), nbytes)
            else:
                self.request(client, listener, what, (path, host, face, account, nbytes))

    def connect(self, client: str, listener: int) -> None:
        core = self.core.connection(listener, packed(client), self.now_ns)
        slow = self.slow.connection(self.gateway.listeners[listener], ipaddress.ip_address(client), self.now_ns)
        self.compare(core, slow, ipaddress.ip_address(client))

    def request(self, client: str, listener: int, what: str, how: tuple[Any, ...]) -> None:
        path, host, face, account, nbytes = how
        chain = client == "198.51.100.1" and listener == 0
        more = (("X-A", "1"),) if face == 2 else ()
        more += (("Cookie", f"sid={account}"),) if account else ()
        more += (("X-Forwarded-For", "192.0.2.1"),) if chain else ()
        method = "POST" if path == "/login" else "GET"
        head = head_of(path, method=method, host=host, face=face, more=more)
        core = self.core.request(listener, packed(client), head, self.now_ns, what == "first")
        address = ipaddress.ip_address("192.0.2.1" if chain else client)
        area = "site" if listener == 1 or host == "site.test" else "other"
        request = Request(
            area=area,
            client=address,
            proof="CHAIN" if chain else "SOCKET",
            method=method,
            path=path,
            host=host,
            headers=tuple((name.lower(), value) for name, value in (*FACES[face], *more)),
            fingerprint=core.facts["fingerprint"],
            account=account,
            first=what == "first",
        )
        assert (core.facts["area"], core.facts["proof"]) == (area, request.proof)
        slow = self.slow.request(self.gateway.listeners[listener], request, self.now_ns)
        self.compare(core, slow, address)
        if what == "hold":
            self.held.append((core, slow))
        else:
            self.done(core, slow, nbytes)

    def done(self, core: Any, slow: reference.Judged, nbytes: int) -> None:
        origin_ns = nbytes * 100_000
        self.core.done(core, self.now_ns, nbytes, origin_ns, True)
        self.slow.done(slow, self.now_ns, nbytes, origin_ns, True)

    def compare(self, core: Any, slow: reference.Judged, client: reference.Address) -> None:
        told = core.told
        said = {
            "verdict": reference.VERDICTS[slow.verdict],
            "decided": reference.VERDICTS[slow.decided],
            "known": slow.known,
            "blocked": slow.blocked,
            "shed": slow.shed,
            "crowd": slow.crowd,
        }
        if not slow.blocked:
            said |= {"rule": slow.rule, "rung": slow.rung, "measure": slow.measure, "charges": len(slow.charges)}
            if slow.decided == 1:
                said["retry_ns"] = slow.retry_ns
        assert {name: told[name] for name in said} == said
        if any(client in n for n in self.never):
            assert told["verdict"] == told["decided"] == "PASS"

    def check_blocks(self) -> None:
        """Of what is in the table: nothing is never-block, nothing binds more than its mandate's areas."""
        ids = {"site": 0, "other": 1}
        masks = {tuple(sorted(ids[a] for a in m.head.areas)) for m in self.mandates}
        for block in self.memory.blocks():
            assert tuple(block["areas"]) in masks
            assert block["expires_ns"] - block["since_ns"] <= 20 * S
            if block["kind"] in ("client", "prefix"):
                network = ipaddress.ip_network(block["source"])
                assert not any(n.version == network.version and n.overlaps(network) for n in self.never)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(MANDATES, EVENTS, st.booleans())
def test_the_core_judges_as_the_reference(
    texts: tuple[str, str, str, str], events: list[tuple[Any, ...]], enforce: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        gateway = GATEWAY.format(enforce=str(enforce).lower())
        m, n = mandate("m", texts[0], texts[1]), mandate("n", texts[2], texts[3])
        both = Both(load_all(write(Path(folder), gateway, m=m, n=n), now=NOW))
    for event in events:
        both.event(event)
    both.check_blocks()
    if not enforce:
        assert both.memory.blocks() == []
    for core, slow in both.held:
        both.done(core, slow, 0)
    assert all(count == 0 for count in both.slow.inflight.values())
