"""Matching, rewriting and locations in the core, against a slow reference and against what must never happen."""

from __future__ import annotations

import dataclasses
import email.utils
from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scrubber import _native
from scrubber.config import header_edits, pages, routes, texts
from scrubber.config.header_edits import HeaderEdits
from scrubber.config.routes import Redirect, Rewrite, Route, normalised
from scrubber.errors import PolicyRefused
from scrubber.mandate.compile import restore
from scrubber.mandate.compile_routes import Edit, joined
from scrubber.mandate.load import load_all
from tests.reference import routes as reference
from tests.reference.path import normalise
from tests.unit.files import GOOD, NOW
from tests.unit.images import compiled, opened

FULL = load_all(GOOD / "full-gateway.toml", now=NOW)
PLAIN = msgspec.structs.replace(FULL.gateway.areas[1], request_headers=None, response_headers=None)

path_bytes = st.lists(
    st.sampled_from(
        [
            b"/",
            b"a",
            b"b",
            b"api",
            b".",
            b"..",
            b"%2e",
            b"%2F",
            b"%41",
            b"%25",
            b"%",
            b"%e4",
            b"%a",
            b"E",
            b";x",
            b"@",
            b"<",
        ]
    ),
    max_size=12,
).map(lambda pieces: b"/" + b"".join(pieces))
hosts = st.sampled_from(["example.org", "www.example.org", "a.b.example.org", "EXAMPLE.org.", "example.net"])
plain_path = st.sampled_from(["/", "/a", "/a/", "/b", "/api", "/api/", "/a/b", "/.a", "/%E4"])
route_of = st.builds(
    lambda kind, path, pattern, methods, host: Route(
        path=path if kind == 0 else "",
        path_prefix=path if kind == 1 else "",
        path_re=pattern if kind == 2 else "",
        methods=methods,
        host=host,
    ),
    st.integers(0, 2),
    plain_path,
    st.sampled_from(["^/a", "b$", "/(a|b)+/", "^/([^/]*)/([^/]*)$", "%[0-9A-F]{2}", "api"]),
    st.sampled_from([(), ("GET",), ("POST", "PUT")]),
    st.sampled_from(["", "example.org", "*.example.org", "*.b.example.org"]),
)


def policy(found: Sequence[Route]) -> Any:
    """Area 1 of the full file with these routes."""
    first, _, third = FULL.gateway.areas
    area = msgspec.structs.replace(PLAIN, routes=tuple(found))
    gateway = msgspec.structs.replace(FULL.gateway, areas=(first, area, third))
    return opened(compiled(dataclasses.replace(FULL, gateway=gateway)))


def request(path: bytes, method: str = "GET", host: str = "example.org") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method.encode(), path, host.encode())


def probe(found: Sequence[Route], path: bytes, method: str = "GET", host: str = "example.org") -> Any:
    return _native.RouteProbe(policy(found), 1, request(path, method, host))


def test_capacities_are_the_core_s() -> None:
    core = _native.probe_policy_layout()["CAPACITIES"]
    assert core["ROUTES_AREA_MAX"] == routes.ROUTES_AREA_MAX
    assert core["ROUTE_PATH_BYTES_MAX"] == routes.ROUTE_PATH_BYTES_MAX
    assert core["PATTERNS_MAX"] == routes.PATTERNS_MAX
    assert core["EDITS_MAX"] == header_edits.EDITS_MAX
    assert core["PAGE_BYTES_MAX"] == pages.PAGE_BYTES_MAX
    assert core["PARTS_MAX"] > 2 * texts.PLACES_MAX


@given(st.binary(max_size=40).map(lambda b: b"/" + bytes(c for c in b if 0x20 < c < 0x7F)) | path_bytes)
def test_paths_of_a_file_are_normalised_as_the_core_does(path: bytes) -> None:
    assert normalised(path.decode()).encode() == normalise(path, 10**6)


@given(st.lists(route_of, max_size=5), path_bytes, hosts, st.sampled_from(["GET", "POST", "PURGE"]))
def test_the_first_route_that_matches_wins_as_in_the_reference(
    found: list[Route], path: bytes, host: str, method: str
) -> None:
    assert probe(found, path, method, host).route == reference.find(found, method, host.removesuffix("."), path)


