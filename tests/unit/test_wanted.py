"""What tests need of other people: skipped where it is missing, a failure in continuous integration."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import wanted


@pytest.mark.parametrize(
    "ask", [lambda: wanted.program("no-such-program"), lambda: wanted.package("no_such_package")]
)
def test_what_is_missing(monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object]) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="skips nothing"):
        ask()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="not installed"):
        ask()


def test_what_is_there() -> None:
    assert wanted.program("no-such-program", "sh").endswith("/sh")
    assert wanted.package("json").loads("1") == 1
