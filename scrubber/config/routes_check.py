"""What routes, pages and edits of an area mean together, and the files they name.

Owns checks beyond a key's own form: one matcher and one answer a route, redirects that a client cannot bend, patterns
that RE2 takes, routes that an earlier one leaves nothing to. Reads the pages' files into the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scrubber.config.header_edits import EDITS_MAX, HeaderEdits, check_edits
from scrubber.config.pages import PAGE_WORDS, PAGES_BYTES_MAX, Maintenance, Page, read_page
from scrubber.config.patterns import pattern_groups, pattern_refused
from scrubber.config.routes import (
    PATTERN_EXPECTED,
    PATTERNS_MAX,
    REDIRECT_WORDS,
    REWRITE_WORDS,
    ROUTES_AREA_MAX,
    TARGET_EXPECTED,
    Route,
    normalised,
)
from scrubber.config.texts import PLACES_MAX, groups_in, parts_of, places_in, words_in
from scrubber.config.walk import Report, join_path, nearest

if TYPE_CHECKING:
    from scrubber.config.gateway import Area

MATCHERS = ("path", "path_prefix", "path_re")
TARGETS = ("pool", "redirect", "answer", "file")
FOR_ORIGINS = ("rewrite", "request_headers", "body_bytes_max", "read_timeout")
GROUPS_MAX = 9
OPEN_HINT = "whoever makes the link would choose the place: begin with a whole URL, or with a path that is text"
ANY_HOST_EXPECTED = "a host of yours in place of {host}, or a route with host"
ANY_HOST_HINT = "the area answers for hosts that nobody names; a cache in front may keep the answer for everybody"
_ABSOLUTE = re.compile(r"(?:https?|\{scheme\})://")
_AUTHORITY = re.compile(r"(?:\{host\}|[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_AUTHORITY_END = re.compile(r"[/?#]|\{path\}|\{query\}")


def check_area(area: Area, report: Report, here: str, *, any_host: bool = False) -> None:
    """Routes, edits and error pages of one area. `any_host`: it answers for hosts that nobody names."""
    pools = _pool_names(area, report, here)
    check_edits(area.request_headers, report, f"{here}.request_headers", response=False)
    check_edits(area.response_headers, report, f"{here}.response_headers", response=True)
    for key in area.error_pages:
        if key != "default" and not re.fullmatch(r"[45][0-9][0-9]", key):
            hint = 'error_pages = { "502" = "pages/502.html", default = "pages/error.html" }'
            place = join_path(f"{here}.error_pages", key)
            report.error(place, f"{key!r} is no status of an error", '"400" to "599", "default"', hint)
    if len(area.routes) > ROUTES_AREA_MAX:
        report.error(f"{here}.route", f"{len(area.routes)} routes", f"at most {ROUTES_AREA_MAX} in an area")
    for i, route in enumerate(area.routes):
        place = f"{here}.route[{i}]"
        if report.lost(place):
            continue
        _check_route(route, pools, report, place, any_host=any_host)
        for request, of_area, own in (
            (True, area.request_headers, route.request_headers),
            (False, area.response_headers, route.response_headers),
        ):
            _check_sum(of_area, own, report, f"{place}.{'request' if request else 'response'}_headers")
    _check_order(area.routes, report, here)


def _pool_names(area: Area, report: Report, here: str) -> list[str] | None:
    """None: not all of them could be read."""
    unread = any(report.spoiled(f"{here}.pool[{k}].name") for k in range(len(area.pools)))
    return None if unread or report.lost(f"{here}.pool") else [pool.name for pool in area.pools]


def check_patterns(areas: Sequence[Area], report: Report) -> None:
    """How many there are: each takes memory in every worker."""
    patterns = sum(bool(route.path_re) for area in areas for route in area.routes)
    if patterns > PATTERNS_MAX:
        report.error("area", f"{patterns} patterns (path_re)", f"at most {PATTERNS_MAX} in all areas together")


def _check_sum(area: HeaderEdits | None, route: HeaderEdits | None, report: Report, place: str) -> None:
    if area and route and max(area.count, route.count) <= EDITS_MAX < area.count + route.count:
        report.error(place, f"{area.count + route.count} edits with the area's", f"at most {EDITS_MAX}")


def _check_route(route: Route, pools: Sequence[str] | None, report: Report, here: str, *, any_host: bool) -> None:
    def given(key: str, field: str = "") -> bool:
        return getattr(route, field or key) not in ("", None) or report.spoiled(f"{here}.{key}")

    matchers = [key for key in MATCHERS if given(key)]
    if len(matchers) != 1:
        said = " and ".join(matchers) or "nothing"
        report.error(here, f"{said} to match", "one of: path, path_prefix, path_re", 'path_prefix = "/" matches all')
    targets = [key for key in TARGETS if given(key)]
    if len(targets) > 1:
        report.error(here, f"{' and '.join(targets)} at once", f"at most one of: {', '.join(TARGETS)}")
    if route.answered_here:
        for key in FOR_ORIGINS:
            if given(key, "read_timeout_ns" if key == "read_timeout" else key):
                hint = f"leave it out, or leave out {targets[0]}"
                report.error(f"{here}.{key}", "is about what an origin gets, and none gets this", "nothing", hint)
    if route.pool and pools is not None and route.pool not in pools:
        report.error(
            f"{here}.pool", f"no pool {route.pool!r} in this area", "a pool's name", nearest(route.pool, pools)
        )
    answer = route.answer
    if answer is not None and answer.status in (204, 205, 304):
        if answer.status == 304:
            report.error(f"{here}.answer.status", "304 answers a question that nobody asked", "another status")
        elif answer.body:
            report.error(f"{here}.answer.body", f"an answer {answer.status} has no body", "no body, or another status")
    if answer is not None and answer.body.count("{request_id}") > PLACES_MAX:
        report.error(f"{here}.answer.body", "too many placeholders", f"at most {PLACES_MAX}")
    groups = _check_pattern(route, report, here)
    if route.redirect is not None and not report.spoiled(f"{here}.redirect.to"):
        _check_redirect(route, groups, report, f"{here}.redirect.to", any_host=any_host)
    if route.rewrite is not None and not report.lost(f"{here}.rewrite"):
        _check_rewrite(route, groups, report, here)
    check_edits(route.request_headers, report, f"{here}.request_headers", response=False)
    check_edits(route.response_headers, report, f"{here}.response_headers", response=True)


def _check_pattern(route: Route, report: Report, here: str) -> int:
    """How many groups may be named."""
    if report.spoiled(f"{here}.path_re"):
        return GROUPS_MAX
    if not route.path_re:
        return 0
    refused = pattern_refused(route.path_re)
    if refused:
        hint = "RE2 has no look-around and no references back" if "(?" in refused or "\\" in refused else ""
        report.error(f"{here}.path_re", f"{route.path_re!r}: {refused}", PATTERN_EXPECTED, hint)
        return GROUPS_MAX  # what names groups is not to blame
    return pattern_groups(route.path_re)


def _check_words(text: str, words: frozenset[str], groups: int, *, route: Route, report: Report, place: str) -> None:
    if places_in(text) > PLACES_MAX:
        report.error(place, "too many placeholders", f"at most {PLACES_MAX}")
    known = ", ".join(f"{{{word}}}" for word in sorted(words))
    for word in words_in(text):
        if word not in words:
            report.error(place, f"nothing is known as {{{word}}} here", f"one of: {known}", nearest(word, words))
    if groups_in(text) > groups:
        hint = f"the pattern has {groups}: put ( ) around a part of it" if route.path_re else "groups are path_re's"
        report.error(place, f"${groups_in(text)} names no group", "a group of path_re", hint)


def _check_redirect(route: Route, groups: int, report: Report, place: str, *, any_host: bool) -> None:
    assert route.redirect is not None
    to = route.redirect.to
    _check_words(to, REDIRECT_WORDS, groups, route=route, report=report, place=place)
    scheme = _ABSOLUTE.match(to)
    if scheme is not None:
        rest = to[scheme.end() :]
        end = _AUTHORITY_END.search(rest)
        authority = rest[: end.start()] if end else rest
        if not _AUTHORITY.fullmatch(authority):
            report.error(place, f"{authority!r} is no host to send clients to", TARGET_EXPECTED, OPEN_HINT)
        elif authority.startswith("{host}") and any_host and not route.host:
            report.warning(place, "sends clients to any host that they name", ANY_HOST_EXPECTED, ANY_HOST_HINT)
    elif not re.match(r"\{path\}|/(?:$|\{query\}|[^/\\{$])", to):
        report.error(place, f"{to!r} leaves open where it leads", TARGET_EXPECTED, OPEN_HINT)
    if route.path and to == route.path:
        report.warning(place, "leads to itself", "another place", "clients give up after some twenty rounds")


def _check_rewrite(route: Route, groups: int, report: Report, here: str) -> None:
    rewrite = route.rewrite
    assert rewrite is not None
    place = {key: f"{here}.rewrite.{key}" for key in ("to", "strip_prefix", "add_prefix")}
    to, strip, add = (bool(getattr(rewrite, key)) or report.spoiled(path) for key, path in place.items())
    if to == (strip or add):
        hint = 'rewrite = "/new{rest}", or rewrite = { strip_prefix = "/api" }'
        expected = "to, or strip_prefix and add_prefix"
        report.error(f"{here}.rewrite", "has to say either the whole path or prefixes", expected, hint)
        return
    if rewrite.to:
        _check_words(rewrite.to, REWRITE_WORDS, groups, route=route, report=report, place=place["to"])
        if "rest" in words_in(rewrite.to) and not route.path_prefix and not report.spoiled(f"{here}.path_prefix"):
            expected = "a route with path_prefix"
            report.error(place["to"], "{rest} is what follows path_prefix", expected, "use {path}, or groups")
        plain = "".join(p.text if p.kind == "text" else "x" for p in parts_of(rewrite.to, REWRITE_WORDS, groups=True))
        if normalised(plain) != plain:
            message = f"{rewrite.to!r} has segments that origins read in different ways"
            report.error(place["to"], message, "a plain path")
    stripped = rewrite.strip_prefix
    matched = route.path or route.path_prefix
    if stripped and matched and not (matched.startswith(stripped) or stripped.startswith(matched)):
        report.error(place["strip_prefix"], f"what this route matches never begins with {stripped!r}", matched)


def takes_all(earlier: Route, later: Route) -> bool:
    """Whether nothing is left to the later one (as far as exact paths and prefixes tell)."""
    if earlier.methods and not (later.methods and set(later.methods) <= set(earlier.methods)):
        return False
    wide = earlier.host.startswith("*") and later.host.removeprefix("*").endswith(earlier.host[1:])
    if earlier.host and earlier.host != later.host and not wide:
        return False
    if earlier.path:
        return earlier.path == later.path
    if earlier.path_prefix:
        begins = (later.path or later.path_prefix).startswith(earlier.path_prefix)
        return begins or (earlier.path_prefix == "/" and bool(later.path_re))
    return earlier.path_re != "" and earlier.path_re == later.path_re


def _check_order(routes: Sequence[Route], report: Report, here: str) -> None:
    def read(k: int) -> bool:
        return not report.spoiled(*(f"{here}.route[{k}].{key}" for key in (*MATCHERS, "method", "host")))

    known = [(k, route) for k, route in enumerate(routes[:ROUTES_AREA_MAX]) if read(k)]
    for at, (k, later) in enumerate(known):
        first = next((i for i, earlier in known[:at] if takes_all(earlier, later)), None)
        if first is not None:
            hint = "the first that matches wins: put the narrower one first"
            report.warning(
                f"{here}.route[{k}]", f"never matches: route[{first}] takes all of it", "another order", hint
            )


# ── files ──


class PageReader:
    """Reads the pages of one gateway file, each file once, all of them within bounds."""

    def __init__(self, home: Path, report: Report) -> None:
        self.home, self.report, self.bytes = home, report, 0
        self.read: dict[tuple[str, str], Page] = {}

    def page(self, page: Page, path: str) -> Page:
        """The page with its content."""
        if self.report.spoiled(f"{path}.path"):
            return page
        key = (page.path, page.content_type)
        if key not in self.read:
            self.read[key] = read_page(page, self.home, self.report, path)
            before, self.bytes = self.bytes, self.bytes + len(self.read[key].content)
            if before <= PAGES_BYTES_MAX < self.bytes:
                hint = "what is larger belongs to an origin"
                self.report.error(path, "all pages together are too large", f"at most {PAGES_BYTES_MAX} bytes", hint)
        return self.read[key]

    def filled(self, page: Page, path: str) -> Page:
        """A page with placeholders in it."""
        found = self.page(page, path)
        if sum(found.content.count(b"{%b}" % word.encode()) for word in PAGE_WORDS) > PLACES_MAX:
            self.report.error(path, f"{page.path} has too many placeholders", f"at most {PLACES_MAX}")
        return found

    def maintenance(self, found: Maintenance | None, path: str) -> Maintenance | None:
        if found is None or found.file is None:
            return found
        return msgspec.structs.replace(found, file=self.filled(found.file, f"{path}.file"))

    def route(self, route: Route, path: str) -> Route:
        file = self.page(route.file, f"{path}.file") if route.file is not None else None
        kept = self.maintenance(route.maintenance, f"{path}.maintenance")
        return msgspec.structs.replace(route, file=file, maintenance=kept)

    def area(self, area: Area, path: str) -> Area:
        """The area with the content of every page it names."""
        return msgspec.structs.replace(
            area,
            routes=tuple(self.route(route, f"{path}.route[{i}]") for i, route in enumerate(area.routes)),
            maintenance=self.maintenance(area.maintenance, f"{path}.maintenance"),
            error_pages={
                k: self.filled(page, join_path(f"{path}.error_pages", k)) for k, page in area.error_pages.items()
            },
        )
