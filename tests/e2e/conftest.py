"""Shared fixtures: real origins, and gateways that must end cleanly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.named_origins import Named
from tests.e2e.proxy import proxy, site  # noqa: F401 - fixtures
from tests.e2e.support import Gateway, Origin, gateway_text, mandate_text, trouble

GatewayFactory = Callable[..., Gateway]
RUN = (sys.executable, "-m", "scrubber", "run")


@pytest.fixture(scope="session")
def origin() -> Iterator[Origin]:
    """An origin that lives as long as the session."""
    running = Origin()
    yield running
    running.stop()


@pytest.fixture
def origins() -> Iterator[Callable[..., Origin]]:
    """Makes further origins (name, port), for tests that end or distinguish them."""
    running: list[Origin] = []

    def start(name: str = "origin", port: int = 0) -> Origin:
        running.append(Origin(name, port))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def named() -> Iterator[Callable[..., Named]]:
    """Makes origins that say their name (name, …: see Named)."""
    running: list[Named] = []

    def start(name: str, **how: Any) -> Named:
        running.append(Named(name, **how))
        return running[-1]

    yield start
    for each in running:
        each.gate.set()
        each.stop()


@pytest.fixture
def gateway(tmp_path: Path, origin: Origin, request: pytest.FixtureRequest) -> Iterator[GatewayFactory]:
    """Starts gateways: `gateway(rules=…, workers=…, top=…, area=…)`, or with whole texts (`text=`, `mandate=`).

    `wait=False`: do not wait for the ready line. `command`: words before the program (setpriv …). When the test ends,
    each gateway that still runs gets SIGTERM and must end with 0; no process may have raised an exception.
    """
    running: list[Gateway] = []

    def start(
        *,
        text: str | None = None,
        mandate: str | None = None,
        rules: str | None = None,
        proportion: str = "",
        wait: bool = True,
        command: Sequence[str] = (),
        program: Sequence[str] = RUN,
        env: dict[str, str] | None = None,
        directory: Path | None = None,
        **how: object,
    ) -> Gateway:
        where = directory or tmp_path / f"g{len(running)}"
        where.mkdir(exist_ok=True)
        if text is None:
            text = gateway_text(how.pop("origin", origin.port), **how)  # type: ignore[arg-type]
        if mandate is None:
            mandate = mandate_text(**({"rules": rules} if rules is not None else {}), proportion=proportion)
        made = Gateway(where, text, mandate, [*command, *program], env or {})
        running.append(made)
        if wait:
            made.wait_ready()
        return made

    yield start
    problems: list[str] = []
    for each in running:
        was_running = each.process.poll() is None
        try:
            code = each.stop()
            if was_running and code != 0:
                problems.append(f"ended with {code}")
        except Exception as error:  # a gateway that does not end must not keep the others from being ended
            problems.append(f"did not end: {error}")
        finally:
            each.kill()
        problems += trouble(each.stderr)
        print(f"── {each.directory}: stdout\n{each.stdout}\n── stderr\n{each.stderr}")
    assert not problems, problems
