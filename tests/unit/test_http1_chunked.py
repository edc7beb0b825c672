"""Chunked bodies: framing, extensions, trailers; any split is read alike; compared with h11 and httptools."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scrubber import _native
from tests.reference import others, refused
from tests.reference.hostile import CHUNKED_SEEDS, altered, mutated


def read(data: bytes) -> tuple[str, bytes, int]:
    outcome, body, consumed = _native.probe_chunked([data])
    return str(outcome), bytes(body), int(consumed)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\nb\r\n world 1234\r\n000\r\n\r\n", b"hello world 1234"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"00000000000000a1\r\n" + b"x" * 161 + b"\r\n0000000000000000\r\n\r\n", b"x" * 161),
        (b"2;a\r\n\r\n\r\n0;b\r\n\r\n", b"\r\n"),
        (b"1;a=b;c=d\r\nx\r\n0\r\n\r\n", b"x"),
        (b'1;a="b;\\"\\\\ \t\xff";c\r\nx\r\n0\r\n\r\n', b"x"),
        (b'1;a=""\r\nx\r\n0\r\n\r\n', b"x"),
        (b"1\r\nx\r\n0\r\nX-Sum: 1\r\nVary:\r\nA:\t b \xff\r\n\r\n", b"x"),
    ],
)
def test_sound_bodies(data: bytes, body: bytes) -> None:
    assert read(data) == ("end", body, len(data))
    assert read(data + b"GET / HTTP/1.1\r\n") == ("end", body, len(data))


@pytest.mark.parametrize("data", refused.CHUNKS)
def test_bad_chunks(data: bytes) -> None:
    assert read(data)[0] == "bad_chunk"


@pytest.mark.parametrize("trailer", refused.TRAILERS)
def test_bad_trailers(trailer: bytes) -> None:
    assert read(b"1\r\nx\r\n0\r\n" + trailer + b"\r\n")[:2] == ("bad_trailer", b"x")


def test_size_lines_are_bounded() -> None:
    line = b"1;a=" + b"b" * (256 - 4 - 1)
    assert read(line + b"\r\nx\r\n0\r\n\r\n")[0] == "end"
    assert read(line + b"b\r\nx\r\n0\r\n\r\n")[0] == "bad_chunk"
    assert read(b"1;a=" + b"b" * 4000)[0] == "bad_chunk"


def test_trailers_are_bounded() -> None:
    trailer = b"X: " + b"v" * 87 + b"\r\n"
    assert read(b"0\r\n" + trailer * 44 + b"\r\n")[0] == "end"
    assert read(b"0\r\n" + trailer * 45 + b"\r\n")[0] == "bad_trailer"


def test_largest_chunk_is_waited_for() -> None:
    assert read(b"7fffffffffffffff\r\nabc") == ("more", b"abc", 21)


def test_the_answer_stays_after_the_end_and_after_a_refusal() -> None:
    assert _native.probe_chunked([b"0\r\n\r\n", b"5\r\nhello"]) == ("end", b"", 5)
    assert _native.probe_chunked([b"x", b"5\r\nhello"]) == ("bad_chunk", b"", 0)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(c for c in cuts if c <= len(data)), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(at)]


BODIES = st.one_of(st.sampled_from(CHUNKED_SEEDS), mutated(CHUNKED_SEEDS))


@given(BODIES, st.lists(st.integers(0, 80), max_size=20))
@example(b"5\r\nhello\r\n0\r\nHost: a\r\n\r\n", list(range(40)))
def test_any_split_is_read_alike(data: bytes, cuts: list[int]) -> None:
    assert _native.probe_chunked(split(data, cuts)) == _native.probe_chunked([data])
    assert _native.probe_chunked([bytes([b]) for b in data]) == _native.probe_chunked([data])


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(0, 3000), max_size=20))
def test_round_trip(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    assert _native.probe_chunked(split(data, cuts)) == ("end", b"".join(pieces), len(data))


@settings(max_examples=300)
@given(mutated(CHUNKED_SEEDS))
def test_mutations_agree_with_h11_and_httptools(data: bytes) -> None:
    others.chunked_taken(data)


def test_many_seeded_mutations() -> None:
    """Twenty thousand altered bodies, the same ones in each run."""
    ended = sum(others.chunked_taken(data) for data in altered(CHUNKED_SEEDS, 20_000))
    assert ended > 1_500  # else the mutations are too wild to say anything
