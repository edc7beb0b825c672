"""docs/gateway.md is what the schema says: every key described, every example valid, the page up to date."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Literal

import msgspec
import pytest

from scrubber.config.gateway import Gateway
from scrubber.config.reference import BEGIN, END, Key, every_key, example_of, render, rewritten
from scrubber.config.walk import Doc, OneOrMore, Prepared, Report, integer, measured, read
from scrubber.units import format_duration, parse_duration_ns
from tests.unit.files import ROOT

KEYS = list(every_key(Gateway))
PAGE = ROOT / "docs" / "gateway.md"


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_every_key_is_described_with_an_example_that_reads(key: Key) -> None:
    assert key.doc is not None, f"{key.path} has no Doc(…) in its Annotated: see scrubber/config/walk.py"
    assert key.doc.says.strip()
    if not key.doc.example and key.shape in ("table", "tables", "named tables"):
        return
    example = example_of(key)
    assert example, f"{key.path}: nothing to show but its Doc's example, and that is missing"
    assert problems_of(key, example) == []


def problems_of(key: Key, example: str) -> list[str]:
    """What reading the example finds wrong with this key, its table's other keys left aside."""
    tree: Any = tomllib.loads(example)
    for name in key.path.split(".")[:-1]:  # an example may stand with the headings around it
        inner = tree.get(name) if isinstance(tree, dict) else None
        if inner is not None and key.name not in tree:
            tree = inner[0] if isinstance(inner, list) else inner
    assert key.name in tree, f"the example does not set {key.name}: {example}"
    alone = msgspec.defstruct("Alone", [(key.field.name, key.kind, msgspec.field(name=key.name))])
    report = Report("example")
    read(alone, {key.name: tree[key.name]}, report)
    return [str(problem) for problem in report.problems]


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == rewritten(text, Gateway), "run: make docs"


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no part between"):
        rewritten("# A page\n", Gateway)


def test_only_what_lies_between_the_markers_is_rewritten() -> None:
    page = rewritten(f"before {BEGIN} old {END} after", Gateway)
    assert page.startswith("before <!--")
    assert page.endswith("--> after")
    assert " old " not in page


class Leaf(msgspec.Struct, frozen=True):
    """A table in a list."""

    size: Annotated[int, integer(1, 9), Doc("How big.", unit="boxes")]
    every_ns: Annotated[int, measured(parse_duration_ns, format_duration, 0, 10**10), Doc("How often: 1|2.")] = (
        msgspec.field(default=5 * 10**9, name="every")
    )


class Twig(msgspec.Struct, frozen=True):
    """Tables in a table."""

    kind: Annotated[Literal["a", "b"], Doc("Which.")] = "a"
    leaves: Annotated[tuple[Leaf, ...], OneOrMore(at_least=0), Doc("Some.")] = msgspec.field(default=(), name="leaf")


class Tree(msgspec.Struct, frozen=True):
    """All shapes."""

    twig: Annotated[Twig, Doc("A twig.")] = Twig()
    spare: Annotated[
        tuple[Annotated[Leaf, Prepared(lambda v: v, "a leaf")], ...], OneOrMore(), Doc("As text too.", "[3]")
    ] = ()
    named: Annotated[dict[str, Leaf], Doc("By name.", "[named.x]\nsize = 3")] = {}
    plain: int = 3


def test_nested_tables_lists_and_choices_are_followed() -> None:
    text = render(Tree)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "## Top level",
        "### `[twig]`",
        "#### `[[twig.leaf]]`",
        "### `spare` as a table",
        "### `[named.NAME]`",
    ]
    assert '| `kind` | `"a"`, `"b"` |  | `"a"` | `kind = "a"` | Which. |' in text
    assert "| `size` | whole number, 1–9 | boxes | required |  | How big. |" in text
    assert '| `every` | duration, 0s–10s | ms, s, m, h, d | `"5s"` | `every = "5s"` | How often: 1\\|2. |' in text
    assert "| `spare` | list of: texts or tables |  | none | `spare = [3]` | As text too. |" in text
    assert "| `plain` | whole number |  | `3` | `plain = 3` |  |" in text
    assert text.count("| `size` |") == 1, "a table that stands in two places is described once"
    assert "```toml\n[named.x]\nsize = 3\n```" in text


def test_a_key_without_words_is_found() -> None:
    (plain,) = [key for key in every_key(Tree) if key.doc is None]
    assert plain.path == "plain"