REWRITES = [
    Route(path_prefix="/a", rewrite=Rewrite(to="/new{rest}")),
    Route(path_prefix="/a/", rewrite=Rewrite(to="/{rest}")),
    Route(path_prefix="/", rewrite=Rewrite(to="/x{path}")),
    Route(path_prefix="/", rewrite=Rewrite(strip_prefix="/api")),
    Route(path_prefix="/", rewrite=Rewrite(strip_prefix="/a/")),
    Route(path_prefix="/", rewrite=Rewrite(strip_prefix="/api", add_prefix="/v2")),
    Route(path_prefix="/", rewrite=Rewrite(add_prefix="/v2/")),
    Route(path_re="^/([^/]*)/(.*)$", rewrite=Rewrite(to="/$2/$1")),
    Route(path_re="(a)|(b)", rewrite=Rewrite(to="/.$1$2")),
    Route(path_re="/(.*)b", rewrite=Rewrite(to="/.$1")),
]


@given(st.sampled_from(REWRITES), path_bytes)
def test_rewritten_paths_are_those_of_the_reference(route: Route, path: bytes) -> None:
    found = probe([route], path + b"?q=/../<")
    if reference.find([route], "GET", "example.org", path) is None:
        assert found.route is None
        return
    expected = reference.rewritten(route, path)
    target = found.target()
    assert target == (expected if isinstance(expected, int) else expected + b"?q=/../<")
    if isinstance(target, bytes):
        sent = target.partition(b"?")[0]
        assert sent.startswith(b"/") and not sent.startswith(b"//")
        assert not set(sent) - reference.PLAIN - {ord("%")}
        assert not {b".", b".."} & set(sent.split(b"/")[:-1] + sent.split(b"/")[-1:])


@given(path_bytes)
@example(b"/%a%41")
def test_an_origin_gets_the_path_that_rules_saw(path: bytes) -> None:
    """What it decodes is what was matched: no escape comes out of putting the path together."""
    route = Route(path_prefix="/", rewrite=Rewrite(to="{path}"))
    target = probe([route], path).target()
    assert isinstance(target, bytes)
    assert normalise(target, 2048) == normalise(path, 2048) or b"%25" in target


LOCATIONS = [
    Redirect("{path}{query}"),
    Redirect("https://example.org{path}{query}"),
    Redirect("{scheme}://{host}:8443{path}"),
    Redirect("https://example.org/new?from={path}{query}"),
    Redirect("/x{path}"),
    Redirect("/login?next={path}"),
    Redirect("/g/$1"),
    Redirect("https://example.org/$1?$2{query}"),
]


@given(
    st.sampled_from(LOCATIONS),
    st.lists(st.integers(0x21, 0x7E).filter(lambda c: c not in b"#\\ ?"), max_size=30).map(bytes) | path_bytes,
    st.lists(st.integers(0x21, 0x7E).filter(lambda c: c != ord("#")), max_size=20).map(bytes),
)
def test_a_location_leads_where_the_operator_said(redirect: Redirect, tail: bytes, query: bytes) -> None:
    route = Route(path_re="^/?(.?)(.*)", redirect=redirect)
    path = tail if tail.startswith(b"/") else b"/" + tail
    location = probe([route], path + b"?" + query, host="site.example").location()
    assert location is not None
    assert all(0x20 < c < 0x7F for c in location)
    assert not set(b'"<>\\^`{|}#') & set(location)
    led = urlsplit(urljoin("http://site.example/here", location.decode()))
    named = {"https": {"example.org"}, "http": {"site.example", "site.example:8443"}}
    assert led.netloc in named[led.scheme]
    assert led.username is None


def test_a_location_keeps_what_was_sent() -> None:
    route = Route(path_prefix="/", redirect=LOCATIONS[1])
    sent = b"/a%20b/%2e;p=1/%E4?x=%26&y=a/b?"
    assert probe([route], sent).location() == b"https://example.org" + sent
    assert probe([route], b"//evil.example/x").location() == b"https://example.org/evil.example/x"
    asked = Route(path_prefix="/", redirect=LOCATIONS[3])
    assert probe([asked], b"/a?b=c").location() == b"https://example.org/new?from=/a&b=c"
    assert probe([asked], b"/a").location() == b"https://example.org/new?from=/a"


