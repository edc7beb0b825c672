"""Acts: how a worker's record becomes one for people, and how they are numbered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scrubber.control.acts import Acts, from_record, made

NS = 1_700_000_000_000_000_000
NAMES = {0: "portal", 3: "tax"}


def record(**changes: Any) -> bytes:
    act: dict[str, Any] = {
        "ns": 5_250_000_000,
        "event.kind": "act",
        "event.action": "rung",
        "rule.name": "m/flood",
        "scrubber.rung": 1,
        "scrubber.measure": "throttle",
        "scrubber.source_kind": "client",
        "scrubber.source": "198.51.100.7",
        "client.ip": "198.51.100.7",
        "scrubber.areas": [0],
        "scrubber.enforced": True,
    }
    return json.dumps(act | {key.replace("__", "."): value for key, value in changes.items()}).encode()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "throttle 198.51.100.7, by m/flood in portal"),
        (
            {"event__action": "block", "scrubber__ttl_s": 300, "scrubber__areas": [0, 3]},
            "block 198.51.100.7 for 300 s, by m/flood in portal, tax",
        ),
        (
            {"event__action": "refuse", "scrubber__reason": "never_block"},
            "block of 198.51.100.7 refused: never_block, by m/flood in portal",
        ),
        (
            {"event__action": "skip", "scrubber__measure": "challenge", "scrubber__reason": "unavailable"},
            "challenge of 198.51.100.7 passed over: unavailable, by m/flood in portal",
        ),
        ({"scrubber__enforced": False}, "throttle 198.51.100.7, by m/flood in portal (dry run)"),
        ({"scrubber__areas": [9]}, "throttle 198.51.100.7, by m/flood in area 9"),
    ],
)
def test_a_record_becomes_a_sentence(changes: dict[str, Any], message: str) -> None:
    act = from_record(record(**changes), NS, NAMES)
    assert act["message"] == message
    assert act["@timestamp"] == "2023-11-14T22:13:25.250Z"
    assert "ns" not in act
    assert act["client.ip"] == "198.51.100.7"


@pytest.mark.parametrize(
    ("action", "enforced", "outcome"),
    [
        ("rung", True, "success"),
        ("block", False, "unknown"),
        ("refuse", True, "failure"),
        ("reload_refused", True, "failure"),
        ("skip", True, None),
        ("origin_down", True, None),
    ],
)
def test_acts_speak_ecs(action: str, enforced: bool, outcome: str | None) -> None:
    by_worker = from_record(record(event__action=action, scrubber__enforced=enforced), NS, NAMES)
    by_supervisor = made(action, "said", **{"scrubber.enforced": enforced})
    for act in (by_worker, by_supervisor):
        assert (act["event.kind"], act["scrubber.kind"], act["event.action"]) == ("event", "act", action)
        assert act["ecs.version"].startswith("8.")
        assert act.get("event.outcome") == outcome
        assert next(iter(act)) == "@timestamp", "as syslog wants it"


@pytest.mark.parametrize(
    "bad",
    [b"", b"\xff\xfe", b"[]", b"{}", b'{"ns": "x"}', record(ns=10**30), record(scrubber__areas=[[]]), record()[:-5]],
)
def test_what_is_no_record_is_kept_as_text(bad: bytes) -> None:
    act = from_record(bad, NS, NAMES)
    assert act["event.action"] == "unreadable"
    json.dumps(act)


def test_numbers_only_grow_and_the_oldest_go() -> None:
    acts = Acts(kept=3)
    acts.add([made("reload", f"act {index}") for index in range(5)])
    assert [act["number"] for act in acts.since(0)] == [3, 4, 5]
    assert [act["message"] for act in acts.since(4)] == ["act 4"]
    assert acts.since(5) == []
    assert [act["number"] for act in acts.last(2)] == [4, 5]
    acts.add([made("reload", "later")])
    assert acts.last(1)[0]["number"] == 6
