"""One error tree, by whose fault it was; each error carries a hint: what to do about it.

Owns the exceptions that Python raises and `Problem`, one finding about a file. Knows nothing else of the package, so
that everything may import it (the keeper too: standard library only). Bad bytes from a client are never an exception:
native code answers with enums.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

Fault = Literal["client", "origin", "operator", "kernel", "internal"]
Severity = Literal["error", "warning"]


class ScrubberError(Exception):
    """Base of the tree. `fault` says whose, `hint` what to do next."""

    fault: ClassVar[Fault] = "internal"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def document(self) -> dict[str, Any]:
        """As every command says it where JSON was asked for."""
        return {"error": {"fault": self.fault, "message": self.message, "hint": self.hint}}


class ClientError(ScrubberError):
    """Who connects did something that cannot be served."""

    fault: ClassVar[Fault] = "client"


class OriginError(ScrubberError):
    """The protected server did not do its part."""

    fault: ClassVar[Fault] = "origin"


class OperatorError(ScrubberError):
    """A file, a flag or a command is wrong."""

    fault: ClassVar[Fault] = "operator"


class KernelError(ScrubberError):
    """The operating system refused (a limit, a permission, a missing feature)."""

    fault: ClassVar[Fault] = "kernel"


class InternalError(ScrubberError):
    """A defect of ours."""

    fault: ClassVar[Fault] = "internal"


class ValueRefused(OperatorError, ValueError):
    """A single value is not what its place expects. `expected` says what would be."""

    def __init__(self, message: str, *, expected: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.expected = expected


class FilesRefused(OperatorError):
    """Gateway file or mandates have errors; `problems` holds all of them, warnings included."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        count = len(errors_of(problems))
        super().__init__(f"{count} error{'' if count == 1 else 's'} in the files", hint="run: scrubber check FILE…")
        self.problems = tuple(problems)

    def document(self) -> dict[str, Any]:
        """With every problem."""
        return {"error": {**super().document()["error"], "problems": [asdict(each) for each in self.problems]}}


class PolicyRefused(InternalError):
    """The core refused a compiled policy image: `reason` names the check that failed."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the core refused the policy image: {reason}",
            hint="the policy in force stays; where `scrubber check` finds nothing, compiler and core differ: rebuild",
        )
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about a file: where, what, what was expected, what to do."""

    file: str
    path: str  # TOML path, as in area[0].origins[1]; empty: the file as a whole
    message: str
    expected: str = ""
    hint: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"{self.file}: {self.path}: " if self.path else f"{self.file}: "
        return f"{self.severity}: {place}{self.message}"


def errors_of(problems: Iterable[Problem]) -> list[Problem]:
    """Those that refuse the file; warnings left out."""
    return [p for p in problems if p.severity == "error"]
