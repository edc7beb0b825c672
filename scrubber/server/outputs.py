"""All destinations of the log: which takes what, in which form.

Owns: the sinks and their lives. Used by the journal's thread (the counts may be read by others). Invariants: a
destination that stays over a reload keeps its connection and its counts; acts are ECS JSON wherever they go.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scrubber.config.log import Destination, Log, Target
from scrubber.errors import OperatorError
from scrubber.server.access_log import STDOUT, AccessLog, Sink, check_writable
from scrubber.server.log_format import Render, SyslogMessage, renderer
from scrubber.server.syslog import Syslog
from scrubber.server.users import User, ask_as


class Piece(NamedTuple):
    """Finished lines in a row, each with its line end. An act stands alone."""

    data: bytes
    lines: int
    act: bool = False


@dataclass(frozen=True)
class Output:
    """One destination. `render` None: lines as they are."""

    sink: Sink
    form: str
    lines: bool  # takes access lines
    acts: bool
    render: Render | None
    message: SyslogMessage | None

    def write(self, pieces: Sequence[Piece]) -> None:
        """Those of these that are meant for here."""
        mine = [piece for piece in pieces if (self.acts if piece.act else self.lines)]
        if self.render is None and self.message is None:
            data = mine[0].data if len(mine) == 1 else b"".join([piece.data for piece in mine])
            self.sink.append(data, sum(piece.lines for piece in mine))
            return
        self.sink.write([self._text(line, act=piece.act) for piece in mine for line in piece.data.split(b"\n")[:-1]])

    def _text(self, line: bytes, *, act: bool) -> bytes:
        text = line if act or self.render is None else self.render(line)
        return text if self.message is None else self.message.of(line, text, act=act)


class Outputs:
    """As `[log]` says; `use` changes it."""

    def __init__(self, log: Log, logger: logging.Logger) -> None:
        self.all: tuple[Output, ...] = ()
        self._sinks: dict[Target, Sink] = {}
        self._log = logger
        self._gone = [0, 0]  # written and lost by destinations that are no more
        self.use(log)

    def use(self, log: Log) -> None:
        """From now on these. Those that are not named any more are closed."""
        lines = {place.to: place for place in log.access}
        acts = {place.to: place for place in log.acts}
        sinks = {to: self._sinks.get(to) or self._sink(to) for to in {**lines, **acts}}
        gone = [sink for to, sink in self._sinks.items() if to not in sinks]
        self._sinks = sinks
        self.all = tuple(_output(sink, lines.get(to), acts.get(to)) for to, sink in sinks.items())
        for sink in gone:
            sink.close()
            self._gone[0] += sink.lines
            self._gone[1] += sink.lines_lost

    def _sink(self, to: Target) -> Sink:
        if to.is_syslog:
            return Syslog(to, self._log)
        return AccessLog(STDOUT if to.kind == "stdout" else to.address, self._log)

    def write(self, pieces: Sequence[Piece]) -> None:
        """To each destination what it takes."""
        for output in self.all:
            output.write(pieces)

    def flush(self) -> None:
        for output in self.all:
            output.sink.flush()

    def reopen(self) -> list[str]:
        """Open every file anew; what could not be opened, as "PATH: why"."""
        for output in self.all:
            output.sink.reopen()
        return [f"{output.sink.name}: {output.sink.error}" for output in self.all if output.sink.error]

    def close(self) -> None:
        for output in self.all:
            output.sink.close()

    # ── what became of the lines, over all destinations ──

    @property
    def lines(self) -> int:
        return self._gone[0] + sum(output.sink.lines for output in self.all)

    @property
    def lines_lost(self) -> int:
        return self._gone[1] + sum(output.sink.lines_lost for output in self.all)

    def errors(self) -> list[str]:
        """One line for each destination that does not take lines now."""
        return [
            f"{output.sink.name}: {output.sink.error}, {output.sink.lines_lost:,} lines lost"
            for output in self.all
            if output.sink.error
        ]

    def describe(self) -> list[dict[str, Any]]:
        """For the status."""
        return [
            {
                "to": output.sink.name,
                "format": output.form,
                "access": output.lines,
                "acts": output.acts,
                "lines": output.sink.lines,
                "lines_lost": output.sink.lines_lost,
                "error": output.sink.error,
            }
            for output in self.all
        ]


def _output(sink: Sink, lines: Destination | None, acts: Destination | None) -> Output:
    place = lines or acts
    assert place is not None
    form = lines.format if lines else "ecs"
    message = SyslogMessage(place) if place.to.is_syslog else None
    return Output(sink, form, lines is not None, acts is not None, renderer(form), message)


def check_files(log: Log, user: User | None = None) -> None:
    """OperatorError: a file that cannot be written, by this user or, None, by us. Leaves empty files at most."""
    for to in {place.to for place in (*log.access, *log.acts)}:
        if to.kind == "file" and (why := ask_as(user, lambda to=to: check_writable(to.address) or "")):  # type: ignore[misc]
            hint = 'name another file in [log], or "-" for stdout, or "off"'
            if user is not None:
                hint += f"; the supervisor writes it, as uid {user[0]}, who has to reach its directory"
            raise OperatorError(f"cannot write the access log {to.address}: {why}", hint=hint)
