"""What fuzzing found, and the inputs that cover most, through every target once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrubber import _native
from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_kept_holds(target: str) -> None:
    kept = corpus.load(target)
    assert len(kept) >= 10
    for data in kept:
        TARGETS[target].run(data)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_are_within_what_is_mutated(target: str) -> None:
    seeds = list(TARGETS[target].seeds())
    assert seeds
    assert max(map(len, seeds)) <= TARGETS[target].bytes_max


def test_a_corpus_comes_back_and_its_shortest_inputs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "KEPT_BYTES_MAX", 10)
    (tmp_path / "forwarded.found.txt").write_text("# why\nb'\\x00,'\n")
    assert corpus.save("forwarded", [b"\xff" * 8, b"\r\n\\'", b"ab"], tmp_path) == 2
    assert corpus.load("forwarded", tmp_path) == [b"ab", b"\r\n\\'", b"\x00,"]


def test_a_target_tells_what_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each compares with something: a parser that took everything would be found out."""
    monkeypatch.setattr(_native, "probe_proxy_header", lambda data: {"version": 1, "length": 1})
    with pytest.raises(AssertionError):
        TARGETS["proxy_protocol"].run(b"PROXY TCP4")
    monkeypatch.setattr(_native, "probe_chunked", lambda pieces: ("end", b"x", 1))
    with pytest.raises(AssertionError):
        TARGETS["chunked_body"].run(b"0\r\n\r\n")
