"""Walks a TOML tree along a msgspec struct and reports every error, not the first one only.

Owns the way from text to typed values and the wording of what is wrong with a shape: unknown, missing, ill-typed, out
of range. A struct's field types say how a value is read: builtins as they are, `Annotated[T, Reads(...)]` by a function
of its own, tuples, dicts and structs by recursion. The result is always a whole struct: what could not be read is a
hole (its default, or an empty value), so that checks of meaning can go on; whoever asks `Report.spoiled(path)` skips
holes. A struct with problems is never handed on by the callers.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from scrubber.errors import Problem, Severity, ValueRefused

StructT = TypeVar("StructT", bound=msgspec.Struct)
MEASURES = {  # what the reference calls the values that these functions read
    "parse_duration_ns": "duration",
    "parse_bytes": "size",
    "parse_bytes_per_s": "byte rate",
    "parse_share_ppm": "share",
}
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Reads:
    """In `Annotated`: `parse` makes a TOML value the field's type or raises ValueRefused; `hole` stands in for it.

    For the reference: `says`, what it is in few words (else what `parse` expects), and `show`, a value as the file has
    it.
    """

    parse: Callable[[Any], Any]
    hole: Any
    says: str = ""
    show: Callable[[Any], str] | None = None


@dataclass(frozen=True)
class OneOrMore:
    """In `Annotated` over a tuple: what is no list is a list of one."""

    at_least: int = 1


@dataclass(frozen=True)
class Prepared:
    """In `Annotated` over a struct: `prepare` makes a table of what may be written shorter; `expected`: what may stand
    there."""

    prepare: Callable[[Any], Any]
    expected: str


@dataclass(frozen=True)
class Derived:
    """In `Annotated`: filled after reading, never a key of the file."""


@dataclass(frozen=True)
class Doc:
    """In `Annotated`: what docs/gateway.md says of a key, and an example where its default shows nothing: a value in
    TOML, or whole lines of it. `unit`: of a plain number; `default`: in words, where the value says too little."""

    says: str
    example: str = ""
    unit: str = ""
    default: str = ""


class Report:
    """Collects what is wrong with one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.holes: set[str] = set()

    def add(self, severity: Severity, path: str, message: str, expected: str = "", hint: str = "") -> None:
        self.problems.append(Problem(self.file, path, message, expected, hint, severity))

    def error(self, path: str, message: str, expected: str = "", hint: str = "") -> None:
        self.add("error", path, message, expected, hint)

    def warning(self, path: str, message: str, expected: str = "", hint: str = "") -> None:
        self.add("warning", path, message, expected, hint)

    def unread(self, path: str, message: str, expected: str = "", hint: str = "") -> None:
        """An error that leaves a hole."""
        self.holes.add(path)
        self.error(path, message, expected, hint)

    def spoiled(self, *paths: str) -> bool:
        """Whether there is a hole at one of the paths, beneath it or around it. A check asks it of what it reads, and
        of nothing else: what can be judged is judged."""
        return any(_within(hole, path) or _within(path, hole) for hole in self.holes for path in paths)

    def lost(self, path: str) -> bool:
        """Whether nothing of what stands there was read: the hole is at the path or around it."""
        return any(_within(path, hole) for hole in self.holes)

    @property
    def ok(self) -> bool:
        return not any(p.severity == "error" for p in self.problems)


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith((f"{outer}.", f"{outer}["))


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint: the word that was probably meant, or all of them."""
    known = sorted(words)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else ""


def read(cls: type[StructT], tree: Mapping[str, Any], report: Report, path: str = "") -> StructT:
    """A whole `cls` of the TOML table `tree`; what is wrong goes to `report`."""
    fields = file_fields(cls)
    for key in tree:
        if key not in fields:
            expected = f"one of: {', '.join(sorted(fields))}"
            report.unread(join_path(path, key), f"unknown field {key!r}", expected, nearest(key, fields))
    values: dict[str, Any] = {}
    for key, (info, kind) in fields.items():
        if key in tree:
            errors_before = len(report.problems)
            value = _read_value(kind, tree[key], report, join_path(path, key))
            if len(report.problems) == errors_before or info.required or isinstance(value, (msgspec.Struct, tuple)):
                values[info.name] = value
        elif info.required:
            report.unread(join_path(path, key), f"missing field {key!r}", describe(kind))
            values[info.name] = _hole(kind)
    return cls(**values)


@functools.cache
def file_fields(cls: type[msgspec.Struct]) -> dict[str, tuple[msgspec.structs.FieldInfo, Any]]:
    """Keys of the file → (field, its type with Annotated). Kept: resolving annotations takes its time."""
    hints = get_type_hints(cls, include_extras=True)
    found = {f.encode_name: (f, hints[f.name]) for f in msgspec.structs.fields(cls)}
    return {key: field for key, field in found.items() if not _is_derived(field[1])}


def join_path(path: str, key: str) -> str:
    """The path of a key in the table at `path`, as problems have it."""
    plain = key.replace("_", "").replace("-", "").isalnum() and key.isascii()
    name = key if plain else '"' + key.replace('"', '\\"') + '"'
    return f"{path}.{name}" if path else name


def _is_derived(kind: Any) -> bool:
    return get_origin(kind) is Annotated and any(isinstance(m, Derived) for m in get_args(kind)[1:])


def split_type(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type without Annotated and `| None`, and the Annotated metadata."""
    extras: tuple[Any, ...] = ()
    while True:
        if get_origin(kind) is Annotated:
            inner, *more = get_args(kind)
            kind, extras = inner, extras + tuple(more)
        elif get_origin(kind) in (Union, types.UnionType):
            (kind,) = [a for a in get_args(kind) if a is not types.NoneType]
        else:
            return kind, extras


