"""How a supervisor ends where it cannot go on: with a word, and with what says that it failed."""

from __future__ import annotations

import logging

import pytest

from scrubber.errors import OperatorError
from scrubber.server import supervisor


def ended_by(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    async def serve(*_: object) -> None:
        raise error

    monkeypatch.setattr(supervisor.child, "begin", lambda *_: (None, None))
    monkeypatch.setattr(supervisor.log, "setup", logging.getLogger)
    monkeypatch.setattr(supervisor, "serve", serve)
    return supervisor.main(["supervisor", "3"])


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (OperatorError("no such file", hint="make it"), "make it"),
        (OSError(28, "No space left on device"), "No space left"),
        (MemoryError(), "raise the limit on memory"),
        (RuntimeError("can't start new thread"), "raise the limit on memory"),
    ],
)
def test_what_is_not_its_fault_is_said_in_a_line(
    error: Exception, word: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert ended_by(error, monkeypatch) == 1
    assert word in caplog.text


def test_a_bug_is_shown_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="dictionary changed"):
        ended_by(RuntimeError("dictionary changed size during iteration"), monkeypatch)
