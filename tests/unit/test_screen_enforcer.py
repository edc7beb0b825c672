"""What `scrubber status` says of the enforcer: what drops, and what is amiss."""

from __future__ import annotations

from typing import Any

import pytest

from scrubber.cli.screen import _enforcer

WELL: dict[str, Any] = {
    "here": True,
    "backends": [{"name": "xdp", "reason": ""}, {"name": "nft", "reason": ""}],
    "in_force": {"xdp": 1200, "nft": 3},
    "covered": 0,
    "waiting": 0,
    "refused": 0,
    "dropped_packets": 1_234_567,
    "upstream": None,
}
UPSTREAM: dict[str, Any] = {
    "reason": "",
    "announced": {"victim": 1, "source": 3, "flow": 0},
    "wanted": 4,
    "refused": 0,
    "link_load": 0.873,
    "flowspec": None,
}
RULED = {"announced": {"victim": 0, "source": 0, "flow": 1}, "wanted": 1}
FLOWSPEC = {"reason": "", "pid": 7, "starts": 1, "sessions": ["192.0.2.3"], "log": []}


@pytest.mark.parametrize(
    ("change", "said", "red"),
    [
        ({}, "kernel: sources dropped: 1,200 by xdp, 3 by nft; 1,234,567 packets so far", False),
        ({"covered": 1990}, "packets so far, 1,990 clients covered by prefixes", False),
        ({"waiting": 7}, "packets so far, 7 wait", False),
        ({"refused": 2}, ", 2 refused", True),
        ({"backends": [{"name": "nft", "reason": "no nf_tables"}]}, "blocks stay inside the gateway", True),
        ({"backends": [{"name": "nft", "reason": "no nf_tables"}]}, "nft is not available: no nf_tables", True),
        ({"here": False}, "the enforcer is not there", True),
    ],
)
def test_the_line(change: dict[str, Any], said: str, red: bool) -> None:
    text = _enforcer({**WELL, **change})
    assert said in text.plain
    styles = [str(text.style), *(str(span.style) for span in text.spans)]
    assert any("red" in style for style in styles) is red


@pytest.mark.parametrize(
    ("change", "said", "red"),
    [
        ({}, "upstream: 1 victim, 3 sources announced; the line carries 87% of what it can", False),
        ({"announced": dict.fromkeys(UPSTREAM["announced"], 0), "wanted": 0}, "upstream: nothing announced", False),
        ({"wanted": 6}, "announced, 2 wait", False),
        ({"refused": 2}, ", 2 refused", True),
        ({"reason": "no /dev/net/tun"}, "nothing can be announced: no /dev/net/tun", True),
        ({**RULED, "flowspec": FLOWSPEC}, "upstream: 1 rule announced", False),
        ({**RULED, "flowspec": {**FLOWSPEC, "sessions": []}}, "no session with a router is up", True),
        ({"flowspec": {**FLOWSPEC, "reason": "ExaBGP is not installed"}}, "no FlowSpec rules: ExaBGP is not", False),
    ],
)
def test_the_line_of_the_upstream(change: dict[str, Any], said: str, red: bool) -> None:
    text = _enforcer({**WELL, "upstream": {**UPSTREAM, **change}})
    assert said in text.plain
    assert any("red" in str(span.style) for span in text.spans) is red
