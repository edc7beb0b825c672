"""Both ends of FlowSpec: BIRD as the provider's router, and ExaBGP driven by a poll loop as the enforcer has one."""

from __future__ import annotations

import re
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from scrubber.enforce.exabgp import ExaBgp
from scrubber.enforce.exabgp_settings import Neighbour, Settings
from tests.net.space import Space
from tests.wanted import program

KEY = "abc123"  # ExaBGP would take it for base64 if it were not told
NEIGHBOURS = (
    Neighbour(address="10.9.0.2", local_address="10.9.0.1", peer_as=64500, password=KEY),
    Neighbour(address="fd09::2", local_address="fd09::1", peer_as=64500),
)
CONFIGURATION = f"""
router id 10.9.0.2;
protocol device {{}}
flow4 table four;
flow6 table six;
template bgp scrubbed {{
  local as 64500;
  passive;
  flow4 {{ table four; import all; export none; }};
}}
protocol bgp old from scrubbed {{ local 10.9.0.2; neighbor 10.9.0.1 as 64501; password "{KEY}"; }}
protocol bgp new from scrubbed {{
  local fd09::2; neighbor fd09::1 as 64501;
  flow6 {{ table six; import all; export none; }};
}}
"""
RULE = re.compile(r"^(flow[46] \{ .*? \}) .*\[(\w+) |ext_community: (.*)$", re.MULTILINE)


class Router:
    """Keeps rules, and enforces none: BIRD does not."""

    def __init__(self, space: Space, place: Path) -> None:
        self._space, self._control = space, place / "bird.ctl"
        self._file = place / "bird.conf"
        self._file.write_text(CONFIGURATION)
        self.start()

    def start(self) -> None:
        argv = [program("bird"), "-f", "-c", str(self._file), "-s", str(self._control)]
        self._bird = self._space.popen(*argv, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        self._bird.kill()
        self._bird.wait()

    def rules(self, session: str = "old", table: str = "four") -> dict[str, str]:
        """What this session has announced: the rule as BIRD writes it, and its extended communities."""
        argv = [program("birdc"), "-s", str(self._control), "show", "route", "table", table, "protocol", session, "all"]
        said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        found: dict[str, str] = {}
        rule = ""
        for text, _, communities in RULE.findall(said):
            if text:
                found[rule := text] = ""
            else:
                found[rule] = communities
        return found


class Gateway:
    """ExaBGP in a namespace, stepped from here."""

    def __init__(self, space: Space, place: Path, neighbours: tuple[Neighbour, ...] = NEIGHBOURS) -> None:
        self._space = space
        settings = Settings(directory=str(place / "bgp"), local_as=64501, router_id="10.9.0.1", neighbours=neighbours)
        self.exabgp = ExaBgp(settings)

    def until(self, condition: Callable[[], object], timeout_s: float = 20) -> None:
        """Works as the enforcer's loop would, until then."""
        deadline = time.monotonic() + timeout_s
        with self._space.inside():
            while not condition():
                assert time.monotonic() < deadline, f"not in time; ExaBGP: {list(self.exabgp.log)}"
                left_s = (self.exabgp.step(time.monotonic_ns()) - time.monotonic_ns()) / 1e9
                select.select([self.exabgp.fileno()], [], [], max(0.0, min(left_s, 0.05)))

    def up(self) -> bool:
        return len(self.exabgp.sessions) == 2
