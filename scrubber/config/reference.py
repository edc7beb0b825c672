"""The tables of docs/gateway.md, made from the schema: `python -m scrubber.config.reference docs/gateway.md` rewrites
what lies between its markers.

Owns: how a key is shown (type, unit, default, example, what it does). What is shown stands in the schema: types, ranges
and defaults as they are checked, words and examples in each key's `Doc`. Invariants: the same schema gives the same
text; a table's keys are described once, wherever else it may stand.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from scrubber.config.walk import Doc, Prepared, Reads, describe, file_fields, meta_of, split_type

BEGIN = "<!-- made from the schema by `make docs`: do not edit by hand -->"
END = "<!-- end of what is made from the schema -->"
HEADER = "| key | type | unit | default | example | |\n|---|---|---|---|---|---|"
UNITS = {"duration": "ms, s, m, h, d", "size": "B, KiB, MiB, GiB", "byte rate": "B/s, KiB/s, MiB/s", "share": "%"}
WORDS: dict[Any, str] = {str: "text", bool: "`true`, `false`", int: "whole number", float: "number"}


@dataclass(frozen=True)
class Key:
    """A key of the file. `table`: the struct that its value, or each value of its list, is made of."""

    path: str  # as "area.limits.headers_max"
    name: str
    kind: Any  # with Annotated
    field: msgspec.structs.FieldInfo
    doc: Doc | None
    table: type[msgspec.Struct] | None
    shape: Literal["value", "table", "tables", "values or tables", "named tables"]


def keys(struct: type[msgspec.Struct], path: str = "") -> list[Key]:
    """Of one table, in the order of the schema."""
    found = []
    for name, (field, kind) in file_fields(struct).items():
        base, extras = split_type(kind)
        here = f"{path}.{name}" if path else name
        table, shape = _table_of(base, extras)
        found.append(Key(here, name, kind, field, meta_of(extras, Doc), table, shape))
    return found


def _table_of(base: Any, extras: tuple[Any, ...]) -> tuple[type[msgspec.Struct] | None, Any]:
    if meta_of(extras, Reads) is not None:
        return None, "value"
    if isinstance(base, type) and issubclass(base, msgspec.Struct):
        return base, "table"
    if get_origin(base) in (tuple, dict):
        inner, more = split_type(get_args(base)[0 if get_origin(base) is tuple else 1])
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and meta_of(more, Reads) is None:
            named = get_origin(base) is dict
            return inner, "named tables" if named else "values or tables" if meta_of(more, Prepared) else "tables"
    return None, "value"


def every_key(struct: type[msgspec.Struct], path: str = "", seen: frozenset[Any] = frozenset()) -> Iterator[Key]:
    """Of a table and all below it."""
    for key in keys(struct, path):
        yield key
        if key.table is not None and key.table not in seen:
            yield from every_key(key.table, key.path, seen | {key.table})


# ── sections ──


def render(struct: type[msgspec.Struct]) -> str:
    """The whole reference of this file's keys."""
    page = _Page([], {})
    page.add(struct, "Top level", "", "")
    return "\n\n".join(page.sections)


@dataclass(frozen=True)
class _Page:
    """Sections so far, and under which heading each struct was described."""

    sections: list[str]
    seen: dict[type[msgspec.Struct], str]

    def add(self, struct: type[msgspec.Struct], heading: str, says: str, path: str) -> None:
        """A heading, what the table is, its own keys; then the tables in it, lists of tables last."""
        level = min(path.count(".") + 3, 5) if path else 2
        parts = [f"{'#' * level} {heading}", says]
        if struct in self.seen:
            parts.append(f"Its keys are those of {self.seen[struct]}.")
            self.sections.append("\n\n".join(filter(None, parts)))
            return
        self.seen[struct] = heading
        own = keys(struct, path)
        rows = [_row(key) for key in own if key.shape in ("value", "values or tables")]
        if rows:
            parts.append("\n".join([HEADER, *rows]))
        self.sections.append("\n\n".join(filter(None, parts)))
        for key in sorted(own, key=lambda key: (key.shape != "table", key.shape == "tables")):
            if key.table is not None:
                self.add(key.table, _heading(key), _about(key), key.path)


