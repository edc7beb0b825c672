"""The XDP program beside its slow reference (tests/reference/xdp.py), on frames that chance makes and maims."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber.enforce.backend import Door, Drop
from scrubber.enforce.net import Net, net_of
from scrubber.enforce.xdp import Xdp
from scrubber.enforce.xdp_program import DROP, PASS
from tests.net.frames import (
    C_TAG,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    PORT,
    ROUTING,
    S_TAG,
    UDP,
    extended,
    ipv4,
    ipv6,
    tcp,
)
from tests.net.xdp_stage import (
    GATE4,
    GATE6,
    HOUR_NS,
    OTHER4,
    Opener,
    answer,
    at,
    now,
)
from tests.reference.xdp import dropped_for

# What is drawn from leans towards what is dropped.
ADDRESSES4 = ["198.18.1.1", "198.18.1.2", "198.18.2.1", "203.0.113.1", GATE4]
ADDRESSES6 = ["2001:db8:1:1::7", "2001:db8:1:2::7", "2001:db8:2:1::7", "2001:db9::1", GATE6]
NETS = [
    *("198.18.1.1", "198.18.1.2", "198.18.1.0/30", "198.18.1.0/24", "198.18.0.0/15", "0.0.0.0/0"),
    *("2001:db8:1:1::/64", "2001:db8:1:1::7", "2001:db8:1::/48", "2001:db8::/32", "::/0"),
]
LISTENING = [(GATE4, PORT), (GATE6, PORT), ("4", PORT), ("6", PORT), ("4", 80), ("6", 80), (OTHER4, 80)]

tags = st.sampled_from([b"", C_TAG, S_TAG, S_TAG + C_TAG, S_TAG + C_TAG + C_TAG])
segments = st.builds(tcp, st.sampled_from([PORT, PORT, PORT, 80, 22]), st.binary(max_size=20))
kinds: st.SearchStrategy[list[int]] = st.just([]) | st.lists(
    st.sampled_from([HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION]), max_size=10
)


@st.composite
def made4(draw: st.DrawFn) -> bytes:
    return ipv4(
        draw(st.sampled_from(ADDRESSES4)),
        draw(st.sampled_from([GATE4, GATE4, GATE4, *ADDRESSES4])),
        draw(segments),
        options=draw(st.binary(max_size=40)),
        fragment=draw(st.sampled_from([0, 0, 0, 0x2000, 0x4000, 0x2001, 0x1FFF, 0x8000])),
        protocol=draw(st.sampled_from([6, 6, 6, 6, 6, UDP])),
        tags=draw(tags),
    )


@st.composite
def made6(draw: st.DrawFn) -> bytes:
    before = draw(kinds)
    last = draw(st.sampled_from([6, 6, 6, 6, UDP, 51]))
    eights, offset = draw(st.integers(0, 3)), draw(st.sampled_from([0, 0, 0, 1, 0x1FFF]))
    rest = extended(before, draw(segments), last=last, eights=eights, offset=offset)
    ends = draw(st.sampled_from(ADDRESSES6)), draw(st.sampled_from([GATE6, GATE6, GATE6, *ADDRESSES6]))
    return ipv6(*ends, rest, first=(before or [last])[0], tags=draw(tags))


@st.composite
def maimed(draw: st.DrawFn) -> bytes:
    """Whole, cut, or with bytes of its heads changed."""
    frame = bytearray(draw(made4() | made6()))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2, 5]))):
        frame[draw(st.integers(12, min(len(frame), 90) - 1))] = draw(st.sampled_from([*range(70), 0x81, 0x88, 255]))
    if draw(st.integers(0, 3)) == 0:
        del frame[draw(st.integers(14, len(frame))) :]
    return bytes(frame)


blocked = st.dictionaries(
    st.sampled_from([net_of(text) for text in NETS]),
    st.tuples(st.sampled_from([False, True, True, True]), st.sampled_from([0, 1, 2, 4, 5, 7, 7, 7])),
    min_size=3,
)
listening = st.lists(st.lists(st.sampled_from(LISTENING), min_size=1, max_size=4, unique=True), min_size=1, max_size=3)


def test_the_program_says_what_its_reference_says(opened: Opener) -> None:
    backend = opened()

    @settings(max_examples=80)
    @given(st.lists(maimed(), min_size=6, max_size=16), blocked, listening)
    def check(made: list[bytes], times: dict[Net, tuple[bool, int]], places: list[list[tuple[str, int]]]) -> None:
        drops = {net: Drop(now() + HOUR_NS if lasting else 1000, bits) for net, (lasting, bits) in times.items()}
        compare(backend, made, drops, [at(*each) for each in places])

    check()


def compare(backend: Xdp, made: list[bytes], drops: dict[Net, Drop], doors: list[Door]) -> list[bool]:
    """Verdicts and counts, both. Returns which were dropped."""
    backend.use_doors(doors)  # most of the time: the kernel waits until nobody reads the old ones
    backend.apply({}, [net_of(text) for text in NETS], 0)
    assert backend.apply(drops, (), 0) == {}, "with those that are over"
    counts: dict[Net, tuple[int, int]] = {}
    dropped = []
    for frame in made:
        expected = dropped_for(frame, doors, drops, now())
        assert answer(backend, frame) == (DROP if expected else PASS), (frame.hex(), drops, doors)
        if expected:
            net, size = expected
            packets, total = counts.get(net, (0, 0))
            counts[net] = (packets + 1, total + size)
        dropped.append(expected is not None)
    assert backend.counted() == counts
    return dropped


def test_the_same_of_ten_thousand_frames_that_are_mostly_well_made(opened: Opener) -> None:
    backend = opened()
    chance = random.Random(7)
    dropped: list[bool] = []
    for _ in range(50):
        drops = {
            net_of(text): Drop(now() + HOUR_NS if chance.random() < 0.8 else 1000, chance.randrange(8))
            for text in chance.sample(NETS, 7)
        }
        doors = [at(*chance.sample(LISTENING, 4)) for _ in range(3)]
        dropped += compare(backend, [random_frame(chance) for _ in range(200)], drops, doors)
    assert 2000 < sum(dropped) < 8000, "both are met often"


def random_frame(chance: random.Random) -> bytes:
    tagging = chance.choice([b"", b"", C_TAG, S_TAG + C_TAG])
    segment = tcp(chance.choice([PORT, PORT, 80]), bytes(chance.randrange(9)))
    if chance.random() < 0.5:
        source, to = chance.choice(ADDRESSES4), chance.choice([GATE4, OTHER4])
        options = chance.randbytes(chance.randrange(41))
        frame = ipv4(source, to, segment, options=options, fragment=chance.choice([0, 0, 0, 0x2000, 7]), tags=tagging)
    else:
        before = chance.choices([HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION], k=chance.choice([0, 0, 1, 3, 8, 9]))
        rest = extended(before, segment, eights=chance.randrange(3), offset=chance.choice([0, 0, 0, 5]))
        frame = ipv6(chance.choice(ADDRESSES6), GATE6, rest, first=(before or [6])[0], tags=tagging)
    if chance.random() < 0.1:
        place = chance.randrange(12, len(frame))
        frame = frame[:place] + chance.randbytes(1) + frame[place + 1 :]
    return frame
