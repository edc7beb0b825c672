"""What an HTTP/2 client may cost: the look at its frames however they are cut, allowances by a clock of the test's,
and the fingerprint against its slow reference."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrubber import _native
from tests.conformance.http2_peer import (
    CONTINUATION,
    DATA,
    HEADERS,
    PREFACE,
    PRIORITY,
    SETTINGS,
    WINDOW_UPDATE,
    data,
    frame,
    headers,
    priority,
    window_update,
)
from tests.conformance.http2_peer import settings as settings_frame
from tests.fuzz import http2
from tests.reference.http2_fingerprint import fingerprint, lines
from tests.unit.http2_stage import Peer, Stage

Verdict = tuple[str, list[int], object]
SECOND = 1_000_000_000
# More in a second, and at once: as ext/http2_calm.pyx has them.
ALLOWANCES = {
    "resets": (50, 200, "http2_resets"),
    "pings": (10, 50, "http2_pings"),
    "settings": (1, 10, "http2_settings"),
    "priorities": (200, 400, "http2_priorities"),
    "empty": (20, 50, "http2_empty_data"),
    "windows": (200, 1000, "http2_window_updates"),
    "unknown": (20, 50, "http2_unknown_frames"),
    "bombs": (1, 5, "http2_header_bomb"),
}


def looked(pieces: list[bytes]) -> Verdict:
    """The reason, the places behind which is asked, and what is known then."""
    probe = _native.ProbeHttp2()
    places, before = [], 0
    reason = ""
    for piece in pieces:
        reason, asked = probe.look(piece)
        places += [before + at for at in asked]
        before += len(piece)
        if reason:
            break
    return reason, places, probe.looked()


def cut(whole: bytes, *at: int) -> list[bytes]:
    places = sorted({0, *(min(place, len(whole)) for place in at), len(whole)})
    return [whole[one:other] for one, other in itertools.pairwise(places)]


@pytest.mark.parametrize("number", range(len(list(http2.sequences()))))
def test_cut_anywhere_it_is_seen_alike(number: int) -> None:
    whole = PREFACE + list(http2.sequences())[number][:1500]
    expected = looked([whole])
    for at in range(len(whole)):
        assert looked(cut(whole, at)) == expected, at
    assert looked([whole[at : at + 1] for at in range(len(whole))]) == expected


FRAMES = st.lists(
    st.builds(
        frame,
        st.integers(0, 17) | st.sampled_from([DATA, HEADERS, PRIORITY, CONTINUATION]),
        st.integers(0, 9),
        st.binary(max_size=20) | st.just(bytes(5)),
        st.integers(0, 255),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(FRAMES, st.lists(st.integers(0, 700), max_size=6))
def test_any_frames_cut_anywhere(frames: list[bytes], places: list[int]) -> None:
    whole = PREFACE + b"".join(frames)
    assert looked(cut(whole, *places)) == looked([whole])


def expected_of(frames: list[tuple[int, int, int, int]]) -> tuple[list[int], int, bool]:
    """Slow and plain: behind which heads is asked, the last request's number, whether one was passed over."""
    asked, last, skipped, at = [], 0, False, len(PREFACE)
    for kind, _, stream, length in frames:
        at += 9
        if kind in (DATA, HEADERS):
            if kind == HEADERS and stream > last:
                skipped = skipped or stream != (last + 2 if last else 1)
                last = stream
            elif 0 < stream <= last:
                asked.append(at)
        at += length
    return asked, last, skipped


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([DATA, HEADERS, WINDOW_UPDATE]), st.integers(0, 255), st.integers(0, 12), st.integers(2, 40)
        ),
        max_size=12,
    )
)
def test_streams_that_were_begun_before_are_asked_for(frames: list[tuple[int, int, int, int]]) -> None:
    whole = PREFACE + b"".join(frame(kind, stream, bytes(length), flags) for kind, flags, stream, length in frames)
    reason, asked, known = looked([whole])
    assert reason == ""
    expected, last, skipped = expected_of(frames)
    assert (asked, known[:2]) == (expected, (last, skipped))  # type: ignore[index]


def test_a_field_section_is_coming_in_until_its_last_frame_has_ended() -> None:
    pieces = [
        (PREFACE, False),
        (frame(HEADERS, 1, b"abc")[:9], True),
        (b"abc", True),
        (frame(CONTINUATION, 1, b""), True),
        (frame(CONTINUATION, 1, b"xy", 4)[:10], True),
        (b"y", False),
        (frame(HEADERS, 3, b"", 4), False),
        (frame(HEADERS, 5, b"a", 5)[:9], True),
        (b"a", False),
    ]
    probe = _native.ProbeHttp2()
    for piece, expected in pieces:
        assert probe.look(piece)[0] == ""
        assert probe.looked()[2] == expected, piece


def test_nine_continuations_are_one_too_many() -> None:
    begun = PREFACE + headers(1, b"", end_headers=False)
    assert looked([begun + frame(CONTINUATION, 1) * 8])[0] == ""
    assert looked([begun + frame(CONTINUATION, 1) * 9])[0] == "http2_continuations"
    assert looked([begun + frame(CONTINUATION, 1) * 8 + headers(3, b"") + frame(CONTINUATION, 1) * 8])[0] == ""


