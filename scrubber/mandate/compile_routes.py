"""Routes, pages and header edits of an area: their sections of an image.

Owns how edits of area and route join into one list, and how texts with placeholders become parts. What may stand
where was checked with the gateway file (scrubber.config.routes_check) and is checked again by ext/route_image.pyx.
"""

from __future__ import annotations

import email.utils
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from scrubber.config.gateway import Area
from scrubber.config.header_edits import REQUEST_WORDS, HeaderEdits
from scrubber.config.pages import PAGE_WORDS, Maintenance, Page
from scrubber.config.routes import REDIRECT_WORDS, REWRITE_WORDS, Answer, Redirect, Rewrite, Route
from scrubber.config.texts import Part, parts_of
from scrubber.mandate import layout
from scrubber.mandate.image import Image, PrefixSets
from scrubber.units import NS_PER_S

Span = tuple[int, int]
EMPTY: Span = (0, 0)
ETAG_HEX = 32


@dataclass(frozen=True)
class Edit:
    """One step of an edit: `value` is None where the field is taken away."""

    name: str
    value: str | None


def joined(*of: HeaderEdits | None) -> list[Edit]:
    """Edits made one after the other, as one list: what is taken away first, then what is put in."""
    gone: dict[str, str] = {}
    put: list[tuple[str, str]] = []

    def drop(name: str) -> None:
        gone.setdefault(name.lower(), name)
        put[:] = [each for each in put if each[0].lower() != name.lower()]

    for edits in of:
        if edits is None:
            continue
        for name in edits.remove:
            drop(name)
        for name, value in edits.set_.items():
            drop(name)
            put.append((name, value))
        for name, values in edits.add.items():
            put.extend((name, value) for value in values)
    return [Edit(name, None) for name in gone.values()] + [Edit(name, value) for name, value in put]


@dataclass(frozen=True, kw_only=True)
class PageFields:
    """Of PageSpec (ext/route_spec.pxd)."""

    status: int
    content_type: str = ""
    body: Span = EMPTY
    location: Span = EMPTY
    flags: int = 0
    etag: str = ""
    modified: str = ""
    modified_s: int = 0
    retry_s: int = 0
    allow: int = 0


