"""`scrubber run GATEWAY.toml`: check, prepare, and become the keeper."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from scrubber.cli import output
from scrubber.config.gateway import Gateway
from scrubber.mandate.load import Loaded


@click.command()
@click.argument("gateway", type=click.Path(path_type=Path), metavar="GATEWAY.toml")
@output.json_option("Where it cannot start, say why as JSON.")
def run(gateway: Path, as_json: bool) -> None:
    """Run the gateway of this file until SIGTERM (drains) or a second one (at once). SIGHUP reloads, SIGUSR2 upgrades.

    Says "ready: …" on stdout once it serves.
    """
    from scrubber.mandate.load import load_all  # noqa: PLC0415 - see check
    from scrubber.server import activation, start, users  # noqa: PLC0415 - loads the native core

    inherited = activation.take(os.environ)
    loaded = load_all(gateway)
    whose = users.look_up(loaded.gateway.users, enforcer=start.enforces(loaded.gateway))
    more = [start.files_notice(loaded.gateway), users.unread_notice(loaded.gateway, whose)]
    say_notices(loaded, [f"{users.described(whose)}, {start.enforcer_notice(loaded.gateway)}", *more])
    start.become_keeper(start.prepare(loaded, inherited=inherited, as_json=as_json))


def say_notices(loaded: Loaded, more: Sequence[str | None]) -> None:
    """What the operator should know at every start, on stderr."""
    console = output.stderr()
    for problem in loaded.problems:
        console.print(output.problem_text(problem))
    found = notices(loaded.gateway, [mandate.id for mandate in loaded.mandates])
    for notice in [*found, *filter(None, more)]:
        console.print(f"note: {notice}", markup=False)


def notices(gateway: Gateway, mandate_ids: list[str]) -> list[str]:
    """One line each."""
    found = []
    if mandate_ids:
        word = "mandates" if len(mandate_ids) > 1 else "mandate"
        found.append(f"unsigned {word} accepted, as allow_unsigned = true says: {', '.join(mandate_ids)}")
    if not gateway.enforce:
        found.append("dry run (enforce = false): decides and records, touches nothing")
    return found
