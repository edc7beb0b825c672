"""`scrubber check FILE…`: all that is wrong with gateway and mandate files."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from scrubber.cli import output
from scrubber.errors import errors_of


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@output.json_option("Problems as JSON.")
def check(files: tuple[Path, ...], as_json: bool) -> None:
    """Check gateway and mandate files: every error, with its place and a hint.

    A gateway file is checked together with the mandates it names. Exit code 1 where there is an error.
    """
    from scrubber.mandate.load import check_files  # noqa: PLC0415 - msgspec structs take a moment to build

    problems = check_files(files)
    sound = not errors_of(problems)
    if as_json:
        output.say_json({"ok": sound, "problems": [msgspec.to_builtins(problem) for problem in problems]})
    else:
        console = output.stdout()
        for problem in problems:
            console.print(output.problem_text(problem))
        names = ", ".join(str(file) for file in files)
        console.print(
            f"{names}: {output.count_text(problems)}", style="bold green" if sound else "bold red", markup=False
        )
    sys.exit(0 if sound else 1)
