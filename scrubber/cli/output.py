"""How commands speak: data on stdout, what went wrong on stderr, each error one line and a hint on a line of its own.

Owns: consoles and the look of problems. Invariant: text from files and gateways is never
markup.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.text import Text

from scrubber.errors import FilesRefused, OperatorError, Problem, ScrubberError, errors_of

F = TypeVar("F", bound=Callable[..., Any])
JSON_ASKED = "scrubber.json"  # in a context's meta


def stdout() -> Console:
    """Made anew for each use, so that it follows redirections; honours NO_COLOR."""
    return Console(highlight=False, soft_wrap=True)


def stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say_json(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def hint_line(hint: str) -> Text:
    return Text.assemble(("Try: ", "bold"), hint)


def problem_text(problem: Problem) -> Text:
    """File, place and message; below it what was expected and what to do."""
    colour = "bold red" if problem.severity == "error" else "bold yellow"
    text = Text.assemble((f"{problem.severity}: ", colour), (problem.file, "bold"))
    if problem.path:
        text.append(f": {problem.path}", "cyan")
    text.append(f": {problem.message}")
    if problem.expected:
        text.append("\n  expected: ", "dim").append(problem.expected)
    if problem.hint:
        text.append("\n  Try: ", "bold").append(problem.hint)
    return text


def count_text(problems: Sequence[Problem]) -> str:
    """As in "2 errors, 1 warning"."""
    errors = len(errors_of(problems))
    warnings = len(problems) - errors
    parts = [
        f"{number} {word}{'' if number == 1 else 's'}" for number, word in ((errors, "error"), (warnings, "warning"))
    ]
    return ", ".join(part for part in parts if not part.startswith("0 ")) or "no problems"


def say_error(error: ScrubberError, as_json: bool) -> None:
    """On stderr for people; as a document on stdout where JSON was asked for."""
    if as_json:
        say_json(error.document())
        return
    console = stderr()
    if isinstance(error, FilesRefused):
        for problem in error.problems:
            console.print(problem_text(problem))
    console.print(Text.assemble(("scrubber: ", "bold red"), error.message))
    if error.hint:
        console.print(hint_line(error.hint))


def json_option(help_text: str) -> Callable[[F], F]:
    """`--json`, as the argument as_json; errors of the command are JSON then, too."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
        ctx.meta[JSON_ASKED] = value
        return value

    return click.option("--json", "as_json", is_flag=True, is_eager=True, help=help_text, callback=remember)


class Commands(click.Group):
    """A group whose commands may raise ScrubberError: said, and exit code 1. Wrong arguments are JSON, too, where that
    was asked for (exit code 2)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[JSON_ASKED] = "--json" in args  # until the command's own option is read, if it comes to that
        with _errors_said(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _errors_said(ctx):
            return super().invoke(ctx)


@contextmanager
def _errors_said(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except ScrubberError as error:
        say_error(error, as_json=ctx.meta[JSON_ASKED])
        ctx.exit(1)
    except click.ClickException as error:
        if not ctx.meta[JSON_ASKED]:
            raise
        where = (getattr(error, "ctx", None) or ctx).command_path
        say_error(OperatorError(error.format_message(), hint=f"{where} --help"), as_json=True)
        ctx.exit(error.exit_code)
