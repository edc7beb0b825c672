"""`scrubber check FILE…`: all that is wrong with gateway and mandate files, and what would hurt on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from scrubber.cli import output
from scrubber.config.gateway import Gateway
from scrubber.errors import FilesRefused, Problem, ScrubberError, errors_of


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--probe", is_flag=True, help="Also connect to every origin, and to syslog receivers by TCP.")
@click.option("--strict", is_flag=True, help="Exit code 1 where there are warnings, too.")
@output.json_option("Problems as JSON.")
def check(files: tuple[Path, ...], probe: bool, strict: bool, as_json: bool) -> None:
    """Check gateway and mandate files: every error, with its place and a hint.

    A gateway file is checked together with the mandates it names; where it is sound, this machine is looked at as well:
    open files, addresses to listen on, permissions. Exit code 1 where there is an error.
    """
    from scrubber.mandate.load import check_files  # noqa: PLC0415 - msgspec structs take a moment to build

    problems = check_files(files)
    more, notes = here(files, probe=probe) if not errors_of(problems) else ([], [])
    problems = [*problems, *more]
    ok = not errors_of(problems) and not (strict and problems)
    if as_json:
        shown = [msgspec.to_builtins(problem) for problem in problems]
        output.say_json({"ok": ok, "problems": shown, "notes": notes})
    else:
        console = output.stdout()
        for problem in problems:
            console.print(output.problem_text(problem))
        for note in notes:
            console.print(f"note: {note}", markup=False)
        names = ", ".join(str(file) for file in files)
        console.print(f"{names}: {output.count_text(problems)}", style="bold green" if ok else "bold red", markup=False)
    sys.exit(0 if ok else 1)


def here(files: Sequence[Path], *, probe: bool) -> tuple[list[Problem], list[str]]:
    """What this machine has to say to the gateway files among these: warnings and notes."""
    from scrubber.mandate.load import load_all  # noqa: PLC0415
    from scrubber.server.precheck import precheck  # noqa: PLC0415

    problems: list[Problem] = []
    notes: list[str] = []
    for file in files:
        try:
            gateway = load_all(file).gateway
        except FilesRefused:  # a mandate: it has no machine
            continue
        found = precheck(gateway, probe=probe, listening=lambda gateway=gateway: listening(gateway))  # type: ignore[misc]
        problems += found.problems
        notes += found.notes
    return problems, notes


def listening(gateway: Gateway) -> list[str] | None:
    """Addresses of the gateway that runs with this admin socket; None: it cannot be asked."""
    from scrubber.admin import client  # noqa: PLC0415 - aiohttp takes a moment to import

    try:
        status = client.call(gateway.admin.socket, gateway.admin.token_file, "GET", "/v1/status")
    except ScrubberError:
        return None
    return [str(each) for each in status["listeners"]]
