"""configs/ has an example of everything: every key of the gateway file, every way in, to an origin and to balance."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scrubber.config.gateway import Gateway, load_gateway
from scrubber.config.reference import Key, every_key, keys
from scrubber.mandate.load import check_files
from tests.unit.example_certificates import examples

FILES = sorted(path for path in examples().glob("*.toml") if "mandate" not in path.stem)
TREES = {path.name: tomllib.loads(path.read_text(encoding="utf-8")) for path in FILES}

Named = tuple[type[msgspec.Struct], str]


def named(key: Key, struct: type[msgspec.Struct]) -> Named:
    """A key by the table that brought it: what an area and its pools have in common is one."""
    structs = (each for each in reversed(struct.__mro__) if isinstance(getattr(each, "__struct_fields__", None), tuple))
    return next(each for each in structs if key.field.name in each.__struct_fields__), key.name


def used(struct: type[msgspec.Struct], tree: dict[str, Any]) -> Iterator[Named]:
    """The keys that a tree has, along the schema. Short forms (a text for a table) have none of the table's."""
    for key in keys(struct):
        if key.name not in tree:
            continue
        yield named(key, struct)
        value = tree[key.name]
        below = list(value.values()) if key.shape == "named tables" else value if isinstance(value, list) else [value]
        for each in below:
            if key.table is not None and isinstance(each, dict):
                yield from used(key.table, each)


def by_name() -> dict[Named, str]:
    """Every key of the schema, with the path that it has first."""
    found: dict[Named, str] = {}
    tables: dict[str, type[msgspec.Struct]] = {"": Gateway}
    for key in every_key(Gateway):
        if key.table is not None:
            tables[key.path] = key.table
        found.setdefault(named(key, tables[key.path.rpartition(".")[0]]), key.path)
    return found


def test_every_key_stands_in_an_example() -> None:
    there = {each for tree in TREES.values() for each in used(Gateway, tree)}
    missing = sorted(path for name, path in by_name().items() if name not in there)
    assert missing == [], "no file of configs/ shows these"


def gateways() -> list[Gateway]:
    found = [load_gateway(path)[0] for path in FILES]
    assert all(found)
    return [each for each in found if each is not None]


def test_every_way_to_a_client_and_to_an_origin_stands_in_an_example() -> None:
    every = gateways()
    pools = [pool for each in every for area in each.areas for pool in (area, *area.pools)]
    origins = [origin for pool in pools for origin in pool.origins]
    listeners = [listener.address.family for each in every for listener in each.listeners]
    assert set(listeners) == {"inet", "inet6", "unix"}
    assert {origin.address.family for origin in origins} == {"inet", "inet6", "unix", "name"}
    assert {origin.proxy_protocol for origin in origins} == {"off", "v1", "v2"}
    ways = {pool.balance.rpartition(":x-")[0] or pool.balance for pool in pools}
    assert ways == {"least_connections", "round_robin", "hash:client", "hash:header"}
    assert any(len({listener.address.port for listener in each.listeners}) > 2 for each in every), "several ports"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_example_is_warned_of(path: Path) -> None:
    assert [str(problem) for problem in check_files([path])] == []