@dataclass(frozen=True, kw_only=True)
class RouteWriter:
    """Writes routes, pages, edits and parts of one area. `pools`: index by name, the area's own without one."""

    area: Area
    pools: Mapping[str, int]
    image: Image
    prefixes: PrefixSets
    patterns: list[str]  # of the whole image, in the order of its routes

    def write(self) -> tuple[int, ...]:
        """The area's fields about them."""
        area = self.area
        routes = [self._route(route) for route in area.routes]
        # The one for all others stands last.
        errors = sorted(area.error_pages.items(), key=lambda entry: (entry[0] == "default", entry[0]))
        pages = [self._error_page(status, page) for status, page in errors]
        return (
            *self.image.span("routes", routes),
            *self._edits(area.request_headers),
            *self._edits(area.response_headers),
            *self.image.span("pages", pages),
            self._maintenance(area.maintenance),
        )

    def to_https(self, where: str) -> int:
        """Index + 1 of the page that sends a request in clear text to https; `where`: HOST:PORT, without a host the one
        that was asked for."""
        host, _, port = where.rpartition(":")
        at = f"https://{host or '{host}'}{'' if port == '443' else ':' + port}{{path}}{{query}}"
        return self._add(PageFields(status=308, location=self._parts(at, REDIRECT_WORDS)))

    def _route(self, route: Route) -> bytes:
        area, match, path, pattern = self.area, layout.ROUTES["exact"], route.path, 0
        if route.path_prefix:
            match, path = layout.ROUTES["prefix"], route.path_prefix
        elif route.path_re:
            match, path, pattern = layout.ROUTES["pattern"], route.path_re, len(self.patterns)
            self.patterns.append(route.path_re)
        strip, rewrite = self._rewrite(route)
        closed = area.maintenance if route.maintenance is None else route.maintenance
        limits = area.limits
        return layout.ROUTE.pack(
            match,
            sum({1 << layout.METHODS[m] for m in route.methods}),
            *self.image.text(path),
            *self.image.text(route.host.removeprefix("*")),
            pattern,
            route.groups_max if route.path_re else 0,
            self.pools[route.pool],
            self._page(route),
            self._maintenance(closed),
            int(route.rewrite is not None and not route.rewrite.to),
            *self.image.text(strip),
            *rewrite,
            *self._edits(area.request_headers, route.request_headers),
            *self._edits(area.response_headers, route.response_headers),
            limits.body_bytes_max if route.body_bytes_max is None else route.body_bytes_max,
            limits.read_timeout_ns if route.read_timeout_ns is None else route.read_timeout_ns,
        )

    def _rewrite(self, route: Route) -> tuple[str, Span]:
        """What is taken off the front, and the parts of the new path."""
        rewrite: Rewrite | None = route.rewrite
        if rewrite is None:
            return "", EMPTY
        if rewrite.to:
            return route.path_prefix, self._parts(rewrite.to, REWRITE_WORDS, groups=bool(route.path_re))
        added = [Part("text", rewrite.add_prefix)] if rewrite.add_prefix else []
        return rewrite.strip_prefix, self._spell([*added, Part("rest")])

    def _edits(self, *of: HeaderEdits | None) -> Span:
        entries = []
        for edit in joined(*of):
            value = EMPTY if edit.value is None else self._parts(edit.value, REQUEST_WORDS)
            op = layout.EDIT_DROP if edit.value is None else layout.EDIT_PUT
            entries.append(layout.EDIT.pack(op, *self.image.text(edit.name), *value))
        return self.image.span("edits", entries) if entries else EMPTY

    # ── pages ──

    def _page(self, route: Route) -> int:
        """Index + 1 of what the route answers itself; 0: nothing."""
        if route.redirect is not None:
            return self._redirect(route.redirect, groups=bool(route.path_re))
        if route.answer is not None:
            return self._answer(route.answer)
        return self._file(route.file) if route.file is not None else 0

    def _redirect(self, redirect: Redirect, *, groups: bool) -> int:
        location = self._parts(redirect.to, REDIRECT_WORDS, groups=groups)
        return self._add(PageFields(status=redirect.status, location=location))

    def _answer(self, answer: Answer) -> int:
        body = self._parts(answer.body, {"request_id"})
        return self._add(PageFields(status=answer.status, content_type=answer.content_type, body=body))

    def _file(self, page: Page) -> int:
        fields = PageFields(
            status=200,
            content_type=page.content_type,
            body=self._spell([Part("text", page.content.decode("latin-1"))], latin=True),
            flags=layout.PAGE_FILE,
            etag=f'"{hashlib.sha256(page.content).hexdigest()[:ETAG_HEX]}"',
            modified=email.utils.formatdate(page.modified_s, usegmt=True),
            modified_s=page.modified_s,
        )
        return self._add(fields)

    def _maintenance(self, found: Maintenance | None) -> int:
        if found is None or not found.on:
            return 0
        fields = PageFields(
            status=found.status,
            content_type=found.file.content_type if found.file else "",
            body=self._filled(found.file) if found.file else EMPTY,
            retry_s=-(-found.retry_after_ns // NS_PER_S),
            allow=self.prefixes.add(found.allow),
        )
        return self._add(fields)

    def _error_page(self, status: str, page: Page) -> bytes:
        number = 0 if status == "default" else int(status)
        fields = PageFields(status=number, content_type=page.content_type, body=self._filled(page))
        return self._packed(fields)

    def _filled(self, page: Page) -> Span:
        return self._parts(page.content.decode("latin-1"), PAGE_WORDS, latin=True)

    def _add(self, page: PageFields) -> int:
        return self.image.add("pages", self._packed(page)) + 1

    def _packed(self, page: PageFields) -> bytes:
        texts = [span for text in (page.etag, page.modified) for span in self.image.text(text)]
        kind = self.image.text(page.content_type)
        numbers = (page.modified_s, page.retry_s, page.allow)
        return layout.PAGE.pack(page.status, page.flags, *kind, *page.body, *page.location, *texts, *numbers)

    # ── texts ──

    def _parts(self, text: str, words: Collection[str], *, groups: bool = False, latin: bool = False) -> Span:
        return self._spell(parts_of(text, words, groups=groups), latin=latin)

    def _spell(self, parts: Sequence[Part], *, latin: bool = False) -> Span:
        """Parts side by side. `latin`: each letter of their text is one byte of a file."""
        entries = []
        asked = False
        for part in parts:
            kind, text = part.kind, part.text
            if kind == "area":
                kind, text = "text", self.area.name
            if kind == "query" and asked:
                kind = "query_more"
            asked = asked or "?" in text
            data = self.image.data(text.encode("latin-1" if latin else "utf-8"))
            entries.append(layout.PART.pack(layout.PARTS[kind], part.group, *data))
        return self.image.span("parts", entries) if entries else EMPTY
