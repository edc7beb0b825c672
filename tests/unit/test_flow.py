"""FlowSpec rules: bounds, and text that is one line of known signs, whatever the fields were made from."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber.enforce.flow import RANGES_MAX, RATE_BYTES_PER_S_MAX, Flow, announcement, withdrawal
from scrubber.enforce.net import net_of
from scrubber.errors import ValueRefused

HOST, HOST6 = net_of("192.0.2.7"), net_of("2001:db8::7")
LINE = re.compile(r"announce flow route destination [0-9a-f.:]+/\d+[a-z0-9.:/ \[\]=<>&-]* rate-limit \d+")


def test_a_rule_and_its_text() -> None:
    flow = Flow(
        destination=HOST,
        until_ns=1,
        action=125_000,
        source=net_of("198.18.0.0/15"),
        protocols=(6, 17),
        source_ports=((123, 123),),
        destination_ports=((0, 79), (443, 444)),
        packet_lengths=((468, 65535),),
    )
    match = (
        "destination 192.0.2.7/32 source 198.18.0.0/15 protocol [ =6 =17 ] source-port [ =123 ] "
        "destination-port [ >=0&<=79 >=443&<=444 ] packet-length [ >=468&<=65535 ]"
    )
    assert announcement(flow) == f"announce flow route {match} rate-limit 125000"
    assert withdrawal(flow.match) == f"withdraw flow route {match}"
    assert announcement(Flow(destination=HOST6, until_ns=1, protocols=(17,))) == (
        "announce flow route destination 2001:db8::7/128 next-header [ =17 ] rate-limit 0"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"destination": HOST[:-1]},
        {"destination": net_of("192.0.2.0/24")[:-1] + b"\x17" + b"\0"},
        {"destination": HOST[:-1] + b"\x18"},
        {"source": b""},
        {"source": HOST6},
        {"action": 0},
        {"action": -1},
        {"action": True},
        {"action": 1.5},
        {"action": RATE_BYTES_PER_S_MAX + 1},
        {"action": "accept"},
        {"action": "discard;"},
        {"protocols": (256,)},
        {"protocols": (-1,)},
        {"protocols": (17, 6)},
        {"protocols": (6, 6)},
        {"protocols": ("6",)},
        {"protocols": tuple(range(RANGES_MAX + 1))},
        {"source_ports": ((80, 79),)},
        {"source_ports": ((80, 90), (90, 95))},
        {"destination_ports": ((0, 65536),)},
        {"destination_ports": ((0, "1\nwithdraw"),)},
        {"packet_lengths": ((True, True),)},
    ],
)
def test_what_is_no_rule_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueRefused, match="not a FlowSpec rule"):
        Flow(**{"destination": HOST, "until_ns": 1, **wrong})


ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-2, 2**33), st.floats(), st.text(max_size=20), st.binary(max_size=17)
    )
    | st.sampled_from([HOST, HOST6, "discard", "discard\nannounce route 0.0.0.0/0 next-hop self", [[1, 80]]]),
    lambda inner: st.lists(inner, max_size=9),
    max_leaves=12,
)
NEARLY = st.tuples(
    st.sampled_from([HOST, HOST6]),
    st.integers(0, 2**62),
    st.one_of(st.just("discard"), st.integers(1, RATE_BYTES_PER_S_MAX), ANYTHING),
    st.one_of(st.none(), st.sampled_from([HOST, HOST6]), ANYTHING),
    st.one_of(st.sets(st.integers(0, 255), max_size=8).map(sorted), ANYTHING),
    st.one_of(st.just([[53, 53]]), ANYTHING),
)


@settings(max_examples=60)
@given(st.one_of(ANYTHING, NEARLY))
def test_nothing_that_can_be_sent_becomes_another_line(sent: Any) -> None:
    try:
        flow = msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=Flow)
    except msgspec.ValidationError:
        return
    assert LINE.fullmatch(announcement(flow)), announcement(flow)


def test_what_decodes_is_checked_as_what_is_made() -> None:
    good = msgspec.msgpack.encode(Flow(destination=HOST, until_ns=1, protocols=(6,)))
    assert msgspec.msgpack.decode(good, type=Flow).protocols == (6,)
    for wrong in ([HOST[:-1], 1], [HOST, 1, "accept"], [HOST, 1, "discard", None, [6, 6]], [HOST, 1, 5, HOST6], [HOST]):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(wrong), type=Flow)
