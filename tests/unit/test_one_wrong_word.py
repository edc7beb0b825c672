"""One wrong word is one error: what else of a file can be judged is judged all the same, and nothing more is said."""

from __future__ import annotations

import copy
import datetime
import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scrubber.errors import errors_of
from scrubber.mandate.load import check_files
from tests.unit.files import GOOD, HEAD, MINIMAL_GATEWAY, NOW, write

WRONG = datetime.time(8, 15)  # nothing in either file is a time of day
Place = tuple[str | int, ...]


def places(tree: Any, here: Place = ()) -> Iterator[Place]:
    """Every key and every entry of a list, tables and lists included."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield (*here, key)
        yield from places(value, (*here, key))


def spoiled(tree: Any, place: Place) -> Any:
    changed = copy.deepcopy(tree)
    at = changed
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = WRONG
    return changed


def written(value: Any) -> str:
    """A TOML value in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return value.isoformat() if isinstance(value, (datetime.datetime, datetime.time)) else json.dumps(value)


def shown(place: Place) -> str:
    """As a problem's path has it."""
    parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in place]
    return "".join(parts).removeprefix(".")


@pytest.mark.parametrize("name", ["full-gateway.toml", "full-mandate.toml", "second-mandate.toml"])
def test_one_wrong_word_is_one_error(tmp_path: Path, name: str) -> None:
    home = tmp_path / "good"
    shutil.copytree(GOOD, home)
    tree = tomllib.loads((GOOD / name).read_text(encoding="utf-8"))
    known = set(check_files([home / "full-gateway.toml"], now=NOW))
    said: list[str] = []
    for place in places(tree):
        text = "".join(f"{json.dumps(key)} = {written(value)}\n" for key, value in spoiled(tree, place).items())
        (home / name).write_text(text, encoding="utf-8")
        problems = check_files([home / "full-gateway.toml"], now=NOW)
        more = [problem for problem in problems if problem not in known]
        if len(errors_of(more)) != 1 or len(more) != 1:
            said.append(f"{shown(place)}: {[str(problem) for problem in more]}")
    assert not said, "\n".join(said)


RULE = '[[rule]]\nname = "a"\nthen = ["throttle"]\n'
ACCOUNT = 'per = "account"\n'

