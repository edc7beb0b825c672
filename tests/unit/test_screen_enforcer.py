"""What `scrubber status` says of the enforcer: what drops, and what is amiss."""

from __future__ import annotations

from typing import Any

import pytest

from scrubber.cli.screen import _enforcer

WELL: dict[str, Any] = {
    "here": True,
    "backends": [{"name": "xdp", "reason": ""}, {"name": "nft", "reason": ""}],
    "in_force": {"xdp": 1200, "nft": 3},
    "waiting": 0,
    "refused": 0,
    "dropped_packets": 1_234_567,
}


@pytest.mark.parametrize(
    ("change", "said", "red"),
    [
        ({}, "kernel: sources dropped: 1,200 by xdp, 3 by nft; 1,234,567 packets so far", False),
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
