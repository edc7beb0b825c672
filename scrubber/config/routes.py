"""Routes of an area: which requests are answered here, which go to another pool, what is changed on the way.

Owns the schema of `[[area.route]]` and what a route alone may say; order and reach of several are checked in
scrubber.config.routes_check. A route is matched on the path as rules see it (`normalised`), never on the bytes sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from scrubber.config.header_edits import HeaderEdits
from scrubber.config.network import HOST
from scrubber.config.pages import CONTENT_TYPE, MAINTENANCE, PAGE, PAGE_BYTES_MAX, Maintenance, Page
from scrubber.config.texts import groups_in
from scrubber.config.walk import Doc, OneOrMore, Prepared, Reads, integer, measured, nearest
from scrubber.errors import ValueRefused
from scrubber.units import format_bytes, format_duration, parse_bytes, parse_duration_ns

# ext/route_spec.pxd and ext/pattern.pxd; tests/unit/test_routes_config.py compares.
ROUTES_AREA_MAX = 256
ROUTE_PATH_BYTES_MAX = 1024
PATTERNS_MAX = 256

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
REDIRECT_WORDS = frozenset({"scheme", "host", "path", "query"})
REWRITE_WORDS = frozenset({"path", "rest"})
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
PATH_EXPECTED = f'a path as "/login", at most {ROUTE_PATH_BYTES_MAX} characters'
PATTERN_EXPECTED = r'a pattern in RE2 syntax as "^/user/([0-9]+)$"'
TARGET_EXPECTED = 'a place as "https://example.org{path}{query}" or "/new/place"'

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_PATH = re.compile(r"/[!-~]*")
_TARGET = re.compile(r"[!-~]+")


def normalised(path: str) -> str:
    """The path as rules and routes see it: escapes of printable ASCII decoded once; parameters, dot segments and empty
    ones gone. As ext/path.pyx has it."""
    kept: list[str] = []
    closing = False
    for segment in _ESCAPE.sub(_decoded, path).split("/")[1:]:
        name = segment.split(";")[0]
        closing = name in {"", ".", ".."}
        if name == "..":
            del kept[-1:]
        elif not closing:
            kept.append(name)
    text = "".join("/" + segment for segment in kept)
    return text + "/" if closing else text


def _decoded(match: re.Match[str]) -> str:
    value = int(match[1], 16)
    return chr(value) if 0x20 < value < 0x7F and value != ord("%") else match[0].upper()


def _text(value: Any, expected: str, shape: re.Pattern[str]) -> str:
    if not isinstance(value, str) or len(value) > ROUTE_PATH_BYTES_MAX:
        raise ValueRefused(f"{str(value)[:60]!r} is not {expected.partition(' as ')[0]}", expected=expected)
    if not shape.fullmatch(value):
        hint = "begin with a slash" if not value.startswith("/") else "what is not printable ASCII is written %XX"
        raise ValueRefused(f"{value[:60]!r} is not {expected.partition(' as ')[0]}", expected=expected, hint=hint)
    return value


def _path_reader(tail: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        text = _text(value, PATH_EXPECTED, _PATH)
        if "?" in text or "#" in text:
            raise ValueRefused(f"{value!r} has more than a path", expected=PATH_EXPECTED, hint="without query")
        seen = normalised(text + tail)
        if seen != text + tail:
            hint = f'write "{seen.removesuffix(tail) if tail else seen}": that is how rules and routes see it'
            raise ValueRefused(f"{value!r} never occurs in this form", expected=PATH_EXPECTED, hint=hint)
        return text

    return parse


def _parse_pattern(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > ROUTE_PATH_BYTES_MAX or not value.isascii():
        hint = "paths are ASCII: other bytes of a path are matched as %XX" if isinstance(value, str) else ""
        raise ValueRefused(f"{str(value)[:60]!r} is not a pattern", expected=PATTERN_EXPECTED, hint=hint)
    if not value.isprintable():
        raise ValueRefused("a pattern with control characters", expected=PATTERN_EXPECTED)
    return value


def _parse_to(value: Any) -> str:
    if not isinstance(value, str) or not _TARGET.fullmatch(value) or len(value) > 2048:
        raise ValueRefused(f"{str(value)[:60]!r} is no place to go", expected=TARGET_EXPECTED)
    return value


def _parse_redirect_status(value: Any) -> int:
    expected = "one of: " + ", ".join(map(str, REDIRECT_STATUSES))
    if isinstance(value, bool) or value not in REDIRECT_STATUSES:
        raise ValueRefused(f"{value!r} is not the status of a redirect", expected=expected)
    return int(value)


def _parse_method(value: Any) -> str:
    expected = "one of: " + ", ".join(METHODS)
    if value in METHODS:
        return str(value)
    raise ValueRefused(f"{value!r} is not a method", expected=expected, hint=nearest(str(value).upper(), METHODS))


def _parse_body(value: Any) -> str:
    expected = f"text of at most {PAGE_BYTES_MAX // 1024} KiB"
    if not isinstance(value, str):
        raise ValueRefused(f"{value!r} is not text", expected=expected)
    if len(value.encode()) > PAGE_BYTES_MAX:
        raise ValueRefused(f"a body of {len(value.encode())} bytes", expected=expected, hint="serve it from an origin")
    return value


def _parse_rewritten(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueRefused(f"{value!r} is not text", expected='a path as "/new{rest}"')
    text = _text(value, 'a path as "/new{rest}"', _PATH)
    if "?" in text or "#" in text:
        raise ValueRefused(
            f"{value!r} has more than a path", expected='a path as "/new{rest}"', hint="the query is kept"
        )
    return text


PATH = Reads(_path_reader(""), "/", "path")
PATH_PREFIX = Reads(_path_reader("x"), "/", "path")
PATTERN = Reads(_parse_pattern, "", "RE2 pattern")
TO = Reads(_parse_to, "/", "URL with placeholders")
METHOD = Reads(_parse_method, "GET", "method")
REWRITTEN = Reads(_parse_rewritten, "", "path with placeholders")


class Redirect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """To another place."""

    to: Annotated[
        str,
        TO,
        Doc(
            "Where to: a whole URL, or a path of this site. `{scheme}`, `{host}`, `{path}` (as sent), `{query}` (with "
            "its `?`) are filled in, and `$1` to `$9` of `path_re`. `{host}` is what the client's Host says: where the "
            "area answers for any host, give the route a `host`, or write one here.",
            '"https://example.org{path}{query}"',
        ),
    ]
    status: Annotated[
        int,
        Reads(_parse_redirect_status, 302, "`301`, `302`, `303`, `307`, `308`", str),
        Doc("308 and 301 are kept by clients for good; 307 and 308 keep method and body.", unit="status"),
    ] = 302


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fixed answer."""

    status: Annotated[int, integer(200, 599), Doc("Its status.", unit="status")] = 200
    content_type: Annotated[str, CONTENT_TYPE, Doc("Its Content-Type.")] = "text/plain; charset=utf-8"
    body: Annotated[
        str, Reads(_parse_body, "", "text, at most 64 KiB"), Doc("Its body; `{request_id}` is filled in.", '"gone\\n"')
    ] = ""


class Rewrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The path that the origin gets. Either `to`, or the other two."""

    to: Annotated[
        str,
        REWRITTEN,
        Doc(
            "The whole path. `{rest}` is what follows `path_prefix`, `{path}` the path as rules see it, `$1` to `$9` "
            "are groups of `path_re`.",
            '"/new{rest}"',
        ),
    ] = ""
    strip_prefix: Annotated[
        str, PATH_PREFIX, Doc("Taken off the front, whole segments only.", '"/api"', default="nothing")
    ] = ""
    add_prefix: Annotated[str, PATH_PREFIX, Doc("Put in front.", '"/v2"', default="nothing")] = ""


def _to_table(value: Any) -> Any:
    return {"to": value} if isinstance(value, str) else value


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests of an area that are treated in a way of their own. One of `path`, `path_prefix`, `path_re`; what it says
    of the answer is one of `pool`, `redirect`, `answer`, `file`, or none of them: the area's default pool."""

    path: Annotated[str, PATH, Doc("This path alone.", '"/login"', default="one of the three")] = ""
    path_prefix: Annotated[
        str, PATH_PREFIX, Doc("Paths that begin so, byte by byte.", '"/api/"', default="one of the three")
    ] = ""
    path_re: Annotated[
        str,
        PATTERN,
        Doc(
            "Paths in which this pattern is found (RE2 syntax; `^` and `$` tie it to the ends).",
            "'^/user/([0-9]+)$'",
            default="one of the three",
        ),
    ] = ""
    methods: Annotated[
        tuple[Annotated[str, METHOD], ...], OneOrMore(at_least=0), Doc("Only these methods.", '["GET", "HEAD"]')
    ] = msgspec.field(default=(), name="method")
    host: Annotated[str, HOST, Doc("Only this host, or all below it.", '"*.example.org"', default="any")] = ""
    pool: Annotated[str, Doc("To this pool of the area.", '"api"', default="the area's origins")] = ""
    redirect: Annotated[
        Redirect | None,
        Prepared(_to_table, 'a place or a table, as "/new" or { to = "/new", status = 308 }'),
        Doc("Answer with a redirect; a text alone is where to.", '{ to = "https://example.org{path}", status = 308 }'),
    ] = None
    answer: Annotated[Answer | None, Doc("Answer with this.", '{ status = 404, body = "no such page\\n" }')] = None
    file: Annotated[
        Page | None,
        PAGE,
        Doc("Answer GET and HEAD with this file, as its path or a table.", '"pages/robots.txt"'),
    ] = None
    rewrite: Annotated[
        Rewrite | None,
        Prepared(_to_table, 'a path or a table, as "/new{rest}" or { strip_prefix = "/api" }'),
        Doc("Another path for the origin; a text alone is `to`.", '{ strip_prefix = "/api" }'),
    ] = None
    maintenance: Annotated[
        Maintenance | None,
        MAINTENANCE,
        Doc("In place of the area's: `false` exempts what this route matches.", "false"),
    ] = None
    request_headers: Annotated[
        HeaderEdits | None, Doc("Fields of the request, after the area's edits.", '{ set = { X-Api = "2" } }')
    ] = None
    response_headers: Annotated[
        HeaderEdits | None, Doc("Fields of the answer, after the area's edits.", '{ remove = ["X-Powered-By"] }')
    ] = None
    body_bytes_max: Annotated[
        int | None,
        measured(parse_bytes, format_bytes, 0, parse_bytes("1TiB")),
        Doc("A request's body here (413).", '"1MiB"', default="the area's"),
    ] = None
    read_timeout_ns: Annotated[
        int | None,
        measured(parse_duration_ns, format_duration, parse_duration_ns("10ms"), parse_duration_ns("1h")),
        Doc("Until the origin's first byte, and between its bytes, here (504).", '"5m"', default="the area's"),
    ] = msgspec.field(default=None, name="read_timeout")

    @property
    def answered_here(self) -> bool:
        """Never an origin's."""
        return self.redirect is not None or self.answer is not None or self.file is not None

    @property
    def groups_max(self) -> int:
        """The highest group that one of its texts names."""
        texts = [self.redirect.to if self.redirect else "", self.rewrite.to if self.rewrite else ""]
        return max(groups_in(text) for text in texts)