def meta_of(extras: tuple[Any, ...], wanted: type[Any]) -> Any:
    """The first of that kind in a field's metadata; None."""
    return next((m for m in extras if isinstance(m, wanted)), None)


_PLAIN: dict[Any, tuple[str, Any]] = {
    str: ("text in quotes", ""),
    bool: ("true or false", False),
    int: ("a whole number", 0),
    datetime.datetime: ("a date and time with its offset, as 2026-11-01T00:00:00Z", EPOCH),
}


def describe(kind: Any) -> str:
    """What is expected where this type is asked for."""
    base, extras = split_type(kind)
    reads = meta_of(extras, Reads)
    if reads is not None:
        try:
            reads.parse(None)
        except ValueRefused as e:
            return e.expected
    prepared = meta_of(extras, Prepared)
    if prepared is not None:
        expected: str = prepared.expected
        return expected
    if get_origin(base) is Literal:
        return "one of: " + ", ".join(repr(a) for a in get_args(base))
    if get_origin(base) is tuple:
        return f"a list of: {describe(get_args(base)[0])}"
    return _PLAIN[base][0] if base in _PLAIN else "a table"


def _hole(kind: Any) -> Any:
    base, extras = split_type(kind)
    reads = meta_of(extras, Reads)
    if reads is not None:
        return reads.hole
    if get_origin(base) is Literal:
        return get_args(base)[0]
    if get_origin(base) is tuple:
        return ()
    if get_origin(base) is dict:
        return {}
    if base in _PLAIN:
        return _PLAIN[base][1]
    return base(**{info.name: _hole(kind) for info, kind in file_fields(base).values() if info.required})


def _read_value(kind: Any, value: Any, report: Report, path: str) -> Any:
    base, extras = split_type(kind)
    reads = meta_of(extras, Reads)
    if reads is not None:
        try:
            return reads.parse(value)
        except ValueRefused as e:
            report.unread(path, e.message, e.expected, e.hint)
            return reads.hole
    if get_origin(base) is tuple:
        return _read_list(kind, value, report, path)
    if get_origin(base) is dict:
        return _read_dict(get_args(base)[1], value, report, path)
    if get_origin(base) is Literal:
        return _read_choice(get_args(base), value, report, path)
    if base in _PLAIN:
        return _read_plain(base, value, report, path)
    prepared = meta_of(extras, Prepared)
    if prepared is not None:
        value = prepared.prepare(value)
    if not isinstance(value, Mapping):
        expected = describe(kind)
        report.unread(path, f"{_show(value)} is not {expected.partition(', as ')[0]}", expected)
        return _hole(base)
    return read(base, value, report, path)


def _read_list(kind: Any, value: Any, report: Report, path: str) -> tuple[Any, ...]:
    base, extras = split_type(kind)
    item, one_or_more = get_args(base)[0], meta_of(extras, OneOrMore)
    if one_or_more is not None and not isinstance(value, list):
        return (_read_value(item, value, report, path),)
    if not isinstance(value, list):
        report.unread(path, f"{_show(value)} is not a list", describe(kind), "put it in brackets: [ … ]")
        return ()
    if one_or_more is not None and len(value) < one_or_more.at_least:
        report.unread(path, "an empty list", describe(kind))
    return tuple(_read_value(item, v, report, f"{path}[{i}]") for i, v in enumerate(value))


def _read_dict(item: Any, value: Any, report: Report, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        report.unread(path, f"{_show(value)} is not a table", "a table")
        return {}
    return {k: _read_value(item, v, report, join_path(path, k)) for k, v in value.items()}


def _read_choice(choices: tuple[Any, ...], value: Any, report: Report, path: str) -> Any:
    if value in choices and isinstance(value, str):
        return value
    expected = "one of: " + ", ".join(repr(c) for c in choices)
    report.unread(path, f"{_show(value)} is not known here", expected, nearest(str(value), choices))
    return choices[0]


def _read_plain(base: Any, value: Any, report: Report, path: str) -> Any:
    expected, hole = _PLAIN[base]
    fits = isinstance(value, base) and not (base is int and isinstance(value, bool))
    if fits and base is datetime.datetime and value.tzinfo is None:
        report.unread(path, f"{value.isoformat()} has no offset from UTC", expected, "append Z for UTC")
        return hole
    if not fits:
        report.unread(path, f"{_show(value)} is not {expected}", expected)
        return hole
    return value


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, (str, int, float)) else str(value)


def integer(low: int, high: int) -> Reads:
    """A whole number from `low` to `high`."""
    expected = f"a whole number from {low} to {high}"

    def parse(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueRefused(f"{_show(value)} is not a whole number", expected=expected)
        if not low <= value <= high:
            raise ValueRefused(f"{value} is out of range", expected=expected)
        return value

    return Reads(parse, low, f"whole number, {low}–{high}", str)


def measured(parse_unit: Callable[[object], int], show: Callable[[int], str], low: int, high: int) -> Reads:
    """A value with a unit, from `low` to `high` (in the smallest unit)."""
    bounds = f"from {show(low)} to {show(high)}"

    def parse(value: Any) -> int:
        try:
            number = parse_unit(value)
        except ValueRefused as e:
            raise ValueRefused(e.message, expected=f"{e.expected}, {bounds}", hint=e.hint) from None
        if not low <= number <= high:
            raise ValueRefused(f"{_show(value)} is out of range", expected=bounds)
        return number

    kind = MEASURES.get(parse_unit.__name__, "text with a unit")
    return Reads(parse, low, f"{kind}, {show(low)}–{show(high)}", lambda number: f'"{show(number)}"')
