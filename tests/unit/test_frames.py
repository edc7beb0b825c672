"""How a tunnel tells a WebSocket's messages from its pings, pongs and closes; `websockets` writes the frames."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from scrubber import _native

MESSAGES = (Opcode.CONT, Opcode.TEXT, Opcode.BINARY)
CONTROLS = (Opcode.CLOSE, Opcode.PING, Opcode.PONG)
SIZES = (0, 1, 125, 126, 127, 65535, 65536, 70000)


def written(opcode: Opcode, size: int, mask: bool) -> bytes:
    return Frame(opcode, b"\x7f" * size).serialize(mask=mask)


def test_each_kind_of_frame() -> None:
    for mask in (False, True):
        for opcode in (*MESSAGES, *CONTROLS):
            for size in SIZES if opcode in MESSAGES else (0, 1, 125):
                data = written(opcode, size, mask)
                assert _native.probe_frames([data]) == [opcode in MESSAGES], (opcode, size)


@given(
    st.lists(st.tuples(st.sampled_from((*MESSAGES, *CONTROLS)), st.sampled_from((0, 1, 2, 125)), st.booleans())),
    st.data(),
)
def test_wherever_they_are_cut(frames: list[tuple[Opcode, int, bool]], data: st.DataObject) -> None:
    """A byte belongs to a message from the last byte of its frame's head on; cuts change nothing."""
    stream, marks = b"", []
    for opcode, size, mask in frames:
        one = written(opcode, size, mask)
        # Until its head is whole nobody knows what a frame is; the head of an empty message counts as well.
        head = len(one) - size
        stream += one
        marks += [False] * (head - 1) + [opcode in MESSAGES] * (size + 1)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)))))
    bounds = [0, *cuts, len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(bounds)]
    expected = [any(marks[a:b]) for a, b in itertools.pairwise(bounds)]
    assert _native.probe_frames(pieces) == expected


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(noise: bytes) -> None:
    whole = _native.probe_frames([noise])
    assert any(_native.probe_frames([noise[i : i + 1] for i in range(len(noise))])) == any(whole)