def test_a_redirect_to_the_host_needs_one() -> None:
    found = policy([Route(path="/", redirect=LOCATIONS[2])])
    assert _native.RouteProbe(found, 1, b"GET / HTTP/1.0\r\n\r\n").location() is None


def test_groups_that_took_no_part_are_empty() -> None:
    found = probe([Route(path_re="^/(x)?(y)$", redirect=Redirect("/[$1$2]"))], b"/y")
    assert found.groups == [b"/y", b"", b"y"]


def test_patterns_run_in_linear_time_and_bounded_memory() -> None:
    route = Route(path_re="^/(a+)+(b|c|d)*(a*)*$", rewrite=Rewrite(to="/$1"))
    assert probe([route], b"/" + b"a" * 2000 + b"!").route is None
    assert _native.pattern_refused(b"(((a{100}){100}){100})") != ""
    assert _native.pattern_groups(b"(a)(?:b)(?P<c>d)") == 2


def test_a_new_supervisor_finds_routes_and_the_content_of_pages_in_the_image() -> None:
    found = restore(compiled(FULL).image).gateway
    assert found.areas == FULL.gateway.areas
    file = found.areas[2].routes[0].file
    assert file is not None
    assert file.content == (GOOD / "pages" / "security.txt").read_bytes()


def test_a_pattern_that_re2_refuses_is_no_policy() -> None:
    with pytest.raises(PolicyRefused, match="missing"):
        policy([Route(path_re="^/(x")])


names = st.sampled_from(["X-A", "x-a", "X-B", "Link"])
edits_of = st.builds(
    HeaderEdits,
    set_=st.dictionaries(names, st.sampled_from(["1", "2"]), max_size=2),
    add=st.dictionaries(names, st.tuples(st.sampled_from(["3", "4"])), max_size=2),
    remove=st.lists(names, max_size=2).map(tuple),
)


def one_after_the_other(fields: list[tuple[str, str]], *of: HeaderEdits | None) -> list[tuple[str, str]]:
    for edits in of:
        if edits is None:
            continue
        for name in edits.remove:
            fields = [f for f in fields if f[0].lower() != name.lower()]
        for name, value in edits.set_.items():
            fields = [f for f in fields if f[0].lower() != name.lower()] + [(name, value)]
        for name, values in edits.add.items():
            fields = fields + [(name, value) for value in values]
    return fields


@given(st.lists(st.tuples(names, st.just("own")), max_size=4), edits_of | st.none(), edits_of | st.none())
def test_joined_edits_do_what_one_after_the_other_does(
    fields: list[tuple[str, str]], area: HeaderEdits | None, route: HeaderEdits | None
) -> None:
    steps = joined(area, route)
    gone = {step.name.lower() for step in steps if step.value is None}
    left = [f for f in fields if f[0].lower() not in gone]
    assert left + [(s.name, s.value) for s in steps if s.value is not None] == one_after_the_other(fields, area, route)
    kinds = [step.value is not None for step in steps]
    assert kinds == sorted(kinds), "what is taken away stands first"
    assert Edit("X", None) not in steps


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a{b}c", [("text", "a{b}c")]),
        ("{host}", [("host", "")]),
        ('{"x":"{host}"}', [("text", '{"x":"'), ("host", ""), ("text", '"}')]),
        ("$1{host}$", [("text", "$1"), ("host", ""), ("text", "$")]),
        ("", []),
    ],
)
def test_texts_are_cut_into_parts(text: str, parts: list[tuple[str, str]]) -> None:
    assert [(part.kind, part.text) for part in texts.parts_of(text, {"host"})] == parts


@given(st.integers(0, 4_000_000_000))
def test_dates_are_read_as_they_are_written(seconds: int) -> None:
    text = email.utils.formatdate(seconds, usegmt=True)
    assert _native.probe_http_date(text.encode()) == seconds
    assert _native.probe_http_date(text.encode()[:-1]) == -1


@given(st.binary(min_size=29, max_size=29))
def test_any_bytes_are_a_date_or_not(data: bytes) -> None:
    assert _native.probe_http_date(data) >= -1 or data.endswith(b" GMT")