# A mandate, and where its errors are: next to a word that cannot be read, the others are found all the same.
MANDATES = {
    "limit and key": (RULE + ACCOUNT + 'limit = "fast"\n', {"rule[0].limit", "rule[0].per"}),
    "condition and key": (RULE + ACCOUNT + 'when = { known = 1 }\n', {"rule[0].when.known", "rule[0].per"}),
    "limit without a key": (RULE + 'limit = "fast"\n', {"rule[0].limit", "rule[0].per"}),
    "key that does not say who": (
        RULE + 'per = "host"\nwhen = { known = 1 }\n',
        {"rule[0].when.known", "rule[0].limit"},
    ),
    "neither limit nor condition": (RULE + "per = 3\n", {"rule[0].per", "rule[0]"}),
    "neither key nor limit": (RULE + "when = { known = 1 }\n", {"rule[0].when.known", "rule[0]"}),
    "expired": (HEAD.replace("2026-05-01T00:00:00Z", "3").replace("2026-07", "2026-05"), {
        "mandate.not_before", "mandate.expires",
    }),
    "too early": (HEAD.replace("2026-05-01", "2026-06-02").replace("2026-07-01T00:00:00Z", "3"), {
        "mandate.expires", "mandate.not_before",
    }),
    "too wide": (
        "[proportion]\nprefix_v4_widest = 32\nblocks_max = -1\n"
        + RULE.replace('"throttle"', '"block 1m"') + 'per = "prefix"\nlimit = "1/s"\n',
        {"proportion.blocks_max", "rule[0].then[0]"},
    ),
    "list without a digest": (
        '[proportion]\nnever_block_files = [{ path = "none.txt", sha256 = "00" }]\n',
        {"proportion.never_block_files[0].sha256", "proportion.never_block_files[0].path"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MANDATES)
def test_a_mandate_is_judged_as_far_as_it_can_be_read(tmp_path: Path, name: str) -> None:
    text, wanted = MANDATES[name]
    path = write(tmp_path, MINIMAL_GATEWAY, m=text if "[mandate]" in text else HEAD + text)
    assert {problem.path for problem in errors_of(check_files([path], now=NOW))} == wanted


ROUTE = "[[area.route]]\n"
GATEWAYS = {
    "cache": ("[area.cache]\nenabled = true\nttl_max = '0s'\nwait = 3\n", {"cache.wait", "cache.ttl_max"}),
    "health": ("[area.health]\nhttp = '/'\ntcp = true\nrise = 0\n", {"health.rise", "health"}),
    "limits": (
        "[area.limits]\nline_bytes_max = 8192\nhead_bytes_max = 4096\nheaders_max = 0\n",
        {"limits.headers_max", "limits.line_bytes_max"},
    ),
    "origin twice": (
        '[[area.pool]]\nname = "p"\norigins = ["127.0.0.1:1", { address = "127.0.0.1:1", weight = 0 }]\n',
        {"pool[0].origins[1].weight", "pool[0].origins[1]"},
    ),
    "two matchers, one unreadable": (
        ROUTE + 'path = 3\npath_prefix = "/"\n',
        {"route[0].path", "route[0]"},
    ),
    "two answers, one unreadable": (
        ROUTE + 'path = "/"\npool = 3\nredirect = "/x"\n',
        {"route[0].pool", "route[0]"},
    ),
    "for origins, unreadable": (
        ROUTE + 'path = "/"\nredirect = "/x"\nread_timeout = 3\n',
        {"route[0].read_timeout"},
    ),
    "answer": (
        ROUTE + 'path = "/"\nanswer = { status = 304, body = 3 }\n',
        {"route[0].answer.body", "route[0].answer.status"},
    ),
    "redirect": (
        ROUTE + 'path = "/"\nredirect = { to = "//evil", status = 3 }\n',
        {"route[0].redirect.status", "route[0].redirect.to"},
    ),
    "rewrite": (
        ROUTE + 'path_prefix = "/b/"\nrewrite = { strip_prefix = "/a", add_prefix = 3 }\n',
        {"route[0].rewrite.add_prefix", "route[0].rewrite.strip_prefix"},
    ),
}


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_gateway_is_judged_as_far_as_it_can_be_read(tmp_path: Path, name: str) -> None:
    text, wanted = GATEWAYS[name]
    path = write(tmp_path, MINIMAL_GATEWAY + text, m=HEAD)
    assert {problem.path.removeprefix("area[0].") for problem in errors_of(check_files([path], now=NOW))} == wanted


def test_destinations_of_the_log_are_judged_one_by_one(tmp_path: Path) -> None:
    log = '[log]\naccess = ["a.log", 3, "a.log"]\nacts = [{ to = "-", format = "combined" }, { to = 3 }]\n'
    path = write(tmp_path, MINIMAL_GATEWAY + log, m=HEAD)
    found = {problem.path for problem in errors_of(check_files([path], now=NOW))}
    assert found == {"log.access[1]", "log.access[2].to", "log.acts[0].format", "log.acts[1].to"}


def test_what_an_unreadable_mandate_covers_is_not_guessed(tmp_path: Path) -> None:
    gateway = MINIMAL_GATEWAY.replace('["m.toml"]', '["m.toml", "none.toml"]')
    more = '[[area]]\nname = "other"\nhosts = "other.test"\norigins = "127.0.0.1:1"\n'
    path = write(tmp_path, gateway + more, m=HEAD + RULE + 'per = "client"\nlimit = "1/s"\n')
    problems = check_files([path], now=NOW)
    assert [problem.message for problem in problems] == ["cannot be read: No such file or directory"]


def test_nothing_follows_from_a_route_that_cannot_be_read(tmp_path: Path) -> None:
    first = ROUTE + 'path = "/a"\nmethod = ["gett"]\n'
    second = ROUTE + 'path = "/a"\nmethod = "GET"\n'
    problems = check_files([write(tmp_path, MINIMAL_GATEWAY + first + second, m=HEAD)], now=NOW)
    found = [problem.path for problem in problems if problem.file.endswith("gateway.toml")]
    assert found == ["area[0].route[0].method[0]"]