@pytest.mark.parametrize(
    ("kind", "one"),
    [
        ("pings", frame(6, 0, bytes(8))),
        ("settings", settings_frame()),
        ("priorities", priority(3)),
        ("priorities", frame(16, 0, bytes(4))),
        ("empty", data(1, b"", end_stream=False)),
        ("empty", frame(DATA, 1, b"\0", 8)),
        ("windows", window_update(0, 1)),
        ("unknown", frame(0x16, 0, b"x")),
    ],
)
def test_each_kind_has_its_allowance(kind: str, one: bytes) -> None:
    _, burst, reason = ALLOWANCES[kind]
    assert looked([PREFACE + one * burst])[0] == ""
    assert looked([PREFACE + one * (burst + 1)])[0] == reason


@pytest.mark.parametrize(
    "one", [data(1, b""), frame(SETTINGS, 0, flags=1), data(1, b"x", end_stream=False), frame(DATA, 1, b"\1xy", 8)]
)
def test_what_costs_nothing_has_none(one: bytes) -> None:
    assert looked([PREFACE + one * 2000])[0] == ""


@pytest.mark.parametrize("kind", ALLOWANCES)
def test_a_burst_and_then_a_rate(kind: str) -> None:
    rate, burst, reason = ALLOWANCES[kind]
    probe = _native.ProbeHttp2()
    now = 10**12
    assert [probe.take(kind, now) for _ in range(burst)] == [""] * burst
    assert probe.take(kind, now) == reason
    probe = _native.ProbeHttp2()
    # As many as the rate has, for long: never one too many. A little faster: once.
    assert not any(probe.take(kind, now + n * SECOND // rate) for n in range(3 * burst))
    faster = [probe.take(kind, now + 10**12 + n * SECOND // (2 * rate)) for n in range(4 * burst)]
    assert reason in faster
    assert faster.index(reason) >= 2 * burst - 2


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(ALLOWANCES)), st.lists(st.integers(0, 3 * SECOND), max_size=60))
def test_as_a_slow_bucket(kind: str, steps: list[int]) -> None:
    """Tokens, in parts of a second: one flows in each interval, as many as a burst are there at first."""
    rate, burst, reason = ALLOWANCES[kind]
    interval = SECOND // rate
    probe, now, level = _native.ProbeHttp2(), 10**12, burst * interval
    for step in steps:
        now += step // 50
        level = min(burst * interval, level + step // 50)
        for _ in range(burst // 7 + 1):
            level -= interval
            assert probe.take(kind, now) == (reason if level < 0 else "")
            if level < 0:
                return


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 60).map(lambda n: 2 * n - 1), unique=True, max_size=40).map(sorted))
def test_what_we_reset_is_known_and_what_we_may_have_forgotten_is_overlooked(numbers: list[int]) -> None:
    probe = _native.ProbeHttp2()
    probe.sent(numbers)
    kept = numbers[-16:]
    for number in range(1, 130):
        forgotten = len(numbers) > 16 and number < kept[0]
        assert probe.reset_by_us(number) == (number in kept or forgotten), number


# The fingerprint, through an engine


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


def told(stage: Stage, pieces: list[bytes]) -> str:
    """As the access log has it."""
    peer = Peer(stage)
    for piece in pieces:
        peer.send(piece)
        stage.passes(1)
    peer.settle()
    peer.close()
    stage.whole()
    return str(json.loads(stage.lines()[-1]).get("scrubber.http2"))


def order(text: str) -> bytes:
    """A first request whose pseudo-headers stand in this order."""
    fields = {"m": b"\x82", "s": b"\x86", "p": b"\x84", "a": b"\x41\x01a"}
    return headers(1, b"".join(fields[letter] for letter in text))


PARAMETERS = st.tuples(st.sampled_from([1, 2, 3, 6, 0x1A2A, 0xFFFF]), st.integers(0, 1)) | st.tuples(
    st.sampled_from([1, 3, 4, 6, 0x1A2A]), st.integers(0, 2**31 - 1)
)
BEGINNINGS = st.lists(
    st.builds(lambda pairs: settings_frame(*pairs), st.lists(PARAMETERS, max_size=7))
    | st.builds(window_update, st.just(0), st.integers(1, 1000))
    | st.builds(
        lambda n, parent, weight, alone: priority(2 * n + 1, 2 * parent, weight, exclusive=alone),
        st.integers(1, 9), st.integers(0, 9), st.integers(1, 256), st.booleans(),
    )
    | st.just(frame(6, 0, bytes(8))),
    max_size=8,
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(BEGINNINGS, st.permutations("masp"), st.lists(st.integers(14, 400), max_size=3))
def test_a_fingerprint_is_the_references(
    stage: Stage, frames: list[bytes], letters: list[str], places: list[int]
) -> None:
    whole = PREFACE + settings_frame((1, 65536)) + b"".join(frames) + order("".join(letters))
    assert told(stage, cut(whole, *places)) == f"{fingerprint(whole):016x}"


def test_the_documents_example() -> None:
    chromium = (
        PREFACE
        + settings_frame((1, 65536), (2, 0), (4, 6291456), (6, 262144))
        + window_update(0, 15663105)
        + order("masp")
    )
    assert "".join(lines(chromium)).replace("\n", " ") == "s1:65536 s2:0 s4:6291456 s6:262144 w15663105:0 masp"
    assert struct.pack(">HI", 1, 65536) in chromium