def _about(key: Key) -> str:
    """What stands below a table's heading."""
    if key.shape == "values or tables":
        return f"Each of `{key.name}` as a table:"
    doc = key.doc or Doc("")
    example = f"```toml\n{doc.example}\n```" if doc.example else ""
    return "\n\n".join(filter(None, [doc.says, example]))


def _heading(key: Key) -> str:
    if key.shape == "tables":
        return f"`[[{key.path}]]`"
    if key.shape == "named tables":
        return f"`[{key.path}.NAME]`"
    return f"`{key.path}` as a table" if key.shape == "values or tables" else f"`[{key.path}]`"


# ── rows ──


def _row(key: Key) -> str:
    doc = key.doc or Doc("")
    shown = "see below" if "\n" in doc.example else _code(example_of(key))
    cells = [f"`{key.name}`", type_of(key.kind), _unit(key, doc), _default(key, doc), shown, doc.says]
    return "| " + " | ".join(cell.replace("|", "\\|").strip() for cell in cells) + " |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def type_of(kind: Any) -> str:
    """In few words: "duration, 10ms–1h", "list of prefixes"."""
    base, extras = split_type(kind)
    reads = meta_of(extras, Reads)
    if reads is not None:
        return reads.says or describe(kind)
    if get_origin(base) is Literal:
        return ", ".join(f'`"{word}"`' for word in get_args(base))
    if get_origin(base) is tuple:
        item = get_args(base)[0]
        return f"list of: {'texts or tables' if meta_of(split_type(item)[1], Prepared) else type_of(item)}"
    if get_origin(base) is dict:
        return f"table by name of: {type_of(get_args(base)[1])}"
    return WORDS.get(base, "table")


def _unit(key: Key, doc: Doc) -> str:
    return doc.unit or UNITS.get(type_of(key.kind).partition(",")[0], "")


def _default(key: Key, doc: Doc) -> str:
    if doc.default:
        return doc.default
    if key.field.required:
        return "required"
    return _code(_shown_default(key)) or "none"


def _shown_default(key: Key) -> str:
    """The default as the file would have it; "" where there is nothing to write."""
    value: object = key.field.default
    if value is msgspec.NODEFAULT:
        value = key.field.default_factory() if key.field.default_factory is not msgspec.NODEFAULT else None
    _, extras = split_type(key.kind)
    reads = meta_of(extras, Reads)
    if value in (None, "", (), {}):
        return ""
    if reads is not None and reads.show is not None:
        shown: str = reads.show(value)
        return shown
    if isinstance(value, tuple):
        return "[" + ", ".join(json.dumps(each) if isinstance(each, str) else str(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (str, bool, int, float)) else str(value)


def example_of(key: Key) -> str:
    """Lines of TOML that set this key: its `Doc`'s, or its default written out; "" where there is none."""
    text = key.doc.example if key.doc else ""
    if not text:
        shown = {"true": "false", "false": "true"}.get(_shown_default(key), _shown_default(key))
        return f"{key.name} = {shown}" if shown else ""
    try:
        tomllib.loads(f"{key.name} = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return f"{key.name} = {text}"


# ── the file ──


def rewritten(text: str, struct: type[msgspec.Struct]) -> str:
    """The page with its part between the markers made anew. ValueError: it has no such markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no part between {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{render(struct)}\n\n{END}{after}"


def main(argv: list[str]) -> int:
    from scrubber.config.gateway import Gateway  # noqa: PLC0415 - this module serves any schema

    for path in map(Path, argv[1:]):
        path.write_text(rewritten(path.read_text(encoding="utf-8"), Gateway), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
